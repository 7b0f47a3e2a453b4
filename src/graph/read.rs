//! From a ModelProto's bytes to what the graph takes, gives and needs beside itself; every refusal is a sentence.

use std::collections::BTreeSet;
use std::fmt;

use prost::Message;

use super::proto::tensor_proto::{DataLocation, DataType};
use super::proto::tensor_shape_proto::dimension::Value as DimValue;
use super::proto::type_proto::Value as TypeValue;
use super::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, SparseTensorProto, TensorProto, ValueInfoProto,
};
use super::{Dim, Signature, TensorInfo};
use crate::domain::tensor::Dtype;
use crate::error::clip;
use crate::phrase::protobuf::Broken;

/// A graph that was read whole: its surface is of tensors that we know, its external files have plain names.
#[derive(Clone, Debug)]
pub struct Graph {
    signature: Signature,
    externals: Vec<ExternalTensor>,
    ir_version: i64,
    opset: Option<i64>,
}

/// A tensor whose bytes lie in a file beside the graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalTensor {
    /// Its name in the graph; empty for the value of a node's attribute.
    pub tensor: String,
    /// The file: a plain name.
    pub location: String,
    /// Where its bytes begin in the file.
    pub offset_bytes: u64,
    /// How many bytes it needs there: the declared length or what shape and dtype say, whichever is more.
    pub len_bytes: u64,
}

impl ExternalTensor {
    /// One past its last byte in the file.
    pub fn end_bytes(&self) -> u64 {
        self.offset_bytes.saturating_add(self.len_bytes)
    }
}

/// Which side of the graph a tensor stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// It is fed.
    Input,
    /// It is fetched.
    Output,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Side::Input => "input",
            Side::Output => "output",
        })
    }
}

/// Why bytes are no graph that can be served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    /// Some other file.
    #[error("not an ONNX model: expected a ModelProto, found {found}")]
    NotOnnx {
        /// How many bytes, and where they stop making sense.
        found: String,
    },
    /// A field runs past the end.
    #[error(
        "cut short: expected a whole ModelProto, found {len_bytes} bytes that end inside a field ({place})"
    )]
    CutShort {
        /// Bytes that there are.
        len_bytes: usize,
        /// The fields to it.
        place: String,
    },
    /// A ModelProto without a graph.
    #[error("no graph: expected a ModelProto with a graph, found {found}")]
    NoGraph {
        /// What there is instead.
        found: &'static str,
    },
    /// An input or output that is no tensor of a known element type.
    #[error("{side} `{}`: expected a tensor of {}, found {found}", clip(.tensor), dtypes())]
    ElementType {
        /// Input or output.
        side: Side,
        /// Its name.
        tensor: String,
        /// Its type.
        found: String,
    },
    /// An input or output of unknown rank.
    #[error("{side} `{}`: expected a shape (its lengths may be symbols), found none", clip(.tensor))]
    Shape {
        /// Input or output.
        side: Side,
        /// Its name.
        tensor: String,
    },
    /// Two inputs or two outputs of one name, or one without.
    #[error("{side}s: expected each to have its own name, found {found}")]
    Name {
        /// Input or output.
        side: Side,
        /// The name that is there twice, or that there is none.
        found: String,
    },
    /// External data that are not a plain file beside the graph.
    #[error("tensor `{}`: expected its external data in a file beside the graph, by its plain name, found {found}", clip(.tensor))]
    Location {
        /// The tensor.
        tensor: String,
        /// The location that it gives.
        found: String,
    },
    /// External data whose offset, length, shape or dtype is no number of bytes.
    #[error("tensor `{}`: expected {expected}, found {found}", clip(.tensor))]
    Extent {
        /// The tensor.
        tensor: String,
        /// What should stand there.
        expected: &'static str,
        /// What stands there.
        found: String,
    },
}

