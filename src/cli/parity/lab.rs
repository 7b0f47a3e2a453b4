//! A model's walk in this process, step by step, with one thing changed where asked: what a session would have at each step.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ndarray::{Array2, s};
use parking_lot::Mutex;

use crate::app::way_in::{aligner, way_in};
use crate::batch::{Pool, PoolConfig, Ran, Silent, repeated, rows_of};
use crate::cli::replay::cut::Cut;
use crate::domain::settings::ChannelsBy;
use crate::domain::signal::SignalType;
use crate::domain::tensor::Tensor;
use crate::engine::{Batch, Engine, EngineError, Instance, LoadOptions, ModelBytes};
use crate::error::{Fault, Kind};
use crate::pipeline::journey::{Journey, Next};
use crate::pipeline::plan::Plan;
use crate::registry::finding::{Finding, Findings};
use crate::registry::pipelines::PipelineSpec;
use crate::registry::ready::{self, ReadyVersion};
use crate::registry::version::{self, VersionDir};
use crate::signal::chain::until_bin;
use crate::signal::op::Op;
use crate::signal::step::{Bin, Step};
use crate::wire::recording::{Data, Recording};
use crate::wire::{self, v1};

/// A run may take so long.
const RUN_LIMIT: Duration = Duration::from_secs(30);

/// What is done otherwise than the manifest says, to see whether that is what was expected.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Nothing.
    None,
    /// Channels are taken in their order, whatever their names.
    ByOrder,
    /// A signal's values are so many times as large.
    Times {
        /// By its place in the recording.
        signal: usize,
        /// The factor.
        factor: f64,
    },
    /// Events are earlier by so much (ns), samples by one sample for each unit of `samples`.
    Earlier {
        /// For events.
        ns: i64,
        /// For samples.
        samples: i64,
    },
    /// Another chain of one input, by its place in the plan.
    Chain {
        /// The input.
        input: usize,
        /// Its ops.
        ops: Vec<Op>,
    },
}

/// A version and all that its walk is made of.
pub struct Lab {
    /// The version.
    pub version: Arc<ReadyVersion>,
    /// The pipeline of the model alone.
    pub plan: Arc<Plan>,
    /// Its graph.
    pub bytes: ModelBytes,
    engine: Arc<dyn Engine>,
    instance: Mutex<Box<dyn Instance>>,
    // Why kept: a version lies on a lane of a pool.
    _pool: Arc<Pool>,
}

/// What one step of the walk gives, `[n, values]`: by output, or of the only array.
pub type Arrays = BTreeMap<String, Array2<f64>>;

impl Lab {
    /// Reads and checks a version as the server does. Errors: what is wrong with it.
    pub fn open(dir: &VersionDir, engine: Arc<dyn Engine>) -> Result<Self, Findings> {
        let wrong = |expected: &str, found: String| {
            let file = format!("{}/{}", dir.model, dir.version);
            Findings::one(Finding::new(file, "", expected, found))
        };
        let pool = Pool::start(1, PoolConfig::default(), Arc::new(Silent));
        let pool = Arc::new(pool.map_err(|error| wrong("threads", error.to_string()))?);
        let read = version::read(dir)?;
        let bytes = read.bytes.clone();
        let version = ready::prepare(read, &engine, RUN_LIMIT)?.open(&pool);
        let names = version.manifest.inputs.iter().map(|input| input.name.as_str());
        let spec = PipelineSpec::of_model(&dir.model, names);
        let plan = Plan::compile(&spec, vec![Arc::clone(&version)])
            .map_err(|fault| wrong("a model that a session can be opened on", fault.detail))?;
        if let Some(needed) = plan.statics.iter().find(|known| known.required) {
            let found = format!("one that needs the static `{}`", needed.name);
            return Err(wrong("a model that needs no static, since a raw trial holds none", found));
        }
        let serve = &version.manifest.serve;
        let options = LoadOptions { device: serve.device.0, intra_threads: serve.intra_threads };
        let instance = engine
            .load(&bytes, &options)
            .map_err(|error| wrong("a graph that the runtime takes", error.to_string()))?;
        let instance = Mutex::new(instance);
        Ok(Self { version, plan: Arc::new(plan), bytes, engine, instance, _pool: pool })
    }

