//! The kinds of proof that another node does not run a group, and when each holds
//! (hafailover-protocol(7), "Evidence"). Pure: what is known goes in, a verdict with its words
//! comes out.

use super::fence;
use super::heartbeat::{GroupReport, Held, Phase, Unfit};
use super::name::{Epoch, GroupName, NodeId};
use super::peer::Peer;
use super::policy::{OnSilence, QuorumLost};
use super::record::UNHEARD;
use super::time::{Duration, Instant};
use super::view::Presence;
use super::world::World;
use serde::{Deserialize, Serialize};
use std::fmt;

/// By what a node holds a group, and since when.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Proof {
    pub since: Instant,
    /// Against each other node.
    pub against: Vec<(NodeId, Evidence)>,
}

/// Proof that one other node does not run the group, for one claim.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Evidence {
    /// The peer is alive, does not hold the group and promised this claim.
    Promise,
    /// The peer released it and named us; or it left the cluster holding nothing; or the guard of
    /// its lost daemon has stopped it.
    Released,
    /// The peer was powered off, or cut from the storage, after its last sign of life.
    Fenced,
    /// An arbiter granted us this epoch and the old owner's time is over.
    Expired,
    /// Nothing heard for `deadtime`, and silence is accepted as proof.
    Silent { since: Duration, links: usize },
    /// Nothing heard since our session began, for `initdead`.
    Unseen,
    /// A person said that it is down.
    Operator { by: String },
}

impl Evidence {
    /// Whether it rests on silence: such a claim is announced before it is acted on.
    pub fn by_silence(&self) -> bool {
        match self {
            Evidence::Silent { .. } | Evidence::Unseen => true,
            Evidence::Promise
            | Evidence::Released
            | Evidence::Fenced
            | Evidence::Expired
            | Evidence::Operator { .. } => false,
        }
    }
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Evidence::Silent { since, links } => {
                write!(f, "Silent({:.1}s,{links} links)", since.as_secs_f64())
            }
            Evidence::Operator { by } => write!(f, "Operator({by})"),
            Evidence::Promise => f.write_str("Promise"),
            Evidence::Released => f.write_str("Released"),
            Evidence::Fenced => f.write_str("Fenced"),
            Evidence::Expired => f.write_str("Expired"),
            Evidence::Unseen => f.write_str("Unseen"),
        }
    }
}

/// What is still missing against a node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Missing {
    /// It will come by itself: the peer is alive, or the arbiter, and has not yet answered.
    Promise,
    /// It comes with time, and with an arbiter that answers; what is awaited, in words.
    Lease(String),
    /// A rule forbids it, or it needs a person; in words, with what to do.
    Barred(String),
}

/// The evidence against `peer` for a claim on `group`, as it stands now. Without a `claim`: what
/// could be had if we claimed.
pub fn against(
    world: &World,
    group: &GroupName,
    peer: NodeId,
    claim: Option<Epoch>,
) -> Result<Evidence, Missing> {
    let state = world.peer(peer);
    let name = world.name(peer);
    if world.heard(peer) && guarded(world, group, state) {
        return Ok(Evidence::Released);
    }
    match world.presence(peer) {
        Presence::This => unreachable!("no node gathers evidence against itself"),
        Presence::Alive => alive(world, group, state, claim, name),
        // After a stall of ours what it said last may be long ago, though little time was lived.
        Presence::Late if state.hears_us() && state.is_fresh(world.now, &world.policy.timing) => {
            alive(world, group, state, claim, name)
        }
        Presence::Late => Err(Missing::Promise),
        Presence::Deaf if may_expire(world, group, state) => expired(world, group, peer, claim),
        Presence::Deaf => Err(Missing::Barred(format!(
            "{name} is heard but does not hear this node: mend the link from here to {name}"
        ))),
        Presence::Silent => silent(world, group, peer, claim),
        Presence::Unseen => unseen(world, group, peer, claim),
    }
}

/// Its daemon is lost, and its guard has verified the stop. A guard starts nothing, so there is no
/// promise to wait for; the daemon after it needs ours.
fn guarded(world: &World, group: &GroupName, peer: &Peer) -> bool {
    let ours = world.group(group).policy.fingerprint;
    let stopped = |r: &GroupReport| r.held == Held::No && r.fingerprint == ours;
    peer.mood.guarding && peer.reports.get(group).is_some_and(stopped)
}

