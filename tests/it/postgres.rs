//! A library in PostgreSQL: what is recorded and asked, as with the embedded one; and what happens while it is away,
//! silent, cut off, or shared. The PostgreSQL itself is left alone: between it and the server stands a road.

use std::sync::Arc;
use std::time::{Duration, Instant};

use latentd::config::process_env;
use latentd::domain::ids::RunId;
use latentd::wire::v1;

use crate::durability::{Rigs, in_the_library, whole};
use crate::library;
use crate::recordings::Random;
use crate::support::{
    Cluster, Database, LIMIT, Latentd, Proxy, Setup, counts, linear, recorded, says, until, within,
};

/// Limits of these servers: short, so that a test of what is over them is short, too.
const CONNECT_S: f64 = 1.0;
const STATEMENT_S: f64 = 2.0;
/// What a call may take at most: its turn, a connection, the call itself; and a busy machine.
const AT_MOST: Duration = Duration::from_secs(8);

/// A fresh database.
pub async fn database() -> Arc<Database> {
    Arc::new(Database::fresh(&process_env).await)
}

/// A road to the database, and a setup whose server takes it.
pub async fn by_road(setup: Setup, database: &Arc<Database>) -> (Proxy, Setup) {
    let road = Proxy::to(&database.address()).await;
    let url = database.url_by("127.0.0.1", road.address.port());
    let setup = setup.library(database, &url);
    (road, setup.key("database_connect_s", CONNECT_S).key("database_statement_s", STATEMENT_S))
}

/// What `/readyz` says, which is always that the server is ready.
pub async fn readiness(server: &Latentd) -> v1::ReadyReply {
    let answer = server.get("/readyz").await;
    assert_eq!(answer.status, 200, "a library that is away does not make the server unready");
    latentd::wire::json::read(&answer.body).expect("readiness")
}

/// Waits until the server says that the library is away.
pub async fn says_away(server: &Latentd) {
    let told = until(LIMIT, "degraded", || async { readiness(server).await.degraded.first().cloned() }).await;
    says(&told, &["the library is away"]);
}

/// Waits until nothing is left in the journal and nothing amiss.
pub async fn caught_up(server: &Latentd) {
    until(LIMIT, "the journal moved, nothing degraded", || async {
        let left = library::count(&server.setup, "SELECT count(*) FROM journal");
        (left == 0 && readiness(server).await.degraded.is_empty()).then_some(())
    })
    .await;
}

