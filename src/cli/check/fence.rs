//! Whether the fences could work: what they run, their secrets, and how long a takeover then takes.

use super::Findings;
use crate::config::settings::{Fence, FenceHow, Settings};
use crate::config::target::Target;
use crate::config::unit::UnitText;
use crate::config::{self, identity, load};
use crate::core::policy::FenceKind;
use crate::io::scsi::device;
use std::path::{Path, PathBuf};

pub fn look(root: &Path, settings: &Settings, groups: &[Target], findings: &mut Findings) {
    if settings.fences.is_empty() {
        return;
    }
    for node in settings.nodes.iter().filter(|n| settings.fence(n.id).is_none()) {
        findings.warn(format!(
            "{} has no [[fence]] and others have: what it runs is taken over as [safety] says, and \
             by silence if that says so",
            node.name
        ));
    }
    for fence in settings.fences.iter().filter(|f| f.node != settings.me) {
        one(root, settings, fence, findings);
    }
    if settings.fences.iter().any(|f| f.policy.kind == FenceKind::Storage) {
        for group in groups.iter().filter(|group| !has_storage(root, group)) {
            findings.warn(format!(
                "{}: a fence with kind = \"storage\" stops nothing of it: it has no mount, and its \
                 addresses and services run on until they hear of the new owner: it needs a fence \
                 with kind = \"power\"",
                group.name
            ));
        }
    }
    let (timing, delay) = (&settings.timing, settings.fence_delay);
    if delay < timing.deadtime {
        findings.warn(format!(
            "fence-delay {} is less than deadtime {}: when the links are cut, two nodes may fence \
             each other; it should be longer than a fence needs to switch a node off",
            load::show(delay),
            load::show(timing.deadtime)
        ));
    }
}

/// Something that the storage takes away from who is cut off from it.
fn has_storage(root: &Path, group: &Target) -> bool {
    let storage = |unit: &str| unit.ends_with(".mount") || device::of_unit(unit).is_some();
    identity::members(root, group).iter().any(|(unit, _)| storage(unit))
}

fn one(root: &Path, settings: &Settings, fence: &Fence, findings: &mut Findings) {
    let name = &settings.nodes[usize::from(fence.node.0)].name;
    let show = load::show;
    let policy = &fence.policy;
    let (deadtime, delay) = (settings.timing.deadtime, settings.fence_delay);
    findings.note(format!(
        "after the death of {name} its groups are taken over once {} has ended well: {} deadtime + \
         {} fence-delay + at most {} timeout",
        policy.by,
        show(deadtime),
        show(delay),
        show(policy.timeout)
    ));
    match &fence.how {
        FenceHow::Agent { agent, secrets, confirm, .. } => {
            if !below(root, agent).exists() {
                findings.error(format!(
                    "the fence of {name}: {} is not there: apt install fence-agents, or correct \
                     agent =",
                    agent.display()
                ));
            }
            let read = secrets.as_ref().map(|path| config::fence::secrets(&below(root, path)));
            if let Some(Err(error)) = read {
                findings.error(format!("the secrets of the fence of {name}: {error}"));
            }
            if !confirm {
                findings.warn(format!(
                    "the fence of {name} has confirm = \"none\": nobody reads back that it is off"
                ));
            }
        }
        FenceHow::Unit { unit, check, confirm } => {
            for unit in [Some(unit), check.as_ref()].into_iter().flatten() {
                if !matches!(UnitText::load(root, unit), Ok(Some(_))) {
                    findings.error(format!("the fence of {name}: there is no {unit}"));
                }
            }
            if check.is_some() && !confirm {
                findings.warn(format!(
                    "the fence of {name} has no confirm = \"status\": {unit} alone says that it \
                     is off"
                ));
            }
            if check.is_none() {
                findings.warn(format!(
                    "the fence of {name} has no check-unit: whether it would work is never tried"
                ));
            }
        }
    }
}

fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}
