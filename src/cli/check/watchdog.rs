//! The hardware watchdog of [arbiter]: whether there is one, and whether it can count as it is to.
//! It is not opened: it would count.

use super::Findings;
use crate::config::arbiter::Watchdog;
use crate::config::order;
use crate::config::settings::Settings;
use crate::config::unit::UnitText;
use crate::io::token;
use std::path::{Path, PathBuf};

/// What the kernel shows of a device (Documentation/ABI/testing/sysfs-class-watchdog of Linux).
struct Shown(PathBuf);

impl Shown {
    /// `/dev/watchdog` is the first of them.
    fn of(root: &Path, device: &Path) -> Option<Shown> {
        let name = device.file_name()?.to_str()?;
        let name = if name == "watchdog" { "watchdog0" } else { name };
        let dir = root.join("sys/class/watchdog").join(name);
        dir.is_dir().then_some(Shown(dir))
    }

    fn text(&self, key: &str) -> String {
        let text = std::fs::read_to_string(self.0.join(key)).unwrap_or_default();
        text.trim().to_string()
    }

    fn number(&self, key: &str) -> Option<u32> {
        self.text(key).parse().ok()
    }
}

pub fn look(root: &Path, settings: &Settings, findings: &mut Findings) {
    let Some(arbiter) = &settings.arbiter else {
        if !settings.all_fenced() {
            findings.note(
                "no watchdog: one lives on the leases of an [arbiter]; a machine that stands still \
                 as a whole for longer than deadtime, and goes on, writes until it has heard of \
                 the new owner",
            );
        }
        return;
    };
    if let Some(unit) = UnitText::load(root, "hafailover.service").ok().flatten() {
        let time = unit.last("Service", "WatchdogSec").and_then(|line| order::span(&line.value));
        arbiter.hangs(time).into_iter().for_each(|words| findings.error(words));
    }
    match settings.watchdog() {
        Some(watchdog) => device(root, &watchdog, findings),
        None => none(root, findings),
    }
}

fn none(root: &Path, findings: &mut Findings) {
    findings.note(
        "arbiter: no watchdog: a machine that stands still as a whole for longer than that, and \
         goes on, writes for a moment before it resets itself",
    );
    if Shown::of(root, Path::new("/dev/watchdog")).is_some() {
        findings.note(
            "this machine has a watchdog device: watchdog = \"10s\" in [arbiter] closes that gap, \
             if every node has one",
        );
    }
}

fn device(root: &Path, watchdog: &Watchdog, findings: &mut Findings) {
    let (path, seconds) = (watchdog.device.display(), watchdog.seconds);
    let Some(shown) = Shown::of(root, &watchdog.device) else {
        let node = root.join(watchdog.device.strip_prefix("/").unwrap_or(&watchdog.device));
        if node.exists() {
            return findings.note(format!("{path}: the kernel tells nothing of it: try it"));
        }
        return findings.error(format!(
            "{path}: there is no such watchdog device: load its driver (modprobe), correct \
             watchdog-device in [arbiter], or remove watchdog there on all nodes: no group starts \
             without it"
        ));
    };
    findings.note(format!("{path}: {}", shown.text("identity")));
    let least = shown.number("min_timeout").filter(|least| *least > seconds);
    let most = shown.number("max_timeout").filter(|most| (1..seconds).contains(most));
    if let Some(limit) = least.or(most) {
        findings.error(format!(
            "{path}: it cannot count {seconds} s: write watchdog = \"{limit}s\" in [arbiter], on \
             all nodes"
        ));
    }
    if shown.number("nowayout") == Some(1) {
        findings.note(format!(
            "{path}: it cannot be stopped (nowayout): once a group has run here it is fed on until \
             the machine goes down"
        ));
    } else if root == Path::new("/") && shown.text("state") == "active" && token::list().is_empty()
    {
        findings.warn(format!(
            "{path}: somebody else feeds it, and no group runs here: RuntimeWatchdogSec= of \
             systemd-system.conf(5) or another watchdog daemon: end that, or no group starts here"
        ));
    }
}
