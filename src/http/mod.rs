//! HTTP: a route is decoded, given to one call of `app`, and encoded.
//! Enters: requests. Leaves: messages of the schema as JSON or protobuf, Arrow where many rows come, faults as
//! `application/problem+json`. Owns: the routes. Must hold: a handler is thin; every fault has a body; no body is read
//! past its limit. Must not know: sessions, models, the store (only `app`).

pub mod accept; // connections, their limits and their end
mod library; // runs, outputs, events
mod live; // sessions and frames
mod message; // bodies in and out
mod models; // the registry and pipelines
mod query; // what stands behind the `?`
pub mod request; // an id, a span, a log line
mod state; // liveness, readiness, metrics

use std::panic::AssertUnwindSafe;

use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use futures::FutureExt as _;

use crate::app::App;
use crate::domain::caller::Caller;
use crate::domain::request::RequestId;
use crate::error::{Fault, Kind};
use message::Problem;

/// All routes.
pub fn router(app: App) -> Router {
    Router::new()
        .route("/livez", get(state::live))
        .route("/readyz", get(state::ready))
        .route("/metrics", get(state::metrics))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{model}", get(models::one))
        .route("/v1/models/{model}/versions/{version}", get(models::version))
        .route("/v1/models/{model}/load", post(models::load))
        .route("/v1/models/{model}/unload", post(models::unload))
        .route("/v1/pipelines", get(models::pipelines))
        .route("/v1/sessions", get(live::list).post(live::open))
        .route("/v1/sessions/{session}", get(live::one).delete(live::close))
        .route("/v1/sessions/{session}/frames", post(live::frame))
        .route("/v1/sessions/{session}/reset", post(live::reset))
        .route("/v1/runs", get(library::runs))
        .route("/v1/runs/{run}", get(library::run))
        .route("/v1/runs/{run}/outputs/{output}", get(library::outputs))
        .route("/v1/runs/{run}/events", get(library::events))
        .fallback(no_such_call)
        .method_not_allowed_fallback(no_such_call)
        .layer(middleware::from_fn_with_state(app.clone(), told))
        .layer(middleware::from_fn(request::identify))
        .with_state(app)
}

/// Makes the caller of the request, and writes and counts the fault that a handler answered.
async fn told(
    State(app): State<App>,
    Extension(id): Extension<RequestId>,
    mut request: Request,
    next: Next,
) -> Response {
    request.extensions_mut().insert(Caller::local(id.as_str()));
    if !is_text(request.uri().path()) {
        let fault = Fault::new(Kind::NotFound, "the path is not UTF-8, so that it names nothing here");
        app.metrics.rejected(fault.kind);
        return message::problem(&fault, id.as_str());
    }
    // A panic of ours is a fault that is told, not a connection that breaks off.
    let ran = AssertUnwindSafe(next.run(request)).catch_unwind().await;
    let mut response = ran.unwrap_or_else(|_| Problem(Fault::panicked()).into_response());
    if let Some(Problem(fault)) = response.extensions_mut().remove::<Problem>() {
        app.metrics.rejected(fault.kind);
        response = message::problem(&fault, id.as_str());
    }
    response
}

/// Whether a path is UTF-8 once its `%XX` are bytes.
fn is_text(path: &str) -> bool {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after.get(..2).filter(|_| byte == b'%').and_then(|hex| std::str::from_utf8(hex).ok());
        let escaped = digits.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        bytes.push(escaped.unwrap_or(byte));
        rest = if escaped.is_some() { &after[2..] } else { after };
    }
    std::str::from_utf8(&bytes).is_ok()
}

async fn no_such_call(request: Request) -> Response {
    let path = crate::error::clip(request.uri().path());
    let detail = format!("no call `{} {path}`; docs/API.md lists the calls there are", request.method());
    Problem(Fault::new(Kind::NotFound, detail)).into_response()
}
