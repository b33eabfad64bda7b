//! The lab: the package, installed, on nodes with a real systemd. Each test is a story; several
//! share the booted nodes. `cargo test --test lab -- WORD` runs those whose name contains WORD;
//! `--part=1/2` every second one, so that two labs tell all of them.

mod addresses;
mod arbiters;
mod borders;
mod changes;
mod cluster;
mod cut_off;
mod disk;
mod double;
mod escalate;
mod facts;
mod fence_faults;
mod fences;
mod guest;
mod hands;
mod harness;
mod identity;
mod interleavings;
mod leases;
mod links;
mod lost;
mod paths;
mod quorum;
mod recipes;
mod reserve;
mod restarts;
mod selftest;
mod stories;
mod troubles;

use cluster::Cluster;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    if std::env::args().any(|a| a == "--list") {
        all().iter().for_each(|told| println!("{}: test", told.name));
        return ExitCode::SUCCESS;
    }
    assert!(rustix::process::geteuid().is_root(), "the lab needs root: make test");
    let wanted = |name: &str| words.is_empty() || words.iter().any(|w| name.contains(w.as_str()));
    let mut stories = all();
    stories.retain(|told| wanted(&told.name));
    let (part, parts) = part();
    let mut number = 0..;
    stories.retain(|_| number.next().is_some_and(|n: usize| n % parts == part));
    harness::handle_signals();
    if std::env::args().any(|a| a == "--hold") {
        return hold(words.iter().any(|w| w == "panic"));
    }
    let mut cluster: Option<Cluster> = None;
    let (mut passed, mut failed) = (0, Vec::new());
    let mut missing = std::collections::BTreeSet::new();
    let (mut stage, mut after_fact) = (None, false);
    for Told { name, suite, nodes, story } in stories {
        let more = more(&suite);
        if missing.contains(&suite) || harness::rootfs::base(&suite, more).is_none() {
            missing.insert(suite.clone());
            println!("test {name} ... FAILED: no root file system of {suite} can be built here");
            failed.push(name);
            continue;
        }
        let mut begun = Instant::now();
        let mut ready = Duration::ZERO;
        let over = limit(&name, passed, failed.len());
        let result = catch_unwind(AssertUnwindSafe(|| {
            if stage.replace((suite.clone(), nodes)) != Some((suite.clone(), nodes)) {
                (cluster, after_fact) = (None, false);
            }
            let cluster = cluster.get_or_insert_with(|| Cluster::of(nodes, &suite, more));
            // The facts clear away after each other, and touch nothing else.
            let fact = name.contains("fact_");
            if !(std::mem::replace(&mut after_fact, fact) && fact) {
                cluster.reset();
            }
            (ready, begun) = (begun.elapsed(), Instant::now());
            story(cluster);
        }));
        let (ready, took) = (ready.as_secs_f64(), begun.elapsed().as_secs_f64());
        drop(over);
        match result {
            Ok(()) => {
                println!("test {name} ... ok ({took:.1} s, and {ready:.1} s before)");
                passed += 1;
            }
            Err(_) => {
                println!("test {name} ... FAILED ({took:.1} s)");
                if let Some(cluster) = &cluster {
                    let _ = catch_unwind(AssertUnwindSafe(|| cluster.dump()));
                }
                // Whatever state it is in is no base for the next story.
                (cluster, after_fact) = (None, false);
                failed.push(name);
            }
        }
    }
    drop(cluster);
    if !failed.is_empty() {
        println!("failed: {failed:?}");
    }
    println!("{passed} passed, {} failed", failed.len());
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// More than ten times what the longest story takes on a slow machine.
const LIMIT: Duration = Duration::from_secs(1200);

/// Until what it gives is dropped: a story that hangs ends the run, and says what it hangs on.
fn limit(name: &str, passed: usize, failed: usize) -> Sender<()> {
    let (over, ended) = channel();
    let name = name.to_string();
    std::thread::spawn(move || {
        if ended.recv_timeout(LIMIT) == Err(RecvTimeoutError::Timeout) {
            println!("test {name} ... FAILED: not over after {LIMIT:?}; what still runs:");
            println!("{}", harness::try_sh("ps axfww -o pid,ppid,stat,etime,wchan:20,args"));
            println!("{passed} passed, {} failed", failed + 1);
            harness::end(1);
        }
    });
    over
}

/// Which of how many parts this is to tell, from zero.
fn part() -> (usize, usize) {
    let args = std::env::args().find_map(|a| a.strip_prefix("--part=").map(str::to_string));
    let Some(text) = args else { return (0, 1) };
    let numbers =
        text.split_once('/').and_then(|(n, of)| Some((n.parse().ok()?, of.parse().ok()?)));
    match numbers {
        Some((n, of)) if (1..=of).contains(&n) => (n - 1, of),
        _ => panic!("--part={text}: write --part=1/2"),
    }
}

/// A story with its stage: so many nodes of a Debian release.
struct Told {
    name: String,
    suite: String,
    nodes: usize,
    story: stories::Story,
}

