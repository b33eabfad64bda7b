//! Leases on a shared disk: Debian's sanlock, a daemon for each node of the test, and the table
//! beside it on one loop device, over a file system that can be frozen.

use super::{A, B, LIMIT, PATIENCE, TERM, epoch, granted, not_its_turn, refused, unknown};
use crate::space::sh;
use hafailover::config::arbiter::sanlock::Settings;
use hafailover::core::name::{GroupName, NodeId};
use hafailover::core::{LeaseAnswer, LeaseVerb};
use hafailover::io::arbiter::sanlock::format::format;
use hafailover::io::arbiter::sanlock::{Host, Sanlock};
use hafailover::io::arbiter::{self, Arbiter, Question};
use hafailover::wire::keys::Keys;
use hafailover::wire::table::Header;
use rustix::process::{Pid, Signal, kill_process};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Barrier;
use std::time::{Duration, Instant};

const IO_TIMEOUT: u32 = 1;
const PROGRAM: &str = env!("CARGO_BIN_EXE_hafailover");

fn header() -> Header {
    let nodes = ["n1", "n2", "n3"].map(String::from).to_vec();
    Header { id: [5; 16], cluster: "office".into(), nodes }
}

/// A disk, and a sanlock of each node.
struct Shared {
    dir: tempfile::TempDir,
    device: PathBuf,
    daemons: Vec<Option<Child>>,
}

impl Shared {
    fn new(nodes: usize) -> Shared {
        Shared::of(nodes, 512)
    }

    fn of(nodes: usize, sector: usize) -> Shared {
        let dir = tempfile::tempdir().expect("a directory");
        let at = dir.path().display();
        let made = sh(&format!(
            "truncate -s 64M {at}/image && mkfs.ext4 -q -F {at}/image && mkdir {at}/fs && \
             mount -o loop {at}/image {at}/fs && truncate -s 20M {at}/fs/disk && \
             losetup -f --show --sector-size {sector} {at}/fs/disk"
        ));
        let mut shared = Shared { device: made.trim().into(), dir, daemons: Vec::new() };
        format(&shared.settings(), &header(), false).expect("formatted");
        for n in 0..nodes {
            shared.daemons.push(None);
            shared.start(n);
        }
        shared
    }

    fn settings(&self) -> Settings {
        Settings { device: self.device.clone(), io_timeout: IO_TIMEOUT }
    }

    fn run_dir(&self, n: usize) -> PathBuf {
        self.dir.path().join(format!("run{n}"))
    }

    /// Its name stays: it comes back into the lockspace at once.
    fn start(&mut self, n: usize) {
        let dir = self.run_dir(n);
        let _ = std::fs::create_dir(&dir);
        let _ = std::fs::remove_file(dir.join("sanlock.sock"));
        let mut daemon = Command::new("setpriv");
        daemon.args(["--pdeathsig", "KILL", "sanlock", "daemon", "-D", "-w", "0", "-l", "0"]);
        daemon.args(["-U", "root", "-G", "root", "-e", &format!("n{n}")]);
        // It raises limits otherwise, which not every root may.
        daemon.env("SANLOCK_RUN_DIR", &dir).env("SANLOCK_PRIVILEGED", "0");
        let log = std::fs::File::create(self.dir.path().join(format!("log{n}"))).expect("a log");
        daemon.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.daemons[n] = Some(daemon.spawn().expect("sanlock: tests/lab/prepare.sh"));
        until("sanlock to answer", || {
            let out = self.client(n, &["status", "-D"]);
            out.contains("our_host_name=").then_some(())
        });
    }

    fn client(&self, n: usize, words: &[&str]) -> String {
        let mut client = Command::new("sanlock");
        client.arg("client").args(words).env("SANLOCK_RUN_DIR", self.run_dir(n));
        String::from_utf8_lossy(&client.output().expect("runs").stdout).into_owned()
    }

    fn kill(&mut self, n: usize) {
        let mut child = self.daemons[n].take().expect("it runs");
        child.kill().expect("killed");
        child.wait().expect("gone");
    }

