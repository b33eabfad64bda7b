//! The core: who runs what, decided from facts. A pure value without IO, clock, thread, logging or
//! randomness: facts come in as [`Event`], wishes go out as [`Action`], time is an argument.
//!
//! Read `event` and `action` (the vocabulary), the table on top of `group`, `ownership` (the
//! decision) and `evidence` (the proofs); hafailover-protocol(7) has the rules in prose.

mod act;
mod action;
mod ask;
mod bar;
mod beat;
mod detector;
mod double;
mod escalate;
mod event;
mod evidence;
mod fence;
mod fencer;
pub mod grant;
mod group;
mod guard;
mod hear;
pub mod heartbeat;
mod jobs;
mod lease;
mod leave;
mod live;
pub mod name;
mod observe;
mod outcome;
mod ownership;
mod peer;
mod places;
pub mod policy;
#[cfg(test)]
mod props;
mod quorum;
pub mod record;
mod renew;
pub mod say;
mod show;
pub mod time;
pub mod view;
mod wake;
pub mod watchdog;
mod world;

pub use action::{Action, Reply};
pub use event::{
    Command, Event, FenceState, Hand, IN_USE, Member, MemberState, Observation, StartError,
    StopError, Terminate, member_words,
};
pub use evidence::{Evidence, Proof};
pub use guard::{Guard, Lost};
pub use lease::{LeaseAnswer, LeaseVerb};
pub use quorum::Quorum;

use ask::Asked;
use detector::{Lived, Pulse};
use double::Double;
use escalate::Reset;
use fence::Fence;
use group::Group;
use heartbeat::{Held, Phase, Unfit};
use name::{BootId, GroupName, LinkId, NodeId, Session};
use peer::Peer;
use policy::Policy;
use quorum::Minority;
use record::Record;
use renew::Arbiter;
use say::{Saying, What};
use std::collections::{BTreeMap, BTreeSet};
use time::{Duration, Instant};
use world::World;

/// How long after a failed write of the state file it is tried again.
const STORE_RETRY: Duration = Duration::from_secs(2);
/// A disk that has not written the state file after so long counts as one that cannot.
const STORE_SLOW: Duration = Duration::from_secs(5);

/// What a new life of the daemon starts from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Boot {
    pub session: Session,
    pub boot: BootId,
    /// `None`: there is no state file. The node is amnesiac.
    pub record: Option<Record>,
}

/// The whole state of the program.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Core {
    policy: Policy,
    session: Session,
    boot: BootId,
    started: Instant,
    pulse: Pulse,
    peers: BTreeMap<NodeId, Peer>,
    groups: BTreeMap<GroupName, Group>,
    fences: BTreeMap<NodeId, Fence>,
    links: Vec<Link>,
    /// Since when some link has been usable; `initdead` counts from then.
    usable_since: Option<Instant>,
    /// Not yet heard every node, and `initdead` is not over.
    starting: bool,
    going: Option<Going>,
    /// Another session under our name.
    double: Option<Double>,
    arbiter: Arbiter,
    /// We learn what we missed in a stall.
    doubt: Option<Doubt>,
    minority: Minority,
    reset: Option<Reset>,
    store: Store,
    asked: BTreeMap<u64, Asked>,
    beat: Beat,
    touched: BTreeSet<GroupName>,
    jobs: u64,
    /// Drained at the end of every [`Core::handle`]; always empty between two calls.
    out: Vec<Action>,
}

/// One of our links.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Link {
    usable: bool,
    why: String,
    seq: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Going {
    kind: Terminate,
    since: Instant,
    /// Since when everything is given away and only the peers' knowing is awaited.
    empty: Option<Instant>,
}

/// Since when, on the clock, and in the time that we lived through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Doubt {
    woke: Instant,
    lived: Lived,
}

