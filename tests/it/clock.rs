//! Clocks: probes by every road, drift, steps, ages, and what replay makes of them.

use std::time::Duration;

use latentd::domain::time::Stamp;
use latentd::signal::step::Bin;
use latentd::wire::v1::down::Message as Down;
use latentd::wire::v1::up::Message as Up;
use latentd::wire::{json, tensor, v1};

use crate::support::{
    LIMIT, Latentd, Line, Rig, binned, block, counts, flag_names, linear, pipeline, recorded, replayed, says,
    signal, until,
};

const MS: i64 = 1_000_000;
const S: i64 = 1_000_000_000;
/// Width of a bin.
pub const W: i64 = 10 * MS;
/// Flags that a session sets by how fast it was; the others are the data's.
const OF_THE_ROAD: u32 = 1 << 9 | 1 << 10 | 1 << 14;

pub fn unix_ns() -> i64 {
    Stamp::now().unix_ns
}

/// A device's clock: `ahead_ns` of the server's at `since_ns`, and drifting.
#[derive(Clone, Copy)]
pub struct Amp {
    pub ahead_ns: i64,
    drift_ppm: f64,
    since_ns: i64,
}

impl Amp {
    pub fn new(ahead_ns: i64, drift_ppm: f64) -> Self {
        Self { ahead_ns, drift_ppm, since_ns: unix_ns() }
    }

    /// What it reads at a server time.
    pub fn reads(&self, unix_ns: i64) -> i64 {
        unix_ns + self.ahead_ns + ((unix_ns - self.since_ns) as f64 * self.drift_ppm * 1e-6) as i64
    }
}

/// Asserts that a stated offset is as near to the truth as it says.
#[track_caller]
pub fn is_true(amp: &Amp, at_unix_ns: i64, offset_ns: Option<i64>, uncertainty_us: Option<f64>) {
    let truth = at_unix_ns - amp.reads(at_unix_ns);
    let (offset_ns, uncertainty_us) =
        (offset_ns.expect("an offset"), uncertainty_us.expect("how sure it is"));
    let off_us = (offset_ns - truth).abs() as f64 / 1e3;
    assert!(off_us <= uncertainty_us, "{off_us} µs off, said to be within {uncertainty_us} µs");
}

/// One amplifier on a connection of its own: rows of one signal, and probes.
pub struct Device {
    pub line: Line,
    pub amp: Amp,
    pub clock: &'static str,
    pub signal: &'static str,
    /// When row 0 began.
    pub start_unix_ns: i64,
    pub last: Option<v1::ProbeStamps>,
    /// The largest uncertainty that was told since it streams (µs).
    pub worst_us: f64,
    /// What came down, and when.
    pub outputs: Vec<(v1::Output, i64)>,
}

impl Device {
    pub async fn attach(server: &Latentd, opened: &v1::OpenReply, signal: &'static str, amp: Amp) -> Self {
        let writer = opened.writers[signal].clone();
        let attach = v1::Attach { session: opened.session.clone(), writer, signal: None };
        let line = Line::attach(server.live().await, attach).await.expect("a stream");
        let clock = if signal == "left" { "left-amp" } else { "right-amp" };
        Self { line, amp, clock, signal, start_unix_ns: 0, last: None, worst_us: 0.0, outputs: Vec::new() }
    }

    /// When row `k` begins, by the server's clock: the device's own step, which drifts.
    pub fn row_unix_ns(&self, k: i64) -> i64 {
        self.start_unix_ns + ((k * W) as f64 / (1.0 + self.amp.drift_ppm * 1e-6)) as i64
    }

    /// A frame of rows `from .. to`; channel `a` of row k is k modulo 64.
    pub fn frame(&self, seq: u64, from: i64, to: i64) -> v1::Frame {
        let rows: Vec<[f32; 2]> = (from..to).map(|k| [(k % 64) as f32, 1.0]).collect();
        let t_device_ns = Some(self.amp.reads(self.row_unix_ns(from)));
        v1::Frame { t_device_ns, ..binned(self.signal, seq, from as u64, &rows) }
    }

