//! What every request gets: an id, a span, and one log line when it is done.

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::HeaderValue;
use tracing::Instrument as _;

use crate::domain::request::RequestId;
use crate::domain::time::Stamp;
use crate::error::Kind;
use crate::trace::{TRACEPARENT, Tracer, Value};

/// The header that carries the id, both ways.
pub const REQUEST_ID: &str = "x-request-id";

/// Middleware (`axum::middleware::from_fn_with_state(tracer, request::identify)`, outermost but inside routing, so that the
/// route is known): puts a `RequestId`, and where it is traced the `RequestSpan`, among the extensions, opens the log's
/// span `http.request`, and sets the answer's header. A request ends here when its answer begins.
pub async fn identify(State(tracer): State<Tracer>, mut request: Request, next: Next) -> Response {
    let given = request.headers().get(REQUEST_ID).and_then(|value| value.to_str().ok());
    let id = RequestId::take(given);
    let route = request.extensions().get::<MatchedPath>().map_or("-", MatchedPath::as_str).to_owned();
    let method = request.method().clone();
    let span = tracing::debug_span!(
        "http.request",
        request.id = %id,
        http.method = %method,
        http.route = route,
        caller = tracing::field::Empty,
    );
    let traceparent = request.headers().get(TRACEPARENT).and_then(|value| value.to_str().ok());
    let traced = tracer.request(traceparent);
    let id_value = HeaderValue::from_str(id.as_str()).expect("an id is plain ASCII");
    request.extensions_mut().insert(id);
    if let Some(traced) = traced {
        request.extensions_mut().insert(traced);
    }
    let begun = Stamp::now();
    async move {
        let mut response = next.run(request).await;
        response.headers_mut().insert(REQUEST_ID, id_value.clone());
        let id = id_value.to_str().unwrap_or_default();
        let fault = response.extensions_mut().remove::<Kind>().map(Kind::word);
        let (status, took) = (response.status().as_u16(), begun.instant.elapsed());
        let duration_us = took.as_micros() as u64;
        // Why the id in the event, too: at `info` there is no span around it.
        if response.status().is_server_error() {
            tracing::warn!(
                request.id = id,
                http.status = status,
                fault.kind = fault,
                duration_us,
                "request failed"
            );
        } else {
            tracing::debug!(
                request.id = id,
                http.status = status,
                fault.kind = fault,
                duration_us,
                "request answered"
            );
        }
        if let Some(traced) = traced {
            let mut attributes = vec![
                ("request.id", Value::from(id)),
                ("http.method", Value::from(method.as_str())),
                ("http.route", Value::from(route.as_str())),
                ("http.status", Value::from(u64::from(status))),
            ];
            attributes.extend(fault.map(|kind| ("fault.kind", Value::from(kind))));
            let failed = response.status().is_server_error();
            tracer.answered(traced, "http.request", begun, took, attributes, failed);
        }
        response
    }
    .instrument(span)
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use axum::routing::get;
    use axum::{Extension, Router, middleware};
    use tower::ServiceExt as _;

    #[tokio::test]
    async fn the_route_and_the_answer_carry_one_id_and_a_usable_one_of_the_caller_is_kept() {
        let router = Router::new()
            .route("/", get(|Extension(id): Extension<RequestId>| async move { id.to_string() }))
            .layer(middleware::from_fn_with_state(Tracer::default(), identify));
        for (given, kept) in [(Some("rig-7"), true), (Some("a b"), false), (None, false)] {
            let mut request = Request::new(Body::empty());
            if let Some(given) = given {
                request.headers_mut().insert(REQUEST_ID, given.parse().unwrap());
            }
            let response = router.clone().oneshot(request).await.unwrap();
            let header = response.headers()[REQUEST_ID].to_str().unwrap().to_string();
            let body = axum::body::to_bytes(response.into_body(), 1024).await.unwrap();
            assert_eq!(header.as_bytes(), &body[..]);
            assert_eq!(given == Some(header.as_str()), kept);
        }
    }
}
