//! ONNX graphs as data: read, check, build.
//! Enters: the bytes of a ModelProto, or a plan for one. Leaves: names, dtypes, shapes, external files; bytes.
//! Owns: nothing; pure. Must hold: nothing of the graph is executed here.
//! Must not know: ONNX Runtime, manifests, files.

use crate::domain::tensor::Dtype;

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
