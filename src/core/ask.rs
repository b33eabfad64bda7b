//! What people ask for, and how every request ends with a result.

use super::heartbeat::{Held, Phase};
use super::name::{Epoch, GroupName, NodeId};
use super::ownership;
use super::say::{Saying, What};
use super::time::{Duration, Instant};
use super::{Action, Command, Core, Reply};

/// Requests that may wait at once; more are refused.
const ASKED_MAX: usize = 64;

/// A request that waits for its result.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Asked {
    wants: Wants,
    until: Instant,
    /// The last progress line, so that each is sent once.
    told: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Wants {
    /// The group runs on that node at a later epoch.
    Moved { group: GroupName, to: NodeId, from: Epoch },
    /// The node holds nothing.
    Empty { node: NodeId },
    /// The wish is on disk.
    Noted { words: String },
    /// The group is verified stopped here.
    Stopped { group: GroupName },
    /// The group runs here.
    Running { group: GroupName },
}

impl Core {
    pub(super) fn ask(&mut self, now: Instant, request: u64, by: String, command: Command) {
        let refused = |words: String| Err(words);
        let result = if self.asked.len() >= ASKED_MAX {
            refused(format!("{ASKED_MAX} requests are waiting already: try again later"))
        } else {
            match command.clone() {
                Command::Move { group, to } => self.ask_move(now, &group, to),
                Command::Standby { node, on } => self.ask_standby(now, node, on),
                Command::Maintenance { group, on } => self.ask_maintenance(group, on),
                Command::Retry { group } => self.ask_retry(now, &group),
                Command::Clear { group } => self.ask_clear(now, &group),
                Command::Adopt { group } => self.ask_adopt(&group),
                Command::ConfirmDown { node } => self.ask_confirm(now, node, &by),
            }
        };
        match result {
            Ok(wants) => {
                let words = format!("{} by {by}", self.command_words(&command));
                self.say(Saying::new(What::Operator, words));
                let until = now + self.patience(&wants);
                self.asked.insert(request, Asked { wants, until, told: String::new() });
            }
            Err(words) => self.out.push(Action::Answer { request, reply: Reply::Refused(words) }),
        }
    }

    fn command_words(&self, command: &Command) -> String {
        let switch = |on: bool| if on { "on" } else { "off" };
        match command {
            Command::Move { group, to: Some(to) } => {
                format!("move {group} --to {}", self.node_name(*to))
            }
            Command::Move { group, to: None } => format!("move {group}"),
            Command::Standby { node, on: true } => format!("standby {}", self.node_name(*node)),
            Command::Standby { node, on: false } => format!("online {}", self.node_name(*node)),
            Command::Maintenance { group: Some(group), on } => {
                format!("maintenance {} {group}", switch(*on))
            }
            Command::Maintenance { group: None, on } => format!("maintenance {}", switch(*on)),
            Command::Retry { group } => format!("retry {group}"),
            Command::Clear { group } => format!("clear {group}"),
            Command::Adopt { group } => format!("adopt {group}"),
            Command::ConfirmDown { node } => format!("confirm-down {}", self.node_name(*node)),
        }
    }

    fn known(&self, name: &GroupName) -> Result<&super::Group, String> {
        let names: Vec<&str> = self.groups.keys().map(|g| g.0.as_str()).collect();
        self.groups.get(name).ok_or_else(|| match names.is_empty() {
            true => format!("there is no group {name}: systemctl enable {name}.target first"),
            false => format!("there is no group {name}; there are: {}", names.join(", ")),
        })
    }

    fn node_name(&self, node: NodeId) -> &str {
        self.policy.nodes.get(usize::from(node.0)).map_or("?", String::as_str)
    }

    fn ask_move(
        &mut self,
        now: Instant,
        name: &GroupName,
        to: Option<NodeId>,
    ) -> Result<Wants, String> {
        self.known(name)?;
        let world = self.world(now);
        if ownership::in_maintenance(&world, name) {
            return Err(format!("{name} is in maintenance: hafailover maintenance off first"));
        }
        let Some((owner, own)) = owner(&world, name) else {
            return Err(format!("{name} runs on no node: hafailover explain {name} says why"));
        };
        let fit = |n: &NodeId| *n != owner && world.unfit_at(name, *n).is_none();
        let to = match to {
            Some(to) if to == owner => {
                return Err(format!("{name} runs on {} already", world.name(to)));
            }
            Some(to) => to,
            None => match world.group(name).policy.nodes.iter().copied().find(fit) {
                Some(to) => to,
                None => {
                    let words = world.unfit_words(name, Some(owner)).join(", ");
                    return Err(format!("no other node may run {name} now: {words}"));
                }
            },
        };
        if let Some(why) = world.unfit_at(name, to) {
            return Err(format!("{} cannot take {name}: {why}", world.name(to)));
        }
        self.wish(name, |wish| wish.move_to = Some((to, own)));
        Ok(Wants::Moved { group: name.clone(), to, from: own })
    }

