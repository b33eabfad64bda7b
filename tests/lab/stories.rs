//! What must be seen with real parts: each story is one test. The numbers in the comments are for
//! finding a story, no more.

use crate::cluster::{Cluster, DEADTIME, PATIENCE, TAKEOVER, TARGET};
use crate::double;
use crate::harness::net::Lan;
use crate::harness::wait;
use crate::troubles;
use hafailover::io::clock;
use std::time::{Duration, SystemTime};

pub type Story = fn(&mut Cluster);

pub const ALL: &[(&str, Story)] = &[
    ("both_nodes_start", both_nodes_start),
    ("one_node_alone_waits_for_initdead", one_node_alone_waits_for_initdead),
    ("move_there_and_back", move_there_and_back),
    ("many_moves_in_a_row", many_moves_in_a_row),
    ("standby_and_online", standby_and_online),
    ("stop_of_the_daemon_hands_over", stop_of_the_daemon_hands_over),
    ("poweroff_hands_over", poweroff_hands_over),
    ("power_loss_is_taken_over", power_loss_is_taken_over),
    ("failback_yes_and_after_a_delay", failback_yes_and_after_a_delay),
    ("two_groups_two_owners_one_death", two_groups_two_owners_one_death),
    ("links_one_after_the_other", links_one_after_the_other),
    ("all_links_at_once_and_heal", all_links_at_once_and_heal),
    ("all_links_cut_but_the_lan", all_links_cut_but_the_lan),
    ("one_link_dead_then_power_loss", one_link_dead_then_power_loss),
    ("last_link_takeover", last_link_takeover),
    ("silence_hold_waits_for_a_person", silence_hold_waits_for_a_person),
    ("deaf_standby_that_may_not_start", deaf_standby_that_may_not_start),
    ("frozen_owner_gives_up_when_thawed", frozen_owner_gives_up_when_thawed),
    ("restart_of_a_member_moves_nothing", troubles::restart_of_a_member_moves_nothing),
    ("dead_member_is_retried_then_moves", troubles::dead_member_is_retried_then_moves),
    ("failed_start_comes_back", troubles::failed_start_comes_back),
    ("busy_mount_is_stuck_until_free", troubles::busy_mount_is_stuck_until_free),
    ("daemon_killed_is_back", troubles::daemon_killed_is_back),
    ("daemon_killed_five_times", troubles::daemon_killed_five_times),
    (
        "daemon_killed_five_times_with_busy_mount",
        troubles::daemon_killed_five_times_with_busy_mount,
    ),
    ("reload_reexec_and_dbus_restart", troubles::reload_reexec_and_dbus_restart),
    ("journald_stopped_loses_nothing", troubles::journald_stopped_loses_nothing),
    ("strays_are_reported_and_cleared", troubles::strays_are_reported_and_cleared),
    ("systemctl_by_hand", troubles::systemctl_by_hand),
    ("disable_on_the_owner", troubles::disable_on_the_owner),
    (
        "address_is_put_back_and_conflicts_refused",
        troubles::address_is_put_back_and_conflicts_refused,
    ),
    ("lan_cable_of_the_owner", troubles::lan_cable_of_the_owner),
    ("a_clone_is_told_and_refused", double::a_clone_is_told_and_refused),
    ("state_without_room_takes_nothing", troubles::state_without_room_takes_nothing),
    ("wrong_configuration_touches_nothing", troubles::wrong_configuration_touches_nothing),
];

/// What a takeover after silence may take in this lab: deadtime, the announcement, the start, and
/// slack for a busy machine. A bound on correctness, not a benchmark.
pub const TAKEOVER_BOUND: Duration = Duration::from_secs(10);

fn both_nodes_start(c: &mut Cluster) {
    c.start_all(TAKEOVER);
    c.told_times(0, "group-started", 1);
    assert_eq!(c.lab.node(1).told("group-started"), 0);
    let unit = c.lab.node(0).must("journalctl -q -u files.target -o cat");
    assert!(unit.contains("files is started"), "journalctl -u files.target:\n{unit}");
    let explained = c.lab.node(0).must("journalctl -q -x -u files.target");
    assert!(explained.contains("Every member is active and verified"), "{explained}");
    assert_eq!(c.lab.node(0).run("hafailover status").code, 0);
    c.one_owner();
}

