//! What one seed chooses before its run: the cluster, its settings, the world's quality, faults.

use crate::rng::{MS, Rng};
use hafailover::core::name::{GroupName, LinkId, NodeId};
use hafailover::core::policy::{
    Failback, FenceKind, FencePolicy, Fences, GroupPolicy, LeaseTimes, OnLost, OnSilence, Policy,
    QuorumLost, Safety, StopFailure, Timing,
};
use hafailover::core::time::Duration;
use std::collections::BTreeMap;
use std::fmt;

/// In milliseconds: what systemd's watchdog allows a daemon.
const HANG: u64 = 1000;

#[derive(Clone, Debug)]
pub struct Options {
    pub seed: u64,
    pub nodes: usize,
    pub links: Vec<LinkOptions>,
    pub timing: Timing,
    pub safety: Safety,
    pub groups: Vec<GroupOptions>,
    /// Parts per million by which each node's clock is fast.
    pub drift: Vec<i64>,
    pub faults: Vec<Fault>,
    /// Permille of a fault at each border between a check and its act.
    pub border: u64,
    /// Mean gap between faults without such an occasion.
    pub gap: u64,
    /// Mean gap between requests of operators.
    pub asks: u64,
    /// Permille of jobs that fail, hang, or end without effect.
    pub jobs: u64,
    pub safety_phase: u64,
    /// Two versions of the wire format, node by node.
    pub upgrade: bool,
    /// Files change while the daemons run.
    pub edits: bool,
    pub fences: Option<FenceOptions>,
    pub leases: Option<LeaseOptions>,
    /// Every group's first member is its disk's reservation; so often the owner changed before.
    pub reserved: Option<u64>,
}

/// There is an arbiter.
#[derive(Clone, Debug)]
pub struct LeaseOptions {
    pub times: LeaseTimes,
    /// After so long systemd ends a daemon that hangs.
    pub hang: u64,
    /// Every node has a watchdog that lives on the leases.
    pub watchdog: Option<u64>,
    /// Parts per million by which the arbiter's clock is fast.
    pub drift: i64,
}

/// Every node has a fence.
#[derive(Clone, Debug)]
pub struct FenceOptions {
    pub delay: Duration,
    pub attempts: u32,
    pub failed: OnSilence,
    pub drill: Option<Duration>,
    pub agents: Agents,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Agents {
    Honest,
    /// Some fail, some hang, some do it and say that they did not.
    Flaky,
    /// They say that they did it.
    Lying,
    /// They do it, to the node's path to its storage: it runs on, and writes nothing.
    Storage,
}

#[derive(Clone, Debug)]
pub struct LinkOptions {
    pub baud: Option<u32>,
    pub loss: u64,
    pub twice: u64,
    pub slow: u64,
    /// Of a line among three nodes: whom it joins.
    pub ends: Option<(NodeId, NodeId)>,
    /// Over slots on a shared disk.
    pub disk: bool,
}

#[derive(Clone, Debug)]
pub struct GroupOptions {
    pub name: GroupName,
    pub policy: GroupPolicy,
    pub members: usize,
    pub soft: bool,
}

/// The kinds of fault; a seed chooses some of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    Freeze,
    FreezeDaemon,
    Pause,
    Suspend,
    Jump,
    Kill,
    Lost,
    PowerOff,
    Cut,
    CutOneWay,
    CutAll,
    Stall,
    Noise,
    Replay,
    MemberDies,
    Terminate,
    LoseState,
    OldState,
    DiskFails,
    DiskSlow,
    Stray,
    Carrier,
    Monday,
}

impl Fault {
    pub const ALL: [Fault; 23] = [
        Fault::Freeze,
        Fault::FreezeDaemon,
        Fault::Pause,
        Fault::Suspend,
        Fault::Jump,
        Fault::Kill,
        Fault::Lost,
        Fault::PowerOff,
        Fault::Cut,
        Fault::CutOneWay,
        Fault::CutAll,
        Fault::Stall,
        Fault::Noise,
        Fault::Replay,
        Fault::MemberDies,
        Fault::Terminate,
        Fault::LoseState,
        Fault::OldState,
        Fault::DiskFails,
        Fault::DiskSlow,
        Fault::Stray,
        Fault::Carrier,
        Fault::Monday,
    ];
}

