//! Taking transfers, all in one transaction and in about ten statements, however many runs they are of.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use sqlx::postgres::PgConnection;
use sqlx::{Connection, Postgres, QueryBuilder};

use super::text;
use crate::domain::ids::{RunId, SignalName};
use crate::store::error::StoreError;
use crate::store::event::{EventEntry, EventLog};
use crate::store::extent::{Extent, Track, join};
use crate::store::library::Taken;
use crate::store::rows::{EventForm, ExtentForm, RunForm, SELECT_RUN, int_from};
use crate::store::run::{RunRecord, json_from_outputs, json_from_pinned};
use crate::store::transfer::Transfer;

/// A transfer that is taken, with its run's id as text.
type New<'a> = (&'a str, &'a Transfer);

/// Takes the transfers. A caller that goes away leaves a transaction that the server ends.
pub(super) async fn take(
    conn: &mut PgConnection,
    transfers: &[(RunId, Transfer)],
) -> Result<Vec<Taken>, StoreError> {
    let mut tx = conn.begin_with("BEGIN ISOLATION LEVEL READ COMMITTED").await?;
    let runs: Vec<String> = transfers.iter().map(|(run, _)| run.to_string()).collect();
    for (_, sum) in transfers {
        // One by one: a run has one head in all its life.
        if let Some(head) = &sum.head {
            insert_run(&mut tx, &RunRecord::begun(head.clone())).await?;
        }
    }
    let mut records = lock_runs(&mut tx, &runs).await?;
    let (mut taken, mut new) = (Vec::with_capacity(transfers.len()), Vec::new());
    for ((_, sum), run) in transfers.iter().zip(&runs) {
        taken.push(match records.get_mut(run.as_str()) {
            None => Taken::NoRun,
            Some(record) if record.moved_to != sum.from => Taken::Already { moved_to: record.moved_to },
            Some(record) => {
                record.advance(sum);
                new.push((run.as_str(), sum));
                Taken::Now
            }
        });
    }
    if !new.is_empty() {
        let changed: BTreeSet<&str> = new.iter().map(|(run, _)| *run).collect();
        let changed: Vec<&RunRecord> = changed.iter().filter_map(|run| records.get(*run)).collect();
        update_runs(&mut tx, &changed).await?;
        insert_extents(&mut tx, &extents_of(&new)).await?;
        join_finished(&mut tx, &new).await?;
        insert_frames(&mut tx, &new).await?;
        take_events(&mut tx, &new).await?;
        insert_annotations(&mut tx, &new).await?;
    }
    tx.commit().await?;
    Ok(taken)
}

/// Adds the run if it is not there.
async fn insert_run(conn: &mut PgConnection, record: &RunRecord) -> Result<(), StoreError> {
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
         ) VALUES (
             $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21
         )
         ON CONFLICT (run) DO NOTHING",
    )
    .bind(head.run.to_string())
    .bind(head.session.to_string())
    .bind(text::stored(&head.rig))
    .bind(text::stored(head.pipeline.as_str()))
    .bind(json_from_pinned(&head.pinned).to_string())
    .bind(text::stored(&head.resolved))
    .bind(json_from_outputs(&head.outputs).to_string())
    .bind(serde_json::json!(head.recorded).to_string())
    .bind(serde_json::json!(signals).to_string())
    .bind(text::stored(&head.engine))
    .bind(serde_json::json!(head.tags).to_string())
    .bind(text::stored(&head.notes))
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

/// The runs as they are, and nobody else's to change until the end of the transaction: a transaction of ours that was
/// given up, and may yet be committed, is waited for.
async fn lock_runs(
    conn: &mut PgConnection,
    runs: &[String],
) -> Result<HashMap<String, RunRecord>, StoreError> {
    let mut select = QueryBuilder::<Postgres>::new(SELECT_RUN);
    // In one order, so that two who take the same runs wait for each other and not in a ring.
    select.push(" WHERE run = ANY(").push_bind(runs).push(") ORDER BY run FOR UPDATE");
    let forms: Vec<RunForm> = select.build_query_as().fetch_all(conn).await?;
    let records = forms.into_iter().map(|form| form.record().map(text::run));
    records.map(|record| record.map(|record| (record.head.run.to_string(), record))).collect()
}

