//! Deliberate faults (`tests/sharp`), each in force on one thread at a time: how many seeds until
//! which rule is broken.

use crate::guarded;
use hafailover::sharp;
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

struct Row {
    number: usize,
    name: String,
    caught: Option<(&'static str, u64)>,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = match self.caught {
            Some((rule, seeds)) => format!("{rule} after {seeds}"),
            None => "NOT CAUGHT".into(),
        };
        write!(f, "{:>3}  {:<50} {words}", self.number, self.name)
    }
}

/// False: some fault was not caught within so many seeds. `ROWS`: only those whose name has it.
pub fn check(names: &[String], seeds: u64) -> bool {
    let (next, word) = (AtomicUsize::new(0), std::env::var("ROWS").ok());
    let rows = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(2, |n| n.get());
    std::panic::set_hook(Box::new(|_| {}));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    let Some(name) = names.get(n) else { return };
                    if !word.as_ref().is_none_or(|w| name.contains(w)) {
                        continue;
                    }
                    let caught = hunt(n as u32 + 1, seeds);
                    let row = Row { number: n + 1, name: name.clone(), caught };
                    eprintln!("{row}");
                    rows.lock().expect("no worker panics").push(row);
                }
            });
        }
    });
    let _ = std::panic::take_hook();
    let mut rows = rows.into_inner().expect("no worker panics");
    rows.sort_by_key(|r| r.number);
    rows.iter().for_each(|row| println!("{row}"));
    rows.iter().all(|r| r.caught.is_some())
}

fn hunt(fault: u32, seeds: u64) -> Option<(&'static str, u64)> {
    sharp::set(fault);
    let found = (1..=seeds).find_map(|seed| Some((guarded(seed, false).broken?.rule, seed)));
    sharp::set(0);
    found
}
