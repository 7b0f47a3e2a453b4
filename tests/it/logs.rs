//! What the log says of a call, beside what the caller is told.

use serde_json::Value;

use crate::support::{Answer, LIMIT, Latentd, Setup, carried, counts, linear, raw, until};
use latentd::wire::v1;

const ROW: [f32; 2] = [1.0, 2.0];

/// The lines of a server's JSON log.
fn lines(server: &Latentd) -> Vec<Value> {
    let log = server.setup.log();
    // The last one may be on its way.
    let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

/// The one line that says how the request of this id ended.
async fn line_of(server: &Latentd, id: &str) -> Value {
    let ends =
        ["request answered", "request failed", "request refused", "gRPC call answered", "gRPC call failed"];
    let mut found = until(LIMIT, &format!("the line of request `{id}`"), || async {
        let is_it = |line: &Value| line["request.id"] == id && ends.iter().any(|end| line["message"] == *end);
        let found: Vec<_> = lines(server).into_iter().filter(is_it).collect();
        (!found.is_empty()).then_some(found)
    })
    .await;
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

#[tokio::test]
async fn a_fault_and_the_log_name_a_request_by_one_id_at_both_doors() {
    let server = Setup::new().key("log_format", "json").key("log_level", "info,latentd=debug").start().await;
    let missing = server.get("/v1/sessions/none").await.refused().fault;
    let line = line_of(&server, &missing.request_id).await;
    assert_eq!((&line["http.status"], &line["fault.kind"]), (&404.into(), &"not_found".into()));
    assert!(line["duration_us"].is_u64(), "{line}");
    let span = &line["span"];
    assert_eq!((&span["name"], &span["http.method"]), (&"http.request".into(), &"GET".into()));
    assert_eq!((&span["http.route"], &span["caller"]), (&"/v1/sessions/{session}".into(), &"local".into()));

    let named = server.client.get(server.url("/v1/runs/none")).header("x-request-id", "bench-7:3");
    assert_eq!(Answer::of(named).await.refused().fault.request_id, "bench-7:3");
    assert_eq!(line_of(&server, "bench-7:3").await["http.status"], 404);

    // By gRPC: a refusal of ours, and a message that tonic could not read.
    let close = server.live().await.close(v1::CloseRequest { session: "none".into() }).await.unwrap_err();
    let closed = carried(&close, tonic::Code::NotFound, "not_found");
    let line = line_of(&server, &closed.request_id).await;
    assert_eq!(
        (&line["rpc.method"], &line["fault.kind"]),
        (&"/latentd.v1.Live/Close".into(), &"not_found".into())
    );
    let unreadable = raw::unary(&server.channel().await, "Close", &b"\xff\xff\xff"[..]).await.unwrap_err();
    let unreadable = carried(&unreadable, tonic::Code::InvalidArgument, "malformed");
    assert_eq!(line_of(&server, &unreadable.request_id).await["fault.kind"], "malformed");
    let ours = server.metric("latentd_rejected_total", "reason=\"malformed\"").await;
    assert_eq!(ours, 1.0, "what tonic refuses is counted");

    // What the connection refuses, before there is a request.
    let mut broken = tokio::net::TcpStream::connect(&server.http).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut broken, b"GET\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut broken, &mut answer).await.unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
    let fault: Value = serde_json::from_str(body).expect("problem+json");
    assert_eq!(line_of(&server, fault["request_id"].as_str().unwrap()).await["fault.kind"], "malformed");
    server.stop().await;
}

#[tokio::test]
async fn a_call_that_fails_by_us_leaves_its_id_and_kind_in_the_log_at_the_usual_level() {
    let server = Setup::new().key("log_format", "json").start().await;
    let rig = server.open(linear()).await;
    rig.send(counts(0, 0, &[ROW])).await;
    let later = server.post(&format!("/v1/sessions/{}/snapshot", rig.session()), "{}").await.refused();
    let line = line_of(&server, &later.is(501, "unsupported", &[]).request_id).await;
    assert_eq!((&line["level"], &line["fault.kind"]), (&"WARN".into(), &"unsupported".into()));
    let later = server.live().await.snapshot(v1::SnapshotRequest::default()).await.unwrap_err();
    let later = carried(&later, tonic::Code::Unimplemented, "unsupported");
    assert_eq!(line_of(&server, &later.request_id).await["level"], "WARN");

    // Sessions are named by the fields that every line has them under; what a rig sends is not in the log.
    let (session, token) = (rig.session().to_owned(), rig.opened.writers["spikes"].clone());
    rig.close().await;
    let log = lines(&server);
    for message in ["session opened", "session closed"] {
        let line = log.iter().find(|line| line["message"] == message).expect(message);
        assert_eq!(line["session.id"], session, "{line}");
        assert!(line["request.id"].is_string(), "{line}");
    }
    assert!(log.iter().any(|line| line["pipeline.name"] == "linear"));
    assert!(log.iter().all(|line| !line.to_string().contains(&token)));
    server.stop().await;
}