    /// What a rig asks for to play a trial's recording.
    pub fn ask(&self, recording: &Recording) -> v1::OpenRequest {
        let model = self.version.model.to_string();
        v1::OpenRequest {
            pipeline: model.clone(),
            rig: "parity".into(),
            signals: recording.signals.iter().map(|signal| signal.spec.clone()).collect(),
            t0_ns: Some(recording.t0_ns),
            versions: [(model, self.version.version.0)].into(),
            // No bin may close without a signal because this machine is busy.
            wait_ms: Some(3_600_000.0),
            ..Default::default()
        }
    }

    /// Width of its bins for the signals of a recording.
    pub fn width_ns(&self, recording: &Recording) -> Result<NonZeroU64, Fault> {
        Ok(way_in(&self.plan, &self.ask(recording))?.1.width_ns)
    }

    /// The bins of a recording; of the input `counted`, by its place in the plan, only as far as `bin`.
    pub fn bins(
        &self,
        recording: &Recording,
        change: &Change,
        counted: Option<usize>,
    ) -> Result<Vec<Bin>, Fault> {
        let mut ask = self.ask(recording);
        let moved = match change {
            Change::Earlier { ns, samples } => Some(earlier(recording, *ns, *samples)),
            Change::Times { signal, factor } => {
                let spec = &mut ask.signals[*signal];
                let times = |scale: &mut Option<f64>| *scale = Some(scale.unwrap_or(1.0) * factor);
                times(&mut spec.scale);
                spec.channels.iter_mut().filter(|c| c.scale.is_some()).for_each(|c| times(&mut c.scale));
                None
            }
            Change::None | Change::ByOrder | Change::Chain { .. } => None,
        };
        let (open, mut way) = way_in(&self.plan, &ask)?;
        match change {
            Change::ByOrder => way.channels_by = ChannelsBy::Order,
            Change::Chain { input, ops } => way.inputs[*input].0.chain.clone_from(ops),
            Change::None | Change::Times { .. } | Change::Earlier { .. } => {}
        }
        if let Some(spec) = counted.map(|input| &mut way.inputs[input].0) {
            spec.chain.truncate(until_bin(&spec.chain, spec.kind).map_or(0, <[Op]>::len));
        }
        let width_ns = way.width_ns;
        let (mut aligner, _) = aligner(&self.plan, &open, way)?;
        let mut steps = Vec::new();
        let width_ns = i64::try_from(width_ns.get()).unwrap_or(i64::MAX);
        for due in Cut::new(moved.as_ref().unwrap_or(recording), width_ns) {
            let named = open.signals.iter().position(|spec| spec.name.as_str() == due.frame.signal);
            let signal = named.expect("a frame of a signal of the recording");
            let frame = wire::frame::domain(due.frame, &open.signals[signal])?;
            aligner.push(signal, &frame, recording.t0_ns.saturating_add(due.at_ns), &mut steps)?;
        }
        let bin = |step| if let Step::Bin(bin) = step { Some(bin) } else { None };
        Ok(steps.into_iter().filter_map(bin).collect())
    }

    /// What stands at an input after its preprocessing in bins `first` to `first + n`; NaN where no bin closed.
    pub fn preprocessed(&self, bins: &[Bin], input: usize, first: u64, n: usize) -> Array2<f64> {
        let width = bins.first().map_or(0, |bin| bin.inputs[input].values.len());
        let mut rows = Array2::from_elem((n, width), f64::NAN);
        for bin in bins {
            let at = bin.k.checked_sub(first).and_then(|at| usize::try_from(at).ok());
            if let Some(at) = at.filter(|at| *at < n) {
                let values = bin.inputs[input].values.iter();
                rows.slice_mut(s![at, ..]).iter_mut().zip(values).for_each(|(to, from)| *to = (*from).into());
            }
        }
        rows
    }

    /// The first input that takes counts, by its place in the plan.
    pub fn counting(&self) -> Option<usize> {
        (0..self.plan.inputs.len()).find(|&place| {
            let kind = self.plan.inputs[place].kind.unwrap_or(SignalType::Binned);
            let sampled = matches!(kind, SignalType::Continuous | SignalType::Frames);
            !sampled || self.chain(place).iter().any(|op| matches!(op, Op::ThresholdCrossings { .. }))
        })
    }

    /// The chain of an input, by its place in the plan.
    pub fn chain(&self, input: usize) -> &[Op] {
        let name = &self.plan.inputs[input].name;
        self.version.input(name).map_or(&[], |(input, _)| &input.preprocess)
    }

