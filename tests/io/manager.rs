//! A bus as Debian configures it and a PID 1 of the test's own on it, in a mount namespace with an
//! empty /run: just enough of org.freedesktop.systemd1(5) for one group, with its answers held
//! back where a test wants that.

use crate::space::sh;
use futures_util::StreamExt;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::broadcast;
use zbus::message::Type;
use zbus::{Connection, MessageStream, ObjectPath, Variant};

pub const PATIENCE: Duration = Duration::from_secs(20);
/// The number of a job that somebody else asked for.
pub const OTHERS: u32 = 1_000_000;
const NAME: &str = "org.freedesktop.systemd1";
const MANAGER: &str = "/org/freedesktop/systemd1";

/// What a test changes while the manager runs.
#[derive(Default)]
pub struct State {
    /// `ActiveState` by unit; one that is not here does not exist.
    pub units: BTreeMap<String, String>,
    /// By their aliases, the names of units.
    pub aliases: BTreeMap<String, String>,
    /// `After` by unit.
    pub after: BTreeMap<String, Vec<String>>,
    /// `BindsTo` by unit.
    pub binds_to: BTreeMap<String, Vec<String>>,
    /// `ActiveEnterTimestampMonotonic` by unit.
    pub entered: BTreeMap<String, u64>,
    /// `NRestarts` by unit.
    pub restarts: BTreeMap<String, u32>,
    /// Oneshot units that start and whose commands to stop fail.
    pub undone: BTreeSet<String>,
    /// A stop of these units changes nothing.
    pub stubborn: BTreeSet<String>,
    /// So many of the next calls for a job of this unit are lost.
    pub lost: BTreeMap<String, u32>,
    /// One question about properties at a time is answered, each after so long.
    pub pace: Duration,
    turn: Arc<tokio::sync::Mutex<()>>,
    pings: Arc<tokio::sync::Mutex<()>>,
    /// The type of the job of hafailover.service and of shutdown.target, empty for none.
    pub own_job: String,
    /// So many of the next calls for this unit's properties are never answered.
    pub mute: BTreeMap<String, u32>,
    /// The next answer about this unit waits until the sender is dropped.
    pub hold: BTreeMap<String, Receiver<()>>,
    /// The next sign of life, and what comes after it, waits until the sender is dropped.
    pub hold_ping: Option<Receiver<()>>,
    /// Units that are loaded without their gates.
    pub ungated: BTreeSet<String>,
    /// At the next reset of a failure PID 1 leaves the bus for so long.
    pub leaves: Option<Duration>,
    /// Sent before the next sign of life: signals that are in only after an answer that was given
    /// later on another connection.
    pub late: Vec<Signal>,
    /// The other ends of what logind gave: `sleep block`.
    pub inhibitors: BTreeMap<String, std::io::PipeReader>,
    /// Calls in the order in which they came: `StartUnit a.service`.
    pub calls: Vec<String>,
    /// The number of the last job that was asked for by a call.
    pub jobs: u32,
}

impl State {
    /// Whether this inhibitor was given and is still held.
    pub fn inhibits(&self, which: &str) -> bool {
        let end = |mut r: &std::io::PipeReader| r.read(&mut [0]).is_ok_and(|n| n == 0);
        self.inhibitors.get(which).is_some_and(|reader| !end(reader))
    }

    /// A unit's own name.
    fn id(&self, unit: &str) -> String {
        self.aliases.get(unit).cloned().unwrap_or_else(|| unit.into())
    }

    /// The unit at an object path.
    fn at(&self, path: &str) -> Option<String> {
        let mut names = self.units.keys().chain(self.aliases.keys());
        let unit = names.find(|unit| hafailover::io::systemd::bus::unit_path(unit) == path)?;
        Some(self.id(unit))
    }
}

pub struct Manager {
    pub state: Arc<Mutex<State>>,
    emit: broadcast::Sender<Signal>,
    bus: Child,
}

#[derive(Clone, Debug)]
pub enum Signal {
    Changed(String),
    /// A job that somebody asked for is done.
    Done(String),
    /// The same of the job with this number.
    Job(u32, String),
    Reloads,
    Reloaded,
    UnitFiles,
}

impl Manager {
    /// Moves this thread into a mount namespace and starts both there.
    pub fn start() -> Manager {
        Manager::with(&[NAME, "org.freedesktop.login1"])
    }

