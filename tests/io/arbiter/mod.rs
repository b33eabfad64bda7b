//! Back ends of the arbiter against the real thing: Debian's etcd, three members on loopback
//! addresses of the test's own, started, stopped and killed by the test.

mod access;
mod faults;
mod grants;
mod interleave;
mod partition;
mod proxy;
mod sanlock;
mod wires;

use hafailover::config::arbiter::etcd::Settings;
use hafailover::core::name::{Epoch, GroupName, NodeId};
use hafailover::core::{LeaseAnswer, LeaseVerb};
use hafailover::io::arbiter::etcd::Etcd;
use hafailover::io::arbiter::{Arbiter, Question};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use wires::Wires;

static COUNT: AtomicU32 = AtomicU32::new(0);
/// The port at which a member hears the others.
const PEERS: u16 = 2380;
/// Longest wait for anything.
pub const PATIENCE: Duration = Duration::from_secs(30);
pub const TERM: Duration = Duration::from_secs(4);
pub const LIMIT: Duration = Duration::from_secs(2);

/// The nodes of the cluster that asks.
pub const A: NodeId = NodeId(0);
pub const B: NodeId = NodeId(1);

pub fn epoch(counter: u64, node: NodeId) -> Epoch {
    Epoch { counter, node }
}

/// An etcd of several members.
pub struct Members {
    pub dir: tempfile::TempDir,
    hosts: Vec<String>,
    /// Where the members look for each other.
    peers: Vec<String>,
    scheme: &'static str,
    options: Vec<String>,
    running: Vec<Option<Child>>,
    /// What `etcdctl` needs to get in.
    pub login: Vec<String>,
}

impl Members {
    pub fn start(count: usize) -> Members {
        Members::with(count, "http", |_| Vec::new())
    }

    /// Options as `files` makes them, below the directory of this etcd.
    pub fn with(
        count: usize,
        scheme: &'static str,
        files: impl FnOnce(&Members) -> Vec<String>,
    ) -> Members {
        let mut members = Members::new(count, scheme);
        members.options = files(&members);
        members.begin();
        members
    }

    /// Members that hear each other through these wires only.
    pub fn wired(count: usize) -> (Members, Wires) {
        let mut members = Members::new(count, "http");
        let wires = Wires::before(&members.hosts, PEERS);
        members.peers = wires.urls().to_vec();
        members.begin();
        (members, wires)
    }

    fn new(count: usize, scheme: &'static str) -> Members {
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let pid = std::process::id();
        // All of 127/8 is this machine's: a network for each process and each etcd of it.
        let net = format!("127.{}.{}", 16 + pid % 200, (pid / 200 + n * 7) % 256);
        let hosts: Vec<String> = (1..=count).map(|m| format!("{net}.{m}")).collect();
        Members {
            dir: tempfile::tempdir().expect("a directory"),
            peers: hosts.iter().map(|host| format!("http://{host}:{PEERS}")).collect(),
            hosts,
            scheme,
            options: Vec::new(),
            running: (0..count).map(|_| None).collect(),
            login: Vec::new(),
        }
    }

    fn begin(&mut self) {
        let all: Vec<usize> = (0..self.hosts.len()).collect();
        self.restart(&all);
    }

    pub fn host(&self, member: usize) -> &str {
        &self.hosts[member]
    }

    pub fn endpoint(&self, member: usize) -> String {
        format!("{}://{}:2379", self.scheme, self.hosts[member])
    }

