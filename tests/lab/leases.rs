//! Stories of leases, each with a witness, with three etcds and with sanlock: what is cut, lost or
//! hung, and when the other node may start. The heartbeats have a cable and a line of their own.

use crate::arbiters::{Arbiter, Etcds, Sanlock, Witness};
use crate::cluster::{AGENT, Cluster, PATIENCE, STOP_BUDGET, TARGET};
use crate::harness::net::Lan;
use crate::harness::wait;
use crate::restarts::MEMBERS;
use crate::stories::Story;
use std::time::{Duration, Instant};

pub const ALL: &[(&str, Story)] = &[
    ("witness_lost_and_back", lost_and_back::<Witness>),
    ("witness_all_links_cut", all_links_cut::<Witness>),
    ("witness_and_peer_lost", arbiter_and_peer_lost::<Witness>),
    ("witness_power_loss", power_loss::<Witness>),
    ("witness_daemon_stopped", daemon_stopped::<Witness>),
    ("witness_frozen_and_thawed", frozen_and_thawed::<Witness>),
    ("witness_and_a_group_whose_files_are_gone", files_gone),
    ("witness_and_a_stop_that_outlives_its_lease", stop_outlives_the_lease),
    ("witness_and_a_disk_that_hangs", disk_hangs),
    ("witness_and_a_daemon_that_may_hang_for_long", may_hang_for_long),
    ("witness_cut_in_one_direction", cut_in_one_direction),
    ("witness_stopped_in_a_maintenance_not_heard", stopped_in_maintenance),
    ("etcd_lost_and_back", lost_and_back::<Etcds>),
    ("etcd_one_member_lost", one_member_lost),
    ("etcd_all_links_cut", all_links_cut::<Etcds>),
    ("etcd_and_peer_lost", arbiter_and_peer_lost::<Etcds>),
    ("etcd_power_loss", power_loss::<Etcds>),
    ("etcd_daemon_stopped", daemon_stopped::<Etcds>),
    ("etcd_frozen_and_thawed", frozen_and_thawed::<Etcds>),
    ("sanlock_lost_and_back", lost_and_back::<Sanlock>),
    ("sanlock_all_links_cut", all_links_cut::<Sanlock>),
    ("sanlock_and_peer_lost", arbiter_and_peer_lost::<Sanlock>),
    ("sanlock_power_loss", power_loss::<Sanlock>),
    ("sanlock_daemon_stopped", daemon_stopped::<Sanlock>),
    ("sanlock_frozen_and_thawed", frozen_and_thawed::<Sanlock>),
    ("sanlock_restarts_and_poweroff", restarts_and_poweroff),
];

/// On three nodes.
pub const OF_THREE: &[(&str, Story)] = &[("etcd_and_the_last_of_three", the_last_of_three)];

/// Twice STOP_BUDGET, the shortest that a group with that may have.
pub const LEASE: Duration = Duration::from_secs(6);
/// (6 + 12) x 1.01 / 0.99 + 1 s, at which others may start.
pub const WAIT: Duration = Duration::from_millis(19_360);
/// A lease is renewed five times in its time, vouchers come with every heartbeat: so the last of
/// either before something happens is not longer ago.
pub const RENEWED: Duration = Duration::from_secs(2);

/// What `explain` says while it is not over.
const LEASED: &str = "lease from the arbiter: ";

/// The group runs on n1 and has a lease.
pub fn start<A: Arbiter>(c: &mut Cluster) -> A {
    c.configure(&format!("[arbiter]\nlease = \"6s\"\n{}", A::SETTINGS));
    let arbiter = A::begin(c);
    let checked = c.lab.node(0).run("hafailover check").text;
    assert!(checked.contains("19.4 s after") && !checked.contains("error"), "{checked}");
    (0..2).for_each(|n| c.start(n));
    c.runs_on(0);
    leased(c, 0);
    arbiter
}

pub fn leased(c: &Cluster, n: usize) {
    explains(c, n, LEASED);
}

