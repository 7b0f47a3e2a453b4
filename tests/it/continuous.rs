//! Sampled signals through a chain into a model, end to end: numbers against scipy's, cuts, dtypes, units, masks, rates.

use crate::recordings::third_party;
use crate::support::models::Model;
use crate::support::{Latentd, Setup, block, flag_names, pipeline, recorded, says, signal};
use latentd::cli::replay;
use latentd::domain::tensor::{Dtype, Tensor};
use latentd::graph::build::GraphBuilder;
use latentd::wire::recording::{Data, Recording};
use latentd::wire::{tensor, v1};

/// A model that gives back what it is given: input `lfp` of `values` per bin. `more`: further keys of its input.
pub fn identity(name: &'static str, values: usize, more: &str) -> Model {
    let dims = ["batch".into(), values.into()];
    let graph = GraphBuilder::new(name)
        .input("x", Dtype::F32, &dims)
        .node("Identity", &["x"], &["y"])
        .output("y", Dtype::F32, &dims)
        .bytes();
    let manifest = format!(
        "[[input]]\nname = \"lfp\"\ntensor = \"x\"\ntype = \"continuous\"\n{more}\n[[output]]\nname = \"seen\"\ntensor = \"y\"\nrole = \"latent\"\n"
    );
    Model { name, manifest, graph, files: Vec::new() }
}

/// A signal `lfp` at `rate` Hz.
fn lfp(rate: u32, channels: &[&str]) -> v1::SignalSpec {
    v1::SignalSpec { rate: Some(v1::Rate { num: rate, den: 1 }), ..signal("lfp", "continuous", channels) }
}

fn frame(seq: u64, first_index: u64, tensor: &Tensor) -> v1::Frame {
    v1::Frame {
        signal: "lfp".into(),
        seq,
        first_index,
        count: tensor.shape[0] as u32,
        tensor: Some(tensor::message(tensor)),
        ..Default::default()
    }
}

/// Samples `[n, channels]` from `first_index` on.
fn samples(seq: u64, first_index: u64, channels: usize, values: &[f32]) -> v1::Frame {
    frame(seq, first_index, &Tensor::from_f32(&[values.len() / channels, channels], values))
}

/// The EEG of a third party's recording: names of its channels and samples `[T, channels]`.
fn eeg(name: &str) -> Option<(Vec<String>, Vec<f32>)> {
    let recording: Recording = replay::open(&third_party(name)?).expect("the recording is read");
    let signal = recording.signals.into_iter().find(|signal| signal.name() == "eeg").expect("its EEG");
    let names = signal.spec.channels.iter().map(|channel| channel.name.clone()).collect();
    let Data::Samples { tensor, .. } = signal.data else { panic!("samples") };
    Some((names, tensor.values::<f32>().to_vec()))
}

#[track_caller]
fn close(got: f32, want: f64, rel: f64) {
    assert!((f64::from(got) - want).abs() <= rel * want.abs().max(1e-3), "{got} is not {want}");
}

#[tokio::test]
async fn eeg_through_filters_decimation_and_band_power_equals_scipy_to_1e_5() {
    let Some((names, values)) = eeg("eeg_attention_events") else { return };
    let want: serde_json::Value = serde_json::from_str(include_str!("vectors/continuous.json")).unwrap();
    let power = identity(
        "power",
        64,
        r#"bin_ms = 62.5
channels = 32
rate = { num = 128, den = 1 }
preprocess = [
  { op = "butterworth", kind = "band", low_hz = 1.0, high_hz = 40.0 }, { op = "notch", hz = 50.0 },
  { op = "band_power", bands = [[8.0, 12.0], [13.0, 30.0]], window_ms = 500.0, scale = "log" },
]"#,
    );
    let mean = identity(
        "mean",
        32,
        r#"bin_ms = 62.5
rate = { num = 64, den = 1 }
preprocess = [
  { op = "reference", kind = "common_average" }, { op = "butterworth", kind = "high", low_hz = 1.0, order = 2 },
  { op = "decimate", factor = 2 },
]"#,
    );
    let server = Setup::bare().model(power).model(mean).start().await;
    let channels: Vec<&str> = names.iter().map(String::as_str).collect();
    for (name, width) in [("power", 64), ("mean", 32)] {
        let mut line = server.line(pipeline(name, [lfp(128, &channels)])).await;
        let mut got = Vec::new();
        let total = want["samples"].as_u64().unwrap() as usize;
        for (seq, chunk) in values[..total * 32].chunks(100 * 32).enumerate() {
            let output = line.send(samples(seq as u64, seq as u64 * 100, 32, chunk)).await;
            assert_eq!(output.first_bin, (got.len() / width) as u64);
            got.extend(block(&output, 0));
        }
        assert_eq!(got.len(), total / 8 * width);
        let columns = want[name]["columns"].as_array().unwrap();
        for (k, row) in want["bins"].as_array().unwrap().iter().zip(want[name]["values"].as_array().unwrap())
        {
            for (column, want) in columns.iter().zip(row.as_array().unwrap()) {
                let at = k.as_u64().unwrap() as usize * width + column.as_u64().unwrap() as usize;
                close(got[at], want.as_f64().unwrap(), 1e-5);
            }
        }
        line.end().await;
    }
    server.stop().await;
}

