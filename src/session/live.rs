//! The session: frames in, bins stepped one at a time, answers out.
//!
//! A frame is judged by its signal's `Order`, aligned into bins by the `Aligner`, and leaves a row of `Work` behind: its
//! closed bins, then `End`. Whoever finds no bin in flight starts the next one; the thread that finishes a bin takes it
//! from there (`finished`), so that a session is driven by its own data and never by a task of its own.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message as _;
use tokio::sync::Notify;

use super::lag::LagStats;
use super::meter::Meter;
use super::order::{Answer, Order, Sink, Verdict};
use super::outbox::{Outbox, Outgoing};
use super::part::Part;
use crate::batch::{Onward, Owner, Place, Ran, Row, RowFault};
use crate::domain::frame::Frame;
use crate::domain::ids::{RunId, SessionId, SignalName};
use crate::domain::output::{EventKind, Flags, Notice, OutputSpec};
use crate::domain::settings::{Ack, ResetScope};
use crate::domain::signal::SignalSpec;
use crate::domain::time::Stamp;
use crate::error::{Fault, Kind};
use crate::metrics::Outcome;
use crate::pipeline::journey::{Journey, Next};
use crate::readout::Column;
use crate::recorder::{Close, OutputColumn, Record, RunRecorder, Ticket};
use crate::signal::aligner::Aligner;
use crate::signal::step::{Bin, Step};
use crate::wire::{self, v1};

/// Due time of a bin whose session asks for none, in bins: enough to keep the order, never a promise.
const DUE_BINS: u32 = 2;

/// What a road may be late without its bins being a backlog.
const ROAD_JITTER: Duration = Duration::from_millis(20);

/// What a session is made of; all of it proven by whoever opens it.
pub struct Made {
    /// Its id.
    pub id: SessionId,
    /// The run that records it.
    pub run: Option<RunId>,
    /// What it was opened with and what it was told.
    pub opened: v1::OpenReply,
    /// Its signals, in the order of the aligner's numbers.
    pub signals: Vec<SignalSpec>,
    /// Its pipeline's outputs.
    pub outputs: Vec<OutputSpec>,
    /// By output: whether answers carry it.
    pub wanted: Vec<bool>,
    /// By output: whether it is recorded.
    pub recorded: Vec<bool>,
    /// By signal: whether its frames' data are recorded.
    pub keeps_data: Vec<bool>,
    /// From frames to bins.
    pub aligner: Aligner,
    /// From bins to outputs.
    pub journey: Journey,
    /// To the journal, if it is recorded.
    pub recorder: Option<RunRecorder>,
    /// Its places in the lanes, held until it closes.
    pub places: Vec<Place>,
    /// Width of a bin.
    pub width: Duration,
    /// The lag that it asks for.
    pub deadline: Option<Duration>,
    /// When a reply leaves.
    pub ack: Ack,
    /// Invalid bins in a row after which its state starts anew.
    pub invalid_limit: u32,
    /// Unanswered frames that a rig may have.
    pub window: usize,
    /// Without a sign of life for so long it is closed.
    pub idle_timeout: Duration,
    /// What it tells the metrics.
    pub meter: Meter,
}

/// An open session.
pub struct Session {
    /// Its id.
    pub id: SessionId,
    /// The run that records it.
    pub run: Option<RunId>,
    /// What the rig was told at open.
    pub opened: v1::OpenReply,
    /// Its signals; a signal's number is its place here.
    pub signals: Vec<SignalSpec>,
    /// Without a sign of life for so long it is closed.
    pub idle_timeout: Duration,
    pub(super) window: usize,
    outputs: Vec<OutputSpec>,
    wanted: Vec<bool>,
    kept: Vec<bool>,
    recorded: Vec<bool>,
    keeps_data: Vec<bool>,
    width: Duration,
    deadline: Option<Duration>,
    ack: Ack,
    invalid_limit: u32,
    pub(super) meter: Meter,
    recorder: Option<RunRecorder>,
    pub(super) core: Mutex<Core>,
    /// Rows of a session that is gone are not run.
    gone: AtomicBool,
    /// Woken when nothing is in flight any more.
    pub(super) stirred: Notify,
    /// Woken when an answer waits for the journal.
    durable_due: Notify,
    /// Woken when a bin's wait may have begun or ended.
    waits_changed: Notify,
}

