//! What the daemon is made of, read and checked before anything is touched; and read again at a
//! reload. What is wrong keeps its last accepted settings, where groups depend on them.

use crate::config::accepted::{self, Accepted};
use crate::config::settings::{GroupSettings, Settings};
use crate::config::target::{self, Wrong};
use crate::config::{self, load};
use crate::core::name::{GroupName, Session};
use crate::core::policy::Policy;
use crate::io::notify;
use crate::io::systemd::Managed;
use crate::io::token;
use crate::wire::keys::Keys;
use std::collections::BTreeMap;
use std::path::Path;

/// The configuration file.
pub const CONFIG: &str = "/etc/hafailover/hafailover.toml";

#[derive(Clone, Debug)]
pub struct Setup {
    pub settings: Settings,
    pub keys: Keys,
    pub groups: BTreeMap<GroupName, GroupSettings>,
    /// What all this was made of.
    pub accepted: Accepted,
}

/// A setup, and what is wrong in the files, in whose place it has what was last accepted.
pub type Read = (Setup, Vec<Wrong>);

/// At a start. A daemon that holds groups would be lost if it ended: it goes by what was last
/// accepted.
pub fn read(config: &Path) -> Result<Read, String> {
    match holds().then(|| Accepted::load(Path::new(accepted::FILE))).flatten() {
        Some(last) => held_before(config, &last),
        None => first(config),
    }
}

/// Before anything is asked of another arbiter than the one that was accepted last: the next daemon
/// must not go back to that. At a start no file, or no arbiter in it, leaves nothing to go back to.
pub fn keep_arbiter(setup: &Setup) -> Result<(), String> {
    let file = Path::new(accepted::FILE);
    let before = Accepted::load(file).and_then(|last| last.settings().ok());
    match before.is_some_and(|before| !before.same_arbiter(&setup.settings)) {
        true => setup.accepted.save(file).map_err(|e| {
            format!(
                "{}: {e}: [arbiter] is another one, which must be kept there before it is asked: \
                 make room, or mend its disk, and systemctl start hafailover",
                file.display()
            )
        }),
        false => Ok(()),
    }
}

fn holds() -> bool {
    token::list().iter().any(token::held)
}

/// All errors together, so that one look mends them all.
fn first(config: &Path) -> Result<Read, String> {
    let source = Source::read(config)?;
    match config::keys::load(&source.settings.keys) {
        Ok(keys) => match source.whole(keys, &Accepted::default(), Vec::new()) {
            (setup, wrong) if wrong.is_empty() => Ok((setup, wrong)),
            (_, wrong) => Err(words(&wrong)),
        },
        Err(error) => {
            let mut found = target::find(Path::new("/"));
            found.judge(&source.settings);
            found.wrong.push(Wrong::of_all(error));
            Err(words(&found.wrong))
        }
    }
}

/// Without a key it may use it cannot speak, and would be taken for dead: then it is lost.
fn held_before(config: &Path, last: &Accepted) -> Result<Read, String> {
    let new = Source::read(config).and_then(|source| source.placed(config, last));
    let new = new.and_then(|source| source.granted_before(config, last));
    let (source, mut wrong) = match new.and_then(Source::chosen) {
        Ok(source) => (source, Vec::new()),
        Err(error) => (Source::of(last)?, vec![Wrong::of_all(error)]),
    };
    let (keys, loose) = config::keys::load_held(&source.settings.keys)?;
    wrong.extend(loose.map(Wrong::of_all));
    Ok(source.whole(keys, last, wrong))
}

/// At a reload. Settings or keys that are wrong change nothing at all; a group that is wrong stays
/// as it was.
pub fn again(config: &Path, last: &Accepted) -> Result<Read, String> {
    let source = Source::read(config)?.placed(config, last)?.chosen()?;
    let keys = config::keys::load(&source.settings.keys)?;
    Ok(source.whole(keys, last, Vec::new()))
}

pub fn words(wrong: &[Wrong]) -> String {
    wrong.iter().map(|w| w.words.as_str()).collect::<Vec<_>>().join("\n")
}

/// The settings, and the text and host name they were read for.
struct Source {
    settings: Settings,
    host: String,
    text: String,
}

impl Source {
    fn read(config: &Path) -> Result<Source, String> {
        let (text, host) = (load::text(config).map_err(|e| e.to_string())?, hostname());
        let settings = load::parse(&text, &config.display().to_string(), &host);
        let settings = settings.map_err(|e| e.to_string())?;
        let hangs = |time| settings.arbiter.as_ref().and_then(|arbiter| arbiter.hangs(time));
        match notify::ended_after().and_then(hangs) {
            Some(words) => Err(words),
            None => Ok(Source { settings, host, text }),
        }
    }

