//! `hafailover move`.

use std::process::ExitCode;

/// Move a group to another node, and wait for the result.
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(_args: Args) -> ExitCode {
    ExitCode::from(2)
}
