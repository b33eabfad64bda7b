//! Which faults the model checker must catch as well, and on which of its plans.

use crate::crate_of;
use crate::faults::{Fault, fault};
use std::collections::BTreeSet;
use std::path::Path;

/// Faults of the model's own settings: nothing else knows of them.
pub const FAULTS: &[Fault] = &[fault(
    "in the model, lets others in after one time of the watchdog",
    "tests/model/watchdog.rs",
    "let most = 1000 + TIMEOUT * «2»;",
    "1",
)];

/// Fault, plan, and which invariant it breaks there.
const CAUGHT: &[(&str, &str, &str)] = &[
    (FAULTS[0].name, "fed once more", "OneOwner"),
    ("counts a lease from its answer", "a late answer", "OneOwner"),
    ("owns an epoch twice", "an epoch once", "EpochUnique"),
    ("a witness forgets leases when it restarts", "a forgetful witness", "OneOwner"),
    ("does not wait for those that it vouched for", "vouched and cut", "EvidenceFirst"),
    (
        "does not look again, when it is granted, for whom it vouched",
        "moved and cut",
        "EvidenceFirst",
    ),
    ("arms the watchdog when the start has ended", "fed once more", "Guarded"),
    ("a witness takes any release for one of this epoch", "a forgetful witness", "OneOwner"),
    ("orders equal counters the other way than disks do", "reserved and cut", "LatestWrites"),
];

/// For how long each plan is searched without a fault, in seconds: most are met sooner.
const CONTROL: &str = "10";

/// False: one was not caught, or something breaks without a fault. `ROWS`: only those whose name
/// has it.
pub fn check(home: &Path, names: &[&str]) -> bool {
    let word = std::env::var("ROWS").ok();
    let rows: Vec<_> =
        CAUGHT.iter().filter(|c| word.as_ref().is_none_or(|w| c.0.contains(w))).collect();
    let mut all = true;
    for (name, plan, rule) in &rows {
        let number = names.iter().position(|n| n == name).expect("a row of the table") + 1;
        let broken = broken(home, number, &[plan, "--sharp"]);
        let words = if broken.iter().any(|b| b == rule) { rule } else { "NOT CAUGHT" };
        println!("{number:>3}  {name:<50} the model: {words}");
        all &= words == *rule;
    }
    for plan in rows.iter().map(|row| row.1).collect::<BTreeSet<_>>() {
        let broken = broken(home, 0, &[plan, "--sharp", "--seconds", CONTROL]);
        println!("  0  {plan:<50} without a fault: {broken:?}");
        all &= broken.is_empty();
    }
    all
}

/// Which invariants the model finds broken with that fault.
fn broken(home: &Path, fault: usize, args: &[&str]) -> Vec<String> {
    let mut model = crate_of::program(home, "model");
    let ran = model.args(args).env("FAULT", fault.to_string()).output();
    let said = String::from_utf8(ran.expect("the model runs").stdout).expect("plain words");
    assert!(said.contains("OneOwner "), "it tells of no invariant: {said}");
    said.lines().filter_map(|line| line.strip_suffix(" BROKEN")).map(str::to_string).collect()
}
