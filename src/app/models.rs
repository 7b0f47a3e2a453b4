//! The registry and the pipelines: what there is, what serves, and what a session may be opened on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::batch::{Ingest, Place, Pool, Refused};
use crate::domain::caller::Caller;
use crate::domain::ids::{ModelName, Version};
use crate::domain::settings::{Policies, SwitchState};
use crate::engine::Engine;
use crate::error::{Fault, Kind, clip, there_is};
use crate::metrics::{Metrics, ModelState};
use crate::pipeline::plan::{Plan, Stage};
use crate::pipeline::successor::Successor;
use crate::registry::shelf::{ModelRow, PipelineRow, VersionRow, VersionState};
use crate::registry::{ReadyVersion, Registry};
use crate::session::Meter;
use crate::session::switching::Running;
use crate::wire::v1;

/// Models and pipelines.
pub struct Models {
    registry: Arc<Registry>,
    pool: Arc<Pool>,
    engine: Arc<dyn Engine>,
    metrics: Arc<Metrics>,
    /// Versions whose state the metrics have.
    told: Mutex<BTreeSet<(ModelName, Version)>>,
}

impl Models {
    /// The models of a registry, run by a pool.
    pub fn new(
        registry: Arc<Registry>,
        pool: Arc<Pool>,
        engine: Arc<dyn Engine>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { registry, pool, engine, metrics, told: Mutex::default() }
    }

    /// All models with their versions.
    pub fn list(&self, _: &Caller) -> v1::ModelsReply {
        v1::ModelsReply { models: self.registry.models().iter().map(model).collect(), next: None }
    }

    /// One model. Errors: `not_found`.
    pub fn get(&self, _: &Caller, name: &str) -> Result<v1::ModelInfo, Fault> {
        self.row(name).map(|row| model(&row))
    }

    /// One version. Errors: `not_found`.
    pub fn version(&self, _: &Caller, name: &str, number: &str) -> Result<v1::ModelVersion, Fault> {
        let row = self.row(name)?;
        let asked = number.parse().ok().map(Version);
        row.versions.iter().find(|entry| Some(entry.version) == asked).map(version).ok_or_else(|| {
            let numbers: Vec<String> = row.versions.iter().map(|entry| entry.version.to_string()).collect();
            let there = there_is(number, numbers.iter().map(String::as_str));
            Fault::new(Kind::NotFound, format!("model {name} has no version `{}`; {there}", clip(number)))
        })
    }

    fn row(&self, name: &str) -> Result<ModelRow, Fault> {
        let rows = self.registry.models();
        let names = rows.iter().map(|row| row.name.as_str());
        let fault = Fault::not_found("model", name, names);
        rows.into_iter().find(|row| row.name.as_str() == name).ok_or(fault)
    }

    /// Makes a version serve. Errors: `not_found`, `invalid` with what is wrong.
    pub async fn load(&self, who: &Caller, name: &str, number: Option<u32>) -> Result<v1::ModelInfo, Fault> {
        let (registry, model) = (Arc::clone(&self.registry), name.to_owned());
        let loaded = tokio::task::spawn_blocking(move || registry.load(&model, number.map(Version))).await;
        loaded.map_err(|_| Fault::new(Kind::Internal, "loading panicked"))??;
        self.tell_states();
        self.get(who, name)
    }

    /// Takes a version out, or all of a model; sessions that hold it keep it. Errors: `not_found`.
    pub async fn unload(
        &self,
        who: &Caller,
        name: &str,
        number: Option<u32>,
    ) -> Result<v1::ModelInfo, Fault> {
        let (registry, model) = (Arc::clone(&self.registry), name.to_owned());
        let unloaded =
            tokio::task::spawn_blocking(move || registry.unload(&model, number.map(Version))).await;
        unloaded.map_err(|_| Fault::new(Kind::Internal, "unloading panicked"))??;
        self.tell_states();
        self.get(who, name)
    }

    /// All pipelines; a model alone is one.
    pub fn pipelines(&self, _: &Caller) -> v1::PipelinesReply {
        let pipelines = self.registry.pipelines().into_iter().map(|row| self.pipeline(row)).collect();
        v1::PipelinesReply { pipelines, next: None }
    }

