//! `hafailover clear`.

use super::client;
use crate::core::Command;
use std::process::ExitCode;

/// End a group's quarantine or stop by operator, stop strays, and wait until it runs.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The group: files or files.target.
    group: String,
    #[command(flatten)]
    how: client::How,
}

pub fn run(args: Args) -> ExitCode {
    let group = client::group(&args.group);
    client::ask(client::command(Command::Clear { group }), args.how)
}
