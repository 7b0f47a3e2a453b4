//! Bodies of the schema: JSON or protobuf in, the same out; faults as problem+json.

use std::error::Error;

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

use super::body::GivenUp;
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
    /// The form that `Accept` asks for: protobuf where it is named and JSON is not liked better, where JSON alone is not
    /// wanted, or where it leaves the choice and the request is protobuf itself; else JSON, also where neither is wanted.
    pub fn accepted(headers: &HeaderMap) -> Self {
        let (json, protobuf) = (Wish::of(headers, JSON), Wish::of(headers, PROTOBUF));
        let is_liked = protobuf.quality > json.quality
            || (protobuf.quality == json.quality && protobuf.quality > 0.0 && protobuf.is_named)
            || (protobuf == json && (json.quality > 0.0 || !headers.contains_key(header::ACCEPT)))
                && content_type(headers) == PROTOBUF;
        if is_liked { Form::Protobuf } else { Form::Json }
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

/// How much `Accept` wants a media type (RFC 9110, 12.5.1).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Wish {
    /// From 0, not at all, to 1.
    quality: f32,
    /// By its own name, not by a range.
    is_named: bool,
}

impl Wish {
    fn of(headers: &HeaderMap, media: &str) -> Self {
        let group = media.split('/').next().unwrap_or_default();
        let texts = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let ranges = texts.flat_map(|text| text.split(',')).filter_map(|range| {
            let mut parts = range.split(';').map(str::trim);
            let name = parts.next()?;
            let closeness = if name.eq_ignore_ascii_case(media) {
                2
            } else if name.strip_suffix("/*").is_some_and(|of| of.eq_ignore_ascii_case(group)) {
                1
            } else if name == "*/*" {
                0
            } else {
                return None;
            };
            let quality = parts.find_map(|part| part.strip_prefix("q=").or(part.strip_prefix("Q=")));
            let quality = quality.and_then(|text| text.trim().parse::<f32>().ok());
            Some((closeness, quality.filter(|quality| (0.0..=1.0).contains(quality)).unwrap_or(1.0)))
        });
        // The range that is closest to the type says.
        let closest = ranges.max_by_key(|(closeness, _)| *closeness);
        closest.map_or(Self::default(), |(closeness, quality)| Self { quality, is_named: closeness == 2 })
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
            Form::Protobuf => wire::codec::read(body),
        };
        Ok(Self { message: beside(is_large(body_bytes), decode).await?, form })
    }
}

/// Reads the body of a request up to its limit. Errors: `too_large`, `malformed` (it broke off), `unavailable` (it was
/// still coming when the server closed).
pub async fn whole(request: Request, limit_bytes: usize) -> Result<Bytes, Fault> {
    let announced = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    if announced.and_then(|text| text.parse::<u64>().ok()).is_some_and(|bytes| bytes > limit_bytes as u64) {
        return Err(over_limit(limit_bytes));
    }
    match Limited::new(request.into_body(), limit_bytes).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(over_limit(limit_bytes)),
        Err(error) if is_given_up(&*error) => Err(Fault::new(
            Kind::Unavailable,
            "the server is draining, and the rest of the body had not come; send it elsewhere",
        )),
        Err(_) => Err(Fault::new(
            Kind::Malformed,
            "the body broke off before its end, or its chunks are none of HTTP",
        )),
    }
}

/// Whether a body failed because all is closing; the reader's errors are wrapped in one another.
fn is_given_up(error: &(dyn Error + 'static)) -> bool {
    std::iter::successors(Some(error), |&error| error.source()).any(|error| error.is::<GivenUp>())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_is_the_one_that_accept_likes_best_and_what_it_does_not_want_is_not_given() {
        const P: &str = "application/x-protobuf";
        for (accept, form) in [
            ("", Form::Json),
            ("*/*", Form::Json),
            ("application/json", Form::Json),
            ("text/html", Form::Json),
            (P, Form::Protobuf),
            (&format!("{P}; q=1.0"), Form::Protobuf),
            (&format!("{P};q=0"), Form::Json),
            (&format!("{P};q=0.000, */*"), Form::Json),
            (&format!("{P}; Q=0, application/json;q=0.1"), Form::Json),
            (&format!("application/json, {P}"), Form::Protobuf),
            (&format!("*/*, {P}"), Form::Protobuf),
            (&format!("application/json, {P};q=0.5"), Form::Json),
            (&format!("application/json;q=0.2, {P};q=0.5"), Form::Protobuf),
            ("application/json;q=0, */*", Form::Protobuf),
            ("application/json;q=0, application/*;q=0.1", Form::Protobuf),
            ("application/json;q=0", Form::Json),
            (&format!("*/*;q=0, {P};q=0"), Form::Json),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, HeaderValue::from_str(accept).unwrap());
            assert_eq!(Form::accepted(&headers), form, "{accept}");
        }
        assert_eq!(Form::accepted(&HeaderMap::new()), Form::Json);
        let mut sent = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(P))]);
        assert_eq!(Form::accepted(&sent), Form::Protobuf, "nothing said: as it was sent");
        for (accept, form) in
            [("*/*", Form::Protobuf), ("application/json", Form::Json), ("text/html", Form::Json)]
        {
            sent.insert(header::ACCEPT, HeaderValue::from_static(accept));
            assert_eq!(Form::accepted(&sent), form, "sent protobuf, accepts {accept}");
        }
        let mut headers = HeaderMap::new();
        headers.append(header::ACCEPT, HeaderValue::from_static("text/html"));
        headers.append(header::ACCEPT, HeaderValue::from_static(P));
        assert_eq!(Form::accepted(&headers), Form::Protobuf, "the header in two lines");
    }
}
