//! A hostile device: counters that roll over or restart, indices beyond any i64 of ns, samples that come again, stamps in
//! bunches, marker trains that are no trials. What each comes to, and that the next frame is served.

use std::time::{Duration, Instant};

use crate::recordings::Random;
use crate::support::{
    LIMIT, Latentd, Linear, Setup, binned, bins, blocks, counts, flag_names, linear, markers, models,
    pipeline, recorded, says, signal, spikes, until,
};
use latentd::wire::v1;

const ROW: [f32; 2] = [1.0, 2.0];
const MS: i64 = 1_000_000;

/// `linear` whose input is sampled, averaged over bins of 10 ms.
fn sampled() -> models::Model {
    let model = models::linear().replace("\"binned\"", "\"continuous\"");
    model.replace("name = \"spikes\"", "name = \"lfp\"").named("sampled")
}

fn sampled_at(rate_hz: u32) -> v1::OpenRequest {
    let signal = v1::SignalSpec {
        rate: Some(v1::Rate { num: rate_hz, den: 1 }),
        ..signal("lfp", "continuous", &["a", "b"])
    };
    recorded(pipeline("sampled", [signal]))
}

/// What `raw` (M2 u + m0) says for an input.
fn raw([a, b]: [f32; 2]) -> [f32; 2] {
    [a + 2.0 * b + 0.5, 0.5 * b - a - 1.0]
}

/// The values of an output by bin; none where no bin closed.
fn told(output: &v1::Output, number: u32) -> Vec<[f32; 2]> {
    if output.n == 0 { Vec::new() } else { blocks(output, number) }
}

/// So long that a bin or two are lost, by the server's clock.
async fn a_while() {
    let begun = Instant::now();
    until(LIMIT, "a while", || async { (begun.elapsed() > Duration::from_millis(25)).then_some(()) }).await;
}

#[tokio::test]
async fn a_counter_of_32_bits_rolls_over_and_the_bins_go_on() {
    let server = Latentd::start().await;
    let last = u64::from(u32::MAX);
    let stamped = |seq, index, ms: i64, rows: &[[f32; 2]]| v1::Frame {
        t_device_ns: Some(ms * MS),
        ..counts(seq, index, rows)
    };
    // Between two frames, and in the midst of one, whose own rows are still counted on in 64 bits.
    for (rows_before, wrapped) in [(2, 0), (4, 2)] {
        let mut line = server.line(recorded(linear())).await;
        let mut known = Linear::new();
        let output = line.send(stamped(0, last - 1, 5_000, &vec![ROW; rows_before])).await;
        assert_eq!(blocks::<2>(&output, 0), known.steps(&vec![ROW; rows_before]));
        let next_ms = 5_000 + 10 * rows_before as i64;
        let output = line.send(stamped(1, wrapped, next_ms, &[[0.0, 1.0], [3.0, 0.0]])).await;
        // As many bins as the server's clock says were lost, filled, and then the frame's own.
        let lost = output.n as usize - 2;
        assert_eq!(output.first_bin, rows_before as u64);
        let rows: Vec<_> = vec![ROW; lost].into_iter().chain([[0.0, 1.0], [3.0, 0.0]]).collect();
        assert_eq!(blocks::<2>(&output, 0), known.steps(&rows));
        let flags = flag_names(&output);
        assert!(flags[..lost].iter().all(|flags| flags == &["gap_filled"]), "{flags:?}");
        assert_eq!(flags[lost..], [Vec::<&str>::new(), vec![]]);
        let notice = line.notices.iter().find(|notice| notice.kind == "clock_epoch").expect("a notice");
        let (index, stamp) = (format!("first_index {wrapped} "), format!("stamp {} ns", next_ms * MS));
        let follows = format!("follows {} (stamp 5000000000 ns)", last - 1 + rows_before as u64);
        says(&notice.detail, &["stepped back", &index, &stamp, &follows]);
        let output = line.send(stamped(2, wrapped + 2, next_ms + 20, &[ROW])).await;
        assert_eq!(blocks::<2>(&output, 0), [known.step(ROW)]);
        let session = line.opened.session.clone();
        line.end().await;
        let closed: v1::CloseReply = server.delete(&format!("/v1/sessions/{session}")).await.message();
        assert_eq!(
            (closed.late, closed.gaps, closed.last_bin),
            (0, u64::from(lost > 0), Some(closed.bins - 1))
        );
    }
    server.stop().await;
}

