//! `hafailover watchdog`: feeds the hardware watchdog that lives on the leases.

use crate::io::watchdog;
use std::process::ExitCode;

/// Feed the hardware watchdog for the daemon (run by hafailover-watchdog.service)
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(_: Args) -> ExitCode {
    match watchdog::feed() {
        Ok(never) => match never {},
        Err(error) => super::fail(&format!("the watchdog: {error}"), 1, false),
    }
}
