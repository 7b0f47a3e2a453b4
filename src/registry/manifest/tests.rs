use super::*;
use proptest::prelude::*;

/// The manifest of design section 5, every table that fits `mode = "step"`.
const WHOLE: &str = r#"
description = "GRU encoder of motor cortex, causal"
kind = "encoder"
mode = "step"
reset_on = ["trial_end"]
tags = ["lfads", "nlb"]

[provenance]
script = "zoo/reach.py"
licence = "MIT"
trained_on = [{ recording = "sha256:00", trials = "1-180" }]

[[input]]
name = "spikes"
tensor = "x"
type = "binned"
bin_ms = 20
channels = 96
channels_file = "channels.csv"
missing_ok = 4
mask_tensor = "m"
required = true
preprocess = [
  { op = "smooth", kernel = "exponential", tau_ms = 60 },
  { op = "zscore", mode = "running" },
]

[[static]]
name = "positions"
tensor = "pos"
required = true

[[state]]
input = "h0"
output = "hn"
init = "file:h0.npy"
kind = "fixed"

[[noise]]
tensor = "eps"
dist = "normal"

[[tap]]
tensor = "h2"
name = "h2"
edit = true

[[output]]
tensor = "z"
name = "latent"
role = "latent"
labels = ["reach", "speed"]

[free_run]
feed = [["x", "x_next"]]

[serve]
device = "cuda:1"
instances = 1
intra_threads = 1
max_batch = 256
batching = "deterministic"
deadline_ms = 20
warmup = true

[example]
file = "example.safetensors"
rel = 1e-4
check = "warn"
"#;

fn said(text: &str) -> String {
    parse("m/model.toml", text).expect_err("a fault").to_string()
}

#[test]
fn every_key_of_the_design_is_read() {
    let manifest = parse("reach/model.toml", WHOLE).unwrap();
    assert_eq!((manifest.kind, manifest.mode), (ModelKind::Encoder, Mode::Step));
    assert_eq!(manifest.reset_on, [ResetOn::TrialEnd]);
    let input = &manifest.inputs[0];
    assert_eq!((input.bin_ms, input.channels, input.missing_ok), (Some(20.0), Some(Channels::Count(96)), 4));
    assert_eq!((input.fill, input.pad_to, input.unknown), (Fill::Zero, 8, UnknownUnit::Drop));
    assert_eq!(input.preprocess.len(), 2);
    assert_eq!(manifest.states[0].init, StateInit::File("h0.npy".into()));
    assert_eq!(manifest.serve.device, ServeDevice(crate::engine::Device::Cuda(1)));
    assert_eq!(manifest.serve.batching, Batching::Deterministic);
    assert_eq!((manifest.example.rel, manifest.example.abs, manifest.example.named), (1e-4, 1e-5, true));
    let files: Vec<&str> = manifest.named_files().into_iter().map(|(_, name)| name).collect();
    assert_eq!(files, ["channels.csv", "h0.npy", "example.safetensors"]);
}

#[test]
fn an_empty_manifest_has_the_defaults() {
    assert_eq!(parse("m/model.toml", "").unwrap(), Manifest::empty());
}