/// What a session owns behind its lock, which is held for the ingest of a frame or the commit of a bin, never for a run.
pub(super) struct Core {
    aligner: Aligner,
    pub(super) orders: Vec<Order>,
    journey: Journey,
    work: VecDeque<Work>,
    /// The bin that is being stepped; its row is in a lane.
    in_flight: Option<InFlight>,
    /// Bins of the answer at the head of `work`.
    parts: Vec<Part>,
    /// Bins that no answer carried yet: pushed where no stream was attached, or behind a hole in an HTTP answer.
    held: Vec<Part>,
    /// Length of the unfilled gap since the last bin.
    skipped: u64,
    invalid_in_row: u32,
    reset_due: bool,
    lag: LagStats,
    tally: Tally,
    /// Smallest difference between a frame's arrival and the end of its newest bin: the road at its best (ns).
    road_ns: Option<i64>,
    pub(super) last_sign: Instant,
    pub(super) stream_count: u64,
    closing: Option<&'static str>,
    places: Vec<Place>,
    steps: Vec<Step>,
    /// Answers that wait for the journal, oldest first (`ack = "durable"`).
    awaiting: VecDeque<Awaiting>,
    /// Of what was recorded last.
    last_ticket: Option<Ticket>,
    /// Whether the run knows where bin 0 lies.
    t0_told: bool,
}

/// An answer that waits for the journal.
struct Awaiting {
    ticket: Ticket,
    signal: usize,
    seq: u64,
    answer: Answer,
}

struct InFlight {
    k: u64,
    flags: Flags,
}

/// Totals of a session.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    bins: u64,
    deadline_missed: u64,
    last_bin: Option<u64>,
}

enum Work {
    Bin(Box<Bin>),
    Skipped { to: u64, bins: u64 },
    End(Box<End>),
}

/// The end of what one frame (or one expiry) has closed.
struct End {
    cause: Option<Cause>,
    received: Stamp,
    /// Whether the frame came long after the road at its best would have brought it.
    behind: bool,
    queued: Duration,
    compute: Duration,
}

struct Cause {
    signal: usize,
    seq: u64,
    echo: Bytes,
    reply: bool,
    /// Whether one caller waits for this frame alone.
    once: bool,
    /// The frame as it is kept, or nothing.
    data: Bytes,
    /// One past the last bin that had closed once it was taken.
    bins_until: u64,
    fault: Option<Fault>,
}

impl Session {
    /// A session that nothing has come for.
    pub fn new(made: Made, tokens: Vec<String>) -> Arc<Self> {
        let orders = tokens.into_iter().map(|token| Order::new(made.window, token)).collect();
        let kept =
            made.wanted.iter().zip(&made.recorded).map(|(wanted, recorded)| *wanted || *recorded).collect();
        Arc::new(Self {
            id: made.id,
            run: made.run,
            opened: made.opened,
            signals: made.signals,
            idle_timeout: made.idle_timeout,
            window: made.window,
            outputs: made.outputs,
            wanted: made.wanted,
            kept,
            recorded: made.recorded,
            keeps_data: made.keeps_data,
            width: made.width,
            deadline: made.deadline,
            ack: made.ack,
            invalid_limit: made.invalid_limit,
            meter: made.meter,
            recorder: made.recorder,
            core: Mutex::new(Core {
                aligner: made.aligner,
                orders,
                journey: made.journey,
                work: VecDeque::new(),
                in_flight: None,
                parts: Vec::new(),
                held: Vec::new(),
                skipped: 0,
                invalid_in_row: 0,
                reset_due: false,
                lag: LagStats::default(),
                tally: Tally::default(),
                road_ns: None,
                last_sign: Instant::now(),
                stream_count: 0,
                closing: None,
                places: made.places,
                steps: Vec::new(),
                awaiting: VecDeque::new(),
                last_ticket: None,
                t0_told: false,
            }),
            gone: AtomicBool::new(false),
            stirred: Notify::new(),
            durable_due: Notify::new(),
            waits_changed: Notify::new(),
        })
    }

    /// The number of a signal. Errors: `not_found`, naming those there are.
    pub fn signal(&self, name: &str) -> Result<usize, Fault> {
        self.signals.iter().position(|spec| spec.name.as_str() == name).ok_or_else(|| {
            Fault::not_found("signal", name, self.signals.iter().map(|spec| spec.name.as_str()))
        })
    }

