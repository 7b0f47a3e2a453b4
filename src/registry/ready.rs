//! A version that passed every check: what it takes and gives, and the lane that runs it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::channels::ModelChannel;
use super::finding::{Finding, Findings};
use super::fit;
use super::manifest::{self, Batching, Input, Manifest};
use super::reference::Reference;
use super::rehearsal::{MIXING, Rehearsal, Vouched};
use super::surface::{self, BoundInput, BoundOutput, BoundState, BoundStatic, Surface};
use super::version::VersionBytes;
use crate::batch::invariance::{self, Invariance};
use crate::batch::{Lane, LaneSpec, Pool, Port, Rebuild};
use crate::domain::ids::{Digest, ModelName, Version};
use crate::engine::{Engine, EngineError, Instance, LoadOptions};
use crate::error::clip;
use crate::graph::Signature;

/// What is known of a version that may serve.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The model.
    pub model: ModelName,
    /// The version.
    pub version: Version,
    /// Digest of its bytes.
    pub digest: Digest,
    /// Its manifest, completed from the graph; numbers of `file:` are read in.
    pub manifest: Manifest,
    /// Whether there is a `model.toml`.
    pub has_manifest: bool,
    /// What its graph takes and gives.
    pub signature: Signature,
    /// Streamed inputs, in the manifest's order.
    pub inputs: Vec<BoundInput>,
    /// Per input of the manifest: the rows of its `channels_file`, if it names one.
    pub channels: Vec<Option<Vec<ModelChannel>>>,
    /// Inputs given at open.
    pub statics: Vec<BoundStatic>,
    /// States with their initial values.
    pub states: Vec<BoundState>,
    /// Outputs, in the manifest's order, taps behind them.
    pub outputs: Vec<BoundOutput>,
    /// Where it really runs: `cpu`, `cuda:0`.
    pub device: String,
    /// Nodes by execution provider.
    pub providers: BTreeMap<String, u32>,
    /// What batching does to a row's numbers.
    pub batch_invariant: Invariance,
    /// Most rows of a batch.
    pub max_batch: usize,
    /// What its example says.
    pub example: Vouched,
    /// What its training data were like, if a file tells it.
    pub reference: Option<Reference>,
    /// Bytes that it holds: graph and external data, once for us and once per instance. An estimate.
    pub memory_bytes: u64,
    /// Measured run times by batch size.
    pub run_times: Vec<(usize, Duration)>,
    /// Why no session can be opened on it; `None`: one can.
    pub not_streamed: Option<String>,
    /// What people should know, in sentences.
    pub notes: Vec<String>,
}

impl Facts {
    /// The manifest's input of that name, with its binding.
    pub fn input(&self, name: &str) -> Option<(&Input, &BoundInput)> {
        self.inputs
            .iter()
            .map(|bound| (&self.manifest.inputs[bound.input], bound))
            .find(|(input, _)| input.name == name)
    }

    /// The output of that name.
    pub fn output(&self, name: &str) -> Option<&BoundOutput> {
        self.outputs.iter().find(|output| output.name == name)
    }
}

/// A version that serves, alive as long as somebody holds it.
pub struct ReadyVersion {
    /// What is known of it.
    pub facts: Facts,
    /// What runs it; `lane.spec()` has the ports.
    pub lane: Arc<Lane>,
}

impl std::ops::Deref for ReadyVersion {
    type Target = Facts;
    fn deref(&self) -> &Facts {
        &self.facts
    }
}

impl std::fmt::Debug for ReadyVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{} {}", self.model, self.version, self.digest)
    }
}

impl ReadyVersion {
    /// Ports in the order of the graph's inputs.
    pub fn input_ports(&self) -> &[Port] {
        &self.lane.spec().inputs
    }

    /// Ports in the order of the graph's outputs; an output's dims are its port's `row_shape`.
    pub fn output_ports(&self) -> &[Port] {
        &self.lane.spec().outputs
    }
}

/// A version that passed every check and is not on a lane yet.
pub struct Prepared {
    /// What is known of it.
    pub facts: Facts,
    spec: LaneSpec,
    instances: Vec<Box<dyn Instance>>,
    rebuild: Rebuild,
}

impl Prepared {
    /// What its lane will run, and how.
    pub fn spec(&self) -> &LaneSpec {
        &self.spec
    }

    /// Puts it on a lane.
    pub fn open(self, pool: &Pool) -> Arc<ReadyVersion> {
        let lane = pool.add_lane(self.spec, self.instances, self.rebuild);
        for (rows, time) in &self.facts.run_times {
            lane.learn(*rows, *time);
        }
        Arc::new(ReadyVersion { facts: self.facts, lane })
    }
}