    /// Sends a probe and takes the reply; `off_ns` is how wrongly the device reads its clock for it.
    pub async fn probe(&mut self, off_ns: i64) -> (v1::ProbeReply, i64) {
        let sent_ns = unix_ns();
        let t1_ns = self.amp.reads(sent_ns) + off_ns;
        let ask = v1::ProbeRequest { clock: self.clock.into(), t1_ns, last: self.last.take() };
        self.line.up(Some(Up::Probe(ask))).await;
        loop {
            match self.line.next().await {
                Ok(Some(Down::Probe(reply))) => {
                    let t4_ns = self.amp.reads(unix_ns()) + off_ns;
                    assert_eq!((reply.clock.as_str(), reply.t1_ns), (self.clock, t1_ns));
                    let (t2_ns, t3_ns) = (reply.t2_ns, reply.t3_ns);
                    assert!(sent_ns <= t2_ns && t2_ns <= t3_ns && t3_ns <= unix_ns());
                    self.last = Some(v1::ProbeStamps { t1_ns, t2_ns, t3_ns, t4_ns });
                    return (reply, sent_ns);
                }
                Ok(Some(Down::Output(output))) => self.outputs.push((output, unix_ns())),
                other => panic!("a probe's reply or an Output is due, not {other:?}"),
            }
        }
    }

    /// As `probe`, with what it reads; asserts that the reply is as near to the truth as it says.
    pub async fn probe_truly(&mut self) -> v1::ProbeReply {
        let (reply, sent_ns) = self.probe(0).await;
        if reply.offset_ns.is_some() {
            is_true(&self.amp, sent_ns, reply.offset_ns, reply.uncertainty_us);
            self.worst_us = self.worst_us.max(reply.uncertainty_us.unwrap_or(0.0));
        }
        reply
    }
}

/// `pair` on two clocks, that of `left` the session's.
pub fn on_two_clocks() -> v1::OpenRequest {
    let mut ask = recorded(pipeline(
        "pair",
        [signal("left", "binned", &["a", "b"]), signal("right", "binned", &["a", "b"])],
    ));
    ask.signals[0].clock = "left-amp".into();
    ask.signals[1].clock = "right-amp".into();
    ask.signals[1].own_writer = true;
    ask
}

/// What `pair` gives for these bins: by bin its number, flags, and `sum` in bits.
pub fn answers_of_pair(bins: &[Bin]) -> Vec<(u64, u32, [u32; 2])> {
    let mut sum = [0f32; 2];
    let mut answers = Vec::new();
    for bin in bins {
        if bin.reset.is_some() {
            sum = [0.0; 2];
        }
        for (c, sum) in sum.iter_mut().enumerate() {
            *sum += bin.inputs[0].values[c] + bin.inputs[1].values[c] * 64.0;
        }
        answers.push((bin.k, bin.flags.0 & !OF_THE_ROAD, sum.map(f32::to_bits)));
    }
    answers
}

/// The same as the run has it.
pub async fn answers_recorded(server: &Latentd, run: &str) -> Vec<(u64, u32, [u32; 2])> {
    let reply: v1::OutputsReply = server.get(&format!("/v1/runs/{run}/outputs/sum")).await.message();
    let mut answers = Vec::new();
    for stretch in reply.stretches {
        let values =
            tensor::host("sum", stretch.tensor.as_ref().expect("values")).expect("a tensor").to_f64();
        for (i, flags) in stretch.flags.iter().enumerate() {
            let sum = [values[2 * i], values[2 * i + 1]].map(|value| (value as f32).to_bits());
            answers.push((stretch.first_bin + i as u64, flags & !OF_THE_ROAD, sum));
        }
    }
    answers
}

/// A probe by HTTP, finished; its reply, and when it was sent.
async fn probe(
    rig: &Rig,
    server: &Latentd,
    amp: &Amp,
    clock: &str,
    last: &mut Option<v1::ProbeStamps>,
) -> (v1::ProbeReply, i64) {
    let sent_ns = unix_ns();
    let t1_ns = amp.reads(sent_ns);
    let ask = v1::ProbeRequest { clock: clock.into(), t1_ns, last: last.take() };
    let path = format!("/v1/sessions/{}/clock", rig.session());
    let reply: v1::ProbeReply = server.post(&path, json::write(&ask)).await.message();
    let t4_ns = amp.reads(unix_ns());
    assert!(sent_ns <= reply.t2_ns && reply.t2_ns <= reply.t3_ns && reply.t3_ns <= unix_ns());
    *last = Some(v1::ProbeStamps { t1_ns, t2_ns: reply.t2_ns, t3_ns: reply.t3_ns, t4_ns });
    (reply, sent_ns)
}

