//! `hafailover confirm-down`.

use super::client;
use crate::core::Command;
use std::process::ExitCode;

/// State that a node is off, and wait until its groups are taken over.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The node that is surely off.
    node: String,
    #[command(flatten)]
    how: client::How,
}

pub fn run(args: Args) -> ExitCode {
    let node = client::node(Some(&args.node));
    let confirm = |node| client::command(Command::ConfirmDown { node });
    client::ask(node.and_then(confirm), args.how)
}
