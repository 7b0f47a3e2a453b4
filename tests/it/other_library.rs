//! A journal never feeds another library than the one it has fed while rows are left in it; and a library in PostgreSQL
//! that has no time at a stop.

use std::sync::Arc;

use latentd::wire::v1;

use crate::library;
use crate::postgres::{by_road, caught_up, database, readiness, says_away};
use crate::support::{Database, LIMIT, Latentd, Rig, Setup, counts, linear, recorded, says, server, until};

/// Rows that are left in the journal.
fn left(setup: &Setup) -> u64 {
    library::count(setup, "SELECT count(*) FROM journal")
}

/// Servers that move a run when it begins and when it ends, and not in between.
fn setup() -> Setup {
    Setup::new().key("chunk_s", 60)
}

/// A rig whose first five bins are in the library; the answers to come are durable.
async fn begun(server: &Latentd) -> Rig {
    let ask = v1::OpenRequest { ack: "durable".into(), ..recorded(linear()) };
    let rig = server.open(ask).await;
    until(LIMIT, "the run's beginning moved", || async {
        (server.get(&format!("/v1/runs/{}", rig.run())).await.status == 200 && left(&server.setup) == 0)
            .then_some(())
    })
    .await;
    rig.send(counts(0, 0, &[[1.0, 2.0]; 5])).await;
    rig
}

/// A start that must fail; answers what it said.
async fn refused(setup: &Setup, url: &str) -> String {
    let (data, models) = (setup.data(), setup.models());
    let [data, models] = [&data, &models].map(|path| path.to_str().expect("a path in UTF-8"));
    let doors = ["--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"];
    let folders = ["--data", data, "--models", models, "--database-url", url];
    let (code, _, said) = server::run(&[&["serve"], &doors[..], &folders[..]].concat()).await;
    assert_eq!(code, Some(1), "{said}");
    said
}

async fn identity(database: &Database) -> String {
    database.text("SELECT id FROM library_identity").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_on_another_database_is_refused_while_durable_bins_are_left_for_the_first() {
    let (first, second) = (database().await, database().await);
    let server = setup().library(&first, &first.url).start().await;
    let rig = begun(&server).await;
    let told = rig.send(counts(1, 5, &[[1.0, 2.0]; 5])).await;
    assert_eq!(told.durable_seq["spikes"], 1);
    let name = rig.run().to_owned();
    let stopped = server.kill().await;
    let waiting = left(&stopped);
    assert!(waiting > 0);

    let said = refused(&stopped, &second.url).await;
    let (fed, found) = (identity(&first).await, identity(&second).await);
    says(&said, &["another library", &fed, &found, &format!("{waiting} rows of the journal wait")]);
    let places = [&first.url, &second.url].map(|url| url.rsplit('/').next().expect("a name"));
    says(&said, &places.map(|place| place.split('?').next().expect("a name")));
    assert_eq!(left(&stopped), waiting, "nothing is moved or dropped");
    assert_eq!(second.count("SELECT count(*) FROM run").await, 0);

    let server = stopped.start().await;
    let info: v1::RunInfo = server.get(&format!("/v1/runs/{name}")).await.message();
    assert_eq!((info.state.as_str(), info.bins), ("interrupted", 10));
    let stopped = server.stop().await;

    // Without rows it goes wherever it is sent.
    let server = stopped.library(&second, &second.url).start().await;
    let rig = begun(&server).await;
    let name = rig.run().to_owned();
    rig.close().await;
    caught_up(&server).await;
    server.stop().await;
    assert_eq!(second.count(&format!("SELECT bins FROM run WHERE run = '{name}'")).await, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_made_anew_under_its_name_gets_nothing_that_waits_for_the_one_before() {
    let database = database().await;
    let (road, setup) = by_road(setup(), &database).await;
    let url = database.url_by("127.0.0.1", road.address.port());
    let server = setup.start().await;
    let rig = begun(&server).await;
    rig.send(counts(1, 5, &[[1.0, 2.0]; 5])).await;
    road.close();
    let stopped = server.kill().await;
    let waiting = left(&stopped);
    assert!(waiting > 0);

    // The first contact comes after the start.
    let server = stopped.start().await;
    says_away(&server).await;
    database.recreate().await;
    road.open();
    let told = until(LIMIT, "another library", || async {
        readiness(&server).await.degraded.into_iter().find(|why| why.contains("another library"))
    })
    .await;
    says(&told, &["recorded runs wait in the journal", &identity(&database).await]);
    assert!(!told.contains("127.0.0.1"), "no caller is told where it is: {told}");
    let rig = server.open(recorded(linear())).await;
    let answered = rig.send(counts(0, 0, &[[1.0, 2.0]; 5])).await;
    assert_eq!(answered.n, 5, "inference goes on");
    rig.close().await;
    server.get("/v1/runs").await.refused().is(503, "unavailable", &["another library"]);
    let stopped = server.stop().await;
    says(&stopped.log(), &["another library", "127.0.0.1"]);
    assert!(left(&stopped) > waiting, "what waited is there, and what came");
    assert_eq!(database.count("SELECT count(*) FROM run").await, 0);
    says(&refused(&stopped, &url).await, &["another library"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_made_anew_under_a_running_server_gets_no_tail_of_a_run_that_began_before() {
    let database = database().await;
    let server = setup().library(&database, &database.url).start().await;
    let rig = begun(&server).await;
    rig.send(counts(1, 5, &[[1.0, 2.0]; 5])).await;
    let waiting = left(&server.setup);
    assert!(waiting > 0);
    database.recreate().await;
    // The end of a run is moved at once, if it can be.
    rig.close().await;
    until(LIMIT, "another library", || async {
        readiness(&server).await.degraded.into_iter().find(|why| why.contains("another library"))
    })
    .await;
    let stopped = server.stop().await;
    assert!(left(&stopped) > waiting);
    assert_eq!(database.count("SELECT count(*) FROM run").await, 0);
}

/// Keeps everybody from the runs until it is let go.
async fn hold(database: &Arc<Database>) {
    let holder = Arc::clone(database);
    tokio::spawn(async move { holder.execute("BEGIN; LOCK TABLE run; SELECT pg_sleep(600)").await });
    until(LIMIT, "the lock", || async {
        let held = "SELECT count(*) FROM pg_locks WHERE relation = 'run'::regclass AND granted \
                    AND mode = 'AccessExclusiveLock'";
        (database.count(held).await == 1).then_some(())
    })
    .await;
}

async fn let_go(database: &Database) {
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
               WHERE datname = current_database() AND query LIKE '%pg_sleep(600)' AND pid <> pg_backend_pid()";
    database.execute(end).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_library_that_is_busy_at_the_stop_counts_as_one_that_is_away() {
    // It says that it is busy; and it would say so only when the stop has been given up long since.
    for statement_s in [1, 600] {
        let database = database().await;
        let setup = setup().library(&database, &database.url).key("database_statement_s", statement_s);
        let server = setup.start().await;
        let rig = begun(&server).await;
        hold(&database).await;
        let name = rig.run().to_owned();
        rig.close().await;
        // With exit code 0.
        let stopped = server.stop().await;
        assert!(left(&stopped) > 0);
        let_go(&database).await;
        let server = stopped.start().await;
        let info: v1::RunInfo = server.get(&format!("/v1/runs/{name}")).await.message();
        assert_eq!((info.state.as_str(), info.bins), ("closed", 5));
        server.stop().await;
    }
}