#[tokio::test]
async fn a_counter_that_rolls_over_without_a_stamp_lies_before_its_beginning_until_it_says_epoch() {
    let server = Latentd::start().await;
    let rig = server.open(recorded(linear())).await;
    let mut known = Linear::new();
    let last = u64::from(u32::MAX);
    rig.send(counts(0, last - 1, &[ROW, ROW])).await;
    known.steps(&[ROW, ROW]);
    for seq in 1..3 {
        let output = rig.send(counts(seq, seq - 1, &[[9.0, 9.0]])).await;
        assert_eq!((output.n, output.first_bin, output.seq), (0, 2, Some(seq)));
    }
    let output = rig.send(v1::Frame { epoch: true, ..counts(3, 2, &[[0.0, 1.0]]) }).await;
    let lost = output.n as usize - 1;
    let rows: Vec<_> = vec![ROW; lost].into_iter().chain([[0.0, 1.0]]).collect();
    assert_eq!(blocks::<2>(&output, 0), known.steps(&rows));
    assert_eq!(blocks::<2>(&rig.send(counts(4, 3, &[ROW])).await, 0), [known.step(ROW)]);
    let run = rig.run().to_owned();
    let closed = rig.close().await;
    assert_eq!((closed.late, closed.dropped, closed.gaps), (0, 0, u64::from(lost > 0)));
    assert_eq!(server.event(&run, "before_start").await.count, 2, "by their index");
    says(&server.event(&run, "clock_epoch").await.detail, &["declared", "no stamp"]);
    server.stop().await;
}

#[tokio::test]
async fn indices_beyond_any_i64_of_ns_have_the_bins_that_small_ones_have() {
    let server = Setup::bare().model(sampled()).start().await;
    const A_BIN: usize = 300;
    let limit = (1u64 << 63) / 1_000_000_000;
    let starts =
        [0, limit - 449, limit, 30_000 * limit - 1, u64::from(u32::MAX) - 7, (1 << 63) - 7, u64::MAX - 2_000];
    let mut all = Vec::new();
    for start in starts {
        for is_stamped in [false, true] {
            let mut line = server.line(sampled_at(30_000)).await;
            let frame = |seq, from: u64, rows: &[[f32; 2]]| v1::Frame {
                t_device_ns: is_stamped.then_some(77 + (from * 1_000_000_000 / 30_000) as i64),
                ..binned("lfp", seq, start + from, rows)
            };
            let a_bin = |value: f32| vec![[value, 2.0 * value]; A_BIN];
            let rows = [a_bin(1.0), a_bin(2.0)].concat();
            let mut outputs = vec![
                line.send(frame(0, 0, &rows[..450])).await,
                line.send(frame(1, 450, &rows[450..])).await,
                // A bin of samples never comes; then one does, and again the same.
                line.send(frame(2, 900, &a_bin(4.0))).await,
                line.send(frame(3, 900, &a_bin(5.0))).await,
            ];
            // Beyond the end of the counter there is nothing, and what there is goes on.
            let over = line.refused(binned("lfp", 4, u64::MAX - 10, &rows[..11])).await;
            if start != 0 {
                assert_eq!(
                    (over.kind.as_str(), over.tensor.as_str()),
                    ("invalid", "first_index"),
                    "{over:?}"
                );
            }
            outputs.push(line.send(frame(4, 1_200, &a_bin(3.0))).await);
            let outputs: Vec<_> = outputs
                .iter()
                .map(|output| (bins(output), told(output, 0), told(output, 1), flag_names(output)))
                .collect();
            let kinds: Vec<_> = line.notices.iter().map(|notice| notice.kind.clone()).collect();
            assert_eq!(kinds, ["gap", "overlap"], "from {start}");
            let session = line.opened.session.clone();
            line.end().await;
            let closed: v1::CloseReply = server.delete(&format!("/v1/sessions/{session}")).await.message();
            assert_eq!(
                (closed.bins, closed.gaps, closed.late, closed.dropped),
                (5, 1, 300, 300),
                "from {start}"
            );
            all.push((start, outputs));
        }
    }
    let [first, second, third, again, fourth] = &all[0].1[..] else { panic!("{:?}", all[0]) };
    assert_eq!((&first.0, &first.2), (&(0..1), &vec![raw([1.0, 2.0])]));
    assert_eq!((&second.0, &second.2), (&(1..2), &vec![raw([2.0, 4.0])]));
    assert_eq!((&third.0, &third.2), (&(2..4), &vec![raw([2.0, 4.0]), raw([4.0, 8.0])]));
    assert_eq!((&third.3, &again.0), (&vec![vec!["gap_filled"], vec![]], &(4..4)));
    assert_eq!((&fourth.0, &fourth.2), (&(4..5), &vec![raw([3.0, 6.0])]));
    for (start, outputs) in &all {
        assert_eq!(*outputs, all[0].1, "from {start}");
    }
    server.stop().await;
}

