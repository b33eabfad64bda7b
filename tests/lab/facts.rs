//! What systemd really does, where the program is built on it: each fact is proved again on the
//! systemd of the node, without the program. If one of them fails on a new release, the rule that
//! rests on it has to be thought over. Units of these tests are called fact*, and live in /run.

use crate::cluster::{Cluster, PATIENCE};
use crate::harness::node::Node;
use crate::harness::wait;
use crate::stories::Story;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

pub const ALL: &[(&str, Story)] = &[
    ("fact_stop_of_a_target_returns_early", stop_of_a_target_returns_early),
    ("fact_busy_mount_does_not_hold_up_a_stop", busy_mount_does_not_hold_up_a_stop),
    ("fact_target_stays_active_without_its_member", target_stays_active_without_its_member),
    ("fact_bound_target_goes_and_its_member_is_back", bound_target_goes_and_its_member_is_back),
    ("fact_failed_start_leaves_members_running", failed_start_leaves_members_running),
    ("fact_assert_refuses_hands_and_sockets", assert_refuses_hands_and_sockets),
    ("fact_stop_ends_a_pending_restart", stop_ends_a_pending_restart),
    ("fact_death_with_a_stop_pending_is_a_failure", death_with_a_stop_pending_is_a_failure),
    ("fact_registry_target_never_starts", registry_target_never_starts),
    ("fact_sections_with_x_are_silent", sections_with_x_are_silent),
    ("fact_mount_after_a_service_is_a_cycle", mount_after_a_service_is_a_cycle),
    ("fact_failed_condition_is_a_job_done", failed_condition_is_a_job_done),
    ("fact_job_timeout_does_not_stop_the_start", job_timeout_does_not_stop_the_start),
    ("fact_reexec_keeps_jobs", reexec_keeps_jobs),
    ("fact_stop_tells_a_restart_from_a_stop", stop_tells_a_restart_from_a_stop),
    ("fact_start_limit_runs_on_failure", start_limit_runs_on_failure),
    ("fact_runtime_directory_is_wiped_unless_kept", runtime_directory_is_wiped_unless_kept),
    ("fact_journal_shows_object_units_of_root_only", journal_shows_object_units_of_root_only),
    ("fact_later_units_stop_first", later_units_stop_first),
    ("fact_start_in_a_shutdown_is_refused", start_in_a_shutdown_is_refused),
];

const SLEEPER: &str = "[Service]\nType=exec\nExecStart=sleep infinity\n";

/// A node without a unit of an earlier fact, with these units loaded.
fn with_units<'a>(c: &'a Cluster, units: &[(&str, &str)]) -> &'a Node {
    let node = c.lab.node(1);
    node.run(
        "systemctl disable -q --runtime fact.target; systemctl stop 'fact*' run-fact.mount; \
         rm -rf /run/systemd/system/*fact* /run/fact*",
    );
    for (name, text) in units {
        node.write(&format!("/run/systemd/system/{name}"), text);
    }
    node.must("systemctl daemon-reload; systemctl reset-failed");
    node
}

fn show(node: &Node, unit: &str, property: &str) -> String {
    node.must(&format!("systemctl show -P {property} {unit}")).trim().to_string()
}

fn until(node: &Node, unit: &str, property: &str, value: &str) {
    wait(&format!("{property} of {unit} to be {value}"), PATIENCE, || {
        (show(node, unit, property) == value).then_some(())
    });
}

fn stop_of_a_target_returns_early(c: &mut Cluster) {
    let member = format!("[Unit]\nPartOf=fact.target\n{SLEEPER}ExecStop=sleep 2\n");
    let target = "[Unit]\nRequires=fact-slow.service\nAfter=fact-slow.service\n";
    let node = with_units(c, &[("fact.target", target), ("fact-slow.service", &member)]);
    node.must("systemctl start fact.target");
    let begun = Instant::now();
    node.must("systemctl stop fact.target");
    let state = show(node, "fact-slow.service", "ActiveState");
    assert_eq!(state, "deactivating", "after {:?}", begun.elapsed());
    assert_eq!(show(node, "fact.target", "ActiveState"), "inactive");
}

