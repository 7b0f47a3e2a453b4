//! gRPC: `latentd.v1.Live`, health and reflection.
//! Enters: calls and streams. Leaves: messages; statuses that carry their `Fault` whole. Owns: the services.
//! Must hold: a fault about one frame ends no stream; no status leaves with a code of the library's own;
//! every call passes the gate.
//! Must not know: sessions' insides, models, the store (only `app`).

mod accept; // connections and their limits
mod live; // the live service
mod gate; // what stands before every method

pub use live::LiveService;

use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tower::layer::layer_fn;

use crate::app::App;
use crate::wire::DESCRIPTOR_SET;
use crate::wire::v1::live_server::LiveServer;
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
        .layer(layer_fn(move |inner| Gate::new(inner, app.clone(), limits.asks_for_keys)))
        .add_service(live)
        .add_service(health)
        .add_service(v1)
        .add_service(v1alpha)
        .serve_with_incoming_shutdown(incoming, end)
        .await
}
