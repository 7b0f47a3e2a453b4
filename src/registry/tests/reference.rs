use super::repository::{Repository, STEP, engine, safetensors, step};
use crate::registry::check;

/// A reference of `STEP`, whose latents are its velocity.
fn good() -> Vec<(&'static str, &'static [usize], Vec<f32>)> {
    vec![
        ("in.u.mean", &[3], vec![1.0, 2.0, 3.0]),
        ("in.u.spread", &[3], vec![1.0; 3]),
        ("in.u.silence", &[3], vec![0.0, 0.5, 1.0]),
        ("out.v.mean", &[2], vec![0.0, 1.0]),
        ("out.v.covariance", &[2, 2], vec![1.0, 0.2, 0.2, 1.0]),
    ]
}

fn written(tensors: &[(&'static str, &'static [usize], Vec<f32>)]) -> Vec<u8> {
    let views: Vec<_> =
        tensors.iter().map(|(name, shape, values)| (*name, *shape, values.as_slice())).collect();
    safetensors(&views)
}

fn manifest() -> String {
    STEP.replace("role = \"decoded\"", "role = \"latent\"")
}

#[test]
fn a_reference_is_found_by_its_name_and_is_no_part_of_the_digest() {
    let repository = Repository::new();
    for model in ["with", "beside", "without"] {
        repository
            .put(&format!("{model}/model.toml"), manifest())
            .put(&format!("{model}/1/model.onnx"), step());
    }
    repository
        .put("with/1/reference.safetensors", written(&good()))
        .put("beside/reference.safetensors", written(&good()[..3]));
    repository.registry.first_scan();
    let (with, beside) = (repository.ready("with"), repository.ready("beside"));
    let reference = with.reference.as_ref().unwrap();
    assert_eq!(reference.input(0).unwrap().columns(), 3);
    assert!(reference.input(1).is_none(), "the state is no streamed input");
    assert_eq!(reference.output(0).unwrap().latents(), 2);
    let reference = beside.reference.as_ref().unwrap();
    assert!(reference.input(0).is_some() && reference.output(0).is_none());
    let without = repository.ready("without");
    assert!(without.reference.is_none());
    assert_eq!((with.digest, beside.digest), (without.digest, without.digest));
    let (table, all_well) = check::table(repository.root(), engine());
    assert!(all_well, "{table}");
    let line = |model: &str| table.lines().find(|line| line.starts_with(model)).unwrap().to_owned();
    assert!(line("with ").contains("1 inputs, 1 latents"), "{table}");
    assert!(line("beside").contains("1 inputs, 0 latents"), "{table}");
    assert!(
        line("without").contains("none: no session can tell whether its input is what this learnt"),
        "{table}"
    );
}

#[test]
fn whatever_does_not_fit_is_one_sentence_each() {
    let with = |name: &'static str, shape: &'static [usize], values: Vec<f32>| {
        let mut tensors = good();
        match tensors.iter().position(|(known, ..)| *known == name) {
            Some(at) => tensors[at] = (name, shape, values),
            None => tensors.push((name, shape, values)),
        }
        written(&tensors)
    };
    let without =
        |name: &str| written(&good().into_iter().filter(|(known, ..)| *known != name).collect::<Vec<_>>());
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("torn", vec![1, 2, 3], "expected a safetensors file, found 3 bytes, fewer than the 8 that say"),
        ("empty", written(&[]), "expected at least one input or output, found none"),
        (
            "named",
            with("u.mean", &[3], vec![0.0; 3]),
            "`u.mean`: expected in.<tensor>.<part> or out.<tensor>.<part>",
        ),
        (
            "input",
            with("in.x.mean", &[3], vec![0.0; 3]),
            "`in.x.mean`: expected a streamed input (there are: u), found none",
        ),
        (
            "state",
            with("in.v0.mean", &[2], vec![0.0; 2]),
            "`in.v0.mean`: expected a streamed input (there are: u)",
        ),
        (
            "output",
            with("out.vraw.mean", &[2], vec![0.0; 2]),
            "`out.vraw.mean`: expected an output of role latent (there are: v)",
        ),
        (
            "part",
            with("in.u.median", &[3], vec![0.0; 3]),
            "`in.u.median`: expected one of the parts mean, spread, silence, spread_10s, found `median`",
        ),
        (
            "lacks",
            without("in.u.silence"),
            "`in.u.silence`: expected a tensor, beside the others of `in.u`, found none",
        ),
        (
            "shape",
            with("in.u.mean", &[2], vec![0.0; 2]),
            "`in.u.mean`: expected f32 or f64 [3], found F32 [2]",
        ),
        (
            "square",
            with("out.v.covariance", &[4], vec![0.0; 4]),
            "`out.v.covariance`: expected f32 or f64 [2, 2], found F32 [4]",
        ),
        (
            "nan",
            with("in.u.mean", &[3], vec![0.0, f32::NAN, 0.0]),
            "`in.u.mean`: expected finite values, found NaN in channel 1",
        ),
        (
            "spread",
            with("in.u.spread_10s", &[3], vec![0.0, 0.0, -2.0]),
            "`in.u.spread_10s`: expected finite values of 0 or above, found -2 in channel 2",
        ),
        (
            "share",
            with("in.u.silence", &[3], vec![0.0, 1.5, 0.0]),
            "`in.u.silence`: expected shares of seconds, from 0 to 1, found 1.5 in channel 1",
        ),
        (
            "bent",
            with("out.v.covariance", &[2, 2], vec![1.0, 2.0, 2.0, 1.0]),
            "`out.v.covariance`: expected a positive definite matrix, found one that is not",
        ),
    ];
    let repository = Repository::new();
    for (model, file, _) in &cases {
        repository
            .put(&format!("{model}/model.toml"), manifest())
            .put(&format!("{model}/1/model.onnx"), step())
            .put(&format!("{model}/1/reference.safetensors"), file);
    }
    repository.registry.first_scan();
    for (model, _, said) in &cases {
        let fault = repository.fault(model);
        assert!(fault.contains(&format!("{model}/1/reference.safetensors: ")), "{fault}");
        assert!(fault.contains(said), "`{said}` is not in: {fault}");
    }
}
