//! libFuzzer around the targets of `tests/fuzz`; the variable TARGET names the one to run.

#![no_main]

#[path = "../../tests/fuzz/targets.rs"]
mod targets;

use std::sync::LazyLock;

static TARGET: LazyLock<targets::Target> = LazyLock::new(|| {
    let name = std::env::var("TARGET").unwrap_or_default();
    let found = targets::TARGETS.iter().find(|(n, _)| *n == name);
    found.unwrap_or_else(|| panic!("TARGET={name}: no such target in tests/fuzz/targets.rs")).1
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| TARGET(data));
