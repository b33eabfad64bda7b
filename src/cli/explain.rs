//! `hafailover explain`.

use std::process::ExitCode;

/// Explain why a group is where it is, and what would move it.
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(_args: Args) -> ExitCode {
    ExitCode::from(2)
}
