//! Runs, their outputs and events over HTTP.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use http::{HeaderValue, StatusCode, header};

use super::message::{ARROW, Form, Problem, Query, answer, answer_beside};
use super::route::query;
use crate::app::library::{RunsAsk, Wanted};
use crate::app::{App, beside, is_large};
use crate::domain::caller::Caller;
use crate::error::{Fault, Kind, clip};
use crate::wire;
use crate::wire::outputs::Outputs;

const PARQUET: &str = "application/vnd.apache.parquet";
const CSV: &str = "text/csv";
const NPY: &str = "application/x-npy";
/// Every form of values but the message.
pub const FORMATS: &[&str] = &[ARROW, PARQUET, CSV, NPY];

query! {
    /// `GET /v1/runs?`
    RunsQuery {
        /// The rig's name.
        rig: String,
        /// The pipeline's name.
        pipeline: String,
        /// `open`, `closed` or `interrupted`.
        state: String,
        /// A tag that they carry.
        tag: String,
        /// Most runs of the page, 1 to 1000.
        limit: u32,
        /// `next` of the page before.
        cursor: String,
    }
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

query! {
    /// `GET /v1/runs/{r}/outputs/{name}?`
    OutputsQuery {
        /// First bin.
        from: u64,
        /// One past the last bin.
        to: u64,
        /// Comma-separated indices into a bin's values, row-major.
        dims: String,
        /// Thins to at most so many points, each with least, greatest and last value (`json` alone).
        max_points: u64,
        /// `json` (by default), `arrow`, `parquet`, `csv` or `npy`.
        format: String,
    }
}

/// Media type and writer of a format; `None`: the message.
type Table = Option<(&'static str, fn(&Outputs) -> Result<Vec<u8>, Fault>)>;

fn table(format: Option<&str>) -> Result<Table, Fault> {
    match format {
        None | Some("json") => Ok(None),
        Some("arrow") => Ok(Some((ARROW, wire::arrow::stream))),
        Some("parquet") => Ok(Some((PARQUET, wire::arrow::parquet))),
        Some("csv") => Ok(Some((CSV, Outputs::csv))),
        Some("npy") => Ok(Some((NPY, Outputs::npy))),
        Some(other) => Err(Fault::unknown_word("format", other, "json, arrow, parquet, csv, npy")),
    }
}

pub async fn outputs(
    State(app): State<App>,
    Path((run, output)): Path<(String, String)>,
    who: Caller,
    form: Form,
    query: Query<OutputsQuery>,
) -> Result<Response, Problem> {
    let query = query.0;
    let dims = query.dims.as_deref().map(dims).transpose()?;
    let ask = Wanted { from: query.from, to: query.to, dims };
    match (table(query.format.as_deref())?, query.max_points) {
        (Some(_), Some(_)) => {
            let detail = "max_points: thinned values are written as json alone by this version";
            Err(Fault::new(Kind::Unsupported, detail).into())
        }
        (None, Some(points)) => {
            let reply = app.library.thinned(&who, &run, &output, &ask, points).await?;
            answer_beside(StatusCode::OK, form, reply).await
        }
        (None, None) => {
            let values = app.library.outputs(&who, &run, &output, &ask).await?;
            answer_beside(StatusCode::OK, form, values.message()).await
        }
        (Some((media, write)), None) => {
            let values = app.library.outputs(&who, &run, &output, &ask).await?;
            let bytes = values.size_bytes();
            let write = move || {
                let mut response = Response::new(Body::from(write(&values)?));
                response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
                Ok(response)
            };
            Ok(beside(is_large(bytes), write).await?)
        }
    }
}

/// `0,3,4` as indices.
fn dims(text: &str) -> Result<Vec<usize>, Fault> {
    let one = |part: &str| {
        let expected = "comma-separated indices into a bin's values";
        part.trim().parse().map_err(|_| Fault::mismatch("dims", expected, format!("`{}`", clip(part))))
    };
    text.split(',').map(one).collect()
}

query! {
    /// `GET /v1/runs/{r}/events?`
    EventsQuery {
        /// Of this kind alone.
        kind: String,
    }
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
