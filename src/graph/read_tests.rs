use proptest::prelude::*;

use super::super::build::{Attribute, GraphBuilder, linear_recurrence, value_info};
use super::super::proto::type_proto::{Optional, Sequence};
use super::super::proto::{TypeProto, type_proto};
use super::*;

fn info(name: &str, dtype: Dtype, dims: &[Dim]) -> TensorInfo {
    TensorInfo { name: name.into(), dtype, dims: dims.to_vec() }
}

fn gru() -> Vec<u8> {
    GraphBuilder::new("gru")
        .input("x", Dtype::F32, &["batch".into(), 3.into()])
        .i64("axes", &[1], &[0])
        .node("Unsqueeze", &["x", "axes"], &["seq"])
        .external("w", Dtype::F32, &[1, 6, 3], "weights.bin", 64)
        .f32("r", &[1, 6, 2], &[0.1; 12])
        .node_with("GRU", &["seq", "w", "r"], &["", "hn"], [Attribute::int("hidden_size", 2)])
        .output("hn", Dtype::F32, &[1.into(), "batch".into(), 2.into()])
        .bytes()
}

#[test]
fn what_was_built_is_read_back() {
    let graph = read(&linear_recurrence(&[0.5], &[1.0, 2.0, 3.0], &[0.0])).unwrap();
    let v = ["batch".into(), Dim::Fixed(1)];
    assert_eq!(
        *graph.signature(),
        Signature {
            inputs: vec![info("u", Dtype::F32, &["batch".into(), 3.into()]), info("v0", Dtype::F32, &v)],
            outputs: ["v", "v_next", "vraw"].map(|name| info(name, Dtype::F32, &v)).into(),
        }
    );
    assert!(graph.external_locations().is_empty());
    assert_eq!((graph.ir_version(), graph.opset()), (10, Some(21)));
}

#[test]
fn every_dtype_and_every_kind_of_axis_is_read_back() {
    for dtype in Dtype::ALL {
        assert_eq!(Dtype::from_onnx(dtype.onnx()), Some(dtype));
        let dims = [Dim::Fixed(0), "t".into(), Dim::Unknown, 7.into()];
        let bytes = GraphBuilder::new("any").input("x", dtype, &dims).output("x", dtype, &[]).bytes();
        let graph = read(&bytes).unwrap();
        assert_eq!(graph.signature().inputs, [info("x", dtype, &dims)]);
        assert_eq!(graph.signature().outputs, [info("x", dtype, &[])]);
    }
}

#[test]
fn an_input_with_an_initialiser_is_not_fed() {
    let mut plan = GraphBuilder::new("old");
    plan.input("x", Dtype::F32, &[1.into()]).input("w", Dtype::F32, &[1.into()]);
    plan.f32("w", &[1], &[2.0]).node("Mul", &["x", "w"], &["y"]).output("y", Dtype::F32, &[1.into()]);
    assert_eq!(read(&plan.bytes()).unwrap().signature().inputs.len(), 1);
}

#[test]
fn a_negative_length_is_unknown() {
    let mut plan = GraphBuilder::new("g");
    plan.input("x", Dtype::F32, &[usize::MAX.into()]).output("x", Dtype::F32, &[]);
    assert_eq!(read(&plan.bytes()).unwrap().signature().inputs[0].dims, [Dim::Unknown]);
}

#[test]
fn external_files_are_named_with_what_is_needed_of_them() {
    let graph = read(&gru()).unwrap();
    assert_eq!(graph.external_locations().into_iter().collect::<Vec<_>>(), ["weights.bin"]);
    let [w] = graph.external_tensors() else { panic!("{graph:?}") };
    assert_eq!((w.tensor.as_str(), w.offset_bytes, w.end_bytes()), ("w", 64, 64 + 72));
}

#[test]
fn an_external_file_that_is_no_plain_name_is_refused_wherever_it_hides() {
    for location in ["", ".", "..", "/etc/passwd", "../w", "a/b", "a\\b", "*/_ORT_MEM_ADDR_/*", "w\0"] {
        let mut body = GraphBuilder::new("body");
        body.external("w", Dtype::F32, &[1], location, 0).output("w", Dtype::F32, &[1.into()]);
        let mut plan = GraphBuilder::new("g");
        plan.node_with("If", &["c"], &["y"], [Attribute::graph("then_branch", &body)]);
        plan.output("y", Dtype::F32, &[1.into()]);
        for bytes in [body.bytes(), plan.bytes()] {
            let refused = read(&bytes).unwrap_err();
            assert!(matches!(refused, GraphError::Location { .. }), "{location}: {refused}");
        }
    }
    let refused =
        read(&GraphBuilder::new("g").external("w", Dtype::F32, &[1], "../w", 0).bytes_with_output());
    assert_eq!(
        refused.unwrap_err().to_string(),
        "tensor `w`: expected its external data in a file beside the graph, by its plain name, found the path `../w`"
    );
}

