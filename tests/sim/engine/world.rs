//! The virtual world: a queue of what is to happen, and the one loop that lets it happen.

use crate::clock::Clock;
use crate::cover::Cover;
use crate::fences::Ordered;
use crate::lasts::Given;
use crate::leases::{Arbiter, Question};
use crate::net::Net;
use crate::node::{Daemon, Node};
use crate::options::Options;
use crate::reserve::Disk;
use crate::rng::{MS, Rng};
use crate::rules::Rules;
use crate::systemd::Units;
use crate::trace::Trace;
use hafailover::core::heartbeat::Heartbeat;
use hafailover::core::name::LinkId;
use hafailover::core::{Event, MemberState};
use std::collections::BTreeMap;

/// A run has some ten thousand.
const EVENTS_MAX: u64 = 1_000_000;
/// Daemon's answers and frames that arrived at one machine while it was frozen.
const SOCKET: usize = 128;

pub struct World {
    pub t: u64,
    pub options: Options,
    pub rng: Rng,
    pub nodes: Vec<Node>,
    pub net: Net,
    pub slots: crate::slots::Slots,
    pub arbiter: Arbiter,
    /// By group.
    pub disks: Vec<Disk>,
    pub given: Given,
    pub rules: Rules,
    pub cover: Cover,
    pub trace: Trace,
    /// The storm is over: nothing goes wrong any more.
    pub quiet: bool,
    /// Faults at borders wait until this run is under way.
    pub inside: bool,
    queue: BTreeMap<(u64, u64), Next>,
    count: u64,
    pub events: u64,
}

pub enum Next {
    Timer { node: usize, life: u64, timer: u64 },
    Frame { node: usize, link: usize, from: usize, bytes: Vec<u8>, sent: u64, replay: bool },
    Bytes { node: usize, link: usize, from: usize, bytes: Vec<u8>, sent: u64 },
    Tell { node: usize, life: u64, event: Event },
    Step { node: usize, life: u64, group: usize, task: u64 },
    Look { node: usize, life: u64, group: usize },
    Written { node: usize, life: u64, ticket: u64, good: bool },
    Unit { node: usize, boot: u64, group: usize, unit: usize, job: u64, to: MemberState },
    Gone { node: usize, boot: u64, group: usize, unit: usize },
    Thaw { node: usize },
    Daemon { node: usize, boot: u64 },
    Guard { node: usize, boot: u64 },
    Power { node: usize },
    Off { node: usize, boot: u64 },
    Tuesday { node: usize },
    Carrier { node: usize, boot: u64, group: usize },
    Reserved { node: usize, boot: u64, group: usize, job: u64 },
    Fence { node: usize, boot: u64, fence: Ordered },
    Arbiter { question: Question },
    ArbiterBack { lasted: u64 },
    Hung { node: usize, life: u64 },
    Feed { node: usize, boot: u64 },
    Bite { node: usize, fed: u64 },
    Round { node: usize, life: u64, link: usize, round: u64 },
    Fault,
    Ask,
    Edit,
    Reload { node: usize, life: u64 },
}

impl Next {
    fn node(&self) -> Option<usize> {
        match self {
            Next::Timer { node, .. }
            | Next::Frame { node, .. }
            | Next::Bytes { node, .. }
            | Next::Tell { node, .. }
            | Next::Step { node, .. }
            | Next::Look { node, .. }
            | Next::Reload { node, .. }
            | Next::Written { node, .. }
            | Next::Unit { node, .. }
            | Next::Gone { node, .. }
            | Next::Daemon { node, .. }
            | Next::Guard { node, .. }
            | Next::Fence { node, .. }
            | Next::Hung { node, .. }
            | Next::Feed { node, .. }
            | Next::Round { node, .. }
            | Next::Carrier { node, .. }
            | Next::Reserved { node, .. } => Some(*node),
            Next::Thaw { .. }
            | Next::Power { .. }
            | Next::Bite { .. }
            | Next::Off { .. }
            | Next::Tuesday { .. }
            | Next::Arbiter { .. }
            | Next::ArbiterBack { .. }
            | Next::Fault
            | Next::Edit
            | Next::Ask => None,
        }
    }

    fn is_daemons(&self) -> bool {
        matches!(
            self,
            Next::Timer { .. }
                | Next::Frame { .. }
                | Next::Bytes { .. }
                | Next::Tell { .. }
                | Next::Step { .. }
                | Next::Look { .. }
                | Next::Reload { .. }
        )
    }
}

