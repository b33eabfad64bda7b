//! `hafailover witness`: grants the leases, on a third machine.

use crate::config::witness;
use crate::io::notify;
use crate::io::witness::{self as io, Server};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

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
    let mut told = None;
    loop {
        match server.serve() {
            Ok(None) => {}
            Ok(Some(words)) => {
                let again =
                    |(before, at): &(String, Instant)| *before == words && at.elapsed() < io::TOLD;
                if !told.as_ref().is_some_and(again) {
                    super::tell(&words);
                    told = Some((words, Instant::now()));
                }
            }
            Err(error) => return super::fail(&format!("the socket: {error}"), 1, false),
        }
    }
}
