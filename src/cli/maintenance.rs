//! `hafailover maintenance`.

use super::client;
use crate::core::Command;
use std::process::ExitCode;

/// Watch, but touch nothing.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// on or off.
    #[arg(value_parser = ["on", "off"])]
    switch: String,
    /// One group; else the whole cluster.
    group: Option<String>,
    /// Print the answers as JSON lines.
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> ExitCode {
    let group = args.group.as_deref().map(client::group);
    let on = args.switch == "on";
    client::follow(client::command(Command::Maintenance { group, on }), args.json, false)
}
