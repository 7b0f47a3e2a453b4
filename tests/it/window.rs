//! Models that take several bins at once, and models that take images: what each bin has, and what it has not.

use crate::support::models::Model;
use crate::support::{
    Latentd, Rig, Setup, bins, block, blocks, counts, flag_names, pipeline, recorded, says, signal,
};
use latentd::domain::tensor::{Dtype, Tensor};
use latentd::graph::Dim;
use latentd::graph::build::{Attribute, GraphBuilder};
use latentd::wire::{tensor, v1};

const CHANNELS: &str = "name\na\nb\n";

/// The mean over the last `size` bins of `spikes` (binned; `a`, `b`) as output `mean` (0), every `hop` bins.
fn mean(name: &'static str, size: usize, hop: usize) -> Model {
    let dims: [Dim; 3] = ["batch".into(), size.into(), 2.into()];
    let graph = GraphBuilder::new(name)
        .input("x", Dtype::F32, &dims)
        .i64("axis", &[1], &[1])
        .node_with("ReduceMean", &["x", "axis"], &["y"], [Attribute::int("keepdims", 0)])
        .output("y", Dtype::F32, &["batch".into(), 2.into()])
        .bytes();
    let manifest = format!(
        r#"
mode = "window"
[window]
size_bins = {size}
hop_bins = {hop}
[[input]]
name = "spikes"
tensor = "x"
type = "binned"
bin_ms = 10
channels_file = "channels.csv"
[[output]]
name = "mean"
tensor = "y"
role = "latent"
"#
    );
    Model { name, manifest, graph, files: vec![("channels.csv", CHANNELS.into())] }
}

/// s\[t\] = s\[t-1\] + z\[t\] of a latent z; output `sum` (0) = s.
fn adder() -> Model {
    let dims: [Dim; 2] = ["batch".into(), 2.into()];
    let graph = GraphBuilder::new("adder")
        .input("z", Dtype::F32, &dims)
        .input("s0", Dtype::F32, &dims)
        .node("Add", &["z", "s0"], &["s"])
        .node("Identity", &["s"], &["s_next"])
        .output("s", Dtype::F32, &dims)
        .output("s_next", Dtype::F32, &dims)
        .bytes();
    let manifest = r#"
[[input]]
name = "z"
tensor = "z"
type = "latent"
[[state]]
input = "s0"
output = "s_next"
[[output]]
name = "sum"
tensor = "s"
role = "latent"
"#;
    Model { name: "adder", manifest: manifest.into(), graph, files: vec![] }
}

/// Stages `window` (a model of `mean`) and `adder` behind it.
fn pipeline_of(model: &str) -> String {
    format!(
        r#"
[[stage]]
name = "window"
model = "{model}"
inputs = {{ spikes = "signal:spikes" }}
[[stage]]
name = "adder"
model = "adder"
inputs = {{ z = "window.mean" }}
"#
    )
}

async fn server() -> Latentd {
    Setup::bare()
        .model(mean("every", 4, 1))
        .model(mean("second", 4, 2))
        .model(mean("fifth", 4, 5))
        .model(adder())
        .file("pipelines/added.toml", pipeline_of("second"))
        .start()
        .await
}

fn ask(name: &str) -> v1::OpenRequest {
    recorded(pipeline(name, [signal("spikes", "binned", &["a", "b"])]))
}

/// Bin k's counts.
fn row(k: u64) -> [f32; 2] {
    [(k * k % 7) as f32, (3 * k % 5) as f32]
}

fn rows(bins: std::ops::Range<u64>) -> Vec<[f32; 2]> {
    bins.map(row).collect()
}

/// The mean of the four bins that end with `k`.
fn known(k: u64) -> [f32; 2] {
    let sum = (k - 3..=k).map(row).fold([0.0; 2], |sum, row| [sum[0] + row[0], sum[1] + row[1]]);
    sum.map(|sum| sum / 4.0)
}

/// Each bin has what `want` says; NaN in every element where that is `None`.
#[track_caller]
fn same(got: &[[f32; 2]], want: &[Option<[f32; 2]>]) {
    assert_eq!(got.len(), want.len());
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        match want {
            Some(want) => assert_eq!(got, want, "bin {i}"),
            None => assert!(got.iter().all(|x| x.is_nan()), "bin {i} has no window, and {got:?}"),
        }
    }
}

