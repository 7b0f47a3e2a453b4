//! The journal: what must not be lost, in one order, on this machine's disk.
//! Enters: rows, one per run and group commit. Leaves: the same rows, until the library holds them.
//! Owns: the order (`ord`), and which library it feeds. Must hold: what `append` answered is there after power loss; a
//! number is never reused; while there are rows for one library they go to no other.
//! Must not know: what a row says, who asked for it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use parking_lot::Mutex;
use sqlx::{QueryBuilder, Sqlite};

use super::error::{StoreError, Waiting};
use super::file::SqliteFile;
use super::library::{Feeder, Identity};
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

/// The library that rows are left for.
#[derive(sqlx::FromRow)]
struct Fed {
    library: String,
    library_id: Option<String>,
    library_place: Option<String>,
    rows: i64,
}

/// Where a library was of which an earlier version did not keep that.
const NO_PLACE: &str = "a place that is not known";

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
    index: Arc<Mutex<Index>>,
    /// The word for the kind of library that it feeds.
    kind: &'static str,
    /// Which one of that kind; nothing before the first contact with it.
    fed: Arc<tokio::sync::Mutex<Option<Identity>>>,
}

/// Which rows there are, by run. Sixteen bytes a row; a row is rarely under five hundred.
#[derive(Default)]
struct Index {
    rows: HashMap<RunId, VecDeque<Place>>,
    bytes: u64,
}

#[derive(Clone, Copy)]
struct Place {
    ord: i64,
    bytes: u64,
}

impl Index {
    fn add(&mut self, run: RunId, place: Place) {
        self.bytes += place.bytes;
        self.rows.entry(run).or_default().push_back(place);
    }

    /// Rows of a run after `after`: as many as have together `limit_bytes`, at least one if there is one.
    fn after(&self, run: RunId, after: i64, limit_bytes: usize) -> Vec<i64> {
        let Some(rows) = self.rows.get(&run) else { return Vec::new() };
        let mut bytes = 0;
        let from = rows.partition_point(|place| place.ord <= after);
        let fitting = rows.range(from..).take_while(|place| {
            let fits = bytes < limit_bytes as u64;
            bytes += place.bytes;
            fits
        });
        fitting.map(|place| place.ord).collect()
    }

    fn up_to(&self, run: RunId, moved_to: i64) -> impl Iterator<Item = i64> + '_ {
        let rows = self.rows.get(&run).into_iter().flatten();
        rows.map(|place| place.ord).take_while(move |&ord| ord <= moved_to)
    }

    fn remove(&mut self, run: RunId, moved_to: i64) {
        let Some(rows) = self.rows.get_mut(&run) else { return };
        while let Some(place) = rows.front().filter(|place| place.ord <= moved_to) {
            self.bytes -= place.bytes;
            rows.pop_front();
        }
        if rows.is_empty() {
            self.rows.remove(&run);
        }
    }
}

impl Journal {
    /// Opens the journal in `file`, which feeds a library of that kind at that place, and counts this start. One without
    /// rows feeds whichever it meets first; one with rows feeds the library that it has fed before.
    /// Errors: `StoreError::OtherLibrary` while it holds rows of runs that another kind of library has the beginning of.
    pub async fn open(file: SqliteFile, kind: &'static str, place: &str) -> Result<Self, StoreError> {
        let mut tx = file.begin().await?;
        let left_over: Option<Fed> = sqlx::query_as(
            "SELECT
                 library,
                 library_id,
                 library_place,
                 (SELECT count(*) FROM journal) AS rows
             FROM journal_identity
             WHERE EXISTS (SELECT 1 FROM journal)",
        )
        .fetch_optional(&mut *tx)
        .await?;
        if let Some(fed) = &left_over
            && fed.library != kind
        {
            let fed_at = fed.library_place.clone().unwrap_or_else(|| NO_PLACE.into());
            return Err(StoreError::OtherLibrary {
                fed: fed.library.clone(),
                found: kind.into(),
                waiting: Waiting { rows: fed.rows as usize, fed_at, found_at: place.into() },
            });
        }
        let fed = left_over.and_then(|fed| {
            let place = fed.library_place.unwrap_or_else(|| NO_PLACE.into());
            fed.library_id.map(|id| Identity { id, place })
        });
        let (journal, boot): (String, i64) = sqlx::query_as(
            "INSERT INTO journal_identity (only_row, owner, boot, library, library_id, library_place)
             VALUES (1, ?, 1, ?, ?, ?)
             ON CONFLICT (only_row) DO UPDATE SET
                 boot = boot + 1,
                 library = excluded.library,
                 library_id = excluded.library_id,
                 library_place = excluded.library_place
             RETURNING owner, boot",
        )
        .bind(uuid::Uuid::new_v4().as_simple().to_string())
        .bind(kind)
        .bind(fed.as_ref().map(|fed| &fed.id))
        .bind(fed.as_ref().map_or(place, |fed| &fed.place))
        .fetch_one(&mut *tx)
        .await?;
        tx.commit().await?;
        let mut index = Index::default();
        let mut rows = sqlx::query_as::<_, (i64, String, i64)>(
            "SELECT
                 ord,
                 run,
                 length(records)
             FROM journal
             ORDER BY ord",
        )
        .fetch(file.readers());
        while let Some((ord, run, bytes)) = rows.try_next().await? {
            let run = run.parse().map_err(|_| StoreError::Inconsistent {
                table: "journal",
                column: "run",
                found: crate::error::clip(&run),
            })?;
            index.add(run, Place { ord, bytes: bytes as u64 });
        }
        drop(rows);
        Ok(Self {
            file,
            owner: Owner { journal, boot },
            index: Arc::new(Mutex::new(index)),
            kind,
            fed: Arc::new(tokio::sync::Mutex::new(fed)),
        })
    }

