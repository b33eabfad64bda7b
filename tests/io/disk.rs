//! Slots on real loop devices: past the page cache, with sectors of 512 and 4096 bytes; torn, taken
//! away, hung, and never written to while they are not ours.

use crate::space::sh;
use hafailover::core::Event;
use hafailover::core::name::LinkId;
use hafailover::io::disk::slots::Place;
use hafailover::io::disk::{self, Plan, foreign};
use hafailover::io::{Input, link::Counters};
use hafailover::wire::disk::{BLOCK, Header, Slot};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(10);
const INTERVAL: Duration = Duration::from_millis(20);
const DEADTIME: Duration = Duration::from_millis(400);
const PROGRAM: &str = env!("CARGO_BIN_EXE_hafailover");

fn names() -> Vec<String> {
    vec!["n1".into(), "n2".into()]
}

fn header() -> Header {
    Header { id: [5; 16], cluster: "office".into(), nodes: names() }
}

/// A loop device over a file, gone with the test.
pub struct Loop {
    pub dir: tempfile::TempDir,
    pub device: PathBuf,
}

impl Loop {
    pub fn new(sector: usize) -> Loop {
        Loop::over(tempfile::tempdir().expect("a directory"), sector)
    }

    /// Over a file in that directory.
    fn over(dir: tempfile::TempDir, sector: usize) -> Loop {
        let file = dir.path().join("disk");
        let made = sh(&format!(
            "truncate -s 8M {0} && losetup -f --show --sector-size {sector} {0}",
            file.display()
        ));
        Loop { dir, device: made.trim().into() }
    }

    pub fn formatted(sector: usize) -> Loop {
        let made = Loop::new(sector);
        foreign::format(&made.device, &header(), false).expect("formatted");
        made
    }

    pub fn file(&self) -> PathBuf {
        self.dir.path().join("disk")
    }

    pub fn sum(&self) -> String {
        sh(&format!("blockdev --flushbufs {0} && sha256sum < {0}", self.device.display()))
    }

    fn slot(&self, n: u8) -> Slot {
        let at = format!("skip={} count=1 bs={BLOCK}", 1 + n);
        let raw = std::process::Command::new("dd")
            .args(["if=".to_string() + &self.device.display().to_string()])
            .args(at.split(' '))
            .args(["iflag=direct", "status=none"])
            .output()
            .expect("dd runs");
        Slot::read(&raw.stdout, &header().id, n).expect("whole").expect("written")
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = std::process::Command::new("losetup").arg("-d").arg(&self.device).status();
    }
}

/// A node's end of the link.
pub struct End {
    pub sender: disk::Sender,
    inbox: tokio::sync::mpsc::Receiver<Input>,
    runtime: tokio::runtime::Runtime,
}

fn plan(device: &Path, me: usize) -> Plan {
    let place = Place { device: device.into(), cluster: "office".into(), nodes: names() };
    Plan { place, me, interval: INTERVAL, deadtime: DEADTIME }
}

impl End {
    pub fn open(device: &Path, me: usize) -> End {
        End::of(plan(device, me))
    }

    /// Both nodes', and both can use it.
    fn pair(device: &Path) -> (End, End) {
        let (mut a, mut b) = (End::open(device, 0), End::open(device, 1));
        a.usable();
        b.usable();
        (a, b)
    }

    /// The same place, as that node.
    pub fn at(plan: &Plan, me: usize) -> End {
        End::of(Plan { me, ..plan.clone() })
    }

    fn of(plan: Plan) -> End {
        let (inbox, reports) = tokio::sync::mpsc::channel(4096);
        let counters = Arc::new(Counters::default());
        let sender = disk::open(LinkId(0), plan, PROGRAM.into(), inbox, counters);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        End { sender, inbox: reports, runtime: runtime.expect("a runtime") }
    }

    /// The next report, if one comes within that time.
    fn next(&mut self, within: Duration) -> Option<Input> {
        let inbox = &mut self.inbox;
        let got = async { tokio::time::timeout(within, inbox.recv()).await };
        self.runtime.block_on(got).ok().flatten()
    }