#[tokio::test]
async fn each_bin_has_the_window_that_ends_with_it_once_one_is_full_however_frames_are_cut() {
    let server = server().await;
    let want: Vec<_> = (0..40).map(|k| (k >= 3).then(|| known(k))).collect();
    let warm: Vec<_> = (0..40).map(|k| if k < 3 { vec!["warming_up"] } else { vec![] }).collect();
    for cut in [1, 3, 7, 40] {
        let mut line = server.line(ask("every")).await;
        let (mut got, mut flags, mut seq) = (Vec::new(), Vec::new(), 0);
        for first in (0..40).step_by(cut) {
            let last = (first + cut as u64).min(40);
            let output = line.send(counts(seq, first, &rows(first..last))).await;
            assert_eq!(bins(&output), first..last, "every bin is answered");
            got.extend(blocks::<2>(&output, 0));
            flags.extend(flag_names(&output));
            seq += 1;
        }
        same(&got, &want);
        assert_eq!(flags, warm);
        assert_eq!(line.end().await, []);
    }
    server.stop().await;
}

#[tokio::test]
async fn bins_between_two_hops_have_no_value_and_never_an_older_one() {
    let server = server().await;
    for (model, ends) in [("second", [3, 5, 7, 9, 11, 13]), ("fifth", [3, 8, 13, 99, 99, 99])] {
        let rig = server.open(ask(model)).await;
        let want: Vec<_> = (0..14).map(|k| ends.contains(&k).then(|| known(k))).collect();
        let output = rig.send(counts(0, 0, &rows(0..6))).await;
        same(&blocks(&output, 0), &want[..6]);
        assert_eq!(flag_names(&output)[2..4], [vec!["warming_up"], vec![]]);
        // By HTTP JSON a value that is none is null.
        for k in 6..14 {
            let output = rig.send(counts(k - 5, k, &rows(k..k + 1))).await;
            same(&blocks(&output, 0), &want[k as usize..k as usize + 1]);
            assert_eq!(flag_names(&output), [Vec::<&str>::new()]);
        }
        // What is recorded says the same.
        let run = rig.run().to_owned();
        assert_eq!(rig.close().await.bins, 14);
        let reply: v1::OutputsReply = server.get(&format!("/v1/runs/{run}/outputs/mean")).await.message();
        let [stretch] = &reply.stretches[..] else { panic!("one stretch, not {reply:?}") };
        let values = tensor::host("tensor", stretch.tensor.as_ref().unwrap()).unwrap().to_f64();
        let values: Vec<[f32; 2]> = values.chunks(2).map(|row| [row[0] as f32, row[1] as f32]).collect();
        same(&values, &want);
    }
    server.stop().await;
}

#[tokio::test]
async fn a_reset_an_epoch_and_a_skipped_gap_empty_the_window_and_a_filled_bin_is_in_it() {
    let server = server().await;
    // Filled however long the machine stands still between two frames.
    let patient = v1::OpenRequest { gap: "hold".into(), max_gap_ms: Some(60_000.0), ..ask("second") };
    let rig = server.open(patient).await;
    rig.send(counts(0, 0, &rows(0..6))).await;
    rig.reset("model", Some(7)).await.unwrap();
    let output = rig.send(counts(1, 6, &rows(6..13))).await;
    // Its windows end with bins 10 and 12: four after the reset, then every second.
    let want: Vec<_> = (6..13).map(|k| [10, 12].contains(&k).then(|| known(k))).collect();
    same(&blocks(&output, 0), &want);
    assert_eq!(flag_names(&output)[1], ["warming_up", "reset"]);
    assert_eq!(flag_names(&output)[3..5], [vec!["warming_up"], vec![]]);
    // Bin 13 never comes: it is filled with what was there last, and stands in the window of bin 14.
    let output = rig.send(counts(2, 14, &rows(14..15))).await;
    assert_eq!(flag_names(&output), [vec!["gap_filled"], vec![]]);
    let held = [11, 12, 12, 14].map(row).iter().fold([0.0; 2], |sum, row| [sum[0] + row[0], sum[1] + row[1]]);
    same(&blocks(&output, 0), &[None, Some(held.map(|sum| sum / 4.0))]);
    // The counter starts again: no window spans the two epochs.
    let output = rig.send(v1::Frame { epoch: true, ..counts(3, 0, &rows(20..25)) }).await;
    let first = output.n as usize - 5;
    let want: Vec<_> = (20..25).map(|k| (k == 23).then(|| known(k))).collect();
    same(&blocks(&output, 0)[first..], &want);
    assert_eq!(
        flag_names(&output)[first..][..4],
        [vec!["warming_up"], vec!["warming_up"], vec!["warming_up"], vec![]]
    );
    rig.close().await;

    let rig = server.open(v1::OpenRequest { gap: "skip".into(), ..ask("every") }).await;
    rig.send(counts(0, 0, &rows(0..5))).await;
    let output = rig.send(counts(1, 7, &rows(7..12))).await;
    assert_eq!((bins(&output), output.skipped_bins), (7..12, 2));
    let want: Vec<_> = (7..12).map(|k| (k >= 10).then(|| known(k))).collect();
    same(&blocks(&output, 0), &want);
    assert_eq!(flag_names(&output)[0], ["warming_up"]);
    rig.close().await;
    server.stop().await;
}