fn alive(
    world: &World,
    group: &GroupName,
    peer: &Peer,
    claim: Option<Epoch>,
    name: &str,
) -> Result<Evidence, Missing> {
    let barred = |words: String| Err(Missing::Barred(words));
    // It has only just started: it still reads its units and tells its groups.
    let young = peer.heard_for(world.now) < world.policy.timing.deadtime;
    let Some(report) = peer.reports.get(group) else {
        if young {
            return Err(Missing::Promise);
        }
        return barred(format!(
            "{name} does not know {group}: install the same {group}.target there and run \
             systemctl enable {group}.target on {name}"
        ));
    };
    match report.held {
        Held::Yes if peer.mood.guarding => {
            return barred(format!("the daemon of {name} is lost, and its guard still stops it"));
        }
        Held::Yes => return barred(format!("{name} holds it ({})", phase_word(report.phase))),
        Held::Unknown if report.unfit == Some(Unfit::Stray) => {
            return barred(format!(
                "members of {group} run on {name} though nobody started them for the cluster: on \
                 {name}, hafailover clear {group} stops them, hafailover adopt {group} keeps them"
            ));
        }
        Held::Unknown if young && report.unfit != Some(Unfit::Stray) => {
            return Err(Missing::Promise);
        }
        Held::Unknown => {
            return barred(format!(
                "{name} cannot say that it does not run it: see hafailover status on {name}"
            ));
        }
        Held::No => {}
    }
    if report.fingerprint != world.group(group).policy.fingerprint {
        return barred(format!(
            "what {name} calls {group} is another group: make {group}.target, its drop-ins and the \
             What= and Where= of its mounts equal on both nodes, then systemctl daemon-reload"
        ));
    }
    if peer.mood.amnesiac {
        return barred(format!("{name} has lost its state and has not yet learned it again"));
    }
    if report.unfit == Some(Unfit::NoState) && !has_promised(world, group, report, claim) {
        return barred(format!(
            "{name} cannot write its state file, and so cannot promise anything: make room on it"
        ));
    }
    let Some(claim) = claim else { return Ok(Evidence::Promise) };
    if report.promise == Some(claim) {
        let released = report.released.is_some_and(|r| r.gives(claim));
        return Ok(if released { Evidence::Released } else { Evidence::Promise });
    }
    Err(Missing::Promise)
}

/// The claim that is made, or the one that the last owner named us for.
fn has_promised(
    world: &World,
    group: &GroupName,
    report: &GroupReport,
    claim: Option<Epoch>,
) -> bool {
    let named = || (world.successor(group) == Some(world.me)).then(|| world.top_epoch(group));
    claim.or_else(named).is_some_and(|epoch| report.promise == Some(epoch))
}

fn phase_word(phase: Phase) -> &'static str {
    match phase {
        Phase::Unknown => "unknown",
        Phase::Stopped => "stopped",
        Phase::Starting => "starting",
        Phase::Running => "running",
        Phase::Stopping => "stopping",
        Phase::Stuck => "stuck: a stop failed; hafailover status there names who holds it",
    }
}

