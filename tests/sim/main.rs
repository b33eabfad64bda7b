//! Builds the core, the wire format and the simulator (`engine`) optimised, as a crate of their own
//! below target/, and runs it. The rest of the program, and every other test, stays quick to build.

mod crate_of;

use std::process::exit;

fn main() {
    // `cargo test` hands options of its harness to every test; there is none here to take them.
    let home = crate_of::prepare("sim", |_, text| text);
    let ran = crate_of::program(&home, "sim").status().expect("the simulator runs");
    exit(i32::from(!ran.success()));
}
