//! The invariants of hafailover-protocol(7), watched at every event from outside: what nodes say,
//! what they order, and what is truly on the machines.

use crate::canon::{Origin, SEED, ago, canon, mix};
use crate::situations::{Situation, reach};
use crate::step::Step;
use crate::world::{Cluster, MS, STOP, State};
use hafailover::core::heartbeat::{Heartbeat, Held};
use hafailover::core::name::{Epoch, NodeId};
use hafailover::core::policy::QuorumLost;
use hafailover::core::say::Saying;
use hafailover::core::time::Instant;
use hafailover::core::{Action, Event, Terminate};

/// Every invariant that is watched.
pub const NAMES: &[&str] = &[
    "OneOwner",
    "EpochUnique",
    "EpochGrows",
    "EvidenceFirst",
    "PromiseKept",
    "ReleaseVerified",
    "StuckIsHeld",
    "Guarded",
    "LatestWrites",
    "NoReplay",
    "NoStaleAct",
    "HandsOff",
    "Bounded",
    "Owned",
    "Healed",
    "Settled",
    "Answered",
    "NoPanic",
];

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    pub name: &'static str,
    pub words: String,
}

impl Broken {
    pub fn new(name: &'static str, words: impl Into<String>) -> Broken {
        assert!(NAMES.contains(&name), "no invariant {name}");
        Broken { name, words: words.into() }
    }
}

/// What must be remembered of a run to judge its next event.
#[derive(Clone, Default, Debug)]
pub struct Ghost {
    pub nodes: Vec<NodeGhost>,
    /// Pairs of nodes whose links were all cut at some moment, as a bit set.
    pub parted: u32,
    /// Nodes that froze, or whose daemon was away, longer than silence may be borne; or that a
    /// person wrongly called down.
    pub absent: u32,
    /// Nodes that stood still for longer than others wait for, or whose daemon has no successor
    /// and no guard.
    pub asleep: u32,
    /// Starts: group, epoch, and whether that ownership was released.
    pub starts: Vec<(usize, Epoch, usize, bool)>,
    /// Ownerships begun since the last fault.
    pub begun: u8,
    /// Since when two nodes that hear each other have the same group.
    pub both: Option<Instant>,
    /// Some job takes longer than the stop budget that `Healed` reckons with.
    pub slow: bool,
    /// The only fault was one machine's power loss: another one must take over by itself.
    pub bereft: bool,
    /// The only fault was a daemon's restart.
    pub hands_off: bool,
    pub faults: u8,
    /// Who had the group when somebody asked to move it.
    pub moving: Option<usize>,
    /// A peer's end of a crossover cable went dark.
    pub carrier: bool,
}

#[derive(Clone, Default, Debug)]
pub struct NodeGhost {
    pub spoken: Vec<Epoch>,
    pub promised: Vec<Epoch>,
    pub maintenance: bool,
    /// Requests without a result.
    pub waits: u8,
    /// Its state file was lost, or was never there.
    pub reinstalled: bool,
    /// Peers that did not hear it while it ran the group without a stop since, as a bit set.
    pub deafened: u32,
    /// By group: the evidence of its last start, by the other node.
    pub proof: Vec<Vec<(usize, String)>>,
    /// By group: when it last said that somebody may go on without the arbiter.
    pub vouched: Vec<Option<Instant>>,
}

impl Ghost {
    pub fn new(nodes: usize, groups: usize) -> Ghost {
        let node = NodeGhost {
            spoken: vec![Epoch::default(); groups],
            promised: vec![Epoch::default(); groups],
            proof: vec![Vec::new(); groups],
            vouched: vec![None; groups],
            ..NodeGhost::default()
        };
        Ghost { nodes: vec![node; nodes], ..Ghost::default() }
    }

    /// On what the node last started the group, against the other one.
    fn proof_of(&self, n: usize, group: usize, other: usize) -> &str {
        let proof = self.nodes[n].proof[group].iter().find(|(o, _)| *o == other);
        proof.map_or("nothing", |(_, kind)| kind)
    }