/// What is known, what of it is on disk, and what is on its way there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Store {
    record: Record,
    durable: Record,
    writing: Option<(u64, Record)>,
    /// Since when the disk owes us an answer.
    asked: Option<Instant>,
    /// It has owed it for [`STORE_SLOW`].
    slow: bool,
    tickets: u64,
    failed: Option<(String, Instant)>,
}

/// When the next heartbeat is due and what it must not leave out.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Beat {
    next: Instant,
    now: bool,
    /// The newest stamp sent; each frame has its own, so that "newer" is never in doubt.
    stamp: Instant,
    page: u8,
    /// Groups that changed lately go into every heartbeat, for so many more.
    hot: BTreeMap<GroupName, u8>,
    /// The settings that are spoken of, and the first stamp with them.
    settings: Option<(u64, Instant)>,
}

impl Core {
    /// A new life. The actions announce it and read every group.
    pub fn new(now: Instant, boot: Boot, policy: Policy) -> (Core, Vec<Action>) {
        let amnesiac = boot.record.is_none();
        let record = boot.record.unwrap_or_default();
        let written_for = record.nodes.clone();
        let before = record.listed(&policy.nodes, policy.me);
        let mut record = before.clone();
        record.go_by(policy.me, policy.fingerprint);
        let others = (0..policy.nodes.len()).map(|n| NodeId(n as u8)).filter(|n| *n != policy.me);
        let link = |_: &String| Link { usable: false, why: "not yet open".into(), seq: 0 };
        let groups = policy.groups.iter().map(|(n, p)| (n.clone(), Group::new(p.clone())));
        let mut core = Core {
            session: boot.session,
            boot: boot.boot,
            started: now,
            pulse: Pulse::default(),
            peers: others.map(|n| (n, Peer::default())).collect(),
            groups: groups.collect(),
            fences: BTreeMap::new(),
            links: policy.links.iter().map(link).collect(),
            usable_since: None,
            starting: true,
            going: None,
            double: None,
            arbiter: Arbiter::new(now, &policy, &record),
            doubt: None,
            minority: Minority::default(),
            reset: None,
            store: Store {
                // Another list, and other settings, are written down at once.
                durable: Record { nodes: written_for, ..before },
                record,
                writing: None,
                asked: None,
                slow: false,
                tickets: 0,
                failed: None,
            },
            asked: BTreeMap::new(),
            beat: Beat {
                next: now,
                now: true,
                stamp: Instant::default(),
                page: 0,
                hot: BTreeMap::new(),
                settings: None,
            },
            touched: BTreeSet::new(),
            jobs: 0,
            out: Vec::new(),
            policy,
        };
        core.set_fences();
        core.say(Saying::new(What::DaemonStarted, "started"));
        if amnesiac {
            let words = "there is no state file: nothing is taken until every node was heard";
            core.say(Saying::new(What::Amnesia, words));
        }
        for group in core.groups.keys().cloned().collect::<Vec<_>>() {
            core.out.push(Action::Observe { group });
        }
        core.finish(now);
        let actions = std::mem::take(&mut core.out);
        (core, actions)
    }

