//! A guest: a machine of its own, emulated by qemu, with the kernel of its release and a hardware
//! watchdog. Its second serial line is a root shell's.

use super::node::{COMMAND, Output, ended};
use super::{sh, wait};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// How long a boot may take where another machine is emulated, and this one is busy.
const BOOT: Duration = Duration::from_secs(300);
const QEMU: &str = "qemu-system-x86_64 -nodefaults -no-user-config -display none -accel tcg \
                    -cpu qemu64,+rdrand -m 512 -device i6300esb -action watchdog=reset";
const KERNEL: &str = "console=ttyS0 quiet mitigations=off random.trust_cpu=on audit=0 apparmor=0";
/// Of no use in a guest, or waiting for a udev that is not there.
const UNWANTED: &str = "serial-getty@ttyS0.service getty.target systemd-logind.service \
                        systemd-networkd.service systemd-pstore.service nftables.service";
/// Says `up`, and then runs what it is told: the length of a command and the command, answered by
/// exit code, length, and text.
const HANDS: &str = "#!/bin/sh\nexec </dev/ttyS1 >/dev/ttyS1\nstty raw -echo\necho up\n\
    while read -r length; do head -c \"$length\" >/run/asked\n\
    sh /run/asked </dev/null >/run/said 2>&1\necho \"$? $(wc -c </run/said)\"\ncat /run/said\n\
    done\n";
const HANDS_UNIT: &str = "[Unit]\nDescription=Does what is told on the second serial line\n\
    [Service]\nExecStart=/usr/local/sbin/hands\n[Install]\nWantedBy=multi-user.target\n";

pub struct Guest {
    qemu: Child,
    dir: PathBuf,
    hands: BufReader<UnixStream>,
    events: Receiver<Event>,
    monitor: UnixStream,
}

/// What qemu tells of the machine: `WATCHDOG`, `RESET`, `SHUTDOWN`.
#[derive(Debug)]
pub struct Event {
    pub what: String,
    pub at: Instant,
}

impl Guest {
    /// Boots one from these layers, with files of its own, and after these commands in its root
    /// file system. It is in `dir` and goes with it.
    pub fn new(dir: &Path, layers: &str, files: &[(&str, &str)], commands: &str) -> Guest {
        let dir = dir.join("guest");
        image(&dir, layers, files, commands);
        let socket = |name: &str| format!("unix:{}/{name},server=on,wait=off", dir.display());
        let mut qemu = Command::new("setpriv");
        qemu.args(["--pdeathsig", "KILL"]).args(QEMU.split_whitespace());
        qemu.arg("-kernel").arg(dir.join("vmlinuz")).arg("-initrd").arg(dir.join("early"));
        qemu.args(["-append", KERNEL, "-drive"]);
        qemu.arg(format!("file={}/disk,if=virtio,format=raw,cache=unsafe", dir.display()));
        qemu.arg("-serial").arg(format!("file:{}/console", dir.display()));
        qemu.args(["-serial", &socket("hands"), "-qmp", &socket("monitor")]);
        let mut qemu = qemu.stdin(Stdio::null()).spawn().expect("setpriv runs");
        let mut connect = |name: &str| {
            wait("qemu", COMMAND, || {
                assert!(qemu.try_wait().expect("ours").is_none(), "qemu has ended");
                UnixStream::connect(dir.join(name)).ok()
            })
        };
        let (hands, monitor) = (BufReader::new(connect("hands")), connect("monitor"));
        let events = watch(monitor.try_clone().expect("a second handle"));
        let mut guest = Guest { qemu, dir, hands, events, monitor };
        guest.wait_up();
        guest
    }

    /// Waits until it has booted, for the first time or again.
    pub fn wait_up(&mut self) {
        let end = Instant::now() + BOOT;
        // What was being said when it was reset may stand before it.
        while !self.line(end).expect("the guest boots").ends_with("up") {}
        // A BIOS that finds the memory used resets the machine once more.
        self.events.try_iter().for_each(drop);
        let state = self.run("systemctl is-system-running --wait").text;
        assert!(matches!(state.trim(), "running" | "degraded"), "{state}");
    }

    /// Runs a shell command inside.
    pub fn run(&mut self, command: &str) -> Output {
        self.tell(command);
        let answer = self.answer(Instant::now() + COMMAND);
        answer.unwrap_or_else(|e| panic!("the guest: {command}: {e}"))
    }

