//! What a session gives, to a browser: server-sent events.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream};
use http::{HeaderValue, header};
use tokio::time::{Instant, sleep};

use super::Streams;
use super::message::{Problem, Query};
use super::route::query;
use crate::app::App;
use crate::domain::caller::Caller;
use crate::error::Fault;
use crate::wire::told::Told;
use crate::wire::v1;

/// A comment, so that a road on which nothing happens is not taken for dead.
const STILL_HERE: &[u8] = b":\n\n";

query! {
    /// `GET /v1/sessions/{s}/live?`
    LiveQuery {
        /// Names of outputs, comma-separated; all by default.
        outputs: String,
        /// Most messages a second, over 0; by default every message comes.
        max_hz: f64,
    }
}

impl LiveQuery {
    fn ask(self, session: String) -> v1::SubscribeRequest {
        let outputs = self.outputs.unwrap_or_default();
        let names = outputs.split(',').map(str::trim).filter(|name| !name.is_empty());
        v1::SubscribeRequest { session, outputs: names.map(Into::into).collect(), max_hz: self.max_hz }
    }
}

pub async fn live(
    State(app): State<App>,
    Extension(streams): Extension<Arc<Streams>>,
    Path(session): Path<String>,
    who: Caller,
    query: Query<LiveQuery>,
) -> Result<Response, Problem> {
    let told = app.live.subscribe(&who, &query.0.ask(session))?;
    let told = until_revoked(told, app.revoked(&who));
    let mut response = Response::new(Body::from_stream(events(told, streams.ping).map(Ok::<_, Infallible>)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// What is told, until the listener's key is revoked; that is told last.
fn until_revoked(
    told: impl Stream<Item = Told> + Send,
    revoked: impl Future<Output = Fault> + Send,
) -> impl Stream<Item = Told> + Send {
    stream::unfold(Some((Box::pin(told), Box::pin(revoked))), |listening| async move {
        let (mut told, mut revoked) = listening?;
        // Cancel-safe: what is told is not taken unless it is returned.
        tokio::select! {
            biased;
            fault = &mut revoked => Some((Told::Ended(fault), None)),
            next = told.next() => next.map(|next| (next, Some((told, revoked)))),
        }
    })
}

/// What is told as events, with a comment wherever nothing was told for `still`.
fn events(told: impl Stream<Item = Told> + Send, still: Duration) -> impl Stream<Item = Bytes> + Send {
    let quiet = Box::pin(sleep(still));
    stream::unfold((Box::pin(told), quiet), move |(mut told, mut quiet)| async move {
        // Cancel-safe: what is told is not taken unless it is returned.
        let event = tokio::select! {
            biased;
            next = told.next() => next?.event(),
            () = &mut quiet => Bytes::from_static(STILL_HERE),
        };
        quiet.as_mut().reset(Instant::now() + still);
        Some((event, (told, quiet)))
    })
}
