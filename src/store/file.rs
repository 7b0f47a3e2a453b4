//! The local SQLite file, which holds the journal and, by default, the library.
//! One connection writes, behind a lock that waits without blocking a thread: two writers would wait for each other
//! inside SQLite, in steps of milliseconds. Readers have a pool of their own and never wait for the writer.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sqlx::ConnectOptions;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteSynchronous,
};
use tokio::sync::{Mutex, MutexGuard};

use super::error::StoreError;

/// Readers at the same time.
const READERS: u32 = 4;
/// How long a statement waits for another process that has the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("migrations/sqlite");

/// The file, open. Cheap to clone.
#[derive(Clone)]
pub struct SqliteFile {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    write: Mutex<SqliteConnection>,
    readers: SqlitePool,
    /// Cuts the write-ahead log; never waits for anyone, because while it waits nobody could write.
    janitor: Mutex<SqliteConnection>,
    wal_limit_bytes: u64,
}

impl SqliteFile {
    /// Opens or makes the file and brings its schema up to date.
    pub async fn open(path: &Path, wal_limit_bytes: u64) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_TIMEOUT)
            .pragma("journal_size_limit", wal_limit_bytes.to_string())
            .disable_statement_logging();
        let at_open = |source| StoreError::Open { path: path.to_owned(), source };
        let mut write = options.connect().await.map_err(at_open)?;
        MIGRATIONS.run(&mut write).await.map_err(StoreError::Migrate)?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .connect_with(options.clone().pragma("query_only", "ON"))
            .await
            .map_err(at_open)?;
        let janitor = options.busy_timeout(Duration::ZERO).connect().await.map_err(at_open)?;
        let (write, janitor) = (Mutex::new(write), Mutex::new(janitor));
        Ok(Self {
            inner: Arc::new(Inner { path: path.to_owned(), write, readers, janitor, wal_limit_bytes }),
        })
    }

    /// The one connection that writes, in the order of asking.
    pub(super) async fn write(&self) -> MutexGuard<'_, SqliteConnection> {
        self.inner.write.lock().await
    }

    /// Connections that only read.
    pub(super) fn readers(&self) -> &SqlitePool {
        &self.inner.readers
    }

    /// Cuts the write-ahead log if it is over its limit and nobody reads from it just now; answers whether it did.
    /// SQLite itself writes the log back every 1,000 pages, which long readers can keep from emptying it.
    pub async fn cut_wal(&self) -> Result<bool, StoreError> {
        let mut wal = self.inner.path.clone().into_os_string();
        wal.push("-wal");
        let size = tokio::fs::metadata(wal).await.map_or(0, |meta| meta.len());
        if size <= self.inner.wal_limit_bytes {
            return Ok(false);
        }
        let mut janitor = self.inner.janitor.lock().await;
        let busy: i64 =
            sqlx::query_scalar("PRAGMA wal_checkpoint(TRUNCATE)").fetch_one(&mut *janitor).await?;
        Ok(busy == 0)
    }

    /// Ends the readers; the writer ends with the last clone.
    pub async fn close(&self) {
        self.inner.readers.close().await;
    }

    /// Lets the file grow by at most `pages`, as a full disk would; `None`: without limit again.
    #[cfg(test)]
    pub(crate) async fn limit_growth(&self, pages: Option<i64>) {
        let mut conn = self.write().await;
        let now: i64 = sqlx::query_scalar("PRAGMA page_count").fetch_one(&mut *conn).await.unwrap();
        let limit = pages.map_or(1_073_741_823, |more| now + more);
        let sql = sqlx::AssertSqlSafe(format!("PRAGMA max_page_count = {limit}"));
        sqlx::query(sql).execute(&mut *conn).await.unwrap();
    }
}
