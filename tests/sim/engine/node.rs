//! One machine, and the daemon on it: the shipped core and codec, joined as `src/daemon` joins
//! them.

use crate::clock::Clock;
use crate::disk::Disk;
use crate::options::Options;
use crate::systemd::Units;
use hafailover::core::heartbeat::{Echo, Heartbeat};
use hafailover::core::name::{BootId, Epoch, GroupName, LinkId, NodeId, Session};
use hafailover::core::policy::Policy;
use hafailover::core::time::Instant;
use hafailover::core::{Action, Boot, Core, Event, Observation};
use hafailover::wire::keys::Keys;
use hafailover::wire::line::Deframer;
use hafailover::wire::{Codec, Refusal};
use std::collections::BTreeMap;

pub struct Node {
    pub me: usize,
    pub on: bool,
    pub boots: u64,
    /// Grows with every daemon, so that what was on its way to a dead one is dropped.
    pub life: u64,
    pub clock: Clock,
    pub daemon: Option<Daemon>,
    /// The daemon will not come back by itself; and its guard, once it is at work.
    pub lost: bool,
    pub guard: Option<crate::guard::Work>,
    pub dog: Option<crate::watchdog::Dog>,
    pub disk: Disk,
    pub units: Vec<Units>,
    pub frozen: u64,
    pub daemon_frozen: u64,
    /// Frames that wait in the sockets while nobody reads.
    pub waiting: usize,
    /// Slept for so long, and not yet noticed by the loop.
    pub gap: u64,
    /// How long its daemon has not run in all, in the time of somebody who sees everything.
    pub stalled: u64,
    pub stall_began: Option<u64>,
    /// When it last woke from any stall.
    pub last_stall: u64,
    /// When it last woke from a stall longer than `deadtime` that its clock shows.
    pub woke: u64,
    /// Its clock stood still at some time.
    pub paused: bool,
    /// Its clock showed time that did not pass.
    pub jumped: bool,
    /// Its files, where somebody changed them.
    pub files: Option<Policy>,
    /// A later version is installed.
    pub newer: bool,
    /// What it had lived through then.
    pub lived_at_waking: u64,
}

pub struct Daemon {
    pub core: Core,
    pub codec: Codec,
    pub session: Session,
    pub began: u64,
    /// Since when it is being stopped, for good.
    pub parting: Option<u64>,
    signs: BTreeMap<NodeId, Instant>,
    free_at: Vec<Instant>,
    pub deframers: BTreeMap<usize, Deframer>,
    pub tasks: BTreeMap<usize, Task>,
    pub last_seen: BTreeMap<usize, Observation>,
    /// Members that a person stopped, as the io layer remembers them, are in `Units`.
    pub timer: u64,
    pub requests: u64,
    /// As it read them last.
    pub files: Policy,
    /// The fingerprint by which each group is known.
    pub knows: BTreeMap<GroupName, u32>,
    pub newer: bool,
}

/// What the daemon's hands are doing with one group.
#[derive(Clone, Debug)]
pub struct Task {
    pub id: u64,
    pub job: u64,
    pub kind: Kind,
    pub asked: bool,
    pub limit: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    Begin { epoch: Epoch, until: Instant },
    Gate { epoch: Epoch, until: Instant },
    Up(usize),
    Empty,
    Down(usize),
}

impl Node {
    pub fn new(me: usize, options: &Options) -> Node {
        Node {
            me,
            on: false,
            boots: 0,
            life: 0,
            clock: Clock::boot(0, 0, 0),
            daemon: None,
            lost: false,
            guard: None,
            dog: None,
            disk: Disk::default(),
            units: Vec::new(),
            frozen: 0,
            daemon_frozen: 0,
            waiting: 0,
            gap: 0,
            stalled: 0,
            stall_began: None,
            woke: 0,
            last_stall: 0,
            paused: false,
            jumped: false,
            files: None,
            newer: false,
            lived_at_waking: 0,
        }
        .bare(options)
    }

    /// After a power loss: nothing runs, no token.
    pub fn bare(mut self, options: &Options) -> Node {
        self.units = options.groups.iter().map(|g| Units::new(g.members, g.soft)).collect();
        self
    }

