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
use super::schema::{self, Step};

/// Readers at the same time.
const READERS: u32 = 4;
/// The connection that writes.
struct Writer {
    conn: SqliteConnection,
    /// A transaction was begun and not committed: it failed, or its caller went away.
    is_begun: bool,
}

/// A transaction. Dropped without `commit`, it is as if it had never been.
///
/// Why not sqlx's own: where the disk is full SQLite ends the transaction by itself, sqlx then counts one that cannot
/// be ended, and the connection is lost for good.
pub(super) struct Transaction<'a>(MutexGuard<'a, Writer>);

impl Transaction<'_> {
    /// On the disk when it answers.
    pub(super) async fn commit(mut self) -> Result<(), StoreError> {
        sqlx::query("COMMIT").execute(&mut self.0.conn).await?;
        self.0.is_begun = false;
        Ok(())
    }
}

impl std::ops::Deref for Transaction<'_> {
    type Target = SqliteConnection;
    fn deref(&self) -> &SqliteConnection {
        &self.0.conn
    }
}

impl std::ops::DerefMut for Transaction<'_> {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        &mut self.0.conn
    }
}

/// How long a statement waits for another process that has the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// The file, open. Cheap to clone.
#[derive(Clone)]
pub struct SqliteFile {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    writer: Mutex<Writer>,
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
            // In pages; written back in larger pieces, a page that many commits changed is written once.
            .pragma("wal_autocheckpoint", "4000")
            .disable_statement_logging();
        let at_open = |source| StoreError::Open { path: path.to_owned(), source };
        let mut write = options.connect().await.map_err(at_open)?;
        schema::bring_up_sqlite(&mut write).await?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .connect_with(options.clone().pragma("query_only", "ON"))
            .await
            .map_err(at_open)?;
        let janitor = options.busy_timeout(Duration::ZERO).connect().await.map_err(at_open)?;
        let writer = Mutex::new(Writer { conn: write, is_begun: false });
        let janitor = Mutex::new(janitor);
        Ok(Self {
            inner: Arc::new(Inner { path: path.to_owned(), writer, readers, janitor, wal_limit_bytes }),
        })
    }

    /// The steps of the schema of a file, which need not be there. Changes nothing.
    pub async fn steps(path: &Path) -> Result<Vec<Step>, StoreError> {
        if !path.exists() {
            return Ok(schema::of_no_file());
        }
        let options = SqliteConnectOptions::new().filename(path).read_only(true).busy_timeout(BUSY_TIMEOUT);
        let at_open = |source| StoreError::Open { path: path.to_owned(), source };
        schema::sqlite(&mut options.connect().await.map_err(at_open)?).await
    }

    /// A transaction on the one connection that writes; callers get it in the order of asking.
    pub(super) async fn begin(&self) -> Result<Transaction<'_>, StoreError> {
        let mut writer = self.inner.writer.lock().await;
        if writer.is_begun {
            // An error says that SQLite had ended it already, or the next line fails with the real one.
            let _ = sqlx::query("ROLLBACK").execute(&mut writer.conn).await;
        }
        // Before the statement: a caller that goes away while it runs leaves a transaction behind.
        writer.is_begun = true;
        sqlx::query("BEGIN IMMEDIATE").execute(&mut writer.conn).await?;
        Ok(Transaction(writer))
    }

    /// Connections that only read.
    pub(super) fn readers(&self) -> &SqlitePool {
        &self.inner.readers
    }

    /// Cuts the write-ahead log if it is over its limit and nobody reads from it just now; answers whether it did.
    /// SQLite itself writes the log back every 4,000 pages, which long readers can keep from emptying it.
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

    /// Lets go of an unfinished transaction, as the end of the process would.
    #[cfg(test)]
    pub(crate) async fn let_go(&self) {
        let mut writer = self.inner.writer.lock().await;
        let _ = sqlx::query("ROLLBACK").execute(&mut writer.conn).await;
        writer.is_begun = false;
    }

    /// Keeps everyone else from writing until it is dropped, as a slow disk would.
    #[cfg(test)]
    pub(crate) async fn hold(&self) -> impl Sized + '_ {
        self.inner.writer.lock().await
    }

    /// Lets the file grow by at most `pages`, as a full disk would; `None`: without limit again.
    #[cfg(test)]
    pub(crate) async fn limit_growth(&self, pages: Option<i64>) {
        let conn = &mut self.inner.writer.lock().await.conn;
        let now: i64 = sqlx::query_scalar("PRAGMA page_count").fetch_one(&mut *conn).await.unwrap();
        let limit = pages.map_or(1_073_741_823, |more| now + more);
        let sql = sqlx::AssertSqlSafe(format!("PRAGMA max_page_count = {limit}"));
        sqlx::query(sql).execute(conn).await.unwrap();
    }
}
