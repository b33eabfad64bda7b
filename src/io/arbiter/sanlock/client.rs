//! `sanlock client`: what is asked of sanlock's daemon, and its answers in words.

use crate::wire::table::TURN;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The longest name that sanlock takes.
const NAME_MAX: usize = 48;
/// The one resource of the lockspace.
const RESOURCE: &str = "turn";
pub const INSTALL: &str = "apt install sanlock, systemctl mask --now wdmd, sanlock_opts=\"-w 0\" \
                           in /etc/default/sanlock, systemctl enable --now sanlock";

/// A lockspace as sanlock calls it, with this node's place in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Space {
    name: String,
    device: PathBuf,
    /// sanlock counts from 1.
    host: usize,
    /// Where another daemon of sanlock than this machine's own answers.
    run_dir: Option<PathBuf>,
}

impl Space {
    pub fn new(cluster: &str, device: &Path, place: usize, run_dir: Option<PathBuf>) -> Space {
        Space { name: name(cluster), device: device.into(), host: place + 1, run_dir }
    }

    pub fn lockspace(&self) -> String {
        format!("{}:{}:{}:0", self.name, self.host, self.device.display())
    }

    pub fn resource(&self) -> String {
        format!("{}:{RESOURCE}:{}:{TURN}", self.name, self.device.display())
    }

    /// For the format: of no node.
    pub fn whole(&self) -> String {
        format!("{}:0:{}:0", self.name, self.device.display())
    }

    /// One question to the daemon.
    pub fn client(&self, words: &[&str]) -> Command {
        let mut command = Command::new("sanlock");
        command.arg("client").args(words).stdin(Stdio::null());
        if let Some(dir) = &self.run_dir {
            command.env("SANLOCK_RUN_DIR", dir);
        }
        command
    }
}

/// The cluster's name, where sanlock takes it.
fn name(cluster: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if cluster.len() <= NAME_MAX && cluster.chars().all(plain) {
        return cluster.into();
    }
    let digest = Sha256::digest(cluster.as_bytes());
    let hex: String = digest[..8].iter().map(|b| format!("{b:02x}")).collect();
    format!("hafailover-{hex}")
}

/// What sanlock's daemon answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Or it says nothing of a failure.
    Done,
    /// This node is in the lockspace already.
    Joined,
    NotJoined,
    /// Another node has the turn, or died in it.
    Busy,
    Failed(String),
}

/// Of what `sanlock client` prints: `register done -2`, `acquire done -243`. Its exit code may be 0
/// all the same.
pub fn read(said: &str) -> Answer {
    let done = |line: &str| {
        let (what, code) = line.split_once(" done ")?;
        Some((what.to_string(), code.trim().parse::<i32>().ok().filter(|code| *code < 0)?))
    };
    let Some((what, code)) = said.lines().find_map(done) else { return Answer::Done };
    // Its own codes: sanlock_rv.h.
    match (what.as_str(), code) {
        ("add_lockspace_timeout" | "add_lockspace", -17) => Answer::Joined,
        ("inq_lockspace" | "rem_lockspace", -2) if !said.contains("register") => Answer::NotJoined,
        (_, -2 | -111) => Answer::Failed(format!("its daemon does not run: {INSTALL}")),
        (_, -13 | -1) if what == "register" => {
            Answer::Failed("its daemon lets nobody in: it must run as root or sanlock".into())
        }
        ("acquire", -28) => Answer::NotJoined,
        // Or this node's own question of just now is not given back yet.
        ("acquire", -249..=-240 | -17 | -16 | -11) => Answer::Busy,
        (_, -115 | -114) => Answer::NotJoined,
        (_, -202) => Answer::Failed("the device did not answer sanlock in time".into()),
        (_, -262..=-260) => Answer::Failed(
            "another machine uses this node's place in the lockspace: is its hafailover.toml the \
             same, and its name another one?"
                .into(),
        ),
        (_, code) if code > -200 => {
            let error = std::io::Error::from_raw_os_error(-code);
            Answer::Failed(format!("{what}: {error}: journalctl -u sanlock"))
        }
        (_, code) => Answer::Failed(format!("{what}: error {code}: journalctl -u sanlock")),
    }
}

/// Why it cannot even be started.
pub fn missing(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => format!("it is not installed: {INSTALL}"),
        _ => format!("it cannot be started: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_sanlock_takes() {
        assert_eq!(name("office"), "office");
        let hashed = name("Büro: 1. Stock");
        assert!(hashed.starts_with("hafailover-") && hashed.len() == 27, "{hashed}");
        assert_ne!(name(&"x".repeat(49)), name(&"x".repeat(50)));
    }

    #[test]
    fn what_sanlock_prints_is_read() {
        assert_eq!(read("{}\n"), Answer::Done);
        assert_eq!(read("register\nregister done 3\nacquire fd 3\n"), Answer::Done);
        let acquire = |code| format!("register done 3\nacquire fd 3\nacquire done {code}\n");
        assert_eq!(read(&acquire(-243)), Answer::Busy);
        assert_eq!(read(&acquire(-28)), Answer::NotJoined);
        assert_eq!(read("add_lockspace_timeout 2\nadd_lockspace_timeout done -17"), Answer::Joined);
        let Answer::Failed(words) = read("register\nregister done -2\n") else { panic!("done") };
        assert!(words.contains("apt install sanlock"), "{words}");
    }
}
