//! A small world for scenarios: nodes with the real core, links that can be cut, a systemd and a
//! disk that do what the script says. Deterministic; time is virtual.

// By its path, because the tests of the commands use this file too.
#[path = "escalate.rs"]
mod escalate;
#[path = "fences.rs"]
mod fences;
#[path = "guards.rs"]
mod guards;

use super::arbiter::Arbiter;
use fences::Agent;
use hafailover::core::heartbeat::Heartbeat;
use hafailover::core::name::{BootId, Epoch, GroupName, LinkId, NodeId, Session};
use hafailover::core::policy::{GroupPolicy, Policy};
use hafailover::core::record::Record;
use hafailover::core::say::{Saying, What};
use hafailover::core::time::{Duration, Instant};
use hafailover::core::{
    Action, Boot, Core, Event, Guard, Member, MemberState, Observation, Proof, Reply, StartError,
    StopError,
};
use std::collections::{BTreeMap, BTreeSet};

const WIRE: Duration = Duration::from_millis(1);
const DISK: Duration = Duration::from_millis(2);
const START: Duration = Duration::from_millis(100);
const STOP: Duration = Duration::from_millis(50);

pub struct World {
    pub now: Instant,
    pub nodes: Vec<Node>,
    pub policies: Vec<Policy>,
    /// Cut directions: link, from, to.
    pub cut: BTreeSet<(u8, u8, u8)>,
    /// How long a frame is under way on a slow link.
    pub wire: BTreeMap<u8, Duration>,
    pub arbiter: Arbiter,
    pub trace: Vec<String>,
    /// What the nodes answered, not yet taken.
    pub replies: Vec<Reply>,
    /// What an eavesdropper has: whose machine sent it, on which link.
    recorded: Vec<(usize, LinkId, Heartbeat)>,
    /// Frames that each machine sent.
    sent: Vec<usize>,
    queue: BTreeMap<(Instant, u64), (usize, u64, Event)>,
    count: u64,
    two: BTreeSet<GroupName>,
    agents: BTreeMap<usize, Agent>,
}

/// One machine. `life` grows with every daemon, so that answers to a dead one are dropped.
#[derive(Default)]
pub struct Node {
    pub core: Option<Core>,
    /// At work, because the daemon is lost.
    pub guard: Option<Guard>,
    pub disk: Option<Record>,
    /// It takes what is written and never answers.
    pub disk_hangs: bool,
    pub units: BTreeMap<GroupName, Units>,
    pub frozen: bool,
    /// How long its disk takes; `None` until the script says so.
    pub disk_takes: Option<Duration>,
    /// Its state file cannot be written.
    pub full: bool,
    /// reboot(2) has no effect on it.
    pub reset_fails: bool,
    /// A copy of its state file.
    pub backup: Option<Record>,
    held_back: Vec<Event>,
    life: u64,
    /// Grows with every life of the machine.
    boots: u64,
    jobs: BTreeMap<u64, Job>,
    /// Groups that are not enabled when its daemon starts next.
    pub disabled: BTreeSet<GroupName>,
}

struct Job {
    group: GroupName,
    stop: bool,
}

#[derive(Clone, Default)]
pub struct Units {
    pub running: bool,
    pub dead: bool,
    pub token: Option<Epoch>,
    /// A stop has begun and is not verified.
    pub closed: Option<Epoch>,
    pub proof: Option<(Epoch, Proof)>,
    /// What the guard was told.
    pub lasts: Option<(Epoch, Instant)>,
    /// How long its stop takes, if the script says so.
    pub stop_takes: Option<Duration>,
    pub start_fails: bool,
    /// It starts well and is dead at the next look.
    pub start_dies: bool,
    pub stop_fails: bool,
    /// Whoever keeps it busy outlives a kill.
    pub users_stay: bool,
    /// What comes of a stop is not known.
    pub stop_lost: bool,
    pub no_carrier: bool,
}

impl Node {
    fn next_wake(&self) -> Option<Instant> {
        let core = self.core.as_ref().map(Core::next_wake);
        core.or(self.guard.as_ref().map(Guard::next_wake))
    }
}

impl World {
    pub fn new(policies: Vec<Policy>) -> World {
        let nodes: Vec<Node> = policies.iter().map(|_| Node::default()).collect();
        World {
            sent: vec![0; nodes.len()],
            recorded: Vec::new(),
            now: Instant(1_000_000_000),
            nodes,
            policies,
            cut: BTreeSet::new(),
            wire: BTreeMap::new(),
            arbiter: Arbiter::new(Instant(1_000_000_000)),
            trace: Vec::new(),
            replies: Vec::new(),
            queue: BTreeMap::new(),
            count: 0,
            two: BTreeSet::new(),
            agents: BTreeMap::new(),
        }
    }