    /// This journal and this start of it.
    pub fn owner(&self) -> &Owner {
        &self.owner
    }

    /// Appends all rows in one transaction; on the disk when it answers.
    /// Not cancel-safe: dropped at the end, rows may be on the disk that are seen only after the next start.
    pub async fn append(&self, rows: &[NewRow]) -> Result<(), StoreError> {
        if rows.is_empty() {
            return Ok(());
        }
        let mut places = Vec::with_capacity(rows.len());
        let mut tx = self.file.begin().await?;
        for group in rows.chunks(ROWS_PER_STATEMENT) {
            let mut insert = QueryBuilder::<Sqlite>::new("INSERT INTO journal (run, committed_ns, records) ");
            insert.push_values(group, |mut row, new| {
                row.push_bind(new.run.to_string())
                    .push_bind(new.committed_ns)
                    .push_bind(new.records.as_slice());
            });
            let last = insert.build().execute(&mut *tx).await?.last_insert_rowid();
            // Nobody else writes, so that the numbers of one statement follow each other.
            places.extend(last - group.len() as i64 + 1..=last);
        }
        tx.commit().await?;
        let mut index = self.index.lock();
        for (row, ord) in rows.iter().zip(places) {
            index.add(row.run, Place { ord, bytes: row.records.len() as u64 });
        }
        Ok(())
    }

    /// Rows of a run after `after`, in order: as many as have together `limit_bytes`, at least one if there is one.
    pub async fn rows(&self, run: RunId, after: i64, limit_bytes: usize) -> Result<Vec<Row>, StoreError> {
        let places = self.index.lock().after(run, after, limit_bytes);
        if places.is_empty() {
            return Ok(Vec::new());
        }
        let forms: Vec<RowForm> = sqlx::query_as(
            "SELECT
                 ord,
                 committed_ns,
                 records
             FROM journal
             WHERE ord IN (SELECT value FROM json_each(?))
             ORDER BY ord",
        )
        .bind(serde_json::json!(places).to_string())
        .fetch_all(self.file.readers())
        .await?;
        let row = |form: RowForm| Row {
            ord: form.ord,
            committed_ns: form.committed_ns,
            records: form.records.into(),
        };
        Ok(forms.into_iter().map(row).collect())
    }

    /// Whether a run has rows.
    pub fn has(&self, run: RunId) -> bool {
        self.index.lock().rows.contains_key(&run)
    }

    /// Runs that have rows.
    pub fn runs(&self) -> Vec<RunId> {
        self.index.lock().rows.keys().copied().collect()
    }

    /// Deletes, of each run, the rows up to the given one: the library holds them.
    pub async fn trim(&self, moved: &[(RunId, i64)]) -> Result<(), StoreError> {
        let gone: Vec<i64> = {
            let index = self.index.lock();
            moved.iter().flat_map(|&(run, moved_to)| index.up_to(run, moved_to)).collect()
        };
        if gone.is_empty() {
            return Ok(());
        }
        let mut tx = self.file.begin().await?;
        sqlx::query("DELETE FROM journal WHERE ord IN (SELECT value FROM json_each(?))")
            .bind(serde_json::json!(gone).to_string())
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        let mut index = self.index.lock();
        moved.iter().for_each(|&(run, moved_to)| index.remove(run, moved_to));
        Ok(())
    }

    /// Bytes of all rows.
    pub fn bytes(&self) -> u64 {
        self.index.lock().bytes
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

#[async_trait::async_trait]
impl Feeder for Journal {
    async fn recognise(&self, found: &Identity) -> Result<(), StoreError> {
        // Held until it is written, so that of several first contacts one is the first.
        let mut fed = self.fed.lock().await;
        match &*fed {
            Some(fed) if fed == found => return Ok(()),
            // Also without rows: the beginnings of open runs are in the other one.
            Some(fed) if fed.id != found.id => {
                return Err(StoreError::OtherLibrary {
                    fed: format!("{} {}", self.kind, fed.id),
                    found: format!("{} {}", self.kind, found.id),
                    waiting: Waiting {
                        rows: self.index.lock().rows.values().map(VecDeque::len).sum(),
                        fed_at: fed.place.clone(),
                        found_at: found.place.clone(),
                    },
                });
            }
            _ => {}
        }
        let mut tx = self.file.begin().await?;
        sqlx::query("UPDATE journal_identity SET library_id = ?, library_place = ?")
            .bind(&found.id)
            .bind(&found.place)
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        *fed = Some(found.clone());
        Ok(())
    }
}
