//! `hafailover confirm-down`.

use super::client;
use crate::core::Command;
use std::process::ExitCode;

/// State that a node is off, so that its groups may be taken over.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The node that is surely off.
    node: String,
    /// Print the answers as JSON lines.
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> ExitCode {
    let node = client::node(Some(&args.node));
    let confirm = |node| client::command(Command::ConfirmDown { node });
    client::ask(node.and_then(confirm), args.json)
}
