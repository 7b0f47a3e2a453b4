//! What a rig's signals may be: channels by name, units, dtypes, targets and markers beside the inputs.

use crate::support::{
    Latentd, Linear, Setup, binned, bins, blocks, counts, flag_names, linear, markers, models, pipeline,
    recorded, signal, spikes,
};
use latentd::domain::tensor::{Dtype, Tensor};
use latentd::wire::{tensor, v1};

const ROW: [f32; 2] = [1.0, 2.0];
const MS: i64 = 1_000_000;

fn with(channels: &[&str]) -> v1::OpenRequest {
    pipeline("linear", [signal("spikes", "binned", channels)])
}

#[tokio::test]
async fn channels_are_matched_by_name_whatever_their_order_and_number() {
    let server = Latentd::start().await;
    let mut known = Linear::new();
    let expected = known.steps(&[ROW, [3.0, 0.0]]);
    let rig = server.open(with(&["b", "a"])).await;
    let output = rig.send(counts(0, 0, &[[2.0, 1.0], [0.0, 3.0]])).await;
    assert_eq!(blocks::<2>(&output, 0), expected);
    rig.close().await;
    // One more channel than the model knows is no matter.
    let rig = server.open(with(&["x", "b", "a"])).await;
    let output = rig.send(binned("spikes", 0, 0, &[[7.0, 2.0, 1.0], [7.0, 0.0, 3.0]])).await;
    assert_eq!(blocks::<2>(&output, 0), expected);
    rig.close().await;
    // By order, as asked, with a warning; the signals may then be left out.
    let ask = v1::OpenRequest { channels_by: "order".into(), ..with(&["b", "a"]) };
    let rig = server.open(ask).await;
    assert!(
        rig.opened.warnings.iter().any(|warning| warning.contains("in their order")),
        "{:?}",
        rig.opened.warnings
    );
    let output = rig.send(counts(0, 0, &[ROW, [3.0, 0.0]])).await;
    assert_eq!(blocks::<2>(&output, 0), expected);
    rig.close().await;
    let ask = v1::OpenRequest { channels_by: "order".into(), ..pipeline("linear", []) };
    let rig = server.open(ask).await;
    assert_eq!(rig.opened.resolved.as_ref().unwrap().signals[0].name, "spikes");
    assert_eq!(blocks::<2>(&rig.send(counts(0, 0, &[ROW])).await, 0), expected[..1]);
    rig.close().await;
    server.stop().await;
}

#[tokio::test]
async fn missing_channels_beyond_missing_ok_and_foreign_units_are_refused_by_name() {
    let lenient = models::linear()
        .replace("channels_file = \"channels.csv\"", "channels_file = \"channels.csv\"\nmissing_ok = 1")
        .named("lenient");
    let mut volts = models::linear().named("volts");
    volts.files = vec![("channels.csv", "name,unit\na,mV\nb,mV\n".into())];
    let server = Setup::new().model(lenient).model(volts).start().await;

    let refused = server.try_open(with(&["a", "c"])).await.err().unwrap();
    refused.is(422, "invalid", &["spikes", "b", "missing"]);
    let ask = pipeline("lenient", [signal("spikes", "binned", &["a"])]);
    let rig = server.open(ask).await;
    let output = rig.send(binned("spikes", 0, 0, &[[1.0]])).await;
    assert_eq!(blocks::<2>(&output, 0), [Linear::new().step([1.0, 0.0])]);
    assert_eq!(flag_names(&output), [["masked"]]);
    rig.close().await;
    let refused =
        server.try_open(pipeline("lenient", [signal("spikes", "binned", &["c"])])).await.err().unwrap();
    refused.is(422, "invalid", &["a", "b"]);

    // Units convert by their SI prefix, a channel's own before the signal's.
    let mut ask = pipeline("volts", [signal("spikes", "binned", &["a", "b"])]);
    ask.signals[0].unit = "uV".into();
    ask.signals[0].channels[1].unit = "V".into();
    let rig = server.open(ask.clone()).await;
    let output = rig.send(counts(0, 0, &[[2000.0, 0.0625]])).await;
    let v = blocks::<2>(&output, 0)[0];
    let expected = Linear::new().step([2.0, 62.5]);
    assert!((v[0] - expected[0]).abs() < 1e-4 && (v[1] - expected[1]).abs() < 1e-4, "{v:?} {expected:?}");
    rig.close().await;
    ask.signals[0].channels[0].unit = "K".into();
    let refused = server.try_open(ask).await.err().unwrap();
    refused.is(422, "invalid", &["a", "K", "mV"]);
    server.stop().await;
}

