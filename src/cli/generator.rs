//! `hafailover generator`.

use std::process::ExitCode;

/// Write the drop-ins of the groups (started by systemd).
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(_args: Args) -> ExitCode {
    ExitCode::from(2)
}
