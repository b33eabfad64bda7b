//! Stories of slots on a shared disk, beside a network and a serial line: a node whose slot changes
//! is alive, whatever the network says; a disk that is lost or hangs is a link that is lost.

use crate::arbiters::{Arbiter, Sanlock, Witness};
use crate::cluster::{AGENT, Cluster, DEADTIME, PATIENCE, TAKEOVER, TARGET, config};
use crate::harness::heart::{DEVICE, SECOND};
use crate::harness::net::Lan;
use crate::harness::wait;
use crate::leases;
use crate::stories::{Story, TAKEOVER_BOUND};
use hafailover::io::clock;
use std::time::{Duration, Instant};

pub const ALL: &[(&str, Story)] = &[
    ("disk_link_all_networks_cut", all_networks_cut),
    ("disk_link_the_last_one_taken_over", the_last_one_taken_over),
    ("disk_link_and_all_at_once", all_at_once),
    ("disk_link_beside_the_leases", beside_the_leases),
    ("disk_link_power_loss", power_loss),
    ("disk_link_path_lost", path_lost),
    ("disk_link_hangs", hangs),
    ("disk_link_carries_the_vouchers", carries_the_vouchers),
    ("disk_link_frozen_and_thawed", frozen_and_thawed),
    ("disk_link_daemon_hangs", daemon_hangs),
];

/// What man hafailover(7) says of it: until systemd has ended it.
const HUNG: Duration = Duration::from_secs(12);

/// Both nodes with three links, the third the disk; the group runs on the first.
fn start(c: &mut Cluster, safety: &str) {
    set_up(c, DEVICE, safety);
    begin(c, DEVICE);
}

fn set_up(c: &mut Cluster, device: &str, safety: &str) {
    c.configure_with(safety, TARGET, AGENT);
    c.lab.wipe_heart();
    let link = format!("[[link]]\ntype = \"disk\"\ndevice = \"{device}\"\n");
    // With the disk alone a busy machine may be late by more than half of deadtime.
    let text = config(2, &format!("warntime = \"900ms\"\n{link}{safety}"));
    for n in 0..2 {
        c.lab.node(n).write("/etc/hafailover/hafailover.toml", &text);
    }
    let said = c.lab.node(0).run(&format!("hafailover disk format --force-of-ours {device}"));
    assert!(said.text.contains("has slots for n1, n2 now"), "{}", said.text);
}

fn begin(c: &mut Cluster, device: &str) {
    for n in 0..2 {
        let checked = c.lab.node(n).run("hafailover check").text;
        assert!(!checked.contains("error"), "{checked}");
        c.start(n);
    }
    c.runs_on(0);
    c.all_well();
    wait("both slots to change", PATIENCE, || {
        let shown = c.lab.node(1).must(&format!("hafailover disk show {device}"));
        let both = |words: &str| shown.matches(words).count() == 2;
        (both("sealed right") && both(" changed 0.")).then_some(())
    });
}

fn links(c: &Cluster, from: usize) -> Vec<(String, bool)> {
    let status = c.lab.node(from).status().expect("a status");
    let peer = &status["view"]["nodes"][1 - from];
    let links = peer["links"].as_array().expect("links").clone();
    let one =
        |l: &serde_json::Value| (l["name"].as_str().expect("a name").to_string(), l["up"] == true);
    links.iter().map(one).collect()
}

/// The network, then the line, then nothing but the disk.
fn cut_networks(c: &Cluster) {
    c.lab.net.cut(0, Lan::Heartbeat);
    c.lab.line.cut();
    for n in 0..2 {
        wait(&format!("only the disk at n{}", n + 1), PATIENCE, || {
            let up: Vec<bool> = links(c, n).into_iter().map(|(_, up)| up).collect();
            (up == [false, false, true]).then_some(())
        });
    }
}

/// Longer than anything that would be done on a silence.
fn nothing_moves(c: &Cluster, owner: &str) {
    let end = Instant::now() + DEADTIME * 5;
    while Instant::now() < end {
        let who = c.lab.who_answers();
        assert!(who.as_deref().is_none_or(|who| who == owner), "{who:?} answers");
    }
    c.one_owner();
}

