//! One state of the model: real cores, what is on the wire between them, their disks, what their
//! systemd holds. Values only; `step` moves them on.

use crate::canon::{SEED, ago, canon, mix};
use crate::lease::Arbiter;
use crate::watch::Ghost;
use hafailover::core::grant::Ask;
use hafailover::core::heartbeat::Heartbeat;
use hafailover::core::name::{Epoch, GroupName, Session};
use hafailover::core::policy::Policy;
use hafailover::core::record::Record;
use hafailover::core::time::Instant;
use hafailover::core::{Core, Event, Guard, Terminate};
use std::sync::Arc;

/// Nanoseconds in a millisecond; all model times are in the former.
pub const MS: u64 = 1_000_000;
pub const WIRE: u64 = 5 * MS;
pub const DISK: u64 = 5 * MS;
/// From the core's order to the hands.
pub const HANDS: u64 = 2 * MS;
pub const LOOK: u64 = 3 * MS;
pub const START: u64 = 30 * MS;
pub const STOP: u64 = 30 * MS;

/// What does not change during a run.
pub struct Cluster {
    pub policies: Vec<Policy>,
    pub names: Vec<GroupName>,
    /// Every node has a watchdog that lives on the leases.
    pub watched: bool,
    /// The first member of each group is its disk's reservation.
    pub reserved: bool,
}

#[derive(Clone)]
pub struct State {
    pub now: u64,
    pub nodes: Vec<Arc<Node>>,
    /// In the order in which it happens.
    pub queue: Vec<Item>,
    /// Cut directions, see [`way`].
    pub cut: u64,
    pub arbiter: Arbiter,
    /// By group: by which claim its disk is reserved.
    pub disks: [Option<Epoch>; 2],
    pub ghost: Ghost,
    /// Faults have stopped, and everything was mended, so many times.
    pub mended: u8,
}

/// One machine. `life` grows with every daemon, `boot` with every boot.
#[derive(Clone)]
pub struct Node {
    pub core: Option<Core>,
    /// At work, because the daemon is lost.
    pub guard: Option<Guard>,
    pub disk: Option<Record>,
    pub writing: Option<(u64, Record)>,
    pub units: Vec<Units>,
    pub frozen: bool,
    /// A watchdog counts, and may be fed until then.
    pub dog: Option<Instant>,
    pub held_back: Vec<Item>,
    pub life: u16,
    pub boot: u16,
    /// Why its daemon was asked to end.
    pub going: Option<Terminate>,
    /// No group is enabled any more.
    pub disabled: bool,
    pub jobs: u64,
    /// When the core last looked at anything, and what it was then, apart from time.
    pub anchor: u64,
    pub number: u64,
}

/// One group's units on one machine.
#[derive(Clone, Default, Debug)]
pub struct Units {
    pub running: bool,
    pub dead: bool,
    pub token: Option<Epoch>,
    /// Where the token is from the beginning of a stop until the daemon has verified its end.
    pub closed: Option<Epoch>,
    /// Until when the owner by that epoch may go on, as the daemon wrote it down.
    pub lasts: Option<(Epoch, Instant)>,
    /// By which claim its disk was taken here, for what runs.
    pub key: Option<Epoch>,
    /// The job that systemd is at: its number, whether it stops, and for which daemon.
    pub job: Option<Work>,
    /// Every stop fails until this is mended.
    pub stuck: bool,
    /// It runs although nobody started it for the cluster.
    pub stray: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    pub id: u64,
    pub stop: bool,
    pub life: u16,
}

#[derive(Clone)]
pub struct Item {
    pub at: u64,
    pub node: usize,
    pub what: What,
    /// Of `what`, apart from time.
    pub number: u64,
}

/// Something that will happen at a node.
#[derive(Clone)]
pub enum What {
    Tell {
        life: u16,
        event: Arc<Event>,
    },
    Frames {
        beats: Arc<Vec<Arc<Heartbeat>>>,
        copy_for: Option<u16>,
    },
    Persisted {
        life: u16,
        ticket: u64,
    },
    Start {
        life: u16,
        group: usize,
        epoch: Epoch,
        job: u64,
        valid_until: u64,
    },
    Stop {
        life: u16,
        group: usize,
        job: u64,
    },
    Observe {
        life: u16,
        group: usize,
    },
    JobEnds {
        boot: u16,
        group: usize,
        work: Work,
    },
    Boot {
        life: u16,
    },
    GuardBegins {
        life: u16,
        stops: Option<u64>,
    },
    GuardStops {
        life: u16,
    },
    GuardEnds {
        life: u16,
    },
    Fence {
        boot: u16,
        life: u16,
        of: usize,
        id: u64,
    },
    Question {
        life: u16,
        ticket: u64,
        ask: Arc<Ask>,
    },
    Thaw,
    LooksAtDisk {
        boot: u16,
        group: usize,
    },
    /// The watchdog's time is over, if it was not fed since then.
    Bite {
        boot: u16,
        until: Instant,
    },
    Heal {
        mask: u64,
    },
    /// The arbiter is there again, for everybody or for these.
    ArbiterBack {
        nodes: u8,
    },
}