    fn signal(&self, n: usize, signal: Signal) {
        let child = self.daemons[n].as_ref().expect("it runs");
        kill_process(Pid::from_child(child), signal).expect("sent");
    }

    /// What is written no longer comes back.
    fn hang(&self) {
        sh(&format!("fsfreeze -f {}/fs", self.dir.path().display()));
    }

    fn answer(&self) {
        sh(&format!("fsfreeze -u {}/fs", self.dir.path().display()));
    }

    fn asker(&self, n: usize) -> Asker {
        self.asker_on(n, n)
    }

    /// As that node, on the machine of another.
    fn asker_on(&self, n: usize, machine: usize) -> Asker {
        let asker = arbiter::Asker {
            cluster: "office".into(),
            node: format!("n{}", n + 1),
            nodes: header().nodes,
            keys: Keys::of(&[(1, [3; 32])], 1),
        };
        let host = Host {
            program: PROGRAM.into(),
            lock: self.dir.path().join(format!("lock{machine}")),
            run_dir: Some(self.run_dir(machine)),
        };
        let question = Question {
            cluster: "office".into(),
            group: GroupName("files".into()),
            epoch: epoch(0, A),
            verb: LeaseVerb::Acquire,
            term: TERM,
            limit: LIMIT,
        };
        Asker { sanlock: Sanlock::new(&self.settings(), &asker, host), n, question }
    }

    /// All nodes in the lockspace.
    fn joined(&self) -> Vec<Asker> {
        let mut all: Vec<Asker> = (0..self.daemons.len()).map(|n| self.asker(n)).collect();
        until("all to join", || {
            all.iter_mut().for_each(|a| a.sanlock.tend());
            (0..all.len()).all(|n| self.is_joined(n)).then_some(())
        });
        all
    }

    fn is_joined(&self, n: usize) -> bool {
        let at = format!("office:{}:{}:0", n + 1, self.device.display());
        self.client(n, &["inq_lockspace", "-s", &at]).contains("done 0")
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let (at, device) = (self.dir.path().display(), self.device.display());
        let thaw = format!("fsfreeze -u {at}/fs 2>/dev/null");
        let _ = Command::new("sh").args(["-c", &thaw]).status();
        for mut child in self.daemons.iter_mut().filter_map(Option::take) {
            let _ = child.kill();
            let _ = child.wait();
        }
        // A process that was left behind may have it open for a moment yet.
        let end = format!("losetup -d {device}; umount -l {at}/fs");
        let _ = Command::new("sh").args(["-c", &end]).status();
    }
}

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "waited in vain for {what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

struct Asker {
    sanlock: Sanlock,
    n: usize,
    question: Question,
}

impl Asker {
    fn ask(&mut self, verb: LeaseVerb, counter: u64) -> LeaseAnswer {
        let asked = Instant::now();
        let epoch = epoch(counter, NodeId(self.n as u8));
        let answer = self.sanlock.ask(&Question { verb, epoch, ..self.question.clone() });
        assert!(asked.elapsed() < self.question.limit, "late by {:?}: {answer:?}", asked.elapsed());
        answer
    }

    fn acquire(&mut self, counter: u64) -> LeaseAnswer {
        self.ask(LeaseVerb::Acquire, counter)
    }

    fn renew(&mut self, counter: u64) -> LeaseAnswer {
        self.ask(LeaseVerb::Renew, counter)
    }

    fn release(&mut self, counter: u64) -> LeaseAnswer {
        self.ask(LeaseVerb::Release, counter)
    }

    /// Until it is granted.
    fn gets(&mut self, verb: LeaseVerb, counter: u64) -> Duration {
        let since = Instant::now();
        until("a grant", || {
            self.sanlock.tend();
            (self.ask(verb, counter) == LeaseAnswer::Granted).then_some(())
        });
        since.elapsed()
    }
}

fn pair(all: &mut [Asker]) -> (&mut Asker, &mut Asker) {
    let (a, b) = all.split_at_mut(1);
    (&mut a[0], &mut b[0])
}

