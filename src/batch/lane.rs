//! One model's queue and instances: who waits, who is idle, what is to be rebuilt.

use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::flight::Flight;
use super::hand;
use super::machine::Machine;
use super::observer::LaneObserver;
use super::place::{Demand, Place};
use super::pool::{Core, InFlight};
use super::row::{Alone, Entry, LaneSpec, Owner, Row};
use super::times::RunTimes;
use super::walk;
use crate::engine::{EngineError, Instance};

/// Makes a new instance of a lane's model, in place of one that was lost.
pub type Rebuild = Arc<dyn Fn() -> Result<Box<dyn Instance>, EngineError> + Send + Sync>;

/// The longest wait between two attempts to rebuild an instance.
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);
/// Between these, the watchdog neither spins nor counts past the end of time.
const SHORTEST_LIMIT: Duration = Duration::from_millis(1);
const LONGEST_LIMIT: Duration = Duration::from_secs(365 * 86_400);
/// Losses in a row, without a good run between them, that are rebuilt at once: a batch with a bad row costs two.
const LOSSES_AT_ONCE: u32 = 3;
/// Rows of slow batches that may go over the limit alone, one after the other, before the rest are not tried.
const SLOW_ALONE: u32 = 2;
/// A batch with rows without a session in it is known to take no longer, unless it is of one row: a run cannot be broken
/// off for a session's row that comes meanwhile.
const LONGEST_WITH_GUESTS: Duration = Duration::from_millis(2);

/// A loaded model: its queue, its idle instances, its run times. It lives as long as a session, a row or its model does.
pub struct Lane {
    pub(super) spec: LaneSpec,
    pub(super) core: Arc<Core>,
    pub(super) meter: Arc<dyn LaneObserver>,
    pub(super) rebuild: Rebuild,
    /// Of runs alone: decides who may run in place.
    pub(super) run_times: RunTimes,
    /// From taking the rows to having told their owners: decides what a lane can bear.
    pub(super) busy_times: RunTimes,
    pub(super) demand: Mutex<Demand>,
    state: Mutex<State>,
}

/// Whether the lane takes and runs rows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// The pool stops: rows are queued, none is run.
    Closing,
    /// Rows are answered `Stopped` at once.
    Closed,
}

/// Must hold, whenever the lock is given back: if `key` is `Some(due)`, then `listed` is at or before `due`.
struct State {
    phase: Phase,
    queue: BinaryHeap<Entry>,
    next_order: u64,
    #[expect(clippy::vec_box, reason = "a machine moves to the thread that runs it and back: by pointer")]
    idle: Vec<Box<Machine>>,
    /// Of every instance there is, idle or running.
    flights: Vec<Arc<Flight>>,
    /// The earliest key for which the pool's heap has an entry of this lane, or is about to get one.
    listed: Option<Instant>,
    loss: Loss,
    /// Rows of slow batches that went over the limit alone, without a good run between them.
    slow_alone: u32,
}

/// Instances that are to be rebuilt.
#[derive(Default)]
struct Loss {
    missing: usize,
    /// The mender was asked for one of them.
    rebuilding: bool,
    /// Losses and failed attempts since the last good run.
    losses: u32,
    failures: u32,
    retry_at: Option<Instant>,
    reason: String,
}

/// What a thread has taken from a lane, to be done by `walk`.
pub(super) struct Claim {
    pub(super) lane: Arc<Lane>,
    pub(super) job: Job,
    pub(super) in_flight: InFlight,
}

pub(super) enum Job {
    /// Run the machine's entries.
    Run(Box<Machine>),
    /// Answer these rows with this sentence: there is no instance, and it is too early to try again.
    Refuse(Vec<Entry>, String),
}

/// Whether rows that are handed on may be run by the thread that brings them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Claiming {
    Never,
    /// In place on a caller's thread: one row, nobody waiting, a fast lane.
    Lone,
    /// By a worker: with whatever waits there, unless another lane is more urgent.
    Any,
}

