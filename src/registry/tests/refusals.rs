use super::repository::{Repository, STEP, npy, safetensors, step};
use crate::domain::tensor::Dtype;
use crate::graph::Dim;
use crate::graph::build::{Attribute, GraphBuilder};

/// The sentence of a model `m` with this manifest and graph.
fn said(manifest: &str, graph: Vec<u8>) -> String {
    let repository = Repository::new();
    repository.put("m/model.toml", manifest).put("m/1/model.onnx", graph);
    repository.registry.first_scan();
    repository.fault("m")
}

/// The sentence of the step model with its manifest changed.
fn said_of_step(from: &str, to: &str) -> String {
    assert!(STEP.contains(from), "{from}");
    said(&STEP.replace(from, to), step())
}

fn batch() -> Dim {
    "batch".into()
}

/// One input x, one output y, joined by `op`.
fn through(op: &str, from: &[Dim], to: &[Dim]) -> Vec<u8> {
    GraphBuilder::new("through")
        .input("x", Dtype::F32, from)
        .node(op, &["x"], &["y"])
        .output("y", Dtype::F32, to)
        .bytes()
}

const XY: &str = "[[input]]\nname = \"x\"\ntensor = \"x\"\n[[output]]\ntensor = \"y\"\nrole = \"latent\"\n";

#[test]
fn what_a_manifest_says_must_be_in_the_graph_on_its_side_with_its_shape() {
    for (from, to, sentence) in [
        (
            "tensor = \"u\"",
            "tensor = \"uu\"",
            "m/model.toml: input[0].tensor: expected an input of the graph (there are: u, v0), found `uu`",
        ),
        (
            "tensor = \"u\"",
            "tensor = \"vraw\"",
            "m/model.toml: input[0].tensor: expected an input of the graph (there are: v0, u), found `vraw`, which is an output of it",
        ),
        (
            "tensor = \"v\"",
            "tensor = \"w\"",
            "m/model.toml: output[0].tensor: expected an output of the graph (there are: v, vraw, v_next), found `w`",
        ),
        (
            "channels = 3",
            "channels = 4",
            "m/model.toml: input[0].channels: expected 3, as `u` has (f32 [batch, 3]), found 4",
        ),
        (
            "channels = 3",
            "mask_tensor = \"v0\"",
            "m/model.toml: state[0].input: expected a tensor of its own, found `v0`, which input[0].mask_tensor feeds",
        ),
        (
            "labels = [\"x\", \"y\"]",
            "labels = [\"x\"]",
            "m/model.toml: output[0].labels: expected 2, one per value of `v`, found 1",
        ),
        (
            "channels = 3",
            "preprocess = [{ op = \"zscore\", mode = \"fixed\", mean = [1.0, 2.0], std = [1.0] }]",
            "m/model.toml: input[0].preprocess[0].mean: expected 3 numbers, one per channel, found 2",
        ),
        (
            "channels = 3",
            "batch_axis = 2",
            "m/model.toml: input[0].batch_axis: expected an axis of input `u` (f32 [batch, 3]), found 2",
        ),
        (
            "channels = 3",
            "channels_file = \"channels.csv\"",
            "m/model.toml: input[0].channels_file: expected a file in the version's directory or beside the manifest, found none of the name `channels.csv`",
        ),
        (
            "[[state]]\ninput = \"v0\"\noutput = \"v_next\"",
            "",
            "m/1/model.onnx: input `v0` (f32 [batch, 2]): expected [[input]], [[static]], [[state]], [[noise]] or mask_tensor for it in m/model.toml, found none",
        ),
        (
            "output = \"v_next\"",
            "output = \"v_nxt\"",
            "m/model.toml: state[0].output: expected an output of the graph (there are: v_next, v, vraw), found `v_nxt`",
        ),
        ("kind = \"decoder\"", "kind = \"decodr\"", "m/model.toml: kind: expected one of encoder,"),
        (
            "kind = \"decoder\"",
            "[serve]\ndevice = \"cuda:7\"",
            "m/1/model.onnx: serve.device: expected a graph that the runtime takes, found cuda:7: ",
        ),
    ] {
        let said = said_of_step(from, to);
        assert!(said.contains(sentence), "{said}\n not {sentence}");
    }
}

#[test]
fn a_state_pair_must_have_one_dtype_and_one_shape() {
    let graph = |dtype, dims: &[Dim]| {
        GraphBuilder::new("g")
            .input("x", Dtype::F32, &[batch(), 3.into()])
            .input("h", Dtype::F32, &[batch(), 3.into()])
            .node("Add", &["x", "h"], &["y"])
            .node_with("Cast", &["y"], &["hn"], [Attribute::int("to", i64::from(Dtype::onnx(dtype)))])
            .output("y", Dtype::F32, &[batch(), 3.into()])
            .output("hn", dtype, dims)
            .bytes()
    };
    let manifest = format!("{XY}[[state]]\ninput = \"h\"\noutput = \"hn\"\n");
    assert!(
        said(&manifest, graph(Dtype::F64, &[batch(), 3.into()])).contains(
            "m/model.toml: state[0].output: expected f32, as its input `h` is, found f64 [batch, 3]"
        )
    );
    assert!(said(&manifest, graph(Dtype::F32, &[batch(), 4.into()])).contains(
        "m/model.toml: state[0].output: expected the shape of its input `h` (f32 [batch, 3]), found f32 [batch, 4]"
    ));
}

