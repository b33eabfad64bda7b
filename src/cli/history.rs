//! `hafailover history`: what happened, as this node's journal tells it.

use super::client;
use crate::core::say::What;
use crate::io::kernel;
use serde_json::Value;
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

type Entry = BTreeMap<String, Value>;

pub fn run(args: Args) -> ExitCode {
    let out = match query(&args).output() {
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
    let newest_first: Vec<Entry> =
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    for entry in newest_first.iter().rev() {
        if args.json {
            println!("{}", serde_json::to_string(&short(entry)).unwrap_or_default());
        } else {
            print!("{}", render(entry));
        }
    }
    ExitCode::SUCCESS
}

/// journalctl does the choosing, by what the kernel attests: anybody may write the other fields,
/// only root is believed. Not by `_SYSTEMD_UNIT`, which is not yet known of a process that ended
/// at once.
fn query(args: &Args) -> Command {
    let mut journalctl = Command::new("journalctl");
    journalctl.args(["--quiet", "--all", "--output=json", "--reverse", "--lines"]);
    journalctl.arg(args.n.to_string());
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

/// A field as text fit for a terminal: journalctl gives bytes as numbers where they are no text,
/// and names of files and processes in it may be anybody's.
fn field(entry: &Entry, name: &str) -> String {
    let byte = |v: &Value| v.as_u64().and_then(|n| u8::try_from(n).ok());
    let text = match entry.get(name) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(bytes)) => {
            let bytes: Vec<u8> = bytes.iter().filter_map(byte).collect();
            String::from_utf8_lossy(&bytes).into_owned()
        }
        _ => String::new(),
    };
    kernel::printable(&text)
}

/// What a person asks history for; the small steps between stay in the journal.
fn is_history(what: What) -> bool {
    let small = [
        What::GroupPhase,
        What::GroupClaimed,
        What::GroupPromised,
        What::ClaimWithdrawn,
        What::PeerLate,
        What::LinkUp,
        What::Reloaded,
    ];
    !small.contains(&what)
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
        assert!(is_history(What::GroupStarted) && !is_history(What::GroupPhase));
    }
}
