//! HTTP: a route is decoded, given to one call of `app`, and encoded.
//! Enters: requests. Leaves: messages of the schema as JSON or protobuf, tables where many rows come, faults as
//! `application/problem+json`. Owns: the routes. Must hold: a handler is thin; every fault has a body; no body is kept
//! past its limit, and none of a caller that may not; a route and what the document says of it are one. Must not know:
//! sessions, models, the store (only `app`).

pub mod accept; // connections, their limits and their end
mod body; // a request's body as it comes, and what is left of it
mod library; // runs, outputs, events
mod live; // sessions and frames
mod message; // bodies in and out
mod frame; // a frame as a body, also in columns
mod models; // the registry, pipelines, one-shot inference
mod openapi; // the document of all of it
mod query; // what stands behind the `?`
pub mod request; // an id, a span, a log line
mod route; // a call, and what the document says of it
mod state; // liveness, readiness, metrics
mod subscribe; // what a session gives, to a browser
mod websocket; // a rig's stream
mod pulse; // signs of life of a connection
mod origins; // which web pages may use the API
mod gate; // who may make which call

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};
use futures::FutureExt as _;
use http::Method;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::app::App;
use crate::domain::caller::{Caller, Need, Scope};
use crate::domain::request::RequestId;
use crate::domain::trace::RequestSpan;
use crate::error::{Fault, Kind};
use crate::wire::v1;
use gate::{Gate, Needs};
use message::Problem;
use route::{Content, Route};

pub use gate::Asked;
pub use origins::Origins;

/// What replies that live long need.
#[derive(Clone, Debug)]
pub struct Streams {
    /// Interval at which a stream shows that it is there.
    pub ping: Duration,
    /// A stream without a sign of life for so long is dead.
    pub dead_after: Duration,
    /// Largest message.
    pub message_bytes: usize,
    /// Time that an upgrade may take.
    pub first_byte: Duration,
    /// Which web pages may use the API.
    pub origins: Origins,
    /// Cancelled once the streams were told why they end: one that does not take it is given up soon after.
    pub closing: CancellationToken,
    /// Cancelled: all end now.
    pub hard: CancellationToken,
    /// Every upgraded connection is a task of it.
    pub tasks: TaskTracker,
}

/// All routes: what each asks of its caller, what is served, and what the contract names and is not served yet.
/// `metrics`: what that one asks.
fn routes(metrics: Need) -> Vec<Route> {
    served(metrics).into_iter().chain(later()).collect()
}