/// The node that has the group and a lease of now, as the client finds it.
pub fn leased_by(c: &Cluster) -> usize {
    let has = |n: &usize| {
        let node = c.lab.node(*n);
        let running = node.phase("files").as_deref() == Some("running");
        running && node.run("hafailover explain files").text.contains(LEASED)
    };
    let owner = wait("an owner with a lease", PATIENCE + WAIT, || (0..2).find(has));
    c.runs_on(owner);
    owner
}

/// Told, also where it was before, while sanlock joined.
pub fn lost(c: &Cluster) {
    c.told(0, "arbiter-lost");
    wait("the arbiter's loss in the status", PATIENCE, || {
        let text = c.lab.node(0).run("hafailover status").text;
        text.contains("the arbiter does not answer").then_some(())
    });
}

fn explains(c: &Cluster, n: usize, words: &str) {
    wait(words, PATIENCE, || {
        c.lab.node(n).run("hafailover explain files").text.contains(words).then_some(())
    });
}

/// It runs there, at every look.
pub fn runs_for(c: &Cluster, time: Duration) {
    let until = Instant::now() + time;
    while Instant::now() < until {
        assert_eq!(c.lab.node(0).phase("files").as_deref(), Some("running"));
        std::thread::sleep(Duration::from_millis(200));
    }
}

pub fn cut_heartbeats(c: &Cluster) {
    c.lab.net.cut(0, Lan::Heartbeat);
    c.lab.line.cut();
}

/// Of n1, which wrote, and whoever has it now.
pub fn no_overlap(c: &Cluster, story: &str) {
    assert!(c.lab.stamps().iter().any(|s| s.0 == 0), "n1 never wrote: nothing could be seen");
    println!("  {story}: {}", c.at_once());
    c.one_owner();
}

/// n2 starts it once nobody else can have it any more.
pub fn taken_over(c: &Cluster, since: Instant, story: &str) {
    c.runs_on(1);
    println!("  {story}: n2 runs it after {:?}", since.elapsed());
    assert!(since.elapsed() > WAIT - RENEWED, "before anybody knows that the owner has stopped");
    assert_eq!(c.evidence(1), "n1=Expired");
}

/// While the peer is heard its word is enough.
fn lost_and_back<A: Arbiter>(c: &mut Cluster) {
    let mut arbiter = start::<A>(c);
    let client = c.client();
    let members = c.lab.node(0).must(MEMBERS);
    arbiter.lose();
    lost(c);
    assert_eq!(c.lab.node(0).run("hafailover status").code, 4);
    runs_for(c, LEASE * 2);
    arbiter.back();
    c.told(0, "arbiter-back");
    leased(c, 0);
    let seen = client.stop();
    assert_eq!(seen.owners(), ["n1"]);
    println!("  arbiter lost and back: client saw {:?}", seen.outage());
    assert_eq!(c.lab.node(0).must(MEMBERS), members, "a member was touched");
    assert_eq!(c.lab.node(0).told("group-released"), 0);
    no_overlap(c, "arbiter lost for two leases and back");
}

fn one_member_lost(c: &mut Cluster) {
    let mut etcds = start::<Etcds>(c);
    etcds.end(0);
    // It may have been the leader: until there is another one nobody answers.
    runs_for(c, LEASE);
    leased(c, 0);
    etcds.end(1);
    c.told(0, "arbiter-lost");
    no_overlap(c, "one member of etcd, then the majority lost");
}

/// The owner reaches the arbiter and goes on; then it does not, and stops before n2 starts.
fn all_links_cut<A: Arbiter>(c: &mut Cluster) {
    let _arbiter = start::<A>(c);
    let client = c.client();
    cut_heartbeats(c);
    c.told(1, "peer-silent");
    explains(c, 1, "n1 has it by epoch");
    assert_eq!(c.lab.node(0).phase("files").as_deref(), Some("running"));
    assert_eq!(c.lab.node(1).told("group-started"), 0);
    let since = Instant::now();
    A::cut(c, 0);
    c.phase(0, "stopped");
    println!("  all links cut: n1 has stopped after {:?}", since.elapsed());
    assert!(since.elapsed() < LEASE, "not in time");
    taken_over(c, since, "all links cut, and then the owner's way to the arbiter");
    assert_eq!(c.lab.node(0).told("group-released"), 1);
    assert!(c.lab.node(0).is_up(), "it stopped in time, and nothing had to be reset");
    c.served(client, 1, "all links cut");
    no_overlap(c, "all links cut");
}

