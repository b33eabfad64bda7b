//! The drop-ins of the groups (systemd.generator(7)): what gates every member and orders it after
//! the daemon. Reads files only; writes what it can even where something is wrong, because a
//! missing gate lets a stray start succeed.

use super::accepted::{self, Accepted};
use super::target::{Target, find};
use std::fmt::Write;
use std::path::Path;

/// The name of every drop-in written here; early, so that an administrator's own ones win.
pub const DROPIN: &str = "10-hafailover.conf";
/// Where the tokens are.
pub const TOKENS: &str = "/run/hafailover/owned";

/// Writes the drop-ins for all groups enabled below `root` into `out`. Returns what went wrong.
pub fn generate(root: &Path, out: &Path) -> Vec<String> {
    let last = Accepted::load(&root.join(accepted::FILE.trim_start_matches('/')));
    let found = find(root);
    let targets = last.unwrap_or_default().cover(&found);
    let mut errors: Vec<String> = found.wrong.into_iter().map(|w| w.words).collect();
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
    let mut all = Vec::new();
    let mut text = head.clone();
    let list = members.iter().map(|m| m.as_str()).collect::<Vec<_>>().join(" ");
    let _ = writeln!(text, "After={list}\nAssertPathExists={token}");
    all.push((target.name.unit(), text));
    let mut before: Option<&String> = None;
    for member in members {
        let mut text = head.clone();
        let _ = writeln!(text, "After=hafailover.service\nAssertPathExists={token}");
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
