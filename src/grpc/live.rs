//! `latentd.v1.Live` over gRPC.

use std::pin::Pin;
use std::time::Duration;

use futures::{FutureExt, Stream, stream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::app::App;
use crate::app::live::{Attachment, Outgoing};
use crate::domain::caller::Caller;
use crate::domain::request::RequestId;
use crate::domain::time::Stamp;
use crate::error::{Fault, Kind};
use crate::wire::v1::live_server::Live;
use crate::wire::{fault, v1};

type Downs = Pin<Box<dyn Stream<Item = Result<v1::Down, Status>> + Send>>;

/// The live service.
pub struct LiveService {
    app: App,
    soft: CancellationToken,
    /// Time to a stream's `attach`.
    attach_within: Duration,
}

impl LiveService {
    /// A service on the use cases; its streams end when `soft` is cancelled.
    pub fn new(app: App, soft: CancellationToken, attach_within: Duration) -> Self {
        Self { app, soft, attach_within }
    }

    /// A fault as a status, counted.
    fn refuse(&self, who: &Caller) -> impl Fn(Fault) -> Status + use<> {
        let (metrics, id) = (self.app.metrics.clone(), who.request_id.clone());
        move |refused| {
            metrics.rejected(refused.kind);
            fault::status(&refused, &id)
        }
    }

    fn later(&self, call: &str) -> Status {
        let refused = Fault::new(Kind::Unsupported, format!("{call}: not served by this version"));
        self.refuse(&Caller::local(""))(refused)
    }
}

fn caller<T>(request: &Request<T>) -> Caller {
    let given = request.metadata().get("x-request-id").and_then(|value| value.to_str().ok());
    Caller::local(RequestId::take(given).as_str())
}

#[tonic::async_trait]
impl Live for LiveService {
    type StreamStream = Downs;
    type SubscribeStream = Downs;

    async fn open(&self, request: Request<v1::OpenRequest>) -> Result<Response<v1::OpenReply>, Status> {
        let who = caller(&request);
        self.app.live.open(&who, request.into_inner()).await.map(Response::new).map_err(self.refuse(&who))
    }

    async fn close(&self, request: Request<v1::CloseRequest>) -> Result<Response<v1::CloseReply>, Status> {
        let who = caller(&request);
        let session = request.into_inner().session;
        self.app.live.close(&who, &session).await.map(Response::new).map_err(self.refuse(&who))
    }

    async fn reset(&self, request: Request<v1::ResetRequest>) -> Result<Response<v1::ResetReply>, Status> {
        let who = caller(&request);
        let ask = request.into_inner();
        self.app.live.reset(&who, &ask.session, &ask).map(Response::new).map_err(self.refuse(&who))
    }

    async fn stream(&self, request: Request<Streaming<v1::Up>>) -> Result<Response<Downs>, Status> {
        let who = caller(&request);
        let refuse = self.refuse(&who);
        let mut ups = request.into_inner();
        let first = tokio::select! {
            biased;
            () = self.soft.cancelled() => {
                return Err(refuse(Fault::new(Kind::Unavailable, "the server is draining")));
            }
            first = tokio::time::timeout(self.attach_within, ups.message()) => first,
        };
        let late = |_| {
            refuse(Fault::new(Kind::Malformed, "no `attach` came in time: it is a stream's first message"))
        };
        let first = first.map_err(late)?.map_err(|status| refuse(transport_fault(&status)))?;
        let Some(v1::Up { message: Some(v1::up::Message::Attach(attach)) }) = first else {
            return Err(refuse(Fault::new(Kind::Malformed, "the first message of a stream is `attach`")));
        };
        let attachment = self.app.live.attach(&who, &attach).map_err(&refuse)?;
        let hello = down(v1::down::Message::Attached(attachment.attached()));
        let talk =
            Talk { app: self.app.clone(), who, ups, attachment, reading: true, soft: self.soft.clone() };
        let rest = stream::unfold(Some(talk), Talk::next);
        Ok(Response::new(Box::pin(stream::StreamExt::chain(stream::once(async { Ok(hello) }), rest))))
    }

    async fn subscribe(&self, _: Request<v1::SubscribeRequest>) -> Result<Response<Downs>, Status> {
        Err(self.later("Subscribe"))
    }

    async fn snapshot(&self, _: Request<v1::SnapshotRequest>) -> Result<Response<v1::SnapshotReply>, Status> {
        Err(self.later("Snapshot"))
    }

    async fn fork(&self, _: Request<v1::ForkRequest>) -> Result<Response<v1::OpenReply>, Status> {
        Err(self.later("Fork"))
    }
}

/// One attached stream. What comes up is fed where the stream is polled, so that a lone row runs and is answered
/// without a hop between threads.
struct Talk {
    app: App,
    who: Caller,
    ups: Streaming<v1::Up>,
    attachment: Attachment,
    /// False once the rig has ended its side: what is unanswered is still answered.
    reading: bool,
    soft: CancellationToken,
}

impl Talk {
    /// The next message down; `None` ends the stream well.
    async fn next(talk: Option<Self>) -> Option<(Result<v1::Down, Status>, Option<Self>)> {
        let mut talk = talk?;
        loop {
            // Why read here and not in the `select!`: the guard of a branch is fixed when it begins.
            let may_read = talk.reading && talk.attachment.may_read();
            if !talk.reading && talk.attachment.is_answered() {
                return None;
            }
            // Cancel-safe: both `next` and `message` take nothing unless they return it.
            tokio::select! {
                biased;
                outgoing = talk.attachment.next() => match outgoing {
                    Outgoing::Message(message) => {
                        if let v1::down::Message::Fault(refused) = &message
                            && let Some(kind) = Kind::parse(&refused.kind)
                        {
                            talk.app.metrics.rejected(kind);
                        }
                        return Some((Ok(down(message)), Some(talk)));
                    }
                    Outgoing::Room => {}
                    Outgoing::Finished => return None,
                    Outgoing::End(refused) => {
                        talk.app.metrics.rejected(refused.kind);
                        return Some((Err(fault::status(&refused, &talk.who.request_id)), None));
                    }
                },
                up = talk.ups.message(), if may_read => {
                    let received = Stamp::now();
                    match talk.take(up, received) {
                        Ok(()) => {}
                        Err(refused) => {
                            talk.app.metrics.rejected(refused.kind);
                            return Some((Err(fault::status(&refused, &talk.who.request_id)), None));
                        }
                    }
                }
            }
        }
    }

    /// Takes a message, and whatever lies ready behind it, so that a backlog is stepped as one chunk.
    fn take(&mut self, first: Result<Option<v1::Up>, Status>, received: Stamp) -> Result<(), Fault> {
        let mut frames = Vec::new();
        let mut messages = 0;
        let mut up = first;
        let room = self.attachment.room();
        loop {
            match up {
                Ok(None) => {
                    self.reading = false;
                    break;
                }
                Ok(Some(v1::Up { message })) => match message {
                    Some(v1::up::Message::Frame(frame)) => frames.push(frame),
                    Some(v1::up::Message::Attach(_)) => {
                        self.attachment.refuse(Fault::new(Kind::Invalid, "this stream is attached already"));
                    }
                    Some(v1::up::Message::Probe(ask)) => {
                        self.attachment.probe(&ask, Stamp::now());
                    }
                    None => {
                        self.attachment.refuse(Fault::new(
                            Kind::Malformed,
                            "the message is no Up with attach, frame or probe",
                        ));
                    }
                },
                Err(status) => {
                    self.attachment.feed(std::mem::take(&mut frames), received);
                    return Err(transport_fault(&status));
                }
            }
            // Refused messages count, too: each leaves a fault in the outbox.
            messages += 1;
            if messages >= room {
                break;
            }
            match self.ups.message().now_or_never() {
                Some(ready) => up = ready,
                None => break,
            }
        }
        self.attachment.feed(frames, received);
        Ok(())
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        tracing::debug!(request.id = %self.who.request_id, draining = self.soft.is_cancelled(), "stream ended");
    }
}

fn down(message: v1::down::Message) -> v1::Down {
    v1::Down { message: Some(message) }
}

/// What broke a stream, in our words.
fn transport_fault(status: &Status) -> Fault {
    fault::from_transport(status).unwrap_or_else(|| {
        Fault::new(Kind::Unavailable, format!("the stream broke off: {}", status.message()))
    })
}
