//! Every metric, named once. Names, labels and buckets are an interface: they change by addition alone.
//! Enters: typed calls from the rooms. Leaves: Prometheus' text, for `/metrics`.
//! Owns: one registry and all families on it. Must hold: a value that is not finite is never observed; labels are
//! bounded (no session, no run); a family without a model's or pipeline's label is there from the start, at 0.
//! Must not know: any room; on the step path only handles bound at load are used, so that no label is looked up per bin.

use prometheus::core::Collector;
use prometheus::{
    Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

use crate::domain::ids::{ModelName, PipelineName, Version};
use crate::domain::settings::GapPolicy;
use crate::domain::signal::word;
use crate::error::Kind;

word!(
    /// A stretch of the walk that is timed.
    Stage {
        /// From the first byte of a frame to its bins.
        Receive = "receive",
        /// Waiting for the lane.
        Queue = "queue",
        /// The model's run.
        Compute = "compute",
        /// From tensors to outputs.
        Readout = "readout",
        /// From outputs to the socket.
        Reply = "reply",
    }
);
word!(
    /// How a bin ended. Each bin counts once as one of the first four; `late` and `dropped` count beside that.
    Outcome {
        /// With outputs.
        Answered = "answered",
        /// With outputs, from filled samples.
        GapFilled = "gap_filled",
        /// A model gave what is not finite.
        OutputInvalid = "output_invalid",
        /// Closed, and data came for it afterwards.
        Late = "late",
        /// Of those, the ones whose data were dropped.
        Dropped = "dropped",
        /// In a gap that is not filled.
        Skipped = "skipped",
    }
);
word!(
    /// State of a session.
    SessionState {
        /// Someone streams, or lately did.
        Open = "open",
        /// No stream is attached.
        Detached = "detached",
    }
);
word!(
    /// State of a model's version.
    ModelState {
        /// Seen, not yet settled.
        Candidate = "candidate",
        /// Being checked and warmed up.
        Loading = "loading",
        /// Serves.
        Ready = "ready",
        /// Cannot serve; its page says why.
        Fault = "fault",
        /// Freed.
        Unloaded = "unloaded",
    }
);
word!(
    /// What the store is asked to do.
    StoreOp {
        /// A group commit of the journal.
        Append = "append",
        /// A move from journal to library.
        Move = "move",
        /// A query.
        Read = "read",
        /// Writing or reading a snapshot.
        Snapshot = "snapshot",
    }
);
word!(
    /// What a job does.
    JobKind {
        /// An analysis of runs.
        Analysis = "analysis",
        /// Scores against targets.
        Evaluation = "evaluation",
        /// Labels for features.
        Explain = "explain",
        /// A run done again.
        Replay = "replay",
        /// A recording loaded.
        Import = "import",
    }
);
word!(
    /// State of a job.
    JobState {
        /// Waits for its turn.
        Queued = "queued",
        /// Runs.
        Running = "running",
        /// Ended well.
        Done = "done",
        /// Ended with a fault.
        Failed = "failed",
        /// Was ended.
        Cancelled = "cancelled",
    }
);

/// Bounds of the histograms of seconds: five a decade from 10 µs to 10 s.
#[rustfmt::skip]
pub const SECONDS_BOUNDS: [f64; 31] = [
    0.00001, 0.0000158, 0.0000251, 0.0000398, 0.0000631,
    0.0001, 0.000158, 0.000251, 0.000398, 0.000631,
    0.001, 0.00158, 0.00251, 0.00398, 0.00631,
    0.01, 0.0158, 0.0251, 0.0398, 0.0631,
    0.1, 0.158, 0.251, 0.398, 0.631,
    1.0, 1.58, 2.51, 3.98, 6.31,
    10.0,
];

/// Bounds of the histogram of rows in a batch.
pub const ROWS_BOUNDS: [f64; 11] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];