/// Calls that are served.
fn served(metrics: Need) -> Vec<Route> {
    use v1::{
        CloseReply, EventsReply, Frame, InferReply, InferRequest, LoadRequest, ModelInfo, ModelVersion,
        ModelsReply, OpenReply, OpenRequest, Output, OutputsReply, PipelinesReply, ProbeReply, ProbeRequest,
        ReadyReply, ResetReply, ResetRequest, RunInfo, RunsReply, SessionInfo, SessionsReply, SwitchReply,
        SwitchRequest,
    };
    const READ: Need = Need::Scope(Scope::Read);
    const STREAM: Need = Need::Scope(Scope::Stream);
    const ADMIN: Need = Need::Scope(Scope::Admin);
    let document = || Content::Of(&["application/json"]);
    vec![
        Route::get(Need::Nothing, "/livez", "Whether the process runs", state::live)
            .content(200, Content::Empty),
        Route::get(Need::Nothing, "/readyz", "Whether requests should be sent here", state::ready)
            .answers::<ReadyReply>(200)
            .answers::<ReadyReply>(503),
        Route::get(metrics, "/metrics", "What is measured, as Prometheus' text", state::metrics)
            .content(200, Content::Of(&["text/plain"])),
        Route::get(READ, "/openapi.json", "This document", openapi::show).content(200, document()),
        Route::get(READ, "/v1/openapi.json", "This document", openapi::show).content(200, document()),
        Route::get(READ, "/v1/models", "All models with their versions", models::list)
            .answers::<ModelsReply>(200),
        Route::get(READ, "/v1/models/{model}", "One model", models::one).answers::<ModelInfo>(200),
        Route::get(READ, "/v1/models/{model}/versions/{version}", "One version", models::version)
            .answers::<ModelVersion>(200),
        Route::post(ADMIN, "/v1/models/{model}/load", "Makes a version serve", models::load)
            .takes::<LoadRequest>()
            .answers::<ModelInfo>(200),
        Route::post(ADMIN, "/v1/models/{model}/unload", "Takes versions out", models::unload)
            .takes::<LoadRequest>()
            .answers::<ModelInfo>(200),
        Route::post(STREAM, "/v1/models/{model}/infer", "One-shot inference on named tensors", models::infer)
            .takes::<InferRequest>()
            .answers::<InferReply>(200),
        Route::get(READ, "/v1/pipelines", "All pipelines", models::pipelines).answers::<PipelinesReply>(200),
        Route::get(READ, "/v1/sessions", "Open sessions, oldest first", live::list)
            .answers::<SessionsReply>(200),
        Route::post(
            STREAM,
            "/v1/sessions",
            "Opens a session; with `dry_run` only says what it would be",
            live::open,
        )
        .takes::<OpenRequest>()
        .answers::<OpenReply>(201)
        .answers::<OpenReply>(200),
        Route::get(READ, "/v1/sessions/{session}", "One open session", live::one).answers::<SessionInfo>(200),
        Route::new(STREAM, Method::DELETE, "/v1/sessions/{session}", "Closes a session", live::close)
            .answers::<CloseReply>(200),
        Route::post(
            STREAM,
            "/v1/sessions/{session}/frames",
            "One frame, and the bins that it closed",
            live::frame,
        )
        .reads::<frame::FrameQuery>()
        .takes::<Frame>()
        .takes_also(&[message::ARROW])
        .answers::<Output>(200),
        Route::get(
            STREAM,
            "/v1/sessions/{session}/stream",
            "A rig's stream, by WebSocket",
            websocket::stream,
        )
        .reads::<websocket::StreamQuery>()
        .content(101, Content::Empty),
        Route::get(READ, "/v1/sessions/{session}/live", "What a session gives, as events", subscribe::live)
            .reads::<subscribe::LiveQuery>()
            .content(200, Content::Of(&["text/event-stream"])),
        Route::post(STREAM, "/v1/sessions/{session}/reset", "Starts the state anew", live::reset)
            .takes::<ResetRequest>()
            .answers::<ResetReply>(200),
        Route::post(
            STREAM,
            "/v1/sessions/{session}/clock",
            "Two of the four stamps of a clock probe",
            live::clock,
        )
        .takes::<ProbeRequest>()
        .answers::<ProbeReply>(200),
        Route::post(
            STREAM,
            "/v1/sessions/{session}/switch",
            "Another version between two bins",
            live::switch,
        )
        .takes::<SwitchRequest>()
        .answers::<SwitchReply>(200),
        Route::get(READ, "/v1/runs", "Runs, newest first", library::runs)
            .reads::<library::RunsQuery>()
            .answers::<RunsReply>(200),
        Route::get(READ, "/v1/runs/{run}", "One run", library::run).answers::<RunInfo>(200),
        Route::get(READ, "/v1/runs/{run}/outputs/{output}", "Values of an output", library::outputs)
            .reads::<library::OutputsQuery>()
            .answers::<OutputsReply>(200)
            .content(200, Content::Of(library::FORMATS)),
        Route::get(READ, "/v1/runs/{run}/events", "What happened in a run", library::events)
            .reads::<library::EventsQuery>()
            .answers::<EventsReply>(200),
    ]
}

