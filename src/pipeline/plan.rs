//! A pipeline compiled against the versions pinned for it: which port is fed by what, which tensor is which output.

use std::num::NonZeroU64;
use std::sync::Arc;

use crate::batch::{Lane, Port};
use crate::domain::ids::{PipelineName, SignalName, StageName};
use crate::domain::output::{OutputSpec, find_output};
use crate::domain::signal::{Channel, ClockBy, SignalRole, SignalSpec, SignalType};
use crate::domain::tensor::{Dtype, Tensor};
use crate::domain::time::{Rate, ns_from_ms};
use crate::error::{Fault, Kind};
use crate::registry::manifest::{self, Channels, Input};
use crate::registry::pipelines::{PipelineSpec, Source as FedBy};
use crate::registry::ready::ReadyVersion;
use crate::registry::surface::{BoundInput, Initial};
use crate::signal::input::{ChannelSpec, Fill, InputChannels, InputSpec};
use crate::signal::op::{Op, channels_for};
use crate::signal::trial::ResetOn;

/// A pipeline, ready to be travelled. It keeps the versions that it was compiled against alive.
pub struct Plan {
    /// Its name.
    pub name: PipelineName,
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

/// A streamed input of a plan.
#[derive(Clone, Debug)]
pub struct PlanInput {
    /// The signal that feeds it.
    pub signal: SignalName,
    /// `input`, or `stage.input` where that is not unique.
    pub name: String,
    /// The kind of signal it takes; `None`: whatever the session's signal is.
    pub kind: Option<SignalType>,
    /// Width of a bin, if the model fixes it (ns).
    pub width_ns: Option<NonZeroU64>,
    channels: InputChannels,
    missing_ok: usize,
    fill: Fill,
    required: bool,
    wants_mask: bool,
    chain: Vec<Op>,
    rate: Option<Rate>,
}

/// A static input of a plan.
#[derive(Clone, Debug)]
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
            let lane = Arc::clone(&version.lane);
            plan.stages.push(Stage { name: stage.name.clone(), version, lane, feeds, states });
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
                same_values(gives, takes)
                    .map_err(|(expected, found)| Fault::mismatch(key(), expected, found))?;
                feeds[bound.port] = Feed::Stage { stage: earlier, port: given.port };
                Ok(())
            }
            None if input.required => Err(Fault::mismatch(key(), "a source in the pipeline", "none")),
            None => Ok(()),
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

    /// By streamed input: how many values its row has in the model.
    pub fn input_rows(&self) -> Vec<usize> {
        let mut rows = vec![0; self.inputs.len()];
        for stage in &self.stages {
            for (port, feed) in stage.lane.spec().inputs.iter().zip(&stage.feeds) {
                if let Feed::Input(number) = feed {
                    rows[*number] = port.row_shape.iter().product();
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

/// Whether an output port's values fit an input port: expected and found otherwise.
fn same_values(gives: &Port, takes: &Port) -> Result<(), (String, String)> {
    let size = |port: &Port| port.row_shape.iter().product::<usize>();
    if gives.dtype == takes.dtype && size(gives) == size(takes) {
        return Ok(());
    }
    let form = |port: &Port| format!("{} {:?}", port.dtype, port.row_shape);
    Err((form(takes), form(gives)))
}

impl PlanInput {
    fn new(
        name: String,
        signal: SignalName,
        version: &ReadyVersion,
        input: &Input,
        bound: &BoundInput,
    ) -> Result<Self, Fault> {
        let width_ns = input.bin_ms.and_then(ns_from_ms).and_then(NonZeroU64::new);
        let channels = match (&version.channels[bound.input], &input.channels) {
            (Some(rows), _) => InputChannels::Named(
                rows.iter()
                    .map(|row| ChannelSpec {
                        name: row.name.clone(),
                        unit: row.unit.clone(),
                        electrode: row.electrode.clone(),
                        source: row.source.clone(),
                        group: row.group.clone(),
                    })
                    .collect(),
            ),
            // Ports have fixed rows: a model of any montage takes as many channels as its graph has.
            // Where a chain makes other values of them, so many as make a row, or as the manifest says.
            (None, Some(Channels::Count(n))) => InputChannels::Count(*n as usize),
            (None, Some(Channels::Any) | None) => match channels_for(&input.preprocess, bound.channels) {
                Some(n) => InputChannels::Count(n),
                None => InputChannels::Any,
            },
        };
        Ok(Self {
            signal,
            name,
            kind: version.has_manifest.then(|| input.kind.signal()).flatten(),
            width_ns,
            channels,
            missing_ok: input.missing_ok as usize,
            fill: match input.fill {
                manifest::Fill::Zero => Fill::Zero,
                manifest::Fill::Mean => Fill::Mean,
                manifest::Fill::Hold => Fill::Hold,
            },
            required: input.required,
            wants_mask: bound.mask_port.is_some(),
            chain: input.preprocess.clone(),
            rate: input.rate.as_ref().and_then(|rate| Rate::new(rate.num, rate.den)),
        })
    }

    /// Whether a session must feed it.
    pub fn is_required(&self) -> bool {
        self.required
    }

    /// The input as the aligner needs it, for bins of this width and a signal of this kind.
    pub fn spec(&self, width_ns: NonZeroU64, signal_kind: SignalType) -> InputSpec {
        InputSpec {
            name: self.name.clone(),
            kind: self.kind.unwrap_or(signal_kind),
            bin_width_ns: width_ns,
            channels: self.channels.clone(),
            missing_ok: self.missing_ok,
            fill: self.fill,
            required: self.required,
            wants_mask: self.wants_mask,
            chain: self.chain.clone(),
            rate: self.rate,
        }
    }

    fn declared_signal(&self) -> SignalSpec {
        let channels = match &self.channels {
            InputChannels::Any => Vec::new(),
            InputChannels::Count(count) => vec![Channel::default(); *count],
            InputChannels::Named(rows) => rows
                .iter()
                .map(|row| Channel {
                    name: row.name.clone(),
                    unit: row.unit.clone(),
                    electrode: row.electrode.clone(),
                    group: row.group.clone(),
                    ..Default::default()
                })
                .collect(),
        };
        let kind = self.kind.unwrap_or(SignalType::Binned);
        SignalSpec {
            name: self.signal.clone(),
            kind,
            channels,
            unit: String::new(),
            rate: self.rate.filter(|_| kind == SignalType::Continuous),
            bin_ms: (kind == SignalType::Binned)
                .then(|| self.width_ns.map(|width| width.get() as f64 / 1e6))
                .flatten(),
            clock: "device".into(),
            clock_by: ClockBy::Exchange,
            clock_offset_ns: None,
            role: SignalRole::Input,
            scale: 1.0,
            offset: 0.0,
            source_delay_ms: 0.0,
            own_writer: false,
        }
    }
}