#[tokio::test]
async fn eeg_at_2048_hz_in_frames_of_1_to_64_samples_gives_the_same_bits_for_every_cut() {
    let Some((names, values)) = eeg("eeg_73ch_highrate") else { return };
    let model = identity(
        "fast",
        72,
        r#"bin_ms = 15.625
preprocess = [
  { op = "reference", kind = "common_median" }, { op = "butterworth", kind = "band", low_hz = 0.5, high_hz = 200.0 },
  { op = "notch", hz = 50.0, harmonics = 3 }, { op = "decimate", factor = 4 }, { op = "bin", reduce = "last" },
  { op = "zscore", mode = "running", tau_s = 1.0 },
]"#,
    );
    let server = Setup::bare().model(model).start().await;
    let channels: Vec<&str> = names.iter().map(String::as_str).collect();
    let cuts: [&mut dyn Iterator<Item = usize>; 5] = [
        &mut std::iter::repeat(64),
        &mut std::iter::repeat(1),
        &mut std::iter::repeat(7),
        &mut (1..=64).cycle(),
        &mut [63, 1, 33, 31, 2].into_iter().cycle(),
    ];
    let mut first: Option<(Vec<u32>, Vec<u32>)> = None;
    for cut in cuts {
        let mut line = server.line(pipeline("fast", [lfp(2048, &channels)])).await;
        let (mut bits, mut flags, mut from) = (Vec::new(), Vec::new(), 0);
        for seq in 0.. {
            let to = (from + cut.next().unwrap()).min(2048);
            let output = line.send(samples(seq, from as u64, 72, &values[from * 72..to * 72])).await;
            if output.n > 0 {
                bits.extend(block(&output, 0).iter().map(|x| x.to_bits()));
                flags.extend(output.flags);
            }
            from = to;
            if from == 2048 {
                break;
            }
        }
        let session = line.opened.session.clone();
        line.end().await;
        // Five of them at once would be more than a debug build can bear.
        server.delete(&format!("/v1/sessions/{session}")).await;
        assert_eq!((bits.len(), flags.len()), (64 * 72, 64));
        let (known_bits, known_flags) = first.get_or_insert((bits.clone(), flags.clone()));
        assert!(*known_bits == bits && *known_flags == flags, "another cut, other bits");
    }
    server.stop().await;
}

#[tokio::test]
async fn i16_with_scale_and_offset_by_channel_other_units_and_old_names_are_what_the_model_was_trained_on() {
    let mut model = identity(
        "named",
        2,
        "bin_ms = 10\nchannels_file = \"channels.csv\"\npreprocess = [{ op = \"bin\", reduce = \"last\" }]",
    );
    model.files = vec![("channels.csv", "name,unit\nT7,uV\nC3,uV\n".into())];
    let server = Setup::bare().model(model).start().await;
    let mut spec = lfp(200, &["C3", "x", "T3"]);
    (spec.unit, spec.scale) = ("V".into(), Some(0.5));
    spec.channels[0].unit = "mV".into();
    (spec.channels[2].scale, spec.channels[2].offset) = (Some(2f64.powi(-10)), Some(0.25));
    let rig = server.open(pipeline("named", [spec])).await;
    let raw: Vec<u8> = [[1i16, 7, 0], [-6, 7, 512]].concat().iter().flat_map(|x| x.to_le_bytes()).collect();
    let output = rig.send(frame(0, 0, &Tensor::from_bytes(Dtype::I16, &[2, 3], &raw).unwrap())).await;
    // T7: (512 / 1024 + 0.25) V; C3: -6 * 0.5 mV.
    assert_eq!(block(&output, 0), [750_000.0, -3_000.0]);
    rig.close().await;
    server.stop().await;
}