/// The owner has nobody left who says that it may go on.
fn arbiter_and_peer_lost<A: Arbiter>(c: &mut Cluster) {
    let mut arbiter = start::<A>(c);
    let client = c.client();
    arbiter.lose();
    lost(c);
    cut_heartbeats(c);
    let since = Instant::now();
    c.phase(0, "stopped");
    println!("  arbiter and peer lost: n1 has stopped after {:?}", since.elapsed());
    assert!(since.elapsed() < LEASE, "not in time");
    assert_eq!(c.lab.node(1).told("group-started"), 0);
    assert!(c.lab.node(0).is_up(), "it stopped in time, and nothing had to be reset");
    arbiter.back();
    let owner = leased_by(c);
    c.served(client, owner, "arbiter and peer lost");
    no_overlap(c, "arbiter and peer lost");
}

fn power_loss<A: Arbiter>(c: &mut Cluster) {
    let _arbiter = start::<A>(c);
    let client = c.client();
    let since = Instant::now();
    c.lab.kill(0);
    taken_over(c, since, "power loss");
    c.served(client, 1, "power loss");
    no_overlap(c, "power loss");
}

/// The daemon stands still, and everything else goes on: systemd's watchdog ends it before n2 may
/// start anything, and the next one goes on, or stops in time.
fn daemon_stopped<A: Arbiter>(c: &mut Cluster) {
    let _arbiter = start::<A>(c);
    let client = c.client();
    let since = Instant::now();
    c.lab.node(0).must("systemctl kill -s STOP hafailover");
    wait("the next daemon", PATIENCE, || {
        (!c.lab.node(0).is_up() || c.lab.node(0).told("daemon-started") > 1).then_some(())
    });
    println!("  daemon stopped: the next one after {:?}", since.elapsed());
    let owner = leased_by(c);
    c.served(client, owner, "daemon stopped");
    no_overlap(c, "daemon stopped");
}

/// Nobody knows for how long it may stop any more: it is held by its lease all the same, and not
/// left to run on beside another owner.
fn files_gone(c: &mut Cluster) {
    let _arbiter = start::<Witness>(c);
    let before = c.lab.node(0).must(MEMBERS);
    c.lab.node(0).must(
        "systemctl disable -q files.target && rm /etc/systemd/system/files.target && \
         systemctl daemon-reload && systemctl kill -s KILL hafailover",
    );
    c.told_times(0, "daemon-started", 2);
    leased(c, 0);
    assert_eq!(before, c.lab.node(0).must(MEMBERS), "a member was touched");
    assert_eq!(c.lab.node(1).told("group-claimed"), 0);
    c.one_owner();
}

/// What cannot be unmounted in time ends with its machine, before n2 may have it.
fn stop_outlives_the_lease(c: &mut Cluster) {
    let _arbiter = start::<Witness>(c);
    let client = c.client();
    let mut holder = c.lab.node(0).command("exec sleep 1000 < /srv/data").spawn().expect("started");
    c.opened();
    let since = Instant::now();
    cut_heartbeats(c);
    Witness::cut(c, 0);
    wait("the reset", PATIENCE, || (!c.lab.node(0).is_up()).then_some(()));
    println!("  a stop that outlives its lease: reset after {:?}", since.elapsed());
    assert!(since.elapsed() < LEASE + Duration::from_secs(2), "others may start after {WAIT:?}");
    assert_eq!(c.lab.node(1).told("group-started"), 0);
    c.lab.kill(0);
    let _ = holder.wait();
    taken_over(c, since, "a stop that outlives its lease");
    c.served(client, 1, "a stop that outlives its lease");
    no_overlap(c, "a stop that outlives its lease");
}

