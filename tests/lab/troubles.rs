//! Stories of members, daemons, systemd and people that do what they should not.

use crate::cluster::{Cluster, PATIENCE, QUICK_GUARD, SLOW_GUARD, TAKEOVER, TARGET};
use crate::harness::net::Lan;
use crate::harness::wait;
use crate::restarts::slow_agent;
use std::time::{Duration, SystemTime};

pub fn restart_of_a_member_moves_nothing(c: &mut Cluster) {
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
    assert_eq!(c.lab.node(0).told("by-hand"), 0, "nobody but systemd did anything");
    c.lab.node(0).must("systemctl restart agent");
    c.runs_on(0);
    assert_eq!(c.lab.node(0).told("member-failed"), 0);
    assert_eq!(c.lab.node(0).told("group-released"), 0);
}

pub fn dead_member_is_retried_then_moves(c: &mut Cluster) {
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
    for (n, other) in [(0, "n2"), (1, "n1")] {
        let status = c.lab.node(n).run("hafailover status");
        assert_eq!(status.code, 4, "{}", status.text);
        assert!(status.text.contains("on no node"), "{}", status.text);
        let of = |node: &str| {
            let line = format!("not on {node} for ");
            status.text.lines().find(|l| l.contains(&line)).unwrap_or_default().to_string()
        };
        let mine = of(&format!("n{}", n + 1));
        assert!(mine.contains("quarantined: agent.service failed"), "{}", status.text);
        assert!(of(other).contains("quarantined after failures"), "{}", status.text);
    }
    // Cleared on every node: it runs again, on the one that heard of it first.
    c.lab.node(1).must("hafailover clear files");
    wait("the client's answer", PATIENCE, || c.lab.who_answers());
}