    /// The same, under these names.
    pub fn with(names: &'static [&'static str]) -> Manager {
        // SAFETY: only this thread, which shares nothing of its file system view with others after.
        unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }
            .expect("root");
        sh("mount --make-rprivate / && mount -t tmpfs tmpfs /run && mkdir -p /run/dbus");
        let mut bus = Command::new("dbus-daemon");
        bus.args(["--system", "--nofork", "--nopidfile", "--nosyslog"]).stderr(Stdio::null());
        let bus = bus.spawn().expect("dbus is installed: tests/lab/prepare.sh");
        let state: Arc<Mutex<State>> = Arc::default();
        let (emit, _) = broadcast::channel(64);
        let (ready, is_ready) = channel();
        let (mine, signals) = (state.clone(), emit.clone());
        std::thread::spawn(move || run(async { serve(mine, names, signals, ready).await }));
        is_ready.recv_timeout(PATIENCE).expect("the manager is on the bus");
        Manager { state, emit, bus }
    }

    pub fn set(&self, unit: &str, active: &str) {
        self.state.lock().expect("whole").units.insert(unit.into(), active.into());
    }

    pub fn emit(&self, signal: Signal) {
        assert!(self.emit.send(signal).is_ok(), "the manager runs");
    }

    /// The next answer about this unit waits until the sender is dropped.
    pub fn hold(&self, unit: &str) -> Sender<()> {
        let (release, held) = channel();
        self.state.lock().expect("whole").hold.insert(unit.into(), held);
        release
    }

    pub fn until(&self, what: &str, done: impl Fn(&State) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !done(&self.state.lock().expect("whole")) {
            assert!(Instant::now() < end, "{what} does not happen");
            std::thread::yield_now();
        }
    }

    /// Somebody else is where the bus was.
    pub fn replace_bus(&mut self) -> std::os::unix::net::UnixListener {
        const PATH: &str = "/run/dbus/system_bus_socket";
        self.bus.kill().expect("it ran");
        self.bus.wait().expect("it ended");
        std::fs::remove_file(PATH).expect("it was there");
        std::os::unix::net::UnixListener::bind(PATH).expect("bound")
    }

    /// The bus stands still, or runs again.
    pub fn freeze(&self, on: bool) {
        let pid = rustix::process::Pid::from_child(&self.bus);
        let signal = if on { rustix::process::Signal::STOP } else { rustix::process::Signal::CONT };
        rustix::process::kill_process(pid, signal).expect("it runs");
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        let _ = self.bus.kill();
        let _ = self.bus.wait();
    }
}

/// Runs it on this thread.
pub fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    tokio::task::LocalSet::new().block_on(&runtime.expect("a runtime"), work)
}

async fn connect() -> Connection {
    let end = Instant::now() + PATIENCE;
    loop {
        match Connection::system().await {
            Ok(bus) => return bus,
            Err(e) => assert!(Instant::now() < end, "the bus: {e}"),
        }
        tokio::task::yield_now().await;
    }
}

