//! A small builder of ONNX graphs, for rooms that make their own and for tests.
//!
//! It checks nothing: what it writes is what it was told, so that tests can write what is wrong, too.

use prost::Message;

use super::proto::attribute_proto::AttributeType;
use super::proto::tensor_proto::DataLocation;
use super::proto::tensor_shape_proto::Dimension;
use super::proto::tensor_shape_proto::dimension::Value as DimValue;
use super::proto::type_proto::{Tensor as TensorType, Value as TypeValue};
use super::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto,
    TensorProto, TensorShapeProto, TypeProto, ValueInfoProto,
};
use super::{Dim, TensorInfo};
use crate::domain::tensor::Dtype;

/// Version of ONNX's own operators, unless `opset` says otherwise.
const OPSET: i64 = 21;
/// Version of the intermediate representation that goes with it.
const IR_VERSION: i64 = 10;

/// A graph that is being put together; nodes in the order in which they run.
#[derive(Clone, Debug)]
pub struct GraphBuilder {
    graph: GraphProto,
    opset: i64,
}

impl GraphBuilder {
    /// An empty graph.
    pub fn new(name: &str) -> Self {
        Self { graph: GraphProto { name: name.into(), ..GraphProto::default() }, opset: OPSET }
    }

    /// Another version of ONNX's own operators.
    pub fn opset(&mut self, version: i64) -> &mut Self {
        self.opset = version;
        self
    }

    /// An input; it is fed unless an initialiser of that name follows.
    pub fn input(&mut self, name: &str, dtype: Dtype, dims: &[Dim]) -> &mut Self {
        self.graph.input.push(value_info(name, dtype.onnx(), Some(dims)));
        self
    }

    /// An output.
    pub fn output(&mut self, name: &str, dtype: Dtype, dims: &[Dim]) -> &mut Self {
        self.graph.output.push(value_info(name, dtype.onnx(), Some(dims)));
        self
    }

    /// An output as another tensor is described.
    pub fn output_like(&mut self, info: &TensorInfo) -> &mut Self {
        self.output(&info.name, info.dtype, &info.dims)
    }

    /// A constant of f32, row-major.
    pub fn f32(&mut self, name: &str, shape: &[usize], values: &[f32]) -> &mut Self {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant(name, Dtype::F32, shape, bytes)
    }

    /// A constant of i64, row-major.
    pub fn i64(&mut self, name: &str, shape: &[usize], values: &[i64]) -> &mut Self {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant(name, Dtype::I64, shape, bytes)
    }

    /// A constant of any dtype by its bytes, little-endian, row-major.
    pub fn constant(&mut self, name: &str, dtype: Dtype, shape: &[usize], bytes: Vec<u8>) -> &mut Self {
        self.graph.initializer.push(tensor(name, dtype, shape, bytes));
        self
    }

    /// A constant whose bytes lie in `location` from `offset_bytes` on, as many as shape and dtype say.
    pub fn external(
        &mut self,
        name: &str,
        dtype: Dtype,
        shape: &[usize],
        location: &str,
        offset_bytes: u64,
    ) -> &mut Self {
        let len_bytes = shape.iter().product::<usize>() * dtype.size_bytes();
        let entry = |key: &str, value: String| StringStringEntryProto { key: key.into(), value };
        self.graph.initializer.push(TensorProto {
            raw_data: None,
            external_data: vec![
                entry("location", location.into()),
                entry("offset", offset_bytes.to_string()),
                entry("length", len_bytes.to_string()),
            ],
            data_location: DataLocation::External as i32,
            ..tensor(name, dtype, shape, Vec::new())
        });
        self
    }

    /// A node of ONNX's own operators; an input that is left out is `""`.
    pub fn node(&mut self, op: &str, inputs: &[&str], outputs: &[&str]) -> &mut Self {
        self.node_with(op, inputs, outputs, [])
    }

    /// A node with attributes.
    pub fn node_with(
        &mut self,
        op: &str,
        inputs: &[&str],
        outputs: &[&str],
        attributes: impl IntoIterator<Item = Attribute>,
    ) -> &mut Self {
        let name = format!("{}_{}", op.to_lowercase(), self.graph.node.len());
        self.graph.node.push(node(&name, op, inputs, outputs, attributes));
        self
    }

    /// The ModelProto's bytes.
    pub fn bytes(&self) -> Vec<u8> {
        ModelProto {
            ir_version: IR_VERSION,
            producer_name: "latentd".into(),
            graph: Some(self.graph.clone()),
            opset_import: vec![OperatorSetIdProto { domain: String::new(), version: self.opset }],
            ..ModelProto::default()
        }
        .encode_to_vec()
    }

    #[cfg(test)]
    pub(super) fn graph_mut(&mut self) -> &mut GraphProto {
        &mut self.graph
    }
}

