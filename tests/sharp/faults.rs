//! The faults: what the code then does, where, the source as it stands with the part between « and
//! », and what stands there instead.

pub struct Fault {
    pub name: &'static str,
    pub file: &'static str,
    pub good: &'static str,
    pub bad: &'static str,
}

const fn fault(
    name: &'static str,
    file: &'static str,
    good: &'static str,
    bad: &'static str,
) -> Fault {
    Fault { name, file, good, bad }
}

pub const FAULTS: &[Fault] = &[
    fault(
        "starts without the peer's promise",
        "src/core/evidence.rs",
        "if «report.promise == Some(claim)» {",
        "true",
    ),
    fault(
        "starts before its claim is on disk",
        "src/core/ownership.rs",
        "if «world.durable.groups.get(name).and_then(|r| r.claim) != Some(own)» {",
        "false",
    ),
    fault(
        "speaks of a promise before it is on disk",
        "src/core/beat.rs",
        "promise: «durable.promise»,",
        "self.store.record.groups.get(name).and_then(|r| r.promise)",
    ),
    fault(
        "claims without writing the new epoch",
        "src/core/act.rs",
        "record.claim = Some(epoch);\n        «record.epoch = epoch;»",
        "",
    ),
    fault(
        "takes a leaving holder for released",
        "src/core/evidence.rs",
        "if «peer.mood.leaving && report.is_some_and(|r| r.held == Held::No)» {",
        "peer.mood.leaving",
    ),
    fault(
        "ignores its own stall",
        "src/core/mod.rs",
        "if «late < deadtime» {\n            return;",
        "true",
    ),
    fault(
        "counts its own stall as the peer's silence",
        "src/core/detector.rs",
        "«self.slept += late;»",
        "",
    ),
    fault(
        "promises before it heard its peers after a stall",
        "src/core/ownership.rs",
        "if !able || «world.doubting» ||",
        "false",
    ),
    fault(
        "counts Stuck as released",
        "src/core/jobs.rs",
        "«self.stuck(now, name, format!(\"{unit}: {why}\"), holders);»",
        "let _ = (unit, why, holders); self.release(now, name);",
    ),
    fault(
        "counts a lost answer as released",
        "src/core/jobs.rs",
        "«self.stuck(now, name, format!(\"cannot tell whether it stopped: {why}\"), Vec::new());»",
        "let _ = why; self.release(now, name);",
    ),
    fault(
        "says that a stuck group is free",
        "src/core/group.rs",
        "Phase::Starting | Phase::Running | Phase::Stopping | Phase::Stuck => «Held::Yes»,",
        "if self.phase == Phase::Stuck { Held::No } else { Held::Yes }",
    ),
    fault(
        "says that an unknown group is free",
        "src/core/group.rs",
        "Phase::Stopped | Phase::Unknown => «Held::Unknown»,",
        "Held::No",
    ),
    fault(
        "skips the jeopardy rule",
        "src/core/world.rs",
        "&& «self.peer(id).links_at_silence(self.policy.timing.deadtime) < 2»",
        "false",
    ),
    fault(
        "forgets jeopardy over a reboot",
        "src/core/evidence.rs",
        "if «world.jeopardy.contains(&id)» &&",
        "false",
    ),
    fault("skips the majority", "src/core/world.rs", "(«all > 2 && alive * 2 <= all»)", "false"),
    fault(
        "does not ask what others hear",
        "src/core/world.rs",
        "= «self.others().find(hears)» {",
        "self.others().find(|q| hears(q) && false)",
    ),
    fault(
        "takes silence in spite of hold",
        "src/core/evidence.rs",
        "if «world.policy.safety.silence == OnSilence::Hold» {",
        "false",
    ),
    fault(
        "takes the unseen in spite of hold",
        "src/core/evidence.rs",
        "if «world.policy.safety.unseen == OnSilence::Hold» {",
        "false",
    ),
    fault(
        "does not wait for a peer that was stopping",
        "src/core/evidence.rs",
        "false if «held && (ending || going || cared)» => {",
        "false",
    ),
    fault(
        "does not wait for the guard after a crash",
        "src/core/evidence.rs",
        "false if «held && peer.may_be_lost() && peer.mood.guard_bound.is_some()» => {",
        "false",
    ),
    fault(
        "gives up a new life by the words of the old",
        "src/core/evidence.rs",
        "let last = match «peer.has_newer_life()» {",
        "false",
    ),
    fault(
        "takes what a guard has not yet stopped",
        "src/core/evidence.rs",
        "let stopped = |r: &GroupReport| «r.held == Held::No» &&",
        "true",
    ),
    fault(
        "does not listen to a guard",
        "src/core/hear.rs",
        "let Some(peer) = «self.peers.get_mut(&beat.from)» else { return };\n        let before",
        "self.peers.get_mut(&beat.from).filter(|_| !beat.mood.guarding)",
    ),
    fault(
        "its guard says what it has not verified",
        "src/core/guard.rs",
        "«if lost.held.contains(g) { Held::Yes } else { Held::Unknown }»;",
        "Held::No",
    ),
    fault(
        "does not wait for a restart",
        "src/core/evidence.rs",
        "&& «since < deadtime + bound + guard»\n    {",
        "false",
    ),
    fault(
        "does not wait for initdead",
        "src/core/evidence.rs",
        "match «world.initdead_over» {",
        "true",
    ),
    fault(
        "starts though it has lost its state",
        "src/core/mod.rs",
        "} else if «!self.store.record.known» {",
        "false",
    ),
    fault(
        "keeps a person's word when the peer is heard",
        "src/core/peer.rs",
        "«self.confirmed_down = None;»",
        "",
    ),
    fault(
        "takes a frame twice",
        "src/wire/window.rs",
        "if back >= WIDTH || «self.seen & (1 << back) != 0» {",
        "false",
    ),
    fault(
        "takes an old frame for a sign of life",
        "src/core/peer.rs",
        "if «!newest && !echo.is_some_and(|e| timely(now, e, timing.deadtime))» {",
        "false",
    ),
    fault(
        "takes a session without a challenge",
        "src/core/peer.rs",
        "if «echo.is_none_or(|e| self.sign.is_some_and(|sign| e.stamp <= sign))» {",
        "false",
    ),
    fault(
        "promises what it holds",
        "src/core/ownership.rs",
        "let able = «group.held() == Held::No && group.phase() == Phase::Stopped» &&",
        "true",
    ),
    fault(
        "promises while it hears a holder",
        "src/core/ownership.rs",
        "world.ill.is_some() || «world.heard_holder(name).is_some()» {\n        return None",
        "false",
    ),
    fault(
        "promises less than before",
        "src/core/ownership.rs",
        "let fresh = «best >= record.epoch && record.promise.is_none_or(|p| p < best)»;",
        "record.promise != Some(best)",
    ),
    fault(
        "owns an epoch twice",
        "src/core/world.rs",
        "«released.is_some_and(|r| r.epoch == top)»\n        };",
        "false",
    ),
    fault(
        "chooses an epoch that is not above all",
        "src/core/act.rs",
        "counter: «top.counter + 1», node",
        "top.counter.max(1)",
    ),
    fault(
        "gives way to no other owner",
        "src/core/ownership.rs",
        "if «report.held == Held::Yes» {\n            let words",
        "false",
    ),
    fault(
        "does not yield to one that cannot hear it",
        "src/core/ownership.rs",
        "if «claim.on_silence.is_some() && !world.peer(peer).hears_us()» {",
        "false",
    ),
    fault(
        "stops in maintenance",
        "src/core/ownership.rs",
        "if «in_maintenance(world, name)» {\n        return None;",
        "false",
    ),
    fault(
        "starts in maintenance",
        "src/core/world.rs",
        "} else if «self.wishes.maintenance.value || wish.maintenance» {",
        "false",
    ),
    fault(
        "recovers members in maintenance",
        "src/core/ownership.rs",
        "if «in_maintenance(world, name)» || world.doubting",
        "false",
    ),
    fault(
        "orders a start that is valid for too long",
        "src/core/act.rs",
        "name, epoch, «self.policy.timing.deadtime / 2»);",
        "self.policy.timing.deadtime * 20",
    ),
    fault("leaves a request without a result", "src/core/ask.rs", "&& «now >= until»", "false"),
    fault(
        "never tries a stuck stop again",
        "src/core/ownership.rs",
        "if «due && !in_maintenance(world, name)» {",
        "false",
    ),
];