#[tokio::test]
async fn a_stage_behind_a_window_is_stepped_only_where_a_window_ends() {
    let server = server().await;
    let rig = server.open(ask("added")).await;
    let output = rig.send(counts(0, 0, &rows(0..10))).await;
    let mut sum = [0.0; 2];
    let want: Vec<Option<[f32; 2]>> = (0..10)
        .map(|k| {
            let mean = [3, 5, 7, 9].contains(&k).then(|| known(k))?;
            sum = [sum[0] + mean[0], sum[1] + mean[1]];
            Some(sum)
        })
        .collect();
    same(&blocks(&output, 1), &want);
    assert!(flag_names(&output)[4].is_empty(), "a bin between two windows is not invalid");
    rig.close().await;
    server.stop().await;
}

#[tokio::test]
async fn a_window_that_fails_is_flagged_and_the_next_one_goes_on() {
    // The root of a mean below 0 is NaN.
    let dims: [Dim; 3] = ["batch".into(), 4.into(), 2.into()];
    let graph = GraphBuilder::new("root")
        .input("x", Dtype::F32, &dims)
        .i64("axis", &[1], &[1])
        .node_with("ReduceMean", &["x", "axis"], &["mean"], [Attribute::int("keepdims", 0)])
        .node("Sqrt", &["mean"], &["y"])
        .output("y", Dtype::F32, &["batch".into(), 2.into()])
        .bytes();
    let root = Model { graph, ..mean("root", 4, 2) };
    let server = Setup::bare()
        .model(root)
        .model(adder())
        .file("pipelines/added.toml", pipeline_of("root"))
        .key("invalid_limit", 3)
        .start()
        .await;
    let rig = server.open(ask("added")).await;
    let mut fed = vec![[4.0, 4.0]; 6];
    fed.extend([[-64.0, 4.0], [4.0, 4.0], [4.0, 4.0], [4.0, 4.0], [4.0, 4.0], [4.0, 4.0]]);
    let output = rig.send(counts(0, 0, &fed)).await;
    let bad = |k| k == 7 || k == 9;
    let of = |k: u64, value: f32| (k % 2 == 1 && k >= 3 && !bad(k)).then_some([value; 2]);
    same(&blocks(&output, 0), &(0..12).map(|k| of(k, 2.0)).collect::<Vec<_>>());
    // The state of the stage behind stays as it was: 2, 4, then 6.
    let sums = (0..12).map(|k| of(k, [2.0, 4.0, 0.0, 0.0, 6.0][(k as usize).saturating_sub(3) / 2]));
    same(&blocks(&output, 1), &sums.collect::<Vec<_>>());
    for (k, flags) in flag_names(&output).iter().enumerate() {
        let want: &[&str] = if bad(k as u64) {
            &["output_invalid"]
        } else if k < 3 {
            &["warming_up"]
        } else {
            &[]
        };
        assert_eq!(flags, want, "bin {k}");
    }
    // Three windows in a row that fail, with bins between them in which nothing ran: the state starts anew.
    let output = rig.send(counts(1, 12, &[[-64.0, 4.0]; 7])).await;
    let invalid: Vec<u64> = bins(&output)
        .zip(flag_names(&output))
        .filter(|(_, flags)| flags.contains(&"output_invalid"))
        .map(|(k, _)| k)
        .collect();
    assert_eq!(invalid, [13, 15, 17]);
    assert_eq!(flag_names(&output).last().unwrap(), &["warming_up", "reset"]);
    rig.close().await;
    server.stop().await;
}

