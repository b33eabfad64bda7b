//! `hafailover witness`: grants the leases, on a third machine.

use crate::config::witness;
use crate::io::notify;
use crate::io::witness::Server;
use std::path::PathBuf;
use std::process::ExitCode;

/// Grant leases to the nodes of clusters (run by hafailover-witness.service)
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The configuration file
    #[arg(long, default_value = witness::FILE)]
    config: PathBuf,
}

pub fn run(args: Args) -> ExitCode {
    let opened = witness::load(&args.config).map_err(|e| e.to_string());
    let (mut server, words) = match opened.and_then(|settings| Server::open(&settings)) {
        Ok(opened) => opened,
        Err(error) => return super::fail(&error, 78, false),
    };
    words.iter().for_each(super::tell);
    notify::ready_now();
    let mut told = String::new();
    loop {
        match server.serve() {
            Ok(None) => {}
            Ok(Some(words)) if words == told => {}
            Ok(Some(words)) => {
                super::tell(&words);
                told = words;
            }
            Err(error) => return super::fail(&format!("the socket: {error}"), 1, false),
        }
    }
}