    fn pipeline(&self, row: PipelineRow) -> v1::PipelineInfo {
        let compiled = match (&row.fault, &row.spec) {
            (None, Some(_)) => self.plan(row.name.as_str(), &BTreeMap::new()).map_err(|fault| fault.detail),
            (fault, _) => Err(fault.clone().unwrap_or_else(|| "its stages could not be read".into())),
        };
        let ready = |at: usize| compiled.as_ref().ok().map(|plan: &Plan| plan.stages[at].version.version.0);
        let stages = row.spec.iter().flat_map(|spec| spec.stages.iter().enumerate());
        v1::PipelineInfo {
            name: row.name.to_string(),
            stages: stages
                .map(|(at, stage)| v1::StageInfo {
                    stage: stage.name.to_string(),
                    model: stage.model.to_string(),
                    version: ready(at).or(stage.version.map(|version| version.0)).unwrap_or_default(),
                })
                .collect(),
            state: if compiled.is_ok() { "ready" } else { "fault" }.into(),
            fault: compiled.err(),
        }
    }

    /// Compiles a pipeline with the versions asked for by stage, else those that its file pins, else the highest that
    /// are ready. Errors: `not_found` (pipeline, stage, version), `invalid` (fault), `unavailable` (none is ready).
    pub fn plan(&self, name: &str, versions: &BTreeMap<String, u32>) -> Result<Plan, Fault> {
        // A model alone is a stage of its own name.
        let spec = self.registry.pipeline(name, versions.get(name).copied().map(Version))?;
        let stages = || spec.stages.iter().map(|stage| stage.name.as_str());
        if let Some(unknown) = versions.keys().find(|asked| stages().all(|stage| stage != asked.as_str())) {
            return Err(Fault::not_found("stage", unknown, stages()));
        }
        let pinned = spec.stages.iter().map(|stage| {
            let asked = versions.get(stage.name.as_str()).copied().map(Version);
            let found = self.registry.version(stage.model.as_str(), asked.or(stage.version));
            found.map_err(|lookup| match Fault::from(lookup) {
                // What its file names and there is not is the pipeline's fault, not the caller's.
                fault if fault.kind == Kind::NotFound && asked.is_none() && stage.model.as_str() != name => {
                    Fault::new(
                        Kind::Invalid,
                        format!("pipeline {name}, stage {}: {}", stage.name, fault.detail),
                    )
                }
                fault => fault,
            })
        });
        let pinned = pinned.collect::<Result<Vec<_>, _>>()?;
        Plan::compile(&spec, pinned)
    }

    /// A version that serves; without a number the highest that is ready.
    /// Errors: `not_found`, `invalid` (its fault), `unavailable` (loading, unloaded).
    pub fn ready(&self, name: &str, number: Option<u32>) -> Result<Arc<ReadyVersion>, Fault> {
        Ok(self.registry.version(name, number.map(Version))?)
    }

    /// Places in the lanes of a plan for a session of such bins, and what the ingest of its signals, `form`, will cost.
    /// Errors: `overloaded`, `unavailable`.
    pub fn admit(&self, plan: &Plan, width: Duration, form: &str) -> Result<(Vec<Place>, Ingest), Fault> {
        let stages =
            plan.stages.iter().map(|stage| format!("{}/{}", stage.version.model, stage.version.version));
        let shape = format!("{} {width:?} {form}", stages.collect::<Vec<_>>().join(" "));
        let ingest = self.pool.ingest(&shape, 1.0 / width.as_secs_f64());
        let asked: Vec<_> =
            plan.stages.iter().map(|stage| (Arc::clone(&stage.lane), rows_per_s(stage, width))).collect();
        let places = self.pool.admit(&asked, Some(&ingest)).map_err(no_place)?;
        Ok((places, ingest))
    }

    /// A version that is to take over in a stage of a running session, and a place in its lane.
    /// Errors: `not_found` (stage, version), `invalid` (it does not fit, its fault), `overloaded`, `unavailable`.
    pub fn successor(
        &self,
        running: &Running,
        stage: &str,
        number: u32,
        state: SwitchState,
    ) -> Result<(Successor, Place), Fault> {
        let stages = &running.plan.stages;
        let at = stages.iter().position(|known| known.name.as_str() == stage).ok_or_else(|| {
            Fault::not_found("stage", stage, stages.iter().map(|known| known.name.as_str()))
        })?;
        if number == 0 {
            return Err(Fault::mismatch("version", "a version's number, from 1", "none"));
        }
        let version = self.registry.version(stages[at].version.model.as_str(), Some(Version(number)))?;
        let next = Successor::new(&running.plan, at, version, state, &running.statics, running.asked)?;
        let stage = &next.plan.stages[at];
        let asked = (Arc::clone(&stage.lane), rows_per_s(stage, running.width));
        let place = match state {
            SwitchState::Keep | SwitchState::Reset => self.pool.exchange(asked, &running.places[at]),
            // Both run for a time.
            SwitchState::Warm => {
                keeps_up(stage, running.width)?;
                self.pool.admit(&[asked], None).map(|mut places| places.remove(0))
            }
        };
        Ok((next, place.map_err(no_place)?))
    }