#[test]
fn a_states_file_must_hold_one_row_of_it() {
    let repository = Repository::new();
    let manifest = STEP.replace("output = \"v_next\"", "output = \"v_next\"\ninit = \"file:v0.npy\"");
    for (model, bytes) in
        [("wide", npy(&[3], &[1.0; 3])), ("cut", npy(&[2], &[1.0; 1])), ("none", Vec::new())]
    {
        repository
            .put(&format!("{model}/model.toml"), &manifest)
            .put(&format!("{model}/1/model.onnx"), step())
            .put(&format!("{model}/1/v0.npy"), bytes);
    }
    repository.registry.first_scan();
    for (model, sentence) in [
        (
            "wide",
            "wide/model.toml: state[0].init: expected a row of `v0` (f32 [batch, 2]), found f32 [3] in `v0.npy`",
        ),
        ("cut", "expected 8 bytes of data for f32 [2], found 4 bytes"),
        ("none", "none/1/v0.npy: byte 0: expected an .npy file"),
    ] {
        let said = repository.fault(model);
        assert!(said.contains(sentence), "{said}\n not {sentence}");
    }
}

#[test]
fn a_batch_axis_fixed_at_another_number_is_refused_by_name() {
    let said = said(XY, through("Identity", &[4.into(), 3.into()], &[4.into(), 3.into()]));
    assert!(
        said.contains(
            "m/1/model.onnx: input `x`: expected a batch of any size along axis 0 (or batch_axis in the manifest), \
             found f32 [4, 3], fixed at 4"
        ),
        "{said}"
    );
}

#[test]
fn outputs_that_are_not_finite_are_refused_from_silence_and_from_drawn_inputs() {
    let dims = [batch(), 3.into()];
    let said_log = said(XY, through("Log", &dims, &dims));
    assert!(
        said_log.contains(
            "m/1/model.onnx: output `y`: expected finite values from silent inputs, found -inf at element 0"
        ),
        "{said_log}"
    );
    let over = GraphBuilder::new("over")
        .input("x", Dtype::F32, &dims)
        .f32("zero", &[1], &[0.0])
        .node("Div", &["x", "zero"], &["y"])
        .output("y", Dtype::F32, &dims)
        .bytes();
    assert!(
        said(XY, over.clone()).contains("expected finite values from silent inputs, found NaN at element 0")
    );
    let repository = Repository::new();
    repository.put("plain/1/model.onnx", over);
    repository.registry.first_scan();
    assert!(repository.fault("plain").contains("expected finite values from inputs in [0, 1), found inf"));
}

#[test]
fn what_is_known_and_not_served_yet_says_so() {
    for (manifest, sentence) in [
        (
            format!("mode = \"trial\"\n[trial]\nmax_bins = 5\n{XY}"),
            "mode: expected step or window, found `trial`",
        ),
        (
            format!(
                "mode = \"window\"\n[window]\nsize_bins = 5\n{XY}[[state]]\ninput = \"h\"\noutput = \"hn\"\n"
            ),
            "state: expected no [[state]] with mode = \"window\", found 1 of them",
        ),
        (format!("{XY}[[noise]]\ntensor = \"eps\"\n"), "noise: expected no noise inputs, found 1 of them"),
        (
            format!("{XY}[[state]]\ninput = \"h\"\noutput = \"hn\"\nkind = \"ring\"\naxis = 1\nmax = 5\n"),
            "state[0].kind: expected fixed, found `ring`",
        ),
        (
            format!("{XY}[[tap]]\ntensor = \"y\"\nname = \"t\"\nedit = true\n"),
            "tap[0].edit: expected false, found `true`",
        ),
        (
            format!("{XY}[[tap]]\ntensor = \"inner\"\n"),
            "tap[0].tensor: expected an output of the graph, found `inner`, an inner tensor or none",
        ),
    ] {
        let dims = [batch(), 3.into()];
        let said = said(&manifest, through("Identity", &dims, &dims));
        assert!(said.contains(sentence), "{said}\n not {sentence}");
        assert!(said.contains(", which this version does not serve yet"), "{said}");
    }
    let open = said(XY, through("Identity", &[batch(), "n".into()], &[batch(), "n".into()]));
    assert!(
        open.contains("input[0].tensor: expected a row whose lengths are fixed, found f32 [batch, n], which"),
        "{open}"
    );
}

