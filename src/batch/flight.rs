//! The rows of a run in progress, where both the thread that runs them and the watchdog can take them: whoever takes
//! them answers them, so that a run that comes back late finds nothing left to answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::pool::InFlight;
use super::row::Entry;
use crate::engine::Interrupt;

/// One machine's runs, one after the other.
pub(super) struct Flight {
    interrupt: Arc<dyn Interrupt>,
    run: Mutex<Run>,
}

#[derive(Default)]
struct Run {
    /// `None` between runs, and after the run was abandoned.
    t_start: Option<Instant>,
    fired: bool,
    entries: Vec<Entry>,
    in_flight: Option<InFlight>,
    worker: Option<u64>,
}

/// How a run that its own thread ended stood with the watchdog.
pub(super) struct Landed {
    /// The watchdog had interrupted it.
    pub(super) fired: bool,
    pub(super) in_flight: InFlight,
}

/// What the watchdog takes from a run that does not end.
pub(super) struct Abandoned {
    pub(super) entries: Vec<Entry>,
    /// The pool's thread that is stuck in it; `None` for a caller's.
    pub(super) worker: Option<u64>,
    pub(super) in_flight: InFlight,
}

/// What the watchdog has to do about a run.
pub(super) enum Overdue {
    /// Nothing before this instant.
    Not(Instant),
    /// It is over twice the limit, and here is what it held.
    Abandoned(Abandoned),
    /// It does not run.
    Idle,
}

impl Flight {
    pub(super) fn new(interrupt: Arc<dyn Interrupt>) -> Self {
        Self { interrupt, run: Mutex::new(Run::default()) }
    }

    /// The run starts: the rows are in both hands from here to `land`.
    pub(super) fn take_off(
        &self,
        entries: &mut Vec<Entry>,
        in_flight: InFlight,
        worker: Option<u64>,
        now: Instant,
    ) {
        let mut run = self.run.lock();
        std::mem::swap(&mut run.entries, entries);
        (run.t_start, run.fired, run.worker) = (Some(now), false, worker);
        run.in_flight = Some(in_flight);
    }

    /// The run has ended on its own thread, which gets the rows back; `None` if they were taken from it.
    pub(super) fn land(&self, entries: &mut Vec<Entry>) -> Option<Landed> {
        let mut run = self.run.lock();
        run.t_start.take()?;
        std::mem::swap(&mut run.entries, entries);
        Some(Landed { fired: run.fired, in_flight: run.in_flight.take()? })
    }

    /// The watchdog's look: interrupts what is over the limit, takes what is over twice of it.
    pub(super) fn look(&self, now: Instant, limit: Duration) -> Overdue {
        let mut run = self.run.lock();
        let Some(t_start) = run.t_start else { return Overdue::Idle };
        if now >= t_start + limit * 2 {
            // Once more: the first shot does nothing if the thread had not got into the engine yet.
            self.interrupt.fire();
            return run.abandon().map_or(Overdue::Idle, Overdue::Abandoned);
        }
        if now < t_start + limit {
            return Overdue::Not(t_start + limit);
        }
        if !run.fired {
            run.fired = true;
            // Why under the lock: the thread cannot land and take off again in between, so the shot hits this run.
            self.interrupt.fire();
        }
        Overdue::Not(t_start + limit * 2)
    }

    /// Takes the rows of a run in progress, whatever its age, and interrupts it.
    pub(super) fn seize(&self) -> Option<Abandoned> {
        let mut run = self.run.lock();
        run.t_start?;
        self.interrupt.fire();
        run.abandon()
    }
}

impl Run {
    fn abandon(&mut self) -> Option<Abandoned> {
        self.t_start = None;
        let entries = std::mem::take(&mut self.entries);
        Some(Abandoned { entries, worker: self.worker, in_flight: self.in_flight.take()? })
    }
}
