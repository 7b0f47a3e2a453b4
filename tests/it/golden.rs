//! Numbers through the network against numbers that others computed, and the same numbers by every road.

use std::path::Path;

use latentd::cli::replay;
use latentd::cli::replay::player::{PlayOptions, play};
use latentd::cli::replay::report::Answers;
use latentd::domain::tensor::Dtype;
use latentd::graph::build::{Attribute, GraphBuilder, linear_recurrence};
use latentd::wire::npy;
use latentd::wire::recording::Recording;
use safetensors::SafeTensors;
use tokio_util::sync::CancellationToken;

use crate::recordings::{self, CORTEX_BIN_NS};
use crate::rig::{play_grpc, play_http};
use crate::support::Setup;

/// What a number may differ from its reference by: `TOLERANCE · max(1, |reference|)`.
const TOLERANCE: f64 = 1e-5;

/// Fails with the worst place unless every |got − want| / max(1, |want|) is within `TOLERANCE`; the largest of them.
fn assert_close(what: &str, got: &[f64], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len(), "{what}: how many values");
    let apart = |(got, want): (&f64, &f64)| (got - want).abs() / want.abs().max(1.0);
    let worst = got.iter().zip(want).map(apart).enumerate().max_by(|(_, a), (_, b)| a.total_cmp(b));
    let (at, apart) = worst.expect("there are values");
    assert!(
        apart <= TOLERANCE,
        "{what}: value {at}: got {}, expected {}, {apart:e} apart where {TOLERANCE:e} is allowed",
        got[at],
        want[at]
    );
    apart
}

/// Fails with the first place that differs; whether a bin came late is not compared.
fn assert_same_bits(what: &str, got: &Answers, want: &Answers) {
    assert_eq!((got.first_bin, got.bins()), (want.first_bin, want.bins()), "{what}: which bins");
    assert!(got.outputs.keys().eq(want.outputs.keys()), "{what}: which outputs");
    for (name, want) in &want.outputs {
        let (got, want) = (&got.outputs[name].values, &want.values);
        assert_eq!(got.len(), want.len(), "{what}: {name}: how many values");
        let differs = got.iter().zip(want).position(|(got, want)| got.to_bits() != want.to_bits());
        assert_eq!(differs.map(|at| (at, got[at], want[at])), None, "{what}: {name}: first difference");
    }
}

// ---- the decoders that ran online ----

/// One of the real decoders, f64 as it was stored: v[t] = M1 v[t−1] + M2 u[t] + m0.
struct Decoder {
    m1: Vec<f64>,
    m2: Vec<f64>,
    m0: Vec<f64>,
}

impl Decoder {
    fn read(folder: &Path, name: &str) -> Self {
        let bytes = std::fs::read(folder.join(format!("decoder_{name}.npz"))).expect("the decoder is read");
        let part = |entry: &str| matrix(npz_entry(&bytes, &format!("{entry}.npy")));
        Self { m1: part("M1"), m2: part("M2"), m0: part("m0") }
    }

    /// A server with this decoder as `bci`, in f64 as its matrices are, and as `bci-f32`.
    fn setup(&self) -> Setup {
        let f32s = |values: &[f64]| values.iter().map(|&value| value as f32).collect::<Vec<_>>();
        let f32_graph = linear_recurrence(&f32s(&self.m1), &f32s(&self.m2), &f32s(&self.m0));
        let manifest = "description = \"Velocity Kalman filter in its steady state, as it ran online\"\n\
            kind = \"decoder\"\nmode = \"step\"\n\
            [[input]]\nname = \"spikes\"\ntensor = \"u\"\ntype = \"binned\"\nbin_ms = 45\nchannels = 86\n\
            [[state]]\ninput = \"v0\"\noutput = \"v_next\"\ninit = \"zeros\"\n\
            [[output]]\nname = \"velocity\"\ntensor = \"v\"\nrole = \"decoded\"\nlabels = [\"vx\", \"vy\"]\n\
            [[output]]\nname = \"vraw\"\ntensor = \"vraw\"\nrole = \"decoded\"\nlabels = [\"vx\", \"vy\"]\n";
        Setup::bare()
            .file("bci/1/model.onnx", self.graph())
            .file("bci/model.toml", manifest)
            .file("bci-f32/1/model.onnx", f32_graph)
            .file("bci-f32/model.toml", manifest)
    }

