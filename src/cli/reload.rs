//! `hafailover reload`.

use std::process::ExitCode;

/// Read the configuration again.
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(_args: Args) -> ExitCode {
    ExitCode::from(2)
}