    /// etcd says READY=1 once it is in its cluster and serves.
    fn spawn(&mut self, member: usize) -> UnixDatagram {
        let at = |name: &str| self.dir.path().join(format!("{name}{member}"));
        let _ = std::fs::remove_file(at("notify"));
        let socket = UnixDatagram::bind(at("notify")).expect("bound");
        socket.set_read_timeout(Some(PATIENCE)).expect("set");
        let all: Vec<String> =
            self.peers.iter().enumerate().map(|(m, url)| format!("m{m}={url}")).collect();
        let listen = format!("http://{}:{PEERS}", self.hosts[member]);
        let log = std::fs::File::options().append(true).create(true).open(at("log")).expect("log");
        let mut etcd = Command::new("setpriv");
        etcd.args(["--pdeathsig", "KILL", "etcd", "--name", &format!("m{member}")]);
        etcd.args(["--listen-client-urls", &self.endpoint(member)]);
        etcd.args(["--advertise-client-urls", &self.endpoint(member)]);
        etcd.args(["--listen-peer-urls", &listen]);
        etcd.args(["--initial-advertise-peer-urls", &self.peers[member]]);
        etcd.args(["--initial-cluster", &all.join(","), "--data-dir"]).arg(at("data"));
        etcd.args(["--heartbeat-interval", "100", "--election-timeout", "1000"]);
        etcd.args(&self.options).env("NOTIFY_SOCKET", at("notify"));
        let child = etcd.stdin(Stdio::null()).stdout(log.try_clone().expect("log")).stderr(log);
        self.running[member] = Some(child.spawn().expect("etcd: tests/lab/prepare.sh"));
        socket
    }

    fn awaited(&self, socket: &UnixDatagram) {
        let mut said = [0; 256];
        if socket.recv(&mut said).is_err() {
            let log = std::fs::read_to_string(self.dir.path().join("log0")).unwrap_or_default();
            panic!("etcd is not ready:\n{log}");
        }
    }

    /// Power loss.
    pub fn kill(&mut self, member: usize) {
        let mut child = self.running[member].take().expect("it runs");
        child.kill().expect("killed");
        child.wait().expect("gone");
    }

    /// With the data it had. Waits until it serves.
    pub fn restart(&mut self, members: &[usize]) {
        let ready: Vec<UnixDatagram> = members.iter().map(|m| self.spawn(*m)).collect();
        ready.iter().for_each(|socket| self.awaited(socket));
    }

    pub fn freeze(&self, member: usize) {
        self.signal(member, Signal::STOP);
    }

    pub fn thaw(&self, member: usize) {
        self.signal(member, Signal::CONT);
    }

    fn signal(&self, member: usize, signal: Signal) {
        let child = self.running[member].as_ref().expect("it runs");
        kill_process(Pid::from_child(child), signal).expect("sent");
    }

    /// `etcdctl` at these members.
    pub fn ctl(&self, members: &[usize], command: &[&str]) -> Command {
        let endpoints: Vec<String> = members.iter().map(|m| self.endpoint(*m)).collect();
        let mut ctl = Command::new("setpriv");
        ctl.args(["--pdeathsig", "KILL", "etcdctl", "--endpoints", &endpoints.join(",")]);
        ctl.env("ETCDCTL_API", "3").args(&self.login).args(command);
        ctl
    }

