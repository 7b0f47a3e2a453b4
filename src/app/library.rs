//! Runs and their results.

use crate::domain::caller::Caller;
use crate::domain::ids::RunId;
use crate::domain::output::{EventKind, OutputSpec};
use crate::domain::time::BinGrid;
use crate::error::{Fault, Kind, clip};
use crate::store::query::Stretch;
use crate::store::run::{RunFilter, RunRecord, RunState};
use crate::store::{Store, StoreError};
use crate::wire::outputs::Outputs;
use crate::wire::thinning::Thinner;
use crate::wire::{self, v1};

/// Most runs of one page.
const PAGE_LIMIT: u32 = 1000;
/// Runs of a page that says nothing.
const PAGE: u32 = 100;
/// Most bytes of values in one answer.
const OUTPUTS_LIMIT_BYTES: usize = 256 << 20;

/// Runs and their results.
pub struct Library {
    store: Store,
}

/// Which runs are asked for.
#[derive(Clone, Debug, Default)]
pub struct RunsAsk {
    /// The rig's name.
    pub rig: Option<String>,
    /// The pipeline's name.
    pub pipeline: Option<String>,
    /// `open`, `closed` or `interrupted`.
    pub state: Option<String>,
    /// A tag that they carry.
    pub tag: Option<String>,
    /// Most runs of the page.
    pub limit: Option<u32>,
    /// `next` of the page before.
    pub cursor: Option<String>,
}

/// Which values of an output are asked for.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// First bin.
    pub from: Option<u64>,
    /// One past the last bin.
    pub to: Option<u64>,
    /// Indices into a bin's values, row-major; `None`: all.
    pub dims: Option<Vec<usize>>,
}

/// An output of a run, and the bins of it that are wanted.
struct Asked {
    record: RunRecord,
    spec: OutputSpec,
    /// First bin.
    from: u64,
    /// One past the last.
    to: u64,
}

impl Library {
    /// The library of this store.
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    /// Runs, newest first. Errors: `invalid`, `unavailable`.
    pub async fn runs(&self, _: &Caller, ask: RunsAsk) -> Result<v1::RunsReply, Fault> {
        let state = match ask.state.as_deref() {
            None => None,
            Some(word) => Some(
                RunState::parse(word)
                    .ok_or_else(|| Fault::unknown_word("state", word, &RunState::words()))?,
            ),
        };
        let limit = ask.limit.unwrap_or(PAGE);
        if !(1..=PAGE_LIMIT).contains(&limit) {
            return Err(Fault::mismatch("limit", format!("1 to {PAGE_LIMIT}"), limit.to_string()));
        }
        let after = match ask.cursor.as_deref() {
            None => None,
            Some(text) => Some(text.parse::<RunId>().map_err(|_| {
                Fault::mismatch("cursor", "`next` of the page before", format!("`{}`", clip(text)))
            })?),
        };
        let filter =
            RunFilter { rig: ask.rig, pipeline: ask.pipeline, tag: ask.tag, state, ..Default::default() };
        let page = self.store.runs(&filter, after, limit).await.map_err(away)?;
        let runs = page.runs.iter().map(info).collect::<Result<_, _>>()?;
        Ok(v1::RunsReply { runs, next: page.next.map(|run| run.to_string()) })
    }

    /// One run. Errors: `not_found`, `unavailable`.
    pub async fn run(&self, _: &Caller, run: &str) -> Result<v1::RunInfo, Fault> {
        info(&self.record(run).await?)
    }

    /// Values of an output. Errors: `not_found` (run, output), `invalid` (dims, range), `too_large`.
    pub async fn outputs(
        &self,
        _: &Caller,
        run: &str,
        output: &str,
        wanted: &Wanted,
    ) -> Result<Outputs, Fault> {
        let Asked { record, spec, from, to } = self.asked(run, output, wanted).await?;
        let stretches = self.store.outputs(record.head.run, &spec, from, to).await.map_err(away)?;
        let Some(stretches) = stretches else { return Err(no_run(run)) };
        let (stretches, rest) = stretches.gather(OUTPUTS_LIMIT_BYTES).await.map_err(away)?;
        if let Some(rest) = rest {
            let detail = format!(
                "the values from bin {rest} on would pass {OUTPUTS_LIMIT_BYTES} bytes; ask for a range by from and to"
            );
            return Err(Fault::new(Kind::TooLarge, detail));
        }
        values(&record, spec, stretches, wanted.dims.as_deref())
    }