/// All metrics of one server. Made once, shared by `Arc`.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    stage_seconds: HistogramVec,
    step_seconds: HistogramVec,
    age_seconds: HistogramVec,
    batch_rows: HistogramVec,
    queue_rows: IntGaugeVec,
    sessions: IntGaugeVec,
    sessions_shifted: IntGaugeVec,
    bins: IntCounterVec,
    gaps: IntCounterVec,
    deadline_missed: IntCounterVec,
    rejected: IntCounterVec,
    subscriber_dropped: IntCounter,
    journal_bytes: IntGauge,
    journal_oldest_seconds: Gauge,
    store_seconds: HistogramVec,
    model_state: IntGaugeVec,
    jobs: IntGaugeVec,
    ready: IntGauge,
    recording_stopped: IntCounter,
    spans_dropped: IntCounter,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All families, those with bounded labels at 0.
    pub fn new() -> Self {
        let registry = Registry::new();
        let r = &registry;
        let metrics = Self {
            stage_seconds: seconds(
                r,
                "latentd_stage_seconds",
                "Time of one stage of the walk, by model.",
                &["model", "stage"],
            ),
            step_seconds: seconds(
                r,
                "latentd_step_seconds",
                "From a frame's receipt to its answer, by pipeline.",
                &["pipeline"],
            ),
            age_seconds: seconds(
                r,
                "latentd_age_seconds",
                "From a bin's end on the device to its output, by pipeline.",
                &["pipeline"],
            ),
            batch_rows: add(
                r,
                HistogramVec::new(
                    HistogramOpts::new("latentd_batch_rows", "Rows run together, by model.")
                        .buckets(ROWS_BOUNDS.to_vec()),
                    &["model"],
                ),
            ),
            queue_rows: gauges(r, "latentd_queue_rows", "Rows waiting for a model's lane.", &["model"]),
            sessions: gauges(r, "latentd_sessions", "Sessions, by state.", &["state"]),
            sessions_shifted: gauges(
                r,
                "latentd_sessions_shifted",
                "Sessions whose inputs or latents are not as in the model's training data.",
                &["pipeline"],
            ),
            bins: counters(
                r,
                "latentd_bins_total",
                "Bins, by how they ended; late and dropped are counted beside that.",
                &["pipeline", "outcome"],
            ),
            gaps: counters(
                r,
                "latentd_gaps_total",
                "Gaps in input, by the policy that met them.",
                &["policy"],
            ),
            deadline_missed: counters(
                r,
                "latentd_deadline_missed_total",
                "Bins answered after their deadline, by pipeline.",
                &["pipeline"],
            ),
            rejected: counters(
                r,
                "latentd_rejected_total",
                "Calls and frames answered with a fault, by its kind.",
                &["reason"],
            ),
            subscriber_dropped: add(
                r,
                IntCounter::new(
                    "latentd_subscriber_dropped_total",
                    "Messages that slow subscribers did not get.",
                ),
            ),
            journal_bytes: add(
                r,
                IntGauge::new("latentd_journal_bytes", "Bytes in the journal, not yet moved."),
            ),
            journal_oldest_seconds: add(
                r,
                Gauge::new(
                    "latentd_journal_oldest_seconds",
                    "Age of the journal's oldest row that is not yet moved.",
                ),
            ),
            store_seconds: seconds(
                r,
                "latentd_store_seconds",
                "Time of one operation of the store.",
                &["op"],
            ),
            model_state: gauges(
                r,
                "latentd_model_state",
                "1 for the state that a model's version is in, 0 for the others.",
                &["model", "version", "state"],
            ),
            jobs: gauges(r, "latentd_jobs", "Jobs, by kind and state.", &["kind", "state"]),
            ready: add(r, IntGauge::new("latentd_ready", "1 where /readyz answers 200, else 0.")),
            recording_stopped: add(
                r,
                IntCounter::new(
                    "latentd_recording_stopped_total",
                    "Runs whose recording ended because the journal could not be written.",
                ),
            ),
            spans_dropped: add(
                r,
                IntCounter::new(
                    "latentd_spans_dropped_total",
                    "Spans that were not exported, because the collector was away or slow.",
                ),
            ),
            registry,
        };
        metrics.bounded_labels();
        metrics
    }

    /// Makes the children whose labels are known from the start: a labelled family without any is not rendered.
    fn bounded_labels(&self) {
        for state in SessionState::ALL {
            self.sessions.with_label_values(&[state.word()]);
        }
        for policy in GapPolicy::ALL {
            self.gaps.with_label_values(&[policy.word()]);
        }
        for kind in Kind::ALL {
            self.rejected.with_label_values(&[kind.word()]);
        }
        for op in StoreOp::ALL {
            self.store_seconds.with_label_values(&[op.word()]);
        }
        for (kind, state) in JobKind::ALL.iter().flat_map(|k| JobState::ALL.iter().map(move |s| (k, s))) {
            self.jobs.with_label_values(&[kind.word(), state.word()]);
        }
    }

    /// The pipeline's handles, bound; made at its first load, the same children each time.
    pub fn pipeline(&self, pipeline: &PipelineName) -> PipelineMetrics {
        let name = pipeline.as_str();
        PipelineMetrics {
            bins: Outcome::ALL
                .iter()
                .map(|outcome| self.bins.with_label_values(&[name, outcome.word()]))
                .collect(),
            step_seconds: self.step_seconds.with_label_values(&[name]),
            age_seconds: self.age_seconds.with_label_values(&[name]),
            deadline_missed: self.deadline_missed.with_label_values(&[name]),
            shifted: self.sessions_shifted.with_label_values(&[name]),
        }
    }

    /// The model's handles, bound; made at its first load, the same children each time.
    pub fn model(&self, model: &ModelName) -> ModelMetrics {
        let name = model.as_str();
        ModelMetrics {
            stages: Stage::ALL
                .iter()
                .map(|stage| self.stage_seconds.with_label_values(&[name, stage.word()]))
                .collect(),
            batch_rows: self.batch_rows.with_label_values(&[name]),
            queue_rows: self.queue_rows.with_label_values(&[name]),
        }
    }

    /// A bin of this pipeline ended so. Off the step path; on it, `PipelineMetrics::bin_done`.
    pub fn bin_done(&self, pipeline: &PipelineName, outcome: Outcome) {
        self.bins.with_label_values(&[pipeline.as_str(), outcome.word()]).inc();
    }

    /// Time of one stage for this model. Off the step path; on it, `ModelMetrics::stage_seconds`.
    pub fn stage_seconds(&self, model: &ModelName, stage: Stage, seconds: f64) {
        observe(&self.stage_seconds.with_label_values(&[model.as_str(), stage.word()]), seconds);
    }

    /// The version is in this state and in no other. A version whose directory is gone is `Unloaded`, not forgotten.
    pub fn model_state(&self, model: &ModelName, version: Version, state: ModelState) {
        let version = version.to_string();
        for each in ModelState::ALL {
            let child = self.model_state.with_label_values(&[model.as_str(), version.as_str(), each.word()]);
            child.set(i64::from(*each == state));
        }
    }

    /// A session as part of the gauge; it leaves the gauge when the guard is dropped.
    pub fn session(&self, state: SessionState) -> SessionGauge {
        let states: Vec<_> =
            SessionState::ALL.iter().map(|state| self.sessions.with_label_values(&[state.word()])).collect();
        states[state as usize].inc();
        SessionGauge { states, state }
    }

    /// A gap was met by this policy.
    pub fn gap(&self, policy: GapPolicy) {
        self.gaps.with_label_values(&[policy.word()]).inc();
    }

    /// A call or frame was answered with a fault of this kind.
    pub fn rejected(&self, kind: Kind) {
        self.rejected.with_label_values(&[kind.word()]).inc();
    }

    /// A slow subscriber did not get so many messages.
    pub fn subscriber_dropped(&self, messages: u64) {
        self.subscriber_dropped.inc_by(messages);
    }

    /// What is in the journal and not yet moved: its bytes, the age of its oldest row (zero when there is none).
    pub fn journal_bytes(&self, bytes: u64) {
        self.journal_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Age of the journal's oldest row; 0: it is empty.
    pub fn journal_oldest_seconds(&self, seconds: f64) {
        self.journal_oldest_seconds.set(seconds);
    }

    /// Time of one operation of the store.
    pub fn store_seconds(&self, op: StoreOp, seconds: f64) {
        observe(&self.store_seconds.with_label_values(&[op.word()]), seconds);
    }

    /// Whether requests should be sent here; told whenever somebody scrapes.
    pub fn ready(&self, ready: bool) {
        self.ready.set(i64::from(ready));
    }

    /// The recording of so many runs ended because the journal could not be written.
    pub fn recording_stopped(&self, runs: u64) {
        self.recording_stopped.inc_by(runs);
    }

    /// So many spans were not exported.
    pub fn spans_dropped(&self, spans: u64) {
        self.spans_dropped.inc_by(spans);
    }

    /// A job was made, and waits.
    pub fn job_queued(&self, kind: JobKind) {
        self.jobs.with_label_values(&[kind.word(), JobState::Queued.word()]).inc();
    }

    /// A job went from one state to another.
    pub fn job_moved(&self, kind: JobKind, from: JobState, to: JobState) {
        self.jobs.with_label_values(&[kind.word(), from.word()]).dec();
        self.jobs.with_label_values(&[kind.word(), to.word()]).inc();
    }

    /// All families as Prometheus' text (`METRICS_CONTENT_TYPE`).
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Why no fault to the caller: writing to a `String` cannot fail, and a family that is not consistent cannot be made here.
        if let Err(error) = TextEncoder::new().encode_utf8(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "metrics could not be written whole");
        }
        text
    }
}

