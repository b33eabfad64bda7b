//! `hafailover retry`.

use super::client;
use crate::core::Command;
use std::process::ExitCode;

/// Try again to stop a Stuck group.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The group: files or files.target.
    group: String,
    #[command(flatten)]
    how: client::How,
}

pub fn run(args: Args) -> ExitCode {
    let group = client::group(&args.group);
    client::ask(client::command(Command::Retry { group }), args.how)
}