pub fn failed_start_comes_back(c: &mut Cluster) {
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

pub fn busy_mount_is_stuck_until_free(c: &mut Cluster) {
    c.start_all(TAKEOVER);
    let mut holder = c.lab.node(0).command("exec sleep 1000 < /srv/data").spawn().expect("started");
    c.opened();
    let moved = c.lab.node(0).run("hafailover move files");
    assert!(moved.code == 1 && moved.text.contains("(sleep) has /srv/data open"), "{}", moved.text);
    c.phase(0, "stuck");
    c.held_by_sleep();
    assert_eq!(c.lab.node(1).told("group-claimed"), 0);
    c.lab.node(0).must("pkill -x sleep");
    let _ = holder.wait();
    c.runs_on(1);
    assert_eq!(c.lab.node(0).told("group-stuck"), 1, "told once, not every second");
    c.one_owner();
}

pub fn daemon_killed_is_back(c: &mut Cluster) {
    // A busy machine needs its time for a new daemon.
    c.start_all(&format!("deadtime = \"4s\"\n{TAKEOVER}"));
    let since = c.lab.node(0).must("systemctl show -P InvocationID agent srv.mount");
    c.lab.node(0).must("systemd-analyze log-level debug");
    let killed = SystemTime::now();
    c.lab.node(0).must("systemctl kill -s KILL hafailover");
    c.told(0, "group-adopted");
    c.runs_on(0);
    let back = c.lab.node(0).times("group-adopted")[0].duration_since(killed).expect("later");
    println!("  daemon killed: its group is adopted {back:?} later");
    assert_eq!(c.lab.node(1).told("peer-silent"), 0, "back within deadtime");
    let jobs = "systemd-analyze log-level info; journalctl --sync; \
                journalctl -q _PID=1 -o cat -g 'Installed new job'";
    let jobs = c.lab.node(0).must(jobs);
    assert!(jobs.contains("hafailover.service"), "they would be seen: {jobs}");
    for unit in ["agent", "srv.mount", "hafailover-ip@", "files.target"] {
        assert!(!jobs.contains(unit), "a job for {unit}: {jobs}");
    }
    // Also by signals that no job of systemd's sent.
    for (n, how) in
        ["systemctl restart", "systemctl kill", "systemctl kill -s INT"].iter().enumerate()
    {
        c.lab.node(0).must(&format!("{how} hafailover"));
        c.told_times(0, "group-adopted", n + 2);
        c.runs_on(0);
    }
    let now = c.lab.node(0).must("systemctl show -P InvocationID agent srv.mount");
    assert_eq!(since, now, "a member was touched");
    assert_eq!(c.lab.node(1).told("group-claimed"), 0);
    c.one_owner();
}

/// Kills n1's daemon each time it is back, until systemd gives it up. Each life lasts until n2
/// hears it on both links: what falls silent with only one is not taken over.
pub fn kill_until_lost(c: &Cluster) {
    let status = |n: usize| c.lab.node(n).run("hafailover status").text;
    let heard = || {
        let accepted = status(0).lines().any(|l| l.starts_with("n2 ") && l.ends_with(" alive"));
        accepted && status(1).lines().filter(|l| l.ends_with(" up")).count() == 2
    };
    for _ in 0..12 {
        let lost = wait("the daemon", PATIENCE, || {
            let state = c.lab.node(0).run("systemctl show -P ActiveState hafailover").text;
            match state.trim() {
                "failed" => Some(true),
                "active" if heard() => Some(false),
                _ => None,
            }
        });
        if lost {
            return;
        }
        c.lab.node(0).run("systemctl kill -s KILL hafailover");
    }
    panic!("systemd has not given up the daemon");
}

/// The guard takes longer than deadtime: it is waited for.
pub fn daemon_killed_five_times(c: &mut Cluster) {
    c.configure_with(SLOW_GUARD, TARGET, &slow_agent(3, 0));
    (0..2).for_each(|n| c.start(n));
    c.runs_on(0);
    kill_until_lost(c);
    c.runs_on(1);
    c.told(0, "guard-done");
    assert_eq!(c.failed_starts(1), 0, "it was tried while the guard was at work");
    assert_ne!(c.lab.node(0).run("systemctl is-active agent srv.mount").code, 0);
    c.one_owner();
}

pub fn daemon_killed_five_times_with_busy_mount(c: &mut Cluster) {
    c.start_all(QUICK_GUARD);
    let mut holder = c.lab.node(0).command("exec sleep 1000 < /srv/data").spawn().expect("started");
    kill_until_lost(c);
    wait("the forced reboot", PATIENCE, || (!c.lab.node(0).is_up()).then_some(()));
    // In this lab the addresses of a machine outlive its reset: take them off as well.
    c.lab.kill(0);
    let _ = holder.wait();
    c.runs_on(1);
    c.one_owner();
}

pub fn reload_reexec_and_dbus_restart(c: &mut Cluster) {
    c.start_all(TAKEOVER);
    for what in ["daemon-reload", "daemon-reexec", "restart dbus"] {
        c.lab.node(0).must(&format!("systemctl {what}"));
        c.runs_on(0);
        // PID 1 of the target may be away for longer than its evidence is good for.
        c.asked(0, "files", || {
            let (owner, target) = (c.lab.node(0), c.lab.node(1));
            std::thread::scope(|scope| {
                let moving = scope.spawn(|| owner.run("hafailover move files"));
                target.run(&format!("systemctl {what}"));
                owner.run(&format!("systemctl {what}"));
                moving.join().expect("asked")
            })
        });
        c.runs_on(1);
        c.moves(1, "files --to n1");
        c.runs_on(0);
    }
    assert_eq!(c.failed_starts(0) + c.failed_starts(1), 0);
    assert_eq!(c.lab.node(0).told("member-failed") + c.lab.node(1).told("member-failed"), 0);
    c.one_owner();
}

/// For how long journald stands still.
const STOPPED: Duration = Duration::from_secs(10);

pub fn journald_stopped_loses_nothing(c: &mut Cluster) {
    c.start_all(TAKEOVER);
    c.all_well();
    let client = c.client();
    for n in 0..2 {
        c.lab.node(n).must("systemctl kill -s STOP systemd-journald");
    }
    let stopped = SystemTime::now();
    c.lab.node(0).must("hafailover move files");
    wait("the move", PATIENCE, || (c.lab.who_answers()? == "n2").then_some(()));
    let left = STOPPED.saturating_sub(stopped.elapsed().expect("no jump"));
    std::thread::sleep(left);
    c.lab.node(0).must("hafailover move files");
    wait("the move back", PATIENCE, || (c.lab.who_answers()? == "n1").then_some(()));
    for n in 0..2 {
        assert_eq!(c.lab.node(n).told("group-released"), 0, "journald has been asleep");
        c.lab.node(n).must("systemctl kill -s CONT systemd-journald");
    }
    let awake = SystemTime::now();
    for (n, released, started) in [(0, 1, 2), (1, 1, 1)] {
        wait("every entry", PATIENCE, || {
            let node = c.lab.node(n);
            let both = (node.told("group-released"), node.told("group-started"));
            (both == (released, started)).then_some(())
        });
        // With the time at which it was said, and not at which it was read.
        let said = c.lab.node(n).times("group-released")[0];
        assert!(said < awake, "n{}", n + 1);
        for what in ["peer-late", "peer-silent", "member-failed", "stalled"] {
            assert_eq!(c.lab.node(n).told(what), 0, "{what} on n{}", n + 1);
        }
        assert_eq!(c.failed_starts(n), 0, "n{}", n + 1);
    }
    let seen = client.stop();
    println!("  journald stopped, two moves: client saw {:?}", seen.outage());
    assert_eq!(seen.owners(), ["n1", "n2", "n1"]);
    c.one_owner();
}

pub fn strays_are_reported_and_cleared(c: &mut Cluster) {
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

/// From the top: each member begins to stop when the one above it has ended.
fn stopped_in_order(c: &Cluster) {
    let at = |unit: &str, key: &str| -> u64 {
        let shown = c.lab.node(0).must(&format!("systemctl show -P {key}Monotonic {unit}"));
        shown.trim().parse().expect("a number")
    };
    let layers = ["agent", "srv.mount", "hafailover-ip@192.168.0.100-24.service"];
    for pair in layers.windows(2) {
        let (ended, begun) =
            (at(pair[0], "InactiveEnterTimestamp"), at(pair[1], "ActiveExitTimestamp"));
        assert!(0 < ended && ended <= begun, "{pair:?}: {ended} {begun}");
    }
}

pub fn systemctl_by_hand(c: &mut Cluster) {
    c.start_all(TAKEOVER);
    // A stray start on the standby is refused at the gate, of a member at the first one it needs.
    for (unit, named) in [
        ("agent.service", "srv.mount"),
        ("srv.mount", "srv.mount"),
        ("files.target", "files.target"),
    ] {
        let before = c.lab.node(1).told("start-refused");
        let refused = c.lab.node(1).run(&format!("systemctl start {unit}"));
        assert!(refused.code != 0, "{unit}: {}", refused.text);
        let words = format!("a start of {named} was refused: the group is not held here");
        wait(&words, PATIENCE, || {
            let lines = c.lab.node(1).journal();
            let told = lines.iter().filter(|l| l.starts_with("start-refused files: "));
            told.skip(before).find(|l| l.contains(&words)).map(drop)
        });
    }
    let members = "systemctl is-active agent srv.mount 'hafailover-ip@*' files.target";
    assert!(!c.lab.node(1).run(members).text.contains("\nactive"), "something runs on n2");
    crate::hands::agent_by_hand(c, 0);
    c.lab.node(0).must("systemctl stop files.target");
    c.phase(0, "stopped");
    stopped_in_order(c);
    let status = c.lab.node(1).run("hafailover status");
    assert!(status.text.contains("stopped by operator"), "{}", status.text);
    assert_eq!(c.lab.node(1).told("group-claimed"), 0);
    c.lab.node(0).run("systemctl start files.target");
    c.runs_on(0);
    c.one_owner();
}

pub fn disable_on_the_owner(c: &mut Cluster) {
    c.start_all(TAKEOVER);
    c.lab.node(0).must("systemctl disable -q files.target");
    c.told(0, "reloaded");
    let status = c.lab.node(0).run("hafailover status");
    assert!(status.text.contains("no longer enabled"), "{}", status.text);
    assert_eq!(c.lab.node(1).told("group-claimed"), 0);
    c.runs_on(0);
    c.lab.node(0).must("systemctl enable -q files.target");
    c.moves(0, "files");
    c.runs_on(1);
    c.one_owner();
}

pub fn address_is_put_back_and_conflicts_refused(c: &mut Cluster) {
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
    let cleared = c.lab.node(0).run("hafailover clear files");
    assert!(cleared.code == 1 && cleared.text.contains("(address in use)"), "{}", cleared.text);
    c.told(0, "start-failed");
    let unit = c.lab.node(0).run("journalctl -q -u 'hafailover-ip@*' -o cat").text;
    crate::harness::sh(&format!("ip -n {client} addr del 192.168.0.100/24 dev eth0"));
    assert!(unit.contains(mac.trim()), "no {mac} in {unit}");
}

pub fn lan_cable_of_the_owner(c: &mut Cluster) {
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

pub fn wrong_configuration_touches_nothing(c: &mut Cluster) {
    c.start_all(TAKEOVER);
    let node = c.lab.node(0);
    let good = node.must("cat /etc/hafailover/hafailover.toml");
    node.write("/etc/hafailover/hafailover.toml", &good.replace("initdead", "initdeath"));
    let reload = node.run("systemctl reload hafailover");
    assert_ne!(reload.code, 0, "a reload with a wrong file must fail");
    assert!(node.run("hafailover reload").text.contains("initdeath"));
    c.runs_on(0);
    // Started where it holds nothing, it ends with the reason, and nothing is touched.
    let node = c.lab.node(0);
    node.write("/etc/hafailover/hafailover.toml", &good);
    c.moves(0, "files");
    node.must("systemctl stop hafailover");
    c.runs_on(1);
    node.write("/etc/hafailover/hafailover.toml", &good.replace("initdead", "initdeath"));
    assert_ne!(node.run("systemctl start hafailover").code, 0);
    let why = node.run("journalctl --sync; journalctl -q -u hafailover -o cat -n 20").text;
    assert!(why.contains("hafailover.toml:") && why.contains("initdeath"), "{why}");
    node.write("/etc/hafailover/hafailover.toml", &good);
    node.must("chmod 644 /etc/hafailover/keys");
    node.run("systemctl reset-failed hafailover; systemctl start hafailover");
    let why = node.run("journalctl --sync; journalctl -q -u hafailover -o cat -n 8").text;
    assert!(why.contains("chmod 600 /etc/hafailover/keys"), "{why}");
    node.must("chmod 600 /etc/hafailover/keys");
    c.runs_on(1);
}

/// Without room for its state file a node takes nothing and promises nothing, and says so; with
/// room it does, and nobody has to touch it.
pub fn state_without_room_takes_nothing(c: &mut Cluster) {
    c.configure(TAKEOVER);
    c.lab.node(0).must(
        "mkdir -p /var/lib/hafailover; \
         mount -t tmpfs -o size=64k tmpfs /var/lib/hafailover",
    );
    (0..2).for_each(|n| c.start(n));
    c.told(0, "state-failed");
    c.told(1, "group-waits");
    let status = c.lab.node(0).run("hafailover status");
    let words = "the state file cannot be written";
    assert!(status.code == 4 && status.text.contains(words), "{}", status.text);
    assert_eq!(c.lab.node(0).told("group-started") + c.lab.node(1).told("group-started"), 0);
    c.lab.node(0).must("mount -o remount,size=4m /var/lib/hafailover");
    wait("the client's answer", PATIENCE, || c.lab.who_answers());
    c.lab.node(0).must("systemctl stop hafailover; umount /var/lib/hafailover");
    c.runs_on(1);
    c.one_owner();
}
