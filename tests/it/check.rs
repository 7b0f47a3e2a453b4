//! `latentd models check --parity`: trials of small models whose numbers this file computes itself, each spoilt in one way,
//! and the bundled models' own.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::OnceLock;

use latentd::domain::tensor::{Dtype, Tensor};
use latentd::graph::build::{GraphBuilder, linear_recurrence};
use latentd::wire::npy;
use safetensors::tensor::{Dtype as Kept, TensorView};

use crate::support::{models, says};

/// Bins of each trial, of 10 ms.
const BINS: usize = 60;
/// Samples of a bin, at 500 Hz.
const PER_BIN: usize = 5;
/// The model's smoothing (ms).
const TAU_MS: f64 = 30.0;
/// The corner of the model's filter (Hz).
const CORNER_HZ: f64 = 20.0;

const M1: [f32; 4] = [0.5, 0.25, -0.25, 0.5];
const M2: [f32; 4] = [1.0, 2.0, -1.0, 0.5];
const M0: [f32; 2] = [0.5, -1.0];

type Rows = Vec<[f64; 2]>;

/// A model with its trial.
#[derive(Clone)]
struct Case {
    name: String,
    manifest: String,
    channels: &'static str,
    graph: Vec<u8>,
    recording: String,
    file: (&'static str, Vec<u8>),
    first_bin: i64,
    expected: BTreeMap<String, Rows>,
}

impl Case {
    fn named(&self, name: &str) -> Self {
        Self { name: name.into(), ..self.clone() }
    }

    /// The same with another text in its manifest.
    fn replace(mut self, from: &str, to: &str) -> Self {
        assert!(self.manifest.contains(from), "`{from}` is not in the manifest");
        self.manifest = self.manifest.replace(from, to);
        self
    }

    /// The same with outputs alone.
    fn bare(mut self) -> Self {
        self.name.push_str("-bare");
        self.expected.retain(|name, _| ["v", "raw"].contains(&name.as_str()));
        self
    }

    fn write(&self, repository: &Path) {
        let folder = repository.join(&self.name);
        let trial = folder.join("1/parity/recording");
        std::fs::create_dir_all(&trial).unwrap();
        let put = |path: std::path::PathBuf, bytes: &[u8]| std::fs::write(path, bytes).unwrap();
        put(folder.join("model.toml"), self.manifest.as_bytes());
        put(folder.join("channels.csv"), self.channels.as_bytes());
        put(folder.join("1/model.onnx"), &self.graph);
        put(trial.join("recording.json"), self.recording.as_bytes());
        put(trial.join(self.file.0), &self.file.1);
        put(folder.join("1/parity/expected.safetensors"), &tensors(&self.expected, Some(self.first_bin)));
    }
}

fn tensors(arrays: &BTreeMap<String, Rows>, first_bin: Option<i64>) -> Vec<u8> {
    let float =
        |rows: &Rows| rows.iter().flatten().flat_map(|x| (*x as f32).to_le_bytes()).collect::<Vec<u8>>();
    let mut kept: Vec<(String, Kept, Vec<usize>, Vec<u8>)> = arrays
        .iter()
        .map(|(name, rows)| (name.clone(), Kept::F32, vec![rows.len(), 2], float(rows)))
        .collect();
    kept.extend(first_bin.map(|bin| ("first_bin".into(), Kept::I64, vec![1], bin.to_le_bytes().to_vec())));
    let views = kept.iter().map(|(name, dtype, shape, bytes)| {
        (name.as_str(), TensorView::new(*dtype, shape.clone(), bytes).unwrap())
    });
    safetensors::serialize(views, None).unwrap()
}

/// What the graph makes of its inputs.
fn answers(inputs: &Rows, m0: [f32; 2], anew: bool) -> BTreeMap<String, Rows> {
    let (mut v, mut all) = ([0.0; 2], BTreeMap::<String, Rows>::new());
    for u in inputs {
        let u = u.map(|x| f64::from(x as f32));
        let before = if anew { [0.0; 2] } else { v };
        let two =
            |m: [f32; 4], x: [f64; 2], i: usize| f64::from(m[2 * i]) * x[0] + f64::from(m[2 * i + 1]) * x[1];
        let raw = [0, 1].map(|i| two(M2, u, i) + f64::from(m0[i]));
        v = [0, 1].map(|i| two(M1, before, i) + raw[i]);
        all.entry("v".into()).or_default().push(v);
        all.entry("raw".into()).or_default().push(raw);
    }
    all
}

/// Numbers in [0, 1), the same on every machine.
fn noise(mut seed: u64) -> impl FnMut() -> f64 {
    move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 40) as f64 / f64::from(1u32 << 24)
    }
}

