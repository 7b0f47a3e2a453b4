//! Runs graphs: the only room that knows `ort`.
//! Enters: a model's bytes once, then batches. Leaves: the batch's outputs, or an `EngineError`.
//! Owns: ONNX Runtime and its sessions; no thread. Must hold: bytes, never a path, go to the runtime; only `auto`
//! may fall back to another device, and says so.
//! Must not know: what a model means, rows, sessions, HTTP, SQL.

pub mod library; // ONNX Runtime's shared library: found, proved, opened
mod ort_engine; // versions to instances, on the device that was asked for
mod ort_instance; // batches through one session
pub mod fake; // real arithmetic that misbehaves on order, for tests of the lanes

pub use self::ort_engine::OrtEngine;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::domain::tensor::Tensor;

/// A model's graph as read from its version, external data included.
#[derive(Clone, Debug)]
pub struct ModelBytes {
    /// `model/version`, for messages.
    pub name: String,
    /// The ModelProto.
    pub onnx: Arc<[u8]>,
    /// External data by the location that the graph names.
    pub external: BTreeMap<String, Arc<[u8]>>,
}

/// Where a model is to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// The first GPU if there is one and it can run the model, else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// That GPU, or a fault.
    Cuda(u32),
}

impl Device {
    /// The device that a manifest's word means: `auto`, `cpu`, `cuda:0`.
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "auto" => Some(Device::Auto),
            "cpu" => Some(Device::Cpu),
            // parse::<u32> would take a sign
            _ => (word.strip_prefix("cuda:"))
                .filter(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
                .and_then(|number| number.parse().ok())
                .map(Device::Cuda),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Auto => f.write_str("auto"),
            Device::Cpu => f.write_str("cpu"),
            Device::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

/// How an instance is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadOptions {
    /// Where it runs.
    pub device: Device,
    /// Threads inside one operator; 1 is fastest for small step models.
    pub intra_threads: u16,
}

/// One batch: whole tensors in the graph's own order of inputs and outputs.
#[derive(Debug, Default)]
pub struct Batch {
    /// Inputs, in the order of `InstanceInfo::signature.inputs`. Filled by the caller.
    pub inputs: Vec<Tensor>,
    /// Outputs, in the order of `signature.outputs`. Overwritten by the run; buffers are reused.
    pub outputs: Vec<Tensor>,
}

/// What is known of an instance after it was made.
#[derive(Clone, Debug)]
pub struct InstanceInfo {
    /// Names, dtypes and shapes of its graph.
    pub signature: crate::graph::Signature,
    /// Where it really runs: `cpu`, `cuda:0`.
    pub device: String,
    /// Nodes by execution provider.
    pub providers: BTreeMap<String, u32>,
}

/// A loaded graph with its own buffers. One thread at a time runs it.
pub trait Instance: Send {
    /// Runs `batch.inputs` and overwrites `batch.outputs`.
    fn run(&mut self, batch: &mut Batch) -> Result<(), EngineError>;
    /// What is known of it.
    fn info(&self) -> &InstanceInfo;
    /// A handle that ends the run in progress from another thread.
    fn interrupt(&self) -> Arc<dyn Interrupt>;
}

/// Ends a run in progress; between runs it does nothing.
pub trait Interrupt: Send + Sync {
    /// The run in progress ends with `EngineError::Interrupted` at the next node.
    fn fire(&self);
}

/// Makes instances.
pub trait Engine: Send + Sync {
    /// Loads a graph. Errors name what was found and expected.
    fn load(&self, model: &ModelBytes, options: &LoadOptions) -> Result<Box<dyn Instance>, EngineError>;
    /// What bit-equality is claimed within: build, provider, CPU features.
    fn fingerprint(&self) -> &str;
}

/// What can go wrong in a run or a load.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EngineError {
    /// The graph cannot be loaded.
    #[error("{model}: {reason}")]
    Load {
        /// `model/version`.
        model: String,
        /// In the runtime's words, cleaned.
        reason: String,
    },
    /// The device is not there, or cannot run a node.
    #[error("{model}: {device}: {reason}")]
    Device {
        /// `model/version`.
        model: String,
        /// As asked.
        device: String,
        /// What is missing; the nodes that cannot run there by name.
        reason: String,
    },
    /// This run failed; the instance can go on.
    #[error("run failed: {0}")]
    Run(String),
    /// The run was ended by `Interrupt`.
    #[error("run was ended at its time limit")]
    Interrupted,
    /// The instance must be rebuilt.
    #[error("instance is lost: {0}")]
    Lost(String),
}
