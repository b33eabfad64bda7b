//! `hafailover history`.

use std::process::ExitCode;

/// Show past failovers as the journal tells them.
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(_args: Args) -> ExitCode {
    ExitCode::from(2)
}
