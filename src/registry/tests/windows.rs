use super::repository::{Repository, engine, safetensors};
use crate::domain::tensor::Dtype;
use crate::graph::Dim;
use crate::graph::build::{Attribute, GraphBuilder};
use crate::registry::check;

fn batch() -> Dim {
    "batch".into()
}

/// y = the mean of x [.., bins, channels] over its bins.
fn mean(x: &[Dim], y: &[Dim]) -> Vec<u8> {
    GraphBuilder::new("mean")
        .input("x", Dtype::F32, x)
        .i64("axis", &[1], &[1])
        .node_with("ReduceMean", &["x", "axis"], &["y"], [Attribute::int("keepdims", 0)])
        .output("y", Dtype::F32, y)
        .bytes()
}

fn manifest(size_bins: u32, hop_bins: u32, of_input: &str) -> String {
    format!(
        "mode = \"window\"\n[window]\nsize_bins = {size_bins}\nhop_bins = {hop_bins}\n\
         [[input]]\nname = \"x\"\ntensor = \"x\"\n{of_input}\n[[output]]\ntensor = \"y\"\nrole = \"latent\"\n"
    )
}

fn said(manifest: &str, graph: Vec<u8>) -> String {
    let repository = Repository::new();
    repository.put("m/model.toml", manifest).put("m/1/model.onnx", graph);
    repository.registry.first_scan();
    repository.fault("m")
}

#[test]
fn the_bins_of_a_window_stand_behind_the_batch_whether_the_graph_fixes_them_or_not() {
    let repository = Repository::new();
    let y = [batch(), 2.into()];
    for (model, x, y) in [
        ("fixed", vec![batch(), 4.into(), 2.into()], y.clone()),
        ("open", vec![batch(), "time".into(), 2.into()], y.clone()),
        ("all-open", vec![batch(), "time".into(), "channel".into()], y.clone()),
        ("lone", vec![1.into(), "time".into(), 2.into()], [1.into(), 2.into()]),
    ] {
        repository
            .put(&format!("{model}/model.toml"), manifest(4, 2, "channels = 2"))
            .put(&format!("{model}/1/model.onnx"), mean(&x, &y));
    }
    repository.registry.first_scan();
    for model in ["fixed", "open", "all-open", "lone"] {
        let ready = repository.ready(model);
        let port = &ready.input_ports()[0];
        assert_eq!((port.batch_axis, &port.row_shape[..]), (Some(0), &[4, 2][..]), "{model}");
        assert_eq!((ready.inputs[0].channels, ready.max_batch), (2, if model == "lone" { 1 } else { 256 }));
        assert!(ready.batch_invariant.exact && ready.not_streamed.is_none());
    }
    let (table, all_well) = check::table(repository.root(), engine());
    assert!(all_well && table.contains("  window  cpu     x[4,2]  y[2]  "), "{table}");
}

#[test]
fn what_cannot_be_a_window_is_refused_by_key() {
    let (x, y) = ([batch(), 4.into(), 2.into()], [batch(), 2.into()]);
    for (manifest, graph, sentence) in [
        (
            manifest(5, 1, ""),
            mean(&x, &y),
            "m/model.toml: window.size_bins: expected 4, as `x` has (f32 [batch, 4, 2]), found 5",
        ),
        (
            manifest(4, 1, "channels = 3"),
            mean(&x, &y),
            "m/model.toml: input[0].channels: expected 2, as `x` has (f32 [batch, 4, 2]), found 3",
        ),
        (
            manifest(4, 1, ""),
            mean(&[batch(), 4.into()], &[batch()]),
            "m/model.toml: input[0].tensor: expected [batch, bins, channels] in a window, found f32 [batch, 4]",
        ),
        (
            manifest(4, 1, ""),
            mean(&[batch(), 4.into(), 2.into(), 3.into()], &[batch(), 2.into(), 3.into()]),
            "input[0].tensor: expected [batch, bins, channels] with mode = \"window\", found f32 [batch, 4, 2, 3]",
        ),
        (
            manifest(4, 1, "type = \"frames\""),
            mean(&x, &y),
            "input[0].tensor: expected [batch, bins, channels, height, width] with type = \"frames\", found f32 [batch, 4, 2]",
        ),
    ] {
        let said = said(&manifest, graph);
        assert!(said.contains(sentence), "{said}\n not {sentence}");
    }
    let whole = GraphBuilder::new("whole")
        .input("x", Dtype::F32, &x)
        .i64("axis", &[1], &[1])
        .node_with("ReduceSum", &["x", "axis"], &["sum"], [Attribute::int("keepdims", 0)])
        .node_with("Cast", &["sum"], &["y"], [Attribute::int("to", i64::from(Dtype::I64.onnx()))])
        .output("y", Dtype::I64, &y)
        .bytes();
    let said = said(&manifest(4, 2, ""), whole);
    let sentence = "output[0].tensor: expected a float, since it is NaN in the bins between two windows (hop_bins > 1), found i64 [batch, 2]";
    assert!(said.contains(sentence), "{said}");
}

