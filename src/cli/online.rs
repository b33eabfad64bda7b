//! `hafailover online`.

use super::client;
use crate::core::Command;
use std::process::ExitCode;

/// Let a node in standby take groups again.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The node; else this one.
    node: Option<String>,
    #[command(flatten)]
    how: client::How,
}

pub fn run(args: Args) -> ExitCode {
    let node = client::node(args.node.as_deref());
    let standby = |node| client::command(Command::Standby { node, on: false });
    client::ask(node.and_then(standby), args.how)
}