/// The owner's way to the shared disk is gone: what unmounts it cannot even be killed, and the
/// machine ends with its lease.
fn disk_hangs(c: &mut Cluster) {
    let _arbiter = start::<Witness>(c);
    let client = c.client();
    c.lab.node(0).hang_disk(true);
    let since = Instant::now();
    cut_heartbeats(c);
    Witness::cut(c, 0);
    c.umount_hangs();
    wait("the reset", PATIENCE, || (!c.lab.node(0).is_up()).then_some(()));
    println!("  a disk that hangs: reset after {:?}", since.elapsed());
    assert!(since.elapsed() < LEASE + Duration::from_secs(2), "others may start after {WAIT:?}");
    c.lab.kill(0);
    taken_over(c, since, "a disk that hangs");
    c.served(client, 1, "a disk that hangs");
    no_overlap(c, "a disk that hangs");
}

/// The others count on PID 1 to end a daemon that hangs: one that it would not end does not start.
fn may_hang_for_long(c: &mut Cluster) {
    c.configure(&format!("[arbiter]\nlease = \"6s\"\n{}", Witness::SETTINGS));
    let _arbiter = Witness::begin(c);
    let dropin = "/etc/systemd/system/hafailover.service.d/hangs.conf";
    let node = c.lab.node(0);
    for (time, shown) in [("1min", "60s"), ("0", "off")] {
        node.write(dropin, &format!("[Service]\nWatchdogSec={time}\n"));
        assert_ne!(node.run("systemctl daemon-reload; systemctl start hafailover").code, 0);
        let words = format!("WatchdogSec= of hafailover.service is {shown}:");
        assert!(node.must("journalctl -q -u hafailover -n 20").contains(&words), "{time}");
        let checked = node.run("hafailover check");
        assert!(checked.code != 0 && checked.text.contains(&words), "{}", checked.text);
    }
    node.must(&format!("rm {dropin}; systemctl daemon-reload; systemctl reset-failed hafailover"));
    (0..2).for_each(|n| c.start(n));
    c.runs_on(0);
    // One that holds a group goes on, and PID 1 ends it in time all the same.
    node.write(dropin, "[Service]\nWatchdogSec=1min\n");
    node.must("systemctl daemon-reload; systemctl restart hafailover");
    c.told(0, "settings-wrong");
    assert_eq!(node.must("systemctl show -P WatchdogUSec hafailover").trim(), "10s");
    c.one_owner();
}

/// Whoever hears nobody, owner or not, has the arbiter to ask: the owner goes on, and nobody else
/// starts.
fn cut_in_one_direction(c: &mut Cluster) {
    let _arbiter = start::<Witness>(c);
    let client = c.client();
    c.lab.line.cut();
    for [from, to] in [[0, 1], [1, 0]] {
        c.lab.net.block_way(from, to, Lan::Heartbeat);
        c.told(to, "peer-silent");
        c.told(from, "peer-deaf");
        runs_for(c, WAIT + RENEWED);
        leased(c, 0);
        let alive = [from, to].map(|n| c.lab.node(n).told("peer-alive"));
        c.lab.net.unblock();
        c.told_more(from, "peer-alive", alive[0]);
        c.told_more(to, "peer-alive", alive[1]);
    }
    assert_eq!(c.lab.node(1).told("group-started"), 0);
    assert_eq!(c.lab.node(0).told("group-released"), 0);
    c.served(client, 0, "cut in one direction");
    no_overlap(c, "cut in one direction");
}

/// n2 has not heard of the maintenance: nothing is left that it may start when the lease is over.
fn stopped_in_maintenance(c: &mut Cluster) {
    let _arbiter = start::<Witness>(c);
    cut_heartbeats(c);
    c.told(0, "peer-silent");
    c.lab.node(0).must("hafailover maintenance on");
    let since = Instant::now();
    c.lab.node(0).must("systemctl stop hafailover");
    println!("  stopped in a maintenance: after {:?}", since.elapsed());
    let journal = c.lab.node(0).journal();
    let released = journal.iter().find(|l| l.starts_with("group-released ")).expect("told");
    assert!(released.contains("the maintenance has not reached n2"), "{released}");
    c.runs_on(1);
    assert_eq!(c.evidence(1), "n1=Expired");
    no_overlap(c, "stopped in a maintenance");
}

