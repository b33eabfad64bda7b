//! `hafailover state`.

use std::process::ExitCode;

/// Create the state file of a new cluster.
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(_args: Args) -> ExitCode {
    ExitCode::from(2)
}
