//! The task that commits: one transaction for all that waits, at most every `commit`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::Shared;
use super::run::{RunShared, Waiting};
use crate::domain::ids::RunId;
use crate::domain::output::{EventKind, Notice};
use crate::store::journal::NewRow;
use crate::store::record::Record;
use crate::store::{StoreError, StoreOp, codec};

/// How long after a busy journal the same commit is tried again.
const BUSY_PAUSE: Duration = Duration::from_millis(20);
/// How often runs whose recording stopped are tried to be told so.
const STOPPED_PAUSE: Duration = Duration::from_secs(1);
/// Runs that are kept in mind to be told; more of them are only in the log.
const LOST_RUNS: usize = 10_000;
/// Commits of a busy journal that a stop tries before it gives up.
const LAST_TRIES: u32 = 2;

/// A run whose recording stopped and that could not be told so yet.
struct Lost {
    run: Arc<RunShared>,
    /// Its beginning, if that was lost too; the event; its end, once it came.
    records: Vec<Record>,
}

/// Runs until it is stopped; then commits what is left. Answers what could not be committed then.
pub(super) async fn run(shared: Arc<Shared>) -> Vec<StoreError> {
    let mut writer = Writer { shared, lost: HashMap::new(), errors: Vec::new() };
    let mut next_commit = Instant::now();
    let mut next_telling = Instant::now();
    loop {
        let stop = writer.shared.stop_writing.clone();
        if !stop.is_cancelled() {
            // Cancel-safe: a notification is kept until someone waits for it, sleeping has no state.
            tokio::select! {
                () = stop.cancelled() => {}
                () = writer.shared.wake.notified() => {}
                () = sleep_until(next_telling), if !writer.lost.is_empty() => {}
            }
            // What comes until then rides in the same commit.
            tokio::select! {
                () = stop.cancelled() => {}
                () = sleep_until(next_commit) => {}
            }
        }
        let is_last = stop.is_cancelled();
        next_commit = Instant::now() + writer.shared.config.commit;
        writer.commit().await;
        if !writer.lost.is_empty() && (is_last || Instant::now() >= next_telling) {
            writer.tell_stopped(is_last).await;
            next_telling = Instant::now() + STOPPED_PAUSE;
        }
        if is_last && writer.shared.dirty.lock().is_empty() {
            return writer.errors;
        }
    }
}

struct Writer {
    shared: Arc<Shared>,
    /// At most `LOST_RUNS`.
    lost: HashMap<RunId, Lost>,
    errors: Vec<StoreError>,
}

impl Writer {
    /// Commits what waits now. A busy journal is tried again, while the queue fills up; one that fails stops the
    /// recording of every run in this commit.
    async fn commit(&mut self) {
        let dirty = std::mem::take(&mut *self.shared.dirty.lock());
        let mut taken: Vec<(Arc<RunShared>, Waiting)> = Vec::with_capacity(dirty.len());
        for run in dirty {
            let waiting = run.take();
            match self.lost.get_mut(&run.run) {
                // Only its end can come; it waits with the rest.
                Some(lost) => lost.records.extend(waiting.records),
                None => taken.push((run, waiting)),
            }
        }
        taken.retain(|(_, waiting)| !waiting.records.is_empty());
        if taken.is_empty() {
            return;
        }
        let committed_ns = (self.shared.now_ns)();
        let rows: Vec<NewRow> =
            taken.iter().map(|(run, waiting)| new_row(run, &waiting.records, committed_ns)).collect();
        let mut tries = 0;
        let result = loop {
            tries += 1;
            let append = self.shared.store.journal().append(&rows);
            match self.shared.store.timed(StoreOp::Append, append).await {
                Err(error) if error.is_passing() && !(self.is_stopping() && tries >= LAST_TRIES) => {
                    tracing::warn!(%error, tries, "the journal is busy; its queue waits");
                    sleep(BUSY_PAUSE).await;
                }
                result => break result,
            }
        };
        match result {
            Ok(()) => {
                for ((run, waiting), row) in taken.iter().zip(&rows) {
                    run.written.lock().next_at += codec::places(&waiting.records);
                    run.committed(waiting);
                    self.move_later(row, &waiting.records);
                }
                *self.shared.fault.lock() = None;
                self.shared.store.metrics().journal_bytes(self.shared.store.journal().bytes());
            }
            Err(error) => {
                tracing::error!(%error, runs = taken.len(), "the journal cannot be written; recording stops");
                *self.shared.fault.lock() = Some(error.to_string());
                self.shared.store.metrics().recording_stopped(taken.len() as u64);
                for (run, waiting) in taken {
                    self.stop(run, waiting, &error, committed_ns);
                }
                if self.is_stopping() {
                    self.errors.push(error);
                }
            }
        }
    }

    /// Whether the server waits for the end of this task: then a busy journal is not tried for ever.
    fn is_stopping(&self) -> bool {
        self.shared.stop_writing.is_cancelled()
    }

    fn move_later(&self, row: &NewRow, records: &[Record]) {
        let is_urgent = records
            .iter()
            .any(|record| matches!(record, Record::Head(_) | Record::Close(_) | Record::Stopped));
        self.shared.moves.add(row.run, row.records.len(), is_urgent);
    }

    /// Gives up what a failed commit held of a run, but not its beginning, its end and the word that it was lost.
    fn stop(&mut self, run: Arc<RunShared>, waiting: Waiting, error: &StoreError, t_ns: i64) {
        run.stop();
        let (mut from_bin, mut count) = (None::<u64>, 0);
        let mut records = Vec::new();
        let mut close = None;
        for record in waiting.records {
            match record {
                Record::Head(_) => records.push(record),
                Record::Close(_) => close = Some(record),
                Record::Bins { first_bin, n, .. } => {
                    from_bin = from_bin.into_iter().chain([first_bin]).min();
                    count += u64::from(n);
                }
                _ => {}
            }
        }
        records.push(Record::Event(Notice {
            kind: EventKind::RecordingStopped,
            signal: None,
            from_bin: Some(from_bin.unwrap_or(run.written.lock().until_bin)),
            to_bin: None,
            count,
            detail: format!("the journal could not be written: {error}; nothing is recorded from here on"),
            t_ns,
        }));
        records.push(Record::Stopped);
        records.extend(close);
        if self.lost.len() >= LOST_RUNS {
            tracing::error!(run.id = %run.run, "recording of this run stopped, and the run will not say so");
            return;
        }
        self.lost.insert(run.run, Lost { run, records });
    }

    /// Tries to tell the runs that their recording stopped. Until it succeeds they are kept in mind.
    async fn tell_stopped(&mut self, is_last: bool) {
        let committed_ns = (self.shared.now_ns)();
        let rows: Vec<NewRow> =
            self.lost.values().map(|lost| new_row(&lost.run, &lost.records, committed_ns)).collect();
        let append = self.shared.store.journal().append(&rows);
        match self.shared.store.timed(StoreOp::Append, append).await {
            Ok(()) => {
                *self.shared.fault.lock() = None;
                tracing::warn!(runs = rows.len(), "the journal can be written again");
                for row in &rows {
                    if let Some(lost) = self.lost.remove(&row.run) {
                        self.move_later(row, &lost.records);
                    }
                }
            }
            Err(error) if is_last => self.errors.push(error),
            Err(error) => tracing::debug!(%error, "the journal still cannot be written"),
        }
    }
}

fn new_row(run: &RunShared, records: &[Record], committed_ns: i64) -> NewRow {
    let first_at = run.written.lock().next_at;
    NewRow { run: run.run, committed_ns, records: codec::encode(first_at, records) }
}
