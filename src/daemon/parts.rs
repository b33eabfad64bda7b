//! The hands of one daemon: carries out what the core asks, and makes facts of what they report.

use super::burst::Burst;
use super::fences::Fences;
use super::setup::Setup;
use super::watchdog::{Start, Watchdog};
use crate::core::heartbeat::Heartbeat;
use crate::core::name::{Epoch, GroupName, LinkId, NodeId};
use crate::core::say::Saying;
use crate::core::time::Instant;
use crate::core::{Action, Event, LeaseAnswer, LeaseVerb, Observation, Reply as CoreReply};
use crate::io::arbiter::{ArbiterHandle, Asker};
use crate::io::journal::{Journal, Names};
use crate::io::keep::Keeper;
use crate::io::link::LinkHandle;
use crate::io::log::Log;
use crate::io::net::{cable, instance, netlink};
use crate::io::notify::Notify;
use crate::io::store::StoreHandle;
use crate::io::systemd::Systemd;
use crate::io::{Inbox, Input, ReplySender, clock, link, reset, token};
use crate::wire::control::{LinkCounters, Reply};
use crate::wire::{Codec, Refusal};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// A warning about refused frames is repeated at most so often.
const REFUSAL_GAP: Duration = Duration::from_secs(60);

pub struct Parts {
    pub inbox: Inbox,
    pub log: Log,
    pub journal: Journal,
    pub notify: Notify,
    pub systemd: Systemd,
    pub fences: Fences,
    pub store: StoreHandle,
    pub keeper: Keeper,
    pub codec: Codec,
    pub arbiter: Option<ArbiterHandle>,
    pub watchdog: Watchdog,
    pub links: Vec<Line>,
    pub carrier: BTreeMap<String, bool>,
    pub seen: BTreeMap<GroupName, Observation>,
    pub asked: BTreeMap<u64, ReplySender>,
    pub exit: bool,
}

/// A link, and what was sent and refused on it.
pub struct Line {
    handle: LinkHandle,
    /// Frames of this moment, not yet given to the link.
    outgoing: Vec<Vec<u8>>,
    noise: Burst,
    refused: u64,
    refusal: String,
    warned: Option<Instant>,
}

pub fn open_links(setup: &Setup, inbox: &Inbox) -> Vec<Line> {
    let settings = &setup.settings;
    let open = |l: &crate::config::settings::Link| Line {
        handle: link::open(l, settings.me, inbox),
        outgoing: Vec::new(),
        noise: Burst::default(),
        refused: 0,
        refusal: String::new(),
        warned: None,
    };
    settings.links.iter().map(open).collect()
}

/// The arbiter of the settings, if there is one.
pub fn open_arbiter(setup: &Setup, inbox: &Inbox) -> std::io::Result<Option<ArbiterHandle>> {
    let settings = &setup.settings;
    let Some(arbiter) = &settings.arbiter else { return Ok(None) };
    let asker = Asker {
        cluster: settings.cluster.clone(),
        node: settings.nodes[usize::from(settings.me.0)].name.clone(),
        nodes: settings.nodes.iter().map(|n| n.name.clone()).collect(),
        keys: setup.keys.clone(),
    };
    ArbiterHandle::open(arbiter, asker, inbox.clone()).map(Some)
}

/// What the kernel says of which links share a cable.
pub fn cables(setup: &Setup) -> Event {
    let all = netlink::interfaces().unwrap_or_default();
    let joined = |one: &str, other: &str| cable::joined(&all, one, other);
    Event::Cables { cables: setup.settings.cables(joined) }
}

pub fn names(setup: &Setup) -> Names {
    Names {
        nodes: setup.settings.nodes.iter().map(|n| n.name.clone()).collect(),
        links: setup.settings.links.iter().map(|l| l.name.clone()).collect(),
        me: usize::from(setup.settings.me.0),
    }
}