    /// Values of an output as at most so many points; whole where there are no more bins than that.
    /// Errors: as `outputs`, and `invalid` (`max_points`).
    pub async fn thinned(
        &self,
        who: &Caller,
        run: &str,
        output: &str,
        wanted: &Wanted,
        max_points: u64,
    ) -> Result<v1::OutputsReply, Fault> {
        if max_points == 0 {
            return Err(Fault::mismatch("max_points", "at least 1", "0"));
        }
        let Asked { record, spec, from, to } = self.asked(run, output, wanted).await?;
        let from = from.max(record.first_bin.unwrap_or(0));
        let to = to.min(record.end_bin.unwrap_or(0)).max(from);
        if to - from <= max_points {
            let wanted = Wanted { from: Some(from), to: Some(to), ..wanted.clone() };
            return Ok(self.outputs(who, run, output, &wanted).await?.message());
        }
        let dims = wanted.dims.as_deref();
        let elements = dims.map_or_else(|| elements(&spec), <[usize]>::len);
        let mut thinner = Thinner::new(from, to, max_points, spec.dtype);
        let points = (to - from).div_ceil(thinner.width());
        let point_bytes = 3 * elements * spec.dtype.size_bytes();
        if points.saturating_mul(point_bytes as u64) > OUTPUTS_LIMIT_BYTES as u64 {
            let detail = format!(
                "{points} points would pass {OUTPUTS_LIMIT_BYTES} bytes; ask for fewer by max_points"
            );
            return Err(Fault::new(Kind::TooLarge, detail));
        }
        let pieces = self.store.outputs(record.head.run, &spec, from, to).await.map_err(away)?;
        let mut pieces = pieces.ok_or_else(|| no_run(run))?;
        while let Some(piece) = pieces.next().await.map_err(away)? {
            let piece = selected(piece, dims);
            if piece.values.len() != piece.n as usize * elements * piece.dtype.size_bytes() {
                return Err(Fault::new(Kind::Internal, "a piece is not as long as its bins"));
            }
            thinner.push(piece.first_bin, &piece.flags, &piece.values);
        }
        Ok(values(&record, spec, Vec::new(), dims)?.thinned(&thinner.finish()))
    }

    /// The run and output that are asked for, and the range of bins.
    async fn asked(&self, run: &str, output: &str, wanted: &Wanted) -> Result<Asked, Fault> {
        let record = self.record(run).await?;
        let Some(spec) = record.output(output) else {
            let there_are = record.head.outputs.iter().map(|spec| spec.name.as_str());
            return Err(Fault::not_found("output", output, there_are));
        };
        let spec = spec.clone();
        let elements = elements(&spec);
        if let Some(bad) = wanted.dims.iter().flatten().find(|&&dim| dim >= elements) {
            return Err(Fault::mismatch("dims", format!("indices below {elements}"), bad.to_string()));
        }
        let (from, to) = (wanted.from.unwrap_or(0), wanted.to.unwrap_or(u64::MAX));
        if from > to {
            return Err(Fault::mismatch("from", format!("at most `to`, {to}"), from.to_string()));
        }
        Ok(Asked { record, spec, from, to })
    }

    /// Events of a run, merged, in order. Errors: `not_found`, `invalid` (kind).
    pub async fn events(&self, _: &Caller, run: &str, kind: Option<&str>) -> Result<v1::EventsReply, Fault> {
        let kind = match kind {
            None => None,
            Some(word) => Some(
                EventKind::parse(word)
                    .ok_or_else(|| Fault::unknown_word("kind", word, &EventKind::words()))?,
            ),
        };
        let id = run.parse::<RunId>().map_err(|_| no_run(run))?;
        let entries = self.store.events(id, kind).await.map_err(away)?.ok_or_else(|| no_run(run))?;
        let events = entries.into_iter().map(|entry| v1::Event {
            kind: entry.kind.word().into(),
            signal: entry.signal.map(|signal| signal.to_string()).unwrap_or_default(),
            from_bin: entry.from_bin,
            to_bin: entry.to_bin.or(entry.from_bin),
            count: entry.count,
            first_ns: entry.first_ns,
            last_ns: entry.last_ns,
            detail: entry.detail,
        });
        Ok(v1::EventsReply { events: events.collect(), next: None })
    }

