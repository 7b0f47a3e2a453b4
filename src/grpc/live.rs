//! `latentd.v1.Live` over gRPC.

use std::pin::Pin;
use std::time::Duration;

use futures::{Stream, StreamExt as _, stream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::app::App;
use crate::app::talk::Heard;
use crate::domain::caller::Caller;
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

    fn later(&self, who: &Caller, call: &str) -> Status {
        let refused = Fault::new(Kind::Unsupported, format!("{call}: not served by this version"));
        self.refuse(who)(refused)
    }
}

/// Who asks, as the gate found out. Errors: `internal`, for a call that did not pass it.
fn caller<T>(request: &Request<T>) -> Result<Caller, Status> {
    let unknown = || fault::status(&Fault::new(Kind::Internal, "the call has no caller"), "");
    request.extensions().get().cloned().ok_or_else(unknown)
}

#[tonic::async_trait]
impl Live for LiveService {
    type StreamStream = Downs;
    type SubscribeStream = Downs;

    async fn open(&self, request: Request<v1::OpenRequest>) -> Result<Response<v1::OpenReply>, Status> {
        let who = caller(&request)?;
        self.app.live.open(&who, request.into_inner()).await.map(Response::new).map_err(self.refuse(&who))
    }

    async fn close(&self, request: Request<v1::CloseRequest>) -> Result<Response<v1::CloseReply>, Status> {
        let who = caller(&request)?;
        let session = request.into_inner().session;
        self.app.live.close(&who, &session).await.map(Response::new).map_err(self.refuse(&who))
    }

    async fn reset(&self, request: Request<v1::ResetRequest>) -> Result<Response<v1::ResetReply>, Status> {
        let who = caller(&request)?;
        let ask = request.into_inner();
        self.app.live.reset(&who, &ask.session, &ask).map(Response::new).map_err(self.refuse(&who))
    }

    async fn stream(&self, request: Request<Streaming<v1::Up>>) -> Result<Response<Downs>, Status> {
        let who = caller(&request)?;
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
        let talk = self.app.attach(&who, &attach).map_err(&refuse)?.talk(ups.map(heard));
        // Polled by the connection: what comes is stepped there.
        let downs = stream::unfold((talk, who), |(mut talk, who)| async move {
            let next = talk.next().await?;
            Some((next.map(down).map_err(|refused| fault::status(&refused, &who.request_id)), (talk, who)))
        });
        Ok(Response::new(Box::pin(downs)))
    }

    async fn subscribe(&self, request: Request<v1::SubscribeRequest>) -> Result<Response<Downs>, Status> {
        let who = caller(&request)?;
        let refuse = self.refuse(&who);
        let told = self.app.live.subscribe(&who, &request.into_inner()).map_err(&refuse)?;
        let downs = told.filter_map(move |told| {
            let told = told.down().map_err(&refuse).transpose();
            std::future::ready(told.map(|told| told.map(down)))
        });
        Ok(Response::new(Box::pin(downs)))
    }

    async fn snapshot(
        &self,
        request: Request<v1::SnapshotRequest>,
    ) -> Result<Response<v1::SnapshotReply>, Status> {
        Err(self.later(&caller(&request)?, "Snapshot"))
    }

    async fn fork(&self, request: Request<v1::ForkRequest>) -> Result<Response<v1::OpenReply>, Status> {
        Err(self.later(&caller(&request)?, "Fork"))
    }
}

/// What came up, in the words of `app`.
fn heard(up: Result<v1::Up, Status>) -> Heard {
    match up {
        Ok(up) => Heard::of(up),
        Err(status) => Heard::BrokeOff(transport_fault(&status)),
    }
}

fn down(message: v1::down::Message) -> v1::Down {
    v1::Down { message: Some(message) }
}

/// What broke a stream, in our words.
fn transport_fault(status: &Status) -> Fault {
    fault::from_transport(status).unwrap_or_else(|| Fault::new(Kind::Unavailable, "the stream broke off"))
}
