//! Stories of hands that are not a person's: what systemd itself does to members and to a node, and
//! files that somebody took away.

use crate::cluster::{AGENT, Cluster, PATIENCE, TAKEOVER, TARGET};
use crate::harness::wait;
use crate::restarts::MEMBERS;
use crate::stories::Story;

pub const ALL: &[(&str, Story)] = &[
    ("whose_hand_it_was", whose_hand_it_was),
    ("a_mount_that_stays_busy", a_mount_that_stays_busy),
    ("without_a_bus", without_a_bus),
    ("isolate_stops_no_member", isolate_stops_no_member),
    ("rescue_hands_over", rescue_hands_over),
    ("a_group_without_its_files_is_held", a_group_without_its_files_is_held),
    ("soft_reboot_hands_over", soft_reboot_hands_over),
];

/// A member that fails is started again, however often.
fn start_with(c: &mut Cluster, agent: &str) {
    let target = TARGET.replace("Quarantine", "Retries=32\nQuarantine");
    c.configure_with(TAKEOVER, &target, agent);
    (0..2).for_each(|n| c.start(n));
    c.runs_on(0);
}

fn active(c: &Cluster, n: usize, unit: &str) {
    wait(&format!("{unit} to be active"), PATIENCE, || {
        (c.lab.node(n).run(&format!("systemctl is-active {unit}")).code == 0).then_some(())
    });
}

/// What a person does to a member is told as that and nothing more; what systemd does is not told
/// as a person's doing, and is healed.
fn whose_hand_it_was(c: &mut Cluster) {
    let agent = AGENT.replace("[Service]", "BindsTo=outer.service\nAfter=outer.service\n[Service]")
        + "ExecReload=true\n";
    for n in 0..2 {
        let outer = "[Service]\nType=exec\nExecStart=sleep infinity\n";
        c.lab.node(n).write("/run/systemd/system/outer.service", outer);
    }
    start_with(c, &agent);
    c.lab.node(0).must("sleep 3; systemctl reload agent; systemctl restart agent");
    c.told(0, "by-hand");
    c.lab.node(0).must("systemctl kill -s KILL outer");
    c.told(0, "member-failed");
    active(c, 0, "agent");
    c.runs_on(0);
    let lines = c.lab.node(0).journal();
    let hands: Vec<&String> = lines.iter().filter(|l| l.starts_with("by-hand ")).collect();
    let restart = |l: &String| l.contains("agent.service was restarted by hand");
    assert!(hands.len() == 1 && restart(hands[0]), "{hands:?}");
    assert_eq!(c.lab.node(0).told("group-degraded"), 0);
    // Somebody stops what it is bound to: that is somebody's doing.
    c.lab.node(0).must("systemctl stop outer");
    c.told(0, "group-degraded");
    assert_eq!(c.lab.node(0).told("member-failed"), 1);
    c.one_owner();
}

/// systemd stops the target with a mount, as it does when a disk is gone; the mount is busy, as
/// nothing stops the agent before it, and stays. No person stopped the group, whenever that is
/// looked at.
fn a_mount_that_stays_busy(c: &mut Cluster) {
    let agent = AGENT.replace("RequiresMountsFor=/srv\n", "");
    c.configure_with(&format!("deadtime = \"4s\"\n{TAKEOVER}"), TARGET, &agent);
    (0..2).for_each(|n| c.start(n));
    c.runs_on(0);
    c.lab.node(0).must(
        "systemctl kill --kill-whom=main -s STOP hafailover; ! systemctl -q stop srv.mount; \
         ! systemctl -q is-active files.target && systemctl -q is-active srv.mount; \
         systemctl kill --kill-whom=main -s CONT hafailover",
    );
    c.lab.node(0).must("systemctl restart agent");
    c.told(0, "by-hand");
    active(c, 0, "files.target");
    let lines = c.lab.node(0).journal();
    let hands: Vec<&String> = lines.iter().filter(|l| l.starts_with("by-hand ")).collect();
    assert!(hands.len() == 1 && hands[0].contains("agent.service was restarted"), "{hands:?}");
    c.runs_on(0);
    c.one_owner();
}

/// A member is stopped and started by hand where its group runs: no failure, and nothing moves.
pub fn agent_by_hand(c: &Cluster, n: usize) {
    c.lab.node(n).must("systemctl stop agent");
    c.told(n, "group-degraded");
    assert_eq!(c.lab.node(n).told("member-failed"), 0);
    c.lab.node(n).must("systemctl start agent");
    c.told(n, "group-whole");
}

