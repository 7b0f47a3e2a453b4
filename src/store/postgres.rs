//! The library in PostgreSQL, which several servers may share.
//! Owns: the SQL, and the connections. What it must hold stands at the trait. A call that meets a library that is away
//! answers `StoreError::Away` within its limits; the next one that may look finds it when it is back.

mod connections;
mod take;
mod text;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Connection, Postgres, QueryBuilder};

use self::connections::Connections;
use super::error::StoreError;
use super::event::EventEntry;
use super::extent::{Extent, Track};
use super::key::{KeyForm, KeyRecord, SELECT_KEY};
use super::library::{Feeder, Library, Taken};
use super::record::Annotation;
use super::rows::{EventForm, ExtentForm, RunForm, SELECT_EVENT, SELECT_RUN, int_from};
use super::run::{Owner, RunEdit, RunFilter, RunPage, RunRecord};
use super::schema::{self, Step};
use super::transfer::{FramePack, Transfer};
use crate::domain::ids::{KeyId, RunId};

/// Where the library's database is, and what it may take of our time.
#[derive(Clone, PartialEq, Eq)]
pub struct PostgresAt {
    /// `postgres://USER@HOST:PORT/DATABASE`; what it leaves open is taken from libpq's variables.
    pub url: String,
    /// The password, if it is not in the URL.
    pub password: Option<String>,
    /// How many connections, and for how long.
    pub limits: PostgresLimits,
}

/// How many connections, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PostgresLimits {
    /// Connections at the same time; at least 1.
    pub connections: usize,
    /// Time for a connection, and for a free one.
    pub connect: Duration,
    /// Time for one call.
    pub statement: Duration,
}

impl PostgresAt {
    fn options(&self) -> Result<PgConnectOptions, StoreError> {
        let options: PgConnectOptions = self.url.parse().map_err(StoreError::Address)?;
        let options = options.application_name("latentd").disable_statement_logging();
        Ok(match &self.password {
            Some(password) => options.password(password),
            None => options,
        })
    }

    /// The database in words, without what is secret: `HOST:PORT/DATABASE`.
    pub fn place(&self) -> Result<String, StoreError> {
        let options = self.options()?;
        let database = options.get_database().unwrap_or(options.get_username());
        Ok(match options.get_socket() {
            Some(socket) => format!("{}/{database}", socket.display()),
            None => format!("{}:{}/{database}", options.get_host(), options.get_port()),
        })
    }

    /// The steps of its schema. Changes nothing.
    pub async fn steps(&self) -> Result<Vec<Step>, StoreError> {
        schema::postgres(&mut self.connect().await?).await.map_err(StoreError::over_a_connection)
    }

    /// Brings its schema up to this version, however long that takes.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        schema::bring_up_postgres(&mut self.connect().await?).await.map_err(StoreError::over_a_connection)
    }

    async fn connect(&self) -> Result<PgConnection, StoreError> {
        let options = self.options()?;
        connections::Limit::new(self.limits.connect).of(options.connect()).await
    }
}

/// The library in PostgreSQL.
pub struct PostgresLibrary {
    connections: Connections,
}

impl PostgresLibrary {
    /// The library at that place, which nobody has looked for yet; whichever that is. Errors: a URL that is none.
    pub fn new(at: &PostgresAt) -> Result<Self, StoreError> {
        Ok(Self { connections: Connections::new(at, None)? })
    }

    /// The same, which answers nothing unless `feeder` recognises it.
    pub fn fed_by(at: &PostgresAt, feeder: Arc<dyn Feeder>) -> Result<Self, StoreError> {
        Ok(Self { connections: Connections::new(at, Some(feeder))? })
    }
}

#[async_trait::async_trait]
impl Library for PostgresLibrary {
    async fn take(&self, transfers: &[(RunId, Transfer)]) -> Result<Vec<Taken>, StoreError> {
        let mut lease = self.connections.lease().await?;
        let taken = lease.limit.of(take::take(&mut lease.conn, transfers)).await;
        self.connections.settle(lease, taken)
    }

