//! Groups: the targets enabled into hafailover-groups.target, their members and their
//! `[X-Hafailover]` section, read from the unit files themselves (systemd.unit(5),
//! systemd.syntax(7)), so that the generator needs no systemd to talk to.

use super::identity;
use super::load::{parse_duration, show};
use super::settings::{GroupSettings, Settings};
use super::unit::{Assignment, UnitText};
use crate::core::name::{GROUP_NAME_MAX, GROUPS_MAX, GroupName, NodeId};
use crate::core::policy::{Failback, GroupPolicy, QuorumLost, StopFailure};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub const REGISTRY: &str = "hafailover-groups.target";
/// Where units are looked for, the first one wins (systemd.unit(5)). The last one has what systemd
/// makes of init scripts.
pub const UNIT_DIRS: [&str; 7] = [
    "etc/systemd/system",
    "run/systemd/system",
    "run/systemd/generator",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
    "lib/systemd/system",
    "run/systemd/generator.late",
];
const MEMBERS_MAX: usize = 64;
/// What a member may need to stop or start where nothing else is said, as systemd's own default.
const BUDGET: Duration = Duration::from_secs(90);

/// What a target file asks for, before nodes are looked up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    pub name: GroupName,
    pub fragment: PathBuf,
    pub hard: Vec<String>,
    pub soft: Vec<String>,
    pub settings: Vec<Assignment>,
    /// Of what makes it this group and no other.
    pub identity: u32,
    /// Of what else its members' files say.
    pub texts: u32,
}

/// What is enabled, and what is wrong with it.
#[derive(Clone, Debug, Default)]
pub struct Found {
    pub targets: Vec<Target>,
    pub wrong: Vec<Wrong>,
}

/// What is wrong with groups, or with all there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// None: it is in no group's files.
    pub groups: Vec<GroupName>,
    pub words: String,
}

impl Wrong {
    pub fn of(group: &GroupName, words: String) -> Wrong {
        Wrong { groups: vec![group.clone()], words }
    }

    pub fn of_all(words: String) -> Wrong {
        Wrong { groups: Vec::new(), words }
    }

    /// Place and words, without the line itself and its caret.
    pub fn line(&self) -> &str {
        self.words.lines().next().unwrap_or_default()
    }
}

/// All enabled groups below `root`; a broken one does not hide the others.
pub fn find(root: &Path) -> Found {
    let mut found = Found::default();
    for name in enabled(root) {
        match read(root, &name) {
            Ok(target) => found.targets.push(target),
            Err(error) => found.wrong.push(Wrong::of(&name, error)),
        }
    }
    let names = || found.targets.iter().map(|t| t.name.clone()).collect();
    if found.targets.len() > GROUPS_MAX {
        let words = format!("{} groups are enabled: at most {GROUPS_MAX}", found.targets.len());
        found.wrong.push(Wrong { groups: names(), words });
    }
    let mut owner: BTreeMap<String, &GroupName> = BTreeMap::new();
    for target in &found.targets {
        for unit in target.hard.iter().chain(&target.soft) {
            let other = owner.insert(own_name(root, unit), &target.name);
            if let Some(other) = other.filter(|other| **other != target.name) {
                let words = format!(
                    "{}: {unit} is a member of {} and of {}: a unit can move with one group only; \
                     put what several groups share outside of all groups",
                    target.fragment.display(),
                    other.unit(),
                    target.name.unit()
                );
                let groups = vec![other.clone(), target.name.clone()];
                found.wrong.push(Wrong { groups, words });
            }
        }
    }
    found
}

/// All enabled groups below `root` as far as they can be read, for their gates: a wrong line, a
/// member that is masked, or one that is gone, opens no gate of the others.
pub fn drafts(root: &Path) -> (Vec<Target>, Vec<String>) {
    let (mut targets, mut errors) = (Vec::new(), Vec::new());
    for name in enabled(root) {
        let unit = name.unit();
        let Some((mut text, wrong)) = UnitText::gather(root, &unit) else {
            errors.push(no_file(&name));
            continue;
        };
        text.add_links(root, &unit);
        let (target, more) = Target::draft(&name, &text);
        errors.extend(wrong.into_iter().chain(more));
        targets.push(target);
    }
    (targets, errors)
}

impl Found {
    /// What is wrong with the groups' settings in this cluster.
    pub fn judge(&mut self, settings: &Settings) {
        for target in &self.targets {
            if let Err(error) = settle(target, settings) {
                self.wrong.push(Wrong::of(&target.name, error));
            }
            if let Some(words) = unchosen(target, settings) {
                self.wrong.push(Wrong::of(&target.name, words));
            }
        }
    }
}

