//! A claim, from the queue to the owners: sift, gather, run, scatter, put the instance back, tell, run on.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::flight::Landed;
use super::gather;
use super::lane::{Claim, Claiming, Job, Lane};
use super::machine::Machine;
use super::pool::InFlight;
use super::row::{Alone, Entry, Ran, RowFault};
use crate::engine::EngineError;

/// Runs in place that a caller's thread may do for one submitted row, in lengths of `inline_us`; the rest is queued.
const RUNS_IN_PLACE: u32 = 10;

/// What a thread works with; kept from claim to claim, so that nothing is allocated on the way.
pub(super) struct Hands {
    entries: Vec<Entry>,
    aside: Vec<Entry>,
    onward: Vec<(Arc<Lane>, Entry)>,
    thread: Thread,
}

/// Which thread runs a claim.
#[derive(Clone, Copy)]
enum Thread {
    Worker(u64),
    /// A caller's, which has to be given back by then.
    Caller(Instant),
    /// One that tells owners but runs nothing: watchdog, mender, the one that stops the pool.
    Passing,
}

/// What a thread does after a claim.
pub(super) enum Step {
    Next(Option<Claim>),
    /// The run was taken from this thread while it was stuck in it; a worker has been replaced and ends.
    Abandoned,
}

/// How a run ended, for all its rows.
enum Ended {
    Good,
    /// The run failed; the instance can go on.
    Failed(RowFault),
    /// The instance is lost, and this is what a row that was alone is told.
    Lost(RowFault, String),
}

thread_local! {
    static CALLERS_HANDS: RefCell<Option<Hands>> = const { RefCell::new(None) };
}

/// Runs a lone row, and what it is handed on to, on the caller's thread.
pub(super) fn run_in_place(claim: Claim) {
    let until = Instant::now() + claim.lane.core.inline * RUNS_IN_PLACE;
    let mut hands = CALLERS_HANDS.take().unwrap_or_else(|| Hands::new(Thread::Passing));
    hands.thread = Thread::Caller(until);
    let mut next = Some(claim);
    while let Some(claim) = next {
        next = match hands.run(claim) {
            Step::Next(next) => next,
            Step::Abandoned => None,
        };
    }
    CALLERS_HANDS.set(Some(hands));
}

impl Hands {
    fn new(thread: Thread) -> Self {
        Self { entries: Vec::new(), aside: Vec::new(), onward: Vec::new(), thread }
    }

    pub(super) fn of_worker(id: u64) -> Self {
        Self::new(Thread::Worker(id))
    }

    pub(super) fn passing() -> Self {
        Self::new(Thread::Passing)
    }

    /// Does what was claimed; gives what this thread is to run on with.
    pub(super) fn run(&mut self, claim: Claim) -> Step {
        let Claim { lane, job, in_flight } = claim;
        match job {
            Job::Refuse(entries, sentence) => {
                for entry in entries {
                    self.answer(entry, Err(RowFault::Lost(sentence.clone())));
                }
                let next = self.hand_on();
                drop(in_flight);
                Step::Next(next)
            }
            Job::Run(machine) => self.run_rows(&lane, machine, in_flight),
        }
    }

    fn run_rows(&mut self, lane: &Arc<Lane>, machine: Box<Machine>, in_flight: InFlight) -> Step {
        let mut machine = Taken { lane, machine: Some(machine) };
        self.sift(lane, &mut machine.entries);
        let rows = machine.entries.len();
        if rows == 0 {
            lane.put_back(machine.out(), false);
            let next = self.hand_on();
            drop(in_flight);
            return Step::Next(next);
        }
        let span =
            tracing::debug_span!("batch.run", model.name = %lane.spec.name, batch.rows = rows).entered();
        let t_claim = Instant::now();
        let batch_rows = lane.spec.batch_rows(rows);
        let Machine { entries, batch, .. } = &mut *machine;
        gather::gather(&lane.spec.inputs, entries, batch_rows, &mut batch.inputs);
        let t_start = Instant::now();
        for entry in &machine.entries {
            lane.meter.queued(t_start.saturating_duration_since(entry.t_queued));
        }
        machine.take_off(in_flight, self.worker(), t_start);
        let outcome = machine.run();
        let compute = t_start.elapsed();
        let Some(Landed { fired, in_flight }) = machine.land() else {
            return self.come_back_late(lane, machine.out());
        };
        lane.meter.ran(compute, rows);
        let ended = judge(lane, outcome, fired, &mut machine, batch_rows);
        std::mem::swap(&mut self.entries, &mut machine.entries);
        match ended {
            Ended::Good => {
                lane.run_times.learn(rows, compute);
                // The instance goes back, and the lane is listed again, before anybody is told: the next batch starts.
                lane.put_back(machine.out(), true);
                let mut entries = std::mem::take(&mut self.entries);
                for entry in entries.drain(..) {
                    let queued = t_start.saturating_duration_since(entry.t_queued);
                    self.answer(entry, Ok(Ran { queued, started: t_start, compute, rows }));
                }
                self.entries = entries;
                lane.busy_times.learn(rows, t_claim.elapsed());
            }
            Ended::Failed(fault) => {
                lane.put_back(machine.out(), false);
                self.fail(lane, fault);
            }
            Ended::Lost(fault, reason) => {
                lane.lose(&machine.flight, &reason);
                machine.out().discard();
                self.fail(lane, fault);
            }
        }
        drop(span);
        let next = self.hand_on();
        drop(in_flight);
        Step::Next(next)
    }

