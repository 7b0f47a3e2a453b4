use std::sync::LazyLock;
use std::time::{Duration, Instant};

use super::*;
use crate::domain::tensor::{Dtype, Tensor};
use crate::engine::Batch;
use crate::graph::Dim;
use crate::graph::build::{Attribute, GraphBuilder, linear_recurrence};

static ENGINE: LazyLock<OrtEngine> = LazyLock::new(|| {
    library::find(None).and_then(|path| OrtEngine::open(&path)).unwrap_or_else(|error| panic!("{error}"))
});

const CPU: LoadOptions = LoadOptions { device: Device::Cpu, intra_threads: 1 };

fn model(onnx: Vec<u8>) -> ModelBytes {
    ModelBytes { name: "test/1".into(), onnx: onnx.into(), external: BTreeMap::new() }
}

fn loaded(onnx: Vec<u8>) -> Box<dyn Instance> {
    ENGINE.load(&model(onnx), &CPU).unwrap()
}

fn refused(model: &ModelBytes, options: &LoadOptions) -> String {
    ENGINE.load(model, options).err().expect("refused").to_string()
}

fn batch(inputs: impl Into<Vec<Tensor>>) -> Batch {
    Batch { inputs: inputs.into(), outputs: Vec::new() }
}

/// `len` values in [-1, 1] that look drawn.
fn drawn(len: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    })
    .take(len)
    .collect()
}

fn recurrence() -> Vec<u8> {
    linear_recurrence(&[0.5, 0.25, 0.0, 1.0], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], &[0.5, -0.5])
}

/// A step model of a GRU, `[batch, channels]` and `[1, batch, hidden]` in, the new state out.
fn gru(channels: usize, hidden: usize) -> Vec<u8> {
    let state = [1.into(), "batch".into(), hidden.into()];
    GraphBuilder::new("gru")
        .input("x", Dtype::F32, &["batch".into(), channels.into()])
        .input("h0", Dtype::F32, &state)
        .i64("first", &[1], &[0])
        .f32("w", &[1, 3 * hidden, channels], &drawn(3 * hidden * channels, 1))
        .f32("r", &[1, 3 * hidden, hidden], &drawn(3 * hidden * hidden, 2))
        .node("Unsqueeze", &["x", "first"], &["seq"])
        .node_with(
            "GRU",
            &["seq", "w", "r", "", "", "h0"],
            &["", "hn"],
            [Attribute::int("hidden_size", hidden as i64)],
        )
        .output("hn", Dtype::F32, &state)
        .bytes()
}

#[test]
fn a_graph_is_loaded_and_run_and_its_numbers_are_right() {
    let mut instance = loaded(recurrence());
    assert_eq!(instance.info().device, "cpu");
    assert_eq!(instance.info().signature.outputs[1].name, "v_next");
    assert!(instance.info().providers["CPUExecutionProvider"] >= 2, "{:?}", instance.info().providers);
    let u = Tensor::from_f32(&[2, 3], &[1.0, 0.0, 0.0, 0.0, 1.0, 1.0]);
    let v0 = Tensor::from_f32(&[2, 2], &[0.0, 0.0, 4.0, 8.0]);
    let mut rows = batch([u, v0]);
    instance.run(&mut rows).unwrap();
    let [v, v_next, vraw] = &rows.outputs[..] else { panic!("{:?}", rows.outputs) };
    assert_eq!((vraw.shape.as_slice(), vraw.values::<f32>()), (&[2, 2][..], &[1.5, 3.5, 5.5, 10.5][..]));
    assert_eq!(v.values::<f32>(), [1.5, 3.5, 9.5, 18.5]);
    assert_eq!(v, v_next);
}

#[test]
fn a_row_has_the_same_bits_in_every_batch() {
    for (onnx, channels, hidden, state_shape) in [
        (gru(96, 32), 96, 32, (|rows, hidden| vec![1, rows, hidden]) as fn(usize, usize) -> Vec<usize>),
        (linear_recurrence(&drawn(32 * 32, 3), &drawn(32 * 96, 4), &drawn(32, 5)), 96, 32, |rows, hidden| {
            vec![rows, hidden]
        }),
    ] {
        let mut instance = loaded(onnx);
        let (x, h) = (drawn(channels, 6), drawn(hidden, 7));
        let mut alone: Option<Vec<f32>> = None;
        for rows in [1, 2, 3, 8, 33, 64] {
            let (mut xs, mut hs) = (drawn(rows * channels, 8), drawn(rows * hidden, 9));
            let at = rows / 2;
            xs[at * channels..][..channels].copy_from_slice(&x);
            hs[at * hidden..][..hidden].copy_from_slice(&h);
            let state = Tensor::from_f32(&state_shape(rows, hidden), &hs);
            let mut rows = batch([Tensor::from_f32(&[rows, channels], &xs), state]);
            instance.run(&mut rows).unwrap();
            let row = rows.outputs[0].values::<f32>()[at * hidden..][..hidden].to_vec();
            assert_eq!(*alone.get_or_insert_with(|| row.clone()), row, "{:?}", rows.outputs[0].shape);
        }
    }
}

