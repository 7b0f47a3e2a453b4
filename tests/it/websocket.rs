//! Rigs over WebSocket: text and binary, refusals, ends, silence.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_tungstenite::tungstenite::protocol::Message;

use crate::support::websocket::{Form, PROTO, Socket, path, refused};
use crate::support::{
    Answer, LIMIT, Latentd, Linear, Setup, bins, blocks, counts, linear, recorded, says, until,
};
use latentd::wire::v1;

const ROW: [f32; 2] = [1.0, 2.0];
const FORMS: [Form; 2] = [Form::Text, Form::Binary];

async fn opened(server: &Latentd, ask: v1::OpenRequest) -> v1::OpenReply {
    server.live().await.open(ask).await.expect("open").into_inner()
}

#[tokio::test]
async fn frames_are_answered_in_both_forms_and_the_session_outlives_its_streams() {
    let server = Latentd::start().await;
    for form in FORMS {
        let session = opened(&server, recorded(linear())).await;
        let mut known = Linear::new();
        let mut socket = Socket::attach(&server, &session, form).await;
        assert_eq!((socket.attached.next_seq["spikes"], socket.attached.window), (0, 32));
        socket.ping().await;
        for seq in 0..3 {
            let output = socket.send(counts(seq, seq, &[ROW])).await;
            assert_eq!((output.seq, bins(&output)), (Some(seq), seq..seq + 1));
            assert_eq!(blocks::<2>(&output, 0), [known.step(ROW)]);
        }
        socket.close().await;
        // Resumed from the last acknowledged frame: what is sent again is answered again, and stepped once.
        let mut socket = Socket::attach(&server, &session, form).await;
        assert_eq!((socket.attached.next_seq["spikes"], socket.attached.last_bin), (3, Some(2)));
        let again = socket.send(counts(2, 2, &[ROW])).await;
        assert_eq!((again.seq, blocks::<2>(&again, 0)), (Some(2), vec![known.v]));
        let frame = v1::Frame { acked_seq: Some(2), ..counts(3, 3, &[ROW]) };
        assert_eq!(blocks::<2>(&socket.send(frame).await, 0), [known.step(ROW)]);
        socket.put(counts(2, 2, &[ROW])).await;
        assert_eq!(socket.fault().await.kind, "already_stepped");
        let closed: v1::CloseReply =
            server.delete(&format!("/v1/sessions/{}", session.session)).await.message();
        assert_eq!(closed.bins, 4);
        socket.closed().await;
    }
    server.stop().await;
}

#[tokio::test]
async fn what_cannot_be_attached_is_refused_before_the_upgrade_as_problem_json() {
    let server = Latentd::start().await;
    let session = opened(&server, linear()).await;
    let there = path(&session.session, &session.writers["spikes"]);
    refused(&server, &path("no-such", ""), &[]).await.refused().is(
        404,
        "not_found",
        &["no session `no-such`"],
    );
    refused(&server, &format!("{there}&signal=spiks"), &[]).await.refused().is(
        404,
        "not_found",
        &["no signal `spiks`", "spikes"],
    );
    for (header, wrong) in [
        ("upgrade", ""),
        ("connection", "keep-alive"),
        ("sec-websocket-version", "8"),
        ("sec-websocket-key", ""),
    ] {
        refused(&server, &there, &[(header, wrong)]).await.refused().is(
            400,
            "malformed",
            &["WebSocket", header],
        );
    }
    for key in ["", "AAAA", "dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZSBub25jZSE=", "not base64 at all !!!!!!"]
    {
        let asked = server.client.get(server.url(&there)).header("connection", "upgrade");
        let asked = asked.header("upgrade", "websocket").header("sec-websocket-version", "13");
        let refused = Answer::of(asked.header("sec-websocket-key", key)).await.refused();
        refused.is(400, "malformed", &["`sec-websocket-key` is not 16 bytes in base64"]);
    }
    server.get(&there).await.refused().is(400, "malformed", &["upgrade"]);
    refused(&server, &format!("{there}&writter=x"), &[]).await.refused().is(400, "malformed", &["writter"]);
    refused(&server, &there, &[("origin", "https://elsewhere.example")]).await.refused().is(
        403,
        "forbidden",
        &["https://elsewhere.example", "cors_origins"],
    );
    let mut first = Socket::attach(&server, &session, Form::Text).await;
    refused(&server, &path(&session.session, "nonsense"), &[]).await.refused().is(
        409,
        "conflict",
        &["spikes", "another stream", "writer token"],
    );
    // None of it touched the stream that is attached.
    assert_eq!(bins(&first.send(counts(0, 0, &[ROW])).await), 0..1);
    first.close().await;
    server.stop().await;
}

