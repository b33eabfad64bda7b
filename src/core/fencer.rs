//! Fencing, the acts: attempts, their ends, drills, and what people ask for. Evidence lives as
//! long as this daemon; what must outlive it, the attempts and a lie, is on disk before anything is
//! asked of the hands.

use super::ask::Wants;
use super::fence::{End, Fence, Run, State, barred, failed, is_due, needed, proves, wanted};
use super::name::NodeId;
use super::outcome::Step;
use super::policy::FenceKind;
use super::record::FenceRecord;
use super::say::{Saying, What};
use super::time::{Duration, Instant};
use super::view::{FenceView, Presence};
use super::world::World;
use super::{Action, Core, FenceState};

/// After a failed attempt so many times `deadtime` pass before the next.
const AGAIN: u32 = 5;
/// A drill that failed is repeated after so long, if not sooner.
const DRILL_AGAIN: Duration = Duration::from_secs(600);

impl Core {
    /// Fences whom it is time to fence, and looks at those that were.
    pub(super) fn judge_fences(&mut self, now: Instant) {
        let ids: Vec<NodeId> = self.fences.keys().copied().collect();
        for id in ids {
            self.look_at_fenced(now, id);
            self.judge_fence(now, id);
            self.judge_drill(now, id);
        }
    }

    fn fence_mut(&mut self, id: NodeId) -> &mut Fence {
        self.fences.get_mut(&id).expect("called for peers with a fence")
    }

    fn judge_fence(&mut self, now: Instant, id: NodeId) {
        let rests = matches!(self.fences[&id].state, State::Rest | State::Done(..));
        if rests && wanted(&self.world(now), id) {
            self.order_fence(id);
        }
        match self.fences[&id].state {
            // Its own attempt is counted already.
            State::Ordered(_) if self.still_wanted(now, id) => {
                let store = &self.store;
                if store.record.fences.get(&id) == store.durable.fences.get(&id) {
                    let by = self.policy.fences.nodes[&id].by.clone();
                    let tries = self.store.record.fences[&id].tries;
                    let words = format!("it is silent: {by} makes sure, attempt {tries}");
                    self.say(Saying::new(What::Fencing, words).peer(id));
                    self.run_fence(now, id, false);
                }
            }
            State::Ordered(before) => {
                // Not begun is no attempt.
                self.fence_mut(id).state = State::Rest;
                let record = self.store.record.fences.entry(id).or_default();
                *record = FenceRecord { lied: record.lied, ..before };
            }
            State::Running(run) if !run.person && !run.ended => {
                if self.peers[&id].sign() > Some(run.began) {
                    self.fence_mut(id).state = State::Running(Run { ended: true, ..run });
                    self.out.push(Action::FenceEnd { node: id });
                }
            }
            State::Rest | State::Running(_) | State::Done(..) => {}
        }
    }

    /// The next attempt, written down first.
    fn order_fence(&mut self, id: NodeId) {
        let (here, there) = (self.boot, self.peers[&id].boot());
        let record = self.store.record.fences.entry(id).or_default();
        let before = *record;
        record.tries = if record.well { 1 } else { record.tries + 1 };
        (record.well, record.here, record.there) = (false, here, there);
        self.fence_mut(id).state = State::Ordered(before);
    }

    fn still_wanted(&self, now: Instant, id: NodeId) -> bool {
        let world = self.world(now);
        let policy = &self.policy.fences.nodes[&id];
        barred(&world, id, policy).is_none() && is_due(&world, id) && needed(&world, id)
    }

    fn run_fence(&mut self, now: Instant, id: NodeId, person: bool) -> u64 {
        self.jobs += 1;
        let run = Run { id: self.jobs, began: now, person, stale: false, ended: false };
        self.fence_mut(id).state = State::Running(run);
        let valid_until = now + self.policy.timing.deadtime / 2;
        self.out.push(Action::Fence { node: id, id: run.id, valid_until });
        self.touch_all();
        run.id
    }

