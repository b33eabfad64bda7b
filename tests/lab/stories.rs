//! What must be seen with real parts: each story is one test. The numbers in the comments are for
//! finding a story, no more.

use crate::cluster::{Cluster, PATIENCE, TAKEOVER, TARGET};
use crate::harness::net::Lan;
use crate::harness::wait;
use std::time::Duration;

pub type Story = fn(&mut Cluster);

pub const ALL: &[(&str, Story)] = &[
    ("both_nodes_start", both_nodes_start),
    ("one_node_alone_waits_for_initdead", one_node_alone_waits_for_initdead),
    ("move_there_and_back", move_there_and_back),
    ("standby_and_online", standby_and_online),
    ("stop_of_the_daemon_hands_over", stop_of_the_daemon_hands_over),
    ("poweroff_hands_over", poweroff_hands_over),
    ("power_loss_is_taken_over", power_loss_is_taken_over),
    ("failback_yes_and_after_a_delay", failback_yes_and_after_a_delay),
    ("links_one_after_the_other", links_one_after_the_other),
    ("all_links_at_once_and_heal", all_links_at_once_and_heal),
    ("all_links_cut_but_the_lan", all_links_cut_but_the_lan),
    ("one_link_dead_then_power_loss", one_link_dead_then_power_loss),
    ("last_link_takeover", last_link_takeover),
    ("silence_hold_waits_for_a_person", silence_hold_waits_for_a_person),
    ("deaf_standby_that_may_not_start", deaf_standby_that_may_not_start),
    ("frozen_owner_gives_up_when_thawed", frozen_owner_gives_up_when_thawed),
    ("restart_of_a_member_moves_nothing", restart_of_a_member_moves_nothing),
    ("dead_member_is_retried_then_moves", dead_member_is_retried_then_moves),
    ("failed_start_comes_back", failed_start_comes_back),
    ("busy_mount_is_stuck_until_free", busy_mount_is_stuck_until_free),
    ("daemon_killed_is_back", daemon_killed_is_back),
    ("daemon_killed_five_times", daemon_killed_five_times),
    ("daemon_killed_five_times_with_busy_mount", daemon_killed_five_times_with_busy_mount),
    ("reload_reexec_and_dbus_restart", reload_reexec_and_dbus_restart),
    ("journald_stopped_loses_nothing", journald_stopped_loses_nothing),
    ("strays_are_reported_and_cleared", strays_are_reported_and_cleared),
    ("systemctl_by_hand", systemctl_by_hand),
    ("disable_on_the_owner", disable_on_the_owner),
    ("address_is_put_back_and_conflicts_refused", address_is_put_back_and_conflicts_refused),
    ("lan_cable_of_the_owner", lan_cable_of_the_owner),
    ("wrong_configuration_touches_nothing", wrong_configuration_touches_nothing),
];

/// What a takeover after silence may take in this lab: deadtime, the announcement, the start, and
/// slack for a busy machine. A bound on correctness, not a benchmark.
const TAKEOVER_BOUND: Duration = Duration::from_secs(10);

fn both_nodes_start(c: &mut Cluster) {
    c.start_all(TAKEOVER);
    assert_eq!(c.lab.node(0).told("group-started"), 1);
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
    let lines = c.lab.node(1).journal();
    assert!(lines.iter().any(|l| l.starts_with("group-started")));
}

fn move_there_and_back(c: &mut Cluster) {
    c.start_all(TAKEOVER);
    let client = c.client();
    let words = c.lab.node(0).must("hafailover move files");
    assert!(words.contains("files runs on n2"), "{words}");
    c.runs_on(1);
    let words = c.lab.node(0).must("hafailover move files.target --to n1");
    assert!(words.contains("files runs on n1"), "{words}");
    c.runs_on(0);
    let seen = client.stop();
    println!("  planned move: client saw {:?}", seen.outage());
    assert_eq!(seen.owners(), ["n1", "n2", "n1"]);
    let refused = c.lab.node(0).run("hafailover move files --to n1");
    assert!(refused.code == 1 && refused.text.contains("already"), "{}", refused.text);
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
    assert!(c.lab.node(1).journal().iter().all(|l| !l.contains("Silent(")), "waited for silence");
    assert_ne!(c.lab.node(0).run("systemctl is-active agent srv.mount").code, 0);
    c.one_owner();
}

