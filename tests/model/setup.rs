//! Clusters to explore: their settings, their first state, and which faults are tried on them.

use crate::fault::kind::*;
use crate::step::Step;
use crate::watch::Ghost;
use crate::world::{Cluster, MS, Node, State, What};
use hafailover::core::name::{GroupName, NodeId};
use hafailover::core::policy::{
    Failback, FenceKind, FencePolicy, Fences, GroupPolicy, OnLost, OnSilence, Policy, Safety,
    Timing,
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
    pub stop_budget: u64,
    /// Members run on every node before any daemon starts.
    pub strays: bool,
    /// It begins with a cluster at rest, not with its first start.
    pub warm: bool,
    /// How many milliseconds lie between the starts of the nodes.
    pub apart: u64,
    /// Every node has an honest fence.
    pub fenced: bool,
    /// Faults happen between any two events, not only where something is decided.
    pub dense: bool,
    /// The kinds of the first fault, of the second, and so on.
    pub faults: &'static [u32],
}

const TWO: Plan = Plan {
    name: "",
    nodes: 2,
    links: 2,
    groups: 1,
    failback: Failback::No,
    last_link: OnSilence::Hold,
    stop_budget: 1000,
    strays: false,
    warm: false,
    apart: 0,
    fenced: false,
    dense: false,
    faults: &[],
};

const WARM: Plan = Plan { warm: true, apart: 35, ..TWO };
const FENCED: Plan = Plan { fenced: true, ..WARM };
const THREE: Plan = Plan { nodes: 3, links: 1, ..TWO };
const THREE_WARM: Plan = Plan { warm: true, apart: 35, ..THREE };
const PAIR: Plan = Plan { groups: 2, ..TWO };
const PAIR_WARM: Plan = Plan { groups: 2, ..WARM };

/// Two nodes; the first runs the group.
pub fn at_rest() -> Plan {
    WARM
}

pub fn plans(deep: bool) -> Vec<Plan> {
    const CRASH: u32 = POWER | DAEMON;
    let plan = |name, base: Plan, faults: &'static [u32]| Plan { name, faults, ..base };
    let mut plans = vec![
        plan("any fault", Plan { dense: true, ..TWO }, &[ALL]),
        plan("any fault, strays everywhere", Plan { strays: true, ..TWO }, &[ALL]),
        plan("any fault, three nodes", THREE, &[ALL]),
        plan("a job, then", TWO, &[JOB, CRASH | FREEZE | JOB | STUCK]),
        plan("a move, then", WARM, &[MOVE, CRASH | FREEZE | JOB | STUCK | DISK]),
        plan("a move, then a cut", WARM, &[MOVE, CUT]),
        plan("a move, stuck, a crash", WARM, &[MOVE, STUCK, CRASH]),
        plan("a cut, then", WARM, &[CUT, CRASH | REINSTALL]),
        plan("a crash, then", WARM, &[CRASH | REINSTALL, CUT]),
        plan("a freeze, then", WARM, &[FREEZE, FREEZE | CUT]),
        plan("going away, then", WARM, &[TERMINATE, CRASH | JOB | STUCK | TERMINATE]),
        plan("people", WARM, &[PEOPLE | UNITS, PEOPLE | MOVE]),
        plan("frames, then", WARM, &[FRAMES, CRASH]),
        plan("lost, then", WARM, &[LOST, CUT | FRAMES | CRASH]),
        plan("a fault, then lost", WARM, &[CUT | MOVE | CRASH, LOST]),
        plan("lost, three nodes", THREE_WARM, &[LOST]),
        plan("three nodes, a move, then power", THREE_WARM, &[MOVE, POWER]),
        plan("three nodes, two groups", Plan { groups: 2, ..THREE_WARM }, &[CRASH | CUT | MOVE]),
        plan("two groups, any fault", Plan { dense: true, ..PAIR_WARM }, &[ALL | LOST]),
        plan("two groups from the start", PAIR, &[CRASH | CUT | JOB]),
        plan("two groups, a move, then", PAIR_WARM, &[MOVE, CRASH | STUCK]),
        plan("fenced, any fault", FENCED, &[ALL]),
        plan("fenced, a cut, then", FENCED, &[CUT, CRASH | FREEZE]),
    ];
    if deep {
        plans = vec![
            plan(
                "any fault, failback",
                Plan { failback: Failback::Yes, dense: true, ..TWO },
                &[ALL],
            ),
            plan("any fault, short stops", Plan { stop_budget: 100, dense: true, ..TWO }, &[ALL]),
            plan("any fault, one link", Plan { links: 1, dense: true, ..TWO }, &[ALL]),
            plan("any fault, three nodes", Plan { dense: true, ..THREE }, &[ALL]),
            plan("any two", WARM, &[ALL, ALL]),
            plan(
                "any two, the last link gambled",
                Plan { last_link: OnSilence::Takeover, ..WARM },
                &[ALL, ALL],
            ),
            plan("two groups, a cut, then", PAIR_WARM, &[CUT, CRASH]),
            plan("two groups, a crash, then", PAIR_WARM, &[CRASH, CUT]),
            plan("two groups, any two", PAIR_WARM, &[ALL, ALL]),
            plan("two groups, any fault from the start", Plan { dense: true, ..PAIR }, &[ALL]),
            plan("three nodes, a cut, then power", THREE_WARM, &[CUT, POWER]),
            plan("three nodes, power, then a cut", THREE_WARM, &[POWER, CUT]),
            plan("three nodes, a cut, then any", THREE_WARM, &[CUT, ALL]),
            plan("three nodes, a move, then any", THREE_WARM, &[MOVE, ALL]),
            plan("three nodes, lost, then a cut", THREE_WARM, &[LOST, CUT]),
            plan("three nodes, two groups, any", Plan { groups: 2, ..THREE_WARM }, &[ALL]),
            plan("any two, three nodes", THREE_WARM, &[ALL, ALL]),
            plan("any two from the start", TWO, &[ALL, ALL]),
            plan("fenced, any two", FENCED, &[ALL, ALL]),
            plan("any three", WARM, &[ALL, ALL, ALL]),
        ];
    }
    plans
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
                on_lost: OnLost::Leave,
                guard_bound: ms(2000),
            },
            fences: self.fences(),
            fingerprint: 1,
            groups: groups.clone().collect(),
        };
        Cluster { policies: (0..self.nodes).map(policy).collect(), names }
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