/// Writes how far the runs have come.
async fn update_runs(conn: &mut PgConnection, records: &[&RunRecord]) -> Result<(), StoreError> {
    let all = || records.iter().copied();
    let ints = |int: fn(&RunRecord) -> i64| all().map(int).collect::<Vec<i64>>();
    let maybe = |int: fn(&RunRecord) -> Option<i64>| all().map(int).collect::<Vec<Option<i64>>>();
    let texts = |text: fn(&RunRecord) -> String| all().map(text).collect::<Vec<String>>();
    let summaries: Vec<_> = all().map(|record| record.summary.as_deref().map(text::stored)).collect();
    sqlx::query(
        "UPDATE run SET
             moved_to = new.moved_to,
             state = new.state,
             recording = new.recording,
             t0_ns = new.t0_ns,
             first_bin = new.first_bin,
             end_bin = new.end_bin,
             bins = new.bins,
             skipped_bins = new.skipped_bins,
             last_ns = new.last_ns,
             ended_ns = new.ended_ns,
             summary = new.summary,
             segments = new.segments,
             settings = new.settings
         FROM unnest(
             $1::text[], $2::int8[], $3::text[], $4::text[], $5::int8[], $6::int8[], $7::int8[], $8::int8[],
             $9::int8[], $10::int8[], $11::int8[], $12::text[], $13::text[], $14::text[]
         ) AS new (
             run, moved_to, state, recording, t0_ns, first_bin, end_bin, bins,
             skipped_bins, last_ns, ended_ns, summary, segments, settings
         )
         WHERE run.run = new.run",
    )
    .bind(texts(|record| record.head.run.to_string()))
    .bind(ints(|record| record.moved_to))
    .bind(texts(|record| record.state.word().into()))
    .bind(texts(|record| record.recording.word().into()))
    .bind(maybe(|record| record.t0_ns))
    .bind(maybe(|record| record.first_bin.map(int_from)))
    .bind(maybe(|record| record.end_bin.map(int_from)))
    .bind(ints(|record| int_from(record.bins)))
    .bind(ints(|record| int_from(record.skipped_bins)))
    .bind(ints(|record| record.last_ns))
    .bind(maybe(|record| record.ended_ns))
    .bind(summaries)
    .bind(texts(|record| serde_json::json!(record.segments).to_string()))
    .bind(texts(|record| serde_json::json!(record.settings).to_string()))
    .execute(conn)
    .await?;
    Ok(())
}

/// An extent with its place.
type Placed<'a> = (&'a str, Track, &'a Extent);

fn extents_of<'a>(new: &[New<'a>]) -> Vec<Placed<'a>> {
    let mut placed = Vec::new();
    for &(run, sum) in new {
        for (track, extents) in &sum.extents {
            placed.extend(extents.iter().map(|extent| (run, *track, extent)));
        }
    }
    placed
}

