//! Who may own a group: the decision, as a pure function of what is known. `explain` shows the
//! same function's words; there is no second opinion.

use super::evidence::{self, Evidence, Missing};
use super::fence;
use super::group::Group;
use super::heartbeat::{Held, Phase};
use super::name::{Epoch, GroupName, NodeId};
use super::policy::Failback;
use super::time::Instant;
use super::world::World;

/// What this node should do about a group now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Rest,
    /// It should run here, but evidence is missing that will not come by itself.
    Wait(Vec<String>),
    Claim,
    Withdraw(String),
    /// Evidence is complete but rests on silence: say when, and wait until then; also until a
    /// silent owner that is outvoted has stopped.
    AnnounceStart(bool),
    Start(Vec<(NodeId, Evidence)>),
    Stop(String, Option<NodeId>),
    /// Somebody else holds it at a higher epoch: stop at once.
    TwoOwners(NodeId, String),
    /// A peer that does not hear this node is about to start it: stop at once.
    Yield(NodeId, String),
    /// Members failed: start them again here.
    Recover(String),
    /// Members failed too often: stop, and let another node have it.
    GiveUp(String),
    /// A failed stop is due to be tried again.
    StopAgain,
}

pub fn decide(world: &World, name: &GroupName) -> Decision {
    let group = world.group(name);
    match group.phase() {
        Phase::Unknown | Phase::Stopping => Decision::Rest,
        Phase::Stopped => match &group.claim {
            None => decide_idle(world, name),
            Some(claim) => decide_claimed(world, name, claim.epoch, claim.start_at),
        },
        Phase::Starting => match must_stop(world, name) {
            Some(stop) => stop,
            // The start failed in maintenance, in which nothing is touched.
            None if group.job.is_none() && !in_maintenance(world, name) => {
                Decision::Stop("it did not start here".into(), world.heir(name))
            }
            None => Decision::Rest,
        },
        Phase::Running => decide_running(world, name),
        Phase::Stuck => {
            let due = group.stuck.as_ref().is_some_and(|s| world.now >= s.retry);
            let due = due && group.job.is_none();
            let rests = in_maintenance(world, name) && world.parts_with(name).is_none();
            if due && !rests { Decision::StopAgain } else { Decision::Rest }
        }
    }
}

/// The highest claim of a peer that this node should promise now.
pub fn promise(world: &World, name: &GroupName) -> Option<Epoch> {
    let group = world.group(name);
    let record = world.record.groups.get(name).copied().unwrap_or_default();
    let blind = group.seen.as_ref().is_none_or(|s| s.blind);
    let able = group.held() == Held::No && group.phase() == Phase::Stopped && !blind;
    if !able || world.doubting || world.ill.is_some() || world.heard_holder(name).is_some() {
        return None;
    }
    let own = group.claim.as_ref().map(|c| c.epoch);
    let claims = world.others().filter(|p| world.heard(*p)).filter_map(|p| {
        let report = world.peer(p).reports.get(name)?;
        let claim = report.claim?.epoch;
        let same = report.fingerprint == group.policy.fingerprint;
        // A claimer that adopts strays cannot say that it runs nothing.
        (same && report.held != Held::Yes && claim.node == p).then_some(claim)
    });
    let best = claims.max()?;
    let fresh = best >= record.epoch && record.promise.is_none_or(|p| p < best);
    (fresh && own.is_none_or(|own| own < best)).then_some(best)
}

fn decide_idle(world: &World, name: &GroupName) -> Decision {
    if world.choice(name) != Some(world.me) || world.doubting {
        return Decision::Rest;
    }
    let shy = world.group(name).lease.shy.is_some_and(|at| world.now < at);
    if world.heard_holder(name).is_some() || rival(world, name).is_some() || shy {
        return Decision::Rest;
    }
    let mut barred = Vec::new();
    for peer in world.others() {
        match evidence::against(world, name, peer, None) {
            Ok(_) => {}
            // It was heard this moment for the first time: it may be better placed than we.
            Err(Missing::Promise) => return Decision::Rest,
            Err(Missing::Lease(words) | Missing::Barred(words)) => barred.push(words),
        }
    }
    match (barred.is_empty(), world.outvoted()) {
        (true, None) => Decision::Claim,
        (true, Some(words)) => Decision::Wait(vec![words]),
        (false, _) => Decision::Wait(barred),
    }
}

