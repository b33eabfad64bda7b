//! `hafailover retry`.

use std::process::ExitCode;

/// Try again to stop a Stuck group.
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(_args: Args) -> ExitCode {
    ExitCode::from(2)
}
