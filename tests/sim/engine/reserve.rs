//! A disk for each group whose first member is its reservation (hafailover-reserve(8)): who has it,
//! and what the starts of that member and its looks come to. A start takes it at one moment here;
//! how the commands of several starts mix is for `io::scsi::take`. Judged is what both together
//! promise: the disk takes the writes of the latest owner alone, and that is who the core keeps.

use crate::rng::MS;
use crate::world::Next;
use crate::world::World;
use hafailover::core::MemberState;
use hafailover::core::heartbeat::Heartbeat;
use hafailover::core::name::{Epoch, NodeId, ShortEpoch};
use hafailover::core::record::Record;
use std::collections::BTreeMap;

/// As `cli::reserve` looks whether it is still there.
const LOOK: u64 = 3000 * MS;
/// So long a core may know of a member that the disk has refused, and do nothing.
const IDLE: u64 = 3000 * MS;

/// So often more than its retries a claim may be refused: people and systemd try again, too.
const SPARE: u32 = 8;

/// One group's disk, and what somebody who sees everything remembers of it.
#[derive(Clone, Default)]
pub struct Disk {
    /// By which claim it is reserved: also after a stop, and while that node is off.
    pub has: Option<Epoch>,
    ordered: BTreeMap<Epoch, Ordered>,
    /// By node: the highest epoch that it was told, and can know of.
    heard: Vec<Epoch>,
    /// By node and its daemon's life: since when it keeps what its disk refuses.
    kept: BTreeMap<(usize, u64), u64>,
    /// By node, its daemon's life and its claim: how often it was refused.
    refused: BTreeMap<(usize, u64, Epoch), u32>,
}

/// A start as it was first ordered.
#[derive(Clone)]
struct Ordered {
    at: u64,
    /// The highest epoch that its node was told before.
    heard: Epoch,
    /// By what, by other node.
    proof: Vec<String>,
}

impl Disk {
    pub fn new(nodes: usize) -> Disk {
        Disk { heard: vec![Epoch::default(); nodes], ..Disk::default() }
    }
}

impl World {
    /// As its key says it; the group may have changed hands very often before this run.
    fn short(&self, epoch: Epoch) -> ShortEpoch {
        let before = self.options.reserved.unwrap_or_default();
        ShortEpoch::from(Epoch { counter: epoch.counter + before, ..epoch })
    }

    /// The disk takes what this node writes.
    pub fn is_served(&self, n: usize, g: usize) -> bool {
        let key = self.nodes[n].units[g].key;
        self.options.reserved.is_none() || (key.is_some() && self.disks[g].has == key)
    }

    /// And that is the one by whose token it runs here.
    pub fn has_disk(&self, n: usize, g: usize) -> bool {
        let units = &self.nodes[n].units[g];
        self.is_served(n, g) && (self.options.reserved.is_none() || units.key == units.token)
    }

    /// What is mounted here writes, or would: a member above the reservation is up.
    fn is_mounted(&self, n: usize, g: usize) -> bool {
        let node = &self.nodes[n];
        node.on && node.units[g].units[1..].iter().any(|u| !u.down() || u.leftover)
    }

    /// What becomes of a job of the reservation that would end so.
    pub fn reserve(&mut self, n: usize, g: usize, k: usize, to: MemberState) -> MemberState {
        if self.options.reserved.is_none() || k > 0 {
            return to;
        }
        let unit = &self.nodes[n].units[g].units[0];
        let (starts, odd) = (unit.state == MemberState::Activating, unit.job % 2 == 1);
        match to {
            MemberState::Active if starts && !self.take(n, g) => return MemberState::Failed,
            // It took it, and then failed.
            MemberState::Failed if starts && odd => {
                self.take(n, g);
            }
            _ => {}
        }
        if to == MemberState::Active {
            self.look_later(n, g);
        }
        to
    }

