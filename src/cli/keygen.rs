//! `hafailover keygen`: makes a key file, or adds a key to one for a rotation.

use crate::config;
use crate::wire::keys::{KEYS_MAX, Keys};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Make a key file for the heartbeats.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The key file.
    #[arg(long, default_value = "/etc/hafailover/keys")]
    file: PathBuf,
    /// Add a new key, not yet used for sending, to an existing file.
    #[arg(long)]
    add: bool,
}

pub fn run(args: Args) -> ExitCode {
    super::finish(if args.add { add(&args.file) } else { make(&args.file) })
}

fn make(path: &Path) -> Result<String, String> {
    if path.exists() {
        return Err(format!(
            "{}: exists already: --add adds a key to it; to start over, remove it on every node",
            path.display()
        ));
    }
    save(path, &Keys::of(&[(1, random()?)], 1))?;
    Ok(format!("{0}: made. Copy it to every node: scp -p {0} root@NODE:{0}", path.display()))
}

fn add(path: &Path) -> Result<String, String> {
    let keys = config::keys::load(path)?;
    let next = keys.ids().max().unwrap_or(0).checked_add(1).ok_or("no key number is left")?;
    let (sending, _) = keys.sending();
    if keys.ids().count() >= KEYS_MAX {
        return Err(format!("{}: {KEYS_MAX} keys already: remove old ones", path.display()));
    }
    let key = random()?;
    let mut all: Vec<(u8, [u8; 32])> =
        keys.ids().filter_map(|id| Some((id, *keys.get(id)?))).collect();
    all.push((next, key));
    save(path, &Keys::of(&all, sending))?;
    Ok(format!(
        "{0}: key {next} added. 1. copy the file to every node and run systemctl reload \
         hafailover there; 2. write \"use {next}\" in it on every node and reload; 3. remove the \
         old key's line on every node and reload.",
        path.display()
    ))
}

/// Beside the old file, then renamed over it: never half a key file.
fn save(path: &Path, keys: &Keys) -> Result<(), String> {
    let at = |e: std::io::Error| format!("{}: {e}", path.display());
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).map_err(at)?;
    }
    let new = path.with_extension("new");
    let _ = std::fs::remove_file(&new);
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)
        .map_err(at)?;
    file.write_all(keys.to_text().as_bytes()).map_err(at)?;
    file.sync_all().map_err(at)?;
    std::fs::rename(&new, path).map_err(at)
}

fn random() -> Result<[u8; 32], String> {
    let mut key = [0; 32];
    getrandom::fill(&mut key).map_err(|e| format!("no random numbers: {e}"))?;
    Ok(key)
}
