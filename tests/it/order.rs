//! The order of frames: what is missing, what comes twice, what is refused, what is given up.

use crate::support::{Latentd, Linear, Setup, bins, blocks, counts, flag_names, linear};
use latentd::wire::v1;

const ROW: [f32; 2] = [1.0, 2.0];

#[tokio::test]
async fn a_missing_frame_is_asked_for_until_it_comes_or_is_given_up_as_lost() {
    let server = Latentd::start().await;
    let rig = server.open(linear()).await;
    let mut known = Linear::new();
    assert_eq!(blocks::<2>(&rig.send(counts(0, 0, &[ROW])).await, 0), [known.step(ROW)]);
    for _ in 0..2 {
        let refused = rig.refused(counts(2, 2, &[ROW])).await;
        let fault = refused.is(409, "expected_seq", &["spikes", "frame 2 came", "frame 1 has not", "lost"]);
        assert_eq!((fault.expected_seq, fault.seq, fault.signal.as_str()), (Some(1), Some(2), "spikes"));
        assert!(!fault.consumed);
    }
    assert_eq!(blocks::<2>(&rig.send(counts(1, 1, &[ROW])).await, 0), [known.step(ROW)]);
    assert_eq!(blocks::<2>(&rig.send(counts(2, 2, &[ROW])).await, 0), [known.step(ROW)]);
    // Frame 3 is lost, with the row of bin 3: a gap in index, which is held.
    let output = rig.send(v1::Frame { lost: true, ..counts(4, 4, &[[0.0, 4.0]]) }).await;
    assert_eq!((bins(&output), output.seq), (3..5, Some(4)));
    assert_eq!(blocks::<2>(&output, 0), [known.step(ROW), known.step([0.0, 4.0])]);
    assert_eq!(flag_names(&output), [vec!["gap_filled"], vec![]]);
    // What was given up never comes back.
    let refused = rig.refused(counts(3, 3, &[ROW])).await;
    assert_eq!(refused.is(409, "already_stepped", &["frame 3", "next is 5"]).expected_seq, Some(5));
    assert_eq!(blocks::<2>(&rig.send(counts(5, 5, &[ROW])).await, 0), [known.step(ROW)]);
    assert_eq!(rig.info().await.next_seq["spikes"], 6);
    let closed = rig.close().await;
    assert_eq!((closed.bins, closed.gaps, closed.last_bin), (6, 1, Some(5)));
    server.stop().await;
}

#[tokio::test]
async fn on_a_stream_a_missing_frame_is_a_fault_and_the_stream_lives_on() {
    let server = Latentd::start().await;
    let mut line = server.line(linear()).await;
    let mut known = Linear::new();
    assert_eq!(blocks::<2>(&line.send(counts(0, 0, &[ROW])).await, 0), [known.step(ROW)]);
    // Three frames behind a hole: each is answered, none is consumed.
    for seq in 2..5 {
        line.put(counts(seq, seq, &[ROW])).await;
    }
    for seq in 2..5 {
        let fault = line.fault().await;
        assert_eq!((fault.kind.as_str(), fault.status), ("expected_seq", 409));
        assert_eq!((fault.seq, fault.expected_seq, fault.consumed), (Some(seq), Some(1), false));
    }
    for seq in 1..5 {
        assert_eq!(blocks::<2>(&line.send(counts(seq, seq, &[ROW])).await, 0), [known.step(ROW)]);
    }
    line.end().await;
    server.stop().await;
}