/// Silence proves nothing by itself; the configuration may accept it within these rules.
fn silent(
    world: &World,
    group: &GroupName,
    id: NodeId,
    claim: Option<Epoch>,
) -> Result<Evidence, Missing> {
    let peer = world.peer(id);
    let name = world.name(id);
    let since = peer.silent_for(world.lived).unwrap_or_default();
    if let Some(by) = &peer.confirmed_down {
        return Ok(Evidence::Operator { by: by.clone() });
    }
    let report = peer.reports.get(group);
    // It would come back with another arbiter, to which the group is free, if it has not heard of
    // ours, or could not write that down.
    let unheard = world.record.settings.get(&id) == Some(&UNHEARD);
    let forgets = report.is_some_and(|r| r.unfit == Some(Unfit::NoState));
    let follows = !world.has_leases() || !unheard && !forgets;
    if follows && peer.mood.leaving && report.is_some_and(|r| r.held == Held::No) {
        return Ok(Evidence::Released);
    }
    if world.policy.lease.is_some() {
        return expired(world, group, id, claim);
    }
    let confirm = format!("if {name} is surely off: hafailover confirm-down {name}");
    let barred = |words: String| Err(Missing::Barred(format!("{words}; {confirm}")));
    if let Some(verdict) = fence::verdict(world, id) {
        return verdict.or_else(barred);
    }
    let links = peer.links_at_silence(world.policy.timing.deadtime).len();
    if let Some(words) = world.no_silence(id) {
        return barred(words);
    }
    if world.policy.safety.silence == OnSilence::Hold {
        return barred(format!(
            "{name} is silent, and silence = \"hold\" does not take silence as proof"
        ));
    }
    if let Some(words) = other_silence(world, id) {
        return barred(words);
    }
    if world.disarmed_at(id) {
        return barred(format!(
            "{name} fell silent when only one link to it was left (last-link = \"hold\")"
        ));
    }
    if let Some(left) = bound_left(world, peer, report, since) {
        return barred(left);
    }
    Ok(Evidence::Silent { since, links })
}

/// A peer that last said that it was going, stopping or restarting is not judged by `deadtime`
/// alone. `None`: its time is over.
fn bound_left(
    world: &World,
    peer: &Peer,
    report: Option<&GroupReport>,
    since: Duration,
) -> Option<String> {
    let deadtime = world.policy.timing.deadtime;
    let guard = peer.mood.guard_bound.unwrap_or_default();
    if let Some(bound) = peer.mood.restarting
        && since < deadtime + bound + guard
    {
        let words = "it said that its daemon restarts, and its time and its guard's are not over";
        return Some(words.into());
    }
    let held = report.is_none_or(|r| r.held != Held::No);
    let ending = report.is_some_and(|r| matches!(r.phase, Phase::Stopping | Phase::Stuck));
    let cared = report.is_some_and(|r| r.wish.value.maintenance);
    let cared = cared || world.wishes.maintenance.value;
    let going = peer.mood.leaving || peer.mood.shutting_down;
    // Whoever has said that it resets itself is not at work at anything any more.
    let at_work = (ending || going) && !peer.mood.resetting;
    let last = match peer.has_newer_life() {
        false if held && peer.mood.guarding => {
            "its daemon is lost, and its guard fell silent before it had stopped it"
        }
        true => "a new life of its daemon began and fell silent before it was believed",
        false if held && (at_work || cared) => {
            "it was last heard stopping, leaving or in maintenance while it held it"
        }
        false if held && peer.may_be_lost() && peer.mood.guard_bound.is_some() => {
            "its daemon crashed shortly before it fell silent"
        }
        false => return None,
    };
    match peer.mood.guard_bound {
        None => Some(last.into()),
        Some(bound) if since < deadtime + bound => {
            Some(format!("{last}: its guard needs up to {:.0} s", (deadtime + bound).as_secs_f64()))
        }
        Some(_) => None,
    }
}

/// In words, if it was not heard with our settings. From disk as well, for this daemon may not have
/// heard it yet, and may have new settings itself.
fn other_settings(world: &World, id: NodeId) -> Option<String> {
    let (theirs, name) = (*world.record.settings.get(&id)?, world.name(id));
    match theirs {
        theirs if theirs == world.policy.fingerprint => None,
        UNHEARD => Some(format!("{name} was not heard since the settings were changed here")),
        _ => Some(format!("{name} was last heard with other settings")),
    }
}

/// Why its silence proves nothing that it proved of one with our settings.
fn other_silence(world: &World, id: NodeId) -> Option<String> {
    let words = other_settings(world, id)?;
    if world.has_leases() {
        return Some(format!("{words}, and may live on a lease"));
    }
    let stops = world.policy.safety.quorum_lost == QuorumLost::Stop;
    stops.then(|| format!("{words}, and may not stop without a majority"))
}

/// A peer that does not hear us, and does not hold the group: what it promises it cannot know.
fn may_expire(world: &World, group: &GroupName, peer: &Peer) -> bool {
    let idle = peer.reports.get(group).is_some_and(|r| r.held == Held::No);
    world.policy.lease.is_some() && idle
}

