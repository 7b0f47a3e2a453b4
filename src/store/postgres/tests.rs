//! The contract on PostgreSQL, and what only a library at a distance can do.

#[path = "../../../tests/it/support/cluster.rs"]
mod cluster;

use std::sync::Arc;

use super::*;
use crate::domain::output::EventKind;
use crate::store::library::contract::{Bench, library_contract};
use crate::store::record::Record;
use crate::store::run::RunHead;
use crate::store::testing::{bins, bins_of, event, head, row};
use crate::store::{NoMetrics, Store, StoreError};
use cluster::Database;

const LIMITS: PostgresLimits =
    PostgresLimits { connections: 4, connect: Duration::from_secs(5), statement: Duration::from_secs(20) };

fn at(url: &str) -> PostgresAt {
    PostgresAt { url: url.into(), password: None, limits: LIMITS }
}

async fn database() -> Database {
    Database::fresh(&crate::config::process_env).await
}

struct InADatabase {
    library: PostgresLibrary,
    database: Database,
}

impl Bench for InADatabase {
    async fn fresh() -> Self {
        let database = database().await;
        Self { library: PostgresLibrary::new(&at(&database.url)).unwrap(), database }
    }
    fn library(&self) -> &dyn Library {
        &self.library
    }
    async fn reopen(self) -> Self {
        self.library.close().await;
        Self { library: PostgresLibrary::new(&at(&self.database.url)).unwrap(), database: self.database }
    }
}

library_contract!(postgres, super::InADatabase);

async fn store_in(dir: &std::path::Path, database: &Database) -> Result<Store, StoreError> {
    Store::in_postgres(dir, 64 << 20, &at(&database.url), Arc::new(NoMetrics)).await
}

fn begun(head: &RunHead) -> Record {
    Record::Head(Box::new(head.clone()))
}

#[tokio::test]
async fn takers_of_the_same_rows_at_the_same_time_take_them_once() {
    let (bench, head) = (InADatabase::fresh().await, head());
    let other = PostgresLibrary::new(&at(&bench.database.url)).unwrap();
    let rows = |ord: i64, records: &[Record]| {
        let row = row(head.run, ord, ord as u64 * 100, records);
        let row = crate::store::journal::Row { ord, committed_ns: ord, records: row.records.into() };
        (head.run, Transfer::of(head.run, ord - 1, &[row]))
    };
    let first = [rows(1, &[begun(&head), bins(0, 10)])];
    let (a, b) = tokio::join!(bench.library.take(&first), other.take(&first));
    let mut taken = [a.unwrap()[0], b.unwrap()[0]];
    taken.sort_by_key(|taken| *taken != Taken::Now);
    assert_eq!(taken, [Taken::Now, Taken::Already { moved_to: 1 }]);
    for ord in 2..20 {
        let sums = [rows(ord, &[bins(ord as u64 * 10, 10), Record::Event(event(EventKind::Late, ord, 1))])];
        let (a, b, c) = tokio::join!(bench.library.take(&sums), other.take(&sums), bench.library.take(&sums));
        let taken = [a.unwrap()[0], b.unwrap()[0], c.unwrap()[0]];
        assert_eq!(taken.iter().filter(|taken| **taken == Taken::Now).count(), 1, "{taken:?}");
    }
    let record = bench.library.run(head.run).await.unwrap().unwrap();
    assert_eq!((record.bins, record.moved_to), (190, 19));
    let (_, events) = bench.library.events(head.run).await.unwrap().unwrap();
    assert_eq!(events.iter().map(|entry| entry.count).sum::<u64>(), 18);
    other.close().await;
}

#[tokio::test]
async fn queries_unite_library_and_journal_wherever_a_run_lies() {
    let (dir, database) = (tempfile::tempdir().unwrap(), database().await);
    let store = store_in(dir.path(), &database).await.unwrap();
    let head = head();
    let mut want = Vec::new();
    for at in 0..12u64 {
        let first = at * 3000 + at % 3;
        let records = [bins(first, 2900), Record::Event(event(EventKind::Gap, at as i64 * 4, first))];
        let records =
            if at == 0 { [vec![begun(&head)], records.to_vec()].concat() } else { records.to_vec() };
        store.journal().append(&[row(head.run, at as i64, at, &records)]).await.unwrap();
        want.extend(first..first + 2900);
        match at % 3 {
            0 => store.move_runs(&[head.run]).await.unwrap(),
            // Taken, and the journal's rows still there.
            1 => {
                let piece = store.next_piece(head.run).await.unwrap();
                store.library().take(&[(head.run, piece.sum)]).await.unwrap();
            }
            _ => {}
        }
        assert_eq!(bins_of(&store, head.run).await, want, "after row {at}");
        let events = store.events(head.run, Some(EventKind::Gap)).await.unwrap().unwrap();
        assert_eq!(events.iter().map(|entry| entry.count).sum::<u64>(), at + 1);
    }
    store.close().await;
}