#[tokio::test]
async fn a_masked_channel_is_masked_in_the_bins_of_the_window_in_which_it_was() {
    // In how many bins of the window each channel was good, by a mask of f32 or of bool.
    let dims: [Dim; 3] = ["batch".into(), 3.into(), 2.into()];
    let of = |name: &'static str, dtype: Dtype| {
        let mut graph = GraphBuilder::new(name);
        graph.input("x", Dtype::F32, &dims).input("m", dtype, &dims);
        let graph = graph
            .node_with("Cast", &["m"], &["good"], [Attribute::int("to", i64::from(Dtype::F32.onnx()))])
            .i64("axis", &[1], &[1])
            .node_with("ReduceSum", &["good", "axis"], &["y"], [Attribute::int("keepdims", 0)])
            .output("y", Dtype::F32, &["batch".into(), 2.into()])
            .bytes();
        let model = mean(name, 3, 1).replace("tensor = \"x\"", "tensor = \"x\"\nmask_tensor = \"m\"");
        Model { graph, ..model }
    };
    let server = Setup::bare().model(of("floats", Dtype::F32)).model(of("bools", Dtype::Bool)).start().await;
    for model in ["floats", "bools"] {
        let rig = server.open(ask(model)).await;
        rig.send(counts(0, 0, &rows(0..3))).await;
        let masked = v1::Frame { mask: vec![true, false], ..counts(1, 3, &rows(3..5)) };
        let output = rig.send(masked).await;
        same(&blocks(&output, 0), &[Some([3.0, 2.0]), Some([3.0, 1.0])]);
        let good = v1::Frame { mask: vec![true, true], ..counts(2, 5, &rows(5..8)) };
        let output = rig.send(good).await;
        same(&blocks(&output, 0), &[Some([3.0, 1.0]), Some([3.0, 2.0]), Some([3.0, 3.0])]);
        rig.close().await;
    }
    server.stop().await;
}

#[tokio::test]
async fn a_window_behind_a_stage_that_has_not_a_value_in_every_bin_is_refused() {
    let behind = mean("behind", 4, 1)
        .replace("type = \"binned\"\nbin_ms = 10\nchannels_file = \"channels.csv\"", "type = \"latent\"");
    let chain =
        |first: &str| pipeline_of(first).replace("\"adder\"\ninputs = { z", "\"behind\"\ninputs = { spikes");
    let server = Setup::bare()
        .model(mean("every", 4, 1))
        .model(mean("second", 4, 2))
        .model(behind)
        .file("pipelines/joined.toml", chain("every"))
        .file("pipelines/broken.toml", chain("second"))
        .start()
        .await;
    let refused = server.try_open(ask("broken")).await.err().expect("a refusal");
    refused.is(
        422,
        "invalid",
        &["stage `adder`", "a value in every bin", "one every 2 bins from stage `window`"],
    );
    let rig = server.open(ask("joined")).await;
    let output = rig.send(counts(0, 0, &rows(0..9))).await;
    let twice = |k: u64| {
        let means = (k - 3..=k).map(known).fold([0.0; 2], |sum, mean| [sum[0] + mean[0], sum[1] + mean[1]]);
        means.map(|sum| sum / 4.0)
    };
    same(&blocks(&output, 1), &(0..9).map(|k| (k >= 6).then(|| twice(k))).collect::<Vec<_>>());
    assert_eq!(flag_names(&output)[5..7], [vec!["warming_up"], vec![]]);
    rig.close().await;
    server.stop().await;
}