    pub fn boot(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        node.life += 1;
        let session = Session(100 * (n as u64 + 1) + node.life);
        let boot = Boot { session, boot: BootId(node.boots), record: node.disk.clone() };
        let mut policy = self.policies[n].clone();
        policy.groups.retain(|name, _| !node.disabled.contains(name));
        let (core, actions) = Core::new(self.now, boot, policy);
        node.core = Some(core);
        for link in 0..self.policies[n].links.len() {
            let event = Event::Link { link: LinkId(link as u8), usable: true, why: String::new() };
            self.later(n, Duration::ZERO, event);
        }
        self.perform(n, actions);
    }

    pub fn power_off(&mut self, n: usize) {
        self.nodes[n].boots += 1;
        self.kill_daemon(n);
        for units in self.nodes[n].units.values_mut() {
            *units = Units { start_fails: units.start_fails, ..Units::default() };
        }
    }

    pub fn kill_daemon(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        (node.core, node.guard) = (None, None);
        node.life += 1;
        node.jobs.clear();
        node.frozen = false;
    }

    pub fn thaw(&mut self, n: usize) {
        self.nodes[n].frozen = false;
        for event in std::mem::take(&mut self.nodes[n].held_back) {
            self.later(n, Duration::ZERO, event);
        }
        self.later(n, Duration::ZERO, Event::Wake);
    }

    /// Its files are read again, and one of its groups says something else.
    pub fn reconfigure(
        &mut self,
        n: usize,
        group: &GroupName,
        change: impl FnOnce(&mut GroupPolicy),
    ) {
        change(self.policies[n].groups.get_mut(group).expect("a group of the scenario"));
        let policy = Box::new(self.policies[n].clone());
        self.later(n, Duration::ZERO, Event::Reconfigured { policy });
    }

    pub fn observe(&mut self, n: usize, group: &GroupName) {
        let units = self.nodes[n].units.entry(group.clone()).or_default().clone();
        let state = match (units.running, units.dead) {
            (true, true) => MemberState::Failed,
            (true, false) => MemberState::Active,
            (false, _) => MemberState::Inactive,
        };
        let member = Member {
            unit: "a.service".into(),
            hard: true,
            state,
            result: if units.dead { "signal".into() } else { String::new() },
            restarts: 0,
            by_hand: false,
        };
        let seen = Observation {
            members: vec![member],
            token: units.token,
            closed: units.closed,
            proof: units.proof.filter(|(e, _)| units.token == Some(*e)).map(|(_, proof)| proof),
            lasts: units
                .lasts
                .filter(|(e, _)| units.token.or(units.closed) == Some(*e))
                .map(|l| l.1),
            no_carrier: units.no_carrier.then(|| "eth0".to_string()),
            ..Observation::default()
        };
        self.later(n, Duration::from_micros(100), Event::Observed { group: group.clone(), seen });
    }

    pub fn later(&mut self, n: usize, after: Duration, event: Event) {
        self.count += 1;
        let life = self.nodes[n].life;
        self.queue.insert((self.now + after, self.count), (n, life, event));
    }

    /// Lets time pass, event by event.
    pub fn run(&mut self, for_: Duration) {
        let end = self.now + for_;
        loop {
            let wake = (0..self.nodes.len())
                .filter(|n| !self.nodes[*n].frozen)
                .filter_map(|n| Some((self.nodes[n].next_wake()?, n)))
                .min();
            let next = self.queue.first_key_value().map(|(k, _)| k.0);
            let at = wake.map(|w| w.0).into_iter().chain(next).min();
            let Some(at) = at.filter(|at| *at <= end) else { break };
            self.now = self.now.max(at);
            if next == Some(at) {
                let (_, (n, life, event)) = self.queue.pop_first().expect("seen above");
                if self.nodes[n].life == life {
                    self.deliver(n, event);
                }
            } else if let Some((_, n)) = wake {
                self.deliver(n, Event::Wake);
            }
        }
        self.now = end;
    }