/// Whether this node would claim the group, were it not for this peer of which nothing is known.
pub fn waits_for(world: &World, name: &GroupName, peer: NodeId) -> bool {
    let ours = world.choice(name) == Some(world.me) && !world.doubting;
    let free = world.heard_holder(name).is_none() && rival(world, name).is_none();
    let barred = || evidence::against(world, name, peer, None);
    ours && free && matches!(barred(), Err(Missing::Barred(_)))
}

/// A heard peer that claims the group and does not hold it yet.
fn rival(world: &World, name: &GroupName) -> Option<(NodeId, Epoch)> {
    let claims = world.others().filter(|p| world.heard(*p)).filter_map(|p| {
        let report = world.peer(p).reports.get(name)?;
        Some((p, report.claim?.epoch))
    });
    claims.max_by_key(|(_, epoch)| *epoch)
}

fn decide_claimed(world: &World, name: &GroupName, own: Epoch, at: Option<Instant>) -> Decision {
    if world.doubting {
        return Decision::Withdraw("this node stalled".into());
    }
    if world.choice(name) != Some(world.me) {
        let why = world.why_not(name, world.me);
        let why = why.unwrap_or_else(|| "another node is preferred now".into());
        return Decision::Withdraw(why);
    }
    if let Some(holder) = world.heard_holder(name) {
        return Decision::Withdraw(format!("{} holds it", world.name(holder)));
    }
    if let Some((peer, epoch)) = rival(world, name)
        && epoch > own
    {
        return Decision::Withdraw(format!("{} claims epoch {epoch}", world.name(peer)));
    }
    if world.top_epoch(name) > own {
        return Decision::Withdraw(format!("epoch {} is known", world.top_epoch(name)));
    }
    if let Some(words) = world.outvoted() {
        return Decision::Withdraw(words);
    }
    if world.durable.groups.get(name).and_then(|r| r.claim) != Some(own) {
        return Decision::Rest;
    }
    let (mut proof, mut awaited) = (Vec::new(), Vec::new());
    for peer in world.others() {
        match evidence::against(world, name, peer, Some(own)) {
            Ok(evidence) => proof.push((peer, evidence)),
            Err(Missing::Promise) => return Decision::Rest,
            Err(Missing::Lease(words)) => awaited.push(words),
            Err(Missing::Barred(words)) => return Decision::Withdraw(words),
        }
    }
    if awaited.is_empty() && !world.may_live(name, own) {
        if world.group(name).lease.trouble.is_none() {
            return Decision::Rest;
        }
        awaited.push(world.unleased(name, own));
    }
    if !awaited.is_empty() {
        return Decision::Wait(awaited);
    }
    match (proof.iter().any(|(_, e)| e.by_silence()), at) {
        (true, None) => Decision::AnnounceStart(world.may_linger(name, &proof)),
        (true, Some(at)) if world.now < at => Decision::Rest,
        (true, Some(_)) | (false, _) => Decision::Start(proof),
    }
}

fn decide_running(world: &World, name: &GroupName) -> Decision {
    let group = world.group(name);
    if let Some(stop) = must_stop(world, name) {
        return stop;
    }
    if in_maintenance(world, name) || world.doubting || group.job.is_some() {
        return Decision::Rest;
    }
    if let Some(stop) = should_move(world, name) {
        return stop;
    }
    member_failure(world, name).unwrap_or(Decision::Rest)
}

