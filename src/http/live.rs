//! Sessions and frames over HTTP.

use axum::extract::{Path, State};
use axum::response::Response;
use http::StatusCode;

use super::frame::FrameAsk;
use super::message::{Ask, Form, Problem, answer};
use crate::app::App;
use crate::domain::caller::Caller;
use crate::domain::time::Stamp;
use crate::wire::v1;

pub async fn open(
    State(app): State<App>,
    who: Caller,
    ask: Ask<v1::OpenRequest>,
) -> Result<Response, Problem> {
    let status = if ask.message.dry_run { StatusCode::OK } else { StatusCode::CREATED };
    let opened = app.live.open(&who, ask.message).await?;
    Ok(answer(status, ask.form, &opened))
}

pub async fn frame(
    State(app): State<App>,
    Path(session): Path<String>,
    who: Caller,
    ask: FrameAsk,
) -> Result<Response, Problem> {
    let received = Stamp::now();
    let FrameAsk { frame, columns, form } = ask;
    let frame = match columns {
        Some(columns) => app.live.with_columns(&who, &session, frame, &columns)?,
        None => frame,
    };
    let output = app.live.frame(&who, &session, frame, received).await?;
    Ok(answer(StatusCode::OK, form, &output))
}

pub async fn list(State(app): State<App>, who: Caller, form: Form) -> Result<Response, Problem> {
    Ok(answer(StatusCode::OK, form, &app.live.list(&who)))
}

pub async fn one(
    State(app): State<App>,
    Path(session): Path<String>,
    who: Caller,
    form: Form,
) -> Result<Response, Problem> {
    Ok(answer(StatusCode::OK, form, &app.live.get(&who, &session)?))
}

pub async fn close(
    State(app): State<App>,
    Path(session): Path<String>,
    who: Caller,
    form: Form,
) -> Result<Response, Problem> {
    Ok(answer(StatusCode::OK, form, &app.live.close(&who, &session).await?))
}

pub async fn reset(
    State(app): State<App>,
    Path(session): Path<String>,
    who: Caller,
    ask: Ask<v1::ResetRequest>,
) -> Result<Response, Problem> {
    let reply = app.live.reset(&who, &session, &ask.message)?;
    Ok(answer(StatusCode::OK, ask.form, &reply))
}

pub async fn switch(
    State(app): State<App>,
    Path(session): Path<String>,
    who: Caller,
    ask: Ask<v1::SwitchRequest>,
) -> Result<Response, Problem> {
    let reply = app.live.switch(&who, &session, ask.message).await?;
    Ok(answer(StatusCode::OK, ask.form, &reply))
}

pub async fn clock(
    State(app): State<App>,
    Path(session): Path<String>,
    who: Caller,
    ask: Ask<v1::ProbeRequest>,
) -> Result<Response, Problem> {
    let reply = app.live.probe(&who, &session, &ask.message, Stamp::now())?;
    Ok(answer(StatusCode::OK, ask.form, &reply))
}