/// Calls that the contract names and this version does not serve.
fn later() -> impl Iterator<Item = Route> {
    const LATER: [(Method, &str, &str); 29] = [
        (Method::POST, "/v1/sessions/{session}/snapshot", "snapshot: keeping a session's whole state"),
        (Method::POST, "/v1/sessions/{session}/fork", "fork: a second session from a session's state"),
        (Method::POST, "/v1/sessions/{session}/advance", "advance: bins without input"),
        (Method::POST, "/v1/sessions/{session}/twin", "twin: a fork that follows every frame"),
        (Method::GET, "/v1/sessions/{session}/interventions", "interventions on a session"),
        (Method::POST, "/v1/sessions/{session}/interventions", "interventions on a session"),
        (Method::DELETE, "/v1/sessions/{session}/interventions/{intervention}", "interventions on a session"),
        (Method::GET, "/v1/sessions/{session}/annotations", "annotations: labels of a session's bins"),
        (Method::POST, "/v1/sessions/{session}/annotations", "annotations: labels of a session's bins"),
        (Method::GET, "/v1/sessions/{session}/targets", TARGETS),
        (Method::POST, "/v1/sessions/{session}/targets", TARGETS),
        (Method::PATCH, "/v1/runs/{run}", "changing a run's tags and notes"),
        (Method::DELETE, "/v1/runs/{run}", "deleting a run"),
        (Method::GET, "/v1/runs/{run}/annotations", "annotations: labels of a run's bins"),
        (Method::POST, "/v1/runs/{run}/annotations", "annotations: labels of a run's bins"),
        (Method::GET, "/v1/runs/{run}/targets", TARGETS),
        (Method::POST, "/v1/runs/{run}/targets", TARGETS),
        (Method::GET, "/v1/runs/{run}/outputs/{output}/aligned", "averages around annotations"),
        (Method::POST, "/v1/runs/{run}/evaluations", "scores of a run"),
        (
            Method::POST,
            "/v1/runs/{run}/replay",
            "replay of a run by the server (`latentd replay` plays a recording)",
        ),
        (Method::POST, "/v1/runs/{run}/features/contrast", "features that tell two stretches apart"),
        (Method::POST, "/v1/runs/import", "import of a recording"),
        (Method::GET, "/v1/saes/{model}/features", "features of a sparse autoencoder"),
        (Method::GET, "/v1/saes/{model}/features/{feature}", "a feature of a sparse autoencoder"),
        (Method::POST, "/v1/saes/{model}/explain", "explanations of features"),
        (Method::POST, "/v1/analyses", "analyses"),
        (Method::GET, "/v1/jobs/{job}", "jobs"),
        (Method::GET, "/v1/jobs/{job}/events", "jobs"),
        (Method::DELETE, "/v1/jobs/{job}", "jobs"),
    ];
    const TARGETS: &str = "targets by call (a signal with role = \"target\" is recorded)";
    LATER.into_iter().map(|(method, path, says)| {
        let scope = if method == Method::GET { Scope::Read } else { Scope::Stream };
        Route::later(Need::Scope(scope), method, path, says)
    })
}

/// All routes with what each request gets.
pub fn router(app: App, streams: Streams, asked: Asked) -> Router {
    let cors = streams.origins.layer();
    let routes = routes(if asked.open_metrics { Need::Nothing } else { Need::Scope(Scope::Read) });
    let gate = Gate { app: app.clone(), asks_for_keys: asked.keys, needs: Needs::of(&routes) };
    let routes = routes.into_iter().fold(Router::new(), |router, route| router.route(route.path, route.call));
    let router = routes
        .fallback(no_such_call)
        .method_not_allowed_fallback(no_such_call)
        .layer(middleware::from_fn_with_state(Arc::new(gate), told))
        .layer(Extension(Arc::new(streams)));
    let router = match cors {
        Some(cors) => router.layer(cors),
        None => router,
    };
    router.layer(middleware::from_fn_with_state(app.tracer.clone(), request::identify)).with_state(app)
}

/// Finds out who asks and whether that one may, and writes and counts the fault that the gate or a handler answered.
async fn told(
    State(gate): State<Arc<Gate>>,
    Extension(id): Extension<RequestId>,
    Extension(streams): Extension<Arc<Streams>>,
    mut request: Request,
    next: Next,
) -> Response {
    let refused = |fault: &Fault| {
        gate.app.metrics.rejected(fault.kind);
        let mut response = message::problem(fault, id.as_str());
        // For the log's line.
        response.extensions_mut().insert(fault.kind);
        response
    };
    match gate.admit(&request, id.as_str()) {
        Ok(who) => {
            tracing::Span::current().record("caller", who.name.as_str());
            let span = request.extensions().get::<RequestSpan>().copied();
            request.extensions_mut().insert(Caller { span, ..who });
        }
        Err(fault) => return refused(&fault),
    }
    if let Err(fault) = may_pass(&request, &streams.origins) {
        return refused(&fault);
    }
    // A panic of ours is a fault that is told, not a connection that breaks off.
    let ran = AssertUnwindSafe(next.run(request)).catch_unwind().await;
    let mut response = ran.unwrap_or_else(|_| Problem(Fault::panicked()).into_response());
    match response.extensions_mut().remove::<Problem>() {
        Some(Problem(fault)) => refused(&fault),
        None => response,
    }
}

/// What is asked of every request before it comes to its handler. Errors: `not_found`, `forbidden`.
fn may_pass(request: &Request, origins: &Origins) -> Result<(), Fault> {
    if !is_text(request.uri().path()) {
        return Err(Fault::new(Kind::NotFound, "the path is not UTF-8, so that it names nothing here"));
    }
    origins.check(request.headers())
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