    /// The whole behaviour of the program. Actions are to be carried out in order; each that can
    /// fail comes back as an event.
    pub fn handle(&mut self, now: Instant, event: Event) -> Vec<Action> {
        if let Some(late) = self.pulse.beat(now, self.policy.timing.keepalive / 4) {
            self.stalled(now, late);
        }
        // Whatever comes in first when the timer is due sends the heartbeat and so puts the timer
        // off: it must do the timer's other work too.
        if now >= self.pulse.due() {
            self.touch_restless(now);
        }
        match event {
            Event::Wake => {}
            Event::Heard { link, heartbeat } => self.heard(now, link, &heartbeat),
            Event::Double { heartbeat, address } => self.doubled(now, &heartbeat, address),
            Event::Link { link, usable, why } => self.link_changed(now, link, usable, why),
            Event::Persisted { ticket, result } => self.persisted(now, ticket, result),
            Event::Observed { group, seen } => self.observed(now, &group, seen),
            Event::Started { group, job, result } => self.started(now, &group, job, result),
            Event::Stopped { group, job, result } => self.stopped(now, &group, job, result),
            Event::Fenced { node, id, result } => self.fenced(now, node, id, result),
            Event::FenceTried { node, id, result } => self.drilled(now, node, id, result),
            Event::Leased { group, ticket, answer } => self.leased(now, &group, ticket, answer),
            Event::UsersKilled { group, job, told } => self.users_killed(now, &group, job, told),
            Event::ResetFailed { why } => self.reset_failed(&why),
            Event::ByHand { group, unit, verb } => self.by_hand(&group, &unit, verb),
            Event::Asked { request, by, command } => self.ask(now, request, by, command),
            Event::Cables { cables } => self.recabled(cables),
            Event::Reconfigured { policy } => self.reconfigured(now, *policy),
            Event::Terminate { kind } => self.terminate(now, kind),
            Event::Gap { lasted } => self.stalled(now, lasted.max(self.policy.timing.deadtime)),
        }
        self.finish(now);
        std::mem::take(&mut self.out)
    }

    /// When [`Event::Wake`] is due next. A later one counts as a stall of this node.
    pub fn next_wake(&self) -> Instant {
        self.pulse.due()
    }

    /// Everything that follows from what has changed, until nothing more does.
    fn finish(&mut self, now: Instant) {
        self.judge_peers(now);
        self.judge_double(now);
        self.judge_start(now);
        self.judge_disk(now);
        self.judge_fences(now);
        self.tend_leases(now);
        self.judge_quorum(now);
        self.judge_stops(now);
        while let Some(group) = self.touched.pop_first() {
            self.step(now, &group);
        }
        self.answer_asked(now);
        self.go_away(now);
        self.persist(now);
        self.send(now);
        self.judge_reset(now);
        let due = self.wake_at(now);
        self.pulse.expect(due);
    }

    /// The life of that node that passed our challenge; `None`: never heard.
    pub fn session_of(&self, node: NodeId) -> Option<Session> {
        self.peers.get(&node).and_then(Peer::session)
    }