/// Content type of `render`'s text.
pub const METRICS_CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// One pipeline's metrics, bound. Cloning is cheap, and so is each call: no label is looked up.
#[derive(Clone, Debug)]
pub struct PipelineMetrics {
    bins: Vec<IntCounter>,
    step_seconds: Histogram,
    age_seconds: Histogram,
    deadline_missed: IntCounter,
    shifted: IntGauge,
}

impl PipelineMetrics {
    /// A bin ended so.
    pub fn bin_done(&self, outcome: Outcome) {
        self.bins_done(outcome, 1);
    }

    /// So many bins ended so.
    pub fn bins_done(&self, outcome: Outcome, bins: u64) {
        self.bins[outcome as usize].inc_by(bins);
    }

    /// Time from a frame's receipt to its answer.
    pub fn step_seconds(&self, seconds: f64) {
        observe(&self.step_seconds, seconds);
    }

    /// Time from a bin's end on the device to its output. A small negative age, of a clock relation's error, counts as 0.
    pub fn age_seconds(&self, seconds: f64) {
        observe(&self.age_seconds, seconds);
    }

    /// A session's place in `latentd_sessions_shifted`; it has not shifted.
    pub fn shift(&self) -> ShiftGauge {
        ShiftGauge { sessions: self.shifted.clone(), on: false }
    }

