//! The embedded library: SQLite, by default in the journal's own file.
//! Owns: the SQL. What it must hold stands at the trait.

mod take;

use bytes::Bytes;
use sqlx::{Connection, QueryBuilder, Sqlite, SqliteConnection};

use self::take::take_one;
use super::error::StoreError;
use super::event::EventEntry;
use super::extent::{Extent, Track};
use super::file::SqliteFile;
use super::key::{KeyForm, KeyRecord, SELECT_KEY};
use super::library::{Library, Taken};
use super::record::Annotation;
use super::rows::{EventForm, ExtentForm, RunForm, SELECT_EVENT, SELECT_RUN, int_from};
use super::run::{Owner, RunEdit, RunFilter, RunPage, RunRecord};
use super::transfer::{FramePack, Transfer};
use crate::domain::ids::{KeyId, RunId};

/// The library in a SQLite file. Cheap to clone.
#[derive(Clone)]
pub struct SqliteLibrary {
    file: SqliteFile,
}

impl SqliteLibrary {
    /// The library in `file`, whose schema is up to date since it was opened.
    pub fn new(file: SqliteFile) -> Self {
        Self { file }
    }

    /// Puts these keys in the place of all there are: what a library elsewhere has, for the time when it is away.
    pub(super) async fn copy_keys(&self, keys: &[KeyRecord]) -> Result<(), StoreError> {
        let mut tx = self.file.begin().await?;
        sqlx::query("DELETE FROM api_key").execute(&mut *tx).await?;
        for key in keys {
            insert_key(&mut tx, key).await?;
        }
        tx.commit().await
    }
}

#[async_trait::async_trait]
impl Library for SqliteLibrary {
    async fn take(&self, transfers: &[(RunId, Transfer)]) -> Result<Vec<Taken>, StoreError> {
        let mut tx = self.file.begin().await?;
        let mut taken = Vec::with_capacity(transfers.len());
        for (run, sum) in transfers {
            taken.push(take_one(&mut tx, &run.to_string(), sum).await?);
        }
        tx.commit().await?;
        Ok(taken)
    }

    async fn mark(&self, run: RunId) -> Result<Option<i64>, StoreError> {
        Ok(sqlx::query_scalar("SELECT moved_to FROM run WHERE run = ?")
            .bind(run.to_string())
            .fetch_optional(self.file.readers())
            .await?)
    }

    async fn run(&self, run: RunId) -> Result<Option<RunRecord>, StoreError> {
        let mut conn = self.file.readers().acquire().await?;
        load(&mut conn, &run.to_string()).await
    }

    async fn runs(
        &self,
        filter: &RunFilter,
        after: Option<RunId>,
        limit: u32,
    ) -> Result<RunPage, StoreError> {
        let limit = limit.max(1) as usize;
        let mut select = QueryBuilder::<Sqlite>::new(SELECT_RUN);
        // Ids made later sort later, so that the id is the order of starts and the cursor at once.
        select.push(" WHERE run < ").push_bind(after.map_or("z".to_owned(), |run| run.to_string()));
        if let Some(rig) = &filter.rig {
            select.push(" AND rig = ").push_bind(rig.clone());
        }
        if let Some(pipeline) = &filter.pipeline {
            select.push(" AND pipeline = ").push_bind(pipeline.clone());
        }
        if let Some(state) = filter.state {
            select.push(" AND state = ").push_bind(state.word());
        }
        if let Some(from_ns) = filter.from_ns {
            select.push(" AND started_ns >= ").push_bind(from_ns);
        }
        if let Some(to_ns) = filter.to_ns {
            select.push(" AND started_ns < ").push_bind(to_ns);
        }
        if let Some(tag) = &filter.tag {
            select.push(" AND EXISTS (SELECT 1 FROM json_each(tags) AS tag WHERE tag.value = ");
            select.push_bind(tag.clone()).push(")");
        }
        if let Some(model) = &filter.model {
            select.push(
                " AND EXISTS (SELECT 1 FROM json_each(pinned) AS stage WHERE stage.value ->> 'model' = ",
            );
            select.push_bind(model.clone()).push(")");
        }
        select.push(" ORDER BY run DESC LIMIT ").push_bind(limit as i64 + 1);
        let forms: Vec<RunForm> = select.build_query_as().fetch_all(self.file.readers()).await?;
        let mut runs = forms.into_iter().map(RunForm::record).collect::<Result<Vec<RunRecord>, _>>()?;
        let more = runs.len() > limit;
        runs.truncate(limit);
        let next = runs.last().filter(|_| more).map(|last| last.head.run);
        Ok(RunPage { runs, next })
    }