/// Checks a version against its graph and runs it: alone, in a batch, along its example.
pub fn prepare(
    mut version: VersionBytes,
    engine: &Arc<dyn Engine>,
    run_limit: Duration,
) -> Result<Prepared, Findings> {
    surface::complete(&mut version);
    // What is not served yet is said alone: its graph may rightly look as no step model does.
    manifest::unserved(&version.manifest_file, &version.manifest).unless_any(())?;
    let mut surface = fit::bind(&version)?;

    let serve = &version.manifest.serve;
    let options = LoadOptions { device: serve.device.0, intra_threads: serve.intra_threads };
    let load = {
        let (engine, bytes, options) = (Arc::clone(engine), version.bytes.clone(), options.clone());
        move || engine.load(&bytes, &options)
    };
    let refused = |error: EngineError| {
        let key = if matches!(error, EngineError::Device { .. }) { "serve.device" } else { "" };
        let said = error.to_string();
        let said = said.strip_prefix(&format!("{}: ", version.bytes.name)).unwrap_or(&said).to_owned();
        Findings::one(Finding::new(&version.graph_file, key, "a graph that the runtime takes", said))
    };
    let mut instances: Vec<Box<dyn Instance>> = Vec::new();
    for _ in 0..serve.instances {
        instances.push(load().map_err(refused)?);
    }
    let info = instances[0].info().clone();
    let same_surface =
        info.signature.inputs.iter().map(|i| &i.name).eq(version.signature.inputs.iter().map(|i| &i.name))
            && info.signature.outputs.iter().map(|i| &i.name).eq(version
                .signature
                .outputs
                .iter()
                .map(|i| &i.name));
    if !same_surface {
        let names = |infos: &[crate::graph::TensorInfo]| {
            infos.iter().map(|info| info.name.clone()).collect::<Vec<_>>().join(", ")
        };
        return Err(Findings::one(Finding::new(
            &version.graph_file,
            "inputs and outputs",
            format!("{}; {}", names(&version.signature.inputs), names(&version.signature.outputs)),
            format!("{}; {} by the runtime", names(&info.signature.inputs), names(&info.signature.outputs)),
        )));
    }

    let mut rehearsal = Rehearsal::new(&version, &mut surface, instances[0].as_mut());
    rehearsal.warm_up()?;
    rehearsal.pair();
    let example = rehearsal.example()?;
    let reference =
        version.reference.as_ref().map(|(file, bytes)| Reference::read(file, bytes, &surface)).transpose()?;
    let mut spec = lane_spec(&version, &surface, run_limit);
    let batch_invariant = measure(&mut surface, &mut spec, instances[0].as_mut());
    spec.deterministic = serve.batching == Batching::Deterministic && !batch_invariant.exact;
    if spec.deterministic && !batch_invariant.padded_exact {
        let note =
            "batching is deterministic, but padded batches gave a row different bits beside other neighbours";
        surface.notes.push(note.into());
    }
    let run_times = run_times(&spec, instances[0].as_mut());
    if let Vouched::Differs(difference) = &example {
        surface.notes.push(format!("its recorded example differs: {difference}"));
    }
    let facts = Facts {
        model: version.model.clone(),
        version: version.version,
        digest: version.digest,
        has_manifest: version.has_manifest,
        signature: version.signature.clone(),
        not_streamed: not_streamed(&version, &surface),
        inputs: surface.streamed,
        channels: version.channels.clone(),
        statics: surface.statics,
        states: surface.states,
        outputs: surface.results,
        device: info.device,
        providers: info.providers,
        batch_invariant,
        max_batch: spec.max_batch,
        example,
        reference,
        memory_bytes: version.weight_bytes * (1 + u64::from(serve.instances)),
        run_times,
        notes: surface.notes,
        manifest: version.manifest.clone(),
    };
    Ok(Prepared { facts, spec, instances, rebuild: Arc::new(load) })
}

fn lane_spec(version: &VersionBytes, surface: &Surface, run_limit: Duration) -> LaneSpec {
    LaneSpec {
        name: version.bytes.name.clone(),
        inputs: surface.inputs.clone(),
        outputs: surface.outputs.clone(),
        max_batch: surface.max_batch,
        deterministic: false,
        run_limit,
    }
}

/// Batch invariance. A model whose rows mix, or that fails in a batch, is served one by one, and its page says so.
fn measure(surface: &mut Surface, spec: &mut LaneSpec, instance: &mut dyn Instance) -> Invariance {
    const SEEDS: [u64; 2] = [1, 2];
    // A large model is measured on one set of rows, so that its load does not take minutes.
    const SLOW: Duration = Duration::from_millis(2);
    let is_slow = invariance::measure_run_time(instance, spec).is_ok_and(|run| run > SLOW);
    let seeds = if is_slow { &SEEDS[..1] } else { &SEEDS[..] };
    let said = match invariance::measure(instance, spec, seeds) {
        Ok(found) if found.max_error <= MIXING || spec.max_batch < 2 => return found,
        Ok(found) => format!("a row in a batch differed by {:e} from itself alone", found.max_error),
        Err(error) => clip(&error.to_string()),
    };
    if spec.max_batch < 2 {
        // It ran in the warm-up; drawn rows are not every model's food, and alone a row has no company.
        return Invariance { exact: true, padded_exact: true, max_error: 0.0 };
    }
    spec.max_batch = 1;
    surface.max_batch = 1;
    surface.notes.push(format!("max_batch is 1: {said}"));
    measure(surface, spec, instance)
}

fn run_times(spec: &LaneSpec, instance: &mut dyn Instance) -> Vec<(usize, Duration)> {
    let mut sizes = vec![1, 8.min(spec.max_batch), 64.min(spec.max_batch)];
    sizes.dedup();
    sizes
        .into_iter()
        .filter_map(|rows| Some((rows, invariance::measure_run_time_of(instance, spec, rows).ok()?)))
        .collect()
}

/// A model without manifest can be streamed if it has exactly one f32 input of one row of channels.
fn not_streamed(version: &VersionBytes, surface: &Surface) -> Option<String> {
    if version.has_manifest {
        let streams = !surface.streamed.is_empty();
        return (!streams).then(|| "its manifest declares no [[input]]".into());
    }
    let [input] = &surface.streamed[..] else {
        return Some(format!("it has no model.toml, and {} inputs instead of one", surface.streamed.len()));
    };
    let port = &surface.inputs[input.port];
    let is_row = port.row_shape.len() == 1 && port.dtype == crate::domain::tensor::Dtype::F32;
    (!is_row).then(|| {
        let info = &version.signature.inputs[input.port];
        format!(
            "it has no model.toml, and its input {} is {info} instead of f32 [batch, channels]",
            info.name
        )
    })
}