    fn ask_standby(&mut self, now: Instant, node: NodeId, on: bool) -> Result<Wants, String> {
        if usize::from(node.0) >= self.policy.nodes.len() {
            return Err(format!(
                "there is no such node; there are: {}",
                self.policy.nodes.join(", ")
            ));
        }
        let world = self.world(now);
        if on {
            for name in self.groups.keys() {
                let held = owner(&world, name).is_some_and(|(o, _)| o == node);
                let nodes = &world.group(name).policy.nodes;
                let fit = |n: &NodeId| *n != node && world.unfit_at(name, *n).is_none();
                if held && !nodes.iter().any(fit) {
                    return Err(format!(
                        "no other node may run {name} now, so it would go down; if that is what \
                         you want: systemctl stop {}",
                        name.unit()
                    ));
                }
            }
        }
        let me = self.policy.me;
        let slot = &mut self.store.record.wishes.standby[usize::from(node.0)];
        slot.set(me, on);
        self.beat.now = true;
        self.touch_all();
        let what = if on { What::StandbyOn } else { What::StandbyOff };
        self.say(Saying::new(what, "asked for by an operator").peer(node));
        let words = format!("{} is online", self.node_name(node));
        Ok(if on { Wants::Empty { node } } else { Wants::Noted { words } })
    }

    fn ask_maintenance(&mut self, group: Option<GroupName>, on: bool) -> Result<Wants, String> {
        let me = self.policy.me;
        let what = if on { What::MaintenanceOn } else { What::MaintenanceOff };
        let state = if on { "on: nothing is touched" } else { "off" };
        let words = match &group {
            Some(name) => {
                self.known(name)?;
                self.wish(name, |wish| wish.maintenance = on);
                self.say(Saying::new(what, "asked for by an operator").group(name));
                format!("maintenance of {name} is {state}")
            }
            None => {
                self.store.record.wishes.maintenance.set(me, on);
                self.beat.now = true;
                self.touch_all();
                self.say(Saying::new(what, "asked for by an operator"));
                format!("maintenance of the cluster is {state}")
            }
        };
        Ok(Wants::Noted { words })
    }

    fn ask_retry(&mut self, now: Instant, name: &GroupName) -> Result<Wants, String> {
        if self.known(name)?.phase() != Phase::Stuck {
            return Err(format!("{name} is not stuck here: hafailover status shows where it is"));
        }
        self.go(name, Phase::Stopping, "an operator asked to try again");
        self.order_stop(now, name);
        Ok(Wants::Stopped { group: name.clone() })
    }

    fn ask_clear(&mut self, now: Instant, name: &GroupName) -> Result<Wants, String> {
        let strays = !self.known(name)?.strays.is_empty();
        self.wish(name, |wish| (wish.down, wish.move_to) = (false, None));
        self.lift_quarantine(name, "cleared by operator");
        if strays {
            if self.known(name)?.phase() == Phase::Stopped {
                self.stop(now, name, "an operator cleared the strays", None);
            }
            return Ok(Wants::Stopped { group: name.clone() });
        }
        Ok(Wants::Noted { words: format!("{name} is cleared: the nodes decide about it anew") })
    }

    fn ask_adopt(&mut self, name: &GroupName) -> Result<Wants, String> {
        if self.known(name)?.strays.is_empty() {
            return Err(format!("no stray members of {name} run here"));
        }
        self.group_mut(name).adopting = true;
        self.touched.insert(name.clone());
        Ok(Wants::Running { group: name.clone() })
    }

    fn ask_confirm(&mut self, now: Instant, node: NodeId, by: &str) -> Result<Wants, String> {
        if node == self.policy.me {
            return Err("this is the node you are on".into());
        }
        if !self.peers.contains_key(&node) {
            return Err(format!(
                "there is no such node; there are: {}",
                self.policy.nodes.join(", ")
            ));
        }
        let name = self.node_name(node).to_string();
        if self.world(now).heard(node) {
            return Err(format!("{name} is heard, so it is not down"));
        }
        self.peers.get_mut(&node).expect("checked").confirmed_down = Some(by.into());
        self.touch_all();
        Ok(Wants::Noted { words: format!("{name} counts as down until it is heard again") })
    }

    fn patience(&self, wants: &Wants) -> Duration {
        let slack = self.policy.timing.deadtime * 2 + Duration::from_secs(5);
        let budget = |g: &super::Group| g.policy.stop_budget * 2 + g.policy.start_budget * 2;
        slack
            + match wants {
                Wants::Noted { .. } => Duration::ZERO,
                Wants::Moved { group, .. }
                | Wants::Stopped { group }
                | Wants::Running { group } => {
                    self.groups.get(group).map(budget).unwrap_or_default()
                }
                Wants::Empty { .. } => self.groups.values().map(budget).max().unwrap_or_default(),
            }
    }

