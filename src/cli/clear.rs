//! `hafailover clear`.

use super::{client, fence};
use crate::core::Command;
use std::process::ExitCode;

/// End a group's quarantine or stop by operator, stop strays, and wait until it runs; or believe a
/// fence again.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The group: files or files.target.
    #[arg(required_unless_present = "fence", conflicts_with = "fence")]
    group: Option<String>,
    /// The node whose fence was mended.
    #[arg(long, value_name = "NODE")]
    fence: Option<String>,
    #[command(flatten)]
    how: client::How,
}

pub fn run(args: Args) -> ExitCode {
    let request = match (args.fence, args.group) {
        (Some(node), _) => fence::clear(&node),
        (None, group) => {
            let group = client::group(&group.unwrap_or_default());
            client::command(Command::Clear { group })
        }
    };
    client::ask(request, args.how)
}
