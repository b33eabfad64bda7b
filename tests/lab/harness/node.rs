//! One node: a container with a real systemd as PID 1, in a cgroup of its own, so that it can be
//! frozen, and killed at one stroke.

use super::net::Net;
use super::{sh, try_sh, wait};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;
use rustix::io::retry_on_intr;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant, SystemTime};

/// How long a command in a node may take: one that hangs is a failure, and not the end of the run.
pub const COMMAND: Duration = Duration::from_secs(300);
/// What timeout(1) ends with.
const TIMED_OUT: i32 = 124;
/// How long a boot may take on a busy machine.
const BOOT: Duration = Duration::from_secs(60);

pub struct Node {
    pub name: String,
    n: usize,
    root: PathBuf,
    stamps: PathBuf,
    disk: String,
    serial: Option<String>,
    cgroup: PathBuf,
    supervisor: Option<Child>,
    leader: u32,
}

/// What a command in a node did.
pub struct Output {
    pub code: i32,
    pub text: String,
}

/// A file or directory of a node that is looked at until something is written or made there.
pub struct Watch(OwnedFd);

impl Watch {
    pub fn wait(&self) {
        let mut fds = [PollFd::from_borrowed_fd(self.0.as_fd(), PollFlags::IN)];
        let patience = Timespec { tv_sec: BOOT.as_secs() as i64, tv_nsec: 0 };
        assert_eq!(poll(&mut fds, Some(&patience)), Ok(1), "nothing was written");
    }
}

impl Node {
    pub fn new(n: usize, dir: &Path, lower: &str, disk: &str, serial: Option<String>) -> Node {
        let name = format!("n{}", n + 1);
        let (up, work) = (dir.join(format!("{name}-up")), dir.join(format!("{name}-work")));
        let root = dir.join(&name);
        sh(&format!(
            "mkdir -p {0} {1} {2} && mount -t overlay overlay -o \
             lowerdir={lower},upperdir={0},workdir={1} {2} && echo {name} > {2}/etc/hostname && \
             systemd-id128 new > {2}/etc/machine-id && mkdir -p {2}/stamps {2}/srv",
            up.display(),
            work.display(),
            root.display()
        ));
        let cgroup = cgroup_root().join(format!("hafailover-lab-{}-{name}", std::process::id()));
        let (stamps, disk) = (dir.join("stamps"), disk.to_string());
        Node { name, n, root, stamps, disk, serial, cgroup, supervisor: None, leader: 0 }
    }

    pub fn power_on(&mut self) {
        std::fs::create_dir_all(&self.cgroup).expect("a cgroup for the node");
        let enter = self.cgroup.join("cgroup.procs");
        let mut command = Command::new("sh");
        let serial = match &self.serial {
            Some(device) => format!("--bind={device}:/dev/ttyS0"),
            None => String::new(),
        };
        // Also the machine's name: what nspawn keeps by name is not shared with another lab. An NFS
        // server opens files by their handles, which a container may not by default.
        let network = Net::node(self.n);
        let throttled = twin(&self.cgroup).unwrap_or_else(|| {
            let _ = std::fs::write(cgroup_root().join("cgroup.subtree_control"), "+io");
            self.cgroup.clone()
        });
        std::fs::create_dir_all(&throttled).expect("a cgroup for its disks");
        command.arg("-c").arg(format!(
            "echo $$ > {}; echo $$ > {}; exec env SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 \
             systemd-nspawn -q -D {} --machine={network} --register=no --keep-unit \
             --capability=all \
             --system-call-filter=open_by_handle_at \
             --network-namespace-path=/run/netns/{network} {serial} --bind={}:/stamps \
             --console=pipe -b",
            enter.display(),
            throttled.join("cgroup.procs").display(),
            self.root.display(),
            self.stamps.display(),
        ));
        let log = std::fs::File::create(self.root.with_extension("console")).expect("a file");
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a file")).stderr(log);
        self.supervisor = Some(command.spawn().expect("systemd-nspawn runs"));
    }

    /// Waits until the boot is over.
    pub fn wait_up(&mut self) {
        let scope = self.processes();
        self.leader = wait("the node's PID 1", BOOT, || {
            std::fs::read_to_string(&scope).ok()?.lines().next()?.parse().ok()
        });
        wait("the node's D-Bus", BOOT, || {
            let state = self.run("systemctl is-system-running --wait").text;
            matches!(state.trim(), "running" | "degraded").then_some(())
        });
        let minor = self.disk.trim_start_matches("/dev/loop");
        self.must(&format!("test -e /dev/shared || mknod /dev/shared b 7 {minor}"));
    }

