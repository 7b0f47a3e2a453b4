//! A run: what is known when it opens, what it has become, and how runs are looked for.

use serde::{Deserialize, Serialize};

use super::error::StoreError;
use super::record::Since;
use crate::domain::ids::{Digest, ModelName, PipelineName, RunId, SessionId, SignalName, StageName, Version};
use crate::domain::output::{OutputRole, OutputSpec, find_output};
use crate::domain::signal::word;
use crate::domain::tensor::Dtype;

word!(
    /// How far a run has come.
    RunState {
        /// Its session lives.
        Open = "open",
        /// Its session was closed.
        Closed = "closed",
        /// The process ended before the session was closed.
        Interrupted = "interrupted",
    }
);

word!(
    /// Whether what a session answers is kept.
    Recording {
        /// It is.
        On = "on",
        /// It was, until the journal could not be written.
        Stopped = "stopped",
        /// It was not asked for.
        Off = "off",
    }
);

/// A stage's version, fixed at open.
#[derive(Clone, Debug, PartialEq)]
pub struct Pinned {
    /// The stage.
    pub stage: StageName,
    /// Its model.
    pub model: ModelName,
    /// Its version.
    pub version: Version,
    /// The version's content.
    pub digest: Digest,
}

/// What is known of a run when its session opens.
#[derive(Clone, Debug, PartialEq)]
pub struct RunHead {
    /// Its id, made locally.
    pub run: RunId,
    /// The session it records.
    pub session: SessionId,
    /// The rig's name.
    pub rig: String,
    /// The pipeline.
    pub pipeline: PipelineName,
    /// Versions in force at the start.
    pub pinned: Vec<Pinned>,
    /// What open answered with every default filled in; the caller's JSON, never read here.
    pub resolved: String,
    /// Every output of the pipeline.
    pub outputs: Vec<OutputSpec>,
    /// Numbers of the outputs that are recorded.
    pub recorded: Vec<u32>,
    /// The session's signals, in the order that `Record::Frame::signal` counts.
    pub signals: Vec<SignalName>,
    /// Start of bin 0 on the session's clock, if open gave it (else `Record::T0` tells).
    pub t0_ns: Option<i64>,
    /// Width of a bin.
    pub width_ns: u64,
    /// The first bin that this session can answer; 0 unless it is resumed or forked.
    pub first_bin: u64,
    /// When the session opened, by the server's clock (Unix ns).
    pub started_ns: i64,
    /// The engine's fingerprint.
    pub engine: String,
    /// Tags, for searching.
    pub tags: Vec<String>,
    /// Notes of people.
    pub notes: String,
    /// The journal that wrote it; filled in by the recorder.
    pub owner: Owner,
}

/// A journal and one start of it. A run left open by an earlier start of the same journal is interrupted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The journal's own name.
    pub journal: String,
    /// How often it was opened before.
    pub boot: i64,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close {
    /// When, by the server's clock (Unix ns).
    pub ended_ns: i64,
    /// The session's summary; the caller's JSON, never read here.
    pub summary: String,
}

/// A run as far as it has come.
#[derive(Clone, Debug, PartialEq)]
pub struct RunRecord {
    /// What was known at open; tags and notes as they are now.
    pub head: RunHead,
    /// How far it has come.
    pub state: RunState,
    /// Whether it is being recorded.
    pub recording: Recording,
    /// Start of bin 0, once it is known.
    pub t0_ns: Option<i64>,
    /// The first recorded bin.
    pub first_bin: Option<u64>,
    /// One past the last recorded bin.
    pub end_bin: Option<u64>,
    /// Recorded bins.
    pub bins: u64,
    /// Bins that were not answered because their gap was too long to fill.
    pub skipped_bins: u64,
    /// When the journal last took something of it (Unix ns).
    pub last_ns: i64,
    /// When it ended (Unix ns); of an interrupted run, when the journal last took something of it.
    pub ended_ns: Option<i64>,
    /// The session's summary; the caller's JSON.
    pub summary: Option<String>,
    /// Other versions, from which bin on.
    pub segments: Vec<Since>,
    /// Other settings, from which bin on.
    pub settings: Vec<Since>,
    /// Journal rows of this run up to here are in what this record says.
    pub moved_to: i64,
}