impl Options {
    pub fn draw(seed: u64, rng: &mut Rng) -> Options {
        let nodes = rng.pick(&[2, 2, 2, 2, 3, 3, 4, 5]);
        let keepalive = rng.pick(&[100, 150, 200]);
        let deadtime = keepalive * rng.range(5, 8);
        let hold = |rng: &mut Rng, permille| match rng.chance(permille) {
            true => OnSilence::Hold,
            false => OnSilence::Takeover,
        };
        let ms = Duration::from_millis;
        let silence = hold(rng, 200);
        let unseen = if rng.chance(800) { silence } else { hold(rng, 500) };
        let count = rng.range(3, 12) as usize;
        let mut faults: Vec<Fault> = (0..count).map(|_| rng.pick(&Fault::ALL)).collect();
        faults.sort();
        faults.dedup();
        let mut options = Options {
            seed,
            nodes,
            links: links(rng, nodes),
            timing: Timing {
                keepalive: ms(keepalive),
                warntime: ms(keepalive * 3),
                deadtime: ms(deadtime),
                initdead: ms(deadtime + rng.range(0, 2500)),
                restart_bound: ms(2000),
            },
            safety: Safety {
                silence,
                unseen,
                last_link: hold(rng, 600),
                quorum_lost: QuorumLost::Keep,
                on_lost: if rng.chance(500) { OnLost::Reboot } else { OnLost::Leave },
                guard_bound: ms(3000),
            },
            groups: (0..rng.pick(&[1, 1, 1, 2, 3, 4])).map(|g| group(rng, nodes, g)).collect(),
            drift: (0..nodes).map(|_| rng.range(0, 20_000) as i64 - 10_000).collect(),
            faults,
            border: rng.pick(&[0, 20, 60, 150, 300]),
            gap: rng.pick(&[800, 1500, 3000, 8000]) * MS,
            asks: rng.pick(&[700, 2500, 6000, 1_000_000]) * MS,
            jobs: rng.pick(&[0, 0, 30, 200]),
            safety_phase: rng.ms(6000, 20_000),
            upgrade: false,
            edits: false,
            fences: None,
            leases: None,
            reserved: None,
        };
        options.draw_more();
        options.quicken_lines();
        options
    }

    /// What came later is drawn apart, so that a seed without it is the run that it was.
    fn draw_more(&mut self) {
        let mut rng = Rng::new(self.seed ^ 0x00AD_D0F1);
        self.upgrade = rng.chance(150);
        self.edits = rng.chance(150);
        if self.nodes == 3 && rng.chance(300) {
            // In some of them each two nodes have a line, and nothing else.
            self.links.truncate(if rng.chance(300) { 0 } else { 1 });
            for ends in [(0, 1), (1, 2), (0, 2)] {
                let ends = Some((NodeId(ends.0), NodeId(ends.1)));
                let (loss, twice, slow) = (0, 0, 0);
                self.links.push(LinkOptions {
                    baud: Some(115_200),
                    loss,
                    twice,
                    slow,
                    ends,
                    disk: false,
                });
            }
        }
        self.draw_disk();
        self.draw_reserved();
        self.fences = fences(self.seed, &self.links);
        for policy in self.groups.iter_mut().map(|g| &mut g.policy) {
            use StopFailure::{FenceSelf, Hold, KillUsers};
            policy.stop_failure = rng.pick(&[Hold, Hold, KillUsers, FenceSelf]);
            if policy.stop_failure == FenceSelf {
                policy.stop_budget = policy.stop_budget.max(Duration::from_millis(1000));
            }
        }
        if self.nodes > 2 && rng.chance(500) {
            self.safety.quorum_lost = QuorumLost::Stop;
        }
        self.leases = leases(self);
        if let Some(leases) = &self.leases {
            if leases.watchdog.is_none() {
                self.safety.on_lost = OnLost::Reboot;
            }
            self.safety.quorum_lost = QuorumLost::Keep;
            let most = leases.times.lease / 2;
            let groups = self.groups.iter_mut();
            groups.for_each(|g| g.policy.stop_budget = g.policy.stop_budget.min(most));
        }
    }

    /// In some, the last link is one over a shared disk, beside others or alone.
    fn draw_disk(&mut self) {
        let mut rng = Rng::new(self.seed ^ 0x0D15_C0DE);
        if self.lines().is_empty() && rng.chance(120) {
            let keep = rng.pick(&[0, 1, 1, 2, 2]);
            self.links.truncate(keep);
            let (loss, twice, slow) = (0, 0, rng.pick(&[0, 0, 100]));
            let (baud, ends) = (None, None);
            self.links.push(LinkOptions { baud, loss, twice, slow, ends, disk: true });
        }
    }

