//! `hafailover reload`.

use super::client;
use crate::wire::control::Request;
use std::process::ExitCode;

/// Read the configuration again.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print the answer as JSON.
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> ExitCode {
    client::follow(Ok(Request::Reload), args.json, false)
}