/// Spikes (unit, time in ms), every third bin with one on its edge; the last one lies behind the last bin.
fn spikes() -> Vec<(usize, f64)> {
    let mut draw = noise(3);
    let mut all = Vec::new();
    for bin in 0..BINS {
        let start = 10.0 * bin as f64;
        if bin % 3 == 1 {
            all.push((bin % 2, start));
        }
        for unit in [0, 0, 0, 1] {
            if draw() < 0.5 {
                all.push((unit, start + 1.0 + (draw() * 8.0).floor()));
            }
        }
    }
    all.push((0, 10.0 * BINS as f64));
    all.sort_by(|a, b| a.1.total_cmp(&b.1));
    all
}

/// Counts per bin of spikes that are later by so much.
fn counted(later_ms: f64) -> Rows {
    let mut counts = vec![[0.0; 2]; BINS];
    for (unit, at) in spikes() {
        let bin = ((at + later_ms) / 10.0).floor();
        if bin >= 0.0 && (bin as usize) < BINS {
            counts[bin as usize][unit] += 1.0;
        }
    }
    counts
}

fn smoothed(counts: &Rows, tau_ms: f64) -> Rows {
    let a = 1.0 - (-10.0 / tau_ms).exp();
    let mut y = [0.0; 2];
    let step = |x: &[f64; 2]| {
        y = [0, 1].map(|c| y[c] + a * (x[c] - y[c]));
        y
    };
    counts.iter().map(step).collect()
}

/// A model of spikes, smoothed; `counts` are what is expected to be smoothed, `tau_ms` by what.
fn of_spikes(counts: &Rows, tau_ms: f64) -> Case {
    let manifest = format!(
        r#"
[[input]]
name = "spikes"
tensor = "u"
type = "spike_events"
bin_ms = 10
channels_file = "channels.csv"
preprocess = [{{ op = "bin" }}, {{ op = "smooth", kernel = "exponential", tau_ms = {TAU_MS} }}]
[[state]]
input = "v0"
output = "v_next"
[[output]]
name = "v"
tensor = "v"
role = "decoded"
[[output]]
name = "raw"
tensor = "vraw"
role = "latent"
"#
    );
    let events: String = spikes().iter().map(|(unit, ms)| format!("{unit},{:.4}\n", ms / 1e3)).collect();
    let inputs = smoothed(counts, tau_ms);
    let mut expected = answers(&inputs, M0, false);
    expected.insert("counts".into(), counts.clone());
    expected.insert("preprocessed.spikes".into(), inputs);
    Case {
        name: "spikes".into(),
        manifest,
        channels: "name\na\nb\n",
        graph: linear_recurrence(&M1, &M2, &M0),
        recording: r#"{"signals": [{"name": "spikes", "type": "spike_events", "file": "spikes.csv",
            "channels": [{"name": "a"}, {"name": "b"}]}]}"#
            .into(),
        file: ("spikes.csv", format!("unit,time_s\n{events}").into_bytes()),
        first_bin: 0,
        expected,
    }
}

/// A slow drift with noise on it, far from 0, so that a filter's start is seen.
fn samples() -> Rows {
    let mut draw = noise(5);
    (0..BINS * PER_BIN)
        .map(|i| {
            let t = i as f64 / 100.0;
            [40.0 + 9.0 * t.sin() + draw(), -20.0 + 5.0 * (1.7 * t).cos() + 2.0 * draw()]
        })
        .map(|row| row.map(|x| f64::from(x as f32)))
        .collect()
}

/// A low-pass of order 1, as if the first sample had been there for ever; then means of bins from `from` on.
fn filtered(from: usize) -> Rows {
    let w = (std::f64::consts::PI * CORNER_HZ / 500.0).tan();
    let (pole, gain) = ((1.0 - w) / (1.0 + w), w / (1.0 + w));
    let all = samples();
    let (mut y, mut before) = (all[0], all[0]);
    let low: Rows = all
        .iter()
        .map(|x| {
            y = [0, 1].map(|c| pole * y[c] + gain * (x[c] + before[c]));
            before = *x;
            y
        })
        .collect();
    let mean = |bin: &[[f64; 2]]| [0, 1].map(|c| bin.iter().map(|x| x[c]).sum::<f64>() / bin.len() as f64);
    low[from..].chunks(PER_BIN).map(mean).collect()
}