/// A group with storage needs a choice that no default may make.
pub fn unchosen(target: &Target, settings: &Settings) -> Option<String> {
    let mount = target.hard.iter().find(|u| u.ends_with(".mount"));
    let chosen = settings.silence_chosen || settings.all_fenced() || settings.arbiter.is_some();
    let mount = mount.filter(|_| !chosen)?;
    Some(format!(
        "{}: {} holds a file system, {mount}, and nothing but links tells whether the other node \
         is dead: in [safety] of hafailover.toml write silence = \"hold\" (a person decides after \
         a death) or silence = \"takeover\" (automatic; if all links are cut at once, both nodes \
         mount it). See hafailover(7), \"What is promised\"",
        target.fragment.display(),
        target.name.unit()
    ))
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
    let Some(mut text) = UnitText::load(root, &unit)? else { return Err(no_file(name)) };
    text.add_links(root, &unit);
    let target = Target::of(name, &text)?;
    let members = identity::members(root, &target);
    let identity = identity::identity(&target, &text, &members);
    let texts = identity::texts(&members);
    Ok(Target { identity, texts, ..target })
}

fn no_file(name: &GroupName) -> String {
    let unit = name.unit();
    format!(
        "{unit} is enabled into {REGISTRY} or runs here, but there is no such file: write \
         /etc/systemd/system/{unit} or run systemctl disable {unit}"
    )
}

impl Target {
    /// What the target's own text says; what nodes compare is still to be made.
    pub fn of(name: &GroupName, text: &UnitText) -> Result<Target, String> {
        refuse_others(text)?;
        let (target, errors) = Target::draft(name, text);
        if let Some(error) = errors.into_iter().next() {
            return Err(error);
        }
        let (hard, soft) = (target.hard.len(), target.soft.len());
        if hard == 0 || hard + soft > MEMBERS_MAX {
            return Err(format!(
                "{}: {hard} hard members: a group names 1 to {MEMBERS_MAX} in Requires=",
                text.fragment.display(),
            ));
        }
        Ok(target)
    }

    /// The same as far as it can be read, and what is wrong.
    fn draft(name: &GroupName, text: &UnitText) -> (Target, Vec<String>) {
        let (hard, mut errors) = members(text, &["Requires", "BindsTo"]);
        let (mut soft, more) = members(text, &["Wants", "Upholds"]);
        errors.extend(more);
        soft.retain(|unit| !hard.contains(unit));
        let target = Target {
            name: name.clone(),
            fragment: text.fragment.clone(),
            hard,
            soft,
            settings: text.section("X-Hafailover"),
            identity: 0,
            texts: 0,
        };
        (target, errors)
    }
}

/// A unit's own name, where this one is an alias.
pub fn own_name(root: &Path, unit: &str) -> String {
    let files = UNIT_DIRS.iter().map(|d| root.join(d).join(unit));
    let real = files.filter_map(|f| f.canonicalize().ok()).next();
    let name = real.and_then(|f| Some(f.file_name()?.to_str()?.to_string()));
    let template = |name: &String| name.contains("@.");
    name.filter(|name| !template(name) && is_member(name).is_ok()).unwrap_or_else(|| unit.into())
}

/// The members, and what is wrong.
fn members(text: &UnitText, keys: &[&str]) -> (Vec<String>, Vec<String>) {
    let (mut list, mut errors) = (Vec::new(), Vec::new());
    for word in keys.iter().flat_map(|key| text.list("Unit", key)) {
        if word.value.contains('%') {
            errors.push(format!(
                "{}: {}: specifiers are not read here: write the unit's full name",
                word.place(),
                word.value
            ));
        } else if let Err(advice) = is_member(&word.value) {
            errors.push(format!("{}: {} is no member: {advice}", word.place(), word.value));
        } else if !list.contains(&word.value) {
            list.push(word.value);
        }
    }
    (list, errors)
}

/// What the cluster can start, stop and verify; else what to write instead.
fn is_member(unit: &str) -> Result<(), &'static str> {
    let own = ["hafailover.service", "hafailover-lost.service"];
    match unit.rsplit_once('.').map_or("", |(_, kind)| kind) {
        "service" if own.contains(&unit) => Err("the daemon starts the groups: remove it"),
        "service" | "mount" | "socket" | "path" | "timer" | "automount" | "swap" => Ok(()),
        "target" => Err("what it pulls in would start and stop unseen: write the names of its \
                         units here instead; what must be up before the group, such as \
                         network-online.target, belongs into Wants= and After= of the members"),
        "device" => Err("a device comes and goes by itself, and a mount waits for its own: \
                         remove it"),
        "slice" => Err("it starts with the services in it: remove it, and write Slice= into them"),
        "scope" => Err("a scope cannot be started: make a service of it"),
        _ => Err("write a unit's full name, such as smbd.service"),
    }
}