/// Goal: one holder, by one epoch; epochs only grow.
#[test]
fn one_holder_by_an_epoch_that_is_never_used_again() {
    let shared = Shared::new(2);
    let mut all = shared.joined();
    let (a, b) = pair(&mut all);
    refused(a.renew(1), "does not have the lease");
    let asked = Instant::now();
    granted(a.acquire(1));
    println!("a claim takes {:?}", asked.elapsed());
    granted(a.acquire(1));
    let asked = Instant::now();
    granted(a.renew(1));
    println!("a renewal takes {:?}", asked.elapsed());
    refused(b.acquire(2), "n1 has it by epoch 1");
    refused(b.renew(2), "does not have the lease");
    refused(a.acquire(2), "n1 has it by epoch 1");
    granted(a.release(1));
    granted(a.release(1));
    refused(a.renew(1), "does not have the lease");
    refused(a.acquire(1), "n1 had epoch 1.0 before");
    refused(b.acquire(1), "n1 had epoch 1.0 before");
    granted(b.acquire(2));
    refused(a.renew(1), "does not have the lease");
    granted(a.release(1));
    granted(b.renew(2));
    granted(b.release(2));
    // Of equal counters the node earlier in the list is the higher; nine is below ten.
    granted(a.acquire(2));
    granted(a.release(2));
    granted(b.acquire(10));
    granted(b.release(10));
    refused(b.acquire(9), "n2 had epoch 10.1 before");
    match a.acquire(3) {
        LeaseAnswer::Refused { top, .. } => assert_eq!(top, Some(epoch(10, B))),
        other => panic!("{other:?}"),
    }
    // Groups have nothing to do with each other: more than are read at one stroke.
    for n in 0..40 {
        a.question.group = GroupName(format!("group{n}"));
        granted(a.acquire(1));
    }
    b.question.group = GroupName("group39".into());
    refused(b.acquire(2), "n1 has it by epoch 1");
    b.question.group = GroupName("group40".into());
    granted(b.acquire(1));
}

/// Goal: what nobody renews ends when it stood there for the term as this node knows it, and not
/// before; a renewal is seen.
#[test]
fn a_lease_runs_out_by_itself() {
    let shared = Shared::new(2);
    let mut all = shared.joined();
    let (a, b) = pair(&mut all);
    granted(a.acquire(1));
    refused(b.acquire(2), "has it");
    let until_renewed = Instant::now() + TERM;
    while Instant::now() < until_renewed {
        granted(a.renew(1));
        refused(b.acquire(2), "has it");
    }
    let since = Instant::now();
    let took = b.gets(LeaseVerb::Acquire, 2);
    assert!(took > TERM - LIMIT && since.elapsed() < TERM * 2, "after {took:?}");
    println!("had after {took:?}, of {TERM:?}");
    refused(a.renew(1), "n2 has it by epoch 2");
    refused(a.acquire(1), "n2 has it by epoch 2");
    // Whoever comes later waits as long.
    let mut late = shared.asker(0);
    refused(late.acquire(3), "has it by epoch");
    assert!(late.gets(LeaseVerb::Acquire, 3) > TERM / 2);
}

/// Goal: who asks nothing knows all the same since when a block stands there.
#[test]
fn a_node_that_only_watches_claims_at_once() {
    let shared = Shared::new(2);
    let mut all = shared.joined();
    let (a, b) = pair(&mut all);
    granted(a.acquire(1));
    let since = Instant::now();
    while since.elapsed() < TERM + Duration::from_secs(3) {
        b.sanlock.tend();
        std::thread::park_timeout(Duration::from_millis(50));
    }
    granted(b.acquire(2));
}

