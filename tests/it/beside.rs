//! Sessions that are fed beside the runtime's threads: whole, in order, whoever leaves meanwhile.

use futures::future::join_all;
use latentd::wire::v1;

use crate::support::websocket::{Form, Socket};
use crate::support::{
    Latentd, Line, Linear, Setup, binned, blocks, counts, linear, pipeline, recorded, signal,
};

/// A server that feeds no session on the runtime's threads.
async fn server() -> Latentd {
    Setup::new().key("inline_us", 0).key("load_limit", 1).start().await
}

fn row(seq: u64) -> [f32; 2] {
    [seq as f32 % 4.0, 1.0]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_over_a_websocket_is_answered_whole_and_in_order() {
    const FRAMES: u64 = 300;
    let server = server().await;
    let opened = server.open(recorded(linear())).await.opened;
    let mut socket = Socket::attach(&server, &opened, Form::Binary).await;
    let (mut known, mut sent) = (Linear::new(), 0);
    for seq in 0..FRAMES {
        // More than a window ahead: what is not read yet waits on the road.
        while sent < FRAMES && sent < seq + 80 {
            socket.put(counts(sent, sent, &[row(sent)])).await;
            sent += 1;
        }
        let output = socket.output().await;
        assert_eq!((output.seq, output.first_bin, output.n), (Some(seq), seq, 1));
        assert_eq!(blocks::<2>(&output, 0), [known.step(row(seq))]);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_by_http_are_taken_one_after_the_other_though_their_callers_leave() {
    let server = server().await;
    let rig = server.open(recorded(linear())).await;
    for seq in 0..40 {
        // Asked for and left: whatever of it arrived is taken before the next.
        let left = rig.try_send(counts(seq, seq, &[row(seq)]));
        let _ = tokio::time::timeout(std::time::Duration::ZERO, left).await;
        let mut known = Linear::new();
        let want = (0..=seq).map(|seq| known.step(row(seq))).last().expect("one at least");
        let output = rig.send(counts(seq, seq, &[row(seq)])).await;
        assert_eq!(
            (output.first_bin, output.n),
            (seq, 1),
            "once, whether it was taken the first time or the second"
        );
        assert_eq!(blocks::<2>(&output, 0), [want]);
    }
    assert_eq!(rig.close().await.bins, 40);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_streams_of_one_session_that_are_fed_at_once_close_their_bins_in_order() {
    const BINS: u64 = 200;
    let server = server().await;
    let side = |name| v1::SignalSpec { own_writer: true, ..signal(name, "binned", &["a", "b"]) };
    let ask = v1::OpenRequest {
        wait_ms: Some(60_000.0),
        t0_ns: Some(0),
        ..recorded(pipeline("pair", [side("left"), side("right")]))
    };
    let opened = server.open(ask).await.opened;
    let lines = ["left", "right"].map(|name| {
        let (session, writer) = (opened.session.clone(), opened.writers[name].clone());
        v1::Attach { session, writer, signal: Some(name.into()) }
    });
    let answers = join_all(lines.map(|attach| {
        let server = &server;
        async move {
            let name = attach.signal.clone().expect("a signal");
            let line = Line::attach(server.live().await, attach).await.expect("attached");
            for seq in 0..BINS {
                line.put(binned(&name, seq, seq, &[[1.0, 2.0]])).await;
            }
            line.end().await
        }
    }))
    .await;
    // Each bin once, in the answer of the frame that closed it.
    let mut seen: Vec<(u64, [f32; 2])> = Vec::new();
    for outputs in &answers {
        let mut last = None;
        for output in outputs.iter().filter(|output| output.n > 0) {
            assert!(last.is_none_or(|last| last < output.first_bin), "in order");
            last = Some(output.first_bin + u64::from(output.n) - 1);
            seen.extend((output.first_bin..).zip(blocks::<2>(output, 0)));
        }
    }
    seen.sort_by_key(|(bin, _)| *bin);
    let want: Vec<_> =
        (0..BINS).map(|bin| (bin, [65.0 * (bin + 1) as f32, 130.0 * (bin + 1) as f32])).collect();
    assert_eq!(seen, want);
    server.delete(&format!("/v1/sessions/{}", opened.session)).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bins_that_are_waited_for_in_vain_close_beside_the_runtimes_threads_too() {
    let server = server().await;
    let side = |name| signal(name, "binned", &["a", "b"]);
    let ask = v1::OpenRequest { wait_ms: Some(1.0), ..pipeline("pair", [side("left"), side("right")]) };
    let mut line = server.line(ask).await;
    line.put(binned("left", 0, 0, &[[1.0, 1.0]])).await;
    line.put(binned("right", 0, 0, &[[1.0, 1.0]])).await;
    let mut bins = 0;
    let mut seq = 1;
    while bins < 20 {
        let output = line.output().await;
        bins += u64::from(output.n);
        if output.seq.is_none_or(|_| output.signal == "left") && seq < 40 {
            line.put(binned("left", seq, seq, &[[1.0, 1.0]])).await;
            seq += 1;
        }
    }
    server.delete(&format!("/v1/sessions/{}", line.opened.session)).await;
    server.stop().await;
}