/// A node's attribute.
#[derive(Clone, Debug)]
pub struct Attribute(AttributeProto);

impl Attribute {
    /// One integer.
    pub fn int(name: &str, value: i64) -> Self {
        Self(AttributeProto { i: Some(value), ..named(name, AttributeType::Int) })
    }

    /// One float.
    pub fn float(name: &str, value: f32) -> Self {
        Self(AttributeProto { f: Some(value), ..named(name, AttributeType::Float) })
    }

    /// One text.
    pub fn text(name: &str, value: &str) -> Self {
        Self(AttributeProto { s: Some(value.into()), ..named(name, AttributeType::String) })
    }

    /// Several integers.
    pub fn ints(name: &str, values: &[i64]) -> Self {
        Self(AttributeProto { ints: values.into(), ..named(name, AttributeType::Ints) })
    }

    /// A graph, as `Loop` and `If` take it.
    pub fn graph(name: &str, body: &GraphBuilder) -> Self {
        Self(AttributeProto { g: Some(body.graph.clone()), ..named(name, AttributeType::Graph) })
    }
}

/// A linear step model with state: v\[t\] = M1 v\[t-1\] + M2 u\[t\] + m0.
///
/// `m1`: `[D, D]`, `m2`: `[D, C]`, `m0`: `[D]`, row-major. The graph takes `u` `[batch, C]` and `v0` `[batch, D]`; it
/// gives `v` `[batch, D]`, the same as `v_next` (the state), and `vraw` = M2 u + m0, what the input alone says.
/// The form is that of a Kalman filter in its steady state, as intracortical decoders run it.
pub fn linear_recurrence(m1: &[f32], m2: &[f32], m0: &[f32]) -> Vec<u8> {
    let outputs = m0.len();
    assert_eq!(m1.len(), outputs * outputs, "m1 is not [D, D] with D = {outputs}");
    assert!(outputs > 0 && m2.len().is_multiple_of(outputs), "m2 is not [D, C] with D = {outputs}");
    let channels = m2.len() / outputs;
    let v = ["batch".into(), outputs.into()];
    let transposed = || [Attribute::int("transB", 1)];
    GraphBuilder::new("linear_recurrence")
        .input("u", Dtype::F32, &["batch".into(), channels.into()])
        .input("v0", Dtype::F32, &v)
        .f32("m1", &[outputs, outputs], m1)
        .f32("m2", &[outputs, channels], m2)
        .f32("m0", &[outputs], m0)
        .node_with("Gemm", &["u", "m2", "m0"], &["vraw"], transposed())
        .node_with("Gemm", &["v0", "m1", "vraw"], &["v"], transposed())
        .node("Identity", &["v"], &["v_next"])
        .output("v", Dtype::F32, &v)
        .output("v_next", Dtype::F32, &v)
        .output("vraw", Dtype::F32, &v)
        .bytes()
}

/// A node of ONNX's own operators.
pub(super) fn node(
    name: &str,
    op: &str,
    inputs: &[&str],
    outputs: &[&str],
    attributes: impl IntoIterator<Item = Attribute>,
) -> NodeProto {
    let names = |all: &[&str]| all.iter().map(|name| (*name).to_owned()).collect();
    NodeProto {
        name: name.into(),
        op_type: op.into(),
        input: names(inputs),
        output: names(outputs),
        attribute: attributes.into_iter().map(|attribute| attribute.0).collect(),
        ..NodeProto::default()
    }
}

fn named(name: &str, kind: AttributeType) -> AttributeProto {
    AttributeProto { name: name.into(), r#type: kind as i32, ..AttributeProto::default() }
}

fn tensor(name: &str, dtype: Dtype, shape: &[usize], bytes: Vec<u8>) -> TensorProto {
    TensorProto {
        name: name.into(),
        data_type: dtype.onnx(),
        dims: shape.iter().map(|&length| length as i64).collect(),
        raw_data: Some(bytes),
        ..TensorProto::default()
    }
}

/// A description as ONNX writes it; `dims` is `None` for unknown rank.
pub(super) fn value_info(name: &str, elem_type: i32, dims: Option<&[Dim]>) -> ValueInfoProto {
    let dimension = |dim: &Dim| Dimension {
        value: match dim {
            Dim::Fixed(length) => Some(DimValue::DimValue(*length as i64)),
            Dim::Symbol(symbol) => Some(DimValue::DimParam(symbol.clone())),
            Dim::Unknown => None,
        },
        denotation: String::new(),
    };
    let shape = dims.map(|dims| TensorShapeProto { dim: dims.iter().map(dimension).collect() });
    ValueInfoProto {
        name: name.into(),
        r#type: Some(TypeProto {
            value: Some(TypeValue::TensorType(TensorType { elem_type, shape })),
            denotation: String::new(),
        }),
        metadata_props: Vec::new(),
    }
}