    fn until<T>(&mut self, what: &str, wanted: impl Fn(&Input) -> Option<T>) -> T {
        let end = Instant::now() + PATIENCE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let input = self.next(left).unwrap_or_else(|| panic!("waited in vain for {what}"));
            if let Some(found) = wanted(&input) {
                return found;
            }
        }
    }

    pub fn usable(&mut self) {
        self.until("a usable link", |input| match input {
            Input::Event(Event::Link { usable: true, .. }) => Some(()),
            _ => None,
        });
    }

    fn unusable(&mut self) -> String {
        self.until("an unusable link", |input| match input {
            Input::Event(Event::Link { usable: false, why, .. }) => Some(why.clone()),
            _ => None,
        })
    }

    fn frame(&mut self) -> Vec<u8> {
        self.until("a frame", |input| match input {
            Input::Frame { bytes, .. } => Some(bytes.clone()),
            _ => None,
        })
    }

    fn say(&self, words: &str) {
        self.sender.send(&[words.as_bytes().to_vec()]);
    }

    /// Until the other end has heard it: a first look hears nothing, and what comes within an
    /// interval goes with the next.
    fn greet(&self, other: &mut End) {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            self.say("hello");
            if matches!(other.next(INTERVAL * 3), Some(Input::Frame { .. })) {
                return;
            }
        }
        panic!("no greeting was heard");
    }
}

fn both_ways(sector: usize) {
    let disk = Loop::formatted(sector);
    let (mut a, mut b) = End::pair(&disk.device);
    a.greet(&mut b);
    b.greet(&mut a);
    while b.next(INTERVAL * 5).is_some() {}
    let moment: Vec<Vec<u8>> = (0..3u8).map(|n| vec![b'a' + n; 2000]).collect();
    a.sender.send(&moment);
    for frame in &moment {
        assert_eq!(&b.frame(), frame, "all of one moment, in order, once");
    }
    assert!(b.next(INTERVAL * 5).is_none());
    let longest = vec![7; 4000];
    a.sender.send(std::slice::from_ref(&longest));
    assert_eq!(b.frame(), longest);
}

#[test]
fn frames_go_both_ways_with_sectors_of_512() {
    both_ways(512);
}

#[test]
fn frames_go_both_ways_with_sectors_of_4096() {
    both_ways(4096);
}

/// Goal: what a dead node left is no sign of life, however long it stands there.
#[test]
fn what_stands_there_already_is_not_heard() {
    let disk = Loop::formatted(512);
    let mut a = End::open(&disk.device, 0);
    a.usable();
    a.say("last words");
    while disk_number(&disk) == 0 {}
    drop(a);
    let mut b = End::open(&disk.device, 1);
    b.usable();
    assert!(b.next(INTERVAL * 10).is_none(), "old words were heard");
    let mut a = End::open(&disk.device, 0);
    a.usable();
    a.greet(&mut b);
    assert!(disk.slot(0).number > 1, "its numbers go on");
}

fn disk_number(disk: &Loop) -> u64 {
    let mut block = vec![0; BLOCK];
    let file = std::fs::File::open(disk.file()).expect("readable");
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut block, BLOCK as u64).expect("read");
    Slot::read(&block, &header().id, 0).ok().flatten().map_or(0, |slot| slot.number)
}

/// Goal: half a slot is nothing; told once that stays so, and mended by the next write.
#[test]
fn a_torn_slot_says_nothing_until_it_is_whole() {
    let disk = Loop::formatted(512);
    let (a, mut b) = End::pair(&disk.device);
    a.greet(&mut b);
    while b.next(INTERVAL * 5).is_some() {}
    sh(&format!(
        "printf 'garbage' | dd of={} bs=1 seek={} conv=notrunc oflag=sync status=none && \
         blockdev --flushbufs {0}",
        disk.device.display(),
        BLOCK + 41
    ));
    let words = b.until("a warning", |input| match input {
        Input::Warn(words) => Some(words.clone()),
        Input::Frame { .. } => panic!("a torn slot was heard"),
        _ => None,
    });
    assert!(words.contains("slot 0 has a wrong checksum"), "{words}");
    a.greet(&mut b);
}

