//! ONNX graphs as data: read, check, build.
//! Enters: the bytes of a ModelProto, or a plan for one. Leaves: names, dtypes, shapes, external files; bytes.
//! Owns: nothing; pure. Must hold: nothing of the graph is executed here.
//! Must not know: ONNX Runtime, manifests, files.

pub mod build; // a plan to bytes
pub mod nodes; // which node makes what, and a look at a tensor inside
mod read; // bytes to what a graph takes, gives and needs

pub use self::read::{ExternalTensor, Graph, GraphError, Side, read};

use crate::domain::tensor::Dtype;

/// ONNX's messages as prost writes them from `proto/onnx.proto`.
#[allow(clippy::all, reason = "generated")]
mod proto {
    include!(concat!(env!("OUT_DIR"), "/onnx.rs"));
}

/// What a graph takes and gives.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Signature {
    /// Inputs without initialisers, in the graph's order.
    pub inputs: Vec<TensorInfo>,
    /// Outputs, in the graph's order.
    pub outputs: Vec<TensorInfo>,
}

/// One tensor of a graph's surface.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorInfo {
    /// Its name in the graph.
    pub name: String,
    /// Element type.
    pub dtype: Dtype,
    /// Its axes.
    pub dims: Vec<Dim>,
}

/// The length of an axis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dim {
    /// Always so long.
    Fixed(usize),
    /// As long as every other axis of that name.
    Symbol(String),
    /// Not told.
    Unknown,
}

impl From<usize> for Dim {
    fn from(length: usize) -> Self {
        Dim::Fixed(length)
    }
}

impl From<&str> for Dim {
    fn from(symbol: &str) -> Self {
        Dim::Symbol(symbol.into())
    }
}

impl std::fmt::Display for Dim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Dim::Fixed(length) => write!(f, "{length}"),
            Dim::Symbol(symbol) => f.write_str(symbol),
            Dim::Unknown => f.write_str("?"),
        }
    }
}

impl std::fmt::Display for TensorInfo {
    /// Dtype and axes, as sentences show them: `f32 [batch, 96]`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let dims: Vec<String> = self.dims.iter().map(Dim::to_string).collect();
        write!(f, "{} [{}]", self.dtype, dims.join(", "))
    }
}
