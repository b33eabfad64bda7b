//! `hafailover move`.

use super::client;
use crate::core::Command;
use std::process::ExitCode;

/// Move a group to another node, and wait for the result.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The group: files or files.target.
    group: String,
    /// Where to; else the first other node that may run it.
    #[arg(long)]
    to: Option<String>,
    #[command(flatten)]
    how: client::How,
}

pub fn run(args: Args) -> ExitCode {
    let to = args.to.as_deref().map(|to| client::node(Some(to))).transpose();
    let group = client::group(&args.group);
    client::ask(to.and_then(|to| client::command(Command::Move { group, to })), args.how)
}