/// Goal: nothing is written to what is not ours, not at the start and not later.
#[test]
fn a_device_that_is_not_ours_is_never_written_to() {
    let disk = Loop::formatted(512);
    let mut other = plan(&disk.device, 0);
    other.place.cluster = "home".into();
    let mut turned = plan(&disk.device, 0);
    turned.place.nodes.reverse();
    let before = disk.sum();
    for (plan, words) in [(other, "cluster office, not home"), (turned, "are for n1, n2, and")] {
        let mut end = End::of(plan);
        let why = end.unusable();
        assert!(why.contains(words) && why.contains("disk format"), "{why}");
        end.say("mine");
        assert!(end.next(INTERVAL * 10).is_none());
    }
    assert_eq!(disk.sum(), before);
    let empty = Loop::new(512);
    let mut end = End::open(&empty.device, 0);
    assert!(end.unusable().contains("nothing but zeros"));
    // In use, and then somebody makes a file system there.
    let mut end = End::open(&disk.device, 0);
    end.usable();
    sh(&format!("mkfs.ext4 -q -F {}", disk.device.display()));
    let why = end.unusable();
    // The tool empties it first.
    assert!(why.contains("nothing is written to it"), "{why}");
    let before = disk.sum();
    end.say("mine");
    while let Some(input) = end.next(INTERVAL * 10) {
        assert!(matches!(input, Input::Event(Event::Link { usable: false, .. })), "{input:?}");
    }
    assert_eq!(disk.sum(), before);
    sh(&format!("e2fsck -fn {}", disk.device.display()));
}

/// Goal: an error and a device that is gone are a dead link, and a device that is back is used.
#[test]
fn a_device_that_vanishes_and_comes_back() {
    let disk = Loop::formatted(512);
    let dir = tempfile::tempdir().expect("a directory");
    let name = dir.path().join("by-name");
    let point = |to: &Path| {
        let new = dir.path().join("new");
        std::os::unix::fs::symlink(to, &new).expect("a link");
        std::fs::rename(&new, &name).expect("renamed");
    };
    point(&disk.device);
    let (mut a, mut b) = (End::open(&name, 0), End::open(&disk.device, 1));
    a.usable();
    b.usable();
    a.greet(&mut b);
    // The name is gone, as udev takes it away; then it is another device's.
    std::fs::remove_file(&name).expect("removed");
    assert!(a.unusable().contains("No such file"));
    point(&disk.device);
    a.usable();
    let other = Loop::new(512);
    point(&other.device);
    assert!(a.unusable().contains("another device"));
    point(&disk.device);
    a.usable();
    b.usable_still();
    a.greet(&mut b);
    // Every read fails.
    let whole = std::fs::read(disk.file()).expect("readable");
    sh(&format!("truncate -s 0 {}", disk.file().display()));
    let why = b.unusable();
    assert!(why.contains("rror") || why.contains("too early"), "{why}");
    std::fs::write(disk.file(), &whole).expect("written");
    b.usable();
    a.greet(&mut b);
    // Whoever has it open keeps it; who opens it again does not find it.
    drop(a);
    sh(&format!("losetup -d {0}; truncate -s 0 {1}", disk.device.display(), disk.file().display()));
    let why = b.unusable();
    assert!(!why.is_empty());
}

impl End {
    fn usable_still(&mut self) {
        while let Some(input) = self.next(Duration::ZERO) {
            let lost = matches!(input, Input::Event(Event::Link { usable: false, .. }));
            assert!(!lost, "{input:?}");
        }
    }
}

/// Goal: a helper that dies is replaced.
#[test]
fn a_helper_that_dies_is_replaced() {
    let disk = Loop::formatted(512);
    let (mut a, mut b) = End::pair(&disk.device);
    let helper = helpers(&disk.device);
    assert_eq!(helper.len(), 2, "{helper:?}");
    sh(&format!("kill -9 {}", helper[0]));
    let mut ends = [&mut a, &mut b];
    let end = Instant::now() + PATIENCE;
    let dead = loop {
        assert!(Instant::now() < end, "nobody noticed");
        let lost = |end: &mut &mut End| match end.next(INTERVAL) {
            Some(Input::Event(Event::Link { usable: false, why, .. })) => Some(why),
            _ => None,
        };
        if let Some(n) = (0..2).find(|n| {
            lost(&mut ends[*n]).is_some_and(|why| why.contains("its helper ended: signal: 9"))
        }) {
            break n;
        }
    };
    ends[dead].usable();
    a.greet(&mut b);
    b.greet(&mut a);
    drop((a, b));
    let end = Instant::now() + PATIENCE;
    while !helpers(&disk.device).is_empty() {
        assert!(Instant::now() < end, "helpers stay");
    }
}

