//! Runs an agent of the package fence-agents (FenceAgentAPI): options go to its standard input,
//! never to its command line, and its words come back without the secrets. It has done it when it
//! has itself read back that the node is off.

use crate::config::settings::FenceHow;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Until when a fence that was asked for may begin; written by the daemon.
const ORDERS: &str = "/run/hafailover/fence";
/// PID 1 may need so long to get to it.
const FORK: Duration = Duration::from_secs(2);
/// Between two looks at a child, and between two questions whether the node is off by now.
const LOOK: Duration = Duration::from_millis(20);
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// Of an agent's words so many bytes are read, the rest is thrown away.
const WORDS_MAX: u64 = 64 * 1024;
/// `status` of FenceAgentAPI.
const STATUS_ON: i32 = 0;
const STATUS_OFF: i32 = 2;

/// Why it is not sure that the node is off. The number is the exit code of the unit, by which the
/// daemon knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It cannot be started.
    NoAgent = 10,
    Refused = 11,
    Late = 12,
    StillOn = 13,
    NoState = 14,
    Secrets = 15,
    Stale = 16,
    NotConfigured = 17,
}

/// Exit code of a drill when the node is off; 0: it is on.
pub const IS_OFF: u8 = 3;

impl Failure {
    const ALL: [Failure; 8] = [
        Failure::NoAgent,
        Failure::Refused,
        Failure::Late,
        Failure::StillOn,
        Failure::NoState,
        Failure::Secrets,
        Failure::Stale,
        Failure::NotConfigured,
    ];

    fn words(self) -> &'static str {
        match self {
            Failure::NoAgent => "the agent cannot be run: is its package installed?",
            Failure::Refused => "the agent failed",
            Failure::Late => "the agent did not end in time",
            Failure::StillOn => "the agent ended well, but still says that the node is on",
            Failure::NoState => "the agent cannot tell whether the node is off",
            Failure::Secrets => "its secrets cannot be read",
            Failure::Stale => "it began too late to be sure that it is still wanted",
            Failure::NotConfigured => "there is no agent for this node in hafailover.toml",
        }
    }
}

/// An exit code of the unit in words.
pub fn words(unit: &str, status: i32) -> String {
    let known = Failure::ALL.into_iter().find(|f| *f as i32 == status).map(Failure::words);
    let why = known.map_or_else(|| format!("exit code {status}"), str::to_string);
    format!("{why} (journalctl -u {unit})")
}

/// Leaves word until when it may begin.
pub fn order(node: &str, valid_until: crate::core::time::Instant) -> std::io::Result<()> {
    std::fs::create_dir_all(ORDERS)?;
    std::fs::write(Path::new(ORDERS).join(node), valid_until.0.to_string())
}

/// Whether it may still begin. A person who starts the unit by hand has left no word.
pub fn may_begin(node: &str) -> Result<(), Failure> {
    let path = Path::new(ORDERS).join(node);
    let Ok(text) = std::fs::read_to_string(&path) else { return Ok(()) };
    let _ = std::fs::remove_file(path);
    let until = text.trim().parse().map(crate::core::time::Instant).unwrap_or_default();
    let good = super::clock::now() < until + FORK;
    if good { Ok(()) } else { Err(Failure::Stale) }
}

/// An agent with all that it is told.
pub struct Agent {
    path: PathBuf,
    options: BTreeMap<String, String>,
    secrets: BTreeMap<String, String>,
    confirm: bool,
    on_again: bool,
    end: Instant,
}

impl Agent {
    pub fn new(how: &FenceHow, timeout: Duration) -> Result<Agent, Failure> {
        let FenceHow::Agent { agent, options, secrets, confirm, on_again } = how else {
            return Err(Failure::NotConfigured);
        };
        Ok(Agent {
            path: agent.clone(),
            options: options.clone(),
            secrets: read_secrets(secrets.as_deref())?,
            confirm: *confirm,
            on_again: *on_again,
            end: Instant::now() + timeout,
        })
    }

