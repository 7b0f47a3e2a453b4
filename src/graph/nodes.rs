//! Which node of a graph makes what, and a look at a tensor inside of it.

use std::collections::BTreeSet;

use prost::Message;

use super::build::{Attribute, node, value_info};
use super::proto::TensorProto;
use super::read::{GraphError, decode};
use crate::domain::tensor::Dtype;

/// A node of a graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name; empty where the exporter gave none.
    pub name: String,
    /// Its operator.
    pub op: String,
    /// Tensors that it takes, those of the graphs inside of it too.
    pub inputs: Vec<String>,
    /// Tensors that it makes; `""` for one that is left out.
    pub outputs: Vec<String>,
}

impl std::fmt::Display for Node {
    /// `Gemm node `/head/Gemm``, or by what it makes.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.name.as_str() {
            "" => write!(f, "the {} node that makes `{}`", self.op, self.outputs.join("`, `")),
            name => write!(f, "the {} node `{name}`", self.op),
        }
    }
}

/// A graph's nodes, in its order, in which each stands behind those that feed it.
pub fn nodes(bytes: &[u8]) -> Result<Vec<Node>, GraphError> {
    let graph = decode(bytes)?.graph.unwrap_or_default();
    let one = |node: &super::proto::NodeProto| {
        let mut inputs = node.input.clone();
        let inner = node.attribute.iter().flat_map(|attribute| attribute.g.iter().chain(&attribute.graphs));
        inner.for_each(|graph| taken_inside(graph, &mut inputs));
        let (name, op) = (node.name.clone(), node.op_type.clone());
        Node { name, op, inputs, outputs: node.output.clone() }
    };
    Ok(graph.node.iter().map(one).collect())
}

/// What the nodes of an inner graph take; some of it is made outside.
fn taken_inside(graph: &super::proto::GraphProto, inputs: &mut Vec<String>) {
    for node in &graph.node {
        inputs.extend(node.input.iter().cloned());
        let inner = node.attribute.iter().flat_map(|attribute| attribute.g.iter().chain(&attribute.graphs));
        inner.for_each(|graph| taken_inside(graph, inputs));
    }
    // An inner graph may hand out a tensor of the outer one as it is.
    inputs.extend(graph.output.iter().map(|output| output.name.clone()));
}

/// The places of the nodes that lead to a tensor, in the graph's order.
pub fn leading_to(nodes: &[Node], tensor: &str) -> BTreeSet<usize> {
    let mut wanted = BTreeSet::from([tensor]);
    let mut found = BTreeSet::new();
    for (at, node) in nodes.iter().enumerate().rev() {
        if node.outputs.iter().any(|made| !made.is_empty() && wanted.contains(made.as_str())) {
            found.insert(at);
            wanted.extend(node.inputs.iter().map(String::as_str));
        }
    }
    found
}

/// The output that `probed` adds.
pub const PROBE: &str = "latentd_probe";

/// The graph with one output more, `PROBE`, an f32 without axes: 0 if all of a tensor (of f32, of whatever shape) is finite,
/// else not finite itself.
pub fn probed(bytes: &[u8], tensor: &str) -> Result<Vec<u8>, GraphError> {
    let mut model = decode(bytes)?;
    let mut graph = model.graph.take().unwrap_or_default();
    graph.initializer.push(TensorProto {
        name: "latentd_zero".into(),
        data_type: Dtype::F32.onnx(),
        raw_data: Some(0f32.to_le_bytes().to_vec()),
        ..TensorProto::default()
    });
    // 0 · x is 0 for what is finite and NaN for what is not; a sum keeps it.
    graph.node.push(node("latentd_probe_mul", "Mul", &[tensor, "latentd_zero"], &["latentd_nothing"], []));
    let whole = [Attribute::int("keepdims", 0)];
    graph.node.push(node("latentd_probe_sum", "ReduceSum", &["latentd_nothing"], &[PROBE], whole));
    graph.output.push(value_info(PROBE, Dtype::F32.onnx(), Some(&[])));
    model.graph = Some(graph);
    Ok(model.encode_to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::build::GraphBuilder;
    use crate::graph::read;

    fn two_heads() -> Vec<u8> {
        let dims = ["batch".into(), 2.into()];
        GraphBuilder::new("two")
            .input("x", Dtype::F32, &dims)
            .node("Relu", &["x"], &["h"])
            .node("Exp", &["h"], &["a"])
            .node("Log", &["h"], &["b"])
            .output("a", Dtype::F32, &dims)
            .output("b", Dtype::F32, &dims)
            .bytes()
    }

    #[test]
    fn what_leads_to_an_output_is_found_by_its_tensors() {
        let nodes = nodes(&two_heads()).unwrap();
        assert_eq!(nodes.iter().map(|node| node.op.as_str()).collect::<Vec<_>>(), ["Relu", "Exp", "Log"]);
        assert_eq!(leading_to(&nodes, "a"), BTreeSet::from([0, 1]));
        assert_eq!(leading_to(&nodes, "b"), BTreeSet::from([0, 2]));
        assert_eq!(nodes[2].to_string(), "the Log node `log_2`");
        let unnamed = Node { name: String::new(), ..nodes[2].clone() };
        assert_eq!(unnamed.to_string(), "the Log node that makes `b`");
    }

    #[test]
    fn a_probe_is_one_output_more_and_changes_nothing_else() {
        let (before, after) =
            (read(&two_heads()).unwrap(), read(&probed(&two_heads(), "h").unwrap()).unwrap());
        assert_eq!(before.signature().inputs, after.signature().inputs);
        let names: Vec<&str> = after.signature().outputs.iter().map(|output| output.name.as_str()).collect();
        assert_eq!(names, ["a", "b", PROBE]);
        assert!(matches!(nodes(b"no graph"), Err(GraphError::NotOnnx { .. })));
    }

    #[test]
    fn a_tensor_that_an_inner_graph_takes_leads_to_what_its_node_makes() {
        let branch = |op: &str, made: &str| {
            let mut branch = GraphBuilder::new(made);
            branch.node(op, &["h"], &[made]).output(made, Dtype::F32, &[2.into()]);
            branch
        };
        let (yes, no) = (branch("Exp", "y"), branch("Log", "n"));
        let bytes = GraphBuilder::new("if")
            .input("x", Dtype::F32, &[2.into()])
            .input("which", Dtype::Bool, &[])
            .node("Relu", &["x"], &["h"])
            .node_with(
                "If",
                &["which"],
                &["z"],
                [Attribute::graph("then_branch", &yes), Attribute::graph("else_branch", &no)],
            )
            .output("z", Dtype::F32, &[2.into()])
            .bytes();
        assert_eq!(leading_to(&nodes(&bytes).unwrap(), "z"), BTreeSet::from([0, 1]));
    }
}