#[tokio::test]
async fn bytes_that_break_a_rule_of_websocket_end_the_stream_with_what_is_expected() {
    let server = Latentd::start().await;
    for (bytes, found, expected) in [
        (&[0x81, 1, b'x'][..], "a frame that is not masked", "a mask"),
        (&[0xc1, 0x80, 0, 0, 0, 0], "a reserved bit", "all three 0"),
        (&[0x83, 0x80, 0, 0, 0, 0], "the opcode 3", "0, 1, 2, 8, 9 or 10"),
        (&[0x80, 0x80, 0, 0, 0, 0], "a piece of a message that did not begin", "a text or binary frame"),
        (&[0x09, 0x80, 0, 0, 0, 0], "a control frame in pieces", "it whole"),
        (&[0x81, 0x81, 0, 0, 0, 0, 0xff], "the text of a message, or of a close frame, is not UTF-8", ""),
        (&[0x88, 0x83, 0, 0, 0, 0, 3, 232, 0xff], "of a close frame, is not UTF-8", ""),
        (&[0x88, 0x82, 0, 0, 0, 0, 0, 1], "a close frame with a code that none may send", "1000 to 1003"),
        (&[0x88, 0x82, 0, 0, 0, 0, 3, 237], "a close frame with a code that none may send", "3000 to 4999"),
    ] {
        let session = opened(&server, linear()).await;
        let there = path(&session.session, &session.writers["spikes"]);
        let head = format!(
            "GET {there} HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        let mut road = tokio::net::TcpStream::connect(&server.http).await.unwrap();
        road.write_all(head.as_bytes()).await.unwrap();
        road.write_all(bytes).await.unwrap();
        let mut all = Vec::new();
        tokio::time::timeout(LIMIT, road.read_to_end(&mut all)).await.expect("the server ends it").unwrap();
        let told = String::from_utf8_lossy(&all);
        says(&told, &["101 Switching", "\"malformed\"", found, expected]);
        assert!(all.ends_with(b"\x88\x0b\x03\xeamalformed"), "the last frame closes, 1002: {told}");
        for theirs in [
            "rotocol violation",
            "protocol error",
            "Received",
            "Reserved",
            "encountered",
            "Fragmented",
            "UTF-8 encoding",
        ] {
            assert!(!told.contains(theirs), "{told}");
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn a_message_that_cannot_be_read_is_malformed_and_the_stream_goes_on() {
    let server = Latentd::start().await;
    for form in FORMS {
        let session = opened(&server, linear()).await;
        let mut socket = Socket::attach(&server, &session, form).await;
        let bad: Vec<(Message, &[&str])> = match form {
            Form::Text => vec![
                (Message::text("{"), &["JSON"]),
                (Message::text(r#"{"frame": {"sinal": "spikes"}}"#), &["frame", "`sinal`", "signal"]),
                (Message::text(""), &["attach, frame or probe"]),
                (Message::binary(vec![1, 2]), &["binary", PROTO]),
            ],
            Form::Binary => vec![
                (Message::binary(vec![0xff, 0xff]), &["Up"]),
                (Message::binary(vec![]), &["attach, frame or probe"]),
                (Message::text("{}"), &["text", PROTO]),
            ],
        };
        for (seq, (message, parts)) in (0..).zip(bad) {
            socket.raw(message).await;
            let fault = socket.fault().await;
            assert_eq!((fault.kind.as_str(), fault.status), ("malformed", 400), "{}", fault.detail);
            says(&fault.detail, parts);
            assert!(!fault.request_id.is_empty(), "the log knows the stream by it");
            assert_eq!(bins(&socket.send(counts(seq, seq, &[ROW])).await), seq..seq + 1);
        }
        socket.put(counts(9, 9, &[ROW])).await;
        let fault = socket.fault().await;
        assert_eq!((fault.kind.as_str(), fault.seq), ("expected_seq", Some(9)));
        assert!(!fault.request_id.is_empty());
        socket.close().await;
    }
    assert!(server.metric("latentd_rejected_total", "malformed").await >= 7.0);
    server.stop().await;
}

#[tokio::test]
async fn a_message_over_the_limit_ends_the_stream_with_too_large_and_the_session_stays() {
    let server = Setup::new().key("message_limit", "64 KiB").start().await;
    let session = opened(&server, linear()).await;
    for form in FORMS {
        let mut socket = Socket::attach(&server, &session, form).await;
        let next = socket.attached.next_seq["spikes"];
        assert_eq!(bins(&socket.send(counts(next, next, &[ROW])).await), next..next + 1);
        let big = "x".repeat(4 << 20);
        socket.raw(if form == Form::Text { Message::text(big) } else { Message::binary(big) }).await;
        let (fault, code, reason) = socket.ended().await;
        assert_eq!(
            (fault.kind.as_str(), fault.status, code, reason.as_str()),
            ("too_large", 413, 1009, "too_large")
        );
        says(&fault.detail, &["message_limit", "65536"]);
    }
    let info: v1::SessionInfo = server.get(&format!("/v1/sessions/{}", session.session)).await.message();
    assert_eq!(info.next_seq["spikes"], 2);
    server.stop().await;
}

#[tokio::test]
async fn with_the_token_another_stream_takes_over_and_the_old_one_is_told_by_fault_and_close() {
    let server = Latentd::start().await;
    let session = opened(&server, linear()).await;
    let mut old = Socket::attach(&server, &session, Form::Text).await;
    assert_eq!(bins(&old.send(counts(0, 0, &[ROW])).await), 0..1);
    let mut new = server.attach(&session).await;
    let (fault, code, reason) = old.ended().await;
    assert_eq!((fault.kind.as_str(), code, reason.as_str()), ("replaced", 4409, "replaced"));
    says(&fault.detail, &["spikes", "took over"]);
    assert_eq!(bins(&new.send(counts(1, 1, &[ROW])).await), 1..2);
    // And back again, from gRPC to WebSocket.
    let mut newest = Socket::attach(&server, &session, Form::Binary).await;
    assert_eq!(newest.attached.next_seq["spikes"], 2);
    crate::support::carried(&new.ended().await, tonic::Code::Aborted, "replaced");
    assert_eq!(bins(&newest.send(counts(2, 2, &[ROW])).await), 2..3);
    newest.close().await;
    server.stop().await;
}

#[tokio::test]
async fn a_drain_answers_what_came_and_tells_the_stream_why() {
    let mut server = Latentd::start().await;
    let session = opened(&server, recorded(linear())).await;
    let mut socket = Socket::attach(&server, &session, Form::Binary).await;
    for seq in 0..20 {
        socket.put(counts(seq, seq, &[ROW])).await;
    }
    assert_eq!(bins(&socket.output().await), 0..1);
    server.terminate();
    let (fault, code, reason) = socket.ended().await;
    assert_eq!((fault.kind.as_str(), code, reason.as_str()), ("unavailable", 1001, "unavailable"));
    says(&fault.detail, &["draining"]);
    drop(socket);
    assert_eq!(server.wait().await.code(), Some(0));
}

#[tokio::test]
async fn a_rig_that_does_not_read_is_held_back_by_the_window_and_loses_nothing() {
    let server = Setup::new().key("window", 4).start().await;
    for form in FORMS {
        let session = opened(&server, linear()).await;
        let mut socket = Socket::attach(&server, &session, form).await;
        for seq in 0..300 {
            socket.put(counts(seq, seq, &[ROW])).await;
        }
        for seq in 0..300 {
            assert_eq!(socket.output().await.seq, Some(seq));
        }
        socket.close().await;
    }
    server.stop().await;
}

#[tokio::test]
async fn a_rig_that_only_answers_pings_stays_and_one_that_is_silent_is_dead() {
    let server = Setup::new().key("ping_s", 0.1).key("dead_after_s", 0.5).start().await;
    // A road between rig and server that goes silent without a word.
    let road = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (at, http) = (road.local_addr().unwrap(), server.http.clone());
    let (cut, mut is_cut) = tokio::sync::watch::channel(false);
    let carried = tokio::spawn(async move {
        let (mut near, _) = road.accept().await.unwrap();
        let mut far = tokio::net::TcpStream::connect(http).await.unwrap();
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
            _ = is_cut.wait_for(|cut| *cut) => {}
        }
        (near, far)
    });
    let session = opened(&server, recorded(linear())).await;
    let far = tokio::net::TcpStream::connect(at).await.unwrap();
    let mut far = Socket::over(far, &path(&session.session, &session.writers["spikes"]), Form::Text).await;
    assert_eq!(bins(&far.send(counts(0, 0, &[ROW])).await), 0..1);
    // Nothing but pongs for several times the limit.
    let alive = tokio::time::timeout(Duration::from_secs(2), far.next()).await;
    assert!(alive.is_err(), "the stream ended: {alive:?}");
    assert_eq!(bins(&far.send(counts(1, 1, &[ROW])).await), 1..2);
    cut.send(true).unwrap();
    let _silent = carried.await.unwrap();
    until(LIMIT, "the dead stream let go of", || async {
        let info: v1::SessionInfo = server.get(&format!("/v1/sessions/{}", session.session)).await.message();
        let is_let_go = info.writers["spikes"] == "detached";
        assert!(!is_let_go || info.state == "detached", "nothing came for as long");
        is_let_go.then_some(())
    })
    .await;
    // Any writer may come now.
    let mut near = Socket::at(&server, &path(&session.session, ""), Form::Text).await;
    assert_eq!(bins(&near.send(counts(2, 2, &[ROW])).await), 2..3);
    near.close().await;
    server.stop().await;
}