/// A newer systemd does some things otherwise: what may depend on it is told there as well, and all
/// of starts, moves, deaths and cuts. A machine that cannot build it fails: nobody would notice.
const NEWER: &str = "trixie";
const ON_NEWER: &[&str] = &[
    "fact_start_limit_runs_on_failure",
    "fact_stop_ends_a_pending_restart",
    "fact_death_with_a_stop_pending_is_a_failure",
    "fact_start_in_a_shutdown_is_refused",
    "both_nodes_start",
    "one_node_alone_waits_for_initdead",
    "move_there_and_back",
    "standby_and_online",
    "stop_of_the_daemon_hands_over",
    "poweroff_hands_over",
    "power_loss_is_taken_over",
    "failback_yes_and_after_a_delay",
    "links_one_after_the_other",
    "all_links_at_once_and_heal",
    "all_links_cut_but_the_lan",
    "one_link_dead_then_power_loss",
    "last_link_takeover",
    "silence_hold_waits_for_a_person",
    "deaf_standby_that_may_not_start",
    "frozen_owner_gives_up_when_thawed",
    "restart_of_a_member_moves_nothing",
    "busy_mount_is_stuck_until_free",
    "daemon_killed_is_back",
    "daemon_killed_five_times_with_busy_mount",
    "reload_reexec_and_dbus_restart_in_a_takeover",
    "reboot_hands_over_and_returns",
    "upgrade_of_the_package",
    "both_boot_with_samba_enabled",
    "power_loss_over_a_crossover_cable",
    "one_way_on_one_link_moves_nothing",
    "one_way_from_the_owner_it_yields",
    "one_way_from_the_owner_and_silence_hold",
    "one_way_to_the_owner_then_power_loss",
    "links_of_multicast_and_ipv6_unicast",
    "address_taken_away_again_and_again",
    "whose_hand_it_was",
    "a_mount_that_stays_busy",
    "without_a_bus",
    "soft_reboot_hands_over",
    "lost_at_the_first_crash",
];

/// What the recipes run is on the nodes of the first release only: one root file system for all.
fn more(suite: &str) -> &'static str {
    match suite {
        _ if suite == harness::rootfs::suite() => recipes::PACKAGES,
        _ if suite.ends_with(harness::rootfs::WITH_AGENTS) => harness::rootfs::OF_AGENTS,
        _ if suite.ends_with(harness::rootfs::WITH_KERNEL) => harness::rootfs::OF_GUEST,
        _ => "",
    }
}

/// The lab itself first, then what systemd does, then what the program does; last the newer one.
fn all() -> Vec<Told> {
    let own = harness::rootfs::suite();
    let of_two = [
        selftest::ALL,
        facts::ALL,
        stories::ALL,
        restarts::ALL,
        identity::ALL,
        interleavings::ALL,
        borders::ALL,
        paths::OF_TWO,
        links::ALL,
        disk::ALL,
        leases::ALL,
        changes::ALL,
        addresses::ALL,
        lost::ALL,
        escalate::ALL,
        hands::ALL,
        recipes::ALL,
    ];
    let two = of_two.into_iter().flatten().map(|story| (2, story));
    let three = [paths::OF_THREE, quorum::OF_THREE, leases::OF_THREE].into_iter().flatten();
    let four = recipes::OF_FOUR.iter().map(|story| (4, story));
    let every = two.chain(three.map(|story| (3, story))).chain(four);
    let told = |(nodes, (name, story)): (usize, &(&str, stories::Story))| Told {
        name: name.to_string(),
        suite: own.clone(),
        nodes,
        story: *story,
    };
    let mut all: Vec<Told> = every.map(told).collect();
    let fenced = [fences::ALL, fence_faults::ALL].into_iter().flatten();
    let fenced = fenced.map(|story| told((2, story)));
    let suite = format!("{own}{}", harness::rootfs::WITH_AGENTS);
    all.extend(fenced.map(|told| Told { suite: suite.clone(), ..told }));
    let suite = format!("{own}{}", harness::rootfs::WITH_KERNEL);
    let guest = [guest::ALL, reserve::ALL, cut_off::ALL].into_iter().flatten();
    let guest = guest.map(|story| told((0, story)));
    all.extend(guest.map(|told| Told { suite: suite.clone(), ..told }));
    if own != NEWER {
        for name in ON_NEWER {
            let same = all.iter().find(|t| t.name == *name).expect("a story of that name");
            let (nodes, story) = (same.nodes, same.story);
            let (name, suite) = (format!("{NEWER}/{name}"), NEWER.to_string());
            all.push(Told { name, suite, nodes, story });
        }
    }
    all
}

/// Boots a lab for a self-test, and lets it stand until somebody ends this process.
fn hold(panics: bool) -> ExitCode {
    let suite = harness::rootfs::suite();
    let _lab = harness::Lab::new(1, &suite, more(&suite));
    println!("booted");
    assert!(!panics, "as was asked for");
    loop {
        std::thread::park();
    }
}
