//! How far a request is, and with what it ends: the words that people wait for.

use super::ask::Wants;
use super::heartbeat::{Held, Phase, Unfit};
use super::name::{Epoch, GroupName, NodeId};
use super::ownership::{self, Decision};
use super::time::Instant;
use super::world::World;
use super::{Core, Reply};

/// How far something is.
pub(super) enum Step {
    /// Under way.
    Going(String),
    /// Nothing is under way; what it waits for, and what a person can do.
    Waiting(String),
    Done(String),
    Refused(String),
}

impl Step {
    pub fn reply(self) -> Reply {
        match self {
            Step::Going(words) | Step::Waiting(words) => Reply::Progress(words),
            Step::Done(words) => Reply::Done(words),
            Step::Refused(words) => Reply::Refused(words),
        }
    }

    /// The same of what is a part of a greater thing.
    fn map(self, done: impl FnOnce(String) -> String, not: impl FnOnce(String) -> String) -> Step {
        match self {
            Step::Done(words) => Step::Done(done(words)),
            Step::Refused(words) => Step::Refused(not(words)),
            step => step,
        }
    }
}

impl Core {
    pub(super) fn outcome(&self, now: Instant, wants: &Wants) -> Step {
        let world = self.world(now);
        match wants {
            Wants::Noted { .. } if self.store.record != self.store.durable => self.writing(),
            Wants::Noted { words } => Step::Done(words.clone()),
            Wants::Moved { group, to, from } => self.moved(&world, group, *to, *from),
            Wants::Empty { node, groups } => self.emptied(&world, *node, groups),
            Wants::Stopped { group } => self.stopped_here(group),
            Wants::Running { group } => self.adopted(&world, group),
            Wants::Cleared { group, wish } => self.cleared(&world, group, *wish),
            Wants::Taken { node, groups } => self.taken(&world, *node, groups),
            Wants::Fenced { node, id } => self.fence_step(*node, *id),
            Wants::Drilled { node, id } => self.drill_step(*node, *id),
        }
    }

    fn writing(&self) -> Step {
        match &self.store.failed {
            Some((why, _)) => Step::Refused(format!(
                "the state file cannot be written ({why}): make room, or mend the disk, and ask \
                 again"
            )),
            None => Step::Going("writing it down".into()),
        }
    }

    fn stopped_here(&self, name: &GroupName) -> Step {
        let Ok(group) = self.known(name) else { return gone(name) };
        match (group.told_phase(), &group.stuck) {
            (Phase::Stopped, _) => Step::Done(format!("{name} is stopped")),
            (Phase::Stuck, Some(stuck)) => Step::Refused(stuck_words(name, stuck)),
            (phase, _) => Step::Going(format!("{name} is {}", word(phase))),
        }
    }

    fn adopted(&self, world: &World, name: &GroupName) -> Step {
        let Ok(group) = self.known(name) else { return gone(name) };
        match owner(world, name) {
            _ if group.phase() == Phase::Running => Step::Done(format!("{name} runs here")),
            Some((node, _)) if node != self.policy.me => Step::Refused(format!(
                "{name} is held by {}, so what runs here cannot be it: hafailover clear {name} \
                 stops it",
                world.name(node)
            )),
            _ => self.comes_up(world, name),
        }
    }

    fn cleared(&self, world: &World, name: &GroupName, wish: Epoch) -> Step {
        if !self.groups.contains_key(name) {
            return gone(name);
        }
        let durable = world.durable.groups.get(name).map(|r| r.wish.version).unwrap_or_default();
        if durable < wish {
            return self.writing();
        }
        let done = |words| format!("{name} is cleared: {words}");
        let report = |p: NodeId| world.peer(p).reports.get(name).and_then(|r| r.unfit);
        let strays = world.others().any(|p| world.heard(p) && report(p) == Some(Unfit::Stray));
        let up = self.comes_up(world, name);
        // What was asked for here is done; the rest has to be asked for there.
        if let (Step::Waiting(words), true) = (&up, strays) {
            return Step::Done(format!("{name} is cleared here; {words}"));
        }
        up.map(done, |words| format!("{name} is cleared, but {words}"))
    }