#[tokio::test]
async fn a_frame_sent_again_within_the_window_has_the_same_answer_and_is_stepped_once() {
    let server = Setup::new().key("window", 4).start().await;
    let rig = server.open(linear()).await;
    assert_eq!(rig.opened.window, 4);
    let mut known = Linear::new();
    let first = rig.send(counts(0, 0, &[ROW])).await;
    assert_eq!(blocks::<2>(&first, 0), [known.step(ROW)]);
    // Whatever it says now: a seq has one answer.
    assert_eq!(rig.send(counts(0, 0, &[ROW])).await, first);
    assert_eq!(rig.send(counts(0, 7, &[[9.0, 9.0]])).await, first);
    for seq in 1..5 {
        assert_eq!(blocks::<2>(&rig.send(counts(seq, seq, &[ROW])).await, 0), [known.step(ROW)]);
    }
    let refused = rig.refused(counts(0, 0, &[ROW])).await;
    let fault = refused.is(409, "already_stepped", &["spikes", "frame 0", "no longer kept"]);
    assert_eq!((fault.expected_seq, fault.seq, fault.consumed), (Some(5), Some(0), false));
    let kept = rig.send(counts(1, 1, &[ROW])).await;
    assert_eq!((kept.seq, bins(&kept)), (Some(1), 1..2));
    // What the rig says it has is no longer kept.
    let output = rig.send(v1::Frame { acked_seq: Some(3), ..counts(5, 5, &[ROW]) }).await;
    assert_eq!(blocks::<2>(&output, 0), [known.step(ROW)]);
    rig.refused(counts(3, 3, &[ROW])).await.is(409, "already_stepped", &["frame 3"]);
    assert_eq!(rig.send(counts(4, 4, &[ROW])).await.seq, Some(4));
    assert_eq!(rig.send(counts(5, 5, &[ROW])).await, output);
    assert_eq!(rig.close().await.bins, 6);
    server.stop().await;
}

#[tokio::test]
async fn a_stream_and_http_give_a_repeated_frame_the_same_answer() {
    let server = Latentd::start().await;
    let rig = server.open(linear()).await;
    let by_http = rig.send(counts(0, 0, &[ROW])).await;
    let mut line = server.attach(&rig.opened).await;
    assert_eq!((line.attached.next_seq["spikes"], line.attached.last_bin), (1, Some(0)));
    let by_stream = line.send(counts(0, 0, &[ROW])).await;
    assert_eq!(blocks::<2>(&by_stream, 0), blocks::<2>(&by_http, 0));
    assert_eq!((by_stream.seq, by_stream.lag_us), (by_http.seq, by_http.lag_us));
    // Frames by HTTP end no stream, and their order is the stream's.
    assert_eq!(rig.send(counts(1, 1, &[ROW])).await.seq, Some(1));
    assert_eq!(line.send(counts(2, 2, &[ROW])).await.seq, Some(2));
    line.end().await;
    assert_eq!(rig.close().await.bins, 3);
    server.stop().await;
}

#[tokio::test]
async fn a_refused_frame_is_not_consumed_and_comes_again_under_its_own_seq() {
    let server = Latentd::start().await;
    let rig = server.open(linear()).await;
    let mut known = Linear::new();
    let three = crate::support::binned("spikes", 0, 0, &[[1.0, 2.0, 3.0]]);
    let refused = rig.refused(three.clone()).await;
    let fault = refused.is(422, "invalid", &["spikes", "tensor", "expected", "[1, 2]", "found", "[1, 3]"]);
    assert_eq!((fault.seq, fault.expected_seq, fault.consumed), (Some(0), Some(0), false));
    assert_eq!((fault.tensor.as_str(), fault.signal.as_str()), ("tensor", "spikes"));
    assert!(!fault.expected.is_empty() && !fault.found.is_empty());
    assert_eq!(blocks::<2>(&rig.send(counts(0, 0, &[ROW])).await, 0), [known.step(ROW)]);

    let mut line = server.line(linear()).await;
    let fault = line.refused(three).await;
    assert_eq!((fault.kind.as_str(), fault.status, fault.expected_seq), ("invalid", 422, Some(0)));
    // The ones behind it wait for it by name.
    assert_eq!(line.refused(counts(1, 1, &[ROW])).await.kind, "expected_seq");
    assert_eq!(line.send(counts(0, 0, &[ROW])).await.seq, Some(0));
    line.end().await;
    server.stop().await;
}