/// A model of filtered samples in uV.
fn of_samples(inputs: Rows) -> Case {
    let preprocess = format!(
        r#"[{{ op = "butterworth", kind = "low", high_hz = {CORNER_HZ}, order = 1 }}, {{ op = "bin", reduce = "mean" }}]"#
    );
    let case = of_spikes(&counted(0.0), TAU_MS);
    let manifest = case.manifest.replace("spike_events", "continuous").replace("\"spikes\"", "\"lfp\"");
    let start = manifest.find("preprocess").unwrap();
    let end = start + manifest[start..].find('\n').unwrap();
    let manifest = format!("{}preprocess = {preprocess}{}", &manifest[..start], &manifest[end..]);
    let values: Vec<f32> = samples().iter().flatten().map(|x| *x as f32).collect();
    let mut expected = answers(&inputs, M0, false);
    expected.insert("preprocessed.lfp".into(), inputs);
    Case {
        name: "samples".into(),
        manifest,
        channels: "name,unit\na,uV\nb,uV\n",
        recording: r#"{"signals": [{"name": "lfp", "type": "continuous", "file": "lfp.npy", "unit": "uV",
            "rate": {"num": 500, "den": 1}, "channels": [{"name": "a"}, {"name": "b"}]}]}"#
            .into(),
        file: ("lfp.npy", npy::write(&Tensor::from_f32(&[BINS * PER_BIN, 2], &values))),
        expected,
        ..case
    }
}

/// A model of counts whose graph has no value for three and more: ln(3 - u) is infinite, then NaN.
fn fragile() -> Case {
    let dims = ["batch".into(), 2.into()];
    let graph = GraphBuilder::new("fragile")
        .input("u", Dtype::F32, &dims)
        .f32("three", &[1], &[3.0])
        .node("Sub", &["three", "u"], &["rest"])
        .node("Log", &["rest"], &["log"])
        .node("Neg", &["log"], &["v"])
        .output("v", Dtype::F32, &dims)
        .bytes();
    let case = of_spikes(&counted(0.0), TAU_MS);
    let (head, _) = case.manifest.split_once("preprocess").unwrap();
    let manifest = format!("{head}[[output]]\nname = \"v\"\ntensor = \"v\"\nrole = \"decoded\"\n");
    let log = |row: &[f64; 2]| row.map(|x| -(3.0 - x).max(0.5).ln());
    let expected = [("v".into(), counted(0.0).iter().map(log).collect())].into();
    Case { name: "fragile".into(), manifest, graph, expected, ..case }
}

fn cases() -> Vec<Case> {
    let good = of_spikes(&counted(0.0), TAU_MS);
    let sampled = of_samples(filtered(0));
    let mut cases = vec![
        good.clone(),
        sampled.clone(),
        good.clone().bare(),
        Case { channels: "name\nb\na\n", ..good.named("order") },
        Case { channels: "name,unit\na,V\nb,V\n", ..sampled.named("unit") },
        sampled.named("start").replace("order = 1", "order = 1, init = \"zero\""),
        of_spikes(&counted(-0.0001), TAU_MS).named("edge"),
        Case { first_bin: 1, ..of_spikes(&counted(0.0)[..BINS - 1].to_vec(), TAU_MS).named("later") },
        of_samples(filtered(1)).named("sample"),
        good.named("smooth").replace("tau_ms = 30", "tau_ms = 45"),
    ];
    for at in (3..cases.len()).rev() {
        cases.push(cases[at].clone().bare());
    }
    let mut late_edge = of_spikes(&counted(-0.0001), TAU_MS);
    late_edge.expected.remove("counts");
    cases.push(late_edge.named("edge-seen-late"));
    let exchanged = good.named("tensor").replace("tensor = \"vraw\"", "tensor = \"?\"");
    cases.push(exchanged.replace("tensor = \"v\"", "tensor = \"vraw\"").replace("\"?\"", "\"v\""));
    let weights = [0.5, 0.25, -0.25, 0.75];
    cases.push(Case { graph: linear_recurrence(&weights, &M2, &M0), ..good.named("node") });
    cases.push(Case { graph: linear_recurrence(&M1, &M2, &[0.5, -2.0]), ..good.named("weights") });
    cases.push(fragile());
    let mut swapped = good.named("swapped");
    for step in ["counts", "preprocessed.spikes"] {
        swapped.expected.get_mut(step).unwrap().iter_mut().for_each(|row| row.reverse());
    }
    cases.push(swapped);
    let mut forgetful = good.named("state");
    forgetful.expected.extend(answers(&smoothed(&counted(0.0), TAU_MS), M0, true));
    cases.push(forgetful);
    cases
}