    /// Takes frames that came together, each with its sink, and steps what they close. The answers come by the sinks.
    pub fn feed(self: &Arc<Self>, frames: impl IntoIterator<Item = (v1::Frame, Sink)>, received: Stamp) {
        let _span = tracing::debug_span!("session.feed", session.id = %self.id).entered();
        let mut core = self.core.lock();
        core.last_sign = received.instant;
        for (frame, sink) in frames {
            self.ingest(&mut core, frame, sink, received);
        }
        self.set_out(core);
    }

    /// Closes bins whose missing signals have been waited for long enough.
    pub fn expire(self: &Arc<Self>, now: Stamp) {
        let mut core = self.core.lock();
        let mut steps = std::mem::take(&mut core.steps);
        core.aligner.expire(now.unix_ns, &mut steps);
        if !steps.is_empty() {
            self.take_steps(&mut core, &mut steps);
            core.work.push_back(Work::End(Box::new(End {
                cause: None,
                received: now,
                behind: false,
                queued: Duration::ZERO,
                compute: Duration::ZERO,
            })));
        }
        core.steps = steps;
        self.set_out(core);
    }

    /// Closes bins when they have waited for long enough, until the session is gone; runs for as long as a session
    /// with several inputs is open.
    pub async fn close_waited_bins(self: Arc<Self>) {
        while !self.gone.load(Ordering::Acquire) {
            let stirred = self.waits_changed.notified();
            let next_ns = self.core.lock().aligner.next_expiry_ns();
            let Some(next_ns) = next_ns else {
                stirred.await;
                continue;
            };
            let wait_ns = next_ns.saturating_sub(Stamp::now().unix_ns).max(0);
            // Cancel-safe: a wake-up that is missed here is the time limit itself, after which all is looked at anew.
            if tokio::time::timeout(Duration::from_nanos(wait_ns as u64), stirred).await.is_err() {
                self.expire(Stamp::now());
            }
        }
    }

    /// Starts the state anew before `at_bin` (default: the next bin to close), and says before which.
    /// Errors: `conflict` for a bin that has closed.
    pub fn reset(self: &Arc<Self>, scope: ResetScope, at_bin: Option<u64>, now: Stamp) -> Result<u64, Fault> {
        let mut core = self.core.lock();
        self.still_open(&core)?;
        core.last_sign = now.instant;
        let at = core.aligner.reset(scope, at_bin)?;
        Ok(at)
    }

    /// By signal the `seq` that must come next, and the last bin.
    pub(super) fn standing(&self) -> v1::Attached {
        let core = self.core.lock();
        let names = self.signals.iter().map(|spec| spec.name.to_string());
        v1::Attached {
            next_seq: names.zip(&core.orders).map(|(name, order)| (name, order.next_seq())).collect(),
            last_bin: core.tally.last_bin,
            ..Default::default()
        }
    }

    pub(super) fn still_open(&self, core: &Core) -> Result<(), Fault> {
        match core.closing {
            None => Ok(()),
            Some(why) => Err(Fault::new(Kind::Unavailable, format!("session {}: {why}", self.id))),
        }
    }

    fn ingest(&self, core: &mut Core, mut wire_frame: v1::Frame, sink: Sink, received: Stamp) {
        // The token is a secret of the rig; it is not recorded.
        wire_frame.writer.clear();
        let signal = match self.signal(&wire_frame.signal) {
            Ok(signal) => signal,
            Err(fault) => return sink.fault(fault.about(&wire_frame.signal, wire_frame.seq)),
        };
        if let Err(fault) = self.still_open(core) {
            return sink.fault(fault.about(&wire_frame.signal, wire_frame.seq));
        }
        let data = if self.recorder.is_some() && self.keeps_data[signal] {
            Bytes::from(wire_frame.encode_to_vec())
        } else {
            Bytes::new()
        };
        let seq = wire_frame.seq;
        let frame: Frame = match wire::frame::domain(wire_frame, &self.signals[signal]) {
            Ok(frame) => frame,
            Err(fault) => {
                let name = self.signals[signal].name.as_str();
                return sink.fault(fault.about(name, seq).expecting(core.orders[signal].next_seq()));
            }
        };
        let sink = match core.orders[signal].judge(&frame, sink) {
            Verdict::Take(sink) => sink,
            Verdict::Done => return,
        };
        let once = matches!(sink, Sink::Once(_));
        if once && core.orders[signal].unanswered() >= self.window {
            let detail =
                format!("signal {}: {} frames are unanswered, the window is full", frame.signal, self.window);
            let fault = Fault::new(Kind::Overloaded, detail).retry_after(self.width.as_secs_f64() * 1e3);
            return core.orders[signal].refuse(&frame, sink, fault);
        }
        let mut steps = std::mem::take(&mut core.steps);
        let pushed = core.aligner.push(signal, &frame, received.unix_ns, &mut steps);
        let newest_end_ns = steps.iter().rev().find_map(|step| match step {
            Step::Bin(bin) => core.aligner.grid().map(|grid| grid.end_ns(bin.k)),
            _ => None,
        });
        self.take_steps(core, &mut steps);
        core.steps = steps;
        let fault = match pushed {
            Ok(()) => None,
            Err(refusal) if refusal.consumed() => Some(
                Fault { consumed: true, ..Fault::from(refusal) }
                    .about(frame.signal.as_str(), frame.seq)
                    .expecting(frame.seq + 1),
            ),
            Err(refusal) => return core.orders[signal].refuse(&frame, sink, Fault::from(refusal)),
        };
        core.orders[signal].consumed(&frame, sink);
        self.meter.received(received.instant.elapsed());
        let behind = newest_end_ns.is_some_and(|end_ns| core.is_behind(end_ns, received.unix_ns, self.width));
        core.work.push_back(Work::End(Box::new(End {
            cause: Some(Cause {
                signal,
                seq: frame.seq,
                echo: frame.echo,
                reply: frame.reply,
                once,
                data,
                bins_until: core.aligner.next_bin(),
                fault,
            }),
            received,
            behind,
            queued: Duration::ZERO,
            compute: Duration::ZERO,
        })));
    }