#[tokio::test]
async fn an_echo_comes_back_and_a_frame_without_reply_is_stepped_in_silence() {
    let server = Latentd::start().await;
    let rig = server.open(linear()).await;
    let mut known = Linear::new();
    let output = rig.send(v1::Frame { echo: vec![0, 255, 7].into(), ..counts(0, 0, &[ROW]) }).await;
    assert_eq!((&output.echo[..], blocks::<2>(&output, 0)), (&[0, 255, 7][..], vec![known.step(ROW)]));
    let long = v1::Frame { echo: vec![1; 257].into(), ..counts(1, 1, &[ROW]) };
    rig.refused(long).await.is(422, "invalid", &["echo", "256", "257"]);
    let silent = rig.send(v1::Frame { reply: Some(false), ..counts(1, 1, &[ROW]) }).await;
    known.step(ROW);
    assert_eq!((bins(&silent), silent.blocks.len(), silent.features.len()), (1..2, 0, 0));
    assert_eq!(blocks::<2>(&rig.send(counts(2, 2, &[ROW])).await, 0), [known.step(ROW)]);

    let mut line = server.line(linear()).await;
    let mut known = Linear::new();
    line.put(v1::Frame { reply: Some(false), ..counts(0, 0, &[ROW]) }).await;
    // A fault still comes, and the next Output is that of the next frame that wants one.
    let fault = line.refused(v1::Frame { reply: Some(false), ..counts(5, 5, &[ROW]) }).await;
    assert_eq!((fault.kind.as_str(), fault.expected_seq), ("expected_seq", Some(1)));
    known.step(ROW);
    let output = line.send(counts(1, 1, &[ROW])).await;
    assert_eq!((output.seq, blocks::<2>(&output, 0)), (Some(1), vec![known.step(ROW)]));
    line.end().await;
    server.stop().await;
}

#[tokio::test]
async fn seq_19_digits_long_survives_json_and_an_unknown_signal_is_named() {
    let server = Latentd::start().await;
    let rig = server.open(linear()).await;
    let far = u64::MAX - 1;
    let refused = rig.refused(counts(far, 0, &[ROW])).await;
    let fault = refused.is(409, "expected_seq", &["18446744073709551614"]);
    assert_eq!(fault.seq, Some(far));
    let refused = rig.refused(crate::support::binned("spike", 0, 0, &[ROW])).await;
    let fault = refused.is(404, "not_found", &["no signal `spike`", "there are: spikes"]);
    assert_eq!((fault.signal.as_str(), fault.seq), ("spike", Some(0)));
    let output = rig.send(v1::Frame { lost: true, ..counts(far, 0, &[ROW]) }).await;
    assert_eq!((output.seq, bins(&output)), (Some(far), 0..1));
    assert_eq!(rig.info().await.next_seq["spikes"], u64::MAX);
    server.stop().await;
}

#[tokio::test]
async fn callers_that_send_one_frame_at_once_have_one_answer() {
    let server = Latentd::start().await;
    let rig = server.open(linear()).await;
    let sent = (0..8).map(|_| rig.send(counts(0, 0, &[ROW])));
    let answers = futures::future::join_all(sent).await;
    assert_eq!(blocks::<2>(&answers[0], 0), [Linear::new().step(ROW)]);
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    assert_eq!(rig.close().await.bins, 1);
    server.stop().await;
}

#[tokio::test]
async fn a_frame_without_rows_closes_nothing_and_one_with_too_many_is_refused() {
    let server = Latentd::start().await;
    let rig = server.open(linear()).await;
    let output = rig.send(counts(0, 5, &[])).await;
    assert_eq!((output.seq, output.n, output.first_bin), (Some(0), 0, 0));
    let output = rig.send(counts(1, 100, &[ROW])).await;
    assert_eq!((bins(&output), blocks::<2>(&output, 0)), (0..1, vec![Linear::new().step(ROW)]));
    let refused = rig.refused(counts(2, 101, &vec![ROW; 65_537])).await;
    refused.is(422, "invalid", &["first_index", "at most 65536 bins in one frame", "65537"]);
    assert_eq!(bins(&rig.send(counts(2, 101, &[ROW])).await), 1..2);
    rig.close().await;
    server.stop().await;
}
