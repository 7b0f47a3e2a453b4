//! Data that came before, comes again, or comes for a bin that has closed; and a backlog.

use std::time::{Duration, Instant};

use crate::support::{
    LIMIT, Latentd, Linear, bins, blocks, counts, flag_names, linear, pipeline, recorded, signal, spikes,
    until,
};
use latentd::wire::v1;

const ROW: [f32; 2] = [1.0, 2.0];
const MS: i64 = 1_000_000;

fn events(late: &str) -> v1::OpenRequest {
    let ask = pipeline("events", [signal("spikes", "spike_events", &["a", "b"])]);
    v1::OpenRequest { late: late.into(), ..recorded(ask) }
}

#[tokio::test]
async fn samples_that_came_already_are_dropped_and_counted_and_the_new_part_is_used() {
    let server = Latentd::start().await;
    for late in ["drop", "next", "fail"] {
        let rig = server.open(v1::OpenRequest { late: late.into(), ..recorded(linear()) }).await;
        let mut known = Linear::new();
        known.steps(&[ROW, ROW]);
        rig.send(counts(0, 0, &[ROW, ROW])).await;
        // Wholly the same samples under a new seq: consumed, nothing closes.
        let output = rig.send(counts(1, 0, &[ROW, ROW])).await;
        assert_eq!((output.n, output.first_bin, output.seq), (0, 2, Some(1)), "{late}");
        assert_eq!((output.blocks.len(), output.flags.len()), (0, 0));
        // Overlapping: index 1 came, 2 and 3 are new.
        let output = rig.send(counts(2, 1, &[[9.0, 9.0], [0.0, 1.0], [3.0, 0.0]])).await;
        assert_eq!(bins(&output), 2..4);
        assert_eq!(blocks::<2>(&output, 0), known.steps(&[[0.0, 1.0], [3.0, 0.0]]), "{late}");
        assert_eq!(flag_names(&output), [Vec::<&str>::new(), vec![]]);
        let run = rig.run().to_owned();
        let closed = rig.close().await;
        assert_eq!((closed.late, closed.dropped, closed.gaps), (3, 3, 0), "{late}");
        let told = server.events(&run, "overlap").await;
        assert_eq!(told.iter().map(|event| event.count).sum::<u64>(), 3, "{late}");
        let of_bins = |event: &v1::Event| (event.from_bin, event.to_bin);
        assert_eq!(told.first().map(of_bins), Some((Some(0), Some(2))), "{late}: the closed bins");
    }
    // In each session data came again for bins 0 and 1, and were left out; for bin 1 twice.
    assert_eq!(server.metric("latentd_bins_total", "outcome=\"late\"").await, 6.0);
    assert_eq!(server.metric("latentd_bins_total", "outcome=\"dropped\"").await, 6.0);
    server.stop().await;
}

#[tokio::test]
async fn what_lies_before_t0_is_counted_dropped_and_named() {
    let server = Latentd::start().await;
    let t0_ns = 1_795_621_286_661_653_696;
    let rig = server.open(v1::OpenRequest { t0_ns: Some(t0_ns), ..recorded(linear()) }).await;
    let mut known = Linear::new();
    let rows = [[9.0, 9.0], [8.0, 8.0], [1.0, 2.0], [0.0, 1.0]];
    let output = rig.send(v1::Frame { t_device_ns: Some(t0_ns - 20 * MS), ..counts(0, 1000, &rows) }).await;
    assert_eq!(bins(&output), 0..2);
    assert_eq!(blocks::<2>(&output, 0), known.steps(&rows[2..]));
    let run = rig.run().to_owned();
    rig.close().await;
    let event = server.event(&run, "before_start").await;
    assert_eq!((event.count, event.signal.as_str(), event.from_bin), (2, "spikes", None));

    // Events, with stamps of 19 digits; one on an edge belongs to the later bin.
    let rig = server.open(v1::OpenRequest { t0_ns: Some(t0_ns), ..events("drop") }).await;
    let mut known = Linear::new();
    let came = [(0, t0_ns - 1), (0, t0_ns), (1, t0_ns + 10 * MS), (1, t0_ns + 10 * MS - 1)];
    let output = rig.send(spikes("spikes", 0, t0_ns - 5 * MS, 25 * MS, &came)).await;
    assert_eq!(bins(&output), 0..2);
    assert_eq!(blocks::<2>(&output, 0), known.steps(&[[1.0, 1.0], [0.0, 1.0]]));
    let run = rig.run().to_owned();
    rig.close().await;
    assert_eq!(server.event(&run, "before_start").await.count, 1);
    server.stop().await;
}

