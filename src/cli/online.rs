//! `hafailover online`.

use std::process::ExitCode;

/// Let a node in standby take groups again.
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(_args: Args) -> ExitCode {
    ExitCode::from(2)
}
