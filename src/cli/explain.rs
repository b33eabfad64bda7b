//! `hafailover explain`: the core's own decision, in its own words.

use super::client;
use crate::core::view::{GroupView, View};
use std::fmt::Write;
use std::process::ExitCode;

/// Explain why a group is where it is, and what would move it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The group: files or files.target.
    group: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> ExitCode {
    let (view, _) = match client::view() {
        Ok(view) => view,
        Err(silent) => return client::complain(&silent, args.json),
    };
    let name = client::group(&args.group);
    let Some(group) = view.groups.iter().find(|g| g.name == name) else {
        let names: Vec<&str> = view.groups.iter().map(|g| g.name.0.as_str()).collect();
        let words = match names.is_empty() {
            true => format!("there is no group {name}: systemctl enable {} first", name.unit()),
            false => format!("there is no group {name}; there are: {}", names.join(", ")),
        };
        return super::fail(&words, 1, args.json);
    };
    match args.json {
        true => println!("{}", serde_json::to_string(group).unwrap_or_default()),
        false => print!("{}", render(&view, group)),
    }
    ExitCode::SUCCESS
}

fn render(view: &View, group: &GroupView) -> String {
    let owner = group.owner.map_or("no node", |n| view.node_name(n));
    let (name, me) = (&group.name, view.node_name(view.me));
    let mut out = format!("{name} runs on {owner}, epoch {}, seen from {me}\n", group.epoch);
    for line in &group.explanation {
        let _ = writeln!(out, "  {line}");
    }
    for line in &group.waits_for {
        let _ = writeln!(out, "  waits: {line}");
    }
    for line in &group.holders {
        let _ = writeln!(out, "  held by: {line}");
    }
    out
}