    /// Off, and read back.
    pub fn off(&self) -> Result<(), Failure> {
        if !self.run("off")?.success() {
            return Err(Failure::Refused);
        }
        if self.confirm {
            self.wait_off()?;
        }
        if self.on_again {
            // It was off: whether it comes back is no part of that.
            let _ = self.run("on");
        }
        Ok(())
    }

    fn wait_off(&self) -> Result<(), Failure> {
        let mut said_on = false;
        loop {
            match self.run("status").map(|status| status.code()) {
                Ok(Some(STATUS_OFF)) => return Ok(()),
                Ok(Some(STATUS_ON)) if Instant::now() + ASK_AGAIN < self.end => {
                    said_on = true;
                    std::thread::sleep(ASK_AGAIN);
                }
                Ok(Some(STATUS_ON)) => return Err(Failure::StillOn),
                // Its time ended in the middle of one more question: what it said stands.
                Err(Failure::Late) if said_on => return Err(Failure::StillOn),
                Err(failure) => return Err(failure),
                Ok(_) => return Err(Failure::NoState),
            }
        }
    }

    /// Whether the node is on; changes nothing.
    pub fn is_on(&self) -> Result<bool, Failure> {
        if !self.confirm {
            let well = self.run("monitor")?.success();
            return if well { Ok(true) } else { Err(Failure::Refused) };
        }
        match self.run("status")?.code() {
            Some(STATUS_ON) => Ok(true),
            Some(STATUS_OFF) => Ok(false),
            _ => Err(Failure::NoState),
        }
    }

    fn run(&self, action: &str) -> Result<ExitStatus, Failure> {
        let mut command = Command::new(&self.path);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.process_group(0).spawn().map_err(|e| {
            eprintln!("{}: {e}", self.path.display());
            Failure::NoAgent
        })?;
        let mut text = String::new();
        for (key, value) in self.options.iter().chain(&self.secrets) {
            text += &format!("{key}={value}\n");
        }
        text += &format!("action={action}\n");
        if let Some(mut stdin) = child.stdin.take() {
            // One that does not read it fails by itself.
            let _ = stdin.write_all(text.as_bytes());
        }
        let said = [
            child.stdout.take().map(|out| listen(Box::new(out))),
            child.stderr.take().map(|out| listen(Box::new(out))),
        ];
        let status = self.wait(&mut child);
        // Also what it left behind; its pipes are closed then.
        end_group(&child);
        for words in said.into_iter().flatten().filter_map(|t| t.join().ok()) {
            self.tell(action, &words);
        }
        status
    }

    fn wait(&self, child: &mut Child) -> Result<ExitStatus, Failure> {
        loop {
            match child.try_wait() {
                Ok(Some(status)) => return Ok(status),
                Ok(None) if Instant::now() < self.end => std::thread::sleep(LOOK),
                _ => {
                    end_group(child);
                    let _ = child.wait();
                    return Err(Failure::Late);
                }
            }
        }
    }

    fn tell(&self, action: &str, words: &str) {
        for line in self.clean(words).lines().filter(|l| !l.trim().is_empty()) {
            eprintln!("{action}: {line}");
        }
    }

    /// Without any of the secrets.
    fn clean(&self, words: &str) -> String {
        let values = self.secrets.values().filter(|v| !v.is_empty());
        values.fold(words.to_string(), |text, secret| text.replace(secret.as_str(), "***"))
    }
}

