//! What can go wrong now: every fault, and every operator's command, before the next event of a
//! state.

use crate::fault::{Fault, LONG, OVER, SHORT, kind};
use crate::step::End;
use crate::world::{Cluster, State, What, way};
use hafailover::core::heartbeat::Held;
use hafailover::core::name::NodeId;
use hafailover::core::{Command, Terminate};

/// Every fault of those kinds that can happen before the next event of this state.
pub fn all(cluster: &Cluster, state: &State, last: usize, kinds: u32) -> Vec<Fault> {
    let has = |k: u32| kinds & k != 0;
    let mut faults = Vec::new();
    if let Some(item) = state.queue.first().filter(|_| state.next().is_some_and(|n| n.2)) {
        at_item(state, &item.what, item.node, &has, &mut faults);
    }
    if has(kind::CUT) {
        cuts(cluster, state, &mut faults);
    }
    if has(kind::ARBITER) {
        arbiter(state, &mut faults);
    }
    let next = state.next().map(|n| n.1);
    for n in (0..state.nodes.len()).filter(|n| *n == last || Some(*n) == next) {
        at_node(cluster, state, n, &has, &mut faults);
    }
    faults
}

fn at_item(state: &State, what: &What, n: usize, has: &impl Fn(u32) -> bool, to: &mut Vec<Fault>) {
    if state.nodes[n].frozen {
        return;
    }
    match what {
        What::Frames { copy_for: None, .. } if has(kind::FRAMES) => {
            to.extend([Fault::Lose, Fault::Late(60), Fault::Late(OVER), Fault::Copy(OVER)]);
        }
        What::JobEnds { work, .. } if has(kind::JOB) => {
            to.extend([Fault::Job(End::Fails), Fault::Job(End::Lost), Fault::SlowJob(OVER)]);
        }
        _ => {}
    }
    match what {
        What::JobEnds { work, .. } if work.stop && has(kind::STUCK) => to.push(Fault::Stuck),
        What::Persisted { .. } if has(kind::DISK) => to.push(Fault::DiskFails),
        What::Question { .. } if has(kind::LATE) => to.push(Fault::LateAnswer),
        What::Question { .. } if has(kind::ARBITER) => {
            to.extend([Fault::Unasked, Fault::Unanswered]);
        }
        _ => {}
    }
}

/// Cut and lost for longer than anybody lives on what he has.
fn arbiter(state: &State, to: &mut Vec<Fault>) {
    let long = [None, Some(2 * LONG)];
    to.extend(long.map(Fault::ArbiterLost));
    for n in 0..state.nodes.len() {
        to.extend(long.map(|lasts| Fault::ArbiterCut(n, lasts)));
    }
    to.extend([true, false].map(Fault::ArbiterRestarts));
}

fn cuts(cluster: &Cluster, state: &State, to: &mut Vec<Fault>) {
    let (nodes, links) = (state.nodes.len(), cluster.policies[0].links.len());
    if state.cut != 0 {
        to.push(Fault::Mend);
    }
    let mut masks = Vec::new();
    let both = |l, a, b| way(l, a, b) | way(l, b, a);
    for a in 0..nodes {
        for b in (0..nodes).filter(|b| *b != a) {
            masks.push((0..links).map(|l| way(l, a, b)).sum());
            if a < b {
                masks.push((0..links).map(|l| both(l, a, b)).sum());
                masks.extend((0..links).filter(|_| links > 1).map(|l| both(l, a, b)));
            }
        }
    }
    for n in (0..nodes).filter(|_| nodes > 2) {
        let others = (0..nodes).filter(|o| *o != n);
        masks.push(others.map(|o| (0..links).map(|l| both(l, n, o)).sum::<u64>()).sum());
    }
    // Two that are cut for ever take the disk from each other for ever: hafailover-reserve(8).
    let long = cluster.reserved.then_some(2 * LONG);
    for mask in masks.into_iter().filter(|m| state.cut & m != *m) {
        to.extend([long, Some(OVER)].map(|lasts| Fault::Cut(mask, lasts)));
    }
}