    /// What a session on this plan tells the metrics.
    pub fn meter(&self, plan: &Plan, policies: &Policies) -> Meter {
        let of = |stage: &Stage| self.metrics.model(&stage.version.model);
        let first = of(&plan.stages[0]);
        let last = plan.stages.last().map_or_else(|| first.clone(), of);
        Meter::new(Arc::clone(&self.metrics), self.metrics.pipeline(&plan.name), first, last, policies)
    }

    /// Within what bit-equality is claimed.
    pub fn fingerprint(&self) -> &str {
        self.engine.fingerprint()
    }

    /// What is amiss with the repository, in sentences; readiness does not depend on it.
    pub fn degraded(&self) -> Vec<String> {
        let mut amiss = self.registry.faults();
        for row in self.registry.models() {
            amiss.extend(row.fault.iter().map(|fault| format!("model {}: {fault}", row.name)));
            for entry in &row.versions {
                let fault = entry.fault.as_ref();
                amiss.extend(fault.map(|fault| format!("model {}/{}: {fault}", row.name, entry.version)));
            }
        }
        amiss
    }

    /// Brings the metrics to the states that the versions are in, and binds what a first load makes visible.
    pub fn tell_states(&self) {
        let mut there_are = BTreeSet::new();
        for row in self.registry.models() {
            for entry in &row.versions {
                there_are.insert((row.name.clone(), entry.version));
                self.metrics.model_state(&row.name, entry.version, metric_state(entry.state));
                if entry.ready.is_some() {
                    self.metrics.model(&row.name);
                }
            }
        }
        let mut told = self.told.lock();
        for (model, version) in told.difference(&there_are) {
            self.metrics.model_state(model, *version, ModelState::Unloaded);
        }
        *told = there_are;
        for row in self.registry.pipelines().iter().filter(|row| row.fault.is_none()) {
            self.metrics.pipeline(&row.name);
        }
    }
}

/// Rows that a session with such bins brings to a stage.
fn rows_per_s(stage: &Stage, width: Duration) -> f64 {
    1.0 / width.as_secs_f64() / f64::from(stage.every_bins)
}

/// Whether a version runs a bin in no more time than the next one takes to come. Errors: `overloaded`.
fn keeps_up(stage: &Stage, width: Duration) -> Result<(), Fault> {
    let (bins, lane) = (stage.every_bins, &stage.lane);
    match lane.run_time(1).filter(|run| *run > width * bins) {
        None => Ok(()),
        Some(run) => {
            let ms = |time: Duration| time.as_secs_f64() * 1e3;
            let detail = format!(
                "model {}: a run takes {:.1} ms, and there is one every {} ms: it would not keep up with the version \
                 beside which it is to be warmed",
                lane.name(),
                ms(run),
                ms(width * bins)
            );
            Err(Fault::new(Kind::Overloaded, detail).retry_after(1000.0))
        }
    }
}

fn no_place(refused: Refused) -> Fault {
    match refused {
        Refused::Overload { .. } => {
            let detail = format!("{refused}, over load_limit; close sessions, or try later");
            Fault::new(Kind::Overloaded, detail).retry_after(1000.0)
        }
        Refused::Closed => Fault::new(Kind::Unavailable, refused.to_string()),
    }
}

fn metric_state(state: VersionState) -> ModelState {
    match state {
        VersionState::Candidate => ModelState::Candidate,
        VersionState::Loading => ModelState::Loading,
        VersionState::Ready => ModelState::Ready,
        VersionState::Fault => ModelState::Fault,
        VersionState::Unloaded => ModelState::Unloaded,
    }
}

fn model(row: &ModelRow) -> v1::ModelInfo {
    v1::ModelInfo {
        name: row.name.to_string(),
        kind: row.kind.word().into(),
        mode: row.mode.word().into(),
        description: row.description.clone(),
        tags: row.tags.clone(),
        versions: row.versions.iter().map(version).collect(),
    }
}

fn version(entry: &VersionRow) -> v1::ModelVersion {
    let told = v1::ModelVersion {
        version: entry.version.0,
        digest: entry.digest.map(|digest| digest.to_string()).unwrap_or_default(),
        state: entry.state.word().into(),
        fault: entry.fault.clone(),
        ..Default::default()
    };
    let Some(ready) = &entry.ready else { return told };
    v1::ModelVersion {
        device: ready.device.clone(),
        providers: ready.providers.clone().into_iter().collect(),
        batch_invariant: ready.batch_invariant.exact,
        batch_max_error: (!ready.batch_invariant.exact).then_some(ready.batch_invariant.max_error),
        max_batch: ready.max_batch as u32,
        example: ready.example.to_string(),
        memory_bytes: ready.memory_bytes,
        ..told
    }
}