    /// Bins and skips to the end of the work, notices to whoever listens.
    fn take_steps(&self, core: &mut Core, steps: &mut Vec<Step>) {
        for step in steps.drain(..) {
            match step {
                Step::Bin(bin) => core.work.push_back(Work::Bin(Box::new(bin))),
                Step::Skipped { from, to } => core.work.push_back(Work::Skipped { to, bins: to - from }),
                Step::Notice(notice) => {
                    self.meter.happened(&notice);
                    self.tell(core, notice);
                }
            }
        }
        self.waits_changed.notify_one();
    }

    /// A notice to the run and to every attached stream.
    pub(super) fn tell(&self, core: &mut Core, notice: Notice) {
        self.note(Record::Event(notice.clone()));
        let message = v1::Notice {
            kind: notice.kind.word().into(),
            signal: notice.signal.as_ref().map(SignalName::to_string).unwrap_or_default(),
            from_bin: notice.from_bin,
            to_bin: notice.to_bin,
            count: notice.count,
            detail: notice.detail,
            t_ns: notice.t_ns,
        };
        for outbox in core.outboxes() {
            outbox.put_notice(message.clone());
        }
    }

    /// A small record that belongs to no answer. If the recorder has no room for it, it has none for bins either, which
    /// the run then says.
    fn note(&self, record: Record) {
        let Some(recorder) = &self.recorder else { return };
        if self.gone.load(Ordering::Acquire) {
            return;
        }
        if let Some(room) = recorder.reserve(record.size_bytes()) {
            recorder.put(room, record);
        }
    }

    /// Starts the next bin, if none is in flight and one waits; then lets go of the lock and runs it, here if it may.
    fn set_out(self: &Arc<Self>, mut core: parking_lot::MutexGuard<'_, Core>) {
        if core.in_flight.is_some() {
            return;
        }
        let onward = self.advance(&mut core);
        drop(core);
        if let Some(Onward { lane, row }) = onward {
            lane.submit(row, Arc::clone(self) as Arc<dyn Owner>, true);
        }
    }

    /// Does the work at the head until a row must be run.
    fn advance(&self, core: &mut Core) -> Option<Onward> {
        while let Some(work) = core.work.pop_front() {
            match work {
                Work::Bin(bin) => {
                    if let Some(onward) = self.begin(core, *bin) {
                        return Some(onward);
                    }
                }
                Work::Skipped { to, bins } => {
                    core.skipped += bins;
                    self.meter.bins(Outcome::Skipped, bins);
                    self.note(Record::Skipped { from_bin: to - bins, to_bin: to });
                }
                Work::End(end) => self.answer(core, *end),
            }
        }
        self.stirred.notify_waiters();
        None
    }