impl Lane {
    pub(super) fn new(
        spec: LaneSpec,
        core: Arc<Core>,
        instances: Vec<Box<dyn Instance>>,
        rebuild: Rebuild,
        is_open: bool,
    ) -> Arc<Self> {
        let mut spec = spec;
        spec.run_limit = spec.run_limit.clamp(SHORTEST_LIMIT, LONGEST_LIMIT);
        let idle: Vec<_> = instances.into_iter().map(Machine::new).collect();
        let has_none = idle.is_empty();
        let state = State {
            phase: if is_open { Phase::Open } else { Phase::Closed },
            queue: BinaryHeap::with_capacity(spec.claim_rows()),
            next_order: 0,
            flights: idle.iter().map(|machine| Arc::clone(&machine.flight)).collect(),
            idle,
            listed: None,
            loss: Loss {
                missing: usize::from(has_none),
                reason: "no instance was loaded".into(),
                ..Loss::default()
            },
            slow_alone: 0,
        };
        Arc::new(Self {
            meter: core.observer.lane(&spec.name),
            spec,
            core,
            rebuild,
            run_times: RunTimes::default(),
            busy_times: RunTimes::default(),
            demand: Mutex::new(Demand::default()),
            state: Mutex::new(state),
        })
    }

    /// `model/version`.
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// What it runs, and how.
    pub fn spec(&self) -> &LaneSpec {
        &self.spec
    }

    /// Rows that wait.
    pub fn waiting(&self) -> usize {
        self.state.lock().queue.len()
    }

    /// Why the lane has no instance just now; `None` while it has one, or is rebuilding its first loss.
    pub fn fault(&self) -> Option<String> {
        let state = self.state.lock();
        let is_known = state.loss.failures > 0 || state.loss.losses > LOSSES_AT_ONCE;
        (state.flights.is_empty() && is_known).then(|| state.loss.reason.clone())
    }

    /// The moving average of a run of so many rows; `None` before anything was measured.
    pub fn run_time(&self, rows: usize) -> Option<Duration> {
        self.run_times.run(rows)
    }

    /// Tells the lane a measured run, as a load does before the first row comes.
    pub fn learn(&self, rows: usize, run: Duration) {
        self.run_times.learn(rows, run);
        self.busy_times.learn(rows, run);
    }

    /// A place for a session's rows, held from open to close; `None` once the lane is closed. Its rate is not counted
    /// in the load: `Pool::admit` takes places that are.
    pub fn place(self: &Arc<Self>) -> Option<Place> {
        self.is_open().then(|| Place::on_lane(Arc::clone(self), 0.0))
    }

    /// Threads that this lane's sessions keep busy on average, by the batch in which their rows will ride.
    pub fn load(&self) -> f64 {
        super::place::load(std::slice::from_ref(&self), self.core.budget())
    }

    /// Queues a row; its owner is told how it ended, exactly once. With `inline` the row may be run right here: if the
    /// lane is idle, nobody waits, and its run is known to take less than `inline_us`. Must be called by the holder of
    /// a place; never blocks for longer than that run.
    pub fn submit(self: &Arc<Self>, row: Box<Row>, owner: Arc<dyn Owner>, inline: bool) {
        let mut entry = Entry::new(row, owner, Instant::now());
        if inline && !hand::is_inside() && self.is_fast() {
            match self.claim_lone(entry) {
                Ok(claim) => return walk::run_in_place(claim),
                Err(refused) => entry = refused,
            }
        }
        self.push(entry);
    }

    /// Whether a lone row's run is short enough for a caller's thread.
    pub(super) fn is_fast(&self) -> bool {
        self.run_times.run(1).is_some_and(|run| run < self.core.inline)
    }

    pub(super) fn is_open(&self) -> bool {
        self.state.lock().phase == Phase::Open
    }

