//! sg_persist(8) of sg3-utils, run without a shell, each time with a limit. A process that a disk
//! holds fast cannot be ended: it is killed, and not waited for. What it says is believed only
//! where every line is known.

use super::key::Key;
use super::{Held, Seen, TYPE_NUMBER};
use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

pub const PROGRAM: &str = "/usr/bin/sg_persist";
/// For a question, and for what may have to end writes that are under way.
const ASK: Duration = Duration::from_secs(5);
const CHANGE: Duration = Duration::from_secs(15);
/// A disk tells each path once of all that happened meanwhile (unit attentions).
const ATTENTIONS: usize = 8;
/// Looks until both halves are of one moment.
const LOOKS: usize = 4;

/// Exit codes of sg3_utils(8); 50 and more are error numbers of the system.
const ILLEGAL: i32 = 5;
const ATTENTION: i32 = 6;
const NO_SUCH_COMMAND: i32 = 9;
const CONFLICT: i32 = 24;
const ERRNO: i32 = 50;

/// Why the disk was not asked, or gave no answer that is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    NoProgram,
    /// It is not there.
    Gone,
    NoScsi,
    /// It has no persistent reservations.
    Unable,
    Late(Duration),
    Failed(String),
    /// What it said is not known.
    Strange(String),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::NoProgram => write!(f, "{PROGRAM} is not here: apt install sg3-utils"),
            Trouble::Gone => f.write_str(
                "the disk is not here, or is offline: look at its cable, its zone or its session",
            ),
            Trouble::NoScsi => f.write_str(
                "not a SCSI disk: only those (SAS, Fibre Channel, iSCSI) have reservations that \
                 this can take",
            ),
            Trouble::Unable => f.write_str(
                "the disk has no persistent reservations: switch them on where it is made, or \
                 leave this member out of the group",
            ),
            Trouble::Late(limit) => write!(f, "the disk has not answered for {limit:?}"),
            Trouble::Failed(words) => write!(f, "sg_persist failed: {words}"),
            Trouble::Strange(words) => {
                write!(f, "sg_persist said what this version does not understand: {words:?}")
            }
        }
    }
}

/// What a disk can do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Able {
    /// Knows reservations again after it was without power.
    pub keeps: bool,
}

/// One path to a disk.
#[derive(Clone, Debug)]
pub struct Disk {
    pub path: PathBuf,
    program: PathBuf,
}

impl Disk {
    pub fn new(path: &Path) -> Disk {
        Disk { path: path.into(), program: PROGRAM.into() }
    }

    /// A disk may know reservations and not this question.
    pub fn able(&self) -> Result<Able, Trouble> {
        let out = self.ask("--report-capabilities")?;
        match out.status.code() {
            Some(0) => capabilities(&text(&out.stdout)),
            Some(ILLEGAL | NO_SUCH_COMMAND) => self.look().map(|_| Able::default()),
            _ => Err(trouble(&out)),
        }
    }

    pub fn look(&self) -> Result<Seen, Trouble> {
        let mut last = String::new();
        for _ in 0..LOOKS {
            let (generation, keys) = self.read("--read-keys", read_keys)?;
            let (same, held) = self.read("--read-reservation", read_reservation)?;
            if generation == same {
                return Ok(Seen { generation, keys, held });
            }
            last = format!("generation {generation:#x}, then {same:#x}");
        }
        Err(Trouble::Failed(format!("its reservations change all the time: {last}")))
    }

    fn read<T>(&self, what: &str, of: fn(&str) -> Option<T>) -> Result<T, Trouble> {
        let out = self.ask(what)?;
        let said = text(&out.stdout);
        match out.status.code() {
            Some(0) => of(&said).ok_or(Trouble::Strange(said)),
            _ => Err(trouble(&out)),
        }
    }

    /// Whatever this path had registered before.
    pub fn register(&self, key: Key, keeps: bool) -> Result<(), Trouble> {
        let sark = format!("--param-sark={key}");
        let out = self.change(&[&["--register-ignore", &sark], aptpl(keeps)].concat())?;
        if out.status.success() { Ok(()) } else { Err(trouble(&out)) }
    }

    /// Also what this path has reserved; false: it was not registered with that key. `keeps` as it
    /// was registered: it says for all paths whether the disk is to know them after a power loss.
    pub fn unregister(&self, key: Key, keeps: bool) -> Result<bool, Trouble> {
        let rk = format!("--param-rk={key}");
        self.out(&[&["--register", &rk, "--param-sark=0x0"], aptpl(keeps)].concat())
    }

    /// False: another one has it.
    pub fn reserve(&self, key: Key) -> Result<bool, Trouble> {
        self.out(&["--reserve", &format!("--param-rk={key}"), &kind()])
    }

    /// Takes away all that is registered with that key, the reservation too, and ends what was
    /// being written by it; false: nothing is.
    pub fn preempt(&self, key: Key, other: Key) -> Result<bool, Trouble> {
        let (rk, sark) = (format!("--param-rk={key}"), format!("--param-sark={other}"));
        self.out(&["--preempt-abort", &rk, &sark, &kind()])
    }

    fn out(&self, words: &[&str]) -> Result<bool, Trouble> {
        let out = self.change(words)?;
        match out.status.code() {
            Some(0) => Ok(true),
            Some(CONFLICT) => Ok(false),
            _ => Err(trouble(&out)),
        }
    }