#[test]
fn the_other_keys_of_the_wire_are_read() {
    let manifest = parse(
        "m/model.toml",
        r#"
mode = "window"
[window]
size_bins = 50
hop_bins = 5
[[input]]
name = "lfp"
tensor = "x"
type = "continuous"
channels = "any"
rate = { num = 1000, den = 1 }
fill = "hold"
batch_axis = 1
preprocess = [
  { op = "scale", factor = 2.0, offset = 1.0 }, { op = "sqrt" }, { op = "log1p" },
  { op = "clip", min = -5.0, max = 5.0 }, { op = "reference", kind = "common_average", by = "group" },
  { op = "butterworth", kind = "band", low_hz = 4.0, high_hz = 30.0, order = 4, init = "steady" },
  { op = "notch", hz = 50.0, q = 30.0, harmonics = 1 }, { op = "decimate", factor = 10, order = 8 },
  { op = "bin", reduce = "sum" }, { op = "zscore", mode = "fixed", mean = [0.5], std = "file:std.npy" },
]
[[input]]
name = "spikes"
type = "spike_events"
as = "tokens"
tensors = { unit = "u", time = "t", mask = "m" }
units_file = "units.csv"
pad_to = 16
max_tokens = 4096
unknown = "refuse"
[[state]]
input = "k"
output = "k2"
kind = "ring"
axis = 1
max = 512
batch_axis = 2
"#,
    )
    .unwrap();
    assert_eq!(manifest.inputs[0].batch_axis, Some(BatchAxis::Axis(1)));
    assert_eq!(manifest.inputs[0].rate, Some(InputRate { num: 1000, den: 1 }));
    assert_eq!(manifest.inputs[1].unknown, UnknownUnit::Refuse);
    let files: Vec<&str> = manifest.named_files().into_iter().map(|(_, name)| name).collect();
    assert_eq!(files, ["std.npy", "units.csv"]);
    let unserved = unserved("m/model.toml", &manifest);
    let keys: Vec<&str> = unserved.0.iter().map(|finding| finding.key.as_str()).collect();
    assert_eq!(keys, ["state", "state[0].kind", "input[1].as"]);
    assert_eq!(
        unserved.0[0].to_string(),
        "m/model.toml: state: expected no [[state]] with mode = \"window\", found 1 of them, which this version does not \
         serve yet"
    );
}

