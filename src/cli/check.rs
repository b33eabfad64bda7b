//! `hafailover check`: everything the daemon relies on, looked at without touching anything.

use crate::config::settings::{LinkKind, Settings};
use crate::config::target::{self, Target, UNIT_DIRS};
use crate::config::unit::UnitText;
use crate::config::{self, generator, load};
use crate::core::policy::{OnLost, OnSilence};
use crate::daemon::setup;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// What systemd and the adoption need after a crash, with some slack (measured in the lab).
const CRASH_RECOVERY: Duration = Duration::from_millis(500);

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
}

pub fn run(args: Args) -> ExitCode {
    let mut findings = Findings::default();
    let host = args.host.unwrap_or_else(setup::hostname);
    look(&args.root, &host, &mut findings);
    findings.0.sort_by_key(|f| f.0);
    for (level, words) in &findings.0 {
        let word = if *level == Level::Error { "error" } else { "warning" };
        if args.json {
            println!("{}", serde_json::json!({ "level": word, "finding": words }));
        } else {
            println!("{word}: {words}");
        }
    }
    match findings.0.first().map(|f| f.0) {
        None => {
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
    timing(&settings, findings);
    links(root, &settings, findings);
    let (targets, _) = target::find(root);
    for target in &targets {
        units(root, target, findings);
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
fn timing(settings: &Settings, findings: &mut Findings) {
    let (timing, safety) = (&settings.timing, &settings.safety);
    let show = load::show;
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
    for link in &settings.links {
        let LinkKind::Serial { device, baud } = &link.kind else { continue };
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

fn units(root: &Path, target: &Target, findings: &mut Findings) {
    let text = |unit: &str| UnitText::load(root, unit);
    if let Ok(Some(of)) = text(&target.name.unit()) {
        if let Some(bad) = of.last("Unit", "DefaultDependencies").filter(|a| a.value == "no") {
            findings.error(format!(
                "{}: DefaultDependencies=no on a target: systemd then calls it started while its \
                 members still start: remove it",
                bad.place()
            ));
        }
        for key in ["PartOf", "PropagatesStopTo", "JobTimeoutSec"] {
            if let Some(bad) = of.last("Unit", key) {
                findings.error(format!(
                    "{}: {key}= tears members down in no order, or cancels a job and not what it \
                     started: remove it",
                    bad.place()
                ));
            }
        }
    }
    for unit in target.hard.iter().chain(&target.soft) {
        match text(unit) {
            Err(error) => findings.error(error),
            Ok(None) if !fstab_has(root, unit) => findings.error(format!(
                "{}: there is no unit {unit}: install it, or correct its name",
                target.fragment.display()
            )),
            Ok(None) => findings.error(format!(
                "/etc/fstab: {unit} is a member of {} and would be mounted at boot: a failed gate \
                 there is emergency mode. Write noauto into its options",
                target.name.unit()
            )),
            Ok(Some(of)) => {
                if let Some(bad) = of.last("Unit", "JobTimeoutSec") {
                    findings.error(format!(
                        "{}: JobTimeoutSec= cancels the job, the unit still starts: use \
                         TimeoutStartSec=",
                        bad.place()
                    ));
                }
            }
        }
        if let Some(place) = enabled(root, unit) {
            findings.warn(format!(
                "{place}: {unit} is enabled at boot, where its gate will refuse it: systemctl \
                 disable {unit}; the cluster starts it"
            ));
        }
    }
    gates(root, target, findings);
}

/// Mount units that fstab makes, without `noauto`.
fn fstab_has(root: &Path, unit: &str) -> bool {
    let text = std::fs::read_to_string(root.join("etc/fstab")).unwrap_or_default();
    text.lines().filter(|l| !l.trim_start().starts_with('#')).any(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let name = words.get(1).map(|path| path.trim_matches('/').replace('/', "-") + ".mount");
        let auto = words.get(3).is_none_or(|o| o.split(',').all(|o| o != "noauto"));
        name.as_deref() == Some(unit) && auto
    })
}

fn enabled(root: &Path, unit: &str) -> Option<String> {
    let wants = ["multi-user.target.wants", "local-fs.target.wants", "sockets.target.wants"];
    let links = wants.iter().map(|w| root.join(UNIT_DIRS[0]).join(w).join(unit));
    links.into_iter().find(|l| l.symlink_metadata().is_ok()).map(|l| l.display().to_string())
}

/// What the generator has written must be what it would write now.
fn gates(root: &Path, target: &Target, findings: &mut Findings) {
    let out = root.join("run/systemd/generator");
    if !out.exists() {
        return;
    }
    let listed = target.settings.iter().any(|a| a.key == "Order" && a.value == "listed");
    for (unit, text) in generator::dropins(target, listed) {
        let path = out.join(format!("{unit}.d")).join(generator::DROPIN);
        if std::fs::read_to_string(&path).ok().as_deref() != Some(text.as_str()) {
            return findings.error(format!(
                "{}: the gate of {unit} is missing or old: systemctl daemon-reload",
                path.display()
            ));
        }
    }
}