    pub fn must(&self, command: &[&str]) -> String {
        let out = self.ctl(&[0], command).output().expect("etcdctl runs");
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.success(), "etcdctl {command:?}: {said}");
        String::from_utf8_lossy(&out.stdout).into_owned()
    }

    pub fn leader(&self) -> usize {
        let all: Vec<usize> = (0..self.hosts.len()).collect();
        let out = self.ctl(&all, &["endpoint", "status", "-w", "json"]).output().expect("runs");
        let all: serde_json::Value = serde_json::from_slice(&out.stdout).expect("JSON");
        let led = |m: &serde_json::Value| {
            m["Status"]["leader"] == m["Status"]["header"]["member_id"]
                && m["Status"]["leader"] != 0
        };
        let nth = all.as_array().expect("a list").iter().position(led);
        nth.expect("somebody leads")
    }

    /// Follows the keys of the cluster that asks.
    pub fn watch(&self) -> Watch {
        // From the beginning: what happens before it is heard is not missed.
        let mut ctl = self.ctl(&[0], &["watch", "--rev", "1", "--prefix", "/hafailover/"]);
        let mut child = ctl.stdout(Stdio::piped()).spawn().expect("etcdctl runs");
        let lines = BufReader::new(child.stdout.take().expect("piped"));
        Watch { child, lines }
    }

    pub fn settings(&self) -> Settings {
        Settings {
            endpoints: (0..self.hosts.len()).map(|m| self.endpoint(m)).collect(),
            prefix: "/hafailover".into(),
            ca: None,
            cert: None,
            key: None,
            user: None,
            password_file: None,
        }
    }

    pub fn asker(&self) -> Asker {
        Asker::of(&self.settings())
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        for mut child in self.running.iter_mut().filter_map(Option::take) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

pub struct Watch {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Watch {
    /// Until the key of this group's holder was put or deleted.
    pub fn until(&mut self, what: &str, key: &str) {
        let (mut line, mut before) = (String::new(), String::new());
        loop {
            line.clear();
            assert_ne!(self.lines.read_line(&mut line).expect("readable"), 0, "the watch ended");
            if before.trim() == what && line.trim().ends_with(key) {
                return;
            }
            before.clone_from(&line);
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An arbiter with the questions of one group.
pub struct Asker {
    /// By node.
    etcd: [Etcd; 2],
    pub question: Question,
}

impl Asker {
    pub fn of(settings: &Settings) -> Asker {
        let question = Question {
            cluster: "office".into(),
            group: GroupName("files".into()),
            epoch: Epoch::default(),
            verb: LeaseVerb::Acquire,
            term: TERM,
            limit: LIMIT,
        };
        Asker { etcd: ["n1", "n2"].map(|node| Etcd::new(settings, node)), question }
    }

    fn ask(&mut self, verb: LeaseVerb, epoch: Epoch) -> LeaseAnswer {
        let asked = Instant::now();
        let etcd = &mut self.etcd[usize::from(epoch.node.0)];
        let answer = etcd.ask(&Question { verb, epoch, ..self.question.clone() });
        assert!(asked.elapsed() < self.question.limit, "late by {:?}: {answer:?}", asked.elapsed());
        answer
    }

    pub fn acquire(&mut self, counter: u64, node: NodeId) -> LeaseAnswer {
        self.ask(LeaseVerb::Acquire, epoch(counter, node))
    }

    pub fn renew(&mut self, counter: u64, node: NodeId) -> LeaseAnswer {
        self.ask(LeaseVerb::Renew, epoch(counter, node))
    }

    pub fn release(&mut self, counter: u64, node: NodeId) -> LeaseAnswer {
        self.ask(LeaseVerb::Release, epoch(counter, node))
    }

    /// Renews until somebody answers; how long that took.
    pub fn renewed(&mut self, counter: u64, node: NodeId) -> Duration {
        let began = Instant::now();
        loop {
            match self.renew(counter, node) {
                LeaseAnswer::Granted => return began.elapsed(),
                LeaseAnswer::Unknown(_) if began.elapsed() < PATIENCE => {}
                other => panic!("after {:?}: {other:?}", began.elapsed()),
            }
        }
    }
}

/// Refused, for this reason.
pub fn refused(answer: LeaseAnswer, why: &str) {
    match answer {
        LeaseAnswer::Refused { why: words, .. } if words.contains(why) => {}
        other => panic!("not refused for {why:?}: {other:?}"),
    }
}

/// Not known, for this reason.
pub fn unknown(answer: LeaseAnswer, why: &str) {
    match answer {
        LeaseAnswer::Unknown(words) if words.contains(why) => {}
        other => panic!("not unknown for {why:?}: {other:?}"),
    }
}

/// As sanlock says it, or as its silence does: which comes first is a matter of when it looks.
pub fn not_its_turn(answer: LeaseAnswer) {
    match answer {
        LeaseAnswer::Refused { why, top: None } | LeaseAnswer::Unknown(why)
            if why.contains("died in it") => {}
        other => panic!("it was another's turn: {other:?}"),
    }
}

pub fn granted(answer: LeaseAnswer) {
    assert_eq!(answer, LeaseAnswer::Granted);
}