    /// Where the numbers of its PID 1 and of what belongs to that stand, while it is up.
    pub fn processes(&self) -> PathBuf {
        self.cgroup.join("payload/init.scope/cgroup.procs")
    }

    /// The number of its PID 1 out here.
    pub fn leader(&self) -> u32 {
        self.leader
    }

    pub fn is_up(&self) -> bool {
        // Not by its number alone, which another process may have by now.
        let processes = std::fs::read_to_string(self.processes()).unwrap_or_default();
        processes.lines().any(|l| l == self.leader.to_string())
    }

    /// Runs a shell command inside. In a node that is off, which another process may have the
    /// number of by now, nothing runs.
    pub fn run(&self, command: &str) -> Output {
        if !self.is_up() {
            return Output { code: -1, text: format!("{} is off", self.name) };
        }
        let end = Instant::now() + COMMAND;
        let mut command = self.command(command);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("nsenter runs");
        let (out, err) = (reading(child.stdout.take()), reading(child.stderr.take()));
        let ended = ended(&mut child, end);
        let (out, err) = (read(&out, end), read(&err, end));
        let text = String::from_utf8_lossy(&out) + String::from_utf8_lossy(&err);
        match ended {
            Some(status) => Output { code: status.code().unwrap_or(-1), text: text.into_owned() },
            None => {
                let text = format!("{text}did not end within {} s", COMMAND.as_secs());
                Output { code: TIMED_OUT, text }
            }
        }
    }

    /// The same, where failing is a failure of the test.
    pub fn must(&self, command: &str) -> String {
        let out = self.run(command);
        assert!(out.code == 0, "{}: {command}: exit code {}\n{}", self.name, out.code, out.text);
        out.text
    }

    pub fn command(&self, command: &str) -> Command {
        let mut nsenter = Command::new("nsenter");
        nsenter.args(["-t", &self.leader.to_string(), "-m", "-u", "-i", "-n", "-p", "-C"]);
        nsenter.args(["-r", "-w", "sh", "-c", command]);
        nsenter.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/bin").stdin(Stdio::null());
        nsenter
    }

    pub fn write(&self, path: &str, text: &str) {
        assert!(self.is_up(), "{} is off", self.name);
        let full = PathBuf::from(format!("/proc/{}/root{path}", self.leader));
        std::fs::create_dir_all(full.parent().expect("a parent")).expect("made");
        std::fs::write(full, text).expect("written");
    }

    /// Messages of the program, oldest first, as `WHAT GROUP: MESSAGE [EVIDENCE]`.
    pub fn journal(&self) -> Vec<String> {
        let fields = "HAFAILOVER_WHAT,HAFAILOVER_GROUP,MESSAGE,HAFAILOVER_EVIDENCE";
        let out = self.run(&format!(
            "journalctl -q -o json --output-fields={fields} SYSLOG_IDENTIFIER=hafailover"
        ));
        let value = |line: &str, key: &str| {
            let json: serde_json::Value = serde_json::from_str(line).ok()?;
            json.get(key)?.as_str().map(str::to_string)
        };
        let lines = out.text.lines().map(|line| {
            format!(
                "{} {}: {} [{}]",
                value(line, "HAFAILOVER_WHAT").unwrap_or_default(),
                value(line, "HAFAILOVER_GROUP").unwrap_or_default(),
                value(line, "MESSAGE").unwrap_or_default(),
                value(line, "HAFAILOVER_EVIDENCE").unwrap_or_default()
            )
        });
        lines.collect()
    }

    /// When a kind was told, as the kernel stamped it: comparable between the nodes of a lab, also
    /// while their journald stands still.
    pub fn times(&self, what: &str) -> Vec<SystemTime> {
        let field = "_SOURCE_REALTIME_TIMESTAMP";
        let out = self.run(&format!(
            "journalctl -q -o json --output-fields={field} SYSLOG_IDENTIFIER=hafailover \
             HAFAILOVER_WHAT={what}"
        ));
        let time = |line: &str| {
            let json: serde_json::Value = serde_json::from_str(line).ok()?;
            let micros = json.get(field)?.as_str()?.parse().ok()?;
            Some(SystemTime::UNIX_EPOCH + Duration::from_micros(micros))
        };
        out.text.lines().filter_map(time).collect()
    }

