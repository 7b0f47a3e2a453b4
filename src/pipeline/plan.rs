//! A pipeline compiled against the versions pinned for it: which port is fed by what, which tensor is which output.

use std::num::NonZeroU64;
use std::sync::Arc;

use super::input::PlanInput;
use crate::batch::{Lane, Port};
use crate::domain::ids::{PipelineName, StageName};
use crate::domain::output::{OutputSpec, find_output};
use crate::domain::signal::SignalSpec;
use crate::domain::tensor::{Dtype, Tensor};
use crate::error::{Fault, Kind};
use crate::registry::manifest::{self, Input};
use crate::registry::pipelines::{PipelineSpec, Source as FedBy};
use crate::registry::ready::ReadyVersion;
use crate::registry::surface::{BoundInput, Initial};
use crate::signal::trial::ResetOn;

/// A pipeline, ready to be travelled. It keeps the versions that it was compiled against alive.
pub struct Plan {
    /// Its name.
    pub name: PipelineName,
    /// What it was compiled from.
    pub spec: PipelineSpec,
    /// Its stages, each after those that feed it.
    pub stages: Vec<Stage>,
    /// Its streamed inputs.
    pub inputs: Vec<PlanInput>,
    /// Its static inputs.
    pub statics: Vec<PlanStatic>,
    /// What it gives.
    pub outputs: Vec<OutputSpec>,
    /// Where each of `outputs` comes from.
    pub sources: Vec<Source>,
    /// The smallest deadline of its models (ms).
    pub deadline_ms: Option<f64>,
}

/// A stage's port that gives an output.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    /// Index into `stages`.
    pub stage: usize,
    /// Output port of its lane.
    pub port: usize,
}

/// One stage.
pub struct Stage {
    /// Its name.
    pub name: StageName,
    /// The version pinned for it.
    pub version: Arc<ReadyVersion>,
    /// Where its rows are run.
    pub lane: Arc<Lane>,
    /// By input port: what fills it.
    pub feeds: Vec<Feed>,
    /// What it carries from bin to bin.
    pub states: Vec<Carried>,
    /// The window that it is run on, if it takes several bins at once.
    pub window: Option<manifest::Window>,
    /// It gives something every so many bins, at the most often.
    pub every_bins: u32,
}

/// What fills an input port.
#[derive(Clone, Debug)]
pub enum Feed {
    /// A streamed input, by its number.
    Input(usize),
    /// That input's mask.
    Mask(usize),
    /// An earlier stage's output port.
    Stage {
        /// Index into `stages`.
        stage: usize,
        /// Output port of its lane.
        port: usize,
    },
    /// Carried state.
    State,
    /// A static input, by its number.
    Static(usize),
    /// An input that is not required and that nothing feeds: 0.
    Nothing,
}

impl Feed {
    /// Whether it brings something of its own in every bin, which a window keeps.
    pub fn slides(&self) -> bool {
        matches!(self, Feed::Input(_) | Feed::Mask(_) | Feed::Stage { .. })
    }
}

/// A state tensor of a stage.
#[derive(Clone, Debug)]
pub struct Carried {
    /// Where it goes in.
    pub input_port: usize,
    /// Where it comes out.
    pub output_port: usize,
    /// What it is before the first bin.
    pub init: Init,
}

/// What a state is before the first bin.
#[derive(Clone, Debug)]
pub enum Init {
    /// That tensor.
    Tensor(Tensor),
    /// A static input, by its number.
    Static(usize),
}

/// A static input of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanStatic {
    /// Its name.
    pub name: String,
    /// Element type that it must have.
    pub dtype: Dtype,
    /// Shape that it must have.
    pub shape: Vec<usize>,
    /// Whether a session must give it.
    pub required: bool,
}

