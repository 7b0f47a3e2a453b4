//! `latentd models`: a look at a repository without a server.

use std::io::Write as _;
use std::process::ExitCode;

use super::Models;
use crate::config::{keys, process_env};
use crate::domain::ids::{ModelName, Version};
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
    let library = process_env(keys::ORT_DYLIB_PATH).map(std::path::PathBuf::from);
    let engine = match super::serve::engine(library.as_deref()) {
        Ok(engine) => engine,
        Err(error) => return super::fail(&error),
    };
    let (table, is_well) = registry::check::table(dir, engine);
    print!("{table}");
    if is_well || !strict { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Writes the graph's bytes, as they are run, to stdout.
fn graph(dir: &std::path::Path, model: &str, version: Option<u32>) -> ExitCode {
    match registry::version::graph_bytes(dir, &ModelName::from(model), version.map(Version)) {
        Ok(bytes) => match std::io::stdout().write_all(&bytes) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => super::fail(&error),
        },
        Err(findings) => super::fail(&findings),
    }
}