#[test]
fn every_dtype_goes_through_unchanged() {
    for dtype in Dtype::ALL {
        let dims = ["batch".into(), 3.into()];
        let plan = GraphBuilder::new("same")
            .input("x", dtype, &dims)
            .node("Identity", &["x"], &["y"])
            .output("y", dtype, &dims)
            .bytes();
        let mut instance = loaded(plan);
        for rows in [2, 0] {
            let bytes: Vec<u8> = (0..rows * 3 * dtype.size_bytes()).map(|byte| byte as u8 % 2).collect();
            let mut rows = batch([Tensor::from_bytes(dtype, &[rows, 3], &bytes).unwrap()]);
            instance.run(&mut rows).unwrap();
            assert_eq!(rows.outputs, rows.inputs, "{dtype}");
        }
    }
}

#[test]
fn buffers_are_reused_and_moved_inputs_are_seen() {
    let mut instance = loaded(recurrence());
    let mut rows = batch([Tensor::zeros(Dtype::F32, &[1, 3]), Tensor::zeros(Dtype::F32, &[1, 2])]);
    instance.run(&mut rows).unwrap();
    let place = rows.outputs[0].data.bytes().as_ptr();
    rows.inputs[0].values_mut::<f32>().fill(1.0);
    instance.run(&mut rows).unwrap();
    assert_eq!(rows.outputs[0].values::<f32>(), [6.5, 14.5]);
    assert_eq!(rows.outputs[0].data.bytes().as_ptr(), place);
    for size in [3, 1, 2] {
        rows.inputs = vec![Tensor::zeros(Dtype::F32, &[size, 3]), Tensor::zeros(Dtype::F32, &[size, 2])];
        rows.inputs[0].values_mut::<f32>().fill(size as f32);
        instance.run(&mut rows).unwrap();
        assert_eq!(rows.outputs[2].shape, [size, 2]);
        assert_eq!(rows.outputs[2].values::<f32>()[0], 6.0 * size as f32 + 0.5);
    }
}

#[test]
fn an_output_whose_shape_depends_on_the_data_is_given_as_it_is() {
    let plan = GraphBuilder::new("where")
        .input("x", Dtype::F32, &["n".into()])
        .node("NonZero", &["x"], &["at"])
        .output("at", Dtype::I64, &[1.into(), Dim::Unknown])
        .bytes();
    let mut instance = loaded(plan);
    for (x, at) in [(&[0.0, 3.0, 4.0], &[1, 2][..]), (&[0.0, 0.0, 0.0], &[])] {
        let mut rows = batch([Tensor::from_f32(&[3], x)]);
        instance.run(&mut rows).unwrap();
        assert_eq!((rows.outputs[0].shape[1], rows.outputs[0].values::<i64>()), (at.len(), at));
    }
}

fn with_external() -> ModelBytes {
    let plan = GraphBuilder::new("external")
        .input("x", Dtype::F32, &["batch".into(), 4.into()])
        .external("w", Dtype::F32, &[4], "weights.bin", 8)
        .node("Add", &["x", "w"], &["y"])
        .output("y", Dtype::F32, &["batch".into(), 4.into()])
        .bytes();
    let weights: Vec<u8> =
        [9.0f32, 9.0, 1.0, 2.0, 3.0, 4.0].iter().flat_map(|value| value.to_le_bytes()).collect();
    ModelBytes { external: BTreeMap::from([("weights.bin".into(), weights.into())]), ..model(plan) }
}

#[test]
fn external_data_come_from_memory() {
    let mut instance = ENGINE.load(&with_external(), &CPU).unwrap();
    let mut rows = batch([Tensor::zeros(Dtype::F32, &[1, 4])]);
    instance.run(&mut rows).unwrap();
    assert_eq!(rows.outputs[0].values::<f32>(), [1.0, 2.0, 3.0, 4.0]);
}

