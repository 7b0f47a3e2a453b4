//! Liveness, readiness, metrics.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};

use super::message::{Form, answer};
use crate::app::App;

pub async fn live() -> StatusCode {
    StatusCode::OK
}

pub async fn ready(State(app): State<App>, form: Form) -> Response {
    let reply = app.readiness();
    let status = if reply.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    answer(status, form, &reply)
}

pub async fn metrics(State(app): State<App>) -> Response {
    app.metrics.ready(app.readiness().ready);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], app.metrics.render())
        .into_response()
}
