//! Stories of the border between a check and the act it guards, with real parts: a claim that comes
//! before the first member is active, a machine that stands still there, heartbeats that come long
//! after their sender has died.

use crate::cluster::{AGENT, Cluster, DEADTIME, KEEPALIVE, PATIENCE, TAKEOVER, TARGET};
use crate::harness::net::Lan;
use crate::harness::wait;
use crate::stories::Story;
use std::time::Duration;

pub const ALL: &[(&str, Story)] = &[
    ("claim_before_the_first_member_is_active", claim_before_the_first_member_is_active),
    ("frozen_between_its_claim_and_its_start", frozen_between_its_claim_and_its_start),
    ("frozen_between_its_token_and_its_start", frozen_between_its_token_and_its_start),
    ("late_serial_frames_after_a_takeover", late_serial_frames_after_a_takeover),
    ("late_serial_frames_after_confirm_down", late_serial_frames_after_confirm_down),
];

/// Starts as slowly as the node's /etc/slow says, and is the first of the group.
const SLOW: &str = "[Service]\nType=oneshot\nRemainAfterExit=yes\n\
    ExecStart=sh -c 'exec sleep $(cat /etc/slow)'\n";

/// The start job runs, and no member is active yet: the group is held all the same. The owner is
/// no longer heard, and hears the claim: it promises nothing before it has called its start off.
fn claim_before_the_first_member_is_active(c: &mut Cluster) {
    let target = TARGET.replace("Requires=", "Requires=slow.service ");
    c.configure_with(TAKEOVER, &target, AGENT);
    for (n, time) in ["20", "0"].into_iter().enumerate() {
        c.lab.node(n).write("/etc/systemd/system/slow.service", SLOW);
        c.lab.node(n).write("/etc/slow", time);
        c.lab.node(n).must("systemctl daemon-reload");
        c.start(n);
    }
    c.phase(0, "starting");
    // The phase comes before systemd is asked.
    wait("the job", PATIENCE, || {
        let job = c.lab.node(0).must("systemctl list-jobs --no-legend slow.service");
        job.contains("running").then_some(())
    });
    for n in 0..2 {
        // A link that was slow is up once more.
        wait("both links", PATIENCE, || (c.lab.node(n).told("link-up") >= 2).then_some(()));
    }
    c.lab.net.block_way(0, 1, Lan::Heartbeat);
    c.lab.line.cut_from(0);
    c.runs_on(1);
    assert!(c.evidence(1).starts_with("n1=Silent("), "{}", c.evidence(1));
    let kinds = c.lab.node(0).kinds();
    let at = |what: &str| kinds.iter().position(|k| k == what);
    let yields = at("owner-yields").expect("it heard the claim");
    let released = at("group-released").expect("the start is called off");
    assert!(released > yields, "{kinds:?}");
    assert!(at("group-promised").is_none_or(|p| p > released), "while it was held: {kinds:?}");
    assert_eq!(at("group-started"), None, "{kinds:?}");
    let (ended, begun) =
        (c.lab.node(0).times("group-released"), c.lab.node(1).times("group-started"));
    assert!(ended[0] < begun[0], "n2 had it before n1 had let go");
    let members = "systemctl is-active slow 'hafailover-ip@*' srv.mount agent";
    assert!(!c.lab.node(0).run(members).text.contains("\nactive"), "a member is left on n1");
    c.one_owner();
}

/// Nothing that the owner sends arrives anywhere: the other node takes it for dead.
fn part(c: &Cluster) {
    c.lab.net.block(0, Lan::Lan);
    c.lab.net.cut(0, Lan::Heartbeat);
    c.lab.line.cut();
}

fn heal(c: &Cluster) {
    c.lab.net.unblock();
    c.lab.net.heal(0, Lan::Heartbeat);
    c.lab.line.heal();
}

