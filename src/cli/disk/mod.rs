//! `hafailover disk`: makes and shows the slots or the leases on a shared disk; and reads and
//! writes them, for the daemon.

mod format;
mod leases;
mod show;

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;

/// Prepare a small shared partition for heartbeats or leases, or look at one.
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
    /// Ask the leases on a disk once, for a daemon that holds the lock at standard input.
    #[command(hide = true)]
    Ask {
        plan: String,
    },
    /// Look at all leases once, for a daemon.
    #[command(hide = true)]
    Watch {
        device: PathBuf,
    },
    /// Leave the lockspace of sanlock, which is about to end.
    #[command(hide = true)]
    Leave,
}

pub fn run(args: Args) -> ExitCode {
    match args.verb {
        Verb::Format(args) => format::run(args),
        Verb::Show(args) => show::run(args),
        Verb::Serve => serve(),
        Verb::Ask { plan } => leases::ask(&plan),
        Verb::Watch { device } => leases::watch(&device),
        Verb::Leave => leases::leave(),
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