    fn begin(&self, core: &mut Core, bin: Bin) -> Option<Onward> {
        let mut flags = bin.flags;
        if bin.reset.is_some() || std::mem::take(&mut core.reset_due) {
            core.journey.reset();
            flags |= Flags::RESET;
        }
        let (received, behind) = core.next_end();
        if behind {
            flags |= Flags::STALE;
        }
        let due = received + self.deadline.unwrap_or(self.width * DUE_BINS);
        core.in_flight = Some(InFlight { k: bin.k, flags });
        match core.journey.begin(&bin.inputs, due) {
            Next::Stage(onward) => Some(onward),
            Next::Done | Next::Stopped => {
                self.end_bin(core);
                None
            }
        }
    }

    /// The bin at hand has passed every stage: read out, commit, on to the next.
    fn end_bin(&self, core: &mut Core) {
        let Some(InFlight { k, mut flags }) = core.in_flight.take() else { return };
        let fault = core.journey.fault().map(|(stage, reason)| (stage, reason.to_owned()));
        if fault.is_some() {
            flags |= Flags::OUTPUT_INVALID;
        }
        let skipped = std::mem::take(&mut core.skipped);
        let goes_on = skipped == 0
            && core.parts.last().is_some_and(|part| !part.flags.is_empty() && part.first_bin + part.n() == k);
        if !goes_on {
            let columns = self.outputs.iter().zip(&self.kept);
            let columns = columns.map(|(spec, kept)| kept.then(|| Column::new(spec, 1))).collect();
            core.parts.push(Part::new(skipped, k, columns));
        }
        let part = core.parts.last_mut().expect("a part was just pushed");
        let begun = Instant::now();
        core.journey.read_out(&mut part.columns);
        self.meter.read_out(begun.elapsed());
        part.flags.push(flags.0);
        match fault {
            None => {
                core.journey.commit();
                core.invalid_in_row = 0;
            }
            Some((_, reason)) => self.invalid(core, k, &reason),
        }
        let times = core.journey.times;
        if let Some(end) = core.head_end() {
            end.queued += times.queued;
            end.compute += times.compute;
        }
        core.tally.bins += 1;
        core.tally.last_bin = Some(k);
        let outcome = if flags.has(Flags::OUTPUT_INVALID) {
            Outcome::OutputInvalid
        } else if flags.has(Flags::GAP_FILLED) {
            Outcome::GapFilled
        } else {
            Outcome::Answered
        };
        self.meter.bins(outcome, 1);
    }

    fn invalid(&self, core: &mut Core, k: u64, reason: &str) {
        core.invalid_in_row += 1;
        let now_ns = Stamp::now().unix_ns;
        let notice = |kind, count, detail| Notice {
            kind,
            signal: None,
            from_bin: Some(k),
            to_bin: Some(k + 1),
            count,
            detail,
            t_ns: now_ns,
        };
        self.tell(core, notice(EventKind::OutputInvalid, 1, reason.to_owned()));
        if core.invalid_in_row >= self.invalid_limit {
            core.invalid_in_row = 0;
            core.reset_due = true;
            let detail = format!("{} invalid bins in a row; the state starts anew", self.invalid_limit);
            self.tell(core, notice(EventKind::Reset, 1, detail));
        }
    }

    /// Everything that this frame closed has been stepped: record it, answer it.
    fn answer(&self, core: &mut Core, end: End) {
        let mut parts = std::mem::take(&mut core.parts);
        let now = Instant::now();
        let lag = now.duration_since(end.received.instant);
        let lag_us = lag.as_secs_f64() * 1e6;
        let bins: u64 = parts.iter().map(Part::n).sum();
        if bins > 0 && end.cause.is_some() {
            core.lag.add(lag_us);
            self.meter.step(lag);
            if self.deadline.is_some_and(|deadline| lag > deadline) {
                parts.iter_mut().for_each(|part| part.flag_all(Flags::DEADLINE_MISSED));
                core.tally.deadline_missed += bins;
                self.meter.deadline_missed(bins);
            }
        }
        let ticket = self.record(core, &end, &mut parts);
        let Some(cause) = end.cause else {
            return self.push(core, parts);
        };
        if cause.once {
            let mut all = std::mem::take(&mut core.held);
            all.append(&mut parts);
            parts = Self::join(all);
            if parts.len() > 1 {
                core.held = parts.split_off(1);
            }
        } else {
            // Bins that were held for an HTTP answer go first.
            let held = std::mem::take(&mut core.held);
            if !held.is_empty() {
                parts = Self::join(held.into_iter().chain(parts).collect());
            }
        }
        let answer = match cause.fault {
            Some(fault) => {
                core.held.append(&mut parts);
                Answer::Fault(fault)
            }
            None => {
                if parts.is_empty() {
                    parts.push(Part::new(std::mem::take(&mut core.skipped), cause.bins_until, Vec::new()));
                }
                let none_wanted = vec![false; self.wanted.len()];
                let wanted = if cause.reply { &self.wanted } else { &none_wanted };
                let durable_seq = self.durable_seq();
                let outputs = parts.into_iter().map(|part| v1::Output {
                    signal: self.signals[cause.signal].name.to_string(),
                    seq: Some(cause.seq),
                    lag_us: Some(v1::Lag {
                        queue: end.queued.as_secs_f64() * 1e6,
                        compute: end.compute.as_secs_f64() * 1e6,
                        total: lag_us,
                    }),
                    durable_seq: durable_seq.clone(),
                    echo: cause.echo.clone(),
                    ..part.message(wanted)
                });
                Answer::Outputs(outputs.collect())
            }
        };
        match (self.ack, ticket) {
            (Ack::Durable, Some(ticket)) => {
                core.awaiting.push_back(Awaiting { ticket, signal: cause.signal, seq: cause.seq, answer });
                self.durable_due.notify_one();
            }
            _ => core.orders[cause.signal].answer(cause.seq, answer),
        }
        if bins > 0 {
            self.meter.replied(now.elapsed());
        }
    }

