//! A frame as the body of a request: the message, or its rows as Arrow and the rest of it as the query.

use axum::extract::{FromRequest, FromRequestParts as _, Request};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;

use super::message::{ARROW, Ask, Form, Problem, Query, content_type, whole};
use super::route::{Parameters as _, query};
use crate::app::{App, beside, is_large};
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
            let no_query = beside_a_whole_frame(request.uri());
            let Ask { message, form } = Ask::from_request(request, app).await?;
            no_query?;
            return Ok(Self { frame: message, columns: None, form });
        }
        let form = Form::accepted(request.headers());
        let (mut parts, body) = request.into_parts();
        let query = Query::<FrameQuery>::from_request_parts(&mut parts, app).await;
        let body = whole(Request::from_parts(parts, body), app.body_limit).await?;
        let frame = query?.0.frame()?;
        let columns = beside(is_large(body.len()), move || Columns::read(body)).await?;
        Ok(Self { frame, columns: Some(columns), form })
    }
}

/// A query beside a body that is the whole frame says nothing. Errors: `invalid`, with the first parameter that was
/// given, whether there is one of that name or not.
fn beside_a_whole_frame(uri: &http::Uri) -> Result<(), Fault> {
    let pairs = super::query::pairs(uri)?;
    let is_known = |name: &str| FrameQuery::ALL.iter().any(|known| known.name == name);
    match pairs.into_iter().find(|(name, text)| !text.is_empty() || !is_known(name)) {
        None => Ok(()),
        Some((name, _)) => {
            let expected =
                format!("no query: the body has all fields of the frame (a query goes with {ARROW})");
            Err(Fault::mismatch("query", expected, format!("`{}`", clip(&name))))
        }
    }
}

query! {
    /// A frame's fields but its rows, where those come as Arrow.
    FrameQuery {
        /// For rows as Arrow alone, as all of these: the signal's name.
        signal: String,
        /// Counts the signal's frames.
        seq: u64,
        /// Device time of the first row.
        t_device_ns: i64,
        /// The writer token.
        writer: String,
        /// The device's number of the first row.
        first_index: u64,
        /// Rows of the batch; need not be said.
        count: u32,
        /// true or false for each channel, comma-separated.
        mask: String,
        /// All answers up to it are there.
        acked_seq: u64,
        /// The device's counter restarted.
        epoch: bool,
        /// The seqs missing before this one will never come.
        lost: bool,
        /// Whether outputs are wanted.
        reply: bool,
        /// Comes back; base64.
        echo: String,
        /// Ends a trial by hand.
        r#final: bool,
    }
}

impl FrameQuery {
    fn frame(self) -> Result<v1::Frame, Fault> {
        let mask = self.mask.unwrap_or_default();
        let mask = mask.split(',').map(str::trim).filter(|word| !word.is_empty()).map(|word| match word {
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            _ => Err(Fault::mismatch("mask", "true or false for each channel, comma-separated", clip(word))),
        });
        Ok(v1::Frame {
            mask: mask.collect::<Result<_, _>>()?,
            echo: echo(&self.echo.unwrap_or_default())?,
            signal: self.signal.unwrap_or_default(),
            seq: self.seq.unwrap_or_default(),
            t_device_ns: self.t_device_ns,
            writer: self.writer.unwrap_or_default(),
            first_index: self.first_index.unwrap_or_default(),
            count: self.count.unwrap_or_default(),
            acked_seq: self.acked_seq,
            epoch: self.epoch.unwrap_or_default(),
            lost: self.lost.unwrap_or_default(),
            reply: self.reply,
            r#final: self.r#final.unwrap_or_default(),
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