    /// Makes room for so many rows, so that queueing one allocates nothing.
    pub(super) fn reserve(&self, rows: usize) {
        let mut state = self.state.lock();
        let missing = rows.saturating_sub(state.queue.len());
        state.queue.reserve(missing);
    }

    fn claim_lone(self: &Arc<Self>, entry: Entry) -> Result<Claim, Entry> {
        let mut state = self.state.lock();
        if state.phase != Phase::Open || !state.queue.is_empty() {
            return Err(entry);
        }
        let Some(mut machine) = state.idle.pop() else { return Err(entry) };
        machine.entries.push(entry);
        Ok(self.claimed(Job::Run(machine)))
    }

    /// Most rows of a batch that has rows without a session in it.
    fn rows_with_guests(&self) -> usize {
        let most = self.spec.claim_rows();
        let sizes = std::iter::successors(Some(2), |rows| Some(rows * 2)).take_while(|&rows| rows <= most);
        let is_short = |rows: &usize| self.run_times.run(*rows).is_some_and(|run| run <= LONGEST_WITH_GUESTS);
        sizes.take_while(is_short).last().unwrap_or(1)
    }

    fn claimed(self: &Arc<Self>, job: Job) -> Claim {
        Claim { lane: Arc::clone(self), job, in_flight: InFlight::new(&self.core) }
    }

    /// Queues one row.
    pub(super) fn push(self: &Arc<Self>, entry: Entry) {
        let mut state = self.state.lock();
        if state.phase == Phase::Closed {
            drop(state);
            return hand::refuse(entry);
        }
        state.push(entry);
        self.meter.waiting(1);
        self.list(state);
    }

    /// Queues rows that failed together, each to be run alone.
    pub(super) fn push_alone(self: &Arc<Self>, entries: &mut Vec<Entry>, why: Alone) {
        entries.iter_mut().for_each(|entry| entry.alone = Some(why));
        self.push_back(entries);
    }

    /// Queues rows again, as they are.
    pub(super) fn push_back(self: &Arc<Self>, entries: &mut Vec<Entry>) {
        entries.drain(..).for_each(|entry| self.push(entry));
    }

    /// Queues the rows that are handed on to this lane, in one go; takes what can be run at once.
    pub(super) fn accept(
        self: &Arc<Self>,
        onward: &mut Vec<(Arc<Lane>, Entry)>,
        claiming: Claiming,
    ) -> Option<Claim> {
        let mine = onward.extract_if(.., |(lane, _)| Arc::ptr_eq(lane, self)).map(|(_, entry)| entry);
        let mut state = self.state.lock();
        if state.phase == Phase::Closed {
            drop(state);
            mine.for_each(hand::refuse);
            return None;
        }
        let was_empty = state.queue.is_empty();
        let mut count = 0;
        for entry in mine {
            state.push(entry);
            count += 1;
        }
        self.meter.waiting(count);
        let may_claim = match claiming {
            Claiming::Never => false,
            Claiming::Lone => was_empty && count == 1,
            Claiming::Any => state.queue.peek().is_some_and(|first| !self.core.has_before(first.due())),
        };
        if may_claim && state.phase == Phase::Open && !state.idle.is_empty() {
            return self.claim_from(state, Instant::now());
        }
        self.list(state);
        None
    }

    /// Takes what there is to do: rows for an idle instance, or rows that no instance can be had for.
    pub(super) fn claim(self: &Arc<Self>, listed: Instant) -> Option<Claim> {
        let mut state = self.state.lock();
        if state.listed == Some(listed) {
            state.listed = None;
        }
        self.claim_from(state, Instant::now())
    }

    fn claim_from(
        self: &Arc<Self>,
        mut state: parking_lot::MutexGuard<'_, State>,
        now: Instant,
    ) -> Option<Claim> {
        let claim = state.take(self.spec.claim_rows(), || self.rows_with_guests(), now).map(|job| {
            let taken = match &job {
                Job::Run(machine) => machine.entries.len(),
                Job::Refuse(entries, _) => entries.len(),
            };
            self.meter.waiting(-(taken as i64));
            self.claimed(job)
        });
        self.list(state);
        claim
    }

