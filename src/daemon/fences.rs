//! Which unit fences which node.

use super::setup::Setup;
use crate::config::fence::instance;
use crate::config::settings::FenceHow;
use crate::core::name::NodeId;
use crate::core::time::Instant;
use crate::io::systemd::{FenceRun, Systemd};
use std::collections::BTreeMap;
use std::time::Duration;

/// What runs the agents of the settings.
const OFF: &str = "hafailover-fence@.service";
const CHECK: &str = "hafailover-fence-check@.service";

/// By node.
#[derive(Clone, Debug, Default)]
pub struct Fences(BTreeMap<NodeId, Units>);

#[derive(Clone, Debug)]
struct Units {
    name: String,
    off: String,
    check: Option<String>,
    /// What says after it that the node is off.
    confirm: Option<String>,
    limit: Duration,
}

impl Fences {
    pub fn of(setup: &Setup) -> Fences {
        let nodes = &setup.settings.nodes;
        let units = setup.settings.fences.iter().map(|fence| {
            let name = nodes[usize::from(fence.node.0)].name.clone();
            // An agent is asked by the unit that runs it.
            let (off, check, confirm) = match &fence.how {
                FenceHow::Agent { .. } => (OFF, Some(CHECK), false),
                FenceHow::Unit { unit, check, confirm } => (&**unit, check.as_deref(), *confirm),
            };
            let (off, check) = (instance(off, &name), check.map(|c| instance(c, &name)));
            let (confirm, limit) = (check.clone().filter(|_| confirm), fence.policy.timeout);
            (fence.node, Units { name, off, check, confirm, limit })
        });
        Fences(units.collect())
    }

    pub fn fence(&self, systemd: &Systemd, node: NodeId, id: u64, valid_until: Instant) {
        if let Some(units) = self.0.get(&node) {
            let run = units.run(node, id, units.off.clone());
            systemd.fence(FenceRun { confirm: units.confirm.clone(), ..run }, valid_until);
        }
    }

    pub fn check(&self, systemd: &Systemd, node: NodeId, id: u64) {
        if let Some(units) = self.0.get(&node)
            && let Some(check) = &units.check
        {
            systemd.fence_check(units.run(node, id, check.clone()));
        }
    }

    pub fn end(&self, systemd: &Systemd, node: NodeId) {
        if let Some(units) = self.0.get(&node) {
            systemd.fence_end(units.off.clone());
        }
    }
}

impl Units {
    fn run(&self, node: NodeId, id: u64, unit: String) -> FenceRun {
        FenceRun { node, name: self.name.clone(), id, unit, confirm: None, limit: self.limit }
    }
}
