//! `hafailover status`.

use std::process::ExitCode;

/// Show nodes, links, groups, and who owns what on which evidence.
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(_args: Args) -> ExitCode {
    ExitCode::from(2)
}