fn all_networks_cut(c: &mut Cluster) {
    start(c, TAKEOVER);
    let client = c.client();
    cut_networks(c);
    nothing_moves(c, "n1");
    for n in 0..2 {
        let node = c.lab.node(n);
        let status = node.run("hafailover status");
        assert!(
            status.code == 4 && status.text.contains("heard on 1 of 3 cables"),
            "{}",
            status.text
        );
        assert!(status.text.contains("alive"), "{}", status.text);
        let lines = node.journal();
        let lost = lines.iter().find(|l| l.starts_with("redundancy-lost ")).expect("told");
        assert!(lost.contains("only disk /dev/heart is left: failover is disarmed"), "{lost}");
        println!("  n{}: {lost}", n + 1);
        for what in ["peer-silent", "peer-deaf", "peer-late", "group-claimed"] {
            let before = usize::from(what == "group-claimed" && n == 0);
            assert_eq!(node.told(what), before, "{what} on n{}", n + 1);
        }
    }
    // What goes over the disk alone is a cluster still.
    c.moves(0, "files");
    c.runs_on(1);
    let seen = client.stop();
    assert_eq!(seen.owners(), ["n1", "n2"]);
    println!("  moved over the disk alone: client saw {:?}; {}", seen.outage(), c.at_once());
    // The disk as well: only one link was left, so the silence is not believed.
    c.lab.lose_heart(0);
    for n in 0..2 {
        c.told(n, "peer-silent");
    }
    nothing_moves(c, "n2");
    let waits = c.lab.node(0).run("hafailover explain files").text;
    assert!(waits.contains("only one link"), "{waits}");
    c.lab.join_heart(0);
    c.lab.line.heal();
    c.lab.net.heal(0, Lan::Heartbeat);
    c.all_well();
    c.one_owner();
}

/// With last-link = "takeover" the loss of the last one is taken for a death, as it was chosen.
fn the_last_one_taken_over(c: &mut Cluster) {
    start(c, "[safety]\nsilence = \"takeover\"\nlast-link = \"takeover\"\n");
    let client = c.client();
    cut_networks(c);
    nothing_moves(c, "n1");
    // In the switch: else the owner's address would be found in use.
    c.lab.net.block(0, Lan::Lan);
    c.lab.lose_heart(1);
    c.runs_on(1);
    let evidence = c.evidence(1);
    println!("  {evidence}");
    // It cannot reach n1, which runs on.
    c.served(client, 1, "every link cut, the disk last");
    assert!(evidence.starts_with("n1=Silent(") && evidence.contains("1 links"), "{evidence}");
    // Two owners, as was chosen; heard again, over the disk alone, one is left.
    c.lab.join_heart(1);
    c.told(0, "two-owners");
    c.phase(0, "stopped");
    c.runs_on(1);
    c.two_allowed("every link cut");
}

/// Network, line and disk go in one moment, as a death would look: it is taken for one, and two
/// have the group until something is heard.
fn all_at_once(c: &mut Cluster) {
    start(c, TAKEOVER);
    let client = c.client();
    // In the switch: else the owner's address would be found in use.
    c.lab.net.block(0, Lan::Lan);
    let took = cut_at_once(c);
    c.runs_on(1);
    let evidence = c.evidence(1);
    println!("  all three cut within {took:?}: {evidence}");
    assert!(took < DEADTIME / 2, "the lab was too slow for one moment: {took:?}");
    assert!(evidence.starts_with("n1=Silent(") && evidence.contains("3 links"), "{evidence}");
    c.served(client, 1, "network, line and disk cut at once");
    let healed = clock::now().0;
    c.lab.line.heal();
    c.told(0, "two-owners");
    c.phase(0, "stopped");
    c.runs_on(1);
    c.gave_up(0, healed);
    c.two_allowed("every link cut");
}

/// What n1 is heard by, as far as possible in one moment; how long that was.
fn cut_at_once(c: &Cluster) -> Duration {
    let since = Instant::now();
    std::thread::scope(|s| {
        s.spawn(|| c.lab.lose_heart(0));
        s.spawn(|| c.lab.net.cut(0, Lan::Heartbeat));
        c.lab.line.cut();
    });
    since.elapsed()
}

