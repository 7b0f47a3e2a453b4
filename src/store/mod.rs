//! What is kept: the journal, the library that is filled from it, and the queries that see both as one.
//! Enters: rows of records, from the recorder. Leaves: runs, bins, frames, events, exactly once each.
//! Owns: the local file, the move from journal to library. Must hold: what `Journal::append` answered is never lost;
//! a query sees each bin once, at any moment of a move.
//! Must not know: sessions, the wire, HTTP; only this room knows `sqlx`.

pub mod error; // what can go wrong
pub mod run; // a run, from its head to its end
pub mod record; // what a session writes
pub mod codec; // a journal row's bytes
pub mod file; // the local SQLite file
pub mod journal; // what must not be lost, in one order
pub mod extent; // unbroken bins, and how they lie in chunks
pub mod pack; // frames, as they lie in the library
pub mod event; // events, merged
pub mod transfer; // the sum of some journal rows
pub mod key; // API keys, as they are kept
pub mod library; // the queryable store
pub mod schema; // the steps of both schemas
mod rows; // rows as both databases give them
pub mod sqlite; // the embedded library
pub mod postgres; // the library in PostgreSQL
pub mod moving; // from journal to library, exactly once
pub mod query; // library and journal's tail as one
pub mod intake; // what a run took in, in order
#[cfg(test)]
pub(crate) mod testing; // runs and records made up for tests
#[cfg(test)]
mod seam; // queries at every point of a move

use std::path::Path;
use std::sync::Arc;

use tokio::time::Instant;

pub use self::error::StoreError;
pub use self::file::SqliteFile;
pub use self::journal::Journal;
pub use self::library::Library;
pub use self::postgres::{PostgresAt, PostgresLibrary, PostgresLimits};
pub use self::sqlite::SqliteLibrary;

/// What the store tells of itself. `lifecycle` fills it from `metrics`.
pub trait StoreMetrics: Send + Sync {
    /// An operation took that long.
    fn store_seconds(&self, op: StoreOp, seconds: f64);
    /// Bytes in the journal.
    fn journal_bytes(&self, bytes: u64);
    /// Age of the journal's oldest row; 0: there is none.
    fn journal_oldest_seconds(&self, seconds: f64);
    /// Recording of so many runs stopped because the journal could not be written.
    fn recording_stopped(&self, runs: u64);
}

/// What the store is timed at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StoreOp {
    /// A group commit into the journal.
    Append,
    /// Some runs from the journal to the library.
    Move,
    /// One read of a query.
    Read,
    /// A snapshot written or read.
    Snapshot,
}

impl StoreOp {
    /// The label's value.
    pub const fn word(self) -> &'static str {
        match self {
            StoreOp::Append => "append",
            StoreOp::Move => "move",
            StoreOp::Read => "read",
            StoreOp::Snapshot => "snapshot",
        }
    }
}

/// Tells nobody.
pub struct NoMetrics;

impl StoreMetrics for NoMetrics {
    fn store_seconds(&self, _: StoreOp, _: f64) {}
    fn journal_bytes(&self, _: u64) {}
    fn journal_oldest_seconds(&self, _: f64) {}
    fn recording_stopped(&self, _: u64) {}
}

/// Name of the local file in the data directory.
pub const FILE_NAME: &str = "latentd.sqlite";

/// Journal and library together. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    journal: Journal,
    library: Arc<dyn Library>,
    metrics: Arc<dyn StoreMetrics>,
}

impl Store {
    /// Opens `latentd.sqlite` in `data` (made if it is not there), with journal and library in it.
    pub async fn embedded(
        data: &Path,
        wal_limit_bytes: u64,
        metrics: Arc<dyn StoreMetrics>,
    ) -> Result<Self, StoreError> {
        let file = local_file(data, wal_limit_bytes).await?;
        let journal = Journal::open(file.clone(), EMBEDDED, &data.display().to_string()).await?;
        Ok(Self::new(journal, Arc::new(SqliteLibrary::new(file)), metrics))
    }

    /// Opens the journal in `data`, with its library in PostgreSQL, which need not be there yet.
    /// Errors: `StoreError::OtherLibrary` where it is there and is another one than the one that the journal holds rows
    /// for.
    pub async fn in_postgres(
        data: &Path,
        wal_limit_bytes: u64,
        at: &PostgresAt,
        metrics: Arc<dyn StoreMetrics>,
    ) -> Result<Self, StoreError> {
        let place = at.place()?;
        let journal = Journal::open(local_file(data, wal_limit_bytes).await?, IN_POSTGRES, &place).await?;
        let library = PostgresLibrary::fed_by(at, Arc::new(journal.clone()))?;
        // Whatever else it says is no reason not to start.
        if let Err(error @ StoreError::OtherLibrary { .. }) = library.probe().await {
            return Err(error);
        }
        Ok(Self::new(journal, Arc::new(library), metrics))
    }

    /// A journal with any library.
    pub fn new(journal: Journal, library: Arc<dyn Library>, metrics: Arc<dyn StoreMetrics>) -> Self {
        Self { journal, library, metrics }
    }

    /// The journal.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// The library by itself; queries that must see the journal's tail too go through the store.
    pub fn library(&self) -> &dyn Library {
        &*self.library
    }

    /// Where figures go.
    pub fn metrics(&self) -> &dyn StoreMetrics {
        &*self.metrics
    }

    /// Awaits `work` and tells how long it took.
    pub(crate) async fn timed<T>(&self, op: StoreOp, work: impl Future<Output = T>) -> T {
        let start = Instant::now();
        let done = work.await;
        self.metrics.store_seconds(op, start.elapsed().as_secs_f64());
        done
    }

    /// Tells the journal's size and age. `now_ns`: the server's clock (Unix ns).
    pub async fn observe(&self, now_ns: i64) -> Result<(), StoreError> {
        self.metrics.journal_bytes(self.journal.bytes());
        let oldest_ns = self.journal.oldest_ns().await?;
        let age_ns = oldest_ns.map_or(0, |oldest_ns| now_ns.saturating_sub(oldest_ns).max(0));
        self.metrics.journal_oldest_seconds(age_ns as f64 / 1e9);
        Ok(())
    }

    /// Lets go of file and connections. Whoever still holds a clone gets errors from reads.
    pub async fn close(&self) {
        self.library.close().await;
        self.journal.file().close().await;
    }
}

/// The kind of library that a journal feeds, as the journal remembers it.
const EMBEDDED: &str = "embedded";
const IN_POSTGRES: &str = "postgres";

/// The library alone, without a journal and beside a server that may be running: in PostgreSQL, or in `data`.
pub async fn library_at(
    data: &Path,
    wal_limit_bytes: u64,
    at: Option<&PostgresAt>,
) -> Result<Arc<dyn Library>, StoreError> {
    Ok(match at {
        Some(at) => Arc::new(PostgresLibrary::new(at)?),
        None => Arc::new(SqliteLibrary::new(local_file(data, wal_limit_bytes).await?)),
    })
}

/// Opens `latentd.sqlite` in `data`, made if it is not there, and brings its schema up to date.
pub async fn local_file(data: &Path, wal_limit_bytes: u64) -> Result<SqliteFile, StoreError> {
    let path = data.join(FILE_NAME);
    if let Err(error) = tokio::fs::create_dir_all(data).await {
        return Err(StoreError::Open { path, source: error.into() });
    }
    SqliteFile::open(&path, wal_limit_bytes).await
}
