//! `hafailover disk format`: makes the slots, or the leases, of this cluster's nodes.

use crate::daemon::setup;
use crate::io::disk::foreign;
use crate::wire::disk::{Header, SIZE};
use std::path::PathBuf;
use std::process::ExitCode;

/// Make the slots, or the leases, of this cluster's nodes on an empty partition; once, on one node.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The partition or volume, by a name that stays: /dev/disk/by-...
    device: PathBuf,
    /// For leases, by sanlock, in place of heartbeats.
    #[arg(long)]
    leases: bool,
    /// Format anew what hafailover has formatted before.
    #[arg(long)]
    force_of_ours: bool,
    /// The configuration file.
    #[arg(long, default_value = setup::CONFIG)]
    config: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> ExitCode {
    super::super::finish(format(&args), args.json)
}

fn format(args: &Args) -> Result<String, String> {
    let (device, ours) = (&args.device, args.force_of_ours);
    let settings = crate::config::load(&args.config, &setup::hostname());
    let settings = settings.map_err(|e| e.to_string())?;
    let mut id = [0; 16];
    getrandom::fill(&mut id)
        .map_err(|e| format!("the kernel gives no random numbers: {e}: try again"))?;
    let nodes: Vec<String> = settings.nodes.iter().map(|n| n.name.clone()).collect();
    if args.leases {
        return super::leases::format(device, ours, id, &settings);
    }
    let header = Header { id, cluster: settings.cluster, nodes };
    foreign::format(device, &header, ours)?;
    Ok(format!(
        "{}: has slots for {} now, in its first {} KiB. On every node: a [[link]] with type = \
         \"disk\", hafailover check, systemctl restart hafailover",
        device.display(),
        header.nodes.join(", "),
        SIZE / 1024
    ))
}