    pub fn is_frozen(&self, t: u64) -> bool {
        t < self.frozen || t < self.daemon_frozen
    }

    /// How long its loop has run, and so could listen.
    pub fn lived(&self, t: u64) -> u64 {
        let now = self.stall_began.map_or(0, |began| t.saturating_sub(began));
        t - (self.stalled + now).min(t)
    }

    pub fn thaw(&mut self, t: u64, long: u64) {
        if let Some(began) = self.stall_began.take() {
            self.stalled += t - began;
            self.last_stall = t;
            if t - began > long && !self.clock.is_stopped() {
                self.woke = t;
                self.lived_at_waking = self.lived(t);
            }
        }
        self.waiting = 0;
    }

    pub fn now(&self, t: u64) -> Instant {
        self.clock.now(t)
    }
}

impl Daemon {
    pub fn start(node: &Node, options: &Options, t: u64, session: u64) -> (Daemon, Vec<Action>) {
        let names: Vec<String> = (1..=options.nodes).map(|n| format!("n{n}")).collect();
        let session = Session(session);
        let boot = BootId(1000 * (node.me as u64 + 1) + node.boots);
        let boot = Boot { session, boot, record: node.disk.read() };
        let (core, actions) = Core::new(node.now(t), boot, options.policy(node.me));
        let keys = Keys::of(&[(1, [7; 32])], 1);
        let mut daemon = Daemon {
            core,
            codec: Codec::new("sim", &names, NodeId(node.me as u8), session, keys),
            session,
            began: t,
            parting: None,
            signs: BTreeMap::new(),
            free_at: vec![Instant::default(); options.links.len()],
            deframers: BTreeMap::new(),
            tasks: BTreeMap::new(),
            last_seen: BTreeMap::new(),
            timer: 0,
            requests: 0,
            files: options.policy(node.me),
            knows: BTreeMap::new(),
            newer: node.newer,
        };
        daemon.learn();
        (daemon, actions)
    }

    pub fn learn(&mut self) {
        let groups = self.files.groups.iter();
        self.knows.extend(groups.map(|(name, group)| (name.clone(), group.fingerprint)));
    }

    /// As `daemon::parts::Parts::send`: a serial line that is still busy takes nothing.
    pub fn may_send(&mut self, link: LinkId, now: Instant) -> bool {
        now >= self.free_at[usize::from(link.0)]
    }

    pub fn busy(&mut self, link: LinkId, until: Instant) {
        self.free_at[usize::from(link.0)] = until;
    }

    /// The core has heard this: the codec takes no other session of that peer than the core does.
    pub fn accept(&mut self, me: usize, beat: &Heartbeat) {
        let Some(session) = self.core.session_of(beat.from) else { return };
        self.codec.accept_session(beat.from, session);
        let mine = |e: &&Echo| e.peer == NodeId(me as u8) && e.session == self.session;
        let echo = beat.echoes.iter().find(mine).map(|e| e.stamp);
        if let Some(stamp) = echo.filter(|_| session == beat.session) {
            let sign = self.signs.entry(beat.from).or_default();
            *sign = stamp.max(*sign);
        }
    }

    /// As `daemon::parts::Parts::heard`. Says too whether the frame shows a life of now.
    pub fn heard(
        &mut self,
        me: usize,
        link: usize,
        bytes: &[u8],
    ) -> Result<(Event, bool), Refusal> {
        let link = LinkId(link as u8);
        let heartbeat = self.codec.decode(link, bytes)?;
        if heartbeat.from == NodeId(me as u8) {
            let address = "a recording".to_string();
            return Ok((Event::Double { heartbeat: Box::new(heartbeat), address }, false));
        }
        let mine = |e: &&Echo| e.peer == NodeId(me as u8) && e.session == self.session;
        let echo = heartbeat.echoes.iter().find(mine).map(|e| e.stamp);
        let sign = self.signs.get(&heartbeat.from).copied().unwrap_or_default();
        let fresh = echo.is_some_and(|stamp| stamp > sign);
        Ok((Event::Heard { link, heartbeat: Box::new(heartbeat) }, fresh))
    }
}