/// Goal: of three that ask at the same moment one gets it, every time.
#[test]
fn three_race_and_one_wins() {
    let shared = Shared::new(3);
    let mut all = shared.joined();
    let barrier = Barrier::new(3);
    // Who fails here would be waited for by the others: judged afterwards.
    let run = |asker: &mut Asker| {
        // One after the other, on a machine that may be busy.
        asker.question.limit = PATIENCE;
        let mut answers = Vec::new();
        for counter in 1..=20 {
            barrier.wait();
            let answer = asker.acquire(counter);
            barrier.wait();
            let won = answer == LeaseAnswer::Granted;
            answers.push((counter, answer, won.then(|| asker.release(counter))));
            barrier.wait();
        }
        answers
    };
    let answers: Vec<_> = std::thread::scope(|scope| {
        let run = &run;
        let all: Vec<_> = all.iter_mut().map(|a| scope.spawn(move || run(a))).collect();
        all.into_iter().map(|t| t.join().expect("no panic")).collect()
    });
    let judge = |(counter, answer, released): (u64, LeaseAnswer, Option<LeaseAnswer>)| {
        assert!(!matches!(answer, LeaseAnswer::Unknown(_)), "{answer:?}");
        released.map(granted).map(|()| counter)
    };
    let judge = |all: Vec<_>| all.into_iter().filter_map(judge).collect();
    let won: Vec<Vec<u64>> = answers.into_iter().map(judge).collect();
    println!("won: {won:?}");
    let mut every = won.concat();
    every.sort_unstable();
    assert_eq!(every, (1..=20).collect::<Vec<u64>>());
    assert!(won.iter().all(|w| w.len() < 20), "no race");
}

/// Goal: a device that hangs is "unknown" in time, nothing is asked beside what still waits for it,
/// and what was written late changes nothing for anybody.
#[test]
fn a_device_that_hangs_and_answers() {
    let shared = Shared::new(2);
    let mut all = shared.joined();
    let (a, b) = pair(&mut all);
    granted(a.acquire(1));
    shared.hang();
    unknown(a.renew(1), "has not answered for");
    unknown(a.renew(1), "an earlier question still waits for the device");
    unknown(a.release(1), "an earlier question still waits for the device");
    // Another daemon of the same node, as after a restart.
    let mut next = shared.asker(0);
    unknown(next.renew(1), "an earlier question still waits for the device");
    shared.answer();
    a.gets(LeaseVerb::Renew, 1);
    refused(b.acquire(2), "n1 has it by epoch 1");
    shared.hang();
    unknown(a.release(1), "has not answered for");
    shared.answer();
    next.gets(LeaseVerb::Release, 1);
    let took = b.gets(LeaseVerb::Acquire, 2);
    println!("claimed {took:?} after the device answered");
}

/// Goal: without sanlock nothing is claimed, and what is held is renewed; it joins again by itself.
#[test]
fn sanlock_dies_freezes_and_comes_back() {
    let mut shared = Shared::new(2);
    let mut all = shared.joined();
    let (a, b) = pair(&mut all);
    granted(a.acquire(1));
    shared.kill(0);
    granted(a.renew(1));
    // As a daemon that was restarted.
    granted(a.acquire(1));
    granted(a.release(1));
    unknown(a.acquire(2), "its daemon does not run");
    shared.start(0);
    println!("claims {:?} after sanlock came back", a.gets(LeaseVerb::Acquire, 2));
    granted(a.renew(2));
    granted(a.release(2));
    // sanlock gives the turn back a moment after the claim.
    println!("the next node claims after {:?}", b.gets(LeaseVerb::Acquire, 3));
    granted(b.release(3));
    shared.signal(0, Signal::STOP);
    unknown(a.acquire(4), "has not given the turn");
    granted(b.acquire(4));
    granted(b.renew(4));
    shared.signal(0, Signal::CONT);
    granted(b.release(4));
    a.gets(LeaseVerb::Acquire, 5);
}