fn listen(mut out: Box<dyn Read + Send>) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = out.by_ref().take(WORDS_MAX).read_to_end(&mut bytes);
        let _ = std::io::copy(&mut out, &mut std::io::sink());
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn end_group(child: &Child) {
    let group = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
    if let Some(group) = group {
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
}

/// From the file of the settings, and from the credential `fence` of the unit (systemd.exec(5)).
fn read_secrets(path: Option<&Path>) -> Result<BTreeMap<String, String>, Failure> {
    let mut text = String::new();
    if let Some(path) = path {
        text = crate::config::fence::secrets(path).map_err(|why| {
            eprintln!("{why}");
            Failure::Secrets
        })?;
    }
    if let Some(dir) = std::env::var_os("CREDENTIALS_DIRECTORY") {
        text.push('\n');
        text += &std::fs::read_to_string(Path::new(&dir).join("fence")).unwrap_or_default();
    }
    let lines = text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#'));
    lines
        .map(|line| match line.split_once('=') {
            Some((key, value)) => Ok((key.trim().to_string(), value.trim().to_string())),
            None => {
                eprintln!("a line of the secrets has no =");
                Err(Failure::Secrets)
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// A script that does what fence_* would, by a file that says whether the node is on.
    fn agent(dir: &Path, script: &str, timeout: u64) -> Agent {
        let path = dir.join("fence_test");
        let text = format!(
            "#!/bin/sh\ncd {}\nwhile IFS== read -r key value; do\n\
             case $key in action|password) eval $key=\\$value;; esac\ndone\n\
             echo $action >> said\n{script}",
            dir.display()
        );
        std::fs::write(&path, text).expect("written");
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&path, mode).expect("made a program");
        Agent {
            path,
            options: [("ip".to_string(), "10.0.0.9".to_string())].into(),
            secrets: [("password".to_string(), "geheim".to_string())].into(),
            confirm: true,
            on_again: false,
            end: Instant::now() + Duration::from_millis(timeout),
        }
    }

    const HONEST: &str = "case $action in off) touch off;; on) rm off;; \
                          status) test -e off && exit 2; exit 0;; esac";

    #[test]
    fn off_is_read_back_and_only_that_counts() {
        let dir = tempfile::tempdir().expect("a directory");
        let honest = agent(dir.path(), HONEST, 5000);
        assert_eq!(honest.is_on(), Ok(true));
        assert_eq!(honest.off(), Ok(()));
        assert_eq!(honest.is_on(), Ok(false));
        let said = std::fs::read_to_string(dir.path().join("said")).expect("it was run");
        assert_eq!(said, "status\noff\nstatus\nstatus\n");
        let nothing = agent(dir.path(), "case $action in status) exit 0;; esac", 1200);
        assert_eq!(nothing.off(), Err(Failure::StillOn));
        assert_eq!(agent(dir.path(), "exit 1", 5000).off(), Err(Failure::Refused));
        let slow = "case $action in status) test -e asked && sleep 60; touch asked; exit 0;; esac";
        assert_eq!(agent(dir.path(), slow, 2000).off(), Err(Failure::StillOn));
        let blind = agent(dir.path(), "case $action in status) exit 1;; esac", 5000);
        assert_eq!(blind.off(), Err(Failure::NoState));
        let missing = Agent { path: "/nowhere/fence_x".into(), ..honest };
        assert_eq!(missing.off(), Err(Failure::NoAgent));
    }

    #[test]
    fn one_that_hangs_is_ended_with_all_that_it_started() {
        let dir = tempfile::tempdir().expect("a directory");
        let hangs = agent(dir.path(), "sleep 60 & echo $! > pid; sleep 60", 500);
        assert_eq!(hangs.off(), Err(Failure::Late));
        let pid = std::fs::read_to_string(dir.path().join("pid")).expect("it was run");
        let stat = format!("/proc/{}/stat", pid.trim());
        // Killed; when it is gone, its own parent is told, and not we.
        let gone = || std::fs::read_to_string(&stat).map_or(true, |s| s.contains(") Z"));
        let end = Instant::now() + Duration::from_secs(10);
        while !gone() {
            assert!(Instant::now() < end, "its child lives on");
            std::thread::sleep(LOOK);
        }
    }

    #[test]
    fn secrets_go_to_its_input_and_never_come_back_in_words() {
        let dir = tempfile::tempdir().expect("a directory");
        let loud = agent(dir.path(), "echo \"$password $*\" > got; exit 1", 5000);
        assert_eq!(loud.off(), Err(Failure::Refused));
        let got = std::fs::read_to_string(dir.path().join("got")).expect("it was run");
        assert_eq!(got, "geheim \n", "by its input, and no argument");
        assert_eq!(loud.clean("login geheim refused"), "login *** refused");
    }
}
