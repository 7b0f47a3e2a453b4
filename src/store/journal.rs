//! The journal: what must not be lost, in one order, on this machine's disk.
//! Enters: rows, one per run and group commit. Leaves: the same rows, until the library holds them.
//! Owns: the order (`ord`). Must hold: what `append` answered is there after power loss; a number is never reused.
//! Must not know: what a row says, who asked for it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use futures::TryStreamExt;
use sqlx::{QueryBuilder, Sqlite};

use super::error::StoreError;
use super::file::SqliteFile;
use super::run::Owner;
use crate::domain::ids::RunId;

/// Rows of one statement; few, so that few different statements are prepared.
const ROWS_PER_STATEMENT: usize = 64;

/// A row to be appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRow {
    /// The run it belongs to.
    pub run: RunId,
    /// When it was committed, by the server's clock (Unix ns).
    pub committed_ns: i64,
    /// The run's records since its last row, encoded.
    pub records: Vec<u8>,
}

/// A row as it stands in the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its place in the one order; from 1.
    pub ord: i64,
    /// When it was committed (Unix ns).
    pub committed_ns: i64,
    /// The encoded records.
    pub records: Bytes,
}

#[derive(sqlx::FromRow)]
struct RowForm {
    ord: i64,
    committed_ns: i64,
    records: Vec<u8>,
}

/// The journal, open. Cheap to clone.
#[derive(Clone)]
pub struct Journal {
    file: SqliteFile,
    owner: Owner,
    /// Bytes of all rows; counted here, since asking SQLite walks the table.
    bytes: Arc<AtomicI64>,
}

impl Journal {
    /// Opens the journal in `file` and counts this start.
    pub async fn open(file: SqliteFile) -> Result<Self, StoreError> {
        let mut tx = file.begin().await?;
        let (journal, boot): (String, i64) = sqlx::query_as(
            "INSERT INTO journal_identity (only_row, owner, boot)
             VALUES (1, ?, 1)
             ON CONFLICT (only_row) DO UPDATE SET boot = boot + 1
             RETURNING owner, boot",
        )
        .bind(uuid::Uuid::new_v4().as_simple().to_string())
        .fetch_one(&mut *tx)
        .await?;
        let bytes: i64 = sqlx::query_scalar("SELECT coalesce(sum(length(records)), 0) FROM journal")
            .fetch_one(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(Self { file, owner: Owner { journal, boot }, bytes: Arc::new(AtomicI64::new(bytes)) })
    }

    /// This journal and this start of it.
    pub fn owner(&self) -> &Owner {
        &self.owner
    }

    /// Appends all rows in one transaction; on the disk when it answers.
    pub async fn append(&self, rows: &[NewRow]) -> Result<(), StoreError> {
        if rows.is_empty() {
            return Ok(());
        }
        let mut tx = self.file.begin().await?;
        for group in rows.chunks(ROWS_PER_STATEMENT) {
            let mut insert = QueryBuilder::<Sqlite>::new("INSERT INTO journal (run, committed_ns, records) ");
            insert.push_values(group, |mut row, new| {
                row.push_bind(new.run.to_string())
                    .push_bind(new.committed_ns)
                    .push_bind(new.records.as_slice());
            });
            insert.build().execute(&mut *tx).await?;
        }
        tx.commit().await?;
        let added: usize = rows.iter().map(|row| row.records.len()).sum();
        self.bytes.fetch_add(added as i64, Ordering::Relaxed);
        Ok(())
    }

    /// Rows of a run after `after`, in order: as many as have together `limit_bytes`, at least one if there is one.
    pub async fn rows(&self, run: RunId, after: i64, limit_bytes: usize) -> Result<Vec<Row>, StoreError> {
        let mut found = sqlx::query_as::<_, RowForm>(
            "SELECT
                 ord,
                 committed_ns,
                 records
             FROM journal
             WHERE run = ? AND ord > ?
             ORDER BY ord",
        )
        .bind(run.to_string())
        .bind(after)
        .fetch(self.file.readers());
        let (mut rows, mut bytes) = (Vec::new(), 0);
        while bytes < limit_bytes {
            let Some(form) = found.try_next().await? else { break };
            bytes += form.records.len();
            rows.push(Row { ord: form.ord, committed_ns: form.committed_ns, records: form.records.into() });
        }
        Ok(rows)
    }

    /// Runs that have rows, with their bytes.
    pub async fn runs(&self) -> Result<HashMap<RunId, u64>, StoreError> {
        let found: Vec<(String, i64)> =
            sqlx::query_as("SELECT run, sum(length(records)) FROM journal GROUP BY run")
                .fetch_all(self.file.readers())
                .await?;
        found
            .into_iter()
            .map(|(run, bytes)| {
                let id = run.parse().map_err(|_| StoreError::Inconsistent {
                    table: "journal",
                    column: "run",
                    found: run,
                })?;
                Ok((id, bytes as u64))
            })
            .collect()
    }

    /// Deletes, of each run, the rows up to the given one: the library holds them.
    pub async fn trim(&self, moved: &[(RunId, i64)]) -> Result<(), StoreError> {
        let mut tx = self.file.begin().await?;
        let mut freed = 0;
        for (run, moved_to) in moved {
            let bytes: i64 = sqlx::query_scalar(
                "SELECT coalesce(sum(length(records)), 0) FROM journal WHERE run = ? AND ord <= ?",
            )
            .bind(run.to_string())
            .bind(moved_to)
            .fetch_one(&mut *tx)
            .await?;
            if bytes > 0 {
                sqlx::query("DELETE FROM journal WHERE run = ? AND ord <= ?")
                    .bind(run.to_string())
                    .bind(moved_to)
                    .execute(&mut *tx)
                    .await?;
            }
            freed += bytes;
        }
        tx.commit().await?;
        self.bytes.fetch_sub(freed, Ordering::Relaxed);
        Ok(())
    }

    /// Bytes of all rows.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed).max(0) as u64
    }

    /// When the oldest row was committed (Unix ns); `None`: there is no row.
    pub async fn oldest_ns(&self) -> Result<Option<i64>, StoreError> {
        Ok(sqlx::query_scalar("SELECT committed_ns FROM journal ORDER BY ord LIMIT 1")
            .fetch_optional(self.file.readers())
            .await?)
    }

    /// Proves that the journal can be written, by taking and leaving its write lock.
    pub async fn probe(&self) -> Result<(), StoreError> {
        self.file.begin().await?.commit().await
    }

    /// The file it lies in.
    pub fn file(&self) -> &SqliteFile {
        &self.file
    }
}
