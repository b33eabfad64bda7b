//! Whether the simulator is sharp: deliberate faults in a copy of the core and the wire, one for
//! each rule, all in one build; each must be caught. The sources themselves know nothing of this.

#[path = "../sim/crate_of.rs"]
mod crate_of;
mod disks;
mod faults;
mod leases;
mod model;
mod stops;

use faults::Fault;

fn main() {
    let lists = [faults::FAULTS, leases::FAULTS, stops::FAULTS, disks::FAULTS, model::FAULTS];
    let all: Vec<&Fault> = lists.into_iter().flatten().collect();
    let mut used = vec![0; all.len()];
    let home = crate_of::prepare("sharp", |path, text| {
        let mut text = text;
        for (n, fault) in all.iter().enumerate().filter(|(_, f)| path == f.file) {
            text = put_in(&text, n + 1, fault);
            used[n] += 1;
        }
        text
    });
    assert!(used.iter().all(|n| *n == 1), "a fault names a file that is not there");
    let names: Vec<&str> = all.iter().map(|f| f.name).collect();
    let table = include_str!("README.md");
    let told: Vec<&str> = table.split(['|', ';', '\n']).map(str::trim).collect();
    let missing: Vec<_> = names.iter().filter(|n| !told.contains(n)).collect();
    assert!(missing.is_empty(), "no rule in tests/sharp/README.md has these: {missing:?}");
    let of_model = model::check(&home, &names);
    let simulated = &names[..names.len() - model::FAULTS.len()];
    let ran = crate_of::program(&home, "sim").arg("--sharp").args(simulated).status();
    let of_sim = ran.expect("the simulator runs").success();
    std::process::exit(i32::from(!(of_model && of_sim)));
}

/// `good` is a piece of the source as it stands, with the part that goes wrong between « and ».
fn put_in(text: &str, number: usize, fault: &Fault) -> String {
    let (bad, (before, rest)) = (fault.bad, fault.good.split_once('«').expect("a mark"));
    let (right, after) = rest.split_once('»').expect("two marks");
    let whole = format!("{before}{right}{after}");
    let found = text.matches(&whole).count();
    assert_eq!(found, 1, "fault {number}: found {found} times, not once: {whole}");
    let home = if fault.file.starts_with("src/") { "crate" } else { "hafailover" };
    let is = format!("{home}::sharp::is({number})");
    let either = match right.ends_with(';') {
        true => format!("if {is} {{ {bad} }} else {{ {right} }}"),
        false => format!("(if {is} {{ {bad} }} else {{ {right} }})"),
    };
    text.replacen(&whole, &format!("{before}{either}{after}"), 1)
}
