//! Stories of three nodes of which the owner is cut off from both others, while the client sees all
//! three: with quorum-lost = "stop" the shared disk never sees two.

use crate::cluster::{AGENT, Cluster, DEADTIME, KEEPALIVE, PATIENCE, STOP_BUDGET, TARGET};
use crate::fence_faults::writes;
use crate::harness::wait;
use crate::stories::Story;
use hafailover::io::clock;
use std::time::Duration;

pub const OF_THREE: &[(&str, Story)] = &[
    ("minority_stops_before_a_majority_starts", minority_stops_before_a_majority_starts),
    ("minority_whose_daemon_is_killed_stops_in_time", minority_whose_daemon_is_killed),
    ("minority_whose_stop_hangs_resets_itself", minority_whose_stop_hangs_resets_itself),
];

const STOP: &str = "[safety]\nsilence = \"takeover\"\nquorum-lost = \"stop\"\n";

/// The group runs on n1, and all hear each other.
fn start(c: &mut Cluster, timing: &str, more: &str, agent: &str) {
    let target = TARGET.replace("Nodes=n1 n2\n", &format!("Nodes=n1 n2 n3\n{more}"));
    c.configure_with(&format!("{timing}{STOP}"), &target, agent);
    (0..3).for_each(|n| c.start(n));
    c.runs_on(0);
    c.all_well();
}

/// From then on n1 hears nobody, nor does anybody hear it; in nanoseconds.
fn cut_off(c: &Cluster) -> u64 {
    c.lab.net.part(0, 1);
    // Nobody waits from before this moment on: n3 still hears n1, and promises nothing.
    let cut = clock::now().0;
    c.lab.net.part(0, 2);
    cut
}

/// n2 has it, and n1 wrote to the shared disk for the last time before n2 did for the first.
fn taken_over(c: &Cluster, cut: u64, [keepalive, deadtime]: [Duration; 2], story: &str) {
    c.runs_on(1);
    writes(c, 1);
    let stamps = c.lab.stamps();
    let of = |n: usize| stamps.iter().filter(move |s| s.0 == n).map(|s| s.1);
    let (last, first) = (of(0).max().expect("n1 wrote"), of(1).min().expect("n2 writes"));
    let after = |at: u64| Duration::from_nanos(at.saturating_sub(cut));
    println!("  {story}: n1 wrote for {:?}, n2 from {:?} on", after(last), after(first));
    assert!(last < first, "n1 still wrote {:?} after n2 had begun", after(last) - after(first));
    // What n1 said last was on its way for up to a keepalive when it was cut off.
    let least = deadtime + keepalive * 3 + STOP_BUDGET;
    assert!(after(first) > least, "n2 did not wait for the stop of a minority");
    let evidence = c.evidence(1);
    assert!(evidence.contains("n1=Silent(") && evidence.contains("n3=Promise"), "{evidence}");
    assert_eq!(c.lab.node(1).told("quorum-lost") + c.lab.node(2).told("quorum-lost"), 0);
    c.one_owner();
}

fn minority_stops_before_a_majority_starts(c: &mut Cluster) {
    start(c, "", "", AGENT);
    let client = c.client();
    let cut = cut_off(c);
    c.told(0, "quorum-lost");
    c.phase(0, "stopped");
    taken_over(c, cut, [KEEPALIVE, DEADTIME], "the owner is cut off");
    let seen = client.stop();
    println!("  client saw {:?}", seen.outage());
    assert_eq!(seen.owners(), ["n1", "n2"]);
    let status = c.lab.node(0).run("hafailover status");
    assert!(status.code == 4 && status.text.contains("no majority"), "{}", status.text);
    c.lab.net.unblock();
    c.all_well();
    c.runs_on(1);
    assert_eq!(c.lab.node(0).told("quorum-regained"), 1);
    assert_eq!(c.lab.node(0).told("group-started"), 1, "nothing moved back");
    assert_eq!((0..3).map(|n| c.lab.node(n).told("two-owners")).sum::<usize>(), 0);
    c.one_owner();
}

/// The next daemon has heard nobody yet, and does not wait for a whole deadtime.
fn minority_whose_daemon_is_killed(c: &mut Cluster) {
    start(c, "", "", AGENT);
    let cut = cut_off(c);
    c.lab.node(0).must("systemctl kill -s KILL hafailover");
    c.told(0, "quorum-lost");
    c.phase(0, "stopped");
    assert_eq!(c.lab.node(0).told("group-adopted"), 1, "by the next daemon");
    taken_over(c, cut, [KEEPALIVE, DEADTIME], "cut off, and its daemon killed");
}

/// Its service goes on writing whatever it is told; the machine is gone before n2 starts.
fn minority_whose_stop_hangs_resets_itself(c: &mut Cluster) {
    let deaf = format!("{AGENT}KillSignal=SIGWINCH\nTimeoutStopSec=60\n");
    // What n2 waits beyond the stop are four keepalives: a busy machine needs them to reset itself.
    let timing = "keepalive = \"500ms\"\ndeadtime = \"2500ms\"\n";
    start(c, timing, "StopFailure=fence-self\n", &deaf);
    let cut = cut_off(c);
    wait("the reset", PATIENCE, || (!c.lab.node(0).is_up()).then_some(()));
    // In this lab the addresses of a machine outlive its reset: take them off as well.
    c.lab.kill(0);
    let timing = [500, 2500].map(Duration::from_millis);
    taken_over(c, cut, timing, "its stop hangs, and the machine resets itself");
}