    /// The kinds that were told, oldest first.
    pub fn kinds(&self) -> Vec<String> {
        let first = |line: &String| line.split(' ').next().unwrap_or_default().to_string();
        self.journal().iter().map(first).collect()
    }

    /// How often a kind was told.
    pub fn told(&self, what: &str) -> usize {
        self.journal().iter().filter(|l| l.starts_with(&format!("{what} "))).count()
    }

    pub fn status(&self) -> Option<serde_json::Value> {
        serde_json::from_str(&self.run("hafailover status --json").text).ok()
    }

    /// `running`, `stopped`, … as this node says of itself.
    pub fn phase(&self, group: &str) -> Option<String> {
        let status = self.status()?;
        let groups = status["view"]["groups"].as_array()?.clone();
        let group = groups.iter().find(|g| g["name"] == group)?;
        group["phase"].as_str().map(str::to_string)
    }

    /// Power loss.
    pub fn kill(&mut self) {
        kill_cgroup(&self.cgroup);
        if let Some(mut child) = self.supervisor.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        wait("the node's end", BOOT, || (!self.is_up()).then_some(()));
        remove_cgroup(&self.cgroup);
    }

    /// Waits until the node has gone down by itself.
    pub fn wait_down(&mut self) {
        wait("the node to go down", BOOT, || (!self.is_up()).then_some(()));
        self.kill();
    }

    pub fn freeze(&self) {
        std::fs::write(self.cgroup.join("cgroup.freeze"), "1").expect("frozen");
        let events = self.cgroup.join("cgroup.events");
        wait("the freezer", BOOT, || {
            std::fs::read_to_string(&events).ok()?.contains("frozen 1").then_some(())
        });
    }

    /// From outside: it costs the node nothing, and tells within a millisecond.
    pub fn watch(&self, path: &str) -> Watch {
        let path = PathBuf::from(format!("/proc/{}/root{path}", self.leader));
        let inotify = inotify::init(inotify::CreateFlags::CLOEXEC).expect("inotify");
        let made = inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO;
        let flags = made | inotify::WatchFlags::MODIFY;
        inotify::add_watch(&inotify, &path, flags).expect("watched");
        Watch(inotify)
    }

    /// The shared disk hangs for this node alone, as behind a path that is gone; or no more.
    pub fn hang_disk(&self, hangs: bool) {
        let minor = self.disk.trim_start_matches("/dev/loop");
        let done = throttle(&self.cgroup, &format!("7:{minor}"), hangs);
        done.expect("a controller for disks (+io, or blkio) in the cgroups of this machine");
    }

    pub fn thaw(&self) {
        std::fs::write(self.cgroup.join("cgroup.freeze"), "0").expect("it is there");
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        kill_cgroup(&self.cgroup);
        if let Some(mut child) = self.supervisor.take() {
            let _ = child.wait();
        }
    }
}

/// How a command in a node ended; one that has not by then is killed, out here at least.
pub fn ended(child: &mut Child, end: Instant) -> Option<ExitStatus> {
    let pid = Pid::from_child(child);
    let fd = pidfd_open(pid, PidfdFlags::empty()).expect("a handle of a child");
    let mut fds = [PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN)];
    // The end of another command may interrupt it.
    let mut look = || {
        let left = end.saturating_duration_since(Instant::now());
        let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        poll(&mut fds, Some(&left))
    };
    if retry_on_intr(&mut look) == Ok(0) {
        let _ = child.kill();
        let _ = child.wait();
        return None;
    }
    Some(child.wait().expect("it has ended"))
}

/// What comes out of a command, in the background: a full pipe would hold it up.
fn reading(pipe: Option<impl Read + Send + 'static>) -> Receiver<Vec<u8>> {
    let mut pipe = pipe.expect("piped");
    let (sender, pieces) = channel();
    std::thread::spawn(move || {
        let mut piece = [0; 1 << 14];
        loop {
            let _ = match pipe.read(&mut piece) {
                Ok(length @ 1..) => sender.send(piece[..length].to_vec()),
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Ok(0) | Err(_) => break,
            };
        }
    });
    pieces
}

