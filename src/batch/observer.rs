//! Who is told of runs and waits, so that metrics need no lock and no look-up on the step path.

use std::sync::Arc;
use std::time::Duration;

/// Told once of each lane; gives what is told of that lane's runs.
pub trait Observer: Send + Sync {
    /// Called when the lane `name` (`model/version`) is added.
    fn lane(&self, name: &str) -> Arc<dyn LaneObserver> {
        let _ = name;
        Arc::new(Silent)
    }
}

/// Told of one lane's work. Everything here is called on the step path: no locks, no I/O.
pub trait LaneObserver: Send + Sync {
    /// A row waited so long for its run.
    fn queued(&self, wait: Duration) {
        let _ = wait;
    }

    /// A run of `rows` rows took so long.
    fn ran(&self, compute: Duration, rows: usize) {
        let _ = (compute, rows);
    }

    /// So many rows more (or fewer) wait.
    fn waiting(&self, change: i64) {
        let _ = change;
    }

    /// An instance was lost, or could not be rebuilt, for this reason.
    fn lost(&self, reason: &str) {
        let _ = reason;
    }
}

/// Tells nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Observer for Silent {}
impl LaneObserver for Silent {}
