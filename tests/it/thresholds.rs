//! Thresholds of crossings: read from one run, set in the next, refused by name, and repeated by replay.

use latentd::domain::tensor::{Dtype, Tensor};
use latentd::graph::build::GraphBuilder;
use latentd::wire::{tensor, v1};

use crate::recordings::Random;
use crate::support::models::Model;
use crate::support::{Latentd, Rig, Setup, block, flag_names, pipeline, replayed, says, signal};

const NAMES: [&str; 3] = ["quiet", "loud", "dead"];
/// Samples per second; a bin has 20, the calibration of the model 200.
const RATE: u32 = 2000;
const PER_BIN: usize = 20;
const SAMPLES: usize = 800;
const BINS: usize = SAMPLES / PER_BIN;
/// Bins of the calibration.
const CALIBRATION: usize = 10;
/// Spikes stand so many samples apart, from the first sample on.
const APART: usize = 40;

/// Counts of three channels, given back as they are.
fn model(name: &'static str, chain: &str) -> Model {
    let dims = ["batch".into(), NAMES.len().into()];
    let graph = GraphBuilder::new(name)
        .input("x", Dtype::F32, &dims)
        .node("Identity", &["x"], &["y"])
        .output("y", Dtype::F32, &dims)
        .bytes();
    let manifest = format!(
        "[[input]]\nname = \"lfp\"\ntensor = \"x\"\ntype = \"continuous\"\nbin_ms = 10\nchannels = 3\n{chain}\n\
         [[output]]\nname = \"seen\"\ntensor = \"y\"\nrole = \"latent\"\n"
    );
    Model { name, manifest, graph, files: Vec::new() }
}

fn counting() -> Model {
    model(
        "counting",
        "preprocess = [{ op = \"threshold_crossings\", low_hz = 250.0, high_hz = 900.0, order = 2, times = -6.0, \
         of = \"median\", calibrate_s = 0.1, refractory_ms = 5.0 }]",
    )
}

async fn started() -> Latentd {
    Setup::bare().model(counting()).model(model("plain", "")).start().await
}

