use sha2::{Digest as _, Sha256};

use super::repository::{Repository, STEP, engine, npy, safetensors, step, twice};
use crate::domain::tensor::{Dtype, Tensor};
use crate::graph::Dim;
use crate::graph::build::{Attribute, GraphBuilder};
use crate::registry::check;
use crate::registry::manifest::ModelKind;
use crate::registry::surface::Initial;

fn batch() -> Dim {
    "batch".into()
}

const XY: &str = "[[input]]\nname = \"x\"\ntensor = \"x\"\n[[output]]\ntensor = \"y\"\nrole = \"latent\"\n";

#[test]
fn a_step_model_is_bound_as_its_manifest_says() {
    let repository = Repository::new();
    let manifest = STEP
        .replace("channels = 3", "channels_file = \"channels.csv\"\npreprocess = [{ op = \"smooth\", kernel = \"exponential\", tau_ms = 60.0 }]")
        .replace("output = \"v_next\"", "output = \"v_next\"\ninit = \"file:v0.npy\"");
    repository
        .put("m/model.toml", &manifest)
        .put("m/1/model.onnx", step())
        .put("m/v0.npy", npy(&[2], &[9.0, 9.0]))
        .put("m/1/v0.npy", npy(&[1, 2], &[0.5, -0.5]))
        .put("m/channels.csv", "name,electrode\na,e1\nb,e2\nc,e3\n");
    repository.registry.first_scan();
    let ready = repository.ready("m");
    assert_eq!(ready.manifest.kind, ModelKind::Decoder);
    let (input, bound) = ready.input("spikes").unwrap();
    assert_eq!((input.bin_ms, bound.port, bound.channels), (Some(20.0), 0, 3));
    assert_eq!(ready.channels[0].as_ref().unwrap()[1].electrode, "e2");
    let state = &ready.states[0];
    assert_eq!((state.input_port, state.output_port), (1, 1));
    // The file beside the graph comes before the one beside the manifest.
    assert_eq!(state.init, Initial::Tensor(Tensor::from_f32(&[2], &[0.5, -0.5])));
    let output = ready.output("velocity").unwrap();
    assert_eq!((output.port, output.labels.len()), (0, 2));
    assert_eq!(ready.output_ports()[0].row_shape, [2]);
    assert_eq!((ready.device.as_str(), ready.max_batch, ready.batch_invariant.exact), ("cpu", 256, true));
    assert_eq!(ready.memory_bytes, 2 * step().len() as u64);
    assert!(ready.lane.run_time(1).is_some());
    assert_eq!(ready.not_streamed, None);
}

#[test]
fn the_digest_is_sha256_over_the_named_files_sorted_by_name() {
    let repository = Repository::new();
    let manifest = STEP.replace("output = \"v_next\"", "output = \"v_next\"\ninit = \"file:v0.npy\"");
    let graph = GraphBuilder::new("g")
        .input("u", Dtype::F32, &[batch(), 3.into()])
        .input("v0", Dtype::F32, &[batch(), 2.into()])
        .external("w", Dtype::F32, &[3, 2], "weights.bin", 0)
        .node("MatMul", &["u", "w"], &["vraw"])
        .node("Add", &["vraw", "v0"], &["v"])
        .node("Identity", &["v"], &["v_next"])
        .output("v", Dtype::F32, &[batch(), 2.into()])
        .output("v_next", Dtype::F32, &[batch(), 2.into()])
        .bytes();
    let files: [(&str, &str, Vec<u8>); 4] = [
        ("m/1/model.onnx", "model.onnx", graph),
        ("m/model.toml", "model.toml", manifest.clone().into()),
        ("m/v0.npy", "v0.npy", npy(&[2], &[0.0, 0.0])),
        ("m/1/weights.bin", "weights.bin", vec![0; 24]),
    ];
    for (path, _, bytes) in &files {
        repository.put(path, bytes);
    }
    // Not named by anything: not part of the digest.
    repository.put("m/1/notes.txt", "x").put("m/README.md", "y");
    repository.registry.first_scan();
    let hex =
        |bytes: &[u8]| Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let lines: String = files.iter().map(|(_, name, bytes)| format!("{}  {name}\n", hex(bytes))).collect();
    assert_eq!(repository.ready("m").digest.to_string(), format!("sha256:{}", hex(lines.as_bytes())));
}

