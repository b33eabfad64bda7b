//! `hafailover maintenance`.

use std::process::ExitCode;

/// Watch, but touch nothing.
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(_args: Args) -> ExitCode {
    ExitCode::from(2)
}
