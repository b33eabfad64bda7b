//! `hafailover standby`.

use super::client;
use crate::core::Command;
use std::process::ExitCode;

/// Take all groups off a node, wait for that, and give it none.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The node; else this one.
    node: Option<String>,
    #[command(flatten)]
    how: client::How,
}

pub fn run(args: Args) -> ExitCode {
    let node = client::node(args.node.as_deref());
    let standby = |node| client::command(Command::Standby { node, on: true });
    client::ask(node.and_then(standby), args.how)
}
