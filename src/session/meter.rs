//! What a session tells the metrics: children bound at open, so that no label is looked up per bin.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::domain::output::{EventKind, Notice};
use crate::domain::settings::{GapPolicy, Policies};
use crate::metrics::{
    Metrics, ModelMetrics, Outcome, PipelineMetrics, SessionGauge, SessionState, ShiftGauge, Stage,
};
use crate::signal::step::Counts;

/// The metrics of one session. Its gauges count the session for as long as it lives.
#[derive(Debug)]
pub struct Meter {
    all: Arc<Metrics>,
    pipeline: PipelineMetrics,
    /// The first stage's model receives, the last one's reads out and replies.
    first: ModelMetrics,
    last: ModelMetrics,
    gap: GapPolicy,
    gauge: Mutex<SessionGauge>,
    shift: Mutex<ShiftGauge>,
}

impl Meter {
    /// Counts a session as open.
    pub fn new(
        all: Arc<Metrics>,
        pipeline: PipelineMetrics,
        first: ModelMetrics,
        last: ModelMetrics,
        policies: &Policies,
    ) -> Self {
        let gauge = Mutex::new(all.session(SessionState::Open));
        let shift = Mutex::new(pipeline.shift());
        Self { all, pipeline, first, last, gap: policies.gap, gauge, shift }
    }

    /// Counts a gap.
    pub(super) fn happened(&self, notice: &Notice) {
        if notice.kind == EventKind::Gap {
            self.all.gap(self.gap);
        }
    }

    /// Counts the closed bins that data came for since `before`.
    pub(super) fn late(&self, before: Counts, now: Counts) {
        if now.late_bins > before.late_bins {
            self.pipeline.bins_done(Outcome::Late, now.late_bins - before.late_bins);
        }
        if now.late_bins_dropped > before.late_bins_dropped {
            self.pipeline.bins_done(Outcome::Dropped, now.late_bins_dropped - before.late_bins_dropped);
        }
    }

    pub(super) fn bins(&self, outcome: Outcome, bins: u64) {
        self.pipeline.bins_done(outcome, bins);
    }

    pub(super) fn step(&self, lag: Duration) {
        self.pipeline.step_seconds(lag.as_secs_f64());
    }

    pub(super) fn age(&self, age: Duration) {
        self.pipeline.age_seconds(age.as_secs_f64());
    }

    pub(super) fn deadline_missed(&self, bins: u64) {
        self.pipeline.deadline_missed(bins);
    }

    pub(super) fn received(&self, took: Duration) {
        self.first.stage_seconds(Stage::Receive, took.as_secs_f64());
    }

    pub(super) fn read_out(&self, took: Duration) {
        self.last.stage_seconds(Stage::Readout, took.as_secs_f64());
    }

    pub(super) fn replied(&self, took: Duration) {
        self.last.stage_seconds(Stage::Reply, took.as_secs_f64());
    }

    /// Subscribers did not get so many messages.
    pub(super) fn lost(&self, messages: u64) {
        if messages > 0 {
            self.all.subscriber_dropped(messages);
        }
    }

    /// Whether its inputs or latents have shifted.
    pub(super) fn shifted(&self, shifted: bool) {
        self.shift.lock().set(shifted);
    }

    pub(super) fn state(&self, detached: bool) {
        self.gauge.lock().set(if detached { SessionState::Detached } else { SessionState::Open });
    }
}
