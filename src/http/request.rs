//! What every request gets: an id, a span, and one log line when it is done.

use axum::extract::{MatchedPath, Request};
use axum::middleware::Next;
use axum::response::Response;
use http::HeaderValue;
use tracing::Instrument as _;

use crate::domain::request::RequestId;

/// The header that carries the id, both ways.
pub const REQUEST_ID: &str = "x-request-id";

/// Middleware (`axum::middleware::from_fn(request::identify)`, outermost but inside routing, so that the route is
/// known): puts a `RequestId` among the extensions, opens the span `http.request`, and sets the answer's header.
pub async fn identify(mut request: Request, next: Next) -> Response {
    let given = request.headers().get(REQUEST_ID).and_then(|value| value.to_str().ok());
    let id = RequestId::take(given);
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_string());
    let span = tracing::debug_span!(
        "http.request",
        request.id = %id,
        http.method = %request.method(),
        http.route = route.as_deref().unwrap_or("-"),
        caller = tracing::field::Empty,
    );
    let value = HeaderValue::from_str(id.as_str()).expect("an id is plain ASCII");
    request.extensions_mut().insert(id);
    let begun = tokio::time::Instant::now();
    async move {
        let mut response = next.run(request).await;
        response.headers_mut().insert(REQUEST_ID, value);
        let (status, duration_us) = (response.status().as_u16(), begun.elapsed().as_micros() as u64);
        if response.status().is_server_error() {
            tracing::warn!(http.status = status, duration_us, "request failed");
        } else {
            tracing::debug!(http.status = status, duration_us, "request answered");
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
            .layer(middleware::from_fn(identify));
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