fn poweroff_hands_over(c: &mut Cluster) {
    c.start_all(TAKEOVER);
    let client = c.client();
    c.lab.node(0).run("systemctl poweroff");
    c.runs_on(1);
    println!("  systemctl poweroff: client saw {:?}", client.stop().outage());
    let started = c.lab.node(1).journal().into_iter().find(|l| l.starts_with("group-started"));
    assert!(started.is_some());
    c.lab.nodes[0].wait_down();
    c.one_owner();
}

fn power_loss_is_taken_over(c: &mut Cluster) {
    c.start_all(TAKEOVER);
    let client = c.client();
    c.lab.kill(0);
    c.runs_on(1);
    let seen = client.stop();
    println!("  power loss: client saw {:?}", seen.outage());
    assert!(seen.outage() < TAKEOVER_BOUND);
    let line = c.lab.node(1).journal().into_iter().find(|l| l.starts_with("group-started"));
    assert!(line.is_some());
    c.lab.boot(0);
    c.start(0);
    wait("n1 to be alive again", PATIENCE, || (c.lab.node(1).told("peer-alive") > 1).then_some(()));
    assert_eq!(c.lab.node(0).told("group-started"), 1, "with Failback=no nothing moves");
    c.runs_on(1);
    c.one_owner();
}

fn failback_yes_and_after_a_delay(c: &mut Cluster) {
    for failback in ["yes", "3s"] {
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
        c.one_owner();
    }
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
    c.lab.line.cut();
    c.lab.net.cut(0, Lan::Heartbeat);
    // Else the address's own probe finds n1 over the LAN, and n2 does not start: see below.
    c.lab.net.block(0, Lan::Lan);
    // Both believe the other dead: that is what silence = "takeover" accepts.
    c.told(1, "group-claimed");
    wait("n2 to hold it too", PATIENCE, || (c.lab.node(1).told("group-started") > 0).then_some(()));
    c.lab.net.unblock();
    c.lab.net.heal(0, Lan::Heartbeat);
    c.lab.line.heal();
    c.phase(0, "stopped");
    c.told(0, "two-owners");
    c.told(1, "two-owners");
    c.runs_on(1);
    println!("  all links cut and healed: both wrote for {:?}", c.lab.overlap());
}

/// The address comes first in the group: its probe finds the owner that the links no longer show,
/// before the disk is touched.
fn all_links_cut_but_the_lan(c: &mut Cluster) {
    c.start_all(TAKEOVER);
    c.lab.line.cut();
    c.lab.net.cut(0, Lan::Heartbeat);
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
    c.told(1, "group-waits");
    let status = c.lab.node(1).run("hafailover status");
    assert!(status.text.contains("confirm-down n1"), "{}", status.text);
    assert_eq!(c.lab.node(1).told("group-claimed"), 0);
    c.lab.node(1).must("hafailover confirm-down n1");
    c.runs_on(1);
    c.one_owner();
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
    c.told(1, "group-waits");
    let status = c.lab.node(1).run("hafailover status");
    assert!(status.code == 4 && status.text.contains("confirm-down n1"), "{}", status.text);
    assert_eq!(c.lab.node(1).told("group-claimed"), 0);
    c.lab.node(1).must("hafailover confirm-down n1");
    c.runs_on(1);
    c.one_owner();
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
    c.lab.node(0).freeze();
    wait("n2 to take over", PATIENCE, || {
        (c.lab.node(1).phase("files")? == "running").then_some(())
    });
    c.lab.node(0).thaw();
    c.phase(0, "stopped");
    c.told(0, "stalled");
    c.runs_on(1);
    println!("  owner frozen and thawed: both wrote for {:?}", c.lab.overlap());
}

fn restart_of_a_member_moves_nothing(c: &mut Cluster) {
    let agent = crate::cluster::AGENT.to_string() + "Restart=on-failure\nRestartSec=50ms\n";
    c.configure_with(TAKEOVER, TARGET, &agent);
    (0..2).for_each(|n| c.start(n));
    c.runs_on(0);
    c.lab.node(0).must("systemctl kill -s KILL agent");
    wait("systemd's own restart", PATIENCE, || {
        let shown = c.lab.node(0).run("systemctl show -P NRestarts agent").text;
        (shown.trim() == "1").then_some(())
    });
    c.runs_on(0);
    c.lab.node(0).must("systemctl restart agent");
    c.runs_on(0);
    assert_eq!(c.lab.node(0).told("member-failed"), 0);
    assert_eq!(c.lab.node(0).told("group-released"), 0);
}

