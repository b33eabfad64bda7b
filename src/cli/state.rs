//! `hafailover state create`.

use crate::core::record::Record;
use crate::daemon::setup;
use crate::io::store::{self, Owner, Store};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Create the state file of a new cluster.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Record that this cluster is new, so that this node may start alone.
    Create {
        /// The configuration file.
        #[arg(long, default_value = setup::CONFIG)]
        config: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

pub fn run(args: Args) -> ExitCode {
    let Verb::Create { config, json } = args.verb;
    super::finish(create(&config), json)
}

fn create(config: &std::path::Path) -> Result<String, String> {
    let settings = crate::config::load(config, &setup::hostname()).map_err(|e| e.to_string())?;
    let path = settings.state.clone();
    let name = &settings.nodes[usize::from(settings.me.0)].name;
    let owner = Owner::here(&settings.cluster, name);
    let (mut store, found) = Store::open(&path, owner, Path::new(store::MARK))?;
    // A daemon that has never heard its peers has written down just that.
    let record = found.unwrap_or_default();
    if record.known {
        return Err(format!(
            "{}: this node knows its state, so there is nothing to do: systemctl start hafailover",
            path.display()
        ));
    }
    store
        .write(&Record { known: true, ..record })
        .map_err(|e| format!("{}: {e}: make room, or mend the disk", path.display()))?;
    Ok(format!("{}: made; this cluster counts as new on {name}", path.display()))
}