/// What ends an ownership whatever the members do.
fn must_stop(world: &World, name: &GroupName) -> Option<Decision> {
    let group = world.group(name);
    let own = group.own.unwrap_or_default();
    let over = world.stop_at(name).is_some_and(|at| world.now >= at);
    let over = || over.then(|| Decision::Stop(world.unleased(name, own), None));
    if in_maintenance(world, name) {
        let parts = || world.parts_with(name).map(|words| Decision::Stop(words, None));
        return over().or_else(parts);
    }
    for peer in world.others().filter(|p| world.heard(*p)) {
        let Some(report) = world.peer(peer).reports.get(name) else { continue };
        let Some(claim) = report.claim.filter(|c| c.epoch > own) else { continue };
        if report.held == Held::Yes {
            let words = format!("{} holds it at epoch {}", world.name(peer), claim.epoch);
            return Some(Decision::TwoOwners(peer, words));
        }
        if claim.on_silence.is_some() && !world.peer(peer).hears_us() {
            let words = format!(
                "{} does not hear this node and has announced that it starts the group",
                world.name(peer)
            );
            return Some(Decision::Yield(peer, words));
        }
    }
    if let Some(stop) = over() {
        return Some(stop);
    }
    // Also in doubt: what a majority may do by now, it does.
    if let Some(words) = world.outvoted().filter(|_| world.minority) {
        return Some(Decision::Stop(words, None));
    }
    if world.doubting {
        return None;
    }
    let heir = world.heir(name);
    let stop = |why: &str| Some(Decision::Stop(why.into(), heir));
    if world.wish(name).value.down {
        return Some(Decision::Stop("stopped by operator".into(), None));
    }
    match world.going {
        Some(super::Terminate::Shutdown) => return stop("this machine shuts down"),
        Some(super::Terminate::Stop) => return stop("the daemon is being stopped here"),
        Some(super::Terminate::Restart) | None => {}
    }
    if world.in_standby(world.me) { stop("this node is in standby") } else { None }
}

/// What moves a healthy group: a person, failback, a lost carrier.
fn should_move(world: &World, name: &GroupName) -> Option<Decision> {
    let group = world.group(name);
    if let Some((to, epoch)) = world.wish(name).value.move_to
        && Some(epoch) == group.own
        && to != world.me
        && world.unfit_at(name, to).is_none()
    {
        return Some(Decision::Stop("moved by operator".into(), Some(to)));
    }
    if let Some(interface) = group.seen.as_ref().and_then(|s| s.no_carrier.as_ref())
        && let Some(heir) = world.heir(name)
    {
        let why = format!("interface {interface} of its address has no carrier here");
        return Some(Decision::Stop(why, Some(heir)));
    }
    let (better, since) = group.better?;
    let due = match group.policy.failback {
        Failback::No => false,
        Failback::Yes => true,
        Failback::After(delay) => world.now.since(since) >= delay,
    };
    due.then(|| {
        Decision::Stop(format!("failback: {} is preferred", world.name(better)), Some(better))
    })
}

/// The preferred node that is fit while this one, less preferred, runs the group.
pub fn better(world: &World, name: &GroupName) -> Option<NodeId> {
    let group = world.group(name);
    if group.policy.failback == Failback::No || group.phase() != Phase::Running {
        return None;
    }
    let before = group.policy.nodes.iter().take_while(|n| **n != world.me);
    before.copied().find(|n| world.unfit_at(name, *n).is_none())
}

fn member_failure(world: &World, name: &GroupName) -> Option<Decision> {
    let group = world.group(name);
    let seen = group.seen.as_ref()?;
    if seen.blind || !group.fresh || world.going.is_some() {
        return None;
    }
    let failed = group.failed_members();
    if failed.is_empty() {
        return None;
    }
    let word = |m: &&super::Member| match m.result.as_str() {
        "" => format!("{} is not running", m.unit),
        result => format!("{} failed ({result})", m.unit),
    };
    let words = failed.iter().map(word).collect::<Vec<_>>().join(", ");
    let window = group.policy.retry_window;
    let recent = group.failures.iter().filter(|at| world.now.since(**at) < window).count();
    let spent = recent >= group.policy.retries as usize;
    Some(if spent { Decision::GiveUp(words) } else { Decision::Recover(words) })
}

pub fn in_maintenance(world: &World, name: &GroupName) -> bool {
    world.wishes.maintenance.value || world.wish(name).value.maintenance
}