impl Line {
    /// Says when noise begins on it, once until it has been quiet for a while.
    fn listen(&mut self, log: &Log) {
        let total = self.handle.counters.noise.load(Ordering::Relaxed);
        if self.noise.begins(clock::now(), total) {
            log.warn(format!(
                "{}: line noise ({total} times so far): look at the cable, its ground, and the \
                 speed at both ends",
                self.handle.name
            ));
        }
    }
}

impl Parts {
    /// Never waits for anything.
    pub fn perform(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Send { link, heartbeat } => self.send(link, &heartbeat),
                Action::Persist { ticket, record } => {
                    if !self.store.persist(ticket, record) {
                        let result = Err("the disk does not keep up".to_string());
                        let _ =
                            self.inbox.try_send(Input::Event(Event::Persisted { ticket, result }));
                    }
                }
                Action::Start { group, epoch, job, valid_until } => {
                    let start = Start { group, epoch, job, valid_until };
                    if let Some(failed) = self.watchdog.start(start, |s| s.go(&self.systemd)) {
                        let _ = self.inbox.try_send(Input::Event(failed));
                    }
                }
                Action::Stop { group, job } => {
                    self.watchdog.forget(&group);
                    self.systemd.stop(group, job);
                }
                Action::KillUsers { group, unit, job } => self.systemd.kill_users(group, unit, job),
                Action::Reset { group, flush } => self.reset(&group, flush),
                Action::Prove { group, epoch, proof } => token::prove(&group, epoch, &proof),
                Action::Lease { group, epoch, ticket, verb } => {
                    self.lease(group, epoch, ticket, verb);
                }
                Action::Lasts { group, epoch, until } => {
                    if let Err(error) = token::last(&group, epoch, until) {
                        self.log.error(format!("until when {group} lasts: {error}"));
                    }
                }
                Action::Adopt { group, epoch } => self.systemd.adopt(group, epoch),
                Action::Observe { group } => self.systemd.observe(group),
                Action::Announce { group } => self.systemd.announce(group),
                Action::Fence { node, id, valid_until } => {
                    self.fences.fence(&self.systemd, node, id, valid_until);
                }
                Action::FenceEnd { node } => self.fences.end(&self.systemd, node),
                Action::FenceCheck { node, id } => self.fences.check(&self.systemd, node, id),
                Action::Say(saying) => self.say(&saying),
                Action::Answer { request, reply } => self.answer(request, reply),
                Action::Exit => self.exit = true,
            }
        }
        for line in self.links.iter_mut().filter(|line| !line.outgoing.is_empty()) {
            line.handle.send(std::mem::take(&mut line.outgoing));
            line.listen(&self.log);
        }
    }

    /// On a thread of its own: what fails leaves a loop that goes on.
    fn reset(&self, group: &GroupName, flush: Duration) {
        self.log.error(format!("{group} does not stop: this machine is reset now"));
        let (journal, inbox) = (self.journal.clone(), self.inbox.clone());
        let now = move || {
            journal.flush(flush);
            let why = reset::now();
            let _ = inbox.blocking_send(Input::Event(Event::ResetFailed { why }));
        };
        if let Err(e) = std::thread::Builder::new().name("reset".into()).spawn(now) {
            let why = format!("no thread for it ({e})");
            let _ = self.inbox.try_send(Input::Event(Event::ResetFailed { why }));
        }
    }

    pub fn say(&self, saying: &Saying) {
        self.journal.say(saying);
    }

    fn lease(&mut self, group: GroupName, epoch: Epoch, ticket: u64, verb: LeaseVerb) {
        let asked =
            self.arbiter.as_ref().is_some_and(|a| a.ask(group.clone(), epoch, ticket, verb));
        if !asked {
            let answer = LeaseAnswer::Unknown("it cannot be asked".into());
            let event = Event::Leased { group, ticket, answer };
            let _ = self.inbox.try_send(Input::Event(event));
        }
    }

    fn answer(&mut self, request: u64, reply: CoreReply) {
        let done = !matches!(reply, CoreReply::Progress(_));
        if let Some(to) = self.asked.get(&request) {
            // A person who went away, or does not read, misses the answer; the record has it.
            let _ = to.try_send(Reply::Answer(reply));
        }
        if done {
            self.asked.remove(&request);
        }
    }

    fn send(&mut self, link: LinkId, heartbeat: &Heartbeat) {
        let Some(line) = self.links.get_mut(usize::from(link.0)) else { return };
        match self.codec.encode(heartbeat) {
            Some(frame) => line.outgoing.push(frame),
            None => self.log.error("a heartbeat does not fit a frame and was not sent"),
        }
    }

    /// The heartbeat in a frame, or a counted refusal.
    pub fn heard(
        &mut self,
        link: LinkId,
        bytes: &[u8],
        from: Option<IpAddr>,
        me: NodeId,
    ) -> Option<Event> {
        match self.codec.decode(link, bytes).map(Box::new) {
            Ok(heartbeat) if heartbeat.from == me => {
                let line = self.links.get(usize::from(link.0));
                let on = line.map(|line| line.handle.name.as_str()).unwrap_or_default();
                let address = from.map_or_else(|| on.into(), |ip| format!("{ip} ({on})"));
                Some(Event::Double { heartbeat, address })
            }
            Ok(heartbeat) => Some(Event::Heard { link, heartbeat }),
            Err(Refusal::Own) => None,
            Err(refusal) => {
                self.refused(link, refusal);
                None
            }
        }
    }

    fn refused(&mut self, link: LinkId, refusal: Refusal) {
        let Some(line) = self.links.get_mut(usize::from(link.0)) else { return };
        line.refused += 1;
        line.refusal = refusal.to_string();
        let now = clock::now();
        if line.warned.is_none_or(|at| now.since(at) >= REFUSAL_GAP) {
            line.warned = Some(now);
            self.log.warn(format!(
                "{}: a frame was refused: {refusal} ({} so far)",
                line.handle.name, line.refused
            ));
        }
    }

    /// What systemd sees, and what the interfaces of the group's addresses see.
    pub fn observed(&mut self, group: GroupName, mut seen: Observation) -> Event {
        seen.no_carrier = self.no_carrier(&seen);
        self.seen.insert(group.clone(), seen.clone());
        Event::Observed { group, seen }
    }

    /// A new table of carriers: the observations that change with it.
    pub fn carrier_changed(&mut self, table: BTreeMap<String, bool>) -> Vec<Event> {
        self.carrier = table;
        let mut events = Vec::new();
        for (group, old) in self.seen.clone() {
            let no_carrier = self.no_carrier(&old);
            if no_carrier != old.no_carrier && !old.blind {
                let seen = Observation { no_carrier, ..old };
                self.seen.insert(group.clone(), seen.clone());
                events.push(Event::Observed { group, seen });
            }
        }
        events
    }

    fn no_carrier(&self, seen: &Observation) -> Option<String> {
        let units = seen.members.iter().filter(|m| m.hard).map(|m| m.unit.as_str());
        let instances = units.filter_map(instance::of_unit);
        let mut interfaces = instances.filter_map(|i| i.interface().ok());
        interfaces.find(|name| !self.carrier.get(name).copied().unwrap_or(false))
    }

    pub fn counters(&self) -> Vec<LinkCounters> {
        let counters = |line: &Line| {
            let c = &line.handle.counters;
            LinkCounters {
                name: line.handle.name.clone(),
                frames_out: c.frames_out.load(Ordering::Relaxed),
                bytes_out: c.bytes_out.load(Ordering::Relaxed),
                frames_in: c.frames_in.load(Ordering::Relaxed),
                bytes_in: c.bytes_in.load(Ordering::Relaxed),
                noise: c.noise.load(Ordering::Relaxed),
                refused: line.refused,
                last_refusal: line.refusal.clone(),
            }
        };
        self.links.iter().map(counters).collect()
    }
}
