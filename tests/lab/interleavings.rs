//! Stories of things that happen in the middle of others: each broke a draft of the protocol.

use crate::cluster::{AGENT, Cluster, PATIENCE, QUICK_GUARD, SLOW_GUARD, TAKEOVER, TARGET};
use crate::harness::net::Lan;
use crate::harness::wait;
use crate::restarts::{MEMBERS, slow_agent};
use crate::stories::Story;
use std::process::Child;

pub const ALL: &[(&str, Story)] = &[
    ("stuck_then_the_daemon_dies", stuck_then_the_daemon_dies),
    ("stuck_then_the_daemon_is_lost", stuck_then_the_daemon_is_lost),
    ("strays_then_the_daemon_is_lost", strays_then_the_daemon_is_lost),
    ("disabled_then_the_daemon_dies", disabled_then_the_daemon_dies),
    ("disabled_then_the_daemon_is_lost", disabled_then_the_daemon_is_lost),
    ("releaser_dies_just_after_its_release", releaser_dies_just_after_its_release),
    ("releaser_dies_just_before_its_release", releaser_dies_just_before_its_release),
    ("release_is_not_heard_at_first", release_is_not_heard_at_first),
    ("jeopardy_survives_a_reboot", jeopardy_survives_a_reboot),
    ("reinstalled_beside_a_higher_epoch", reinstalled_beside_a_higher_epoch),
    ("reinstalled_and_alone", reinstalled_and_alone),
    ("both_boot_with_samba_enabled", both_boot_with_samba_enabled),
];

/// The group is asked to move away and cannot: a process holds its disk.
fn stuck(c: &mut Cluster) -> Child {
    c.start_all(TAKEOVER);
    let holder = c.lab.node(0).command("exec sleep 1000 < /srv/data").spawn().expect("started");
    c.opened();
    assert_eq!(c.lab.node(0).run("hafailover move files").code, 1);
    c.phase(0, "stuck");
    holder
}

fn next_daemon(c: &Cluster) {
    c.lab.node(0).must("systemctl kill -s KILL hafailover");
    c.told_times(0, "daemon-started", 2);
}