    async fn edit(&self, run: RunId, edit: &RunEdit) -> Result<bool, StoreError> {
        let mut tx = self.file.begin().await?;
        let done = sqlx::query(
            "UPDATE run SET
                 tags = coalesce(?, tags),
                 notes = coalesce(?, notes)
             WHERE run = ?",
        )
        .bind(edit.tags.as_ref().map(|tags| serde_json::json!(tags).to_string()))
        .bind(edit.notes.as_deref())
        .bind(run.to_string())
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(done.rows_affected() == 1)
    }

    async fn delete(&self, run: RunId) -> Result<bool, StoreError> {
        let mut tx = self.file.begin().await?;
        let done =
            sqlx::query("DELETE FROM run WHERE run = ?").bind(run.to_string()).execute(&mut *tx).await?;
        tx.commit().await?;
        Ok(done.rows_affected() == 1)
    }

    async fn interrupt(&self, owner: &Owner) -> Result<u64, StoreError> {
        let mut tx = self.file.begin().await?;
        let done = sqlx::query(
            "UPDATE run SET
                 state = 'interrupted',
                 ended_ns = last_ns
             WHERE state = 'open' AND owner = ? AND boot < ?",
        )
        .bind(&owner.journal)
        .bind(owner.boot)
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(done.rows_affected())
    }

    async fn next_chunk(&self, run: RunId, track: Track, chunk: u64) -> Result<Option<u64>, StoreError> {
        let found: Option<i64> = sqlx::query_scalar(
            "SELECT min(chunk)
             FROM chunk
             WHERE run = ? AND track = ? AND chunk >= ?",
        )
        .bind(run.to_string())
        .bind(track.0)
        .bind(int_from(chunk))
        .fetch_one(self.file.readers())
        .await?;
        Ok(found.map(|chunk| chunk as u64))
    }

    async fn extents(&self, run: RunId, track: Track, from: u64, to: u64) -> Result<Vec<Extent>, StoreError> {
        let found: Vec<ExtentForm> = sqlx::query_as(
            "SELECT
                 first_bin,
                 n,
                 dtype,
                 row_bytes,
                 bytes
             FROM chunk
             WHERE run = ? AND track = ? AND chunk >= ? AND chunk < ?
             ORDER BY chunk, first_bin",
        )
        .bind(run.to_string())
        .bind(track.0)
        .bind(int_from(from))
        .bind(int_from(to))
        .fetch_all(self.file.readers())
        .await?;
        found.into_iter().map(ExtentForm::extent).collect()
    }

    async fn frames(
        &self,
        run: RunId,
        track: Track,
        after: Option<u64>,
    ) -> Result<Option<FramePack>, StoreError> {
        let found: Option<(i64, i64, Vec<u8>)> = sqlx::query_as(
            "SELECT
                 first_at,
                 n,
                 bytes
             FROM frame_chunk
             WHERE run = ? AND track = ? AND first_at > ?
             ORDER BY first_at
             LIMIT 1",
        )
        .bind(run.to_string())
        .bind(track.0)
        .bind(after.map_or(-1, int_from))
        .fetch_optional(self.file.readers())
        .await?;
        Ok(found.map(|(first_at, n, bytes)| FramePack {
            first_at: first_at as u64,
            n: n as u32,
            bytes: Bytes::from(bytes),
        }))
    }

    async fn events(&self, run: RunId) -> Result<Option<(i64, Vec<EventEntry>)>, StoreError> {
        let mut conn = self.file.readers().acquire().await?;
        let mut tx = conn.begin().await?;
        let run = run.to_string();
        let Some(mark) = mark_in(&mut tx, &run).await? else { return Ok(None) };
        let mut select = QueryBuilder::<Sqlite>::new(SELECT_EVENT);
        select.push(" WHERE run = ").push_bind(run).push(" ORDER BY id");
        let found: Vec<EventForm> = select.build_query_as().fetch_all(&mut *tx).await?;
        let entries = found.into_iter().map(EventForm::entry).collect::<Result<_, _>>()?;
        Ok(Some((mark, entries)))
    }

