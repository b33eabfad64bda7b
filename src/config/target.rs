//! Groups: the targets enabled into hafailover-groups.target, their members and their
//! `[X-Hafailover]` section, read from the unit files themselves (systemd.unit(5),
//! systemd.syntax(7)), so that the generator needs no systemd to talk to.

use super::load::parse_duration;
use super::settings::{GroupSettings, Settings};
use super::unit::{Assignment, UnitText};
use crate::core::name::{GROUP_NAME_MAX, GROUPS_MAX, GroupName, NodeId};
use crate::core::policy::{Failback, GroupPolicy};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub const REGISTRY: &str = "hafailover-groups.target";
/// Where units are looked for, the first one wins.
pub const UNIT_DIRS: [&str; 5] = [
    "etc/systemd/system",
    "run/systemd/system",
    "run/systemd/generator",
    "usr/lib/systemd/system",
    "lib/systemd/system",
];
const MEMBERS_MAX: usize = 64;
/// What a member may need to stop or start where nothing else is said, as systemd's own default.
const BUDGET: Duration = Duration::from_secs(90);

/// What a target file asks for, before nodes are looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub name: GroupName,
    pub fragment: PathBuf,
    pub hard: Vec<String>,
    pub soft: Vec<String>,
    pub settings: Vec<Assignment>,
    /// Of the target's and its members' files.
    pub digest: u32,
}

/// All enabled groups below `root`; a broken one is an error and does not hide the others.
pub fn find(root: &Path) -> (Vec<Target>, Vec<String>) {
    let (mut targets, mut errors) = (Vec::new(), Vec::new());
    for name in enabled(root) {
        match read(root, &name) {
            Ok(target) => targets.push(target),
            Err(error) => errors.push(error),
        }
    }
    if targets.len() > GROUPS_MAX {
        errors.push(format!("{} groups are enabled: at most {GROUPS_MAX}", targets.len()));
        targets.truncate(GROUPS_MAX);
    }
    let mut owner: BTreeMap<String, GroupName> = BTreeMap::new();
    for target in &targets {
        for unit in target.hard.iter().chain(&target.soft) {
            if let Some(other) = owner.insert(unit.clone(), target.name.clone()) {
                errors.push(format!(
                    "{}: {unit} is a member of {} and of {}: a unit can move with one group only; \
                     put what several groups share outside of all groups",
                    target.fragment.display(),
                    other.unit(),
                    target.name.unit()
                ));
            }
        }
    }
    (targets, errors)
}

/// The groups of this cluster, ready to run.
pub fn groups(
    root: &Path,
    settings: &Settings,
) -> (BTreeMap<GroupName, GroupSettings>, Vec<String>) {
    let (targets, mut errors) = find(root);
    let mut groups = BTreeMap::new();
    for target in targets {
        match settle(&target, settings) {
            Ok(group) => {
                groups.insert(target.name.clone(), group);
            }
            Err(error) => errors.push(error),
        }
    }
    (groups, errors)
}

/// Names of the targets linked below the registry, sorted.
fn enabled(root: &Path) -> BTreeSet<GroupName> {
    let dirs = UNIT_DIRS.iter().map(|d| root.join(d).join(format!("{REGISTRY}.wants")));
    let entries = dirs.filter_map(|d| std::fs::read_dir(d).ok()).flatten().flatten();
    let names = entries.filter_map(|e| e.file_name().into_string().ok());
    names.filter_map(|n| n.strip_suffix(".target").map(|n| GroupName(n.into()))).collect()
}

/// The target as its file has it, enabled or not.
pub fn read(root: &Path, name: &GroupName) -> Result<Target, String> {
    let unit = name.unit();
    if name.0.len() > GROUP_NAME_MAX {
        return Err(format!("{unit}: a group's name has at most {GROUP_NAME_MAX} bytes"));
    }
    let Some(text) = UnitText::load(root, &unit)? else {
        return Err(format!(
            "{unit} is enabled into {REGISTRY} or runs here, but there is no such file: write \
             /etc/systemd/system/{unit} or run systemctl disable {unit}"
        ));
    };
    let mut target = Target::of(name, &text)?;
    let mut digest = Sha256::new().chain_update(&text.all);
    for unit in target.hard.iter().chain(&target.soft) {
        if let Some(member) = UnitText::load(root, unit)? {
            digest.update(&member.all);
        }
    }
    let digest = digest.finalize();
    target.digest = u32::from_be_bytes(digest[..4].try_into().expect("a digest is longer"));
    Ok(target)
}

