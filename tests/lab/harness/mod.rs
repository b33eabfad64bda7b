//! A small laboratory on one machine: nodes with a real systemd as PID 1 (systemd-nspawn), two
//! networks, a null-modem line, a shared disk, a client. Everything carries this process's number
//! in its name and goes away with the [`Lab`], also after a panic or Ctrl-C.

pub mod bmc;
pub mod client;
pub mod guest;
pub mod heart;
pub mod mounts;
pub mod net;
pub mod node;
pub mod rootfs;
pub mod serial;
pub mod wire;

use node::Node;
use rustix::fs::{FlockOperation, flock};
use rustix::io::retry_on_intr;
use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The address that the group moves.
pub const ADDRESS: &str = "192.168.0.100";

pub struct Lab {
    /// Dropped first: a node cannot end while a disk hangs that it waits for.
    heart: Option<heart::Heart>,
    pub nodes: Vec<Node>,
    pub line: serial::NullModem,
    pub net: net::Net,
    pub mounts: mounts::Mounts,
    dir: PathBuf,
    layers: String,
    /// Dropped last: the nodes are gone by then.
    _remains: Remains,
}

impl Lab {
    /// Boots so many nodes of a Debian release with the package installed, and with these packages
    /// of the release more, separated by commas.
    pub fn new(nodes: usize, suite: &str, more: &str) -> Lab {
        sweep();
        while ENDING.load(Ordering::Relaxed) {
            std::thread::park();
        }
        let remains = Remains;
        let dir = PathBuf::from(format!("/tmp/hafailover-lab-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory for the lab");
        sh(&format!("mount -t tmpfs -o mode=755 tmpfs {}", dir.display()));
        let layers = rootfs::with_package(&dir, suite, more);
        let disk = make_disk(&dir);
        let net = net::Net::new();
        let line = serial::NullModem::new();
        std::fs::create_dir_all(dir.join("stamps")).expect("a directory for the stamps");
        let node = |n| Node::new(n, &dir, &layers, &disk, (n < 2).then(|| line.device(n)));
        let off = (0..nodes).map(node).collect();
        let (heart, mounts) = (None, mounts::Mounts::new());
        let mut lab = Lab { heart, nodes: off, line, net, mounts, dir, layers, _remains: remains };
        lab.boot_all(&(0..nodes).collect::<Vec<_>>());
        lab
    }

    pub fn boot(&mut self, n: usize) {
        self.boot_all(&[n]);
    }

    pub fn boot_all(&mut self, nodes: &[usize]) {
        for n in nodes {
            self.net.plug(*n);
            self.mounts.plug(*n, self.nodes[*n].processes());
            self.nodes[*n].power_on();
        }
        nodes.iter().for_each(|n| self.nodes[*n].wait_up());
    }

    /// Power loss: every process stands still before the links go, so that no daemon says goodbye,
    /// and the links go before the processes are cleared away, so that no kernel answers for it.
    pub fn kill(&mut self, n: usize) {
        self.mounts.unplug(n);
        if self.nodes[n].is_up() {
            self.nodes[n].freeze();
        }
        self.net.unplug(n);
        self.nodes[n].kill();
    }

    /// The lines that the group's service wrote: node, and CLOCK_BOOTTIME in nanoseconds.
    pub fn stamps(&self) -> Vec<(usize, u64)> {
        let mut all = Vec::new();
        for n in 0..self.nodes.len() {
            let path = self.dir.join(format!("stamps/n{}", n + 1));
            let text = std::fs::read_to_string(path).unwrap_or_default();
            all.extend(text.lines().filter_map(|l| Some((n, l.parse().ok()?))));
        }
        all.sort_by_key(|(_, at)| *at);
        all
    }

    pub fn forget_stamps(&self) {
        for n in 0..self.nodes.len() {
            let _ = std::fs::remove_file(self.dir.join(format!("stamps/n{}", n + 1)));
        }
    }

    /// For how long two nodes wrote to the shared disk in turns.
    pub fn overlap(&self) -> Duration {
        let stamps = self.stamps();
        let mut total = 0;
        for n in 0..self.nodes.len() {
            let mine: Vec<u64> = stamps.iter().filter(|s| s.0 == n).map(|s| s.1).collect();
            for gap in mine.windows(2) {
                let others = stamps.iter().filter(|s| s.0 != n && s.1 > gap[0] && s.1 < gap[1]);
                // A gap as short as that is a running writer, not one that stopped and came back.
                if gap[1] - gap[0] < 100_000_000 && others.count() > 0 {
                    total += gap[1] - gap[0];
                }
            }
        }
        Duration::from_nanos(total / 2)
    }

    pub fn node(&self, n: usize) -> &Node {
        &self.nodes[n]
    }

    /// Goes with the lab, and is in memory: no disk makes anybody wait.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Of a root file system with the package, for an overlay.
    pub fn layers(&self) -> &str {
        &self.layers
    }

    /// The node whose group service answers at the address, asked from the client.
    pub fn who_answers(&self) -> Option<String> {
        client::ask(&self.net.client())
    }
}

/// Removes all that carries this process's number when it goes, a half-built lab included.
struct Remains;

impl Drop for Remains {
    fn drop(&mut self) {
        remove(&std::process::id().to_string());
    }
}

/// A signal has come: no lab is built any more.
static ENDING: AtomicBool = AtomicBool::new(false);

fn null() -> std::process::Stdio {
    std::process::Stdio::null()
}

fn make_disk(dir: &Path) -> String {
    let file = dir.join("disk");
    sh(&format!("truncate -s 256M {0} && mkfs.ext4 -q -F {0}", file.display()));
    sh(&format!("losetup -f --show {}", file.display())).trim().to_string()
}

/// Removes what a lab of a process that is gone has left behind.
pub fn sweep() {
    Broom::take().sweep();
}

/// Whoever has it is the only one on this machine that sweeps.
pub struct Broom(#[expect(dead_code, reason = "closed with it, which gives it back")] File);

impl Broom {
    pub fn take() -> Broom {
        let file = File::create("/tmp/hafailover-lab.lock").expect("a file for a lock");
        let locked = retry_on_intr(|| flock(&file, FlockOperation::LockExclusive));
        locked.expect("locked");
        Broom(file)
    }

    pub fn sweep(&self) {
        let alive = |pid: &str| Path::new("/proc").join(pid).exists();
        numbers().iter().filter(|pid| !alive(pid)).for_each(|pid| remove(pid));
    }
}

/// What there is of the lab of a process, for people; empty if nothing.
pub fn left_of(pid: &str) -> String {
    let (tmp, netns) = (format!("hafailover-lab-{pid}"), format!("^hl{pid}-"));
    try_sh(&format!(
        "ls -d /tmp/{tmp} {}/{tmp}-* /sys/fs/cgroup/blkio/{tmp}-* 2>/dev/null; \
         ip netns list | grep {netns}; losetup -a | grep /{tmp}/; grep '/{tmp}[ /]' /proc/mounts",
        node::cgroup_root().display()
    ))
}

/// The process numbers in the names of directories, cgroups and namespaces of labs.
fn numbers() -> BTreeSet<String> {
    let names = try_sh(&format!("ls /tmp {}; ip netns list", node::cgroup_root().display()));
    let number = |name: &str| {
        let rest = name.strip_prefix("hafailover-lab-").or_else(|| name.strip_prefix("hl"))?;
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        (!digits.is_empty()).then_some(digits)
    };
    names.lines().filter_map(number).collect()
}

/// Removes the lab of a process by what carries its number. Kills first: what runs holds the rest.
fn remove(pid: &str) {
    let dir = PathBuf::from(format!("/tmp/hafailover-lab-{pid}"));
    heart::thaw(&dir);
    for cgroup in node::cgroups_of(pid) {
        node::kill_cgroup(&cgroup);
        node::remove_cgroup(&cgroup);
    }
    for name in try_sh("ip netns list").lines().filter_map(|l| l.split(' ').next()) {
        if name.starts_with(&format!("hl{pid}-")) {
            let _ = try_sh(&format!("ip netns del {name}"));
        }
    }
    heart::remove(&dir);
    let loops = try_sh(&format!("losetup -j {} | cut -d: -f1", dir.join("disk").display()));
    for device in loops.split_whitespace() {
        let _ = try_sh(&format!("losetup -d {device}"));
    }
    let _ = try_sh(&format!("umount -R -l {} 2>/dev/null", dir.display()));
    let _ = std::fs::remove_dir(dir);
}

/// Runs a command that must work; its output.
pub fn sh(command: &str) -> String {
    let out = Command::new("sh").args(["-ec", command]).output().expect("sh runs");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success(), "{command}\n{text}{}", String::from_utf8_lossy(&out.stderr));
    text
}

/// Runs a command that may fail; its output.
pub fn try_sh(command: &str) -> String {
    let out = Command::new("sh").args(["-c", command]).stderr(null()).output().expect("sh runs");
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// Waits for what has no event to wait for from outside of a node, by looking at it every few
/// milliseconds.
pub fn wait<T>(what: &str, patience: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + patience;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "waited {patience:?} in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// SIGINT and SIGTERM end the process after the lab of this process was removed; so does a panic
/// where nothing is dropped after one. Commands in nodes that were stopped go on.
pub fn handle_signals() {
    if cfg!(panic = "abort") {
        let tell = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |why| {
            tell(why);
            remove(&std::process::id().to_string());
        }));
    }
    std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            use tokio::signal::unix::{SignalKind, signal};
            let mut int = signal(SignalKind::interrupt()).expect("a handler");
            let mut term = signal(SignalKind::terminate()).expect("a handler");
            let mut child = signal(SignalKind::child()).expect("a handler");
            loop {
                tokio::select! {
                    _ = int.recv() => break,
                    _ = term.recv() => break,
                    _ = child.recv() => node::let_go_on(),
                }
            }
        });
        eprintln!("ended: removing the lab");
        end(130);
    });
}

/// Ends the process after its lab was removed.
pub fn end(code: i32) -> ! {
    ENDING.store(true, Ordering::Relaxed);
    remove(&std::process::id().to_string());
    std::process::exit(code)
}