    /// The outputs in bins `first` to `first + n`; NaN where nothing was answered. `anew`: its state begins anew before each
    /// bin.
    pub fn outputs(&self, bins: &[Bin], anew: bool, first: u64, n: usize) -> Result<Arrays, Fault> {
        let mut instance = self.instance.lock();
        let mut arrays = Arrays::new();
        for output in &self.plan.outputs {
            let width = output.dims.iter().map(|&axis| axis as usize).product();
            arrays.insert(output.name.clone(), Array2::from_elem((n, width), f64::NAN));
        }
        self.travel(bins, anew, |k, inputs| {
            let outputs = self.run(&mut **instance, inputs)?;
            // A bin in which anything is not finite is answered with NaN alone.
            if outputs.iter().any(|tensor| !tensor.is_finite()) {
                return Ok(outputs);
            }
            let at = k.checked_sub(first).and_then(|at| usize::try_from(at).ok()).filter(|at| *at < n);
            for (spec, source) in self.plan.outputs.iter().zip(&self.plan.sources) {
                let (Some(at), Some(array)) = (at, arrays.get_mut(&spec.name)) else { continue };
                let values = outputs[source.port].to_f64();
                array.slice_mut(s![at, ..]).iter_mut().zip(values).for_each(|(to, from)| *to = from);
            }
            Ok(outputs)
        })?;
        Ok(arrays)
    }

    /// What goes into the model in a bin, by its ports: state and window are as they are then. `None`: it is not run there.
    pub fn fed(&self, bins: &[Bin], at: u64) -> Result<Option<Vec<Tensor>>, Fault> {
        let mut instance = self.instance.lock();
        let mut fed = None;
        self.travel(bins, false, |k, inputs| {
            if k == at {
                fed = Some(inputs.to_vec());
            }
            self.run(&mut **instance, inputs)
        })?;
        Ok(fed)
    }

    /// Runs another graph that takes what this model's takes, on one row. Answers its last output.
    pub fn run_probed(&self, onnx: Vec<u8>, inputs: &[Tensor]) -> Result<Tensor, EngineError> {
        let bytes = ModelBytes { onnx: onnx.into(), ..self.bytes.clone() };
        let serve = &self.version.manifest.serve;
        let options = LoadOptions { device: serve.device.0, intra_threads: serve.intra_threads };
        let mut instance = self.engine.load(&bytes, &options)?;
        let mut batch = Batch { inputs: self.batched(inputs), outputs: Vec::new() };
        instance.run(&mut batch)?;
        batch.outputs.pop().ok_or_else(|| EngineError::Run("the graph has no output".into()))
    }

    /// Carries the bins through the model; `run` runs one row.
    fn travel(
        &self,
        bins: &[Bin],
        anew: bool,
        mut run: impl FnMut(u64, &[Tensor]) -> Result<Vec<Tensor>, Fault>,
    ) -> Result<(), Fault> {
        let statics = self.plan.statics.iter().map(|known| Tensor::zeros(known.dtype, &known.shape));
        let mut journey = Journey::new(Arc::clone(&self.plan), statics.collect(), Instant::now());
        let mut next_bin = bins.first().map(|bin| bin.k);
        for bin in bins {
            if anew || bin.reset.is_some() {
                journey.reset();
            }
            let follows = next_bin.replace(bin.k + 1) == Some(bin.k);
            if bin.epoch || !follows {
                journey.break_windows();
            }
            let started = Instant::now();
            let mut next = journey.begin(&bin.inputs, started);
            while let Next::Stage(mut onward) = next {
                onward.row.outputs = run(bin.k, &onward.row.inputs)?;
                let ran = Ran { queued: Duration::ZERO, started, compute: Duration::ZERO, rows: 1 };
                next = journey.arrived(onward.row, Ok(ran));
            }
            if journey.fault().is_none() {
                journey.commit();
            }
        }
        Ok(())
    }

    /// One row through an instance; its outputs without the batch's axis.
    fn run(&self, instance: &mut dyn Instance, inputs: &[Tensor]) -> Result<Vec<Tensor>, Fault> {
        let failed = |said: String| Fault::new(Kind::Internal, said);
        let mut batch = Batch { inputs: self.batched(inputs), outputs: Vec::new() };
        instance.run(&mut batch).map_err(|error| failed(error.to_string()))?;
        let row = rows_of(self.version.output_ports(), &batch.outputs, 1, Instant::now()).map_err(failed)?;
        Ok(row.into_iter().flat_map(|row| row.inputs).collect())
    }