impl RunRecord {
    /// A run of which only the head is known.
    pub fn begun(head: RunHead) -> Self {
        Self {
            state: RunState::Open,
            recording: Recording::On,
            t0_ns: head.t0_ns,
            first_bin: None,
            end_bin: None,
            bins: 0,
            skipped_bins: 0,
            last_ns: head.started_ns,
            ended_ns: None,
            summary: None,
            segments: Vec::new(),
            settings: Vec::new(),
            moved_to: 0,
            head,
        }
    }

    /// The output of that name: its own, or `stage.output`.
    pub fn output(&self, name: &str) -> Option<&OutputSpec> {
        find_output(&self.head.outputs, name).map(|at| &self.head.outputs[at])
    }

    /// The number of the signal of that name.
    pub fn signal(&self, name: &str) -> Option<usize> {
        self.head.signals.iter().position(|signal| signal.as_str() == name)
    }
}

/// What runs are looked for; `None`: any.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunFilter {
    /// The rig's name.
    pub rig: Option<String>,
    /// The pipeline.
    pub pipeline: Option<String>,
    /// A model pinned at open.
    pub model: Option<String>,
    /// A tag.
    pub tag: Option<String>,
    /// How far it has come.
    pub state: Option<RunState>,
    /// Started at or after (Unix ns).
    pub from_ns: Option<i64>,
    /// Started before (Unix ns).
    pub to_ns: Option<i64>,
}

/// A page of runs, newest first.
#[derive(Clone, Debug, PartialEq)]
pub struct RunPage {
    /// The runs.
    pub runs: Vec<RunRecord>,
    /// Where the next page begins; `None`: this was the last.
    pub next: Option<RunId>,
}

/// What people may change of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunEdit {
    /// New tags.
    pub tags: Option<Vec<String>>,
    /// New notes.
    pub notes: Option<String>,
}

// The forms in which a head stands in a journal row and in the library's JSON columns. A field is added with a
// default, never changed: rows of an older version are read by a newer one.

#[derive(Serialize, Deserialize)]
struct PinnedForm {
    stage: String,
    model: String,
    version: u32,
    digest: String,
}

#[derive(Serialize, Deserialize)]
struct OutputForm {
    number: u32,
    name: String,
    stage: String,
    output: String,
    role: String,
    dims: Vec<u32>,
    labels: Vec<String>,
    unit: String,
    dtype: String,
    sparse: bool,
    delay_ms: f64,
}

#[derive(Serialize, Deserialize)]
struct HeadForm {
    run: String,
    session: String,
    rig: String,
    pipeline: String,
    pinned: serde_json::Value,
    resolved: String,
    outputs: serde_json::Value,
    recorded: Vec<u32>,
    signals: Vec<String>,
    t0_ns: Option<i64>,
    width_ns: u64,
    first_bin: u64,
    started_ns: i64,
    engine: String,
    tags: Vec<String>,
    notes: String,
    owner: Owner,
}

fn odd(column: &'static str, found: impl std::fmt::Display) -> StoreError {
    StoreError::Inconsistent { table: "run", column, found: crate::error::clip(&found.to_string()) }
}

/// The pinned versions as JSON.
pub(super) fn json_from_pinned(pinned: &[Pinned]) -> serde_json::Value {
    let forms: Vec<PinnedForm> = pinned
        .iter()
        .map(|pinned| PinnedForm {
            stage: pinned.stage.as_str().to_owned(),
            model: pinned.model.as_str().to_owned(),
            version: pinned.version.0,
            digest: pinned.digest.hex(),
        })
        .collect();
    serde_json::json!(forms)
}