impl Plan {
    /// Compiles a pipeline; `versions` in the order of its stages.
    /// Errors: `invalid`, naming stage, input or output, what was expected and what was found.
    pub fn compile(spec: &PipelineSpec, versions: Vec<Arc<ReadyVersion>>) -> Result<Self, Fault> {
        let mut plan = Plan {
            name: spec.name.clone(),
            spec: spec.clone(),
            stages: Vec::with_capacity(versions.len()),
            inputs: Vec::new(),
            statics: Vec::new(),
            outputs: Vec::new(),
            sources: Vec::new(),
            deadline_ms: None,
        };
        for (stage, version) in spec.stages.iter().zip(versions) {
            if let Some(reason) = &version.not_streamed {
                let detail = format!("model {}/{}: {reason}", version.model, version.version);
                return Err(Fault::new(Kind::Invalid, detail));
            }
            let mut feeds = vec![Feed::Nothing; version.input_ports().len()];
            for bound in &version.inputs {
                let input = &version.manifest.inputs[bound.input];
                plan.feed(&mut feeds, stage, &version, input, bound)?;
            }
            if let Some(name) = stage.inputs.keys().find(|name| version.input(name).is_none()) {
                let there_are = version.manifest.inputs.iter().map(|input| input.name.as_str());
                let found = crate::error::there_is(name, there_are);
                let key = format!("stage `{}`: inputs.{name}", stage.name);
                return Err(Fault::mismatch(key, format!("an input of model {}", version.model), found));
            }
            for bound in &version.statics {
                let number =
                    plan.static_number(bound.name.as_str(), bound.dtype, &bound.shape, bound.required)?;
                if let Some(port) = bound.port {
                    feeds[port] = Feed::Static(number);
                }
            }
            let mut states = Vec::with_capacity(version.states.len());
            for state in &version.states {
                feeds[state.input_port] = Feed::State;
                let init = match &state.init {
                    Initial::Tensor(tensor) => Init::Tensor(tensor.clone()),
                    Initial::Static(name) => {
                        let port = &version.input_ports()[state.input_port];
                        Init::Static(plan.static_number(name, port.dtype, &port.row_shape, true)?)
                    }
                };
                states.push(Carried { input_port: state.input_port, output_port: state.output_port, init });
            }
            let deadline = version.manifest.serve.deadline_ms;
            plan.deadline_ms = match (plan.deadline_ms, deadline) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
            let window = version.manifest.window;
            let every_bins = plan.every_bins(&stage.name, &version, &feeds)?;
            let lane = Arc::clone(&version.lane);
            let name = stage.name.clone();
            plan.stages.push(Stage { name, version, lane, feeds, states, window, every_bins });
        }
        plan.name_outputs();
        plan.one_width()?;
        Ok(plan)
    }

    fn feed(
        &mut self,
        feeds: &mut [Feed],
        stage: &crate::registry::pipelines::StageSpec,
        version: &Arc<ReadyVersion>,
        input: &Input,
        bound: &BoundInput,
    ) -> Result<(), Fault> {
        let key = || format!("stage `{}`: input `{}`", stage.name, input.name);
        match stage.inputs.get(&input.name) {
            Some(FedBy::Signal(signal)) => {
                let taken = self.inputs.iter().any(|other| other.name == input.name);
                let name = if taken { format!("{}.{}", stage.name, input.name) } else { input.name.clone() };
                let number = self.inputs.len();
                self.inputs.push(PlanInput::new(name, signal.clone(), version, input, bound)?);
                feeds[bound.port] = Feed::Input(number);
                if let Some(port) = bound.mask_port {
                    feeds[port] = Feed::Mask(number);
                }
                Ok(())
            }
            Some(FedBy::Stage { stage: from, output }) => {
                let earlier = self
                    .stages
                    .iter()
                    .position(|earlier| earlier.name == *from)
                    .ok_or_else(|| Fault::mismatch(key(), "an earlier stage", format!("`{from}`")))?;
                let source = &self.stages[earlier].version;
                let given = source.output(output).ok_or_else(|| {
                    let there_are = source.outputs.iter().map(|output| output.name.as_str());
                    let found = crate::error::there_is(output, there_are);
                    Fault::mismatch(key(), format!("output `{output}` of model {}", source.model), found)
                })?;
                let (gives, takes) = (&source.output_ports()[given.port], &version.input_ports()[bound.port]);
                // A window takes one value per bin, along its first axis.
                let one = &takes.row_shape[usize::from(version.manifest.window.is_some())..];
                same_values(gives, takes.dtype, one)
                    .map_err(|(expected, found)| Fault::mismatch(key(), expected, found))?;
                feeds[bound.port] = Feed::Stage { stage: earlier, port: given.port };
                Ok(())
            }
            None if input.required => Err(Fault::mismatch(key(), "a source in the pipeline", "none")),
            None => Ok(()),
        }
    }

