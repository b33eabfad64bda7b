//! Stories of restarts: of a machine, and of the daemon on either node, at rest and while a group
//! moves.

use crate::cluster::{AGENT, Cluster, PATIENCE, TAKEOVER, TARGET};
use crate::harness::wait;
use crate::stories::Story;

pub const ALL: &[(&str, Story)] = &[
    ("reboot_hands_over_and_returns", reboot_hands_over_and_returns),
    ("restart_of_the_daemon_touches_nothing", restart_of_the_daemon_touches_nothing),
    ("restart_of_either_daemon_during_a_move", restart_of_either_daemon_during_a_move),
    ("upgrade_of_the_package", upgrade_of_the_package),
    ("reload_reexec_and_dbus_restart_in_a_takeover", systemd_in_a_takeover),
    ("real_time_is_refused", real_time_is_refused),
    ("stopped_before_it_is_ready", stopped_before_it_is_ready),
];

/// Slow enough that something can happen between its two ends.
pub fn slow_agent(stop: u32, start: u32) -> String {
    format!("{AGENT}ExecStartPre=sleep {start}\nExecStop=sleep {stop}\n")
}

fn reboot_hands_over_and_returns(c: &mut Cluster) {
    c.start_all(TAKEOVER);
    c.lab.node(0).must("systemctl enable -q hafailover");
    let client = c.client();
    c.lab.node(0).run("systemctl reboot");
    c.runs_on(1);
    println!("  systemctl reboot: client saw {:?}", client.stop().outage());
    assert_eq!(c.evidence(1), "n1=Released", "waited for silence");
    let kinds = c.lab.node(1).kinds();
    let at = |what: &str| kinds.iter().position(|k| k == what);
    assert!(at("peer-silent").is_none_or(|silent| Some(silent) > at("group-claimed")), "{kinds:?}");
    c.lab.nodes[0].wait_down();
    c.lab.kill(0);
    c.lab.boot(0);
    wait("n1 to see n2's group", PATIENCE, || {
        let status = c.lab.node(0).run("hafailover status");
        (status.code == 0 && status.text.contains("on n2, stopped here")).then_some(())
    });
    assert_eq!(c.lab.node(0).told("group-started"), 1, "nothing moved back");
    c.runs_on(1);
    // A member of the cluster like before: it can be given the group.
    c.moves(1, "files");
    c.runs_on(0);
    c.one_owner();
}

/// Shows which life of each member runs.
pub const MEMBERS: &str =
    "systemctl show -P InvocationID agent srv.mount 'hafailover-ip@192.168.0.100-24.service'";

/// A daemon that adopts its group still waits for its file, here a pipe, when it is told to stop:
/// it is a stop like any other.
fn stopped_before_it_is_ready(c: &mut Cluster) {
    c.start_all(&format!("deadtime = \"4s\"\n{TAKEOVER}"));
    c.lab.node(0).must(
        "cd /etc/hafailover; cp hafailover.toml /run/saved; rm hafailover.toml; \
         mkfifo hafailover.toml; systemctl kill -s KILL hafailover; exec 3>hafailover.toml; \
         rm hafailover.toml; cp /run/saved hafailover.toml; systemctl stop --no-block hafailover; \
         while [ \"$(systemctl is-active hafailover)\" = activating ]; do :; done; \
         cat /run/saved >&3",
    );
    c.runs_on(1);
    assert_eq!(c.evidence(1), "n1=Released");
    c.one_owner();
}

/// Installed anew, the package restarts the daemon and nothing else; with a file by which the
/// daemon could not start again, not even that. Removed, it gives the groups away first.
fn upgrade_of_the_package(c: &mut Cluster) {
    c.start_all(TAKEOVER);
    let node = c.lab.node(0);
    let daemon = || node.must("systemctl show -P MainPID hafailover");
    let (members, old) = (node.must(MEMBERS), daemon());
    node.must("dpkg -i /var/cache/hafailover.deb");
    c.runs_on(0);
    assert_ne!(daemon(), old, "the new daemon runs");
    let good = node.must("cat /etc/hafailover/hafailover.toml");
    node.write("/etc/hafailover/hafailover.toml", &good.replace("initdead", "initdeath"));
    let old = daemon();
    let said = node.must("dpkg -i /var/cache/hafailover.deb 2>&1");
    assert!(said.contains("hafailover check finds errors"), "{said}");
    assert_eq!(daemon(), old, "the old daemon goes on");
    assert_eq!(members, node.must(MEMBERS), "a member was touched");
    node.write("/etc/hafailover/hafailover.toml", &good);
    node.must("dpkg -r hafailover");
    c.runs_on(1);
    assert_eq!(c.evidence(1), "n1=Released");
    c.lab.node(0).must("dpkg -i /var/cache/hafailover.deb");
    c.one_owner();
}

