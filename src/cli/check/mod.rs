//! `hafailover check`: everything the daemon relies on, looked at without touching anything. What
//! systemd and a running daemon know is asked of them; below another root there are only files.

mod host;
mod live;
mod order;
mod units;

use crate::config::settings::{Link, LinkKind, Settings};
use crate::config::{self, load, target};
use crate::core::policy::{OnLost, OnSilence};
use crate::daemon::setup;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// What systemd and the adoption need after a crash, with some slack (measured in the lab).
const CRASH_RECOVERY: Duration = Duration::from_millis(500);
/// How late a busy machine may send, and again hear, without real-time scheduling, with slack:
/// a timer of 10 ms was up to 136 ms late on two busy cores, and up to 33 ms with it.
const LATE: Duration = Duration::from_millis(250);

/// Check the configuration and everything it relies on.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Look below this directory.
    #[arg(long, default_value = "/")]
    root: PathBuf,
    /// The host name to check for; else this host's.
    #[arg(long)]
    host: Option<String>,
    /// Print JSON lines.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Error,
    Warning,
    /// Worth knowing; nothing to mend.
    Note,
}

impl Level {
    fn word(self) -> &'static str {
        match self {
            Level::Error => "error",
            Level::Warning => "warning",
            Level::Note => "note",
        }
    }
}

#[derive(Default)]
struct Findings(Vec<(Level, String)>);

impl Findings {
    fn error(&mut self, words: impl Into<String>) {
        self.0.push((Level::Error, words.into()));
    }
    fn warn(&mut self, words: impl Into<String>) {
        self.0.push((Level::Warning, words.into()));
    }
    fn note(&mut self, words: impl Into<String>) {
        self.0.push((Level::Note, words.into()));
    }
}

pub fn run(args: Args) -> ExitCode {
    let mut findings = Findings::default();
    let host = args.host.unwrap_or_else(setup::hostname);
    look(&args.root, &host, &mut findings);
    findings.0.sort_by_key(|f| f.0);
    for (level, words) in &findings.0 {
        let word = level.word();
        if args.json {
            println!("{}", serde_json::json!({ "level": word, "finding": words }));
        } else {
            println!("{word}: {words}");
        }
    }
    match findings.0.first().map(|f| f.0) {
        None | Some(Level::Note) => {
            if !args.json {
                println!("nothing found");
            }
            ExitCode::SUCCESS
        }
        Some(Level::Error) => ExitCode::from(1),
        Some(Level::Warning) => ExitCode::from(2),
    }
}

fn look(root: &Path, host: &str, findings: &mut Findings) {
    let file = root.join("etc/hafailover/hafailover.toml");
    let settings = match config::load(&file, host) {
        Ok(settings) => settings,
        Err(error) => return findings.error(error.to_string()),
    };
    let keys = root.join(settings.keys.strip_prefix("/").unwrap_or(&settings.keys));
    if let Err(error) = config::keys::load(&keys) {
        findings.error(error);
    }
    let (groups, errors) = target::groups(root, &settings);
    errors.into_iter().for_each(|error| findings.error(error));
    if groups.is_empty() {
        findings.warn("no group is enabled: systemctl enable NAME.target, see hafailover.group(5)");
    }
    links(root, &settings, findings);
    let view = live::view(root);
    let real_time = host::look(root, view.as_ref().map(|(_, daemon)| daemon), findings);
    timing(&settings, real_time, findings);
    if let Some((view, _)) = &view {
        live::differences(view, findings);
    }
    let (targets, _) = target::find(root);
    for target in &targets {
        units::look(root, target, findings);
        let parts = live::parts(root, order::parts(root, target));
        order::look(root, target, &parts, findings);
        if let Some(group) = groups.get(&target.name) {
            order::budget(&settings, &target.name, &group.policy, &parts, findings);
        }
        let storage = target.hard.iter().any(|u| u.ends_with(".mount"));
        if storage && !settings.silence_chosen {
            findings.error(format!(
                "{}: {} holds a file system: write silence = \"hold\" or silence = \"takeover\" \
                 in [safety]; see hafailover(7), \"What is promised\"",
                file.display(),
                target.name.unit()
            ));
        }
    }
}

/// The guard chain and the crash of a daemon against deadtime, with the arithmetic.
fn timing(settings: &Settings, real_time: bool, findings: &mut Findings) {
    let (timing, safety) = (&settings.timing, &settings.safety);
    let show = load::show;
    let advised = CRASH_RECOVERY * 2 + LATE * 2;
    if !real_time && timing.deadtime < advised {
        findings.warn(format!(
            "deadtime {}: without real-time a busy machine sends late and hears late, each by up \
             to {}, and a living node may be taken for dead: write deadtime = \"{}\" or more",
            show(timing.deadtime),
            show(LATE),
            show(advised)
        ));
    }
    if timing.deadtime < CRASH_RECOVERY * 2 {
        findings.warn(format!(
            "deadtime {} is less than twice what a crashed daemon needs to be back (about {}): a \
             crash alone may be taken for a death, and give two owners for a moment",
            show(timing.deadtime),
            show(CRASH_RECOVERY)
        ));
    }
    if safety.silence == OnSilence::Takeover && safety.guard_bound > timing.deadtime {
        findings.warn(format!(
            "a daemon that is lost for good: its guard has stopped the groups or reset the machine \
             after at most {}, a peer takes over after deadtime {}: for up to {} both may hold a \
             group whose stop hangs. A longer deadtime, or members that stop fast, narrow this",
            show(safety.guard_bound),
            show(timing.deadtime),
            show(safety.guard_bound - timing.deadtime)
        ));
    }
    if safety.on_lost == OnLost::Leave {
        findings.warn(
            "on-lost = \"leave\": unprotected; when the daemon is lost and a group does not stop, \
             it stays, and a peer must be told by a person",
        );
    }
}

fn links(root: &Path, settings: &Settings, findings: &mut Findings) {
    if settings.links.len() == 1 {
        findings.warn(
            "one link only: its loss cannot be told from the death of the peer; add one that \
             shares nothing with it, for example a serial line",
        );
    }
    let interface = |link: &Link| match &link.kind {
        LinkKind::Udp { interface, .. } => Some(interface.clone()),
        LinkKind::Serial { .. } => None,
    };
    let all: Vec<String> = settings.links.iter().filter_map(interface).collect();
    for (n, name) in all.iter().enumerate() {
        if all.iter().position(|other| other == name) != Some(n) {
            findings.warn(format!(
                "two links run over {name}: when that one cable fails, both fall silent at once, \
                 as they do when the peer dies; give one another interface"
            ));
        }
    }
    for link in &settings.links {
        let LinkKind::Serial { device, baud, ends } = &link.kind else { continue };
        if ends.0 != settings.me && ends.1 != settings.me {
            continue;
        }
        if let Err(words) = load::line_is_fast_enough(*baud, settings.timing.keepalive) {
            findings.warn(format!("{}: {words}", link.name));
        }
        let tty = device.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let getty = format!("etc/systemd/system/getty.target.wants/serial-getty@{tty}.service");
        if root.join(&getty).symlink_metadata().is_ok() {
            findings.error(format!(
                "{}: a login prompt runs on it: systemctl disable --now serial-getty@{tty}",
                link.name
            ));
        }
    }
}
