//! Taking one transfer inside the transaction that takes them all.

use std::collections::HashMap;

use sqlx::{QueryBuilder, Sqlite, SqliteConnection};

use super::load;
use crate::domain::ids::SignalName;
use crate::domain::output::EventKind;
use crate::store::error::StoreError;
use crate::store::event::EventLog;
use crate::store::extent::{Extent, Track, join};
use crate::store::library::Taken;
use crate::store::rows::{EventForm, ExtentForm, SELECT_EVENT, int_from};
use crate::store::run::{RunRecord, json_from_outputs, json_from_pinned};
use crate::store::transfer::Transfer;

/// Rows of one insert.
const ROWS_PER_STATEMENT: usize = 16;

/// Takes one transfer; nothing of it is left behind unless the answer is `Taken::Now`.
pub(super) async fn take_one(
    conn: &mut SqliteConnection,
    run: &str,
    sum: &Transfer,
) -> Result<Taken, StoreError> {
    if let Some(head) = &sum.head {
        insert_run(conn, &RunRecord::begun(head.clone())).await?;
    }
    let Some(mut record) = load(conn, run).await? else { return Ok(Taken::NoRun) };
    if record.moved_to != sum.from {
        return Ok(Taken::Already { moved_to: record.moved_to });
    }
    record.advance(sum);
    update_run(conn, &record).await?;
    for (track, extents) in &sum.extents {
        insert_extents(conn, run, *track, extents).await?;
        join_finished(conn, run, *track, extents).await?;
    }
    if sum.close.is_some() {
        join_last(conn, run).await?;
    }
    for (track, pack) in &sum.frames {
        sqlx::query("INSERT INTO frame_chunk (run, track, first_at, n, bytes) VALUES (?, ?, ?, ?, ?)")
            .bind(run)
            .bind(track.0)
            .bind(int_from(pack.first_at))
            .bind(i64::from(pack.n))
            .bind(pack.bytes.to_vec())
            .execute(&mut *conn)
            .await?;
    }
    take_events(conn, run, sum).await?;
    for annotation in &sum.annotations {
        sqlx::query("INSERT INTO annotation (run, label, from_bin, to_bin, body) VALUES (?, ?, ?, ?, ?)")
            .bind(run)
            .bind(&annotation.label)
            .bind(int_from(annotation.from_bin))
            .bind(int_from(annotation.to_bin))
            .bind(&annotation.body)
            .execute(&mut *conn)
            .await?;
    }
    Ok(Taken::Now)
}

/// Adds the run if it is not there.
async fn insert_run(conn: &mut SqliteConnection, record: &RunRecord) -> Result<(), StoreError> {
    let head = &record.head;
    let signals: Vec<&str> = head.signals.iter().map(SignalName::as_str).collect();
    sqlx::query(
        "INSERT INTO run (
             run,
             session,
             rig,
             pipeline,
             pinned,
             resolved,
             outputs,
             recorded,
             signals,
             engine,
             tags,
             notes,
             state,
             recording,
             t0_ns,
             width_ns,
             from_bin,
             started_ns,
             last_ns,
             owner,
             boot
         ) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (run) DO NOTHING",
    )
    .bind(head.run.to_string())
    .bind(head.session.to_string())
    .bind(&head.rig)
    .bind(head.pipeline.as_str())
    .bind(json_from_pinned(&head.pinned).to_string())
    .bind(&head.resolved)
    .bind(json_from_outputs(&head.outputs).to_string())
    .bind(serde_json::json!(head.recorded).to_string())
    .bind(serde_json::json!(signals).to_string())
    .bind(&head.engine)
    .bind(serde_json::json!(head.tags).to_string())
    .bind(&head.notes)
    .bind(record.state.word())
    .bind(record.recording.word())
    .bind(record.t0_ns)
    .bind(int_from(head.width_ns))
    .bind(int_from(head.first_bin))
    .bind(head.started_ns)
    .bind(record.last_ns)
    .bind(&head.owner.journal)
    .bind(head.owner.boot)
    .execute(conn)
    .await?;
    Ok(())
}

/// Writes how far the run has come.
async fn update_run(conn: &mut SqliteConnection, record: &RunRecord) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE run SET
             moved_to = ?,
             state = ?,
             recording = ?,
             t0_ns = ?,
             first_bin = ?,
             end_bin = ?,
             bins = ?,
             skipped_bins = ?,
             last_ns = ?,
             ended_ns = ?,
             summary = ?,
             segments = ?,
             settings = ?
         WHERE run = ?",
    )
    .bind(record.moved_to)
    .bind(record.state.word())
    .bind(record.recording.word())
    .bind(record.t0_ns)
    .bind(record.first_bin.map(int_from))
    .bind(record.end_bin.map(int_from))
    .bind(int_from(record.bins))
    .bind(int_from(record.skipped_bins))
    .bind(record.last_ns)
    .bind(record.ended_ns)
    .bind(record.summary.as_deref())
    .bind(serde_json::json!(record.segments).to_string())
    .bind(serde_json::json!(record.settings).to_string())
    .bind(record.head.run.to_string())
    .execute(conn)
    .await?;
    Ok(())
}

async fn insert_extents(
    conn: &mut SqliteConnection,
    run: &str,
    track: Track,
    extents: &[Extent],
) -> Result<(), StoreError> {
    for group in extents.chunks(ROWS_PER_STATEMENT) {
        let mut insert = QueryBuilder::<Sqlite>::new(
            "INSERT INTO chunk (run, track, chunk, first_bin, n, dtype, row_bytes, bytes) ",
        );
        insert.push_values(group, |mut row, extent| {
            row.push_bind(run)
                .push_bind(track.0)
                .push_bind(int_from(extent.chunk()))
                .push_bind(int_from(extent.first_bin))
                .push_bind(i64::from(extent.n))
                .push_bind(extent.dtype.word())
                .push_bind(i64::from(extent.row_bytes))
                .push_bind(&extent.bytes[..]);
        });
        insert.build().execute(&mut *conn).await?;
    }
    Ok(())
}

