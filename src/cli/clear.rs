//! `hafailover clear`.

use super::client;
use crate::core::Command;
use std::process::ExitCode;

/// End a group's quarantine or stop by operator, and stop strays.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The group: files or files.target.
    group: String,
    /// Print the answers as JSON lines.
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> ExitCode {
    let group = client::group(&args.group);
    client::ask(client::command(Command::Clear { group }), args.json)
}
