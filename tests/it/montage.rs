//! A montage that is not the model's: another order, another unit, channels missing, channels more.

use crate::support::{Setup, binned, blocks, flag_names, models, pipeline, recorded, says, signal};
use latentd::domain::tensor::Dtype;
use latentd::graph::build::GraphBuilder;
use latentd::wire::v1;

/// What the model was trained on, in µV.
const NAMES: [&str; 6] = ["Fz", "C3", "C4", "T7", "P8", "Oz"];

/// Answers its input (0) and the mask that it sees (1, good = 1). Two channels may be absent; they are filled with 0.
fn eeg() -> models::Model {
    let dims = ["batch".into(), NAMES.len().into()];
    let graph = GraphBuilder::new("eeg")
        .input("u", Dtype::F32, &dims)
        .input("m", Dtype::F32, &dims)
        .node("Identity", &["u"], &["seen"])
        .node("Identity", &["m"], &["mask"])
        .output("seen", Dtype::F32, &dims)
        .output("mask", Dtype::F32, &dims)
        .bytes();
    let manifest = r#"
[[input]]
name = "eeg"
tensor = "u"
type = "continuous"
bin_ms = 10
channels_file = "channels.csv"
missing_ok = 2
mask_tensor = "m"
rate = { num = 1000 }
[[output]]
name = "seen"
tensor = "seen"
role = "latent"
[[output]]
name = "mask"
tensor = "mask"
role = "latent"
"#;
    let rows: String = NAMES.iter().map(|name| format!("{name},uV\n")).collect();
    let files = vec![("channels.csv", format!("name,unit\n{rows}"))];
    models::Model { name: "eeg", manifest: manifest.into(), graph, files }
}

/// An open with these channels, in this unit.
fn with(channels: &[&str], unit: &str) -> v1::OpenRequest {
    let signal = v1::SignalSpec {
        unit: unit.into(),
        rate: Some(v1::Rate { num: 1_000, den: 1 }),
        ..signal("eeg", "continuous", channels)
    };
    recorded(pipeline("eeg", [signal]))
}

/// A bin in which every channel has its own value.
fn bin<const C: usize>(values: [f32; C]) -> v1::Frame {
    binned("eeg", 0, 0, &[values; 10])
}

#[track_caller]
fn near(got: &[[f32; 6]], want: [f32; 6]) {
    let [got] = got else { panic!("one bin, not {got:?}") };
    let is_near = got.iter().zip(want).all(|(got, want)| (got - want).abs() <= 1e-5 * want.abs());
    assert!(is_near, "{got:?} is not {want:?}");
}

const UV: [f32; 6] = [10.0, 20.0, -30.0, 40.0, 0.5, 60.0];

#[tokio::test]
async fn a_permutation_is_undone_and_volts_are_converted_and_old_names_are_known() {
    let server = Setup::bare().model(eeg()).start().await;
    let rig = server.open(with(&NAMES, "uV")).await;
    assert_eq!(rig.opened.warnings, Vec::<String>::new());
    let output = rig.send(bin(UV)).await;
    near(&blocks::<6>(&output, 0), UV);
    assert_eq!(blocks::<6>(&output, 1), [[1.0; 6]]);
    rig.close().await;

    // By HTTP and gRPC; T3 and T6 are what T7 and P8 were called; one channel says its unit itself, and scales.
    let mut ask = with(&["Oz", "T6", "C4", "Fz", "T3", "C3"], "V");
    ask.signals[0].channels[3].unit = "mV".into();
    ask.signals[0].channels[2].scale = Some(1e-7);
    let frame = || bin([60e-6, 0.5e-6, -300.0, 0.01, 40e-6, 20e-6]);
    let rig = server.open(ask.clone()).await;
    assert_eq!(rig.opened.warnings, Vec::<String>::new(), "nothing is left out of account");
    let output = rig.send(frame()).await;
    near(&blocks::<6>(&output, 0), UV);
    assert_eq!((blocks::<6>(&output, 1), flag_names(&output)), (vec![[1.0; 6]], vec![vec![]]));
    rig.close().await;
    let mut line = server.line(ask).await;
    assert_eq!(blocks::<6>(&line.send(frame()).await, 0), blocks::<6>(&output, 0));
    line.end().await;
    server.stop().await;
}