    fn deliver(&mut self, n: usize, event: Event) {
        if self.nodes[n].frozen {
            self.nodes[n].held_back.push(event);
            return;
        }
        let event = match event {
            Event::Started { group, job, .. } => {
                let Some(result) = self.finish_start(n, &group, job) else { return };
                Event::Started { group, job, result }
            }
            Event::Stopped { group, job, .. } => {
                let Some(result) = self.finish_stop(n, &group, job) else { return };
                Event::Stopped { group, job, result }
            }
            Event::Fenced { node, id, result: Ok(()) } => {
                Event::Fenced { node, id, result: self.switch_off(usize::from(node.0)) }
            }
            event => event,
        };
        let now = self.now;
        if let (Some(guard), Event::Heard { link, heartbeat }) = (&mut self.nodes[n].guard, &event)
        {
            guard.hear(now, *link, heartbeat);
        }
        self.guard_speaks(n);
        let Some(core) = &mut self.nodes[n].core else { return };
        let actions = core.handle(now, event);
        self.perform(n, actions);
        self.check_owners();
    }

    fn finish_start(
        &mut self,
        n: usize,
        g: &GroupName,
        job: u64,
    ) -> Option<Result<(), StartError>> {
        self.nodes[n].jobs.remove(&job)?;
        let units = self.nodes[n].units.entry(g.clone()).or_default();
        if units.start_fails {
            let (unit, result) = ("a.service".to_string(), "exit-code".to_string());
            return Some(Err(StartError::Failed { unit, result }));
        }
        (units.running, units.dead) = (true, units.start_dies);
        Some(Ok(()))
    }

    fn finish_stop(&mut self, n: usize, g: &GroupName, job: u64) -> Option<Result<(), StopError>> {
        self.nodes[n].jobs.remove(&job)?;
        let units = self.nodes[n].units.entry(g.clone()).or_default();
        if units.stop_fails {
            let holders = vec!["pid 7 (vi)".to_string()];
            let why = "target is busy".to_string();
            return Some(Err(StopError::Stuck { unit: "a.mount".into(), why, holders }));
        }
        if units.stop_lost {
            return Some(Err(StopError::Unknown { why: "the answer was lost".into() }));
        }
        (units.running, units.dead, units.closed) = (false, false, None);
        Some(Ok(()))
    }

