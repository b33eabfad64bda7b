//! The order of a group's members, and how long they may take to stop.

use super::{Findings, Level};
use crate::config::generator;
use crate::config::load::show;
use crate::config::order::{Part, cycle, is_after, span, stop_time};
use crate::config::settings::Settings;
use crate::config::target::{Target, own_name};
use crate::config::unit::UnitText;
use crate::core::policy::{GroupPolicy, OnLost, OnSilence, QuorumLost, StopFailure};
use std::path::Path;
use std::time::Duration;

/// systemd's DefaultTimeoutStopSec=.
const STOP: Duration = Duration::from_secs(90);

/// The members as their files have them.
pub fn parts(root: &Path, target: &Target) -> Vec<Part> {
    let members: Vec<&String> = target.hard.iter().chain(&target.soft).collect();
    let text = |unit: &str| UnitText::load(root, unit).ok().flatten();
    let mut parts: Vec<Part> = Vec::new();
    let mut before: Vec<(String, String)> = Vec::new();
    for unit in &members {
        let of = text(unit);
        let list = |section: &str, key: &str| {
            let words = of.as_ref().map(|of| of.list(section, key)).unwrap_or_default();
            words.into_iter().map(|w| w.value).collect::<Vec<_>>()
        };
        let last = |section: &str, key: &str| {
            of.as_ref().and_then(|of| of.last(section, key)).map(|a| a.value.clone())
        };
        let mut after = list("Unit", "After");
        before.extend(list("Unit", "Before").into_iter().map(|other| (other, unit.to_string())));
        let mut paths = list("Unit", "RequiresMountsFor");
        paths.extend(last("Service", "WorkingDirectory"));
        paths.extend(last("Mount", "Where"));
        let needs = |m: &&&String| {
            let at = mount_point(root, m);
            *m != unit && at.is_some_and(|at| paths.iter().any(|p| is_below(p, &at)))
        };
        after.extend(members.iter().filter(needs).map(|m| m.to_string()));
        if let Some(name) = unit.strip_suffix(".service") {
            after.push(format!("{name}.socket"));
        }
        let (section, keys) = match unit.rsplit_once('.') {
            Some((_, "service")) => ("Service", ["TimeoutStopSec", "TimeoutSec"]),
            Some((_, "mount")) => ("Mount", ["TimeoutSec", "TimeoutSec"]),
            _ => ("Socket", ["TimeoutSec", "TimeoutSec"]),
        };
        let said = keys.iter().find_map(|key| last(section, key)).filter(|v| !v.is_empty());
        let stop = said.map_or(Some(STOP), |value| span(&value));
        let twice = last("Service", "ExecStop").is_some_and(|value| !value.is_empty());
        parts.push(Part { name: unit.to_string(), after, stop, twice });
    }
    for (unit, text) in generator::dropins(target, generator::listed(target)) {
        let added = text.lines().filter_map(|l| l.strip_prefix("After="));
        let Some(part) = parts.iter_mut().find(|p| p.name == unit) else { continue };
        part.after.extend(added.map(str::to_string));
    }
    // Others may order themselves by another name of a member than the group uses.
    let own: Vec<(String, String)> =
        members.iter().map(|m| (own_name(root, m), m.to_string())).collect();
    let member = |name: &String| {
        let own_of = own_name(root, name);
        own.iter().find(|(own, _)| *own == own_of).map_or_else(|| name.clone(), |(_, m)| m.clone())
    };
    for (unit, other) in before {
        if let Some(part) = parts.iter_mut().find(|p| p.name == member(&unit)) {
            part.after.push(other);
        }
    }
    for part in &mut parts {
        part.after = part.after.iter().map(member).collect();
    }
    parts
}

/// Where a mount unit mounts.
fn mount_point(root: &Path, unit: &str) -> Option<String> {
    let name = unit.strip_suffix(".mount")?;
    let of = UnitText::load(root, unit).ok().flatten();
    let said = of.and_then(|of| of.last("Mount", "Where").map(|a| a.value.clone()));
    Some(said.unwrap_or_else(|| format!("/{}", name.replace('-', "/"))))
}

fn is_below(path: &str, at: &str) -> bool {
    path == at || path.strip_prefix(at).is_some_and(|rest| rest.starts_with('/'))
}