#[tokio::test]
async fn two_missing_channels_are_masked_and_one_more_is_left_out_and_open_says_so() {
    let server = Setup::bare().model(eeg()).start().await;
    let channels = ["EOG", "P8", "Oz", "C3", "Fz"];
    let ask = with(&channels, "V");
    let rig = server.open(ask.clone()).await;
    let warnings = &rig.opened.warnings;
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    says(&warnings[0], &["input `eeg`", "signal `eeg`", "2 of its 6 channels", "masked: C4, T7"]);
    says(&warnings[1], &["signal `eeg`", "1 of its 5 channels", "input `eeg`", "left out", "EOG"]);
    let output = rig.send(bin([1.0, 0.5e-6, 60e-6, 20e-6, 10e-6])).await;
    near(&blocks::<6>(&output, 0), [10.0, 20.0, 0.0, 0.0, 0.5, 60.0]);
    assert_eq!(blocks::<6>(&output, 1), [[1.0, 1.0, 0.0, 0.0, 1.0, 1.0]]);
    assert_eq!(flag_names(&output), [["masked"]]);
    // A mask of the frame is in the rig's channels, and stays; the extra channel's says nothing to the model.
    let masked = v1::Frame {
        mask: vec![false, true, false, true, true],
        ..binned("eeg", 1, 10, &[[1.0, 0.5e-6, 60e-6, 20e-6, 10e-6]; 10])
    };
    let output = rig.send(masked).await;
    near(&blocks::<6>(&output, 0), [10.0, 20.0, 0.0, 0.0, 0.5, 0.0]);
    assert_eq!(blocks::<6>(&output, 1), [[1.0, 1.0, 0.0, 0.0, 1.0, 0.0]]);
    let run = rig.run().to_owned();
    rig.close().await;
    let dry = v1::OpenRequest { dry_run: true, ..ask };
    let told = server.live().await.open(dry).await.expect("a dry run").into_inner();
    assert_eq!(told.warnings.len(), 2, "a dry run tells the same");
    let reply: v1::OutputsReply = server.get(&format!("/v1/runs/{run}/outputs/mask")).await.message();
    assert_eq!(reply.stretches[0].flags, [4, 4]);
    server.stop().await;
}

#[tokio::test]
async fn three_missing_channels_and_another_unit_are_refused_by_name_and_the_next_open_works() {
    let server = Setup::bare().model(eeg()).start().await;
    let cases: [(v1::OpenRequest, &[&str]); 3] = [
        (
            with(&["Fz", "C3", "c4", "Oz"], "uV"),
            &["eeg", "3 of 6 channels are missing", "at most 2", "C4, T7, P8"],
        ),
        (
            with(&["Fz", "C3", "C4", "T7", "P8", "Oz"], "K"),
            &["6 channels have another unit", "Fz is in K, expected uV"],
        ),
        (with(&["Fz", "Fz", "C3", "C4", "T7", "P8"], "uV"), &["channels[1].name", "Fz"]),
    ];
    for (ask, parts) in cases {
        let refused = server.try_open(ask.clone()).await.err().expect("refused");
        refused.is(422, "invalid", parts);
        let status = server.live().await.open(ask).await.expect_err("refused");
        let fault = crate::support::carried(&status, tonic::Code::InvalidArgument, "invalid");
        assert_eq!(fault.detail, refused.fault.detail);
    }
    let rig = server.open(with(&NAMES, "nV")).await;
    near(&blocks::<6>(&rig.send(bin(UV.map(|uv| uv * 1e3))).await, 0), UV);
    rig.close().await;
    server.stop().await;
}