#[test]
fn an_external_tensor_whose_extent_is_no_number_is_refused() {
    let mut plan = GraphBuilder::new("g");
    plan.external("w", Dtype::F32, &[1], "w", 0);
    plan.graph_mut().initializer[0].external_data[1].value = "-4".into();
    assert_eq!(
        read(&plan.bytes_with_output()).unwrap_err().to_string(),
        "tensor `w`: expected an offset in bytes, found `-4`"
    );
    plan.graph_mut().initializer[0].external_data[1].value = "4".into();
    plan.graph_mut().initializer[0].dims = vec![i64::MAX, 4];
    assert!(matches!(read(&plan.bytes_with_output()), Err(GraphError::Extent { .. })));
}

impl GraphBuilder {
    fn bytes_with_output(&mut self) -> Vec<u8> {
        self.clone().output("w", Dtype::F32, &[1.into()]).bytes()
    }
}

#[test]
fn what_is_no_model_is_told_apart() {
    let sentence = |bytes: &[u8]| read(bytes).unwrap_err().to_string();
    assert_eq!(sentence(b""), "not an ONNX model: expected a ModelProto, found an empty file");
    assert!(
        sentence(b"%PDF-1.7 hello").starts_with("not an ONNX model: expected a ModelProto, found 14 bytes")
    );
    assert_eq!(sentence(&[8, 10]), "no graph: expected a ModelProto with a graph, found none");
    assert_eq!(
        sentence(&GraphBuilder::new("g").bytes()),
        "no graph: expected a ModelProto with a graph, found one without outputs"
    );
    let whole = gru();
    let cut = sentence(&whole[..whole.len() - 40]);
    assert!(cut.starts_with("cut short: expected a whole ModelProto, found "), "{cut}");
}

#[test]
fn a_surface_that_is_no_tensor_of_ours_is_refused_by_name() {
    let refused = |info: ValueInfoProto| {
        let mut plan = GraphBuilder::new("g");
        plan.output("y", Dtype::F32, &[]).graph_mut().input.push(info);
        read(&plan.bytes()).unwrap_err().to_string()
    };
    let known = "f32, f64, f16, bf16, i8, i16, i32, i64, u8, u16, u32, u64, bool";
    for (number, word) in
        [(8, "string"), (14, "complex64"), (21, "uint4"), (0, "no element type"), (99, "element type 99")]
    {
        assert_eq!(
            refused(value_info("x", number, Some(&[]))),
            format!("input `x`: expected a tensor of {known}, found {word}")
        );
    }
    let of_type = |value| ValueInfoProto {
        name: "x".into(),
        r#type: Some(TypeProto { value, denotation: String::new() }),
        ..ValueInfoProto::default()
    };
    let sequence = type_proto::Value::SequenceType(Box::new(Sequence { elem_type: None }));
    let optional = type_proto::Value::OptionalType(Box::new(Optional { elem_type: None }));
    assert!(refused(of_type(Some(sequence))).ends_with("found a sequence"));
    assert!(refused(of_type(Some(optional))).ends_with("found an optional"));
    assert!(refused(of_type(None)).ends_with("found no type"));
    assert_eq!(
        refused(value_info("x", 1, None)),
        "input `x`: expected a shape (its lengths may be symbols), found none"
    );
    assert!(refused(value_info("", 1, Some(&[]))).ends_with("found one without"));
}

#[test]
fn a_name_that_stands_twice_is_refused() {
    let mut plan = GraphBuilder::new("g");
    plan.input("x", Dtype::F32, &[]).input("x", Dtype::F32, &[]).output("x", Dtype::F32, &[]);
    assert!(matches!(read(&plan.bytes()), Err(GraphError::Name { side: Side::Input, .. })));
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        let _ = read(&bytes);
    }

    #[test]
    fn a_damaged_model_never_panics(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = gru();
        for (at, byte) in flips {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Err(refused) = read(&bytes) {
            prop_assert!(refused.to_string().len() < 1024);
        }
        bytes.truncate(cut.index(bytes.len()));
        let _ = read(&bytes);
    }

    #[test]
    fn a_deep_nest_of_graphs_is_refused_before_the_stack_ends(depth in 0usize..3000) {
        let field = |number: u8, inner: Vec<u8>| {
            let mut bytes = vec![number << 3 | 2];
            prost::encode_length_delimiter(inner.len(), &mut bytes).unwrap();
            bytes.extend(inner);
            bytes
        };
        let mut graph = GraphBuilder::new("leaf").graph_mut().encode_to_vec();
        for _ in 0..depth {
            graph = field(1, field(5, field(6, graph)));
        }
        graph.extend(field(12, value_info("y", 1, Some(&[])).encode_to_vec()));
        prop_assert_eq!(read(&field(7, graph)).is_ok(), depth < 33);
    }
}
