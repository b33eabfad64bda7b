//! The hands on systemd: jobs, unit states, shutdown. The only part that speaks D-Bus, on a thread
//! and a runtime of its own, so that no burst of signals delays a heartbeat.

mod awake;
pub mod bus;
mod fence;
mod group;
mod hand;
mod look;
mod private;
mod read;
mod signals;
mod unit;
mod users;

pub use fence::Run as FenceRun;
pub use group::Managed;
pub use unit::{address_of, path_of};

use super::notify::Pulse;
use super::{Inbox, Input, token};
use crate::core::name::{Epoch, GroupName};
use crate::core::time::Instant;
use crate::core::{Event, Observation, StopError, Terminate};
use bus::Bus;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot};

/// Requests that may wait; the core has at most a few a group.
const QUEUE: usize = 1024;
/// A group at which we are at work is looked at so often.
const AT_WORK: Duration = Duration::from_millis(500);
/// Pause before PID 1, which may be busy with a reload, is asked for our own job again.
const OWN_JOB_AGAIN: Duration = Duration::from_millis(100);
/// How often the thread shows that it is not stuck; the watchdog waits for much longer.
const PULSE: Duration = Duration::from_millis(500);

/// The daemon's end. Its methods never wait.
#[derive(Clone, Debug)]
pub struct Systemd(mpsc::Sender<Ask>);

#[derive(Debug)]
enum Ask {
    Manage(BTreeMap<GroupName, Managed>),
    Start {
        group: GroupName,
        epoch: Epoch,
        job: u64,
        valid_until: Instant,
    },
    Stop {
        group: GroupName,
        job: u64,
    },
    KillUsers {
        group: GroupName,
        unit: String,
        job: u64,
    },
    Adopt {
        group: GroupName,
        epoch: Epoch,
    },
    Observe {
        group: GroupName,
    },
    Announce {
        group: GroupName,
    },
    /// Without a time until which it may begin: a drill.
    Fence {
        run: FenceRun,
        valid_until: Option<Instant>,
    },
    FenceEnd {
        unit: String,
    },
    OwnJob(oneshot::Sender<Terminate>),
    Pulse(Pulse),
    KeepAwake(bool),
    LetGo,
}

impl Systemd {
    pub fn spawn(inbox: Inbox) -> std::io::Result<Systemd> {
        let (sender, asks) = mpsc::channel(QUEUE);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let run = move || {
            let local = tokio::task::LocalSet::new();
            local.block_on(&runtime, run(inbox, asks));
        };
        std::thread::Builder::new().name("systemd".into()).spawn(run)?;
        Ok(Systemd(sender))
    }

    /// The groups to watch from now on.
    pub fn manage(&self, groups: BTreeMap<GroupName, Managed>) {
        self.ask(Ask::Manage(groups));
    }

    pub fn start(&self, group: GroupName, epoch: Epoch, job: u64, valid_until: Instant) {
        self.ask(Ask::Start { group, epoch, job, valid_until });
    }

    pub fn stop(&self, group: GroupName, job: u64) {
        self.ask(Ask::Stop { group, job });
    }

    pub fn kill_users(&self, group: GroupName, unit: String, job: u64) {
        self.ask(Ask::KillUsers { group, unit, job });
    }

    pub fn adopt(&self, group: GroupName, epoch: Epoch) {
        self.ask(Ask::Adopt { group, epoch });
    }

    pub fn observe(&self, group: GroupName) {
        self.ask(Ask::Observe { group });
    }

    pub fn announce(&self, group: GroupName) {
        self.ask(Ask::Announce { group });
    }

    /// Why we are told to end: the type of our own job at PID 1. While PID 1 does not say it, it is
    /// waited for: a stop that is taken for a restart would leave the groups without a daemon.
    /// PID 1 ends what it stops when the time for that is over, and runs the guard.
    pub async fn own_job(&self) -> Terminate {
        let (sender, answer) = oneshot::channel();
        self.ask(Ask::OwnJob(sender));
        match answer.await {
            Ok(kind) => kind,
            Err(_) => std::future::pending().await,
        }
    }

