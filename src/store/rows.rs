//! Rows as both databases give them, and what they mean.

use crate::domain::ids::{PipelineName, SignalName};
use crate::domain::output::EventKind;
use crate::domain::tensor::Dtype;
use crate::store::error::StoreError;
use crate::store::event::EventEntry;
use crate::store::extent::Extent;
use crate::store::run::{
    Owner, Recording, RunHead, RunRecord, RunState, outputs_from_json, pinned_from_json,
};

/// A database's integers are signed; a bin or count of 2⁶³ and more cannot come about (292 years of nanoseconds).
pub(super) fn int_from(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Every column of a run, in the order of `RunForm`.
pub(super) const SELECT_RUN: &str = "SELECT
    run,
    session,
    rig,
    pipeline,
    pinned,
    resolved,
    outputs,
    recorded,
    signals,
    engine,
    tags,
    notes,
    state,
    recording,
    t0_ns,
    width_ns,
    from_bin,
    first_bin,
    end_bin,
    bins,
    skipped_bins,
    started_ns,
    last_ns,
    ended_ns,
    summary,
    segments,
    settings,
    owner,
    boot,
    moved_to
FROM run";

#[derive(sqlx::FromRow)]
pub(super) struct RunForm {
    run: String,
    session: String,
    rig: String,
    pipeline: String,
    pinned: String,
    resolved: String,
    outputs: String,
    recorded: String,
    signals: String,
    engine: String,
    tags: String,
    notes: String,
    state: String,
    recording: String,
    t0_ns: Option<i64>,
    width_ns: i64,
    from_bin: i64,
    first_bin: Option<i64>,
    end_bin: Option<i64>,
    bins: i64,
    skipped_bins: i64,
    started_ns: i64,
    last_ns: i64,
    ended_ns: Option<i64>,
    summary: Option<String>,
    segments: String,
    settings: String,
    owner: String,
    boot: i64,
    moved_to: i64,
}

fn odd(table: &'static str, column: &'static str, found: &str) -> StoreError {
    StoreError::Inconsistent { table, column, found: crate::error::clip(found) }
}

fn parse<T: serde::de::DeserializeOwned>(column: &'static str, text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|_| odd("run", column, text))
}

impl RunForm {
    pub(super) fn record(self) -> Result<RunRecord, StoreError> {
        let signals: Vec<String> = parse("signals", &self.signals)?;
        Ok(RunRecord {
            state: RunState::parse(&self.state).ok_or_else(|| odd("run", "state", &self.state))?,
            recording: Recording::parse(&self.recording)
                .ok_or_else(|| odd("run", "recording", &self.recording))?,
            t0_ns: self.t0_ns,
            first_bin: self.first_bin.map(|bin| bin as u64),
            end_bin: self.end_bin.map(|bin| bin as u64),
            bins: self.bins as u64,
            skipped_bins: self.skipped_bins as u64,
            last_ns: self.last_ns,
            ended_ns: self.ended_ns,
            summary: self.summary,
            segments: parse("segments", &self.segments)?,
            settings: parse("settings", &self.settings)?,
            moved_to: self.moved_to,
            head: RunHead {
                run: self.run.parse().map_err(|_| odd("run", "run", &self.run))?,
                session: self.session.parse().map_err(|_| odd("run", "session", &self.session))?,
                rig: self.rig,
                pipeline: PipelineName::new(self.pipeline),
                pinned: pinned_from_json(parse("pinned", &self.pinned)?)?,
                resolved: self.resolved,
                outputs: outputs_from_json(parse("outputs", &self.outputs)?)?,
                recorded: parse("recorded", &self.recorded)?,
                signals: signals.into_iter().map(SignalName::new).collect(),
                t0_ns: self.t0_ns,
                width_ns: self.width_ns as u64,
                first_bin: self.from_bin as u64,
                started_ns: self.started_ns,
                engine: self.engine,
                tags: parse("tags", &self.tags)?,
                notes: self.notes,
                owner: Owner { journal: self.owner, boot: self.boot },
            },
        })
    }
}

#[derive(sqlx::FromRow)]
pub(super) struct ExtentForm {
    first_bin: i64,
    n: i64,
    dtype: String,
    row_bytes: i64,
    bytes: Vec<u8>,
}

impl ExtentForm {
    pub(super) fn extent(self) -> Result<Extent, StoreError> {
        if self.bytes.len() as i64 != self.n * self.row_bytes {
            let found = format!("{} bytes for {} rows of {}", self.bytes.len(), self.n, self.row_bytes);
            return Err(odd("chunk", "bytes", &found));
        }
        Ok(Extent {
            first_bin: self.first_bin as u64,
            n: self.n as u32,
            row_bytes: self.row_bytes as u32,
            dtype: Dtype::parse(&self.dtype).ok_or_else(|| odd("chunk", "dtype", &self.dtype))?,
            bytes: self.bytes.into(),
        })
    }
}

/// Every column of an event, in the order of `EventForm`.
pub(super) const SELECT_EVENT: &str = "SELECT
    id,
    kind,
    signal,
    from_bin,
    to_bin,
    count,
    first_ns,
    last_ns,
    detail
FROM event";

#[derive(sqlx::FromRow)]
pub(super) struct EventForm {
    pub(super) id: i64,
    kind: String,
    signal: String,
    from_bin: Option<i64>,
    to_bin: Option<i64>,
    count: i64,
    first_ns: i64,
    last_ns: i64,
    detail: String,
}

impl EventForm {
    pub(super) fn entry(self) -> Result<EventEntry, StoreError> {
        Ok(EventEntry {
            kind: EventKind::parse(&self.kind).ok_or_else(|| odd("event", "kind", &self.kind))?,
            signal: (!self.signal.is_empty()).then(|| SignalName::new(self.signal)),
            from_bin: self.from_bin.map(|bin| bin as u64),
            to_bin: self.to_bin.map(|bin| bin as u64),
            count: self.count as u64,
            first_ns: self.first_ns,
            last_ns: self.last_ns,
            detail: self.detail,
        })
    }
}