fn one_node_alone_waits_for_initdead(c: &mut Cluster) {
    c.configure(TAKEOVER);
    c.lab.kill(0);
    c.lab.node(1).must("hafailover state create");
    c.start(1);
    wait("the word initdead", PATIENCE, || {
        c.lab.node(1).run("hafailover status").text.contains("initdead is not over").then_some(())
    });
    c.runs_on(1);
    assert_eq!(c.evidence(1), "n1=Unseen");
}

fn move_there_and_back(c: &mut Cluster) {
    c.start_all(TAKEOVER);
    let client = c.client();
    let words = c.moves(0, "files");
    assert!(words.contains("files runs on n2"), "{words}");
    c.runs_on(1);
    let words = c.moves(0, "files.target --to n1");
    assert!(words.contains("files runs on n1"), "{words}");
    c.runs_on(0);
    let seen = client.stop();
    println!("  planned move: client saw {:?}", seen.outage());
    assert_eq!(seen.owners(), ["n1", "n2", "n1"]);
    assert_eq!((&*c.evidence_of(0, 2), &*c.evidence(1)), ("n2=Released", "n1=Released"));
    let refused = c.lab.node(0).run("hafailover move files --to n1");
    assert!(refused.code == 1 && refused.text.contains("already"), "{}", refused.text);
    c.one_owner();
}

/// systemd's limit of starts (five in ten seconds) is for units that crash, not for moves.
fn many_moves_in_a_row(c: &mut Cluster) {
    c.start_all(TAKEOVER);
    for n in 0..14 {
        let words = c.moves(0, "files");
        assert!(words.contains(&format!("files runs on n{}", 2 - n % 2)), "{words}");
    }
    c.runs_on(0);
    c.one_owner();
}

fn standby_and_online(c: &mut Cluster) {
    c.start_all(TAKEOVER);
    c.lab.node(1).must("hafailover standby n1");
    c.runs_on(1);
    let refused = c.lab.node(1).run("hafailover standby");
    assert!(refused.code == 1 && refused.text.contains("no other node"), "{}", refused.text);
    c.lab.node(0).must("hafailover online");
    c.lab.node(1).must("hafailover standby");
    c.runs_on(0);
    c.one_owner();
}

fn stop_of_the_daemon_hands_over(c: &mut Cluster) {
    c.start_all(TAKEOVER);
    let client = c.client();
    c.lab.node(0).must("systemctl stop hafailover");
    c.runs_on(1);
    println!("  systemctl stop hafailover: client saw {:?}", client.stop().outage());
    assert_eq!(c.evidence(1), "n1=Released", "waited for silence");
    assert_ne!(c.lab.node(0).run("systemctl is-active agent srv.mount").code, 0);
    c.one_owner();
}

fn poweroff_hands_over(c: &mut Cluster) {
    c.start_all(TAKEOVER);
    let client = c.client();
    c.lab.node(0).run("systemctl poweroff");
    c.runs_on(1);
    println!("  systemctl poweroff: client saw {:?}", client.stop().outage());
    assert_eq!(c.evidence(1), "n1=Released", "waited for silence");
    c.lab.nodes[0].wait_down();
    c.one_owner();
}

fn power_loss_is_taken_over(c: &mut Cluster) {
    c.start_all(TAKEOVER);
    let client = c.client();
    let dying = SystemTime::now();
    c.lab.kill(0);
    c.runs_on(1);
    let seen = client.stop();
    println!("  power loss: client saw {:?}", seen.outage());
    assert!(seen.outage() < TAKEOVER_BOUND);
    not_before_deadtime(c, dying);
    c.lab.boot(0);
    c.start(0);
    wait("n1 to be alive again", PATIENCE, || (c.lab.node(1).told("peer-alive") > 1).then_some(()));
    assert_eq!(c.lab.node(0).told("group-started"), 1, "with Failback=no nothing moves");
    c.runs_on(1);
    c.one_owner();
}