impl World {
    pub fn new(options: Options, rng: Rng, keep: bool) -> World {
        World {
            t: 0,
            nodes: (0..options.nodes).map(|n| Node::new(n, &options)).collect(),
            net: Net::new(&options),
            slots: crate::slots::Slots::default(),
            arbiter: Arbiter::of(&options),
            disks: vec![Disk::new(options.nodes); options.groups.len()],
            given: Given::default(),
            rules: Rules::new(&options),
            cover: Cover::default(),
            trace: Trace { keep, ..Trace::default() },
            quiet: false,
            inside: false,
            queue: BTreeMap::new(),
            count: 0,
            events: 0,
            options,
            rng,
        }
    }

    pub fn later(&mut self, after: u64, next: Next) {
        self.at(self.t + after, next);
    }

    pub fn at(&mut self, t: u64, next: Next) {
        self.count += 1;
        self.queue.insert((t.max(self.t), self.count), next);
    }

    /// Lets time pass until then, or until a rule is broken.
    pub fn run(&mut self, until: u64) {
        while let Some(((t, _), _)) = self.queue.first_key_value() {
            if *t > until || self.rules.broken.is_some() {
                break;
            }
            let ((t, _), next) = self.queue.pop_first().expect("just seen");
            self.t = t;
            self.events += 1;
            if self.events > EVENTS_MAX {
                self.broken("Bounded", 0, "a storm of events");
            }
            self.happen(next);
        }
        self.t = self.t.max(until);
    }

    /// What happens at a node that stands still waits, as far as there is room.
    fn put_off(&mut self, next: Next) -> Option<Next> {
        let Some(n) = next.node() else { return Some(next) };
        let node = &mut self.nodes[n];
        let frozen =
            if next.is_daemons() { node.frozen.max(node.daemon_frozen) } else { node.frozen };
        if self.t >= frozen {
            return Some(next);
        }
        let comes = matches!(next, Next::Frame { .. } | Next::Bytes { .. });
        node.waiting += usize::from(comes);
        if !comes || node.waiting <= SOCKET {
            self.at(frozen, next);
        }
        None
    }

    fn happen(&mut self, next: Next) {
        let Some(next) = self.put_off(next) else { return };
        match next {
            Next::Timer { node, life, timer } => self.timer(node, life, timer),
            Next::Frame { node, link, from, bytes, sent, replay } => {
                self.frame(node, link, from, &bytes, sent, replay);
            }
            Next::Bytes { node, link, from, bytes, sent } => {
                let Node { daemon, guard, .. } = &mut self.nodes[node];
                let daemon = daemon.as_mut().map(|d| &mut d.deframers);
                let guard = guard.as_mut().map(|g| &mut g.deframers);
                let Some(deframers) = daemon.or(guard) else { return };
                for frame in deframers.entry(link).or_default().push(&bytes) {
                    self.frame(node, link, from, &frame, sent, false);
                }
            }
            Next::Tell { node, life, event } if self.nodes[node].life == life => {
                self.tell(node, event);
            }
            Next::Step { node, life, group, task } if self.nodes[node].life == life => {
                self.step(node, group, task);
            }
            Next::Look { node, life, group } if self.nodes[node].life == life => {
                self.look(node, group);
            }
            Next::Written { node, life, ticket, good } if self.nodes[node].life == life => {
                self.written(node, ticket, good);
            }
            Next::Reload { node, life } if self.nodes[node].life == life => self.reload(node),
            Next::Tell { .. }
            | Next::Step { .. }
            | Next::Look { .. }
            | Next::Reload { .. }
            | Next::Written { .. } => {}
            Next::Unit { node, boot, group, unit, job, to } => {
                self.unit_done(node, boot, group, unit, job, to);
            }
            Next::Gone { node, boot, group, unit } => self.leftover_gone(node, boot, group, unit),
            Next::Thaw { node } => self.thaw(node),
            Next::Daemon { node, boot } => self.start_daemon(node, boot),
            Next::Guard { node, boot } => self.guard(node, boot),
            Next::Power { node } => self.power_on(node),
            Next::Off { node, boot } if self.nodes[node].boots == boot => {
                let off = self.rng.ms(300, 3000);
                self.power_off(node, off);
            }
            Next::Off { .. } => {}
            Next::Tuesday { node } => self.tuesday(node),
            Next::Carrier { node, boot, group } => self.carrier_back(node, boot, group),
            Next::Reserved { node, boot, group, job } => self.look_at_disk(node, boot, group, job),
            Next::Fence { node, boot, fence } => self.fence_acts(node, boot, fence),
            Next::Arbiter { question } => self.arbiter_hears(question),
            Next::ArbiterBack { lasted } => self.arbiter_back(lasted),
            Next::Hung { node, life } => self.hung(node, life),
            Next::Feed { node, boot } => self.feed(node, boot),
            Next::Bite { node, fed } => self.bite(node, fed),
            Next::Round { node, life, link, round } if self.nodes[node].life == life => {
                self.round(node, link, round);
            }
            Next::Round { .. } => {}
            Next::Fault => self.background(),
            Next::Ask => self.operator(),
            Next::Edit => self.edit(),
        }
    }

