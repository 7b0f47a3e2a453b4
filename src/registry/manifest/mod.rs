//! The manifest, `model.toml`: what a model takes, keeps and gives. Every key of it, as a type.

mod check; // what must hold of a manifest without its graph, and what this version does not serve yet
mod parse; // TOML to these types, all faults at once
mod words; // the closed words of it

use serde::Deserialize;

use crate::domain::output::OutputRole;
use crate::domain::signal::SignalType;
use crate::signal::op::Op;

pub use check::unserved;
pub use parse::{MANIFEST_LIMIT_BYTES, parse};
pub(in crate::registry) use parse::{from_table, table};
pub use words::{
    Batching, ExampleCheck, Fill, InputAs, InputType, Mode, ModelKind, NoiseDist, ResetOn, StateKind,
    UnknownUnit,
};

impl InputType {
    /// The type of signal that feeds it; `None` where a stage does.
    pub fn signal(self) -> Option<SignalType> {
        SignalType::parse(self.word())
    }

    /// Whether each of its channels is an image in every bin.
    pub fn is_image(self) -> bool {
        matches!(self, InputType::Frames | InputType::AddressEvents)
    }
}

/// What a model takes, keeps and gives.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// For people.
    #[serde(default)]
    pub description: String,
    /// What it is for.
    #[serde(default = "plain")]
    pub kind: ModelKind,
    /// How it is run.
    #[serde(default = "step")]
    pub mode: Mode,
    /// When the state goes back to initial by itself.
    #[serde(default)]
    pub reset_on: Vec<ResetOn>,
    /// For finding it.
    #[serde(default)]
    pub tags: Vec<String>,
    /// What it learnt from.
    pub provenance: Option<Provenance>,
    /// Streamed inputs.
    #[serde(default, rename = "input")]
    pub inputs: Vec<Input>,
    /// Inputs given at open.
    #[serde(default, rename = "static")]
    pub statics: Vec<Static>,
    /// Tensors carried between bins.
    #[serde(default, rename = "state")]
    pub states: Vec<State>,
    /// Inputs drawn by the server.
    #[serde(default)]
    pub noise: Vec<Noise>,
    /// Inner tensors to read or change.
    #[serde(default, rename = "tap")]
    pub taps: Vec<Tap>,
    /// What it gives.
    #[serde(default, rename = "output")]
    pub outputs: Vec<Output>,
    /// For mode `window`.
    pub window: Option<Window>,
    /// For mode `trial`.
    pub trial: Option<Trial>,
    /// For mode `iterate`.
    pub iterate: Option<Iterate>,
    /// Outputs fed back when a session runs without its rig.
    pub free_run: Option<FreeRun>,
    /// How it is served.
    #[serde(default)]
    pub serve: Serve,
    /// The recorded example that vouches for its numbers.
    #[serde(default)]
    pub example: Example,
}

/// What a model learnt from and how. Free text; only `trained_on` has a form.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "fields are the manifest's own keys")]
pub struct Provenance {
    #[serde(default)]
    pub script: String,
    #[serde(default)]
    pub licence: String,
    #[serde(default)]
    pub paper: String,
    #[serde(default)]
    pub source: String,
    pub seed: Option<u64>,
    /// Recordings by digest, with the ranges that were used.
    #[serde(default)]
    pub trained_on: Vec<TrainedOn>,
    /// Held-out scores by name.
    #[serde(default)]
    pub scores: toml::Table,
}

/// A recording that a model learnt from.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainedOn {
    /// Its digest.
    pub recording: String,
    /// Which trials: `1-180`.
    #[serde(default)]
    pub trials: String,
    /// Which bins, where there are no trials: `0-45000`.
    #[serde(default)]
    pub bins: String,
}

