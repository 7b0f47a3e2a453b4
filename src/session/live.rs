//! The session's own door: what can be asked of it, from its opening to its close.
//!
//! A frame that is fed is judged by its signal's `Order` and aligned into bins (`ingest`), leaving `Work` behind: its
//! closed bins, then their `End`. Bins pass the pipeline one at a time (`stepping`); their `End` makes the answer
//! (`answering`). Two locks, in this order: `binning`, held while frames are preprocessed, and `core`, never held for long.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cpu_time::ThreadTime;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use super::binning::Binning;
use super::core::{Core, End, Work};
use super::fanout::Fanout;
use super::health::windows;
use super::meter::Meter;
use super::order::{Order, Sink, Writer};
use super::outbox::Outgoing;
use super::switching::pinned;
use crate::batch::{Ingest, Place};
use crate::domain::ids::{RunId, SessionId};
use crate::domain::output::{EventKind, Notice, OutputSpec};
use crate::domain::settings::{Ack, ResetScope};
use crate::domain::signal::SignalSpec;
use crate::domain::time::Stamp;
use crate::domain::trace::RequestSpan;
use crate::error::{Fault, Kind};
use crate::health::Health;
use crate::pipeline::journey::Journey;
use crate::recorder::{Close, RunRecorder};
use crate::signal::act::Act;
use crate::signal::aligner::Aligner;
use crate::signal::refusal::Refusal;
use crate::signal::step::Step;
use crate::trace::Tracer;
use crate::wire::told::Told;
use crate::wire::{self, v1};

/// Why a session that panicked takes nothing more.
const BROKEN: &str = "it was ended by a fault of ours; its run keeps what was answered";

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
    /// What its inputs and latents are held against.
    pub health: Health,
    /// To the journal, if it is recorded.
    pub recorder: Option<RunRecorder>,
    /// Its places in the lanes, held until it closes.
    pub places: Vec<Place>,
    /// What its ingest costs, held until it closes.
    pub ingest: Ingest,
    /// Width of a bin.
    pub width: Duration,
    /// What a device holds back before it sends, the most of the signals that feed inputs: it counts in the age.
    pub source_delay: Duration,
    /// The age that it asks for; before a clock exchange, the lag.
    pub deadline: Option<Duration>,
    /// When a reply leaves.
    pub ack: Ack,
    /// Invalid bins in a row after which its state starts anew.
    pub invalid_limit: u32,
    /// Unanswered frames that a rig may have.
    pub window: usize,
    /// Messages held for a slow subscriber.
    pub subscriber_buffer: usize,
    /// Without a sign of life for so long it is closed.
    pub idle_timeout: Duration,
    /// What it tells the metrics.
    pub meter: Meter,
    /// Takes the steps that are traced.
    pub tracer: Tracer,
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
    pub(super) outputs: Vec<OutputSpec>,
    pub(super) wanted: Vec<bool>,
    pub(super) kept: Vec<bool>,
    pub(super) recorded: Vec<bool>,
    pub(super) keeps_data: Vec<bool>,
    pub(super) width: Duration,
    pub(super) source_delay: Duration,
    pub(super) deadline: Option<Duration>,
    pub(super) ack: Ack,
    pub(super) invalid_limit: u32,
    pub(super) meter: Meter,
    pub(super) tracer: Tracer,
    pub(super) recorder: Option<RunRecorder>,
    /// What its ingest costs.
    pub(super) ingest_cost: Ingest,
    /// Held by whoever brings frames by HTTP, so that they come in the order of their receipt.
    turn: Arc<tokio::sync::Mutex<()>>,
    pub(super) session_clock: String,
    /// Before `core`.
    pub(super) binning: Mutex<Binning>,
    pub(super) core: Mutex<Core>,
    /// Held while a version is made ready for it, one at a time; before `binning`.
    pub(super) readying: Mutex<()>,
    pub(super) fanout: Fanout,
    /// Rows of a session that is gone are not run.
    pub(super) gone: AtomicBool,
    /// Woken when nothing is in flight any more.
    pub(super) stirred: Notify,
    /// Woken when an answer waits for the journal.
    pub(super) durable_due: Notify,
    /// Woken when a bin's wait may have begun or ended.
    pub(super) waits_changed: Notify,
}

