//! `hafailover adopt`.

use super::client;
use crate::core::Command;
use std::process::ExitCode;

/// Make members found running into the running group.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The group: files or files.target.
    group: String,
    #[command(flatten)]
    how: client::How,
}

pub fn run(args: Args) -> ExitCode {
    let group = client::group(&args.group);
    client::ask(client::command(Command::Adopt { group }), args.how)
}
