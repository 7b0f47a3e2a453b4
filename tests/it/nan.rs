//! Values that are not finite: on the way in by policy, on the way out as `output_invalid`.

use crate::support::{
    Latentd, Linear, Setup, bins, blocks, counts, flag_names, linear, pipeline, recorded, signal,
};
use latentd::domain::tensor::{Dtype, Tensor};
use latentd::wire::{tensor, v1};

const ROW: [f32; 2] = [1.0, 2.0];
const NAN: f32 = f32::NAN;

fn with(nan: &str) -> v1::OpenRequest {
    v1::OpenRequest { nan: nan.into(), ..recorded(linear()) }
}

fn fragile() -> v1::OpenRequest {
    pipeline("fragile", [signal("spikes", "binned", &["a", "b"])])
}

#[tokio::test]
async fn an_input_that_is_not_finite_is_masked_held_or_zeroed_by_policy() {
    let server = Latentd::start().await;
    let both: &[&str] = &["masked", "nan_replaced"];
    for (nan, seen, flags) in
        [("mask", [1.0, 0.0], both), ("hold", [1.0, 2.0], &both[1..]), ("zero", [1.0, 0.0], &both[1..])]
    {
        let rig = server.open(with(nan)).await;
        let mut known = Linear::new();
        assert_eq!(blocks::<2>(&rig.send(counts(0, 0, &[ROW])).await, 0), [known.step(ROW)]);
        for (seq, bad) in [(1, NAN), (2, f32::INFINITY), (3, f32::NEG_INFINITY)] {
            let output = rig.send(counts(seq, seq, &[[1.0, bad]])).await;
            assert_eq!(blocks::<2>(&output, 0), [known.step(seen)], "{nan} {bad}");
            assert_eq!(flag_names(&output), [flags], "{nan} {bad}");
        }
        let output = rig.send(counts(4, 4, &[ROW])).await;
        assert_eq!(blocks::<2>(&output, 0), [known.step(ROW)], "{nan}");
        assert_eq!(flag_names(&output), [Vec::<&str>::new()]);
        let run = rig.run().to_owned();
        rig.close().await;
        let event = server.event(&run, "nan_replaced").await;
        assert_eq!((event.signal.as_str(), event.from_bin), ("spikes", Some(1)), "{nan}");
    }
    // By the words that JSON has for them, and by protobuf's raw bytes.
    let rig = server.open(with("mask")).await;
    let writer = &rig.opened.writers["spikes"];
    let body = serde_json::json!({
        "signal": "spikes", "seq": 0, "writer": writer, "count": 1,
        "tensor": {"dtype": "f32", "shape": [1, 2], "values": ["NaN", "-Infinity"]},
    });
    let path = format!("/v1/sessions/{}/frames", rig.session());
    let output: v1::Output = server.post(&path, body.to_string()).await.message();
    assert_eq!((blocks::<2>(&output, 0), flag_names(&output)), (vec![[0.5, -1.0]], vec![both.to_vec()]));
    rig.close().await;
    let mut line = server.line(with("mask")).await;
    let output = line.send(counts(0, 0, &[[NAN, 1.0]])).await;
    assert_eq!(blocks::<2>(&output, 0), [Linear::new().step([0.0, 1.0])]);
    line.end().await;
    server.stop().await;
}

#[tokio::test]
async fn a_value_that_f32_cannot_hold_is_as_one_that_is_not_finite() {
    let server = Latentd::start().await;
    let wide = |seq: u64, row: [f64; 2]| {
        let bytes: Vec<u8> = row.iter().flat_map(|x| x.to_le_bytes()).collect();
        let tensor = Tensor::from_bytes(Dtype::F64, &[1, 2], &bytes).unwrap();
        v1::Frame { tensor: Some(tensor::message(&tensor)), ..counts(seq, seq, &[ROW]) }
    };
    let both: &[&str] = &["masked", "nan_replaced"];
    for (nan, seen, flags) in
        [("mask", [1.0, 0.0], both), ("hold", [1.0, 2.0], &both[1..]), ("zero", [1.0, 0.0], &both[1..])]
    {
        let rig = server.open(with(nan)).await;
        let mut known = Linear::new();
        assert_eq!(blocks::<2>(&rig.send(wide(0, [1.0, 2.0])).await, 0), [known.step(ROW)]);
        let output = rig.send(wide(1, [1.0, 1e300])).await;
        assert_eq!(blocks::<2>(&output, 0), [known.step(seen)], "{nan}");
        assert_eq!(flag_names(&output), [flags], "{nan}");
        rig.close().await;
    }
    let rig = server.open(with("reject")).await;
    let refused = rig.refused(wide(0, [1.0, -1e300])).await;
    assert!(refused.is(422, "invalid", &["`b`", "not finite as f32", "-1e300"]).consumed);
    rig.close().await;
    server.stop().await;
}

