//! `hafailover disk`: makes and shows the slots on a shared disk; and serves them, for the daemon.

mod format;
mod show;

use std::os::fd::AsFd;
use std::process::ExitCode;

/// Prepare a small shared partition as a heartbeat link, or look at one.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    Format(format::Args),
    Show(show::Args),
    /// Read and write the slots, for a daemon at the other end of standard input.
    #[command(hide = true)]
    Serve,
}

pub fn run(args: Args) -> ExitCode {
    match args.verb {
        Verb::Format(args) => format::run(args),
        Verb::Show(args) => show::run(args),
        Verb::Serve => serve(),
    }
}

fn serve() -> ExitCode {
    let socket = std::io::stdin().as_fd().try_clone_to_owned();
    let served = socket.map_err(|e| e.to_string()).and_then(crate::io::disk::helper::serve);
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(words) => {
            super::tell(format!("hafailover disk serve: {words}"));
            ExitCode::FAILURE
        }
    }
}