    fn taken(&self, world: &World, node: NodeId, groups: &[GroupName]) -> Step {
        let name = world.name(node);
        if world.heard(node) {
            return Step::Refused(format!(
                "{name} is heard again, so it is not down, and the word is void: hafailover \
                 status shows what it runs"
            ));
        }
        let counts = format!("{name} counts as down until it is heard again");
        if groups.is_empty() {
            return Step::Done(format!("{counts}; no group waited for that"));
        }
        let lost = |p: &NodeId| !world.heard(*p) && world.peer(*p).confirmed_down.is_none();
        match self.all_up(world, groups, &counts) {
            // This word is said; what is missing is one about another node.
            Step::Waiting(words) if world.others().any(|p| lost(&p)) => {
                Step::Done(format!("{counts}; {words}"))
            }
            Step::Waiting(words) => {
                let elsewhere = |g: &GroupName| world.choice(g).is_some_and(|n| n != world.me);
                Step::Waiting(match groups.iter().any(elsewhere) {
                    true => format!("{words} (this word counts here only: say it there too)"),
                    false => words,
                })
            }
            step => step,
        }
    }

    /// Whether each of them runs anywhere; `so` is what stands already.
    fn all_up(&self, world: &World, groups: &[GroupName], so: &str) -> Step {
        let (mut going, mut waiting) = (Vec::new(), Vec::new());
        let (mut done, mut refused) = (Vec::new(), Vec::new());
        for group in groups {
            match self.comes_up(world, group) {
                Step::Going(words) => going.push(words),
                Step::Waiting(words) => waiting.push(words),
                Step::Done(words) => done.push(words),
                Step::Refused(words) => refused.push(words),
            }
        }
        match (going.is_empty(), waiting.is_empty(), refused.is_empty()) {
            (false, _, _) => Step::Going(going.join("; ")),
            (true, false, _) => Step::Waiting(waiting.join("; ")),
            (true, true, false) => Step::Refused(format!("{so}, but {}", refused.join("; "))),
            (true, true, true) if done.is_empty() => Step::Done(so.into()),
            (true, true, true) => Step::Done(format!("{so}; {}", done.join("; "))),
        }
    }

    /// Whether the group runs anywhere, or what it lacks.
    fn comes_up(&self, world: &World, name: &GroupName) -> Step {
        let Ok(group) = self.known(name) else { return gone(name) };
        if let (Phase::Stuck, Some(stuck)) = (group.told_phase(), &group.stuck) {
            return Step::Refused(stuck_words(name, stuck));
        }
        if let Some((node, _)) = owner(world, name) {
            return match phase_at(world, name, node) {
                Phase::Running => Step::Done(format!("{name} runs on {}", world.name(node))),
                Phase::Stuck => Step::Refused(stuck_there(world, name, node)),
                phase => Step::Going(format!("{name} is {} on {}", word(phase), world.name(node))),
            };
        }
        if group.phase() != Phase::Stopped {
            return Step::Going(format!("{name} is {} here", word(group.phase())));
        }
        if ownership::in_maintenance(world, name) {
            return Step::Done(format!(
                "{name} is in maintenance, in which nothing is started: hafailover maintenance off"
            ));
        }
        if world.wish(name).value.down {
            let words = "an operator stopped it: hafailover clear";
            return Step::Refused(format!("{words} {name} starts it again"));
        }
        self.idle(world, name)
    }

    /// Nobody holds it.
    fn idle(&self, world: &World, name: &GroupName) -> Step {
        if let Some(claim) = world.top_claim(name) {
            return Step::Going(format!("{} claims {name}", world.name(claim)));
        }
        match world.choice(name) {
            Some(node) if node == self.policy.me => match ownership::decide(world, name) {
                Decision::Wait(words) => {
                    Step::Waiting(format!("{name} waits: {}", words.join("; ")))
                }
                _ => Step::Going(format!("this node is to start {name}")),
            },
            Some(node) => Step::Waiting(format!(
                "{0} is to start {name}: hafailover explain {name} on {0} says what it waits for",
                world.name(node)
            )),
            None => {
                let words = format!(
                    "no node may run {name} now: {}",
                    self.idle_words(world, name).join("; ")
                );
                // What a peer said of itself before it knew of this is not its last word.
                let wish = world.wish(name).version;
                let knows = |p: NodeId| {
                    let report = world.peer(p).reports.get(name);
                    !world.heard(p) || report.is_none_or(|r| r.wish.version >= wish)
                };
                match world.others().all(knows) {
                    true => Step::Refused(words),
                    false => Step::Waiting(words),
                }
            }
        }
    }

