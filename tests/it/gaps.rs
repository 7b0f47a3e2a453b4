//! Samples that never came: every policy, the limit, and what a bin that a gap touches becomes.

use crate::support::{Latentd, Linear, bins, blocks, counts, flag_names, linear, recorded, signal};
use latentd::wire::v1;

const ROW: [f32; 2] = [1.0, 2.0];
const LAST: [f32; 2] = [2.0, 0.0];

fn with(gap: &str) -> v1::OpenRequest {
    v1::OpenRequest { gap: gap.into(), ..recorded(linear()) }
}

/// Feeds bins 0 and 1, then bin 5: bins 2 to 4 never come. Answers what the last frame was answered, and the close.
async fn with_a_gap(server: &Latentd, ask: v1::OpenRequest) -> (Linear, v1::Output, String) {
    let rig = server.open(ask).await;
    let mut known = Linear::new();
    let output = rig.send(counts(0, 0, &[ROW, LAST])).await;
    assert_eq!(blocks::<2>(&output, 0), known.steps(&[ROW, LAST]));
    let output = rig.send(counts(1, 5, &[ROW])).await;
    let run = rig.run().to_owned();
    assert_eq!(rig.close().await.gaps, 1);
    (known, output, run)
}

#[tokio::test]
async fn hold_fills_a_gap_with_the_last_input_and_says_so() {
    let server = Latentd::start().await;
    let (mut known, output, run) = with_a_gap(&server, with("hold")).await;
    assert_eq!((bins(&output), output.skipped_bins), (2..6, 0));
    assert_eq!(blocks::<2>(&output, 0), known.steps(&[LAST, LAST, LAST, ROW]));
    let filled = vec!["gap_filled"];
    assert_eq!(flag_names(&output), [filled.clone(), filled.clone(), filled, vec![]]);
    let event = server.event(&run, "gap").await;
    assert_eq!((event.from_bin, event.to_bin, event.count), (Some(2), Some(5), 3));
    assert_eq!(event.signal, "spikes");
    assert_eq!(server.metric("latentd_gaps_total", "policy=\"hold\"").await, 1.0);
    assert_eq!(server.metric("latentd_bins_total", "outcome=\"gap_filled\"").await, 3.0);
    assert_eq!(server.metric("latentd_bins_total", "outcome=\"answered\"").await, 3.0);
    // Nothing to hold yet: the input's fill, 0, every channel masked.
    let rig = server.open(v1::OpenRequest { t0_ns: Some(1_000_000_000), ..with("hold") }).await;
    let mut known = Linear::new();
    let late = v1::Frame { t_device_ns: Some(1_020_000_000), ..counts(0, 0, &[ROW]) };
    let output = rig.send(late).await;
    assert_eq!(blocks::<2>(&output, 0), known.steps(&[[0.0; 2], [0.0; 2], ROW]));
    assert!(flag_names(&output)[0].contains(&"gap_filled"), "{:?}", flag_names(&output));
    assert_eq!(flag_names(&output)[2], Vec::<&str>::new());
    server.stop().await;
}

#[tokio::test]
async fn zero_fills_a_gap_with_zeros() {
    let server = Latentd::start().await;
    let (mut known, output, _) = with_a_gap(&server, with("zero")).await;
    assert_eq!(bins(&output), 2..6);
    assert_eq!(blocks::<2>(&output, 0), known.steps(&[[0.0; 2], [0.0; 2], [0.0; 2], ROW]));
    assert_eq!(flag_names(&output)[0], ["gap_filled"]);
    assert_eq!(server.metric("latentd_gaps_total", "policy=\"zero\"").await, 1.0);
    server.stop().await;
}

#[tokio::test]
async fn skip_answers_no_bin_of_a_gap_and_keeps_the_state() {
    let server = Latentd::start().await;
    let (mut known, output, run) = with_a_gap(&server, with("skip")).await;
    assert_eq!((bins(&output), output.skipped_bins), (5..6, 3));
    assert_eq!(blocks::<2>(&output, 0), [known.step(ROW)]);
    assert_eq!(flag_names(&output), [Vec::<&str>::new()]);
    let event = server.event(&run, "skipped").await;
    assert_eq!((event.from_bin, event.to_bin, event.count), (Some(2), Some(5), 3));
    assert_eq!(server.metric("latentd_bins_total", "outcome=\"skipped\"").await, 3.0);
    assert_eq!(server.metric("latentd_gaps_total", "policy=\"skip\"").await, 1.0);
    server.stop().await;
}