/// A streamed input.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// Its name, by which a signal or a stage's output is bound to it.
    pub name: String,
    /// The graph's tensor; left out only with `as = "tokens"`.
    #[serde(default)]
    pub tensor: String,
    /// What feeds it.
    #[serde(default = "binned", rename = "type")]
    pub kind: InputType,
    /// Width of a bin (ms); `None`: as the session's.
    pub bin_ms: Option<f64>,
    /// Number of channels; `None`: as the graph says.
    pub channels: Option<Channels>,
    /// File with the channels' names.
    pub channels_file: Option<String>,
    /// So many named channels may be absent.
    #[serde(default)]
    pub missing_ok: u32,
    /// Tensor through which the model sees the mask.
    pub mask_tensor: Option<String>,
    /// What stands for what is not there.
    #[serde(default = "zero")]
    pub fill: Fill,
    /// Whether a session must bring it.
    #[serde(default = "yes")]
    pub required: bool,
    /// The chain from signal to input.
    #[serde(default)]
    pub preprocess: Vec<Op>,
    /// Sampling rate that a `continuous` input was trained on (Hz).
    pub rate: Option<InputRate>,
    /// The tensor's batch axis.
    pub batch_axis: Option<BatchAxis>,
    /// Spike events as they are instead of counts.
    #[serde(rename = "as")]
    pub form: Option<InputAs>,
    /// The tensors of `as = "tokens"`.
    pub tensors: Option<TokenTensors>,
    /// The vocabulary of `as = "tokens"`.
    pub units_file: Option<String>,
    /// Token counts are padded to a multiple of this.
    #[serde(default = "eight")]
    pub pad_to: u32,
    /// Most tokens of a bin.
    pub max_tokens: Option<u32>,
    /// What becomes of units outside the vocabulary.
    #[serde(default = "drop_unknown")]
    pub unknown: UnknownUnit,
}

/// How many channels an input has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channels {
    /// So many.
    Count(u32),
    /// Any number: a montage-free model.
    Any,
}

/// Where a tensor's rows lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchAxis {
    /// Along this axis.
    Axis(u32),
    /// One value for the whole batch.
    None,
}

/// A sampling rate as the manifest writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "fields are the manifest's own keys")]
pub struct InputRate {
    pub num: u32,
    #[serde(default = "one_u32")]
    pub den: u32,
}

/// The tensors of an input `as = "tokens"`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "fields are the manifest's own keys")]
pub struct TokenTensors {
    pub unit: String,
    pub time: String,
    pub mask: String,
}

/// An input given at open.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "fields are the manifest's own keys")]
pub struct Static {
    pub name: String,
    /// Left out only where the static is a state's initial value and nothing else.
    #[serde(default)]
    pub tensor: String,
    #[serde(default = "yes")]
    pub required: bool,
    pub batch_axis: Option<BatchAxis>,
}

/// A tensor carried between bins, its two ends joined here and nowhere else.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// The graph's input.
    pub input: String,
    /// The graph's output that becomes the next bin's input.
    pub output: String,
    /// What it is before the first bin.
    #[serde(default = "zeros")]
    pub init: StateInit,
    /// How it grows.
    #[serde(default = "fixed")]
    pub kind: StateKind,
    /// Axis along which a ring grows.
    pub axis: Option<u32>,
    /// Most entries of a ring.
    pub max: Option<u32>,
    /// The tensor's batch axis.
    pub batch_axis: Option<BatchAxis>,
}

/// What a state is before the first bin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StateInit {
    /// 0.
    Zeros,
    /// What stands in that file (`.npy`).
    File(String),
    /// That static input.
    Static(String),
}

/// An input drawn by the server.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "fields are the manifest's own keys")]
pub struct Noise {
    pub tensor: String,
    #[serde(default = "normal")]
    pub dist: NoiseDist,
    pub batch_axis: Option<BatchAxis>,
}

/// An inner tensor to read and, if `edit`, to change while running.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "fields are the manifest's own keys")]
pub struct Tap {
    pub tensor: String,
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    pub edit: bool,
    pub batch_axis: Option<BatchAxis>,
}

/// What a model gives.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Output {
    /// The graph's tensor.
    pub tensor: String,
    /// Its name in the pipeline; the tensor's if left out.
    #[serde(default)]
    pub name: String,
    /// What it means.
    pub role: OutputRole,
    /// One label per value, or none.
    #[serde(default)]
    pub labels: Vec<String>,
    /// Physical unit.
    #[serde(default)]
    pub unit: String,
    /// Whether it leaves as (index, value).
    #[serde(default)]
    pub sparse: bool,
    /// The tensor's batch axis.
    pub batch_axis: Option<BatchAxis>,
}

/// For mode `window`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "fields are the manifest's own keys")]
pub struct Window {
    pub size_bins: u32,
    #[serde(default = "one_u32")]
    pub hop_bins: u32,
}

/// For mode `trial`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "fields are the manifest's own keys")]
pub struct Trial {
    pub max_bins: u32,
    #[serde(default)]
    pub lookahead_bins: u32,
}

/// For mode `iterate`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "fields are the manifest's own keys")]
pub struct Iterate {
    pub max_steps: u32,
    #[serde(default)]
    pub carry: Vec<(String, String)>,
    pub halt: Option<Halt>,
    pub objective: Option<String>,
}

/// When an iterated model halts.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "fields are the manifest's own keys")]
pub struct Halt {
    pub tensor: String,
    pub above: Option<f64>,
    pub below: Option<f64>,
}