    fn perform(&mut self, n: usize, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Send { link, heartbeat } => self.send(n, link, &heartbeat),
                Action::Persist { ticket, record } => {
                    let node = &mut self.nodes[n];
                    if node.disk_hangs {
                        continue;
                    }
                    if !node.full {
                        node.disk = Some(*record);
                    }
                    let why = "no space left on device".to_string();
                    let result = if node.full { Err(why) } else { Ok(()) };
                    let takes = node.disk_takes.unwrap_or(DISK);
                    self.later(n, takes, Event::Persisted { ticket, result });
                }
                Action::Start { group, epoch, job, valid_until } => {
                    assert!(valid_until > self.now, "a start that is late when it is ordered");
                    self.nodes[n].units.entry(group.clone()).or_default().token = Some(epoch);
                    self.nodes[n].jobs.insert(job, Job { group: group.clone(), stop: false });
                    self.later(n, START, Event::Started { group, job, result: Ok(()) });
                }
                Action::Stop { group, job } => {
                    let units = self.nodes[n].units.entry(group.clone()).or_default();
                    units.closed = units.token.take().or(units.closed);
                    let takes = units.stop_takes.unwrap_or(STOP);
                    self.nodes[n].jobs.retain(|_, j| j.stop || j.group != group);
                    self.nodes[n].jobs.insert(job, Job { group: group.clone(), stop: true });
                    self.later(n, takes, Event::Stopped { group, job, result: Ok(()) });
                }
                Action::KillUsers { group, unit, job } => self.kill_users(n, group, &unit, job),
                Action::Reset { group, .. } => self.reset(n, &group),
                Action::Prove { group, epoch, proof } => {
                    let units = self.nodes[n].units.entry(group).or_default();
                    units.proof = Some((epoch, *proof));
                }
                Action::Adopt { group, epoch } => {
                    self.nodes[n].units.entry(group).or_default().token = Some(epoch);
                }
                Action::Fence { node, id, valid_until } => self.fence(n, node, id, valid_until),
                Action::FenceEnd { node } => self.end_fence(n, node),
                Action::FenceCheck { node, id } => self.try_fence(n, node, id),
                Action::Lease { group, epoch, ticket, verb } => {
                    self.ask_arbiter(n, group, epoch, (ticket, verb));
                }
                Action::Lasts { group, epoch, until } => {
                    self.nodes[n].units.entry(group).or_default().lasts = Some((epoch, until));
                }
                Action::Observe { group } => self.observe(n, &group),
                Action::Announce { group } => self.note(n, &format!("announces {group}")),
                Action::Say(saying) => self.told(n, saying),
                Action::Answer { reply, .. } => {
                    self.note(n, &format!("answers {reply:?}"));
                    self.replies.push(reply);
                }
                Action::Exit => {
                    self.note(n, "exits");
                    self.kill_daemon(n);
                }
            }
        }
    }

    fn told(&mut self, n: usize, saying: Saying) {
        if saying.what != What::GroupPhase {
            let group = saying.group.map(|g| format!(" {g}")).unwrap_or_default();
            let peer = saying.peer.map(|p| format!(" n{}", p.0 + 1)).unwrap_or_default();
            let epoch = saying.epoch.map(|e| format!(" epoch {e}")).unwrap_or_default();
            let proof = match saying.evidence.is_empty() {
                true => String::new(),
                false => format!(" [{}]", saying.evidence),
            };
            let line = saying.what.key();
            let reason = saying.reason;
            self.note(n, &format!("{line}{group}{peer}{epoch}: {reason}{proof}"));
        }
    }

    fn send(&mut self, n: usize, link: LinkId, heartbeat: &Heartbeat) {
        let ends = |to: &usize| self.policies[*to].has(link);
        self.sent[n] += 1;
        self.recorded.push((n, link, heartbeat.clone()));
        for to in (0..self.nodes.len()).filter(|to| *to != n).filter(ends).collect::<Vec<_>>() {
            if !self.cut.contains(&(link.0, n as u8, to as u8)) {
                let heartbeat = Box::new(heartbeat.clone());
                let event = match heartbeat.from == self.policies[to].me {
                    true => Event::Double { heartbeat, address: format!("10.0.0.{}", n + 1) },
                    false => Event::Heard { link, heartbeat },
                };
                self.later(to, self.wire.get(&link.0).copied().unwrap_or(WIRE), event);
            }
        }
    }

    /// So many frames of former lives of a machine come to `n`, one each millisecond, of each life
    /// in turn; what it then sends is counted.
    pub fn flood(&mut self, n: usize, of: usize, count: usize) {
        let now = Session(100 * (of as u64 + 1) + self.nodes[of].life);
        let mut lives: BTreeMap<u64, Vec<(LinkId, Heartbeat)>> = BTreeMap::new();
        for (_, link, beat) in self.recorded.iter().filter(|r| r.0 == of) {
            if beat.session != now {
                lives.entry(beat.session.0).or_default().push((*link, beat.clone()));
            }
        }
        let before = self.sent[n];
        for i in 0..count {
            let frames = lives.values().nth(i % lives.len()).expect("it has former lives");
            let (link, beat) = frames[i / lives.len() % frames.len()].clone();
            let heartbeat = Box::new(beat);
            let event = match of == n {
                true => Event::Double { heartbeat, address: "10.0.0.9".into() },
                false => Event::Heard { link, heartbeat },
            };
            self.later(n, Duration::ZERO, event);
            self.run(Duration::from_millis(1));
        }
        self.note(n, &format!("has sent {} frames", self.sent[n] - before));
    }

    pub fn note(&mut self, n: usize, words: &str) {
        let ms = self.now.0 / 1_000_000;
        self.trace.push(format!("{:>4}.{:03} n{} {words}", ms / 1000, ms % 1000, n + 1));
    }

    /// OneOwner, as a person would see it: the token is there from before the start until the
    /// stop begins, the units until they are stopped.
    pub fn check_owners(&mut self) {
        let names: BTreeSet<GroupName> = self.policies[0].groups.keys().cloned().collect();
        for name in names {
            let on = |u: &Units| u.running || u.token.is_some();
            let at = |n: &Node| n.units.get(&name).is_some_and(on);
            let owners: Vec<usize> =
                (0..self.nodes.len()).filter(|n| at(&self.nodes[*n])).collect();
            if owners.len() > 1 && self.two.insert(name.clone()) {
                self.note(owners[0], &format!("!! {name} runs on {} nodes", owners.len()));
            } else if owners.len() < 2 && self.two.remove(&name) {
                let n = owners.first().copied().unwrap_or_default();
                self.note(n, &format!("!! {name} runs on one node again"));
            }
        }
    }

    /// The machine: those behind the last node are clones.
    pub fn node(&self, name: &str) -> usize {
        let number = name.strip_prefix('n').and_then(|n| n.parse::<usize>().ok());
        number.map(|n| n - 1).filter(|n| *n < self.nodes.len()).expect("a node of the scenario")
    }

    pub fn at(&mut self, name: &str) -> &mut Node {
        let n = self.node(name);
        &mut self.nodes[n]
    }

    pub fn id(&self, name: &str) -> NodeId {
        NodeId(self.node(name) as u8)
    }
}
