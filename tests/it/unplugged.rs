//! Two amplifiers with drifting clocks, each on a connection of its own, and one of them unplugged for five seconds while
//! the other is decoded: no bin waits for it longer than `wait_ms`, and what the gap was is told and replayed.

use std::time::Duration;

use latentd::wire::v1;
use latentd::wire::v1::down::Message as Down;

use crate::clock::{
    Amp, CLEAR_US, Device, W, answers_of_pair, answers_recorded, is_true, on_two_clocks, unix_ns,
};
use crate::support::{Latentd, block, flag_names, replayed, says};

const S: i64 = 1_000_000_000;
const MS: i64 = 1_000_000;
/// Rows in a frame: 50 ms.
const ROWS: i64 = 5;
/// Frames of the neural amplifier; the other is unplugged after `OUT` of them and sends again from `BACK` on: 5 s.
const FRAMES: i64 = 150;
const OUT: i64 = 20;
const BACK: i64 = 120;
const WAIT_MS: i64 = 400;
/// A rig or a server that stands still for so long makes signals late that were not (ms).
const STILL_MS: i64 = 200;
const TRIES: usize = 5;

/// How an amplifier comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Back {
    /// It has counted on meanwhile: later samples, the same clock.
    Later,
    /// It has started again: its counter and its clock count from 0.
    Restarted,
}

/// A bin as it was answered.
#[derive(Clone, Debug)]
struct Answered {
    flags: Vec<&'static str>,
    sum: f32,
    came_ns: i64,
}

/// Takes what comes down to both until the server's clock says `until_ns`; answers how much later it is by then (ms).
async fn listen(left: &mut Device, right: Option<&mut Device>, until_ns: i64) -> i64 {
    let due = tokio::time::sleep(Duration::from_nanos((until_ns - unix_ns()).max(0) as u64));
    tokio::pin!(due);
    let mut right = right;
    loop {
        // Cancel-safe: a message that is half there stays in the stream.
        let (which, message) = tokio::select! {
            message = left.line.next() => (0, message),
            message = async { right.as_mut().expect("it is there").line.next().await }, if right.is_some() => (1, message),
            () = &mut due => return (unix_ns() - until_ns) / MS,
        };
        let Ok(Some(Down::Output(output))) = message else { panic!("an Output is due, not {message:?}") };
        let device = if which == 0 { &mut *left } else { right.as_deref_mut().expect("it is there") };
        device.outputs.push((output, unix_ns()));
    }
}

/// What is left of an amplifier without its connection.
struct Unplugged {
    amp: Amp,
    start_unix_ns: i64,
    worst_us: f64,
    outputs: Vec<(v1::Output, i64)>,
}

impl Unplugged {
    /// Its connection breaks: nothing is said, and nothing more is read.
    fn of(device: Device) -> Self {
        let Device { amp, start_unix_ns, worst_us, outputs, .. } = device;
        Self { amp, start_unix_ns, worst_us, outputs }
    }

    /// Attaches again with the signal's token, on a connection of its own; its clock now reads as `amp`.
    async fn plugged_in(self, server: &Latentd, opened: &v1::OpenReply, amp: Amp) -> Device {
        let Self { start_unix_ns, worst_us, outputs, .. } = self;
        Device { start_unix_ns, worst_us, outputs, ..Device::attach(server, opened, "right", amp).await }
    }
}

/// What came of a session whose `right` was unplugged.
struct Came {
    bins: Vec<Answered>,
    skipped: u64,
    /// By frame of the neural amplifier: when it was sent.
    sent_ns: Vec<i64>,
    closed: v1::CloseReply,
    server: Latentd,
    run: String,
}