/// x [.., channels, 2, 3] in a row, halved: output `half` (0).
fn flat(name: &'static str, kind: &str, dims: &[Dim], of_input: &str) -> Model {
    let values: usize =
        dims.iter().map(|dim| if let Dim::Fixed(length) = dim { *length } else { 1 }).product();
    let graph = GraphBuilder::new(name)
        .input("x", Dtype::F32, dims)
        .f32("half", &[1], &[0.5])
        .node("Mul", &["x", "half"], &["halved"])
        .node_with("Flatten", &["halved"], &["y"], [Attribute::int("axis", 1)])
        .output("y", Dtype::F32, &["batch".into(), values.into()])
        .bytes();
    let manifest = format!(
        r#"
[[input]]
name = "eye"
tensor = "x"
type = "{kind}"
bin_ms = 10
{of_input}
[[output]]
name = "half"
tensor = "y"
role = "latent"
"#
    );
    Model { name, manifest, graph, files: vec![] }
}

/// The masks of the pixels of `eye` (frames, two channels of 2 x 3), output `good` (0).
fn masks() -> Model {
    let dims: [Dim; 4] = ["batch".into(), 2.into(), 2.into(), 3.into()];
    let graph = GraphBuilder::new("masks")
        .input("x", Dtype::F32, &dims)
        .input("m", Dtype::U8, &dims)
        .node_with("Cast", &["m"], &["good"], [Attribute::int("to", i64::from(Dtype::F32.onnx()))])
        .node_with("Flatten", &["good"], &["y"], [Attribute::int("axis", 1)])
        .output("y", Dtype::F32, &["batch".into(), 12.into()])
        .bytes();
    let model = flat("masks", "frames", &dims, "mask_tensor = \"m\"\nchannels_file = \"planes.csv\"");
    Model { graph, files: vec![("planes.csv", "name\nred\ngreen\n".into())], ..model }
}

/// A film at so many images a second.
fn film(rate_hz: u32) -> v1::SignalSpec {
    v1::SignalSpec { rate: Some(v1::Rate { num: rate_hz, den: 1 }), ..signal("eye", "frames", &[]) }
}

/// Images of bytes `[count, 1, 2, 3]`.
fn images(seq: u64, first_index: u64, values: &[u8]) -> v1::Frame {
    let count = values.len() / 6;
    let tensor = Tensor::from_bytes(Dtype::U8, &[count, 1, 2, 3], values).unwrap();
    v1::Frame {
        signal: "eye".into(),
        seq,
        first_index,
        count: count as u32,
        tensor: Some(tensor::message(&tensor)),
        ..Default::default()
    }
}

fn halves(values: impl IntoIterator<Item = u8>) -> Vec<f32> {
    values.into_iter().map(|x| f32::from(x) / 2.0).collect()
}

async fn sent(rig: &Rig, frame: v1::Frame) -> Vec<f32> {
    block(&rig.send(frame).await, 0)
}

