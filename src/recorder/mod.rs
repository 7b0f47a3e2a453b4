//! What must not be lost, in order, to the journal.
//! Enters: the records of a session's answers, each with the room it was promised. Leaves: group commits to the
//! journal, and the wish that the library take what has gathered.
//! Owns: the queue (bounded in bytes), the task that commits and the task that moves. Must hold: `put` never waits;
//! a `seq` is called durable only when its frame and the bins it closed are on the disk; what is not recorded is
//! named in the run.
//! Must not know: sessions, the wire, HTTP, SQL.

mod room; // room in the queue, taken before an answer leaves
mod run; // one recorded session
mod writer; // the task that commits
mod mover; // the task that moves

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::mover::Moves;
use self::room::Budget;
pub use self::room::Room;
use self::run::RunShared;
pub use self::run::{NotDurable, RunRecorder, Ticket};
pub use crate::store::record::{Annotation, OutputColumn, Record, Since};
pub use crate::store::run::{Close, Pinned, Recording, RunHead};
use crate::store::{Store, StoreError};

/// Bounds and paces of the recorder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecorderConfig {
    /// At most so often the journal is committed (`commit_ms`).
    pub commit: Duration,
    /// So long at most a run's records stay in the journal alone (`chunk_s`).
    pub chunk: Duration,
    /// What all sessions together may have waiting for the disk. Full: `RunRecorder::reserve` says no.
    pub queue_bytes: usize,
}

impl Default for RecorderConfig {
    fn default() -> Self {
        Self {
            commit: Duration::from_millis(20),
            chunk: Duration::from_secs(10),
            queue_bytes: 64 * 1024 * 1024,
        }
    }
}

/// The server's clock (Unix ns).
pub type UnixClock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// The recorder. Cheap to clone; its tasks live until `stop`.
#[derive(Clone)]
pub struct Recorder {
    shared: Arc<Shared>,
    tasks: Arc<Mutex<Option<Tasks>>>,
}

struct Tasks {
    writer: JoinHandle<Vec<StoreError>>,
    mover: JoinHandle<Vec<StoreError>>,
}

struct Shared {
    store: Store,
    config: RecorderConfig,
    now_ns: UnixClock,
    budget: Arc<Budget>,
    /// Runs that have something to commit; each stands in it at most once.
    dirty: Mutex<Vec<Arc<RunShared>>>,
    /// Wakes the writer.
    wake: Notify,
    moves: Moves,
    /// Why the journal cannot be written, if so.
    fault: Mutex<Option<String>>,
    /// Ends the writer once everything is committed.
    stop_writing: CancellationToken,
    /// Ends the mover once everything is moved.
    stop_moving: CancellationToken,
}

impl Recorder {
    /// Moves what an earlier start left in the journal, calls its open runs interrupted, and starts. If the library is
    /// away the recorder starts all the same and tries again until it is there.
    pub async fn start(store: Store, config: RecorderConfig, now_ns: UnixClock) -> Self {
        let recovered = store.recover().await;
        match &recovered {
            Ok(found) => tracing::info!(
                runs = found.runs,
                journal.bytes = found.bytes,
                interrupted = found.interrupted,
                "the journal's tail is in the library"
            ),
            Err(error) => {
                let error: &dyn std::error::Error = error;
                tracing::error!(error, "the journal's tail could not be moved; trying again");
            }
        }
        let shared = Arc::new(Shared {
            store,
            config,
            now_ns,
            budget: Arc::new(Budget::new(config.queue_bytes)),
            dirty: Mutex::new(Vec::new()),
            wake: Notify::new(),
            moves: Moves::new(recovered.err().map(|error| error.to_string())),
            fault: Mutex::new(None),
            stop_writing: CancellationToken::new(),
            stop_moving: CancellationToken::new(),
        });
        let tasks = Tasks {
            writer: tokio::spawn(writer::run(shared.clone())),
            mover: tokio::spawn(mover::run(shared.clone())),
        };
        Self { shared, tasks: Arc::new(Mutex::new(Some(tasks))) }
    }

    /// Begins to record a session. Never waits; the run can be queried from `RunRecorder::begun` on.
    pub fn open(&self, head: RunHead) -> RunRecorder {
        let head = RunHead { owner: self.shared.store.journal().owner().clone(), ..head };
        RunRecorder::new(self.shared.clone(), head)
    }

    /// Why the journal cannot be written just now, if so: nothing new should be recorded, and `/readyz` says no.
    pub fn writing_fault(&self) -> Option<String> {
        self.shared.fault.lock().clone()
    }

    /// Why nothing goes from the journal to the library just now, if so; the journal keeps everything meanwhile.
    pub fn moving_fault(&self) -> Option<String> {
        self.shared.moves.fault()
    }

    /// The store it writes to.
    pub fn store(&self) -> &Store {
        &self.shared.store
    }

    /// Commits what waits, moves all of it to the library, and calls the runs that are still open interrupted. A library
    /// at a distance is given `patience` for that. From now on there is no room. The second call does nothing.
    /// Errors: everything that could not be committed or moved; what was committed is moved by the next start.
    pub async fn stop(self, patience: Duration) -> Result<(), Unfinished> {
        let Some(tasks) = self.tasks.lock().take() else { return Ok(()) };
        self.shared.budget.close();
        self.shared.stop_writing.cancel();
        let uncommitted = ended("the writer", tasks.writer.await);
        self.shared.stop_moving.cancel();
        let mover = tasks.mover.abort_handle();
        let moved = async {
            let mut unmoved = ended("the mover", tasks.mover.await);
            if unmoved.is_empty() {
                unmoved.extend(self.shared.store.end().await.err());
            }
            unmoved
        };
        let unmoved = if self.shared.store.library().is_remote() {
            tokio::time::timeout(patience, moved).await.unwrap_or_else(|_| {
                mover.abort();
                let why = format!("no answer within {} s", patience.as_secs_f64());
                vec![StoreError::Away { why, source: None }]
            })
        } else {
            moved.await
        };
        if uncommitted.is_empty() && unmoved.is_empty() {
            return Ok(());
        }
        Err(Unfinished { uncommitted, unmoved })
    }

    /// Ends the tasks where they stand, as `kill -9` would.
    #[cfg(test)]
    async fn kill(self) {
        let tasks = self.tasks.lock().take();
        if let Some(tasks) = tasks {
            tasks.writer.abort();
            tasks.mover.abort();
            let _ = tokio::join!(tasks.writer, tasks.mover);
            self.shared.store.journal().file().let_go().await;
        }
    }
}

/// What a stop left undone.
#[derive(Debug)]
pub struct Unfinished {
    /// Why records are lost.
    pub uncommitted: Vec<StoreError>,
    /// Why rows are left in the journal.
    pub unmoved: Vec<StoreError>,
}

/// The errors of a task; that it panicked is one of them.
fn ended(task: &'static str, result: Result<Vec<StoreError>, tokio::task::JoinError>) -> Vec<StoreError> {
    result.unwrap_or_else(|source| vec![StoreError::Task { task, source }])
}

#[cfg(test)]
mod tests;
