//! The databases, looked at from beside the server, so that what is counted is what lies there.

use std::process::Command;

use latentd::store::FILE_NAME;

use crate::support::Setup;

/// What a query of the database file gives: rows of columns, as text. The server may run meanwhile.
pub fn sql(setup: &Setup, query: &str) -> Vec<Vec<String>> {
    // Why Python: only `store` knows a database library in Rust, and `make setup` needs Python anyway.
    const SCRIPT: &str = "import json, sqlite3, sys\n\
        db = sqlite3.connect(f'file:{sys.argv[1]}?mode=ro', uri=True, timeout=30)\n\
        print(json.dumps([[str(x) for x in row] for row in db.execute(sys.argv[2])]))";
    let file = setup.data().join(FILE_NAME);
    let told = Command::new("python3").arg("-c").arg(SCRIPT).arg(file).arg(query).output();
    let told = told.expect("python3 runs");
    assert!(told.status.success(), "{query}: {}", String::from_utf8_lossy(&told.stderr));
    serde_json::from_slice(&told.stdout).expect("the script prints JSON")
}

/// As `sql`, for one whole number; nothing summed up is 0.
pub fn count(setup: &Setup, query: &str) -> u64 {
    let found = sql(setup, query)[0][0].clone();
    if found == "None" { 0 } else { found.parse().unwrap_or_else(|_| panic!("{query}: {found}")) }
}

/// Recorded bins of a run in the library: those that have flags, which every recorded bin has.
pub async fn bins(setup: &Setup, run: &str) -> u64 {
    in_the_library(setup, &format!("SELECT sum(n) FROM chunk WHERE run = '{run}' AND track = -1")).await
}

/// Recorded frames of a run's first signal in the library.
pub async fn frames(setup: &Setup, run: &str) -> u64 {
    in_the_library(setup, &format!("SELECT sum(n) FROM frame_chunk WHERE run = '{run}' AND track = 0")).await
}

/// As `count`, of the library wherever it is.
async fn in_the_library(setup: &Setup, query: &str) -> u64 {
    match &setup.database {
        Some(database) => database.count(query).await,
        None => count(setup, query),
    }
}