#[test]
fn parameters_of_ops_that_cannot_be_are_named_by_their_keys() {
    for (op, sentence) in [
        (r#"op = "butterworth", kind = "low", high_hz = 9, order = 0"#, ".order: expected 1 to 64, found 0"),
        (
            r#"op = "butterworth", kind = "low", low_hz = 9"#,
            ".low_hz: expected nothing with kind = \"low\", found 9",
        ),
        (
            r#"op = "butterworth", kind = "high""#,
            ".low_hz: expected a finite number > 0 with kind = \"high\", found nothing",
        ),
        (
            r#"op = "butterworth", kind = "stop", low_hz = 60, high_hz = 50"#,
            ".low_hz: expected below high_hz = 50, found 60",
        ),
        (r#"op = "notch", hz = -50"#, ".hz: expected a finite number > 0, found -50"),
        (r#"op = "notch", hz = 50, q = 0"#, ".q: expected a finite number > 0, found 0"),
        (
            r#"op = "notch", hz = 50, harmonics = 0"#,
            ".harmonics: expected 1 to 1000 (the fundamental counts), found 0",
        ),
        (r#"op = "decimate", factor = 1"#, ".factor: expected a whole number, 2 or more, found 1"),
        (
            r#"op = "threshold_crossings", low_hz = 250, high_hz = 5000, times = 0"#,
            ".times: expected a finite number above or below 0 (below: falling), found 0",
        ),
        (
            r#"op = "threshold_crossings", low_hz = 250, high_hz = 5000, calibrate_s = 0"#,
            ".calibrate_s: expected a finite number > 0, found 0",
        ),
        (
            r#"op = "band_power", bands = [[8, 12]], window_ms = -500"#,
            ".window_ms: expected a finite number > 0, found -500",
        ),
        (
            r#"op = "band_power", bands = [[12, 8]], window_ms = 500"#,
            ".bands: expected 0 <= low < high, finite, in Hz, found [12, 8]",
        ),
        (
            r#"op = "reference", kind = "bipolar""#,
            ".pairs: expected at least one pair of channels, found 0 of them",
        ),
        (
            r#"op = "reference", kind = "common_average", by = "array""#,
            ".by: expected \"group\", found `array`",
        ),
    ] {
        let text = format!(
            "[[input]]\nname = \"lfp\"\ntensor = \"x\"\ntype = \"continuous\"\npreprocess = [{{ {op} }}]\n"
        );
        let said = parse("m/model.toml", &text).unwrap_err().to_string();
        assert!(said.contains(&format!("input[0].preprocess[0]{sentence}")), "{said}\n not {sentence}");
    }
    let text = "[[input]]\nname = \"lfp\"\ntensor = \"x\"\ntype = \"continuous\"\n\
                preprocess = [{ op = \"bin\" }, { op = \"decimate\", factor = 2 }]\n";
    let said = parse("m/model.toml", text).unwrap_err().to_string();
    assert!(
        said.contains(
            "input[0].preprocess[1]: expected ops that run once per sample before `bin`, found `decimate`"
        ),
        "{said}"
    );
}

#[test]
fn all_faults_of_a_manifest_come_in_one_answer() {
    let text = r#"
kind = "encodr"
colour = "red"
[[input]]
name = "a"
tensor = "x"
bin_ms = "twenty"
channels = -3
[[input]]
name = "b"
tensor = 7
[[output]]
tensor = "z"
[[output]]
tensor = "y"
[[output]]
tensor = "w"
role = "latnt"
[serve]
instances = 1
threads = 2
"#;
    assert_eq!(
        parse("m/model.toml", text).unwrap_err().0.iter().map(ToString::to_string).collect::<Vec<_>>(),
        [
            "m/model.toml: colour: expected a known key (one of description, kind, mode, reset_on, tags, \
             provenance, input, static, state, noise, tap, output, window, trial, iterate, free_run, serve, \
             example), found a key that does not exist",
            "m/model.toml: input[0].bin_ms: expected a number, found \"twenty\"",
            "m/model.toml: input[0].channels: expected a number from 1 to 1000000 or \"any\", found -3",
            "m/model.toml: input[1].tensor: expected text, found 7",
            "m/model.toml: kind: expected one of encoder, decoder, sae, probe, generator, snn, memory, plain, \
             found \"encodr\"",
            "m/model.toml: output[0].role: expected a value, found nothing",
            "m/model.toml: output[1].role: expected a value, found nothing",
            "m/model.toml: output[2].role: expected one of latent, decoded, rates, features, class_probs, \
             state_probs, reconstruction, synchrony, halt, objective, image, tap, found \"latnt\"",
            "m/model.toml: serve.threads: expected a known key (one of device, instances, intra_threads, \
             max_batch, batching, deadline_ms, warmup), found a key that does not exist",
        ]
    );
}

#[test]
fn each_refusal_names_file_key_expected_and_found() {
    let input = "[[input]]\nname = \"a\"\ntensor = \"x\"\n";
    let cases = [
        ("kind = ", "m/model.toml: line 1: expected TOML, found"),
        ("a = 1\na = 2", "m/model.toml: line 2: expected TOML, found a key that is there twice"),
        (
            "[[input]]\nname = \"a b\"\ntensor = \"x\"",
            "input[0].name: expected a name of 1 to 100 characters without space, dot, colon and comma, found `a b`",
        ),
        (
            &format!("{input}{input}"),
            "input[1].name: expected a name of its own, found `a`, which input[0].name has",
        ),
        (
            &format!("{input}[[state]]\ninput = \"x\"\noutput = \"y\""),
            "state[0].input: expected a tensor of its own, found `x`, which input[0].tensor feeds",
        ),
        (
            "[[state]]\ninput = \"a\"\noutput = \"y\"\n[[state]]\ninput = \"b\"\noutput = \"y\"",
            "state[1].output: expected a tensor of its own, found `y`, which state[0].output names",
        ),
        (
            &format!("{input}bin_ms = 0"),
            "input[0].bin_ms: expected a whole number of nanoseconds, at least 1, found 0 ms",
        ),
        (&format!("{input}bin_ms = nan"), "input[0].bin_ms: expected a whole number of nanoseconds"),
        (
            &format!("{input}bin_ms = 20\n[[input]]\nname = \"b\"\ntensor = \"y\"\nbin_ms = 10"),
            "input[1].bin_ms: expected 20, as input[0] has (one width per model), found 10",
        ),
        (
            &format!("{input}channels_file = \"../secret.csv\""),
            "input[0].channels_file: expected a plain file name (no folder), found `../secret.csv`",
        ),
        (
            "[[state]]\ninput = \"a\"\noutput = \"b\"\ninit = \"ones\"",
            "state[0].init: expected \"zeros\", \"file:NAME\" or \"static:NAME\", found \"ones\"",
        ),
        (
            "[[state]]\ninput = \"a\"\noutput = \"b\"\ninit = \"static:h\"",
            "state[0].init: expected the name of a [[static]] (there are none), found `h`",
        ),
        (
            &format!("{input}preprocess = [{{ op = \"smoth\" }}]"),
            "input[0].preprocess[0].op: expected one of bin, scale, sqrt, log1p, clip, reference, butterworth, notch, \
             decimate, threshold_crossings, band_power, smooth, zscore, found `smoth`",
        ),
        (
            &format!("{input}preprocess = [{{ op = \"smooth\", kernel = \"exponential\" }}]"),
            "input[0].preprocess[0].tau_ms: expected a finite number > 0, found nothing",
        ),
        (
            &format!("{input}preprocess = [{{ op = \"clip\", min = 2.0, max = 1.0 }}]"),
            "input[0].preprocess[0].min: expected finite min <= max, found 2 and 1",
        ),
        (
            &format!(
                "{input}channels = 3\npreprocess = [{{ op = \"zscore\", mode = \"fixed\", mean = [1, 2], std = [1, 1, 1] }}]"
            ),
            "input[0].preprocess[0].mean: expected 3 numbers, one per channel, found 2",
        ),
        (
            "[[input]]\nname = \"a\"\ntensor = \"x\"\ntype = \"spike_events\"\npreprocess = [{ op = \"sqrt\" }, { op = \"bin\" }]",
            "input[0].preprocess[1]: expected `bin` before every other op, since events have no values of their own, found 1 ops before it",
        ),
        ("mode = \"window\"", "window: expected a table [window] with mode = \"window\", found nothing"),
        ("[window]\nsize_bins = 5", "window: expected mode = \"window\" where [window] stands, found `step`"),
        ("mode = \"window\"\n[window]\nsize_bins = 0", "window.size_bins: expected 1 to 65536, found 0"),
        (
            "mode = \"window\"\n[window]\nsize_bins = 5\nhop_bins = 70000",
            "window.hop_bins: expected 1 to 65536, found 70000",
        ),
        ("mode = \"window\"\n[window]\nhop_bins = 5", "window.size_bins: expected a value, found nothing"),
        (
            "[[input]]\nname = \"a\"\ntensor = \"x\"\ntype = \"frames\"\npreprocess = [{ op = \"notch\", hz = 50.0 }]",
            "input[0].preprocess[0]: expected bin (sum, mean or last), scale, sqrt, log1p, clip, smooth or zscore on images, found `notch`",
        ),
        ("[serve]\nmax_batch = 0", "serve.max_batch: expected 1 to 65536, found 0"),
        (
            "[serve]\ndevice = \"gpu\"",
            "serve.device: expected \"auto\", \"cpu\" or \"cuda:N\", found \"gpu\"",
        ),
        ("[example]\nrel = -1.0", "example.rel: expected a finite number, 0 or more, found -1"),
        ("[[output]]\ntensor = \"z\"\nrole = \"latnt\"", "output[0].role: expected one of latent, decoded,"),
    ];
    for (text, sentence) in cases {
        let said = said(text);
        assert!(said.contains(sentence), "{text}\n said {said}\n not  {sentence}");
        assert!(said.starts_with("m/model.toml: "), "{said}");
    }
}

#[test]
fn deep_and_long_toml_is_a_fault_and_not_a_crash() {
    for text in [
        format!("a = {}", "[".repeat(100_000)),
        format!("{}b = 1", "a.".repeat(50_000)),
        format!("[{}]", vec!["a"; 5_000].join(".")),
        "\"\\u0000\" = 1".into(),
        "[[input]]\n".repeat(10_000),
    ] {
        assert!(parse("m/model.toml", &text).is_err());
    }
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(at in 0usize..1500, cut in 0usize..1500, put in "[\\[\\]{}=\"'a-z0-9.\n-]{0,12}") {
        let mut text: String = WHOLE.into();
        let at = (0..=at.min(text.len())).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0);
        let end = (at..=(at + cut % 40).min(text.len())).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(at);
        text.replace_range(at..end, &put);
        if let Err(findings) = parse("m/model.toml", &text) {
            prop_assert!(!findings.0.is_empty());
        }
    }
}