    fn batched(&self, inputs: &[Tensor]) -> Vec<Tensor> {
        let ports = self.version.input_ports().iter();
        ports.zip(inputs).map(|(port, tensor)| repeated(port, tensor.clone(), 1)).collect()
    }
}

/// The recording, its events earlier by so much and its samples by so many, the first or last repeated.
fn earlier(recording: &Recording, ns: i64, samples: i64) -> Recording {
    let mut recording = recording.clone();
    for signal in &mut recording.signals {
        match &mut signal.data {
            Data::Spikes { t_ns, .. } => t_ns.iter_mut().for_each(|t| *t = t.saturating_sub(ns)),
            Data::Samples { tensor, .. } => {
                let rows = tensor.shape[0] as i64;
                let row_bytes = tensor.data.bytes().len() / tensor.shape[0].max(1);
                let place = |row: i64| (row + samples).clamp(0, rows - 1) as usize * row_bytes;
                let old = tensor.data.bytes();
                let new: Vec<u8> = (0..rows).flat_map(|r| &old[place(r)..][..row_bytes]).copied().collect();
                *tensor = Tensor::from_bytes(tensor.dtype, &tensor.shape, &new).expect("as many bytes");
            }
            Data::Markers { .. } => {}
        }
    }
    recording
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::Version;
    use crate::domain::output::Flags;
    use crate::domain::tensor::Dtype;
    use crate::engine::{OrtEngine, library};
    use crate::graph::build::{Attribute, GraphBuilder};
    use crate::signal::step::InputRow;

    /// y: the sum of the last two bins of x.
    fn sums_of_two() -> (tempfile::TempDir, Lab) {
        let graph = GraphBuilder::new("sums")
            .input("x", Dtype::F32, &["batch".into(), 2.into(), 1.into()])
            .i64("axis", &[1], &[1])
            .node_with("ReduceSum", &["x", "axis"], &["y"], [Attribute::int("keepdims", 0)])
            .output("y", Dtype::F32, &["batch".into(), 1.into()])
            .bytes();
        let manifest = "mode = \"window\"\n[window]\nsize_bins = 2\nhop_bins = 1\n\
             [[input]]\nname = \"x\"\ntensor = \"x\"\nbin_ms = 10\nchannels = 1\n\
             [[output]]\ntensor = \"y\"\nrole = \"latent\"\n";
        let folder = tempfile::tempdir().unwrap();
        let model_dir = folder.path().canonicalize().unwrap();
        std::fs::create_dir(model_dir.join("1")).unwrap();
        std::fs::write(model_dir.join("model.toml"), manifest).unwrap();
        std::fs::write(model_dir.join("1/model.onnx"), graph).unwrap();
        let engine = library::find(None).and_then(|path| OrtEngine::open(&path));
        let engine = Arc::new(engine.unwrap_or_else(|error| panic!("{error}")));
        let dir = VersionDir { model: "sums".into(), version: Version(1), model_dir };
        let lab = Lab::open(&dir, engine).unwrap_or_else(|findings| panic!("{findings}"));
        (folder, lab)
    }

    #[test]
    fn no_window_reaches_over_skipped_bins_or_back_over_an_epoch_as_in_a_session() {
        let (_folder, lab) = sums_of_two();
        let bin = |k: u64| Bin {
            k,
            flags: Flags::default(),
            reset: None,
            epoch: k == 7,
            inputs: vec![InputRow {
                values: vec![k as f32],
                mask: vec![true],
                present: true,
                cofiring: None,
            }],
            early: false,
        };
        // Bins 3 and 4 are skipped, and with bin 7 a new epoch begins.
        let bins: Vec<Bin> = [1, 2, 5, 6, 7, 8].into_iter().map(bin).collect();
        let outputs = lab.outputs(&bins, false, 1, 8).unwrap();
        let y: Vec<Option<f64>> = outputs["y"].iter().map(|y| y.is_finite().then_some(*y)).collect();
        assert_eq!(y, [None, Some(3.0), None, None, None, Some(11.0), None, Some(15.0)]);
        assert!(lab.fed(&bins, 5).unwrap().is_none(), "no window ends there");
        assert_eq!(lab.fed(&bins, 6).unwrap().unwrap()[0].to_f64(), [5.0, 6.0]);
    }
}