/// It had evidence when it claimed, and stood still before it acted by it. Meanwhile the silence
/// has turned out to be none: it does not start. The disk comes first here, so that no probe of
/// the address can save it.
fn frozen_between_its_claim_and_its_start(c: &mut Cluster) {
    let requires = "Requires=hafailover-ip@192.168.0.100-24.service srv.mount agent.service";
    let other = "Requires=srv.mount agent.service hafailover-ip@192.168.0.100-24.service";
    // Long enough between the two for a busy machine to freeze it there.
    let (keepalive, deadtime) = (Duration::from_millis(500), Duration::from_millis(2500));
    let timing = format!("keepalive = \"500ms\"\ndeadtime = \"2500ms\"\n{TAKEOVER}");
    c.configure_with(&timing, &TARGET.replace(requires, other), AGENT);
    (0..2).for_each(|n| c.start(n));
    c.runs_on(0);
    c.all_well();
    // The claim is on disk before it is spoken of, and two keepalives later is the start.
    let claim = c.lab.node(1).watch("/var/lib/hafailover/state");
    part(c);
    claim.wait();
    std::thread::sleep(keepalive / 2);
    c.lab.node(1).freeze();
    assert_ne!(c.lab.node(1).run("mountpoint -q /srv").code, 0, "frozen too late");
    heal(c);
    std::thread::sleep(deadtime * 3 / 2);
    c.lab.node(1).thaw();
    c.told(1, "stalled");
    c.told(1, "group-claimed");
    c.all_well();
    c.runs_on(0);
    let said = c.lab.node(1).must("journalctl -q _PID=1 -u srv.mount -u agent -o cat");
    assert_eq!(said, "", "it was started on n2");
    for what in ["group-started", "group-released", "two-owners", "owner-yields"] {
        let told = [c.lab.node(0).told(what), c.lab.node(1).told(what)];
        assert_eq!(told, [usize::from(what == "group-started"), 0], "{what}");
    }
    c.one_owner();
}

/// At the last moment that can be seen from outside: the token is there, and no call was made yet,
/// or it has just been. Whoever goes on with it, nobody writes beside another.
fn frozen_between_its_token_and_its_start(c: &mut Cluster) {
    c.start_all(TAKEOVER);
    c.all_well();
    let token = c.lab.node(1).watch("/run/hafailover/owned");
    part(c);
    token.wait();
    c.lab.node(1).freeze();
    heal(c);
    std::thread::sleep(DEADTIME * 3 / 2);
    c.lab.node(1).thaw();
    c.told(1, "stalled");
    wait("one node, and one only, to have it", PATIENCE, || {
        let phases = [c.lab.node(0).phase("files")?, c.lab.node(1).phase("files")?];
        let one = ["running", "stopped"].into_iter().all(|phase| phases.contains(&phase.into()));
        (one && c.lab.who_answers().is_some()).then_some(())
    });
    c.all_well();
    println!("  frozen with its token: {:?} has it", c.lab.who_answers());
    c.one_owner();
}

/// The line keeps what n1 said last, and gives it when n1 is long dead: nobody believes it alive.
fn late_serial_frames_after_a_takeover(c: &mut Cluster) {
    // A busy machine takes its time to freeze n1, and the line must not count as lost before.
    c.start_all(&format!("deadtime = \"4s\"\n{TAKEOVER}"));
    c.all_well();
    c.lab.line.stall();
    // A few heartbeats, which it keeps.
    std::thread::sleep(KEEPALIVE * 2);
    c.lab.kill(0);
    c.runs_on(1);
    assert!(c.evidence(1).starts_with("n1=Silent("), "{}", c.evidence(1));
    late_frames(c);
}

/// The line has stood still for long, so only one link was left, and a person had to say that n1
/// is down: the word stands, although frames of n1 come in after it.
fn late_serial_frames_after_confirm_down(c: &mut Cluster) {
    c.start_all(TAKEOVER);
    c.all_well();
    c.lab.line.stall();
    c.told(1, "redundancy-lost");
    std::thread::sleep(DEADTIME);
    c.lab.kill(0);
    c.waits_for_a_person();
    assert!(c.evidence(1).starts_with("n1=Operator("), "{}", c.evidence(1));
    late_frames(c);
}

fn late_frames(c: &mut Cluster) {
    let frames = || {
        let status = c.lab.node(1).status()?;
        let links = status["daemon"]["links"].as_array()?.clone();
        links.iter().find(|l| l["name"] == "serial /dev/ttyS0")?["frames_in"].as_u64()
    };
    let (before, alive) = (frames().expect("a line"), c.lab.node(1).told("peer-alive"));
    c.lab.line.heal();
    wait("late frames", PATIENCE, || (frames()? > before).then_some(()));
    // The last of them may be newer than all that came over the other link: n1 counts as late until
    // it is silent again, and never as alive.
    wait("n1 to be silent", PATIENCE, || {
        let status = c.lab.node(1).status()?;
        (status["view"]["nodes"][0]["presence"] == "silent").then_some(())
    });
    assert_eq!(c.lab.node(1).told("peer-alive"), alive, "a dead node was heard");
    println!("  {} late frames on the line", frames().expect("a line") - before);
    let moved = (c.lab.node(1).told("group-started"), c.lab.node(1).told("group-released"));
    assert_eq!(moved, (1, 0), "by words of a dead node");
    assert_eq!(c.lab.node(1).told("two-owners"), 0, "a dead node was taken for an owner");
    c.runs_on(1);
    c.one_owner();
    c.lab.boot(0);
    c.start(0);
    c.all_well();
    c.runs_on(1);
}
