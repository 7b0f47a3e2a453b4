//! `latentd models`: a look at a repository without a server.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use super::{Models, parity};
use crate::domain::ids::Version;
use crate::registry;

/// Carries the command out.
pub fn run(command: Models) -> ExitCode {
    match command {
        Models::List { dir } => list(&dir),
        Models::Check { dir, parity } => check(&dir, parity),
        Models::Graph { model, version, models } => graph(&models, &model, version),
    }
}

/// Prints the table.
fn list(dir: &Path) -> ExitCode {
    match super::serve::engine_by_environment() {
        Ok(engine) => {
            print!("{}", registry::check::table(dir, engine).0);
            ExitCode::SUCCESS
        }
        Err(error) => super::fail(&*error),
    }
}

/// Prints the table, and plays the raw trials or says how many there are; a fault or a difference is exit code 1.
fn check(dir: &Path, plays: bool) -> ExitCode {
    let engine = match super::serve::engine_by_environment() {
        Ok(engine) => engine,
        Err(error) => return super::fail(&*error),
    };
    let (table, is_well) = registry::check::table(dir, Arc::clone(&engine) as _);
    print!("{table}");
    let agrees = match plays {
        true => super::in_runtime(async {
            match parity::run(dir, engine, &mut std::io::stdout()).await {
                Ok(true) => ExitCode::SUCCESS,
                Ok(false) => ExitCode::FAILURE,
                Err(error) => super::fail(&error),
            }
        }),
        false => trials(dir),
    };
    if is_well { agrees } else { ExitCode::FAILURE }
}

/// Says how many versions have a raw trial.
fn trials(dir: &Path) -> ExitCode {
    // Why silent without one: the table has said what is wrong with the repository.
    if let Ok(versions) = parity::versions(dir)
        && !versions.is_empty()
    {
        let with = versions.iter().filter(|version| parity::trial::is_there(version)).count();
        println!("{with} of {} versions have a raw trial (--parity plays them)", versions.len());
    }
    ExitCode::SUCCESS
}

/// Writes the graph's bytes, as they are run, to stdout.
fn graph(dir: &Path, model: &str, number: Option<u32>) -> ExitCode {
    let listing = match registry::scan::look(dir) {
        Ok(listing) => listing,
        Err(finding) => return super::fail(&registry::Findings(vec![finding])),
    };
    let version = match listing.version_dir(model, number.map(Version)) {
        Ok(version) => version,
        Err(lookup) => return super::fail(&lookup),
    };
    match registry::version::read(&version) {
        Ok(version) => match std::io::stdout().write_all(&version.bytes.onnx) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => super::fail(&error),
        },
        Err(findings) => super::fail(&findings),
    }
}