impl Target {
    /// What the target's own text says; the digest is still to be made.
    pub fn of(name: &GroupName, text: &UnitText) -> Result<Target, String> {
        let hard = members(text, &["Requires", "BindsTo"])?;
        let mut soft = members(text, &["Wants"])?;
        soft.retain(|unit| !hard.contains(unit));
        if hard.is_empty() || hard.len() + soft.len() > MEMBERS_MAX {
            return Err(format!(
                "{}: {} hard members: a group names 1 to {MEMBERS_MAX} in Requires=",
                text.fragment.display(),
                hard.len()
            ));
        }
        Ok(Target {
            name: name.clone(),
            fragment: text.fragment.clone(),
            hard,
            soft,
            settings: text.section("X-Hafailover"),
            digest: 0,
        })
    }
}

fn members(text: &UnitText, keys: &[&str]) -> Result<Vec<String>, String> {
    let mut list = Vec::new();
    for word in keys.iter().flat_map(|key| text.list("Unit", key)) {
        if word.value.contains('%') {
            return Err(format!(
                "{}: {}: specifiers are not read here: write the unit's full name",
                word.place(),
                word.value
            ));
        }
        if is_member(&word.value) && !list.contains(&word.value) {
            list.push(word.value);
        }
    }
    Ok(list)
}

/// Other groups, slices and devices are needed, but not started and stopped by us.
fn is_member(unit: &str) -> bool {
    let kinds = [".service", ".mount", ".socket", ".path", ".timer", ".automount", ".swap"];
    kinds.iter().any(|k| unit.ends_with(k)) && !unit.starts_with("hafailover.service")
}

/// The settings of its `[X-Hafailover]`, checked.
pub fn settle(target: &Target, settings: &Settings) -> Result<GroupSettings, String> {
    let everywhere: Vec<NodeId> = settings.nodes.iter().map(|n| n.id).collect();
    let mut policy = GroupPolicy {
        nodes: everywhere.clone(),
        failback: Failback::No,
        retries: 1,
        retry_window: Duration::from_secs(600),
        quarantine: Duration::from_secs(600),
        stop_budget: BUDGET,
        start_budget: BUDGET,
        fingerprint: target.digest,
    };
    let defaults = policy.clone();
    let mut listed_order = false;
    for line in &target.settings {
        let (key, value) = (line.key.as_str(), line.value.trim());
        let at = |what: String| format!("{}: {key}={value}: {what}", line.place());
        let time = |value: &str| parse_duration(value).map_err(at);
        match (key, value) {
            ("Nodes", "") => policy.nodes = everywhere.clone(),
            ("Nodes", list) => policy.nodes = nodes(list, settings).map_err(at)?,
            ("Failback", "" | "no") => policy.failback = Failback::No,
            ("Failback", "yes") => policy.failback = Failback::Yes,
            ("Failback", delay) => {
                let delay = parse_duration(delay)
                    .map_err(|_| at("write yes, no, or a delay like 10min".into()))?;
                policy.failback = Failback::After(delay);
            }
            ("Order", "" | "units") => listed_order = false,
            ("Order", "listed") => listed_order = true,
            ("Order", _) => return Err(at("write listed or units".into())),
            ("Retries", "") => policy.retries = defaults.retries,
            ("Retries", n) => {
                let n = n.parse::<u32>().ok().filter(|n| *n <= 32);
                policy.retries = n.ok_or_else(|| at("write a number from 0 to 32".into()))?;
            }
            ("RetryWindow", "") => policy.retry_window = defaults.retry_window,
            ("RetryWindow", t) => policy.retry_window = time(t)?,
            ("Quarantine", "") => policy.quarantine = defaults.quarantine,
            ("Quarantine", t) => policy.quarantine = time(t)?,
            ("StopBudget", "") => policy.stop_budget = defaults.stop_budget,
            ("StopBudget", t) => policy.stop_budget = time(t)?,
            ("StartBudget", "") => policy.start_budget = defaults.start_budget,
            ("StartBudget", t) => policy.start_budget = time(t)?,
            _ => {
                return Err(at("no such key: there are Nodes, Failback, Order, Retries, \
                               RetryWindow, Quarantine, StopBudget, StartBudget"
                    .into()));
            }
        }
    }
    Ok(GroupSettings {
        policy,
        listed_order,
        hard: target.hard.clone(),
        soft: target.soft.clone(),
        fragment: target.fragment.clone(),
    })
}

fn nodes(list: &str, settings: &Settings) -> Result<Vec<NodeId>, String> {
    let mut nodes = Vec::new();
    for word in list.split_whitespace() {
        let Some(node) = settings.nodes.iter().find(|n| n.name == word) else {
            let all: Vec<&str> = settings.nodes.iter().map(|n| n.name.as_str()).collect();
            return Err(format!("{word} is no node: there are {}", all.join(", ")));
        };
        if nodes.contains(&node.id) {
            return Err(format!("{word} is listed twice: keep one"));
        }
        nodes.push(node.id);
    }
    Ok(nodes)
}