    /// Takes out of the batch what is not to be run in it: who is gone, what does not fit, what cannot share it.
    fn sift(&mut self, lane: &Arc<Lane>, entries: &mut Vec<Entry>) {
        let mut at = 0;
        while at < entries.len() {
            let entry = &entries[at];
            let fault = if entry.is_gone() {
                RowFault::Gone
            } else if let Err(sentence) = gather::check(&lane.spec.inputs, &entry.as_ref().inputs) {
                RowFault::Run(sentence)
            } else if entry.alone == Some(Alone::Slow) && lane.gave_up_on_slow() {
                RowFault::Limit
            } else if at > 0
                && !gather::may_share(&lane.spec.inputs, entries[0].as_ref(), entries[at].as_ref())
            {
                self.aside.push(entries.remove(at));
                continue;
            } else {
                at += 1;
                continue;
            };
            let entry = entries.remove(at);
            self.answer(entry, Err(fault));
        }
        if !self.aside.is_empty() {
            lane.push_back(&mut self.aside);
        }
    }

    /// A row that was alone is told; rows that failed together are tried again, each alone.
    fn fail(&mut self, lane: &Arc<Lane>, fault: RowFault) {
        let mut entries = std::mem::take(&mut self.entries);
        let is_slow = fault == RowFault::Limit;
        // A lost instance says nothing about its row, so that such a row is tried a second time.
        let is_told =
            entries.len() == 1 && (entries[0].alone.is_some() || !matches!(fault, RowFault::Lost(_)));
        if is_told {
            if is_slow && entries[0].alone == Some(Alone::Slow) {
                lane.was_slow_alone();
            }
            for entry in entries.drain(..) {
                self.answer(entry, Err(fault.clone()));
            }
        } else {
            lane.push_alone(&mut entries, if is_slow { Alone::Slow } else { Alone::Failed });
        }
        self.entries = entries;
    }

    /// The watchdog has answered these rows and written the instance off: there is nothing left to do with it.
    fn come_back_late(&mut self, lane: &Arc<Lane>, machine: Box<Machine>) -> Step {
        tracing::warn!(model.name = %lane.spec.name, "an abandoned run came back; its result is dropped");
        machine.discard();
        lane.core.stuck.fetch_sub(1, Ordering::AcqRel);
        self.pass_on();
        Step::Abandoned
    }

    /// Tells the owner; what it hands on is kept until `hand_on`.
    pub(super) fn answer(&mut self, entry: Entry, outcome: Result<Ran, RowFault>) {
        self.onward.extend(entry.answer(outcome));
    }

    /// Queues what was handed on, lane by lane; gives the one claim that this thread runs on with.
    fn hand_on(&mut self) -> Option<Claim> {
        let mut next = None;
        while let Some((lane, _)) = self.onward.first() {
            let lane = Arc::clone(lane);
            let claiming = match self.thread {
                _ if next.is_some() => Claiming::Never,
                Thread::Worker(_) => Claiming::Any,
                Thread::Caller(until) if lane.is_fast() && Instant::now() < until => Claiming::Lone,
                Thread::Caller(_) | Thread::Passing => Claiming::Never,
            };
            let claim = lane.accept(&mut self.onward, claiming);
            next = next.or(claim);
        }
        next
    }

    /// Queues what was handed on, and runs nothing.
    pub(super) fn pass_on(&mut self) {
        while let Some((lane, _)) = self.onward.first() {
            let lane = Arc::clone(lane);
            lane.accept(&mut self.onward, Claiming::Never);
        }
    }

    fn worker(&self) -> Option<u64> {
        match self.thread {
            Thread::Worker(id) => Some(id),
            Thread::Caller(_) | Thread::Passing => None,
        }
    }
}

/// A machine out of its lane: it goes back, or the lane learns that it does not, even if this thread panics.
struct Taken<'a> {
    lane: &'a Arc<Lane>,
    machine: Option<Box<Machine>>,
}

impl Taken<'_> {
    fn out(mut self) -> Box<Machine> {
        self.machine.take().expect("it is taken out once")
    }
}

impl Deref for Taken<'_> {
    type Target = Machine;

    fn deref(&self) -> &Machine {
        self.machine.as_ref().expect("it is taken out last")
    }
}

impl DerefMut for Taken<'_> {
    fn deref_mut(&mut self) -> &mut Machine {
        self.machine.as_mut().expect("it is taken out last")
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        if let Some(machine) = self.machine.take() {
            self.lane.lose(&machine.flight, "a thread panicked beside the engine");
            machine.discard();
        }
    }
}

/// What a run's outcome means; a good one's outputs are in the rows after it.
fn judge(
    lane: &Lane,
    outcome: Option<Result<(), EngineError>>,
    fired: bool,
    machine: &mut Machine,
    batch_rows: usize,
) -> Ended {
    let error = match outcome {
        None => return Ended::Lost(RowFault::Panicked, "the engine panicked".into()),
        Some(Ok(())) => {
            let outputs = &machine.batch.outputs;
            return match gather::scatter(&lane.spec.outputs, outputs, batch_rows, &mut machine.entries) {
                Ok(()) => Ended::Good,
                Err(sentence) => Ended::Failed(RowFault::Run(sentence)),
            };
        }
        Some(Err(error)) => error,
    };
    match error {
        EngineError::Interrupted if fired => Ended::Failed(RowFault::Limit),
        EngineError::Interrupted => Ended::Failed(RowFault::Run("the run was interrupted by nobody".into())),
        EngineError::Run(reason) => Ended::Failed(RowFault::Run(reason)),
        EngineError::Lost(reason) => Ended::Lost(RowFault::Lost(reason.clone()), reason),
        error @ (EngineError::Load { .. } | EngineError::Device { .. }) => {
            let reason = error.to_string();
            Ended::Lost(RowFault::Lost(reason.clone()), reason)
        }
    }
}