#[tokio::test]
async fn reset_answers_no_bin_of_a_gap_and_starts_the_state_anew() {
    let server = Latentd::start().await;
    let (_, output, run) = with_a_gap(&server, with("reset")).await;
    assert_eq!((bins(&output), output.skipped_bins), (5..6, 3));
    assert_eq!(blocks::<2>(&output, 0), [Linear::new().step(ROW)]);
    assert_eq!(flag_names(&output), [["reset"]]);
    let event = server.event(&run, "reset").await;
    assert_eq!((event.from_bin, event.to_bin), (Some(5), Some(6)));
    server.stop().await;
}

#[tokio::test]
async fn fail_refuses_the_frame_behind_a_gap_until_the_samples_come_or_a_reset_forgives() {
    let server = Latentd::start().await;
    let rig = server.open(with("fail")).await;
    let mut known = Linear::new();
    known.steps(&[ROW, LAST]);
    rig.send(counts(0, 0, &[ROW, LAST])).await;
    let refused = rig.refused(counts(1, 5, &[ROW])).await;
    let fault = refused.is(409, "gap", &["spikes", "first_index is 5", "2 comes next", "reset"]);
    assert_eq!((fault.seq, fault.expected_seq, fault.consumed), (Some(1), Some(1), false));
    assert_eq!((fault.expected.as_str(), fault.found.as_str()), ("2", "5"));
    // The missing samples come.
    let output = rig.send(counts(1, 2, &[ROW])).await;
    assert_eq!(blocks::<2>(&output, 0), [known.step(ROW)]);
    // They cannot come: a reset of everything lets the next frame leave a gap.
    rig.refused(counts(2, 5, &[ROW])).await.is(409, "gap", &["3 comes next"]);
    rig.reset("model", None).await.unwrap();
    rig.refused(counts(2, 5, &[ROW])).await.is(409, "gap", &["3 comes next"]);
    assert_eq!(rig.reset("all", None).await.unwrap(), 3);
    let output = rig.send(counts(2, 5, &[ROW])).await;
    assert_eq!(output.first_bin + u64::from(output.n), 6);
    assert!(flag_names(&output)[0].contains(&"reset"), "{:?}", flag_names(&output));
    rig.refused(counts(3, 9, &[ROW])).await.is(409, "gap", &["6 comes next"]);
    rig.send(counts(3, 6, &[ROW])).await;

    let mut line = server.line(with("fail")).await;
    line.send(counts(0, 0, &[ROW])).await;
    let fault = line.refused(counts(1, 3, &[ROW])).await;
    assert_eq!((fault.kind.as_str(), fault.status, fault.expected_seq), ("gap", 409, Some(1)));
    assert_eq!(line.send(counts(1, 1, &[ROW])).await.seq, Some(1));
    line.end().await;
    server.stop().await;
}

