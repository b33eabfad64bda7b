//! `hafailover history`: what happened, as this node's journal tells it.

mod entry;
mod failover;
mod local;

use super::client;
use crate::core::say::What;
use entry::{Entry, Fields};
use failover::{Line, pair};
use std::path::PathBuf;
use std::process::{Command, ExitCode};

/// Entries read for each line wanted: one failover has several.
const ENTRIES: usize = 8;

/// Show past failovers as the journal tells them.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only this group (what concerns no single group is left out).
    #[arg(long)]
    group: Option<String>,
    /// Only the last so many.
    #[arg(short, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..))]
    n: u32,
    /// Since a time as journalctl(1) takes it.
    #[arg(long)]
    since: Option<String>,
    /// Another journal than this machine's.
    #[arg(long)]
    directory: Option<PathBuf>,
    /// Print JSON lines.
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> ExitCode {
    let out = match query(&args).output() {
        Ok(out) if out.status.success() => out,
        Ok(out) => {
            let words = String::from_utf8_lossy(&out.stderr);
            return super::fail(&format!("journalctl: {}", words.trim()), 1, args.json);
        }
        Err(e) => {
            let words = format!("journalctl cannot be run: {e}: it is a part of systemd");
            return super::fail(&words, 1, args.json);
        }
    };
    let text = String::from_utf8_lossy(&out.stdout);
    let fields = text.lines().filter_map(|line| serde_json::from_str::<Fields>(line).ok());
    let mut entries: Vec<Entry> = fields.map(|fields| Entry::of(&fields)).collect();
    entries.reverse();
    let lines = shown(pair(entries), args.n as usize);
    for line in &lines {
        match args.json {
            true => println!("{}", line.json()),
            false => print!("{}", line.render()),
        }
    }
    if lines.is_empty() && !args.json {
        eprintln!(
            "hafailover: the journal that you may read has no such entry: use sudo, or look with \
             journalctl -t hafailover"
        );
    }
    ExitCode::SUCCESS
}

/// The last so many.
fn shown(mut lines: Vec<Line>, most: usize) -> Vec<Line> {
    lines.drain(..lines.len().saturating_sub(most));
    lines
}

/// journalctl does the choosing, by what the kernel attests: anybody may write the other fields,
/// only root is believed. Not by `_SYSTEMD_UNIT`, which is not yet known of a process that ended
/// at once.
fn query(args: &Args) -> Command {
    let mut journalctl = Command::new("journalctl");
    journalctl.args(["--quiet", "--all", "--output=json", "--reverse", "--lines"]);
    journalctl.arg((args.n as usize * ENTRIES).to_string());
    if let Some(since) = &args.since {
        journalctl.arg(format!("--since={since}"));
    }
    if let Some(directory) = &args.directory {
        journalctl.arg(format!("--directory={}", directory.display()));
    }
    journalctl.args(["_UID=0", "SYSLOG_IDENTIFIER=hafailover"]);
    if let Some(group) = args.group.as_deref().map(client::group) {
        journalctl.arg(format!("HAFAILOVER_GROUP={group}"));
    }
    let told = What::ALL.iter().filter(|w| is_history(**w));
    journalctl.args(told.map(|w| format!("HAFAILOVER_WHAT={}", w.key())));
    journalctl
}

/// What a person asks history for; the small steps between stay in the journal. A claim is a part
/// of a failover.
fn is_history(what: What) -> bool {
    let small = [
        What::GroupPhase,
        What::GroupPromised,
        What::ClaimWithdrawn,
        What::PeerLate,
        What::LinkUp,
        What::Reloaded,
    ];
    !small.contains(&what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_steps_are_not_history() {
        assert!(is_history(What::GroupStarted) && !is_history(What::GroupPhase));
    }
}