#[tokio::test]
async fn shape_dtype_and_fields_that_do_not_fit_the_signal_are_refused_with_expected_and_found() {
    let server = Latentd::start().await;
    let rig = server.open(linear()).await;
    let bare = counts(0, 0, &[ROW]);
    let tensor = |dtype: Dtype, shape: &[usize]| Some(tensor::message(&Tensor::zeros(dtype, shape)));
    let word = v1::Tensor { dtype: "f12".into(), shape: vec![1, 2], ..Default::default() };
    let short =
        v1::Tensor { dtype: "f32".into(), shape: vec![1, 2], values: vec![1.0], ..Default::default() };
    let (bare, far) = (|| bare.clone(), u64::MAX);
    let cases: Vec<(v1::Frame, &[&str])> = vec![
        (v1::Frame { tensor: tensor(Dtype::F32, &[1, 3]), ..bare() }, &["tensor", "[1, 2]", "[1, 3]"]),
        (v1::Frame { tensor: tensor(Dtype::F32, &[2]), count: 2, ..bare() }, &["tensor", "[2, 2]", "[2]"]),
        (v1::Frame { tensor: tensor(Dtype::F32, &[2, 2]), ..bare() }, &["tensor", "[1,", "[2, 2]"]),
        (v1::Frame { tensor: Some(word), ..bare() }, &["dtype", "f12", "f32"]),
        (v1::Frame { tensor: Some(short), ..bare() }, &["tensor", "2", "1"]),
        (v1::Frame { tensor: None, ..bare() }, &["tensor", "none"]),
        (v1::Frame { value: vec!["x".into()], ..bare() }, &["value", "binned"]),
        (v1::Frame { t_ns: vec![1], ..bare() }, &["t_ns", "binned"]),
        (v1::Frame { first_index: far, ..bare() }, &["first_index", "18446744073709551615"]),
        (v1::Frame { t_start_ns: Some(5), ..bare() }, &["t_start_ns", "binned", "found 5"]),
        (v1::Frame { span_ns: Some(10), ..bare() }, &["span_ns", "binned", "found 10"]),
        (v1::Frame { tensor: tensor(Dtype::Bool, &[1, 2]), ..bare() }, &["tensor.dtype", "numbers", "bool"]),
    ];
    for (frame, parts) in cases {
        let refused = rig.refused(frame).await;
        let fault = refused.is(422, "invalid", parts);
        assert_eq!((fault.seq, fault.expected_seq), (Some(0), Some(0)), "{}", fault.detail);
        assert!(!fault.expected.is_empty() && !fault.found.is_empty(), "{fault:?}");
    }
    // 0 is what some clients write for nothing.
    let zeros = v1::Frame { t_start_ns: Some(0), span_ns: Some(0), ..bare() };
    assert_eq!(blocks::<2>(&rig.send(zeros).await, 0), [Linear::new().step(ROW)]);
    rig.close().await;

    let rig = server.open(pipeline("events", [signal("spikes", "spike_events", &["a", "b"])])).await;
    let good = spikes("spikes", 0, 0, 10 * MS, &[]);
    let cases: Vec<(v1::Frame, &[&str])> = vec![
        (spikes("spikes", 0, 0, 10 * MS, &[(2, 0)]), &["unit", "2"]),
        (spikes("spikes", 0, 0, 10 * MS, &[(0, 10 * MS)]), &["t_ns", "10000000"]),
        (spikes("spikes", 0, 0, -1, &[]), &["span_ns", "-1"]),
        (spikes("spikes", 0, i64::MAX, 1, &[]), &["span_ns"]),
        (v1::Frame { span_ns: None, ..good.clone() }, &["span_ns", "none"]),
        (v1::Frame { unit: vec![0], ..good.clone() }, &["unit", "0", "1"]),
        (v1::Frame { count: 3, ..good.clone() }, &["count", "spike_events", "found 3"]),
    ];
    for (frame, parts) in cases {
        rig.refused(frame).await.is(422, "invalid", parts);
    }
    assert_eq!(bins(&rig.send(good).await), 0..1);
    rig.close().await;
    server.stop().await;
}