#[tokio::test]
async fn samples_that_come_again_in_any_frames_and_from_before_t0_change_no_bin() {
    let server = Setup::bare().model(sampled()).start().await;
    const T0_NS: i64 = 1_795_621_286_661_653_697;
    const SAMPLES: u64 = 400;
    const BEFORE: u64 = 17;
    let row = |i: u64| [(i * i % 7) as f32, (i % 5) as f32];
    let frame = |seq, range: std::ops::Range<u64>| {
        let rows: Vec<_> = range.clone().map(row).collect();
        v1::Frame {
            t_device_ns: Some(T0_NS + (range.start as i64 - BEFORE as i64) * MS),
            ..binned("lfp", seq, 5_000 + range.start, &rows)
        }
    };
    let ask = || v1::OpenRequest { t0_ns: Some(T0_NS), ..sampled_at(1_000) };
    let whole = server.open(ask()).await;
    let output = whole.send(frame(0, BEFORE..SAMPLES)).await;
    let want = blocks::<2>(&output, 0);
    assert_eq!(want.len() as u64, (SAMPLES - BEFORE) / 10);
    whole.close().await;
    for seed in 0..24 {
        let mut random = Random::of(seed);
        let rig = server.open(ask()).await;
        let (mut at, mut seq, mut again, mut before, mut got) = (0, 0, 0, 0, Vec::new());
        while at < SAMPLES {
            // Back by some samples or none, on by some or none.
            let from = at - random.below(40.min(at + 1));
            let to = (at + random.below(50)).min(SAMPLES);
            before += to.min(BEFORE).saturating_sub(from);
            again += at.saturating_sub(from.max(BEFORE));
            got.extend(told(&rig.send(frame(seq, from..to)).await, 0));
            (at, seq) = (to, seq + 1);
        }
        assert_eq!(got, want, "seed {seed}");
        let run = rig.run().to_owned();
        let closed = rig.close().await;
        assert_eq!((closed.late, closed.dropped, closed.gaps), (again, again, 0), "seed {seed}");
        let count = |events: Vec<v1::Event>| events.iter().map(|event| event.count).sum::<u64>();
        assert_eq!(count(server.events(&run, "overlap").await), again, "seed {seed}");
        assert_eq!(count(server.events(&run, "before_start").await), before, "seed {seed}");
    }
    server.stop().await;
}

#[tokio::test]
async fn stamps_in_bunches_are_one_event_and_the_index_says_where_samples_lie() {
    let server = Latentd::start().await;
    let mut line = server.line(recorded(linear())).await;
    let mut known = Linear::new();
    // The host stamps what it reads, five frames at a time; index 12 is lost on the way to it.
    for (seq, index) in (0..24).filter(|index| *index != 12).enumerate() {
        let stamp = (index / 5 * 50) as i64 * MS;
        let frame = v1::Frame { t_device_ns: Some(stamp), ..counts(seq as u64, index, &[ROW]) };
        let output = line.send(frame).await;
        let n = if index == 13 { 2 } else { 1 };
        assert_eq!(bins(&output), index + 1 - n..index + 1);
        assert_eq!(blocks::<2>(&output, 0), known.steps(&vec![ROW; n as usize]));
    }
    let told: u64 =
        line.notices.iter().filter(|notice| notice.kind == "clock_disagrees").map(|n| n.count).sum();
    // Of five stamps the first is right; of the lost one nothing can be told.
    assert_eq!(told, 24 - 5 - 1);
    assert!(line.notices.iter().all(|notice| notice.kind != "clock_epoch"));
    let (session, run) = (line.opened.session.clone(), line.opened.run.clone().expect("a run"));
    line.end().await;
    let closed: v1::CloseReply = server.delete(&format!("/v1/sessions/{session}")).await.message();
    assert_eq!((closed.bins, closed.gaps, closed.late), (24, 1, 0));
    let event = server.event(&run, "clock_disagrees").await;
    assert_eq!((event.count, event.signal.as_str()), (told, "spikes"));

    // Events that all bear the time at which they were read.
    let rig = server.open(pipeline("events", [signal("spikes", "spike_events", &["a", "b"])])).await;
    let mut known = Linear::new();
    let bunch: Vec<_> = (0..300).map(|i| (i % 2, 9 * MS)).collect();
    let output = rig.send(spikes("spikes", 0, 0, 20 * MS, &bunch)).await;
    assert_eq!(blocks::<2>(&output, 0), known.steps(&[[150.0, 150.0], [0.0, 0.0]]));
    let output = rig.send(spikes("spikes", 1, 20 * MS, 10 * MS, &[(1, 20 * MS)])).await;
    assert_eq!(blocks::<2>(&output, 0), [known.step([0.0, 1.0])]);
    rig.close().await;
    server.stop().await;
}