#[tokio::test]
async fn reject_refuses_the_frame_consumes_its_seq_and_its_samples_are_a_gap() {
    let server = Latentd::start().await;
    let rig = server.open(with("reject")).await;
    let mut known = Linear::new();
    known.step(ROW);
    rig.send(counts(0, 0, &[ROW])).await;
    let bad = || counts(1, 1, &[ROW, [1.0, NAN]]);
    for _ in 0..2 {
        let refused = rig.refused(bad()).await;
        let fault = refused.is(422, "invalid", &["spikes", "`b`", "not finite", "row 1", "reject"]);
        assert_eq!((fault.consumed, fault.seq, fault.expected_seq), (true, Some(1), Some(2)));
    }
    let output = rig.send(counts(2, 3, &[[0.0, 1.0]])).await;
    assert_eq!(bins(&output), 1..4);
    assert_eq!(blocks::<2>(&output, 0), known.steps(&[ROW, ROW, [0.0, 1.0]]));
    assert_eq!(flag_names(&output), [vec!["gap_filled"], vec!["gap_filled"], vec![]]);
    let run = rig.run().to_owned();
    assert_eq!(rig.close().await.gaps, 1);
    assert_eq!(server.event(&run, "gap").await.count, 2);

    let mut line = server.line(v1::OpenRequest { gap: "fail".into(), ..with("reject") }).await;
    line.send(counts(0, 0, &[ROW])).await;
    let fault = line.refused(bad()).await;
    assert_eq!((fault.kind.as_str(), fault.status, fault.consumed), ("invalid", 422, true));
    assert_eq!(fault.expected_seq, Some(2));
    // What re-sending cannot cure is never asked for again, whatever `gap` says.
    assert_eq!(line.send(counts(2, 3, &[ROW])).await.seq, Some(2));
    line.end().await;
    server.stop().await;
}

#[tokio::test]
async fn a_mask_is_sticky_and_as_long_as_the_channels() {
    let server = Latentd::start().await;
    let rig = server.open(linear()).await;
    let mut known = Linear::new();
    let output = rig.send(v1::Frame { mask: vec![true, false], ..counts(0, 0, &[ROW]) }).await;
    assert_eq!(blocks::<2>(&output, 0), [known.step([1.0, 0.0])]);
    assert_eq!(flag_names(&output), [["masked"]]);
    let output = rig.send(counts(1, 1, &[ROW])).await;
    assert_eq!(
        (blocks::<2>(&output, 0), flag_names(&output)),
        (vec![known.step([1.0, 0.0])], vec![vec!["masked"]])
    );
    let refused = rig.refused(v1::Frame { mask: vec![true; 3], ..counts(2, 2, &[ROW]) }).await;
    refused.is(422, "invalid", &["mask", "one per channel: 2", "found 3"]);
    let output = rig.send(v1::Frame { mask: vec![true; 2], ..counts(2, 2, &[ROW]) }).await;
    assert_eq!((blocks::<2>(&output, 0), flag_names(&output)), (vec![known.step(ROW)], vec![vec![]]));
    rig.close().await;
    server.stop().await;
}

