//! The situations that a search must have been in, or it has shown nothing about them.

use crate::fault::Fault;
use crate::world::{State, What, Work};
use hafailover::core::Command;
use hafailover::core::heartbeat::Heartbeat;
use hafailover::core::say::{Saying, What as Said};
use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! situations {
    ($($name:ident $words:literal,)*) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Situation { $($name,)* }
        pub const ALL: &[(Situation, &str)] = &[$((Situation::$name, $words),)*];
    };
}

situations! {
    Takeover "takeover",
    Heal "heal: two owners met, and one remains",
    ThawAfterTakeover "thaw after a takeover",
    MoveAsked "planned move, power loss when it was asked",
    MoveStopping "planned move, power loss while it stops (o)",
    MoveWriting "planned move, power loss while the release is written (o)",
    MoveReleased "planned move, power loss of the releaser when it was released (o)",
    MoveReleasedTaker "planned move, power loss of the taker when it was released",
    MoveStarting "planned move, power loss while it starts",
    MoveStarted "planned move, power loss when it was done",
    OneWayOwner "(a) the owner lives on while a peer hears nothing of it (no arbiter: for ever)",
    ReleasedThenCut "(b) takeover by release, then every link is cut (no arbiter: for ever)",
    Chain "(c) chain A-C-B with A-B cut",
    StuckThenDies "(d) stuck, then the daemon dies",
    DisabledOwner "(e) disabled on the running owner",
    ClaimMeetsStart "(f) a claim arrives between the start job and the first active member",
    FirewalledStandby "(g) a standby that hears nothing announces a claim",
    Crossover "(h) crossover cable and power loss",
    JeopardyReboot "(i) reboot of one node in jeopardy",
    ReinstalledAlone "(j) a reinstalled node comes up alone beside an epoch",
    FreezeBeforeStart "(k) freeze between the last check and the start",
    LateFrames "(l) frames of an earlier life after a takeover",
    MondayTuesday "(m) one link dead since Monday, power loss on Tuesday",
    Fenced "a node is fenced",
    StartFenced "a start on a fence",
    StartExpired "a start on an expired lease",
    StopsInTime "(a) with an arbiter: an owner that lost it and its peer stops in time",
    Outlives "a group outlives its lease, and its machine is reset",
    TakenAway "a disk is taken from an owner that runs on",
    Refused "a disk is refused to an older owner",
    Loser "an owner finds that its disk was taken away",
    ThawRefused "an owner thaws, and its disk is another's",
    BothRun "(n) both nodes start with the group running",
}

static REACHED: AtomicU64 = AtomicU64::new(0);

pub fn reach(situation: Situation) {
    let bit = 1 << situation as u64;
    if REACHED.load(Ordering::Relaxed) & bit == 0 {
        REACHED.fetch_or(bit, Ordering::Relaxed);
    }
}

pub fn reached(situation: Situation) -> bool {
    REACHED.load(Ordering::Relaxed) & 1 << situation as u64 != 0
}

/// A node said something.
pub fn said(state: &State, n: usize, saying: &Saying) {
    match saying.what {
        Said::GroupStarted if saying.evidence.contains("Silent") => {
            reach(Situation::Takeover);
            if state.ghost.carrier {
                reach(Situation::Crossover);
            }
        }
        // Links mend, and it still runs where it ran.
        Said::PeerAlive => {
            let peer = saying.peer.map_or(n, |p| p.0.into());
            let deaf = state.ghost.nodes[n].deafened & 1 << peer != 0;
            if deaf && state.owners(0) == [n] {
                reach(Situation::OneWayOwner);
            }
        }
        Said::GroupStarted if saying.evidence.contains("Fenced") => reach(Situation::StartFenced),
        Said::GroupStarted if saying.evidence.contains("Expired") => reach(Situation::StartExpired),
        Said::GroupPhase if saying.to == "stopped" && saying.reason.contains("arbiter") => {
            reach(Situation::StopsInTime);
        }
        Said::LeaseOverrun => reach(Situation::Outlives),
        Said::GroupClaimed => {
            let owner = state.owners(0).into_iter().find(|o| *o != n);
            let ways = |from, to| (0..2).any(|l| state.cut & crate::world::way(l, from, to) == 0);
            if owner.is_some_and(|o| !ways(o, n) && ways(n, o)) {
                reach(Situation::FirewalledStandby);
            }
        }
        Said::PeerSilent if state.nodes.len() > 2 => {
            let peer = saying.peer.map_or(n, |p| p.0.into());
            let third = (0..3).find(|t| *t != n && *t != peer).unwrap_or(n);
            let alive = state.nodes.iter().all(|n| n.core.is_some() && !n.frozen);
            if alive && state.joined(n, third, 1) && state.joined(peer, third, 1) {
                reach(Situation::Chain);
            }
        }
        _ => {}
    }
}

