//! `hafailover daemon`.

use std::process::ExitCode;

/// Run the failover daemon (started by hafailover.service).
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(_args: Args) -> ExitCode {
    ExitCode::from(2)
}