    fn timer(&mut self, n: usize, life: u64, timer: u64) {
        let node = &self.nodes[n];
        if node.life != life || node.daemon.as_ref().is_none_or(|d| d.timer != timer) {
            return;
        }
        self.turned(n);
    }

    /// As `daemon::turn` after it took something: a noticed sleep, then the timer.
    fn turned(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        if node.gap > 50 * MS {
            let lasted = std::time::Duration::from_nanos(std::mem::take(&mut node.gap));
            self.happen_to(n, Event::Gap { lasted });
        }
        let Some(daemon) = &self.nodes[n].daemon else { return };
        if self.nodes[n].now(self.t) >= daemon.core.next_wake() {
            self.happen_to(n, Event::Wake);
        }
        self.check_in_time(n);
        self.check_kept(n);
        self.arm(n);
    }

    pub fn arm(&mut self, n: usize) {
        let late = if self.quiet { 50_000 } else { self.rng.range(10_000, 1_500_000) };
        let (t, node) = (self.t, &mut self.nodes[n]);
        let Some(daemon) = &mut node.daemon else { return };
        daemon.timer += 1;
        let due = node.clock.when(t, daemon.core.next_wake());
        let (life, timer) = (node.life, daemon.timer);
        self.at(due + late, Next::Timer { node: n, life, timer });
    }

    pub fn tell(&mut self, n: usize, event: Event) {
        self.happen_to(n, event);
        self.turned(n);
    }

    /// Whether the core takes this life of a peer for the present one. Two lives at once are a
    /// clone or a quick restart, and which of them is meant is the core's to say.
    fn would_believe(&self, n: usize, from: usize, beat: &Heartbeat, event: &Event) -> bool {
        let Some(daemon) = &self.nodes[n].daemon else { return true };
        if self.rules.contact[n][from].session == Some(beat.session) {
            return true;
        }
        let mut core = daemon.core.clone();
        core.handle(self.nodes[n].now(self.t), event.clone());
        core.session_of(beat.from) == Some(beat.session)
    }

    fn frame(&mut self, n: usize, link: usize, from: usize, bytes: &[u8], sent: u64, replay: bool) {
        if self.net.is_cut((link, from, n), self.t) && !replay {
            return;
        }
        if replay {
            self.happen_to(n, Event::Wake);
        }
        let Some(daemon) = &mut self.nodes[n].daemon else {
            let reached = &mut self.rules.reached[n][from];
            *reached = sent.max(*reached);
            return self.guard_hears(n, link, bytes);
        };
        match daemon.heard(n, link, bytes) {
            Ok((event, fresh)) => {
                let Event::Heard { heartbeat, .. } = &event else {
                    return self.happen_to(n, event);
                };
                let beat = (**heartbeat).clone();
                let before = replay.then(|| self.shown(n));
                let believed = self.would_believe(n, from, &beat, &event);
                self.before_heard(n, from, link, &beat, (fresh, believed), sent);
                self.note_care_heard(n, &beat);
                self.happen_to(n, event);
                if let Some(daemon) = &mut self.nodes[n].daemon {
                    daemon.accept(n, &beat);
                }
                if let Some(before) = before {
                    self.check_replay(n, &beat, &before, sent);
                }
            }
            Err(refusal) => self.refused(refusal),
        }
        self.turned(n);
    }