#[tokio::test]
async fn binned_counts_of_every_dtype_give_the_same_outputs() {
    let server = Latentd::start().await;
    let expected = Linear::new().step([3.0, 5.0]);
    for (dtype, bytes) in [
        (Dtype::U8, vec![3u8, 5]),
        (Dtype::U16, vec![3, 0, 5, 0]),
        (Dtype::I32, vec![3, 0, 0, 0, 5, 0, 0, 0]),
        (Dtype::F32, [3f32, 5.0].iter().flat_map(|x| x.to_le_bytes()).collect()),
    ] {
        let tensor = Tensor::from_bytes(dtype, &[1, 2], &bytes).unwrap();
        let frame = v1::Frame { tensor: Some(tensor::message(&tensor)), ..counts(0, 0, &[ROW]) };
        let rig = server.open(linear()).await;
        assert_eq!(blocks::<2>(&rig.send(frame.clone()).await, 0), [expected], "{dtype} by JSON");
        rig.close().await;
        let mut line = server.line(linear()).await;
        assert_eq!(blocks::<2>(&line.send(frame).await, 0), [expected], "{dtype} by gRPC");
        line.end().await;
    }
    server.stop().await;
}

#[tokio::test]
async fn open_refuses_words_and_specs_that_it_does_not_know_and_lists_what_there_is() {
    let server = Latentd::start().await;
    type Change = fn(&mut v1::OpenRequest);
    let cases: Vec<(Change, u16, &str, &[&str])> = vec![
        (|ask| ask.pipeline = "liner".into(), 404, "not_found", &["no pipeline `liner`", "linear"]),
        (|ask| ask.versions = [("linear".into(), 7)].into(), 404, "not_found", &["7", "1"]),
        (|ask| ask.versions = [("lin".into(), 1)].into(), 404, "not_found", &["lin", "linear"]),
        (|ask| ask.gap = "fill".into(), 422, "invalid", &["gap", "`fill`", "hold, zero, skip, reset, fail"]),
        (|ask| ask.late = "x".into(), 422, "invalid", &["late", "drop, next, fail"]),
        (|ask| ask.nan = "x".into(), 422, "invalid", &["nan", "mask, hold, zero, reject"]),
        (|ask| ask.ack = "x".into(), 422, "invalid", &["ack", "none, durable"]),
        (|ask| ask.r#loop = "x".into(), 422, "invalid", &["loop", "open, closed"]),
        (|ask| ask.bins = "x".into(), 422, "invalid", &["bins", "whole, nearest"]),
        (|ask| ask.channels_by = "x".into(), 422, "invalid", &["channels_by", "name, order"]),
        (
            |ask| ask.signals[0].r#type = "lfp".into(),
            422,
            "invalid",
            &["signals[0].type", "`lfp`", "spike_events"],
        ),
        (|ask| ask.signals[0].role = "x".into(), 422, "invalid", &["role", "input, target"]),
        (|ask| ask.signals[0].role = "target".into(), 422, "invalid", &["signals[0].role", "target"]),
        (|ask| ask.signals[0].bin_ms = None, 422, "invalid", &["signals[0].bin_ms", "none"]),
        (|ask| ask.signals[0].bin_ms = Some(20.0), 422, "invalid", &["bin_ms", "10", "20"]),
        (|ask| ask.signals[0].bin_ms = Some(0.1234567), 422, "invalid", &["bin_ms", "nanoseconds"]),
        (|ask| ask.signals[0].channels.clear(), 422, "invalid", &["signals[0].channels", "none"]),
        (|ask| ask.signals[0].channels[1].name = "a".into(), 422, "invalid", &["channels[1].name", "twice"]),
        (|ask| ask.signals[0].name = String::new(), 422, "invalid", &["signals[0].name"]),
        (|ask| ask.signals.clear(), 422, "invalid", &["signals", "order"]),
        (|ask| ask.signals[0].rate = Some(v1::Rate { num: 1, den: 1 }), 422, "invalid", &["rate", "binned"]),
        (|ask| ask.outputs = vec!["vel".into()], 404, "not_found", &["vel", "v"]),
        (|ask| ask.max_gap_ms = Some(-1.0), 422, "invalid", &["max_gap_ms", "0 or more", "-1"]),
        (|ask| ask.deadline_ms = Some(0.0), 422, "invalid", &["deadline_ms", "more than 0"]),
        (|ask| ask.idle_timeout_s = Some(-5.0), 422, "invalid", &["idle_timeout_s"]),
        (|ask| ask.idle_timeout_s = Some(1e300), 422, "invalid", &["idle_timeout_s", "9.2e9 s", "1e300"]),
        (|ask| ask.max_gap_ms = Some(1e300), 422, "invalid", &["max_gap_ms", "9.2e12 ms", "1e300"]),
        (
            |ask| ask.signals[0].source_delay_ms = 1e300,
            422,
            "invalid",
            &["signals[0].source_delay_ms", "below 9.2e12 ms (292 years)", "found 1e300"],
        ),
        (|ask| ask.signals[0].bin_ms = Some(1e300), 422, "invalid", &["signals[0].bin_ms", "9.2e12 ms"]),
        (|ask| ask.deadline_ms = Some(1e-7), 422, "invalid", &["deadline_ms", "at least 1 ns", "1e-7"]),
        (
            |ask| {
                ask.signals.push(signal("ttl", "markers", &[]));
                let (signal, start, end) = ("ttl".into(), "x".into(), "x".into());
                ask.trials = Some(v1::Trials { signal, start, end, key: None });
            },
            422,
            "invalid",
            &["trials.end", "another text", "`x` for both"],
        ),
        (
            |ask| {
                let (dtype, shape, values) = ("f32".into(), vec![2], vec![1.0, f64::NAN]);
                let tensor = v1::Tensor { dtype, shape, values, ..Default::default() };
                drop(ask.r#static.insert("positions".into(), tensor));
            },
            422,
            "invalid",
            &["static.positions", "finite", "element 1"],
        ),
        (|ask| ask.from_snapshot = Some("s".into()), 501, "unsupported", &["from_snapshot"]),
        (
            |ask| ask.trials = Some(v1::Trials { signal: "ttl".into(), ..Default::default() }),
            422,
            "invalid",
            &["trials.signal", "`ttl`", "markers"],
        ),
        (
            |ask| {
                drop(ask.r#static.insert(
                    "positions".into(),
                    v1::Tensor { dtype: "f32".into(), shape: vec![0], ..Default::default() },
                ))
            },
            422,
            "invalid",
            &["positions"],
        ),
    ];
    for (change, status, kind, parts) in cases {
        let mut ask = linear();
        change(&mut ask);
        let by_http = match server.try_open(ask.clone()).await {
            Err(refused) => refused,
            Ok(rig) => panic!("not refused: {ask:?} {:?}", rig.opened),
        };
        by_http.is(status, kind, parts);
        let by_grpc = server.live().await.open(ask).await.unwrap_err();
        let fault = latentd::wire::fault::from_status(&by_grpc).unwrap();
        assert_eq!((fault.detail, fault.kind), (by_http.fault.detail, by_http.fault.kind));
    }
    // None of them left anything behind; the next call works.
    assert_eq!(server.get("/v1/sessions").await.json()["sessions"], serde_json::json!([]));
    let rig = server.open(linear()).await;
    assert_eq!(rig.opened.outputs.len(), 2);
    rig.close().await;
    server.stop().await;
}

#[tokio::test]
async fn open_answers_every_default_filled_in_and_a_dry_run_opens_nothing() {
    let server = Latentd::start().await;
    let ask = v1::OpenRequest { deadline_ms: None, ..recorded(linear()) };
    let answer = server.post("/v1/sessions", latentd::wire::json::write(&ask)).await;
    assert_eq!(answer.status, 201);
    let opened: v1::OpenReply = answer.message();
    let resolved = opened.resolved.unwrap();
    assert_eq!(
        (&resolved.gap[..], resolved.max_gap_ms, &resolved.late[..], resolved.lateness_ms, resolved.wait_ms),
        ("hold", Some(200.0), "drop", 0.0, Some(20.0))
    );
    assert_eq!(
        (&resolved.nan[..], &resolved.ack[..], &resolved.r#loop[..], &resolved.bins[..]),
        ("mask", "none", "open", "whole")
    );
    assert_eq!(
        (resolved.deadline_ms, resolved.idle_timeout_s, resolved.clock_tolerance_ms),
        (None, Some(3600.0), Some(2.0))
    );
    assert_eq!(
        (&resolved.channels_by[..], &resolved.outputs[..]),
        ("name", &["v".to_owned(), "raw".to_owned()][..])
    );
    assert_eq!(resolved.versions["linear"], 1);
    assert!(resolved.seed.is_some());
    let record = resolved.record.unwrap();
    assert_eq!((record.inputs, record.broadband, record.outputs.len()), (Some(true), Some(false), 2));
    let spec = &resolved.signals[0];
    assert_eq!((&spec.clock[..], &spec.clock_by[..], &spec.role[..]), ("device", "exchange", "input"));
    assert_eq!((spec.scale, spec.offset), (Some(1.0), Some(0.0)));
    assert_eq!((opened.window, opened.outputs[0].number, &opened.outputs[0].role[..]), (32, 0, "decoded"));
    assert_eq!(
        (&opened.outputs[0].labels[..], &opened.outputs[0].dims[..]),
        (&["x".to_owned(), "y".to_owned()][..], &[2][..])
    );
    assert_eq!(
        (&opened.pinned[0].stage[..], &opened.pinned[0].model[..], opened.pinned[0].version),
        ("linear", "linear", 1)
    );
    assert!(opened.pinned[0].digest.starts_with("sha256:"));
    assert_eq!(opened.endpoint, format!("http://{}", server.http));

    let dry = v1::OpenRequest { dry_run: true, ..ask };
    let answer = server.post("/v1/sessions", latentd::wire::json::write(&dry)).await;
    assert_eq!(answer.status, 200);
    let told: v1::OpenReply = answer.message();
    assert_eq!((told.session.as_str(), told.run, told.writers.len()), ("", None, 0));
    assert_eq!(server.get("/v1/sessions").await.json()["sessions"].as_array().unwrap().len(), 1);
    server.delete(&format!("/v1/sessions/{}", opened.session)).await;
    server.stop().await;
}

#[tokio::test]
async fn targets_and_markers_are_recorded_beside_the_inputs_and_never_seen_by_the_model() {
    let server = Latentd::start().await;
    let mut ask = recorded(linear());
    ask.signals.push(v1::SignalSpec {
        role: "target".into(),
        rate: Some(v1::Rate { num: 20_000, den: 1 }),
        ..signal("stimulus", "continuous", &["level"])
    });
    ask.signals.push(v1::SignalSpec { role: "target".into(), ..signal("hand", "binned", &["vx", "vy"]) });
    ask.signals.push(signal("ttl", "markers", &[]));
    let rig = server.open(ask).await;
    let mut known = Linear::new();
    // Beside the inputs: before them, between them, in any order.
    let output = rig.send(binned("hand", 0, 0, &[[5.0, 6.0]])).await;
    assert_eq!((output.n, output.signal.as_str()), (0, "hand"));
    assert_eq!(rig.send(markers("ttl", 0, &[(3 * MS, "go"), (MS, "cue")])).await.n, 0);
    assert_eq!(blocks::<2>(&rig.send(counts(0, 0, &[ROW])).await, 0), [known.step(ROW)]);
    assert_eq!(rig.send(binned("stimulus", 0, 0, &[[0.5]; 200])).await.n, 0);
    rig.send(markers("ttl", 1, &[(MS, "late is fine")])).await;
    assert_eq!(blocks::<2>(&rig.send(counts(1, 1, &[ROW])).await, 0), [known.step(ROW)]);
    // They have an order and a shape of their own.
    rig.refused(binned("hand", 2, 1, &[[1.0, 1.0]])).await.is(409, "expected_seq", &["hand"]);
    rig.refused(binned("hand", 1, 1, &[[1.0]])).await.is(422, "invalid", &["hand", "tensor"]);
    rig.refused(v1::Frame { value: vec![], ..markers("ttl", 2, &[(0, "x")]) }).await.is(
        422,
        "invalid",
        &["value", "t_ns"],
    );
    assert_eq!(rig.send(binned("hand", 1, 1, &[[1.0, 1.0]])).await.seq, Some(1));
    let info = rig.info().await;
    let next: Vec<_> = ["spikes", "stimulus", "hand", "ttl"].map(|name| info.next_seq[name]).into();
    assert_eq!((next, info.recording.as_str()), (vec![2, 1, 2, 2], "on"));
    let closed = rig.close().await;
    assert_eq!(closed.bins, 2);
    let durable: Vec<_> = ["spikes", "stimulus", "hand", "ttl"].map(|name| closed.durable_seq[name]).into();
    assert_eq!(durable, [1, 0, 1, 1]);
    server.stop().await;
}