    /// The same, where failing is a failure of the test.
    pub fn must(&mut self, command: &str) -> String {
        let Output { code, text } = self.run(command);
        assert!(code == 0, "the guest: {command}: exit code {code}\n{text}");
        text
    }

    /// Says a command that nobody may answer.
    pub fn tell(&mut self, command: &str) {
        let _ = write!(self.hands.get_mut(), "{}\n{command}", command.len());
    }

    fn answer(&mut self, end: Instant) -> io::Result<Output> {
        let line = self.line(end)?;
        let numbers = line
            .split_once(' ')
            .and_then(|(code, length)| Some((code.parse().ok()?, length.parse::<usize>().ok()?)));
        let (code, length) = numbers.ok_or_else(|| io::Error::other(line))?;
        let mut text = vec![0; length];
        self.hands.read_exact(&mut text)?;
        Ok(Output { code, text: String::from_utf8_lossy(&text).into_owned() })
    }

    /// Without its end.
    fn line(&mut self, end: Instant) -> io::Result<String> {
        let left = end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        self.hands.get_ref().set_read_timeout(Some(left))?;
        let mut line = Vec::new();
        match self.hands.read_until(b'\n', &mut line)? {
            0 => Err(io::Error::other("qemu has ended")),
            _ => Ok(String::from_utf8_lossy(&line).trim_end().to_string()),
        }
    }

    /// The next that happens to the machine.
    pub fn event(&self, patience: Duration) -> Option<Event> {
        self.events.recv_timeout(patience).ok()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.tell("journalctl -q -b -o short-monotonic --no-hostname -n 80 -u 'hafailover*'");
            let said = self.answer(Instant::now() + Duration::from_secs(30));
            let console = std::fs::read(self.dir.join("console")).unwrap_or_default();
            println!("--- the guest\n{}", said.map(|s| s.text).unwrap_or_else(|e| e.to_string()));
            let console = String::from_utf8_lossy(&console[console.len().saturating_sub(2000)..]);
            println!("--- its console\n{console}");
        }
        let _ = self.monitor.shutdown(Shutdown::Both);
        let _ = self.qemu.kill();
        let _ = ended(&mut self.qemu, Instant::now() + COMMAND);
        // The next guest of this lab begins anew.
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// The disk, and what qemu loads itself.
fn image(dir: &Path, layers: &str, files: &[(&str, &str)], commands: &str) {
    let (root, dir) = (dir.join("root"), dir.display());
    sh(&format!(
        "mkdir -p {dir}/root {dir}/up {dir}/work; mount -t overlay overlay -o \
         lowerdir={layers},upperdir={dir}/up,workdir={dir}/work {dir}/root; \
         mv {dir}/root/boot/* {dir}; systemd-id128 new >{dir}/root/etc/machine-id"
    ));
    let own = [("usr/local/sbin/hands", HANDS), ("etc/systemd/system/hands.service", HANDS_UNIT)];
    for (path, text) in own.iter().chain(files) {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        std::fs::write(path, text).expect("written");
    }
    std::fs::write(root.join("setup"), commands).expect("written");
    sh(&format!(
        "chmod 755 {dir}/root/usr/local/sbin/hands; chroot {dir}/root sh -e /setup; \
         systemctl -q --root={dir}/root set-default multi-user.target; \
         systemctl -q --root={dir}/root mask {UNWANTED}; \
         systemctl -q --root={dir}/root enable hands; \
         mke2fs -q -t ext4 -d {dir}/root {dir}/disk 2G; \
         umount {dir}/root; rm -rf {dir}/up {dir}/work"
    ));
}

/// What qemu tells of the machine from now on (its QMP).
fn watch(mut monitor: UnixStream) -> Receiver<Event> {
    monitor.write_all(b"{\"execute\":\"qmp_capabilities\"}\n").expect("qemu runs");
    let (sender, events) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(monitor).lines().map_while(Result::ok) {
            let told: serde_json::Value = serde_json::from_str(&line).expect("JSON");
            if let Some(what) = told["event"].as_str() {
                let event = Event { what: what.to_string(), at: Instant::now() };
                let _ = sender.send(event);
            }
        }
    });
    events
}