#[tokio::test]
async fn a_model_of_images_is_given_the_one_of_each_bin_or_what_its_chain_makes_of_several() {
    let dims: [Dim; 4] = ["batch".into(), 1.into(), 2.into(), 3.into()];
    let window = {
        let dims: [Dim; 5] = ["batch".into(), 2.into(), 1.into(), 2.into(), 3.into()];
        let model = flat("window", "frames", &dims, "");
        Model {
            manifest: format!("mode = \"window\"\n[window]\nsize_bins = 2\nhop_bins = 1\n{}", model.manifest),
            ..model
        }
    };
    let server = Setup::bare()
        .model(flat("image", "frames", &dims, "fill = \"hold\""))
        .model(flat("mean", "frames", &dims, "preprocess = [{ op = \"bin\", reduce = \"mean\" }]"))
        .model(window)
        .start()
        .await;
    let values: Vec<u8> = (0..24).collect();
    let rig = server.open(recorded(pipeline("image", [film(100)]))).await;
    assert_eq!(sent(&rig, images(0, 0, &values)).await, halves(0..24));
    // One that never came is held; what has another shape is refused, and sent again as it should be.
    let output = rig.send(images(1, 5, &values[..6])).await;
    assert_eq!((bins(&output), block(&output, 0)), (4..6, halves((18..24).chain(0..6))));
    assert_eq!(flag_names(&output)[0], ["gap_filled"]);
    let tensor = Tensor::from_bytes(Dtype::U8, &[1, 3, 2], &values[..6]).unwrap();
    let turned = v1::Frame { tensor: Some(tensor::message(&tensor)), ..images(2, 6, &values[..6]) };
    let refused = rig.refused(turned).await;
    assert_eq!(refused.is(422, "invalid", &["[1, 1, 2, 3]", "[1, 3, 2]"]).expected_seq, Some(2));
    assert_eq!(sent(&rig, images(2, 6, &values[6..12])).await, halves(6..12));
    rig.close().await;
    // Two images a bin: the last, or the mean.
    let rig = server.open(pipeline("image", [film(200)])).await;
    assert_eq!(sent(&rig, images(0, 0, &values)).await, halves((6..12).chain(18..24)));
    rig.close().await;
    let rig = server.open(pipeline("mean", [film(200)])).await;
    assert_eq!(sent(&rig, images(0, 0, &values)).await, halves((3..9).chain(15..21)));
    rig.close().await;
    let rig = server.open(pipeline("window", [film(100)])).await;
    let output = rig.send(images(0, 0, &values[..18])).await;
    assert_eq!(block(&output, 0)[12..], halves((0..12).chain(6..18)));
    assert_eq!(flag_names(&output), [vec!["warming_up"], vec![], vec![]]);
    rig.close().await;
    let refused = server.try_open(pipeline("image", [film(30)])).await.err().expect("a refusal");
    refused.is(422, "invalid", &["whole samples of signal `eye`"]);
    let mut ask = pipeline("image", [signal("eye", "binned", &["a"])]);
    let refused = server.try_open(ask.clone()).await.err().expect("a refusal");
    refused.is(422, "invalid", &["type", "`frames`", "`binned`"]);
    ask.signals = vec![v1::SignalSpec { name: "eye".into(), r#type: "frames".into(), ..Default::default() }];
    server.try_open(ask).await.err().expect("a refusal").is(422, "invalid", &["rate"]);
    server.stop().await;
}

#[tokio::test]
async fn planes_are_bound_by_name_and_a_mask_tells_a_masked_plane_and_a_pixel_that_is_not_finite() {
    let server = Setup::bare().model(masks()).start().await;
    // The camera sends green before red, and a third plane.
    let planes = ["green", "blue", "red"];
    let eye =
        |planes: &[&str]| v1::SignalSpec { channels: signal("eye", "frames", planes).channels, ..film(100) };
    let rig = server.open(pipeline("masks", [eye(&planes)])).await;
    let of = |seq: u64, values: &[f32]| v1::Frame {
        tensor: Some(tensor::message(&Tensor::from_f32(&[1, 3, 2, 3], values))),
        first_index: seq,
        ..images(seq, seq, &[0; 6])
    };
    let mut values = [1.0; 18];
    (values[2], values[6]) = (f32::NAN, f32::NAN);
    let mut good = [1.0; 12];
    good[6 + 2] = 0.0; // of green; blue is not asked for
    let output = rig.send(of(0, &values)).await;
    assert_eq!(
        (block(&output, 0), flag_names(&output)),
        (good.to_vec(), vec![vec!["masked", "nan_replaced"]])
    );
    let masked = v1::Frame { mask: vec![true, true, false], ..of(1, &[1.0; 18]) };
    assert_eq!(sent(&rig, masked).await, [[0.0; 6], [1.0; 6]].as_flattened());
    rig.close().await;
    let refused = server.try_open(pipeline("masks", [eye(&["camera"])])).await.err().expect("a refusal");
    refused.is(422, "invalid", &["2 of 2 channels are missing", "red, green"]);
    server.stop().await;
}

#[tokio::test]
async fn a_model_of_an_event_camera_is_given_the_count_of_each_pixel_by_polarity() {
    const MS: i64 = 1_000_000;
    let dims: [Dim; 4] = ["batch".into(), 2.into(), 2.into(), 3.into()];
    let server = Setup::bare().model(flat("camera", "address_events", &dims, "")).start().await;
    let rig = server.open(recorded(pipeline("camera", [signal("eye", "address_events", &[])]))).await;
    let events = |seq, from_ms: i64, to_ms: i64, events: &[(u32, u32, bool, i64)]| v1::Frame {
        signal: "eye".into(),
        seq,
        t_start_ns: Some(from_ms * MS),
        span_ns: Some((to_ms - from_ms) * MS),
        x: events.iter().map(|event| event.0).collect(),
        y: events.iter().map(|event| event.1).collect(),
        polarity: events.iter().map(|event| event.2).collect(),
        t_ns: events.iter().map(|event| event.3 * MS).collect(),
        ..Default::default()
    };
    // Frames that end within bins; the last of the events lies in bin 2.
    assert_eq!(rig.send(events(0, 0, 5, &[(0, 0, false, 1), (2, 1, true, 4)])).await.n, 0);
    let output = rig.send(events(1, 5, 30, &[(2, 1, true, 9), (1, 0, true, 10), (1, 0, false, 25)])).await;
    let mut want = [[0.0; 12]; 3];
    (want[0][0], want[0][11], want[1][7], want[2][1]) = (0.5, 1.0, 0.5, 0.5);
    assert_eq!(block(&output, 0), want.as_flattened());
    assert_eq!(flag_names(&output), [const { Vec::<&str>::new() }; 3]);
    let refused = rig.refused(events(2, 30, 40, &[(3, 0, true, 31)])).await;
    let fault = refused.is(422, "invalid", &["x", "numbers below 3", "found 3"]);
    assert_eq!((fault.expected_seq, fault.consumed), (Some(2), false));
    assert_eq!(sent(&rig, events(2, 30, 40, &[])).await, [0.0; 12]);
    rig.close().await;
    let refused = server
        .try_open(pipeline("camera", [signal("eye", "spike_events", &["a"])]))
        .await
        .err()
        .expect("a refusal");
    says(&refused.fault.detail, &["`address_events`", "`spike_events` (signal `eye`)"]);
    server.stop().await;
}

#[tokio::test]
async fn a_window_goes_on_under_another_version_of_its_model_unless_it_is_to_begin_anew() {
    // Version 2 gives the sum of the window's four bins instead of their mean.
    let dims: [Dim; 3] = ["batch".into(), 4.into(), 2.into()];
    let graph = GraphBuilder::new("sum")
        .input("x", Dtype::F32, &dims)
        .i64("axis", &[1], &[1])
        .node_with("ReduceSum", &["x", "axis"], &["y"], [Attribute::int("keepdims", 0)])
        .output("y", Dtype::F32, &["batch".into(), 2.into()])
        .bytes();
    let server = Setup::bare().model(mean("every", 4, 1)).file("every/2/model.onnx", graph).start().await;
    let rig = server.open(v1::OpenRequest { versions: [("every".into(), 1)].into(), ..ask("every") }).await;
    let switch = async |version: u32, state: &str| {
        let body = format!(r#"{{"stage": "every", "version": {version}, "state": "{state}"}}"#);
        let answer = server.post(&format!("/v1/sessions/{}/switch", rig.session()), body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    };
    let sum = |k: u64| [0, 1].map(|c| (k - 3..=k).map(|k| row(k)[c]).sum::<f32>());
    let one = async |k: u64| {
        let output = rig.send(counts(k, k, &[row(k)])).await;
        (blocks::<2>(&output, 0)[0], flag_names(&output).remove(0))
    };
    for k in 0..6 {
        let (mean, flags) = one(k).await;
        match k {
            0..3 => assert!(mean[0].is_nan() && flags == ["warming_up"], "{mean:?} {flags:?}"),
            _ => assert_eq!((mean, flags), (sum(k).map(|sum| sum / 4.0), vec![])),
        }
    }
    switch(2, "keep").await;
    assert_eq!(one(6).await, (sum(6), vec!["switched"]));
    assert_eq!(one(7).await, (sum(7), vec![]));
    switch(1, "reset").await;
    let (mean, flags) = one(8).await;
    assert!(mean[0].is_nan(), "{mean:?}");
    assert_eq!(flags, ["warming_up", "reset", "switched"]);
    for k in 9..11 {
        assert!(one(k).await.0[0].is_nan());
    }
    assert_eq!(one(11).await, (sum(11).map(|sum| sum / 4.0), vec![]));
    rig.close().await;
    server.stop().await;
}