/// Streams it; `Err`: why the machine was too busy to tell.
async fn unplugged(max_gap_ms: f64, back: Back) -> Result<Came, String> {
    let server = Latentd::start().await;
    let ask =
        v1::OpenRequest { wait_ms: Some(WAIT_MS as f64), max_gap_ms: Some(max_gap_ms), ..on_two_clocks() };
    let opened = server.open(ask).await.opened;
    let run = opened.run.clone().expect("a run");
    let path = format!("/v1/sessions/{}", opened.session);
    let mut left = Device::attach(&server, &opened, "left", Amp::new(-3_600 * S, 50.0)).await;
    let mut right = Device::attach(&server, &opened, "right", Amp::new(7 * S, -50.0)).await;
    for device in [&mut left, &mut right] {
        device.probe(0).await;
        for _ in 0..8 {
            device.worst_us = 0.0;
            assert!(device.probe_truly().await.offset_ns.is_some());
        }
    }
    left.start_unix_ns = unix_ns();
    right.start_unix_ns = left.start_unix_ns + W / 2;
    let mut right = Some(right);
    let mut away = None;
    let (mut sent_ns, mut still_ms, mut right_seq, mut far) = (Vec::new(), 0, 0, 0);
    // The first row of the counter as it counts now.
    let mut row_0 = 0;
    for i in 0..FRAMES {
        let (from, to) = (i * ROWS, (i + 1) * ROWS);
        if i == OUT {
            away = right.take().map(Unplugged::of);
        }
        let due_ns = left.row_unix_ns(to).max(left.start_unix_ns + W / 2 + to * W);
        still_ms = still_ms.max(listen(&mut left, right.as_mut(), due_ns).await);
        sent_ns.push(unix_ns());
        left.line.put(left.frame(i as u64, from, to)).await;
        if i == BACK {
            let unplugged = away.take().expect("it is away");
            let amp = match back {
                Back::Later => unplugged.amp,
                // It was switched on as its first row began.
                Back::Restarted => Amp::new(W / 2 - left.row_unix_ns(from), -50.0),
            };
            if back == Back::Restarted {
                (row_0, far) = (from, 4);
            }
            let plugged_in = unplugged.plugged_in(&server, &opened, amp).await;
            // What was on its way as the connection broke is lost with the rest.
            right_seq = plugged_in.line.attached.next_seq["right"];
            assert!((right_seq as i64 - OUT).abs() <= 1, "{right_seq}");
            right = Some(plugged_in);
        }
        if let Some(right) = &mut right {
            let frame = right.frame(right_seq, from, to);
            let first_index = (from - row_0) as u64;
            let epoch = i == BACK && back == Back::Restarted;
            right.line.put(v1::Frame { first_index, epoch, ..frame }).await;
            right_seq += 1;
        }
        if i % 2 == 0 {
            let began_ns = unix_ns();
            left.probe_truly().await;
            still_ms = still_ms.max((unix_ns() - began_ns) / MS);
            match &mut right {
                // A clock that counts anew is believed with the third probe that says so.
                Some(right) if far > 0 => {
                    right.probe(0).await;
                    far -= 1;
                }
                Some(right) => _ = right.probe_truly().await,
                None => {}
            }
            let info: v1::SessionInfo = server.get(&path).await.message();
            let clock = info.clock.expect("how its clock stands");
            is_true(&left.amp, unix_ns(), clock.offset_ns, clock.uncertainty_us);
        }
    }
    let mut right = right.expect("it is back");
    let (left_rest, right_rest) = (left.line.end().await, right.line.end().await);
    let came_ns = unix_ns();
    left.outputs.extend(left_rest.into_iter().map(|output| (output, came_ns)));
    right.outputs.extend(right_rest.into_iter().map(|output| (output, came_ns)));
    // What is pushed comes down to both.
    right.outputs.retain(|(output, _)| output.seq.is_some());
    let mut told: Vec<(v1::Output, i64)> = left.outputs.drain(..).chain(right.outputs.drain(..)).collect();
    told.sort_by_key(|(output, _)| output.first_bin);
    let skipped = told.iter().map(|(output, _)| output.skipped_bins).sum();
    let mut bins: Vec<Answered> = Vec::new();
    for (output, came_ns) in told.iter().filter(|(output, _)| output.n > 0) {
        let sum = bins.last().map_or(0.0, |bin| bin.sum);
        let unanswered = Answered { flags: vec!["skipped"], sum, came_ns: *came_ns };
        assert!(bins.len() as u64 <= output.first_bin, "each bin once");
        bins.resize(output.first_bin as usize, unanswered);
        for (flags, sum) in flag_names(output).into_iter().zip(block(output, 0).chunks_exact(2)) {
            // What is told of how fast this machine was.
            let flags = flags.into_iter().filter(|flag| *flag != "stale").collect();
            bins.push(Answered { flags, sum: sum[1], came_ns: *came_ns });
        }
    }
    let closed: v1::CloseReply = server.delete(&path).await.message();
    let worst_us = left.worst_us + right.worst_us;
    if still_ms > STILL_MS || worst_us >= CLEAR_US {
        return Err(format!("it stood still for {still_ms} ms, clocks were {worst_us} µs off"));
    }
    Ok(Came { bins, skipped, sent_ns, closed, server, run })
}

/// As `unplugged`, on a machine that was quick enough to tell.
async fn told(max_gap_ms: f64, back: Back) -> Came {
    let mut why = Vec::new();
    while why.len() < TRIES {
        match unplugged(max_gap_ms, back).await {
            Ok(came) => return came,
            Err(busy) => why.push(busy),
        }
    }
    panic!("{why:?}");
}

impl Came {
    /// What a bin added to the sum of the second channel: 1 for the row of `left`, 64 for each of `right`.
    fn gained(&self, k: usize) -> f32 {
        let before = if k == 0 || self.bins[k].flags.contains(&"reset") { 0.0 } else { self.bins[k - 1].sum };
        self.bins[k].sum - before
    }

    /// The bins that closed without the signal, and the first that it is in again. What is before and behind is whole.
    fn stretches(&self) -> (usize, usize, usize) {
        let is_missing = |bin: &Answered| bin.flags.contains(&"signal_missing");
        let first = self.bins.iter().position(is_missing).expect("bins without it");
        let end = self.bins.iter().rposition(is_missing).expect("bins without it") + 1;
        let is_gap = |bin: &Answered| ["gap_filled", "skipped"].iter().any(|flag| bin.flags.contains(flag));
        let back = (end..self.bins.len()).find(|k| !is_gap(&self.bins[*k])).expect("it is there again");
        let near = |k: usize, frame: i64| (k as i64 - frame * ROWS).abs() <= 5 * ROWS;
        assert!(near(first, OUT) && near(end, BACK - WAIT_MS * MS / W / ROWS) && near(back, BACK));
        for (k, Answered { flags, .. }) in self.bins.iter().enumerate() {
            if k < first || k > back {
                assert!(flags.is_empty(), "bin {k}: {flags:?}");
            } else if k < end {
                assert_eq!(flags[..], ["gap_filled", "signal_missing"], "bin {k}");
            }
        }
        (first, end, back)
    }