/// The arbiter gave us this epoch, and whoever lived on our voucher has stopped by now.
fn expired(
    world: &World,
    group: &GroupName,
    id: NodeId,
    claim: Option<Epoch>,
) -> Result<Evidence, Missing> {
    let (peer, name) = (world.peer(id), world.name(id));
    let confirm = format!("if {name} is surely off: hafailover confirm-down {name}");
    let barred = |words: &str| Err(Missing::Barred(format!("{words}; {confirm}")));
    if world.doubting || world.ill == Some(Unfit::Amnesiac) {
        return barred("this node must first hear its peers again");
    }
    // From disk, for this daemon may not have heard it yet.
    if world.record.lasting.get(group).is_some_and(|who| who.contains(&id)) {
        return barred(lasting_words(world, group, id));
    }
    if let Some(words) = other_settings(world, id) {
        return barred(&format!("{words}, and perhaps has another arbiter or none"));
    }
    let (Some(free), Some(times)) = (world.free_at(group), &world.policy.lease) else {
        return barred("no arbiter is configured");
    };
    // What it has beside our voucher it had when it was last heard. One that is heard, and comes
    // here, has nothing.
    let silent = peer.silent_for(world.lived).filter(|_| !world.heard(id));
    let quiet = silent.map(|silent| world.now - silent + times.wait);
    let free = quiet.map_or(free, |quiet| quiet.max(free));
    if world.now < free {
        let words = "it may still live on what it last heard from this node";
        return Err(Missing::Lease(format!("{name}: {words}; {confirm}")));
    }
    let lease = &world.group(group).lease;
    match claim {
        None => Ok(Evidence::Expired),
        Some(claim) if lease.is_granted(claim, world.now) => Ok(Evidence::Expired),
        Some(_) => Err(match &lease.trouble {
            Some(why) => Missing::Lease(format!("the arbiter has not granted the lease: {why}")),
            None => Missing::Promise,
        }),
    }
}

/// Why no lease ends what a peer has, as it was last heard.
fn lasting_words(world: &World, group: &GroupName, id: NodeId) -> &'static str {
    match world.peer(id).reports.get(group) {
        None => {
            "an earlier daemon of this node last heard it holding what no lease ends: in \
             maintenance, after a stop that had failed, or as strays"
        }
        Some(report) if report.phase == Phase::Stuck => {
            "its stop had failed when it was last heard"
        }
        Some(report) if report.unfit == Some(Unfit::Stray) => {
            "members that nobody had started for the cluster ran there when it was last heard"
        }
        Some(_) => "it was last heard in maintenance, in which a lost lease stops nothing",
    }
}

/// Never heard since our session began: how a single node starts alone.
fn unseen(
    world: &World,
    group: &GroupName,
    id: NodeId,
    claim: Option<Epoch>,
) -> Result<Evidence, Missing> {
    let name = world.name(id);
    if let Some(by) = &world.peer(id).confirmed_down {
        return Ok(Evidence::Operator { by: by.clone() });
    }
    if world.policy.lease.is_some() {
        return expired(world, group, id, claim);
    }
    let confirm = format!("if {name} is surely off: hafailover confirm-down {name}");
    let barred = |words: String| Err(Missing::Barred(format!("{words}; {confirm}")));
    if let Some(verdict) = fence::verdict(world, id) {
        return verdict.or_else(barred);
    }
    if let Some(words) = world.no_silence(id) {
        return barred(words);
    }
    if let Some(words) = other_silence(world, id) {
        return barred(words);
    }
    if world.policy.safety.unseen == OnSilence::Hold {
        return barred(format!(
            "{name} has not been heard since this daemon started, and the configuration does not \
             take that as proof"
        ));
    }
    if world.jeopardy.contains(&id) && world.policy.safety.last_link == OnSilence::Hold {
        return barred(format!(
            "{name} has not been heard since this daemon started, and before that only one link \
             to it was left"
        ));
    }
    match world.initdead_over {
        true => Ok(Evidence::Unseen),
        false => barred(format!("{name} has not been heard yet, and initdead is not over")),
    }
}
