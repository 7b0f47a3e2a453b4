//! `latentd`: arguments to one command.

use std::process::ExitCode;

use clap::Parser as _;
use latentd::cli::Cli;

fn main() -> ExitCode {
    Cli::parse().run()
}
