//! What every test stands on: the real binary, models with known numbers, rigs over HTTP and gRPC.
//!
//! ```ignore
//! let server = Latentd::start().await;                     // the models of `models::all()`, port 0, temp folders
//! let mut rig = server.open(linear::open()).await;         // a session; frames by HTTP JSON
//! let output = rig.send(binned("spikes", 0, 0, &[[1.0, 2.0]])).await;
//! assert_eq!(block(&output, 0), Linear::default().step([1.0, 2.0]));
//! rig.close().await;
//! server.stop().await;                                     // SIGTERM; asserts exit code 0
//! ```
//! Nothing sleeps: what takes time is waited for by `until`, under a limit.

pub mod arrow; // frames in columns
pub mod collector; // a collector of traces
pub mod cluster; // a PostgreSQL, and a database of a test's own
pub mod frames; // frames and opens, and reading of outputs
pub mod http; // a rig and bare calls over HTTP
pub mod models; // small models whose every output a test can compute
pub mod proxy; // a road to a server that can be closed
pub mod replay; // what a run took in, done again
pub mod raw; // bytes over gRPC that no client of the schema would send
pub mod scrape; // what is measured, read as Prometheus reads it
pub mod server; // the process
pub mod stream; // a rig over gRPC
pub mod events; // one who listens
pub mod websocket; // a rig over WebSocket

pub use cluster::{Cluster, Database};
pub use collector::Collector;
pub use frames::{
    binned, bins, block, blocks, counts, flag_names, linear, markers, pipeline, recorded, signal, spikes,
};
pub use http::{Answer, Rig, says};
pub use models::Linear;
pub use proxy::Proxy;
pub use replay::replayed;
pub use scrape::Scrape;
pub use server::{Latentd, Setup};
pub use stream::{Line, carried};

use std::time::{Duration, Instant};

/// How long anything may take on a busy machine before a test gives up.
pub const LIMIT: Duration = Duration::from_secs(30);

/// Polls until `look` gives something; fails with `what` after `limit`. `look` may await calls.
pub async fn until<T, F>(limit: Duration, what: &str, mut look: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let begun = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(begun.elapsed() < limit, "{what}: not within {limit:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What `future` gives within `LIMIT`.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(LIMIT, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: not within {LIMIT:?}"),
    }
}
