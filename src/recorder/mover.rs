//! The task that moves: a run goes on to the library when about 64 KiB of it have gathered, when it begins or ends,
//! or after `chunk`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::Shared;
use crate::domain::ids::RunId;
use crate::store::StoreError;

/// What gathers before a run is moved.
const MOVE_BYTES: usize = 64 * 1024;
/// The pause after a move, so that many runs share one.
const PAUSE: Duration = Duration::from_millis(250);
/// The pause after a move that failed.
const FAULT_PAUSE: Duration = Duration::from_secs(1);
/// How often the journal's age is told while it holds something.
const TELL: Duration = Duration::from_secs(1);
/// How often a library that can be away is looked for while nothing is to be moved.
const LOOK: Duration = Duration::from_secs(2);

/// Runs that have rows in the journal.
pub(super) struct Moves {
    pending: Mutex<HashMap<RunId, Pending>>,
    wake: Notify,
    /// Why the last move, or the recovery, failed.
    fault: Mutex<Option<String>>,
}

#[derive(Clone, Copy)]
struct Pending {
    bytes: usize,
    since: Instant,
    is_urgent: bool,
}

impl Moves {
    /// `fault`: why what an earlier start left is not moved yet, if so.
    pub(super) fn new(fault: Option<String>) -> Self {
        Self { pending: Mutex::default(), wake: Notify::new(), fault: Mutex::new(fault) }
    }

    pub(super) fn fault(&self) -> Option<String> {
        self.fault.lock().clone()
    }

    /// The library did as it was asked.
    fn well(&self) {
        if self.fault.lock().take().is_some() {
            tracing::info!("the library takes what is in the journal again");
        }
    }

    /// The library did not do as it was asked. Told aloud when it begins, and when the reason changes.
    fn failed(&self, error: &StoreError, runs: usize) {
        let said = error.to_string();
        let mut fault = self.fault.lock();
        if fault.as_ref() == Some(&said) {
            tracing::debug!(%error, runs, "the library still does not take what is in the journal");
            return;
        }
        let error: &dyn std::error::Error = error;
        tracing::error!(error, runs, "the library does not take what is in the journal, which keeps it");
        *fault = Some(said);
    }

    /// So many bytes more of a run are in the journal.
    pub(super) fn add(&self, run: RunId, bytes: usize, is_urgent: bool) {
        let mut all = self.pending.lock();
        let is_first = all.is_empty();
        let pending = all.entry(run).or_insert(Pending { bytes: 0, since: Instant::now(), is_urgent: false });
        pending.bytes += bytes;
        pending.is_urgent |= is_urgent;
        if is_first || pending.is_urgent || pending.bytes >= MOVE_BYTES {
            self.wake.notify_one();
        }
    }

    /// The runs that are due, which leave the list; else when the next one will be.
    fn due(
        &self,
        now: Instant,
        chunk: Duration,
        all_of_them: bool,
    ) -> Result<Vec<(RunId, Pending)>, Option<Instant>> {
        let mut pending = self.pending.lock();
        let is_due = |one: &Pending| {
            all_of_them || one.is_urgent || one.bytes >= MOVE_BYTES || one.since + chunk <= now
        };
        let due: Vec<(RunId, Pending)> =
            pending.iter().filter(|(_, one)| is_due(one)).map(|(run, one)| (*run, *one)).collect();
        if due.is_empty() {
            return Err(pending.values().map(|one| one.since + chunk).min());
        }
        due.iter().for_each(|(run, _)| _ = pending.remove(run));
        Ok(due)
    }

    fn put_back(&self, due: Vec<(RunId, Pending)>) {
        let mut pending = self.pending.lock();
        for (run, before) in due {
            let now = pending.entry(run).or_insert(Pending { bytes: 0, ..before });
            now.bytes += before.bytes;
            now.is_urgent |= before.is_urgent;
            now.since = now.since.min(before.since);
        }
    }
}

/// Runs until it is stopped; then moves what is left. Answers what could not be moved then.
pub(super) async fn run(shared: Arc<Shared>) -> Vec<StoreError> {
    let mut must_recover = shared.moves.fault().is_some();
    let stop = &shared.stop_moving;
    let mut next_look = Instant::now() + LOOK;
    loop {
        let is_last = stop.is_cancelled();
        let now = Instant::now();
        let due = shared.moves.due(now, shared.config.chunk, is_last);
        let pause = match due {
            Err(_) if is_last && !must_recover => return Vec::new(),
            Err(next) if !must_recover => {
                let tell = (shared.store.journal().bytes() > 0).then(|| now + TELL);
                let look = shared.store.library().is_remote().then_some(next_look);
                let until = next.into_iter().chain(tell).chain(look).min();
                // Cancel-safe: a notification is kept until someone waits for it, sleeping has no state.
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = shared.moves.wake.notified() => {}
                    () = sleep_until(until.unwrap_or(now)), if until.is_some() => {}
                }
                observe(&shared).await;
                if look.is_some_and(|look| look <= Instant::now()) && !stop.is_cancelled() {
                    match shared.store.library().probe().await {
                        Ok(()) => shared.moves.well(),
                        Err(error) => shared.moves.failed(&error, 0),
                    }
                    next_look = Instant::now() + LOOK;
                }
                continue;
            }
            due => {
                let due = due.unwrap_or_default();
                let runs: Vec<RunId> = due.iter().map(|(run, _)| *run).collect();
                match move_on(&shared, &mut must_recover, &runs).await {
                    Ok(()) => {
                        shared.moves.well();
                        PAUSE
                    }
                    Err(error) => {
                        shared.moves.failed(&error, runs.len());
                        if is_last {
                            return vec![error];
                        }
                        shared.moves.put_back(due);
                        FAULT_PAUSE
                    }
                }
            }
        };
        observe(&shared).await;
        tokio::select! {
            () = stop.cancelled() => {}
            () = sleep_until(now + pause) => {}
        }
    }
}

async fn move_on(shared: &Shared, must_recover: &mut bool, runs: &[RunId]) -> Result<(), StoreError> {
    if *must_recover {
        shared.store.recover().await?;
        *must_recover = false;
    }
    shared.store.move_runs(runs).await
}

async fn observe(shared: &Shared) {
    if let Err(error) = shared.store.observe((shared.now_ns)()).await {
        tracing::debug!(%error, "the journal's age is not known just now");
    }
}
