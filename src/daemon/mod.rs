//! The daemon: the only place where the core meets the world. One loop on one thread; whatever can
//! wait sits on threads of its own and reports into the loop's inbox.
//!
//! ```text
//!  links (tasks, serial threads) ─┐                          ┌─► links
//!  systemd thread ────────────────┤                          ├─► systemd thread ─► PID 1
//!  store, carrier threads ────────┼─► inbox ─► Core::handle ─┼─► store thread ─► disk
//!  control socket (tasks) ────────┤            (the loop)    ├─► journal, notify, log threads
//!  signals, timer ────────────────┘                          └─► control socket
//! ```

mod burst;
pub mod control;
mod fences;
mod parts;
mod reload;
pub mod setup;
mod watchdog;

use crate::config::accepted;
use crate::config::target::Wrong;
use crate::core::heartbeat::Held;
use crate::core::name::BootId;
use crate::core::time::Instant;
use crate::core::watchdog::Feed;
use crate::core::{Boot, Core, Event, Terminate};
use crate::io::journal::{self, Journal};
use crate::io::keep::Keeper;
use crate::io::log::Log;
use crate::io::net::carrier;
use crate::io::notify::{Notify, Pulse};
use crate::io::store::{self, Owner, Store};
use crate::io::systemd::Systemd;
use crate::io::{Input, ReplySender, clock, rt, token};
use crate::wire::Codec;
use crate::wire::control::{DaemonView, Reply, Request};
use parts::Parts;
use setup::{Read, Setup};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

/// Facts that may wait for the loop; frames are dropped when it is full.
const INBOX: usize = 4096;
/// How long the end waits for the journal.
const FLUSH: Duration = Duration::from_secs(2);
/// Changes within so long are read as one.
const RELOAD_GAP: Duration = Duration::from_millis(100);
/// While groups are given away, systemd is asked for so much more time, again and again.
const EXTEND: Duration = Duration::from_secs(30);
/// A group that does not stop must not keep a machine from going down for ever.
const EXTEND_MAX: Duration = Duration::from_secs(180);
/// The line in `systemctl status` is renewed at most so often.
const STATUS_GAP: Duration = Duration::from_secs(1);
/// A jump of CLOCK_BOOTTIME against CLOCK_MONOTONIC by more than this was a suspend.
const GAP_LEAST: Duration = Duration::from_millis(50);

/// Why a daemon ends by itself. Nothing was touched.
pub enum Failure {
    /// The configuration is wrong: trying again does not help.
    Wrong(String),
    /// Something is missing that may come back.
    Failed(String),
}

/// What systemd sends.
struct Signals {
    term: Signal,
    hup: Signal,
}

/// Runs until systemd ends it.
pub fn run(config: &Path) -> Result<(), Failure> {
    let failed = |e: std::io::Error| Failure::Failed(e.to_string());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(failed)?;
    // First: ended before it asks whose job that is, it would leave groups behind with nobody.
    let signals = runtime.block_on(async {
        let (term, hup) = (signal(SignalKind::terminate()), signal(SignalKind::hangup()));
        Ok(Signals { term: term?, hup: hup? })
    });
    let signals = signals.map_err(failed)?;
    let (setup, wrong) = setup::read(config).map_err(Failure::Wrong)?;
    setup::keep_arbiter(&setup).map_err(Failure::Failed)?;
    let settings = &setup.settings;
    let owner = Owner::here(&settings.cluster, &settings.nodes[usize::from(settings.me.0)].name);
    let mark = Path::new(store::MARK);
    let (store, record) = Store::open(&settings.state, owner, mark).map_err(Failure::Failed)?;
    let local = tokio::task::LocalSet::new();
    let serve = Daemon::start(config.into(), setup, store, record);
    let serve = async {
        let mut daemon = serve.map_err(failed)?;
        daemon.tell_wrong(wrong);
        daemon.serve(signals).await.map_err(failed)
    };
    local.block_on(&runtime, serve)
}

struct Daemon {
    config: PathBuf,
    setup: Setup,
    /// What is wrong in the files, as last told.
    wrong: Vec<Wrong>,
    core: Core,
    parts: Parts,
    inbox: mpsc::Receiver<Input>,
    got: rt::Got,
    requests: u64,
    reload_at: Option<Instant>,
    suspended: Duration,
    owns: bool,
    going: Option<Going>,
    /// The machine goes down.
    down: bool,
    carriers: mpsc::Receiver<BTreeMap<String, bool>>,
    load: mpsc::Sender<Loaded>,
    loaded: mpsc::Receiver<Loaded>,
    reloads: u64,
    status: String,
    status_at: Option<Instant>,
}

/// The daemon was told to end.
struct Going {
    since: Instant,
    extended: Option<Instant>,
    let_go: bool,
}