fn dead_member_is_retried_then_moves(c: &mut Cluster) {
    c.start_all(TAKEOVER);
    let client = c.client();
    c.lab.node(0).must("systemctl kill -s KILL agent");
    c.told(0, "member-failed");
    wait("the retry", PATIENCE, || {
        (c.lab.node(0).run("systemctl is-active agent").code == 0).then_some(())
    });
    println!("  member killed: client saw {:?}", client.stop().outage());
    c.runs_on(0);
    c.lab.node(0).must("systemctl kill -s KILL agent");
    c.runs_on(1);
    c.told(0, "quarantined");
    c.one_owner();
    c.lab.node(1).must("systemctl kill -s KILL agent");
    c.told(1, "member-failed");
    wait("the retry", PATIENCE, || {
        (c.lab.node(1).run("systemctl is-active agent").code == 0).then_some(())
    });
    c.runs_on(1);
    c.lab.node(1).must("systemctl kill -s KILL agent");
    c.phase(1, "stopped");
    let status = c.lab.node(1).run("hafailover status");
    assert!(status.code == 4 && status.text.contains("quarantined"), "{}", status.text);
    c.lab.node(1).must("hafailover clear files");
    c.runs_on(0);
}

fn failed_start_comes_back(c: &mut Cluster) {
    c.start_all(TAKEOVER);
    c.lab.node(1).must("mv /usr/local/bin/agent /usr/local/bin/agent.away");
    let client = c.client();
    let moved = c.lab.node(0).run("hafailover move files");
    c.runs_on(0);
    println!("  failed start on the target: client saw {:?}", client.stop().outage());
    c.lab.node(1).must("mv /usr/local/bin/agent.away /usr/local/bin/agent");
    assert!(moved.code == 1 && moved.text.contains("did not start on n2"), "{}", moved.text);
    c.told(1, "start-failed");
    c.told(1, "quarantined");
    c.one_owner();
}

fn busy_mount_is_stuck_until_free(c: &mut Cluster) {
    c.start_all(TAKEOVER);
    let mut holder = c.lab.node(0).command("exec sleep 1000 < /srv/data").spawn().expect("started");
    let moved = c.lab.node(0).run("hafailover move files");
    assert!(moved.code == 1 && moved.text.contains("(sleep) has /srv/data open"), "{}", moved.text);
    c.phase(0, "stuck");
    let status = c.lab.node(0).run("hafailover status");
    assert!(status.code == 4 && status.text.contains("(sleep)"), "{}", status.text);
    assert_eq!(c.lab.node(1).told("group-claimed"), 0);
    c.lab.node(0).must("pkill -x sleep");
    let _ = holder.wait();
    c.runs_on(1);
    assert_eq!(c.lab.node(0).told("group-stuck"), 1, "told once, not every second");
    c.one_owner();
}

fn daemon_killed_is_back(c: &mut Cluster) {
    c.start_all(TAKEOVER);
    let since = c.lab.node(0).must("systemctl show -P InvocationID agent srv.mount");
    c.lab.node(0).must("systemctl kill -s KILL hafailover");
    c.told(0, "group-adopted");
    c.runs_on(0);
    c.lab.node(0).must("systemctl restart hafailover");
    wait("the second adoption", PATIENCE, || {
        (c.lab.node(0).told("group-adopted") == 2).then_some(())
    });
    c.runs_on(0);
    let now = c.lab.node(0).must("systemctl show -P InvocationID agent srv.mount");
    assert_eq!(since, now, "a member was touched");
    assert_eq!(c.lab.node(1).told("group-claimed"), 0);
    c.one_owner();
}