impl Units {
    /// A person would say that the group is on this machine.
    pub fn on(&self) -> bool {
        self.running && !self.dead || self.token.is_some() || self.job.is_some_and(|j| !j.stop)
    }
}

/// The bit of one direction of one link.
pub fn way(link: usize, from: usize, to: usize) -> u64 {
    1 << (link * 9 + from * 3 + to)
}

impl State {
    pub fn push(&mut self, at: u64, node: usize, what: What, number: u64) {
        let place = self.queue.partition_point(|i| i.at <= at);
        self.queue.insert(place, Item { at, node, what, number });
    }

    /// The time of what happens next, and at which node: the queue before the timers.
    pub fn next(&self) -> Option<(u64, usize, bool)> {
        let wake = self.nodes.iter().enumerate().filter(|(_, n)| !n.frozen);
        let wake = wake.filter_map(|(i, n)| Some((n.next_wake()?, i))).min();
        let first = self.queue.first().map(|i| (i.at, i.node));
        match (first, wake) {
            (Some((at, node)), Some((due, _))) if at <= due => Some((at.max(self.now), node, true)),
            (Some((at, node)), None) => Some((at.max(self.now), node, true)),
            (_, Some((due, node))) => Some((due.max(self.now), node, false)),
            (None, None) => None,
        }
    }

    /// Equal for states that differ only in what time it is.
    pub fn number(&self) -> u64 {
        let mut hash = mix(SEED, self.cut);
        hash = mix(hash, u64::from(self.mended));
        hash = mix(hash, self.arbiter.number(self.now));
        for epoch in self.disks.iter().flatten() {
            hash = mix(hash, epoch.counter << 8 | u64::from(epoch.node.0));
        }
        for node in &self.nodes {
            hash = mix(hash, node.number);
            hash = mix(hash, ago(self.now, node.anchor));
        }
        for item in &self.queue {
            hash = mix(hash, ago(self.now, item.at));
            hash = mix(hash, item.number ^ (item.node as u64));
        }
        hash = mix(hash, crate::watch::both_number(self));
        hash = mix(hash, self.vouched_number());
        mix(hash, self.ghost.number())
    }

    /// On which machines the group is.
    pub fn owners(&self, group: usize) -> Vec<usize> {
        (0..self.nodes.len()).filter(|n| self.nodes[*n].units[group].on()).collect()
    }

    /// Both directions of some link work between the two.
    pub fn joined(&self, a: usize, b: usize, links: usize) -> bool {
        (0..links).any(|l| self.cut & (way(l, a, b) | way(l, b, a)) == 0)
    }
}

impl Node {
    pub fn new(groups: usize) -> Node {
        Node {
            core: None,
            guard: None,
            disk: None,
            writing: None,
            units: vec![Units::default(); groups],
            frozen: false,
            dog: None,
            held_back: Vec::new(),
            life: 0,
            boot: 0,
            going: None,
            disabled: false,
            jobs: 0,
            anchor: 0,
            number: 0,
        }
    }

    fn next_wake(&self) -> Option<u64> {
        let core = self.core.as_ref().map(Core::next_wake);
        Some(core.or(self.guard.as_ref().map(Guard::next_wake))?.0)
    }

    /// Counts anew what this node is, apart from time.
    pub fn settle(&mut self, now: u64) {
        self.anchor = now;
        let origin = crate::canon::Origin { now, jobs: self.jobs };
        let mut hash = canon(&self.core, origin);
        hash = mix(hash, canon(&self.guard, origin));
        hash = mix(hash, canon(&self.disk, origin));
        hash = mix(hash, canon(&self.writing.is_some(), origin));
        hash = mix(hash, canon(&self.units, origin));
        if self.dog.is_some() {
            hash = mix(hash, canon(&self.dog, origin));
        }
        for item in &self.held_back {
            hash = mix(hash, item.number);
        }
        let small = u64::from(self.life) << 32 | u64::from(self.boot) << 8;
        self.number = mix(hash, small | u64::from(self.frozen) | u64::from(self.disabled) << 1);
    }
}

/// Of a daemon's or a guard's life.
pub fn session(n: usize, life: u16) -> Session {
    Session(100 * (n as u64 + 1) + u64::from(life))
}
