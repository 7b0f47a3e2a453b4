//! Web pages that use the API: which may, and how they ask.

use reqwest::Method;

use crate::support::websocket::{path, refused};
use crate::support::{Answer, Latentd, Setup, counts, linear};

const PAGE: &str = "https://lab.example";

async fn asked(server: &Latentd, method: Method, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = server.client.request(method, server.url(path));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    Answer::of(request).await
}

fn preflight(origin: &'static str) -> [(&'static str, &'static str); 3] {
    [
        ("origin", origin),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "content-type"),
    ]
}

#[tokio::test]
async fn a_page_of_a_named_origin_may_ask_and_read_also_faults_and_events() {
    let server = Setup::new().key("cors_origins", format!("{PAGE},http://localhost:3000")).start().await;
    let rig = server.open(linear()).await;
    let frames = format!("/v1/sessions/{}/frames", rig.session());
    for path in ["/v1/sessions", frames.as_str()] {
        let answer = asked(&server, Method::OPTIONS, path, &preflight(PAGE)).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("access-control-allow-origin"), PAGE);
        assert!(answer.header("access-control-allow-methods").contains("POST"));
        for header in ["content-type", "authorization", "x-request-id", "traceparent"] {
            let allowed = answer.header("access-control-allow-headers");
            assert!(allowed.split(',').any(|one| one.trim() == header), "{header} in {allowed}");
        }
    }
    for path in ["/v1/models", "/v1/sessions/x"] {
        let answer = asked(&server, Method::GET, path, &[("origin", PAGE)]).await;
        assert_eq!(answer.header("access-control-allow-origin"), PAGE, "{path} {}", answer.status);
        assert!(answer.header("access-control-expose-headers").contains("x-request-id"));
    }
    let events = server.client.get(server.url(&format!("/v1/sessions/{}/live", rig.session())));
    let events = events.header("origin", PAGE).send().await.unwrap();
    assert_eq!(events.headers()["access-control-allow-origin"], PAGE);
    drop(events);
    // Another page gets an answer that its browser does not let it read.
    let other = "https://elsewhere.example";
    for (method, headers) in
        [(Method::OPTIONS, preflight(other).to_vec()), (Method::GET, vec![("origin", other)])]
    {
        let answer = asked(&server, method, "/v1/models", &headers).await;
        assert_eq!(answer.header("access-control-allow-origin"), "");
    }
    // What a form could send is not asked for first either.
    for path in ["/v1/models/linear/unload", "/v1/sessions"] {
        let answer = asked(&server, Method::POST, path, &[("origin", other)]).await;
        answer.refused().is(403, "forbidden", &[other]);
    }
    rig.send(counts(0, 0, &[[1.0, 2.0]])).await;
    // A WebSocket is not asked for first, so that the server itself says no.
    let stream = path(rig.session(), "");
    refused(&server, &stream, &[("origin", other)]).await.refused().is(403, "forbidden", &[other]);
    rig.close().await;
    server.stop().await;
}

#[tokio::test]
async fn without_a_word_in_the_configuration_no_page_may() {
    let server = Latentd::start().await;
    for (method, headers) in
        [(Method::OPTIONS, preflight(PAGE).to_vec()), (Method::GET, vec![("origin", PAGE)])]
    {
        let answer = asked(&server, method, "/v1/models", &headers).await;
        assert_eq!(answer.header("access-control-allow-origin"), "");
        answer.refused().is(403, "forbidden", &[PAGE, "cors_origins"]);
    }
    server.stop().await;
}