    async fn mark(&self, run: RunId) -> Result<Option<i64>, StoreError> {
        let mut lease = self.connections.lease().await?;
        let found = lease.limit.of(mark_in(&mut lease.conn, run)).await;
        self.connections.settle(lease, found)
    }

    async fn run(&self, run: RunId) -> Result<Option<RunRecord>, StoreError> {
        let mut lease = self.connections.lease().await?;
        let mut select = QueryBuilder::<Postgres>::new(SELECT_RUN);
        select.push(" WHERE run = ").push_bind(run.to_string());
        let form = lease.limit.of(select.build_query_as::<RunForm>().fetch_optional(&mut lease.conn)).await;
        let form = self.connections.settle(lease, form)?;
        form.map(|form| form.record().map(text::run)).transpose()
    }

    async fn runs(
        &self,
        filter: &RunFilter,
        after: Option<RunId>,
        limit: u32,
    ) -> Result<RunPage, StoreError> {
        let limit = limit.max(1) as usize;
        let mut select = select_runs(filter, after, limit);
        let mut lease = self.connections.lease().await?;
        let forms = lease.limit.of(select.build_query_as::<RunForm>().fetch_all(&mut lease.conn)).await;
        let forms = self.connections.settle(lease, forms)?;
        let runs = forms.into_iter().map(|form| form.record().map(text::run));
        let mut runs = runs.collect::<Result<Vec<RunRecord>, _>>()?;
        let more = runs.len() > limit;
        runs.truncate(limit);
        let next = runs.last().filter(|_| more).map(|last| last.head.run);
        Ok(RunPage { runs, next })
    }

    async fn edit(&self, run: RunId, edit: &RunEdit) -> Result<bool, StoreError> {
        let mut lease = self.connections.lease().await?;
        let update = sqlx::query(
            "UPDATE run SET
                 tags = coalesce($1, tags),
                 notes = coalesce($2, notes)
             WHERE run = $3",
        )
        .bind(edit.tags.as_ref().map(|tags| serde_json::json!(tags).to_string()))
        .bind(edit.notes.as_deref().map(text::stored))
        .bind(run.to_string());
        let done = lease.limit.of(update.execute(&mut lease.conn)).await;
        Ok(self.connections.settle(lease, done)?.rows_affected() == 1)
    }

    async fn delete(&self, run: RunId) -> Result<bool, StoreError> {
        let mut lease = self.connections.lease().await?;
        let delete = sqlx::query("DELETE FROM run WHERE run = $1").bind(run.to_string());
        let done = lease.limit.of(delete.execute(&mut lease.conn)).await;
        Ok(self.connections.settle(lease, done)?.rows_affected() == 1)
    }

    async fn interrupt(&self, owner: &Owner) -> Result<u64, StoreError> {
        let mut lease = self.connections.lease().await?;
        let update = sqlx::query(
            "UPDATE run SET
                 state = 'interrupted',
                 ended_ns = last_ns
             WHERE state = 'open' AND owner = $1 AND boot < $2",
        )
        .bind(&owner.journal)
        .bind(owner.boot);
        let done = lease.limit.of(update.execute(&mut lease.conn)).await;
        Ok(self.connections.settle(lease, done)?.rows_affected())
    }

    async fn next_chunk(&self, run: RunId, track: Track, chunk: u64) -> Result<Option<u64>, StoreError> {
        let mut lease = self.connections.lease().await?;
        let select = sqlx::query_scalar::<_, Option<i64>>(
            "SELECT min(chunk)
             FROM chunk
             WHERE run = $1 AND track = $2 AND chunk >= $3",
        )
        .bind(run.to_string())
        .bind(track.0)
        .bind(int_from(chunk));
        let found = lease.limit.of(select.fetch_one(&mut lease.conn)).await;
        Ok(self.connections.settle(lease, found)?.map(|chunk| chunk as u64))
    }

