//! `latentd`: arguments to one command.

use std::process::ExitCode;

use clap::Parser as _;
use latentd::cli::Cli;
use latentd::lifecycle::process;

fn main() -> ExitCode {
    // SAFETY: no other thread has begun.
    unsafe { process::settle() };
    Cli::parse().run()
}