    pub fn number(&self) -> u64 {
        let mut hash = SEED;
        for node in &self.nodes {
            for epoch in node.spoken.iter().chain(&node.promised) {
                hash = mix(hash, epoch.counter << 8 | u64::from(epoch.node.0));
            }
            hash = mix(hash, u64::from(node.maintenance) | u64::from(node.reinstalled) << 1);
            hash = mix(hash, u64::from(node.waits));
            for (other, kind) in node.proof.iter().flatten() {
                hash = mix(hash, (*other as u64) << 32 | kind.bytes().map(u64::from).sum::<u64>());
            }
        }
        for (group, epoch, node, over) in &self.starts {
            let small = (*group as u64) << 9 | (*node as u64) << 1 | u64::from(*over);
            hash = mix(hash, small << 32 | epoch.counter << 8 | u64::from(epoch.node.0));
        }
        hash = mix(hash, u64::from(self.parted) << 32 | u64::from(self.absent));
        mix(
            hash,
            u64::from(self.asleep) << 32
                | u64::from(self.begun) << 8
                | u64::from(self.slow) << 2
                | u64::from(self.hands_off) << 1
                | u64::from(self.bereft),
        )
    }
}

pub fn pair(a: usize, b: usize) -> u32 {
    1 << (a.min(b) * 4 + a.max(b))
}

impl State {
    /// A cut excuses no second owner: one that is in a minority has stopped in time. What hangs,
    /// is in maintenance, or is cut in more than one way within a deadtime, is not promised.
    fn outvotes(&self, cluster: &Cluster) -> bool {
        let cared = self.ghost.nodes.iter().any(|n| n.maintenance);
        let stuck = self.nodes.iter().any(|n| n.units.iter().any(|u| u.stuck));
        let stops = cluster.policies[0].safety.quorum_lost == QuorumLost::Stop;
        stops && !self.ghost.slow && !cared && !stuck && self.ghost.faults < 2
    }

    /// The moment before a token is written: who else has the group?
    pub fn watch_token(
        &self,
        cluster: &Cluster,
        n: usize,
        group: usize,
        epoch: Epoch,
        broken: &mut Vec<Broken>,
    ) {
        // What its disk refuses is started again by the same epoch, which is no second ownership.
        if cluster.reserved && self.nodes[n].units[group].key == Some(epoch) {
            return;
        }
        for other in self.owners(group).into_iter().filter(|o| *o != n) {
            if self.nodes[other].units[group].stray {
                continue;
            }
            let kind = self.ghost.proof_of(n, group, other);
            let parted = self.ghost.parted & pair(n, other) != 0 && !self.outvotes(cluster);
            let excused = parted || self.ghost.absent & 1 << other != 0;
            // What an exempt second owner leads to is exempt as long as both are there.
            let guess = |kind: &str| matches!(kind, "Silent" | "Unseen" | "Operator");
            let asleep = self.ghost.asleep & 1 << other != 0 && !cluster.watched;
            let late = kind == "Expired" && asleep;
            // Its disk was taken from it by one that had left, and came back in the cut.
            let theirs = guess(self.ghost.proof_of(other, group, n)) && kind == "Released";
            let robbed = cluster.reserved && theirs && parted;
            if !(guess(kind) && excused || late || robbed) {
                broken.push(Broken::new(
                    "OneOwner",
                    format!(
                        "{} starts on n{} at epoch {epoch} by {kind} while n{} has it",
                        cluster.names[group],
                        n + 1,
                        other + 1
                    ),
                ));
            }
        }
    }
}