    async fn extents(&self, run: RunId, track: Track, from: u64, to: u64) -> Result<Vec<Extent>, StoreError> {
        let mut lease = self.connections.lease().await?;
        let select = sqlx::query_as::<_, ExtentForm>(
            "SELECT
                 first_bin,
                 n,
                 dtype,
                 row_bytes,
                 bytes
             FROM chunk
             WHERE run = $1 AND track = $2 AND chunk >= $3 AND chunk < $4
             ORDER BY chunk, first_bin",
        )
        .bind(run.to_string())
        .bind(track.0)
        .bind(int_from(from))
        .bind(int_from(to));
        let found = lease.limit.of(select.fetch_all(&mut lease.conn)).await;
        self.connections.settle(lease, found)?.into_iter().map(ExtentForm::extent).collect()
    }

    async fn frames(
        &self,
        run: RunId,
        track: Track,
        after: Option<u64>,
    ) -> Result<Option<FramePack>, StoreError> {
        let mut lease = self.connections.lease().await?;
        let select = sqlx::query_as::<_, (i64, i64, Vec<u8>)>(
            "SELECT
                 first_at,
                 n,
                 bytes
             FROM frame_chunk
             WHERE run = $1 AND track = $2 AND first_at > $3
             ORDER BY first_at
             LIMIT 1",
        )
        .bind(run.to_string())
        .bind(track.0)
        .bind(after.map_or(-1, int_from));
        let found = lease.limit.of(select.fetch_optional(&mut lease.conn)).await;
        Ok(self.connections.settle(lease, found)?.map(|(first_at, n, bytes)| FramePack {
            first_at: first_at as u64,
            n: n as u32,
            bytes: Bytes::from(bytes),
        }))
    }

    async fn events(&self, run: RunId) -> Result<Option<(i64, Vec<EventEntry>)>, StoreError> {
        let mut lease = self.connections.lease().await?;
        let found = lease.limit.of(events_in(&mut lease.conn, run)).await;
        self.connections.settle(lease, found)
    }

    async fn annotations(&self, run: RunId) -> Result<Option<(i64, Vec<Annotation>)>, StoreError> {
        let mut lease = self.connections.lease().await?;
        let found = lease.limit.of(annotations_in(&mut lease.conn, run)).await;
        self.connections.settle(lease, found)
    }

    async fn keys(&self) -> Result<Vec<KeyRecord>, StoreError> {
        let mut lease = self.connections.lease().await?;
        let forms = lease.limit.of(sqlx::query_as::<_, KeyForm>(SELECT_KEY).fetch_all(&mut lease.conn)).await;
        self.connections.settle(lease, forms)?.into_iter().map(KeyForm::record).collect()
    }

    async fn add_key(&self, key: &KeyRecord) -> Result<bool, StoreError> {
        let mut lease = self.connections.lease().await?;
        let insert = sqlx::query(
            "INSERT INTO api_key (id, name, scopes, digest, created_ns, revoked_ns)
             VALUES ($1, $2, $3, $4, $5, $6)
             ON CONFLICT DO NOTHING",
        )
        .bind(key.id.to_string())
        .bind(&key.name)
        .bind(key.scopes.to_string())
        .bind(key.digest.0.as_slice())
        .bind(key.created_ns)
        .bind(key.revoked_ns);
        let done = lease.limit.of(insert.execute(&mut lease.conn)).await;
        Ok(self.connections.settle(lease, done)?.rows_affected() == 1)
    }

    async fn revoke_key(&self, key: KeyId, at_ns: i64) -> Result<bool, StoreError> {
        let mut lease = self.connections.lease().await?;
        let update = sqlx::query(
            "UPDATE api_key SET
                 revoked_ns = $1
             WHERE id = $2 AND revoked_ns IS NULL",
        )
        .bind(at_ns)
        .bind(key.to_string());
        let done = lease.limit.of(update.execute(&mut lease.conn)).await;
        Ok(self.connections.settle(lease, done)?.rows_affected() == 1)
    }