#[tokio::test]
async fn a_train_of_markers_start_start_end_is_one_broken_trial_and_one_whole_one() {
    let server = Latentd::start().await;
    let signals = [signal("spikes", "binned", &["a", "b"]), signal("ttl", "markers", &[])];
    let trials = v1::Trials { signal: "ttl".into(), start: "start".into(), end: "end".into(), key: None };
    let ask = v1::OpenRequest { trials: Some(trials), ..recorded(pipeline("trials", signals)) };
    let train: [(i64, &str); 4] = [(22 * MS, "end"), (MS, "start"), (12 * MS, "noise"), (11 * MS, "start")];
    let mut by_time = train.to_vec();
    by_time.sort_unstable();
    // In one frame in any order, one by one, and all of them long after their bins have closed.
    let ways = [vec![train.to_vec()], by_time.into_iter().map(|mark| vec![mark]).collect()];
    for (way, bins_before) in ways.iter().flat_map(|way| [(way, 3), (way, 9)]) {
        let rig = server.open(ask.clone()).await;
        let mut known = Linear::new();
        for seq in 0..bins_before {
            assert_eq!(blocks::<2>(&rig.send(counts(seq, seq, &[ROW])).await, 0), [known.step(ROW)]);
        }
        for (seq, marks) in (0..).zip(way) {
            assert_eq!(rig.send(markers("ttl", seq, marks)).await.n, 0);
        }
        // The whole one ended: the state starts anew, once, before the first bin that was open then.
        let output = rig.send(counts(bins_before, bins_before, &[ROW, ROW])).await;
        assert_eq!(blocks::<2>(&output, 0), Linear::new().steps(&[ROW, ROW]));
        assert_eq!(flag_names(&output), [vec!["reset"], vec![]]);
        let run = rig.run().to_owned();
        let closed = rig.close().await;
        assert_eq!((closed.bins, closed.gaps, closed.late), (bins_before + 2, 0, 0));
        let event = server.event(&run, "trial_broken").await;
        assert_eq!((event.count, event.signal.as_str()), (1, "ttl"));
        says(&event.detail, &["started at 1000000 ns has no end before the start at 11000000 ns"]);
        assert_eq!(server.event(&run, "reset").await.from_bin, Some(bins_before));
    }
    server.stop().await;
}

#[tokio::test]
async fn the_gap_before_a_restarted_counter_follows_the_sessions_policy() {
    let server = Setup::new().model(sampled()).start().await;
    for gap in ["hold", "zero", "skip", "reset", "fail"] {
        let ask = v1::OpenRequest { gap: gap.into(), ..sampled_at(1_000) };
        let mut line = server.line(ask).await;
        let mut known = Linear::new();
        let frame = |seq, index, ms: i64, value: f32| v1::Frame {
            t_device_ns: Some(ms * MS),
            ..binned("lfp", seq, index, &[[value, value]; 10])
        };
        assert_eq!(blocks::<2>(&line.send(frame(0, 700, 9_000, 1.0)).await, 0), [known.step([1.0; 2])]);
        a_while().await;
        let restarted = v1::Frame { epoch: true, ..frame(1, 0, 3, 4.0) };
        if gap == "fail" {
            let fault = line.refused(restarted.clone()).await;
            assert_eq!((fault.kind.as_str(), fault.expected_seq, fault.consumed), ("gap", Some(1), false));
            let reset =
                v1::ResetRequest { session: line.opened.session.clone(), scope: "all".into(), at_bin: None };
            assert_eq!(server.live().await.reset(reset).await.unwrap().into_inner().at_bin, 1);
            known = Linear::new();
        }
        let output = line.send(restarted.clone()).await;
        let end = output.first_bin + u64::from(output.n);
        let lost = end - 2;
        assert!(lost >= 2, "{gap}: {output:?}");
        let filled = match gap {
            "hold" => vec![[1.0; 2]; lost as usize],
            // Nothing is known any more that could be held: filters and statistics started anew, too.
            "fail" | "zero" => vec![[0.0; 2]; lost as usize],
            "reset" => {
                known = Linear::new();
                Vec::new()
            }
            _ => Vec::new(),
        };
        let rows: Vec<_> = filled.iter().copied().chain([[4.0; 2]]).collect();
        assert_eq!(blocks::<2>(&output, 0), known.steps(&rows), "{gap}");
        assert_eq!(output.skipped_bins, lost - filled.len() as u64, "{gap}");
        let notice = line.notices.iter().find(|notice| notice.kind == "clock_epoch").expect("a notice");
        says(
            &notice.detail,
            &["declared", "first_index 0 (stamp 3000000 ns) follows 710 (stamp 9000000000 ns)"],
        );
        // The same frame again is the same answer, and no other epoch.
        assert_eq!(line.send(restarted).await, output, "{gap}");
        let next = line.send(frame(2, 10, 13, 2.0)).await;
        assert_eq!((bins(&next), blocks::<2>(&next, 0)), (end..end + 1, vec![known.step([2.0; 2])]), "{gap}");
        let (session, run) = (line.opened.session.clone(), line.opened.run.clone().expect("a run"));
        line.end().await;
        let closed: v1::CloseReply = server.delete(&format!("/v1/sessions/{session}")).await.message();
        assert_eq!((closed.gaps, closed.late, closed.last_bin), (1, 0, Some(end)), "{gap}");
        assert_eq!(server.event(&run, "clock_epoch").await.count, 1, "{gap}");
    }
    server.stop().await;
}

