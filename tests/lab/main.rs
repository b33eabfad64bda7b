//! The lab: the package, installed, on nodes with a real systemd. Each test is a story; several
//! share the booted nodes. `cargo test --test lab -- WORD` runs those whose name contains WORD.

mod cluster;
mod double;
mod facts;
mod harness;
mod interleavings;
mod paths;
mod restarts;
mod selftest;
mod stories;
mod troubles;

use cluster::Cluster;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    if std::env::args().any(|a| a == "--list") {
        all().for_each(|(_, (name, _))| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    assert!(rustix::process::geteuid().is_root(), "the lab needs root: make test");
    let wanted = |name: &str| words.is_empty() || words.iter().any(|w| name.contains(w.as_str()));
    let stories: Vec<_> = all().filter(|(_, (name, _))| wanted(name)).collect();
    harness::end_on_signals();
    if std::env::args().any(|a| a == "--hold") {
        return hold(words.iter().any(|w| w == "panic"));
    }
    let mut cluster: Option<Cluster> = None;
    let (mut passed, mut failed) = (0, Vec::new());
    for (nodes, (name, story)) in stories {
        let begun = Instant::now();
        let result = catch_unwind(AssertUnwindSafe(|| {
            if cluster.as_ref().is_some_and(|c| c.lab.nodes.len() != nodes) {
                cluster = None;
            }
            let cluster = cluster.get_or_insert_with(|| Cluster::of(nodes));
            cluster.reset();
            story(cluster);
        }));
        let took = begun.elapsed().as_secs_f64();
        match result {
            Ok(()) => {
                println!("test {name} ... ok ({took:.1} s)");
                passed += 1;
            }
            Err(_) => {
                println!("test {name} ... FAILED ({took:.1} s)");
                if let Some(cluster) = &cluster {
                    cluster.dump();
                }
                // Whatever state it is in is no base for the next story.
                cluster = None;
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

/// The lab itself first, then what systemd does, then what the program does; each with the number
/// of nodes that it wants.
fn all() -> impl Iterator<Item = (usize, &'static (&'static str, stories::Story))> {
    let two = selftest::ALL
        .iter()
        .chain(facts::ALL)
        .chain(stories::ALL)
        .chain(restarts::ALL)
        .chain(interleavings::ALL)
        .chain(paths::OF_TWO);
    two.map(|story| (2, story)).chain(paths::OF_THREE.iter().map(|story| (3, story)))
}

/// Boots a lab for a self-test, and lets it stand until somebody ends this process.
fn hold(panics: bool) -> ExitCode {
    let _lab = harness::Lab::new(1);
    println!("booted");
    assert!(!panics, "as was asked for");
    loop {
        std::thread::park();
    }
}