/// A daemon starts.
pub fn booted(state: &State, n: usize) {
    if state.nodes[n].disk.as_ref().is_some_and(|d| !d.jeopardy.is_empty()) {
        reach(Situation::JeopardyReboot);
    }
    let others = (0..state.nodes.len()).filter(|o| *o != n);
    let alone = others.clone().all(|o| !state.joined(n, o, 2));
    let epochs = others.clone().any(|o| state.nodes[o].disk.is_some());
    if state.nodes[n].disk.is_none() && alone && epochs {
        reach(Situation::ReinstalledAlone);
    }
    if state.nodes.iter().all(|n| n.units[0].stray) {
        reach(Situation::BothRun);
    }
}

pub fn thawed(state: &State, n: usize) {
    if state.owners(0).len() > 1 && state.owners(0).contains(&n) {
        reach(Situation::ThawAfterTakeover);
        let key = state.nodes[n].units[0].key;
        if key.is_some() && !state.is_served(n, 0) {
            reach(Situation::ThawRefused);
        }
    }
}

/// Frames arrive.
pub fn arrived(state: &State, n: usize, beat: &Heartbeat) {
    let from = usize::from(beat.from.0);
    let session = 100 * (from as u64 + 1) + u64::from(state.nodes[from].life);
    if beat.session.0 != session && state.owners(0).contains(&n) && state.ghost.begun > 0 {
        reach(Situation::LateFrames);
    }
    let units = &state.nodes[n].units[0];
    let starting = matches!(units.job, Some(Work { stop: false, .. })) && !units.running;
    let claims = beat.groups.iter().filter_map(|g| g.claim).any(|c| c.epoch.node == beat.from);
    if starting && claims {
        reach(Situation::ClaimMeetsStart);
    }
}

pub fn faulted(state: &mut State, fault: &Fault) {
    match fault {
        Fault::Ask(_, Command::Move { .. }) => {
            state.ghost.moving = state.owners(0).first().copied();
        }
        Fault::Disable(n) if state.nodes[*n].units[0].running => reach(Situation::DisabledOwner),
        Fault::Power { carrier: true, .. } => state.ghost.carrier = true,
        Fault::Cut(..) => cut(state),
        _ => {}
    }
}

fn cut(state: &State) {
    let Some(owner) = state.owners(0).first().copied() else { return };
    let proof = &state.ghost.nodes[owner].proof[0];
    let parted = (0..state.nodes.len()).all(|o| o == owner || !state.joined(owner, o, 2));
    if parted && proof.iter().any(|(_, kind)| kind == "Released") {
        reach(Situation::ReleasedThenCut);
    }
}

/// Before the fault.
pub fn faulting(state: &State, fault: &Fault) {
    match fault {
        Fault::Kill { n, .. } if state.nodes[*n].units[0].stuck => reach(Situation::StuckThenDies),
        Fault::Power { n, .. } => {
            let other = (0..state.nodes.len()).find(|o| o != n).unwrap_or(*n);
            let disk = state.nodes[other].disk.as_ref();
            let jeopardy = disk.is_some_and(|d| !d.jeopardy.is_empty());
            if jeopardy && state.nodes[*n].units[0].running {
                reach(Situation::MondayTuesday);
            }
            if let Some(from) = state.ghost.moving {
                moving(state, *n, from);
            }
        }
        _ => {}
    }
}

fn moving(state: &State, n: usize, from: usize) {
    let old = &state.nodes[from];
    let queued = state.queue.iter().any(|i| matches!(i.what, What::Stop { .. }));
    let stopping = queued || old.units[0].job.is_some_and(|j| j.stop);
    let taker = (0..state.nodes.len()).find(|o| *o != from && state.nodes[*o].units[0].on());
    let stage = match taker.map(|t| &state.nodes[t].units[0]) {
        Some(units) if units.running => Situation::MoveStarted,
        Some(_) => Situation::MoveStarting,
        None if stopping => Situation::MoveStopping,
        None if old.units[0].on() => Situation::MoveAsked,
        None if old.writing.is_some() => Situation::MoveWriting,
        None if n == from => Situation::MoveReleased,
        None => Situation::MoveReleasedTaker,
    };
    reach(stage);
}