    fn world(&self, now: Instant) -> World<'_> {
        World {
            now,
            lived: self.pulse.lived(now),
            me: self.policy.me,
            policy: &self.policy,
            peers: &self.peers,
            groups: &self.groups,
            fences: &self.fences,
            boot: self.boot,
            wishes: &self.store.record.wishes,
            jeopardy: &self.store.record.jeopardy,
            ill: self.ill(),
            doubting: self.doubt.is_some(),
            minority: self.minority.sure,
            initdead_over: self.initdead_over(now),
            record: &self.store.record,
            durable: &self.store.durable,
            going: self.going.map(|g| g.kind),
            parting: self.parting_at().is_some_and(|at| now >= at),
            arbiter: &self.arbiter,
        }
    }

    fn lived(&self, now: Instant) -> Lived {
        self.pulse.lived(now)
    }

    /// Why this node takes nothing at all.
    fn ill(&self) -> Option<Unfit> {
        if self.going.is_some() || self.reset.is_some() {
            Some(Unfit::Leaving)
        } else if !self.store.record.known {
            Some(Unfit::Amnesiac)
        } else if self.store.failed.is_some() || self.store.slow {
            Some(Unfit::NoState)
        } else if self.is_doubled() {
            Some(Unfit::Double)
        } else {
            None
        }
    }

    fn initdead_over(&self, now: Instant) -> bool {
        self.usable_since.is_some_and(|since| now.since(since) >= self.policy.timing.initdead)
    }

    fn say(&mut self, saying: Saying) {
        self.out.push(Action::Say(saying));
    }

    fn touch_all(&mut self) {
        self.touched.extend(self.groups.keys().cloned());
    }

    /// A link of ours became usable or not. Carrier counts as silence on it, no more.
    fn link_changed(&mut self, now: Instant, id: LinkId, usable: bool, why: String) {
        let Some(link) = self.links.get_mut(usize::from(id.0)) else { return };
        (link.usable, link.why) = (usable, why);
        if usable {
            self.beat.now = true;
        }
        match self.links.iter().any(|l| l.usable) {
            true => self.usable_since = self.usable_since.or(Some(now)),
            false => self.usable_since = None,
        }
    }

    fn recabled(&mut self, cables: Vec<LinkId>) {
        if self.policy.cables != cables {
            self.policy.cables = cables;
            self.touch_all();
        }
    }

    /// Our own loop did not run for so long: judge nobody by it, and after a long one nothing at
    /// all until the peers were heard again.
    fn stalled(&mut self, now: Instant, late: Duration) {
        let deadtime = self.policy.timing.deadtime;
        if late >= self.policy.timing.warntime {
            let words = format!("this daemon did not run for {:.2} s", late.as_secs_f64());
            self.say(Saying::new(What::Stalled, words));
        }
        // What the peers said meanwhile waits in the sockets: it is read before anything is
        // started on their silence.
        let read = now + self.policy.timing.keepalive;
        let claims = self.groups.values_mut().filter_map(|g| g.claim.as_mut());
        for at in claims.filter_map(|c| c.start_at.as_mut()) {
            *at = read.max(*at);
        }
        if late < deadtime {
            return;
        }
        let lived = self.lived(now);
        for peer in self.peers.values_mut() {
            peer.forgive(lived);
        }
        self.fences.values_mut().for_each(Fence::stalled);
        self.doubt = Some(Doubt { woke: now, lived });
        for name in self.groups.keys() {
            self.out.push(Action::Observe { group: name.clone() });
        }
        self.touch_all();
        self.beat.now = true;
    }

    /// Is the start over: has every node been heard, or has `initdead` passed?
    fn judge_start(&mut self, now: Instant) {
        let all = self.peers.values().all(|p| p.session().is_some());
        if self.starting && (all || self.initdead_over(now)) {
            self.starting = false;
            self.touch_all();
        }
        if let Some(doubt) = self.doubt {
            let over = self.lived(now).since(doubt.lived) >= self.policy.timing.deadtime;
            let fresh = |p: &Peer| p.sign().is_some_and(|s| s > doubt.woke);
            if over || self.peers.values().all(fresh) {
                self.doubt = None;
                self.touch_all();
            }
        }
        if !self.store.record.known && all && self.peers.values().all(Peer::reported) {
            self.store.record.known = true;
            let new = self.peers.values().all(|p| p.mood.amnesiac);
            let words = match new {
                true => "every node was heard, and none has a state file: this cluster is new",
                false => "every node was heard: its epochs are known again",
            };
            self.say(Saying::new(What::AmnesiaOver, words));
            self.touch_all();
        }
    }

    /// Whether this node owns anything: it must not be put to sleep.
    pub fn owns(&self) -> bool {
        self.owned().next().is_some()
    }

    pub fn owned(&self) -> impl Iterator<Item = &GroupName> {
        self.groups.iter().filter(|(_, g)| g.held() == Held::Yes).map(|(name, _)| name)
    }

    /// Whether any group is held here, or not yet read, that may not stay as it is without us. In
    /// maintenance one may that is not just being stopped or started, unless somebody has not heard
    /// of that and waits for the end of a lease.
    fn holds(&self, now: Instant) -> bool {
        let world = self.world(now);
        let mine = |(name, group): (&GroupName, &Group)| {
            let maybe = group.held() == Held::Yes || group.phase() == Phase::Unknown;
            let rests = group.phase() != Phase::Stopping && group.job.is_none();
            let safe = self.policy.lease.is_none() || world.is_cared_for(name);
            maybe && !(rests && safe && ownership::in_maintenance(&world, name))
        };
        self.groups.iter().any(mine)
    }
}