#[test]
fn external_data_must_be_there_and_long_enough() {
    let graph = |location: &str| {
        GraphBuilder::new("g")
            .input("x", Dtype::F32, &[batch(), 3.into()])
            .external("w", Dtype::F32, &[3], location, 8)
            .node("Mul", &["x", "w"], &["y"])
            .output("y", Dtype::F32, &[batch(), 3.into()])
            .bytes()
    };
    let repository = Repository::new();
    repository.put("good/1/model.onnx", graph("w.bin")).put("good/1/w.bin", [0; 20]);
    // Beside the manifest is not the version's own directory.
    repository.put("absent/1/model.onnx", graph("w.bin")).put("absent/w.bin", [0; 20]);
    repository.put("short/1/model.onnx", graph("w.bin")).put("short/1/w.bin", [0; 19]);
    repository.put("path/1/model.onnx", graph("../good/1/w.bin"));
    repository.registry.first_scan();
    assert_eq!(repository.ready("good").max_batch, 256);
    for (model, sentence) in [
        (
            "absent",
            "absent/1/w.bin: expected the external data that absent/1/model.onnx names, found nothing",
        ),
        ("short", "short/1/w.bin: tensor `w`: expected at least 20 bytes, found 19 bytes"),
        (
            "path",
            "path/1/model.onnx: expected an ONNX model that can be served, found tensor `w`: expected its external data",
        ),
    ] {
        let said = repository.fault(model);
        assert!(said.contains(sentence), "{said}\n not {sentence}");
    }
}

#[test]
fn an_example_that_differs_is_refused_with_bin_output_got_and_expected_or_shown() {
    let inputs: &[f32] = &[1.0, 0.0, 0.0, 0.0, 1.0, 0.0];
    // v[0] = m2 u + m0 = (1.5, 3.5); v[1] = m1 v[0] + (2.5, 4.5) = (4.125, 8.0)
    let right: &[f32] = &[1.5, 3.5, 4.125, 8.0];
    let example = |out: &[f32]| safetensors(&[("in.u", &[2, 3], inputs), ("out.v", &[2, 2], out)]);
    let warn = format!("{STEP}[example]\nfile = \"example.safetensors\"\ncheck = \"warn\"\n");
    let loose = format!("{STEP}[example]\nfile = \"example.safetensors\"\nrel = 0.2\n");
    let named = format!("{STEP}[example]\nfile = \"other.safetensors\"\n");
    let wrong: &[f32] = &[1.5, 3.5, 4.125, 8.5];
    let repository = Repository::new();
    for (model, manifest, bytes) in [
        ("right", STEP, example(right)),
        ("wrong", STEP, example(wrong)),
        ("warned", &warn, example(wrong)),
        ("loose", &loose, example(wrong)),
        ("cut", STEP, example(right)[..40].to_vec()),
        ("other", STEP, safetensors(&[("in.w", &[2, 3], inputs), ("out.v", &[2, 3], inputs)])),
        ("uneven", STEP, safetensors(&[("in.u", &[2, 3], inputs), ("out.v", &[1, 2], &right[..2])])),
        ("absent", &named, Vec::new()),
    ] {
        repository
            .put(&format!("{model}/model.toml"), manifest)
            .put(&format!("{model}/1/model.onnx"), step())
            .put(&format!("{model}/1/example.safetensors"), bytes);
    }
    repository.put_good("without");
    repository.registry.first_scan();
    assert_eq!(repository.ready("right").example.to_string(), "equal in 2 bins (rel 1e-5, abs 1e-5)");
    assert_eq!(repository.ready("loose").example.to_string(), "equal in 2 bins (rel 2e-1, abs 1e-5)");
    assert_eq!(repository.ready("without").example.to_string(), "none: nothing vouches for its numbers");
    let sentence = "1/example.safetensors: bin 1, output `v`, element 1: expected 8.5 within rel 1e-5, abs 1e-5, found 8";
    assert!(repository.ready("warned").example.to_string().contains(sentence));
    for (model, sentence) in [
        ("wrong", sentence),
        ("cut", "cut/1/example.safetensors: expected a safetensors file, found "),
        (
            "other",
            "other/1/example.safetensors: `in.w`: expected a tensor of the graph (there are: u, v0), found none",
        ),
        ("other", "`out.v`: expected f32 [T, …] with rows of [2], found F32 [2, 3]"),
        ("other", "`in.u`: expected every streamed input, found none"),
        ("uneven", "uneven/1/example.safetensors: `out.v`: expected 2 bins, as `in.u` has, found 1"),
        (
            "absent",
            "absent/model.toml: example.file: expected a file in the version's directory or beside the manifest, found none of the name `other.safetensors`",
        ),
    ] {
        let said = repository.fault(model);
        assert!(said.contains(sentence), "{said}\n not {sentence}");
    }
}

#[test]
fn channels_of_a_file_must_be_as_many_as_the_graph_takes() {
    let repository = Repository::new();
    let manifest = STEP.replace("channels = 3", "channels_file = \"channels.csv\"");
    repository
        .put("m/model.toml", &manifest)
        .put("m/1/model.onnx", step())
        .put("m/channels.csv", "name\na\nb\n");
    repository.registry.first_scan();
    let said = repository.fault("m");
    assert!(
        said.contains("m/model.toml: input[0].channels_file: expected 3 channels, as `u` has (f32 [batch, 3]), found 2 rows"),
        "{said}"
    );
}