impl Step<'_> {
    pub fn break_(&mut self, name: &'static str, words: String) {
        self.broken.push(Broken::new(name, words));
    }

    /// After every event.
    pub fn after(&mut self) {
        let cluster = self.cluster;
        let (now, links) = (self.state.now, cluster.policies[0].links.len());
        let mut both = false;
        for group in 0..cluster.names.len() {
            let owners = self.state.owners(group);
            let live = |n: &usize| {
                let node = &self.state.nodes[*n];
                let units = &node.units[group];
                node.core.is_some() && !node.frozen && !units.stuck && !units.stray
            };
            both |= owners.len() > 1
                && !self.state.ghost.slow
                && !self.state.ghost.nodes.iter().any(|n| n.maintenance)
                && owners.iter().all(live)
                && owners
                    .iter()
                    .all(|a| owners.iter().all(|b| a == b || self.state.joined(*a, *b, links)));
        }
        let keepalive = cluster.policies[0].timing.keepalive.as_nanos() as u64;
        let bound = 2 * keepalive + STOP + 40 * MS;
        match (both, self.state.ghost.both) {
            (false, since) => {
                let one = (0..cluster.names.len()).all(|g| self.state.owners(g).len() == 1);
                if since.is_some() && one {
                    reach(Situation::Heal);
                }
                self.state.ghost.both = None;
            }
            (true, None) => self.state.ghost.both = Some(Instant(now)),
            (true, Some(since)) if now - since.0 > bound => {
                self.break_("Healed", "two nodes that hear each other keep the group".into());
            }
            (true, Some(_)) => {}
        }
    }

    /// The core has dealt with an event, so much later than it wanted to wake.
    pub fn watch_handled(&mut self, n: usize, late: u64, actions: &[Action]) {
        let policy = &self.cluster.policies[n];
        let sends = actions.iter().filter(|a| matches!(a, Action::Send { .. })).count();
        if sends > 5 * policy.links.len() {
            self.break_("Bounded", format!("n{} sends {sends} frames at once", n + 1));
        }
        let start = |a: &Action| matches!(a, Action::Start { .. });
        if u128::from(late) >= policy.timing.deadtime.as_nanos() && actions.iter().any(start) {
            self.break_("NoStaleAct", format!("n{} starts in the first look after a stall", n + 1));
        }
    }

    /// A frame that came to an earlier daemon comes to this one: only time goes on.
    pub fn watch_replay(&mut self, n: usize, event: Event) {
        let now = Instant(self.state.now);
        let Some(core) = &self.state.nodes[n].core else { return };
        let shown = |event: Event| {
            let mut core = core.clone();
            core.handle(now, event);
            let view = core.view(now);
            let nodes = view.nodes.iter().map(|n| (n.presence, n.standby, n.mood));
            let groups = view.groups.iter().map(|g| (g.phase, g.held, g.owner, g.epoch));
            format!("{:?} {:?}", nodes.collect::<Vec<_>>(), groups.collect::<Vec<_>>())
        };
        let (before, after) = (shown(Event::Wake), shown(event));
        if before != after {
            let words = format!("n{}: a recorded frame made {before} into {after}", n + 1);
            self.break_("NoReplay", words);
        }
    }

    /// A machine resets itself: something runs there whose stop was begun, and nobody has said to
    /// leave it alone.
    pub fn watch_reset(&mut self, n: usize) {
        self.note(n, || "resets itself".into());
        // What outlives its lease is reset whatever is configured.
        if self.cluster.policies[n].lease.is_some() {
            return;
        }
        let core = self.state.nodes[n].core.as_ref().expect("a reset is ordered by a core");
        let view = core.view(Instant(self.state.now));
        if view.maintenance || view.groups.iter().any(|g| g.maintenance) {
            self.break_("HandsOff", format!("n{} resets itself in maintenance", n + 1));
        }
        if !self.state.nodes[n].units.iter().any(|u| u.closed.is_some()) {
            self.break_("HandsOff", format!("n{} resets itself, and no stop was begun", n + 1));
        }
    }

    pub fn watch_job(&mut self, n: usize, what: &str) {
        self.state.ghost.nodes[n].deafened = 0;
        let core = self.state.nodes[n].core.as_ref().expect("a job is ordered by a core");
        let view = core.view(Instant(self.state.now));
        let kept = view.maintenance || view.groups.iter().any(|g| g.maintenance);
        if kept && !self.commanded && !self.may_leave(n) {
            self.break_("HandsOff", format!("n{} orders {what} in maintenance", n + 1));
        } else if self.state.ghost.hands_off {
            let words = format!("n{} orders {what} though only a daemon restarted", n + 1);
            self.break_("HandsOff", words);
        }
    }

    /// In maintenance a lease that is over ends a group; and a daemon that is stopped gives away
    /// what a lease will end.
    fn may_leave(&self, n: usize) -> bool {
        let going = self.state.nodes[n].going;
        let going = matches!(going, Some(Terminate::Stop | Terminate::Shutdown));
        self.cluster.policies[n].lease.is_some() && (going || self.is_lease_over(n))
    }

    /// A start is ordered.
    pub fn watch_start(&mut self, n: usize, group: usize, epoch: Epoch) {
        self.watch_job(n, "a start");
        let core = self.state.nodes[n].core.as_ref().expect("a start is ordered by a core");
        let view = core.view(Instant(self.state.now));
        let name = &self.cluster.names[group];
        let shown = view.groups.iter().find(|g| g.name == *name);
        let lines = shown.map(|g| g.evidence.clone()).unwrap_or_default();
        let known = self.state.ghost.starts.iter().any(|s| (s.0, s.1, s.2) == (group, epoch, n));
        let mut proof = Vec::new();
        for line in &lines {
            let (who, kind) = line.split_once([':', '=']).unwrap_or((line, ""));
            let node = view.nodes.iter().position(|v| v.name == who.trim());
            let kind = kind.trim().split('(').next().unwrap_or_default().to_string();
            proof.extend(node.map(|node| (node, kind)));
        }
        self.watch_epoch(n, group, epoch, known);
        if known {
            return;
        }
        if proof.iter().any(|(_, kind)| kind == "Expired")
            && let Some(age) = self.state.vouched(n, group, self.times().wait)
        {
            let words = format!("n{} starts on Expired and vouched {age:?} ago", n + 1);
            self.break_("EvidenceFirst", words);
        }
        self.state.ghost.begun += 1;
        self.state.ghost.starts.push((group, epoch, n, false));
        for other in (0..self.state.nodes.len()).filter(|o| *o != n) {
            let Some((_, kind)) = proof.iter().find(|(o, _)| *o == other) else {
                let words = format!("n{} starts without evidence against n{}", n + 1, other + 1);
                self.break_("EvidenceFirst", words);
                continue;
            };
            let kept = self.state.nodes[other].disk.as_ref().is_some_and(|d| {
                d.groups.get(name).is_some_and(|r| r.epoch >= epoch || r.promise >= Some(epoch))
            });
            if kind == "Promise" && !kept && !self.state.ghost.nodes[other].reinstalled {
                let words = format!("n{} starts at {epoch} by a promise not on disk", n + 1);
                self.break_("EvidenceFirst", words);
            }
        }
        self.state.ghost.nodes[n].proof[group] = proof;
        let begun = self.state.ghost.begun;
        if usize::from(begun) > 4 * self.cluster.names.len() {
            self.break_("Settled", format!("{begun} starts without a new cause"));
        }
    }

    fn watch_epoch(&mut self, n: usize, group: usize, epoch: Epoch, known: bool) {
        let ghost = &self.state.ghost;
        let twice = ghost.starts.iter().find(|s| s.0 == group && s.1 == epoch && s.2 != n);
        let over =
            known && ghost.starts.iter().any(|s| (s.0, s.1, s.2, s.3) == (group, epoch, n, true));
        let promised = ghost.nodes[n].promised[group];
        if twice.is_some() || over {
            self.break_("EpochUnique", format!("n{} starts at {epoch} once more", n + 1));
        }
        if epoch <= promised {
            let words = format!("n{} promised {promised} and starts at {epoch}", n + 1);
            self.break_("PromiseKept", words);
        }
    }

    /// A heartbeat leaves the node.
    pub fn watch_spoken(&mut self, n: usize, beat: &Heartbeat) {
        let names = self.cluster.names.clone();
        let mut maintenance = beat.wishes.maintenance.value;
        for report in &beat.groups {
            let Some(group) = names.iter().position(|g| *g == report.name) else { continue };
            maintenance |= report.wish.value.maintenance;
            let units = self.state.nodes[n].units[group].clone();
            let spoken = self.state.ghost.nodes[n].spoken[group];
            // A guard speaks of no epoch.
            let known = report.epoch >= spoken || beat.mood.guarding;
            if !known && !self.state.ghost.nodes[n].reinstalled {
                let words = format!("n{} said {spoken} and now {}", n + 1, report.epoch);
                self.break_("EpochGrows", words);
            }
            if report.held == Held::No && units.on() && !units.stray {
                let stop = units.stuck || units.job.is_some();
                let name = if stop { "StuckIsHeld" } else { "ReleaseVerified" };
                self.break_(name, format!("n{} says that it does not hold what runs there", n + 1));
            }
            if beat.mood.guarding {
                continue;
            }
            let (now, ghost) = (Instant(self.state.now), &mut self.state.ghost);
            if report.voucher.is_some() {
                ghost.nodes[n].vouched[group] = Some(now);
            }
            ghost.nodes[n].spoken[group] = report.epoch;
            let given = report.promise.filter(|p| p.node != NodeId(n as u8));
            let promised = &mut ghost.nodes[n].promised[group];
            *promised = given.map_or(*promised, |p| p.max(*promised));
            if let Some(released) = report.released {
                for start in ghost.starts.iter_mut().filter(|s| (s.0, s.2) == (group, n)) {
                    start.3 |= start.1 <= released.epoch;
                }
            }
        }
        self.state.ghost.nodes[n].maintenance = maintenance;
    }

    pub fn said(&mut self, n: usize, saying: &Saying) {
        let epoch = saying.epoch.map(|e| format!(" epoch {e}")).unwrap_or_default();
        let peer = saying.peer.map(|p| format!(" n{}", p.0 + 1)).unwrap_or_default();
        let proof = match saying.evidence.is_empty() {
            true => String::new(),
            false => format!(" [{}]", saying.evidence),
        };
        self.note(n, || format!("{}{peer}{epoch}: {}{proof}", saying.what.key(), saying.reason));
        if let (hafailover::core::say::What::PeerDeaf, Some(peer)) = (saying.what, saying.peer)
            && self.state.owners(0) == [n]
        {
            self.state.ghost.nodes[n].deafened |= 1 << peer.0;
        }
        self.watch_way(n, saying);
        crate::situations::said(&self.state, n, saying);
    }
}

/// The bound of `Healed` counts as time does.
pub fn both_number(state: &State) -> u64 {
    let both = state.ghost.both.map(|at| ago(state.now, at.0));
    canon(&both, Origin::default())
}

/// The watch over second owners must not be blind: the cores give it nothing to see.
pub fn check(cluster: &Cluster, rest: &State) {
    let look = |state: &State| {
        let mut broken = Vec::new();
        state.watch_token(cluster, 1, 0, Epoch { counter: 9, node: NodeId(1) }, &mut broken);
        broken.iter().map(|b| b.name).collect::<Vec<_>>()
    };
    let mut state = rest.clone();
    assert_eq!(look(&state), ["OneOwner"], "n1 has the group, and n2 starts it by nothing");
    state.ghost.nodes[1].proof[0] = vec![(0, "Silent".into())];
    assert_eq!(look(&state), ["OneOwner"], "silence between nodes that were never parted");
    state.ghost.parted = pair(0, 1);
    assert!(look(&state).is_empty(), "silence between nodes whose links were all cut");
    state.ghost.nodes[1].proof[0] = vec![(0, "Promise".into())];
    assert_eq!(look(&state), ["OneOwner"], "a promise, whatever the links");
}