    /// Gives the lock back, and then asks for whom the lane needs: a thread for its rows, the mender for its instances.
    fn list(self: &Arc<Self>, mut state: parking_lot::MutexGuard<'_, State>) {
        let is_to_mend = state.is_to_mend();
        let due = state.list();
        let is_of_a_guest = state.queue.peek().is_some_and(|first| {
            let row: &Row = first.as_ref();
            row.is_of_a_guest()
        });
        drop(state);
        if is_to_mend {
            self.core.mender.ask(Arc::clone(self));
        }
        if let Some(due) = due {
            self.core.list(due, is_of_a_guest, Arc::clone(self));
        }
    }

    /// An instance is idle again, after a run that was good or not.
    pub(super) fn put_back(self: &Arc<Self>, machine: Box<Machine>, was_good: bool) {
        let mut state = self.state.lock();
        state.idle.push(machine);
        if was_good {
            state.slow_alone = 0;
            (state.loss.losses, state.loss.failures) = (0, 0);
        }
        self.list(state);
    }

    /// Whether rows of slow batches are no longer tried alone.
    pub(super) fn gave_up_on_slow(&self) -> bool {
        self.state.lock().slow_alone >= SLOW_ALONE
    }

    /// A row of a slow batch went over the limit alone.
    pub(super) fn was_slow_alone(&self) {
        self.state.lock().slow_alone += 1;
    }

    /// The instance of this flight is lost, and to be rebuilt by the mender.
    pub(super) fn lose(self: &Arc<Self>, flight: &Arc<Flight>, reason: &str) {
        tracing::warn!(model.name = %self.spec.name, reason, "instance is lost");
        self.meter.lost(reason);
        let mut state = self.state.lock();
        let before = state.flights.len();
        state.flights.retain(|other| !Arc::ptr_eq(other, flight));
        if state.flights.len() < before {
            state.loss.lost(reason, self.core.backoff);
        }
        self.list(state);
    }

    /// A rebuild has ended; rows that nobody can run now come back, to be answered with the sentence.
    pub(super) fn rebuilt(
        self: &Arc<Self>,
        outcome: Result<Box<dyn Instance>, String>,
    ) -> Option<(Vec<Entry>, String)> {
        // Why before the lock: `interrupt()` is the engine's.
        let outcome = outcome.map(Machine::new);
        let mut state = self.state.lock();
        state.loss.rebuilding = false;
        let refused = match outcome {
            Ok(machine) => {
                state.flights.push(Arc::clone(&machine.flight));
                state.idle.push(machine);
                state.loss.missing -= 1;
                None
            }
            Err(reason) => {
                state.loss.failed(&reason, self.core.backoff);
                tracing::warn!(model.name = %self.spec.name, reason, "instance could not be rebuilt");
                self.meter.lost(&reason);
                state.flights.is_empty().then(|| state.refuse(Instant::now()))
            }
        };
        if let Some((entries, _)) = &refused {
            self.meter.waiting(-(entries.len() as i64));
        }
        self.list(state);
        refused
    }

    pub(super) fn flights(&self) -> Vec<Arc<Flight>> {
        self.state.lock().flights.clone()
    }

    /// No row is run any more.
    pub(super) fn start_closing(&self) {
        let mut state = self.state.lock();
        if state.phase == Phase::Open {
            state.phase = Phase::Closing;
        }
    }

    /// No row is taken any more; those that wait come back, the most urgent first.
    pub(super) fn close(&self) -> Vec<Entry> {
        let mut state = self.state.lock();
        state.phase = Phase::Closed;
        let mut left = std::mem::take(&mut state.queue).into_sorted_vec();
        left.reverse();
        self.meter.waiting(-(left.len() as i64));
        left
    }
}

impl AsRef<Lane> for Lane {
    fn as_ref(&self) -> &Lane {
        self
    }
}