#[tokio::test]
async fn a_gap_longer_than_max_gap_ms_is_skipped_named_and_followed_by_a_reset() {
    let server = Latentd::start().await;
    // 30 ms are exactly filled, anything longer is not.
    let (mut known, output, _) =
        with_a_gap(&server, v1::OpenRequest { max_gap_ms: Some(30.0), ..with("hold") }).await;
    assert_eq!(bins(&output), 2..6);
    assert_eq!(blocks::<2>(&output, 0), known.steps(&[LAST, LAST, LAST, ROW]));
    for gap in ["hold", "zero", "skip"] {
        let ask = v1::OpenRequest { max_gap_ms: Some(29.0), ..with(gap) };
        let (_, output, run) = with_a_gap(&server, ask).await;
        assert_eq!((bins(&output), output.skipped_bins), (5..6, 3), "{gap}");
        assert_eq!(blocks::<2>(&output, 0), [Linear::new().step(ROW)], "{gap}");
        assert_eq!(flag_names(&output), [["reset"]], "{gap}");
        let event = server.event(&run, "skipped").await;
        assert_eq!((event.from_bin, event.to_bin, event.count), (Some(2), Some(5), 3));
        assert_eq!(server.event(&run, "reset").await.from_bin, Some(5));
        // The recorded bins leave the hole out.
        let reply: v1::OutputsReply =
            server.get(&format!("/v1/runs/{run}/outputs/v?from=0&to=10")).await.message();
        let stretches: Vec<_> = reply.stretches.iter().map(|s| (s.first_bin, s.n)).collect();
        assert_eq!(stretches, [(0, 2), (5, 1)], "{gap}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_gap_of_more_bins_than_one_frame_may_cover_is_not_filled_and_says_so_and_skip_keeps_the_state() {
    let server = Latentd::start().await;
    for gap in ["hold", "skip"] {
        let rig = server.open(v1::OpenRequest { max_gap_ms: Some(1e9), ..with(gap) }).await;
        let mut known = Linear::new();
        known.step(ROW);
        rig.send(counts(0, 0, &[ROW])).await;
        let output = rig.send(counts(1, 70_001, &[ROW])).await;
        assert_eq!((bins(&output), output.skipped_bins), (70_001..70_002, 70_000), "{gap}");
        let run = rig.run().to_owned();
        rig.close().await;
        let event = server.event(&run, "gap").await;
        assert_eq!(event.count, 70_000);
        assert!(!event.detail.contains("max_gap_ms"), "{gap}: {}", event.detail);
        if gap == "skip" {
            assert_eq!(blocks::<2>(&output, 0), [known.step(ROW)]);
            assert_eq!(flag_names(&output), [Vec::<&str>::new()]);
        } else {
            crate::support::says(&event.detail, &["more than the 65536 bins", "not filled"]);
            assert_eq!(flag_names(&output), [["reset"]]);
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn a_bin_that_a_gap_touches_is_filled_or_skipped_as_a_whole() {
    let server = Latentd::start().await;
    for (gap, filled) in [("hold", true), ("skip", false)] {
        // Rows of 5 ms: two make a bin.
        let mut ask = with(gap);
        ask.signals[0].bin_ms = Some(5.0);
        let rig = server.open(ask).await;
        let mut known = Linear::new();
        let output = rig.send(counts(0, 0, &[[1.0, 0.0], [2.0, 1.0]])).await;
        assert_eq!(blocks::<2>(&output, 0), [known.step([3.0, 1.0])]);
        // Row 2 never comes; row 3 lies in the same bin.
        let output = rig.send(counts(1, 3, &[[7.0, 7.0], [1.0, 1.0], [1.0, 0.0]])).await;
        if filled {
            assert_eq!(bins(&output), 1..3);
            assert_eq!(blocks::<2>(&output, 0), known.steps(&[[3.0, 1.0], [2.0, 1.0]]));
            assert_eq!(flag_names(&output), [vec!["gap_filled"], vec![]]);
        } else {
            assert_eq!((bins(&output), output.skipped_bins), (2..3, 1));
            assert_eq!(blocks::<2>(&output, 0), [known.step([2.0, 1.0])]);
        }
        rig.close().await;
    }
    server.stop().await;
}

#[tokio::test]
async fn a_divided_answer_asked_for_again_by_http_is_its_first_part_and_says_how_many_more_there_are() {
    let server = Latentd::start().await;
    let mut line = server.line(v1::OpenRequest { lateness_ms: 10.0, ..with("skip") }).await;
    let rig = line.opened.clone();
    let divided = counts(1, 5, &[ROW, LAST]);
    let whole = line.send(counts(0, 0, &[ROW, LAST])).await;
    line.put(divided.clone()).await;
    let parts = [line.output().await, line.output().await];
    assert_eq!(parts.each_ref().map(bins), [1..2, 5..6]);
    assert_eq!((parts[1].skipped_bins, parts[0].dropped, parts[1].dropped), (3, 0, 0));
    let again = async |frame: v1::Frame| -> v1::Output {
        let frame = v1::Frame { writer: rig.writers["spikes"].clone(), ..frame };
        let body = serde_json::to_vec(&frame).unwrap();
        server.post(&format!("/v1/sessions/{}/frames", rig.session), body).await.message()
    };
    for _ in 0..2 {
        let first = again(divided.clone()).await;
        assert_eq!((bins(&first), first.seq, first.dropped), (1..2, Some(1), 1));
        assert_eq!(blocks::<2>(&first, 0), blocks::<2>(&parts[0], 0));
    }
    let first = again(counts(0, 0, &[ROW, LAST])).await;
    assert_eq!((bins(&first), first.dropped), (bins(&whole), 0), "an answer that is one message is whole");
    // By a stream all of it comes again.
    line.put(divided).await;
    for part in &parts {
        let told = line.output().await;
        assert_eq!((bins(&told), told.dropped, told.skipped_bins), (bins(part), 0, part.skipped_bins));
    }
    line.end().await;
    server.stop().await;
}

#[tokio::test]
async fn an_answer_ends_before_an_unfilled_gap_and_the_rest_comes_in_the_next() {
    let server = Latentd::start().await;
    // With 10 ms of lateness bin 1 closes with the frame behind the gap.
    let ask = || v1::OpenRequest { lateness_ms: 10.0, ..with("skip") };
    let frames = || [counts(0, 0, &[ROW, LAST]), counts(1, 5, &[ROW, LAST]), counts(2, 7, &[ROW])];
    let mut known = Linear::new();
    let steps = known.steps(&[ROW, LAST, ROW, LAST]);

    let rig = server.open(ask()).await;
    let [first, second, third] = frames();
    assert_eq!(blocks::<2>(&rig.send(first).await, 0), steps[..1]);
    let output = rig.send(second).await;
    assert_eq!((bins(&output), blocks::<2>(&output, 0)), (1..2, steps[1..2].to_vec()));
    let output = rig.send(third).await;
    assert_eq!((bins(&output), output.skipped_bins, output.seq), (5..7, 3, Some(2)));
    assert_eq!(blocks::<2>(&output, 0), steps[2..]);
    rig.close().await;

    let mut line = server.line(ask()).await;
    for frame in frames() {
        line.put(frame).await;
    }
    let mut messages = Vec::new();
    for _ in 0..4 {
        let output = line.output().await;
        messages.push((output.seq.unwrap(), bins(&output), output.skipped_bins, blocks::<2>(&output, 0)));
    }
    assert_eq!(
        messages,
        [
            (0, 0..1, 0, steps[..1].to_vec()),
            (1, 1..2, 0, steps[1..2].to_vec()),
            (1, 5..6, 3, steps[2..3].to_vec()),
            (2, 6..7, 0, steps[3..].to_vec()),
        ]
    );
    line.end().await;
    server.stop().await;
}

#[tokio::test]
async fn a_stretch_that_no_frame_of_events_covers_is_a_gap_and_an_empty_frame_is_none() {
    let server = Latentd::start().await;
    let ask = recorded(crate::support::pipeline("events", [signal("spikes", "spike_events", &["a", "b"])]));
    let rig = server.open(ask).await;
    let ms = 1_000_000;
    let mut known = Linear::new();
    let output =
        rig.send(crate::support::spikes("spikes", 0, 0, 10 * ms, &[(0, 0), (1, ms), (0, 9 * ms)])).await;
    assert_eq!(blocks::<2>(&output, 0), [known.step([2.0, 1.0])]);
    let output = rig.send(crate::support::spikes("spikes", 1, 10 * ms, 10 * ms, &[])).await;
    assert_eq!(blocks::<2>(&output, 0), [known.step([0.0, 0.0])]);
    assert_eq!(flag_names(&output), [Vec::<&str>::new()]);
    let output = rig.send(crate::support::spikes("spikes", 2, 30 * ms, 10 * ms, &[(1, 30 * ms)])).await;
    assert_eq!(bins(&output), 2..4);
    assert_eq!(blocks::<2>(&output, 0), known.steps(&[[0.0, 0.0], [0.0, 1.0]]));
    assert_eq!(flag_names(&output), [vec!["gap_filled"], vec![]]);
    let run = rig.run().to_owned();
    rig.close().await;
    assert_eq!(server.event(&run, "gap").await.count, 1);
    server.stop().await;
}