/// No majority of the nodes is needed: the owner goes on without the two others for as long as etcd
/// answers it, and the last node takes the group alone.
fn the_last_of_three(c: &mut Cluster) {
    let target = TARGET.replace("Nodes=n1 n2", "Nodes=n1 n2 n3");
    let more = format!("[arbiter]\nlease = \"6s\"\n{}", Etcds::SETTINGS);
    c.configure_with(&more, &target, AGENT);
    let _arbiter = Etcds::begin(c);
    (0..3).for_each(|n| c.start(n));
    c.runs_on(0);
    leased(c, 0);
    c.all_well();
    (1..3).for_each(|n| c.lab.net.part(0, n));
    c.told(1, "peer-silent");
    explains(c, 1, "n1 has it by epoch");
    runs_for(c, LEASE * 2);
    assert_eq!(c.lab.node(1).told("group-started") + c.lab.node(2).told("group-started"), 0);
    Etcds::cut(c, 0);
    c.phase(0, "stopped");
    c.runs_on(1);
    let evidence = c.evidence(1);
    assert!(evidence.contains("n1=Expired") && evidence.contains("n3=Promise"), "{evidence}");
    let since = Instant::now();
    c.lab.kill(1);
    c.runs_on(2);
    println!("  the last of three has it {:?} after the second one's death", since.elapsed());
    let evidence = c.evidence(2);
    assert!(evidence.contains("n1=Expired") && evidence.contains("n2=Expired"), "{evidence}");
    no_overlap(c, "two of three lost, one after the other");
}

/// Without a watchdog there is a moment in which it writes on: measured, not excused.
fn frozen_and_thawed<A: Arbiter>(c: &mut Cluster) {
    let _arbiter = start::<A>(c);
    let client = c.client();
    c.lab.net.block(0, Lan::Lan);
    let since = Instant::now();
    c.lab.node(0).freeze();
    wait("n2 to take over", PATIENCE + WAIT, || {
        (c.lab.node(1).phase("files")? == "running").then_some(())
    });
    println!("  owner frozen: n2 runs it after {:?}", since.elapsed());
    assert!(since.elapsed() > WAIT - RENEWED);
    c.lab.net.unblock();
    c.lab.node(0).thaw();
    wait("n1 to be reset", PATIENCE, || (!c.lab.node(0).is_up()).then_some(()));
    c.lab.kill(0);
    c.runs_on(1);
    c.served_at_last(client, 1, "owner frozen and thawed");
    c.two_allowed("an owner that stood still");
    let overlap = c.lab.overlap();
    assert!(overlap < STOP_BUDGET, "{overlap:?}");
}

/// sanlock stays in its lockspace while only hafailover is restarted, leaves it when it is stopped
/// itself, and holds up no shutdown.
fn restarts_and_poweroff(c: &mut Cluster) {
    let _arbiter = start::<Sanlock>(c);
    let in_it = |c: &Cluster| c.lab.node(0).run("sanlock client gets").text.contains("s lab:1:");
    wait("n1 in the lockspace", PATIENCE, || in_it(c).then_some(()));
    c.lab.node(0).must("systemctl restart hafailover");
    assert!(in_it(c), "left by a restart");
    leased(c, 0);
    let since = Instant::now();
    c.lab.node(0).must("systemctl restart sanlock");
    println!("  sanlock restarted in {:?}", since.elapsed());
    assert!(since.elapsed() < PATIENCE, "it was killed at its stop limit");
    assert_eq!(c.lab.node(0).told("group-released"), 0, "a group does not hang on sanlock");
    let again = Instant::now();
    wait("n1 in the lockspace again", PATIENCE, || in_it(c).then_some(()));
    println!("  in the lockspace again after {:?}", again.elapsed());
    let client = c.client();
    let since = Instant::now();
    c.lab.node(0).run("systemctl poweroff");
    c.runs_on(1);
    c.lab.nodes[0].wait_down();
    println!("  down after {:?}, client saw {:?}", since.elapsed(), client.stop().outage());
    assert!(since.elapsed() < PATIENCE, "sanlock held it up");
    no_overlap(c, "poweroff with sanlock");
}