    /// A start of it is ended half way: it may have taken it.
    pub fn break_off(&mut self, n: usize, g: usize, k: usize) {
        let unit = &self.nodes[n].units[g].units[0];
        let under_way = k == 0 && unit.state == MemberState::Activating && unit.job % 2 == 1;
        if self.options.reserved.is_some() && under_way {
            self.take(n, g);
        }
    }

    fn look_later(&mut self, n: usize, g: usize) {
        let (boot, job) = (self.nodes[n].boots, self.nodes[n].units[g].units[0].job);
        self.later(LOOK, Next::Reserved { node: n, boot, group: g, job });
    }

    /// False: a later owner has it.
    fn take(&mut self, n: usize, g: usize) -> bool {
        let Some(read) = self.nodes[n].units[g].read else { return false };
        let claim = Epoch { node: NodeId(n as u8), ..read };
        let has = self.disks[g].has;
        let newer = has.filter(|has| self.short(*has).is_newer_than(self.short(claim)));
        if let Some(newer) = newer {
            self.note(n, &format!("DISK g{g} refused to {claim}: {newer} has it"));
            self.check_refused(n, g, claim, newer);
            return false;
        }
        if let Some(has) = has.filter(|has| *has > claim) {
            let words = format!("g{g}: its disk goes from {has} back to {claim}");
            self.broken("LatestWrites", n, &words);
        }
        self.check_mounted(n, g, claim);
        if let Some(old) = has.filter(|has| has.node != claim.node) {
            self.cover.hit("reservation taken from an older owner");
            let m = usize::from(old.node.0);
            if self.is_served(m, g) && self.is_mounted(m, g) {
                self.cover.hit("reservation taken from an owner that runs on");
            }
        }
        if has != Some(claim) {
            self.note(n, &format!("DISK g{g} reserved for {claim}"));
        }
        self.disks[g].has = Some(claim);
        self.nodes[n].units[g].key = Some(claim);
        true
    }

    /// What is mounted by an earlier ownership must not write again by a later one.
    fn check_mounted(&mut self, n: usize, g: usize, claim: Epoch) {
        let units = &self.nodes[n].units[g];
        let Some(before) = units.key.filter(|key| *key != claim && !units.stray) else { return };
        if self.is_mounted(n, g) {
            let words = format!("g{g}: {claim} takes the disk, and {before} has it mounted here");
            self.broken("LatestWrites", n, &words);
        }
    }

    /// It looks whether the disk is still its own.
    pub fn look_at_disk(&mut self, n: usize, boot: u64, g: usize, job: u64) {
        let node = &self.nodes[n];
        let unit = &node.units[g].units[0];
        if !node.on || node.boots != boot || unit.job != job || unit.state != MemberState::Active {
            return;
        }
        if self.is_served(n, g) {
            return self.look_later(n, g);
        }
        self.cover.hit("owner lost its reservation");
        self.note(n, &format!("DISK g{g} was taken away"));
        let unit = &mut self.nodes[n].units[g].units[0];
        unit.job += 1;
        (unit.state, unit.result) = (MemberState::Failed, "exit-code");
        self.dirty(n, g);
    }

    /// A start is ordered for the first time by this epoch; its proof is known.
    pub fn note_ordered(&mut self, n: usize, g: usize, epoch: Epoch) {
        if self.options.reserved.is_none() {
            return;
        }
        let proof = self.rules.proof[n][g].clone();
        let (at, heard) = (self.t, self.disks[g].heard[n]);
        self.disks[g].ordered.entry(epoch).or_insert(Ordered { at, heard, proof });
    }

    pub fn hear_epochs(&mut self, n: usize, beat: &Heartbeat) {
        for report in &beat.groups {
            let g = self.group(&report.name);
            let heard = &mut self.disks[g].heard[n];
            *heard = report.epoch.max(*heard);
        }
    }

    /// A new daemon knows what is in its state file.
    pub fn read_epochs(&mut self, n: usize, record: &Record) {
        for (disk, group) in self.disks.iter_mut().zip(&self.options.groups) {
            disk.heard[n] = record.groups.get(&group.name).map(|r| r.epoch).unwrap_or_default();
        }
    }

