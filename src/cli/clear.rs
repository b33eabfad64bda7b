//! `hafailover clear`.

use std::process::ExitCode;

/// End a group's quarantine or stop by operator, and stop strays.
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(_args: Args) -> ExitCode {
    ExitCode::from(2)
}