/// Outputs fed back when a session runs without its rig.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FreeRun {
    /// Pairs of input tensor and output tensor.
    pub feed: Vec<(String, String)>,
}

/// How a version is served.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Serve {
    /// Where it runs.
    pub device: ServeDevice,
    /// Instances of it.
    pub instances: u32,
    /// Threads inside one operator.
    pub intra_threads: u16,
    /// Most rows of a batch.
    pub max_batch: u32,
    /// How rows become batches.
    pub batching: Batching,
    /// Age that its sessions ask for by default (ms).
    pub deadline_ms: Option<f64>,
    /// Whether a run precedes the first row; the checks at load run it anyhow.
    pub warmup: bool,
}

impl Default for Serve {
    fn default() -> Self {
        Self {
            device: ServeDevice(crate::engine::Device::Auto),
            instances: 1,
            intra_threads: 1,
            max_batch: 256,
            batching: Batching::Continuous,
            deadline_ms: None,
            warmup: true,
        }
    }
}

/// The device as the manifest writes it: `auto`, `cpu`, `cuda:0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServeDevice(pub crate::engine::Device);

/// The recorded example of a version.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Example {
    /// The file; looked for under this name also where the manifest names none.
    pub file: String,
    /// Relative tolerance.
    pub rel: f64,
    /// Absolute tolerance.
    pub abs: f64,
    /// What a difference means.
    pub check: ExampleCheck,
    /// Whether the manifest names the file, so that it must be there.
    #[serde(skip)]
    pub named: bool,
}

impl Example {
    /// Whether a value is what was expected, within the tolerances; what should be NaN must be.
    pub fn allows(&self, got: f64, want: f64) -> bool {
        let allowed = self.abs.max(self.rel * want.abs());
        let is_near = want.is_finite() && (want - got).abs() <= allowed;
        want == got || (want.is_nan() && got.is_nan()) || is_near
    }
}

impl Default for Example {
    fn default() -> Self {
        Self {
            file: "example.safetensors".into(),
            rel: 1e-5,
            abs: 1e-5,
            check: ExampleCheck::Refuse,
            named: false,
        }
    }
}

impl Manifest {
    /// A manifest that says nothing: kind plain, mode step, no tensors.
    pub fn empty() -> Self {
        Self {
            description: String::new(),
            kind: ModelKind::Plain,
            mode: Mode::Step,
            reset_on: Vec::new(),
            tags: Vec::new(),
            provenance: None,
            inputs: Vec::new(),
            statics: Vec::new(),
            states: Vec::new(),
            noise: Vec::new(),
            taps: Vec::new(),
            outputs: Vec::new(),
            window: None,
            trial: None,
            iterate: None,
            free_run: None,
            serve: Serve::default(),
            example: Example::default(),
        }
    }

    /// Every file that it names, with the key that names it. The example counts only where it is named.
    pub fn named_files(&self) -> Vec<(String, &str)> {
        let mut files: Vec<(String, &str)> = Vec::new();
        for (i, input) in self.inputs.iter().enumerate() {
            if let Some(file) = &input.channels_file {
                files.push((format!("input[{i}].channels_file"), file));
            }
            if let Some(file) = &input.units_file {
                files.push((format!("input[{i}].units_file"), file));
            }
            for (j, op) in input.preprocess.iter().enumerate() {
                let Op::Zscore { mean, std, .. } = op else { continue };
                for (word, numbers) in [("mean", mean), ("std", std)] {
                    if let Some(crate::signal::op::Numbers::File(file)) = numbers {
                        let file = file.strip_prefix("file:").unwrap_or(file);
                        files.push((format!("input[{i}].preprocess[{j}].{word}"), file));
                    }
                }
            }
        }
        for (i, state) in self.states.iter().enumerate() {
            if let StateInit::File(file) = &state.init {
                files.push((format!("state[{i}].init"), file));
            }
        }
        if self.example.named {
            files.push(("example.file".into(), &self.example.file));
        }
        files
    }
}

fn plain() -> ModelKind {
    ModelKind::Plain
}
fn step() -> Mode {
    Mode::Step
}
fn binned() -> InputType {
    InputType::Binned
}
fn zero() -> Fill {
    Fill::Zero
}
fn yes() -> bool {
    true
}
fn eight() -> u32 {
    8
}
fn one_u32() -> u32 {
    1
}
fn drop_unknown() -> UnknownUnit {
    UnknownUnit::Drop
}
fn zeros() -> StateInit {
    StateInit::Zeros
}
fn fixed() -> StateKind {
    StateKind::Fixed
}
fn normal() -> NoiseDist {
    NoiseDist::Normal
}

#[cfg(test)]
mod tests;