    /// What a group is held by, here and at an arbiter, goes by the places of the nodes.
    fn placed(self, config: &Path, last: &Accepted) -> Result<Source, String> {
        let before = last.settings().ok().filter(|_| holds());
        let name = config.display().to_string();
        if before.as_ref().is_some_and(|before| before.cluster != self.settings.cluster) {
            return Err(format!(
                "{name}: the cluster has another name, by which neither its state nor its leases \
                 are known, and this node holds groups: stop hafailover on every node before"
            ));
        }
        match before.and_then(|before| load::displaced(&self.text, &name, &before)) {
            Some(error) => Err(error.to_string()),
            None => Ok(self),
        }
    }

    /// A daemon that has heard nobody yet does not know who would still ask the arbiter by which
    /// groups are held here.
    fn granted_before(self, config: &Path, last: &Accepted) -> Result<Source, String> {
        let other = last.settings().is_ok_and(|before| !before.same_arbiter(&self.settings));
        if other {
            return Err(format!(
                "{}: [arbiter] is another one, and this node holds groups: once every other node \
                 has it, systemctl reload hafailover takes it, and a restart does not; or stop \
                 the groups here first",
                config.display()
            ));
        }
        Ok(self)
    }

    /// A lost choice must not become the default under a group that runs, and a lease too short for
    /// one must not end it.
    fn chosen(self) -> Result<Source, String> {
        let targets = target::find(Path::new("/")).targets;
        let not = |t: &target::Target| {
            target::unchosen(t, &self.settings).or_else(|| target::outlasts(t, &self.settings))
        };
        match targets.iter().find_map(not) {
            Some(words) => Err(words),
            None => Ok(self),
        }
    }

    fn of(last: &Accepted) -> Result<Source, String> {
        let settings = last.settings().map_err(|e| e.to_string())?;
        Ok(Source { settings, host: last.host.clone(), text: last.config.clone() })
    }

    /// The groups as their files have them, and `last` in place of what is wrong.
    fn whole(self, keys: Keys, last: &Accepted, mut wrong: Vec<Wrong>) -> Read {
        let (root, settings) = (Path::new("/"), self.settings);
        let mut found = target::find(root);
        found.judge(&settings);
        let found = last.mend(found);
        wrong.extend(found.wrong);
        let (mut groups, mut targets) = (BTreeMap::new(), Vec::new());
        for target in found.targets {
            match target::settle(&target, &settings) {
                Ok(group) => {
                    groups.insert(target.name.clone(), group);
                    targets.push(target);
                }
                Err(error) => wrong.push(Wrong::of(&target.name, error)),
            }
        }
        let accepted = Accepted { host: self.host, config: self.text, targets };
        (Setup { settings, keys, groups, accepted }, wrong)
    }
}

impl Setup {
    /// Whether the daemon would run by the same.
    pub fn same(&self, other: &Setup) -> bool {
        (&self.settings, &self.keys, &self.groups) == (&other.settings, &other.keys, &other.groups)
    }

    pub fn policy(&self) -> Policy {
        self.settings.policy(self.groups.iter().map(|(n, g)| (n.clone(), g.policy.clone())))
    }

    /// With the groups that the last daemon held though they were no longer enabled: they are held
    /// until they are stopped, also those whose files are gone: then by what the last daemon noted.
    /// And what is wrong with them.
    pub fn with_held(&self) -> (Setup, Vec<String>) {
        let (mut all, mut errors) = (self.clone(), Vec::new());
        let unknown = |n: &GroupName| !self.groups.contains_key(n) && token::held(n);
        for name in token::list().into_iter().filter(unknown) {
            let target = target::read(Path::new("/"), &name);
            let group = target.and_then(|t| target::settle(&t, &self.settings)).or_else(|error| {
                errors.push(format!("{name} runs here by a token: {error}"));
                target::settle_noted(&noted(&name).ok_or(error)?, &self.settings)
            });
            if let Ok(group) = group {
                all.groups.insert(name, group);
            }
        }
        (all, errors)
    }

    pub fn managed(&self) -> BTreeMap<GroupName, Managed> {
        let managed = |g: &GroupSettings| Managed { hard: g.hard.clone(), soft: g.soft.clone() };
        self.groups.iter().map(|(name, group)| (name.clone(), managed(group))).collect()
    }
}

/// A session that no daemon ever had.
pub fn session() -> std::io::Result<Session> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|e| std::io::Error::other(e.to_string()))?;
    Ok(Session(u64::from_be_bytes(bytes).max(1)))
}

/// A group that is held, by the members that were noted of it.
pub fn noted(name: &GroupName) -> Option<target::Target> {
    let (hard, soft) = token::members(name)?;
    Some(target::Target {
        name: name.clone(),
        fragment: name.unit().into(),
        hard,
        soft,
        settings: Vec::new(),
        identity: 0,
        texts: 0,
    })
}

pub fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