/// Bins 0 and 1 have closed; then comes `[10 ms, 30 ms)` with an event for bin 1 and one for bin 2.
const BEHIND: [(u32, i64); 2] = [(0, 15 * MS), (1, 25 * MS)];

#[tokio::test]
async fn late_events_are_dropped_counted_and_named() {
    let server = Latentd::start().await;
    let rig = server.open(events("drop")).await;
    let mut known = Linear::new();
    known.steps(&[[0.0; 2]; 2]);
    rig.send(spikes("spikes", 0, 0, 20 * MS, &[])).await;
    let output = rig.send(spikes("spikes", 1, 10 * MS, 20 * MS, &BEHIND)).await;
    assert_eq!(bins(&output), 2..3);
    assert_eq!(blocks::<2>(&output, 0), [known.step([0.0, 1.0])]);
    assert_eq!(flag_names(&output), [Vec::<&str>::new()]);
    let run = rig.run().to_owned();
    let closed = rig.close().await;
    assert_eq!((closed.late, closed.dropped), (1, 1));
    let event = server.event(&run, "late").await;
    assert_eq!((event.count, event.from_bin, event.to_bin), (1, Some(1), Some(2)));
    assert_eq!(server.metric("latentd_bins_total", "outcome=\"late\"").await, 1.0);
    assert_eq!(server.metric("latentd_bins_total", "outcome=\"dropped\"").await, 1.0);
    server.stop().await;
}

#[tokio::test]
async fn late_counts_go_into_the_first_open_bin_where_the_session_says_next() {
    let server = Latentd::start().await;
    let rig = server.open(events("next")).await;
    let mut known = Linear::new();
    known.steps(&[[0.0; 2]; 2]);
    rig.send(spikes("spikes", 0, 0, 20 * MS, &[])).await;
    let output = rig.send(spikes("spikes", 1, 10 * MS, 20 * MS, &BEHIND)).await;
    assert_eq!(blocks::<2>(&output, 0), [known.step([1.0, 1.0])]);
    assert_eq!(flag_names(&output), [["late"]]);
    let closed = rig.close().await;
    assert_eq!((closed.late, closed.dropped), (1, 0));
    assert_eq!(server.metric("latentd_bins_total", "outcome=\"late\"").await, 1.0);
    assert_eq!(server.metric("latentd_bins_total", "outcome=\"dropped\"").await, 0.0);

    // Samples of counts for bins that were filled long ago.
    let rig = server.open(v1::OpenRequest { late: "next".into(), ..linear() }).await;
    let mut known = Linear::new();
    known.steps(&[ROW, ROW, ROW, [0.0, 1.0]]);
    rig.send(counts(0, 0, &[ROW])).await;
    assert_eq!(bins(&rig.send(counts(1, 3, &[[0.0, 1.0]])).await), 1..4);
    let output = rig.send(counts(2, 1, &[[2.0, 0.0], [3.0, 1.0]])).await;
    assert_eq!((output.n, output.first_bin), (0, 4));
    let output = rig.send(counts(3, 4, &[[1.0, 0.0]])).await;
    assert_eq!(blocks::<2>(&output, 0), [known.step([6.0, 1.0])]);
    assert_eq!(flag_names(&output), [["late"]]);
    let closed = rig.close().await;
    assert_eq!((closed.late, closed.dropped), (2, 0));
    server.stop().await;
}

#[tokio::test]
async fn late_counts_go_on_past_a_gap_and_are_dropped_where_nothing_follows() {
    let server = Latentd::start().await;
    let ask = v1::OpenRequest { late: "next".into(), gap: "skip".into(), ..recorded(linear()) };
    let rig = server.open(ask).await;
    let mut known = Linear::new();
    known.steps(&[ROW, [0.0, 1.0]]);
    rig.send(counts(0, 0, &[ROW])).await;
    rig.send(counts(1, 3, &[[0.0, 1.0]])).await;
    rig.send(counts(2, 1, &[[2.0, 0.0]])).await;
    // Bin 4 was the first open one, and never came.
    let output = rig.send(counts(3, 6, &[[1.0, 0.0]])).await;
    assert_eq!(blocks::<2>(&output, 0), [known.step([3.0, 0.0])]);
    assert_eq!((flag_names(&output), output.skipped_bins), (vec![vec!["late"]], 2));
    rig.send(counts(4, 2, &[[9.0, 9.0]])).await;
    let run = rig.run().to_owned();
    let closed = rig.close().await;
    assert_eq!((closed.late, closed.dropped), (2, 1));
    let event = server.event(&run, "late").await;
    assert_eq!((event.count, event.from_bin, event.to_bin), (2, Some(1), Some(3)));
    crate::support::says(&event.detail, &["added to bin 4", "the last", "the session ended", "left out"]);
    assert_eq!(server.metric("latentd_bins_total", "outcome=\"late\"").await, 2.0);
    assert_eq!(server.metric("latentd_bins_total", "outcome=\"dropped\"").await, 1.0);
    server.stop().await;
}