/// Reads a ModelProto. Nothing is executed; all of its surface and of its references to files is checked here.
pub fn read(bytes: &[u8]) -> Result<Graph, GraphError> {
    let model = decode(bytes)?;
    let Some(graph) = &model.graph else {
        return Err(match bytes.len() {
            0 => GraphError::NotOnnx { found: "an empty file".into() },
            _ => GraphError::NoGraph { found: "none" },
        });
    };
    if graph.output.is_empty() {
        return Err(GraphError::NoGraph { found: "one without outputs" });
    }
    let mut externals = Vec::new();
    of_graph(graph, &mut externals)?;
    for function in &model.functions {
        of_nodes(&function.node, &mut externals)?;
        of_attributes(&function.attribute_proto, &mut externals)?;
    }
    let opset = model.opset_import.iter().find(|set| matches!(set.domain.as_str(), "" | "ai.onnx"));
    Ok(Graph {
        signature: signature(graph)?,
        externals,
        ir_version: model.ir_version,
        opset: opset.map(|set| set.version),
    })
}

/// The message alone, whatever it holds.
pub(super) fn decode(bytes: &[u8]) -> Result<ModelProto, GraphError> {
    ModelProto::decode(bytes).map_err(|error| not_a_model(bytes, &error))
}

impl Graph {
    /// What it takes (inputs without initialisers) and gives, in the graph's order.
    pub fn signature(&self) -> &Signature {
        &self.signature
    }

    /// The files beside it that hold external data: plain names, each once.
    pub fn external_locations(&self) -> BTreeSet<&str> {
        self.externals.iter().map(|tensor| tensor.location.as_str()).collect()
    }

    /// The tensors whose bytes lie in those files.
    pub fn external_tensors(&self) -> &[ExternalTensor] {
        &self.externals
    }

    /// Version of the intermediate representation.
    pub fn ir_version(&self) -> i64 {
        self.ir_version
    }

    /// Version of ONNX's own operators, if the graph imports them.
    pub fn opset(&self) -> Option<i64> {
        self.opset
    }
}

impl Dtype {
    /// ONNX's number for it (`TensorProto.DataType`).
    pub const fn onnx(self) -> i32 {
        (match self {
            Dtype::F32 => DataType::Float,
            Dtype::F64 => DataType::Double,
            Dtype::F16 => DataType::Float16,
            Dtype::Bf16 => DataType::Bfloat16,
            Dtype::I8 => DataType::Int8,
            Dtype::I16 => DataType::Int16,
            Dtype::I32 => DataType::Int32,
            Dtype::I64 => DataType::Int64,
            Dtype::U8 => DataType::Uint8,
            Dtype::U16 => DataType::Uint16,
            Dtype::U32 => DataType::Uint32,
            Dtype::U64 => DataType::Uint64,
            Dtype::Bool => DataType::Bool,
        }) as i32
    }

    /// The dtype of ONNX's number, if it is one of ours.
    pub fn from_onnx(number: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|dtype| dtype.onnx() == number)
    }
}

/// The dtypes there are, for sentences.
fn dtypes() -> String {
    Dtype::ALL.map(Dtype::word).join(", ")
}

/// ONNX's word for an element type, lower case.
fn element_word(number: i32) -> String {
    match DataType::try_from(number) {
        Ok(DataType::Undefined) => "no element type".into(),
        Ok(known) => known.as_str_name().to_lowercase(),
        Err(_) => format!("element type {number}"),
    }
}

fn not_a_model(bytes: &[u8], error: &prost::DecodeError) -> GraphError {
    let broken = Broken::of(error);
    if broken.is_cut_short {
        let place = if broken.path.is_empty() { "at the top".into() } else { format!("`{}`", broken.path) };
        GraphError::CutShort { len_bytes: bytes.len(), place }
    } else {
        GraphError::NotOnnx { found: format!("{} bytes that are no protobuf: {broken}", bytes.len()) }
    }
}

