//! What is known of a version before it runs: which tensor is what, which axis is the batch, what one row looks like.
//! What the manifest leaves out is taken from the graph.

use super::manifest::{Fill, Input, InputType, Output, UnknownUnit};
use super::version::VersionBytes;
use crate::batch::Port;
use crate::domain::output::OutputRole;
use crate::domain::tensor::{Dtype, Tensor};
use crate::signal::image::Image;

/// A streamed input, bound to the graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundInput {
    /// Its number among the manifest's inputs.
    pub input: usize,
    /// Its port.
    pub port: usize,
    /// The port of its mask.
    pub mask_port: Option<usize>,
    /// Channels of one bin.
    pub channels: usize,
    /// The image that each channel is; `None`: one value.
    pub image: Option<Image>,
}

/// An input given at open, bound to the graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundStatic {
    /// Its name.
    pub name: String,
    /// Its port; `None` where it is only a state's initial value.
    pub port: Option<usize>,
    /// Element type that it must have.
    pub dtype: Dtype,
    /// Shape that it must have, without the batch axis.
    pub shape: Vec<usize>,
    /// Whether a session must give it.
    pub required: bool,
}

/// A state, bound to the graph.
#[derive(Clone, Debug, PartialEq)]
pub struct BoundState {
    /// The port it is fed to.
    pub input_port: usize,
    /// The port it comes back from.
    pub output_port: usize,
    /// What it is before the first bin.
    pub init: Initial,
}

/// What a state is before the first bin.
#[derive(Clone, Debug, PartialEq)]
pub enum Initial {
    /// That tensor, of the port's row shape.
    Tensor(Tensor),
    /// The static input of that name.
    Static(String),
}

/// An output, bound to the graph.
#[derive(Clone, Debug, PartialEq)]
pub struct BoundOutput {
    /// Its name.
    pub name: String,
    /// The graph's tensor.
    pub tensor: String,
    /// Its port.
    pub port: usize,
    /// What it means.
    pub role: OutputRole,
    /// One label per value, or none.
    pub labels: Vec<String>,
    /// Physical unit, or empty.
    pub unit: String,
    /// Whether it leaves as (index, value).
    pub sparse: bool,
}

/// What is known of a version before it ran.
#[derive(Clone, Debug, PartialEq)]
pub struct Surface {
    /// Ports in the order of the graph's inputs.
    pub inputs: Vec<Port>,
    /// Ports in the order of the graph's outputs; the rows' lengths are those of `output_rows`.
    pub outputs: Vec<Port>,
    /// Per output the lengths of its row's axes; `None`: only a run tells.
    pub output_rows: Vec<Vec<Option<usize>>>,
    /// Streamed inputs.
    pub streamed: Vec<BoundInput>,
    /// Inputs given at open.
    pub statics: Vec<BoundStatic>,
    /// States.
    pub states: Vec<BoundState>,
    /// Outputs, taps behind them.
    pub results: Vec<BoundOutput>,
    /// Most rows of a batch, by manifest and graph.
    pub max_batch: usize,
    /// What people should know, in sentences.
    pub notes: Vec<String>,
}

impl Surface {
    /// Whether a port is fed by the stream: an input or its mask.
    pub fn streams(&self, port: usize) -> bool {
        self.streamed.iter().any(|input| input.port == port || input.mask_port == Some(port))
    }
}

/// Completes the manifest from the graph where it declares no inputs or no outputs at all.
pub fn complete(version: &mut VersionBytes) {
    let manifest = &mut version.manifest;
    let declares_inputs = !(manifest.inputs.is_empty()
        && manifest.statics.is_empty()
        && manifest.states.is_empty()
        && manifest.noise.is_empty());
    if !declares_inputs {
        manifest.inputs = version.signature.inputs.iter().map(|info| plain_input(&info.name)).collect();
        version.channels = vec![None; manifest.inputs.len()];
    }
    if manifest.outputs.is_empty() {
        let carried = |name: &str| manifest.states.iter().any(|state| state.output == name);
        let free = version.signature.outputs.iter().filter(|info| !carried(&info.name));
        manifest.outputs = free
            .map(|info| Output {
                tensor: info.name.clone(),
                name: info.name.clone(),
                role: OutputRole::Decoded,
                labels: Vec::new(),
                unit: String::new(),
                sparse: false,
                batch_axis: None,
            })
            .collect();
    }
}

fn plain_input(tensor: &str) -> Input {
    Input {
        name: tensor.into(),
        tensor: tensor.into(),
        kind: InputType::Binned,
        bin_ms: None,
        channels: None,
        channels_file: None,
        missing_ok: 0,
        mask_tensor: None,
        fill: Fill::Zero,
        required: true,
        preprocess: Vec::new(),
        rate: None,
        batch_axis: None,
        form: None,
        tensors: None,
        units_file: None,
        pad_to: 8,
        max_tokens: None,
        unknown: UnknownUnit::Drop,
    }
}