/// Every call that needs the library is refused with 503, and soon.
async fn refuses_queries(server: &Latentd, run: &str) {
    for path in ["/v1/runs", &format!("/v1/runs/{run}"), &format!("/v1/runs/{run}/events")] {
        let begun = Instant::now();
        let refused = server.get(path).await.refused();
        refused.is(503, "unavailable", &["the library is away"]);
        assert!(begun.elapsed() < AT_MOST, "{path}: {:?}", begun.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_outputs_and_events_are_answered_as_by_the_embedded_library() {
    let database = database().await;
    let mut told = Vec::new();
    for setup in [Setup::new(), Setup::new().library(&database, &database.url)] {
        let server = setup.key("chunk_s", 0.2).start().await;
        let ask = v1::OpenRequest {
            rig: "rig\0one".into(),
            tags: vec!["a\"b".into(), "nul \0".into()],
            notes: "with \0".into(),
            gap: "skip".into(),
            ack: "durable".into(),
            ..recorded(linear())
        };
        let rig = server.open(ask).await;
        let run = rig.run().to_owned();
        for (seq, first) in (0..).zip([0u64, 40, 41, 300, 2000]) {
            let rows: Vec<[f32; 2]> = (0..if first == 40 { 1 } else { 30 })
                .map(|row| [(first + row) as f32, if row == 7 { f32::NAN } else { -1.5 }])
                .collect();
            rig.send(counts(seq, first, &rows)).await;
            // Some of it lies in the library by now, some in the journal.
            if first == 41 {
                caught_up(&server).await;
            }
        }
        let mut answers = Vec::new();
        for is_closed in [false, true] {
            if is_closed {
                rig.clone().close().await;
                caught_up(&server).await;
            }
            for query in ["", "?from=35&to=305", "?from=35&to=305&dims=1", "?dims=1,0&to=10", "?from=5&to=5"]
            {
                let answer = server.get(&format!("/v1/runs/{run}/outputs/v{query}")).await;
                answers.push((answer.status, answer.text().replace(&run, "RUN")));
            }
            let arrow = server.get(&format!("/v1/runs/{run}/outputs/v?format=arrow")).await;
            let bytes: String = arrow.body.iter().map(|byte| char::from(*byte)).collect();
            answers.push((arrow.status, bytes.replace(&run, "RUN")));
            let events: v1::EventsReply = server.get(&format!("/v1/runs/{run}/events")).await.message();
            let events =
                events.events.into_iter().map(|event| v1::Event { first_ns: 0, last_ns: 0, ..event });
            answers.push((0, format!("{:?}", events.collect::<Vec<_>>())));
            let info: v1::RunInfo = server.get(&format!("/v1/runs/{run}")).await.message();
            assert_eq!(info.rig, "rig\0one");
            answers.push((0, format!("{:?}", (info.bins, info.first_bin, info.state, info.recording))));
            for query in
                ["rig=rig%00one", "tag=nul%20%00", "tag=a%22b", "state=open", "state=closed", "rig=%00"]
            {
                let runs: v1::RunsReply = server.get(&format!("/v1/runs?{query}")).await.message();
                answers.push((0, format!("{query}: {}", runs.runs.len())));
            }
        }
        server.stop().await;
        told.push(answers);
    }
    for (embedded, postgres) in told[0].iter().zip(&told[1]) {
        assert_eq!(postgres, embedded);
    }
    assert_eq!(told[0].len(), told[1].len());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_called_durable_is_in_postgres_after_kill_9_at_any_moment() {
    let database = database().await;
    let mut random = Random(0x706f_7374);
    let mut server = Setup::bare().bundled().library(&database, &database.url).start().await;
    for kill in 1..=3 {
        let rigs = Rigs::start(&server, &["none", "none", "durable"]).await;
        rigs.have_answers(random.next() % 1_000).await;
        let setup = server.kill().await;
        server = setup.start().await;
        assert_eq!(library::count(&server.setup, "SELECT count(*) FROM journal"), 0, "the journal is moved");
        let mut found = 0;
        for rig in rigs.ended().await {
            let bins = in_the_library(&server, &rig).await;
            let promised = rig.account.durable_seq().map_or(0, |seq| seq + 1);
            assert!((promised..=rig.account.sent).contains(&bins), "{bins} bins, {promised} called durable");
            found += bins;
        }
        println!("kill {kill}: {found} bins in PostgreSQL");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_library_that_is_away_at_start_degrades_the_server_and_catches_up_when_it_comes() {
    let database = database().await;
    let (road, setup) = by_road(Setup::bare().bundled(), &database).await;
    road.close();
    let server = setup.start().await;
    says_away(&server).await;
    let rigs = Rigs::start(&server, &["none", "durable"]).await;
    rigs.have_answers(500).await;
    refuses_queries(&server, &RunId::new().to_string()).await;

    // Killed and started again while it is still away, by another way of being away.
    road.silence();
    let before = rigs;
    let setup = server.kill().await;
    let server = setup.start().await;
    says_away(&server).await;
    let before = before.ended().await;
    let rigs = Rigs::start(&server, &["durable"]).await;
    rigs.have_answers(100).await;

    road.open();
    until(LIMIT, "runs are answered", || async {
        (server.get("/v1/runs").await.status == 200).then_some(())
    })
    .await;
    for rig in rigs.leave().await {
        caught_up(&server).await;
        let info = whole(&server, &rig).await;
        assert_eq!((info.state.as_str(), info.bins), ("closed", rig.account.answered.len() as u64));
    }
    for rig in &before {
        let bins = in_the_library(&server, rig).await;
        let promised = rig.account.durable_seq().map_or(0, |seq| seq + 1);
        assert!((promised..=rig.account.sent).contains(&bins), "{bins} bins, {promised} called durable");
    }
    server.stop().await;
}

/// Rigs stream; the library says nothing for a while; queries are answered all the same, with 503; afterwards everything
/// is there once. Answers how many frames were answered in the meantime.
async fn silent_for(server: Latentd, road: &Proxy, silence: Duration, at_most: Duration) -> u64 {
    let rigs = Rigs::start(&server, &["none", "none", "durable"]).await;
    rigs.have_answers(300).await;
    let before = rigs.answered();
    road.silence();
    let begun = Instant::now();
    let mut slowest = Duration::ZERO;
    while begun.elapsed() < silence {
        // Several at once: more than there are connections.
        let asked = (0..12).map(|_| async {
            let begun = Instant::now();
            let answer = server.get("/v1/runs").await;
            (answer.status, begun.elapsed())
        });
        for (status, took) in futures::future::join_all(asked).await {
            assert_eq!(status, 503);
            slowest = slowest.max(took);
        }
        assert!(slowest < at_most, "{slowest:?}");
        assert!(readiness(&server).await.ready);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    says_away(&server).await;
    let meanwhile = rigs.answered() - before;
    road.open();
    let back = Instant::now();
    until(LIMIT, "runs are answered", || async {
        (server.get("/v1/runs").await.status == 200).then_some(())
    })
    .await;
    let back = back.elapsed();
    let rigs = rigs.leave().await;
    caught_up(&server).await;
    for rig in &rigs {
        let info = whole(&server, rig).await;
        assert_eq!((info.state.as_str(), info.bins), ("closed", rig.account.sent));
        assert_eq!(rig.account.answered.len() as u64, rig.account.sent);
    }
    println!(
        "silent for {silence:?}: {meanwhile} frames answered, slowest query {slowest:?}, back after {back:?}"
    );
    server.stop().await;
    meanwhile
}

#[tokio::test(flavor = "multi_thread")]
async fn a_library_that_falls_silent_holds_no_call_up_and_gets_everything_once_when_it_is_back() {
    let database = database().await;
    let (road, setup) = by_road(Setup::bare().bundled().key("database_connections", 3), &database).await;
    let server = setup.start().await;
    assert!(silent_for(server, &road, Duration::from_secs(6), AT_MOST).await > 500);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes a minute and a half: `make test-all`"]
async fn a_library_that_is_silent_for_a_minute_under_the_default_limits_is_no_matter() {
    let database = database().await;
    let road = Proxy::to(&database.address()).await;
    let url = database.url_by("127.0.0.1", road.address.port());
    let server = Setup::bare().bundled().library(&database, &url).start().await;
    silent_for(server, &road, Duration::from_secs(60), Duration::from_secs(20)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_cut_in_the_middle_of_moves_lose_and_double_nothing() {
    let database = database().await;
    let (road, setup) = by_road(Setup::bare().bundled().key("chunk_s", 0.05), &database).await;
    let server = setup.start().await;
    let rigs = Rigs::start(&server, &["none", "none", "durable"]).await;
    let mut random = Random(0x6375_7473);
    for cut in 1..=40 {
        rigs.have_answers(cut * 40).await;
        tokio::time::sleep(Duration::from_micros(random.next() % 20_000)).await;
        match cut % 8 {
            // PostgreSQL itself ends them, as when it is stopped and started.
            0 => {
                database
                    .execute(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                         WHERE datname = current_database() AND application_name = 'latentd'",
                    )
                    .await;
            }
            _ => road.cut().await,
        }
    }
    let rigs = rigs.leave().await;
    caught_up(&server).await;
    for rig in &rigs {
        let info = whole(&server, rig).await;
        assert_eq!((info.state.as_str(), info.bins), ("closed", rig.account.sent));
        assert!(rig.account.is_answered_in_order());
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgres_that_crashes_and_starts_again_under_load_leaves_inference_alone_and_lacks_nothing() {
    let Some(mut cluster) = Cluster::of_its_own(&process_env).await else {
        println!("not run: there are no programs of PostgreSQL here to start one that may crash");
        return;
    };
    let database = Arc::new(cluster.database().await);
    let server = Setup::bare().bundled().library(&database, &database.url).key("chunk_s", 0.05).start().await;
    let rigs = Rigs::start(&server, &["none", "none", "durable"]).await;
    for _ in 0..3 {
        rigs.have_answers(rigs.answered() + 300).await;
        cluster.crash();
        says_away(&server).await;
        rigs.have_answers(rigs.answered() + 300).await;
        refuses_queries(&server, &RunId::new().to_string()).await;
        cluster.run().await;
        until(LIMIT, "runs are answered", || async {
            (server.get("/v1/runs").await.status == 200).then_some(())
        })
        .await;
    }
    let rigs = rigs.leave().await;
    caught_up(&server).await;
    for rig in &rigs {
        let info = whole(&server, rig).await;
        assert_eq!((info.state.as_str(), info.bins), ("closed", rig.account.sent));
        assert!(rig.account.is_answered_in_order() && rig.account.refused.is_empty());
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_share_a_library_see_each_others_runs_and_end_only_their_own() {
    let database = database().await;
    let setup = || Setup::new().library(&database, &database.url);
    let (one, other) = tokio::join!(setup().start(), setup().start());
    let on_one = one.open(recorded(linear())).await;
    let on_other = other.open(recorded(linear())).await;
    for rig in [&on_one, &on_other] {
        rig.send(counts(0, 0, &[[1.0, 2.0]; 5])).await;
    }
    let listed = |server: &Latentd, state: &str| {
        let path = server.url(&format!("/v1/runs?state={state}"));
        let client = server.client.clone();
        async move {
            let answer = crate::support::Answer::of(client.get(path)).await;
            let runs: v1::RunsReply = answer.message();
            let mut runs: Vec<String> = runs.runs.into_iter().map(|run| run.run).collect();
            runs.sort();
            runs
        }
    };
    let mut both = vec![on_one.run().to_owned(), on_other.run().to_owned()];
    both.sort();
    for server in [&one, &other] {
        until(LIMIT, "both runs are listed", || async {
            (listed(server, "open").await == both).then_some(())
        })
        .await;
    }
    let setup = one.kill().await;
    let one = setup.start().await;
    assert_eq!(listed(&other, "interrupted").await, [on_one.run()]);
    assert_eq!(listed(&one, "open").await, [on_other.run()]);
    on_other.send(counts(1, 5, &[[1.0, 2.0]])).await;
    on_other.close().await;
    until(LIMIT, "closed", || async { (listed(&one, "closed").await.len() == 1).then_some(()) }).await;
    one.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_stopped_while_the_library_is_away_ends_well_and_the_next_start_moves_the_rest() {
    let database = database().await;
    let (road, setup) = by_road(Setup::new(), &database).await;
    let server = setup.start().await;
    let rig = server.open(recorded(linear())).await;
    rig.send(counts(0, 0, &[[1.0, 2.0]; 5])).await;
    caught_up(&server).await;
    road.close();
    rig.send(counts(1, 5, &[[1.0, 2.0]; 5])).await;
    let run = rig.run().to_owned();
    rig.close().await;
    let setup = server.stop().await;
    assert!(library::count(&setup, "SELECT count(*) FROM journal") > 0);
    assert_eq!(library::bins(&setup, &run).await, 5);
    road.open();
    let server = setup.start().await;
    let info: v1::RunInfo = server.get(&format!("/v1/runs/{run}")).await.message();
    assert_eq!((info.state.as_str(), info.bins), ("closed", 10));
    assert_eq!(library::bins(&server.setup, &run).await, 10);
    server.stop().await;
}

/// Runs the binary to its end; answers its exit code, what it said and what it complained of.
async fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_latentd"));
    command.env_clear().args(arguments).stdin(std::process::Stdio::null());
    let ended = within("the end of the binary", command.kill_on_drop(true).output()).await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (ended.status.code(), text(ended.stdout), text(ended.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn db_status_shows_the_migrations_of_both_libraries_and_db_migrate_applies_them() {
    let database = database().await;
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    for library in [["--database-url", &database.url], ["--data", data.to_str().unwrap()]] {
        let db = |verb: &'static str| [vec!["db", verb], library.to_vec()].concat();
        let (code, said, _) = run(&db("status")).await;
        assert_eq!(code, Some(1), "{said}");
        says(&said, &["library: ", "0001 spine", "pending"]);
        assert!(!data.exists(), "a look changes nothing");
        let (code, said, complained) = run(&db("migrate")).await;
        assert_eq!(code, Some(0), "{said}{complained}");
        let (code, said, _) = run(&db("status")).await;
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains("applied") && !said.contains("pending"), "{said}");
    }
    assert_eq!(database.count("SELECT count(*) FROM run").await, 0);
    let secret = "postgres://lab:geheim@127.0.0.1:1/latentd";
    let (code, said, complained) = run(&["db", "status", "--database-url", secret]).await;
    assert_eq!(code, Some(1));
    says(&complained, &["the library is away", "refused"]);
    assert!(!said.contains("geheim") && !complained.contains("geheim"), "{said}{complained}");
    let (code, _, complained) = run(&["db", "status", "--database-url", "postgres://127.0.0.1:none/x"]).await;
    assert_eq!(code, Some(1));
    says(&complained, &["address of the library's database", "port"]);
}