/// One disk has both, leases and slots. With its part of the leases gone the owner lives on what n2
/// says over the slots; with every way gone in one moment it stops before n2 starts.
fn beside_the_leases(c: &mut Cluster) {
    let leased = format!("[arbiter]\nlease = \"6s\"\n{}", Sanlock::SETTINGS);
    set_up(c, SECOND, &leased);
    let _sanlock = Sanlock::on(c);
    begin(c, SECOND);
    leases::leased(c, 0);
    let client = c.client();
    cut_networks(c);
    nothing_moves(c, "n1");
    let back = c.lab.node(0).told("arbiter-back");
    c.lab.node(0).must(&format!("rm {DEVICE}"));
    leases::lost(c);
    leases::runs_for(c, leases::LEASE * 2);
    let lives_on = c.lab.node(0).run("hafailover explain files").text;
    let vouched = lives_on.contains("voucher of n2: ") && !lives_on.contains("no voucher");
    assert!(vouched && lives_on.contains("no lease from the arbiter"), "{lives_on}");
    c.lab.join_heart(0);
    c.lab.line.heal();
    c.lab.net.heal(0, Lan::Heartbeat);
    c.told_more(0, "arbiter-back", back);
    leases::leased(c, 0);
    c.all_well();
    disk_hangs(c);
    let since = Instant::now();
    // In the switch: without carrier it would be moved away, and not stop by itself.
    c.lab.net.block(0, Lan::Lan);
    println!("  all cut within {:?}", cut_at_once(c));
    let cut = Instant::now();
    c.phase(0, "stopped");
    println!("  network, line and disk cut at once: n1 has stopped after {:?}", cut.elapsed());
    assert!(cut.elapsed() < leases::LEASE, "not in time");
    leases::taken_over(c, since, "network, line and disk cut at once");
    assert!(c.lab.node(0).is_up(), "it stopped in time, and nothing had to be reset");
    c.served(client, 1, "leases and slots on one disk, and then nothing");
    leases::no_overlap(c, "leases and slots on one disk, and then nothing");
}

/// Leases and slots hang under both nodes: the networks carry the vouchers.
fn disk_hangs(c: &mut Cluster) {
    let (back, down) = (c.lab.node(0).told("arbiter-back"), c.lab.node(0).told("link-down"));
    c.lab.heart().hang();
    leases::lost(c);
    c.told_more(0, "link-down", down);
    leases::runs_for(c, leases::LEASE * 2);
    c.lab.heart().answer();
    c.told_more(0, "arbiter-back", back);
    leases::leased(c, 0);
    c.all_well();
}

fn power_loss(c: &mut Cluster) {
    start(c, TAKEOVER);
    let client = c.client();
    c.lab.kill(0);
    c.runs_on(1);
    let (evidence, seen) = (c.evidence(1), client.stop());
    println!("  {evidence}: client saw {:?}; {}", seen.outage(), c.at_once());
    assert!(evidence.starts_with("n1=Silent(") && evidence.contains("3 links"), "{evidence}");
    assert_eq!(seen.owners(), ["n1", "n2"]);
    assert!(seen.outage() < TAKEOVER_BOUND, "{:?}", seen.outage());
    c.one_owner();
    // It comes back, and its slot goes on.
    c.lab.boot(0);
    c.lab.join_heart(0);
    c.start(0);
    c.all_well();
}

/// One node loses its way to the disk, then both the line: each is told, and nothing moves.
fn path_lost(c: &mut Cluster) {
    start(c, TAKEOVER);
    let client = c.client();
    c.lab.lose_heart(0);
    for n in 0..2 {
        c.told(n, "link-down");
        assert_eq!(c.lab.node(n).told("redundancy-lost"), 0, "two links are left");
    }
    let lines = c.lab.node(0).journal();
    let down = lines.iter().find(|l| l.starts_with("link-down ")).expect("told");
    println!("  n1: {down}");
    assert!(down.contains("/dev/heart: No such file"), "{down}");
    c.lab.line.cut();
    for n in 0..2 {
        c.told(n, "redundancy-lost");
        assert_eq!(c.lab.node(n).told("peer-silent"), 0);
    }
    nothing_moves(c, "n1");
    c.lab.join_heart(0);
    c.lab.line.heal();
    c.all_well();
    let seen = client.stop();
    assert_eq!(seen.owners(), ["n1"]);
    println!("  client saw {:?}; {}", seen.outage(), c.at_once());
    assert_eq!(c.lab.node(0).told("group-released"), 0);
}

