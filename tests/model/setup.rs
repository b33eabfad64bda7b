//! Clusters to explore: their settings, their first state, and which faults are tried on them.

use crate::lease::Arbiter;
use crate::step::Step;
use crate::watch::Ghost;
use crate::world::{Cluster, MS, Node, State, What};
use hafailover::core::name::{GroupName, NodeId};
use hafailover::core::policy::{
    Failback, FenceKind, FencePolicy, Fences, GroupPolicy, OnLost, OnSilence, Policy, QuorumLost,
    Safety, StopFailure, Timing,
};
use hafailover::core::time::Duration;
use std::sync::Arc;

/// The second prefers the last node.
const GROUPS: [&str; 2] = ["files", "web"];

/// One search.
#[derive(Clone)]
pub struct Plan {
    pub name: &'static str,
    pub nodes: usize,
    pub links: usize,
    pub groups: usize,
    pub failback: Failback,
    pub last_link: OnSilence,
    pub quorum_lost: QuorumLost,
    pub stop_failure: StopFailure,
    pub stop_budget: u64,
    /// Members run on every node before any daemon starts.
    pub strays: bool,
    /// It begins with a cluster at rest, not with its first start.
    pub warm: bool,
    /// How many milliseconds lie between the starts of the nodes.
    pub apart: u64,
    /// Every node has an honest fence.
    pub fenced: bool,
    /// There is an arbiter.
    pub leased: bool,
    /// And a watchdog on every node.
    pub watched: bool,
    /// The first member of each group is its disk's reservation.
    pub reserved: bool,
    /// Faults happen between any two events, not only where something is decided.
    pub dense: bool,
    /// The kinds of the first fault, of the second, and so on.
    pub faults: &'static [u32],
}

pub const TWO: Plan = Plan {
    name: "",
    nodes: 2,
    links: 2,
    groups: 1,
    failback: Failback::No,
    last_link: OnSilence::Hold,
    quorum_lost: QuorumLost::Keep,
    stop_failure: StopFailure::Hold,
    stop_budget: 1000,
    strays: false,
    warm: false,
    apart: 0,
    fenced: false,
    leased: false,
    watched: false,
    reserved: false,
    dense: false,
    faults: &[],
};

pub const WARM: Plan = Plan { warm: true, apart: 35, ..TWO };
pub const FENCED: Plan = Plan { fenced: true, ..WARM };
pub const LEASED: Plan = Plan { leased: true, stop_budget: 100, ..WARM };
pub const WATCHED: Plan = Plan { watched: true, ..LEASED };
pub const THREE: Plan = Plan { nodes: 3, links: 1, ..TWO };
pub const THREE_WARM: Plan = Plan { warm: true, apart: 35, ..THREE };
pub const PAIR: Plan = Plan { groups: 2, ..TWO };
pub const PAIR_WARM: Plan = Plan { groups: 2, ..WARM };
pub const RESERVED: Plan = Plan { reserved: true, ..WARM };
pub const SELF: Plan = Plan { stop_failure: StopFailure::FenceSelf, ..WARM };
pub const QUORUM: Plan =
    Plan { quorum_lost: QuorumLost::Stop, stop_budget: 100, warm: true, apart: 35, ..THREE };

/// Two nodes; the first runs the group.
pub fn at_rest() -> Plan {
    WARM
}

impl Plan {
    fn fences(&self) -> Fences {
        let ms = Duration::from_millis;
        let fence = FencePolicy {
            kind: FenceKind::Power,
            by: "fence".into(),
            attempts: 2,
            timeout: ms(1000),
            failed: OnSilence::Hold,
            drill: None,
        };
        let all = (0..self.nodes).filter(|_| self.fenced);
        let nodes = all.map(|n| (NodeId(n as u8), fence.clone())).collect();
        Fences { delay: ms(300), nodes }
    }

    pub fn cluster(&self) -> Cluster {
        let ms = Duration::from_millis;
        let nodes = (0..self.nodes).map(|n| NodeId(n as u8));
        let group_policy = |g: usize| GroupPolicy {
            nodes: if g == 0 { nodes.clone().collect() } else { nodes.clone().rev().collect() },
            failback: self.failback,
            retries: 1,
            retry_window: ms(1500),
            quarantine: ms(1500),
            stop_budget: ms(self.stop_budget),
            stop_failure: self.stop_failure,
            start_budget: ms(1000),
            fingerprint: 7,
            texts: 7,
        };
        let names: Vec<GroupName> =
            GROUPS.iter().take(self.groups).map(|g| GroupName(g.to_string())).collect();
        let groups = names.iter().enumerate().map(|(g, name)| (name.clone(), group_policy(g)));
        let policy = |n: usize| Policy {
            me: NodeId(n as u8),
            nodes: (1..=self.nodes).map(|n| format!("n{n}")).collect(),
            links: (0..self.links).map(|l| format!("link{l}")).collect(),
            lines: std::collections::BTreeMap::new(),
            cables: Vec::new(),
            timing: Timing {
                keepalive: ms(100),
                warntime: ms(250),
                deadtime: ms(400),
                initdead: ms(800),
                restart_bound: ms(500),
            },
            safety: Safety {
                silence: OnSilence::Takeover,
                unseen: OnSilence::Takeover,
                last_link: self.last_link,
                quorum_lost: self.quorum_lost,
                on_lost: if self.leased { OnLost::Reboot } else { OnLost::Leave },
                guard_bound: ms(2000),
            },
            fences: self.fences(),
            lease: self.leased.then(|| match self.watched {
                true => crate::watchdog::times(),
                false => crate::lease::times(),
            }),
            fingerprint: 1,
            groups: groups.clone().collect(),
        };
        let policies = (0..self.nodes).map(policy).collect();
        Cluster { policies, names, watched: self.watched, reserved: self.reserved }
    }

    pub fn first(&self) -> State {
        let mut node = Node::new(self.groups);
        for units in &mut node.units {
            (units.running, units.stray) = (self.strays, self.strays);
        }
        let mut state = State {
            now: 10_000_000_000,
            nodes: (0..self.nodes).map(|_| Arc::new(node.clone())).collect(),
            queue: Vec::new(),
            cut: 0,
            arbiter: Arbiter::new(10_000_000_000),
            disks: [None; 2],
            ghost: Ghost::new(self.nodes, self.groups),
            mended: 0,
        };
        for n in 0..self.nodes {
            state.push(state.now + n as u64 * self.apart * MS, n, What::Boot { life: 0 }, 34);
        }
        if !self.warm {
            return state;
        }
        let cluster = self.cluster();
        let end = state.now + 1500 * MS;
        let mut step = Step::new(&cluster, state, false);
        while step.state.now < end && step.go() {}
        for (g, n) in [0, self.nodes - 1].into_iter().enumerate().take(self.groups) {
            assert!(step.state.nodes[n].units[g].running, "a cluster at rest runs its groups");
        }
        step.state
    }
}
