//! The end of a run: faults stop, what they left behind is removed, and every group must then run
//! on exactly one node.

use crate::step::Step;
use crate::watch::Broken;
use crate::world::{Cluster, MS, State, What};
use hafailover::core::name::NodeId;
use hafailover::core::time::Instant;
use hafailover::core::{Command, Event};
use std::sync::Arc;

impl Step<'_> {
    /// First all is repaired that no person need be asked for; then the operator takes back what
    /// people asked for and clears what only they may clear.
    pub fn mend(&mut self) {
        self.state.mended += 1;
        self.state.ghost.begun = 0;
        self.state.ghost.hands_off = false;
        self.state.ghost.bereft = false;
        self.loud = true;
        if self.state.mended == 1 { self.repair() } else { self.operate() }
    }

    fn repair(&mut self) {
        self.note(0, || "> everything is repaired".into());
        let now = self.state.now;
        self.state.cut = 0;
        (self.state.arbiter.lost, self.state.arbiter.cut) = (false, 0);
        for n in 0..self.state.nodes.len() {
            let node = &self.state.nodes[n];
            let (frozen, dead, life) = (node.frozen, node.core.is_none(), node.life);
            if frozen {
                self.state.push(now, n, What::Thaw, 36);
            } else if dead {
                // Not before its guard has ended.
                let at = if node.guard.is_some() { now + 1500 * MS } else { now };
                self.state.push(at, n, What::Boot { life }, 34);
            }
            for g in 0..self.state.nodes[n].units.len() {
                if self.state.nodes[n].units[g].stuck {
                    self.units(n, g, |u| u.stuck = false);
                }
            }
            if self.state.nodes[n].disabled {
                Arc::make_mut(&mut self.state.nodes[n]).disabled = false;
                let policy = Box::new(self.cluster.policies[n].clone());
                self.tell(n, Event::Reconfigured { policy });
            }
        }
    }

    fn operate(&mut self) {
        self.note(0, || "> the operator clears up".into());
        for n in 0..self.state.nodes.len() {
            let Some(core) = &self.state.nodes[n].core else { continue };
            let view = core.view(Instant(self.state.now));
            if view.maintenance {
                self.order(n, Command::Maintenance { group: None, on: false });
            }
            for (m, node) in view.nodes.iter().enumerate() {
                if node.standby {
                    self.order(n, Command::Standby { node: NodeId(m as u8), on: false });
                }
            }
            let unclear = view.groups.iter().filter(|g| g.down_by_operator || !g.strays.is_empty());
            for group in unclear {
                self.order(n, Command::Clear { group: group.name.clone() });
            }
        }
    }

    fn order(&mut self, n: usize, command: Command) {
        self.state.ghost.nodes[n].waits += 1;
        let request = 90 + u64::from(self.state.ghost.nodes[n].waits);
        self.tell(n, Event::Asked { request, by: "root".into(), command });
    }
}

/// Whether something stands that `repair` would remove.
pub fn is_needed(state: &State) -> bool {
    let arbiter = &state.arbiter;
    let gone = state.cut != 0 || arbiter.lost || arbiter.cut != 0;
    let down = state.nodes.iter().any(|n| n.frozen || n.core.is_none() || n.disabled);
    let stuck = state.nodes.iter().flat_map(|n| &n.units).any(|u| u.stuck);
    state.mended == 0 && (gone || down || stuck)
}

/// What must hold of a state that comes back to itself.
pub fn judge(cluster: &Cluster, state: &State) -> Vec<Broken> {
    let mut broken = Vec::new();
    for (n, node) in state.ghost.nodes.iter().enumerate() {
        let here = &state.nodes[n];
        if node.waits > 0 && here.core.is_some() && !here.frozen {
            broken.push(Broken::new("Answered", format!("n{} never answers a request", n + 1)));
        }
    }
    let strays = state.nodes.iter().flat_map(|n| &n.units).any(|u| u.stray);
    let view = |n: usize| {
        let core = state.nodes[n].core.as_ref()?;
        Some(core.view(Instant(state.now.max(core.next_wake().0))))
    };
    let views: Vec<_> = (0..state.nodes.len()).filter_map(view).collect();
    let wished = views.iter().any(|v| {
        v.maintenance
            || v.groups.iter().any(|g| g.down_by_operator)
            || v.nodes.iter().any(|n| n.standby)
    });
    let bereft = state.ghost.bereft;
    if (state.mended == 0 && !bereft) || (state.mended == 1 && (strays || wished)) {
        return broken;
    }
    for group in 0..cluster.names.len() {
        let owners = state.owners(group);
        let well = |n: &usize| {
            let units = &state.nodes[*n].units[group];
            units.running && units.token.is_some() && !units.dead
        };
        if owners.len() != 1 || !owners.iter().all(well) {
            let words = format!("{} nodes run it in the end", owners.len());
            let name = if owners.len() > 1 { "Healed" } else { "Owned" };
            broken.push(Broken::new(name, words));
        } else if cluster.reserved
            && state.disks[group] != state.nodes[owners[0]].units[group].token
        {
            let words = format!("the disk refuses what n{} writes in the end", owners[0] + 1);
            broken.push(Broken::new("LatestWrites", words));
        }
    }
    broken
}