fn signature(graph: &GraphProto) -> Result<Signature, GraphError> {
    let initialised: BTreeSet<&str> = (graph.initializer.iter().map(|tensor| tensor.name.as_str()))
        .chain(
            graph.sparse_initializer.iter().filter_map(|sparse| Some(sparse.values.as_ref()?.name.as_str())),
        )
        .collect();
    let fed = graph.input.iter().filter(|input| !initialised.contains(input.name.as_str()));
    Ok(Signature { inputs: surface(Side::Input, fed)?, outputs: surface(Side::Output, graph.output.iter())? })
}

fn surface<'a>(
    side: Side,
    infos: impl Iterator<Item = &'a ValueInfoProto>,
) -> Result<Vec<TensorInfo>, GraphError> {
    let mut seen = BTreeSet::new();
    infos
        .map(|info| {
            if info.name.is_empty() {
                return Err(GraphError::Name { side, found: "one without".into() });
            }
            // ONNX Runtime takes names as C strings
            if info.name.contains('\0') || !seen.insert(info.name.as_str()) {
                let found =
                    format!("`{}` {}", clip(&info.name.replace('\0', "\\0")), "twice or with a NUL in it");
                return Err(GraphError::Name { side, found });
            }
            tensor_info(side, info)
        })
        .collect()
}

fn tensor_info(side: Side, info: &ValueInfoProto) -> Result<TensorInfo, GraphError> {
    let wrong = |found: String| GraphError::ElementType { side, tensor: info.name.clone(), found };
    let tensor = match info.r#type.as_ref().and_then(|kind| kind.value.as_ref()) {
        Some(TypeValue::TensorType(tensor)) => tensor,
        Some(TypeValue::SequenceType(_)) => return Err(wrong("a sequence".into())),
        Some(TypeValue::MapType(_)) => return Err(wrong("a map".into())),
        Some(TypeValue::OpaqueType(_)) => return Err(wrong("an opaque type".into())),
        Some(TypeValue::SparseTensorType(_)) => return Err(wrong("a sparse tensor".into())),
        Some(TypeValue::OptionalType(_)) => return Err(wrong("an optional".into())),
        None => return Err(wrong("no type".into())),
    };
    let dtype = Dtype::from_onnx(tensor.elem_type).ok_or_else(|| wrong(element_word(tensor.elem_type)))?;
    let Some(shape) = &tensor.shape else {
        return Err(GraphError::Shape { side, tensor: info.name.clone() });
    };
    let dims = shape.dim.iter().map(|dim| match &dim.value {
        // some exporters write -1 for what they do not know
        Some(DimValue::DimValue(length)) => usize::try_from(*length).map_or(Dim::Unknown, Dim::Fixed),
        Some(DimValue::DimParam(symbol)) if !symbol.is_empty() => Dim::Symbol(symbol.clone()),
        _ => Dim::Unknown,
    });
    Ok(TensorInfo { name: info.name.clone(), dtype, dims: dims.collect() })
}

/// Gathers the external tensors of a graph, of its nodes' attributes and of the graphs in these.
fn of_graph(graph: &GraphProto, found: &mut Vec<ExternalTensor>) -> Result<(), GraphError> {
    graph.initializer.iter().try_for_each(|tensor| of_tensor(tensor, found))?;
    graph.sparse_initializer.iter().try_for_each(|sparse| of_sparse(sparse, found))?;
    of_nodes(&graph.node, found)
}

fn of_nodes(nodes: &[NodeProto], found: &mut Vec<ExternalTensor>) -> Result<(), GraphError> {
    nodes.iter().try_for_each(|node| of_attributes(&node.attribute, found))
}

fn of_attributes(attributes: &[AttributeProto], found: &mut Vec<ExternalTensor>) -> Result<(), GraphError> {
    for attribute in attributes {
        attribute.t.iter().chain(&attribute.tensors).try_for_each(|tensor| of_tensor(tensor, found))?;
        (attribute.sparse_tensor.iter().chain(&attribute.sparse_tensors))
            .try_for_each(|sparse| of_sparse(sparse, found))?;
        attribute.g.iter().chain(&attribute.graphs).try_for_each(|graph| of_graph(graph, found))?;
    }
    Ok(())
}