impl Session {
    /// A session that nothing has come for.
    pub fn new(made: Made, tokens: Vec<String>, now: Stamp) -> Arc<Self> {
        let orders = tokens.into_iter().map(|token| Order::new(made.window, token)).collect();
        let kept =
            made.wanted.iter().zip(&made.recorded).map(|(wanted, recorded)| *wanted || *recorded).collect();
        let fanout = Fanout::new(made.outputs.len(), made.subscriber_buffer);
        let sampler = made.tracer.sampler(made.id);
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
            source_delay: made.source_delay,
            deadline: made.deadline,
            ack: made.ack,
            invalid_limit: made.invalid_limit,
            meter: made.meter,
            tracer: made.tracer,
            recorder: made.recorder,
            readying: Mutex::new(()),
            ingest_cost: made.ingest,
            turn: Arc::default(),
            session_clock: made.aligner.clocks().session_clock().to_owned(),
            core: Mutex::new(Core::new(
                made.aligner.standing(),
                orders,
                made.journey,
                made.health,
                made.places,
                sampler,
                now,
            )),
            binning: Mutex::new(Binning::new(made.aligner)),
            fanout,
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

    /// Whether so many frames, fed together, are known to hold a thread for longer than one of the runtime's may be held.
    /// `None`: nothing was measured yet.
    pub fn is_long(&self, frames: usize) -> Option<bool> {
        self.ingest_cost.is_long(frames)
    }

    /// The turn of a caller who feeds a frame: to be held until it was fed. Cancel-safe: a place in the queue is lost.
    pub async fn turn(&self) -> tokio::sync::OwnedMutexGuard<()> {
        Arc::clone(&self.turn).lock_owned().await
    }

    /// Takes frames that came together from one writer by one request, each with its sink, and steps what they close. The
    /// answers come by the sinks. May take long, see `is_long`: other threads are held up only if they feed the same session.
    pub fn feed(
        self: &Arc<Self>,
        frames: impl IntoIterator<Item = (v1::Frame, Sink)>,
        by: Writer,
        received: Stamp,
        request: Option<RequestSpan>,
    ) {
        let _span = tracing::debug_span!("session.feed", session.id = %self.id).entered();
        self.unbroken(|| {
            let begun = ThreadTime::now();
            // What needs no lock is done before it is taken.
            let read: Vec<_> =
                frames.into_iter().filter_map(|(frame, sink)| self.read(frame, sink)).collect();
            let (count, mut bins) = (read.len(), 0);
            let mut binning = self.binning.lock();
            for frame in read {
                bins += self.ingest(&mut binning, frame, by, received, request);
                // Between two frames, one who waits for the aligner goes first.
                MutexGuard::bump(&mut binning);
            }
            self.spent(&mut binning, begun, count, bins);
            let mut core = self.core.lock();
            core.last_sign = received;
            core.is_fed = false;
            binning.lay_down(&mut core);
            self.waits_changed.notify_one();
            drop(binning);
            self.set_out(core);
        });
    }

    /// Learns what so many frames have cost this thread since `begun`, and the bins that they have closed.
    fn spent(&self, binning: &mut Binning, begun: ThreadTime, frames: usize, bins: usize) {
        let took = begun.elapsed();
        if let Some(since) = binning.spent(took, bins) {
            self.ingest_cost.learn_bins(bins, since);
            // A frame that closes no bin says nothing of one that does: preprocessing comes with the last of a bin.
            self.ingest_cost.learn_frames(frames.min(bins), took);
        }
    }

    /// Closes bins whose missing signals have been waited for long enough. May take as long as `feed`.
    pub fn expire(self: &Arc<Self>, now: Stamp) {
        self.unbroken(|| {
            let begun = ThreadTime::now();
            let mut binning = self.binning.lock();
            {
                let mut core = self.core.lock();
                if core.closing.is_some() {
                    return;
                }
                core.is_fed = true;
            }
            let act =
                binning.aligner.due(now.unix_ns).map(|before| Act::Close { before, now_ns: now.unix_ns });
            // Cannot fail: only a reset can.
            let done = act.map(|act| (binning.act(&act), act));
            let bins = binning.steps.iter().filter(|step| matches!(step, Step::Bin(_))).count();
            self.spent(&mut binning, begun, 1, bins);
            let mut core = self.core.lock();
            core.is_fed = false;
            match done {
                Some((done, act)) => _ = self.acted(&mut binning, &mut core, act, done, now),
                // One who feeds and has given way may have left work behind.
                None => binning.lay_down(&mut core),
            }
            drop(binning);
            self.set_out(core);
        });
    }

    /// Does something to the aligner beside pushing frames, and keeps it in the order of the work, so that replay does it
    /// at the same place. Errors: as the aligner's; nothing has happened then.
    pub(super) fn act(
        &self,
        binning: &mut Binning,
        core: &mut Core,
        act: Act,
        now: Stamp,
    ) -> Result<(), Fault> {
        let done = binning.act(&act);
        self.acted(binning, core, act, done, now)
    }

    /// Lays down that something was done to the aligner, and what came of it.
    fn acted(
        &self,
        binning: &mut Binning,
        core: &mut Core,
        act: Act,
        done: Result<(), Refusal>,
        now: Stamp,
    ) -> Result<(), Fault> {
        let is_closing = !binning.steps.is_empty();
        if done.is_ok() {
            binning.work.push_back(Work::Act(act));
        }
        let bins_left = self.take_steps(binning, core);
        if is_closing {
            binning.work.push_back(Work::End);
            binning.ends.push_back(End {
                cause: None,
                received: now,
                behind: false,
                bins_left,
                queued: Duration::ZERO,
                compute: Duration::ZERO,
                trace: None,
            });
        }
        binning.lay_down(core);
        self.waits_changed.notify_one();
        done.map_err(Fault::from)
    }

    /// Does `work`; if it panics, which is a fault of ours, the session ends and says so instead of hanging.
    pub(super) fn unbroken<T>(&self, work: impl FnOnce() -> T) -> Option<T> {
        match std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)) {
            Ok(done) => Some(done),
            Err(_) => {
                tracing::error!(session.id = %self.id, "a fault of ours: the session panicked and is ended");
                let mut binning = self.binning.lock();
                let mut core = self.core.lock();
                core.is_fed = false;
                binning.lay_down(&mut core);
                self.abandon(&mut core, Kind::Internal, BROKEN);
                drop((core, binning));
                self.stirred.notify_waiters();
                None
            }
        }
    }

    /// Steps nothing more, and tells all why.
    pub(super) fn abandon(&self, core: &mut Core, kind: Kind, why: &'static str) {
        core.abandon(kind, why);
        self.fanout.end(Told::Ended(Fault::new(kind, why)));
    }

    /// Waits until bins have waited for long enough, so that `expire` is due; `false` once the session takes nothing more.
    /// One task at a time. Cancel-safe.
    pub async fn has_waited(&self) -> bool {
        while !self.gone.load(Ordering::Acquire) {
            let stirred = self.waits_changed.notified();
            let next_ns = {
                let core = self.core.lock();
                if core.closing.is_some() {
                    return false;
                }
                core.standing.next_expiry_ns()
            };
            let Some(next_ns) = next_ns else {
                stirred.await;
                continue;
            };
            let wait_ns = next_ns.saturating_sub(Stamp::now().unix_ns).max(0);
            // Cancel-safe: a wake-up that is missed here is the time limit itself, after which all is looked at anew.
            if tokio::time::timeout(Duration::from_nanos(wait_ns as u64), stirred).await.is_err() {
                return true;
            }
        }
        false
    }

    /// Starts the state anew before `at_bin` (default: the next bin to close), and says before which.
    /// Errors: `conflict` for a bin that has closed.
    pub fn reset(self: &Arc<Self>, scope: ResetScope, at_bin: Option<u64>, now: Stamp) -> Result<u64, Fault> {
        let mut binning = self.binning.lock();
        let mut core = self.core.lock();
        self.still_open(&core)?;
        core.last_sign = now;
        let at_bin = at_bin.unwrap_or(binning.aligner.next_bin());
        self.act(&mut binning, &mut core, Act::Reset { scope, at_bin }, now)?;
        drop(binning);
        self.set_out(core);
        Ok(at_bin)
    }

    /// The `seq` that must come next of a signal, by its number.
    pub fn next_seq(&self, signal: usize) -> u64 {
        self.core.lock().orders[signal].next_seq()
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
            Some(BROKEN) => Err(Fault::new(Kind::Internal, format!("session {}: {BROKEN}", self.id))),
            Some(why) => Err(Fault::new(Kind::Unavailable, format!("session {}: {why}", self.id))),
        }
    }

    /// Takes no more frames, answers those that came, ends its streams, closes its run, and sums up.
    pub async fn close(self: &Arc<Self>, why: &'static str, finished: bool) -> v1::CloseReply {
        self.core.lock().closing.get_or_insert(why);
        let reply = loop {
            let stirred = self.stirred.notified();
            tokio::pin!(stirred);
            stirred.as_mut().enable();
            if let Some(reply) = self.end(why, finished, Stamp::now()) {
                break reply;
            }
            stirred.await;
        };
        self.durable_due.notify_one();
        self.waits_changed.notify_one();
        let outgone = self.outgone();
        if !outgone.is_empty() {
            // Not here: the last of a large model takes its time to go. Waited for, so that its place is free by the answer.
            let _ = tokio::task::spawn_blocking(move || drop(outgone)).await;
        }
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

    /// Ends the session if nothing is in flight: in one hold of the lock, so that nothing begins in between.
    fn end(&self, why: &'static str, finished: bool, now: Stamp) -> Option<v1::CloseReply> {
        // Why asked first: whoever feeds holds the aligner, for as long as preprocessing takes.
        if !self.core.lock().is_idle() {
            return None;
        }
        let mut binning = self.binning.lock();
        let mut core = self.core.lock();
        // Must hold: nothing that was consumed is left behind, also by one who feeds and gives way between two frames.
        if !core.is_idle() || !binning.work.is_empty() {
            return None;
        }
        let Binning { aligner, steps, .. } = &mut *binning;
        aligner.finish(now.unix_ns, steps);
        self.take_steps(&mut binning, &mut core);
        binning.lay_down(&mut core);
        drop(binning);
        self.end_shifts(&mut core, now.unix_ns);
        let notice = Notice {
            kind: EventKind::Closed,
            signal: None,
            from_bin: core.tally.last_bin.map(|bin| bin + 1),
            to_bin: None,
            count: core.tally.bins,
            detail: why.into(),
            t_ns: now.unix_ns,
        };
        self.tell(&mut core, notice);
        let fault = Fault::new(Kind::Unavailable, format!("session {}: {why}", self.id));
        for (_, outbox) in core.outboxes() {
            outbox.put(if finished { Outgoing::Finished } else { Outgoing::End(fault.clone()) });
        }
        core.retire_switches();
        self.fanout.end(if finished { Told::Closed(why.into()) } else { Told::Ended(fault) });
        core.places.clear();
        self.ingest_cost.leave();
        self.gone.store(true, Ordering::Release);
        Some(core.summary())
    }

    /// What can be told of it at this moment.
    pub fn info(&self, now: Stamp, dead_after: Duration) -> v1::SessionInfo {
        let core = self.core.lock();
        let health = core.health.report();
        let resolved = self.opened.resolved.as_ref();
        let by_signal = || self.signals.iter().map(|spec| spec.name.to_string()).zip(&core.orders);
        v1::SessionInfo {
            session: self.id.to_string(),
            state: if core.is_detached(now.instant, dead_after) { "detached" } else { "open" }.into(),
            run: self.run.map(|run| run.to_string()),
            rig: resolved.map(|open| open.rig.clone()).unwrap_or_default(),
            pipeline: resolved.map(|open| open.pipeline.clone()).unwrap_or_default(),
            pinned: pinned(core.journey.plan()),
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
            gaps: core.standing.counts().gaps,
            late: core.standing.counts().late,
            clock: Some(core.exchanges.state(&self.session_clock, now.unix_ns)),
            recording: self.recording().into(),
            health: health.word().into(),
            health_windows: windows(&health),
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

    /// Whether it has shown no sign of life for its `idle_timeout_s`, or was broken by a fault of ours.
    pub fn is_idle_too_long(&self, now: Instant) -> bool {
        let core = self.core.lock();
        if core.closing == Some(BROKEN) {
            return true;
        }
        core.is_forsaken(now, self.idle_timeout)
    }
}