#[test]
fn a_graph_whose_external_data_are_not_all_there_is_refused() {
    let whole = with_external();
    let bytes = &whole.external["weights.bin"];
    let short = BTreeMap::from([("weights.bin".to_string(), bytes[..20].into())]);
    assert_eq!(
        refused(&ModelBytes { external: short, ..whole.clone() }, &CPU),
        "test/1: tensor `w`: expected its external data at bytes 8 to 24 of `weights.bin`, found 20 bytes in all"
    );
    let other = BTreeMap::from([("weight.bin".to_string(), Arc::clone(bytes))]);
    assert_eq!(
        refused(&ModelBytes { external: other, ..whole }, &CPU),
        "test/1: tensor `w`: expected its external data `weights.bin` among the version's files; there are: weight.bin"
    );
}

#[test]
fn a_graph_that_cannot_be_loaded_is_one_sentence() {
    let unknown = GraphBuilder::new("g")
        .input("x", Dtype::F32, &[1.into()])
        .node("Levitate", &["x"], &["y"])
        .output("y", Dtype::F32, &[1.into()])
        .bytes();
    let sentence = refused(&model(unknown), &CPU);
    assert!(sentence.starts_with("test/1: ") && sentence.contains("Levitate"), "{sentence}");
    assert!(refused(&model(vec![1, 2, 3]), &CPU).starts_with("test/1: not an ONNX model: "));
}

#[test]
fn a_wrong_input_is_named_and_the_next_run_works() {
    let mut instance = loaded(recurrence());
    let (u, v0) = (Tensor::zeros(Dtype::F32, &[1, 3]), Tensor::zeros(Dtype::F32, &[1, 2]));
    let mut torn = u.clone();
    torn.data.resize(8);
    let wrong = [
        (Tensor::zeros(Dtype::F32, &[1, 4]), "f32 [1, 4] in 16 bytes"),
        (Tensor::zeros(Dtype::F64, &[1, 3]), "f64 [1, 3] in 24 bytes"),
        (Tensor::zeros(Dtype::F32, &[3]), "f32 [3] in 12 bytes"),
        (torn, "f32 [1, 3] in 8 bytes"),
    ];
    for (tensor, found) in wrong {
        let error = instance.run(&mut batch([tensor, v0.clone()])).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("run failed: input `u`: expected f32 [batch, 3], found {found}")
        );
        instance.run(&mut batch([u.clone(), v0.clone()])).unwrap();
    }
    let error = instance.run(&mut batch([u.clone()])).unwrap_err();
    assert_eq!(error.to_string(), "run failed: expected 2 inputs, found 1");
    let error = instance.run(&mut batch([u.clone(), Tensor::zeros(Dtype::F32, &[2, 2])])).unwrap_err();
    let words = "run failed: input `v0`: expected f32 [batch, 2] with batch = 1 as in `u`, found [2, 2]";
    assert_eq!(error.to_string(), words);
    instance.run(&mut batch([u, v0])).unwrap();
}

#[test]
fn what_only_the_runtime_sees_is_an_error_of_the_run_and_the_next_run_works() {
    let plan = GraphBuilder::new("pick")
        .input("at", Dtype::I64, &["n".into()])
        .f32("table", &[2], &[5.0, 6.0])
        .node("Gather", &["table", "at"], &["y"])
        .output("y", Dtype::F32, &["n".into()])
        .bytes();
    let mut instance = loaded(plan);
    let at = |row: i64| batch([Tensor::from_bytes(Dtype::I64, &[1], &row.to_le_bytes()).unwrap()]);
    for _ in 0..3 {
        let error = instance.run(&mut at(9)).unwrap_err();
        assert!(
            error.to_string().starts_with("run failed: Gather node `gather_0`: indices element out"),
            "{error}"
        );
        let mut rows = at(1);
        instance.run(&mut rows).unwrap();
        assert_eq!(rows.outputs[0].values::<f32>(), [6.0]);
    }
}

