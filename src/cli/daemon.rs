//! `hafailover daemon`.

use crate::daemon;
use std::path::PathBuf;
use std::process::ExitCode;

/// EX_CONFIG of sysexits.h(3head).
const WRONG_CONFIG: u8 = 78;

/// Run the failover daemon (started by hafailover.service).
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The configuration file.
    #[arg(long, default_value = daemon::setup::CONFIG)]
    config: PathBuf,
}

pub fn run(args: Args) -> ExitCode {
    match daemon::run(&args.config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(words) => {
            eprintln!("hafailover: nothing was touched:\n{words}");
            ExitCode::from(WRONG_CONFIG)
        }
    }
}