fn of_sparse(sparse: &SparseTensorProto, found: &mut Vec<ExternalTensor>) -> Result<(), GraphError> {
    sparse.values.iter().chain(&sparse.indices).try_for_each(|tensor| of_tensor(tensor, found))
}

fn of_tensor(tensor: &TensorProto, found: &mut Vec<ExternalTensor>) -> Result<(), GraphError> {
    if tensor.data_location != DataLocation::External as i32 {
        return Ok(());
    }
    let value = |key: &str| {
        tensor.external_data.iter().find(|entry| entry.key == key).map(|entry| entry.value.as_str())
    };
    let location = value("location").unwrap_or_default();
    if let Some(words) = not_plain(location) {
        return Err(GraphError::Location { tensor: tensor.name.clone(), found: words });
    }
    let number = |key: &'static str, expected: &'static str| match value(key) {
        None | Some("") => Ok(0),
        Some(text) => text.parse::<u64>().map_err(|_| GraphError::Extent {
            tensor: tensor.name.clone(),
            expected,
            found: format!("`{}`", clip(text)),
        }),
    };
    let declared = number("length", "a length in bytes")?;
    found.push(ExternalTensor {
        tensor: tensor.name.clone(),
        location: location.into(),
        offset_bytes: number("offset", "an offset in bytes")?,
        len_bytes: declared.max(needed_bytes(tensor)?),
    });
    Ok(())
}

/// What is wrong with a location that is no plain file name.
fn not_plain(location: &str) -> Option<String> {
    let quoted = clip(&location.replace('\0', "\\0"));
    if location.is_empty() {
        Some("no location".into())
    } else if matches!(location, "." | "..") {
        Some(format!("the folder `{quoted}`"))
    } else if location.contains(['/', '\\', '\0']) {
        // ONNX Runtime reads one such path as an address in memory
        Some(format!("the path `{quoted}`"))
    } else {
        None
    }
}

/// Bytes that shape and dtype ask for.
fn needed_bytes(tensor: &TensorProto) -> Result<u64, GraphError> {
    let wrong = |expected: &'static str, found: String| GraphError::Extent {
        tensor: tensor.name.clone(),
        expected,
        found,
    };
    let bits: u64 = match DataType::try_from(tensor.data_type) {
        Ok(DataType::Uint2 | DataType::Int2) => 2,
        Ok(DataType::Uint4 | DataType::Int4 | DataType::Float4e2m1) => 4,
        Ok(DataType::Float6e2m3 | DataType::Float6e3m2) => 6,
        Ok(DataType::Uint8 | DataType::Int8 | DataType::Bool) => 8,
        Ok(DataType::Float8e4m3fn | DataType::Float8e4m3fnuz | DataType::Float8e5m2) => 8,
        Ok(DataType::Float8e5m2fnuz | DataType::Float8e8m0) => 8,
        Ok(DataType::Uint16 | DataType::Int16 | DataType::Float16 | DataType::Bfloat16) => 16,
        Ok(DataType::Float | DataType::Int32 | DataType::Uint32) => 32,
        Ok(DataType::Double | DataType::Int64 | DataType::Uint64 | DataType::Complex64) => 64,
        Ok(DataType::Complex128) => 128,
        Ok(DataType::Undefined | DataType::String) | Err(_) => {
            return Err(wrong("external data of numbers", element_word(tensor.data_type)));
        }
    };
    let elements =
        tensor.dims.iter().try_fold(1u64, |product, &axis| product.checked_mul(u64::try_from(axis).ok()?));
    (elements.and_then(|elements| elements.checked_mul(bits)))
        .map(|bits| bits.div_ceil(8))
        .ok_or_else(|| wrong("a shape that memory can hold", format!("{:?}", tensor.dims)))
}

#[cfg(test)]
#[path = "read_tests.rs"]
mod tests;
