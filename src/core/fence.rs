//! Fencing, the judgement: whom this node would make sure to be off, when, how often, and what that
//! is worth (hafailover-protocol(7), "Fencing"). Pure functions; `fencer` acts by them.

use super::evidence::Evidence;
use super::heartbeat::{GroupReport, Held, Phase};
use super::name::{GroupName, NodeId};
use super::ownership::{self, in_maintenance};
use super::policy::{FenceKind, FencePolicy, OnSilence};
use super::record::FenceRecord;
use super::time::{Duration, Instant};
use super::view::Presence;
use super::world::World;

/// What is known of fencing one peer, in this life of the daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Fence {
    pub state: State,
    /// After a failed attempt: not before this.
    pub again: Option<Instant>,
    /// How the last one ended.
    pub last: Option<End>,
    /// When one last said that the peer is off, until it is heard in another life of its machine.
    pub said_off: Option<Instant>,
    pub drill: Drill,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum State {
    #[default]
    Rest,
    /// The attempt is being written down; what stood there before.
    Ordered(FenceRecord),
    Running(Run),
    /// It ended well: the peer was off, or cut from the storage, when it last said so.
    Done(Run),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Run {
    pub id: u64,
    pub began: Instant,
    /// A person asked for it: it goes on though the peer is heard.
    pub person: bool,
    /// We stalled since it began: what has happened meanwhile is not known.
    pub stale: bool,
    /// It was told to end, because the peer is heard again.
    pub ended: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct End {
    pub id: u64,
    pub result: Result<(), String>,
}

/// The agent asked for the state of the power, to see that it would work.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Drill {
    pub running: Option<u64>,
    /// It last said that the node is off.
    pub said_off: bool,
    pub last: Option<(u64, Instant, Result<String, String>)>,
}

impl Fence {
    /// Our own loop stood still for long: nothing of before proves anything now.
    pub fn stalled(&mut self) {
        if let State::Running(run) | State::Done(run) = &mut self.state {
            run.stale = true;
        }
    }
}

/// What fencing says about a peer that is not heard. `None`: it has no say, because there is no
/// fence for it, or it failed and the configuration then goes by silence.
pub fn verdict(world: &World, id: NodeId) -> Option<Result<Evidence, String>> {
    let policy = world.policy.fences.nodes.get(&id)?;
    if proves(world, id) {
        return Some(Ok(Evidence::Fenced));
    }
    let name = world.name(id);
    let failed = failed(world, id, policy);
    if failed.is_some() && policy.failed == OnSilence::Takeover {
        return None;
    }
    let words = match &world.fences.get(&id)?.state {
        State::Running(_) => format!("{name} is being fenced by {}", policy.by),
        _ => match barred(world, id, policy) {
            Some(words) => words,
            None => format!("{name} is to be fenced by {} first{}", policy.by, void(world, id)),
        },
    };
    Some(Err(words))
}

/// A fence of it ended well, and it began after the last sign of life. What was heard after its end
/// voids it also where it does not show when it was sent: who does not hear us may be alive.
pub fn proves(world: &World, id: NodeId) -> bool {
    let Some(Fence { state: State::Done(run), said_off, .. }) = world.fences.get(&id) else {
        return false;
    };
    let lied = world.record.fences.get(&id).is_some_and(|r| r.lied);
    let peer = world.peer(id);
    let since = peer.sign() < Some(run.began) && peer.arrived() <= *said_off;
    since && !run.stale && !lied
}

/// A node that is cut from the storage alone lives, and votes.
pub fn is_off(world: &World, id: NodeId) -> bool {
    let power = world.policy.fences.nodes.get(&id).is_some_and(|f| f.kind == FenceKind::Power);
    power && proves(world, id)
}

/// Why a fence that ended well proves nothing any more, for what then waits.
fn void(world: &World, id: NodeId) -> &'static str {
    let Some(fence) = world.fences.get(&id) else { return "" };
    match (fence.said_off, &fence.state) {
        (None, _) => "",
        (Some(_), _) if proves(world, id) => "",
        (Some(off), _) if world.peer(id).arrived() > Some(off) => {
            ": it was heard after the last time"
        }
        (_, State::Done(run)) if !run.stale => ": it was heard while it was fenced the last time",
        _ => ": this node has stalled since the last time",
    }
}

/// Why no more attempts are made until a person comes.
pub fn failed(world: &World, id: NodeId, policy: &FencePolicy) -> Option<String> {
    let record = world.record.fences.get(&id)?;
    let name = world.name(id);
    if record.lied {
        return Some(format!(
            "{} has said that {name} was off and it was not: mend it, then hafailover clear \
             --fence {name}",
            policy.by
        ));
    }
    let last = world.fences.get(&id)?.last.as_ref().and_then(|l| l.result.as_ref().err());
    let running = matches!(world.fences.get(&id)?.state, State::Ordered(_) | State::Running(_));
    (record.tries >= policy.attempts && !running && !record.well).then(|| {
        format!(
            "{} attempts to fence {name} failed{}: hafailover fence {name} tries again",
            record.tries,
            last.map(|why| format!(" (the last: {why})")).unwrap_or_default()
        )
    })
}

