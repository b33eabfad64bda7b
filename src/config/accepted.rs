//! What was last read and found good, kept beside the state file: a daemon that comes back while it
//! holds groups goes on by it where its files are wrong. Keys are not in it.

use super::settings::Settings;
use super::target::{Found, Target};
use super::{ConfigError, load};
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// Where it is kept, whatever the settings say: they are what may be wrong.
pub const FILE: &str = "/var/lib/hafailover/accepted";
/// Two hundred groups with long drop-ins take less.
const FILE_MAX: u64 = 16 * 1024 * 1024;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// The host name by which this node was found in it.
    pub host: String,
    /// The text of hafailover.toml.
    pub config: String,
    pub targets: Vec<Target>,
}

impl Accepted {
    /// `None`: there is none, or none that can be believed.
    pub fn load(path: &Path) -> Option<Accepted> {
        let meta = path.symlink_metadata().ok()?;
        let ours = meta.is_file() && meta.uid() == 0 && meta.mode() & 0o022 == 0;
        if !ours || meta.len() > FILE_MAX {
            return None;
        }
        serde_json::from_str(&std::fs::read_to_string(path).ok()?).ok()
    }

    /// Whole, or not at all.
    pub fn save(&self, path: &Path) -> std::io::Result<()> {
        let text = serde_json::to_string(self).map_err(std::io::Error::other)?;
        let dir = path.parent().unwrap_or(Path::new("/"));
        std::fs::create_dir_all(dir)?;
        let new = path.with_extension("new");
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(new, path)?;
        std::fs::File::open(dir)?.sync_all()
    }

    pub fn settings(&self) -> Result<Settings, ConfigError> {
        load::parse(&self.config, FILE, &self.host)
    }

    /// Of groups in whose files something is wrong, what was last found good.
    pub fn mend(&self, found: Found) -> Found {
        let Found { mut targets, wrong } = found;
        let bad = |target: &Target| wrong.iter().any(|w| w.groups.contains(&target.name));
        targets.retain(|target| !bad(target));
        targets.extend(self.targets.iter().filter(|target| bad(target)).cloned());
        Found { targets, wrong }
    }

    /// The same for gates and guard, which rather have a wrong group than none.
    pub fn cover(&self, found: &Found) -> Vec<Target> {
        let mut targets = self.mend(found.clone()).targets;
        let all = found.targets.iter();
        let left: Vec<Target> =
            all.filter(|t| targets.iter().all(|m| m.name != t.name)).cloned().collect();
        targets.extend(left);
        targets
    }
}
