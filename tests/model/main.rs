//! The shipped core under a model checker: every fault at every moment of a run, up to a number
//! of faults, and all that comes of it. `make model` goes deeper: `--deep`, and `--seconds N` to
//! end each search after that long. A word searches only the plans whose name has it. `--sharp`:
//! those of the deliberate faults (`tests/sharp`), each until it finds something.

mod canon;
mod chances;
mod fault;
mod fence;
mod guard;
mod lease;
mod mend;
mod plans;
mod reserve;
mod search;
mod setup;
mod situations;
mod step;
mod watch;
mod watchdog;
mod world;

use search::{Search, minimise, replay};
use setup::Plan;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

/// Of what breaks in one search, so many are shown.
const SHOWN: usize = 8;
/// What the searches of `make test` may need, in KiB.
const MEMORY: u64 = 4 << 20;

fn main() {
    let began = std::time::Instant::now();
    canon::check();
    let rest = setup::at_rest();
    watch::check(&rest.cluster(), &rest.first());
    let rest = setup::RESERVED;
    reserve::check(&rest.cluster(), &rest.first());
    let args: Vec<String> = std::env::args().skip(1).collect();
    let deep = args.iter().any(|a| a == "--deep");
    let seconds = args.iter().position(|a| a == "--seconds").and_then(|n| args.get(n + 1));
    let limit = seconds.map_or(u64::MAX, |s| s.parse().expect("--seconds takes a number"));
    let sharp = args.iter().any(|a| a == "--sharp");
    let word = args.first().filter(|a| !a.starts_with('-'));
    // A panic of the core is a finding: it is told with its path, not by the thread that met it.
    std::panic::set_hook(Box::new(|_| {}));
    let mut broken = BTreeSet::new();
    let plans = if sharp { plans::sharp() } else { plans::plans(deep) };
    for plan in plans.iter().filter(|p| word.is_none_or(|w| p.name.contains(w.as_str()))) {
        broken.extend(explore(plan, limit, sharp));
    }
    for name in watch::NAMES {
        println!("{name} {}", if broken.contains(name) { "BROKEN" } else { "held" });
    }
    println!("WallClockIrrelevant held: the core is given its time (tests/house keeps clocks out)");
    let mut missing = false;
    for (situation, words) in situations::ALL {
        let reached = situations::reached(*situation);
        missing |= !reached;
        println!("{} {words}", if reached { "reached" } else { "NOT REACHED" });
    }
    let whole = word.is_none() && !deep && !sharp;
    let memory = most_memory();
    println!("{} s, {} MiB at most", began.elapsed().as_secs(), memory >> 10);
    let much = whole && memory > MEMORY;
    if !broken.is_empty() || (missing && whole) || much {
        std::process::exit(1);
    }
}

/// The most memory that this process had so far, in KiB.
fn most_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("it is Linux");
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).expect("always there");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

fn explore(plan: &Plan, limit: u64, sharp: bool) -> BTreeSet<&'static str> {
    let mut search = Search::new(plan, limit);
    search.one = sharp;
    let threads = std::thread::available_parallelism().map_or(2, usize::from).min(2);
    search.run(threads);
    let get = |n: &AtomicU64| n.load(Ordering::Relaxed);
    println!(
        "{}: {} faults, {} states, depth {}, {} ends within {} events of a fault, {} repaired on \
         the way, {:.0} s{}",
        plan.name,
        plan.faults.len(),
        get(&search.states),
        get(&search.depth),
        get(&search.settled),
        get(&search.longest),
        get(&search.repaired),
        search.began.elapsed().as_secs_f64(),
        if search.cut_short.load(Ordering::Relaxed) { ", not finished" } else { "" },
    );
    let mut found = search.found.lock().expect("the search is over").clone();
    found.sort_by_key(|f| (f.path.len(), f.path.iter().map(|p| p.0).sum::<u32>()));
    for found in found.iter().take(SHOWN) {
        let found = minimise(plan, found);
        println!("BROKEN {}: {}", found.broken.name, found.broken.words);
        let (trace, _) = replay(plan, &found.path, found.after);
        trace.iter().for_each(|line| println!("    {line}"));
    }
    found.iter().map(|f| f.broken.name).collect()
}
