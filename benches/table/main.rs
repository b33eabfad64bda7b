//! `make bench`: what a group's users wait for, on two booted nodes with real systemd, each figure
//! beside another of the same run. `make bench WORDS="move idle"` runs the measures with such a
//! word in their name.

#[path = "../../tests/lab/cluster.rs"]
#[allow(dead_code, reason = "the benchmark needs less of it than the tests")]
mod cluster;
#[path = "../../tests/lab/harness/mod.rs"]
#[allow(dead_code, reason = "the benchmark needs less of it than the tests")]
mod harness;
mod load;
mod measure;
mod outage;
mod table;

use measure::Bench;

type Measure = fn(&mut Bench);

/// In the order of the table; the later ones are compared with figures of the earlier.
const ALL: &[(&str, Measure)] = &[
    ("planned-move", outage::planned_move),
    ("failed-start", outage::failed_start),
    ("service-killed", outage::service_killed),
    ("power-loss-default", outage::power_loss_default),
    ("fifty-groups", load::fifty_groups),
    ("idle", load::idle),
    ("shortest-timing", load::shortest_timing),
];

fn main() {
    assert!(rustix::process::geteuid().is_root(), "the benchmark needs root: make bench");
    let words: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    harness::handle_signals();
    let mut bench = Bench::new();
    for (name, measure) in ALL {
        if words.is_empty() || words.iter().any(|w| name.contains(w.as_str())) {
            println!("measuring {name} …");
            let measured = std::panic::AssertUnwindSafe(|| measure(&mut bench));
            if let Err(panic) = std::panic::catch_unwind(measured) {
                bench.cluster.dump();
                std::panic::resume_unwind(panic);
            }
        }
    }
    println!("\n{}", bench.table);
}