    /// A bin carries the flag `deadline_missed`.
    pub fn deadline_missed(&self, bins: u64) {
        self.deadline_missed.inc_by(bins);
    }
}

/// One model's metrics, bound.
#[derive(Clone, Debug)]
pub struct ModelMetrics {
    stages: Vec<Histogram>,
    batch_rows: Histogram,
    queue_rows: IntGauge,
}

impl ModelMetrics {
    /// Time of one stage.
    pub fn stage_seconds(&self, stage: Stage, seconds: f64) {
        observe(&self.stages[stage as usize], seconds);
    }

    /// So many rows were run together.
    pub fn batch_rows(&self, rows: usize) {
        observe(&self.batch_rows, rows as f64);
    }

    /// So many rows wait now.
    pub fn queue_rows(&self, rows: usize) {
        self.queue_rows.set(i64::try_from(rows).unwrap_or(i64::MAX));
    }

    /// So many rows came (positive) or left (negative).
    pub fn queue_rows_changed(&self, by: i64) {
        self.queue_rows.add(by);
    }
}

/// A session's place in `latentd_sessions`. Held by the session, so that the count cannot drift.
#[derive(Debug)]
pub struct SessionGauge {
    states: Vec<IntGauge>,
    state: SessionState,
}

impl SessionGauge {
    /// The session is in this state now.
    pub fn set(&mut self, state: SessionState) {
        if state != self.state {
            self.states[self.state as usize].dec();
            self.states[state as usize].inc();
            self.state = state;
        }
    }
}

impl Drop for SessionGauge {
    fn drop(&mut self) {
        self.states[self.state as usize].dec();
    }
}

/// A session's place in `latentd_sessions_shifted`. Held by the session, so that the count cannot drift.
#[derive(Debug)]
pub struct ShiftGauge {
    sessions: IntGauge,
    on: bool,
}

impl ShiftGauge {
    /// Whether the session counts as shifted now.
    pub fn set(&mut self, on: bool) {
        if on != self.on {
            self.sessions.add(if on { 1 } else { -1 });
            self.on = on;
        }
    }
}

impl Drop for ShiftGauge {
    fn drop(&mut self) {
        self.set(false);
    }
}