/// Why this peer is not fenced by itself; `None`: it may be.
pub fn barred(world: &World, id: NodeId, policy: &FencePolicy) -> Option<String> {
    let (peer, name) = (world.peer(id), world.name(id));
    let record = world.record.fences.get(&id);
    let begun = record.is_some_and(|r| r.tries > 0 && r.here == world.boot);
    match world.presence(id) {
        Presence::Silent => {}
        // The last daemon of this boot had heard it, and had begun.
        Presence::Unseen if begun && world.initdead_over => {}
        Presence::Unseen => {
            return Some(format!(
                "{name} has not been heard since this daemon started, and only what was heard is \
                 fenced by itself: hafailover fence {name}"
            ));
        }
        _ => return Some(format!("{name} is heard")),
    }
    if world.doubting || world.ill.is_some() {
        return Some("this node is not well enough to judge others".into());
    }
    let holds = |held: Held| held != Held::No;
    let told = peer.reported() || guard_told(world, id);
    if peer.mood.leaving && told && !peer.reports.values().any(|r| holds(r.held)) {
        return Some(format!("{name} left and held nothing"));
    }
    let kept = |g: &&GroupName| in_maintenance(world, g);
    let theirs = peer.reports.iter().filter(|(_, r)| holds(r.held)).map(|(name, _)| name);
    if world.wishes.maintenance.value
        || theirs.filter(|g| world.groups.contains_key(g)).any(|g| kept(&g))
    {
        return Some(format!("what {name} held is in maintenance"));
    }
    let hears = |q: &NodeId| *q != id && world.heard(*q) && world.peer(*q).hears(id);
    if let Some(q) = world.others().find(hears) {
        return Some(format!("{} still hears {name}", world.name(q)));
    }
    let minority = world.quorum().filter(|q| !q.may_fence()).map(|q| q.words());
    minority.or_else(|| failed(world, id, policy))
}

/// The guard of its lost daemon, whose table is never whole, has spoken of all that it may run.
fn guard_told(world: &World, id: NodeId) -> bool {
    let peer = world.peer(id);
    let mut theirs = world.groups.iter().filter(|(_, g)| g.policy.nodes.contains(&id));
    peer.mood.guarding && theirs.all(|(name, _)| peer.reports.contains_key(name))
}

/// Whether it is to be fenced now.
pub fn wanted(world: &World, id: NodeId) -> bool {
    let Some(policy) = world.policy.fences.nodes.get(&id) else { return false };
    let Some(fence) = world.fences.get(&id) else { return false };
    let rested = fence.again.is_none_or(|at| world.now >= at);
    rested && barred(world, id, policy).is_none() && is_due(world, id) && needed(world, id)
}

/// Something hangs on it: a group that this node would take, or one that it has and the peer, if it
/// lives, may want to take.
pub fn needed(world: &World, id: NodeId) -> bool {
    if proves(world, id) || world.peer(id).confirmed_down.is_some() {
        return false;
    }
    world.groups.iter().filter(|(name, _)| !in_maintenance(world, name)).any(|(name, group)| {
        if group.held() == Held::Yes {
            return group.policy.nodes.contains(&id) && !world.in_standby(id);
        }
        group.phase() == Phase::Stopped && ownership::waits_for(world, name, id)
    })
}

/// Whether its silence has lasted for this node's turn, so that of two that lost each other one
/// fences first: at once who has more, later who has less, last who has nothing either.
pub fn is_due(world: &World, id: NodeId) -> bool {
    world.peer(id).silent_for(world.lived).is_none_or(|silent| silent >= turn(world, id))
}

/// How long its silence must last for that.
fn turn(world: &World, id: NodeId) -> Duration {
    let peer = world.peer(id);
    // Counted alike on both sides, so that both come to the same order: what is owned, not strays.
    let mine = world.groups.values().filter(|g| g.own.is_some() && g.held() != Held::No).count();
    let owned = |r: &&GroupReport| r.claim.is_some() && r.held != Held::No;
    let theirs = peer.reports.values().filter(owned).count();
    let first = mine > theirs || (mine == theirs && world.me < id);
    let turn = match (mine, theirs, first) {
        (0, 0, false) => 2,
        (0, ..) => 1,
        (.., first) => u32::from(!first),
    };
    let going = if peer.mood.leaving { world.policy.timing.restart_bound } else { Duration::ZERO };
    let back = peer.mood.restarting.unwrap_or(going);
    world.policy.timing.deadtime + back + world.policy.fences.delay * turn
}

/// For `explain`: how far the fencing of a node is that is not heard, and what it waits for.
pub fn explain(world: &World, id: NodeId) -> Option<String> {
    let policy = world.policy.fences.nodes.get(&id)?;
    let fence = world.fences.get(&id).filter(|_| !world.heard(id))?;
    let (name, by) = (world.name(id), &policy.by);
    let age = |at: Instant| world.now.since(at).as_secs_f64();
    let tries = world.record.fences.get(&id).map_or(0, |r| r.tries);
    let attempt = format!("attempt {tries} of {}", policy.attempts);
    Some(match &fence.state {
        State::Ordered(_) => format!("{name} is to be fenced by {by}: {attempt} is written down"),
        State::Running(run) => {
            format!("{name} is being fenced by {by} for {:.1} s, {attempt}", age(run.began))
        }
        State::Done(_) if proves(world, id) => {
            format!(
                "{name} was fenced by {by} {:.1} s ago",
                age(fence.said_off.unwrap_or_default())
            )
        }
        _ => match barred(world, id, policy) {
            Some(why) => format!("{name} is not fenced: {why}"),
            None if !needed(world, id) => {
                format!("{name} is not fenced: no group hangs on it here")
            }
            None => {
                let silent = world.silence_of(id).unwrap_or_default();
                let rest = fence.again.map(|at| at.since(world.now)).unwrap_or_default();
                let left = rest.max(turn(world, id).saturating_sub(silent)).as_secs_f64();
                let failed = fence.last.as_ref().and_then(|end| end.result.as_ref().err());
                let failed = failed.map(|why| format!(", {attempt} failed: {why}"));
                let failed = failed.unwrap_or_default();
                let again = void(world, id);
                format!("{name} will be fenced by {by} in {left:.1} s{failed}{again}")
            }
        },
    })
}