fn busy_mount_does_not_hold_up_a_stop(c: &mut Cluster) {
    let below = format!("[Unit]\nPartOf=fact.target\n{SLEEPER}");
    let mount = "[Unit]\nPartOf=fact.target\nAfter=fact-below.service\n\
                 Requires=fact-below.service\nDefaultDependencies=no\n\
                 [Mount]\nWhat=tmpfs\nWhere=/run/fact\nType=tmpfs\n";
    let target = "[Unit]\nRequires=run-fact.mount fact-below.service\n";
    let units =
        [("fact.target", target), ("run-fact.mount", mount), ("fact-below.service", &below)];
    let node = with_units(c, &units);
    node.must("systemctl start fact.target run-fact.mount && touch /run/fact/held");
    let mut holder = hold(node, "/run/fact/held");
    node.must("systemctl stop fact.target");
    until(node, "fact-below.service", "ActiveState", "inactive");
    assert_eq!(show(node, "fact.target", "ActiveState"), "inactive");
    let mounted = node.run("mountpoint -q /run/fact").code;
    node.must("pkill -f '^sleep 98765'");
    let _ = holder.wait();
    assert_eq!(mounted, 0, "it was unmounted under a process that has a file open in it");
}

/// A process that has a file open, and has it open now.
fn hold(node: &Node, path: &str) -> Child {
    let mut command = node.command(&format!("exec 3<{path}; echo open; exec sleep 98765"));
    let mut child = command.stdout(Stdio::piped()).spawn().expect("nsenter runs");
    let mut line = String::new();
    let out = child.stdout.as_mut().expect("piped");
    BufReader::new(out).read_line(&mut line).expect("a line");
    assert_eq!(line, "open\n");
    child
}

fn target_stays_active_without_its_member(c: &mut Cluster) {
    let target = "[Unit]\nRequires=fact-a.service\nAfter=fact-a.service\n";
    let node = with_units(c, &[("fact.target", target), ("fact-a.service", SLEEPER)]);
    node.must("systemctl start fact.target && systemctl kill -s KILL fact-a");
    until(node, "fact-a.service", "ActiveState", "failed");
    assert_eq!(show(node, "fact.target", "ActiveState"), "active");
}

fn bound_target_goes_and_its_member_is_back(c: &mut Cluster) {
    let member = format!("{SLEEPER}Restart=always\nRestartSec=50ms\n");
    let target = "[Unit]\nBindsTo=fact-a.service\nAfter=fact-a.service\n";
    let node = with_units(c, &[("fact.target", target), ("fact-a.service", &member)]);
    node.must("systemctl start fact.target && systemctl kill -s KILL fact-a");
    until(node, "fact-a.service", "NRestarts", "1");
    until(node, "fact-a.service", "ActiveState", "active");
    assert_eq!(show(node, "fact.target", "ActiveState"), "inactive");
}

fn failed_start_leaves_members_running(c: &mut Cluster) {
    let bad = "[Unit]\nAfter=fact-a.service\n[Service]\nType=oneshot\nExecStart=false\n";
    let target = "[Unit]\nRequires=fact-a.service fact-b.service\n\
                  After=fact-a.service fact-b.service\n";
    let units = [("fact.target", target), ("fact-a.service", SLEEPER), ("fact-b.service", bad)];
    let node = with_units(c, &units);
    assert_ne!(node.run("systemctl start fact.target").code, 0);
    assert_eq!(show(node, "fact.target", "ActiveState"), "inactive");
    assert_eq!(show(node, "fact-a.service", "ActiveState"), "active");
}

fn assert_refuses_hands_and_sockets(c: &mut Cluster) {
    let gated = format!("[Unit]\nAssertPathExists=/run/fact-token\n{SLEEPER}");
    let socket = "[Socket]\nListenStream=127.0.0.1:5999\n";
    let node = with_units(c, &[("fact-g.service", &gated), ("fact-g.socket", socket)]);
    assert_ne!(node.run("systemctl start fact-g.service").code, 0);
    assert_eq!(show(node, "fact-g.service", "ActiveState"), "inactive");
    node.must("systemctl start fact-g.socket");
    let tried = show(node, "fact-g.service", "AssertTimestampMonotonic");
    node.run("timeout 2 bash -c 'exec 3<>/dev/tcp/127.0.0.1/5999'");
    wait("the socket to start the service", PATIENCE, || {
        (show(node, "fact-g.service", "AssertTimestampMonotonic") != tried).then_some(())
    });
    assert_eq!(show(node, "fact-g.service", "ActiveState"), "inactive");
    node.must("touch /run/fact-token && systemctl start fact-g.service");
}

/// From systemd 254 on a unit's own restart is not asserted again: the closed gate does not end it,
/// the stop must.
fn stop_ends_a_pending_restart(c: &mut Cluster) {
    let unit = format!("{SLEEPER}Restart=always\nRestartSec=3s\n");
    let node = with_units(c, &[("fact-g.service", &unit)]);
    node.must("systemctl start fact-g && systemctl kill -s KILL fact-g");
    until(node, "fact-g.service", "SubState", "auto-restart");
    node.must("systemctl stop fact-g");
    assert_eq!(show(node, "fact-g.service", "ActiveState"), "inactive");
    // Longer than the restart would have been waited for.
    std::thread::sleep(Duration::from_millis(3500));
    assert_eq!(show(node, "fact-g.service", "ActiveState"), "inactive");
}