    /// The answer of the hands.
    pub(super) fn fenced(&mut self, now: Instant, id: NodeId, job: u64, end: Result<(), String>) {
        let Some(Fence { state: State::Running(run), .. }) = self.fences.get(&id) else { return };
        let run = *run;
        if run.id != job {
            return;
        }
        let by = self.policy.fences.nodes[&id].by.clone();
        self.fence_mut(id).last = Some(End { id: job, result: end.clone() });
        self.touch_all();
        match end {
            Ok(()) => {
                let fence = self.fence_mut(id);
                (fence.state, fence.said_off) = (State::Done(run), Some(now));
                self.store.record.fences.entry(id).or_default().well = true;
                let state = match self.policy.fences.nodes[&id].kind {
                    FenceKind::Power => "off",
                    FenceKind::Storage => "cut from the storage",
                };
                let words = format!("{by} ended well: it is {state}");
                self.say(Saying::new(What::Fenced, words).peer(id));
            }
            Err(why) => {
                let again = now + self.policy.timing.deadtime * AGAIN;
                let fence = self.fence_mut(id);
                (fence.state, fence.again) = (State::Rest, Some(again));
                self.say(Saying::new(What::FenceFailed, format!("{by}: {why}")).peer(id));
                let policy = &self.policy.fences.nodes[&id];
                let words = failed(&self.world(now), id, policy).filter(|_| !run.person);
                if let Some(words) = words {
                    self.say(Saying::new(What::FenceGivenUp, words).peer(id));
                }
            }
        }
    }

    /// A peer that is heard after its fence: it has come back, or it was never off.
    fn look_at_fenced(&mut self, now: Instant, id: NodeId) {
        let peer = &self.peers[&id];
        let (sign, boot) = (peer.sign(), peer.boot());
        let alive = self.world(now).presence(id) == Presence::Alive;
        let record = self.store.record.fences.get(&id).copied().unwrap_or_default();
        let policy = &self.policy.fences.nodes[&id];
        // Whatever has become of the proof, and of later attempts.
        if let Some(done) = self.fences[&id].said_off {
            let power = policy.kind == FenceKind::Power;
            let same = boot.is_some() && boot == record.there;
            let lied = power && same && sign > Some(done);
            if lied {
                let words = format!(
                    "{} said that it was off, and it answers in the same life of its machine: \
                     what rested on that was wrong",
                    policy.by
                );
                self.say(Saying::new(What::FenceLied, words).peer(id));
                self.store.record.fences.entry(id).or_default().lied = true;
                self.touch_all();
            }
            if lied || (alive && !(power && same)) {
                let fence = self.fence_mut(id);
                fence.said_off = None;
                if matches!(fence.state, State::Done(..)) {
                    fence.state = State::Rest;
                }
            }
        }
        let rests = matches!(self.fences[&id].state, State::Rest);
        if alive && rests && record.tries > 0 {
            let record = self.store.record.fences.entry(id).or_default();
            (record.tries, record.well) = (0, false);
            self.fence_mut(id).again = None;
        }
    }

    fn judge_drill(&mut self, now: Instant, id: NodeId) {
        let Some(every) = self.policy.fences.nodes[&id].drill else { return };
        let fence = &self.fences[&id];
        let wait = |end: &Result<_, _>| if end.is_ok() { every } else { every.min(DRILL_AGAIN) };
        let last = fence.drill.last.as_ref();
        let doubtful = fence.drill.said_off && self.is_on(now, id);
        let again = |end: &Result<_, _>| doubtful && end.is_ok();
        let due = last.is_none_or(|(_, at, end)| now.since(*at) >= wait(end) || again(end));
        let busy = matches!(fence.state, State::Ordered(_) | State::Running(_));
        if due && !busy && fence.drill.running.is_none() && !self.starting && self.going.is_none() {
            self.run_drill(id);
        }
    }

    fn run_drill(&mut self, id: NodeId) -> u64 {
        self.jobs += 1;
        let job = self.jobs;
        self.fence_mut(id).drill.running = Some(job);
        self.out.push(Action::FenceCheck { node: id, id: job });
        job
    }