    /// Bins without the signal closed when their wait was over, and not long after.
    fn waited(&self, bins: std::ops::Range<usize>) {
        let held_ms = |k: usize| (self.bins[k].came_ns - self.sent_ns[k / ROWS as usize]) / MS;
        let mut held_ms: Vec<i64> = bins.map(held_ms).collect();
        held_ms.sort_unstable();
        assert!(held_ms[0] >= WAIT_MS, "{} ms: closed before its wait was over", held_ms[0]);
        // What this machine does meanwhile is in the slowest.
        let most = held_ms[held_ms.len() * 9 / 10];
        assert!(most <= WAIT_MS + 2 * STILL_MS, "{most} ms: held up");
    }
}

/// Five seconds without `right`: what each bin was made of, what the run says, and that replay repeats it.
async fn five_seconds_away(max_gap_ms: i64, back: Back) {
    let came = told(max_gap_ms as f64, back).await;
    let (first, end, there) = came.stretches();
    came.waited(first..end);
    let held_to = end.min(first + (max_gap_ms * MS / W) as usize);
    let (is_skipped, is_held) = (max_gap_ms < WAIT_MS, max_gap_ms >= 5_000);
    for k in 0..came.bins.len() {
        let want = match k {
            _ if k >= there => break,
            _ if (held_to..end).contains(&k) => 1.0,
            _ if k >= end && is_skipped => 0.0,
            _ if k >= end && !is_held => 1.0,
            _ => 65.0,
        };
        assert_eq!(came.gained(k), want, "bin {k}");
    }
    // What is still open as the signal comes back is skipped only where that alone is more than may be filled.
    let unfilled = if is_skipped { there - end } else { 0 };
    assert_eq!((came.skipped, came.closed.bins), (unfilled as u64, (FRAMES * ROWS) as u64 - unfilled as u64));
    let want: &[&str] = if is_skipped { &["reset"] } else { &[] };
    assert_eq!(came.bins[there].flags, want);
    let want: &[&str] = if is_skipped { &["skipped"] } else { &["gap_filled"] };
    assert!(came.bins[end..there].iter().all(|bin| bin.flags == want));
    // Each row counts once, wherever a clock that was set has put it.
    let rows: f32 = (there..came.bins.len()).map(|k| (came.gained(k) - 1.0) / 64.0).sum();
    let sent = (FRAMES - BACK) * ROWS;
    // The first lies in a bin of which the gap has a part.
    assert_eq!(rows, if back == Back::Later { sent - 1 } else { sent } as f32);
    assert_eq!((came.closed.gaps, came.closed.late), (1, 0));

    let Came { server, run, .. } = came;
    let told = server.events(&run, "signal_missing").await;
    assert!(told.iter().all(|event| event.signal == "right"), "{told:?}");
    assert_eq!(told.iter().map(|event| event.count).sum::<u64>(), (end - first) as u64);
    assert_eq!(told[0].from_bin, Some(first as u64));
    let gap = server.event(&run, "gap").await;
    assert_eq!((gap.from_bin, gap.to_bin), (Some(end as u64), Some(there as u64)));
    assert!(!server.events(&run, "detached").await.is_empty());
    for (kind, is_told) in [
        ("skipped", is_skipped),
        ("reset", is_skipped),
        ("clock_epoch", back == Back::Restarted),
        ("clock_step", back == Back::Restarted),
    ] {
        assert_eq!(!server.events(&run, kind).await.is_empty(), is_told, "{kind}");
    }
    if back == Back::Restarted {
        says(&server.event(&run, "clock_epoch").await.detail, &["declared", "first_index 0"]);
    }
    let info: v1::RunInfo = server.get(&format!("/v1/runs/{run}")).await.message();
    let recorded = answers_recorded(&server, &run).await;
    let setup = server.stop().await;
    assert_eq!(answers_of_pair(&replayed(&setup, &info).await), recorded);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_amplifier_away_for_longer_than_max_gap_ms_costs_the_other_no_bin_and_no_state() {
    five_seconds_away(1_000, Back::Later).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_amplifier_away_for_less_than_max_gap_ms_is_held_all_the_while() {
    five_seconds_away(10_000, Back::Later).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_amplifier_that_comes_back_with_its_counter_and_clock_at_0_goes_on_as_an_epoch_behind_the_gap() {
    five_seconds_away(1_000, Back::Restarted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_more_than_max_gap_ms_is_open_as_an_amplifier_comes_back_it_is_skipped_and_the_state_starts_anew()
 {
    five_seconds_away(200, Back::Later).await;
}