/// What could not be stopped is held, also by the daemon that comes after.
fn stuck_then_the_daemon_dies(c: &mut Cluster) {
    let mut holder = stuck(c);
    next_daemon(c);
    c.phase(0, "stuck");
    c.held_by_sleep();
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

/// The members run, without the address whose probe would find them, though nobody started them
/// for the cluster. The other node will take silence for death: the guard must stop these too.
fn strays_then_the_daemon_is_lost(c: &mut Cluster) {
    c.configure(QUICK_GUARD);
    c.lab.node(0).must(
        "systemctl disable -q files.target; systemctl daemon-reload; systemctl start srv.mount \
         agent; systemctl enable -q files.target; systemctl daemon-reload",
    );
    (0..2).for_each(|n| c.start(n));
    c.told(0, "stray-found");
    c.told(1, "group-waits");
    crate::troubles::kill_until_lost(c);
    c.runs_on(1);
    assert_ne!(c.lab.node(0).run("systemctl is-active agent srv.mount").code, 0);
    c.one_owner();
}

/// Disabled is not stopped: the next daemon still says that it is held here.
fn disabled_then_the_daemon_dies(c: &mut Cluster) {
    c.start_all(TAKEOVER);
    c.lab.node(0).must("systemctl disable -q files.target");
    c.told(0, "reloaded");
    let before = c.lab.node(0).must(MEMBERS);
    next_daemon(c);
    c.runs_on(0);
    let status = c.lab.node(0).run("hafailover status");
    assert!(status.text.contains("no longer enabled"), "{}", status.text);
    let status = c.lab.node(1).run("hafailover status");
    assert!(status.text.contains("on n1, stopped here"), "{}", status.text);
    assert_eq!(c.lab.node(1).told("group-claimed"), 0);
    assert_eq!(before, c.lab.node(0).must(MEMBERS), "a member was touched");
    c.lab.node(0).must("systemctl stop hafailover");
    c.runs_on(1);
    assert_eq!(c.evidence(1), "n1=Released");
    c.one_owner();
}

fn disabled_then_the_daemon_is_lost(c: &mut Cluster) {
    c.start_all(SLOW_GUARD);
    c.lab.node(0).must("systemctl disable -q files.target");
    c.told(0, "reloaded");
    crate::troubles::kill_until_lost(c);
    c.told(0, "guard-done");
    assert!(c.lab.node(0).is_up(), "it could be stopped without a reset");
    c.runs_on(1);
    c.one_owner();
}

fn move_slowly(c: &mut Cluster, stop: u32, start: u32) {
    c.configure_with(TAKEOVER, TARGET, &slow_agent(stop, start));
    (0..2).for_each(|n| c.start(n));
    c.runs_on(0);
    c.lab.node(1).command("hafailover move files --to n2 >/dev/null 2>&1 &").status().expect("ran");
}

/// The release was heard: it is a promise, and no silence is waited for.
fn releaser_dies_just_after_its_release(c: &mut Cluster) {
    move_slowly(c, 0, 2);
    c.told(1, "group-claimed");
    c.lab.kill(0);
    c.runs_on(1);
    assert_eq!(c.evidence(1), "n1=Released");
    c.one_owner();
}

/// It was last heard stopping: that it is silent since proves nothing before its guard's time is
/// over, and a person may know better.
fn releaser_dies_just_before_its_release(c: &mut Cluster) {
    move_slowly(c, 5, 0);
    c.phase(0, "stopping");
    c.lab.kill(0);
    c.waits_for_a_person();
}

/// It released it when nobody heard it, and lives: it may take the group back, and the node that
/// did not hear of the release may not, before it does.
fn release_is_not_heard_at_first(c: &mut Cluster) {
    move_slowly(c, 3, 0);
    c.phase(0, "stopping");
    c.lab.net.cut(0, Lan::Heartbeat);
    c.lab.line.cut();
    c.told(0, "group-released");
    c.told(1, "peer-silent");
    assert_eq!(c.lab.node(1).told("group-claimed"), 0);
    c.lab.net.heal(0, Lan::Heartbeat);
    c.lab.line.heal();
    wait("the client's answer", PATIENCE, || c.lab.who_answers());
    for n in 0..2 {
        wait("a healthy pair", PATIENCE, || {
            (c.lab.node(n).run("hafailover status").code == 0).then_some(())
        });
        assert_eq!(c.lab.node(n).told("two-owners") + c.failed_starts(n), 0);
    }
    c.one_owner();
}

/// One link was left, and it goes while the standby boots: what it knew of the other link it still
/// knows, and does not take the owner for dead.
fn jeopardy_survives_a_reboot(c: &mut Cluster) {
    c.start_all(TAKEOVER);
    c.lab.line.cut();
    c.told(1, "redundancy-lost");
    c.lab.kill(1);
    c.lab.boot(1);
    c.lab.net.cut(0, Lan::Heartbeat);
    c.start(1);
    // Told once initdead is over.
    c.told(1, "group-waits");
    let status = c.lab.node(1).run("hafailover status");
    assert!(status.code == 4 && status.text.contains("only one link"), "{}", status.text);
    assert_eq!(c.lab.node(1).told("group-claimed"), 0);
    c.lab.net.heal(0, Lan::Heartbeat);
    c.lab.line.heal();
    wait("both links", PATIENCE, || {
        (c.lab.node(1).run("hafailover status").code == 0).then_some(())
    });
    c.runs_on(0);
    assert_eq!(c.lab.node(0).told("group-started"), 1, "nothing moved");
    c.one_owner();
}

/// As a new machine: without a state and without the journal of an earlier one.
fn reinstall(c: &mut Cluster, n: usize) {
    c.lab.kill(n);
    c.lab.boot(n);
    c.lab.node(n).must("rm -r /var/lib/hafailover; journalctl -q --rotate --vacuum-size=1");
    c.start(n);
    c.told(n, "amnesia");
}

/// The epoch by which a group runs there: its number, and the node that made it.
fn epoch(c: &Cluster, n: usize) -> (u64, u64) {
    let status = c.lab.node(n).run("hafailover status").text;
    let words = format!("on n{}, running here, epoch ", n + 1);
    let number = |text: &str| {
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        text[..digits].parse().ok()
    };
    let epoch = status.split_once(&words).and_then(|(_, epoch)| epoch.split_once('.'));
    let epoch = epoch.and_then(|(first, second)| Some((number(first)?, number(second)?)));
    epoch.unwrap_or_else(|| panic!("no epoch in {status}"))
}

/// A node without its state learns the epochs before it takes part.
fn reinstalled_beside_a_higher_epoch(c: &mut Cluster) {
    c.start_all(TAKEOVER);
    c.moves(0, "files");
    c.moves(0, "files");
    c.runs_on(0);
    let starts = || c.lab.node(0).told("group-started");
    let starts = wait("n1's second start", PATIENCE, || Some(starts()).filter(|n| *n >= 2));
    reinstall(c, 1);
    c.told(1, "amnesia-over");
    assert_eq!(c.lab.node(0).told("group-started"), starts, "nothing moved");
    let before = epoch(c, 0);
    assert!(before.0 >= 3 && before.1 == 0, "{before:?}");
    c.moves(0, "files");
    c.runs_on(1);
    // Each start that came too late took one there, and one back.
    let late = c.lab.node(1).told("start-failed") as u64;
    assert_eq!(epoch(c, 1), (before.0 + 1 + 2 * late, 1));
    c.one_owner();
}

/// Alone it never starts: the other one may own an epoch that it has forgotten.
fn reinstalled_and_alone(c: &mut Cluster) {
    c.start_all(TAKEOVER);
    c.lab.kill(0);
    c.runs_on(1);
    reinstall(c, 1);
    wait("the end of initdead", PATIENCE, || {
        let text = c.lab.node(1).run("hafailover status").text;
        (text.contains("this node") && !text.contains("starting")).then_some(())
    });
    let status = c.lab.node(1).run("hafailover status");
    assert!(status.code == 4 && status.text.contains("lost its state"), "{}", status.text);
    assert_eq!(c.lab.node(1).told("group-claimed"), 0);
    c.lab.boot(0);
    c.start(0);
    c.told(1, "amnesia-over");
    c.runs_on(0);
    c.one_owner();
}

/// The distribution starts Samba at boot, on both: the gate refuses it until the cluster does.
fn both_boot_with_samba_enabled(c: &mut Cluster) {
    let target = TARGET.replace("agent.service", "agent.service smbd.service");
    c.configure_with(TAKEOVER, &target, AGENT);
    for n in 0..2 {
        c.lab.node(n).must("systemctl enable -q smbd hafailover");
    }
    (0..2).for_each(|n| c.lab.kill(n));
    (0..2).for_each(|n| c.lab.boot(n));
    c.runs_on(0);
    assert_eq!(c.lab.node(0).run("systemctl is-active smbd").code, 0);
    assert_ne!(c.lab.node(1).run("systemctl is-active smbd").code, 0);
    for n in 0..2 {
        assert_eq!(c.lab.node(n).told("stray-found"), 0);
        let tried = c.lab.node(n).must("systemctl show -P AssertTimestampMonotonic smbd");
        assert_ne!(tried.trim(), "0", "nobody tried to start it at boot");
    }
    c.moves(0, "files");
    c.runs_on(1);
    assert_eq!(c.lab.node(1).run("systemctl is-active smbd").code, 0);
    assert_ne!(c.lab.node(0).run("systemctl is-active smbd").code, 0);
    c.one_owner();
}