pub fn look(root: &Path, target: &Target, parts: &[Part], findings: &mut Findings) {
    let place = target.fragment.display();
    if let Some(cycle) = cycle(parts) {
        return findings.error(format!(
            "{place}: an ordering cycle, which systemd breaks by leaving out a member: {}: remove \
             one After= or Before=, or Order=listed",
            cycle.join(" after ")
        ));
    }
    let mounts = target.hard.iter().filter(|u| u.ends_with(".mount"));
    for mount in mounts {
        let at = mount_point(root, mount).unwrap_or_default();
        let loose = parts.iter().filter(|p| p.name.ends_with(".service"));
        let loose = loose.filter(|p| !p.name.starts_with("hafailover-ip@"));
        let either = |p: &&Part| is_after(parts, &p.name, mount) || is_after(parts, mount, &p.name);
        for part in loose.filter(|p| !either(p)) {
            let user = uses(root, &part.name, &at);
            let why = user.map_or(String::new(), |place| format!(" (it names {at} at {place})"));
            findings.warn(format!(
                "{place}: {} is not ordered after {mount}{why}: both start at once, and it may \
                 find an empty directory: write Order=listed, or After={mount} in a drop-in",
                part.name
            ));
        }
    }
}

/// Where a unit's file names a path below the mount.
fn uses(root: &Path, unit: &str, at: &str) -> Option<String> {
    let of = UnitText::load(root, unit).ok().flatten()?;
    let names = |value: &str| {
        let words = value.split([' ', '=', ':', ',', '"', '\'']);
        words.into_iter().any(|word| is_below(word, at))
    };
    of.assignments.iter().find(|a| names(&a.value)).map(|a| a.place())
}

/// The time to stop against everything that counts on it, with the arithmetic.
pub fn budget(
    settings: &Settings,
    target: &Target,
    policy: &GroupPolicy,
    parts: &[Part],
    findings: &mut Findings,
) {
    let (timing, safety) = (&settings.timing, &settings.safety);
    let unit = target.name.unit();
    let (sum, words) = stop_time(parts);
    let Some(sum) = sum else {
        return findings.warn(format!(
            "{unit}: {words} has no limit to its stop (TimeoutStopSec=infinity or 0): a move waits \
             for it without end: set one"
        ));
    };
    findings.note(format!("{unit}: a stop takes at most {} = {words}", show(sum)));
    // What nobody wrote is no mistake, but worth knowing.
    let chosen = target.settings.iter().any(|a| a.key == "StopBudget" && !a.value.is_empty());
    let level = |wrong| if wrong { Level::Warning } else { Level::Note };
    if sum > policy.stop_budget {
        findings.add(
            level(chosen),
            format!(
                "{unit}: a stop may take {} = {words}, StopBudget= is {}: other nodes reckon with \
             that: write StopBudget={} or shorten a TimeoutStopSec=",
                show(sum),
                show(policy.stop_budget),
                show(sum)
            ),
        );
    }
    let guard = safety.guard_bound.saturating_sub(timing.deadtime);
    if sum > guard {
        let end = match safety.on_lost {
            OnLost::Reboot => "resets the machine",
            OnLost::Leave => "gives up",
        };
        findings.add(level(settings.guard_chosen || safety.on_lost == OnLost::Leave), format!(
            "{unit}: a stop may take {} = {words}, and the guard of a lost daemon {end} after {} = \
             guard-bound {} - deadtime {}: a longer guard-bound or shorter TimeoutStopSec= lets \
             it finish",
            show(sum),
            show(guard),
            show(safety.guard_bound),
            show(timing.deadtime)
        ));
    }
    outvoted(settings, &unit, policy, sum, findings);
    let notice = timing.keepalive * 2;
    if safety.silence == OnSilence::Takeover && sum > notice {
        findings.note(format!(
            "{unit}: an owner that is no longer heard, but hears, has {} = 2 x keepalive {} to \
             stop before another node starts; its stop takes at most {}",
            show(notice),
            show(timing.keepalive),
            show(sum)
        ));
    }
}

/// Without a majority an owner stops before others start: the arithmetic of both.
fn outvoted(
    settings: &Settings,
    unit: &str,
    policy: &GroupPolicy,
    sum: Duration,
    findings: &mut Findings,
) {
    if settings.safety.quorum_lost == QuorumLost::Keep {
        return;
    }
    let timing = &settings.timing;
    let words = format!(
        "{unit}: without a majority an owner stops within deadtime {} + 3 x keepalive {} + \
         StopBudget= {}, and others start no sooner than deadtime + {} = 4 x keepalive + \
         StopBudget= + 2 % for the clocks",
        show(timing.deadtime),
        show(timing.keepalive),
        show(policy.stop_budget),
        show(timing.quorum_wait(policy.stop_budget))
    );
    match sum > policy.stop_budget {
        true => findings.error(format!(
            "{words}; but its stop may take {0}, longer than StopBudget=, and then both have it: \
             write StopBudget={0} or shorten a TimeoutStopSec=",
            show(sum)
        )),
        false => findings.note(words),
    }
    let believed = settings.safety.silence == OnSilence::Takeover && !settings.all_fenced();
    if believed && policy.stop_failure != StopFailure::FenceSelf {
        findings.warn(format!(
            "{unit}: if that stop fails or hangs, others start all the same, and both have it: \
             StopFailure=fence-self resets this machine before they do"
        ));
    }
}