/// A configuration read anew, and who asked for it.
struct Loaded {
    read: Result<Read, String>,
    /// It is on disk, as the newest that was read until this turn.
    kept: Option<u64>,
    reply: Option<ReplySender>,
}

impl Daemon {
    fn start(
        config: PathBuf,
        setup: Setup,
        store: Store,
        record: Option<crate::core::record::Record>,
    ) -> std::io::Result<Daemon> {
        let (sender, inbox) = mpsc::channel(INBOX);
        let log = Log::spawn()?;
        let journal = Journal::spawn(Path::new(journal::SOCKET), parts::names(&setup))?;
        let systemd = Systemd::spawn(sender.clone())?;
        let (all, errors) = setup.with_held();
        errors.into_iter().for_each(|words| log.error(words));
        systemd.manage(all.managed());
        let (tell, carriers) = mpsc::channel(16);
        carrier::watch(move |table| tell.blocking_send(table).is_ok())?;
        let (load, loaded) = mpsc::channel(4);
        let settings = &setup.settings;
        let nodes: Vec<String> = settings.nodes.iter().map(|n| n.name.clone()).collect();
        let session = setup::session()?;
        let boot = Boot { session, boot: BootId(token::boot()), record };
        let (mut core, actions) = Core::new(clock::now(), boot, all.policy());
        let mut parts = Parts {
            codec: Codec::new(&settings.cluster, &nodes, settings.me, session, setup.keys.clone()),
            store: store.spawn(sender.clone())?,
            notify: Notify::spawn(settings.arbiter.as_ref().and_then(|a| a.ends_after()))?,
            links: Vec::new(),
            arbiter: parts::open_arbiter(&setup, &sender)?,
            watchdog: watchdog::Watchdog::default(),
            carrier: carrier::table()?,
            seen: BTreeMap::new(),
            asked: BTreeMap::new(),
            exit: false,
            inbox: sender,
            keeper: Keeper::spawn(accepted::FILE, log.clone())?,
            log,
            journal,
            fences: fences::Fences::of(&setup),
            systemd,
        };
        parts.watchdog.set(setup.settings.watchdog(), &parts.inbox)?;
        parts.perform(actions);
        if !all.same(&setup) {
            let disabled = Event::Reconfigured { policy: Box::new(setup.policy()) };
            parts.perform(core.handle(clock::now(), disabled));
        }
        Ok(Daemon {
            config,
            setup,
            wrong: Vec::new(),
            core,
            parts,
            inbox,
            got: rt::Got::default(),
            requests: 0,
            reload_at: None,
            suspended: clock::suspended(),
            owns: false,
            going: None,
            down: false,
            carriers,
            load,
            loaded,
            reloads: 0,
            status: String::new(),
            status_at: None,
        })
    }

    async fn serve(mut self, mut signals: Signals) -> std::io::Result<()> {
        self.happen(parts::cables(&self.setup));
        self.parts.links = parts::open_links(&self.setup, &self.parts.inbox);
        std::fs::create_dir_all("/run/hafailover")?;
        control::listen(Path::new(control::SOCKET), self.parts.inbox.clone())?;
        // Last: what was started before runs as anybody does.
        self.got = rt::ask();
        self.parts.log.info(format!("scheduling: {}", self.got.scheduling));
        let pulse = Pulse::default();
        self.parts.notify.count_on(pulse.clone());
        self.parts.systemd.pulse(pulse);
        self.parts.notify.ready();
        while !self.parts.exit {
            self.turn(&mut signals).await;
            self.parts.notify.turned();
        }
        self.parts.notify.stopping();
        if self.down && self.core.feed(clock::now(), token::held) == Feed::FOR_EVER {
            // What is in maintenance ends with the machine, in its own time.
            self.parts.watchdog.tell(Feed::End);
        }
        self.parts.watchdog.flush();
        self.parts.journal.flush(FLUSH);
        Ok(())
    }

    /// Waits for one thing and deals with it.
    async fn turn(&mut self, signals: &mut Signals) {
        let due = self.core.next_wake().min(self.reload_at.unwrap_or(self.core.next_wake()));
        let wait = due.since(clock::now());
        tokio::select! {
            biased;
            Some(table) = self.carriers.recv() => {
                self.happen(parts::cables(&self.setup));
                for event in self.parts.carrier_changed(table) {
                    self.happen(event);
                }
            }
            Some(loaded) = self.loaded.recv() => self.loaded(loaded),
            _ = signals.term.recv() => {
                let (systemd, inbox) = (self.parts.systemd.clone(), self.parts.inbox.clone());
                tokio::task::spawn_local(async move {
                    let kind = systemd.own_job().await;
                    let _ = inbox.send(Input::Event(Event::Terminate { kind })).await;
                });
            }
            _ = signals.hup.recv() => self.reload_at = Some(clock::now()),
            // After what is rare: a flood of frames keeps this one ready without end.
            input = self.inbox.recv() => match input {
                Some(input) => self.take(input),
                None => self.parts.exit = true,
            },
            () = tokio::time::sleep(wait) => {}
        }
        let now = clock::now();
        let slept = clock::suspended().saturating_sub(self.suspended);
        if slept > GAP_LEAST {
            self.suspended = clock::suspended();
            self.happen(Event::Gap { lasted: slept });
        }
        if now >= self.core.next_wake() {
            self.happen(Event::Wake);
        }
        self.status(now);
        if self.reload_at.is_some_and(|at| now >= at) {
            self.reload_at = None;
            self.reload(None);
        }
    }

