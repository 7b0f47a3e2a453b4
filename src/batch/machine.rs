//! An instance with its batch buffers: what a thread takes from a lane in order to run it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use super::flight::{Flight, Landed};
use super::pool::InFlight;
use super::row::Entry;
use crate::engine::{Batch, EngineError, Instance};

/// One instance of a lane, whole with what it needs to run. Owned by the lane while idle, else by the thread that runs it.
pub(super) struct Machine {
    instance: Box<dyn Instance>,
    pub(super) batch: Batch,
    /// The rows that it was taken for; empty while idle.
    pub(super) entries: Vec<Entry>,
    pub(super) flight: Arc<Flight>,
}

impl Machine {
    pub(super) fn new(instance: Box<dyn Instance>) -> Box<Self> {
        let flight = Arc::new(Flight::new(instance.interrupt()));
        Box::new(Self { instance, batch: Batch::default(), entries: Vec::new(), flight })
    }

    /// Puts the rows where the watchdog can take them.
    pub(super) fn take_off(&mut self, in_flight: InFlight, worker: Option<u64>, now: Instant) {
        self.flight.take_off(&mut self.entries, in_flight, worker, now);
    }

    /// Gets the rows back, unless the watchdog has taken them.
    pub(super) fn land(&mut self) -> Option<Landed> {
        self.flight.land(&mut self.entries)
    }

    /// Runs the gathered batch; `None` if the engine panicked, after which the instance is not to be used.
    pub(super) fn run(&mut self) -> Option<Result<(), EngineError>> {
        catch_unwind(AssertUnwindSafe(|| self.instance.run(&mut self.batch))).ok()
    }

    /// Drops it; an engine that panics there does no harm.
    pub(super) fn discard(self: Box<Self>) {
        if catch_unwind(AssertUnwindSafe(|| drop(self))).is_err() {
            tracing::warn!("an engine panicked while its lost instance was freed");
        }
    }
}
