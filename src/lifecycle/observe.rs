//! What rooms below tell of themselves, into the metrics.

use std::sync::Arc;
use std::time::Duration;

use crate::batch::{LaneObserver, Observer};
use crate::domain::ids::ModelName;
use crate::metrics::{Metrics, ModelMetrics, Stage, StoreOp};
use crate::store;

/// Lanes to the metrics of their models.
pub struct Lanes(pub Arc<Metrics>);

impl Observer for Lanes {
    fn lane(&self, name: &str) -> Arc<dyn LaneObserver> {
        let model = name.rsplit_once('/').map_or(name, |(model, _)| model);
        Arc::new(OneLane { name: name.into(), model: self.0.model(&ModelName::from(model)) })
    }
}

struct OneLane {
    name: String,
    model: ModelMetrics,
}

impl LaneObserver for OneLane {
    fn queued(&self, wait: Duration) {
        self.model.stage_seconds(Stage::Queue, wait.as_secs_f64());
    }

    fn ran(&self, compute: Duration, rows: usize) {
        self.model.stage_seconds(Stage::Compute, compute.as_secs_f64());
        self.model.batch_rows(rows);
    }

    fn waiting(&self, change: i64) {
        self.model.queue_rows_changed(change);
    }

    fn lost(&self, reason: &str) {
        tracing::warn!(model.version = %self.name, reason, "an instance was lost");
    }
}

/// The store to its metrics.
pub struct Stores(pub Arc<Metrics>);

impl store::StoreMetrics for Stores {
    fn store_seconds(&self, op: store::StoreOp, seconds: f64) {
        let op = match op {
            store::StoreOp::Append => StoreOp::Append,
            store::StoreOp::Move => StoreOp::Move,
            store::StoreOp::Read => StoreOp::Read,
            store::StoreOp::Snapshot => StoreOp::Snapshot,
        };
        self.0.store_seconds(op, seconds);
    }

    fn journal_bytes(&self, bytes: u64) {
        self.0.journal_bytes(bytes);
    }

    fn journal_oldest_seconds(&self, seconds: f64) {
        self.0.journal_oldest_seconds(seconds);
    }

    fn recording_stopped(&self, runs: u64) {
        self.0.recording_stopped(runs);
        tracing::error!(runs, "recording stopped: the journal cannot be written");
    }
}
