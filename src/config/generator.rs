//! The drop-ins of the groups (systemd.generator(7)): what gates every member and orders it after
//! the daemon. Reads files only; writes what it can even where something is wrong, because a
//! missing gate lets a stray start succeed.

use super::accepted::{self, Accepted};
use super::target::{Target, drafts, find};
use std::fmt::Write;
use std::path::Path;

/// The name of every drop-in written here; early, so that an administrator's own ones win.
pub const DROPIN: &str = "10-hafailover.conf";
/// Where the tokens are.
pub const TOKENS: &str = "/run/hafailover/owned";

/// Members that reserve a disk: what is on it starts after them, and stops before them.
pub const RESERVE: &str = "hafailover-reserve@";

/// Writes the drop-ins for all groups enabled below `root` into `out`. Returns what went wrong.
pub fn generate(root: &Path, out: &Path) -> Vec<String> {
    let last = Accepted::load(&root.join(accepted::FILE.trim_start_matches('/')));
    let found = find(root);
    let (mut targets, mut errors) = drafts(root);
    let more = found.wrong.iter().map(|w| &w.words).filter(|words| !errors.contains(words));
    errors.extend(more.cloned().collect::<Vec<_>>());
    // Of a group with an error both: what it was, and what can be read of what it is to be.
    targets.retain(|draft| found.targets.iter().all(|t| t.name != draft.name));
    targets.extend(last.unwrap_or_default().cover(&found));
    for target in &targets {
        for (unit, text) in dropins(target, listed(target)) {
            let dir = out.join(format!("{unit}.d"));
            let written = std::fs::create_dir_all(&dir)
                .and_then(|()| std::fs::write(dir.join(DROPIN), &text));
            if let Err(e) = written {
                errors.push(format!("{}: {e}", dir.display()));
            }
        }
    }
    errors
}

/// `Order=listed`: the last assignment counts.
pub fn listed(target: &Target) -> bool {
    target.settings.iter().rfind(|a| a.key == "Order").is_some_and(|a| a.value == "listed")
}

/// Unit and text of each drop-in of one group.
pub fn dropins(target: &Target, listed: bool) -> Vec<(String, String)> {
    let token = format!("{TOKENS}/{}", target.name);
    let head = format!(
        "# Made by hafailover generator for {}; see hafailover.group(5).\n[Unit]\n",
        target.name.unit()
    );
    let members: Vec<&String> = target.hard.iter().chain(&target.soft).collect();
    // Nobody who isolates a target means the groups: their members would stop in no order.
    let gate = format!("AssertPathExists={token}\nIgnoreOnIsolate=yes");
    let mut all = Vec::new();
    let mut text = head.clone();
    let list = members.iter().map(|m| m.as_str()).collect::<Vec<_>>().join(" ");
    if !list.is_empty() {
        let _ = writeln!(text, "After={list}");
    }
    let _ = writeln!(text, "{gate}");
    all.push((target.name.unit(), text));
    let of_disks = |unit: &str| !["hafailover-ip@", RESERVE].iter().any(|t| unit.starts_with(t));
    let reserved: Vec<&str> =
        members.iter().map(|m| m.as_str()).filter(|m| m.starts_with(RESERVE)).collect();
    let mut before: Option<&String> = None;
    for member in members {
        let mut text = head.clone();
        let _ = writeln!(text, "After=hafailover.service\n{gate}");
        for disk in reserved.iter().filter(|_| of_disks(member)) {
            let _ = writeln!(text, "After={disk}");
        }
        if let Some(before) = before.filter(|_| listed) {
            let _ = writeln!(text, "After={before}");
        }
        if member.ends_with(".mount") {
            // Else: a cycle with local-fs.target, which systemd breaks by dropping that target.
            text.push_str(
                "DefaultDependencies=no\nConflicts=umount.target\nBefore=umount.target\n",
            );
        }
        before = Some(member);
        all.push((member.clone(), text));
    }
    all
}