#[tokio::test]
async fn every_reduce_of_a_bin_reaches_the_model_and_all_of_its_samples_keep_their_order() {
    let of = |name, values, reduce: &str| {
        let more =
            format!("bin_ms = 10\nchannels = 2\npreprocess = [{{ op = \"bin\", reduce = \"{reduce}\" }}]");
        identity(name, values, &more)
    };
    let mut all = of("all", 6, "all");
    let dims = ["batch".into(), 3.into(), 2.into()];
    all.graph = GraphBuilder::new("all")
        .input("x", Dtype::F32, &dims)
        .node("Identity", &["x"], &["y"])
        .output("y", Dtype::F32, &dims)
        .bytes();
    let server =
        Setup::bare().model(of("mean", 2, "mean")).model(of("last", 2, "last")).model(of("sum", 2, "sum"));
    let server = server.model(all).start().await;
    let rows = [1.0, 10.0, 2.0, 20.0, 6.0, 60.0];
    for (name, want) in
        [("mean", &[3.0, 30.0][..]), ("last", &[6.0, 60.0]), ("sum", &[9.0, 90.0]), ("all", &rows)]
    {
        let rig = server.open(pipeline(name, [lfp(300, &["a", "b"])])).await;
        assert_eq!(block(&rig.send(samples(0, 0, 2, &rows)).await, 0), want, "{name}");
        rig.close().await;
    }
    // A rate of which a bin holds another number of samples has no [3, 2] to give.
    let refused = server.try_open(pipeline("all", [lfp(400, &["a", "b"])])).await.err().unwrap();
    refused.is(422, "invalid", &["lfp", "6", "8"]);
    server.stop().await;
}

#[tokio::test]
async fn masked_channels_and_values_that_are_not_finite_are_in_no_reference() {
    let more = "bin_ms = 10\nchannels = 3\nfill = \"hold\"\npreprocess = [{ op = \"reference\", kind = \"common_average\" }]";
    let server = Setup::bare().model(identity("average", 3, more)).start().await;
    let rig = server.open(pipeline("average", [lfp(100, &["a", "b", "c"])])).await;
    assert_eq!(block(&rig.send(samples(0, 0, 3, &[1.0, 2.0, 6.0])).await, 0), [-2.0, -1.0, 3.0]);
    let mut masked = samples(1, 1, 3, &[1e9, 2.0, 6.0]);
    masked.mask = vec![false, true, true];
    let output = rig.send(masked).await;
    assert_eq!(block(&output, 0), [-2.0, -2.0, 2.0], "the first holds its last good value");
    assert_eq!(flag_names(&output), [["masked"]]);
    let output = rig.send(samples(2, 2, 3, &[1.0, f32::NAN, 6.0])).await;
    assert_eq!(block(&output, 0), [-2.0, -2.0, 0.0], "alone in its reference");
    assert_eq!(flag_names(&output), [["masked", "nan_replaced"]]);
    rig.close().await;
    server.stop().await;
}