fn at_node(
    cluster: &Cluster,
    state: &State,
    n: usize,
    has: &impl Fn(u32) -> bool,
    to: &mut Vec<Fault>,
) {
    let node = &state.nodes[n];
    if node.frozen {
        if has(kind::FREEZE) {
            to.push(Fault::Thaw(n));
        }
        return;
    }
    if node.core.is_none() {
        return;
    }
    let writes: &[bool] = if node.writing.is_some() { &[false, true] } else { &[false] };
    for written in writes.iter().copied() {
        if has(kind::POWER) {
            let power = |back, carrier| Fault::Power { n, back, written, carrier };
            to.extend([None, Some(SHORT), Some(LONG)].map(|back| power(back, false)));
            to.push(power(None, true));
        }
        if has(kind::DAEMON) {
            let backs = [None, Some(50), Some(OVER)];
            to.extend(backs.map(|back| Fault::Kill { n, back, written }));
        }
    }
    if has(kind::LOST) {
        to.extend([None, Some(50), Some(OVER)].map(|stops| Fault::Lost { n, stops }));
    }
    if has(kind::REINSTALL) {
        to.push(Fault::Reinstall { n, back: LONG });
    }
    if has(kind::FREEZE) {
        let lasts = [None, Some(SHORT), Some(OVER), Some(LONG)];
        to.extend(lasts.map(|lasts| Fault::Freeze { n, lasts }));
    }
    units(state, n, has, to);
    people(cluster, state, n, has, to);
}

fn units(state: &State, n: usize, has: &impl Fn(u32) -> bool, to: &mut Vec<Fault>) {
    if !has(kind::UNITS) {
        return;
    }
    for (g, units) in state.nodes[n].units.iter().enumerate() {
        if units.running && units.job.is_none() {
            to.push(Fault::Dies(n, g));
        }
        if units.token.is_some() && units.job.is_none() {
            to.push(Fault::TokenLost(n, g));
        }
        if !units.on() && units.job.is_none() {
            to.push(Fault::Stray(n, g));
        }
        to.push(Fault::StopByHand(n, g));
    }
    if !state.nodes[n].disabled {
        to.push(Fault::Disable(n));
    }
}

fn people(
    cluster: &Cluster,
    state: &State,
    n: usize,
    has: &impl Fn(u32) -> bool,
    to: &mut Vec<Fault>,
) {
    let node = &state.nodes[n];
    let Some(core) = &node.core else { return };
    let me = NodeId(n as u8);
    let ask = |command| Fault::Ask(n, command);
    if has(kind::MOVE) {
        let moves = cluster.names.iter().cloned();
        to.extend(moves.map(|group| ask(Command::Move { group, to: None })));
    }
    if has(kind::PEOPLE) {
        let view = core.view(hafailover::core::time::Instant(state.now.max(core.next_wake().0)));
        to.push(ask(Command::Standby { node: me, on: true }));
        let standby = view.nodes.iter().find(|v| v.standby);
        to.extend(standby.map(|v| ask(Command::Standby { node: v.id, on: false })));
        to.push(ask(Command::Maintenance { group: None, on: !view.maintenance }));
        for group in &view.groups {
            let name = || group.name.clone();
            to.push(ask(Command::Clear { group: name() }));
            if group.held == Held::Yes && !group.holders.is_empty() {
                to.push(ask(Command::Retry { group: name() }));
            }
            if !group.strays.is_empty() {
                to.push(ask(Command::Adopt { group: name() }));
            }
        }
        let lost = |v: &&hafailover::core::view::NodeView| {
            use hafailover::core::view::Presence::{Silent, Unseen};
            matches!(v.presence, Silent | Unseen)
        };
        let lost = view.nodes.iter().filter(lost);
        to.extend(lost.map(|v| ask(Command::ConfirmDown { node: v.id })));
    }
    if has(kind::MAINTENANCE) {
        to.push(ask(Command::Maintenance { group: None, on: true }));
    }
    if has(kind::TERMINATE) && node.going.is_none() {
        let kinds = [Terminate::Stop, Terminate::Restart, Terminate::Shutdown];
        to.extend(kinds.map(|k| Fault::Terminate(n, k)));
    }
}