    /// How often a stage gives something. Errors: a window fed by a stage that has no value in every bin; values that
    /// cannot say that they are none.
    fn every_bins(&self, stage: &StageName, version: &ReadyVersion, feeds: &[Feed]) -> Result<u32, Fault> {
        let before = feeds.iter().filter_map(|feed| match feed {
            Feed::Stage { stage, .. } => Some(&self.stages[*stage]),
            _ => None,
        });
        let rarest = before.max_by_key(|before| before.every_bins).filter(|before| before.every_bins > 1);
        let every = match (version.manifest.window, rarest) {
            (Some(_), Some(before)) => {
                let expected = "a value in every bin, since its model keeps a window of them";
                let found = format!("one every {} bins from stage `{}`", before.every_bins, before.name);
                return Err(Fault::mismatch(format!("stage `{stage}`"), expected, found));
            }
            (Some(window), None) => window.hop_bins,
            (None, rarest) => rarest.map_or(1, |before| before.every_bins),
        };
        let ports = version.output_ports();
        let whole = version.outputs.iter().find(|output| every > 1 && !ports[output.port].dtype.has_nan());
        match whole {
            None => Ok(every),
            Some(output) => Err(Fault::mismatch(
                format!("stage `{stage}`: output `{}`", output.name),
                format!("a float, since it has no value but every {every} bins and is NaN between"),
                ports[output.port].dtype.word(),
            )),
        }
    }

    fn static_number(
        &mut self,
        name: &str,
        dtype: Dtype,
        shape: &[usize],
        required: bool,
    ) -> Result<usize, Fault> {
        if let Some(number) = self.statics.iter().position(|known| known.name == name) {
            let known = &mut self.statics[number];
            known.required |= required;
            if known.dtype != dtype || known.shape != shape {
                let expected = format!("one form in all stages: {} {:?}", known.dtype, known.shape);
                return Err(Fault::mismatch(
                    format!("static `{name}`"),
                    expected,
                    format!("{dtype} {shape:?}"),
                ));
            }
            return Ok(number);
        }
        self.statics.push(PlanStatic { name: name.into(), dtype, shape: shape.to_vec(), required });
        Ok(self.statics.len() - 1)
    }

    /// Numbers the outputs of all stages; a name that two stages give is `stage.output`.
    fn name_outputs(&mut self) {
        for (at, stage) in self.stages.iter().enumerate() {
            for output in &stage.version.outputs {
                let port = &stage.version.output_ports()[output.port];
                self.outputs.push(OutputSpec {
                    number: self.outputs.len() as u32,
                    name: output.name.clone(),
                    stage: stage.name.clone(),
                    output: output.name.clone(),
                    role: output.role,
                    dims: port.row_shape.iter().map(|&dim| dim as u32).collect(),
                    labels: output.labels.clone(),
                    unit: output.unit.clone(),
                    dtype: port.dtype,
                    sparse: output.sparse,
                    delay_ms: 0.0,
                });
                self.sources.push(Source { stage: at, port: output.port });
            }
        }
        let names: Vec<String> = self.outputs.iter().map(|output| output.output.clone()).collect();
        for output in &mut self.outputs {
            if names.iter().filter(|name| **name == output.output).count() > 1 {
                output.name = format!("{}.{}", output.stage, output.output);
            }
        }
    }