    /// Read-only: udev looks at a disk anew when somebody has had it open for writing.
    fn ask(&self, what: &str) -> Result<Output, Trouble> {
        self.run(&["--no-inquiry", "--readonly", "--in", what], ASK)
    }

    fn change(&self, words: &[&str]) -> Result<Output, Trouble> {
        self.run(&[&["--no-inquiry", "--out"], words].concat(), CHANGE)
    }

    fn run(&self, words: &[&str], limit: Duration) -> Result<Output, Trouble> {
        let mut out = self.once(words, limit)?;
        for _ in 0..ATTENTIONS {
            if out.status.code() != Some(ATTENTION) {
                break;
            }
            out = self.once(words, limit)?;
        }
        Ok(out)
    }

    fn once(&self, words: &[&str], limit: Duration) -> Result<Output, Trouble> {
        let mut command = Command::new(&self.program);
        command.args(words).arg(&self.path).env_clear().env("LC_ALL", "C").stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().map_err(|e| match e.kind() {
            ErrorKind::NotFound => Trouble::NoProgram,
            _ => Trouble::Failed(format!("{}: {e}", self.program.display())),
        })?;
        let failed = |e: std::io::Error| Trouble::Failed(e.to_string());
        let id = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
        let id = id.expect("a process has a number");
        let flags = rustix::process::PidfdFlags::empty();
        // Nobody has waited for it yet: the number is its own.
        let process = rustix::process::pidfd_open(id, flags).map_err(|e| failed(e.into()))?;
        let (sender, ended) = channel();
        let thread = std::thread::Builder::new().stack_size(256 * 1024);
        let wait = move || drop(sender.send(child.wait_with_output()));
        thread.spawn(wait).map_err(failed)?;
        match ended.recv_timeout(limit) {
            Ok(out) => out.map_err(failed),
            Err(RecvTimeoutError::Timeout) => {
                let kill = rustix::process::Signal::KILL;
                let _ = rustix::process::pidfd_send_signal(&process, kill);
                Err(Trouble::Late(limit))
            }
            Err(RecvTimeoutError::Disconnected) => Err(Trouble::Failed("a thread ended".into())),
        }
    }
}

fn aptpl(keeps: bool) -> &'static [&'static str] {
    if keeps { &["--param-aptpl"] } else { &[] }
}

fn kind() -> String {
    format!("--prout-type={TYPE_NUMBER}")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn trouble(out: &Output) -> Trouble {
    const GONE: [i32; 3] = [libc::ENOENT, libc::ENXIO, libc::ENODEV];
    match out.status.code() {
        Some(NO_SUCH_COMMAND) => Trouble::Unable,
        Some(code) if code == ERRNO + libc::ENOTTY => Trouble::NoScsi,
        Some(code) if GONE.contains(&(code - ERRNO)) => Trouble::Gone,
        _ => {
            let said = text(&out.stderr);
            let said: Vec<&str> = said.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
            Trouble::Failed(format!("{} ({})", said.join("; "), out.status))
        }
    }
}

/// None at all where the last one has no end.
fn whole_lines(said: &str) -> Option<impl Iterator<Item = &str>> {
    Some(said.strip_suffix('\n')?.lines().map(str::trim).filter(|l| !l.is_empty()))
}

/// The number of changes so far, and what stands behind it on its line.
fn head(line: &str) -> Option<(u32, &str)> {
    let (number, rest) = line.strip_prefix("PR generation=0x")?.split_once(", ")?;
    Some((u32::from_str_radix(number, 16).ok()?, rest))
}

fn key(word: &str) -> Option<Key> {
    u64::from_str_radix(word.strip_prefix("0x")?, 16).ok().map(Key)
}

fn read_keys(said: &str) -> Option<(u32, Vec<Key>)> {
    let mut lines = whole_lines(said)?;
    let (generation, rest) = head(lines.next()?)?;
    let keys = lines.map(key).collect::<Option<Vec<Key>>>()?;
    let count = match rest.split_once(" registered reservation key")? {
        ("there are NO", "s") => 0,
        (count, " follows:" | "s follow:") => count.parse().ok()?,
        _ => return None,
    };
    (keys.len() == count).then_some((generation, keys))
}

fn read_reservation(said: &str) -> Option<(u32, Option<Held>)> {
    let lines: Vec<&str> = whole_lines(said)?.collect();
    let (generation, rest) = head(lines.first()?)?;
    match (rest, &lines[1..]) {
        ("there is NO reservation held", []) => Some((generation, None)),
        ("Reservation follows:", [of, kind]) => {
            let kind = kind.strip_prefix("scope: LU_SCOPE,  type: ")?.to_string();
            Some((generation, Some(Held { key: key(of.strip_prefix("Key=")?)?, kind })))
        }
        _ => None,
    }
}

fn capabilities(said: &str) -> Result<Able, Trouble> {
    let value = |name: &str| {
        let line = said.lines().find_map(|l| l.trim().strip_prefix(name)?.strip_prefix(": "));
        match line {
            Some("1") => Some(true),
            Some("0") => Some(false),
            _ => None,
        }
    };
    let strange = || Trouble::Strange(said.to_string());
    let keeps = value("Persist Through Power Loss Capable(PTPL_C)").ok_or_else(strange)?;
    let listed = value("Type Mask Valid(TMV)").ok_or_else(strange)?;
    if listed && !value("Write Exclusive").ok_or_else(strange)? {
        return Err(Trouble::Unable);
    }
    Ok(Able { keeps })
}

#[cfg(test)]
mod tests;
