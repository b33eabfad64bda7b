//! What the daemon is made of, read and checked before anything is touched; and read again at a
//! reload.

use crate::config::settings::{GroupSettings, Settings};
use crate::config::{self, target};
use crate::core::name::GroupName;
use crate::core::policy::Policy;
use crate::io::systemd::Managed;
use crate::io::token;
use crate::wire::keys::Keys;
use std::collections::BTreeMap;
use std::path::Path;

/// The configuration file.
pub const CONFIG: &str = "/etc/hafailover/hafailover.toml";

#[derive(Clone, Debug, PartialEq)]
pub struct Setup {
    pub settings: Settings,
    pub keys: Keys,
    pub groups: BTreeMap<GroupName, GroupSettings>,
}

/// Reads everything. The errors of all parts together, so that one look mends them all.
pub fn read(config: &Path) -> Result<Setup, String> {
    let settings = config::load(config, &hostname()).map_err(|e| e.to_string())?;
    let (groups, mut errors) = target::groups(Path::new("/"), &settings);
    let storage = groups.iter().find(|(_, g)| g.hard.iter().any(|u| u.ends_with(".mount")));
    if let Some((name, _)) = storage.filter(|_| !settings.silence_chosen) {
        errors.push(format!(
            "{}: {name} holds a file system, and nothing but links tells whether the other node \
             is dead: in [safety] write silence = \"hold\" (a person decides after a death) or \
             silence = \"takeover\" (automatic; if all links are cut at once, both nodes mount \
             it). See hafailover(7), \"What is promised\"",
            config.display()
        ));
    }
    let keys = config::keys::load(&settings.keys);
    if let Err(error) = &keys {
        errors.push(error.clone());
    }
    match keys {
        Ok(keys) if errors.is_empty() => Ok(Setup { settings, keys, groups }),
        _ => Err(errors.join("\n")),
    }
}

impl Setup {
    pub fn policy(&self) -> Policy {
        self.settings.policy(self.groups.iter().map(|(n, g)| (n.clone(), g.policy.clone())))
    }

    /// With the groups that the last daemon held though they were no longer enabled: they are held
    /// until they are stopped. And those whose files do not tell how.
    pub fn with_held(&self) -> (Setup, Vec<String>) {
        let (mut all, mut errors) = (self.clone(), Vec::new());
        let held = |n: &GroupName| token::read(n).or(token::read_closed(n)).is_some();
        let unknown = |n: &GroupName| !self.groups.contains_key(n) && held(n);
        for name in token::list().into_iter().filter(unknown) {
            let target = target::read(Path::new("/"), &name);
            match target.and_then(|t| target::settle(&t, &self.settings)) {
                Ok(group) => drop(all.groups.insert(name, group)),
                Err(error) => errors.push(format!("{name} runs here by a token: {error}")),
            }
        }
        (all, errors)
    }

    pub fn managed(&self) -> BTreeMap<GroupName, Managed> {
        let managed = |g: &GroupSettings| Managed { hard: g.hard.clone(), soft: g.soft.clone() };
        self.groups.iter().map(|(name, group)| (name.clone(), managed(group))).collect()
    }
}

pub fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