    /// Joins parts that go on from one another.
    fn join(parts: Vec<Part>) -> Vec<Part> {
        let mut joined: Vec<Part> = Vec::with_capacity(parts.len());
        for part in parts {
            match joined.last_mut() {
                Some(last) if last.joins(&part) => last.join(part),
                _ => joined.push(part),
            }
        }
        joined
    }

    /// Bins that closed without a frame: to the attached streams, or kept for the next answer.
    fn push(&self, core: &mut Core, parts: Vec<Part>) {
        let outboxes = core.outboxes();
        if outboxes.is_empty() {
            core.held.extend(parts);
            return;
        }
        for part in parts {
            let output = v1::Output { durable_seq: self.durable_seq(), ..part.message(&self.wanted) };
            for outbox in &outboxes {
                outbox.put(Outgoing::Message(v1::down::Message::Output(output.clone())));
            }
        }
    }

    /// Hands the answer's bins and its frame to the recorder; flags the bins that it has no room for.
    fn record(&self, core: &mut Core, end: &End, parts: &mut [Part]) -> Option<Ticket> {
        let recorder = self.recorder.as_ref()?;
        let mut records: Vec<Record> = Vec::with_capacity(parts.len() + 2);
        if !core.t0_told
            && let Some(grid) = core.aligner.grid()
        {
            core.t0_told = true;
            records.push(Record::T0 { t0_ns: grid.t0_ns });
        }
        records.extend(parts.iter().map(|part| self.bins_record(part)));
        if let Some(cause) = &end.cause {
            records.push(Record::Frame {
                signal: cause.signal,
                seq: cause.seq,
                bytes: cause.data.clone(),
                bins_until: cause.bins_until,
            });
        }
        let Some(room) = recorder.reserve(records.iter().map(Record::size_bytes).sum()) else {
            for part in parts {
                part.flag_all(Flags::NOT_RECORDED);
                recorder.not_recorded(part.first_bin, part.first_bin + part.n());
            }
            return None;
        };
        let ticket = recorder.put_all(room, records);
        core.last_ticket = Some(ticket);
        Some(ticket)
    }

    fn bins_record(&self, part: &Part) -> Record {
        let recorded = part.columns.iter().flatten().filter(|column| self.recorded[column.number as usize]);
        Record::Bins {
            first_bin: part.first_bin,
            n: part.n() as u32,
            flags: part.flags.clone(),
            outputs: recorded
                .map(|column| OutputColumn {
                    number: column.number,
                    dtype: column.dtype,
                    bytes: Bytes::copy_from_slice(&column.bytes),
                })
                .collect(),
        }
    }

    /// By signal: up to which frame results survive a crash.
    pub fn durable_seq(&self) -> std::collections::HashMap<String, u64> {
        let Some(recorder) = &self.recorder else { return Default::default() };
        let durable = |at: usize| recorder.durable_seq(at);
        let by_signal = self.signals.iter().enumerate();
        by_signal.filter_map(|(at, spec)| Some((spec.name.to_string(), durable(at)?))).collect()
    }