    /// Beats as long as the thread is not stuck.
    pub fn pulse(&self, pulse: Pulse) {
        self.ask(Ask::Pulse(pulse));
    }

    /// Something is owned here, or nothing any more: the machine must not, or may, be put to sleep.
    pub fn keep_awake(&self, on: bool) {
        self.ask(Ask::KeepAwake(on));
    }

    /// Everything is given away: a shutdown need not wait for us any longer.
    pub fn let_go(&self) {
        self.ask(Ask::LetGo);
    }

    /// # Panics
    /// When the queue is full: the driver has hung, and a daemon whose hands do not answer must
    /// end, to be restarted and to adopt what runs.
    fn ask(&self, ask: Ask) {
        self.0.try_send(ask).expect("the systemd driver takes requests");
    }
}

/// What the tasks on this thread share.
pub struct Shared {
    pub inbox: Inbox,
    pub bus: RefCell<Option<Bus>>,
    pub groups: RefCell<BTreeMap<GroupName, Managed>>,
    /// Something changed at systemd: whoever waits looks again.
    pub changed: Notify,
    /// What was last read of the members.
    pub known: RefCell<read::Known>,
    /// Up to which question at PID 1 all its signals are in.
    told_to: Cell<u32>,
    /// By group, how many ended jobs are being judged: whose were they?
    judging: RefCell<BTreeMap<GroupName, usize>>,
    /// When the last job of each unit ended, in microseconds of CLOCK_MONOTONIC.
    pub ended: RefCell<BTreeMap<String, u64>>,
    /// When each target last went down, in microseconds of CLOCK_MONOTONIC.
    pub target_down: RefCell<BTreeMap<GroupName, u64>>,
    /// Members that a person stopped.
    pub by_hand: RefCell<BTreeSet<String>>,
    /// Members that a person restarted, and when each was begun then.
    pub restarted: RefCell<BTreeMap<String, u64>>,
    /// A call got no answer.
    pub unanswered: Notify,
    /// Groups to look at; true: to be told of even if nothing is new.
    dirty: RefCell<BTreeMap<GroupName, bool>>,
    look: Notify,
    /// Groups that are being looked at: one look at a time, so that they are told in their order.
    looking: RefCell<BTreeSet<GroupName>>,
    told: RefCell<BTreeMap<GroupName, Observation>>,
    /// Groups at which we are at work, and the newest job that we ever asked for at each group.
    ours: RefCell<BTreeSet<GroupName>>,
    last_jobs: RefCell<BTreeMap<GroupName, u32>>,
    tasks: RefCell<BTreeMap<GroupName, tokio::task::JoinHandle<()>>>,
    /// Grows at the start and at the end of each job of ours: what was read across such a moment
    /// is of no time at all.
    turns: RefCell<BTreeMap<GroupName, u64>>,
    inhibitor: RefCell<Option<zbus::OwnedFd>>,
    pub shutting_down: Cell<bool>,
    sleep: awake::SleepLock,
}

impl Shared {
    /// Jobs of a group while we are at work at it, and those that we asked for and whose end is
    /// told late, are not somebody else's.
    pub fn is_ours(&self, group: &GroupName, job: u32) -> bool {
        let last = self.last_jobs.borrow().get(group).copied().unwrap_or_default();
        self.ours.borrow().contains(group) || job <= last
    }

    /// Remembers a job that we asked for at a group.
    pub fn asked(&self, group: &GroupName, job: zbus::Result<u32>) -> zbus::Result<()> {
        let number = *job.as_ref().unwrap_or(&0);
        let mut last_jobs = self.last_jobs.borrow_mut();
        let last = last_jobs.entry(group.clone()).or_default();
        *last = number.max(*last);
        job.map(drop)
    }