    /// The disk refuses only what the core, too, would call the older one; and what it refuses
    /// could not know better.
    fn check_refused(&mut self, n: usize, g: usize, claim: Epoch, has: Epoch) {
        self.cover.hit("an older owner's reservation was refused");
        if has < claim {
            let words = format!("g{g}: {claim} is refused its disk for {has}");
            return self.broken("LatestWrites", n, &words);
        }
        let key = (n, self.nodes[n].life, claim);
        let times = self.disks[g].refused.entry(key).or_default();
        *times += 1;
        if *times > self.options.groups[g].policy.retries + SPARE {
            let words = format!("g{g}: is refused its disk at {claim} again and again");
            return self.broken("LatestWrites", n, &words);
        }
        let disk = &self.disks[g];
        let Some(start) = disk.ordered.get(&claim) else { return };
        if start.heard >= has {
            let words = format!("g{g}: is refused its disk at {claim}, and was told of {has}");
            return self.broken("LatestWrites", n, &words);
        }
        if disk.ordered.get(&has).is_some_and(|other| other.at > start.at) {
            return self.cover.hit("start of an older owner went on late");
        }
        let m = usize::from(has.node.0);
        let word = start.proof.get(m).cloned().unwrap_or_default();
        if word.starts_with("Promise") && !self.rules.rolled[m] {
            let words = format!("g{g}: {word} of n{}, whose {has} refuses {claim}", m + 1);
            self.broken("LatestWrites", n, &words);
        }
    }

    /// Of two owners the one that gives way is the one that the disk refuses, or will.
    pub fn check_way(&mut self, n: usize, g: usize, to: NodeId) {
        if self.options.reserved.is_none() {
            return;
        }
        let (m, has) = (usize::from(to.0), self.disks[g].has);
        let units = &self.nodes[m].units[g];
        let Some(theirs) = units.token.or(units.closed) else { return };
        if self.is_served(n, g) && has > Some(theirs) {
            let words = format!("g{g}: has its disk and gives way to n{}, whom it refuses", m + 1);
            self.broken("LatestWrites", n, &words);
        }
    }

    /// A core that was told does not keep what its disk refuses.
    pub fn check_kept(&mut self, n: usize) {
        if self.options.reserved.is_none() {
            return;
        }
        for g in 0..self.options.groups.len() {
            let node = &self.nodes[n];
            let failed = node.units[g].units[0].state == MemberState::Failed;
            let lost = failed && !self.is_served(n, g) && self.rules.phase[n][g] == 'R';
            let busy = node.daemon.as_ref().is_none_or(|d| d.tasks.contains_key(&g));
            let (key, awake) = ((n, node.life), node.frozen.max(node.daemon_frozen));
            if !lost || busy || self.in_maintenance(n, g) {
                self.disks[g].kept.remove(&key);
                continue;
            }
            let t = self.t;
            let since = self.disks[g].kept.entry(key).or_insert(t);
            *since = awake.max(*since);
            if t > *since + IDLE {
                let words = format!("g{g}: counts as running, and its disk refuses what it writes");
                return self.broken("LatestWrites", n, &words);
            }
        }
    }

    /// Everybody is back, and nobody knows the claim that has the disk: a person clears it.
    pub fn clear_disks(&mut self) {
        for g in 0..self.disks.len() {
            let Some(has) = self.disks[g].has else { continue };
            let name = &self.options.groups[g].name;
            let known = |n: &crate::node::Node| Some(n.disk.read()?.groups.get(name)?.epoch);
            if self.nodes.iter().filter_map(known).any(|epoch| epoch >= has) {
                continue;
            }
            if !self.rules.rolled.iter().any(|rolled| *rolled) {
                let words = format!("g{g}: nobody knows of {has}, which has its disk");
                return self.broken("LatestWrites", 0, &words);
            }
            self.note(0, &format!("OPERATOR clears the disk of g{g}, which {has} had"));
            self.disks[g].has = None;
        }
    }
}
