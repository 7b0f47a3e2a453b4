//! The command line: one type per command, and what each does.
//! Enters: arguments. Leaves: one command with its settings as given, not yet proven (`config` does that for `serve`).
//! Owns: `--help`. Must hold: every key of the configuration is a flag of `serve`, by `config::keys`, not by hand.
//! Must not know: how a command is carried out (each has its file).

pub mod args; // the flags of each command
pub mod bench; // beside the floors
pub mod db; // the library's schema
pub mod keys; // API keys
pub mod demo; // rigs side by side
pub mod queries; // curl lines, and their proof
pub mod models; // a look at a repository
pub mod parity; // raw trials of its versions, played
pub mod ready; // a server asked whether it is ready
pub mod replay; // a recording played as a rig
pub mod serve; // the server

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::domain::caller::{Scope, Scopes};

pub use args::{BenchArgs, DbArgs, DemoArgs, ReadyArgs, ReplayArgs, ServeArgs, Speed};

/// latentd: frames of neural data in; latents, decoded behaviour and features out, bin by bin.
#[derive(Clone, Debug, Parser)]
#[command(name = "latentd", version, max_term_width = 110, arg_required_else_help = true)]
pub enum Cli {
    /// Serve the models of a repository to streamed neural data
    Serve(ServeArgs),
    /// Play two rigs through a server of its own, and show what they get
    Demo(DemoArgs),
    /// Play a recording through a server, as a rig would
    Replay(ReplayArgs),
    /// Measure a server of its own beside bare ones, as ratios
    Bench(BenchArgs),
    /// Ask a server whether it is ready; exit code 1 if it is not
    Ready(ReadyArgs),
    /// Look at a model repository
    #[command(subcommand)]
    Models(Models),
    /// Look at the library's schema, or bring it up to this version
    #[command(subcommand)]
    Db(Db),
    /// Make, list and revoke API keys; a running server sees it within two seconds
    #[command(subcommand)]
    Keys(Keys),
}

/// `latentd keys ...`
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Keys {
    /// Make a key, and write it to standard output, this once
    Create {
        /// What it is called, in lists and logs
        #[arg(long, value_name = "N")]
        name: String,
        /// What it may: stream, read, admin, with commas between them
        #[arg(long, value_name = "SCOPES", value_parser = scopes)]
        scopes: Scopes,
        /// Where the library is
        #[command(flatten)]
        library: DbArgs,
    },
    /// List all keys, also those that were revoked
    List {
        /// Where the library is
        #[command(flatten)]
        library: DbArgs,
    },
    /// Revoke a key: it lets nobody in any more, and what it has open ends
    Revoke {
        /// Its name or id
        #[arg(value_name = "NAME_OR_ID")]
        key: String,
        /// Where the library is
        #[command(flatten)]
        library: DbArgs,
    },
}

fn scopes(text: &str) -> Result<Scopes, String> {
    Scopes::parse(text).map_err(|word| format!("`{word}` is no scope; there are: {}", Scope::words()))
}

/// `latentd db ...`
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Db {
    /// Apply the migrations that the library does not have yet, as a start of the server would
    Migrate(DbArgs),
    /// List the migrations and which the library has; exit code 1 if one is missing. Changes nothing
    Status(DbArgs),
}

/// `latentd models ...`
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Models {
    /// List the models of a repository with their versions
    List {
        /// The model repository
        #[arg(value_name = "DIR", default_value = "models")]
        dir: std::path::PathBuf,
    },
    /// Check every model of a repository as the server would; exit code 1 if one has a fault
    Check {
        /// The model repository
        #[arg(value_name = "DIR", default_value = "models")]
        dir: std::path::PathBuf,
        /// Play each version's raw trial through a server too; where it differs, say the first place that does
        #[arg(long)]
        parity: bool,
    },
    /// Write the ONNX graph that is really run, to standard output
    Graph {
        /// The model's name
        model: String,
        /// Its version; by default the highest
        #[arg(long, value_name = "N")]
        version: Option<u32>,
        /// The model repository
        #[arg(long, value_name = "DIR", default_value = "models")]
        models: std::path::PathBuf,
    },
}

impl Cli {
    /// Carries the command out; its exit code is the process's.
    pub fn run(self) -> ExitCode {
        match self {
            Cli::Serve(args) => serve::run(&args),
            Cli::Demo(args) => demo::command::run(&args),
            Cli::Replay(args) => replay::command::run_args(&args),
            Cli::Bench(args) => bench::command::run(&args),
            Cli::Ready(args) => ready::run(&args),
            Cli::Models(command) => models::run(command),
            Cli::Keys(command) => keys::run(command),
            Cli::Db(command) => db::run(command),
        }
    }
}

/// Runs a command's future on a runtime of all cores.
fn in_runtime(work: impl Future<Output = ExitCode>) -> ExitCode {
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(work),
        Err(error) => fail(&error),
    }
}

/// Says what went wrong, with its causes, in one line on stderr.
fn fail(error: &dyn std::error::Error) -> ExitCode {
    // Why ignored: there may be nobody to read stderr; the exit code says it all the same.
    let _ = writeln!(std::io::stderr(), "latentd: {}", with_causes(error));
    ExitCode::FAILURE
}

/// An error with its causes, in one line.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut sentence = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        sentence.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    sentence
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_commands_fit_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_keys_commands_read_as_written() {
        let read = |line: &str| Cli::try_parse_from(line.split(' '));
        match read("latentd keys create --name rig-3 --scopes stream,read --data d").unwrap() {
            Cli::Keys(Keys::Create { name, scopes, library }) => {
                assert_eq!((name.as_str(), scopes.to_string().as_str()), ("rig-3", "stream,read"));
                assert_eq!(library.flags, [("data".to_owned(), "d".to_owned())]);
            }
            other => panic!("{other:?}"),
        }
        match read("latentd keys revoke rig-3").unwrap() {
            Cli::Keys(Keys::Revoke { key, .. }) => assert_eq!(key, "rig-3"),
            other => panic!("{other:?}"),
        }
        read("latentd keys list").unwrap();
        let refused = read("latentd keys create --name a --scopes write").unwrap_err().to_string();
        assert!(refused.contains("`write` is no scope; there are: stream, read, admin"), "{refused}");
        assert!(read("latentd keys create --name a").is_err(), "scopes are asked for");
    }

    #[test]
    fn the_models_commands_read_as_written() {
        let read = |line: &str| match Cli::try_parse_from(line.split(' ')).unwrap() {
            Cli::Models(models) => models,
            other => panic!("{other:?}"),
        };
        assert_eq!(read("latentd models check zoo"), Models::Check { dir: "zoo".into(), parity: false });
        let played = Models::Check { dir: "models".into(), parity: true };
        assert_eq!(read("latentd models check --parity"), played);
        assert_eq!(read("latentd models list"), Models::List { dir: "models".into() });
        let graph = Models::Graph { model: "gru".into(), version: Some(2), models: "models".into() };
        assert_eq!(read("latentd models graph gru --version 2"), graph);
    }
}
