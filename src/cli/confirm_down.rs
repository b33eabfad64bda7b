//! `hafailover confirm-down`.

use std::process::ExitCode;

/// State that a node is off, so that its groups may be taken over.
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(_args: Args) -> ExitCode {
    ExitCode::from(2)
}
