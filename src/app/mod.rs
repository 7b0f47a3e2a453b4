//! The use cases, free of transport: what a rig, a scientist and an operator may ask.
//! Enters: a `Caller` and a message of the schema. Leaves: a message, or a `Fault`.
//! Owns: the server's parts, each by the family that needs it. Must hold: `http` and `grpc` differ in types alone.
//! Must not know: axum, tonic's services, SQL, ONNX Runtime.

pub mod infer; // rows without a session
pub mod library; // runs and their results
pub mod live; // sessions and frames
pub mod talk; // a rig's stream
pub mod way_in; // what was asked for, and its signals' way into bins
mod thresholds; // of crossings, given at open
mod columns; // frames whose rows came as columns
pub mod models; // the registry and pipelines

use std::sync::Arc;

use parking_lot::Mutex;

use crate::access::Keys;
use crate::domain::caller::{Caller, Need};
use crate::error::Fault;
use crate::metrics::Metrics;
use crate::trace::Tracer;
use crate::wire::v1;

/// All use cases. Cheap to clone.
#[derive(Clone)]
pub struct App {
    /// Who may come in.
    pub access: Arc<Keys>,
    /// Sessions and frames.
    pub live: Arc<live::Live>,
    /// The registry and pipelines.
    pub models: Arc<models::Models>,
    /// Rows without a session.
    pub infer: Arc<infer::Infer>,
    /// Runs and their results.
    pub library: Arc<library::Library>,
    /// What is measured.
    pub metrics: Arc<Metrics>,
    /// Takes what is traced.
    pub tracer: Tracer,
    /// Largest HTTP body (bytes).
    pub body_limit: usize,
    /// Whether requests should be sent here.
    pub readiness: Arc<Readiness>,
}

impl App {
    /// Who makes a call at a door that asks for keys. `shown`: the values of its `authorization`.
    /// Errors: `unauthenticated`, `forbidden`.
    pub fn admit<'a>(
        &self,
        shown: impl Iterator<Item = &'a [u8]>,
        need: Need,
        request_id: &str,
    ) -> Result<Caller, Fault> {
        match need {
            Need::Nothing => Ok(Caller::local(request_id)),
            Need::Key | Need::Scope(_) => self.access.admit(shown, need, request_id),
        }
    }

    /// Ends when the caller's key is revoked, with what is then told; what a call has open ends by it.
    pub fn revoked(&self, who: &Caller) -> impl Future<Output = Fault> + Send + use<> {
        self.access.revoked(who)
    }

    /// Whether requests should be sent here, and what is amiss.
    pub fn readiness(&self) -> v1::ReadyReply {
        let mut reasons = self.readiness.reasons();
        reasons.extend(self.live.writing_fault().map(|why| format!("the journal cannot be written: {why}")));
        let mut degraded = self.models.degraded();
        degraded
            .extend(self.live.moving_fault().map(|why| format!("recorded runs wait in the journal: {why}")));
        v1::ReadyReply { ready: reasons.is_empty(), reasons, degraded }
    }
}

/// More bytes than this are read, copied and written beside the runtime's threads: frames are stepped on those.
const LARGE_BYTES: usize = 64 << 10;

/// Whether work on so many bytes takes long.
pub fn is_large(bytes: usize) -> bool {
    bytes > LARGE_BYTES
}

/// Does work: here, or beside the runtime's threads where it takes long.
/// Errors: the work's own; `internal` if it panics there.
pub async fn beside<T: Send + 'static>(
    is_long: bool,
    work: impl FnOnce() -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    if !is_long {
        return work();
    }
    tokio::task::spawn_blocking(work).await.map_err(|_| Fault::panicked())?
}

/// Why the server is not ready; nothing: it is.
#[derive(Debug, Default)]
pub struct Readiness(Mutex<Vec<&'static str>>);

impl Readiness {
    /// Not ready until `reason` is cleared.
    pub fn because(reason: &'static str) -> Self {
        Self(Mutex::new(vec![reason]))
    }

    /// Adds a reason.
    pub fn add(&self, reason: &'static str) {
        let mut reasons = self.0.lock();
        if !reasons.contains(&reason) {
            reasons.push(reason);
        }
    }

    /// Takes a reason back.
    pub fn clear(&self, reason: &'static str) {
        self.0.lock().retain(|known| *known != reason);
    }

    fn reasons(&self) -> Vec<String> {
        self.0.lock().iter().map(|reason| (*reason).to_owned()).collect()
    }
}
