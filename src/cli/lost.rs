//! `hafailover lost`.

use std::process::ExitCode;

/// Stop all groups because the daemon is lost (started by hafailover-lost.service).
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(_args: Args) -> ExitCode {
    ExitCode::from(2)
}
