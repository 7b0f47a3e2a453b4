//! `latentd db`: the library's schema without a server.

use std::process::ExitCode;

use super::Db;
use crate::config::{Config, process_env};
use crate::lifecycle::server::postgres_at;
use crate::store::schema::{Step, StepState};
use crate::store::{FILE_NAME, SqliteFile, StoreError, local_file};

/// Carries the command out.
pub fn run(command: Db) -> ExitCode {
    let (args, is_to_migrate) = match command {
        Db::Migrate(args) => (args, true),
        Db::Status(args) => (args, false),
    };
    let config = match Config::read(&args.flags, &process_env) {
        Ok(config) => config,
        Err(error) => return super::fail(&error),
    };
    super::in_runtime(async {
        match carry_out(&config, is_to_migrate).await {
            Ok((place, steps)) => {
                print!("{}", table(&place, &steps));
                let is_current = |step: &Step| matches!(step.state, StepState::Applied | StepState::Newer);
                if steps.iter().all(is_current) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
            }
            Err(error) => super::fail(&error),
        }
    })
}

/// Where the library is, and the steps of its schema at the end.
async fn carry_out(config: &Config, is_to_migrate: bool) -> Result<(String, Vec<Step>), StoreError> {
    match postgres_at(config) {
        Some(at) => {
            if is_to_migrate {
                at.migrate().await?;
            }
            Ok((at.place()?, at.steps().await?))
        }
        None => {
            let path = config.data.join(FILE_NAME);
            if is_to_migrate {
                local_file(&config.data, config.wal_limit_bytes).await?.close().await;
            }
            Ok((path.display().to_string(), SqliteFile::steps(&path).await?))
        }
    }
}

fn table(place: &str, steps: &[Step]) -> String {
    let lines = steps.iter().map(|step| {
        let state = match step.state {
            StepState::Applied => "applied",
            StepState::Pending => "pending",
            StepState::Changed => "applied, with another content than this version's",
            StepState::Newer => "applied by a newer version",
        };
        format!("  {:04} {:<16} {state}\n", step.number, step.name)
    });
    std::iter::once(format!("library: {place}\n")).chain(lines).collect()
}