/// Joins the rows of each chunk that can get no more bins: those before the last one, and the last if it is full.
async fn join_finished(
    conn: &mut SqliteConnection,
    run: &str,
    track: Track,
    added: &[Extent],
) -> Result<(), StoreError> {
    let (Some(first), Some(last)) = (added.first(), added.last()) else { return Ok(()) };
    // The chunk that was in the making until a hole led past its end.
    let before: Option<i64> =
        sqlx::query_scalar("SELECT max(chunk) FROM chunk WHERE run = ? AND track = ? AND chunk < ?")
            .bind(run)
            .bind(track.0)
            .bind(int_from(first.chunk()))
            .fetch_one(&mut *conn)
            .await?;
    let mut finished: Vec<i64> = before.into_iter().collect();
    finished.extend(
        added
            .iter()
            .filter(|extent| extent.chunk() < last.chunk() || last.fills_chunk())
            .map(|extent| int_from(extent.chunk())),
    );
    finished.dedup();
    for chunk in finished {
        join_chunk(conn, run, track, chunk).await?;
    }
    Ok(())
}

/// Joins the rows of each track's last chunk: the run has ended.
async fn join_last(conn: &mut SqliteConnection, run: &str) -> Result<(), StoreError> {
    let last: Vec<(i32, i64)> =
        sqlx::query_as("SELECT track, max(chunk) FROM chunk WHERE run = ? GROUP BY track")
            .bind(run)
            .fetch_all(&mut *conn)
            .await?;
    for (track, chunk) in last {
        join_chunk(conn, run, Track(track), chunk).await?;
    }
    Ok(())
}

async fn join_chunk(
    conn: &mut SqliteConnection,
    run: &str,
    track: Track,
    chunk: i64,
) -> Result<(), StoreError> {
    let rows: i64 =
        sqlx::query_scalar("SELECT count(*) FROM chunk WHERE run = ? AND track = ? AND chunk = ?")
            .bind(run)
            .bind(track.0)
            .bind(chunk)
            .fetch_one(&mut *conn)
            .await?;
    if rows < 2 {
        return Ok(());
    }
    let found: Vec<ExtentForm> = sqlx::query_as(
        "SELECT
             first_bin,
             n,
             dtype,
             row_bytes,
             bytes
         FROM chunk
         WHERE run = ? AND track = ? AND chunk = ?
         ORDER BY first_bin",
    )
    .bind(run)
    .bind(track.0)
    .bind(chunk)
    .fetch_all(&mut *conn)
    .await?;
    let before = found.len();
    let joined = join(found.into_iter().map(ExtentForm::extent).collect::<Result<_, _>>()?, true);
    if joined.len() == before {
        return Ok(());
    }
    sqlx::query("DELETE FROM chunk WHERE run = ? AND track = ? AND chunk = ?")
        .bind(run)
        .bind(track.0)
        .bind(chunk)
        .execute(&mut *conn)
        .await?;
    insert_extents(conn, run, track, &joined).await
}

/// Folds the transfer's events into the entries that are there.
async fn take_events(conn: &mut SqliteConnection, run: &str, sum: &Transfer) -> Result<(), StoreError> {
    // Only the last entry of a kind and signal can take more, so only those are read.
    let mut kept: HashMap<(EventKind, Option<SignalName>), Option<EventForm>> = HashMap::new();
    for notice in &sum.events {
        let key = (notice.kind, notice.signal.clone());
        if kept.contains_key(&key) {
            continue;
        }
        let mut select = QueryBuilder::<Sqlite>::new(SELECT_EVENT);
        select.push(" WHERE run = ").push_bind(run);
        select.push(" AND kind = ").push_bind(notice.kind.word());
        select.push(" AND signal = ").push_bind(notice.signal.as_ref().map_or("", SignalName::as_str));
        select.push(" ORDER BY id DESC LIMIT 1");
        let last: Option<EventForm> = select.build_query_as().fetch_optional(&mut *conn).await?;
        kept.insert(key, last);
    }
    let forms: Vec<EventForm> = kept.into_values().flatten().collect();
    let ids: Vec<i64> = forms.iter().map(|form| form.id).collect();
    let mut log = EventLog::resume(forms.into_iter().map(EventForm::entry).collect::<Result<Vec<_>, _>>()?);
    for notice in &sum.events {
        log.push(notice);
    }
    for (i, entry) in log.entries.iter().enumerate() {
        // An entry that was there keeps its id and its place; a new one comes after all that were there.
        sqlx::query(
            "INSERT INTO event (id, run, kind, signal, from_bin, to_bin, count, first_ns, last_ns, detail)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
             ON CONFLICT (id) DO UPDATE SET
                 from_bin = excluded.from_bin,
                 to_bin = excluded.to_bin,
                 count = excluded.count,
                 last_ns = excluded.last_ns,
                 detail = excluded.detail",
        )
        .bind(ids.get(i).copied())
        .bind(run)
        .bind(entry.kind.word())
        .bind(entry.signal.as_ref().map_or("", SignalName::as_str))
        .bind(entry.from_bin.map(int_from))
        .bind(entry.to_bin.map(int_from))
        .bind(int_from(entry.count))
        .bind(entry.first_ns)
        .bind(entry.last_ns)
        .bind(&entry.detail)
        .execute(&mut *conn)
        .await?;
    }
    Ok(())
}
