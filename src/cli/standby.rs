//! `hafailover standby`.

use std::process::ExitCode;

/// Take all groups off a node, and give it none.
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(_args: Args) -> ExitCode {
    ExitCode::from(2)
}