#[tokio::test]
async fn the_tail_of_a_run_never_goes_to_another_library_than_its_beginning() {
    let (dir, database) = (tempfile::tempdir().unwrap(), database().await);
    let head = head();
    let embedded = crate::store::testing::store_in(dir.path()).await;
    embedded.journal().append(&[row(head.run, 0, 0, &[begun(&head), bins(0, 5)])]).await.unwrap();
    embedded.move_runs(&[head.run]).await.unwrap();
    embedded.journal().append(&[row(head.run, 1, 1, &[bins(5, 5)])]).await.unwrap();
    embedded.close().await;
    drop(embedded);
    let refused = store_in(dir.path(), &database).await.err().expect("rows of another library's run");
    says(&refused, &["1 rows", "`embedded`", "`postgres`"]);
    let embedded = crate::store::testing::store_in(dir.path()).await;
    embedded.recover().await.unwrap();
    assert_eq!(bins_of(&embedded, head.run).await, (0..10).collect::<Vec<_>>());
    embedded.close().await;
    drop(embedded);
    let store = store_in(dir.path(), &database).await.unwrap();
    store.library().probe().await.unwrap();
    store.close().await;
}

/// Checks what an error and its cause say.
fn says(error: &StoreError, parts: &[&str]) {
    let why = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    let said = format!("{error}: {why}");
    parts.iter().for_each(|part| assert!(said.contains(part), "`{part}` is not in: {said}"));
}

#[tokio::test]
async fn a_journal_with_rows_meets_no_other_library_and_one_without_takes_whichever_it_meets_first() {
    let (dir, database) = (tempfile::tempdir().unwrap(), database().await);
    let head = head();
    let store = store_in(dir.path(), &database).await.unwrap();
    store.journal().append(&[row(head.run, 0, 0, &[begun(&head), bins(0, 5)])]).await.unwrap();
    store.move_runs(&[head.run]).await.unwrap();
    let fed = database.text("SELECT id FROM library_identity").await;
    // In the middle of a start, and without rows: the run goes on.
    database.recreate().await;
    let met = async || loop {
        match store.library().probe().await {
            // The connections that were cut are an absence, which is believed for a moment.
            Err(StoreError::Away { .. }) => tokio::time::sleep(Duration::from_millis(50)).await,
            met => break met.expect_err("another library"),
        }
    };
    let refused = met().await;
    let found = database.text("SELECT id FROM library_identity").await;
    says(&refused, &["another library", &fed, &found, "0 rows"]);
    store.journal().append(&[row(head.run, 1, 1, &[bins(5, 5)])]).await.unwrap();
    for _ in 0..2 {
        let refused = store.move_runs(&[head.run]).await.unwrap_err();
        assert!(matches!(refused, StoreError::OtherLibrary { .. }), "{refused:?}");
        assert_eq!(refused.fault().kind, crate::error::Kind::Unavailable);
    }
    assert!(store.journal().has(head.run));
    store.close().await;
    drop(store);
    let refused = store_in(dir.path(), &database).await.err().expect("a row is left");
    says(&refused, &["another library", &fed, &found, "1 rows"]);

    // As from a dump: the identity of the one before, wherever it lies.
    database.execute(&format!("UPDATE library_identity SET id = '{fed}'")).await;
    let store = store_in(dir.path(), &database).await.unwrap();
    // The run's beginning is not in this dump.
    store.recover().await.unwrap();
    assert_eq!(store.journal().bytes(), 0);
    store.close().await;
    drop(store);
    database.execute(&format!("UPDATE library_identity SET id = '{found}'")).await;
    let store = store_in(dir.path(), &database).await.unwrap();
    store.library().probe().await.unwrap();
    store.close().await;
}

#[tokio::test]
async fn a_role_that_may_not_change_the_schema_serves_once_another_has_migrated() {
    let (dir, database) = (tempfile::tempdir().unwrap(), database().await);
    at(&database.url).migrate().await.unwrap();
    let role = format!("latentd_test_{}", uuid::Uuid::new_v4().simple());
    let rights = format!(
        "CREATE ROLE {role}; GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}"
    );
    database.execute(&rights).await;
    let joint = if database.url.contains('?') { '&' } else { '?' };
    let url = format!("{}{joint}options=-c%20role%3D{role}", database.url);
    let store = Store::in_postgres(dir.path(), 64 << 20, &at(&url), Arc::new(NoMetrics)).await.unwrap();
    let head = head();
    store.journal().append(&[row(head.run, 0, 0, &[begun(&head), bins(0, 5)])]).await.unwrap();
    let moved = store.move_runs(&[head.run]).await;
    store.close().await;
    let bins = database.count("SELECT sum(bins) FROM run").await;
    database.execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
    assert_eq!((moved.map_err(|error| error.to_string()), bins), (Ok(()), 5));
}

