//! `hafailover daemon`.

use crate::daemon::{self, Failure};
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
    let (words, code) = match daemon::run(&args.config) {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Wrong(words)) => (words, WRONG_CONFIG),
        Err(Failure::Failed(words)) => (words, 1),
    };
    super::tell(format!("hafailover: nothing was touched:\n{words}"));
    ExitCode::from(code)
}