    /// What is on the disk is another member. In half of them the 16 bits of a key begin anew.
    fn draw_reserved(&mut self) {
        let mut rng = Rng::new(self.seed ^ 0x5C51_0003);
        if rng.chance(200) {
            self.reserved = Some(rng.pick(&[0, 65_526]));
            self.groups.iter_mut().for_each(|g| g.members = g.members.max(2));
        }
    }

    /// The link over a shared disk.
    pub fn disk(&self) -> Option<usize> {
        self.links.iter().position(|link| link.disk)
    }

    /// Whether the link leads from one to the other.
    pub fn joins(&self, link: usize, a: usize, b: usize) -> bool {
        let (a, b) = (NodeId(a as u8), NodeId(b as u8));
        self.links[link].ends.is_none_or(|ends| ends == (a, b) || ends == (b, a))
    }

    pub fn links_to(&self, a: usize, b: usize) -> usize {
        (0..self.links.len()).filter(|link| self.joins(*link, a, b)).count()
    }

    /// As `check` advises: a heartbeat passes in less than the time between two.
    fn quicken_lines(&mut self) {
        if self.groups.len() > 2 || self.timing.keepalive < Duration::from_millis(150) {
            for baud in self.links.iter_mut().filter_map(|link| link.baud.as_mut()) {
                *baud = 115_200;
            }
        }
    }

    pub fn policy(&self, me: usize) -> Policy {
        let group = |g: &GroupOptions| (g.name.clone(), g.policy.clone());
        Policy {
            me: NodeId(me as u8),
            nodes: (1..=self.nodes).map(|n| format!("n{n}")).collect(),
            links: (0..self.links.len()).map(|l| format!("link{l}")).collect(),
            lines: self.lines(),
            cables: Vec::new(),
            timing: self.timing.clone(),
            safety: self.safety.clone(),
            fences: self.fences(),
            lease: self.leases.as_ref().map(|leases| leases.times.clone()),
            fingerprint: 1,
            groups: self.groups.iter().map(group).collect(),
        }
    }

    /// Every takeover on silence waits until a minority has stopped.
    pub fn outvotes(&self) -> bool {
        self.safety.quorum_lost == QuorumLost::Stop
    }

    fn lines(&self) -> BTreeMap<LinkId, (NodeId, NodeId)> {
        let links = self.links.iter().enumerate();
        links.filter_map(|(l, link)| Some((LinkId(l as u8), link.ends?))).collect()
    }

    fn fences(&self) -> Fences {
        let Some(fences) = &self.fences else { return Fences::default() };
        let policy = FencePolicy {
            kind: match fences.agents {
                Agents::Storage => FenceKind::Storage,
                Agents::Honest | Agents::Flaky | Agents::Lying => FenceKind::Power,
            },
            by: "fence".into(),
            attempts: fences.attempts,
            timeout: Duration::from_secs(2),
            failed: fences.failed,
            drill: fences.drill,
        };
        let nodes = (0..self.nodes).map(|n| (NodeId(n as u8), policy.clone())).collect();
        Fences { delay: fences.delay, nodes }
    }

    pub fn deadtime(&self) -> u64 {
        self.timing.deadtime.as_nanos() as u64
    }

    pub fn keepalive(&self) -> u64 {
        self.timing.keepalive.as_nanos() as u64
    }

    /// Clocks may show more time than passed.
    pub fn has_jump(&self) -> bool {
        self.has(Fault::Jump)
    }

    pub fn has(&self, fault: Fault) -> bool {
        self.faults.contains(&fault)
    }
}

fn links(rng: &mut Rng, nodes: usize) -> Vec<LinkOptions> {
    let count = rng.pick(&[1, 2, 2, 2, 3]);
    let serial = nodes == 2 && rng.chance(600);
    let link = |n: usize, rng: &mut Rng| LinkOptions {
        baud: (serial && n == 0).then(|| rng.pick(&[38_400, 115_200])),
        loss: rng.pick(&[0, 0, 0, 20, 150]),
        twice: rng.pick(&[0, 0, 50]),
        slow: rng.pick(&[0, 0, 100]),
        ends: None,
        disk: false,
    };
    (0..count).map(|n| link(n, rng)).collect()
}