/// The decision in words, for `explain`: what stands, who may have it, what is missing.
pub fn explain(world: &World, name: &GroupName) -> Vec<String> {
    let group = world.group(name);
    let mut lines = Vec::new();
    for node in &group.policy.nodes {
        let word = match world.why_not(name, *node) {
            None => "may run it".to_string(),
            Some(why) => format!("may not run it: {why}"),
        };
        lines.push(format!("{} {word}", world.name(*node)));
    }
    match world.choice(name) {
        Some(node) => lines.push(format!("placement chooses {}", world.name(node))),
        None if world.wish(name).value.down => lines.push("an operator stopped it".into()),
        None => lines.push("no node may run it now".into()),
    }
    lines.extend(world.quorum().map(|q| format!("quorum: {}", q.words())));
    lines.extend(standing(world, name));
    lines.extend(world.others().filter_map(|peer| fence::explain(world, peer)));
    if group.phase() == Phase::Stopped {
        let claim = group.claim.as_ref().map(|c| c.epoch);
        for peer in world.others() {
            let name_of = world.name(peer);
            let heard = match world.silence_of(peer) {
                Some(age) => format!("last heard {:.1} s ago", age.as_secs_f64()),
                None => "never heard since this daemon started".into(),
            };
            lines.push(match evidence::against(world, name, peer, claim) {
                Ok(evidence) => format!("evidence against {name_of}: {evidence}, {heard}"),
                Err(Missing::Promise) => {
                    format!("evidence against {name_of}: its promise is awaited, {heard}")
                }
                Err(Missing::Barred(words)) => {
                    format!("no evidence against {name_of}, {heard}: {words}")
                }
                Err(Missing::Lease(words)) => {
                    format!("no evidence yet against {name_of}, {heard}: {words}")
                }
            });
        }
    }
    lines.extend(world.lease_words(name));
    lines.push(format!("decision here: {}", verdict(&decide(world, name), group)));
    lines
}

/// Who holds it now, as far as is known here, since when and by what.
fn standing(world: &World, name: &GroupName) -> Vec<String> {
    let group = world.group(name);
    let mut lines = Vec::new();
    if let (Some(own), Held::Yes) = (group.own, group.held()) {
        lines.push(match &group.proof {
            None => format!("held here by epoch {own}; by what evidence was not kept"),
            Some(proof) => {
                let age = world.now.since(proof.since).as_secs_f64();
                let word = |(n, e): &(NodeId, Evidence)| format!("{}={e}", world.name(*n));
                let words: Vec<String> = proof.against.iter().map(word).collect();
                format!("held here by epoch {own} for {age:.1} s, by {}", words.join(", "))
            }
        });
    }
    for peer in world.others() {
        let Some(report) = world.peer(peer).reports.get(name) else { continue };
        let claim = report.claim.map(|c| format!(" by epoch {}", c.epoch)).unwrap_or_default();
        let age = world.silence_of(peer).unwrap_or_default().as_secs_f64();
        let (on, phase) = (world.name(peer), format!("{:?}", report.phase).to_lowercase());
        match report.held {
            Held::Yes => lines.push(format!("{on} held it{claim} ({phase}) {age:.1} s ago")),
            Held::Unknown => lines.push(format!("{on} could not tell {age:.1} s ago")),
            Held::No => {}
        }
    }
    lines
}

fn verdict(decision: &Decision, group: &Group) -> String {
    match decision {
        Decision::Rest => match group.phase() {
            Phase::Running => "keep it running".into(),
            Phase::Stopped => "leave it stopped here".into(),
            Phase::Unknown => "read its units first".into(),
            Phase::Starting | Phase::Stopping => "wait for systemd".into(),
            Phase::Stuck => "wait, then try to stop it again".into(),
        },
        Decision::Wait(missing) => format!("wait: {}", missing.join("; ")),
        Decision::Claim => "claim it".into(),
        Decision::Withdraw(why) => format!("withdraw the claim: {why}"),
        Decision::AnnounceStart(_) => "announce the start, then start it".into(),
        Decision::Start(_) => "start it".into(),
        Decision::Stop(why, _) | Decision::TwoOwners(_, why) | Decision::Yield(_, why) => {
            format!("stop it: {why}")
        }
        Decision::Recover(why) => format!("start again what failed: {why}"),
        Decision::GiveUp(why) => format!("give it up: {why}"),
        Decision::StopAgain => "try again to stop it".into(),
    }
}