#[test]
fn a_graph_without_manifest_is_served_as_it_is() {
    let repository = Repository::new();
    repository.put("plain/1/model.onnx", twice(3)).put("other-name/1/net.onnx", twice(3));
    let two = GraphBuilder::new("two")
        .input("a.1", Dtype::F32, &[batch(), 3.into()])
        .input("b:0", Dtype::F32, &[batch(), 3.into()])
        .node("Add", &["a.1", "b:0"], &["y"])
        .output("y", Dtype::F32, &[batch(), 3.into()])
        .bytes();
    repository.put("two/1/model.onnx", two);
    // A manifest that declares no tensors adds words alone.
    repository.put("described/model.toml", "description = \"twice\"").put("described/1/model.onnx", twice(3));
    repository.registry.first_scan();
    for model in ["plain", "other-name", "described"] {
        let ready = repository.ready(model);
        assert_eq!((ready.manifest.kind, ready.inputs.len(), ready.outputs.len()), (ModelKind::Plain, 1, 1));
        assert_eq!(ready.output("y").unwrap().role, crate::domain::output::OutputRole::Decoded);
        assert_eq!(repository.registry.pipeline(model, None).unwrap().stages[0].inputs.len(), 1);
    }
    let two = repository.ready("two");
    assert_eq!(two.input("a.1").unwrap().1.port, 0);
    let said = repository.registry.pipeline("two", None).unwrap_err().to_string();
    assert_eq!(said, "no session can be opened on two/1: it has no model.toml, and 2 inputs instead of one");
}

#[test]
fn a_batch_axis_is_found_where_the_shared_symbol_stands() {
    let state = [1.into(), batch(), 4.into()];
    let gru = GraphBuilder::new("gru")
        .input("x", Dtype::F32, &[batch(), 3.into()])
        .input("h0", Dtype::F32, &state)
        .i64("first", &[1], &[0])
        .f32("w", &[1, 12, 3], &[0.1; 36])
        .f32("r", &[1, 12, 4], &[0.2; 48])
        .node("Unsqueeze", &["x", "first"], &["seq"])
        .node_with("GRU", &["seq", "w", "r", "", "", "h0"], &["", "hn"], [Attribute::int("hidden_size", 4)])
        .node("Squeeze", &["hn", "first"], &["y"])
        .output("y", Dtype::F32, &[batch(), 4.into()])
        .output("hn", Dtype::F32, &state)
        .bytes();
    let manifest = format!("{XY}[[state]]\ninput = \"h0\"\noutput = \"hn\"\n");
    let repository = Repository::new();
    repository.put("gru/model.toml", manifest).put("gru/1/model.onnx", gru);
    repository.registry.first_scan();
    let ready = repository.ready("gru");
    let port = &ready.input_ports()[1];
    assert_eq!((port.batch_axis, &port.row_shape[..]), (Some(1), &[1, 4][..]));
    assert_eq!((ready.max_batch, ready.batch_invariant.exact), (256, true));
}

#[test]
fn a_batch_that_is_fixed_or_baked_in_is_served_one_by_one_and_says_so() {
    let fixed = [1.into(), 3.into()];
    let one = GraphBuilder::new("one")
        .input("x", Dtype::F32, &fixed)
        .node("Add", &["x", "x"], &["y"])
        .output("y", Dtype::F32, &fixed)
        .bytes();
    let open = [batch(), 3.into()];
    let baked = GraphBuilder::new("baked")
        .input("x", Dtype::F32, &open)
        .i64("shape", &[2], &[1, 3])
        .node("Reshape", &["x", "shape"], &["y"])
        .output("y", Dtype::F32, &open)
        .bytes();
    // Softmax over the batch: a row depends on its neighbours.
    let mixing = GraphBuilder::new("mixing")
        .input("x", Dtype::F32, &open)
        .node_with("Softmax", &["x"], &["y"], [Attribute::int("axis", 0)])
        .output("y", Dtype::F32, &open)
        .bytes();
    let repository = Repository::new();
    for (model, graph) in [("one", one), ("baked", baked), ("mixing", mixing)] {
        repository.put(&format!("{model}/model.toml"), XY).put(&format!("{model}/1/model.onnx"), graph);
    }
    repository.registry.first_scan();
    for (model, note) in [
        ("one", "max_batch is 1: the batch axis of input `x` is fixed at 1"),
        (
            "baked",
            "max_batch is 1: the graph names a batch of any size, but has one baked in (a run of 2 rows: ",
        ),
        ("mixing", "max_batch is 1: a row in a batch differed by "),
    ] {
        let ready = repository.ready(model);
        assert_eq!(ready.max_batch, 1);
        assert!(ready.notes.iter().any(|said| said.starts_with(note)), "{:?}", ready.notes);
    }
    let (table, all_well) = check::table(repository.root(), engine());
    assert!(all_well, "{table}");
    assert!(table.ends_with("3 checked, all well\n"), "{table}");
}

