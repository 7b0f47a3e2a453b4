//! Requests that come in pieces: what nobody reads of them does not cost the next one, and half of one holds no stop.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{Latentd, Setup, linear, within};

/// Between a request's header and its body: whichever the server sees first, what is claimed here holds.
const PAUSE: Duration = Duration::from_millis(20);

async fn connect(server: &Latentd) -> TcpStream {
    let road = TcpStream::connect(&server.http).await.expect("a connection");
    road.set_nodelay(true).expect("no delay");
    road
}

/// Reads one answer: its head in lower case, and its body.
async fn answer(road: &mut TcpStream) -> (String, Vec<u8>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(within("an answer's head", road.read_u8()).await.expect("the head goes on"));
    }
    let head = String::from_utf8(head).expect("text").to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |text| text.parse().expect("a length"))];
    within("an answer's body", road.read_exact(&mut body)).await.expect("the body is whole");
    (head, body)
}

fn kind(body: &[u8]) -> String {
    let fault: serde_json::Value = serde_json::from_slice(body).expect("a problem");
    fault["kind"].as_str().expect("a kind").to_owned()
}

#[tokio::test]
async fn after_a_refusal_whose_body_nobody_read_the_connection_goes_on_or_was_said_to_close() {
    let server = Latentd::start().await;
    let rig = server.open(linear()).await;
    let snapshot = format!("POST /v1/sessions/{}/snapshot", rig.session());
    let json = "content-type: application/json\r\n";
    let mut went_on = 0;
    for (call, header, status) in [
        ("POST /v1/nothing", json, "404"),
        ("POST /v1/models", json, "404"),
        ("POST /v1/sessions", "content-type: text/plain\r\n", "415"),
        (&*snapshot, json, "501"),
        ("GET /livez", json, "200"),
    ] {
        for is_chunked in [false, true] {
            let (length, body) = match is_chunked {
                false => ("content-length: 13", "{\"notes\": \"\"}"),
                true => ("transfer-encoding: chunked", "d\r\n{\"notes\": \"\"}\r\n0\r\n\r\n"),
            };
            let mut road = connect(&server).await;
            let head = format!("{call} HTTP/1.1\r\nhost: x\r\n{header}{length}\r\n\r\n");
            road.write_all(head.as_bytes()).await.unwrap();
            tokio::time::sleep(PAUSE).await;
            road.write_all(body.as_bytes()).await.expect("the body is taken");
            let (head, _) = answer(&mut road).await;
            assert!(head.starts_with(&format!("http/1.1 {status} ")), "{call}: {head}");
            if !head.contains("connection: close\r\n") {
                went_on += 1;
                road.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("the next is taken");
                let (head, _) = answer(&mut road).await;
                assert!(head.starts_with("http/1.1 200 "), "{call}: {head}");
            }
        }
    }
    assert!(went_on > 0, "a body that comes at once does not cost the connection");
    rig.close().await;
    server.stop().await;
}

#[tokio::test]
async fn a_body_that_does_not_come_costs_the_connection_and_the_answer_says_so() {
    let server = Latentd::start().await;
    for (call, header) in [
        // It waits for a word that it does not get.
        ("POST /v1/nothing", "expect: 100-continue\r\ncontent-length: 100"),
        ("POST /v1/sessions", "expect: 100-continue\r\ncontent-length: 1000000000"),
        ("POST /v1/nothing", "content-length: 100"),
        ("POST /v1/nothing", "transfer-encoding: chunked"),
    ] {
        let mut road = connect(&server).await;
        road.write_all(format!("{call} HTTP/1.1\r\nhost: x\r\n{header}\r\n\r\n").as_bytes()).await.unwrap();
        let (head, body) = answer(&mut road).await;
        assert!(head.contains("connection: close\r\n"), "{header}: {head}");
        assert!(["not_found", "too_large"].contains(&&*kind(&body)), "{header}: {head}");
        assert_eq!(within("the end", road.read(&mut [0])).await.expect("a good end"), 0);
    }
    server.stop().await;
}

#[tokio::test]
async fn half_a_request_does_not_hold_the_stop() {
    let mut server = Setup::new().key("drain_s", 20).start().await;
    let mut halves = Vec::new();
    for half in [
        "POST /v1/ses",
        "GET /livez HTTP/1.1\r\nhost: x\r\nlong: ",
        // The second one of its connection.
        "GET /livez HTTP/1.1\r\nhost: x\r\n\r\nPOST /v1/ses",
    ] {
        let mut road = connect(&server).await;
        road.write_all(half.as_bytes()).await.unwrap();
        halves.push(road);
    }
    answer(&mut halves[2]).await;
    let mut bodies = Vec::new();
    for length in ["content-length: 100\r\n\r\n{", "transfer-encoding: chunked\r\n\r\n1\r\n{\r\n"] {
        let mut road = connect(&server).await;
        road.write_all(format!("POST /v1/sessions HTTP/1.1\r\nhost: x\r\n{length}").as_bytes())
            .await
            .unwrap();
        bodies.push(road);
    }
    server.get("/livez").await;
    server.terminate();
    for mut road in bodies {
        let (head, body) = answer(&mut road).await;
        assert!(head.starts_with("http/1.1 503 ") && head.contains("connection: close\r\n"), "{head}");
        assert_eq!(kind(&body), "unavailable");
        assert!(String::from_utf8_lossy(&body).contains("draining"));
    }
    // Not 0 where something had to be cut off after `drain_s`.
    assert_eq!(server.wait().await.code(), Some(0), "{}", server.setup.log());
}