    async fn record(&self, run: &str) -> Result<RunRecord, Fault> {
        let id = run.parse::<RunId>().map_err(|_| no_run(run))?;
        self.store.run(id).await.map_err(away)?.ok_or_else(|| no_run(run))
    }
}

fn no_run(run: &str) -> Fault {
    Fault::new(Kind::NotFound, format!("no run `{}`; GET /v1/runs lists those there are", clip(run)))
}

/// The store could not answer.
fn away(error: StoreError) -> Fault {
    tracing::warn!(error = &error as &dyn std::error::Error, "the library could not answer");
    error.fault()
}

fn info(record: &RunRecord) -> Result<v1::RunInfo, Fault> {
    let head = &record.head;
    let pinned: Vec<v1::Pinned> = head
        .pinned
        .iter()
        .map(|pinned| v1::Pinned {
            stage: pinned.stage.to_string(),
            model: pinned.model.to_string(),
            version: pinned.version.0,
            digest: pinned.digest.to_string(),
        })
        .collect();
    let first_bin = record.first_bin.unwrap_or(head.first_bin);
    Ok(v1::RunInfo {
        run: head.run.to_string(),
        session: head.session.to_string(),
        rig: head.rig.clone(),
        pipeline: head.pipeline.to_string(),
        segments: segments(record, v1::Segment { from_bin: first_bin, pinned: pinned.clone() })?,
        pinned,
        resolved: Some(wire::json::read(head.resolved.as_bytes())?),
        state: record.state.word().into(),
        first_bin,
        bins: record.bins,
        outputs: head.outputs.iter().map(wire::open::output_message).collect(),
        started_ns: head.started_ns,
        ended_ns: record.ended_ns,
        recording: record.recording.word().into(),
        settings: record
            .settings
            .iter()
            .map(|since| wire::json::read(since.body.as_bytes()))
            .collect::<Result<_, _>>()?,
    })
}

/// The stretches of a run under one set of versions; one that another begins with has none of its own.
fn segments(record: &RunRecord, first: v1::Segment) -> Result<Vec<v1::Segment>, Fault> {
    let mut segments = vec![first];
    for since in &record.segments {
        let told: v1::Segment = wire::json::read(since.body.as_bytes())?;
        segments.pop_if(|last| last.from_bin >= since.from_bin);
        segments.push(v1::Segment { from_bin: since.from_bin, ..told });
    }
    Ok(segments)
}

fn values(
    record: &RunRecord,
    spec: OutputSpec,
    stretches: Vec<Stretch>,
    dims: Option<&[usize]>,
) -> Result<Outputs, Fault> {
    let width_ns = std::num::NonZeroU64::new(record.head.width_ns)
        .ok_or_else(|| Fault::new(Kind::Internal, "the run has no bin width"))?;
    let grid = BinGrid { t0_ns: record.t0_ns.unwrap_or(0), width_ns };
    let labels = match dims {
        Some(dims) if !spec.labels.is_empty() => dims.iter().map(|&dim| spec.labels[dim].clone()).collect(),
        Some(_) => Vec::new(),
        None => spec.labels.clone(),
    };
    let shape = dims.map_or_else(|| spec.dims.clone(), |dims| vec![dims.len() as u32]);
    let stretches = stretches
        .into_iter()
        .map(|stretch| selected(stretch, dims))
        .map(|Stretch { first_bin, flags, values, .. }| wire::outputs::Stretch {
            first_bin,
            flags,
            raw: values,
        })
        .collect();
    Ok(Outputs {
        run: record.head.run.to_string(),
        output: spec.name,
        dims: shape,
        labels,
        selected: dims.map(<[usize]>::to_vec),
        dtype: spec.dtype,
        grid,
        stretches,
    })
}

/// Only these elements of each bin's value; they were checked against the output.
fn selected(stretch: Stretch, dims: Option<&[usize]>) -> Stretch {
    match dims {
        Some(dims) => stretch.select(dims).expect("dims were checked against the output"),
        None => stretch,
    }
}

/// Values of one bin of an output.
fn elements(spec: &OutputSpec) -> usize {
    spec.dims.iter().map(|&dim| dim as usize).product()
}