/// Where PID 1 has a stop before it has reaped who was killed, the guard comes, not a restart.
fn death_with_a_stop_pending_is_a_failure(c: &mut Cluster) {
    let unit = "[Unit]\nOnFailure=fact-i.service\n[Service]\nType=exec\nRestart=always\n\
        ExecStart=sh -c 'trap \"\" TERM; while :; do sleep 1000; done'\n";
    let node = with_units(c, &[("fact-h.service", unit), ("fact-i.service", SLEEPER)]);
    node.must("systemctl start fact-h && systemctl stop --no-block fact-h");
    until(node, "fact-h.service", "ActiveState", "deactivating");
    node.must("systemctl kill -s KILL fact-h");
    until(node, "fact-h.service", "ActiveState", "failed");
    until(node, "fact-i.service", "ActiveState", "active");
}

fn registry_target_never_starts(c: &mut Cluster) {
    let target = "[Unit]\nRequires=fact-a.service\n[Install]\nWantedBy=hafailover-groups.target\n";
    let node = with_units(c, &[("fact.target", target), ("fact-a.service", SLEEPER)]);
    node.must("systemctl enable -q --runtime fact.target");
    assert!(show(node, "hafailover-groups.target", "Wants").contains("fact.target"));
    assert_ne!(node.run("systemctl start hafailover-groups.target").code, 0);
    node.must("systemctl start multi-user.target");
    assert_eq!(show(node, "hafailover-groups.target", "ActiveState"), "inactive");
    assert_eq!(show(node, "fact-a.service", "ActiveState"), "inactive");
}

fn sections_with_x_are_silent(c: &mut Cluster) {
    let node = with_units(c, &[]);
    let warnings = |section: &str| {
        let unit = format!("[Unit]\nDescription=x\n[{section}]\nNodes=n1 n2\n");
        node.write("/run/systemd/system/fact.target", &unit);
        node.must(
            "systemctl daemon-reload; systemctl start fact.target; systemctl stop fact.target",
        );
        let said = "journalctl --sync; journalctl -q -o cat _PID=1 -g 'fact.target.*section'";
        node.run(said).text.lines().count()
    };
    assert_eq!(warnings("X-Hafailover"), 0);
    assert_ne!(warnings("Hafailover"), 0, "without X- it would be told");
}

fn mount_after_a_service_is_a_cycle(c: &mut Cluster) {
    let mount = |more: &str| {
        format!(
            "[Unit]\nAfter=fact-a.service\nRequires=fact-a.service\n{more}\
             [Mount]\nWhat=tmpfs\nWhere=/run/fact\nType=tmpfs\n"
        )
    };
    let look = |more: &str| {
        let units = [("run-fact.mount", &*mount(more)), ("fact-a.service", SLEEPER)];
        let verify = "systemd-analyze verify run-fact.mount 2>&1";
        with_units(c, &units).run(verify).text.contains("ordering cycle")
    };
    assert!(look(""));
    assert!(!look("DefaultDependencies=no\n"));
}

fn failed_condition_is_a_job_done(c: &mut Cluster) {
    let unit = format!("[Unit]\nConditionPathExists=/run/fact-nothing\n{SLEEPER}");
    let node = with_units(c, &[("fact-a.service", &unit)]);
    node.must("systemctl start fact-a.service");
    assert_eq!(show(node, "fact-a.service", "ActiveState"), "inactive");
}

fn job_timeout_does_not_stop_the_start(c: &mut Cluster) {
    let unit = "[Unit]\nJobTimeoutSec=200ms\n\
                [Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=sleep 1\n";
    let node = with_units(c, &[("fact-a.service", unit)]);
    assert_ne!(node.run("systemctl start fact-a.service").code, 0, "the job is cancelled");
    until(node, "fact-a.service", "ActiveState", "active");
}

fn reexec_keeps_jobs(c: &mut Cluster) {
    let unit = "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=sleep 10\n";
    let node = with_units(c, &[("fact-a.service", unit)]);
    node.must("systemctl start --no-block fact-a.service");
    let job = node.must("systemctl list-jobs --no-legend fact-a.service");
    node.must("systemctl daemon-reexec");
    assert_eq!(node.must("systemctl list-jobs --no-legend fact-a.service"), job);
    assert!(!job.trim().is_empty());
    until(node, "fact-a.service", "ActiveState", "active");
}

