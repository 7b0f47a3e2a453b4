//! Every kind of fault that these calls can give, by HTTP and by gRPC; and the next call works.
//!
//! Not here: `unauthenticated`, `forbidden` stand in `access`, `expected_seq`, `already_stepped` in `order`, `gap` in
//! `gaps`, `late` in `late`, `clock_unknown` in `stalls`, `conflict` and `replaced` in `writers`; `internal` and `deadline` in `engine`.

use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tonic::Code;

use crate::support::raw::{stream, unary};
use crate::support::{
    Answer, LIMIT, Latentd, Line, Setup, bins, carried, counts, linear, models, recorded, says, until, within,
};
use latentd::wire::{json, v1};

const ROW: [f32; 2] = [1.0, 2.0];

#[tokio::test]
async fn what_is_not_there_is_not_found_by_name_with_what_there_is() {
    let server = Latentd::start().await;
    let rig = server.open(linear()).await;
    let id = "01890000-0000-7000-8000-000000000000";
    for (path, parts) in [
        ("/v1/sessions/no-such", vec!["no session `no-such`", "1 are"]),
        (&format!("/v1/sessions/{id}"), vec!["no session", id]),
        ("/v1/runs/no-such", vec!["no run `no-such`"]),
        (&format!("/v1/runs/{id}"), vec!["no run", id]),
        (&format!("/v1/runs/{id}/events"), vec!["no run", id]),
        (&format!("/v1/runs/{id}/outputs/v"), vec!["no run", id]),
        ("/v1/models/liner", vec!["no model `liner`", "there are", "linear"]),
        ("/v1/models/linear/versions/9", vec!["linear", "version `9`", "there are: 1"]),
        ("/v1/moddels", vec!["no call", "GET /v1/moddels"]),
    ] {
        server.get(path).await.refused().is(404, "not_found", &parts);
    }
    server.post("/v1/models/liner/load", "{}").await.refused().is(404, "not_found", &["liner", "linear"]);
    server.post("/v1/sessions/x/frames", "{}").await.refused().is(404, "not_found", &["no session `x`"]);
    server.post("/v1/sessions/x/reset", "{}").await.refused().is(404, "not_found", &["no session `x`"]);
    server.delete("/v1/sessions/x").await.refused().is(404, "not_found", &["no session `x`"]);
    let mut live = server.live().await;
    let asked = live.close(v1::CloseRequest { session: "x".into() }).await.unwrap_err();
    says(&carried(&asked, Code::NotFound, "not_found").detail, &["no session `x`"]);
    let asked = live.reset(v1::ResetRequest { session: id.into(), ..Default::default() }).await.unwrap_err();
    carried(&asked, Code::NotFound, "not_found");
    assert_eq!(bins(&rig.send(counts(0, 0, &[ROW])).await), 0..1);
    // A closed session is not found; its run stays.
    let path = format!("/v1/sessions/{}", rig.session());
    rig.close().await;
    server.get(&path).await.refused().is(404, "not_found", &["run stays"]);
    server.delete(&path).await.refused().is(404, "not_found", &[]);
    server.stop().await;
}