#[tokio::test]
async fn event_times_that_start_again_lie_before_the_beginning_until_the_frame_says_epoch() {
    let server = Latentd::start().await;
    for late in ["drop", "next", "fail"] {
        let ask = pipeline("events", [signal("spikes", "spike_events", &["a", "b"])]);
        let mut line = server.line(v1::OpenRequest { late: late.into(), ..recorded(ask) }).await;
        let mut known = Linear::new();
        // 2^32 microseconds: the device's own clock is at its end.
        let end = (i64::from(u32::MAX) + 1) * 1_000;
        let output = line.send(spikes("spikes", 0, end - 20 * MS, 20 * MS, &[(0, end - 1)])).await;
        assert_eq!(blocks::<2>(&output, 0), known.steps(&[[0.0; 2], [1.0, 0.0]]));
        // Without a word these lie before the session began.
        let restarted = spikes("spikes", 1, 0, 10 * MS, &[(1, 0), (1, 9 * MS)]);
        let output = line.send(restarted).await;
        assert_eq!((output.n, output.first_bin), (0, 2), "{late}");
        let restarted = v1::Frame { epoch: true, ..spikes("spikes", 2, 10 * MS, 10 * MS, &[(1, 10 * MS)]) };
        let output = line.send(restarted).await;
        let lost = output.n as usize - 1;
        let rows: Vec<_> = vec![[1.0, 0.0]; lost].into_iter().chain([[0.0, 1.0]]).collect();
        assert_eq!(blocks::<2>(&output, 0), known.steps(&rows), "{late}");
        let output = line.send(spikes("spikes", 3, 20 * MS, 10 * MS, &[(0, 29 * MS), (1, 20 * MS)])).await;
        assert_eq!(blocks::<2>(&output, 0), [known.step([1.0, 1.0])], "{late}");
        // What the new epoch has covered came already, now.
        let again = spikes("spikes", 4, 20 * MS, 20 * MS, &[(0, 22 * MS), (0, 33 * MS)]);
        let (row, counted) = match late {
            "drop" => ([1.0, 0.0], (1, 1)),
            "next" => ([2.0, 0.0], (1, 0)),
            _ => {
                let fault = line.refused(again.clone()).await;
                assert_eq!((fault.kind.as_str(), fault.expected_seq), ("late", Some(4)));
                ([1.0, 0.0], (0, 0))
            }
        };
        let new = spikes("spikes", 4, 30 * MS, 10 * MS, &[(0, 33 * MS)]);
        let output = line.send(if late == "fail" { new } else { again }).await;
        assert_eq!(blocks::<2>(&output, 0), [known.step(row)], "{late}");
        let (session, run) = (line.opened.session.clone(), line.opened.run.clone().expect("a run"));
        line.end().await;
        let closed: v1::CloseReply = server.delete(&format!("/v1/sessions/{session}")).await.message();
        assert_eq!((closed.late, closed.dropped, closed.gaps), (counted.0, counted.1, u64::from(lost > 0)));
        assert_eq!(server.event(&run, "before_start").await.count, 2, "{late}");
        let epoch = server.event(&run, "clock_epoch").await;
        says(&epoch.detail, &["declared", "t_start_ns 10000000", "follows 4294967296000"]);
    }
    server.stop().await;
}