    /// Gives each answer once the journal holds it, until the session is gone; runs for as long as a session with
    /// `ack = "durable"` is open.
    pub async fn give_durable(self: Arc<Self>) {
        let Some(recorder) = &self.recorder else { return };
        loop {
            let due = self.durable_due.notified();
            let next = self.core.lock().awaiting.front().map(|waiting| waiting.ticket);
            let Some(ticket) = next else {
                if self.gone.load(Ordering::Acquire) {
                    return;
                }
                due.await;
                continue;
            };
            // A run whose recording stopped is answered all the same: `durable_seq` tells, and an event did.
            let _ = recorder.durable(ticket).await;
            let mut core = self.core.lock();
            let Some(Awaiting { signal, seq, mut answer, .. }) = core.awaiting.pop_front() else { continue };
            if let Answer::Outputs(outputs) = &mut answer {
                let durable_seq = self.durable_seq();
                outputs.iter_mut().for_each(|output| output.durable_seq.clone_from(&durable_seq));
            }
            core.orders[signal].answer(seq, answer);
            self.stirred.notify_waiters();
        }
    }

    /// Takes no more frames, answers those that came, ends its streams, closes its run, and sums up.
    pub async fn close(self: &Arc<Self>, why: &'static str, finished: bool) -> v1::CloseReply {
        self.core.lock().closing.get_or_insert(why);
        loop {
            let stirred = self.stirred.notified();
            tokio::pin!(stirred);
            stirred.as_mut().enable();
            if self.core.lock().is_idle() {
                break;
            }
            stirred.await;
        }
        let reply = {
            let mut core = self.core.lock();
            let notice = Notice {
                kind: EventKind::Closed,
                signal: None,
                from_bin: core.tally.last_bin.map(|bin| bin + 1),
                to_bin: None,
                count: core.tally.bins,
                detail: why.into(),
                t_ns: Stamp::now().unix_ns,
            };
            self.tell(&mut core, notice);
            for outbox in core.outboxes() {
                outbox.put(if finished {
                    Outgoing::Finished
                } else {
                    Outgoing::End(Fault::new(Kind::Unavailable, format!("session {}: {why}", self.id)))
                });
            }
            core.places.clear();
            core.summary()
        };
        self.gone.store(true, Ordering::Release);
        self.durable_due.notify_one();
        self.waits_changed.notify_one();
        if let Some(recorder) = &self.recorder {
            let ticket = if finished {
                let summary = String::from_utf8(wire::json::write(&reply)).unwrap_or_default();
                Some(recorder.close(Close { ended_ns: Stamp::now().unix_ns, summary }))
            } else {
                self.core.lock().last_ticket
            };
            if let Some(ticket) = ticket {
                // Not durable only if recording stopped, which the run says.
                let _ = recorder.durable(ticket).await;
            }
        }
        v1::CloseReply { durable_seq: self.durable_seq(), ..reply }
    }

    /// What can be told of it at this moment.
    pub fn info(&self, now: Instant, dead_after: Duration) -> v1::SessionInfo {
        let core = self.core.lock();
        let resolved = self.opened.resolved.as_ref();
        let by_signal = || self.signals.iter().map(|spec| spec.name.to_string()).zip(&core.orders);
        v1::SessionInfo {
            session: self.id.to_string(),
            state: if core.is_detached(now, dead_after) { "detached" } else { "open" }.into(),
            run: self.run.map(|run| run.to_string()),
            rig: resolved.map(|open| open.rig.clone()).unwrap_or_default(),
            pipeline: resolved.map(|open| open.pipeline.clone()).unwrap_or_default(),
            pinned: self.opened.pinned.clone(),
            writers: by_signal()
                .map(|(name, order)| {
                    (name, if order.attached.is_some() { "attached" } else { "detached" }.into())
                })
                .collect(),
            next_seq: by_signal().map(|(name, order)| (name, order.next_seq())).collect(),
            durable_seq: self.durable_seq(),
            last_bin: core.tally.last_bin,
            lag_us: Some(v1::LagSummary {
                p50: core.lag.quantile_us(0.5),
                p99: core.lag.quantile_us(0.99),
                max: None,
            }),
            gaps: core.aligner.counts().gaps,
            late: core.aligner.counts().late,
            clock: Some(v1::ClockState::default()),
            recording: self.recording().into(),
            health: String::new(),
        }
    }