/// What pulls units in and is not read as members.
fn refuse_others(text: &UnitText) -> Result<(), String> {
    let refused = [
        ("Upholds", "systemd would start it again while the cluster stops it: write Requires="),
        ("Requisite", "it is not started by that: write Requires=, or remove it"),
    ];
    for (key, advice) in refused {
        if let Some(word) = text.list("Unit", key).first() {
            return Err(format!("{}: {key}={}: {advice}", word.place(), word.value));
        }
    }
    Ok(())
}

/// The settings of its `[X-Hafailover]`, checked, also against the lease.
pub fn settle(target: &Target, settings: &Settings) -> Result<GroupSettings, String> {
    let group = read_settings(target, settings)?;
    match in_lease(target, settings, &group.policy) {
        Some(words) => Err(words),
        None => Ok(group),
    }
}

/// What keeps a group that is right in itself from these settings.
pub fn outlasts(target: &Target, settings: &Settings) -> Option<String> {
    in_lease(target, settings, &read_settings(target, settings).ok()?.policy)
}

/// Of a group that is held here, and of which nothing but its members is known any more: it is
/// stopped in the time that there is.
pub fn settle_noted(target: &Target, settings: &Settings) -> Result<GroupSettings, String> {
    let mut group = read_group(target, settings)?;
    let most = settings.arbiter.as_ref().map_or(Duration::MAX, |a| a.stop_most());
    group.policy.stop_budget = group.policy.stop_budget.min(most);
    Ok(group)
}

fn read_settings(target: &Target, settings: &Settings) -> Result<GroupSettings, String> {
    let group = read_group(target, settings)?;
    budgeted(target, settings)?;
    Ok(group)
}

fn read_group(target: &Target, settings: &Settings) -> Result<GroupSettings, String> {
    let everywhere: Vec<NodeId> = settings.nodes.iter().map(|n| n.id).collect();
    let mut policy = GroupPolicy {
        nodes: everywhere.clone(),
        failback: Failback::No,
        retries: 1,
        retry_window: Duration::from_secs(600),
        quarantine: Duration::from_secs(600),
        stop_budget: BUDGET,
        stop_failure: StopFailure::Hold,
        start_budget: BUDGET,
        fingerprint: target.identity,
        texts: target.texts,
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
            ("StopFailure", "" | "hold") => policy.stop_failure = StopFailure::Hold,
            ("StopFailure", "kill-users") => policy.stop_failure = StopFailure::KillUsers,
            ("StopFailure", "fence-self") => policy.stop_failure = StopFailure::FenceSelf,
            ("StopFailure", _) => return Err(at("write hold, kill-users or fence-self".into())),
            ("StartBudget", "") => policy.start_budget = defaults.start_budget,
            ("StartBudget", t) => policy.start_budget = time(t)?,
            _ => {
                return Err(at("no such key: there are Nodes, Failback, Order, Retries, \
                               RetryWindow, Quarantine, StopBudget, StopFailure, StartBudget"
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

/// An owner must have stopped before its lease is over, and needs the rest of it to renew it.
fn in_lease(target: &Target, settings: &Settings, policy: &GroupPolicy) -> Option<String> {
    let most = settings.arbiter.as_ref().map_or(Duration::MAX, |a| a.stop_most());
    if policy.stop_budget <= most {
        return None;
    }
    let (budget, most) = (show(policy.stop_budget), show(most));
    Some(format!(
        "{}: {}: StopBudget= {budget} is more than half of the lease ({most}): what must stop that \
         early is always about to stop: write StopBudget={most} or less in [X-Hafailover] if its \
         members stop in that time, or lease = \"{}\" in [arbiter]",
        target.fragment.display(),
        target.name.unit(),
        show(policy.stop_budget * 2)
    ))
}

/// With quorum-lost = "stop" every takeover waits for the stop of an owner that nobody hears: no
/// default may say for how long.
fn budgeted(target: &Target, settings: &Settings) -> Result<(), String> {
    let last = target.settings.iter().rfind(|line| line.key == "StopBudget");
    if settings.safety.quorum_lost == QuorumLost::Keep
        || last.is_some_and(|line| !line.value.trim().is_empty())
    {
        return Ok(());
    }
    let (deadtime, unit) = (settings.timing.deadtime, target.name.unit());
    Err(format!(
        "{}: {unit} has no StopBudget=, and with quorum-lost = \"stop\" a majority takes over only \
         when an owner that it does not hear has surely stopped: deadtime {} + {} with the default \
         of {}: write StopBudget=, at least what hafailover check says that a stop takes",
        target.fragment.display(),
        show(deadtime),
        show(settings.timing.quorum_wait(BUDGET)),
        show(BUDGET)
    ))
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