/// The pinned versions from their JSON.
pub(super) fn pinned_from_json(json: serde_json::Value) -> Result<Vec<Pinned>, StoreError> {
    let forms: Vec<PinnedForm> = serde_json::from_value(json).map_err(|error| odd("pinned", error))?;
    forms
        .into_iter()
        .map(|form| {
            Ok(Pinned {
                stage: StageName::new(form.stage),
                model: ModelName::new(form.model),
                version: Version(form.version),
                digest: Digest::from_hex(&form.digest).ok_or_else(|| odd("pinned", &form.digest))?,
            })
        })
        .collect()
}

/// The specs of outputs as JSON.
pub(super) fn json_from_outputs(outputs: &[OutputSpec]) -> serde_json::Value {
    let forms: Vec<OutputForm> = outputs
        .iter()
        .map(|spec| OutputForm {
            number: spec.number,
            name: spec.name.clone(),
            stage: spec.stage.as_str().to_owned(),
            output: spec.output.clone(),
            role: spec.role.word().to_owned(),
            dims: spec.dims.clone(),
            labels: spec.labels.clone(),
            unit: spec.unit.clone(),
            dtype: spec.dtype.word().to_owned(),
            sparse: spec.sparse,
            delay_ms: spec.delay_ms,
        })
        .collect();
    serde_json::json!(forms)
}

/// The specs of outputs from their JSON.
pub(super) fn outputs_from_json(json: serde_json::Value) -> Result<Vec<OutputSpec>, StoreError> {
    let forms: Vec<OutputForm> = serde_json::from_value(json).map_err(|error| odd("outputs", error))?;
    forms
        .into_iter()
        .map(|form| {
            Ok(OutputSpec {
                number: form.number,
                name: form.name,
                stage: StageName::new(form.stage),
                output: form.output,
                role: OutputRole::parse(&form.role).ok_or_else(|| odd("outputs", &form.role))?,
                dims: form.dims,
                labels: form.labels,
                unit: form.unit,
                dtype: Dtype::parse(&form.dtype).ok_or_else(|| odd("outputs", &form.dtype))?,
                sparse: form.sparse,
                delay_ms: form.delay_ms,
            })
        })
        .collect()
}

impl RunHead {
    /// The head as it stands in a journal row.
    pub(super) fn to_json(&self) -> String {
        serde_json::json!(HeadForm {
            run: self.run.to_string(),
            session: self.session.to_string(),
            rig: self.rig.clone(),
            pipeline: self.pipeline.as_str().to_owned(),
            pinned: json_from_pinned(&self.pinned),
            resolved: self.resolved.clone(),
            outputs: json_from_outputs(&self.outputs),
            recorded: self.recorded.clone(),
            signals: self.signals.iter().map(|name| name.as_str().to_owned()).collect(),
            t0_ns: self.t0_ns,
            width_ns: self.width_ns,
            first_bin: self.first_bin,
            started_ns: self.started_ns,
            engine: self.engine.clone(),
            tags: self.tags.clone(),
            notes: self.notes.clone(),
            owner: self.owner.clone(),
        })
        .to_string()
    }

    /// The head from a journal row.
    pub(super) fn from_json(text: &str) -> Result<Self, StoreError> {
        let form: HeadForm = serde_json::from_str(text).map_err(|error| odd("head", error))?;
        Ok(Self {
            run: form.run.parse().map_err(|_| odd("run", &form.run))?,
            session: form.session.parse().map_err(|_| odd("session", &form.session))?,
            rig: form.rig,
            pipeline: PipelineName::new(form.pipeline),
            pinned: pinned_from_json(form.pinned)?,
            resolved: form.resolved,
            outputs: outputs_from_json(form.outputs)?,
            recorded: form.recorded,
            signals: form.signals.into_iter().map(SignalName::new).collect(),
            t0_ns: form.t0_ns,
            width_ns: form.width_ns,
            first_bin: form.first_bin,
            started_ns: form.started_ns,
            engine: form.engine,
            tags: form.tags,
            notes: form.notes,
            owner: form.owner,
        })
    }
}