    /// As `linear_recurrence`, in f64 from the counts on.
    fn graph(&self) -> Vec<u8> {
        const DOUBLE: i64 = 11; // ONNX's number for f64
        let (outputs, channels) = (self.m0.len(), self.m2.len() / self.m0.len());
        let bytes = |values: &[f64]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>();
        let v = ["batch".into(), outputs.into()];
        let transposed = || [Attribute::int("transB", 1)];
        GraphBuilder::new("decoder")
            .input("u", Dtype::F32, &["batch".into(), channels.into()])
            .input("v0", Dtype::F64, &v)
            .constant("m1", Dtype::F64, &[outputs, outputs], bytes(&self.m1))
            .constant("m2", Dtype::F64, &[outputs, channels], bytes(&self.m2))
            .constant("m0", Dtype::F64, &[outputs], bytes(&self.m0))
            .node_with("Cast", &["u"], &["counts"], [Attribute::int("to", DOUBLE)])
            .node_with("Gemm", &["counts", "m2", "m0"], &["vraw"], transposed())
            .node_with("Gemm", &["v0", "m1", "vraw"], &["v"], transposed())
            .node("Identity", &["v"], &["v_next"])
            .output("v", Dtype::F64, &v)
            .output("v_next", Dtype::F64, &v)
            .output("vraw", Dtype::F64, &v)
            .bytes()
    }

    /// The running velocity in f64, from v = 0. `counts`: `[bins, channels]`.
    fn velocity(&self, counts: &[f64]) -> Vec<f64> {
        let (outputs, channels) = (self.m0.len(), self.m2.len() / self.m0.len());
        let mut v = vec![0.0; outputs];
        let mut all = Vec::new();
        for u in counts.chunks_exact(channels) {
            let dot = |row: &[f64], x: &[f64]| row.iter().zip(x).map(|(a, b)| a * b).sum::<f64>();
            v = (0..outputs)
                .map(|i| {
                    dot(&self.m1[i * outputs..(i + 1) * outputs], &v)
                        + dot(&self.m2[i * channels..(i + 1) * channels], u)
                        + self.m0[i]
                })
                .collect();
            all.extend_from_slice(&v);
        }
        all
    }
}

/// The bytes of a stored (not compressed) entry of a zip archive.
fn npz_entry<'a>(zip: &'a [u8], name: &str) -> &'a [u8] {
    let u16_at = |at: usize| usize::from(u16::from_le_bytes([zip[at], zip[at + 1]]));
    let u32_at = |at: usize| u16_at(at) + (u16_at(at + 2) << 16);
    let mut at = u32_at(zip.len() - 22 + 16); // the end record, without a comment, says where the directory is
    while zip[at..].starts_with(b"PK\x01\x02") {
        let (name_len, beside) = (u16_at(at + 28), u16_at(at + 30) + u16_at(at + 32));
        if &zip[at + 46..at + 46 + name_len] == name.as_bytes() {
            assert_eq!(u16_at(at + 10), 0, "{name} is compressed");
            let local = u32_at(at + 42);
            let data = local + 30 + u16_at(local + 26) + u16_at(local + 28);
            return &zip[data..data + u32_at(at + 20)];
        }
        at += 46 + name_len + beside;
    }
    panic!("no {name} in the archive");
}

