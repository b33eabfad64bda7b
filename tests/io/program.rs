//! The program as systemd and people run it: exit codes, and what becomes of it when nobody reads
//! what it says or a disk does not answer.

use crate::manager::{Manager, PATIENCE};
use crate::space::sh;
use hafailover::core::name::{Epoch, GroupName, NodeId};
use hafailover::io::token;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Instant;

const PROGRAM: &str = env!("CARGO_BIN_EXE_hafailover");

/// A pipe that nobody reads any more.
fn unread() -> Stdio {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    writer.into()
}

fn wait(command: &mut Command) -> ExitStatus {
    let mut child = command.spawn().expect("runs");
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().expect("a child") {
            return status;
        }
        if Instant::now() >= end {
            child.kill().expect("killed");
            panic!("{command:?} hangs");
        }
        std::thread::yield_now();
    }
}

/// The guard, in a process namespace of its own and without the right to reset anything.
fn guard() -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-sys_boot", "--inh-caps=-sys_boot", "unshare", "--pid"]);
    command.args(["--fork", "--kill-child", PROGRAM, "lost"]);
    command
}

/// A group that is held here, on a machine of which nothing else is known.
fn held(manager: &Manager) -> GroupName {
    manager.set("a.service", "active");
    sh("mount -t tmpfs tmpfs /etc/systemd/system && \
        for dir in /etc/hafailover /var/lib/hafailover; do \
        mkdir -p $dir && mount -t tmpfs tmpfs $dir || exit; done && cd /etc/systemd/system && \
        mkdir hafailover-groups.target.wants && \
        printf '[Unit]\\nRequires=a.service\\n' > files.target && \
        ln -s ../files.target hafailover-groups.target.wants/");
    let group = GroupName("files".into());
    token::write(&group, Epoch { counter: 1, node: NodeId(0) }).expect("written");
    group
}

/// Goal: the guard stops the groups also where nobody takes its words.
#[test]
fn the_guard_does_its_work_unheard() {
    let manager = Manager::start();
    let group = held(&manager);
    let status = wait(guard().stderr(unread()));
    let stopped = "StopUnit a.service".to_string();
    assert!(manager.state.lock().expect("whole").calls.contains(&stopped), "{status}");
    assert!(status.success() && token::read(&group).is_none(), "{status}");
}

/// Goal: a group that was disabled while it ran is stopped as well, not left to a reset.
#[test]
fn the_guard_knows_a_group_that_is_no_longer_enabled() {
    let manager = Manager::start();
    let group = held(&manager);
    sh("rm /etc/systemd/system/hafailover-groups.target.wants/files.target");
    let status = wait(guard().stderr(Stdio::null()));
    assert!(status.success() && token::read(&group).is_none(), "{status}");
}

/// Goal: the guard's bound holds also where the disk with its configuration does not answer.
#[test]
fn the_guard_does_not_wait_for_a_dead_disk() {
    let manager = Manager::start();
    held(&manager);
    sh("mkfifo /etc/hafailover/hafailover.toml");
    let (mut reader, writer) = std::io::pipe().expect("a pipe");
    let status = wait(guard().stderr(writer));
    let mut said = String::new();
    reader.read_to_string(&mut said).expect("text");
    assert!(said.contains("the reset failed") && !status.success(), "{status}: {said}");
}

/// Goal: only a wrong configuration is a reason not to try again: systemd restarts on 1, and not
/// on 78.
#[test]
fn what_may_get_better_is_not_a_wrong_configuration() {
    let dir = tempfile::tempdir().expect("a directory");
    let (at, host) = (dir.path().display().to_string(), sh("uname -n").trim().to_string());
    sh(&format!("{PROGRAM} keygen --file {at}/keys"));
    let run = |state: &str, more: &str| {
        let text = format!(
            "[cluster]\nname = \"x\"\nkeys = \"{at}/keys\"\nstate = \"{state}\"\n\
             [[node]]\nname = \"{host}\"\n[[node]]\nname = \"another\"\n\
             [[link]]\ntype = \"udp\"\ninterface = \"lo\"\n{more}"
        );
        std::fs::write(format!("{at}/h.toml"), text).expect("written");
        let mut daemon = Command::new(PROGRAM);
        daemon.args(["daemon", "--config"]).arg(format!("{at}/h.toml"));
        wait(daemon.stderr(Stdio::null())).code()
    };
    assert_eq!(run("/dev/null/state", "rubbish = 1\n"), Some(78), "a wrong configuration");
    assert_eq!(run("/dev/null/state", ""), Some(1), "no directory for the state file");
}

/// Goal: `hafailover check | head` ends as other programs do, not with a core dump.
#[test]
fn a_reader_that_goes_away_is_no_crash() {
    let mut check = Command::new(PROGRAM);
    let status = wait(check.args(["check", "--root=/nowhere"]).stdout(unread()));
    assert_eq!(status.signal(), Some(libc::SIGPIPE), "{status}");
}