/// How a clock stands before its first exchange: an uncertainty without bound, which JSON has no number for.
fn unknown() -> v1::ClockState {
    v1::ClockState { offset_ns: Some(0), drift_ppm: Some(0.0), uncertainty_us: None, steps: 0 }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_amplifiers_that_drift_and_one_of_them_set_go_on_row_by_row_and_replay_is_identical() {
    const TRIES: usize = 5;
    let mut worst_us = Vec::new();
    while worst_us.last().is_none_or(|worst_us| *worst_us >= CLEAR_US) {
        assert!(
            worst_us.len() < TRIES,
            "on this road clocks were {worst_us:?} µs off, row by row is not to be told"
        );
        worst_us.push(two_amplifiers().await);
    }
}

/// Clocks that are off by less than this together put each row where it belongs (µs).
pub const CLEAR_US: f64 = 5_000.0;

/// Streams two amplifiers, and asserts what came of it; row by row where their clocks were known well enough for that.
/// Answers how far they may have been off together (µs).
async fn two_amplifiers() -> f64 {
    const FRAMES: i64 = 60;
    const ROWS: i64 = 5;
    const WRONG_ONCE: i64 = 20;
    const SET: i64 = 35;
    let server = Latentd::start().await;
    let opened = server.open(v1::OpenRequest { wait_ms: Some(60_000.0), ..on_two_clocks() }).await.opened;
    let run = opened.run.clone().expect("a run");
    let mut left = Device::attach(&server, &opened, "left", Amp::new(-3_600 * S, 50.0)).await;
    let mut right = Device::attach(&server, &opened, "right", Amp::new(7 * S, -50.0)).await;

    // Frames of the other clock have no place before both were probed.
    let fault = right.line.refused(right.frame(0, 0, 1)).await;
    assert_eq!((fault.kind.as_str(), fault.status, fault.expected_seq), ("clock_unknown", 409, Some(0)));
    says(&fault.detail, &["right-amp", "left-amp", "probe"]);
    for device in [&mut left, &mut right] {
        let (reply, _) = device.probe(0).await;
        assert_eq!((reply.offset_ns, reply.drift_ppm, reply.uncertainty_us), (None, None, None));
        for _ in 0..8 {
            device.worst_us = 0.0;
            assert!(device.probe_truly().await.offset_ns.is_some());
        }
    }

    left.start_unix_ns = unix_ns();
    // In the middle of the other's bins: a mapping that is off by less than 5 ms puts each row where it belongs.
    right.start_unix_ns = left.start_unix_ns + W / 2;
    for i in 0..FRAMES {
        if i == SET {
            right.amp.ahead_ns += 15 * S;
        }
        let (from, to) = (i * ROWS, (i + 1) * ROWS);
        let due_ns = left.row_unix_ns(to).max(right.row_unix_ns(to)) - unix_ns();
        tokio::time::sleep(Duration::from_nanos(due_ns.max(0) as u64)).await;
        for device in [&left, &right] {
            device.line.put(device.frame(i as u64, from, to)).await;
        }
        left.probe_truly().await;
        match i {
            WRONG_ONCE => _ = right.probe(15 * S).await,
            // Three that say so are needed, and each is told of with the next.
            _ if (SET..SET + 3).contains(&i) => _ = right.probe(0).await,
            _ => _ = right.probe_truly().await,
        }
    }

    let path = format!("/v1/sessions/{}", opened.session);
    let info: v1::SessionInfo = server.get(&path).await.message();
    let clock = info.clock.expect("how its clock stands");
    is_true(&left.amp, unix_ns(), clock.offset_ns, clock.uncertainty_us);
    assert_eq!(clock.steps, 1);
    let end_ns = |bin: i64| left.row_unix_ns(bin + 1);
    let mut answers: Vec<(u64, u32, [f32; 2])> = Vec::new();
    for (output, came_ns) in left.outputs.iter().chain(&right.outputs) {
        for (i, sum) in block_rows(output).into_iter().enumerate() {
            answers.push((output.first_bin + i as u64, output.flags[i] & !OF_THE_ROAD, sum));
        }
        if output.n > 0 {
            let newest = (output.first_bin + u64::from(output.n) - 1) as i64;
            let (age_us, true_us) = (output.age_us.expect("an age"), (came_ns - end_ns(newest)) as f64 / 1e3);
            assert!(age_us >= 0.0 && age_us <= true_us + left.worst_us, "{age_us} µs, truly {true_us}");
        }
    }
    let (left_rest, right_rest) = (left.line.end().await, right.line.end().await);
    let rest = [left_rest, right_rest].concat();
    for output in &rest {
        for (i, sum) in block_rows(output).into_iter().enumerate() {
            answers.push((output.first_bin + i as u64, output.flags[i] & !OF_THE_ROAD, sum));
        }
    }
    answers.sort_by_key(|answer| answer.0);
    let want: Vec<(u64, u32, [f32; 2])> = (0..FRAMES * ROWS)
        .scan([0f32; 2], |sum, k| {
            let x = (k % 64) as f32;
            *sum = [sum[0] + x + 64.0 * x, sum[1] + 65.0];
            Some((k as u64, 0, *sum))
        })
        .collect();
    let worst_us = left.worst_us + right.worst_us;
    if worst_us < CLEAR_US {
        assert_eq!(answers, want, "each row in its bin, no flag");
    }

    let closed: v1::CloseReply = server.delete(&path).await.message();
    assert_eq!((closed.bins, closed.gaps, closed.late), ((FRAMES * ROWS) as u64, 0, 0));
    let event = server.event(&run, "clock_step").await;
    assert_eq!((event.signal.as_str(), event.count), ("right", 1));
    says(&event.detail, &["right-amp"]);
    let numbers = event.detail.split(|c: char| c != '-' && !c.is_ascii_digit());
    let offsets: Vec<i64> = numbers.filter_map(|number| number.parse().ok()).collect();
    let [.., old_ns, new_ns] = offsets[..] else { panic!("both offsets: {}", event.detail) };
    assert!((old_ns + 7 * S).abs() < 50 * MS && (new_ns + 22 * S).abs() < 50 * MS, "{}", event.detail);
    // The stamps were off by 15 s until that was believed, and never since.
    let event = server.event(&run, "clock_disagrees").await;
    assert!((1..=4).contains(&event.count), "{event:?}");
    let info: v1::RunInfo = server.get(&format!("/v1/runs/{run}")).await.message();
    for clock in ["left-amp", "right-amp"] {
        let told = |setting: &&v1::Setting| setting.name == format!("clock.{clock}.uncertainty_us");
        let setting = info.settings.iter().find(told).unwrap_or_else(|| panic!("{:?}", info.settings));
        assert!(setting.value.parse::<f64>().expect("µs") > 0.0);
    }
    let recorded = answers_recorded(&server, &run).await;
    let setup = server.stop().await;
    assert_eq!(answers_of_pair(&replayed(&setup, &info).await), recorded);
    worst_us
}

fn block_rows(output: &v1::Output) -> Vec<[f32; 2]> {
    if output.n == 0 {
        return Vec::new();
    }
    block(output, 0).chunks_exact(2).map(|row| [row[0], row[1]]).collect()
}

#[tokio::test]
async fn replay_repeats_a_stall_a_reset_an_epoch_and_a_relation_to_the_bit() {
    let server = Latentd::start().await;
    let ask = v1::OpenRequest { wait_ms: Some(30.0), max_gap_ms: Some(20.0), ..on_two_clocks() };
    let rig = server.open(ask).await;
    let (left_amp, right_amp) = (Amp::new(5 * S, 50.0), Amp::new(-9 * S, -50.0));
    let (mut left_last, mut right_last) = (None, None);
    for _ in 0..3 {
        probe(&rig, &server, &left_amp, "left-amp", &mut left_last).await;
        probe(&rig, &server, &right_amp, "right-amp", &mut right_last).await;
    }
    let start_ns = unix_ns();
    let rows = |from: u64, to: u64| (from..to).map(|k| [k as f32, 0.25]).collect::<Vec<[f32; 2]>>();
    let left = |seq, from: u64, to: u64| v1::Frame {
        t_device_ns: Some(left_amp.reads(start_ns) + from as i64 * W),
        ..binned("left", seq, from, &rows(from, to))
    };
    let right = |seq, from: u64, to: u64| v1::Frame {
        t_device_ns: Some(right_amp.reads(start_ns + W / 2) + from as i64 * W),
        ..binned("right", seq, from, &rows(from, to))
    };
    rig.send(left(0, 0, 4)).await;
    rig.send(right(0, 0, 4)).await;
    // The right stalls; what its wait has closed is late when it comes.
    rig.send(left(1, 4, 8)).await;
    until(LIMIT, "bins closed by their wait", || async {
        (rig.info().await.last_bin == Some(7)).then_some(())
    })
    .await;
    rig.reset("model", Some(9)).await.expect("a bin that is open");
    rig.reset("all", None).await.expect("the next bin");
    rig.send(right(1, 4, 11)).await;
    probe(&rig, &server, &right_amp, "right-amp", &mut right_last).await;
    rig.send(left(2, 8, 11)).await;
    // The left's counter restarts; how long it was away is the server's clock's to say.
    tokio::time::sleep(Duration::from_millis(35)).await;
    let again = v1::Frame {
        epoch: true,
        t_device_ns: Some(left_amp.reads(unix_ns())),
        ..binned("left", 3, 0, &rows(0, 3))
    };
    rig.send(again).await;
    rig.send(right(2, 11, 30)).await;
    let after = v1::Frame { t_device_ns: None, ..binned("left", 4, 3, &rows(3, 6)) };
    rig.send(after).await;
    let run = rig.run().to_owned();
    until(LIMIT, "all of the left's bins", || async {
        let info = rig.info().await;
        (info.last_bin >= Some(16)).then_some(())
    })
    .await;
    rig.close().await;
    for kind in ["signal_missing", "late", "reset", "clock_epoch"] {
        assert!(!server.events(&run, kind).await.is_empty(), "no event `{kind}`");
    }
    let info: v1::RunInfo = server.get(&format!("/v1/runs/{run}")).await.message();
    let recorded = answers_recorded(&server, &run).await;
    let setup = server.stop().await;
    assert_eq!(answers_of_pair(&replayed(&setup, &info).await), recorded);
}

#[tokio::test]
async fn after_an_exchange_by_http_answers_tell_their_age_and_deadlines_go_by_it() {
    let server = Latentd::start().await;
    let mut ask = v1::OpenRequest { deadline_ms: Some(10_000.0), ..recorded(linear()) };
    ask.signals[0].source_delay_ms = 250.0;
    let rig = server.open(ask).await;
    let amp = Amp::new(5 * S, 20.0);
    // Its bins are 20 s old, which nobody can know yet.
    let start_ns = unix_ns() - 20 * S;
    let frame = |seq: u64| v1::Frame {
        t_device_ns: Some(amp.reads(start_ns) + seq as i64 * W),
        ..counts(seq, seq, &[[1.0, 2.0]])
    };
    let output = rig.send(frame(0)).await;
    assert_eq!((output.age_us, flag_names(&output)), (None, vec![vec![]]));
    assert_eq!(rig.info().await.clock, Some(unknown()));

    let (mut last, mut stated) = (None, None);
    for _ in 0..10 {
        let (reply, sent_ns) = probe(&rig, &server, &amp, "device", &mut last).await;
        if reply.offset_ns.is_some() {
            is_true(&amp, sent_ns, reply.offset_ns, reply.uncertainty_us);
            stated = reply.uncertainty_us;
        }
    }
    let clock = rig.info().await.clock.expect("how its clock stands");
    is_true(&amp, unix_ns(), clock.offset_ns, clock.uncertainty_us);
    assert_eq!(clock.steps, 0);

    let end_ns = start_ns + 2 * W;
    let before_us = (unix_ns() - end_ns) as f64 / 1e3;
    let output = rig.send(frame(1)).await;
    let after_us = (unix_ns() - end_ns) as f64 / 1e3;
    // The relation is seconds away from what it was measured at.
    let spare_us = stated.expect("how sure it is") + 25_000.0;
    let age_us = output.age_us.expect("an age") - 250_000.0;
    assert!(
        before_us - spare_us <= age_us && age_us <= after_us + spare_us,
        "{before_us} {age_us} {after_us}"
    );
    assert_eq!(flag_names(&output), [["deadline_missed"]]);
    assert_eq!(server.metric("latentd_age_seconds_count", "linear").await, 1.0);
    assert_eq!(rig.clone().close().await.deadline_missed, 1);

    let rig = server.open(linear()).await;
    let path = format!("/v1/sessions/{}/clock", rig.session());
    let ask = |clock: &str| json::write(&v1::ProbeRequest { clock: clock.into(), ..Default::default() });
    server.post(&path, ask("sundial")).await.refused().is(404, "not_found", &["sundial", "device"]);
    server.post("/v1/sessions/none/clock", ask("device")).await.refused().is(404, "not_found", &["none"]);
    server.post(&path, r#"{"clock": "device", "t1": 5}"#).await.refused().is(400, "malformed", &["t1"]);
    rig.close().await;
    server.stop().await;
}

#[tokio::test]
async fn stamps_that_the_server_never_gave_are_refused_on_every_road_and_move_no_clock() {
    let server = Latentd::start().await;
    let rig = server.open(linear()).await;
    let amp = Amp::new(5 * S, 0.0);
    let path = format!("/v1/sessions/{}/clock", rig.session());
    let ask =
        |last| v1::ProbeRequest { clock: "device".into(), t1_ns: amp.reads(unix_ns()), last: Some(last) };
    // Nothing was answered yet: a relation cannot be made of thin air.
    let now_ns = unix_ns();
    let forged = v1::ProbeStamps { t1_ns: now_ns, t2_ns: now_ns, t3_ns: now_ns, t4_ns: now_ns };
    let answer = server.post(&path, json::write(&ask(forged))).await.refused();
    answer.is(422, "invalid", &["last", "answers to probes of clock `device`", &now_ns.to_string()]);
    assert_eq!(rig.info().await.clock, Some(unknown()));

    let mut last = None;
    probe(&rig, &server, &amp, "device", &mut last).await;
    let honest = last.expect("the stamps of a probe");
    for forged in [
        v1::ProbeStamps { t2_ns: honest.t2_ns - 1, ..honest },
        v1::ProbeStamps { t3_ns: honest.t3_ns + 15 * S, ..honest },
        v1::ProbeStamps { t2_ns: honest.t2_ns + S, t3_ns: honest.t3_ns + S, ..honest },
    ] {
        let fault = server.post(&path, json::write(&ask(forged))).await.refused();
        let fault = fault.is(422, "invalid", &["last", "as that probe was answered"]);
        assert_eq!(fault.tensor, "last");
        says(&fault.expected, &[&honest.t2_ns.to_string(), &honest.t3_ns.to_string()]);
        says(&fault.found, &[&forged.t2_ns.to_string(), &forged.t3_ns.to_string()]);
        assert_eq!(rig.info().await.clock, Some(unknown()));
    }

    // A stream is told, and goes on; what it is answered there holds by HTTP, too.
    let attach = v1::Attach {
        session: rig.session().into(),
        writer: rig.opened.writers["spikes"].clone(),
        signal: None,
    };
    let mut line = Line::attach(server.live().await, attach).await.expect("a stream");
    let forged = v1::ProbeStamps { t3_ns: honest.t3_ns + S, ..honest };
    line.up(Some(Up::Probe(ask(forged)))).await;
    match line.next().await {
        Ok(Some(Down::Fault(fault))) => {
            assert_eq!((fault.kind.as_str(), fault.tensor.as_str()), ("invalid", "last"), "{fault:?}");
        }
        other => panic!("a fault is due, not {other:?}"),
    }
    let mut probed = v1::ProbeRequest { last: None, ..ask(honest) };
    line.up(Some(Up::Probe(probed.clone()))).await;
    let Ok(Some(Down::Probe(reply))) = line.next().await else { panic!("a probe's reply is due") };
    assert_eq!(reply.offset_ns, None, "nothing was believed so far");
    probed.last = Some(v1::ProbeStamps {
        t1_ns: reply.t1_ns,
        t2_ns: reply.t2_ns,
        t3_ns: reply.t3_ns,
        t4_ns: amp.reads(unix_ns()),
    });
    let reply: v1::ProbeReply = server.post(&path, json::write(&probed)).await.message();
    is_true(&amp, unix_ns(), reply.offset_ns, reply.uncertainty_us);
    let before = rig.info().await.clock;
    // The same again is no second probe, whatever else it says.
    let again = v1::ProbeStamps { t4_ns: honest.t4_ns + 20 * S, ..probed.last.expect("stamps") };
    let _: v1::ProbeReply = server.post(&path, json::write(&ask(again))).await.message();
    let after = rig.info().await.clock.expect("how its clock stands");
    assert_eq!(after.offset_ns, before.expect("how its clock stood").offset_ns);
    line.end().await;
    rig.close().await;
    server.stop().await;
}
