//! `hafailover history`: what happened, as this node's journal tells it.

use super::client;
use crate::core::say::What;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

/// Show past failovers as the journal tells them.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only this group.
    #[arg(long)]
    group: Option<String>,
    /// Only the last so many.
    #[arg(short, default_value_t = 30)]
    n: usize,
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

type Entry = BTreeMap<String, serde_json::Value>;

pub fn run(args: Args) -> ExitCode {
    let mut journalctl = Command::new("journalctl");
    journalctl.args(["-q", "-o", "json", "SYSLOG_IDENTIFIER=hafailover"]);
    if let Some(since) = &args.since {
        journalctl.arg(format!("--since={since}"));
    }
    if let Some(directory) = &args.directory {
        journalctl.arg(format!("--directory={}", directory.display()));
    }
    let out = match journalctl.output() {
        Ok(out) if out.status.success() => out,
        Ok(out) => {
            eprint!("hafailover: journalctl: {}", String::from_utf8_lossy(&out.stderr));
            return ExitCode::from(1);
        }
        Err(e) => {
            eprintln!("hafailover: journalctl cannot be run: {e}");
            return ExitCode::from(1);
        }
    };
    let text = String::from_utf8_lossy(&out.stdout);
    let group = args.group.as_deref().map(client::group);
    let entries: Vec<Entry> =
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let told = |e: &&Entry| {
        let of = field(e, "HAFAILOVER_GROUP");
        is_history(field(e, "HAFAILOVER_WHAT")) && group.as_ref().is_none_or(|g| g.0 == of)
    };
    let mut chosen: Vec<&Entry> = entries.iter().filter(told).collect();
    chosen.drain(..chosen.len().saturating_sub(args.n));
    for entry in chosen {
        if args.json {
            println!("{}", serde_json::to_string(&short(entry)).unwrap_or_default());
        } else {
            print!("{}", render(entry));
        }
    }
    ExitCode::SUCCESS
}

fn field<'a>(entry: &'a Entry, name: &str) -> &'a str {
    entry.get(name).and_then(|v| v.as_str()).unwrap_or_default()
}

/// What a person asks history for; the small steps between stay in the journal.
fn is_history(what: &str) -> bool {
    let small = [
        What::GroupPhase,
        What::GroupClaimed,
        What::GroupPromised,
        What::ClaimWithdrawn,
        What::PeerLate,
        What::LinkUp,
        What::Reloaded,
    ];
    !what.is_empty() && small.iter().all(|w| w.key() != what)
}

/// One line, and one with the phases and the evidence where there are any.
fn render(entry: &Entry) -> String {
    let micros: i64 = field(entry, "__REALTIME_TIMESTAMP").parse().unwrap_or_default();
    let mut out = String::new();
    let node = field(entry, "HAFAILOVER_NODE");
    let _ = writeln!(out, "{} {node:<10} {}", clock(micros), field(entry, "MESSAGE"));
    let mut more = Vec::new();
    let phases = [("noticed after", "DETECT"), ("stopped in", "STOP"), ("started in", "START")];
    for (word, name) in phases {
        let value = field(entry, &format!("HAFAILOVER_{name}_USEC"));
        if let Ok(usec) = value.parse::<f64>() {
            more.push(format!("{word} {:.3} s", usec / 1e6));
        }
    }
    for (word, name) in [("epoch", "EPOCH"), ("evidence", "EVIDENCE")] {
        let value = field(entry, &format!("HAFAILOVER_{name}"));
        if !value.is_empty() && field(entry, "HAFAILOVER_WHAT").starts_with("group-") {
            more.push(format!("{word} {value}"));
        }
    }
    if !more.is_empty() {
        let _ = writeln!(out, "{:30}{}", "", more.join(", "));
    }
    out
}

fn short(entry: &Entry) -> Entry {
    let keep = |name: &str| {
        name.starts_with("HAFAILOVER_") || matches!(name, "MESSAGE" | "__REALTIME_TIMESTAMP")
    };
    entry.iter().filter(|(name, _)| keep(name)).map(|(n, v)| (n.clone(), v.clone())).collect()
}

/// Date and time of day in UTC, from microseconds since 1970 (civil calendar after H. Hinnant's
/// days_from_civil, inverted).
fn clock(micros: i64) -> String {
    let seconds = micros.div_euclid(1_000_000);
    let days = seconds.div_euclid(86_400);
    let of_day = seconds.rem_euclid(86_400);
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + i64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}",
        of_day / 3600,
        of_day / 60 % 60,
        of_day % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_told_with_its_phases_and_evidence() {
        let text = r#"{"__REALTIME_TIMESTAMP":"1795233600000000","HAFAILOVER_NODE":"n2",
            "HAFAILOVER_WHAT":"group-started","HAFAILOVER_GROUP":"files","HAFAILOVER_EPOCH":"2.1",
            "HAFAILOVER_EVIDENCE":"n1=Silent(1.6s,2 links)","HAFAILOVER_DETECT_USEC":"1200000",
            "HAFAILOVER_START_USEC":"100000","MESSAGE":"files is started: well"}"#;
        let entry: Entry = serde_json::from_str(text).expect("JSON");
        let told = render(&entry);
        assert!(told.starts_with("2026-11-21 04:00:00 n2         files is started"), "{told}");
        assert!(told.contains("noticed after 1.200 s, started in 0.100 s, epoch 2.1"), "{told}");
        assert!(is_history("group-started") && !is_history("group-phase") && !is_history(""));
    }
}
