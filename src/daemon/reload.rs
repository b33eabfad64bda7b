//! New settings under way: read again, adopted as a whole or refused, and told.

use super::setup::{self, Read, Setup};
use super::{Daemon, Loaded, fences, parts};
use crate::config::accepted;
use crate::config::target::Wrong;
use crate::core::Event;
use crate::core::name::GroupName;
use crate::core::say::{Saying, What};
use crate::io::{ReplySender, clock, token};
use crate::wire::control::Reply;

impl Daemon {
    /// Reads everything again, away from the loop: a slow disk delays no heartbeat.
    pub(super) fn reload(&mut self, reply: Option<ReplySender>) {
        self.parts.notify.reloading();
        self.reloads += 1;
        let (config, load) = (self.config.clone(), self.load.clone());
        let last = self.setup.accepted.clone();
        tokio::task::spawn_blocking(move || {
            let read = setup::again(&config, &last);
            let _ = load.blocking_send(Loaded { read, kept: None, reply });
        });
    }

    /// Another arbiter is on disk before anybody hears of it, and before anything is granted by it:
    /// a daemon that starts anew must not go back to the one before.
    pub(super) fn loaded(&mut self, loaded: Loaded) {
        let Loaded { read, kept, reply } = loaded;
        let same = |new: &Setup| self.setup.settings.same_arbiter(&new.settings);
        match read {
            // Something newer has come in meanwhile.
            Ok(_) if kept.is_some_and(|turn| turn != self.reloads) => self.reload(reply),
            Ok(read) if kept.is_none() && !same(&read.0) && self.is_fit(&read.0).is_ok() => {
                let (accepted, load) = (read.0.accepted.clone(), self.load.clone());
                let kept = Some(self.reloads);
                self.parts.keeper.keep_first(accepted, move |saved| {
                    let read = saved.map(|()| read).map_err(|e| {
                        format!(
                            "{}: {e}: nothing was changed: make room, or mend its disk, and \
                             reload again",
                            accepted::FILE
                        )
                    });
                    let _ = load.blocking_send(Loaded { read, kept, reply });
                });
            }
            read => self.reloaded(read, reply),
        }
    }

    /// What is wrong keeps the old settings; what needs a new start says so; what did not change
    /// is not touched.
    fn reloaded(&mut self, read: Result<Read, String>, reply: Option<ReplySender>) {
        let (result, wrong) = match read {
            Ok((new, wrong)) => (self.adopt(new), wrong),
            Err(words) => (Err(words), Vec::new()),
        };
        let wrong = match &result {
            Ok(_) => wrong,
            Err(words) => vec![Wrong::of_all(words.clone())],
        };
        self.parts.notify.ready();
        let answer = match result {
            Ok(words) if wrong.is_empty() => crate::core::Reply::Done(words),
            Ok(_) => crate::core::Reply::Refused(format!(
                "{}\nwhat is wrong keeps its last settings; the rest was read again",
                setup::words(&wrong)
            )),
            Err(words) => crate::core::Reply::Refused(words),
        };
        self.tell_wrong(wrong);
        if let Some(reply) = reply {
            let _ = reply.try_send(Reply::Answer(answer));
        }
    }

    /// Says what is wrong in the files now and was not before, and keeps what is in force.
    pub(super) fn tell_wrong(&mut self, wrong: Vec<Wrong>) {
        for news in wrong.iter().filter(|w| !self.wrong.contains(w)) {
            let mut saying = Saying::new(What::SettingsWrong, news.line());
            saying.group = news.groups.last().cloned();
            self.parts.say(&saying);
        }
        if wrong.is_empty() && !self.wrong.is_empty() {
            self.parts.say(&Saying::new(What::SettingsRight, "no file is wrong any more"));
        }
        self.wrong = wrong;
        self.parts.keeper.keep(self.setup.accepted.clone());
    }

    /// Something is held here that another node might be granted. Also what is not looked at yet.
    fn holds_for_others(&self, new: &Setup) -> bool {
        let me = self.setup.settings.me;
        let alone = |name: &GroupName| {
            let by = |setup: &Setup| {
                setup.groups.get(name).is_some_and(|g| g.policy.nodes.iter().all(|n| *n == me))
            };
            by(&self.setup) && by(new)
        };
        let held = token::list().into_iter().filter(token::held);
        held.chain(self.core.owned().cloned()).any(|name| !alone(&name))
    }

    /// `Err`: not to be adopted as things are.
    fn is_fit(&self, new: &Setup) -> Result<(), String> {
        let (old, now) = (&self.setup.settings, &new.settings);
        let other = !old.same_arbiter(now) && self.holds_for_others(new);
        if (&old.cluster, &old.nodes, &old.state, old.links.len())
            != (&now.cluster, &now.nodes, &now.state, now.links.len())
        {
            let what =
                "the cluster's name, its nodes, the number of links or the state file changed";
            return Err(match other {
                true => format!(
                    "{what}, and so did [arbiter], while groups run here: change one after the \
                     other, [arbiter] by a reload, and what is left by a restart"
                ),
                false => {
                    format!("{what}: systemctl restart hafailover (groups run on meanwhile)")
                }
            });
        }
        if other {
            self.all_others_have(new)?;
        }
        Ok(())
    }

    /// Who goes by the arbiter of before may be granted by it what runs here: this node changes
    /// last.
    fn all_others_have(&self, new: &Setup) -> Result<(), String> {
        let Some((node, heard)) = self.core.behind(clock::now(), new.policy().fingerprint) else {
            return Ok(());
        };
        let (why, what) = match heard {
            true => (
                "still has the file of before, or has not written down yet that it has another",
                "Copy the file there and reload there first, and here last; what runs there is \
                 moved here, or stopped, before: hafailover standby, and online afterwards. \
                 hafailover status there tells of a disk that cannot be written",
            ),
            false => (
                "is not heard or does not hear this node",
                "Mend the links to it first, or stop the groups here",
            ),
        };
        Err(format!(
            "[arbiter] is another one, and {node} {why}, while groups run here: the arbiter of \
             before could give them to it. {what}"
        ))
    }

    fn adopt(&mut self, new: Setup) -> Result<String, String> {
        self.is_fit(&new)?;
        let (old, now) = (&self.setup.settings, &new.settings);
        if new.same(&self.setup) {
            self.setup = new;
            return Ok("nothing has changed".into());
        }
        let relink = old.links != now.links;
        let rekeyed = self.setup.keys != new.keys;
        let arbiter = old.arbiter != now.arbiter || now.arbiter.is_some() && rekeyed;
        if old.watchdog() != now.watchdog() {
            let set = self.parts.watchdog.set(now.watchdog(), &self.parts.inbox);
            set.map_err(|e| format!("the watchdog: {e}: nothing was changed"))?;
        }
        self.parts.codec.rekey(new.keys.clone());
        self.parts.systemd.manage(new.managed());
        self.parts.fences = fences::Fences::of(&new);
        self.setup = new;
        if relink {
            self.parts.links = Vec::new();
            self.parts.links = parts::open_links(&self.setup, &self.parts.inbox);
        }
        if arbiter {
            let opened = parts::open_arbiter(&self.setup, &self.parts.inbox);
            self.parts.arbiter = opened.unwrap_or_else(|error| {
                self.parts.log.error(format!("the arbiter: {error}"));
                None
            });
        }
        self.happen(Event::Reconfigured { policy: Box::new(self.setup.policy()) });
        self.happen(parts::cables(&self.setup));
        Ok("the configuration was read again".into())
    }
}