#[tokio::test]
async fn a_bin_whose_output_is_not_finite_is_invalid_and_leaves_the_state_as_it_was() {
    let server = Setup::new().key("invalid_limit", 3).start().await;
    let rig = server.open(recorded(fragile())).await;
    // Output 0 is the sum of what came, output 1 the logarithm of the input and one more.
    let output = rig.send(counts(0, 0, &[[1.0, 2.0]])).await;
    assert_eq!(blocks::<2>(&output, 0), [[1.0, 2.0]]);
    let output = rig.send(counts(1, 1, &[[4.0, -8.0], [2.0, 2.0]])).await;
    assert_eq!(flag_names(&output), [vec!["output_invalid"], vec![]]);
    for number in 0..2 {
        assert!(
            blocks::<2>(&output, number)[0].iter().all(|value| value.is_nan()),
            "all of the stage is NaN"
        );
    }
    assert_eq!(blocks::<2>(&output, 0)[1], [3.0, 4.0], "the state is that of before the invalid bin");
    // Infinity is as bad; two in a row are under the limit.
    let output = rig.send(counts(2, 3, &[[-1.0, 1.0], [-1.0, 1.0], [1.0, 1.0]])).await;
    assert_eq!(flag_names(&output), [vec!["output_invalid"], vec!["output_invalid"], vec![]]);
    assert_eq!(blocks::<2>(&output, 0)[2], [4.0, 5.0]);
    // Three in a row: the state starts anew.
    let output =
        rig.send(counts(3, 6, &[[-1.0, 1.0], [-1.0, 1.0], [-1.0, 1.0], [1.0, 1.0], [1.0, 1.0]])).await;
    let invalid = || vec!["output_invalid"];
    assert_eq!(flag_names(&output), [invalid(), invalid(), invalid(), vec!["reset"], vec![]]);
    assert_eq!(blocks::<2>(&output, 0)[3..], [[1.0, 1.0], [2.0, 2.0]]);
    let run = rig.run().to_owned();
    assert_eq!(rig.close().await.bins, 11);
    let told: u64 = server.events(&run, "output_invalid").await.iter().map(|event| event.count).sum();
    assert_eq!(told, 6);
    let event = server.event(&run, "reset").await;
    assert!(event.detail.contains("3 invalid bins in a row"), "{}", event.detail);
    assert_eq!(server.metric("latentd_bins_total", "outcome=\"output_invalid\"").await, 6.0);
    // As recorded: JSON has null for what is not finite.
    let answer = server.get(&format!("/v1/runs/{run}/outputs/sum?from=1&to=3")).await;
    let stretch = &answer.json()["stretches"][0];
    assert_eq!(stretch["tensor"]["values"], serde_json::json!([null, null, 3.0, 4.0]));
    assert_eq!(stretch["flags"], serde_json::json!([64, 0]));
    server.stop().await;
}

#[tokio::test]
async fn a_failed_stage_fails_those_it_feeds_and_no_stage_moves_its_state() {
    // `linear` feeds nothing that fails; `fragile` fails by its own input and feeds `linear`.
    let two = r#"
[[stage]]
name = "first"
model = "fragile"
inputs = { spikes = "signal:spikes" }
[[stage]]
name = "second"
model = "chained"
inputs = { spikes = "first.sum" }
[[stage]]
name = "apart"
model = "linear"
inputs = { spikes = "signal:spikes" }
"#;
    let chained = crate::support::models::linear()
        .replace(
            "type = \"binned\"\nbin_ms = 10\nchannels_file = \"channels.csv\"",
            "type = \"latent\"\nchannels = 2",
        )
        .named("chained");
    let server = Setup::new().model(chained).file("pipelines/two.toml", two).start().await;
    let rig = server.open(pipeline("two", [signal("spikes", "binned", &["a", "b"])])).await;
    let number = |name: &str| {
        let found = rig
            .opened
            .outputs
            .iter()
            .find(|spec| spec.name == name || format!("{}.{}", spec.stage, spec.output) == name);
        found.unwrap_or_else(|| panic!("no output {name} in {:?}", rig.opened.outputs)).number
    };
    let [sum, second, apart] = ["first.sum", "second.v", "apart.v"].map(number);
    let (mut chain, mut alone) = (Linear::new(), Linear::new());
    let output = rig.send(counts(0, 0, &[[1.0, 2.0]])).await;
    assert_eq!(blocks::<2>(&output, sum), [[1.0, 2.0]]);
    assert_eq!(blocks::<2>(&output, second), [chain.step([1.0, 2.0])]);
    assert_eq!(blocks::<2>(&output, apart), [alone.step([1.0, 2.0])]);
    let output = rig.send(counts(1, 1, &[[-4.0, 2.0]])).await;
    assert_eq!(flag_names(&output), [["output_invalid"]]);
    for number in [sum, second] {
        assert!(blocks::<2>(&output, number)[0].iter().all(|value| value.is_nan()));
    }
    let kept = alone;
    assert_eq!(
        blocks::<2>(&output, apart),
        [alone.step([-4.0, 2.0])],
        "a stage that it does not feed is answered"
    );
    alone = kept;
    let output = rig.send(counts(2, 2, &[[2.0, 1.0]])).await;
    assert_eq!(blocks::<2>(&output, sum), [[3.0, 3.0]]);
    assert_eq!(blocks::<2>(&output, second), [chain.step([3.0, 3.0])]);
    assert_eq!(
        blocks::<2>(&output, apart),
        [alone.step([2.0, 1.0])],
        "its state is that of before the invalid bin"
    );
    rig.close().await;
    server.stop().await;
}
