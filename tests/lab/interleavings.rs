//! Stories of things that happen in the middle of others: each broke a draft of the protocol.

use crate::cluster::{Cluster, PATIENCE, TAKEOVER};
use crate::harness::wait;
use crate::stories::Story;
use std::process::Child;

pub const ALL: &[(&str, Story)] = &[
    ("stuck_then_the_daemon_dies", stuck_then_the_daemon_dies),
    ("stuck_then_the_daemon_is_lost", stuck_then_the_daemon_is_lost),
];

/// The group is asked to move away and cannot: a process holds its disk.
fn stuck(c: &mut Cluster) -> Child {
    c.start_all(TAKEOVER);
    let holder = c.lab.node(0).command("exec sleep 1000 < /srv/data").spawn().expect("started");
    assert_eq!(c.lab.node(0).run("hafailover move files").code, 1);
    c.phase(0, "stuck");
    holder
}

/// What could not be stopped is held, also by the daemon that comes after.
fn stuck_then_the_daemon_dies(c: &mut Cluster) {
    let mut holder = stuck(c);
    c.lab.node(0).must("systemctl kill -s KILL hafailover");
    wait("the next daemon", PATIENCE, || (c.lab.node(0).told("daemon-started") == 2).then_some(()));
    c.phase(0, "stuck");
    let status = c.lab.node(0).run("hafailover status");
    assert!(status.code == 4 && status.text.contains("(sleep)"), "{}", status.text);
    let status = c.lab.node(1).run("hafailover status");
    assert!(status.text.contains("on n1, stopped here"), "{}", status.text);
    assert_eq!(c.lab.node(0).told("stray-found"), 0, "the cluster itself started it");
    assert_eq!(c.lab.node(1).told("group-claimed"), 0);
    c.lab.node(0).must("pkill -x sleep");
    let _ = holder.wait();
    c.runs_on(1);
    c.one_owner();
}

/// Nobody is left to stop it: the guard cannot either, and resets the machine, because the other
/// node counts on that.
fn stuck_then_the_daemon_is_lost(c: &mut Cluster) {
    let mut holder = stuck(c);
    crate::troubles::kill_until_lost(c);
    wait("the forced reboot", PATIENCE, || (!c.lab.node(0).is_up()).then_some(()));
    c.lab.kill(0);
    let _ = holder.wait();
    c.told(1, "group-waits");
    c.lab.node(1).must("hafailover confirm-down n1");
    c.runs_on(1);
    c.one_owner();
}