#[test]
fn masks_statics_and_values_for_the_whole_batch_have_their_ports() {
    let graph = GraphBuilder::new("g")
        .input("gain", Dtype::F32, &[3.into()])
        .input("x", Dtype::F32, &[batch(), 3.into()])
        .input("m", Dtype::F32, &[batch(), 3.into()])
        .input("pos", Dtype::F32, &[batch(), 3.into()])
        .input("h", Dtype::F32, &[batch(), 3.into()])
        .node("Mul", &["x", "m"], &["a"])
        .node("Mul", &["a", "gain"], &["b"])
        .node("Add", &["b", "pos"], &["c"])
        .node("Add", &["c", "h"], &["y"])
        .output("y", Dtype::F32, &[batch(), 3.into()])
        .bytes();
    let manifest = r#"
[[input]]
name = "x"
tensor = "x"
mask_tensor = "m"
[[static]]
name = "gain"
tensor = "gain"
batch_axis = "none"
[[static]]
name = "positions"
tensor = "pos"
required = false
[[static]]
name = "start"
[[state]]
input = "h"
output = "y"
init = "static:start"
[[output]]
tensor = "y"
role = "latent"
[[tap]]
tensor = "y"
name = "inner"
"#;
    let repository = Repository::new();
    repository.put("m/model.toml", manifest).put("m/1/model.onnx", graph);
    repository.registry.first_scan();
    let ready = repository.ready("m");
    assert_eq!((ready.inputs[0].port, ready.inputs[0].mask_port), (1, Some(2)));
    assert_eq!(ready.input_ports()[0].batch_axis, None);
    let statics: Vec<_> = ready.statics.iter().map(|s| (s.name.as_str(), s.port, s.required)).collect();
    assert_eq!(statics, [("gain", Some(0), true), ("positions", Some(3), false), ("start", None, true)]);
    assert_eq!(ready.states[0].init, Initial::Static("start".into()));
    // A state's output is an output, too.
    assert_eq!(ready.states[0].output_port, ready.output("y").unwrap().port);
    assert_eq!(ready.output("inner").unwrap().role, crate::domain::output::OutputRole::Tap);
}

#[test]
fn a_static_is_not_taken_for_silence_and_an_example_must_give_it() {
    let dims = [batch(), 3.into()];
    let graph = GraphBuilder::new("g")
        .input("x", Dtype::F32, &dims)
        .input("scale", Dtype::F32, &dims)
        .node("Div", &["x", "scale"], &["y"])
        .output("y", Dtype::F32, &dims)
        .bytes();
    let manifest = format!("{XY}[[static]]\nname = \"scale\"\ntensor = \"scale\"\n");
    let (x, y): (&[f32], &[f32]) = (&[1.0, 2.0, 3.0], &[0.5, 1.0, 1.5]);
    let example = safetensors(&[("in.x", &[1, 3], x), ("out.y", &[1, 3], y)]);
    let whole = safetensors(&[("in.x", &[1, 3], x), ("in.scale", &[1, 3], &[2.0; 3]), ("out.y", &[1, 3], y)]);
    let repository = Repository::new();
    for (model, bytes) in [("without", example), ("whole", whole)] {
        repository
            .put(&format!("{model}/model.toml"), &manifest)
            .put(&format!("{model}/1/model.onnx"), &graph)
            .put(&format!("{model}/1/example.safetensors"), bytes);
    }
    repository.registry.first_scan();
    assert!(repository.ready("whole").example.to_string().starts_with("equal in 1 bins"));
    let said = repository.fault("without");
    assert!(said.contains("`in.scale`: expected the static `scale`, found none"), "{said}");
}

#[test]
fn an_empty_repository_is_well_and_one_that_is_not_there_is_not() {
    let repository = Repository::new();
    assert!(check::table(repository.root(), engine()).1);
    let (table, all_well) = check::table(&repository.path("absent"), engine());
    assert!(!all_well);
    assert!(
        table.contains("expected the model repository: a directory that can be read, found no such file"),
        "{table}"
    );
}

/// What stands in `models/` is what the demo streams through.
#[test]
fn the_bundled_models_are_well_and_their_examples_vouch_for_them() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    let (table, all_well) = check::table(&root, engine());
    assert!(all_well, "{table}");
    let models =
        std::fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    for model in models.filter(|name| name != "pipelines") {
        let line = table.lines().find(|line| line.starts_with(&model)).expect(&model);
        assert!(line.contains(" equal in ") && line.ends_with("  ok"), "{table}");
    }
}
