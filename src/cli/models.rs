//! `latentd models`: a look at a repository without a server.

use std::io::Write as _;
use std::process::ExitCode;

use super::Models;
use crate::domain::ids::Version;
use crate::registry;

/// Carries the command out.
pub fn run(command: Models) -> ExitCode {
    match command {
        Models::List { dir } => check(&dir, false),
        Models::Check { dir } => check(&dir, true),
        Models::Graph { model, version, models } => graph(&models, &model, version),
    }
}

/// Prints the table; with `strict`, a fault is exit code 1.
fn check(dir: &std::path::Path, strict: bool) -> ExitCode {
    let engine = match super::serve::engine_by_environment() {
        Ok(engine) => engine,
        Err(error) => return super::fail(&*error),
    };
    let (table, is_well) = registry::check::table(dir, engine);
    print!("{table}");
    if is_well || !strict { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Writes the graph's bytes, as they are run, to stdout.
fn graph(dir: &std::path::Path, model: &str, number: Option<u32>) -> ExitCode {
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
