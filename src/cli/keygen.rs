//! `hafailover keygen`.

use std::process::ExitCode;

/// Make a key file for the heartbeats.
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(_args: Args) -> ExitCode {
    ExitCode::from(2)
}
