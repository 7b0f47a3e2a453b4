//! Signals that fall silent, clocks that are not known, counters that restart.

use crate::support::{
    Latentd, Line, Linear, Setup, binned, bins, block, blocks, carried, counts, flag_names, linear, models,
    pipeline, recorded, says, signal, within,
};
use latentd::wire::v1;
use latentd::wire::v1::down::Message as Down;

const MS: i64 = 1_000_000;

/// `pair` with its two inputs: sum[t] = sum[t-1] + left[t] + 64 right[t].
fn pair() -> v1::OpenRequest {
    pipeline("pair", [signal("left", "binned", &["a", "b"]), signal("right", "binned", &["a", "b"])])
}

fn left(seq: u64, index: u64, rows: &[[f32; 2]]) -> v1::Frame {
    binned("left", seq, index, rows)
}

fn right(seq: u64, index: u64, rows: &[[f32; 2]]) -> v1::Frame {
    binned("right", seq, index, rows)
}

#[tokio::test]
async fn a_bin_closes_when_every_required_signal_has_covered_it() {
    let server = Latentd::start().await;
    let rig = server.open(v1::OpenRequest { wait_ms: Some(60_000.0), ..pair() }).await;
    let output = rig.send(left(0, 0, &[[1.0, 2.0], [3.0, 4.0]])).await;
    assert_eq!((output.n, output.first_bin), (0, 0));
    let output = rig.send(right(0, 0, &[[1.0, 0.0]])).await;
    assert_eq!((output.signal.as_str(), bins(&output)), ("right", 0..1));
    assert_eq!(blocks::<2>(&output, 0), [[65.0, 2.0]]);
    let output = rig.send(right(1, 1, &[[0.0, 1.0], [0.0, 1.0]])).await;
    assert_eq!(blocks::<2>(&output, 0), [[68.0, 70.0]]);
    let closed = rig.close().await;
    assert_eq!((closed.bins, closed.last_bin), (2, Some(1)));
    server.stop().await;
}

/// Pushed bins until there are `n`; each message has no `seq`.
async fn pushed(line: &mut Line, n: u32) -> (Vec<[f32; 2]>, Vec<Vec<&'static str>>) {
    let (mut rows, mut flags) = (Vec::new(), Vec::new());
    while (rows.len() as u32) < n {
        let output = line.output().await;
        assert_eq!((output.seq, output.signal.as_str()), (None, ""), "{output:?}");
        rows.extend(blocks::<2>(&output, 0));
        flags.extend(flag_names(&output));
    }
    (rows, flags)
}

