//! How a state goes on by itself, one event at a time: the hands carry out what the cores ask for,
//! in time and without faults. Whatever goes wrong is done to a state by `fault`.

use crate::canon::{Origin, SEED, canon, mix};
use crate::situations::{self, Situation};
use crate::watch::Broken;
use crate::world::{
    Cluster, DISK, HANDS, Item, LOOK, MS, START, STOP, State, Units, WIRE, What, Work, session, way,
};
use hafailover::core::heartbeat::Heartbeat;
use hafailover::core::name::{BootId, GroupName, LinkId};
use hafailover::core::time::Instant;
use hafailover::core::{
    Action, Boot, Core, Event, Member, MemberState, Observation, Reply, StartError, StopError,
    Terminate,
};
use std::sync::Arc;

/// Most that waits for a frozen node before further frames are dropped.
const BUFFER: usize = 6;

/// A state under way to the next one.
pub struct Step<'a> {
    pub cluster: &'a Cluster,
    pub state: State,
    pub broken: Vec<Broken>,
    /// Something was asked for beside heartbeats.
    pub loud: bool,
    /// A person asked for just this job.
    pub commanded: bool,
    /// The node at which something happened.
    pub node: usize,
    /// What happened, for people; `None`: nobody reads it.
    pub trace: Option<Vec<String>>,
}

/// How a job ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Well,
    Fails,
    /// systemd's answer is lost, the job itself went well.
    Lost,
}

