//! `hafailover explain`: the core's own decision, in its own words.

use super::client;
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
        Err(silent) => return client::complain(&silent),
    };
    let name = client::group(&args.group);
    let Some(group) = view.groups.iter().find(|g| g.name == name) else {
        let names: Vec<&str> = view.groups.iter().map(|g| g.name.0.as_str()).collect();
        eprintln!("hafailover: there is no group {name}; there are: {}", names.join(", "));
        return ExitCode::from(1);
    };
    if args.json {
        println!("{}", serde_json::to_string(group).unwrap_or_default());
        return ExitCode::SUCCESS;
    }
    let owner = group.owner.map_or("no node", |n| view.node_name(n));
    println!(
        "{name} runs on {owner}, epoch {}, seen from {}",
        group.epoch,
        view.node_name(view.me)
    );
    for line in &group.explanation {
        println!("  {line}");
    }
    if !group.evidence.is_empty() {
        println!("  held here by {}", group.evidence.join(", "));
    }
    for line in &group.waits_for {
        println!("  waits: {line}");
    }
    ExitCode::SUCCESS
}