async fn insert_extents(conn: &mut PgConnection, extents: &[Placed<'_>]) -> Result<(), StoreError> {
    if extents.is_empty() {
        return Ok(());
    }
    let ints = |int: fn(&Extent) -> i64| extents.iter().map(|(.., extent)| int(extent)).collect::<Vec<i64>>();
    sqlx::query(
        "INSERT INTO chunk (run, track, chunk, first_bin, n, dtype, row_bytes, bytes)
         SELECT *
         FROM unnest(
             $1::text[], $2::int4[], $3::int8[], $4::int8[], $5::int8[], $6::text[], $7::int8[], $8::bytea[]
         )",
    )
    .bind(extents.iter().map(|(run, ..)| *run).collect::<Vec<&str>>())
    .bind(extents.iter().map(|(_, track, _)| track.0).collect::<Vec<i32>>())
    .bind(ints(|extent| int_from(extent.chunk())))
    .bind(ints(|extent| int_from(extent.first_bin)))
    .bind(ints(|extent| i64::from(extent.n)))
    .bind(extents.iter().map(|(.., extent)| extent.dtype.word()).collect::<Vec<&str>>())
    .bind(ints(|extent| i64::from(extent.row_bytes)))
    .bind(extents.iter().map(|(.., extent)| &extent.bytes[..]).collect::<Vec<&[u8]>>())
    .execute(conn)
    .await?;
    Ok(())
}

#[derive(sqlx::FromRow)]
struct SplitForm {
    run: String,
    track: i32,
    chunk: i64,
    #[sqlx(flatten)]
    extent: ExtentForm,
}

/// Joins the rows of each chunk that can get no more bins: those before the last one, and the last if it is full or
/// the run has ended.
async fn join_finished(conn: &mut PgConnection, new: &[New<'_>]) -> Result<(), StoreError> {
    let closed: Vec<&str> = new.iter().filter(|(_, sum)| sum.close.is_some()).map(|(run, _)| *run).collect();
    let last = last_chunks(conn, &closed).await?;
    // By run and track: the first chunk that was added to, and one past the last that can get no more bins.
    let mut added: BTreeMap<(&str, i32), (i64, i64)> = BTreeMap::new();
    let mut add = |run, track: i32, first: i64, end: i64| {
        let (known_first, known_end) = added.entry((run, track)).or_insert((first, end));
        (*known_first, *known_end) = ((*known_first).min(first), (*known_end).max(end));
    };
    for &(run, sum) in new {
        for (track, extents) in &sum.extents {
            let (Some(first), Some(last)) = (extents.first(), extents.last()) else { continue };
            let end = last.chunk() + u64::from(last.fills_chunk());
            add(run, track.0, int_from(first.chunk()), int_from(end));
        }
    }
    for (run, track, chunk) in &last {
        add(run.as_str(), *track, *chunk, chunk + 1);
    }
    if added.is_empty() {
        return Ok(());
    }
    let split: Vec<SplitForm> = sqlx::query_as(include_str!("join_finished.sql"))
        .bind(added.keys().map(|(run, _)| *run).collect::<Vec<&str>>())
        .bind(added.keys().map(|(_, track)| *track).collect::<Vec<i32>>())
        .bind(added.values().map(|(first, _)| *first).collect::<Vec<i64>>())
        .bind(added.values().map(|(_, end)| *end).collect::<Vec<i64>>())
        .fetch_all(&mut *conn)
        .await?;
    let mut chunks: BTreeMap<(String, i32, i64), Vec<Extent>> = BTreeMap::new();
    for form in split {
        let place = (form.run, form.track, form.chunk);
        chunks.entry(place).or_default().push(form.extent.extent()?);
    }
    let mut joined = Vec::new();
    for (place, extents) in chunks {
        let before = extents.len();
        let extents = join(extents, true);
        if extents.len() < before {
            joined.push((place, extents));
        }
    }
    if joined.is_empty() {
        return Ok(());
    }
    let places = || joined.iter().map(|(place, _)| place);
    sqlx::query(
        "DELETE FROM chunk
         USING unnest($1::text[], $2::int4[], $3::int8[]) AS gone (run, track, chunk)
         WHERE chunk.run = gone.run AND chunk.track = gone.track AND chunk.chunk = gone.chunk",
    )
    .bind(places().map(|(run, ..)| run.as_str()).collect::<Vec<&str>>())
    .bind(places().map(|(_, track, _)| *track).collect::<Vec<i32>>())
    .bind(places().map(|(.., chunk)| *chunk).collect::<Vec<i64>>())
    .execute(&mut *conn)
    .await?;
    let mut extents = Vec::new();
    for ((run, track, _), whole) in &joined {
        extents.extend(whole.iter().map(|extent| (run.as_str(), Track(*track), extent)));
    }
    insert_extents(conn, &extents).await
}

/// The last chunk of each track of these runs.
async fn last_chunks(conn: &mut PgConnection, runs: &[&str]) -> Result<Vec<(String, i32, i64)>, StoreError> {
    if runs.is_empty() {
        return Ok(Vec::new());
    }
    Ok(sqlx::query_as("SELECT run, track, max(chunk) FROM chunk WHERE run = ANY($1) GROUP BY run, track")
        .bind(runs)
        .fetch_all(conn)
        .await?)
}

async fn insert_frames(conn: &mut PgConnection, new: &[New<'_>]) -> Result<(), StoreError> {
    let packs: Vec<_> = new
        .iter()
        .flat_map(|&(run, sum)| sum.frames.iter().map(move |(track, pack)| (run, *track, pack)))
        .collect();
    if packs.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO frame_chunk (run, track, first_at, n, bytes)
         SELECT *
         FROM unnest($1::text[], $2::int4[], $3::int8[], $4::int8[], $5::bytea[])",
    )
    .bind(packs.iter().map(|(run, ..)| *run).collect::<Vec<&str>>())
    .bind(packs.iter().map(|(_, track, _)| track.0).collect::<Vec<i32>>())
    .bind(packs.iter().map(|(.., pack)| int_from(pack.first_at)).collect::<Vec<i64>>())
    .bind(packs.iter().map(|(.., pack)| i64::from(pack.n)).collect::<Vec<i64>>())
    .bind(packs.iter().map(|(.., pack)| &pack.bytes[..]).collect::<Vec<&[u8]>>())
    .execute(conn)
    .await?;
    Ok(())
}

/// Folds the transfers' events into the entries that are there.
async fn take_events(conn: &mut PgConnection, new: &[New<'_>]) -> Result<(), StoreError> {
    let mut logs: HashMap<&str, (Vec<i64>, EventLog)> = HashMap::new();
    for (run, (ids, entries)) in last_entries(conn, new).await? {
        let Some(&(run, _)) = new.iter().find(|(one, _)| *one == run) else { continue };
        logs.insert(run, (ids, EventLog::resume(entries)));
    }
    for &(run, sum) in new.iter().filter(|(_, sum)| !sum.events.is_empty()) {
        let (_, log) = logs.entry(run).or_default();
        sum.events.iter().for_each(|notice| _ = log.push(notice));
    }
    // An entry that was there keeps its id and its place; a new one comes after all that were there.
    let (mut ids, mut changed, mut added) = (Vec::<i64>::new(), Vec::new(), Vec::new());
    for (run, (known, log)) in &logs {
        let (old, new) = log.entries.split_at(known.len());
        ids.extend(known);
        changed.extend(old);
        added.extend(new.iter().map(|entry| (*run, entry)));
    }
    if !changed.is_empty() {
        sqlx::query(
            "UPDATE event SET
                 from_bin = new.from_bin,
                 to_bin = new.to_bin,
                 count = new.count,
                 last_ns = new.last_ns,
                 detail = new.detail
             FROM unnest($1::int8[], $2::int8[], $3::int8[], $4::int8[], $5::int8[], $6::text[])
                 AS new (id, from_bin, to_bin, count, last_ns, detail)
             WHERE event.id = new.id",
        )
        .bind(ids)
        .bind(changed.iter().map(|entry| entry.from_bin.map(int_from)).collect::<Vec<_>>())
        .bind(changed.iter().map(|entry| entry.to_bin.map(int_from)).collect::<Vec<_>>())
        .bind(changed.iter().map(|entry| int_from(entry.count)).collect::<Vec<_>>())
        .bind(changed.iter().map(|entry| entry.last_ns).collect::<Vec<_>>())
        .bind(changed.iter().map(|entry| text::stored(&entry.detail)).collect::<Vec<_>>())
        .execute(&mut *conn)
        .await?;
    }
    insert_events(conn, &added).await
}

/// The last entry of each kind and signal that events have come of, with its id, by run: only those can take more.
async fn last_entries(
    conn: &mut PgConnection,
    new: &[New<'_>],
) -> Result<HashMap<String, (Vec<i64>, Vec<EventEntry>)>, StoreError> {
    let mut keys = BTreeSet::new();
    for &(run, sum) in new {
        for notice in &sum.events {
            keys.insert((run, notice.kind.word(), signal_text(notice.signal.as_ref())));
        }
    }
    if keys.is_empty() {
        return Ok(HashMap::new());
    }
    let found: Vec<EntryForm> = sqlx::query_as(
        "SELECT
             run,
             last.*
         FROM unnest($1::text[], $2::text[], $3::text[]) AS key (run, kind, signal)
         CROSS JOIN LATERAL (
             SELECT
                 id,
                 kind,
                 signal,
                 from_bin,
                 to_bin,
                 count,
                 first_ns,
                 last_ns,
                 detail
             FROM event
             WHERE event.run = key.run AND event.kind = key.kind AND event.signal = key.signal
             ORDER BY id DESC
             LIMIT 1
         ) AS last",
    )
    .bind(keys.iter().map(|(run, ..)| *run).collect::<Vec<&str>>())
    .bind(keys.iter().map(|(_, kind, _)| *kind).collect::<Vec<&str>>())
    .bind(keys.iter().map(|(.., signal)| signal.clone()).collect::<Vec<_>>())
    .fetch_all(conn)
    .await?;
    let mut entries: HashMap<String, (Vec<i64>, Vec<EventEntry>)> = HashMap::new();
    for form in found {
        let (ids, known) = entries.entry(form.run).or_default();
        ids.push(form.event.id);
        known.push(text::event(form.event.entry()?));
    }
    Ok(entries)
}

#[derive(sqlx::FromRow)]
struct EntryForm {
    run: String,
    #[sqlx(flatten)]
    event: EventForm,
}

async fn insert_events(conn: &mut PgConnection, added: &[(&str, &EventEntry)]) -> Result<(), StoreError> {
    if added.is_empty() {
        return Ok(());
    }
    let entries = || added.iter().map(|(_, entry)| *entry);
    sqlx::query(
        "INSERT INTO event (run, kind, signal, from_bin, to_bin, count, first_ns, last_ns, detail)
         SELECT run, kind, signal, from_bin, to_bin, count, first_ns, last_ns, detail
         FROM unnest(
             $1::text[], $2::text[], $3::text[], $4::int8[], $5::int8[], $6::int8[], $7::int8[], $8::int8[],
             $9::text[]
         ) WITH ORDINALITY AS new (
             run, kind, signal, from_bin, to_bin, count, first_ns, last_ns, detail, place
         )
         ORDER BY place",
    )
    .bind(added.iter().map(|(run, _)| *run).collect::<Vec<&str>>())
    .bind(entries().map(|entry| entry.kind.word()).collect::<Vec<&str>>())
    .bind(entries().map(|entry| signal_text(entry.signal.as_ref())).collect::<Vec<_>>())
    .bind(entries().map(|entry| entry.from_bin.map(int_from)).collect::<Vec<_>>())
    .bind(entries().map(|entry| entry.to_bin.map(int_from)).collect::<Vec<_>>())
    .bind(entries().map(|entry| int_from(entry.count)).collect::<Vec<_>>())
    .bind(entries().map(|entry| entry.first_ns).collect::<Vec<_>>())
    .bind(entries().map(|entry| entry.last_ns).collect::<Vec<_>>())
    .bind(entries().map(|entry| text::stored(&entry.detail)).collect::<Vec<_>>())
    .execute(conn)
    .await?;
    Ok(())
}

/// A signal's name as it stands in an event; '' for none.
fn signal_text(signal: Option<&SignalName>) -> std::borrow::Cow<'_, str> {
    text::stored(signal.map_or("", SignalName::as_str))
}

async fn insert_annotations(conn: &mut PgConnection, new: &[New<'_>]) -> Result<(), StoreError> {
    let all: Vec<_> = new
        .iter()
        .flat_map(|&(run, sum)| sum.annotations.iter().map(move |annotation| (run, annotation)))
        .collect();
    if all.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO annotation (run, label, from_bin, to_bin, body)
         SELECT run, label, from_bin, to_bin, body
         FROM unnest($1::text[], $2::text[], $3::int8[], $4::int8[], $5::text[])
             WITH ORDINALITY AS new (run, label, from_bin, to_bin, body, place)
         ORDER BY place",
    )
    .bind(all.iter().map(|(run, _)| *run).collect::<Vec<&str>>())
    .bind(all.iter().map(|(_, annotation)| text::stored(&annotation.label)).collect::<Vec<_>>())
    .bind(all.iter().map(|(_, annotation)| int_from(annotation.from_bin)).collect::<Vec<_>>())
    .bind(all.iter().map(|(_, annotation)| int_from(annotation.to_bin)).collect::<Vec<_>>())
    .bind(all.iter().map(|(_, annotation)| text::stored(&annotation.body)).collect::<Vec<_>>())
    .execute(conn)
    .await?;
    Ok(())
}