/// The disk hangs under both: that link is told of, nothing moves, and a daemon can be restarted
/// though its helper cannot be ended.
fn hangs(c: &mut Cluster) {
    start(c, TAKEOVER);
    let client = c.client();
    c.lab.heart().hang();
    for n in 0..2 {
        c.told(n, "link-down");
    }
    let node = c.lab.node(0);
    wait("the reason in the status", PATIENCE, || {
        let text = node.run("hafailover status").text;
        text.lines().any(|l| l.contains("/dev/heart") && l.contains("answer")).then_some(())
    });
    let lines = node.journal();
    let down: Vec<_> = lines.iter().filter(|l| l.starts_with("link-down ")).collect();
    let why = |l: &&String| l.contains("answer") || l.contains("no heartbeat came in on it");
    assert!(down.iter().all(why), "{down:?}");
    let stuck = "ps -eo state=,args= | grep '^D.*[d]isk serve'";
    wait("a helper in D", PATIENCE, || (node.run(stuck).code == 0).then_some(()));
    let before = Instant::now();
    node.must("systemctl restart hafailover");
    let took = before.elapsed();
    println!("  restarted in {took:?} beside a helper that hangs");
    assert!(took < Duration::from_secs(30), "half of its TimeoutStopSec=: {took:?}");
    assert_eq!(node.run(stuck).code, 0, "the old helper is still there");
    // And a crash.
    node.must("systemctl kill --kill-whom=main -s KILL hafailover");
    wait("the daemon back", PATIENCE, || (node.phase("files")? == "running").then_some(()));
    nothing_moves(c, "n1");
    c.lab.heart().answer();
    c.all_well();
    let seen = client.stop();
    assert_eq!(seen.owners(), ["n1"]);
    println!("  client saw {:?}; {}", seen.outage(), c.at_once());
    wait("the old helpers' end", PATIENCE, || {
        let node = c.lab.node(0);
        let helpers = node.run("ps -eo args= | grep -c '[d]isk serve'").text;
        (helpers.trim() == "1").then_some(())
    });
}

/// With the networks and the arbiter gone the owner lives on what n2 says over the disk; without
/// that as well it stops in time.
fn carries_the_vouchers(c: &mut Cluster) {
    set_up(c, DEVICE, &format!("[arbiter]\nlease = \"6s\"\n{}", Witness::SETTINGS));
    let mut witness = Witness::begin(c);
    begin(c, DEVICE);
    leases::leased(c, 0);
    let client = c.client();
    cut_networks(c);
    witness.lose();
    c.told(0, "arbiter-lost");
    leases::runs_for(c, leases::LEASE * 2);
    c.lab.lose_heart(0);
    let since = Instant::now();
    c.phase(0, "stopped");
    println!("  arbiter, networks and disk lost: n1 has stopped after {:?}", since.elapsed());
    assert!(since.elapsed() < leases::LEASE, "not in time");
    assert_eq!(c.lab.node(1).told("group-started"), 0);
    assert!(c.lab.node(0).is_up(), "it stopped in time, and nothing had to be reset");
    witness.back();
    let owner = leases::leased_by(c);
    c.served(client, owner, "vouchers over the disk, and then nothing");
    leases::no_overlap(c, "vouchers over the disk, and then nothing");
}

/// A machine that stands still writes no slot; it gives up as soon as it goes on.
fn frozen_and_thawed(c: &mut Cluster) {
    start(c, TAKEOVER);
    let client = c.client();
    let thawed = c.paused_owner();
    let evidence = c.evidence(1);
    assert!(evidence.contains("3 links"), "{evidence}");
    c.phase(0, "stopped");
    c.runs_on(1);
    c.gave_up(0, thawed);
    println!("  {evidence}");
    c.served_at_last(client, 1, "owner frozen and thawed");
    c.two_allowed("an owner that stood still");
}

/// The process that writes the slot lives, and the daemon stands still: that is no sign of life.
fn daemon_hangs(c: &mut Cluster) {
    start(c, TAKEOVER);
    let client = c.client();
    c.lab.node(0).must("systemctl kill --kill-whom=main -s STOP hafailover");
    assert_eq!(c.lab.node(0).run("pgrep -f '[d]isk serve'").code, 0);
    c.told(1, "peer-silent");
    wait("the next daemon", PATIENCE, || (c.lab.node(0).told("daemon-started") > 1).then_some(()));
    c.all_well();
    let owner = wait("one owner", PATIENCE, || {
        let runs = |n: &usize| c.lab.node(*n).phase("files").as_deref() == Some("running");
        let owners: Vec<usize> = (0..2).filter(runs).collect();
        <[usize; 1]>::try_from(owners).ok()
    });
    c.runs_on(owner[0]);
    c.served_at_last(client, owner[0], "the daemon hung");
    c.two_allowed("a daemon that hangs");
    let overlap = c.lab.overlap();
    assert!(overlap < HUNG, "{overlap:?}");
}