/// Adds 1 to `x` as often as `n` says.
fn endless() -> Vec<u8> {
    let mut body = GraphBuilder::new("body");
    body.input("i", Dtype::I64, &[]).input("go", Dtype::Bool, &[]).input("a", Dtype::F32, &[1.into()]);
    body.f32("one", &[1], &[1.0]);
    body.node("Identity", &["go"], &["go_on"]).node("Add", &["a", "one"], &["b"]);
    body.output("go_on", Dtype::Bool, &[]).output("b", Dtype::F32, &[1.into()]);
    GraphBuilder::new("loop")
        .input("n", Dtype::I64, &[])
        .input("x", Dtype::F32, &[1.into()])
        .node_with("Loop", &["n", "", "x"], &["y"], [Attribute::graph("body", &body)])
        .output("y", Dtype::F32, &[1.into()])
        .bytes()
}

#[test]
fn an_interrupt_ends_the_run_in_progress_and_no_other() {
    let mut instance = loaded(endless());
    let interrupt = instance.interrupt();
    let rows = |n: i64| {
        batch([
            Tensor::from_bytes(Dtype::I64, &[], &n.to_le_bytes()).unwrap(),
            Tensor::zeros(Dtype::F32, &[1]),
        ])
    };
    interrupt.fire();
    let mut few = rows(3);
    instance.run(&mut few).unwrap();
    assert_eq!(few.outputs[0].values::<f32>(), [3.0]);

    let began = Instant::now();
    std::thread::scope(|threads| {
        let long = threads.spawn(|| instance.run(&mut rows(i64::MAX)));
        while !long.is_finished() {
            interrupt.fire();
            std::thread::yield_now();
        }
        assert!(matches!(long.join().unwrap(), Err(EngineError::Interrupted)));
    });
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    interrupt.fire();
    instance.run(&mut few).unwrap();
}

#[test]
fn a_gpu_that_is_not_there_is_a_fault_and_auto_says_cpu() {
    let asked = |device| LoadOptions { device, intra_threads: 1 };
    let error = match ENGINE.load(&model(recurrence()), &asked(Device::Cuda(0))) {
        Err(error) => error,
        Ok(instance) => {
            assert_eq!(instance.info().device, "cuda:0");
            println!("not run: there is a GPU");
            return;
        }
    };
    assert!(matches!(&error, EngineError::Device { device, .. } if device == "cuda:0"), "{error}");
    let sentence = error.to_string();
    if ENGINE.has_cuda().is_err() {
        assert!(sentence.starts_with("test/1: cuda:0: this ONNX Runtime (1."), "{sentence}");
        assert!(sentence.ends_with("wanted the library of onnxruntime-gpu"), "{sentence}");
    }
    let instance = ENGINE.load(&model(recurrence()), &asked(Device::Auto)).unwrap();
    assert_eq!(instance.info().device, "cpu");
    assert_eq!(instance.info().providers.keys().collect::<Vec<_>>(), ["CPUExecutionProvider"]);
}

#[test]
fn instances_run_on_threads_of_their_own() {
    let onnx = gru(16, 8);
    let shape = [1, 1, 8];
    let steps = |instance: &mut Box<dyn Instance>| {
        let mut rows = batch([Tensor::from_f32(&[1, 16], &drawn(16, 1)), Tensor::zeros(Dtype::F32, &shape)]);
        for _ in 0..300 {
            instance.run(&mut rows).unwrap();
            std::mem::swap(&mut rows.inputs[1], &mut rows.outputs[0]);
        }
        rows.inputs[1].clone()
    };
    let alone = steps(&mut loaded(onnx.clone()));
    std::thread::scope(|threads| {
        let all: Vec<_> = (0..4)
            .map(|_| {
                let mut instance = loaded(onnx.clone());
                threads.spawn(move || steps(&mut instance))
            })
            .collect();
        for one in all {
            assert_eq!(one.join().unwrap(), alone);
        }
    });
}

#[test]
fn the_fingerprint_names_build_provider_and_cpu() {
    let fingerprint = ENGINE.fingerprint();
    assert!(fingerprint.starts_with("onnxruntime 1."), "{fingerprint}");
    assert!(
        fingerprint.contains("CPUExecutionProvider") && fingerprint.contains("git-commit-id"),
        "{fingerprint}"
    );
}

#[test]
fn a_device_is_parsed_from_its_word_and_back() {
    for device in [Device::Auto, Device::Cpu, Device::Cuda(0), Device::Cuda(12)] {
        assert_eq!(Device::parse(&device.to_string()), Some(device));
    }
    assert!(
        ["", "gpu", "cuda", "cuda:", "cuda:-1", "cuda:+1", "CPU"]
            .iter()
            .all(|word| Device::parse(word).is_none())
    );
}

#[path = "ort_overhead.rs"]
mod overhead;