    /// Tells how far each request is, and ends those that have a result.
    pub(super) fn answer_asked(&mut self, now: Instant) {
        for (request, mut asked) in std::mem::take(&mut self.asked) {
            let mut reply = self.progress(now, &asked.wants);
            if let Reply::Progress(words) = &reply
                && now >= asked.until
            {
                reply = Reply::Refused(format!("not done in time: {words}"));
            }
            match reply {
                Reply::Progress(words) => {
                    if words != asked.told {
                        asked.told = words.clone();
                        let reply = Reply::Progress(words);
                        self.out.push(Action::Answer { request, reply });
                    }
                    self.asked.insert(request, asked);
                }
                reply => self.out.push(Action::Answer { request, reply }),
            }
        }
    }

    fn progress(&self, now: Instant, wants: &Wants) -> Reply {
        let world = self.world(now);
        let busy = self.store.record != self.store.durable;
        match wants {
            Wants::Noted { .. } if busy => match &self.store.failed {
                Some((why, _)) => Reply::Refused(format!("the state file: {why}")),
                None => Reply::Progress("writing it down".into()),
            },
            Wants::Noted { words } => Reply::Done(words.clone()),
            Wants::Moved { group, to, from } => self.move_progress(&world, group, *to, *from),
            Wants::Empty { node } => {
                let on = |g: &&GroupName| owner(&world, g).is_some_and(|(o, _)| o == *node);
                let left: Vec<&str> = self.groups.keys().filter(on).map(|g| g.0.as_str()).collect();
                match left.is_empty() {
                    true => Reply::Done(format!("{} is in standby", self.node_name(*node))),
                    false => Reply::Progress(format!("waiting for {}", left.join(", "))),
                }
            }
            Wants::Stopped { group } | Wants::Running { group } => {
                let Ok(state) = self.known(group) else {
                    return Reply::Refused(format!("{group} is gone"));
                };
                let want_running = matches!(wants, Wants::Running { .. });
                match (state.phase(), &state.stuck) {
                    (Phase::Stopped, _) if !want_running => {
                        Reply::Done(format!("{group} is stopped"))
                    }
                    (Phase::Running, _) if want_running => {
                        Reply::Done(format!("{group} runs here"))
                    }
                    (Phase::Stuck, Some(stuck)) => Reply::Refused(stuck_words(group, stuck)),
                    (phase, _) => Reply::Progress(format!("{group} is {}", word(phase))),
                }
            }
        }
    }

    fn move_progress(
        &self,
        world: &super::World,
        group: &GroupName,
        to: NodeId,
        from: Epoch,
    ) -> Reply {
        let Ok(state) = self.known(group) else {
            return Reply::Refused(format!("{group} is gone"));
        };
        if let (Phase::Stuck, Some(stuck)) = (state.phase(), &state.stuck) {
            return Reply::Refused(stuck_words(group, stuck));
        }
        let name = world.name(to).to_string();
        let phase = phase_at(world, group, to);
        match owner(world, group) {
            Some((owner, epoch)) if epoch > from => {
                match (owner == to, phase_at(world, group, owner)) {
                    (true, Phase::Running) => Reply::Done(format!("{group} runs on {name}")),
                    (false, Phase::Running) => Reply::Refused(format!(
                        "{group} did not start on {name} and runs on {}: journalctl -u {} on \
                         {name} \
                     says why",
                        world.name(owner),
                        group.unit()
                    )),
                    (_, phase) => Reply::Progress(format!(
                        "{group} is {} on {}",
                        word(phase),
                        world.name(owner)
                    )),
                }
            }
            Some((owner, _)) => {
                let phase = phase_at(world, group, owner);
                match phase {
                    Phase::Stuck => Reply::Refused(format!(
                        "{group} is stuck on {}: hafailover status there names who holds it",
                        world.name(owner)
                    )),
                    phase => Reply::Progress(format!(
                        "{group} is {} on {}",
                        word(phase),
                        world.name(owner)
                    )),
                }
            }
            None if world.top_epoch(group) > from && phase == Phase::Stopped => {
                Reply::Progress(format!("{group} is released; its next owner claims it"))
            }
            None => Reply::Progress(format!("{group} is {} on {name}", word(phase))),
        }
    }
}

fn stuck_words(group: &GroupName, stuck: &super::group::Stuck) -> String {
    let holders = match stuck.holders.is_empty() {
        true => String::new(),
        false => format!("; held by {}", stuck.holders.join(", ")),
    };
    format!(
        "{group} cannot be stopped: {}{holders}; it is tried again every second, and by \
         hafailover retry {group}",
        stuck.why
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
pub(super) fn owner(world: &super::World, name: &GroupName) -> Option<(NodeId, Epoch)> {
    let group = world.group(name);
    let mine = group.own.filter(|_| group.held() == Held::Yes).map(|e| (world.me, e));
    let theirs = world.others().filter(|p| world.heard(*p)).filter_map(|p| {
        let report = world.peer(p).reports.get(name)?;
        let claim = report.claim.filter(|_| report.held == Held::Yes)?;
        Some((p, claim.epoch))
    });
    theirs.chain(mine).max_by_key(|(_, epoch)| *epoch)
}

fn phase_at(world: &super::World, name: &GroupName, node: NodeId) -> Phase {
    if node == world.me {
        return world.group(name).told_phase();
    }
    world.peer(node).reports.get(name).map(|r| r.phase).unwrap_or_default()
}