#[tokio::test]
async fn after_wait_ms_bins_close_without_a_stalled_signal_held_then_by_its_fill() {
    let server = Latentd::start().await;
    let ask = || v1::OpenRequest { wait_ms: Some(30.0), max_gap_ms: Some(20.0), ..recorded(pair()) };
    let mut line = server.line(ask()).await;
    line.put(left(0, 0, &[[1.0, 2.0]])).await;
    assert_eq!(line.output().await.n, 0);
    let output = line.send(right(0, 0, &[[1.0, 0.0]])).await;
    assert_eq!(blocks::<2>(&output, 0), [[65.0, 2.0]]);
    // The right falls silent: two bins are held, the third gets the input's fill and is masked.
    let output = line.send(left(1, 1, &[[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])).await;
    assert_eq!((output.n, output.first_bin), (0, 1));
    let (rows, flags) = pushed(&mut line, 3).await;
    assert_eq!(rows, [[130.0, 2.0], [195.0, 2.0], [196.0, 2.0]]);
    let held = ["gap_filled", "signal_missing"];
    assert_eq!(flags[..2], [held, held]);
    assert!(flags[2].contains(&"signal_missing"), "{flags:?}");
    // It comes back: what is for closed bins is late, the rest is used.
    let output = line.send(right(1, 1, &[[9.0, 9.0], [9.0, 9.0], [9.0, 9.0], [1.0, 1.0]])).await;
    assert_eq!((output.n, output.first_bin), (0, 4));
    let output = line.send(left(2, 4, &[[0.0, 0.0]])).await;
    assert_eq!(blocks::<2>(&output, 0), [[260.0, 66.0]]);
    assert_eq!(flag_names(&output), [Vec::<&str>::new()]);
    let run = line.opened.run.clone().unwrap();
    let session = line.opened.session.clone();
    assert!(line.notices.iter().any(|notice| notice.kind == "signal_missing" && notice.signal == "right"));
    line.end().await;
    let closed: v1::CloseReply = server.delete(&format!("/v1/sessions/{session}")).await.message();
    assert_eq!((closed.bins, closed.late, closed.dropped), (5, 3, 3));
    let event = server.event(&run, "signal_missing").await;
    assert_eq!((event.signal.as_str(), event.from_bin, event.to_bin), ("right", Some(1), Some(4)));
    assert_eq!(event.count, 3, "bins of the stall");

    // By HTTP, bins that a wait has closed come first in the next answer.
    let rig = server.open(ask()).await;
    rig.send(left(0, 0, &[[1.0, 2.0]])).await;
    rig.send(right(0, 0, &[[1.0, 0.0]])).await;
    rig.send(left(1, 1, &[[1.0, 0.0]])).await;
    crate::support::until(crate::support::LIMIT, "bin 1 closed by its wait", || async {
        (rig.info().await.last_bin == Some(1)).then_some(())
    })
    .await;
    let output = rig.send(right(1, 2, &[[0.0, 0.0]])).await;
    assert_eq!((bins(&output), output.seq), (1..2, Some(1)));
    assert_eq!(flag_names(&output), [held]);
    rig.close().await;
    server.stop().await;
}

#[tokio::test]
async fn a_stream_that_never_reads_what_is_pushed_to_it_ends_overloaded_and_the_next_answer_has_the_bins() {
    let server = Setup::new().key("window", 2).start().await;
    let rig = server.open(v1::OpenRequest { wait_ms: Some(1.0), ..pair() }).await;
    rig.send(left(0, 0, &[[1.0, 2.0]])).await;
    assert_eq!(rig.send(right(0, 0, &[[1.0, 0.0]])).await.n, 1);
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", server.grpc));
    // Little lies on the way, so that the rest waits in the server.
    let narrow = endpoint.unwrap().initial_stream_window_size(1024).initial_connection_window_size(65_535);
    let mut client = v1::live_client::LiveClient::new(narrow.connect().await.unwrap());
    let writer = rig.opened.writers["right"].clone();
    let attach = v1::Attach { session: rig.session().into(), writer, signal: Some("right".into()) };
    let ups = tokio_stream::iter([v1::Up { message: Some(v1::up::Message::Attach(attach)) }]);
    let ups = tokio_stream::StreamExt::chain(ups, tokio_stream::pending());
    let mut silent = within("a stream", client.stream(ups)).await.expect("attached").into_inner();
    within("attached", silent.message()).await.unwrap();
    let (mut fed, mut answered) = (1, 0);
    while rig.info().await.writers["right"] == "attached" {
        assert!(fed < 3_000, "it holds all that is pushed");
        for _ in 0..20 {
            let output = rig.send(left(fed, fed, &[[1.0, 0.0]])).await;
            answered += output.n;
            fed += 1;
        }
    }
    // What closes from now on is held as for no stream.
    crate::support::until(crate::support::LIMIT, "all bins", || async {
        (rig.info().await.last_bin == Some(fed - 1)).then_some(())
    })
    .await;
    let output = rig.send(left(fed, fed, &[])).await;
    let mut next_bin = 1;
    let status = loop {
        match within("what waits", silent.message()).await {
            Ok(Some(v1::Down { message: Some(Down::Output(output)) })) => {
                assert_eq!((output.seq, output.first_bin), (None, next_bin));
                next_bin += u64::from(output.n);
            }
            Ok(Some(_)) => {}
            Ok(None) => panic!("it ended well"),
            Err(status) => break status,
        }
    };
    says(&carried(&status, tonic::Code::ResourceExhausted, "overloaded").detail, &["read"]);
    assert!(next_bin >= 256 && answered + output.n > 0, "{next_bin}");
    assert_eq!(next_bin + u64::from(answered + output.n), fed, "each bin once");
    rig.close().await;
    server.stop().await;
}

#[tokio::test]
async fn an_input_that_is_not_required_may_be_missing_and_never_holds_a_bin() {
    let optional = models::pair()
        .replace("tensor = \"r\"\ntype", "tensor = \"r\"\nrequired = false\ntype")
        .named("optional");
    let server = Setup::new().model(optional).start().await;
    let ask = pipeline("optional", [signal("left", "binned", &["a", "b"])]);
    let rig = server.open(ask).await;
    let output = rig.send(left(0, 0, &[[1.0, 2.0]])).await;
    assert_eq!(blocks::<2>(&output, 0), [[1.0, 2.0]]);
    rig.close().await;
    let refused =
        server.try_open(pipeline("pair", [signal("left", "binned", &["a", "b"])])).await.err().unwrap();
    refused.is(422, "invalid", &["signals", "`right`", "found `left`"]);
    server.stop().await;
}

#[tokio::test]
async fn clocks_of_unknown_origin_are_never_mixed() {
    let server = Latentd::start().await;
    let on_two = |by: &str, offset_ns: Option<i64>| {
        let mut ask = pair();
        ask.signals[1].clock = "camera".into();
        ask.signals[1].clock_by = by.into();
        ask.signals[1].clock_offset_ns = offset_ns;
        ask
    };
    // No probe has come.
    let rig = server.open(on_two("exchange", None)).await;
    rig.send(left(0, 0, &[[1.0, 2.0]])).await;
    let frame = || v1::Frame { t_device_ns: Some(7_000 * MS), ..right(0, 0, &[[1.0, 0.0]]) };
    let refused = rig.refused(frame()).await;
    let fault =
        refused.is(409, "clock_unknown", &["right", "camera", "probe", "clock_by", "clock_offset_ns"]);
    assert_eq!((fault.seq, fault.expected_seq, fault.consumed), (Some(0), Some(0), false));
    let mut line = server.line(on_two("exchange", None)).await;
    line.send(left(0, 0, &[[1.0, 2.0]])).await;
    let fault = line.refused(frame()).await;
    assert_eq!((fault.kind.as_str(), fault.status), ("clock_unknown", 409));
    line.end().await;

    // Declared: t_session = t_device + offset.
    let rig = server.open(on_two("declared", Some(-7_000 * MS))).await;
    rig.send(left(0, 0, &[[1.0, 2.0]])).await;
    let output = rig.send(frame()).await;
    assert_eq!((bins(&output), blocks::<2>(&output, 0)), (0..1, vec![[65.0, 2.0]]));
    // Without its time a frame of another clock has no place.
    let rig = server.open(on_two("declared", Some(0))).await;
    rig.send(left(0, 0, &[[1.0, 2.0]])).await;
    rig.refused(right(0, 0, &[[1.0, 0.0]])).await.is(422, "invalid", &["t_device_ns", "camera", "none"]);
    for (by, offset, parts) in [
        ("declared", None, ["clock_offset_ns", "expected an offset"]),
        ("exchange", Some(1), ["clock_offset_ns", "found an offset"]),
        ("rubidium", None, ["clock_by", "exchange"]),
    ] {
        let refused = server.try_open(on_two(by, offset)).await.err().unwrap();
        refused.is(422, "invalid", &parts);
    }

    // By arrival: a frame's end is when it came, so that it lies where the left is.
    let rig = server.open(v1::OpenRequest { wait_ms: Some(60_000.0), ..on_two("arrival", None) }).await;
    rig.send(left(0, 0, &[[1.0, 2.0]])).await;
    let output = rig.send(right(0, 0, &[[1.0, 0.0]])).await;
    assert_eq!(output.signal, "right");
    rig.close().await;
    server.stop().await;
}

#[tokio::test]
async fn a_declared_restart_begins_an_epoch_and_the_bins_go_on() {
    let server = Latentd::start().await;
    let rig = server.open(v1::OpenRequest { gap: "hold".into(), ..recorded(linear()) }).await;
    let mut known = Linear::new();
    let stamped =
        |seq, index, t, rows: &[[f32; 2]]| v1::Frame { t_device_ns: Some(t), ..counts(seq, index, rows) };
    let output = rig.send(stamped(0, 500, 5_000 * MS, &[[1.0, 2.0]])).await;
    assert_eq!((bins(&output), blocks::<2>(&output, 0)), (0..1, vec![known.step([1.0, 2.0])]));
    let output = rig.send(v1::Frame { epoch: true, ..stamped(1, 0, 0, &[[0.0, 1.0], [1.0, 0.0]]) }).await;
    // The gap's length is the server's clock's to say, in whole bins; the last two are the frame's.
    let next = output.first_bin + u64::from(output.n);
    assert!(next >= 3 && output.n >= 2, "{output:?}");
    let raw = blocks::<2>(&output, 1);
    assert_eq!(raw[raw.len() - 2..], [[2.5, -0.5], [1.5, -2.0]], "what the inputs alone say");
    // The index of the new epoch goes on.
    let output = rig.send(stamped(2, 2, 20 * MS, &[[1.0, 1.0]])).await;
    assert_eq!(bins(&output), next..next + 1);
    let run = rig.run().to_owned();
    rig.close().await;
    let event = server.event(&run, "clock_epoch").await;
    crate::support::says(&event.detail, &["declared", "501", "5000000000", "stamp 0 ns"]);
    server.stop().await;
}

#[tokio::test]
async fn a_counter_that_steps_back_while_the_stamps_go_on_is_a_restart() {
    let server = Latentd::start().await;
    let rig = server.open(recorded(linear())).await;
    let stamped = |seq, index, t| v1::Frame { t_device_ns: Some(t), ..counts(seq, index, &[[1.0, 2.0]]) };
    rig.send(stamped(0, 500, 5_000 * MS)).await;
    let output = rig.send(stamped(1, 0, 5_010 * MS)).await;
    assert!(output.n >= 1, "{output:?}");
    let run = rig.run().to_owned();
    let closed = rig.close().await;
    assert_eq!(closed.late, 0);
    crate::support::says(
        &server.event(&run, "clock_epoch").await.detail,
        &["stepped back", "501", "5010000000", "5000000000"],
    );
    // With its old stamp it is the same sample again.
    let rig = server.open(recorded(linear())).await;
    rig.send(stamped(0, 500, 5_000 * MS)).await;
    assert_eq!(rig.send(stamped(1, 500, 5_000 * MS)).await.n, 0);
    assert_eq!(rig.close().await.late, 1);
    server.stop().await;
}

#[tokio::test]
async fn where_index_and_stamp_disagree_the_index_wins_and_an_event_says_so() {
    let server = Latentd::start().await;
    let rig = server.open(recorded(linear())).await;
    let mut known = Linear::new();
    let stamped = |seq, t| v1::Frame { t_device_ns: Some(t), ..counts(seq, seq, &[[1.0, 2.0]]) };
    for (seq, off) in [(0, 0), (1, 2), (2, 70), (3, -60)] {
        let output = rig.send(stamped(seq, (10 * seq as i64 + off) * MS)).await;
        assert_eq!((bins(&output), blocks::<2>(&output, 0)), (seq..seq + 1, vec![known.step([1.0, 2.0])]));
    }
    let run = rig.run().to_owned();
    assert_eq!(rig.close().await.gaps, 0);
    // Merged: two within ten seconds are one entry.
    let event = server.event(&run, "clock_disagrees").await;
    assert_eq!((event.count, event.signal.as_str()), (2, "spikes"));
    server.stop().await;
}

#[tokio::test]
async fn a_wrong_first_stamp_is_found_out_by_those_after_it() {
    let server = Latentd::start().await;
    let rig = server.open(recorded(linear())).await;
    for seq in 0..20 {
        let off = if seq == 0 { 900 } else { 0 };
        let stamp = (10 * seq as i64 + off) * MS;
        let frame = v1::Frame { t_device_ns: Some(stamp), ..counts(seq, seq, &[[1.0, 2.0]]) };
        assert_eq!(bins(&rig.send(frame).await), seq..seq + 1);
    }
    let run = rig.run().to_owned();
    rig.close().await;
    let event = server.event(&run, "clock_disagrees").await;
    assert_eq!(event.count, 3, "the three frames that it took, not every good one");
    crate::support::says(&event.detail, &["the stamp of index 0", "from index 1 to 3", "-900000000 ns"]);
    server.stop().await;
}

#[tokio::test]
async fn rows_off_the_grid_of_a_given_t0_are_refused() {
    let server = Latentd::start().await;
    let rig = server.open(v1::OpenRequest { t0_ns: Some(1_000 * MS), ..linear() }).await;
    let at = |t: i64| v1::Frame { t_device_ns: Some(t), ..counts(0, 0, &[[1.0, 2.0]]) };
    let refused = rig.refused(at(1_005 * MS)).await;
    refused.is(422, "invalid", &["t_device_ns", "t0_ns = 1000000000", "2000000", "off"]);
    // Within the tolerance it is put on the grid.
    assert_eq!(bins(&rig.send(at(1_001 * MS)).await), 0..1);
    assert_eq!(block(&rig.send(counts(1, 1, &[[0.0, 0.0]])).await, 1), [0.5, -1.0]);
    rig.close().await;
    server.stop().await;
}