fn stop_tells_a_restart_from_a_stop(c: &mut Cluster) {
    let stop = "ExecStop=sh -c 'systemctl list-jobs --no-legend fact-a.service >/run/fact-job'\n";
    let unit = format!("{SLEEPER}{stop}");
    let node = with_units(c, &[("fact-a.service", &unit)]);
    for verb in ["restart", "stop"] {
        node.must(&format!("systemctl start fact-a && systemctl {verb} fact-a"));
        let job = node.must("cat /run/fact-job");
        assert_eq!(job.split_whitespace().nth(2), Some(verb), "{job}");
    }
}

fn start_limit_runs_on_failure(c: &mut Cluster) {
    let unit = format!(
        "[Unit]\nStartLimitIntervalSec=60\nStartLimitBurst=2\nOnFailure=fact-lost.service\n\
         {SLEEPER}Restart=on-failure\nRestartSec=50ms\nRestartMode=direct\n"
    );
    let node = with_units(c, &[("fact-a.service", &unit), ("fact-lost.service", SLEEPER)]);
    node.must("systemctl start fact-a && systemctl kill -s KILL fact-a");
    until(node, "fact-a.service", "NRestarts", "1");
    until(node, "fact-a.service", "ActiveState", "active");
    assert_eq!(show(node, "fact-lost.service", "ActiveState"), "inactive", "after one kill");
    node.must("systemctl kill -s KILL fact-a");
    until(node, "fact-lost.service", "ActiveState", "active");
    assert_eq!(show(node, "fact-a.service", "ActiveState"), "failed");
}

fn runtime_directory_is_wiped_unless_kept(c: &mut Cluster) {
    for (keep, left) in [("no", false), ("yes", true)] {
        let unit = format!("{SLEEPER}RuntimeDirectory=fact-dir\nRuntimeDirectoryPreserve={keep}\n");
        let node = with_units(c, &[("fact-a.service", &unit)]);
        node.must("systemctl start fact-a && touch /run/fact-dir/token");
        node.must("systemctl restart fact-a");
        assert_eq!(node.run("test -e /run/fact-dir/token").code == 0, left, "Preserve={keep}");
    }
}

fn journal_shows_object_units_of_root_only(c: &mut Cluster) {
    let node = with_units(c, &[("fact.target", "[Unit]\nDescription=x\n")]);
    for (user, seen) in [("root", true), ("nobody", false)] {
        let entry = format!("MESSAGE=told by {user}\\nOBJECT_SYSTEMD_UNIT=fact.target\\n");
        node.must(&format!("printf '{entry}' | runuser -u {user} -- logger --journald"));
        let all = node.must("journalctl --sync; journalctl -q -o cat");
        assert!(all.contains(&format!("told by {user}")), "the entry of {user} is not there");
        let unit = node.run("journalctl -q -o cat -u fact.target").text;
        assert_eq!(unit.contains(&format!("told by {user}")), seen, "{user}: {unit}");
    }
}

fn later_units_stop_first(c: &mut Cluster) {
    let told = |name: &str, more: &str| {
        let stop = format!("ExecStop=sh -c 'sleep 0.1; echo {name} >>/run/fact-order'\n");
        format!("[Unit]\nPartOf=fact.target\n{more}{SLEEPER}{stop}")
    };
    let (daemon, member) = (told("daemon", ""), told("member", "After=fact-daemon.service\n"));
    let target = "[Unit]\nRequires=fact-daemon.service fact-member.service\n";
    let units = [
        ("fact-daemon.service", &*daemon),
        ("fact-member.service", &member),
        ("fact.target", target),
    ];
    let node = with_units(c, &units);
    node.must("systemctl start fact.target fact-daemon fact-member");
    // One transaction, as a shutdown is; two names given to systemctl stop are two.
    node.must("systemctl stop fact.target");
    until(node, "fact-daemon.service", "ActiveState", "inactive");
    assert_eq!(node.must("cat /run/fact-order"), "member\ndaemon\n");
}

/// The last one: the node goes down.
fn start_in_a_shutdown_is_refused(c: &mut Cluster) {
    let slow = format!("{SLEEPER}ExecStop=sleep 15\n");
    let node = with_units(c, &[("fact-slow.service", &slow), ("fact-a.service", SLEEPER)]);
    node.must("systemctl start fact-slow && systemctl poweroff --no-block");
    until(node, "fact-slow.service", "ActiveState", "deactivating");
    let refused = node.run("systemctl start fact-a");
    assert!(refused.code != 0 && refused.text.contains("destructive"), "{}", refused.text);
    c.lab.nodes[1].wait_down();
}