/// Observes what is finite; below 0 is 0, or the sum would run backwards.
fn observe(histogram: &Histogram, value: f64) {
    if value.is_finite() {
        histogram.observe(value.max(0.0));
    }
}

fn add<C: Collector + Clone + 'static>(registry: &Registry, made: prometheus::Result<C>) -> C {
    let family = made.expect("names and labels are constants that a test has proven");
    registry.register(Box::new(family.clone())).expect("every family is named once");
    family
}

fn seconds(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> HistogramVec {
    let opts = HistogramOpts::new(name, help).buckets(SECONDS_BOUNDS.to_vec());
    add(registry, HistogramVec::new(opts, labels))
}

fn counters(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    add(registry, IntCounterVec::new(Opts::new(name, help), labels))
}

fn gauges(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    add(registry, IntGaugeVec::new(Opts::new(name, help), labels))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    /// Prometheus' text, read back.
    struct Scrape {
        types: BTreeMap<String, String>,
        samples: BTreeMap<String, f64>,
    }

    fn scrape(metrics: &Metrics) -> Scrape {
        let text = metrics.render();
        let (mut types, mut samples) = (BTreeMap::new(), BTreeMap::new());
        for line in text.lines() {
            if let Some(line) = line.strip_prefix("# TYPE ") {
                let (name, kind) = line.split_once(' ').unwrap();
                assert!(text.contains(&format!("# HELP {name} ")));
                assert!(types.insert(name.into(), kind.into()).is_none(), "{name} twice");
            } else if !line.starts_with('#') {
                let (name, value) = line.rsplit_once(' ').unwrap();
                assert!(samples.insert(name.into(), value.parse().unwrap()).is_none(), "{name} twice");
            }
        }
        Scrape { types, samples }
    }

    impl Scrape {
        /// Values of one label in one family.
        fn label(&self, family: &str, label: &str) -> BTreeSet<String> {
            let start = format!("{label}=\"");
            self.samples
                .keys()
                .filter(|name| name.starts_with(&format!("{family}{{")))
                .filter_map(|name| Some(name.split_once(&start)?.1.split_once('"')?.0.to_string()))
                .collect()
        }
    }

    fn words(list: &str) -> BTreeSet<String> {
        list.split(' ').map(String::from).collect()
    }

    #[test]
    fn names_and_types_are_the_designs_and_a_models_or_pipelines_appear_with_its_first_load() {
        let metrics = Metrics::new();
        let from_the_start = [
            ("latentd_gaps_total", "counter"),
            ("latentd_jobs", "gauge"),
            ("latentd_journal_bytes", "gauge"),
            ("latentd_journal_oldest_seconds", "gauge"),
            ("latentd_ready", "gauge"),
            ("latentd_recording_stopped_total", "counter"),
            ("latentd_rejected_total", "counter"),
            ("latentd_sessions", "gauge"),
            ("latentd_spans_dropped_total", "counter"),
            ("latentd_store_seconds", "histogram"),
            ("latentd_subscriber_dropped_total", "counter"),
        ];
        let with_a_load = [
            ("latentd_age_seconds", "histogram"),
            ("latentd_batch_rows", "histogram"),
            ("latentd_bins_total", "counter"),
            ("latentd_deadline_missed_total", "counter"),
            ("latentd_model_state", "gauge"),
            ("latentd_queue_rows", "gauge"),
            ("latentd_sessions_shifted", "gauge"),
            ("latentd_stage_seconds", "histogram"),
            ("latentd_step_seconds", "histogram"),
        ];
        let map = |list: &[(&str, &str)]| -> BTreeMap<String, String> {
            list.iter().map(|(name, kind)| (name.to_string(), kind.to_string())).collect()
        };
        assert_eq!(scrape(&metrics).types, map(&from_the_start));
        metrics.pipeline(&"reach".into());
        metrics.model(&"gru".into());
        metrics.model_state(&"gru".into(), Version(1), ModelState::Loading);
        assert_eq!(scrape(&metrics).types, map(&[&from_the_start[..], &with_a_load].concat()));
    }

    #[test]
    fn bounded_labels_are_the_wires_and_stand_at_0() {
        let metrics = Metrics::new();
        let first = scrape(&metrics);
        assert!(first.samples.values().all(|value| *value == 0.0));
        assert_eq!(first.label("latentd_gaps_total", "policy"), words("hold zero skip reset fail"));
        assert_eq!(first.label("latentd_sessions", "state"), words("open detached"));
        assert_eq!(first.label("latentd_jobs", "kind"), words("analysis evaluation explain replay import"));
        assert_eq!(first.label("latentd_jobs", "state"), words("queued running done failed cancelled"));
        assert_eq!(first.label("latentd_store_seconds_count", "op"), words("append move read snapshot"));
        let reasons = first.label("latentd_rejected_total", "reason");
        assert_eq!(reasons, Kind::ALL.iter().map(|kind| kind.word().to_string()).collect());

        metrics.pipeline(&"reach".into());
        metrics.model(&"gru".into());
        metrics.model_state(&"gru".into(), Version(7), ModelState::Ready);
        let loaded = scrape(&metrics);
        assert_eq!(
            loaded.label("latentd_bins_total", "outcome"),
            words("answered gap_filled output_invalid late dropped skipped")
        );
        assert_eq!(
            loaded.label("latentd_stage_seconds_count", "stage"),
            words("receive queue compute readout reply")
        );
        assert_eq!(
            loaded.label("latentd_model_state", "state"),
            words("candidate loading ready fault unloaded")
        );
        assert_eq!(loaded.label("latentd_model_state", "version"), words("7"));
    }

    #[test]
    fn buckets_are_the_wires() {
        let metrics = Metrics::new();
        metrics.model(&"gru".into());
        let text = metrics.render();
        let bounds = |family: &str| -> Vec<String> {
            let line = format!("{family}_bucket{{");
            let bound = |line: &str| Some(line.split_once("le=\"")?.1.split_once('"')?.0.to_string());
            text.lines().filter(|found| found.starts_with(&line)).filter_map(bound).collect()
        };
        assert_eq!(
            bounds("latentd_batch_rows"),
            ["1", "2", "4", "8", "16", "32", "64", "128", "256", "512", "1024", "+Inf"]
        );
        let seconds = &bounds("latentd_store_seconds")[..32];
        assert_eq!(seconds[31], "+Inf");
        let found: Vec<f64> = seconds[..31].iter().map(|bound| bound.parse().unwrap()).collect();
        let mut wire: Vec<f64> = (-5..1)
            .flat_map(|decade| {
                ["1", "1.58", "2.51", "3.98", "6.31"].map(|digits| format!("{digits}e{decade}"))
            })
            .map(|bound| bound.parse().unwrap())
            .collect();
        wire.push(10.0);
        assert_eq!(found, wire);
    }

    #[test]
    fn what_is_not_finite_is_never_observed_and_a_negative_age_is_0() {
        let metrics = Metrics::new();
        let pipeline = metrics.pipeline(&"reach".into());
        for seconds in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.5, 0.25] {
            pipeline.age_seconds(seconds);
        }
        let found = scrape(&metrics).samples;
        assert_eq!(found["latentd_age_seconds_count{pipeline=\"reach\"}"], 2.0);
        assert_eq!(found["latentd_age_seconds_sum{pipeline=\"reach\"}"], 0.25);
    }

    #[test]
    fn bound_handles_and_named_calls_count_on_the_same_children() {
        let metrics = Metrics::new();
        let name = PipelineName::from("reach");
        for (count, outcome) in Outcome::ALL.iter().enumerate() {
            metrics.pipeline(&name).bins_done(*outcome, count as u64);
            metrics.bin_done(&name, *outcome);
        }
        let found = scrape(&metrics).samples;
        for (count, outcome) in Outcome::ALL.iter().enumerate() {
            let line = format!("latentd_bins_total{{outcome=\"{outcome}\",pipeline=\"reach\"}}");
            assert_eq!(found[&line], count as f64 + 1.0, "{line}");
        }
        let model = ModelName::from("gru");
        for (count, stage) in Stage::ALL.iter().enumerate() {
            (0..count).for_each(|_| metrics.model(&model).stage_seconds(*stage, 0.001));
            metrics.stage_seconds(&model, *stage, 0.001);
        }
        let found = scrape(&metrics).samples;
        for (count, stage) in Stage::ALL.iter().enumerate() {
            let line = format!("latentd_stage_seconds_count{{model=\"gru\",stage=\"{stage}\"}}");
            assert_eq!(found[&line], count as f64 + 1.0, "{line}");
        }
    }

    #[test]
    fn a_session_is_counted_once_wherever_it_goes_and_leaves_with_its_guard() {
        let metrics = Metrics::new();
        let counts = || {
            let found = scrape(&metrics).samples;
            ["open", "detached"].map(|state| found[&format!("latentd_sessions{{state=\"{state}\"}}")])
        };
        let mut session = metrics.session(SessionState::Open);
        let other = metrics.session(SessionState::Detached);
        assert_eq!(counts(), [1.0, 1.0]);
        session.set(SessionState::Detached);
        session.set(SessionState::Detached);
        assert_eq!(counts(), [0.0, 2.0]);
        drop((session, other));
        assert_eq!(counts(), [0.0, 0.0]);
        let pipeline = metrics.pipeline(&"reach".into());
        let shifted = || scrape(&metrics).samples["latentd_sessions_shifted{pipeline=\"reach\"}"];
        let (mut one, mut two) = (pipeline.shift(), pipeline.shift());
        one.set(true);
        one.set(true);
        two.set(true);
        assert_eq!(shifted(), 2.0);
        two.set(false);
        drop(one);
        assert_eq!(shifted(), 0.0);
    }

    #[test]
    fn a_version_is_in_one_state() {
        let metrics = Metrics::new();
        let model = ModelName::from("gru");
        metrics.model_state(&model, Version(1), ModelState::Loading);
        metrics.model_state(&model, Version(1), ModelState::Ready);
        let found = scrape(&metrics).samples;
        for state in ModelState::ALL {
            let line = format!("latentd_model_state{{model=\"gru\",state=\"{state}\",version=\"1\"}}");
            assert_eq!(found[&line], f64::from(*state == ModelState::Ready), "{line}");
        }
    }

    #[test]
    fn the_other_calls_reach_their_families() {
        let metrics = Metrics::new();
        metrics.gap(GapPolicy::Hold);
        metrics.rejected(Kind::Overloaded);
        metrics.subscriber_dropped(3);
        metrics.journal_bytes(4096);
        metrics.journal_oldest_seconds(1.5);
        metrics.store_seconds(StoreOp::Append, 0.002);
        metrics.ready(true);
        metrics.recording_stopped(2);
        metrics.spans_dropped(5);
        metrics.job_queued(JobKind::Replay);
        metrics.job_moved(JobKind::Replay, JobState::Queued, JobState::Running);
        let pipeline = metrics.pipeline(&"reach".into());
        pipeline.step_seconds(0.0005);
        pipeline.deadline_missed(2);
        let model = metrics.model(&"gru".into());
        model.batch_rows(64);
        model.queue_rows(5);
        model.queue_rows_changed(-2);
        let found = scrape(&metrics).samples;
        for (line, value) in [
            ("latentd_gaps_total{policy=\"hold\"}", 1.0),
            ("latentd_rejected_total{reason=\"overloaded\"}", 1.0),
            ("latentd_subscriber_dropped_total", 3.0),
            ("latentd_journal_bytes", 4096.0),
            ("latentd_journal_oldest_seconds", 1.5),
            ("latentd_ready", 1.0),
            ("latentd_recording_stopped_total", 2.0),
            ("latentd_spans_dropped_total", 5.0),
            ("latentd_store_seconds_bucket{op=\"append\",le=\"0.00158\"}", 0.0),
            ("latentd_store_seconds_bucket{op=\"append\",le=\"0.00251\"}", 1.0),
            ("latentd_jobs{kind=\"replay\",state=\"queued\"}", 0.0),
            ("latentd_jobs{kind=\"replay\",state=\"running\"}", 1.0),
            ("latentd_step_seconds_count{pipeline=\"reach\"}", 1.0),
            ("latentd_deadline_missed_total{pipeline=\"reach\"}", 2.0),
            ("latentd_batch_rows_bucket{model=\"gru\",le=\"32\"}", 0.0),
            ("latentd_batch_rows_bucket{model=\"gru\",le=\"64\"}", 1.0),
            ("latentd_queue_rows{model=\"gru\"}", 3.0),
        ] {
            assert_eq!(found.get(line), Some(&value), "{line}");
        }
    }
}
