//! `hafailover adopt`.

use std::process::ExitCode;

/// Make members found running into the running group.
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(_args: Args) -> ExitCode {
    ExitCode::from(2)
}
