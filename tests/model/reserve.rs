//! Disks with a reservation, one for each group: a start takes it for its epoch or fails, and who
//! has lost it finds that out a little later. How the commands of several starts mix is for
//! `io::scsi::take`.

use crate::canon::mix;
use crate::situations::{Situation, reach};
use crate::step::Step;
use crate::world::{Cluster, MS, State, Units, What};
use hafailover::core::name::{Epoch, NodeId, ShortEpoch};
use hafailover::core::say::{Saying, What as Said};

/// From the moment in which it is taken away to the look that shows it.
const LOOK: u64 = 120 * MS;

/// Whether the disk of `has` refuses a later start by `claim`.
pub fn refuses(has: Option<Epoch>, claim: Epoch) -> bool {
    has.is_some_and(|has| ShortEpoch::from(has).is_newer_than(claim.into()))
}

impl Units {
    /// What is mounted here could write, if the disk took it.
    fn writes(&self) -> bool {
        self.running && !self.stray
    }
}

impl State {
    /// The disk takes what this node writes.
    pub fn is_served(&self, n: usize, group: usize) -> bool {
        let key = self.nodes[n].units[group].key;
        key.is_some() && self.disks[group] == key
    }
}

impl Step<'_> {
    /// The group's first member is started: false if its disk is refused to it.
    pub fn reserves(&mut self, n: usize, group: usize) -> bool {
        if !self.cluster.reserved {
            return true;
        }
        let units = self.state.nodes[n].units[group].clone();
        let Some(token) = units.token else { return false };
        let claim = Epoch { node: NodeId(n as u8), ..token };
        let has = self.state.disks[group];
        if refuses(has, claim) {
            reach(Situation::Refused);
            self.note(n, || format!("its disk is refused to {claim}"));
            self.watch_refused(n, group, claim);
            return false;
        }
        if let Some(has) = has.filter(|has| *has > claim) {
            self.break_("LatestWrites", format!("a disk goes from {has} back to {claim}"));
        }
        let before = units.key.filter(|key| *key != claim);
        if let Some(before) = before.filter(|_| units.writes()) {
            let words = format!("{claim} takes the disk, and {before} has it mounted there");
            self.break_("LatestWrites", words);
        }
        if let Some(old) = has.filter(|has| has.node != claim.node) {
            self.take_from(usize::from(old.node.0), group);
        }
        self.note(n, || format!("has the disk for {claim}"));
        self.state.disks[group] = Some(claim);
        self.units(n, group, |u| u.key = Some(claim));
        true
    }

    fn take_from(&mut self, old: usize, group: usize) {
        let node = &self.state.nodes[old];
        if self.state.is_served(old, group) && node.units[group].writes() {
            reach(Situation::TakenAway);
            let boot = node.boot;
            let what = What::LooksAtDisk { boot, group };
            self.state.push(self.state.now + LOOK, old, what, mix(65, group as u64));
        }
    }

    /// An owner that has lost its disk sees it, and the member that holds it fails.
    pub fn look_at_disk(&mut self, n: usize, group: usize) {
        let units = &self.state.nodes[n].units[group];
        let up = units.running && !units.dead && units.job.is_none();
        if !up || self.state.is_served(n, group) {
            return;
        }
        reach(Situation::Loser);
        self.note(n, || "finds that its disk was taken away".into());
        self.units(n, group, |u| u.dead = true);
        self.observe(n, group);
    }

    /// The disk refuses only what the core, too, would call the older one; and no peer had
    /// promised what its own start refuses.
    fn watch_refused(&mut self, n: usize, group: usize, claim: Epoch) {
        let Some(has) = self.state.disks[group] else { return };
        if has < claim {
            let words = format!("{claim} is refused its disk for {has}");
            return self.break_("LatestWrites", words);
        }
        let ghost = &self.state.ghost;
        let at = |epoch| ghost.starts.iter().position(|s| (s.0, s.1) == (group, epoch));
        let before = at(has).is_some_and(|has| Some(has) < at(claim));
        let m = usize::from(has.node.0);
        let promise = |(other, kind): &(usize, String)| *other == m && kind == "Promise";
        let promised = ghost.nodes[n].proof[group].iter().any(promise);
        if before && promised && !ghost.nodes[m].reinstalled {
            let words = format!("{claim}, which n{} promised, is refused for its {has}", m + 1);
            self.break_("LatestWrites", words);
        }
    }

    /// Of two owners the one that gives way is the one that the disk refuses, or will.
    pub fn watch_way(&mut self, n: usize, saying: &Saying) {
        let group = self.cluster.names.iter().position(|g| Some(g) == saying.group.as_ref());
        let way = saying.what == Said::TwoOwners && !saying.reason.contains("this one");
        let Some(group) = group.filter(|_| way) else { return };
        let m = saying.peer.map_or(n, |peer| usize::from(peer.0));
        let units = &self.state.nodes[m].units[group];
        let Some(theirs) = units.token.or(units.closed) else { return };
        if self.state.is_served(n, group) && self.state.disks[group] > Some(theirs) {
            let words = format!("n{} has the disk and gives way to n{}", n + 1, m + 1);
            self.break_("LatestWrites", words);
        }
    }
}

/// The watch over disks must not be blind: the cores give it nothing to see.
pub fn check(cluster: &Cluster, rest: &State) {
    let epoch = |counter, node| Epoch { counter, node: NodeId(node) };
    let look = |has: Epoch, theirs: Epoch, token: Epoch| {
        let mut step = Step::new(cluster, rest.clone(), false);
        step.state.disks[0] = Some(has);
        step.units(0, 0, |u| (u.token, u.key) = (Some(token), Some(epoch(1, 0))));
        step.units(1, 0, |u| u.token = Some(theirs));
        step.reserves(0, 0);
        let group = Some(cluster.names[0].clone());
        let two = Saying { group, peer: Some(NodeId(1)), ..Saying::new(Said::TwoOwners, "") };
        step.watch_way(0, &two);
        step.broken.len()
    };
    let (one, two) = (epoch(1, 0), epoch(2, 1));
    assert_eq!(look(one, two, one), 0, "it gives way to a later owner");
    assert_eq!(look(two, two, one), 0, "which has the disk by now");
    assert_eq!(look(one, epoch(0, 1), one), 1, "it gives way to one whom its disk refuses");
    assert_eq!(look(one, two, epoch(3, 0)), 2, "and what is mounted by an earlier ownership");
}
