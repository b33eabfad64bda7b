//! `hafailover check`: everything the daemon relies on, looked at without touching anything. What
//! systemd and a running daemon know is asked of them; below another root there are only files.

mod arbiter;
mod disk;
mod fence;
mod host;
mod line;
mod live;
mod order;
mod reserve;
mod sanlock;
mod units;
mod watchdog;

use crate::config::settings::{Link, LinkKind, Settings};
use crate::config::target::{self, Target};
use crate::config::{self, load};
use crate::core::name::GroupName;
use crate::core::policy::{OnLost, OnSilence, QuorumLost};
use crate::daemon::setup;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// What systemd and the adoption need after a crash, with some slack (measured in the lab).
const CRASH_RECOVERY: Duration = Duration::from_millis(500);
/// How late a busy machine may send, and again hear, without real-time scheduling, with slack:
/// a timer of 10 ms was up to 136 ms late on two busy cores, and up to 33 ms with it.
const LATE: Duration = Duration::from_millis(250);

/// From a daemon's last word to the first of its guard that is believed: five attempts to start it,
/// one after the other, the guard's start, and keepalive and a half (0.2 to 0.4 s in the lab).
const GUARD_HEARD: Duration = Duration::from_millis(600);

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
    fn add(&mut self, level: Level, words: impl Into<String>) {
        self.0.push((level, words.into()));
    }
    fn error(&mut self, words: impl Into<String>) {
        self.add(Level::Error, words);
    }
    fn warn(&mut self, words: impl Into<String>) {
        self.add(Level::Warning, words);
    }
    fn note(&mut self, words: impl Into<String>) {
        self.add(Level::Note, words);
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
    let view = live::view(root);
    let settings = match config::load(&file, host) {
        Ok(settings) => settings,
        Err(error) => {
            findings.error(error.to_string());
            return live::wrong(view.as_ref().map(|(_, daemon)| daemon), findings);
        }
    };
    let keys = root.join(settings.keys.strip_prefix("/").unwrap_or(&settings.keys));
    let keys = config::keys::load(&keys).map_err(|error| findings.error(error)).ok();
    let mut found = target::find(root);
    found.judge(&settings);
    found.wrong.iter().for_each(|wrong| findings.error(&wrong.words));
    if found.targets.is_empty() {
        findings.warn("no group is enabled: systemctl enable NAME.target, see hafailover.group(5)");
    }
    let names: Vec<GroupName> = found.targets.iter().map(|t| t.name.clone()).collect();
    links(root, &settings, &names, findings);
    fence::look(root, &settings, &found.targets, findings);
    let daemon = view.as_ref().map(|(_, daemon)| daemon);
    let real_time = host::look(root, daemon, findings);
    timing(&settings, real_time, findings);
    crash(&settings, &found.targets, findings);
    arbiter::look(root, &settings, keys, findings);
    watchdog::look(root, &settings, findings);
    live::wrong(daemon, findings);
    if let Some((view, _)) = &view {
        live::differences(view, findings);
    }
    if live::is_here(root, &settings) {
        disk::look(&settings, &found.targets, view.as_ref().map(|(view, _)| view), findings);
        reserve::look(&settings, &found.targets, findings);
    }
    arbiter::vouchers(&settings, &found.targets, findings);
    for target in &found.targets {
        units::look(root, target, findings);
        let parts = live::parts(root, order::parts(root, target));
        order::look(root, target, &parts, findings);
        if let Ok(group) = target::settle(target, &settings) {
            order::budget(&settings, target, &group.policy, &parts, findings);
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
    majority(settings, findings);
    if let Some(arbiter) = &settings.arbiter {
        findings.note(format!("leases: {}", arbiter.chain()));
    }
    if safety.on_lost == OnLost::Leave {
        findings.warn(
            "on-lost = \"leave\": unprotected; when the daemon is lost and a group does not stop, \
             it stays, and a peer must be told by a person",
        );
    }
}

/// A death is believed on silence alone, and nobody waits until the silent one has surely stopped.
fn by_silence(settings: &Settings) -> bool {
    let proven = settings.all_fenced() || settings.arbiter.is_some();
    let waits = settings.safety.quorum_lost == QuorumLost::Stop;
    settings.safety.silence == OnSilence::Takeover && !proven && !waits
}

/// A daemon that crashes, and is back or has its guard stop everything, must not look like a death,
/// least of all where that has a file system mounted twice.
fn crash(settings: &Settings, groups: &[Target], findings: &mut Findings) {
    let (deadtime, show) = (settings.timing.deadtime, load::show);
    if deadtime >= CRASH_RECOVERY * 2 {
        return;
    }
    if settings.all_fenced() {
        findings.warn(format!(
            "deadtime {} is less than twice what a crashed daemon needs to be back (about {}): a \
             crash alone may have its machine fenced: write deadtime = \"{}\" or more",
            show(deadtime),
            show(CRASH_RECOVERY),
            show(CRASH_RECOVERY * 2)
        ));
    }
    if !by_silence(settings) {
        return;
    }
    let mut words = format!(
        "deadtime {} is less than twice what a crashed daemon needs to be back (about {}): a \
         crash alone may be taken for a death, and give two owners for a moment",
        show(deadtime),
        show(CRASH_RECOVERY)
    );
    if deadtime <= GUARD_HEARD {
        words += &format!(
            ", and where it is lost for good, before its guard is heard (about {}), for up to {} = \
             guard-bound",
            show(GUARD_HEARD),
            show(settings.safety.guard_bound)
        );
    }
    let mut members = groups.iter().flat_map(|group| group.hard.iter().map(move |u| (group, u)));
    let mount = members.find(|(_, unit)| unit.ends_with(".mount"));
    match mount.filter(|_| deadtime <= GUARD_HEARD) {
        Some((group, mount)) => findings.error(format!(
            "{words}: {mount} of {} is then mounted on two nodes: write deadtime = \"{}\" or more, \
             or silence = \"hold\", or give every node a [[fence]], or the cluster an [arbiter]",
            group.name,
            show(CRASH_RECOVERY * 2)
        )),
        None => {
            let least = show(CRASH_RECOVERY * 2);
            findings.warn(format!("{words}: write deadtime = \"{least}\" or more"));
        }
    }
}

/// What a majority is here, and what it protects.
fn majority(settings: &Settings, findings: &mut Findings) {
    let nodes = settings.nodes.len();
    if nodes == 2 || settings.arbiter.is_some() {
        return;
    }
    let need = nodes / 2 + 1;
    let mut words = format!(
        "of {nodes} nodes {need} are a majority: {} may be lost before silence is acted on no \
         more",
        nodes - need
    );
    if nodes.is_multiple_of(2) {
        words += &format!(", no more than of {}", nodes - 1);
    }
    if settings.safety.quorum_lost == QuorumLost::Keep {
        words += "; an owner that is cut off from it runs on while it takes over (quorum-lost = \
                  \"keep\")";
    }
    findings.note(words);
}

fn links(root: &Path, settings: &Settings, groups: &[GroupName], findings: &mut Findings) {
    if settings.links.len() == 1 {
        findings.warn(
            "one link only: its loss cannot be told from the death of the peer; add one that \
             shares nothing with it, for example a serial line",
        );
    }
    for node in &settings.nodes {
        let there = config::load(&root.join(setup::CONFIG.trim_start_matches('/')), &node.name);
        shared_cables(&node.name, &there.map(|s| s.links).unwrap_or_default(), findings);
    }
    live::cables(root, settings, findings);
    live::devices(root, settings, findings);
    for link in &settings.links {
        let LinkKind::Serial { device, baud, ends } = &link.kind else { continue };
        if ends.0 != settings.me && ends.1 != settings.me {
            continue;
        }
        line::look(&link.name, *baud, settings, groups, findings);
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

/// An interface may be called otherwise on each node.
fn shared_cables(node: &str, links: &[Link], findings: &mut Findings) {
    let interface = |link: &Link| link.interface().map(String::from);
    let all: Vec<String> = links.iter().filter_map(interface).collect();
    for (n, name) in all.iter().enumerate() {
        if all.iter().position(|other| other == name) != Some(n) {
            findings.warn(format!(
                "two links run over {name} of {node} and count as one: when that one cable fails, \
                 both fall silent at once, as they do when the peer dies; give one another \
                 interface"
            ));
        }
    }
}