impl<'a> Step<'a> {
    pub fn new(cluster: &'a Cluster, state: State, traced: bool) -> Step<'a> {
        let trace = traced.then(Vec::new);
        Step { cluster, state, broken: Vec::new(), loud: false, commanded: false, node: 0, trace }
    }

    /// What happens next, happens. `false`: nothing ever happens again.
    pub fn go(&mut self) -> bool {
        let Some((at, n, queued)) = self.state.next() else { return false };
        self.state.now = at;
        self.node = n;
        if queued {
            let item = self.state.queue.remove(0);
            self.happen(item, End::Well);
        } else {
            self.guard_speaks(n);
            self.tell(n, Event::Wake);
        }
        self.after();
        true
    }

    /// What happens next is a job's end, and it ends so.
    pub fn go_with(&mut self, end: End) {
        let item = self.state.queue.remove(0);
        self.state.now = self.state.now.max(item.at);
        self.node = item.node;
        self.happen(item, end);
        self.after();
    }

    pub fn note(&mut self, n: usize, words: impl FnOnce() -> String) {
        let now = self.state.now / MS;
        if let Some(trace) = &mut self.trace {
            let time = format!("{:>3}.{:03}", now / 1000, now % 1000);
            trace.push(format!("{time} n{} {}", n + 1, words()));
        }
    }

    pub fn happen(&mut self, item: Item, end: End) {
        let n = item.node;
        if let What::Heal { mask } = item.what {
            self.note(n, || "the links are mended".into());
            self.state.cut &= !mask;
            return;
        }
        if self.is_arbiters(&item) {
            return;
        }
        if let What::Thaw = item.what {
            return self.thaw(n);
        }
        if let What::Bite { boot, until } = item.what {
            return self.bite(n, boot, until);
        }
        if self.state.nodes[n].frozen {
            let node = Arc::make_mut(&mut self.state.nodes[n]);
            // A socket's buffer is finite: what comes later is dropped.
            if !matches!(item.what, What::Frames { .. }) || node.held_back.len() < BUFFER {
                node.held_back.push(item);
            }
            node.settle(node.anchor);
            return;
        }
        let (alive, boot) = (self.state.nodes[n].life, self.state.nodes[n].boot);
        match item.what {
            What::Tell { life, event } if life == alive => self.tell(n, (*event).clone()),
            What::Frames { beats, copy_for } if copy_for.is_none_or(|l| l != alive) => {
                self.frames(n, &beats, copy_for.is_some());
            }
            What::Persisted { life, ticket } if life == alive => self.persisted(n, ticket, Ok(())),
            What::Start { life, group, epoch, job, valid_until } if life == alive => {
                if self.state.now >= valid_until {
                    situations::reach(Situation::FreezeBeforeStart);
                    let group = self.cluster.names[group].clone();
                    let result = Err(StartError::Late);
                    return self.tell(n, Event::Started { group, job, result });
                }
                let work = Work { id: job, stop: false, life };
                self.watch_guarded(n);
                self.state.watch_token(self.cluster, n, group, epoch, &mut self.broken);
                self.units(n, group, |u| (u.token, u.job) = (Some(epoch), Some(work)));
                self.job(n, group, boot, work, START);
            }
            What::Stop { life, group, job } if life == alive => {
                let work = Work { id: job, stop: true, life };
                self.units(n, group, |u| {
                    u.closed = u.token.take().or(u.closed);
                    u.job = Some(work);
                });
                self.job(n, group, boot, work, STOP);
            }
            What::Observe { life, group } if life == alive => self.observe(n, group),
            What::JobEnds { boot: of, group, work }
                if of == boot && self.state.nodes[n].units[group].job == Some(work) =>
            {
                self.job_ends(n, group, work, end);
            }
            What::Fence { boot: of_boot, life, of, id } if of_boot == boot => {
                self.fence_acts(n, of, id, life == alive);
            }
            What::LooksAtDisk { boot: of, group } if of == boot => self.look_at_disk(n, group),
            What::Boot { life } if life == alive => self.boot(n),
            What::GuardBegins { life, stops } if life == alive => self.guard_begins(n, stops),
            What::GuardStops { life } if life == alive => self.guard_stops(n),
            What::GuardEnds { life } if life == alive => self.guard_ends(n),
            _ => {}
        }
    }

    fn job(&mut self, n: usize, group: usize, boot: u16, work: Work, lasts: u64) {
        let number = mix(40, (group as u64) << 1 | u64::from(work.stop));
        let at = self.state.now + lasts;
        self.state.push(at, n, What::JobEnds { boot, group, work }, number);
    }

    pub fn units(&mut self, n: usize, group: usize, change: impl FnOnce(&mut Units)) {
        let node = Arc::make_mut(&mut self.state.nodes[n]);
        change(&mut node.units[group]);
        node.settle(node.anchor);
    }

    fn frames(&mut self, n: usize, beats: &[Arc<Heartbeat>], recorded: bool) {
        for beat in beats {
            self.guard_hears(n, beat);
            if self.state.nodes[n].core.is_some() {
                situations::arrived(&self.state, n, beat);
                let heartbeat = Box::new(Heartbeat::clone(beat));
                let event = Event::Heard { link: beat.link, heartbeat };
                if recorded {
                    self.watch_replay(n, event.clone());
                }
                self.tell(n, event);
            }
        }
    }

    pub fn persisted(&mut self, n: usize, ticket: u64, result: Result<(), String>) {
        let node = Arc::make_mut(&mut self.state.nodes[n]);
        let Some((_, record)) = node.writing.take_if(|(t, _)| *t == ticket) else { return };
        if result.is_ok() {
            node.disk = Some(record);
        }
        self.tell(n, Event::Persisted { ticket, result });
    }

    fn job_ends(&mut self, n: usize, group: usize, work: Work, end: End) {
        let stuck = work.stop && (end == End::Fails || self.state.nodes[n].units[group].stuck);
        // What fails has taken it all the same, and so has what fails further up.
        let taken = work.stop || self.reserves(n, group);
        let ok = !stuck && taken && end != End::Fails;
        self.units(n, group, |u| {
            u.job = None;
            match (work.stop, ok) {
                (true, true) => (u.running, u.dead, u.stray, u.key) = (false, false, false, None),
                (false, true) => (u.running, u.dead) = (true, false),
                (true, false) => {}
                (false, false) => (u.running, u.dead) = (false, true),
            }
        });
        if self.state.nodes[n].life != work.life {
            return self.observe(n, group);
        }
        let (name, job) = (self.cluster.names[group].clone(), work.id);
        let (unit, why) = ("a.service".to_string(), "the answer was lost".to_string());
        let event = match (work.stop, ok, end) {
            (true, _, End::Lost) => {
                Event::Stopped { group: name, job, result: Err(StopError::Unknown { why }) }
            }
            (false, _, End::Lost) => {
                Event::Started { group: name, job, result: Err(StartError::Unknown { why }) }
            }
            (true, true, _) => {
                self.units(n, group, |u| u.closed = None);
                Event::Stopped { group: name, job, result: Ok(()) }
            }
            (false, true, _) => Event::Started { group: name, job, result: Ok(()) },
            (true, false, _) => {
                let (why, holders) = ("target is busy".into(), vec!["pid 7 (vi)".into()]);
                let result = Err(StopError::Stuck { unit, why, holders });
                Event::Stopped { group: name, job, result }
            }
            (false, false, _) => {
                let result = Err(StartError::Failed { unit, result: "exit-code".into() });
                Event::Started { group: name, job, result }
            }
        };
        self.tell(n, event);
    }

    pub fn observe(&mut self, n: usize, group: usize) {
        let units = &self.state.nodes[n].units[group];
        let state = match (units.job, units.running, units.dead) {
            (Some(Work { stop: true, .. }), true, _) => MemberState::Deactivating,
            (Some(Work { stop: false, .. }), false, _) => MemberState::Activating,
            (_, _, true) => MemberState::Failed,
            (_, true, false) => MemberState::Active,
            (_, false, false) => MemberState::Inactive,
        };
        let member = Member {
            unit: "a.service".into(),
            hard: true,
            state,
            result: if units.dead { "signal".into() } else { String::new() },
            restarts: 0,
            by_hand: false,
        };
        let (token, closed) = (units.token, units.closed);
        let lasts = units.lasts.filter(|(of, _)| token.or(closed) == Some(*of));
        let lasts = lasts.map(|(_, until)| until);
        let members = vec![member];
        let seen = Observation { members, token, closed, lasts, ..Observation::default() };
        self.tell(n, Event::Observed { group: self.cluster.names[group].clone(), seen });
    }

    pub fn boot(&mut self, n: usize) {
        let now = self.state.now;
        let node = Arc::make_mut(&mut self.state.nodes[n]);
        node.life += 1;
        node.writing = None;
        node.jobs = 0;
        node.going = None;
        let session = session(n, node.life);
        let boot = Boot { session, boot: BootId(node.boot.into()), record: node.disk.clone() };
        let mut policy = self.cluster.policies[n].clone();
        if node.disabled {
            policy.groups.clear();
        }
        let links = policy.links.len();
        let (core, actions) = Core::new(Instant(now), boot, policy);
        node.core = Some(core);
        node.settle(now);
        self.node = n;
        self.note(n, || "a daemon starts".into());
        situations::booted(&self.state, n);
        self.perform(n, actions);
        for link in 0..links {
            let (link, why) = (LinkId(link as u8), String::new());
            self.tell(n, Event::Link { link, usable: true, why });
        }
    }

    fn thaw(&mut self, n: usize) {
        self.note(n, || "it thaws".into());
        situations::thawed(&self.state, n);
        let now = self.state.now;
        let node = Arc::make_mut(&mut self.state.nodes[n]);
        node.frozen = false;
        let held = std::mem::take(&mut node.held_back);
        node.settle(node.anchor);
        let place = self.state.queue.partition_point(|i| i.at < now);
        let held = held.into_iter().map(|i| Item { at: now, ..i });
        self.state.queue.splice(place..place, held);
    }

    /// The daemon is gone, and everything it had in hand.
    pub fn end_daemon(&mut self, n: usize) {
        let node = Arc::make_mut(&mut self.state.nodes[n]);
        (node.core, node.guard) = (None, None);
        node.life += 1;
        node.writing = None;
        node.held_back.clear();
        self.state.ghost.nodes[n].waits = 0;
        node.frozen = false;
        node.settle(node.anchor);
        self.starve(n, false);
    }

    pub fn tell(&mut self, n: usize, event: Event) {
        let now = self.state.now;
        let node = Arc::make_mut(&mut self.state.nodes[n]);
        let Some(core) = &mut node.core else { return };
        let late = now.saturating_sub(core.next_wake().0);
        let actions = core.handle(Instant(now), event);
        let again = core.next_wake().0;
        if again <= now {
            self.broken.push(Broken::new("Bounded", "the next wake-up is not after this one"));
        }
        self.tell_watchdog(n);
        self.watch_handled(n, late, &actions);
        self.perform(n, actions);
        let node = Arc::make_mut(&mut self.state.nodes[n]);
        node.settle(now);
    }

    fn perform(&mut self, n: usize, actions: Vec<Action>) {
        let mut beats: Vec<Arc<Heartbeat>> = Vec::new();
        let (mut exit, mut reset) = (false, false);
        for action in actions {
            self.loud |= !matches!(action, Action::Send { .. });
            match action {
                Action::Send { heartbeat, .. } => beats.push(Arc::new(*heartbeat)),
                Action::Exit => exit = true,
                Action::Reset { .. } => reset = true,
                other => self.hand(n, other),
            }
        }
        self.send(n, beats);
        if exit {
            self.exit(n);
        }
        if reset {
            self.watch_reset(n);
            self.reset(n);
        }
    }

    fn hand(&mut self, n: usize, action: Action) {
        let life = self.state.nodes[n].life;
        let (now, groups) = (self.state.now, &self.cluster.names);
        let at = |g| groups.iter().position(|x| *x == g).expect("a group of the model");
        match action {
            Action::Persist { ticket, record } => {
                if self.state.nodes[n].writing.is_some() {
                    self.broken.push(Broken::new("Bounded", "two writes of the state at once"));
                }
                Arc::make_mut(&mut self.state.nodes[n]).writing = Some((ticket, *record));
                self.state.push(now + DISK, n, What::Persisted { life, ticket }, 30);
            }
            Action::Start { group, epoch, job, valid_until } => {
                let group = at(group);
                self.watch_start(n, group, epoch);
                self.note(n, || format!("orders a start at epoch {epoch}"));
                Arc::make_mut(&mut self.state.nodes[n]).jobs = job;
                let valid_until = valid_until.0;
                let what = What::Start { life, group, epoch, job, valid_until };
                self.state.push(now + HANDS, n, what, mix(31, canon(&epoch, Origin::default())));
            }
            Action::Stop { group, job } => {
                let group = at(group);
                self.watch_job(n, "a stop");
                self.note(n, || "orders a stop".into());
                Arc::make_mut(&mut self.state.nodes[n]).jobs = job;
                let what = What::Stop { life, group, job };
                self.state.push(now + HANDS, n, what, mix(32, group as u64));
            }
            Action::Adopt { group, epoch } => {
                let group = at(group);
                self.units(n, group, |u| (u.token, u.stray) = (Some(epoch), false));
            }
            Action::Observe { group } => {
                let group = at(group);
                let what = What::Observe { life, group };
                self.state.push(now + LOOK, n, what, mix(33, group as u64));
            }
            Action::Say(saying) => self.said(n, &saying),
            Action::Answer { reply, .. } => {
                if !matches!(reply, Reply::Progress(_)) {
                    self.state.ghost.nodes[n].waits -= 1;
                }
                self.note(n, || format!("answers {reply:?}"));
            }
            Action::Fence { node, id, .. } => self.order_fence(n, usize::from(node.0), id),
            Action::FenceEnd { node } => self.end_fence(n, node),
            Action::KillUsers { group, job, .. } => {
                let of = at(group.clone());
                self.kill_users(n, of, group, job);
            }
            Action::Announce { .. }
            | Action::Prove { .. }
            | Action::Send { .. }
            | Action::Reset { .. }
            | Action::FenceCheck { .. }
            | Action::Exit => {}
            Action::Lease { group, epoch, ticket, verb } => {
                self.ask_arbiter(n, group, epoch, (ticket, verb));
            }
            Action::Lasts { group, epoch, until } => self.note_lasts(n, at(group), epoch, until),
        }
    }

    fn kill_users(&mut self, n: usize, of: usize, group: GroupName, job: u64) {
        self.units(n, of, |u| u.stuck = false);
        let told = vec!["session-3.scope is killed".to_string()];
        let event = Arc::new(Event::UsersKilled { group, job, told });
        let life = self.state.nodes[n].life;
        self.state.push(self.state.now + STOP, n, What::Tell { life, event }, 44);
    }

    fn exit(&mut self, n: usize) {
        self.note(n, || "the daemon ends".into());
        let going = self.state.nodes[n].going;
        self.end_daemon(n);
        let life = self.state.nodes[n].life;
        let now = self.state.now;
        match going {
            Some(Terminate::Restart) => {
                self.state.push(now + 50 * MS, n, What::Boot { life }, 34);
            }
            Some(Terminate::Shutdown) => {
                self.power_off(n);
                let life = self.state.nodes[n].life;
                self.state.push(now + 700 * MS, n, What::Boot { life }, 34);
            }
            Some(Terminate::Stop) | None => {}
        }
    }

    pub fn power_off(&mut self, n: usize) {
        self.end_daemon(n);
        let node = Arc::make_mut(&mut self.state.nodes[n]);
        (node.boot, node.dog) = (node.boot + 1, None);
        for units in &mut node.units {
            *units = Units::default();
        }
        node.settle(node.anchor);
    }

    pub fn send(&mut self, n: usize, beats: Vec<Arc<Heartbeat>>) {
        let Some(first) = beats.first() else { return };
        self.watch_spoken(n, first);
        let jobs = self.state.nodes[n].jobs;
        let number = canon(&**first, Origin { now: self.state.now, jobs });
        for to in (0..self.state.nodes.len()).filter(|to| *to != n) {
            let open =
                |b: &&Arc<Heartbeat>| self.state.cut & way(usize::from(b.link.0), n, to) == 0;
            let through: Vec<Arc<Heartbeat>> = beats.iter().filter(open).cloned().collect();
            if !through.is_empty() {
                let number = through.iter().fold(mix(SEED, number), |h, b| mix(h, b.link.0.into()));
                let what = What::Frames { beats: Arc::new(through), copy_for: None };
                self.state.push(self.state.now + WIRE, to, what, number);
            }
        }
    }
}
