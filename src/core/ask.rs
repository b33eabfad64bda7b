//! What people ask for, and how every request ends with a result.

use super::evidence::{self, Missing};
use super::heartbeat::Phase;
use super::name::{Epoch, GroupName, NodeId};
use super::outcome::{Step, owner};
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
    /// Since when nothing has been under way for it.
    idle: Option<Instant>,
    /// The last progress line, so that each is sent once.
    told: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Wants {
    /// The group runs on that node at a later epoch.
    Moved { group: GroupName, to: NodeId, from: Epoch },
    /// The node holds nothing, and what it held runs elsewhere.
    Empty { node: NodeId, groups: Vec<GroupName> },
    /// The wish is on disk.
    Noted { words: String },
    /// The group is verified stopped here.
    Stopped { group: GroupName },
    /// The group runs here.
    Running { group: GroupName },
    /// The group runs somewhere, now that nothing which people can clear holds it back.
    Cleared { group: GroupName, wish: Epoch },
    /// The groups that waited for a word about this node run somewhere.
    Taken { node: NodeId, groups: Vec<GroupName> },
    /// That fence has ended.
    Fenced { node: NodeId, id: u64 },
    /// That drill of a fence has ended.
    Drilled { node: NodeId, id: u64 },
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
                Command::Fence { node } => self.ask_fence(now, node),
                Command::FenceCheck { node } => self.ask_fence_check(node),
                Command::ClearFence { node } => self.ask_clear_fence(node),
            }
        };
        match result {
            Ok(wants) => {
                let words = format!("{} by {by}", self.command_words(&command));
                self.say(Saying::new(What::Operator, words));
                let until = now + self.patience(&wants);
                let asked = Asked { wants, until, idle: None, told: String::new() };
                self.asked.insert(request, asked);
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
            Command::Fence { node } => format!("fence {}", self.node_name(*node)),
            Command::FenceCheck { node } => format!("fence {} --check", self.node_name(*node)),
            Command::ClearFence { node } => format!("clear --fence {}", self.node_name(*node)),
        }
    }

    pub(super) fn known(&self, name: &GroupName) -> Result<&super::Group, String> {
        let names: Vec<&str> = self.groups.keys().map(|g| g.0.as_str()).collect();
        self.groups.get(name).ok_or_else(|| match names.is_empty() {
            true => format!("there is no group {name}: systemctl enable {name}.target first"),
            false => format!("there is no group {name}; there are: {}", names.join(", ")),
        })
    }

    pub(super) fn node_name(&self, node: NodeId) -> &str {
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
                    let why = self.bars(&world, name, owner).join("; ");
                    return Err(format!("no other node may run {name} now: {why}"));
                }
            },
        };
        if let Some(why) = world.why_not(name, to) {
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
                        "no other node may run {name} now, so it would go down ({}); if that is \
                         what you want: systemctl stop {}",
                        self.bars(&world, name, node).join("; "),
                        name.unit()
                    ));
                }
            }
        }
        let held = |g: &&GroupName| owner(&world, g).is_some_and(|(o, _)| o == node);
        let groups = self.groups.keys().filter(held).cloned().collect();
        let me = self.policy.me;
        let slot = &mut self.store.record.wishes.standby[usize::from(node.0)];
        slot.set(me, on);
        self.beat.now = true;
        self.touch_all();
        let what = if on { What::StandbyOn } else { What::StandbyOff };
        self.say(Saying::new(what, "asked for by an operator").peer(node));
        let words = format!("{} is online", self.node_name(node));
        Ok(if on { Wants::Empty { node, groups } } else { Wants::Noted { words } })
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
        if strays && self.known(name)?.phase() == Phase::Stopped {
            self.stop(now, name, "an operator cleared the strays", None);
        }
        let wish = self.world(now).wish(name).version;
        Ok(Wants::Cleared { group: name.clone(), wish })
    }

    fn ask_adopt(&mut self, name: &GroupName) -> Result<Wants, String> {
        if self.known(name)?.strays.is_empty() {
            return Err(format!(
                "no stray members of {name} run here: hafailover status shows where it runs"
            ));
        }
        self.group_mut(name).adopting = true;
        self.touched.insert(name.clone());
        Ok(Wants::Running { group: name.clone() })
    }

    fn ask_confirm(&mut self, now: Instant, node: NodeId, by: &str) -> Result<Wants, String> {
        if node == self.policy.me {
            return Err("this is the node you are on: say it on another one, of a node that \
                        is surely off"
                .into());
        }
        if !self.peers.contains_key(&node) {
            return Err(format!(
                "there is no such node; there are: {}",
                self.policy.nodes.join(", ")
            ));
        }
        let name = self.node_name(node).to_string();
        if self.world(now).heard(node) {
            return Err(format!(
                "{name} is heard, so it is not down: hafailover standby {name} takes its groups \
                 off it"
            ));
        }
        let world = self.world(now);
        let waits = |g: &&GroupName| {
            let claim = world.group(g).claim.as_ref().map(|c| c.epoch);
            let barred = evidence::against(&world, g, node, claim);
            let down = world.wish(g).value.down;
            matches!(barred, Err(Missing::Barred(_) | Missing::Lease(_)))
                && owner(&world, g).is_none()
                && !down
        };
        let groups = self.groups.keys().filter(waits).cloned().collect();
        self.peers.get_mut(&node).expect("checked").confirmed_down = Some(by.into());
        self.touch_all();
        Ok(Wants::Taken { node, groups })
    }

    /// How long what does not move is waited for.
    fn slack(&self) -> Duration {
        self.policy.timing.deadtime * 2 + Duration::from_secs(5)
    }

    fn patience(&self, wants: &Wants) -> Duration {
        let budget = |g: &super::Group| g.policy.stop_budget * 2 + g.policy.start_budget * 2;
        let most = self.groups.values().map(budget).max().unwrap_or_default();
        self.slack()
            + match wants {
                Wants::Noted { .. } => Duration::ZERO,
                Wants::Moved { group, .. }
                | Wants::Stopped { group }
                | Wants::Running { group }
                | Wants::Cleared { group, .. } => {
                    self.groups.get(group).map(budget).unwrap_or_default()
                }
                Wants::Empty { .. } | Wants::Taken { .. } => most,
                Wants::Fenced { node, .. } | Wants::Drilled { node, .. } => {
                    self.policy.fences.nodes.get(node).map(|f| f.timeout * 2).unwrap_or_default()
                }
            }
    }

    /// Tells how far each request is, and ends those that have a result.
    pub(super) fn answer_asked(&mut self, now: Instant) {
        for (request, mut asked) in std::mem::take(&mut self.asked) {
            let step = self.outcome(now, &asked.wants);
            asked.idle = match &step {
                Step::Waiting(_) => asked.idle.or(Some(now)),
                _ => None,
            };
            let until = asked.idle.map_or(asked.until, |at| asked.until.min(at + self.slack()));
            let mut reply = step.reply();
            if let Reply::Progress(words) = &reply
                && now >= until
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
}
