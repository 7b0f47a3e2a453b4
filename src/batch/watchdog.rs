//! Ends runs that take too long: interrupts them at the limit, gives them up at twice of it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use super::flight::{Abandoned, Flight, Overdue};
use super::lane::Lane;
use super::pool::Core;
use super::row::RowFault;
use super::walk::Hands;

/// How the watchdog is woken before its time.
#[derive(Default)]
pub(super) struct Watchdog {
    told: Mutex<Told>,
    wake: Condvar,
}

#[derive(Default)]
struct Told {
    stop: bool,
    lanes_changed: bool,
}

impl Watchdog {
    /// A lane came whose limit may be shorter than the watchdog's sleep.
    pub(super) fn look_again(&self) {
        self.told.lock().lanes_changed = true;
        self.wake.notify_one();
    }

    pub(super) fn stop(&self) {
        self.told.lock().stop = true;
        self.wake.notify_one();
    }

    /// The thread's whole life. Nobody tells it of a run: it sleeps no longer than the shortest limit there is, and a
    /// run that starts while it sleeps has at least that long.
    pub(super) fn run(&self, core: &Arc<Core>) {
        let mut hands = Hands::passing();
        loop {
            let wake_at = look_at_all(core, &mut hands, Instant::now());
            let mut told = self.told.lock();
            while !told.stop && !told.lanes_changed {
                match wake_at {
                    Some(at) if self.wake.wait_until(&mut told, at).timed_out() => break,
                    Some(_) => {}
                    None => self.wake.wait(&mut told),
                }
            }
            if told.stop {
                return;
            }
            told.lanes_changed = false;
        }
    }
}

fn look_at_all(core: &Arc<Core>, hands: &mut Hands, now: Instant) -> Option<Instant> {
    let mut wake_at: Option<Instant> = None;
    for lane in core.lanes() {
        let limit = lane.spec.run_limit;
        let mut next = now + limit;
        for flight in lane.flights() {
            match flight.look(now, limit) {
                Overdue::Idle => {}
                Overdue::Not(until) => next = next.min(until),
                Overdue::Abandoned(abandoned) => give_up(core, &lane, &flight, abandoned, hands),
            }
        }
        wake_at = Some(wake_at.map_or(next, |at| at.min(next)));
    }
    wake_at
}

fn give_up(core: &Arc<Core>, lane: &Arc<Lane>, flight: &Arc<Flight>, run: Abandoned, hands: &mut Hands) {
    let Abandoned { entries, worker, in_flight } = run;
    let stuck = core.stuck.fetch_add(1, Ordering::AcqRel) + 1;
    tracing::error!(model.name = %lane.spec.name, batch.rows = entries.len(), stuck, "run is abandoned");
    if let Some(id) = worker {
        core.replace_worker(id);
    }
    lane.lose(flight, "a run did not end within twice its limit");
    for entry in entries {
        hands.answer(entry, Err(RowFault::Limit));
    }
    hands.pass_on();
    drop(in_flight);
    if stuck > core.max_abandoned && !core.is_fatal.swap(true, Ordering::AcqRel) {
        let sentence = format!("{stuck} runs are stuck in the engine, last one of {}", lane.name());
        (core.fatal)(&sentence);
    }
}