/// An f64 array of one or two axes, row-major whatever its order in the file (MATLAB's matrices come in columns).
fn matrix(file: &[u8]) -> Vec<f64> {
    let header_len = usize::from(u16::from_le_bytes([file[8], file[9]]));
    let header = std::str::from_utf8(&file[10..10 + header_len]).expect("a header of text");
    assert!(header.contains("'<f8'"), "{header}");
    let shape =
        header.split_once("'shape': (").and_then(|(_, rest)| rest.split_once(')')).expect("a shape").0;
    let shape: Vec<usize> = shape.split(',').filter_map(|axis| axis.trim().parse().ok()).collect();
    let bytes = file[10 + header_len..].chunks_exact(8);
    let stored: Vec<f64> = bytes.map(|x| f64::from_le_bytes(x.try_into().expect("eight"))).collect();
    match (shape.as_slice(), header.contains("'fortran_order': True")) {
        (&[rows, columns], true) => {
            (0..rows * columns).map(|i| stored[i % columns * rows + i / columns]).collect()
        }
        _ => stored,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_decoders_of_a_real_experiment_give_their_stored_outputs() {
    let Some(folder) = recordings::third_party("m1_bci_decoder") else { return };
    let recording = replay::open(&folder).expect("the recording is read");
    let counts = counts(&recording);
    for name in ["intuitive", "perturbed"] {
        let decoder = Decoder::read(&folder, name);
        let stored = std::fs::read(folder.join(format!("vraw_{name}.npy"))).expect("the stored outputs");
        let stored = npy::read(&stored).expect("an array").to_f64();
        let velocity = decoder.velocity(&counts);
        let server = decoder.setup().start().await;
        let mut first: Option<Answers> = None;
        for (dtype, bins) in [(Dtype::U8, 1.0), (Dtype::F32, 1.0), (Dtype::I32, 7.0), (Dtype::F32, 50.0)] {
            let recording = recordings::in_dtype(recordings::of(&recording, &["spikes"]), dtype);
            let report = play_grpc(&server, &recording, "bci", &["spikes"], 45.0 * bins).await;
            let outputs = &report.answers.outputs;
            assert_eq!((report.answers.first_bin, report.answers.answered()), (0, 1104));
            let raw = assert_close("vraw", &outputs["vraw"].values, &stored);
            let run = assert_close("velocity", &outputs["velocity"].values, &velocity);
            println!(
                "{name}, {dtype} in frames of {bins} bins: vraw within {raw:.1e}, velocity within {run:.1e}"
            );
            let first = first.get_or_insert_with(|| report.answers.clone());
            assert_same_bits(&format!("{name}, {dtype}, {bins} bins"), &report.answers, first);
        }
        let by_http = play_http(&server, &recording, "bci", &["spikes"], 45_000_000 * 50).await;
        assert_same_bits("HTTP", &by_http, first.as_ref().expect("it was played"));
        // In f32 the sum of 86 terms, of up to 1,000 together, rounds: 1e-5 of the largest output is what it can promise.
        let report = play_grpc(&server, &recording, "bci-f32", &["spikes"], 45.0).await;
        for (output, want) in [("vraw", &stored), ("velocity", &velocity)] {
            let largest = want.iter().fold(1.0_f64, |largest, x| largest.max(x.abs()));
            let scaled = |values: &[f64]| values.iter().map(|x| x / largest).collect::<Vec<_>>();
            let got = &report.answers.outputs[output].values;
            let apart = assert_close(&format!("{output} in f32"), &scaled(got), &scaled(want));
            println!("{name} in f32: {output} within {apart:.1e} of the largest, {largest:.0}");
        }
        server.stop().await;
    }
}

/// The counts of the one signal `spikes`, row-major.
fn counts(recording: &Recording) -> Vec<f64> {
    match &recording.signal("spikes").expect("a signal").data {
        latentd::wire::recording::Data::Samples { tensor, .. } => tensor.to_f64(),
        other => panic!("counts, not {other:?}"),
    }
}

// ---- the models of the zoo ----

/// Pipelines of the bundled models that stream without noise, each with a recording: name, recording, bin (ns).
fn bundled() -> Vec<(&'static str, Recording, i64)> {
    let mut all = vec![("cortex", recordings::cortex_counts(200), CORTEX_BIN_NS)];
    all.extend(receptor().map(|recording| ("receptor-envelope", recording, RECEPTOR_BIN_NS)));
    all
}

/// Width of the receptor's bins.
const RECEPTOR_BIN_NS: i64 = 2_000_000;

/// The spikes that the receptor's decoder has not learnt from with the sound that they answered, where they are there.
fn receptor() -> Option<Recording> {
    let folder = recordings::third_party("grasshopper_receptor")?;
    Some(replay::open(&folder.join("recording_2.json")).expect("the recording is read"))
}

/// Reference vectors that PyTorch computed: an array of the file, and the first bin that it speaks of.
fn reference(file: &str, output: &str) -> (usize, Vec<f64>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("zoo/reference").join(file);
    let bytes = std::fs::read(path).expect("the committed vectors are read");
    let file = SafeTensors::deserialize(&bytes).expect("safetensors");
    let raw = |name: &str| file.tensor(name).expect("an array of the file").data().to_vec();
    let first = i64::from_le_bytes(raw("first_bin").try_into().expect("one i64"));
    let values =
        raw(output).chunks_exact(4).map(|x| f32::from_le_bytes(x.try_into().expect("four")).into()).collect();
    (first as usize, values)
}

fn milliseconds(ns: i64) -> f64 {
    ns as f64 / 1e6
}

/// The signals of a recording by name.
fn names(recording: &Recording) -> Vec<&str> {
    recording.signals.iter().map(latentd::wire::recording::Signal::name).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_zoos_models_answer_what_pytorch_computed_from_the_raw_data() {
    let server = Setup::bare().bundled().start().await;
    for (pipeline, recording, bin_ns) in bundled() {
        let (file, outputs): (_, &[&str]) = match pipeline {
            "cortex" => ("cortex.safetensors", &["latent", "rates", "velocity"]),
            _ => ("receptor.safetensors", &["envelope"]),
        };
        let report = play_grpc(&server, &recording, pipeline, &names(&recording), milliseconds(bin_ns)).await;
        for output in outputs {
            let (first, want) = reference(file, output);
            let series = &report.answers.outputs[*output];
            let got = &series.values[first * series.width..];
            assert!(got.len() >= want.len(), "{pipeline}: {output}: {} values", got.len());
            let apart = assert_close(&format!("{pipeline}: {output}"), &got[..want.len()], &want);
            println!("{pipeline}: {output}, {} bins: within {apart:.1e}", want.len() / series.width);
        }
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn http_and_grpc_and_any_cut_into_frames_give_the_same_bits() {
    let server = Setup::bare().bundled().start().await;
    for (pipeline, recording, bin_ns) in bundled() {
        let names = ["spikes"];
        let whole = play_grpc(&server, &recording, pipeline, &names, milliseconds(bin_ns)).await.answers;
        for bins in [3, 7, 50] {
            let cut = play_grpc(&server, &recording, pipeline, &names, milliseconds(bins * bin_ns)).await;
            assert_same_bits(&format!("{pipeline}, frames of {bins} bins"), &cut.answers, &whole);
        }
        if pipeline == "receptor-envelope" {
            let cut = play_grpc(&server, &recording, pipeline, &names, 3.7).await;
            assert_same_bits("frames that end within a bin", &cut.answers, &whole);
        }
        let by_http = play_http(&server, &recording, pipeline, &names, 7 * bin_ns).await;
        assert_same_bits(&format!("{pipeline} by HTTP"), &by_http, &whole);
    }
    let recording = recordings::cortex_counts(200);
    let one_by_one = play_http(&server, &recording, "cortex", &["spikes"], CORTEX_BIN_NS).await;
    let by_grpc = play_grpc(&server, &recording, "cortex", &["spikes"], 20.0).await;
    assert_same_bits("cortex by HTTP, a bin a frame", &one_by_one, &by_grpc.answers);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn among_63_noisy_neighbours_a_session_gets_the_bits_that_it_gets_alone() {
    const NEIGHBOURS: u64 = 63;
    // Admission is not at stake here, and on a busy machine 63 floods would be too much for one worker.
    let server = Setup::bare().bundled().key("workers", 4).key("load_limit", 1).start().await;
    let recording = recordings::cortex_counts(200);
    let alone = play_grpc(&server, &recording, "cortex", &["spikes"], 20.0).await.answers;
    let batches = async |le: &str| {
        server.metric("latentd_batch_rows_bucket", &format!("model=\"cortex-encoder\",le=\"{le}\"")).await
    };
    let (lone_before, all_before) = (batches("1").await, batches("+Inf").await);

    let stop = CancellationToken::new();
    let noise = (1..=NEIGHBOURS).map(|seed| {
        let options =
            PlayOptions { stop: stop.clone(), ..PlayOptions::new(&server.grpc, "cortex").at_max_speed() };
        tokio::spawn(async move { play(&recordings::noise(3_000, seed), &options).await })
    });
    let noise: Vec<_> = noise.collect();
    crate::support::until(crate::support::LIMIT, "64 sessions that stream", || async {
        (server.metric("latentd_sessions", "state=\"open\"").await >= NEIGHBOURS as f64).then_some(())
    })
    .await;
    let among = play_grpc(&server, &recording, "cortex", &["spikes"], 20.0).await.answers;
    stop.cancel();
    for neighbour in noise {
        let report = neighbour.await.expect("a neighbour ends").expect("a neighbour is served");
        assert!(report.answers.answered() > 0, "a neighbour streamed");
    }
    assert_same_bits("among neighbours", &among, &alone);
    let (lone, all) = (batches("1").await - lone_before, batches("+Inf").await - all_before);
    assert!(all - lone > 100.0, "{lone} of {all} runs of the encoder had one row: nothing was batched");
    println!("{all} runs of the encoder, {} of them of more than one row", all - lone);
    server.stop().await;
}
