//! `hafailover check`.

use std::process::ExitCode;

/// Check the configuration and everything it relies on.
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(_args: Args) -> ExitCode {
    ExitCode::from(2)
}
