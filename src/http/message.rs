//! Bodies of the schema: JSON or protobuf in, the same out; faults as problem+json.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use prost::Message as ProstMessage;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::app::{App, beside, is_large};
use crate::domain::caller::Caller;
use crate::error::{Fault, Kind, clip};
use crate::wire;

const JSON: &str = "application/json";
/// The media type of a message itself.
pub const PROTOBUF: &str = "application/x-protobuf";
const PROBLEM: &str = "application/problem+json";
/// Rows as columns, where many come.
pub const ARROW: &str = "application/vnd.apache.arrow.stream";

/// A fault on its way out; the outermost layer writes it, since it knows the request's id.
#[derive(Clone, Debug)]
pub struct Problem(pub Fault);

impl From<Fault> for Problem {
    fn from(fault: Fault) -> Self {
        Self(fault)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        response.extensions_mut().insert(self);
        response
    }
}

/// The fault as it goes out.
pub fn problem(fault: &Fault, request_id: &str) -> Response {
    let body = wire::json::write(&wire::fault::message(fault, request_id));
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(fault.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM));
    if fault.kind == Kind::Unauthenticated {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if let Some(ms) = fault.retry_after_ms {
        let seconds = (ms / 1e3).ceil().max(1.0) as u64;
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// Who asks, as the outermost layer found out.
impl FromRequestParts<App> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Problem> {
        parts
            .extensions
            .get::<Caller>()
            .cloned()
            .ok_or_else(|| Fault::new(Kind::Internal, "the request has no caller").into())
    }
}

/// What a request says that its body is, in lower case and without parameters; empty where it says nothing.
pub fn content_type(headers: &HeaderMap) -> String {
    let text = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// The form that an answer takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `application/json`.
    Json,
    /// `application/x-protobuf`.
    Protobuf,
}

impl Form {
    /// The form that `Accept` asks for; JSON unless protobuf is named.
    pub fn accepted(headers: &HeaderMap) -> Self {
        let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let protobuf =
            accept.split(',').any(|one| one.split(';').next().unwrap_or_default().trim() == PROTOBUF);
        if protobuf { Form::Protobuf } else { Form::Json }
    }

    /// The form that `Content-Type` names; none is JSON.
    fn sent(headers: &HeaderMap) -> Result<Self, Fault> {
        let text = content_type(headers);
        match text.as_str() {
            JSON | "" => Ok(Form::Json),
            PROTOBUF => Ok(Form::Protobuf),
            _ => {
                Err(Fault::content_type(format!("content type `{}`: send {JSON} or {PROTOBUF}", clip(&text))))
            }
        }
    }
}

impl FromRequestParts<App> for Form {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Problem> {
        Ok(Form::accepted(&parts.headers))
    }
}

/// A message as the body of a request, and the form wanted for the answer.
pub struct Ask<T> {
    /// The message.
    pub message: T,
    /// The answer's form.
    pub form: Form,
}

impl<T> FromRequest<App> for Ask<T>
where
    T: ProstMessage + DeserializeOwned + Default + 'static,
{
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        let form = Form::accepted(request.headers());
        let sent = Form::sent(request.headers())?;
        let body = whole(request, app.body_limit).await?;
        let body_bytes = body.len();
        let decode = move || match sent {
            Form::Json => wire::json::read(&body),
            Form::Protobuf => T::decode(body).map_err(|error| {
                Fault::new(Kind::Malformed, format!("not the protobuf of this message: {error}"))
            }),
        };
        Ok(Self { message: beside(is_large(body_bytes), decode).await?, form })
    }
}

/// Reads the body of a request up to its limit. Errors: `too_large`, `malformed` (it broke off).
pub async fn whole(request: Request, limit_bytes: usize) -> Result<Bytes, Fault> {
    let announced = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    if announced.and_then(|text| text.parse::<u64>().ok()).is_some_and(|bytes| bytes > limit_bytes as u64) {
        // One that waits for our word to send it has sent nothing.
        if !request.headers().contains_key(header::EXPECT) {
            pass_over(request.into_body()).await;
        }
        return Err(over_limit(limit_bytes));
    }
    read(request.into_body(), limit_bytes).await
}

/// Reads a body up to its limit.
async fn read(mut body: Body, limit_bytes: usize) -> Result<Bytes, Fault> {
    match Limited::new(&mut body, limit_bytes).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            pass_over(body).await;
            Err(over_limit(limit_bytes))
        }
        Err(error) => Err(Fault::new(Kind::Malformed, format!("the body broke off: {error}"))),
    }
}

/// Reads on for a while and keeps nothing: a client that is still writing when the connection closes sees a broken pipe
/// and not its answer.
async fn pass_over(mut body: Body) {
    const MOST_BYTES: usize = 16 << 20;
    const LONGEST: Duration = Duration::from_secs(2);
    let all = async {
        let mut passed = 0;
        while passed < MOST_BYTES {
            let Some(Ok(frame)) = body.frame().await else { return };
            passed += frame.data_ref().map_or(0, Bytes::len);
        }
    };
    // Why ignored: whoever is slower is answered now, and may not see it.
    let _ = tokio::time::timeout(LONGEST, all).await;
}

fn over_limit(limit_bytes: usize) -> Fault {
    Fault::new(Kind::TooLarge, format!("the body is over body_limit, {limit_bytes} bytes"))
}

/// A message as an answer.
pub fn answer<T: ProstMessage + Serialize>(status: StatusCode, form: Form, message: &T) -> Response {
    let (content_type, body) = match form {
        Form::Json => (JSON, wire::json::write(message)),
        Form::Protobuf => (PROTOBUF, message.encode_to_vec()),
    };
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// A message that may be large as an answer.
pub async fn answer_beside<T: ProstMessage + Serialize + 'static>(
    status: StatusCode,
    form: Form,
    message: T,
) -> Result<Response, Problem> {
    let bytes = message.encoded_len();
    Ok(beside(is_large(bytes), move || Ok(answer(status, form, &message))).await?)
}

/// The query of a URL as `T`; what is wrong with it is `invalid`.
pub struct Query<T>(pub T);

impl<T: DeserializeOwned> FromRequestParts<App> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Problem> {
        super::query::read(&parts.uri).map(Self).map_err(Problem)
    }
}