    /// Its outputs with their delays: of the slowest chain of preprocessing that leads to each (ms), by input.
    pub fn outputs_after(&self, input_delay_ms: impl Fn(usize) -> f64) -> Vec<OutputSpec> {
        let mut delays: Vec<f64> = Vec::with_capacity(self.stages.len());
        for stage in &self.stages {
            let before = stage.feeds.iter().map(|feed| match feed {
                Feed::Input(number) | Feed::Mask(number) => input_delay_ms(*number),
                Feed::Stage { stage, .. } => delays[*stage],
                Feed::State | Feed::Static(_) | Feed::Nothing => 0.0,
            });
            delays.push(before.fold(0.0, f64::max));
        }
        let delayed = self.outputs.iter().zip(&self.sources);
        delayed.map(|(spec, source)| OutputSpec { delay_ms: delays[source.stage], ..spec.clone() }).collect()
    }

    fn one_width(&self) -> Result<(), Fault> {
        let mut widths = self.inputs.iter().filter_map(|input| Some((input, input.width_ns?)));
        let Some((first, width)) = widths.next() else { return Ok(()) };
        match widths.find(|(_, other)| *other != width) {
            None => Ok(()),
            Some((input, other)) => Err(Fault::mismatch(
                format!("pipeline `{}`: bin_ms of input `{}`", self.name, input.name),
                format!("{} ms, as input `{}`", width.get() as f64 / 1e6, first.name),
                format!("{} ms", other.get() as f64 / 1e6),
            )),
        }
    }

    /// When the state goes back to its beginning by itself: if any of its models says so.
    pub fn reset_on(&self) -> ResetOn {
        let any = |word| self.stages.iter().any(|stage| stage.version.manifest.reset_on.contains(&word));
        ResetOn {
            trial_start: any(manifest::ResetOn::TrialStart),
            trial_end: any(manifest::ResetOn::TrialEnd),
        }
    }

    /// Width of a bin, if its models fix one (ns).
    pub fn width_ns(&self) -> Option<NonZeroU64> {
        self.inputs.iter().find_map(|input| input.width_ns)
    }

    /// Its declared inputs as signals, channels in the manifest's order: one per signal's name.
    pub fn declared_signals(&self) -> Vec<SignalSpec> {
        let mut signals: Vec<SignalSpec> = Vec::new();
        for input in &self.inputs {
            if signals.iter().all(|signal| signal.name != input.signal) {
                signals.push(input.declared_signal());
            }
        }
        signals
    }

    /// By streamed input: how many values the model takes of it in a bin.
    pub fn input_rows(&self) -> Vec<usize> {
        let mut rows = vec![0; self.inputs.len()];
        for stage in &self.stages {
            for (port, feed) in stage.lane.spec().inputs.iter().zip(&stage.feeds) {
                if let Feed::Input(number) = feed {
                    let bins = stage.window.map_or(1, |window| window.size_bins as usize);
                    rows[*number] = port.row_shape.iter().product::<usize>() / bins;
                }
            }
        }
        rows
    }

    /// The numbers of outputs by name; both `output` (where unique) and `stage.output` are taken. Empty: all.
    /// Errors: `not_found`, naming those there are.
    pub fn outputs_named(&self, names: &[String]) -> Result<Vec<bool>, Fault> {
        if names.is_empty() {
            return Ok(vec![true; self.outputs.len()]);
        }
        let mut wanted = vec![false; self.outputs.len()];
        for name in names {
            let at = find_output(&self.outputs, name).ok_or_else(|| {
                Fault::not_found("output", name, self.outputs.iter().map(|output| output.name.as_str()))
            })?;
            wanted[at] = true;
        }
        Ok(wanted)
    }
}

/// Whether an output port's values fit an input of that dtype and shape: expected and found otherwise.
fn same_values(gives: &Port, dtype: Dtype, takes: &[usize]) -> Result<(), (String, String)> {
    if gives.dtype == dtype && gives.row_shape.iter().product::<usize>() == takes.iter().product::<usize>() {
        return Ok(());
    }
    Err((format!("{dtype} {takes:?}"), format!("{} {:?}", gives.dtype, gives.row_shape)))
}