/// Processes that have the device open.
fn helpers(device: &Path) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("readable").flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let fds = std::fs::read_dir(entry.path().join("fd")).into_iter().flatten().flatten();
        let mut links = fds.filter_map(|fd| std::fs::read_link(fd.path()).ok());
        if links.any(|to| to == device) {
            found.push(pid);
        }
    }
    found
}

/// A file system on a loop device with the slots' file on it: frozen, it lets no write come back.
struct Frozen {
    disk: Option<Loop>,
    outer: Loop,
    at: PathBuf,
}

impl Frozen {
    fn new() -> Frozen {
        let outer = Loop::over(tempfile::tempdir().expect("a directory"), 512);
        let at = outer.dir.path().join("mount");
        sh(&format!(
            "truncate -s 32M {1} && losetup -c {0} && mkfs.ext4 -q -F {0} && mkdir {2} && \
             mount {0} {2}",
            outer.device.display(),
            outer.file().display(),
            at.display()
        ));
        let disk = Loop::over(tempfile::tempdir_in(&at).expect("a directory"), 512);
        foreign::format(&disk.device, &header(), false).expect("formatted");
        Frozen { disk: Some(disk), outer, at }
    }

    fn freeze(&self) {
        sh(&format!("fsfreeze -f {}", self.at.display()));
    }

    fn thaw(&self) {
        let _ = std::process::Command::new("fsfreeze").arg("-u").arg(&self.at).output();
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        self.thaw();
        let end = Instant::now() + PATIENCE;
        let device = self.disk.as_ref().map(|d| d.device.clone()).unwrap_or_default();
        while !helpers(&device).is_empty() && Instant::now() < end {}
        drop(self.disk.take());
        let at = self.at.display();
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            let done = std::process::Command::new("umount").arg(at.to_string()).output();
            if done.is_ok_and(|out| out.status.success()) {
                return;
            }
        }
        panic!("{at} stays mounted over {}", self.outer.device.display());
    }
}

/// Goal: a disk that hangs makes its link unusable, told within deadtime; nothing waits for it, not
/// the sender and not the end of the link. When it answers, the write that hung is done, late as on
/// a serial line; what was said meanwhile is not written any more.
#[test]
fn a_disk_that_hangs_holds_up_nobody() {
    let frozen = Frozen::new();
    let device = frozen.disk.as_ref().expect("there").device.clone();
    let (mut a, mut b) = (End::open(&device, 0), End::open(&device, 1));
    a.usable();
    b.usable();
    a.greet(&mut b);
    frozen.freeze();
    let began = Instant::now();
    a.say("into the ice");
    let why = a.unusable();
    let took = began.elapsed();
    println!("told after {took:?}: {why}");
    assert!(why.contains("has not answered for 0.3") && took < DEADTIME * 2, "{why} {took:?}");
    let before = Instant::now();
    (0..1000).for_each(|n| a.say(&format!("more {n}")));
    let took = before.elapsed();
    assert!(took < Duration::from_millis(200), "the daemon's side waited for {took:?}");
    while before.elapsed() < DEADTIME {}
    frozen.thaw();
    a.usable();
    for n in 0.. {
        a.say(&format!("again {n}"));
        match b.next(INTERVAL * 3) {
            Some(Input::Frame { bytes, .. }) if bytes.starts_with(b"again") => break,
            Some(Input::Frame { bytes, .. }) => assert_eq!(bytes, b"into the ice"),
            _ => assert!(n < 200, "nothing is heard any more"),
        }
    }
    frozen.freeze();
    a.say("into the ice");
    a.unusable();
    let state = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next())
    };
    let stuck = helpers(&device).into_iter().find(|pid| state(pid) == Some('D'));
    let stuck = stuck.expect("a helper that waits for the disk");
    sh(&format!("kill -9 {stuck}"));
    assert_eq!(state(&stuck), Some('D'), "nobody can end it");
    let before = Instant::now();
    drop(a);
    let took = before.elapsed();
    assert!(took < Duration::from_millis(200), "the daemon's side waited for {took:?}");
    frozen.thaw();
    let mut a = End::open(&device, 0);
    a.usable();
    a.greet(&mut b);
}
