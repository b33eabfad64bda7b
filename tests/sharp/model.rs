//! Which faults the model checker must catch as well, and on which of its plans.

use crate::crate_of;
use crate::faults::{Fault, fault};
use std::path::Path;

/// Faults of the model's own settings: nothing else knows of them.
pub const FAULTS: &[Fault] = &[fault(
    "in the model, lets others in after one time of the watchdog",
    "tests/model/watchdog.rs",
    "let most = 1000 + TIMEOUT * «2»;",
    "1",
)];

const CAUGHT: &[(&str, &str)] = &[
    (FAULTS[0].name, "fed once more"),
    ("counts a lease from its answer", "a late answer"),
    ("owns an epoch twice", "an epoch once"),
    ("a witness forgets leases when it restarts", "a forgetful witness"),
    ("does not wait for those that it vouched for", "vouched and cut"),
    ("does not look again, when it is granted, for whom it vouched", "moved and cut"),
    ("arms the watchdog when the start has ended", "fed once more"),
    ("a witness takes any release for one of this epoch", "a forgetful witness"),
];

/// False: one was not caught. `ROWS`: only those whose name has it.
pub fn check(home: &Path, names: &[&str]) -> bool {
    let word = std::env::var("ROWS").ok();
    let mut all = true;
    for (name, plan) in CAUGHT.iter().filter(|c| word.as_ref().is_none_or(|w| c.0.contains(w))) {
        let number = names.iter().position(|n| n == name).expect("a row of the table") + 1;
        let mut model = crate_of::program(home, "model");
        let ran = model.args([plan, "--sharp"]).env("FAULT", number.to_string()).output();
        let said = String::from_utf8(ran.expect("the model runs").stdout).expect("plain words");
        let broken = said.lines().find_map(|line| line.strip_suffix(" BROKEN"));
        println!("{number:>3}  {name:<50} the model: {}", broken.unwrap_or("NOT CAUGHT"));
        all &= broken.is_some();
    }
    all
}