    /// The answer of the hands: what the agent says of the peer's power.
    pub(super) fn drilled(
        &mut self,
        now: Instant,
        id: NodeId,
        job: u64,
        end: Result<FenceState, String>,
    ) {
        let said_off = end == Ok(FenceState::Off);
        let end = end.and_then(|state| self.plausible(now, id, state));
        let Some(fence) = self.fences.get_mut(&id) else { return };
        if fence.drill.running.take_if(|n| *n == job).is_none() {
            return;
        }
        fence.drill.said_off = said_off;
        let before = fence.drill.last.replace((job, now, end.clone()));
        let was_well = before.map(|(_, _, end)| end.is_ok());
        let by = self.policy.fences.nodes[&id].by.clone();
        match end {
            Ok(state) if was_well != Some(true) => {
                let words = format!("{by} answers: {state}");
                self.say(Saying::new(What::FenceDrillPassed, words).peer(id));
            }
            Err(why) if was_well != Some(false) => {
                self.say(Saying::new(What::FenceDrillFailed, format!("{by}: {why}")).peer(id));
            }
            _ => {}
        }
    }

    /// It was heard all the time while an agent that answers now can have asked.
    fn is_on(&self, now: Instant, id: NodeId) -> bool {
        let limit = self.policy.fences.nodes.get(&id).map_or(Duration::MAX, |f| f.timeout);
        let world = self.world(now);
        world.presence(id) == Presence::Alive && world.peer(id).heard_for(now) >= limit
    }

    /// The state in words; an error if who is heard here cannot be in it, and a fence would end
    /// well and do nothing.
    fn plausible(&self, now: Instant, id: NodeId, state: FenceState) -> Result<String, String> {
        let Some(policy) = self.policy.fences.nodes.get(&id) else { return Ok(String::new()) };
        let on = self.is_on(now, id);
        let words = match (policy.kind, state) {
            (FenceKind::Power, FenceState::On) => "the node is on",
            (FenceKind::Power, FenceState::Off) => "the node is off",
            (FenceKind::Storage, FenceState::On) => "the node has its storage",
            (FenceKind::Storage, FenceState::Off) => "the node is cut from the storage",
        };
        match (policy.kind, state) {
            (FenceKind::Power, FenceState::Off) if on => Err(format!(
                "it says that {words}, which is heard: it asks another machine, and would switch \
                 that one off: correct its options"
            )),
            (FenceKind::Storage, FenceState::Off) if on => Err(format!(
                "it says that {words}, which is heard: if a fence has cut it off, reboot it; else \
                 nothing would be taken from it: register it there before it runs groups: \
                 hafailover.toml(5), kind"
            )),
            _ => Ok(words.into()),
        }
    }

    /// Fences for the peers that the settings name; the others are forgotten.
    pub(super) fn set_fences(&mut self) {
        let named = self.policy.fences.nodes.keys().filter(|n| self.peers.contains_key(n));
        let named: Vec<NodeId> = named.copied().collect();
        self.fences.retain(|id, _| named.contains(id));
        for id in named {
            self.fences.entry(id).or_default();
        }
    }
}

/// What people ask for.
impl Core {
    fn fence_of(&self, node: NodeId) -> Result<&Fence, String> {
        let name = self.policy.nodes.get(usize::from(node.0)).map_or("?", String::as_str);
        if node == self.policy.me {
            return Err("this is the node you are on".into());
        }
        self.fences.get(&node).ok_or_else(|| {
            format!("there is no fence for {name}: add a [[fence]] with node = \"{name}\"")
        })
    }

    pub(super) fn ask_fence(&mut self, now: Instant, node: NodeId) -> Result<Wants, String> {
        let fence = self.fence_of(node)?;
        if matches!(fence.state, State::Running(_)) {
            return Err("it is being fenced already".into());
        }
        if self.going.is_some() {
            return Err("this daemon is going".into());
        }
        let policy = &self.policy.fences.nodes[&node];
        let lied = self.store.record.fences.get(&node).is_some_and(|r| r.lied);
        if let Some(words) = failed(&self.world(now), node, policy).filter(|_| lied) {
            return Err(words);
        }
        let (here, there) = (self.boot, self.peers[&node].boot());
        let record = self.store.record.fences.entry(node).or_default();
        (record.here, record.there) = (here, there);
        let id = self.run_fence(now, node, true);
        Ok(Wants::Fenced { node, id })
    }