    pub fn mark(&self, group: &GroupName) {
        self.dirty.borrow_mut().entry(group.clone()).or_insert(false);
        self.look.notify_one();
    }

    fn mark_to_tell(&self, group: &GroupName) {
        self.dirty.borrow_mut().insert(group.clone(), true);
        self.look.notify_one();
    }

    /// The machine goes down: what stops from now on is systemd's own doing, and no failure.
    pub async fn shut_down(&self) {
        if !self.shutting_down.replace(true) {
            self.tell(Event::Terminate { kind: Terminate::Shutdown }).await;
        }
    }

    pub async fn tell(&self, event: Event) {
        let _ = self.inbox.send(Input::Event(event)).await;
    }

    fn turn(&self, group: &GroupName) -> u64 {
        self.turns.borrow().get(group).copied().unwrap_or_default()
    }

    fn next_turn(&self, group: &GroupName) {
        *self.turns.borrow_mut().entry(group.clone()).or_default() += 1;
    }

    fn managed(&self, group: &GroupName) -> Option<Managed> {
        self.groups.borrow().get(group).cloned()
    }
}

async fn run(inbox: Inbox, mut asks: mpsc::Receiver<Ask>) {
    let shared = Rc::new(Shared {
        inbox,
        bus: RefCell::new(None),
        groups: RefCell::new(BTreeMap::new()),
        changed: Notify::new(),
        known: RefCell::default(),
        told_to: Cell::default(),
        judging: RefCell::default(),
        ended: RefCell::default(),
        target_down: RefCell::default(),
        by_hand: RefCell::new(BTreeSet::new()),
        restarted: RefCell::default(),
        unanswered: Notify::new(),
        dirty: RefCell::default(),
        look: Notify::new(),
        looking: RefCell::default(),
        told: RefCell::default(),
        ours: RefCell::new(BTreeSet::new()),
        last_jobs: RefCell::default(),
        tasks: RefCell::new(BTreeMap::new()),
        turns: RefCell::new(BTreeMap::new()),
        inhibitor: RefCell::new(None),
        shutting_down: Cell::new(false),
        sleep: awake::SleepLock::default(),
    });
    tokio::task::spawn_local(signals::listen(shared.clone()));
    tokio::task::spawn_local(look::look(shared.clone()));
    while let Some(ask) = asks.recv().await {
        take(&shared, ask);
    }
}

fn take(shared: &Rc<Shared>, ask: Ask) {
    match ask {
        Ask::Manage(groups) => manage(shared, groups),
        Ask::Start { group, epoch, job, valid_until } => {
            let Some(managed) = shared.managed(&group) else { return };
            managed.units().for_each(|u| {
                shared.by_hand.borrow_mut().remove(u);
            });
            let mine = shared.clone();
            work(shared, group.clone(), async move {
                let result =
                    group::start(mine.clone(), group.clone(), managed, epoch, valid_until).await;
                mine.next_turn(&group);
                mine.tell(Event::Started { group, job, result }).await;
            });
        }
        Ask::Stop { group, job } => {
            let mine = shared.clone();
            let managed = shared.managed(&group);
            work(shared, group.clone(), async move {
                let result = match managed {
                    Some(managed) => group::stop(mine.clone(), group.clone(), managed).await,
                    None => Err(StopError::Unknown {
                        why: "its members are not known: hafailover check".into(),
                    }),
                };
                mine.next_turn(&group);
                mine.tell(Event::Stopped { group, job, result }).await;
            });
        }
        Ask::KillUsers { group, unit, job } => kill_users(shared, group, unit, job),
        Ask::Adopt { group, epoch } => {
            // Failing here, the token stays away, which is seen and told at the next look.
            let _ = token::write(&group, epoch);
            shared.mark(&group);
        }
        Ask::Observe { group } => shared.mark_to_tell(&group),
        Ask::Announce { group } => {
            let units = shared.managed(&group).map(|m| m.hard).unwrap_or_default();
            let (mine, bus) = (shared.clone(), shared.bus.borrow().clone());
            tokio::task::spawn_local(async move {
                let Some(bus) = bus else { return };
                for unit in units.iter().filter(|u| u.starts_with("hafailover-ip@")) {
                    let _ = mine.asked(&group, bus.reload_unit(unit).await);
                }
            });
        }
        Ask::Fence { run, valid_until } => fence::start(shared, run, valid_until),
        Ask::FenceEnd { unit } => fence::end(shared, unit),
        Ask::OwnJob(answer) => {
            let mine = shared.clone();
            tokio::task::spawn_local(async move { own_job(&mine, answer).await });
        }
        Ask::Pulse(pulse) => {
            tokio::task::spawn_local(async move {
                loop {
                    pulse.beat();
                    tokio::time::sleep(PULSE).await;
                }
            });
        }
        Ask::KeepAwake(on) => {
            shared.sleep.want(on);
            let mine = shared.clone();
            tokio::task::spawn_local(async move { awake::lock(&mine).await });
        }
        Ask::LetGo => drop(shared.inhibitor.borrow_mut().take()),
    }
}