#[test]
fn an_example_of_a_window_is_bins_along_which_it_slides_or_whole_windows() {
    // One channel, six bins 0 to 5, windows of 4 every 2: means 1.5 and 3.5, with bins 3 and 5.
    let bins: Vec<f32> = (0..6).map(|k| k as f32).collect();
    let slid = |at_5: f32| [9.0, 9.0, 9.0, 1.5, 9.0, at_5];
    let windows: Vec<f32> = [0, 2].iter().flat_map(|&from| (from..from + 4).map(|k| k as f32)).collect();
    let repository = Repository::new();
    for (model, bytes) in [
        ("slid", safetensors(&[("in.x", &[6, 1], &bins), ("out.y", &[6, 1], &slid(3.5))])),
        ("whole", safetensors(&[("in.x", &[2, 4, 1], &windows), ("out.y", &[2, 1], &[1.5, 3.5])])),
        ("wrong", safetensors(&[("in.x", &[6, 1], &bins), ("out.y", &[6, 1], &slid(4.5))])),
        ("short", safetensors(&[("in.x", &[3, 1], &bins[..3]), ("out.y", &[3, 1], &bins[..3])])),
        ("wide", safetensors(&[("in.x", &[3, 2], &bins), ("out.y", &[3, 1], &bins[..3])])),
    ] {
        repository
            .put(&format!("{model}/model.toml"), manifest(4, 2, ""))
            .put(&format!("{model}/1/model.onnx"), mean(&[batch(), 4.into(), 1.into()], &[batch(), 1.into()]))
            .put(&format!("{model}/1/example.safetensors"), bytes);
    }
    repository.registry.first_scan();
    for model in ["slid", "whole"] {
        assert_eq!(repository.ready(model).example.to_string(), "equal in 2 bins (rel 1e-5, abs 1e-5)");
    }
    for (model, sentence) in [
        ("wrong", "bin 5, output `y`, element 0: expected 4.5 within rel 1e-5, abs 1e-5, found 3.5"),
        ("short", "short/1/example.safetensors: expected at least 4 bins, found 3"),
        ("wide", "`in.x`: expected f32 [T, …] with rows of [1], or whole windows [4, 1], found F32 [3, 2]"),
    ] {
        let said = repository.fault(model);
        assert!(said.contains(sentence), "{said}\n not {sentence}");
    }
}

#[test]
fn an_image_has_the_last_two_axes_of_a_bin_and_its_channels_before_them() {
    let flat = |x: &[Dim], values: usize| {
        GraphBuilder::new("flat")
            .input("x", Dtype::F32, x)
            .node_with("Flatten", &["x"], &["y"], [Attribute::int("axis", 1)])
            .output("y", Dtype::F32, &[batch(), values.into()])
            .bytes()
    };
    let with = |of_input: &str| {
        format!(
            "[[input]]\nname = \"x\"\ntensor = \"x\"\nbin_ms = 10\n{of_input}\n\
             [[output]]\ntensor = \"y\"\nrole = \"latent\"\n"
        )
    };
    let repository = Repository::new();
    for (model, of_input, x) in [
        ("colour", "type = \"frames\"", vec![batch(), 3.into(), 4.into(), 5.into()]),
        ("told", "type = \"frames\"\nchannels = 3", vec![batch(), "c".into(), 4.into(), 5.into()]),
        ("grey", "type = \"frames\"", vec![batch(), 12.into(), 5.into()]),
        ("camera", "type = \"address_events\"", vec![batch(), 2.into(), 6.into(), 5.into()]),
    ] {
        repository
            .put(&format!("{model}/model.toml"), with(of_input))
            .put(&format!("{model}/1/model.onnx"), flat(&x, 60));
    }
    repository.registry.first_scan();
    for (model, channels, pixels) in [("colour", 3, 20), ("told", 3, 20), ("grey", 1, 60), ("camera", 2, 30)]
    {
        let ready = repository.ready(model);
        let bound = &ready.inputs[0];
        assert_eq!((bound.channels, bound.image.unwrap().pixels()), (channels, pixels), "{model}");
    }
    for (of_input, x, sentence) in [
        (
            "type = \"frames\"",
            vec![batch(), 60.into()],
            "input[0].tensor: expected [batch, channels, height, width] with type = \"frames\", found f32 [batch, 60]",
        ),
        (
            "type = \"address_events\"",
            vec![batch(), 3.into(), 4.into(), 5.into()],
            "input[0].tensor: expected one channel, or two (darker, brighter), with type = \"address_events\", found",
        ),
        (
            "type = \"frames\"\nchannels = 4",
            vec![batch(), 3.into(), 4.into(), 5.into()],
            "input[0].channels: expected 3, as `x` has (f32 [batch, 3, 4, 5]), found 4",
        ),
    ] {
        let said = said(&with(of_input), flat(&x, 60));
        assert!(said.contains(sentence), "{said}\n not {sentence}");
    }
}
