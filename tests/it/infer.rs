//! One-shot inference: named tensors in, named tensors out, without a session and beside those that are open.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use latentd::domain::tensor::{Dtype, Tensor};
use latentd::graph::Dim;
use latentd::graph::build::GraphBuilder;
use latentd::wire::{json, tensor, v1};
use prost::Message as _;

use crate::support::{
    Answer, Latentd, Linear, Setup, binned, block, linear, models, pipeline, signal, until,
};

fn sent(shape: &[usize], values: &[f32]) -> v1::Tensor {
    tensor::message(&Tensor::from_f32(shape, values))
}

fn ask(inputs: &[(&str, v1::Tensor)], outputs: &[&str]) -> v1::InferRequest {
    v1::InferRequest {
        inputs: inputs.iter().map(|(name, tensor)| ((*name).into(), tensor.clone())).collect(),
        outputs: outputs.iter().map(|name| (*name).into()).collect(),
        version: None,
    }
}

async fn infer(server: &Latentd, model: &str, ask: &v1::InferRequest) -> Answer {
    server.post(&format!("/v1/models/{model}/infer"), json::write(ask)).await
}

/// The same as protobuf, both ways.
async fn by_protobuf(server: &Latentd, model: &str, ask: &v1::InferRequest) -> v1::InferReply {
    const FORM: &str = "application/x-protobuf";
    let request = server.client.post(server.url(&format!("/v1/models/{model}/infer")));
    let request = request.header("content-type", FORM).header("accept", FORM).body(ask.encode_to_vec());
    let answer = Answer::of(request).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, FORM), "{:?}", answer.body);
    v1::InferReply::decode(&answer.body[..]).expect("an InferReply")
}

/// Values of an output as bits of f32.
fn bits(reply: &v1::InferReply, name: &str) -> Vec<u32> {
    let there = reply.outputs.keys().cloned().collect::<Vec<_>>();
    let found = reply.outputs.get(name).unwrap_or_else(|| panic!("no `{name}` among {there:?}"));
    let host = tensor::host(name, found).expect("a readable tensor");
    host.to_f64().into_iter().map(|value| (value as f32).to_bits()).collect()
}

fn as_bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

