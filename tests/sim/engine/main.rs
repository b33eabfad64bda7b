//! The simulator: many seeds on all cores, or one seed with its whole trace.

mod borders;
mod bounds;
mod checks;
mod clock;
mod cover;
mod disk;
mod escalate;
mod fences;
mod guard;
mod hands;
mod jobs;
mod lasts;
mod leases;
mod net;
mod newer;
mod node;
mod operator;
mod options;
mod proofs;
mod quorum;
mod reload;
mod reserve;
mod rng;
mod rules;
mod run;
mod sharp;
mod slots;
mod systemd;
mod trace;
mod watchdog;
mod world;

use cover::{Cover, ROWS};
use run::{Outcome, run};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Failing seeds after which a run ends.
const ENOUGH: usize = 12;
/// Lines of a failing run that are shown.
const TAIL: usize = 60;
/// So many seeds are run twice.
const TWICE: u64 = 300;

fn main() {
    let number = |name: &str| std::env::var(name).ok()?.replace('_', "").parse::<u64>().ok();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(("--sharp", names)) = arguments.split_first().map(|(a, n)| (a.as_str(), n)) {
        std::process::exit(i32::from(!sharp::check(names, number("SEEDS").unwrap_or(4000))));
    }
    let good = match number("SEED") {
        Some(seed) => one(seed),
        None => many(number("FROM").unwrap_or(1), number("SEEDS").unwrap_or(20_000)),
    };
    if !good {
        std::process::exit(1);
    }
}

/// A panic in the core is a finding like any other.
fn guarded(seed: u64, keep: bool) -> Outcome {
    let caught = std::panic::catch_unwind(|| run(seed, keep));
    caught.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| s.to_string()));
        let words = text.unwrap_or_default();
        Outcome {
            options: options::Options::draw(seed, &mut rng::Rng::new(seed)),
            broken: Some(rules::Broken { rule: "Panic", words }),
            cover: Cover::default(),
            hash: 0,
            lines: Vec::new(),
            events: 0,
        }
    })
}

fn one(seed: u64) -> bool {
    let outcome = guarded(seed, true);
    println!("{}", outcome.options);
    for line in &outcome.lines {
        println!("{line}");
    }
    println!("seed {seed}: {} (trace {:016x})", outcome.say(), outcome.hash);
    outcome.broken.is_none()
}

struct Sum {
    cover: Cover,
    failed: Vec<(u64, String)>,
    events: u64,
    /// Of all traces: the same seeds of the same sources give the same.
    hash: u64,
}

fn many(from: u64, seeds: u64) -> bool {
    let began = Instant::now();
    let next = AtomicU64::new(from);
    let sum = Mutex::new(Sum { cover: Cover::default(), failed: Vec::new(), events: 0, hash: 0 });
    let threads = std::thread::available_parallelism().map_or(2, |n| n.get());
    std::panic::set_hook(Box::new(|_| {}));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| worker(&next, from, from + seeds, &sum));
        }
    });
    let _ = std::panic::take_hook();
    let sum = sum.into_inner().expect("no worker panics");
    let took = began.elapsed().as_secs_f64();
    println!("{seeds} seeds from {from}, {} events, {took:.1} s on {threads} threads", sum.events);
    println!("trace {:016x}; {} of the seeds ran twice", sum.hash, seeds.min(TWICE));
    report(&sum, seeds)
}

fn worker(next: &AtomicU64, from: u64, end: u64, sum: &Mutex<Sum>) {
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= end {
            return;
        }
        let mut outcome = guarded(seed, false);
        if seed < from + TWICE && outcome.hash != guarded(seed, seed % 2 == 0).hash {
            outcome.broken.get_or_insert(rules::Broken {
                rule: "Repeatable",
                words: "the same seed gave another trace".into(),
            });
        }
        let mut sum = sum.lock().expect("no worker panics");
        sum.cover.add(&outcome.cover);
        sum.events += outcome.events;
        sum.hash ^= outcome.hash.rotate_left(seed as u32);
        if outcome.broken.is_some() {
            sum.failed.push((seed, outcome.say()));
            if sum.failed.len() >= ENOUGH {
                next.store(end, Ordering::Relaxed);
            }
        }
    }
}

fn report(sum: &Sum, seeds: u64) -> bool {
    for row in ROWS {
        println!("{:>10}  {row}", sum.cover.0.get(row).copied().unwrap_or_default());
    }
    let zero = sum.cover.zero();
    if !zero.is_empty() && seeds >= 5000 {
        println!("never came to: {}", zero.join(", "));
    }
    let mut failed = sum.failed.clone();
    failed.sort();
    if let Some((seed, _)) = failed.first() {
        let outcome = guarded(*seed, true);
        println!("{}", outcome.options);
        let skip = outcome.lines.len().saturating_sub(TAIL);
        outcome.lines.iter().skip(skip).for_each(|line| println!("{line}"));
    }
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for (seed, words) in &failed {
        println!("FAILED seed {seed}: {words}\n  to repeat: make sim SEED={seed}");
        *kinds.entry(words.split(':').next().unwrap_or_default().into()).or_default() += 1;
    }
    println!("broken: {kinds:?}");
    failed.is_empty() && (zero.is_empty() || seeds < 5000)
}
