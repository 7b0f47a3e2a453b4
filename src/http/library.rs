//! Runs, their outputs and events over HTTP.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use http::{HeaderValue, StatusCode, header};
use serde::Deserialize;

use super::message::{ARROW, Form, Problem, Query, answer};
use crate::app::App;
use crate::app::library::{RunsAsk, Wanted};
use crate::domain::caller::Caller;
use crate::error::{Fault, Kind, clip};
use crate::wire;

/// `GET /v1/runs?`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RunsQuery {
    rig: Option<String>,
    pipeline: Option<String>,
    state: Option<String>,
    tag: Option<String>,
    limit: Option<u32>,
    cursor: Option<String>,
}

pub async fn runs(
    State(app): State<App>,
    who: Caller,
    form: Form,
    query: Query<RunsQuery>,
) -> Result<Response, Problem> {
    let RunsQuery { rig, pipeline, state, tag, limit, cursor } = query.0;
    let ask = RunsAsk { rig, pipeline, state, tag, limit, cursor };
    Ok(answer(StatusCode::OK, form, &app.library.runs(&who, ask).await?))
}

pub async fn run(
    State(app): State<App>,
    Path(run): Path<String>,
    who: Caller,
    form: Form,
) -> Result<Response, Problem> {
    Ok(answer(StatusCode::OK, form, &app.library.run(&who, &run).await?))
}

/// `GET /v1/runs/{r}/outputs/{name}?`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OutputsQuery {
    from: Option<u64>,
    to: Option<u64>,
    dims: Option<String>,
    max_points: Option<u64>,
    format: Option<String>,
}

pub async fn outputs(
    State(app): State<App>,
    Path((run, output)): Path<(String, String)>,
    who: Caller,
    form: Form,
    query: Query<OutputsQuery>,
) -> Result<Response, Problem> {
    let query = query.0;
    if query.max_points.is_some() {
        return Err(Fault::new(
            Kind::Unsupported,
            "max_points: this version does not thin results; ask for a range by from and to",
        )
        .into());
    }
    let dims = query.dims.as_deref().map(dims).transpose()?;
    let ask = Wanted { from: query.from, to: query.to, dims };
    let values = app.library.outputs(&who, &run, &output, &ask).await?;
    match query.format.as_deref() {
        None | Some("json") => encoded(move || Ok(answer(StatusCode::OK, form, &values.message()))).await,
        Some("arrow") => {
            encoded(move || {
                let mut response = Response::new(Body::from(wire::arrow::outputs(&values)?));
                response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(ARROW));
                Ok(response)
            })
            .await
        }
        Some(later @ ("parquet" | "csv" | "npy")) => Err(Fault::new(
            Kind::Unsupported,
            format!("format `{later}`: this version writes json and arrow"),
        )
        .into()),
        Some(other) => Err(Fault::unknown_word("format", other, "json, arrow").into()),
    }
}

/// Encodes beside the runtime's threads: many rows take long, and frames are stepped on those.
async fn encoded(
    encode: impl FnOnce() -> Result<Response, Fault> + Send + 'static,
) -> Result<Response, Problem> {
    let encoded = tokio::task::spawn_blocking(encode).await.map_err(|_| Fault::panicked())?;
    Ok(encoded?)
}

/// `0,3,4` as indices.
fn dims(text: &str) -> Result<Vec<usize>, Fault> {
    let one = |part: &str| {
        let expected = "comma-separated indices into a bin's values";
        part.trim().parse().map_err(|_| Fault::mismatch("dims", expected, format!("`{}`", clip(part))))
    };
    text.split(',').map(one).collect()
}

/// `GET /v1/runs/{r}/events?`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EventsQuery {
    kind: Option<String>,
}

pub async fn events(
    State(app): State<App>,
    Path(run): Path<String>,
    who: Caller,
    form: Form,
    query: Query<EventsQuery>,
) -> Result<Response, Problem> {
    Ok(answer(StatusCode::OK, form, &app.library.events(&who, &run, query.0.kind.as_deref()).await?))
}