/// All of it, or what came until then: something that it has started may keep the pipe open.
fn read(pieces: &Receiver<Vec<u8>>, end: Instant) -> Vec<u8> {
    let mut all = Vec::new();
    while let Ok(piece) = pieces.recv_timeout(end.saturating_duration_since(Instant::now())) {
        all.extend(piece);
    }
    all
}

/// Where PID 1 of a node stops every process for a moment before it kills them, nsenter(1) sees its
/// child stopped and stops itself, and nobody out here would ever make it go on.
pub fn let_go_on() {
    // SAFETY: a siginfo_t of zeros is one; waitid fills it in, and tells of no child by pid 0.
    let stopped = || unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        libc::waitid(libc::P_ALL, 0, &raw mut info, libc::WSTOPPED | libc::WNOHANG);
        Pid::from_raw(info.si_pid())
    };
    while let Some(pid) = stopped() {
        let _ = kill_process(pid, Signal::CONT);
    }
}

/// Where version 2 of the cgroups is mounted.
pub fn cgroup_root() -> PathBuf {
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    let mut lines = mounts.lines().filter(|l| l.split(' ').nth(2) == Some("cgroup2"));
    let path = lines.next().and_then(|l| l.split(' ').nth(1)).map(PathBuf::from);
    path.expect("cgroup version 2 is mounted")
}

pub fn cgroups_of(pid: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(cgroup_root()).into_iter().flatten().flatten();
    let prefix = format!("hafailover-lab-{pid}-");
    let mine = entries.filter(|e| e.file_name().to_string_lossy().starts_with(&prefix));
    mine.map(|e| e.path()).collect()
}

/// The cgroup of that name for disks, where version 1 has those.
fn twin(cgroup: &Path) -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    let mut fields = mounts.lines().map(|l| l.split(' ').collect::<Vec<_>>());
    let blkio =
        fields.find(|f| f.get(2) == Some(&"cgroup") && f[3].split(',').any(|o| o == "blkio"));
    Some(Path::new(blkio?[1]).join(cgroup.file_name()?))
}

/// Of what a cgroup's processes read and write on that disk themselves two bytes a second are let
/// through, the least that every kernel takes, or all.
fn throttle(cgroup: &Path, disk: &str, hangs: bool) -> std::io::Result<()> {
    let Some(twin) = twin(cgroup) else {
        let most = if hangs { "2" } else { "max" };
        return std::fs::write(cgroup.join("io.max"), format!("{disk} rbps={most} wbps={most}"));
    };
    let most = if hangs { 2 } else { 0 };
    ["read", "write"].into_iter().try_for_each(|way| {
        let file = twin.join(format!("blkio.throttle.{way}_bps_device"));
        std::fs::write(file, format!("{disk} {most}"))
    })
}

/// Nobody can be killed who waits for a disk.
fn let_through(cgroup: &Path) {
    let files = match twin(cgroup) {
        Some(twin) => {
            ["read", "write"].map(|w| twin.join(format!("blkio.throttle.{w}_bps_device"))).to_vec()
        }
        None => vec![cgroup.join("io.max")],
    };
    for text in files.iter().map(|file| std::fs::read_to_string(file).unwrap_or_default()) {
        let disks = text.lines().filter_map(|line| line.split(' ').next());
        // It may be gone by now.
        disks.for_each(|disk| drop(throttle(cgroup, disk, false)));
    }
}

/// Stops every process at one instant, then kills it.
pub fn kill_cgroup(cgroup: &Path) {
    let_through(cgroup);
    let _ = std::fs::write(cgroup.join("cgroup.freeze"), "1");
    let _ = std::fs::write(cgroup.join("cgroup.kill"), "1");
    let _ = std::fs::write(cgroup.join("cgroup.freeze"), "0");
}

/// Removes a cgroup once the last process in it has ended; one that never ends stays.
pub fn remove_cgroup(cgroup: &Path) {
    let end = Instant::now() + BOOT;
    // What dies of SIGKILL tells nobody but its parent, which need not be this process.
    while cgroup.exists() && Instant::now() < end {
        let _ = try_sh(&format!("find {} -depth -type d -exec rmdir {{}} +", cgroup.display()));
        std::thread::sleep(Duration::from_millis(10));
    }
    if let Some(twin) = twin(cgroup) {
        while twin.exists() && std::fs::remove_dir(&twin).is_err() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