    /// One event, as the loop takes it.
    pub fn happen_to(&mut self, n: usize, event: Event) {
        let now = self.nodes[n].now(self.t);
        if let Event::Asked { .. } = &event {
            self.rules.person = (n, self.t);
        }
        let adopts = self.adopts(n, &event);
        let Some(daemon) = &mut self.nodes[n].daemon else { return };
        self.trace.mix(self.t ^ (n as u64) << 56);
        let actions = daemon.core.handle(now, event);
        if let Some(g) = adopts {
            self.check_adopted(n, g, &actions);
        }
        self.tell_watchdog(n);
        self.perform(n, actions);
    }

    pub fn power_on(&mut self, n: usize) {
        if self.nodes[n].on {
            return;
        }
        let shown = self.rng.ms(500, 5000);
        let ppm = self.options.drift[n];
        let node = &mut self.nodes[n];
        node.on = true;
        node.boots += 1;
        node.clock = Clock::boot(self.t, shown, ppm);
        node.units = self.options.groups.iter().map(|g| Units::new(g.members, g.soft)).collect();
        let boot = node.boots;
        self.note(n, "powers on");
        self.strays_at_boot(n);
        let after = self.rng.ms(20, 400);
        self.later(after, Next::Daemon { node: n, boot });
    }

    pub fn start_daemon(&mut self, n: usize, boot: u64) {
        let node = &mut self.nodes[n];
        if !node.on || node.boots != boot || node.daemon.is_some() || node.lost {
            return;
        }
        node.life += 1;
        // The session is random; late in the alphabet or early means nothing.
        let session = self.rng.next() | 1;
        self.upgrade(n);
        let (daemon, actions) = Daemon::start(&self.nodes[n], &self.options, self.t, session);
        self.nodes[n].daemon = Some(daemon);
        self.began(n);
        self.note(n, "daemon starts");
        self.open_slots(n);
        let life = self.nodes[n].life;
        for link in 0..self.options.links.len() {
            let after = self.rng.ms(0, 10);
            let link = LinkId(link as u8);
            let event = Event::Link { link, usable: true, why: String::new() };
            self.later(after, Next::Tell { node: n, life, event });
        }
        self.perform(n, actions);
        if let Some(policy) = self.nodes[n].files.clone() {
            if let Some(daemon) = &mut self.nodes[n].daemon {
                daemon.files = policy.clone();
                daemon.learn();
            }
            self.happen_to(n, Event::Reconfigured { policy: Box::new(policy) });
        }
        self.arm(n);
    }

    /// Another version of the package may be there when the daemon starts.
    fn upgrade(&mut self, n: usize) {
        if self.options.upgrade && self.rng.chance(400) {
            self.nodes[n].newer ^= true;
            self.cover.hit("other version after a restart");
        }
    }

    /// The daemon is gone; its machine and what runs there stay.
    pub fn end_daemon(&mut self, n: usize) {
        let landed = self.rng.chance(500);
        let long = self.options.deadtime() * 11 / 10 + self.options.keepalive();
        let node = &mut self.nodes[n];
        node.daemon = None;
        node.life += 1;
        node.daemon_frozen = 0;
        node.gap = 0;
        node.disk.crash(landed);
        if self.t >= node.frozen {
            node.thaw(self.t, long);
        }
        self.rules.daemon_ended(n);
        self.away(n);
    }

    fn thaw(&mut self, n: usize) {
        let (t, long) = (self.t, self.options.deadtime() * 11 / 10 + self.options.keepalive());
        let node = &mut self.nodes[n];
        if node.is_frozen(t) {
            return;
        }
        let stalled = node.stall_began.is_some();
        if stalled {
            node.thaw(t, long);
        }
        node.clock.go_on(t);
        if stalled {
            self.note(n, "thaws");
        }
    }

    pub fn note(&mut self, n: usize, words: &str) {
        let columns = if self.trace.keep { self.columns() } else { String::new() };
        self.trace.line(self.t, &columns, n, words);
    }

    fn columns(&self) -> String {
        let mut text = String::new();
        for (n, node) in self.nodes.iter().enumerate() {
            text.push(match (node.on, node.daemon.is_some(), node.is_frozen(self.t)) {
                (false, ..) => '-',
                (_, _, true) => 'z',
                (_, false, _) => 'd',
                (_, true, _) => '*',
            });
            for (g, units) in node.units.iter().enumerate() {
                let phase = self.rules.phase[n][g];
                text.push(phase);
                text.push(if units.here() && !"xR>!".contains(phase) { 'T' } else { ' ' });
            }
        }
        text
    }
}
