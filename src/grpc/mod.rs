//! gRPC: `latentd.v1.Live`, health and reflection.
//! Enters: calls and streams. Leaves: messages; statuses that carry their `Fault` whole. Owns: the services.
//! Must hold: a fault about one frame ends no stream; no status leaves with a code of the library's own;
//! every call passes the gate.
//! Must not know: sessions' insides, models, the store (only `app`).

mod accept; // connections and their limits
mod live; // the live service
mod gate; // who may make which call

pub use live::LiveService;

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt as _;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tower::layer::layer_fn;
use tower::util::{MapFutureLayer, MapResponseLayer};

use crate::app::App;
use crate::error::Fault;
use crate::wire::v1::live_server::LiveServer;
use crate::wire::{self, DESCRIPTOR_SET};
use gate::Gate;

/// Limits of the gRPC door.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Largest message (bytes).
    pub message_bytes: usize,
    /// Time to a connection's first byte, and to a stream's `attach`.
    pub first_byte: Duration,
    /// Interval of HTTP/2 pings.
    pub ping: Duration,
    /// A connection without a sign of life for so long is dead.
    pub dead_after: Duration,
    /// Keys are asked for at this door.
    pub asks_for_keys: bool,
}

/// Serves until `closing` is cancelled and the connections have ended; health says so from `draining` on.
pub async fn serve(
    app: App,
    listener: TcpListener,
    limits: Limits,
    draining: CancellationToken,
    closing: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let live = LiveServer::new(LiveService::new(app.clone(), draining.clone(), limits.first_byte))
        .max_decoding_message_size(limits.message_bytes)
        .max_encoding_message_size(usize::MAX);
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_serving::<LiveServer<LiveService>>().await;
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let v1 = reflection().build_v1().expect("the descriptor set is of this build");
    let v1alpha = reflection().build_v1alpha().expect("the descriptor set is of this build");
    let incoming = accept::connections(listener, limits.first_byte, closing.clone());
    let end = async move {
        draining.cancelled().await;
        reporter.set_not_serving::<LiveServer<LiveService>>().await;
        closing.cancelled().await;
    };
    Server::builder()
        .http2_keepalive_interval(Some(limits.ping))
        .http2_keepalive_timeout(Some(limits.dead_after.saturating_sub(limits.ping)))
        .layer(MapResponseLayer::new(in_our_words))
        .layer(MapFutureLayer::new(told))
        .layer(layer_fn(move |inner| Gate::new(inner, app.clone(), limits.asks_for_keys)))
        .add_service(live)
        .add_service(health)
        .add_service(v1)
        .add_service(v1alpha)
        .serve_with_incoming_shutdown(incoming, end)
        .await
}

/// A status that tonic made before any of our code ran, with the wire's code and a fault.
fn in_our_words<B: Default>(response: http::Response<B>) -> http::Response<B> {
    let Some(status) = tonic::Status::from_header_map(response.headers()) else { return response };
    let Some(fault) = wire::fault::from_transport(&status) else { return response };
    answered(&fault, "")
}

/// A call that panics is answered `internal`: a fault that is told, not a stream that breaks off.
async fn told<B: Default, E>(
    call: impl Future<Output = Result<http::Response<B>, E>>,
) -> Result<http::Response<B>, E> {
    match AssertUnwindSafe(call).catch_unwind().await {
        Ok(ended) => ended,
        Err(_) => Ok(answered(&Fault::panicked(), "")),
    }
}

/// A response that is this fault alone.
fn answered<B: Default>(fault: &Fault, request_id: &str) -> http::Response<B> {
    let mut response = http::Response::new(B::default());
    response.headers_mut().insert(http::header::CONTENT_TYPE, tonic::metadata::GRPC_CONTENT_TYPE);
    // Why ignored: it fails only for metadata that is no header, and ours is.
    let _ = wire::fault::status(fault, request_id).add_header(response.headers_mut());
    response
}