struct Checked {
    code: Option<i32>,
    said: String,
}

impl Checked {
    /// The line about a version.
    fn of(&self, model: &str) -> &str {
        let line = self.said.lines().find_map(|line| line.strip_prefix(&format!("{model}/1: ")));
        line.unwrap_or_else(|| panic!("no line about {model}: {}", self.said))
    }
}

fn check(repository: &Path, arguments: &[&str]) -> Checked {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_latentd"));
    command.args(["models", "check"]).arg(repository).args(arguments);
    let ended = command.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    let said = String::from_utf8([ended.stdout, ended.stderr].concat()).unwrap();
    println!("{said}");
    Checked { code: ended.status.code(), said }
}

/// All cases, checked by one run of the binary.
fn checked() -> &'static Checked {
    static CHECKED: OnceLock<Checked> = OnceLock::new();
    CHECKED.get_or_init(|| {
        let repository = tempfile::tempdir().unwrap();
        cases().iter().for_each(|case| case.write(repository.path()));
        check(repository.path(), &["--parity"])
    })
}

/// The place is named, and with it what the trial shows of the steps between, and what outputs alone show.
fn both(model: &str, place: &str, words: &[&str]) {
    for model in [model.to_owned(), format!("{model}-bare")] {
        let line = checked().of(&model);
        says(
            line,
            &["output `", "expected ", ", found ", &format!("the first place that differs is the {place}: ")],
        );
        says(line, words);
    }
}

#[test]
fn a_trial_that_agrees_is_said_to_in_frames_of_every_length() {
    for model in ["spikes", "samples", "spikes-bare"] {
        let line = checked().of(model);
        says(line, &["raw, v equal in 60 bins, in frames of 1, 3, 7, 50, 2.63 bins (rel 1e-5, abs 1e-5)"]);
    }
}

#[test]
fn channels_in_another_order_are_named() {
    both("order", "channel order", &["channels.csv"]);
    says(checked().of("order"), &["(counts, bin 0, element "]);
    let words = [
        "its outputs agree, and a step between does not: the channel order: 2 of 2 stand in another order",
        "expected 0 is 1 here, channel `b`",
    ];
    says(checked().of("swapped"), &words);
}

#[test]
fn another_unit_is_named_with_its_factor() {
    both("unit", "unit", &["10^6", "the recording says `uV`, the model's channels.csv `V`"]);
    says(checked().of("unit"), &["(preprocessed.lfp, bin 0, element 0: "]);
}

#[test]
fn a_filter_that_starts_otherwise_is_named() {
    both("start", "filter start", &["input[0].preprocess[0] (butterworth) starts `zero` here", "`steady`"]);
}

#[test]
fn another_side_of_an_edge_and_a_bin_too_many_are_named() {
    both("edge", "bin edge", &["bins are [start, end) here, and in what is expected (start, end]"]);
    both("later", "bin edge", &["first_bin"]);
    says(checked().of("later"), &["one bin earlier, so that each is the bin before"]);
    both("sample", "bin edge", &["(start, end]"]);
    says(checked().of("edge"), &["(counts, bin "]);
    says(checked().of("edge-seen-late"), &["the bin edge: ", "(preprocessed.spikes, bin "]);
}

#[test]
fn another_smoothing_is_named_with_both_constants() {
    both(
        "smooth",
        "smoothing",
        &["input[0].preprocess[1] (smooth) smooths by 45 ms here", "expected by 30 ms"],
    );
}

#[test]
fn exchanged_tensors_are_named() {
    let words = ["the tensor: ", "`raw` (tensor `v`)", "`v` gives (tensor `vraw`): they are exchanged"];
    says(checked().of("tensor"), &words);
}

#[test]
fn a_changed_weight_is_found_at_the_node_that_leads_to_what_differs_alone() {
    let line = checked().of("node");
    says(line, &["the node: the inputs agree", "`v` differs and `raw` agrees", "is the Gemm node `gemm_1`"]);
    let line = checked().of("weights");
    says(line, &["the node: the inputs agree", "`raw` comes from the Gemm node `gemm_0`"]);
}