#[tokio::test]
async fn what_cannot_be_read_is_malformed_with_the_path_of_what_is_wrong() {
    let server = Latentd::start().await;
    let rig = server.open(linear()).await;
    let frames = format!("/v1/sessions/{}/frames", rig.session());
    for (path, body, parts) in [
        ("/v1/sessions", "{", vec!["JSON", "line 1"]),
        ("/v1/sessions", "[]", vec!["JSON"]),
        ("/v1/sessions", r#"{"pipelin": "linear"}"#, vec!["`pipelin`", "there are", "pipeline"]),
        (
            "/v1/sessions",
            r#"{"signals": [{"name": "s", "chanels": []}]}"#,
            vec!["signals[0].chanels", "channels"],
        ),
        ("/v1/sessions", r#"{"dry_run": 1}"#, vec!["dry_run"]),
        ("/v1/sessions", r#"{"pipeline": null}"#, vec!["pipeline", "null"]),
        ("/v1/sessions", r#"{"pipeline": "linear"} x"#, vec!["JSON"]),
        (&frames, r#"{"seq": 1.5}"#, vec!["seq", "whole number"]),
        (&frames, r#"{"seq": -1}"#, vec!["seq", "whole number"]),
        (&frames, r#"{"tensor": {"dtype": "f32", "shape": [1, "x"]}}"#, vec!["tensor.shape[1]"]),
        (&frames, r#"{"echo": "%"}"#, vec!["`echo`", "base64", "offset 0"]),
        (&frames, r#"{"signal": ["spikes"]}"#, vec!["`signal`", "expected text, found a list"]),
        (&frames, r#"{"seq": 1, "seq": 1}"#, vec!["expected `seq` once"]),
        (&frames, r#"{"seq": 1"#, vec!["an object without its `}` at the end", "line 1, column 9"]),
        (&frames, "nul", vec!["the end of the text where a value is due"]),
    ] {
        let refused = server.post(path, body).await.refused();
        let detail = &refused.is(400, "malformed", &parts).detail;
        says(detail, &["JSON"]);
        for theirs in ["EOF", "trailing", "invalid type", "untagged", "struct", "Invalid", "expected value ("]
        {
            assert!(!detail.contains(theirs), "{detail}");
        }
    }
    let bytes = |body: &'static [u8]| {
        let request = server.client.post(server.url(&frames)).body(body);
        // Whatever `Accept` says, a fault is problem+json.
        Answer::of(
            request
                .header("content-type", "application/x-protobuf")
                .header("accept", "application/x-protobuf"),
        )
    };
    bytes(&[0xff, 0xff, 0xff]).await.refused().is(400, "malformed", &["protobuf"]);
    bytes(&[0x0a, 0x05, b'a']).await.refused().is(
        400,
        "malformed",
        &["protobuf", "Frame", "in `signal`", "end inside"],
    );
    let refused = bytes(&[0x0a, 0x01, 0xff]).await.refused();
    let detail = &refused.is(400, "malformed", &["in `signal` a text is not UTF-8"]).detail;
    assert!(!detail.contains("Protobuf"), "{detail}");
    for (query, field, parts) in [
        ("/v1/runs?limit=many", "limit", ["query", "a whole number from 0 to", "found `many`"]),
        ("/v1/runs/x/outputs/v?from=-1", "from", ["query", "a whole number from 0 to", "found `-1`"]),
        ("/v1/runs?limt=1", "query", ["one of", "limit", "found `limt`"]),
        ("/v1/runs?limit=1&limit=2", "limit", ["query", "one value", "several"]),
    ] {
        assert_eq!(server.get(query).await.refused().is(422, "invalid", &parts).tensor, field);
    }
    assert_eq!(bins(&rig.send(counts(0, 0, &[ROW])).await), 0..1);
    rig.close().await;
    server.stop().await;
}

#[tokio::test]
async fn a_query_beside_a_frame_that_is_whole_is_refused_and_consumes_nothing() {
    let server = Latentd::start().await;
    let rig = server.open(linear()).await;
    let writer = rig.opened.writers["spikes"].clone();
    let frame = v1::Frame { writer, ..counts(0, 0, &[ROW]) };
    let frames = format!("/v1/sessions/{}/frames", rig.session());
    for (query, found) in [("seq=0", "`seq`"), ("writer=&lost=true", "`lost`"), ("sequence=", "`sequence`")] {
        let body = serde_json::to_vec(&frame).unwrap();
        let refused = server.post(&format!("{frames}?{query}"), body).await.refused();
        let fault = refused.is(422, "invalid", &["expected no query", "arrow"]);
        assert_eq!((fault.tensor.as_str(), fault.found.as_str()), ("query", found));
    }
    let body = serde_json::to_vec(&frame).unwrap();
    let output: v1::Output = server.post(&format!("{frames}?writer="), body).await.message();
    assert_eq!(bins(&output), 0..1);
    rig.close().await;
    server.stop().await;
}

#[tokio::test]
async fn a_form_that_accept_does_not_want_is_not_given() {
    let server = Latentd::start().await;
    for (accept, form) in [
        ("application/x-protobuf", "application/x-protobuf"),
        ("application/x-protobuf;q=0", "application/json"),
        ("application/x-protobuf;q=0.0, application/json;q=0.1", "application/json"),
        ("application/json;q=0, */*", "application/x-protobuf"),
    ] {
        let asked = server.client.get(server.url("/v1/models")).header("accept", accept);
        let answered = asked.send().await.unwrap();
        assert_eq!(answered.headers()["content-type"], form, "{accept}");
    }
    server.stop().await;
}

#[tokio::test]
async fn bytes_that_are_no_message_are_malformed_by_grpc_and_end_no_stream() {
    let server = Latentd::start().await;
    let channel = server.channel().await;
    let garbage = bytes::Bytes::from_static(&[0xff, 0xff, 0xff, 0xff]);
    for call in ["Open", "Reset", "Close"] {
        let status = unary(&channel, call, garbage.clone()).await.unwrap_err();
        let fault = carried(&status, Code::InvalidArgument, "malformed");
        assert_eq!(fault.status, 400);
        says(&fault.detail, &[call, "a number does not end"]);
    }
    let fault = unary(&channel, "Open", bytes::Bytes::from_static(&[0x0a, 1, 0xff])).await.unwrap_err();
    let detail = carried(&fault, Code::InvalidArgument, "malformed").detail;
    says(&detail, &["OpenRequest", "in `pipeline` a text is not UTF-8"]);
    assert!(!detail.contains("Protobuf"), "{detail}");
    // The same connection goes on.
    let opened = unary(&channel, "Open", linear().encode_to_vec()).await.unwrap();
    let opened = v1::OpenReply::decode(opened).unwrap();
    let (up, ups) = mpsc::channel(16);
    let put = async |message: v1::up::Message| {
        up.send(v1::Up { message: Some(message) }.encode_to_vec().into()).await.unwrap();
    };
    let attach = v1::Attach { session: opened.session.clone(), ..Default::default() };
    put(v1::up::Message::Attach(attach)).await;
    let mut down = stream(&channel, ups).await.unwrap();
    let mut next = async || {
        let message = within("a message down", down.message()).await.unwrap().expect("the stream goes on");
        v1::Down::decode(message).unwrap().message.unwrap()
    };
    assert!(matches!(next().await, v1::down::Message::Attached(_)));
    put(v1::up::Message::Frame(counts(0, 0, &[ROW]))).await;
    assert!(matches!(next().await, v1::down::Message::Output(_)));
    for bad in [garbage, bytes::Bytes::new(), bytes::Bytes::from_static(&[0x12, 0x7f, 1])] {
        up.send(bad).await.unwrap();
        match next().await {
            v1::down::Message::Fault(fault) => {
                assert_eq!((fault.kind.as_str(), fault.status), ("malformed", 400))
            }
            other => panic!("a Fault is due, not {other:?}"),
        }
    }
    put(v1::up::Message::Frame(counts(1, 1, &[ROW]))).await;
    assert!(matches!(next().await, v1::down::Message::Output(output) if output.seq == Some(1)));
    // A stream that begins with what is no message is refused in the wire's words.
    let (up, ups) = mpsc::channel(1);
    up.send(bytes::Bytes::from_static(&[0xff])).await.unwrap();
    let status = stream(&channel, ups).await.unwrap_err();
    carried(&status, Code::InvalidArgument, "malformed");
    server.stop().await;
}

#[tokio::test]
async fn what_is_over_its_limit_is_too_large_and_the_session_stays() {
    let server = Setup::new().key("body_limit", "64 KiB").key("message_limit", "64 KiB").start().await;
    let rig = server.open(linear()).await;
    let big = "x".repeat(65 << 10);
    let refused = server.post("/v1/sessions", format!(r#"{{"notes": "{big}"}}"#)).await.refused();
    refused.is(413, "too_large", &["body", "65536"]);
    // Without a length said in advance, by a client that writes it all before it reads.
    let chunk = format!("400\r\n{}\r\n", "x".repeat(0x400));
    let head = "POST /v1/sessions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
    let mut socket = tokio::net::TcpStream::connect(&server.http).await.unwrap();
    socket.write_all((head.to_owned() + &chunk.repeat(200) + "0\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    socket.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413");
    let header = server.client.get(server.url("/livez")).header("x-big", "y".repeat(80 << 10));
    Answer::of(header).await.refused().is(413, "too_large", &["header", "65536 bytes"]);
    let many =
        (0..101).fold(server.client.get(server.url("/livez")), |ask, i| ask.header(format!("x-{i}"), "1"));
    Answer::of(many).await.refused().is(413, "too_large", &["header", "at most 100 fields"]);
    assert_eq!(bins(&rig.send(counts(0, 0, &[ROW])).await), 0..1);

    // By gRPC: the call, or the stream; the connection's other streams live on.
    let channel = server.channel().await;
    let live = || v1::live_client::LiveClient::new(channel.clone());
    let status = live().open(v1::OpenRequest { notes: big, ..linear() }).await.unwrap_err();
    let fault = carried(&status, Code::ResourceExhausted, "too_large");
    assert_eq!(fault.status, 413);
    says(&fault.detail, &["message_limit", "expected at most 65536 bytes, found 66"]);
    let at = |opened: &v1::OpenReply| v1::Attach { session: opened.session.clone(), ..Default::default() };
    let other = live().open(linear()).await.unwrap().into_inner();
    let mut beside = Line::attach(live(), at(&other)).await.unwrap();
    let mut line = Line::attach(live(), at(&rig.opened)).await.unwrap();
    assert_eq!(line.send(counts(1, 1, &[ROW])).await.seq, Some(1));
    line.put(counts(2, 2, &vec![ROW; 9000])).await;
    carried(&line.ended().await, Code::ResourceExhausted, "too_large");
    assert_eq!(beside.send(counts(0, 0, &[ROW])).await.seq, Some(0));
    let mut again = until(LIMIT, "the session's stream let go of", || async {
        Line::attach(live(), at(&rig.opened)).await.ok()
    })
    .await;
    assert_eq!(again.attached.next_seq["spikes"], 2);
    assert_eq!(again.send(counts(2, 2, &[ROW])).await.seq, Some(2));
    again.end().await;
    beside.end().await;
    rig.close().await;
    server.stop().await;
}

#[tokio::test]
async fn what_is_known_and_not_done_is_unsupported() {
    let server = Latentd::start().await;
    let rig = server.open(linear()).await;
    for kind in ["text/plain", "application/xml", "application/vnd.apache.arrow.file"] {
        let frames = format!("/v1/sessions/{}/frames", rig.session());
        let request = server.client.post(server.url(&frames)).header("content-type", kind).body("x");
        let refused = Answer::of(request).await.refused();
        refused.is(415, "unsupported", &[kind, "application/json", "application/x-protobuf"]);
    }
    let mut live = server.live().await;
    let session = rig.session().to_owned();
    let snapshot = live.snapshot(v1::SnapshotRequest { session: session.clone() }).await.unwrap_err();
    let fork = live.fork(v1::ForkRequest { session, at_bin: None }).await.unwrap_err();
    for (status, call) in [(snapshot, "Snapshot"), (fork, "Fork")] {
        let fault = carried(&status, Code::Unimplemented, "unsupported");
        assert_eq!(fault.status, 501);
        says(&fault.detail, &[call]);
    }
    // A call that no version has.
    let status = unary(&server.channel().await, "Rewind", bytes::Bytes::new()).await.unwrap_err();
    says(&carried(&status, Code::Unimplemented, "unsupported").detail, &["no such call", "reflection"]);
    let mut line = server.attach(&rig.opened).await;
    line.up(Some(v1::up::Message::Probe(v1::ProbeRequest::default()))).await;
    let fault = line.fault().await;
    assert_eq!((fault.kind.as_str(), fault.status), ("not_found", 404));
    says(&fault.detail, &["clock", "device"]);
    assert_eq!(line.send(counts(0, 0, &[ROW])).await.seq, Some(0));
    line.end().await;
    rig.close().await;
    server.stop().await;
}

#[tokio::test]
async fn a_full_server_is_overloaded_with_a_hint_and_takes_the_next_when_there_is_room() {
    let server = Setup::new().key("max_sessions", 1).start().await;
    let rig = server.open(linear()).await;
    let refused = server.try_open(linear()).await.err().unwrap();
    let fault = refused.is(429, "overloaded", &["1 sessions", "max_sessions"]);
    assert!(fault.retry_after_ms.unwrap() > 0.0);
    assert!(refused.headers["retry-after"].to_str().unwrap().parse::<u64>().unwrap() >= 1);
    let status = server.live().await.open(linear()).await.unwrap_err();
    let fault = carried(&status, Code::ResourceExhausted, "overloaded");
    assert!(fault.retry_after_ms.is_some());
    // The open session keeps its place.
    assert_eq!(bins(&rig.send(counts(0, 0, &[ROW])).await), 0..1);
    rig.close().await;
    server.open(linear()).await.close().await;
    assert_eq!(server.metric("latentd_rejected_total", "reason=\"overloaded\"").await, 2.0);
    server.stop().await;

    // By measured load: a share that no model keeps under.
    let server = Setup::new().key("load_limit", 0.0000001).start().await;
    let refused = server.try_open(linear()).await.err().unwrap();
    assert!(refused.is(429, "overloaded", &["load_limit"]).retry_after_ms.is_some());
    assert_eq!(server.get("/readyz").await.status, 200);
    server.stop().await;
}

#[tokio::test]
async fn a_model_that_does_not_serve_is_invalid_with_its_sentence_and_an_unloaded_one_unavailable() {
    let broken = models::linear().replace("output = \"v_next\"", "output = \"v_nxt\"").named("broken");
    let server = Setup::new().model(broken).start().await;
    let ask = |pipeline: &str| v1::OpenRequest { pipeline: pipeline.into(), ..linear() };
    let refused = server.try_open(ask("broken")).await.err().unwrap();
    refused.is(422, "invalid", &["broken/1", "v_nxt"]);
    server.post("/v1/models/broken/load", "{}").await.refused().is(422, "invalid", &["v_nxt"]);
    let open = server.open(ask("linear")).await;
    let unloaded = server.post("/v1/models/linear/unload", "{}").await;
    assert_eq!(unloaded.json()["versions"][0]["state"], "unloaded");
    let refused = server.try_open(ask("linear")).await.err().unwrap();
    refused.is(503, "unavailable", &["linear"]);
    let status = server.live().await.open(ask("linear")).await.unwrap_err();
    carried(&status, Code::Unavailable, "unavailable");
    // A session keeps its version.
    assert_eq!(bins(&open.send(counts(0, 0, &[ROW])).await), 0..1);
    let loaded = server.post("/v1/models/linear/load", "{}").await;
    assert_eq!(loaded.json()["versions"][0]["state"], "ready");
    server.open(ask("linear")).await.close().await;
    open.close().await;
    server.stop().await;
}

#[tokio::test]
async fn a_draining_server_is_unavailable_answers_what_came_and_says_why_streams_end() {
    // A commit takes its time, so that a durable answer holds the drain open.
    let server = Setup::new().key("commit_ms", 3000).start().await;
    let rig = server.open(v1::OpenRequest { ack: "durable".into(), ..recorded(linear()) }).await;
    let mut line = server.line(linear()).await;
    assert_eq!(line.send(counts(0, 0, &[ROW])).await.n, 1);
    let waiting = {
        let rig = rig.clone();
        tokio::spawn(async move { rig.try_send(counts(0, 0, &[ROW])).await })
    };
    until(LIMIT, "the frame taken", || async { (rig.info().await.next_seq["spikes"] == 1).then_some(()) })
        .await;
    server.terminate();
    let status = line.ended().await;
    says(&carried(&status, Code::Unavailable, "unavailable").detail, &["draining"]);
    let refused = server.try_open(linear()).await.err().unwrap();
    refused.is(503, "unavailable", &["draining"]);
    let refused = rig.refused(counts(1, 1, &[ROW])).await;
    refused.is(503, "unavailable", &["draining"]);
    let ready = server.get("/readyz").await;
    assert_eq!(ready.status, 503);
    assert!(ready.json()["reasons"][0].as_str().unwrap().contains("draining"));
    assert_eq!(server.get("/livez").await.status, 200);
    let output = waiting.await.unwrap().expect("a frame that came is answered");
    assert_eq!((output.seq, output.durable_seq["spikes"]), (Some(0), 0));
    let mut server = server;
    assert_eq!(server.wait().await.code(), Some(0));
}

#[tokio::test]
async fn a_request_id_of_the_caller_comes_back_in_header_and_fault() {
    let server = Latentd::start().await;
    let request = server.client.get(server.url("/v1/models/none")).header("x-request-id", "rig-7");
    assert_eq!(Answer::of(request).await.refused().fault.request_id, "rig-7");
    let mut request = tonic::Request::new(v1::CloseRequest { session: "x".into() });
    request.metadata_mut().insert("x-request-id", "rig-8".parse().unwrap());
    let status = server.live().await.close(request).await.unwrap_err();
    assert_eq!(carried(&status, Code::NotFound, "not_found").request_id, "rig-8");
    let wrong = server.client.post(server.url("/v1/sessions")).body(json::write(&v1::OpenRequest::default()));
    Answer::of(wrong).await.refused().is(404, "not_found", &["pipeline"]);
    server.stop().await;
}