fn kill_until_lost(c: &Cluster) {
    for n in 1..=6 {
        if c.lab.node(0).run("systemctl is-failed hafailover").text.contains("failed") {
            return;
        }
        wait("the daemon", PATIENCE, || {
            let state = c.lab.node(0).run("systemctl show -P ActiveState hafailover").text;
            matches!(state.trim(), "active" | "failed").then_some(())
        });
        println!("  kill {n}");
        c.lab.node(0).run("systemctl kill -s KILL hafailover");
    }
}

fn daemon_killed_five_times(c: &mut Cluster) {
    c.start_all(TAKEOVER);
    kill_until_lost(c);
    c.runs_on(1);
    c.told(0, "guard-done");
    assert_ne!(c.lab.node(0).run("systemctl is-active agent srv.mount").code, 0);
    c.one_owner();
}

fn daemon_killed_five_times_with_busy_mount(c: &mut Cluster) {
    c.start_all(TAKEOVER);
    let mut holder = c.lab.node(0).command("exec sleep 1000 < /srv/data").spawn().expect("started");
    kill_until_lost(c);
    wait("the forced reboot", PATIENCE, || (!c.lab.node(0).is_up()).then_some(()));
    let _ = holder.wait();
    c.runs_on(1);
    c.one_owner();
}

fn reload_reexec_and_dbus_restart(c: &mut Cluster) {
    c.start_all(TAKEOVER);
    for what in ["daemon-reload", "daemon-reexec", "restart dbus"] {
        c.lab.node(0).must(&format!("systemctl {what}"));
        c.runs_on(0);
        let mut moving = c.lab.node(0).command("hafailover move files").spawn().expect("started");
        c.lab.node(1).run(&format!("systemctl {what}"));
        c.lab.node(0).run(&format!("systemctl {what}"));
        assert!(moving.wait().expect("ended").success(), "move during {what}");
        c.runs_on(1);
        c.lab.node(1).must("hafailover move files --to n1");
        c.runs_on(0);
    }
    assert_eq!(c.lab.node(0).told("start-failed") + c.lab.node(1).told("start-failed"), 0);
    assert_eq!(c.lab.node(0).told("member-failed") + c.lab.node(1).told("member-failed"), 0);
    c.one_owner();
}

fn journald_stopped_loses_nothing(c: &mut Cluster) {
    c.start_all(TAKEOVER);
    for n in 0..2 {
        c.lab.node(n).must("systemctl kill -s STOP systemd-journald");
    }
    c.lab.node(0).must("hafailover move files");
    wait("the move", PATIENCE, || (c.lab.who_answers()? == "n2").then_some(()));
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(c.lab.who_answers().as_deref(), Some("n2"));
    for n in 0..2 {
        c.lab.node(n).must("systemctl kill -s CONT systemd-journald");
    }
    c.told(0, "group-released");
    c.told(1, "group-started");
    assert_eq!(c.lab.node(0).told("peer-silent") + c.lab.node(1).told("peer-silent"), 0);
    c.one_owner();
}

fn strays_are_reported_and_cleared(c: &mut Cluster) {
    c.configure(TAKEOVER);
    for n in 0..2 {
        // Started before the group was enabled: no gate held it back.
        c.lab.node(n).must(
            "systemctl disable -q files.target; systemctl daemon-reload; \
             systemd-run -q --unit=agent2 sleep 1000; systemctl start smbd; \
             sed -i 's/agent.service/agent.service smbd.service/' \
             /etc/systemd/system/files.target; systemctl enable -q files.target; \
             systemctl daemon-reload; systemctl stop agent2",
        );
        c.start(n);
    }
    c.told(0, "stray-found");
    c.told(1, "stray-found");
    assert_eq!(c.lab.node(0).told("group-claimed"), 0);
    let status = c.lab.node(0).run("hafailover status");
    assert!(status.code == 4 && status.text.contains("hafailover clear files"), "{}", status.text);
    c.lab.node(1).must("hafailover clear files");
    c.lab.node(0).must("hafailover adopt files");
    c.runs_on(0);
    c.one_owner();
}

