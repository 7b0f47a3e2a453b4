//! Rebuilds lost instances, one after the other, on a thread of its own: loading a model takes longer than any row may wait.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use super::lane::Lane;
use super::row::RowFault;
use super::walk::Hands;

/// The lanes that wait for a rebuild.
#[derive(Default)]
pub(super) struct Mender {
    asked: Mutex<Asked>,
    wake: Condvar,
}

#[derive(Default)]
struct Asked {
    lanes: VecDeque<Arc<Lane>>,
    stop: bool,
}

impl Mender {
    /// Has one instance of the lane rebuilt.
    pub(super) fn ask(&self, lane: Arc<Lane>) {
        let mut asked = self.asked.lock();
        if !asked.stop {
            asked.lanes.push_back(lane);
            self.wake.notify_one();
        }
    }

    pub(super) fn stop(&self) {
        let mut asked = self.asked.lock();
        asked.stop = true;
        // Why: a lane holds the pool's core, and so this queue.
        let left = std::mem::take(&mut asked.lanes);
        drop(asked);
        drop(left);
        self.wake.notify_all();
    }

    /// The thread's whole life.
    pub(super) fn run(&self) {
        let mut hands = Hands::passing();
        while let Some(lane) = self.next() {
            let outcome = match catch_unwind(AssertUnwindSafe(|| (lane.rebuild)())) {
                Ok(Ok(instance)) => Ok(instance),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err("the engine panicked while it loaded the model".to_owned()),
            };
            let Some((entries, sentence)) = lane.rebuilt(outcome) else { continue };
            for entry in entries {
                hands.answer(entry, Err(RowFault::Lost(sentence.clone())));
            }
            hands.pass_on();
        }
    }

    fn next(&self) -> Option<Arc<Lane>> {
        let mut asked = self.asked.lock();
        loop {
            if asked.stop {
                return None;
            }
            if let Some(lane) = asked.lanes.pop_front() {
                return Some(lane);
            }
            self.wake.wait(&mut asked);
        }
    }
}
