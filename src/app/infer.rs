//! Inference without a session: a bounded number of rows beside those of sessions.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::models::Models;
use super::{beside, is_large};
use crate::batch::{Full, Guests};
use crate::domain::caller::Caller;
use crate::error::{Fault, Kind};
use crate::pipeline::oneshot::{Limits, OneShot};
use crate::wire::{tensor, v1};

/// When whoever found no place may try again (ms): a place is held for about as long as a run.
const RETRY_MS: f64 = 100.0;

/// Rows without a session.
pub struct Infer {
    models: Arc<Models>,
    guests: Arc<Guests>,
    /// What tensors without a batch axis may take once each row of a request holds them.
    shared_bytes: usize,
}

impl Infer {
    /// So many rows at a time (`queue`).
    pub fn new(models: Arc<Models>, queue: usize, shared_bytes: usize) -> Self {
        Self { models, guests: Arc::new(Guests::new(queue)), shared_bytes }
    }

    /// One request on named tensors.
    /// Errors: `not_found` (model, version, output), `invalid` (names, dtypes, shapes), `overloaded`, `deadline`,
    /// `unavailable`.
    pub async fn infer(
        &self,
        _: &Caller,
        model: &str,
        ask: v1::InferRequest,
    ) -> Result<v1::InferReply, Fault> {
        let version = self.models.ready(model, ask.version)?;
        let guests = Arc::clone(&self.guests);
        let limits = Limits { rows: guests.limit(), shared_bytes: self.shared_bytes };
        let bytes = ask.inputs.values().map(bytes).sum();
        let placed = beside(is_large(bytes), move || {
            let named = ask.inputs.iter().map(|(name, sent)| Ok((name.clone(), tensor::host(name, sent)?)));
            let given: BTreeMap<_, _> = named.collect::<Result<_, Fault>>()?;
            let bound = OneShot::bind(version, given, &ask.outputs, limits)?;
            let places = guests.enter(bound.n()).map_err(overloaded)?;
            bound.placed(places)
        })
        .await?;
        let answered = placed.run().await?;
        let version = answered.version();
        beside(is_large(bytes), move || {
            let outputs = answered.outputs().into_iter();
            let outputs = outputs.map(|(name, host)| (name, tensor::message(&host))).collect();
            Ok(v1::InferReply { outputs, version })
        })
        .await
    }
}

fn bytes(sent: &v1::Tensor) -> usize {
    sent.raw.len() + size_of_val(&sent.values[..])
}

fn overloaded(full: Full) -> Fault {
    Fault::new(Kind::Overloaded, format!("{full} (queue); try again")).retry_after(RETRY_MS)
}