#[tokio::test]
async fn fail_refuses_late_data_until_it_is_left_out_or_a_reset_forgives() {
    let server = Latentd::start().await;
    let rig = server.open(events("fail")).await;
    let mut known = Linear::new();
    known.steps(&[[0.0; 2]; 2]);
    rig.send(spikes("spikes", 0, 0, 20 * MS, &[])).await;
    let refused = rig.refused(spikes("spikes", 1, 10 * MS, 20 * MS, &BEHIND)).await;
    let fault = refused.is(409, "late", &["spikes", "1 events", "before 2", "late", "reset"]);
    assert_eq!((fault.seq, fault.expected_seq, fault.consumed), (Some(1), Some(1), false));
    let output = rig.send(spikes("spikes", 1, 20 * MS, 10 * MS, &BEHIND[1..])).await;
    assert_eq!(blocks::<2>(&output, 0), [known.step([0.0, 1.0])]);
    let late = || spikes("spikes", 2, 20 * MS, 20 * MS, &[(0, 21 * MS)]);
    rig.refused(late()).await.is(409, "late", &[]);
    rig.reset("all", None).await.unwrap();
    let output = rig.send(late()).await;
    assert_eq!((bins(&output), flag_names(&output)), (3..4, vec![vec!["reset"]]));
    let closed = rig.close().await;
    assert_eq!((closed.late, closed.dropped), (1, 1));
    assert_eq!(server.metric("latentd_bins_total", "outcome=\"dropped\"").await, 1.0, "what was forgiven");

    let mut line = server.line(events("fail")).await;
    line.send(spikes("spikes", 0, 0, 20 * MS, &[])).await;
    let fault = line.refused(spikes("spikes", 1, 10 * MS, 20 * MS, &BEHIND)).await;
    assert_eq!((fault.kind.as_str(), fault.status, fault.expected_seq), ("late", 409, Some(1)));
    assert_eq!(line.send(spikes("spikes", 1, 20 * MS, 10 * MS, &[])).await.first_bin, 2);
    line.end().await;
    server.stop().await;
}

#[tokio::test]
async fn bins_wait_for_lateness_ms_and_take_what_comes_meanwhile() {
    let server = Latentd::start().await;
    let rig = server.open(v1::OpenRequest { lateness_ms: 20.0, late: "next".into(), ..events("") }).await;
    let mut known = Linear::new();
    let output = rig.send(spikes("spikes", 0, 0, 20 * MS, &[(0, 5 * MS)])).await;
    assert_eq!((output.n, output.first_bin), (0, 0));
    let output = rig.send(spikes("spikes", 1, 20 * MS, 20 * MS, &[(1, 25 * MS)])).await;
    assert_eq!(bins(&output), 0..2);
    assert_eq!(blocks::<2>(&output, 0), known.steps(&[[1.0, 0.0], [0.0, 0.0]]));
    rig.close().await;
    server.stop().await;
}

#[tokio::test]
async fn a_backlog_is_stepped_as_one_chunk_and_all_but_the_newest_bin_are_stale() {
    let server = Latentd::start().await;
    // Whether frames sent together are read together is the road's to say: tried until they are.
    let mut tries = 0;
    loop {
        tries += 1;
        assert!(tries <= 20, "frames that were sent together were never read together");
        let mut line = server.line(linear()).await;
        assert_eq!(flag_names(&line.send(counts(0, 0, &[ROW])).await), [Vec::<&str>::new()]);
        let begun = Instant::now();
        until(LIMIT, "a stall of the rig", || async {
            (begun.elapsed() > Duration::from_millis(60)).then_some(())
        })
        .await;
        for seq in 1..6 {
            line.put(counts(seq, seq, &[ROW])).await;
        }
        let mut known = Linear::new();
        known.step(ROW);
        let mut flags = Vec::new();
        for seq in 1..6 {
            let output = line.output().await;
            assert_eq!((output.seq, bins(&output)), (Some(seq), seq..seq + 1));
            assert_eq!(blocks::<2>(&output, 0), [known.step(ROW)], "stale bins are stepped, too");
            flags.extend(flag_names(&output));
        }
        line.end().await;
        assert_eq!(flags[4], Vec::<&str>::new(), "the newest is never stale");
        if flags[..4].iter().all(|flags| flags == &["stale"]) {
            break;
        }
    }
    server.stop().await;
}