async fn serve(
    state: Arc<Mutex<State>>,
    names: &[&'static str],
    signals: broadcast::Sender<Signal>,
    ready: Sender<()>,
) {
    let bus = connect().await;
    let calls = MessageStream::from(bus.clone());
    for name in names {
        bus.request_name(*name).await.expect("root may");
    }
    std::fs::create_dir_all("/run/systemd").expect("made");
    let listener = tokio::net::UnixListener::bind("/run/systemd/private").expect("bound");
    let mine = signals.subscribe();
    let private = tokio::task::spawn_local(private(listener, state.clone(), signals));
    ready.send(()).expect("the test waits");
    listen(bus, state, calls, mine).await;
    // Without a bus PID 1 goes on.
    let _ = private.await;
}

/// The socket of PID 1's own, without a bus.
async fn private(
    listener: tokio::net::UnixListener,
    state: Arc<Mutex<State>>,
    signals: broadcast::Sender<Signal>,
) {
    while let Ok((stream, _)) = listener.accept().await {
        let stream = stream.into_std().expect("a socket");
        let guid = zbus::Guid::generate();
        let server = zbus::connection::Builder::unix_stream(stream).server(guid);
        let (state, signals) = (state.clone(), signals.subscribe());
        tokio::task::spawn_local(async move {
            let Ok(bus) = server.p2p().build().await else { return };
            let calls = MessageStream::from(bus.clone());
            listen(bus, state, calls, signals).await;
        });
    }
}

async fn listen(
    bus: Connection,
    state: Arc<Mutex<State>>,
    mut calls: MessageStream,
    mut signals: broadcast::Receiver<Signal>,
) {
    loop {
        tokio::select! {
            call = calls.next() => match call {
                Some(Ok(call)) if call.message_type() == Type::MethodCall => {
                    tokio::task::spawn_local(answer(bus.clone(), state.clone(), call));
                }
                Some(Ok(_)) => {}
                _ => return,
            },
            signal = signals.recv() => match signal {
                Ok(signal) => emit(&bus, signal).await,
                Err(_) => return,
            },
        }
    }
}

async fn emit(bus: &Connection, signal: Signal) {
    let nobody = None::<&str>;
    let manager = "org.freedesktop.systemd1.Manager";
    let sent = match signal {
        Signal::Reloads => bus.emit_signal(nobody, MANAGER, manager, "Reloading", &(true,)).await,
        Signal::Reloaded => bus.emit_signal(nobody, MANAGER, manager, "Reloading", &(false,)).await,
        Signal::UnitFiles => {
            bus.emit_signal(nobody, MANAGER, manager, "UnitFilesChanged", &()).await
        }
        Signal::Done(unit) => return Box::pin(emit(bus, Signal::Job(OTHERS, unit))).await,
        Signal::Job(id, unit) => {
            let path = ObjectPath::try_from(format!("{MANAGER}/job/{id}")).expect("a path");
            let job = (id, path, unit.as_str(), "done");
            bus.emit_signal(nobody, MANAGER, manager, "JobRemoved", &job).await
        }
        Signal::Changed(unit) => {
            let path = hafailover::io::systemd::bus::unit_path(&unit);
            let properties = "org.freedesktop.DBus.Properties";
            let none: (&str, HashMap<&str, Variant>, Vec<&str>) =
                ("org.freedesktop.systemd1.Unit", HashMap::new(), Vec::new());
            bus.emit_signal(nobody, path, properties, "PropertiesChanged", &none).await
        }
    };
    // Whoever went away misses it.
    let _ = sent;
}

async fn answer(bus: Connection, state: Arc<Mutex<State>>, call: zbus::Message) {
    let header = call.header();
    let member = header.member().map(|m| m.to_string()).unwrap_or_default();
    let path = header.path().map(|p| p.to_string()).unwrap_or_default();
    let _ = match member.as_str() {
        "GetAll" if path.contains("/job/") => {
            let kind = state.lock().expect("whole").own_job.clone();
            bus.reply(&header, &HashMap::from([("JobType", Variant::from(kind))])).await
        }
        "GetAll" => {
            in_turn(&state).await;
            let kind: String = call.body().deserialize().expect("an interface");
            if kind.ends_with(".Unit") {
                return properties(&bus, &state, &header, &path).await;
            }
            let restarts = {
                let state = state.lock().expect("whole");
                state.at(&path).and_then(|unit| state.restarts.get(&unit).copied())
            };
            let undone = {
                let state = state.lock().expect("whole");
                state.at(&path).is_some_and(|unit| state.undone.contains(&unit))
            };
            let result = if undone { "exit-code" } else { "success" };
            let own: HashMap<&str, Variant> = HashMap::from([
                ("Result", Variant::from(result)),
                ("NRestarts", Variant::from(restarts.unwrap_or_default())),
                ("Type", Variant::from(if undone { "oneshot" } else { "simple" })),
                ("ExecMainCode", Variant::from(i32::from(undone))),
                ("ExecMainStatus", Variant::from(0i32)),
            ]);
            bus.reply(&header, &own).await
        }
        "ListUnitsByNames" => {
            let (names,): (Vec<String>,) = call.body().deserialize().expect("names");
            let list: Vec<_> = names.iter().map(|unit| listed(&state, unit)).collect();
            bus.reply(&header, &list).await
        }
        "Ping" => {
            sign_of_life(&bus, &state).await;
            bus.reply(&header, &()).await
        }
        "Inhibit" => {
            let (what, _, _, mode): (String, String, String, String) =
                call.body().deserialize().expect("four words");
            let end = inhibitor(&state, format!("{what} {mode}"));
            bus.reply(&header, &zbus::OwnedFd::from(end)).await
        }
        "StartUnit" | "StopUnit" | "ReloadUnit" => {
            let (unit, _): (String, String) = call.body().deserialize().expect("unit and mode");
            let Some(job) = job(&state, &member, &unit) else { return };
            let _ = bus.reply(&header, &ObjectPath::try_from(job).expect("a path")).await;
            return emit(&bus, Signal::Changed(unit)).await;
        }
        "ResetFailedUnit" => {
            let leaves = state.lock().expect("whole").leaves.take();
            if let Some(away) = leaves {
                bus.release_name(NAME).await.expect("it was ours");
                tokio::task::spawn_local(come_back(bus.clone(), away));
            }
            bus.reply(&header, &()).await
        }
        _ => bus.reply(&header, &()).await,
    };
}

type Path = ObjectPath<'static>;
type Listed = (String, String, String, String, String, String, Path, u32, String, Path);

/// As ListUnitsByNames has it.
fn listed(state: &Mutex<State>, unit: &str) -> Listed {
    let state = state.lock().expect("whole");
    let unit = state.id(unit);
    let active = state.units.get(&unit).cloned();
    let load = if active.is_some() { "loaded" } else { "not-found" }.to_string();
    let active = active.unwrap_or_else(|| "inactive".into());
    let (none, path) = (String::new, || ObjectPath::try_from("/").expect("a path"));
    (unit, none(), load, active, none(), none(), path(), 0, none(), path())
}

/// Tells what is late, and waits where a test wants that.
async fn sign_of_life(bus: &Connection, state: &Mutex<State>) {
    let pings = state.lock().expect("whole").pings.clone();
    let _mine = pings.lock().await;
    let held = state.lock().expect("whole").hold_ping.take();
    if let Some(held) = held {
        let _ = tokio::task::spawn_blocking(move || held.recv()).await;
    }
    let late = std::mem::take(&mut state.lock().expect("whole").late);
    for signal in late {
        emit(bus, signal).await;
    }
}

async fn come_back(bus: Connection, away: Duration) {
    tokio::time::sleep(away).await;
    bus.request_name(NAME).await.expect("root may");
}

/// What logind gives, and keeps the other end of.
fn inhibitor(state: &Mutex<State>, which: String) -> std::os::fd::OwnedFd {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    rustix::io::ioctl_fionbio(&reader, true).expect("a pipe can");
    state.lock().expect("whole").inhibitors.insert(which, reader);
    writer.into()
}

/// Waits until the questions before this one are answered.
async fn in_turn(state: &Mutex<State>) {
    let (turn, pace) = {
        let state = state.lock().expect("whole");
        (state.turn.clone(), state.pace)
    };
    if !pace.is_zero() {
        let _mine = turn.lock().await;
        tokio::time::sleep(pace).await;
    }
}

/// Does what a call for a job asks, at once; the path of the job, or nothing if the call is lost.
fn job(state: &Mutex<State>, call: &str, unit: &str) -> Option<String> {
    let mut state = state.lock().expect("whole");
    state.calls.push(format!("{call} {unit}"));
    if let Some(left) = state.lost.get_mut(unit).filter(|left| **left > 0) {
        *left -= 1;
        return None;
    }
    let up = call != "StopUnit" || state.stubborn.contains(unit);
    let now = match (up, state.undone.contains(unit)) {
        (true, _) => "active",
        (false, true) => "failed",
        (false, false) => "inactive",
    };
    let id = state.id(unit);
    state.units.insert(id, now.into());
    state.jobs += 1;
    Some(format!("{MANAGER}/job/{}", state.jobs))
}

async fn properties(
    bus: &Connection,
    state: &Mutex<State>,
    header: &zbus::message::Header<'_>,
    path: &str,
) {
    let own = path == hafailover::io::systemd::bus::unit_path("hafailover.service");
    let found = {
        let mut state = state.lock().expect("whole");
        let own_unit = own.then(|| "hafailover.service".to_string());
        let unit = own_unit.or_else(|| state.at(path));
        unit.map(|unit| {
            let mute = state.mute.get_mut(&unit).filter(|left| **left > 0);
            let mute = mute.map(|left| *left -= 1).is_some();
            let active = state.units.get(&unit).cloned().unwrap_or_default();
            let going = own || unit == "shutdown.target";
            let job = if going && !state.own_job.is_empty() { 7u32 } else { 0 };
            state.calls.push(format!("GetAll {unit}"));
            let held = state.hold.remove(&unit);
            let list = |of: &BTreeMap<_, Vec<String>>| of.get(&unit).cloned().unwrap_or_default();
            let lists = (list(&state.after), list(&state.binds_to));
            let gated = !state.ungated.contains(&unit);
            let entered = state.entered.get(&unit).copied().unwrap_or_default();
            (unit, active, job, held, mute, lists, (gated, entered))
        })
    };
    let Some((unit, active, job, held, mute, (after, binds_to), (gated, entered))) = found else {
        let _ = bus.reply(header, &HashMap::<&str, Variant>::new()).await;
        return;
    };
    if mute {
        return;
    }
    if let Some(held) = held {
        // As it was when it was asked, but late.
        let _ = tokio::task::spawn_blocking(move || held.recv()).await;
    }
    let job_path = if job == 0 { "/".into() } else { format!("{MANAGER}/job/{job}") };
    let gate = |path: &'static str| ("AssertPathExists", false, false, path, 1i32);
    let gates = ["/run/hafailover/owned/files", "/run/hafailover/owned/other"].map(gate);
    let gates = if gated { gates.to_vec() } else { Vec::new() };
    let all: HashMap<&str, Variant> = HashMap::from([
        ("Id", Variant::from(unit)),
        ("LoadState", Variant::from("loaded")),
        ("ActiveState", Variant::from(active)),
        ("SubState", Variant::from("")),
        ("After", Variant::from(after)),
        ("BindsTo", Variant::from(binds_to)),
        ("ActiveEnterTimestampMonotonic", Variant::from(entered)),
        ("Asserts", Variant::from(gates)),
        ("Job", Variant::from((job, ObjectPath::try_from(job_path).expect("a path")))),
    ]);
    let _ = bus.reply(header, &all).await;
}