    fn is_remote(&self) -> bool {
        true
    }

    async fn probe(&self) -> Result<(), StoreError> {
        let lease = self.connections.lease().await?;
        self.connections.settle(lease, Ok(()))
    }

    async fn close(&self) {
        self.connections.close().await;
    }
}

fn select_runs(filter: &RunFilter, after: Option<RunId>, limit: usize) -> QueryBuilder<Postgres> {
    let mut select = QueryBuilder::<Postgres>::new(SELECT_RUN);
    // Ids made later sort later, so that the id is the order of starts and the cursor at once.
    select.push(" WHERE run < ").push_bind(after.map_or("z".to_owned(), |run| run.to_string()));
    if let Some(rig) = &filter.rig {
        select.push(" AND rig = ").push_bind(text::stored(rig).into_owned());
    }
    if let Some(pipeline) = &filter.pipeline {
        select.push(" AND pipeline = ").push_bind(text::stored(pipeline).into_owned());
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
    // Elements are compared as JSON: read as text, one with `\u0000` in any run would fail the query for all.
    if let Some(tag) = &filter.tag {
        select.push(
            " AND EXISTS (SELECT 1 FROM json_array_elements(tags::json) AS tag WHERE tag.value::text = ",
        );
        select.push_bind(serde_json::json!(tag).to_string()).push(")");
    }
    if let Some(model) = &filter.model {
        select.push(
            " AND EXISTS (SELECT 1 FROM json_array_elements(pinned::json) AS stage \
             WHERE (stage.value -> 'model')::text = ",
        );
        select.push_bind(serde_json::json!(model).to_string()).push(")");
    }
    select.push(" ORDER BY run DESC LIMIT ").push_bind(limit as i64 + 1);
    select
}

/// A transaction whose statements see one moment.
const OF_ONE_MOMENT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

async fn mark_in(conn: &mut PgConnection, run: RunId) -> Result<Option<i64>, StoreError> {
    Ok(sqlx::query_scalar("SELECT moved_to FROM run WHERE run = $1")
        .bind(run.to_string())
        .fetch_optional(conn)
        .await?)
}

async fn events_in(
    conn: &mut PgConnection,
    run: RunId,
) -> Result<Option<(i64, Vec<EventEntry>)>, StoreError> {
    let mut tx = conn.begin_with(OF_ONE_MOMENT).await?;
    let mark = mark_in(&mut tx, run).await?;
    let mut select = QueryBuilder::<Postgres>::new(SELECT_EVENT);
    select.push(" WHERE run = ").push_bind(run.to_string()).push(" ORDER BY id");
    let found: Vec<EventForm> = select.build_query_as().fetch_all(&mut *tx).await?;
    tx.commit().await?;
    let entries = found.into_iter().map(|form| form.entry().map(text::event)).collect::<Result<_, _>>()?;
    Ok(mark.map(|mark| (mark, entries)))
}

async fn annotations_in(
    conn: &mut PgConnection,
    run: RunId,
) -> Result<Option<(i64, Vec<Annotation>)>, StoreError> {
    let mut tx = conn.begin_with(OF_ONE_MOMENT).await?;
    let mark = mark_in(&mut tx, run).await?;
    let found: Vec<(String, i64, i64, String)> = sqlx::query_as(
        "SELECT
             label,
             from_bin,
             to_bin,
             body
         FROM annotation
         WHERE run = $1
         ORDER BY id",
    )
    .bind(run.to_string())
    .fetch_all(&mut *tx)
    .await?;
    tx.commit().await?;
    let annotations = found
        .into_iter()
        .map(|(label, from_bin, to_bin, body)| {
            text::annotation(Annotation { label, from_bin: from_bin as u64, to_bin: to_bin as u64, body })
        })
        .collect();
    Ok(mark.map(|mark| (mark, annotations)))
}

#[cfg(test)]
mod tests;