#[test]
fn a_value_that_is_not_finite_is_found_at_the_first_node_that_makes_one() {
    let line = checked().of("fragile");
    says(
        line,
        &["found NaN", "the node: bin ", "the Log node `log_1` is the first whose value `log` is not finite"],
    );
}

#[test]
fn a_state_that_is_not_carried_is_named() {
    says(
        checked().of("state"),
        &["the state: ", "begins anew before each bin", "`v_next` is carried into `v0`"],
    );
}

#[test]
fn what_differs_is_exit_code_1_and_counted() {
    let all = cases().len();
    assert_eq!(checked().code, Some(1));
    let sum = format!("parity: {all} of {all} versions have a raw trial, {} differ", all - 3);
    says(&checked().said, &[&sum]);
}

#[test]
fn a_trial_that_cannot_be_read_says_what_is_there_and_what_should_be() {
    let repository = tempfile::tempdir().unwrap();
    let good = of_spikes(&counted(0.0), TAU_MS);
    for name in ["nameless", "startless", "short", "gone", "uneven", "outputless", "silent"] {
        good.named(name).write(repository.path());
    }
    let put = |name: &str, bytes: &[u8]| {
        std::fs::write(repository.path().join(name).join("1/parity/expected.safetensors"), bytes).unwrap();
    };
    let with = |name: &str, rows: Rows| {
        let mut expected = good.expected.clone();
        expected.insert(name.into(), rows);
        tensors(&expected, Some(0))
    };
    put("nameless", &with("w", counted(0.0)));
    put("startless", &tensors(&good.expected, None));
    put("short", &with("v", counted(0.0))[..100]);
    put("uneven", &with("v", counted(0.0)[1..].to_vec()));
    put("outputless", &tensors(&[("counts".into(), counted(0.0))].into(), Some(0)));
    std::fs::remove_dir_all(repository.path().join("gone/1/parity/recording")).unwrap();
    let events = "unit,time_s\n0,0.001\n";
    std::fs::write(repository.path().join("silent/1/parity/recording/spikes.csv"), events).unwrap();
    let checked = check(repository.path(), &["--parity"]);
    assert_eq!(checked.code, Some(1));
    let file = "/1/parity/expected.safetensors: ";
    says(
        checked.of("nameless"),
        &[file, "`w`: expected first_bin, counts, preprocessed.<input> or an output (there are: v, raw)"],
    );
    says(
        checked.of("startless"),
        &[file, "`first_bin`: expected the bin of the first rows, i64 [1], found none"],
    );
    says(
        checked.of("short"),
        &[file, "expected a safetensors file, found a header that ends behind the file's 100 bytes"],
    );
    says(checked.of("uneven"), &[file, "`v`: expected 60 rows, as `raw` has, found 59"]);
    says(checked.of("outputless"), &[file, "expected at least one output (there are: v, raw), found none"]);
    says(
        checked.of("gone"),
        &["/1/parity/recording: expected a recording in the open format", "cannot be read"],
    );
    says(checked.of("silent"), &["bins 0 to 59 are expected", "closes it"]);
}

#[test]
fn without_parity_the_check_says_how_many_versions_have_a_trial() {
    let repository = tempfile::tempdir().unwrap();
    models::linear().write(repository.path());
    let plain = check(repository.path(), &[]);
    says(&plain.said, &["0 of 1 versions have a raw trial (--parity plays them)"]);
    let played = check(repository.path(), &["--parity"]);
    says(&played.said, &["parity: none of 1 versions has a raw trial"]);
    of_spikes(&counted(0.0), TAU_MS).write(repository.path());
    let plain = check(repository.path(), &[]);
    says(&plain.said, &["1 of 2 versions have a raw trial (--parity plays them)"]);
    assert_eq!((plain.code, played.code), (Some(0), Some(0)));
}

#[test]
fn every_bundled_model_has_a_raw_trial_that_agrees() {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    let folders = std::fs::read_dir(&models).unwrap().map(|entry| entry.unwrap().path());
    let versions = folders.filter(|folder| folder.join("model.toml").exists()).count();
    let checked = check(&models, &["--parity"]);
    says(&checked.said, &[&format!("parity: {versions} of {versions} versions have a raw trial, all agree")]);
    assert_eq!(checked.code, Some(0));
}