/// Drawn apart from all else, so that a seed without fences is what it was.
fn fences(seed: u64, links: &[LinkOptions]) -> Option<FenceOptions> {
    // Alone, a line that is too slow for its heartbeats is hearing and deaf in turns.
    if matches!(links, [LinkOptions { baud: Some(..57_600), .. }]) {
        return None;
    }
    let mut rng = Rng::new(seed ^ 0xFE4C_E000);
    // Drawn apart once more.
    let storage = Rng::new(seed ^ 0x5704_A6E0).chance(200);
    let ms = Duration::from_millis;
    rng.chance(350).then(|| FenceOptions {
        delay: ms(rng.range(600, 1800)),
        attempts: rng.range(1, 4) as u32,
        failed: if rng.chance(300) { OnSilence::Takeover } else { OnSilence::Hold },
        drill: rng.chance(300).then(|| ms(2000)),
        agents: match rng.pick(&[Agents::Honest, Agents::Honest, Agents::Flaky, Agents::Lying]) {
            _ if storage => Agents::Storage,
            agents => agents,
        },
    })
}

/// Drawn apart as well.
fn leases(options: &Options) -> Option<LeaseOptions> {
    let mut rng = Rng::new(options.seed ^ 0x1EA5_E000);
    if options.fences.is_some() || !rng.chance(400) {
        return None;
    }
    let ms = Duration::from_millis;
    let lease = options.timing.deadtime * 2 + ms(rng.range(0, 2500));
    let drift = rng.range(0, 20_000) as i64 - 10_000;
    let watchdog = rng.chance(400).then(|| rng.range(300, 2000));
    // One that hangs, and the longest time until it is there again.
    let rest = watchdog.map_or(ms(HANG) + ms(2700), |w| ms(w) * 2);
    let most = lease + rest;
    let wait = most * 101 / 99 + ms(300);
    let times = LeaseTimes { lease, most, wait };
    Some(LeaseOptions { times, hang: HANG * MS, watchdog: watchdog.map(|w| w * MS), drift })
}

fn group(rng: &mut Rng, nodes: usize, n: usize) -> GroupOptions {
    let mut order: Vec<NodeId> = (0..nodes).map(|n| NodeId(n as u8)).collect();
    for at in (1..order.len()).rev() {
        order.swap(at, rng.below(at + 1));
    }
    if nodes > 2 && rng.chance(200) {
        order.pop();
    }
    let ms = Duration::from_millis;
    GroupOptions {
        name: GroupName(format!("g{n}")),
        policy: GroupPolicy {
            nodes: order,
            failback: match rng.below(4) {
                0 => Failback::Yes,
                1 => Failback::After(ms(1500)),
                _ => Failback::No,
            },
            retries: rng.range(0, 3) as u32,
            retry_window: ms(6000),
            quarantine: ms(rng.pick(&[500, 2000, 3000])),
            stop_budget: ms(rng.pick(&[200, 1000, 4000])),
            stop_failure: StopFailure::Hold,
            start_budget: ms(3000),
            fingerprint: 7,
            texts: 7,
        },
        members: rng.range(1, 4) as usize,
        soft: rng.chance(300),
    }
}

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let t = &self.timing;
        writeln!(
            f,
            "seed {}: {} nodes, {} groups, keepalive {:?}, deadtime {:?}, initdead {:?}",
            self.seed,
            self.nodes,
            self.groups.len(),
            t.keepalive,
            t.deadtime,
            t.initdead
        )?;
        let s = &self.safety;
        writeln!(
            f,
            "  silence {:?}, unseen {:?}, last-link {:?}, on-lost {:?}, drift {:?}, quorum {:?}",
            s.silence, s.unseen, s.last_link, s.on_lost, self.drift, s.quorum_lost
        )?;
        if let Some(fences) = &self.fences {
            writeln!(f, "  {fences:?}")?;
        }
        if let Some(leases) = &self.leases {
            writeln!(f, "  {leases:?}")?;
        }
        for (n, link) in self.links.iter().enumerate() {
            writeln!(f, "  link{n}: {link:?}")?;
        }
        for group in &self.groups {
            let nodes: Vec<u8> = group.policy.nodes.iter().map(|n| n.0 + 1).collect();
            writeln!(
                f,
                "  {}: nodes {nodes:?}, failback {:?}, retries {}, {} members, stop in {:?}, {:?}",
                group.name,
                group.policy.failback,
                group.policy.retries,
                group.members,
                group.policy.stop_budget,
                group.policy.stop_failure
            )?;
        }
        write!(
            f,
            "  faults {:?}, at borders {} of 1000, jobs {} of 1000, two versions {}, edits {}, \
             reserved {:?}",
            self.faults, self.border, self.jobs, self.upgrade, self.edits, self.reserved
        )
    }
}