    /// One line for `systemctl status`, at most once a second.
    fn status(&mut self, now: Instant) {
        if self.status_at.is_some_and(|at| now.since(at) < STATUS_GAP) {
            return;
        }
        self.status_at = Some(now);
        let mut line = self.core.view(now).line();
        if !self.wrong.is_empty() {
            line += "; a file is wrong: hafailover status";
        }
        if line != self.status {
            self.status = line.clone();
            self.parts.notify.status(line);
        }
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Frame { link, bytes, from } => {
                let me = self.setup.settings.me;
                match self.parts.heard(link, &bytes, from, me) {
                    Some(Event::Heard { link, heartbeat }) => {
                        let peer = heartbeat.from;
                        self.happen(Event::Heard { link, heartbeat });
                        if let Some(session) = self.core.session_of(peer) {
                            self.parts.codec.accept_session(peer, session);
                        }
                    }
                    Some(event) => self.happen(event),
                    None => {}
                }
            }
            Input::Event(Event::Observed { group, seen }) => {
                let event = self.parts.observed(group, seen);
                self.happen(event);
            }
            Input::Event(event) => self.happen(event),
            Input::Watchdog(answer) => {
                let go = |start: watchdog::Start| start.go(&self.parts.systemd);
                let (events, saying) = self.parts.watchdog.answered(answer, go);
                saying.iter().for_each(|saying| self.parts.say(saying));
                events.into_iter().for_each(|event| self.happen(event));
            }
            Input::Warn(words) => self.parts.log.warn(words),
            Input::Reload => self.reload_at = Some(clock::now() + RELOAD_GAP),
            Input::Control { request, by, reply } => self.asked(request, by, reply),
        }
    }

    fn happen(&mut self, event: Event) {
        let now = clock::now();
        self.down |= matches!(event, Event::Terminate { kind: Terminate::Shutdown });
        if matches!(event, Event::Terminate { .. }) {
            self.going.get_or_insert(Going { since: now, extended: None, let_go: false });
        }
        let actions = self.core.handle(now, event);
        self.parts.watchdog.tell(self.core.feed(now, token::held));
        self.parts.perform(actions);
        let owns = self.core.owns();
        if std::mem::replace(&mut self.owns, owns) != owns {
            self.parts.systemd.keep_awake(owns);
        }
        self.go(now);
    }

    /// On the way out: asks systemd for time as long as groups are being given away, within a
    /// bound, and lets a shutdown go on as soon as nothing is held.
    fn go(&mut self, now: Instant) {
        let Some(going) = &mut self.going else { return };
        if going.let_go {
            return;
        }
        let held = |g: &crate::core::view::GroupView| g.held != Held::No;
        if !self.core.view(now).groups.iter().any(held) {
            going.let_go = true;
            self.parts.systemd.let_go();
        } else if going.extended.is_none_or(|at| now.since(at) >= EXTEND / 3)
            && now.since(going.since) < EXTEND_MAX
        {
            going.extended = Some(now);
            self.parts.notify.extend(EXTEND);
        }
    }

    fn asked(&mut self, request: Request, by: String, reply: ReplySender) {
        match request {
            Request::View => {
                let view = Box::new(self.core.view(clock::now()));
                let daemon = DaemonView {
                    version: env!("CARGO_PKG_VERSION").into(),
                    pid: std::process::id(),
                    scheduling: self.got.scheduling.clone(),
                    memory_locked: self.got.memory_locked,
                    dropped_entries: self.parts.journal.dropped(),
                    links: self.parts.counters(),
                    wrong: self.wrong.iter().map(|w| w.line().to_string()).collect(),
                    watchdog: self.parts.watchdog.view(),
                };
                let _ = reply.try_send(Reply::View { view, daemon });
            }
            Request::Do(command) => {
                self.requests += 1;
                self.parts.asked.insert(self.requests, reply);
                self.happen(Event::Asked { request: self.requests, by, command });
            }
            Request::Reload => self.reload(Some(reply)),
        }
    }
}