    /// Nothing is held by that node any more, or what keeps it there.
    fn emptied(&self, world: &World, node: NodeId, groups: &[GroupName]) -> Step {
        let on = |g: &&GroupName| owner(world, g).is_some_and(|(o, _)| o == node);
        let (mut left, mut stuck) = (Vec::new(), Vec::new());
        for name in self.groups.keys().filter(on) {
            match (&world.group(name).stuck, phase_at(world, name, node)) {
                (Some(why), Phase::Stuck) if node == self.policy.me => {
                    stuck.push(stuck_words(name, why));
                }
                (_, Phase::Stuck) => stuck.push(stuck_there(world, name, node)),
                (_, phase) => left.push(format!("{name} ({})", word(phase))),
            }
        }
        let name = self.node_name(node);
        match (left.is_empty(), stuck.is_empty()) {
            (true, true) => self.all_up(world, groups, &format!("{name} is in standby")),
            (false, _) => Step::Going(format!("waiting for {}", left.join(", "))),
            (true, false) => Step::Refused(format!(
                "{name} is in standby, but still holds what cannot be stopped: {}",
                stuck.join("; ")
            )),
        }
    }

    fn moved(&self, world: &World, group: &GroupName, to: NodeId, from: Epoch) -> Step {
        let Ok(state) = self.known(group) else { return gone(group) };
        if let (Phase::Stuck, Some(stuck)) = (state.told_phase(), &state.stuck) {
            return Step::Refused(stuck_words(group, stuck));
        }
        let name = world.name(to);
        let Some((owner, epoch)) = owner(world, group) else {
            // Its files came to differ on the way: only a person can go on.
            if let Some(node) = world.other_group(group) {
                return Step::Refused(format!(
                    "{group} is stopped and waits: what {} calls {group} is another group now: \
                     make the files equal, then systemctl daemon-reload, and it starts",
                    world.name(node)
                ));
            }
            let phase = phase_at(world, group, to);
            return match world.top_epoch(group) > from && phase == Phase::Stopped {
                true => Step::Going(format!("{group} is released; its next owner claims it")),
                false => Step::Going(format!("{group} is {} on {name}", word(phase))),
            };
        };
        let phase = phase_at(world, group, owner);
        let on = world.name(owner);
        match (phase, epoch > from) {
            (Phase::Running, true) if owner == to => Step::Done(format!("{group} runs on {name}")),
            (Phase::Running, true) => Step::Refused(format!(
                "{group} did not start on {name} and runs on {on}: journalctl -u {} on {name} \
                 says why",
                group.unit()
            )),
            (Phase::Stuck, _) => Step::Refused(stuck_there(world, group, owner)),
            (phase, _) => Step::Going(format!("{group} is {} on {on}", word(phase))),
        }
    }
}

fn gone(name: &GroupName) -> Step {
    Step::Refused(format!(
        "{name} is no longer a group here: systemctl enable {} makes it one",
        name.unit()
    ))
}

fn stuck_words(group: &GroupName, stuck: &super::group::Stuck) -> String {
    let holders = match stuck.holders.is_empty() {
        true => String::new(),
        false => format!("; held by {}", stuck.holders.join(", ")),
    };
    format!(
        "{group} cannot be stopped: {}{holders}; end that, then hafailover retry {group} (it is \
         tried again every second too)",
        stuck.why
    )
}

fn stuck_there(world: &World, group: &GroupName, node: NodeId) -> String {
    format!(
        "{group} cannot be stopped on {0}: hafailover status on {0} names who holds it; end that, \
         then hafailover retry {group} there",
        world.name(node)
    )
}

fn word(phase: Phase) -> &'static str {
    match phase {
        Phase::Unknown => "not yet known",
        Phase::Stopped => "stopped",
        Phase::Starting => "starting",
        Phase::Running => "running",
        Phase::Stopping => "stopping",
        Phase::Stuck => "stuck",
    }
}

/// The node that holds the group, and by which epoch; of two, the higher epoch.
pub(super) fn owner(world: &World, name: &GroupName) -> Option<(NodeId, Epoch)> {
    let group = world.group(name);
    let mine = group.own.filter(|_| group.held() == Held::Yes).map(|e| (world.me, e));
    let theirs = world.others().filter(|p| world.heard(*p)).filter_map(|p| {
        let report = world.peer(p).reports.get(name)?;
        let claim = report.claim.filter(|_| report.held == Held::Yes)?;
        Some((p, claim.epoch))
    });
    theirs.chain(mine).max_by_key(|(_, epoch)| *epoch)
}

fn phase_at(world: &World, name: &GroupName, node: NodeId) -> Phase {
    if node == world.me {
        return world.group(name).told_phase();
    }
    world.peer(node).reports.get(name).map(|r| r.phase).unwrap_or_default()
}