/// By n2's clock exactly; by ours the last sign of life is up to two keepalives older.
fn not_before_deadtime(c: &Cluster, dying: SystemTime) {
    let evidence = c.evidence(1);
    let silence = evidence.strip_prefix("n1=Silent(").and_then(|e| e.split_once('s'));
    let silence: f64 = silence.expect("silence").0.parse().expect("seconds");
    assert!(silence >= DEADTIME.as_secs_f64(), "{evidence}");
    let claimed = c.lab.node(1).times("group-claimed")[0];
    let after = claimed.duration_since(dying).expect("a claim after the death");
    assert!(after > DEADTIME / 2, "claimed {after:?} after the power was lost");
}

fn failback_yes_and_after_a_delay(c: &mut Cluster) {
    for (failback, delay) in [("yes", Duration::ZERO), ("3s", Duration::from_secs(3))] {
        let target =
            TARGET.replace("[X-Hafailover]", &format!("[X-Hafailover]\nFailback={failback}"));
        c.reset();
        c.configure_with(TAKEOVER, &target, crate::cluster::AGENT);
        (0..2).for_each(|n| c.start(n));
        c.runs_on(0);
        c.lab.kill(0);
        c.runs_on(1);
        c.lab.boot(0);
        c.start(0);
        c.runs_on(0);
        let lines = c.lab.node(1).journal();
        assert!(lines.iter().any(|l| l.contains("failback: n1 is preferred")), "{lines:#?}");
        let (alive, away) = ("peer-alive", "group-released");
        let [.., back] = c.lab.node(1).times(alive)[..] else { panic!("n1 is back") };
        let stayed = c.lab.node(1).times(away)[0].duration_since(back).expect("moved after that");
        println!("  Failback={failback}: moved {stayed:?} after n1 was heard");
        assert!(stayed >= delay, "Failback={failback}: {stayed:?}");
        c.one_owner();
    }
}

fn two_groups_two_owners_one_death(c: &mut Cluster) {
    c.configure(TAKEOVER);
    for n in 0..2 {
        let node = c.lab.node(n);
        node.write(
            "/etc/systemd/system/web.service",
            "[Service]\nExecStart=/bin/sleep infinity\nType=exec\n",
        );
        node.write(
            "/etc/systemd/system/web.target",
            "[Unit]\nRequires=web.service\n[X-Hafailover]\nNodes=n2 n1\n[Install]\n\
             WantedBy=hafailover-groups.target\n",
        );
        node.must("systemctl enable -q web.target && systemctl daemon-reload");
    }
    (0..2).for_each(|n| c.start(n));
    c.runs_on(0);
    let web = |c: &Cluster, n: usize| {
        wait("web", PATIENCE, || (c.lab.node(n).phase("web")? == "running").then_some(()));
    };
    web(c, 1);
    assert_ne!(c.lab.node(0).run("systemctl is-active web").code, 0);
    c.lab.kill(0);
    c.runs_on(1);
    web(c, 1);
    c.one_owner();
}

fn links_one_after_the_other(c: &mut Cluster) {
    c.start_all(TAKEOVER);
    c.lab.net.cut(0, Lan::Heartbeat);
    c.told(1, "redundancy-lost");
    c.told(0, "redundancy-lost");
    let status = c.lab.node(1).run("hafailover status");
    assert!(status.code == 4 && status.text.contains("disarmed"), "{}", status.text);
    c.lab.line.cut();
    c.told(1, "peer-silent");
    c.told(1, "group-waits");
    c.runs_on(0);
    assert_eq!(c.lab.node(1).told("group-claimed"), 0, "the jeopardy rule");
    c.lab.net.heal(0, Lan::Heartbeat);
    c.lab.line.heal();
    c.told(1, "redundancy-back");
    assert_eq!(c.lab.node(0).told("group-started"), 1, "nothing moved");
    c.one_owner();
}