#[tokio::test]
async fn crossings_are_counted_once_the_thresholds_are_frozen_and_an_event_shows_them() {
    let more = r#"bin_ms = 10
channels = 2
preprocess = [{ op = "threshold_crossings", low_hz = 250.0, high_hz = 900.0, order = 2, times = -4.0, calibrate_s = 0.1, refractory_ms = 5.0 }]"#;
    let server = Setup::bare().model(identity("spikes", 2, more)).start().await;
    let rig = server.open(recorded(pipeline("spikes", [lfp(2000, &["quiet", "dead"])]))).await;
    // Noise of ±3 on an offset of 4,000, a spike every 40 samples of the second half; the other channel stands still.
    let mut noise = crate::recordings::Random(5);
    let rows: Vec<f32> = (0..800)
        .flat_map(|i| {
            let spike = if i >= 400 && i % 40 == 5 { -100.0 } else { 0.0 };
            [4000.0 + (noise.next() % 7) as f32 - 3.0 + spike, 17.0]
        })
        .collect();
    let output = rig.send(samples(0, 0, 2, &rows)).await;
    let counts = block(&output, 0);
    let of = |c: usize, bins: std::ops::Range<usize>| bins.map(|k| counts[2 * k + c]).sum::<f32>();
    assert_eq!((of(0, 0..10), of(0, 20..40), of(1, 0..40)), (0.0, 10.0, 0.0), "{counts:?}");
    let flags = flag_names(&output);
    assert!(
        flags[..10].iter().all(|flags| flags == &["warming_up"]) && flags[10..].iter().all(Vec::is_empty)
    );
    let run = rig.run().to_owned();
    rig.close().await;
    let frozen = server.event(&run, "stats_frozen").await;
    assert_eq!((frozen.signal.as_str(), frozen.from_bin, frozen.count), ("lfp", Some(9), 2));
    says(&frozen.detail, &["thresholds", "quiet at -"]);
    assert_eq!(server.event(&run, "flat_channel").await.count, 1);
    server.stop().await;
}

#[tokio::test]
async fn delays_add_up_in_what_open_answers_and_rates_and_corners_that_do_not_fit_are_refused_by_name() {
    let band = |more: &str| {
        format!(
            "bin_ms = 62.5\nchannels = 1\n{more}\npreprocess = [{{ op = \"butterworth\", kind = \"band\", low_hz = 7.4, \
             high_hz = 12.1, order = 2 }}, {{ op = \"scale\", factor = 2.0 }}, {{ op = \"bin\" }}, \
             {{ op = \"smooth\", kernel = \"exponential\", tau_ms = 60.0 }}]"
        )
    };
    let zero = identity("zero", 1, &band("")).replace("order = 2", "order = 0");
    let wide = identity("wide", 1, &band("rate = { num = 20, den = 1 }"));
    let free = identity("free", 1, &band(""));
    let server = Setup::bare().model(free).model(zero).model(wide).start().await;
    let rig = server.open(pipeline("free", [lfp(128, &["a"])])).await;
    // The filter's by scipy, the kernel's dt (1 - a) / a with a = 1 - exp(-62.5 / 60).
    let a = 1.0 - (-62.5f64 / 60.0).exp();
    let delay_ms = rig.opened.outputs[0].delay_ms;
    assert!((delay_ms - (95.560_963_209_587_47 + 62.5 * (1.0 - a) / a)).abs() < 1e-6, "{delay_ms}");
    rig.close().await;
    let refused = |ask| async { server.try_open(ask).await.err().unwrap() };
    let answer = refused(pipeline("free", [lfp(16, &["a"])])).await;
    answer.is(422, "invalid", &["lfp", "preprocess[0].high_hz", "8 Hz", "12.1"]);
    for (model, parts) in [
        ("zero", &["model.toml", "input[0].preprocess[0].order", "1 to 64", "0"][..]),
        ("wide", &["model.toml", "input[0].preprocess[0].high_hz", "10 Hz", "12.1"]),
    ] {
        refused(pipeline(model, [lfp(128, &["a"])])).await.is(422, "invalid", parts);
    }
    server.stop().await;
}

#[tokio::test]
async fn a_signal_at_another_rate_is_decimated_where_the_chain_says_so_and_else_refused() {
    let more = |chain: &str| format!("bin_ms = 10\nchannels = 1\nrate = {{ num = 200, den = 1 }}\n{chain}");
    let strict = identity("strict", 1, &more(""));
    let lenient = identity(
        "lenient",
        2,
        &more("preprocess = [{ op = \"decimate\", factor = 5 }, { op = \"bin\", reduce = \"all\" }]"),
    );
    let server: Latentd = Setup::bare().model(strict).model(lenient).start().await;
    let refused = server.try_open(pipeline("strict", [lfp(1000, &["a"])])).await.err().unwrap();
    refused.is(422, "invalid", &["lfp", "rate", "200 Hz", "1000 Hz"]);
    let rig = server.open(pipeline("lenient", [lfp(1000, &["a"])])).await;
    let output = rig.send(samples(0, 0, 1, &[3.0; 20])).await;
    for x in block(&output, 0) {
        close(x, 3.0, 1e-6);
    }
    assert_eq!(output.n, 2);
    rig.close().await;
    server.stop().await;
}
