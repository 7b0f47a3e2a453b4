//! What docs/OPERATIONS.md tells an operator to do for a back-up, done: the copy is made beside a server at work, and
//! another start serves from it.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use latentd::config::process_env;
use latentd::wire::v1;

use crate::library;
use crate::support::{Database, LIMIT, Latentd, Rig, Setup, counts, linear, recorded, until};

/// Runs a program of the system to its end, which must be a good one.
fn done(program: &str, arguments: &[&str]) {
    let ran = Command::new(program).args(arguments).output();
    let ran = ran.unwrap_or_else(|error| panic!("{program} (PostgreSQL's clients, Python): {error}"));
    assert!(ran.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&ran.stderr));
}

/// A recorded session of `bins` bins, answered and in the library.
async fn recorded_run(server: &Latentd, bins: usize) -> Rig {
    let rig = server.open(recorded(linear())).await;
    rig.send(counts(0, 0, &vec![[1.0, 2.0]; bins])).await;
    until(LIMIT, "the journal moved", || async {
        (library::count(&server.setup, "SELECT count(*) FROM journal") == 0).then_some(())
    })
    .await;
    rig
}

/// How a run stands, and what its output was.
async fn told(server: &Latentd, run: &str) -> (String, u64, String) {
    let info: v1::RunInfo = server.get(&format!("/v1/runs/{run}")).await.message();
    let outputs = server.get(&format!("/v1/runs/{run}/outputs/v")).await;
    assert_eq!(outputs.status, 200, "{}", outputs.text());
    (info.state, info.bins, outputs.text().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_the_embedded_library_made_beside_a_server_at_work_serves_what_had_been_recorded() {
    let server = Setup::new().key("chunk_s", 0.2).start().await;
    let ended = recorded_run(&server, 40).await;
    let ended_run = ended.run().to_owned();
    ended.close().await;
    let open = recorded_run(&server, 30).await;
    let (first, second) = (told(&server, &ended_run).await, told(&server, open.run()).await);

    let again = Setup::new();
    let [from, to] = [&server.setup, &again].map(|setup| setup.data().join("latentd.sqlite"));
    std::fs::create_dir_all(again.data()).expect("a data directory");
    // What `sqlite3 FILE ".backup COPY"` calls, by a program that is there wherever these tests run.
    let backup = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).backup(sqlite3.connect(sys.argv[2]))";
    let text = |path: &Path| path.to_str().expect("a path in UTF-8").to_owned();
    done("python3", &["-c", backup, &text(&from), &text(&to)]);
    open.send(counts(1, 30, &[[3.0, 4.0]; 10])).await;
    open.clone().close().await;
    server.stop().await;

    let again = again.start().await;
    assert_eq!(told(&again, &ended_run).await, first);
    let (state, bins, outputs) = told(&again, open.run()).await;
    assert_eq!(
        (state.as_str(), bins, outputs),
        ("interrupted", 30, second.2),
        "what came later is not in it"
    );
    let rig = recorded_run(&again, 5).await;
    rig.close().await;
    again.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgres_restored_from_a_dump_is_gone_on_with_and_lacks_only_what_came_after_it() {
    let database = Arc::new(Database::fresh(&process_env).await);
    let server = Setup::new().key("chunk_s", 0.2).library(&database, &database.url).start().await;
    let ended = recorded_run(&server, 40).await;
    let ended_run = ended.run().to_owned();
    ended.close().await;
    let goes_on = recorded_run(&server, 30).await;
    let first = told(&server, &ended_run).await;

    let folder = tempfile::tempdir().expect("a temporary folder");
    let dump = folder.path().join("latentd.dump");
    let dump = dump.to_str().expect("a path in UTF-8");
    // Behind it stand settings of the client's library.
    let (url, _) = database.url.split_once('?').unwrap_or((&database.url, ""));
    done("pg_dump", &["--format=custom", "--file", dump, url]);
    goes_on.send(counts(1, 30, &[[3.0, 4.0]; 10])).await;
    let later = recorded_run(&server, 20).await;
    let later_run = later.run().to_owned();

    let setup = server.stop().await;
    done("pg_restore", &["--clean", "--if-exists", "--dbname", url, dump]);
    let server = setup.start().await;
    assert_eq!(told(&server, &ended_run).await, first);
    let (state, bins, _) = told(&server, goes_on.run()).await;
    assert_eq!((state.as_str(), bins), ("interrupted", 30), "moved after the dump: gone with the database");
    server.get(&format!("/v1/runs/{later_run}")).await.refused().is(404, "not_found", &[&later_run]);
    let rig = recorded_run(&server, 5).await;
    let run = rig.run().to_owned();
    rig.close().await;
    assert_eq!(told(&server, &run).await.1, 5);
    server.stop().await;
}
