//! What is searched: in the tests, and by `make model`.

use crate::fault::kind::*;
use crate::setup::*;
use hafailover::core::policy::{Failback, OnSilence};

const CRASH: u32 = POWER | DAEMON;

pub fn plans(deep: bool) -> Vec<Plan> {
    if deep { deeper() } else { usual() }
}

fn plan(name: &'static str, base: Plan, faults: &'static [u32]) -> Plan {
    Plan { name, faults, ..base }
}

fn usual() -> Vec<Plan> {
    vec![
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
        plan("leased, any fault", LEASED, &[ALL | LOST | ARBITER]),
        plan("watched, any fault", WATCHED, &[CRASH | FREEZE | LOST | CUT | ARBITER | STUCK]),
        plan("fence-self", SELF, &[MOVE, STUCK, CUT | PEOPLE | CRASH]),
        plan("reserved, any fault", RESERVED, &[ALL]),
        plan("reserved, a cut, then", RESERVED, &[CUT, CRASH | FREEZE | MOVE]),
        plan("quorum, any fault", Plan { dense: true, ..QUORUM }, &[CUT | CRASH | FREEZE | MOVE]),
    ]
}

/// Small ones that meet the deliberate faults of `tests/sharp`.
pub fn sharp() -> Vec<Plan> {
    vec![
        plan("an epoch once", WARM, &[MOVE, UNITS, PEOPLE]),
        plan("fed once more", WATCHED, &[CUT, DAEMON]),
        plan("a late answer", WATCHED, &[CUT, LATE, DAEMON]),
        plan("a forgetful witness", LEASED, &[CUT, ARBITER]),
        plan("vouched and cut", LEASED, &[ARBITER, CUT]),
        plan("moved and cut", Plan { leased: true, stop_budget: 100, ..THREE_WARM }, &[MOVE, CUT]),
        plan("reserved and cut", RESERVED, &[CUT]),
    ]
}

fn deeper() -> Vec<Plan> {
    vec![
        plan("any fault, failback", Plan { failback: Failback::Yes, dense: true, ..TWO }, &[ALL]),
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
        plan("watched, a freeze, then", WATCHED, &[FREEZE, CUT | CRASH | FREEZE]),
        plan("watched, a cut, then", WATCHED, &[CUT | ARBITER, CRASH | FREEZE | LOST]),
        plan("leased, a cut, then the arbiter", LEASED, &[CUT, ARBITER]),
        plan("leased, a cut, then", LEASED, &[CUT, ARBITER | CRASH | FREEZE]),
        plan("leased, the arbiter, then", LEASED, &[ARBITER, CUT | CRASH]),
        plan("leased, cut, maintained, stopped", LEASED, &[CUT, MAINTENANCE, TERMINATE]),
        plan("leased, any two", LEASED, &[ALL | ARBITER, ALL | LOST | ARBITER]),
        plan(
            "leased, three nodes",
            Plan { leased: true, stop_budget: 100, ..THREE_WARM },
            &[CUT | ARBITER, CUT | ARBITER | CRASH],
        ),
        plan("reserved, any two", RESERVED, &[ALL, ALL]),
        plan("quorum, a cut, then", QUORUM, &[CUT, CUT | CRASH | MOVE]),
        plan("quorum, any two", QUORUM, &[ALL, ALL]),
        plan("any three", WARM, &[ALL, ALL, ALL]),
    ]
    .into_iter()
    .chain(sharp())
    .collect()
}