fn ask(name: &str, thresholds: Option<v1::Tensor>) -> v1::OpenRequest {
    let lfp =
        v1::SignalSpec { rate: Some(v1::Rate { num: RATE, den: 1 }), ..signal("lfp", "continuous", &NAMES) };
    let record = Some(v1::Record { broadband: Some(true), ..Default::default() });
    let r#static = thresholds.map(|given| ("lfp.thresholds".to_owned(), given)).into_iter().collect();
    v1::OpenRequest { record, r#static, ..pipeline(name, [lfp]) }
}

/// `[n]` as JSON would bring them.
fn given(dtype: &str, values: &[f64]) -> v1::Tensor {
    let shape = vec![values.len() as u32];
    v1::Tensor { dtype: dtype.into(), shape, values: values.to_vec(), ..Default::default() }
}

/// Noise of ±3 with a spike of −100 every 40 samples, of −60 on the second channel; the third stands still.
fn samples() -> Vec<f32> {
    let mut noise = Random(5);
    (0..SAMPLES)
        .flat_map(|i| {
            let spike = if i % APART == 5 { -1.0 } else { 0.0 };
            let mut noise = || (noise.next() % 7) as f32 - 3.0;
            [4000.0 + noise() + 100.0 * spike, noise() + 60.0 * spike, 17.0]
        })
        .collect()
}

/// Streams the samples in frames of 70: counts and flags of all bins.
async fn stream(rig: &Rig) -> (Vec<[f32; 3]>, Vec<Vec<&'static str>>) {
    let (mut counts, mut flags) = (Vec::new(), Vec::new());
    for (seq, rows) in samples().chunks(70 * NAMES.len()).enumerate() {
        let values = Tensor::from_f32(&[rows.len() / NAMES.len(), NAMES.len()], rows);
        let frame = v1::Frame {
            signal: "lfp".into(),
            seq: seq as u64,
            first_index: 70 * seq as u64,
            count: values.shape[0] as u32,
            tensor: Some(tensor::message(&values)),
            ..Default::default()
        };
        let output = rig.send(frame).await;
        if output.n > 0 {
            counts.extend(block(&output, 0).chunks_exact(3).map(|row| [row[0], row[1], row[2]]));
            flags.extend(flag_names(&output));
        }
    }
    assert_eq!(counts.len(), BINS);
    (counts, flags)
}

/// The thresholds that a run's event tells, as one pastes them.
async fn told(server: &Latentd, run: &str) -> (v1::Event, Vec<f64>) {
    let event = server.event(run, "stats_frozen").await;
    let (_, list) = event.detail.split_once("static `lfp.thresholds`: ").expect("all of them");
    let list = list.split_inclusive(']').next().expect("a list");
    let thresholds = serde_json::from_str(list).expect("numbers as JSON has them");
    (event, thresholds)
}

#[tokio::test]
async fn measured_thresholds_set_in_the_next_session_count_the_same_from_the_first_bin_and_replay_repeats_it()
{
    let server = started().await;
    let rig = server.open(ask("counting", None)).await;
    let (measured, flags) = stream(&rig).await;
    let run = rig.run().to_owned();
    rig.close().await;
    // One spike in every second bin, in both channels that live, once the calibration is over.
    let want = |k: usize| if k.is_multiple_of(APART / PER_BIN) { [1.0, 1.0, 0.0] } else { [0.0; 3] };
    let plain: Vec<[f32; 3]> = (0..BINS).map(want).collect();
    assert_eq!(measured[..CALIBRATION], [[0.0; 3]; CALIBRATION]);
    assert_eq!(measured[CALIBRATION..], plain[CALIBRATION..]);
    assert!(flags[..CALIBRATION].iter().all(|flags| flags == &["warming_up"]));
    let (event, thresholds) = told(&server, &run).await;
    assert_eq!((event.from_bin, event.count), (Some(CALIBRATION as u64 - 1), 3));
    says(&event.detail, &["measured", "quiet at -", "(-3e38: none)"]);
    assert!(thresholds[..2].iter().all(|threshold| (-100.0..0.0).contains(threshold)), "{thresholds:?}");
    assert_eq!(thresholds[2], -3e38, "nothing crosses the threshold of a channel that stands still");

    // f64 as they are told, and what f32 keeps of them: the spikes are far from both.
    for dtype in ["f64", "f32"] {
        let rig = server.open(ask("counting", Some(given(dtype, &thresholds)))).await;
        let resolved = rig.opened.resolved.as_ref().expect("the request as resolved");
        assert_eq!(resolved.r#static["lfp.thresholds"].shape, [3], "open shows what holds");
        let (counts, flags) = stream(&rig).await;
        assert_eq!(counts, plain, "{dtype}: from the first bin on");
        let warm = flags.iter().take_while(|flags| flags == &&["warming_up"]).count();
        assert!((1..CALIBRATION).contains(&warm), "{dtype}: {warm} bins, which the filter takes");
        assert!(flags[warm..].iter().all(Vec::is_empty), "{dtype}: {flags:?}");
        let run = rig.run().to_owned();
        rig.close().await;
        let (event, again) = told(&server, &run).await;
        assert_eq!((event.from_bin, event.count), (Some(0), 3));
        says(&event.detail, &["given at open", "nothing is measured"]);
        let kept: Vec<f64> =
            thresholds.iter().map(|x| if dtype == "f32" { f64::from(*x as f32) } else { *x }).collect();
        assert_eq!(again, kept);
        let info: v1::RunInfo = server.get(&format!("/v1/runs/{run}")).await.message();
        let in_run = &info.resolved.as_ref().expect("the request as resolved").r#static["lfp.thresholds"];
        assert_eq!(tensor::host("static", in_run).expect("a tensor").to_f64(), kept);
    }

    // Other thresholds count otherwise, and replay takes them from the run.
    let odd = [-20.0, -1e9, -1.0];
    let rig = server.open(ask("counting", Some(given("f32", &odd)))).await;
    let (counts, _) = stream(&rig).await;
    assert!(counts.iter().all(|row| row[1..] == [0.0, 0.0]) && counts.iter().any(|row| row[0] == 1.0));
    let run = rig.run().to_owned();
    rig.close().await;
    let info: v1::RunInfo = server.get(&format!("/v1/runs/{run}")).await.message();
    let setup = server.stop().await;
    let bins = replayed(&setup, &info).await;
    let bits = |row: &[f32]| row.iter().map(|x| x.to_bits()).collect::<Vec<u32>>();
    let again: Vec<Vec<u32>> = bins.iter().map(|bin| bits(&bin.inputs[0].values)).collect();
    assert_eq!(again, counts.iter().map(|row| bits(row)).collect::<Vec<_>>());
}

#[tokio::test]
async fn thresholds_that_cannot_be_are_refused_by_name_with_what_is_expected() {
    let server = started().await;
    let refused = |ask: v1::OpenRequest| async { server.try_open(ask).await.err().expect("it is refused") };
    let good = [-4.0, -5.0, -6.0];
    let each = "channel of signal `lfp`, in its order";
    for (tensor, parts) in [
        (given("f32", &good[..2]), ["f32 or f64 [3]", each, "f32 [2]"]),
        (v1::Tensor { shape: vec![1, 3], ..given("f32", &good) }, ["[3]", each, "f32 [1, 3]"]),
        (given("i32", &good), ["f32 or f64 [3]", each, "i32 [3]"]),
        (given("f32", &[-4.0, 5.0, -6.0]), ["below 0", "times = -6", "5 in element 1"]),
        (given("f32", &[-4.0, -5.0, 0.0]), ["below 0", "times = -6", "0 in element 2"]),
        (given("f32", &[f64::NAN, -5.0, -6.0]), ["finite values", "NaN or infinity", "element 0"]),
        (given("f64", &[-4.0, f64::NEG_INFINITY, -6.0]), ["finite values", "NaN or infinity", "element 1"]),
    ] {
        let refused = refused(ask("counting", Some(tensor))).await;
        assert_eq!(refused.is(422, "invalid", &parts).tensor, "static.lfp.thresholds");
    }
    // An input that counts no crossings, and a name of no input.
    let answer = refused(ask("plain", Some(given("f32", &good)))).await;
    answer.is(
        422,
        "invalid",
        &["static.lfp.thresholds", "threshold_crossings", "there are none", "input `lfp`"],
    );
    let mut misspelt = ask("counting", None);
    misspelt.r#static.insert("lpf.thresholds".into(), given("f32", &good));
    let answer = refused(misspelt).await;
    answer.is(422, "invalid", &["static", "there are: lfp.thresholds", "`lpf.thresholds`"]);
    // Nothing of it opened a session; what is right is taken as it is.
    let dry = v1::OpenRequest { dry_run: true, ..ask("counting", Some(given("f32", &good))) };
    let opened = server.open(dry).await.opened;
    assert!(opened.resolved.expect("as resolved").r#static.contains_key("lfp.thresholds"));
    server.stop().await;
}