    /// `on`, `stopped` or `off`.
    pub fn recording(&self) -> &'static str {
        self.recorder.as_ref().map_or("off", |recorder| recorder.state().word())
    }

    /// Tells the metrics whether a stream is attached or something came within `dead_after`.
    pub fn note_detached(&self, now: Instant, dead_after: Duration) {
        self.meter.state(self.core.lock().is_detached(now, dead_after));
    }

    /// Whether it has shown no sign of life for its `idle_timeout_s`.
    pub fn is_idle_too_long(&self, now: Instant) -> bool {
        let core = self.core.lock();
        core.outboxes().is_empty() && now.duration_since(core.last_sign) > self.idle_timeout
    }
}

impl Owner for Session {
    fn finished(self: Arc<Self>, row: Box<Row>, outcome: Result<Ran, RowFault>) -> Option<Onward> {
        let mut core = self.core.lock();
        match core.journey.arrived(row, outcome) {
            Next::Stage(onward) => Some(onward),
            Next::Done => {
                self.end_bin(&mut core);
                self.advance(&mut core)
            }
            Next::Stopped => {
                // The pool is gone: what is still to be stepped is never answered as if it had been.
                core.in_flight = None;
                core.abandon("the server is stopping");
                self.stirred.notify_waiters();
                None
            }
        }
    }

    fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }
}

impl Core {
    /// The boxes of all attached streams, each once.
    pub(super) fn outboxes(&self) -> Vec<Arc<Outbox>> {
        let mut boxes: BTreeMap<u64, Arc<Outbox>> = BTreeMap::new();
        for (stream, outbox) in self.orders.iter().filter_map(|order| order.attached.as_ref()) {
            boxes.entry(*stream).or_insert_with(|| Arc::clone(outbox));
        }
        boxes.into_values().collect()
    }

    fn is_idle(&self) -> bool {
        self.in_flight.is_none() && self.work.is_empty() && self.awaiting.is_empty()
    }

    fn is_detached(&self, now: Instant, dead_after: Duration) -> bool {
        self.orders.iter().all(|order| order.attached.is_none())
            && now.duration_since(self.last_sign) > dead_after
    }

    /// When the frame behind the bin at hand was received, and whether that bin is stale: brought late by a stall, with
    /// newer bins of later frames behind it.
    fn next_end(&self) -> (Instant, bool) {
        let mut ends = self.work.iter().filter_map(|work| match work {
            Work::End(end) => Some(end),
            _ => None,
        });
        let Some(own) = ends.next() else { return (Instant::now(), false) };
        let newer = own.behind
            && self
                .work
                .iter()
                .skip_while(|work| !matches!(work, Work::End(_)))
                .any(|work| matches!(work, Work::Bin(_)));
        (own.received.instant, newer)
    }

    /// The end of the answer at hand.
    fn head_end(&mut self) -> Option<&mut End> {
        self.work.iter_mut().find_map(|work| match work {
            Work::End(end) => Some(&mut **end),
            _ => None,
        })
    }

    /// Whether a bin that ends at `end_ns` came later than the road at its best would have brought it, by more than two
    /// bins and more than the road's jitter.
    fn is_behind(&mut self, end_ns: i64, arrived_ns: i64, width: Duration) -> bool {
        let took_ns = arrived_ns.saturating_sub(end_ns);
        let best_ns = *self.road_ns.insert(self.road_ns.map_or(took_ns, |best| best.min(took_ns)));
        i128::from(took_ns) - i128::from(best_ns) > (2 * width).max(ROAD_JITTER).as_nanos() as i128
    }

    /// Answers every frame that will not be stepped any more with `unavailable`.
    fn abandon(&mut self, why: &'static str) {
        self.closing.get_or_insert(why);
        for work in std::mem::take(&mut self.work) {
            let Work::End(end) = work else { continue };
            if let Some(cause) = end.cause {
                let fault = Fault::new(Kind::Unavailable, why);
                self.orders[cause.signal].answer(cause.seq, Answer::Fault(fault));
            }
        }
    }

    fn summary(&self) -> v1::CloseReply {
        let counts = self.aligner.counts();
        v1::CloseReply {
            bins: self.tally.bins,
            gaps: counts.gaps,
            late: counts.late,
            dropped: counts.dropped,
            last_bin: self.tally.last_bin,
            durable_seq: Default::default(),
            lag_us: Some(v1::LagSummary {
                p50: self.lag.quantile_us(0.5),
                p99: self.lag.quantile_us(0.99),
                max: Some(self.lag.max_us()),
            }),
            deadline_missed: self.tally.deadline_missed,
        }
    }
}