fn kill_users(shared: &Rc<Shared>, group: GroupName, unit: String, job: u64) {
    let mine = shared.clone();
    work(shared, group.clone(), async move {
        let told = users::kill(&mine, &group, &unit).await;
        mine.tell(Event::UsersKilled { group, job, told }).await;
    });
}

fn manage(shared: &Rc<Shared>, groups: BTreeMap<GroupName, Managed>) {
    for (name, managed) in groups.iter().filter(|(name, _)| token::held(name)) {
        // Failing, what was noted before stays.
        let _ = token::note(name, &managed.hard, &managed.soft);
    }
    // A group that is no longer listed stays watched as it was: it may still run here.
    shared.groups.borrow_mut().extend(groups);
    let names: Vec<GroupName> = shared.groups.borrow().keys().cloned().collect();
    names.iter().for_each(|name| shared.mark(name));
    tokio::task::spawn_local(hold(shared.clone()));
}

/// One job a group: a new one takes the place of an old one.
fn work(shared: &Rc<Shared>, group: GroupName, job: impl Future<Output = ()> + 'static) {
    if let Some(old) = shared.tasks.borrow_mut().remove(&group) {
        old.abort();
    }
    shared.ours.borrow_mut().insert(group.clone());
    shared.next_turn(&group);
    let (mine, name) = (shared.clone(), group.clone());
    let task = tokio::task::spawn_local(async move {
        let mut job = std::pin::pin!(job);
        while tokio::time::timeout(AT_WORK, &mut job).await.is_err() {
            mine.mark_to_tell(&name);
        }
        mine.ours.borrow_mut().remove(&name);
        mine.mark(&name);
    });
    shared.tasks.borrow_mut().insert(group, task);
}

/// Has systemd keep every member loaded.
async fn hold(shared: Rc<Shared>) {
    let Some(bus) = shared.bus.borrow().clone() else { return };
    let groups = shared.groups.borrow().clone();
    for unit in groups.values().flat_map(Managed::units) {
        bus.hold(unit).await;
    }
}

/// Asks until there is an answer or nobody waits for it.
async fn own_job(shared: &Shared, answer: oneshot::Sender<Terminate>) {
    while !answer.is_closed() {
        let bus = shared.bus.borrow().clone();
        let job = match &bus {
            _ if shared.shutting_down.get() => Some(Some("stop".to_string())),
            Some(bus) => bus.job_type("hafailover.service").await.ok(),
            None => None,
        };
        if let Some(job) = job {
            let stop = job.is_some_and(|job| job == "stop");
            let _ = answer.send(if stop { Terminate::Stop } else { Terminate::Restart });
            return;
        }
        tokio::time::sleep(OWN_JOB_AGAIN).await;
    }
}