fn restart_of_the_daemon_touches_nothing(c: &mut Cluster) {
    // A busy machine needs its time for a new daemon.
    c.start_all(&format!("deadtime = \"4s\"\n{TAKEOVER}"));
    let client = c.client();
    let before = c.lab.node(0).must(MEMBERS);
    for (round, nodes) in [vec![0], vec![1], vec![0, 1]].into_iter().enumerate() {
        let restart = |n: &usize| {
            c.lab.node(*n).command("systemctl restart hafailover").spawn().expect("started")
        };
        let children: Vec<_> = nodes.iter().map(restart).collect();
        for mut child in children {
            assert!(child.wait().expect("ended").success(), "systemctl restart");
        }
        if nodes.contains(&0) {
            c.told_times(0, "group-adopted", if round == 0 { 1 } else { 2 });
        }
        for n in 0..2 {
            wait("a healthy pair", PATIENCE, || {
                (c.lab.node(n).run("hafailover status").code == 0).then_some(())
            });
        }
        c.runs_on(0);
    }
    let seen = client.stop();
    println!("  five restarts of daemons: client saw {:?}", seen.outage());
    assert_eq!(seen.owners(), ["n1"]);
    assert_eq!(before, c.lab.node(0).must(MEMBERS), "a member was touched");
    for n in 0..2 {
        for what in ["group-released", "start-failed", "two-owners", "peer-silent"] {
            assert_eq!(c.lab.node(n).told(what), 0, "{what} on n{}", n + 1);
        }
    }
    assert_eq!(c.lab.node(0).told("group-started"), 1);
    assert_eq!(c.lab.node(1).told("group-claimed"), 0);
    c.one_owner();
}

/// The move was asked for and is kept in mind: it is carried out, whoever's daemon is restarted
/// while the group stops on one node or starts on the other.
fn restart_of_either_daemon_during_a_move(c: &mut Cluster) {
    c.configure_with(TAKEOVER, TARGET, &slow_agent(3, 3));
    (0..2).for_each(|n| c.start(n));
    c.runs_on(0);
    let (mut from, mut to) = (0, 1);
    for phase in ["stopping", "starting"] {
        for restarted in [from, to] {
            let asked = format!("hafailover move files --to n{}", to + 1);
            let mut moving = c.lab.node(from).command(&asked).spawn().expect("started");
            c.phase(if phase == "stopping" { from } else { to }, phase);
            c.lab.node(restarted).must("systemctl restart hafailover");
            c.runs_on(to);
            c.phase(from, "stopped");
            // Asked of a daemon that ended, it has no answer; else it must be a yes.
            let answered = moving.wait().expect("ended").success();
            let where_to = format!("{phase}, n{} restarted", restarted + 1);
            assert!(answered || restarted == from, "the move failed: {where_to}");
            (from, to) = (to, from);
        }
    }
    assert_eq!(c.failed_starts(0) + c.failed_starts(1), 0);
    assert_eq!(c.lab.node(0).told("two-owners") + c.lab.node(1).told("two-owners"), 0);
    c.one_owner();
}

/// The owner has lost its power; the survivor's systemd is told to do something else while the
/// silence is being judged, and again while the group starts.
fn systemd_in_a_takeover(c: &mut Cluster) {
    c.configure_with(TAKEOVER, TARGET, &slow_agent(0, 6));
    (0..2).for_each(|n| c.start(n));
    c.runs_on(0);
    c.all_well();
    let (mut dies, mut lives) = (0, 1);
    for what in ["daemon-reload", "daemon-reexec", "restart dbus"] {
        let starts = c.lab.node(lives).told("group-started");
        c.lab.kill(dies);
        c.lab.node(lives).must(&format!("systemctl {what}"));
        c.phase(lives, "starting");
        c.lab.node(lives).must(&format!("systemctl {what}"));
        // Where systemd was away for too long, the group is stopped and claimed anew by now.
        assert_ne!(c.lab.node(lives).phase("files").as_deref(), Some("running"), "{what}");
        c.runs_on(lives);
        let evidence = c.evidence_of(lives, starts + 1);
        assert!(evidence.contains("=Silent("), "{evidence}");
        c.told_times(lives, "group-started", starts + 1);
        c.lab.boot(dies);
        c.start(dies);
        c.all_well();
        (dies, lives) = (lives, dies);
    }
    for node in &c.lab.nodes {
        for kind in ["member-failed", "quarantined", "two-owners", "by-hand"] {
            assert_eq!(node.told(kind), 0, "{kind} on {}", node.name);
        }
        // PID 1 may be away for longer than the evidence is good for: then it is gathered anew.
        let lines = node.journal();
        let given_up =
            |l: &&String| ["start-failed ", "group-released "].iter().any(|k| l.starts_with(k));
        let other = lines.iter().filter(given_up).find(|l| !l.contains("evidence was too old"));
        assert_eq!(other, None, "on {}", node.name);
    }
    c.one_owner();
}

/// The daemon does without, first with a nice value and then without that too, says which it got,
/// and does its work; check says what deadtime to write.
fn real_time_is_refused(c: &mut Cluster) {
    c.configure(TAKEOVER);
    let refused = "[Service]\nRestrictRealtime=yes\n";
    let both = format!("{refused}LimitNICE=0\nCapabilityBoundingSet=~CAP_SYS_NICE\n");
    let got = ["nice -20 (SCHED_RR refused: ", "ordinary (SCHED_RR refused: "];
    for (n, dropin) in [refused, &both].into_iter().enumerate() {
        let node = c.lab.node(n);
        node.write("/etc/systemd/system/hafailover.service.d/rt.conf", dropin);
        node.must("systemctl daemon-reload");
        c.start(n);
    }
    c.runs_on(0);
    c.all_well();
    for (n, got) in got.into_iter().enumerate() {
        let status = c.lab.node(n).must("hafailover status");
        assert!(status.contains(got), "no {got:?} in {status}");
        let check = c.lab.node(n).run("hafailover check");
        for words in [got, "RestrictRealtime=", "write deadtime = \"1500ms\" or more"] {
            assert!(check.code == 2 && check.text.contains(words), "{words:?}: {}", check.text);
        }
    }
    c.moves(0, "files");
    c.runs_on(1);
    c.lab.kill(1);
    c.runs_on(0);
    c.one_owner();
}
