//! Stories of a daemon that is lost at its very first crash, and of its guard, which the other node
//! must wait for though nobody announced it.

use crate::cluster::{AGENT, Cluster, PATIENCE, TARGET};
use crate::harness::wait;
use crate::restarts::slow_agent;
use crate::stories::Story;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub const ALL: &[(&str, Story)] = &[
    ("lost_at_the_first_crash", lost_at_the_first_crash),
    ("lost_at_the_first_crash_with_busy_mount", lost_at_the_first_crash_with_busy_mount),
    ("a_guard_that_dies_resets_its_machine", |c| guard_ends(c, "kill -s KILL")),
    ("a_guard_that_is_told_to_end_resets_its_machine", |c| guard_ends(c, "kill")),
];

/// A deadtime that is longer than it takes until the guard is heard, on a busy machine as well.
const GUARDED: &str = "deadtime = \"4s\"\n[safety]\nsilence = \"takeover\"\n\
    guard-bound = \"12s\"\n";

/// The same with more time for its stop: on a busy machine 8 s are few for one of 6 s.
const PATIENT: &str = "deadtime = \"4s\"\n[safety]\nsilence = \"takeover\"\n\
    guard-bound = \"30s\"\n";

/// n1's daemon is killed and cannot be started again. Until n2 believed the guard's first word.
fn lose(c: &Cluster) -> Duration {
    let node = c.lab.node(0);
    node.must("mkdir -p /etc/systemd/system/hafailover.service.d");
    let broken = "[Service]\nExecStart=\nExecStart=/nowhere\n";
    node.write("/etc/systemd/system/hafailover.service.d/broken.conf", broken);
    node.must("systemctl daemon-reload");
    let killed = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    node.must("systemctl kill -s KILL hafailover");
    c.told(1, "peer-lost");
    let told = c
        .lab
        .node(1)
        .must("journalctl -q -o short-unix HAFAILOVER_WHAT=peer-lost | head -1 | cut -d' ' -f1");
    let told = Duration::from_secs_f64(told.trim().parse().expect("a time"));
    told.saturating_sub(killed)
}

/// The guard takes longer than deadtime: the other node waits, and starts when it is told to.
fn lost_at_the_first_crash(c: &mut Cluster) {
    c.configure_with(PATIENT, TARGET, &slow_agent(6, 0));
    (0..2).for_each(|n| c.start(n));
    c.runs_on(0);
    let client = c.client();
    let gap = lose(c);
    println!("  the guard was heard {gap:?} after the kill");
    c.told(0, "guard-done");
    c.runs_on(1);
    println!("  a stop of 6 s by the guard: client saw {:?}", client.stop().outage());
    assert_eq!(c.evidence(1), "n1=Released", "taken over on silence");
    for what in ["start-failed", "peer-silent", "two-owners"] {
        let before = c.lab.node(1).journal();
        let started = before.iter().position(|l| l.starts_with("group-started "));
        let early = before.iter().take(started.expect("it runs")).filter(|l| l.starts_with(what));
        assert_eq!(early.count(), 0, "{what} before it was taken over");
    }
    let node = c.lab.node(0);
    node.must("rm -r /etc/systemd/system/hafailover.service.d && systemctl daemon-reload");
    node.must("systemctl reset-failed hafailover && systemctl start hafailover");
    wait("a healthy pair", PATIENCE, || {
        (0..2).all(|n| c.lab.node(n).run("hafailover status").code == 0).then_some(())
    });
    assert_eq!(c.lab.node(1).told("peer-double"), 0, "the guard is no clone");
    c.runs_on(1);
    c.one_owner();
}

fn lost_at_the_first_crash_with_busy_mount(c: &mut Cluster) {
    c.configure_with(GUARDED, TARGET, AGENT);
    (0..2).for_each(|n| c.start(n));
    c.runs_on(0);
    let mut holder = c.lab.node(0).command("exec sleep 1000 < /srv/data").spawn().expect("started");
    lose(c);
    wait("the forced reboot", PATIENCE, || (!c.lab.node(0).is_up()).then_some(()));
    assert_eq!(c.lab.node(1).told("group-claimed"), 0, "taken over while the guard was at work");
    // In this lab the addresses of a machine outlive its reset: take them off as well.
    c.lab.kill(0);
    let _ = holder.wait();
    c.runs_on(1);
    assert!(c.evidence(1).starts_with("n1=Silent"), "{}", c.evidence(1));
    c.one_owner();
}

/// What it was about to do within its bound, the other node counts on.
fn guard_ends(c: &mut Cluster, how: &str) {
    c.configure_with(GUARDED, TARGET, &slow_agent(30, 0));
    (0..2).for_each(|n| c.start(n));
    c.runs_on(0);
    lose(c);
    let stop = c.lab.node(0).run("systemctl stop hafailover-lost").text;
    assert!(stop.contains("may be requested by dependency only"), "{stop}");
    c.lab.node(0).run(&format!("systemctl {how} hafailover-lost"));
    wait("the forced reboot", PATIENCE, || (!c.lab.node(0).is_up()).then_some(()));
    assert_eq!(c.lab.node(1).told("group-claimed"), 0, "taken over while members ran");
    c.lab.kill(0);
    c.runs_on(1);
    c.one_owner();
}