impl State {
    fn push(&mut self, mut entry: Entry) {
        entry.order = self.next_order;
        self.next_order += 1;
        self.queue.push(entry);
    }

    /// By when a thread should come, if there is anything for it to do.
    fn key(&self) -> Option<Instant> {
        if self.phase != Phase::Open {
            return None;
        }
        // Rows of a lane without instances wait for the rebuild, if there is one; else they are to be refused.
        let is_dead = self.flights.is_empty() && !self.loss.rebuilding;
        if self.idle.is_empty() && !is_dead {
            return None;
        }
        self.queue.peek().map(Entry::due)
    }

    /// Whether the mender is to be asked, which is done once for each attempt.
    fn is_to_mend(&mut self) -> bool {
        let is_to_mend = self.loss.missing > 0
            && !self.loss.rebuilding
            && self.phase == Phase::Open
            && self.loss.is_due(Instant::now());
        self.loss.rebuilding |= is_to_mend;
        is_to_mend
    }

    fn list(&mut self) -> Option<Instant> {
        let due = self.key()?;
        if self.listed.is_some_and(|listed| listed <= due) {
            return None;
        }
        self.listed = Some(due);
        Some(due)
    }

    fn take(&mut self, most: usize, with_guests: impl FnOnce() -> usize, now: Instant) -> Option<Job> {
        if self.phase != Phase::Open {
            return None;
        }
        if !self.queue.is_empty()
            && let Some(mut machine) = self.idle.pop()
        {
            self.drain(most, with_guests, &mut machine.entries);
            return Some(Job::Run(machine));
        }
        let is_dead = self.flights.is_empty() && !self.loss.rebuilding && !self.loss.is_due(now);
        if is_dead && !self.queue.is_empty() {
            let (entries, sentence) = self.refuse(now);
            return Some(Job::Refuse(entries, sentence));
        }
        None
    }

    /// The most urgent rows, at most `most`, with rows without a session among them at most `with_guests`; a row that
    /// is to be alone comes alone.
    fn drain(&mut self, most: usize, with_guests: impl FnOnce() -> usize, into: &mut Vec<Entry>) {
        let (mut most, mut with_guests) = (most, Some(with_guests));
        while into.len() < most {
            let Some(next) = self.queue.peek() else { break };
            let row: &Row = next.as_ref();
            if row.is_of_a_guest()
                && let Some(with_guests) = with_guests.take()
            {
                most = with_guests();
                if into.len() >= most {
                    break;
                }
            }
            let is_alone = next.alone.is_some();
            if is_alone && !into.is_empty() {
                break;
            }
            into.extend(self.queue.pop());
            if is_alone {
                break;
            }
        }
    }

    fn refuse(&mut self, now: Instant) -> (Vec<Entry>, String) {
        let wait = self.loss.retry_at.map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
        let sentence = format!("{}; tried again in {} ms", self.loss.reason, wait.as_millis());
        (std::mem::take(&mut self.queue).into_vec(), sentence)
    }
}

impl Loss {
    fn lost(&mut self, reason: &str, backoff: Duration) {
        self.missing += 1;
        self.losses += 1;
        reason.clone_into(&mut self.reason);
        if self.losses > LOSSES_AT_ONCE {
            self.wait(self.losses - LOSSES_AT_ONCE, backoff);
        } else {
            self.retry_at = Some(Instant::now());
        }
    }

    fn failed(&mut self, reason: &str, backoff: Duration) {
        self.failures += 1;
        reason.clone_into(&mut self.reason);
        self.wait(self.failures, backoff);
    }

    fn is_due(&self, now: Instant) -> bool {
        self.retry_at.is_none_or(|at| now >= at)
    }

    fn wait(&mut self, times: u32, backoff: Duration) {
        let wait = backoff.saturating_mul(1 << (times - 1).min(16)).min(LONGEST_BACKOFF);
        self.retry_at = Some(Instant::now() + wait);
    }
}