    async fn annotations(&self, run: RunId) -> Result<Option<(i64, Vec<Annotation>)>, StoreError> {
        let mut conn = self.file.readers().acquire().await?;
        let mut tx = conn.begin().await?;
        let run = run.to_string();
        let Some(mark) = mark_in(&mut tx, &run).await? else { return Ok(None) };
        let found: Vec<(String, i64, i64, String)> = sqlx::query_as(
            "SELECT
                 label,
                 from_bin,
                 to_bin,
                 body
             FROM annotation
             WHERE run = ?
             ORDER BY id",
        )
        .bind(run)
        .fetch_all(&mut *tx)
        .await?;
        let annotations = found
            .into_iter()
            .map(|(label, from_bin, to_bin, body)| Annotation {
                label,
                from_bin: from_bin as u64,
                to_bin: to_bin as u64,
                body,
            })
            .collect();
        Ok(Some((mark, annotations)))
    }

    async fn keys(&self) -> Result<Vec<KeyRecord>, StoreError> {
        let forms: Vec<KeyForm> = sqlx::query_as(SELECT_KEY).fetch_all(self.file.readers()).await?;
        forms.into_iter().map(KeyForm::record).collect()
    }

    async fn add_key(&self, key: &KeyRecord) -> Result<bool, StoreError> {
        let mut tx = self.file.begin().await?;
        let is_new = insert_key(&mut tx, key).await?;
        tx.commit().await?;
        Ok(is_new)
    }

    async fn revoke_key(&self, key: KeyId, at_ns: i64) -> Result<bool, StoreError> {
        let mut tx = self.file.begin().await?;
        let done = sqlx::query(
            "UPDATE api_key SET
                 revoked_ns = ?
             WHERE id = ? AND revoked_ns IS NULL",
        )
        .bind(at_ns)
        .bind(key.to_string())
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(done.rows_affected() == 1)
    }
}

/// `false`: a key of this name holds.
async fn insert_key(conn: &mut SqliteConnection, key: &KeyRecord) -> Result<bool, StoreError> {
    let done = sqlx::query(
        "INSERT INTO api_key (id, name, scopes, digest, created_ns, revoked_ns)
         VALUES (?, ?, ?, ?, ?, ?)
         ON CONFLICT DO NOTHING",
    )
    .bind(key.id.to_string())
    .bind(&key.name)
    .bind(key.scopes.to_string())
    .bind(key.digest.0.as_slice())
    .bind(key.created_ns)
    .bind(key.revoked_ns)
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// A run as far as it is in the library.
async fn load(conn: &mut SqliteConnection, run: &str) -> Result<Option<RunRecord>, StoreError> {
    let mut select = QueryBuilder::<Sqlite>::new(SELECT_RUN);
    select.push(" WHERE run = ").push_bind(run);
    let form: Option<RunForm> = select.build_query_as().fetch_optional(conn).await?;
    form.map(RunForm::record).transpose()
}

async fn mark_in(conn: &mut SqliteConnection, run: &str) -> Result<Option<i64>, StoreError> {
    Ok(sqlx::query_scalar("SELECT moved_to FROM run WHERE run = ?").bind(run).fetch_optional(conn).await?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::library::contract::{Bench, library_contract};

    struct InAFolder {
        dir: tempfile::TempDir,
        library: SqliteLibrary,
    }

    impl InAFolder {
        async fn open(dir: tempfile::TempDir) -> Self {
            let file = SqliteFile::open(&dir.path().join("library.sqlite"), 64 << 20).await.unwrap();
            Self { dir, library: SqliteLibrary::new(file) }
        }
    }

    impl Bench for InAFolder {
        async fn fresh() -> Self {
            Self::open(tempfile::tempdir().unwrap()).await
        }
        fn library(&self) -> &dyn Library {
            &self.library
        }
        async fn reopen(self) -> Self {
            let Self { dir, library } = self;
            library.file.close().await;
            drop(library);
            Self::open(dir).await
        }
    }

    library_contract!(sqlite, super::InAFolder);
}