/// With the bus stopped on both nodes, PID 1 is asked on its own socket.
fn without_a_bus(c: &mut Cluster) {
    c.start_all(TAKEOVER);
    for n in 0..2 {
        c.lab.node(n).must("systemctl stop dbus.socket dbus");
    }
    c.moves(0, "files");
    c.runs_on(1);
    agent_by_hand(c, 1);
    c.lab.node(1).must("systemctl kill -s KILL agent");
    c.told(1, "member-failed");
    active(c, 1, "agent");
    c.lab.node(1).must("systemctl restart hafailover");
    c.told(1, "group-adopted");
    c.moves(1, "files --to n1");
    c.runs_on(0);
    let starts = c.lab.node(1).told("group-started");
    c.lab.node(0).must("systemctl stop hafailover");
    c.runs_on(1);
    assert_eq!(c.evidence_of(1, starts + 1), "n1=Released");
    for n in 0..2 {
        c.lab.node(n).must("systemctl start dbus.socket dbus");
    }
    c.start(0);
    c.phase(0, "stopped");
    c.moves(1, "files --to n1");
    c.runs_on(0);
    assert_eq!(c.failed_starts(0) + c.failed_starts(1), 0);
    c.one_owner();
}

fn isolate_stops_no_member(c: &mut Cluster) {
    c.configure(TAKEOVER);
    for n in 0..2 {
        c.lab.node(n).must("systemctl enable -q hafailover");
        c.start(n);
    }
    c.runs_on(0);
    let before = c.lab.node(0).must(MEMBERS);
    c.lab.node(0).must("systemctl isolate multi-user.target");
    c.runs_on(0);
    assert_eq!(c.lab.node(0).must(MEMBERS), before, "a member was touched");
    assert_eq!(c.lab.node(0).told("group-degraded") + c.lab.node(0).told("by-hand"), 0);
    c.one_owner();
}

/// Its last one of this machine: nothing but a new boot brings it back from there.
fn rescue_hands_over(c: &mut Cluster) {
    c.start_all(TAKEOVER);
    c.lab.node(0).must("systemctl --no-block isolate rescue.target");
    c.runs_on(1);
    assert_eq!(c.evidence(1), "n1=Released");
    assert_ne!(c.lab.node(0).run("grep ' /srv ' /proc/mounts").code, 0);
    c.lab.kill(0);
    c.one_owner();
}

/// Target and registration gone, and the daemon new: it holds what it held, and gives it away when
/// it is stopped.
fn a_group_without_its_files_is_held(c: &mut Cluster) {
    c.start_all(TAKEOVER);
    c.lab.node(0).must(
        "cd /etc/systemd/system; rm files.target hafailover-groups.target.wants/files.target; \
         systemctl daemon-reload; systemctl restart hafailover",
    );
    c.told(0, "group-adopted");
    assert_eq!(c.lab.node(0).phase("files").as_deref(), Some("running"));
    c.lab.node(0).must("systemctl stop hafailover");
    assert_ne!(c.lab.node(0).run("systemctl is-active agent srv.mount").code, 0);
    assert_ne!(c.lab.node(0).run("grep ' /srv ' /proc/mounts").code, 0);
    c.one_owner();
}

/// The same kernel and the same /run, and another life: no token of the old one is left.
fn soft_reboot_hands_over(c: &mut Cluster) {
    let version = c.lab.node(0).must("systemctl --version");
    let number = version.split_whitespace().nth(1).and_then(|n| n.parse::<u32>().ok());
    if number.is_some_and(|n| n < 254) {
        return println!("  systemd {} has no soft-reboot", number.unwrap_or_default());
    }
    // A logind that has lost its bus once answers nobody, and is asked for a soft-reboot.
    c.lab.kill(0);
    c.lab.boot(0);
    c.configure(TAKEOVER);
    for n in 0..2 {
        c.lab.node(n).must("systemctl enable -q hafailover");
        c.start(n);
    }
    c.runs_on(0);
    let life = "systemctl show -P UserspaceTimestampMonotonic";
    let before = c.lab.node(0).must(life);
    // As of a group whose stop was never verified.
    c.lab.node(0).must("echo stale >/run/hafailover/stopping/other");
    c.lab.node(0).must("systemctl --no-block soft-reboot");
    c.runs_on(1);
    assert_eq!(c.evidence(1), "n1=Released");
    wait("n1 to be back", PATIENCE, || {
        let now = c.lab.node(0).run(life);
        let other = now.code == 0 && now.text != before;
        (other && c.lab.node(0).phase("files")? == "stopped").then_some(())
    });
    let left = c.lab.node(0).must("ls -A /run/hafailover/owned /run/hafailover/stopping");
    assert!(!left.contains("other") && !left.contains("files"), "{left}");
    assert_eq!(c.lab.node(0).told("quarantined"), 0);
    c.moves(1, "files");
    c.runs_on(0);
    c.one_owner();
}