/// Goal: a node that dies in its turn costs sanlock's time for a dead node, as `check` says it, and
/// no renewal.
#[test]
fn a_holder_dies_in_its_turn() {
    let mut shared = Shared::new(2);
    let mut all = shared.joined();
    let (_, b) = pair(&mut all);
    granted(b.acquire(1));
    let turn = format!("office:turn:{}:1048576", shared.device.display());
    let mut holder = Command::new("sanlock");
    let says = format!("echo here; exec cat {}/fifo", shared.dir.path().display());
    sh(&format!("mkfifo {}/fifo", shared.dir.path().display()));
    holder.args(["client", "command", "-r", &turn, "-c", "/bin/sh", "-c", &says]);
    holder.env("SANLOCK_RUN_DIR", shared.run_dir(0)).stdout(Stdio::piped());
    let mut holder = holder.spawn().expect("runs");
    let mut line = String::new();
    let mut lines = std::io::BufReader::new(holder.stdout.take().expect("piped"));
    std::io::BufRead::read_line(&mut lines, &mut line).expect("it has the turn");
    b.question.group = GroupName("web".into());
    not_its_turn(b.acquire(1));
    shared.kill(0);
    let since = Instant::now();
    holder.kill().expect("killed");
    holder.wait().expect("gone");
    let dead = shared.settings().dead();
    let files = GroupName("files".into());
    loop {
        b.question.group = files.clone();
        granted(b.renew(1));
        b.question.group = GroupName("web".into());
        match b.acquire(1) {
            LeaseAnswer::Granted => break,
            other => not_its_turn(other),
        }
        assert!(since.elapsed() < dead * 2, "still nobody's");
    }
    println!("the turn was free {:?} after its holder's death, {dead:?} was said", since.elapsed());
    assert!(since.elapsed() + Duration::from_secs(3) > dead, "{:?}", since.elapsed());
    assert!(since.elapsed() < dead + Duration::from_secs(10), "{:?}", since.elapsed());
}

/// Goal: two machines that are configured as the same node are told, and only one claims.
#[test]
fn a_place_taken_twice_is_told() {
    let shared = Shared::new(2);
    let (mut a, mut clone) = (shared.asker_on(0, 0), shared.asker_on(0, 1));
    a.gets(LeaseVerb::Acquire, 1);
    granted(a.release(1));
    // sanlock waits for as long as for a dead node, whether that one is alive.
    let since = Instant::now();
    let words = loop {
        clone.sanlock.tend();
        match clone.acquire(2) {
            LeaseAnswer::Refused { why, .. } if why.contains("another machine") => break why,
            LeaseAnswer::Refused { why, .. } => assert!(why.contains("lockspace"), "{why}"),
            other => panic!("{other:?}"),
        }
        assert!(since.elapsed() < shared.settings().dead() * 2, "never told");
        std::thread::park_timeout(Duration::from_millis(100));
    };
    println!("after {:?}: {words}", since.elapsed());
    granted(a.acquire(2));
}

/// Goal: what is not this cluster's is not written to, and sectors of 4096 bytes are as good.
#[test]
fn other_disks_and_large_sectors() {
    let shared = Shared::of(1, 4096);
    let mut all = shared.joined();
    granted(all[0].acquire(1));
    granted(all[0].renew(1));
    let again = format(&shared.settings(), &header(), false).expect_err("formatted already");
    assert!(again.contains("leases of cluster office for n1, n2, n3 already"), "{again}");
    let home = Header { cluster: "home".into(), ..header() };
    let other = format(&shared.settings(), &home, true).expect_err("leases of office");
    assert!(other.contains("leases of cluster office for n1, n2, n3, not of home"), "{other}");
    let used = std::thread::scope(|scope| {
        let forced = scope.spawn(|| format(&shared.settings(), &header(), true));
        while !forced.is_finished() {
            granted(all[0].renew(1));
        }
        forced.join().expect("no panic").expect_err("in use")
    });
    assert!(used.contains("node n1 uses it now: nothing was written"), "{used}");
    granted(all[0].renew(1));
    format(&shared.settings(), &header(), true).expect("nobody renews");
    refused(all[0].renew(1), "does not have the lease");
    sh(&format!("dd if=/dev/zero of={} bs=1M count=20 conv=fsync", shared.device.display()));
    unknown(all[0].renew(1), "it is not formatted for leases");
}
