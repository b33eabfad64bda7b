//! `hafailover ip`.

use std::process::ExitCode;

/// Hold one address (started by hafailover-ip@.service).
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(_args: Args) -> ExitCode {
    ExitCode::from(2)
}