fn all_links_at_once_and_heal(c: &mut Cluster) {
    c.start_all(TAKEOVER);
    // Else the address's own probe finds n1 over the LAN, and n2 does not start: see below.
    c.lab.net.block(0, Lan::Lan);
    c.lab.net.cut(0, Lan::Heartbeat);
    c.lab.line.cut();
    // Both believe the other dead: that is what silence = "takeover" accepts.
    c.told(1, "group-claimed");
    wait("n2 to hold it too", PATIENCE, || (c.lab.node(1).told("group-started") > 0).then_some(()));
    c.lab.net.unblock();
    c.lab.net.heal(0, Lan::Heartbeat);
    let healed = clock::now().0;
    c.lab.line.heal();
    c.phase(0, "stopped");
    c.runs_on(1);
    c.gave_up(0, healed);
    for n in 0..2 {
        c.told(n, "two-owners");
        let critical = "journalctl -q -p crit -o cat HAFAILOVER_WHAT=two-owners";
        assert_ne!(c.lab.node(n).must(critical), "", "two-owners is critical on n{}", n + 1);
    }
    c.all_well();
    let started = [c.lab.node(0).told("group-started"), c.lab.node(1).told("group-started")];
    assert_eq!(started, [1, 1], "nothing else moved");
    c.two_allowed("every link cut");
}

/// The address comes first in the group: its probe finds the owner that the links no longer show,
/// before the disk is touched.
fn all_links_cut_but_the_lan(c: &mut Cluster) {
    c.start_all(TAKEOVER);
    c.lab.net.cut(0, Lan::Heartbeat);
    c.lab.line.cut();
    c.told(1, "start-failed");
    c.phase(1, "stopped");
    c.lab.net.heal(0, Lan::Heartbeat);
    c.lab.line.heal();
    c.runs_on(0);
    assert_eq!(c.lab.node(0).told("group-released"), 0);
    c.one_owner();
}

fn one_link_dead_then_power_loss(c: &mut Cluster) {
    c.start_all(TAKEOVER);
    c.lab.line.cut();
    c.told(1, "redundancy-lost");
    c.lab.kill(0);
    c.waits_for_a_person();
}

fn last_link_takeover(c: &mut Cluster) {
    c.start_all("[safety]\nsilence = \"takeover\"\nlast-link = \"takeover\"\n");
    c.lab.line.cut();
    c.told(1, "redundancy-lost");
    c.lab.kill(0);
    c.runs_on(1);
    c.one_owner();
}

fn silence_hold_waits_for_a_person(c: &mut Cluster) {
    c.start_all("[safety]\nsilence = \"hold\"\n");
    c.lab.kill(0);
    c.waits_for_a_person();
}

fn deaf_standby_that_may_not_start(c: &mut Cluster) {
    c.start_all(TAKEOVER);
    c.lab.node(1).must("hafailover standby n2");
    c.lab.line.cut();
    c.told(0, "redundancy-lost");
    c.lab.net.deafen(1, Lan::Heartbeat);
    c.told(0, "peer-deaf");
    c.told(1, "peer-silent");
    assert_eq!(c.lab.node(0).told("owner-yields"), 0);
    assert_eq!(c.lab.node(0).told("group-released"), 0, "the healthy owner was stopped");
    c.runs_on(0);
    c.one_owner();
}

fn frozen_owner_gives_up_when_thawed(c: &mut Cluster) {
    c.start_all(TAKEOVER);
    let thawed = c.paused_owner();
    c.phase(0, "stopped");
    c.runs_on(1);
    c.gave_up(0, thawed);
    c.told(0, "group-released");
    let kinds = c.lab.node(0).kinds();
    let after: Vec<&str> =
        kinds.iter().map(String::as_str).skip_while(|k| *k != "stalled").collect();
    let released = after.iter().position(|k| *k == "group-released").expect("it gives up");
    let other =
        ["group-claimed", "group-promised", "group-started", "member-failed", "peer-silent"];
    let first: Vec<_> = after[..released].iter().filter(|k| other.contains(k)).collect();
    assert!(first.is_empty(), "{first:?} before it gave up: {after:?}");
    c.two_allowed("an owner that stood still");
}
