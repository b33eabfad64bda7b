//! Going away and new settings: what a stop, a restart, a shutdown and a reload do to groups.

use super::group::Group;
use super::heartbeat::{Held, Phase};
use super::name::GroupName;
use super::policy::Policy;
use super::say::{Saying, What};
use super::time::Instant;
use super::{Action, Core, Going, Terminate};

impl Core {
    /// A stop gives everything away and then ends; a shutdown gives everything away and stays; a
    /// restart touches nothing.
    pub(super) fn terminate(&mut self, now: Instant, kind: Terminate) {
        let kind = match (self.going.map(|g| g.kind), kind) {
            // systemd stops the daemon in the end of a shutdown: then it may end.
            (Some(Terminate::Shutdown), Terminate::Restart) => Terminate::Stop,
            (_, kind) => kind,
        };
        self.going = Some(Going { kind, since: now, empty: None });
        self.beat.now = true;
        self.touch_all();
        let names: Vec<GroupName> = self.groups.keys().cloned().collect();
        for name in names {
            self.withdraw(now, &name, "this daemon is going");
        }
        let words = match kind {
            Terminate::Stop => "being stopped: groups are given away",
            Terminate::Restart => "being restarted: groups run on",
            Terminate::Shutdown => "the machine shuts down: groups are given away",
        };
        self.say(Saying::new(What::DaemonStopped, words));
    }

    /// Ends the process once nothing is held and the peers know it (or cannot be told).
    pub(super) fn go_away(&mut self, now: Instant) {
        let Some(going) = self.going else { return };
        let written = self.store.writing.is_none() && self.store.record == self.store.durable;
        let unwritable = self.store.failed.is_some();
        match going.kind {
            Terminate::Shutdown => {}
            Terminate::Restart => {
                if written || unwritable || now.since(going.since) >= self.policy.timing.keepalive {
                    self.leave(now);
                }
            }
            Terminate::Stop => {
                if self.holds(now) || !(written || unwritable) {
                    return;
                }
                let empty = going.empty.unwrap_or(now);
                self.going = Some(Going { empty: Some(empty), ..going });
                let patience = self.policy.timing.keepalive * 2;
                if self.everybody_knows(now) || now.since(empty) >= patience {
                    self.leave(now);
                }
            }
        }
    }

    /// When a maintenance that somebody has not heard of keeps no group here any more.
    pub(super) fn parting_at(&self) -> Option<Instant> {
        let going = self.going.filter(|g| g.kind == Terminate::Stop)?;
        Some(going.since + self.policy.timing.deadtime)
    }

    fn leave(&mut self, now: Instant) {
        self.beat.now = true;
        self.send(now);
        self.out.push(Action::Exit);
    }

    /// Every peer that is heard believes this life, which after a quick restart takes a while, and
    /// has told the epochs that our releases brought.
    fn everybody_knows(&self, now: Instant) -> bool {
        let world = self.world(now);
        world.others().filter(|p| world.heard(*p)).all(|p| {
            let believed = world.peer(p).hears_us();
            believed
                && self.groups.keys().all(|name| {
                    let known = world.peer(p).reports.get(name).map(|r| r.epoch);
                    known.is_some_and(|e| e >= world.top_epoch(name))
                })
        })
    }

    /// New settings. What did not change is not touched; a group that is no longer enabled but
    /// still held stays known, and advertised, until it is stopped.
    pub(super) fn reconfigured(&mut self, now: Instant, policy: Policy) {
        let names: Vec<GroupName> = self.groups.keys().cloned().collect();
        let others = self.policy.lease.is_some() && policy.fingerprint != self.policy.fingerprint;
        for name in names {
            // Who promises what is claimed has then heard by which settings, and of which arbiter.
            if others && self.group_mut(&name).own.is_none() {
                self.withdraw(now, &name, "the settings have changed");
            }
            match policy.groups.get(&name) {
                Some(new) => {
                    let group = self.group_mut(&name);
                    group.policy = new.clone();
                    group.retired = false;
                }
                None if self.group_mut(&name).phase() == Phase::Stopped
                    && self.group_mut(&name).held() == Held::No =>
                {
                    self.withdraw(now, &name, "the group is no longer enabled");
                    self.group_mut(&name).retired = true;
                }
                None => self.group_mut(&name).retired = true,
            }
            self.heat(&name);
        }
        for (name, new) in &policy.groups {
            if !self.groups.contains_key(name) {
                self.groups.insert(name.clone(), Group::new(new.clone()));
                // What the peers have said of it so far.
                for report in self.peers.values().filter_map(|p| p.reports.get(name)) {
                    self.store.record.learn(self.policy.me, report);
                }
            }
            self.out.push(Action::Observe { group: name.clone() });
        }
        let fixed = policy.nodes == self.policy.nodes && policy.links.len() == self.links.len();
        assert!(fixed, "the daemon starts anew for other nodes or links");
        let had = self.policy.lease.clone();
        self.policy = policy;
        self.store.record.go_by(self.policy.me, self.policy.fingerprint);
        self.set_fences();
        self.rearm_leases(now, had);
        self.beat.now = true;
        self.touch_all();
        self.say(Saying::new(What::Reloaded, "the settings were read again"));
    }
}