    pub(super) fn ask_fence_check(&mut self, node: NodeId) -> Result<Wants, String> {
        let running = self.fence_of(node)?.drill.running;
        if self.policy.fences.nodes[&node].drill.is_none() {
            return Err("it cannot be tried: there is no check-unit for it".into());
        }
        let id = running.unwrap_or_else(|| self.run_drill(node));
        Ok(Wants::Drilled { node, id })
    }

    /// A person has mended the fence.
    pub(super) fn ask_clear_fence(&mut self, node: NodeId) -> Result<Wants, String> {
        self.fence_of(node)?;
        let record = self.store.record.fences.entry(node).or_default();
        *record = FenceRecord { tries: 0, well: false, lied: false, ..*record };
        let fence = self.fence_mut(node);
        fence.again = None;
        // The count of an attempt that waits for the disk is gone with the rest.
        if matches!(fence.state, State::Ordered(_)) {
            fence.state = State::Rest;
        }
        self.touch_all();
        let words = format!("the fence of {} is believed again", self.node_name(node));
        Ok(Wants::Noted { words })
    }

    /// How far a fence is that somebody asked for.
    pub(super) fn fence_step(&self, node: NodeId, id: u64) -> Step {
        let name = self.node_name(node);
        let Some(fence) = self.fences.get(&node) else { return no_more(name) };
        match fence.last.as_ref().filter(|last| last.id == id).map(|last| &last.result) {
            None => Step::Going(format!("{name} is being fenced")),
            Some(Ok(())) => Step::Done(format!("{name} is fenced")),
            Some(Err(why)) => Step::Refused(format!("{name} is not fenced: {why}")),
        }
    }

    pub(super) fn drill_step(&self, node: NodeId, id: u64) -> Step {
        let name = self.node_name(node);
        let Some(fence) = self.fences.get(&node) else { return no_more(name) };
        match fence.drill.last.as_ref().filter(|(last, ..)| *last == id) {
            None => Step::Going(format!("the fence of {name} is asked for the state")),
            Some((.., Ok(state))) => Step::Done(format!("the fence of {name} answers: {state}")),
            Some((.., Err(why))) => Step::Refused(format!("a fence of {name} would fail: {why}")),
        }
    }

    pub(super) fn fence_views(&self, world: &World) -> Vec<FenceView> {
        let view = |(id, fence): (&NodeId, &Fence)| {
            let policy = &self.policy.fences.nodes[id];
            let trouble = failed(world, *id, policy);
            FenceView {
                node: *id,
                by: policy.by.clone(),
                power: policy.kind == FenceKind::Power,
                state: match (&fence.state, &trouble) {
                    (State::Ordered(_) | State::Running(_), _) => "under way".into(),
                    (_, Some(words)) => words.clone(),
                    _ if proves(world, *id) => "done".into(),
                    _ => String::new(),
                },
                failed: trouble.is_some(),
                proven: fence.drill.last.as_ref().map(|(_, at, _)| world.now.since(*at)),
                drill: fence.drill.last.as_ref().map(|(.., end)| end.clone()),
            }
        };
        self.fences.iter().map(view).collect()
    }

    /// What a person should look at.
    pub(super) fn fence_warnings(&self, world: &World) -> Vec<String> {
        let mut words = Vec::new();
        for (id, fence) in &self.fences {
            let policy = &self.policy.fences.nodes[id];
            words.extend(failed(world, *id, policy));
            if let Some((.., Err(why))) = &fence.drill.last {
                words.push(format!(
                    "a fence of {} would fail: {}: {why}",
                    world.name(*id),
                    policy.by
                ));
            }
        }
        words
    }

    /// Whether a fence stands ready in the place of silence.
    pub(super) fn fence_is_ready(&self, world: &World, id: NodeId) -> bool {
        let policy = self.policy.fences.nodes.get(&id);
        policy.is_some_and(|p| failed(world, id, p).is_none())
    }
}

fn no_more(name: &str) -> Step {
    Step::Refused(format!("there is no [[fence]] for {name} any more"))
}