fn systemctl_by_hand(c: &mut Cluster) {
    c.start_all(TAKEOVER);
    // A stray start on the standby is refused at the gate and told.
    for unit in ["agent", "files.target"] {
        assert_ne!(c.lab.node(1).run(&format!("systemctl start {unit}")).code, 0);
    }
    c.told(1, "start-refused");
    std::thread::sleep(Duration::from_millis(700));
    c.lab.node(0).must("systemctl stop agent");
    c.told(0, "group-degraded");
    assert_eq!(c.lab.node(0).told("member-failed"), 0);
    c.lab.node(0).must("systemctl start agent");
    c.told(0, "group-whole");
    c.lab.node(0).must("systemctl stop files.target");
    c.phase(0, "stopped");
    let status = c.lab.node(1).run("hafailover status");
    assert!(status.text.contains("stopped by operator"), "{}", status.text);
    assert_eq!(c.lab.node(1).told("group-claimed"), 0);
    c.lab.node(0).run("systemctl start files.target");
    c.runs_on(0);
    c.one_owner();
}

fn disable_on_the_owner(c: &mut Cluster) {
    c.start_all(TAKEOVER);
    c.lab.node(0).must("systemctl disable -q files.target");
    c.told(0, "reloaded");
    let status = c.lab.node(0).run("hafailover status");
    assert!(status.text.contains("no longer enabled"), "{}", status.text);
    assert_eq!(c.lab.node(1).told("group-claimed"), 0);
    c.runs_on(0);
    c.lab.node(0).must("systemctl enable -q files.target");
    c.lab.node(0).must("hafailover move files");
    c.runs_on(1);
    c.one_owner();
}

fn address_is_put_back_and_conflicts_refused(c: &mut Cluster) {
    c.start_all(TAKEOVER);
    c.lab.node(0).must("ip addr del 192.168.0.100/24 dev eth0");
    c.runs_on(0);
    c.lab.node(0).must("systemctl stop files.target");
    c.phase(0, "stopped");
    let client = c.lab.net.client();
    crate::harness::sh(&format!("ip -n {client} addr add 192.168.0.100/24 dev eth0"));
    let mac = crate::harness::sh(&format!(
        "ip -n {client} -o link show eth0 | sed 's/.*ether //; s/ .*//'"
    ));
    c.lab.node(0).must("hafailover clear files");
    c.told(0, "start-failed");
    let unit = c.lab.node(0).run("journalctl -q -u 'hafailover-ip@*' -o cat").text;
    crate::harness::sh(&format!("ip -n {client} addr del 192.168.0.100/24 dev eth0"));
    assert!(unit.contains(mac.trim()), "no {mac} in {unit}");
}

fn lan_cable_of_the_owner(c: &mut Cluster) {
    c.start_all(TAKEOVER);
    let client = c.client();
    c.lab.net.cut(0, Lan::Lan);
    c.runs_on(1);
    println!("  LAN cable pulled: client saw {:?}", client.stop().outage());
    c.told(0, "carrier-lost");
    c.lab.net.heal(0, Lan::Lan);
    c.told(0, "carrier-back");
    c.runs_on(1);
    assert_eq!(c.lab.node(0).told("group-started"), 1, "back in: nothing more moves");
    c.one_owner();
}

fn wrong_configuration_touches_nothing(c: &mut Cluster) {
    c.start_all(TAKEOVER);
    let node = c.lab.node(0);
    let good = node.must("cat /etc/hafailover/hafailover.toml");
    node.write("/etc/hafailover/hafailover.toml", &good.replace("initdead", "initdeath"));
    let reload = node.run("systemctl reload hafailover");
    assert_ne!(reload.code, 0, "a reload with a wrong file must fail");
    assert!(node.run("hafailover reload").text.contains("initdeath"));
    c.runs_on(0);
    let node = c.lab.node(0);
    node.run("systemctl restart hafailover");
    let why = node.run("journalctl -q -u hafailover -o cat -n 20").text;
    assert!(why.contains("hafailover.toml:") && why.contains("initdeath"), "{why}");
    assert_eq!(node.run("systemctl is-active agent").code, 0, "a member was touched");
    node.write("/etc/hafailover/hafailover.toml", &good);
    node.must("chmod 644 /etc/hafailover/keys");
    node.run("systemctl reset-failed hafailover; systemctl start hafailover");
    let why = node.run("journalctl -q -u hafailover -o cat -n 8").text;
    assert!(why.contains("chmod 600 /etc/hafailover/keys"), "{why}");
    node.must("chmod 600 /etc/hafailover/keys");
}