#[tokio::test]
async fn an_answer_is_a_sessions_step_from_its_initial_state_bit_for_bit() {
    let server = Setup::bare().bundled().start().await;
    let csv = include_str!("../../models/cortex-encoder/channels.csv");
    let names: Vec<&str> = csv.lines().skip(1).map(|line| line.split(',').next().unwrap()).collect();
    let counts: [f32; 96] = std::array::from_fn(|at| (at * 7 % 5) as f32);
    let mut spikes = signal("spikes", "binned", &names);
    spikes.bin_ms = Some(20.0);
    let rig = server.open(pipeline("cortex-encoder", [spikes])).await;
    let stepped = rig.send(binned("spikes", 0, 0, &[counts])).await;
    rig.close().await;
    // The manifest's preprocessing is the session's; a request gives what the graph takes.
    let x: Vec<f32> = counts.iter().map(|count| count.sqrt()).collect();
    // By the graph's names, by the manifest's, and as a session names outputs.
    for (input, latent) in [("x", "z"), ("spikes", "latent"), ("x", "cortex-encoder.latent")] {
        let ask = ask(&[(input, sent(&[1, 96], &x))], &[latent, "rates"]);
        let read: v1::InferReply = infer(&server, "cortex-encoder", &ask).await.message();
        for reply in [read, by_protobuf(&server, "cortex-encoder", &ask).await] {
            assert_eq!(reply.version, 1);
            assert_eq!(bits(&reply, latent), as_bits(&block(&stepped, 0)));
            assert_eq!(bits(&reply, "rates"), as_bits(&block(&stepped, 1)));
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn states_are_given_or_start_from_their_initial_value_and_come_back_if_asked_for() {
    let server = Latentd::start().await;
    let mut known = Linear::new();
    let first = known.step([1.0, 2.0]);
    let second = known.step([3.0, 0.0]);
    let asked = ask(&[("u", sent(&[1, 2], &[1.0, 2.0]))], &["v", "v_next"]);
    let reply: v1::InferReply = infer(&server, "linear", &asked).await.message();
    assert_eq!(bits(&reply, "v"), as_bits(&first));
    assert_eq!(bits(&reply, "v_next"), as_bits(&first));
    let next = reply.outputs["v_next"].clone();
    let asked = ask(&[("u", sent(&[1, 2], &[3.0, 0.0])), ("v0", next)], &["linear.v"]);
    let reply: v1::InferReply = infer(&server, "linear", &asked).await.message();
    assert_eq!(bits(&reply, "linear.v"), as_bits(&second));
    // Nothing asked for: what is no state, by the graph's names.
    let asked = ask(&[("spikes", sent(&[1, 2], &[1.0, 2.0]))], &[]);
    let reply: v1::InferReply = infer(&server, "linear", &asked).await.message();
    let mut names: Vec<&str> = reply.outputs.keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["v", "vraw"]);
    server.stop().await;
}

#[tokio::test]
async fn many_rows_of_one_request_are_each_what_they_are_alone() {
    let server = Setup::bare().bundled().start().await;
    let row = |n: usize| -> Vec<f32> { (0..16).map(|at| ((at + 3 * n) % 7) as f32 / 7.0 - 0.4).collect() };
    let many: Vec<f32> = (0..40).flat_map(row).collect();
    let asked = ask(&[("z", sent(&[40, 16], &many))], &["v"]);
    let together: v1::InferReply = infer(&server, "cortex-decoder", &asked).await.message();
    assert_eq!(together.outputs["v"].shape, [40, 2]);
    for n in [0, 17, 39] {
        let asked = ask(&[("z", sent(&[1, 16], &row(n)))], &["v"]);
        let alone: v1::InferReply = infer(&server, "cortex-decoder", &asked).await.message();
        assert_eq!(bits(&alone, "v"), bits(&together, "v")[2 * n..2 * n + 2]);
    }
    // The encoder's state has its batch axis in the middle: [layers, n, units].
    let asked = ask(&[("x", sent(&[3, 96], &[1.0; 288]))], &["hn"]);
    let reply: v1::InferReply = infer(&server, "cortex-encoder", &asked).await.message();
    assert_eq!(reply.outputs["hn"].shape[..2], [1, 3]);
    server.stop().await;
}

/// `in_<dtype>` to `out_<dtype>`, unchanged.
fn forms() -> Vec<u8> {
    let dims: [Dim; 2] = ["batch".into(), 2.into()];
    let mut graph = GraphBuilder::new("forms");
    for dtype in Dtype::ALL {
        let (from, to) = (format!("in_{dtype}"), format!("out_{dtype}"));
        graph.input(&from, dtype, &dims).node("Identity", &[&from], &[&to]).output(&to, dtype, &dims);
    }
    graph.bytes()
}

#[tokio::test]
async fn a_graph_without_a_manifest_is_served_in_every_dtype() {
    let server = Setup::bare().file("forms/1/model.onnx", forms()).start().await;
    let mut inputs = HashMap::new();
    for dtype in Dtype::ALL {
        let values = if dtype == Dtype::Bool { vec![1.0, 0.0] } else { vec![1.0, 100.0] };
        let sent = v1::Tensor { dtype: dtype.word().into(), shape: vec![1, 2], values, ..Default::default() };
        inputs.insert(format!("in_{dtype}"), sent);
    }
    let largest = u64::MAX.to_le_bytes().repeat(2);
    let raw = v1::Tensor { dtype: "u64".into(), shape: vec![1, 2], raw: largest.into(), values: Vec::new() };
    inputs.insert("in_u64".into(), raw.clone());
    let asked = v1::InferRequest { inputs: inputs.clone(), ..Default::default() };
    // JSON writes `values`, whose numbers end at 2^53.
    let mut asked_in_json = asked.clone();
    let small =
        v1::Tensor { dtype: "u64".into(), shape: vec![1, 2], values: vec![1.0, 100.0], ..Default::default() };
    asked_in_json.inputs.insert("in_u64".into(), small.clone());
    let read: v1::InferReply = infer(&server, "forms", &asked_in_json).await.message();
    let whole = by_protobuf(&server, "forms", &asked).await;
    assert_eq!(whole.outputs["out_u64"], raw);
    for dtype in Dtype::ALL {
        let (name, given) = (format!("out_{dtype}"), &inputs[&format!("in_{dtype}")]);
        let given = tensor::host("given", given).unwrap();
        assert_eq!(tensor::host(&name, &whole.outputs[&name]).unwrap(), given);
        let given = if dtype == Dtype::U64 { tensor::host("given", &small).unwrap() } else { given };
        assert_eq!(tensor::host(&name, &read.outputs[&name]).unwrap(), given);
    }
    server.stop().await;
}

#[tokio::test]
async fn what_does_not_fit_is_invalid_with_tensor_expected_and_found() {
    let server = Setup::new().key("queue", 8).start().await;
    let row = || sent(&[1, 2], &[1.0, 2.0]);
    let whole = |dtype: &str| v1::Tensor {
        dtype: dtype.into(),
        shape: vec![1, 2],
        values: vec![1.0, 2.0],
        ..Default::default()
    };
    let cases: Vec<(v1::InferRequest, &str, &str, &str)> = vec![
        (ask(&[("uu", row())], &[]), "uu", "an input of model linear (there are: u, v0, spikes)", "`uu`"),
        (ask(&[("u", whole("f64"))], &[]), "u", "f32 [n, 2]", "f64 [1, 2]"),
        (ask(&[("u", whole("float"))], &[]), "u.dtype", "f32 f64", "`float`"),
        (ask(&[("u", sent(&[2], &[1.0, 2.0]))], &[]), "u", "f32 [n, 2]", "f32 [2]"),
        (ask(&[("u", sent(&[1, 3], &[1.0; 3]))], &[]), "u", "f32 [n, 2]", "f32 [1, 3]"),
        (ask(&[("u", sent(&[0, 2], &[]))], &[]), "u", "at least one row", "f32 [0, 2]"),
        (ask(&[], &[]), "u", "f32 [n, 2]", "nothing"),
        (ask(&[("u", row()), ("spikes", row())], &[]), "u", "each tensor once", "`u` again"),
        (ask(&[("u", row()), ("v0", sent(&[2, 2], &[0.0; 4]))], &[]), "v0", "1 rows, as u has", "[2, 2]"),
        (ask(&[("u", sent(&[9, 2], &[0.0; 18]))], &[]), "u", "at most 8 rows (queue)", "9"),
    ];
    for (asked, tensor, expected, found) in cases {
        let refused = infer(&server, "linear", &asked).await.refused();
        let fault = refused.is(422, "invalid", &[]);
        assert_eq!(fault.tensor, tensor, "{}", fault.detail);
        assert!(fault.expected.contains(expected), "`{expected}` is not in `{}`", fault.expected);
        assert!(fault.found.contains(found), "`{found}` is not in `{}`", fault.found);
    }
    let short = r#"{"inputs": {"u": {"dtype": "f32", "shape": [1, 2], "values": [1]}}}"#;
    let refused = server.post("/v1/models/linear/infer", short).await.refused();
    refused.is(422, "invalid", &["u", "2 values", "1 values"]);
    for (dtype, values, tensor, found) in [
        ("f32", "[1, 1e39]", "u.values[1]", "1e39"),
        ("f32", "[-4e38, 0]", "u.values[0]", "-4e38"),
        ("f16", "[0, 70000]", "u.values[1]", "70000.0"),
        ("u8", "[0, 256]", "u.values[1]", "256.0"),
    ] {
        let body =
            format!(r#"{{"inputs": {{"u": {{"dtype": "{dtype}", "shape": [1, 2], "values": {values}}}}}}}"#);
        let refused = server.post("/v1/models/linear/infer", body).await.refused();
        let fault = refused.is(422, "invalid", &[dtype]);
        assert_eq!((fault.tensor.as_str(), fault.found.as_str()), (tensor, found), "{}", fault.detail);
    }
    let odd = r#"{"inputs": {"u": {"dtype": "f32", "shape": [1, 2], "value": [1]}}}"#;
    server.post("/v1/models/linear/infer", odd).await.refused().is(
        400,
        "malformed",
        &["`inputs.u`", "unknown field `value`"],
    );
    let good = ask(&[("u", row())], &[]);
    infer(&server, "liner", &good).await.refused().is(404, "not_found", &["no model `liner`", "linear"]);
    let other = ask(&[("u", row())], &["w"]);
    infer(&server, "linear", &other).await.refused().is(404, "not_found", &["no output `w`", "v_next"]);
    let later = v1::InferRequest { version: Some(7), ..good.clone() };
    infer(&server, "linear", &later).await.refused().is(404, "not_found", &["no version 7", "there are: 1"]);
    assert_eq!(infer(&server, "linear", &good).await.status, 200);
    server.stop().await;
}

#[tokio::test]
async fn a_model_that_was_unloaded_is_unavailable_and_one_with_a_fault_says_it() {
    let server = Setup::new().file("broken/1/model.onnx", "no graph").start().await;
    let asked = ask(&[("u", sent(&[1, 2], &[1.0, 2.0]))], &[]);
    assert_eq!(server.post("/v1/models/linear/unload", "{}").await.status, 200);
    infer(&server, "linear", &asked).await.refused().is(503, "unavailable", &["linear", "unloaded"]);
    assert_eq!(server.post("/v1/models/linear/load", "{}").await.status, 200);
    assert_eq!(infer(&server, "linear", &asked).await.status, 200);
    infer(&server, "broken", &asked).await.refused().is(422, "invalid", &["broken", "ONNX"]);
    server.stop().await;
}

/// A model of some milliseconds a row, one row at a time.
fn heavy() -> models::Model {
    const SIZE: usize = 512;
    let dims = ["batch".into(), 2.into()];
    let wide: Vec<f32> = (0..SIZE * SIZE).map(|at| ((at % 13) as f32 - 6.0) / 4096.0).collect();
    let mut graph = GraphBuilder::new("heavy");
    graph.input("u", Dtype::F32, &dims).f32("in", &[2, SIZE], &wide[..2 * SIZE]).f32(
        "w",
        &[SIZE, SIZE],
        &wide,
    );
    graph.f32("out", &[SIZE, 2], &wide[..2 * SIZE]).node("MatMul", &["u", "in"], &["h0"]);
    const LAYERS: usize = 60;
    for layer in 0..LAYERS {
        let (from, to) = (format!("h{layer}"), format!("h{}", layer + 1));
        graph.node("MatMul", &[&from, "w"], &[&to]);
    }
    graph.node("MatMul", &[&format!("h{LAYERS}"), "out"], &["y"]).output("y", Dtype::F32, &dims);
    let manifest = r#"
[[input]]
name = "spikes"
tensor = "u"
type = "binned"
bin_ms = 10
channels_file = "channels.csv"
[[output]]
name = "y"
tensor = "y"
role = "latent"
[serve]
max_batch = 1
"#;
    models::Model {
        name: "heavy",
        manifest: manifest.into(),
        graph: graph.bytes(),
        files: vec![("channels.csv", "name\na\nb\n".into())],
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_hundred_callers_on_eight_places_some_are_refused_at_once_none_is_lost_and_a_session_is_on_time()
 {
    const CALLERS: usize = 200;
    let server = Setup::new().model(heavy()).key("queue", 8).key("workers", 1).start().await;
    let mut spikes = linear();
    // Generous, since other tests run beside this one; what would fail it is a session behind the guests.
    spikes.deadline_ms = Some(2_000.0);
    let rig = server.open(spikes).await;
    let body = json::write(&ask(&[("u", sent(&[1, 2], &[1.0, 2.0]))], &["y"]));
    let call = |_| {
        let request = server.client.post(server.url("/v1/models/heavy/infer"));
        let request = request.header("content-type", "application/json").body(body.clone());
        tokio::spawn(async move {
            let begun = Instant::now();
            (Answer::of(request).await, begun.elapsed())
        })
    };
    let calls: Vec<_> = (0..CALLERS).map(call).collect();
    let mut seq = 0;
    while calls.iter().any(|call| !call.is_finished()) {
        rig.send(binned("spikes", seq, seq, &[[1.0, 2.0]])).await;
        seq += 1;
    }
    let (mut served, mut refused) = (Vec::new(), Vec::new());
    for call in calls {
        let (answer, took) = call.await.expect("a call ends");
        match answer.status {
            200 => {
                let reply: v1::InferReply = answer.message();
                served.push((bits(&reply, "y"), took));
            }
            _ => {
                let told = answer.refused();
                let fault = told.is(429, "overloaded", &["8 places", "queue"]);
                assert!(fault.retry_after_ms.is_some_and(|ms| ms > 0.0));
                let after: u64 = told.headers["retry-after"].to_str().unwrap().parse().unwrap();
                assert!(after >= 1);
                refused.push(took);
            }
        }
    }
    assert_eq!(served.len() + refused.len(), CALLERS);
    assert!(served.len() >= 8 && !refused.is_empty(), "{} served, {} refused", served.len(), refused.len());
    assert!(served.iter().all(|(bits, _)| *bits == served[0].0), "one input, one answer");
    let closed = rig.close().await;
    let lag = closed.lag_us.expect("lags");
    println!(
        "{} served, {} refused (slowest {:?}); {} bins beside them, lag p50 {:.1} ms, p99 {:.1} ms",
        served.len(),
        refused.len(),
        refused.iter().max().unwrap(),
        closed.bins,
        lag.p50 / 1e3,
        lag.p99 / 1e3
    );
    assert_eq!((closed.bins, closed.deadline_missed), (seq, 0));
    // Every place came back.
    until(Duration::from_secs(10), "all places free", || async {
        let asked = ask(&[("u", sent(&[8, 2], &[0.0; 16]))], &["v"]);
        (infer(&server, "linear", &asked).await.status == 200).then_some(())
    })
    .await;
    server.stop().await;
}

#[tokio::test]
async fn a_caller_that_leaves_takes_its_rows_with_it() {
    let server = Setup::new().model(heavy()).key("queue", 1).key("workers", 1).start().await;
    let body = json::write(&ask(&[("u", sent(&[1, 2], &[1.0, 2.0]))], &["y"]));
    for _ in 0..20 {
        let request = server.client.post(server.url("/v1/models/heavy/infer"));
        let request = request.header("content-type", "application/json").body(body.clone());
        let _ = request.timeout(Duration::from_millis(1)).send().await;
    }
    let asked = ask(&[("u", sent(&[1, 2], &[1.0, 2.0]))], &["y"]);
    until(Duration::from_secs(10), "the one place is free again", || async {
        (infer(&server, "heavy", &asked).await.status == 200).then_some(())
    })
    .await;
    server.stop().await;
}
