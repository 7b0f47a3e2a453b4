//! A frame as the body of a request: the message, or its rows as Arrow and the rest of it as the query.

use axum::extract::{FromRequest, FromRequestParts as _, Request};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use serde::Deserialize;

use super::message::{ARROW, Ask, Form, Problem, Query, content_type, whole};
use crate::app::App;
use crate::error::{Fault, clip};
use crate::wire::columns::Columns;
use crate::wire::v1;

/// A frame, and the form wanted for its answer.
pub struct FrameAsk {
    /// The frame, without its rows if they came as columns.
    pub frame: v1::Frame,
    /// Its rows.
    pub columns: Option<Columns>,
    /// The answer's form.
    pub form: Form,
}

impl FromRequest<App> for FrameAsk {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        if content_type(request.headers()) != ARROW {
            let Ask { message, form } = Ask::from_request(request, app).await?;
            return Ok(Self { frame: message, columns: None, form });
        }
        let form = Form::accepted(request.headers());
        let (mut parts, body) = request.into_parts();
        let query = Query::<FrameQuery>::from_request_parts(&mut parts, app).await;
        let body = whole(Request::from_parts(parts, body), app.body_limit).await?;
        let frame = query?.0.frame()?;
        Ok(Self { frame, columns: Some(Columns::read(body)?), form })
    }
}

/// A frame's fields but its rows.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct FrameQuery {
    signal: String,
    seq: u64,
    t_device_ns: Option<i64>,
    writer: String,
    first_index: u64,
    count: u32,
    /// `true,false,…`
    mask: String,
    acked_seq: Option<u64>,
    epoch: bool,
    lost: bool,
    reply: Option<bool>,
    /// Base64, as in JSON.
    echo: String,
    r#final: bool,
}

impl FrameQuery {
    fn frame(self) -> Result<v1::Frame, Fault> {
        let mask =
            self.mask.split(',').map(str::trim).filter(|word| !word.is_empty()).map(|word| match word {
                "true" | "1" => Ok(true),
                "false" | "0" => Ok(false),
                _ => Err(Fault::mismatch(
                    "mask",
                    "true or false for each channel, comma-separated",
                    clip(word),
                )),
            });
        Ok(v1::Frame {
            mask: mask.collect::<Result<_, _>>()?,
            echo: echo(&self.echo)?,
            signal: self.signal,
            seq: self.seq,
            t_device_ns: self.t_device_ns,
            writer: self.writer,
            first_index: self.first_index,
            count: self.count,
            acked_seq: self.acked_seq,
            epoch: self.epoch,
            lost: self.lost,
            reply: self.reply,
            r#final: self.r#final,
            ..Default::default()
        })
    }
}

/// Base64 of either alphabet, padded or not; a `+` of a query that nobody escaped has become a space.
fn echo(text: &str) -> Result<Bytes, Fault> {
    let plain: String = text
        .trim_end_matches('=')
        .chars()
        .map(|letter| match letter {
            '+' | ' ' => '-',
            '/' => '_',
            other => other,
        })
        .collect();
    let bytes = URL_SAFE_NO_PAD.decode(plain);
    bytes.map(Bytes::from).map_err(|_| Fault::mismatch("echo", "base64", format!("`{}`", clip(text))))
}
