//! The unit files of a group: the target, its members, and the gates that the generator wrote.

use super::Findings;
use crate::config::generator;
use crate::config::target::{Target, UNIT_DIRS};
use crate::config::unit::UnitText;
use std::path::{Path, PathBuf};

pub fn look(root: &Path, target: &Target, findings: &mut Findings) {
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
                member(unit, &of, findings);
                conflicts(target, unit, &of, findings);
            }
        }
        for place in enabled(root, target, unit) {
            findings.warn(format!(
                "{place}: {unit} is started by something else than the cluster, and its gate will \
                 refuse that: systemctl disable {unit}; the cluster starts it"
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

/// What a member must not say of itself.
fn member(unit: &str, of: &UnitText, findings: &mut Findings) {
    let said = |section: &str, key: &str| of.last(section, key).map(|a| (a.value.as_str(), a));
    let yes = |value: &str| ["yes", "true", "on", "1"].contains(&value);
    if let Some((value, at)) = said("Mount", "LazyUnmount").filter(|(v, _)| yes(v)) {
        findings.error(format!(
            "{}: LazyUnmount={value}: {unit} would be gone from sight and still be written to: \
             remove it",
            at.place()
        ));
    }
    let oneshot = said("Service", "Type").filter(|(v, _)| *v == "oneshot");
    let stays = said("Service", "RemainAfterExit").is_some_and(|(v, _)| yes(v));
    if let Some((_, at)) = oneshot.filter(|_| !stays) {
        findings.error(format!(
            "{}: {unit} is a oneshot service that is not running once it is done: write \
             RemainAfterExit=yes",
            at.place()
        ));
    }
    if let Some((value, at)) = said("Service", "KillMode").filter(|(v, _)| *v == "none") {
        findings.warn(format!(
            "{}: KillMode={value} leaves processes of {unit} behind, which keep the group from \
             being released: remove it",
            at.place()
        ));
    }
}

/// A member that stops the group or another member by starting: systemd refuses to start both.
fn conflicts(target: &Target, unit: &str, of: &UnitText, findings: &mut Findings) {
    let own = target.name.unit();
    for at in of.list("Unit", "Conflicts") {
        let other = at.value.as_str();
        let advice = if other == own {
            "give the group another name"
        } else if target.hard.iter().chain(&target.soft).any(|m| m == other) {
            "leave one of them out"
        } else {
            continue;
        };
        findings.error(format!(
            "{}: Conflicts={other}: {unit} and {other} cannot run at the same time: {advice}",
            at.place()
        ));
    }
}

/// Where something else than its target pulls a member in: `NAME.wants` and `NAME.requires`.
fn enabled(root: &Path, target: &Target, unit: &str) -> Vec<String> {
    let own = target.name.unit();
    let dirs = UNIT_DIRS.iter().filter_map(|d| std::fs::read_dir(root.join(d)).ok());
    let pulls = |dir: &PathBuf| {
        let name = dir.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let by = name.strip_suffix(".wants").or(name.strip_suffix(".requires"));
        by.is_some_and(|by| by != own) && dir.join(unit).symlink_metadata().is_ok()
    };
    let found = dirs.flatten().flatten().map(|e| e.path()).filter(pulls);
    let mut places: Vec<String> = found.map(|d| d.join(unit).display().to_string()).collect();
    places.sort();
    places
}

/// What the generator has written must be what it would write now.
fn gates(root: &Path, target: &Target, findings: &mut Findings) {
    let out = root.join("run/systemd/generator");
    if !out.exists() {
        return;
    }
    for (unit, text) in generator::dropins(target, generator::listed(target)) {
        let path = out.join(format!("{unit}.d")).join(generator::DROPIN);
        if std::fs::read_to_string(&path).ok().as_deref() != Some(text.as_str()) {
            return findings.error(format!(
                "{}: the gate of {unit} is missing or old: systemctl daemon-reload",
                path.display()
            ));
        }
    }
}
