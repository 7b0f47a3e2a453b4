//! The registry and the pipelines over HTTP.

use axum::extract::{Path, State};
use axum::response::Response;
use http::StatusCode;

use super::message::{Ask, Form, Problem, answer, answer_beside};
use crate::app::App;
use crate::domain::caller::Caller;
use crate::wire::v1;

pub async fn list(State(app): State<App>, who: Caller, form: Form) -> Result<Response, Problem> {
    Ok(answer(StatusCode::OK, form, &app.models.list(&who)))
}

pub async fn one(
    State(app): State<App>,
    Path(model): Path<String>,
    who: Caller,
    form: Form,
) -> Result<Response, Problem> {
    Ok(answer(StatusCode::OK, form, &app.models.get(&who, &model)?))
}

pub async fn version(
    State(app): State<App>,
    Path((model, version)): Path<(String, String)>,
    who: Caller,
    form: Form,
) -> Result<Response, Problem> {
    Ok(answer(StatusCode::OK, form, &app.models.version(&who, &model, &version)?))
}

pub async fn load(
    State(app): State<App>,
    Path(model): Path<String>,
    who: Caller,
    ask: Ask<v1::LoadRequest>,
) -> Result<Response, Problem> {
    Ok(answer(StatusCode::OK, ask.form, &app.models.load(&who, &model, ask.message.version).await?))
}

pub async fn unload(
    State(app): State<App>,
    Path(model): Path<String>,
    who: Caller,
    ask: Ask<v1::LoadRequest>,
) -> Result<Response, Problem> {
    Ok(answer(StatusCode::OK, ask.form, &app.models.unload(&who, &model, ask.message.version).await?))
}

pub async fn infer(
    State(app): State<App>,
    Path(model): Path<String>,
    who: Caller,
    ask: Ask<v1::InferRequest>,
) -> Result<Response, Problem> {
    let reply = app.infer.infer(&who, &model, ask.message).await?;
    answer_beside(StatusCode::OK, ask.form, reply).await
}

pub async fn pipelines(State(app): State<App>, who: Caller, form: Form) -> Result<Response, Problem> {
    Ok(answer(StatusCode::OK, form, &app.models.pipelines(&who)))
}
