//! The subcommands, one file each: each has `Args` and `run`, which prints and gives the exit code.
//!
//! Exit codes: 0 done; 1 refused or failed, `check`: errors; 2 wrong usage, `check`: warnings; 3
//! the daemon does not run; 4 `status`: not everything is well, `ip`: another host has the address,
//! `reserve`: another owner has the disk; 5 `ip`, `reserve`: what was held was taken away;
//! 78 (EX_CONFIG, sysexits.h(3head)) the configuration is wrong.

pub mod adopt;
pub mod check;
pub mod clear;
mod client;
pub mod confirm_down;
pub mod daemon;
pub mod disk;
pub mod explain;
pub mod fence;
pub mod fence_agent;
pub mod generator;
pub mod history;
pub mod ip;
pub mod keygen;
pub mod lost;
pub mod maintenance;
pub mod move_group;
pub mod online;
pub mod reload;
pub mod reserve;
pub mod retry;
pub mod standby;
pub mod state;
pub mod status;
pub mod watchdog;
pub mod witness;

use std::io::Write;
use std::process::ExitCode;

/// A line on standard error from what must not end because nobody reads it: a journal that went
/// away is a broken pipe.
fn tell(words: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{words}");
}

/// Prints a result and gives its exit code.
fn finish(result: Result<String, String>, json: bool) -> ExitCode {
    match result {
        Ok(words) if json => println!("{}", serde_json::json!({ "done": words })),
        Ok(words) => println!("{words}"),
        Err(words) => return fail(&words, 1, json),
    }
    ExitCode::SUCCESS
}

/// Prints an error and gives its exit code: for people on standard error, with `--json` as an
/// object where a program reads the result.
pub fn fail(words: &str, code: u8, json: bool) -> ExitCode {
    match json {
        true => println!("{}", serde_json::json!({ "error": words, "exit": code })),
        false => eprintln!("hafailover: {words}"),
    }
    ExitCode::from(code)
}