#[tokio::test]
async fn servers_that_start_together_bring_the_schema_up_once_and_a_newer_one_is_used_as_it_is() {
    let database = database().await;
    let place = at(&database.url);
    assert!(place.steps().await.unwrap().iter().all(|step| step.state == schema::StepState::Pending));
    let libraries: Vec<PostgresLibrary> = (0..4).map(|_| PostgresLibrary::new(&place).unwrap()).collect();
    for probed in futures::future::join_all(libraries.iter().map(Library::probe)).await {
        probed.unwrap();
    }
    assert!(place.steps().await.unwrap().iter().all(|step| step.state == schema::StepState::Applied));
    assert_eq!(database.count("SELECT count(*) FROM library_identity").await, 1);
    database.execute("INSERT INTO _sqlx_migrations VALUES (9000, 'later', now(), true, '\\x00', 0)").await;
    let later = PostgresLibrary::new(&place).unwrap();
    assert_eq!(later.mark(RunId::new()).await.unwrap(), None);
    database.execute("UPDATE _sqlx_migrations SET checksum = '\\x00' WHERE version = 1").await;
    let refused = PostgresLibrary::new(&place).unwrap().probe().await.unwrap_err();
    assert!(matches!(refused, StoreError::Migrate(_)), "{refused:?}");
}

#[tokio::test]
async fn a_statement_that_waits_too_long_is_given_up_by_the_server_and_worth_another_try() {
    let (bench, head) = (InADatabase::fresh().await, head());
    bench.library.probe().await.unwrap();
    let limits = PostgresLimits { statement: Duration::from_secs(1), ..LIMITS };
    let hasty = PostgresLibrary::new(&PostgresAt { limits, ..at(&bench.database.url) }).unwrap();
    let record = crate::store::journal::Row {
        ord: 1,
        committed_ns: 1,
        records: row(head.run, 1, 0, &[begun(&head)]).records.into(),
    };
    let sums = [(head.run, Transfer::of(head.run, 0, &[record]))];
    hasty.probe().await.unwrap();
    let mut lease = bench.library.connections.lease().await.unwrap();
    let mut held = lease.conn.begin().await.unwrap();
    sqlx::query("LOCK TABLE run").execute(&mut *held).await.unwrap();
    let refused = hasty.take(&sums).await.unwrap_err();
    assert!(refused.is_passing(), "{refused:?}");
    held.rollback().await.unwrap();
    assert_eq!(hasty.take(&sums).await.unwrap(), [Taken::Now]);
}

#[tokio::test]
async fn more_callers_than_connections_wait_for_their_turn() {
    let bench = InADatabase::fresh().await;
    let asked = (0..64).map(|_| bench.library.mark(RunId::new()));
    for found in futures::future::join_all(asked).await {
        assert_eq!(found.unwrap(), None);
    }
    let there = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'latentd'";
    let connections = bench.database.count(there).await;
    assert!((1..=4).contains(&connections), "{connections} connections");
}

#[tokio::test]
async fn a_caller_that_goes_away_takes_no_connection_with_it() {
    let (bench, head) = (InADatabase::fresh().await, head());
    let row = crate::store::journal::Row {
        ord: 1,
        committed_ns: 1,
        records: row(head.run, 1, 0, &[begun(&head)]).records.into(),
    };
    let sums = [(head.run, Transfer::of(head.run, 0, &[row]))];
    for i in 0..40 {
        let limit = Duration::from_micros(200 * i);
        let _ = tokio::time::timeout(limit, bench.library.take(&sums)).await;
    }
    let taken = bench.library.take(&sums).await.unwrap();
    assert!(matches!(taken[..], [Taken::Now | Taken::Already { moved_to: 1 }]), "{taken:?}");
    assert_eq!(bench.library.mark(head.run).await.unwrap(), Some(1));
}

#[tokio::test]
async fn nobody_listening_nobody_known_and_no_such_database_are_an_absence_told_at_once() {
    let database = database().await;
    let base = database.url.rsplit_once('/').unwrap().0;
    for (url, part) in [
        ("postgres://postgres@127.0.0.1:1/x".to_owned(), "refused"),
        (format!("{base}/latentd_no_such_database"), "3D000"),
    ] {
        let library = PostgresLibrary::new(&at(&url)).unwrap();
        let begun = std::time::Instant::now();
        let error = library.probe().await.unwrap_err();
        let fault = error.fault();
        assert!(matches!(error, StoreError::Away { .. }), "{error:?}");
        assert_eq!(fault.kind, crate::error::Kind::Unavailable);
        assert!(fault.detail.contains("the library is away") && fault.detail.contains(part), "{fault}");
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    }
    let bad = PostgresLibrary::new(&at("postgres://postgres@127.0.0.1:none/x")).err().unwrap();
    assert!(matches!(bad, StoreError::Address(_)), "{bad:?}");
}
