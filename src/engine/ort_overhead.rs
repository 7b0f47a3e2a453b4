//! What a run costs beside the bare call: `cargo test --lib overhead -- --ignored --nocapture`.

use std::hint::black_box;

use ort::value::TensorRef;

use super::*;

const RUNS: u32 = 1_000;
const ROUNDS: usize = 60;

/// Nanoseconds of each call: the best of many short rounds that take turns, since the machine is shared.
fn ns<const N: usize>(mut calls: [&mut dyn FnMut(); N]) -> [f64; N] {
    let mut best = [f64::INFINITY; N];
    for _ in 0..ROUNDS {
        for (best, call) in best.iter_mut().zip(&mut calls) {
            let began = Instant::now();
            for _ in 0..RUNS {
                call();
            }
            *best = best.min(began.elapsed().as_nanos() as f64 / f64::from(RUNS));
        }
    }
    best
}

#[test]
#[ignore = "a measurement"]
fn overhead_of_a_run() {
    println!("{}", ENGINE.fingerprint());
    let f32s = |shape: &[usize]| Tensor::from_f32(shape, &drawn(shape.iter().product(), 1));
    let cases = [
        ("gru 96->32", gru(96, 32), [f32s(&[1, 96]), f32s(&[1, 1, 32])]),
        ("gru 96->128", gru(96, 128), [f32s(&[1, 96]), f32s(&[1, 1, 128])]),
        (
            "linear 42->2",
            linear_recurrence(&drawn(4, 1), &drawn(84, 2), &drawn(2, 3)),
            [f32s(&[1, 42]), f32s(&[1, 2])],
        ),
    ];
    for (name, onnx, inputs) in cases {
        for pattern in [true, false] {
            let session = || {
                let mut builder = ENGINE.builder(&CPU).unwrap().with_memory_pattern(pattern).unwrap();
                builder.commit_from_memory(&onnx).unwrap()
            };
            let (mut of_ort, bare) = (session(), session());
            let info = InstanceInfo {
                signature: graph::read(&onnx).unwrap().signature().clone(),
                device: "cpu".into(),
                providers: BTreeMap::new(),
            };
            let mut instance = OrtInstance::new(session(), info, Vec::new()).unwrap();
            let mut rows = batch(inputs.clone());

            // the C API alone: values bound once, nothing copied
            let mut binding = bare.create_binding().unwrap();
            for (input, tensor) in bare.inputs().iter().zip(&inputs) {
                let values = tensor.values::<f32>().to_vec();
                let value = ort::value::Tensor::from_array((tensor.shape.clone(), values)).unwrap();
                binding.bind_input(input.name(), &value).unwrap();
            }
            for output in bare.outputs() {
                binding.bind_output_to_device(output.name(), &ort::memory::MemoryInfo::default()).unwrap();
            }

            let [bare, ours, of_ort] = ns([
                &mut || {
                    // SAFETY: session and binding are alive and belong together.
                    let status = unsafe {
                        (ort::api().RunWithBinding)(bare.ptr().cast_mut(), ptr::null(), binding.ptr())
                    };
                    assert!(black_box(status).0.is_null());
                },
                &mut || instance.run(&mut rows).unwrap(),
                &mut || {
                    let values: Vec<ort::session::SessionInputValue> = (inputs.iter())
                        .map(|tensor| (tensor.shape.as_slice(), tensor.values::<f32>()))
                        .map(|view| TensorRef::from_array_view(view).unwrap().into())
                        .collect();
                    let outputs = of_ort.run(&values[..]).unwrap();
                    black_box(outputs[0].try_extract_tensor::<f32>().unwrap().1.to_vec());
                },
            ]);
            println!(
                "{name}, memory pattern {pattern}: bare {bare:.0} ns, ours {ours:.0} ns, ort's run {of_ort:.0} ns"
            );
        }
    }
}
