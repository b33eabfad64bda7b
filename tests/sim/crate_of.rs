//! A small crate with the shipped `core` and `wire` as its library `hafailover` and the simulator
//! as its program: copied below target/, so that a copy may differ (`tests/sharp`).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

const MANIFEST: &str = r#"[package]
name = "sim"
version = "0.0.0"
edition = "2024"
[workspace]
[lib]
name = "hafailover"
path = "lib.rs"
[[bin]]
name = "sim"
path = "engine/main.rs"
[[bin]]
name = "model"
path = "model/main.rs"
[dependencies]
DEPENDENCIES
[profile.release]
debug = "line-tables-only"
debug-assertions = true
"#;

/// `sharp` chooses, by thread or for all, which deliberate fault of a changed copy is in force.
const LIBRARY: &str = r#"//! The shipped core and wire format.
#![allow(unused_parens, reason = "around the faults of a changed copy")]
pub mod core;
pub mod sharp;
pub mod wire;
"#;

const SHARP: &str = r#"//! Which deliberate fault is in force on this thread; 0: none.
use std::cell::Cell;
thread_local!(static FAULT: Cell<u32> = Cell::new(first()));
fn first() -> u32 {
    std::env::var("FAULT").ok().and_then(|n| n.parse().ok()).unwrap_or(0)
}
pub fn set(fault: u32) {
    FAULT.with(|f| f.set(fault));
}
pub fn is(fault: u32) -> bool {
    FAULT.with(|f| f.get() == fault)
}
"#;

/// What of the package's dependencies the two layers need.
const NEEDED: [&str; 7] = ["cobs", "crc", "hmac", "serde", "serde_json", "sha2", "thiserror"];

/// Writes the crate; `change` gets each file's path below `src` and its text.
pub fn prepare(name: &str, mut change: impl FnMut(&str, String) -> String) -> PathBuf {
    let root = Path::new(ROOT);
    let home = root.join("target").join(name);
    let manifest = fs::read_to_string(root.join("Cargo.toml")).expect("Cargo.toml");
    let needed =
        |line: &&str| line.split_once(" = ").is_some_and(|(name, _)| NEEDED.contains(&name));
    let dependencies: Vec<&str> = manifest.lines().filter(needed).collect();
    let text = MANIFEST.replace("DEPENDENCIES", &dependencies.join("\n"));
    put(&home.join("Cargo.toml"), &text);
    put(&home.join("lib.rs"), LIBRARY);
    put(&home.join("sharp.rs"), SHARP);
    if !home.join("Cargo.lock").exists() {
        fs::copy(root.join("Cargo.lock"), home.join("Cargo.lock")).expect("the lock file");
    }
    for part in ["src/core", "src/wire", "tests/sim/engine", "tests/model"] {
        let to = home.join(part.rsplit('/').next().unwrap_or_default());
        let names = copy(&root.join(part), &to, &mut change);
        sweep(&to, &names);
    }
    home
}

fn copy(
    from: &Path,
    to: &Path,
    change: &mut impl FnMut(&str, String) -> String,
) -> Vec<std::ffi::OsString> {
    let mut names = Vec::new();
    for entry in fs::read_dir(from).expect("the sources") {
        let entry = entry.expect("readable");
        let text = fs::read_to_string(entry.path()).expect("a source file");
        let path = entry.path();
        let path = path.strip_prefix(ROOT).expect("below the root").to_string_lossy();
        put(&to.join(entry.file_name()), &change(&path, text));
        names.push(entry.file_name());
    }
    names
}

/// A file that is gone from the sources goes from the copy.
fn sweep(dir: &Path, names: &[std::ffi::OsString]) {
    for entry in fs::read_dir(dir).expect("just written").flatten() {
        if !names.contains(&entry.file_name()) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Only when it differs: cargo builds what is new.
fn put(path: &Path, text: &str) {
    if fs::read_to_string(path).is_ok_and(|old| old == text) {
        return;
    }
    fs::create_dir_all(path.parent().expect("a directory")).expect("writable");
    fs::write(path, text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}

/// Builds a program of it, `sim` or `model`, which is then to be run here.
pub fn program(home: &Path, name: &str) -> Command {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let mut build = Command::new(cargo);
    build
        .args(["build", "--release", "--quiet", "--bin", name, "--target-dir"])
        .arg(home.join("target"));
    let built = build.current_dir(home).status().expect("cargo runs");
    assert!(built.success(), "{}: it does not build", home.display());
    Command::new(home.join("target/release").join(name))
}
