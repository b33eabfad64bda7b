//! `hafailover watchdog`: feeds the hardware watchdog that lives on the leases.

use crate::io::{rt, watchdog};
use std::process::ExitCode;

/// Feed the hardware watchdog for the daemon (run by hafailover-watchdog.service)
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(_: Args) -> ExitCode {
    let got = rt::ask();
    super::tell(format!("scheduling: {}", got.scheduling));
    match watchdog::feed(super::tell::<String>) {
        Ok(never) => match never {},
        Err(error) => super::fail(&format!("the watchdog: {error}"), 1, false),
    }
}
