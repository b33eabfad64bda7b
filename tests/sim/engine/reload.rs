//! The files of one node change while its daemon runs, and are put back: a group is disabled,
//! known differently, listed in another order; the heartbeat comes faster.

use crate::world::{Next, World};
use hafailover::core::heartbeat::{GroupReport, Held, Phase};
use hafailover::core::name::GroupName;
use hafailover::core::policy::{Failback, Policy};
use hafailover::core::{Action, Event, Member, MemberState};

impl World {
    /// Somebody edits the files of a node and says `systemctl reload`, now and then.
    pub fn edit(&mut self) {
        if self.quiet {
            return;
        }
        let after = self.rng.range(self.options.gap / 2, self.options.gap * 2);
        self.later(after, Next::Edit);
        let n = self.rng.below(self.nodes.len());
        self.edit_of(n);
    }

    pub fn edit_of(&mut self, n: usize) {
        let mut policy = self.options.policy(n);
        let g = self.rng.below(self.options.groups.len());
        let name = self.options.groups[g].name.clone();
        let group = policy.groups.get_mut(&name).expect("a known group");
        let words = match self.rng.below(5) {
            0 => "as they were",
            1 => {
                policy.groups.remove(&name);
                "a group is disabled"
            }
            2 => {
                group.fingerprint = 8;
                group.failback = match group.failback {
                    Failback::No => Failback::Yes,
                    Failback::Yes | Failback::After(_) => Failback::No,
                };
                "a group has other settings"
            }
            3 => {
                group.fingerprint = 9;
                group.nodes.reverse();
                "a group prefers another node"
            }
            _ => {
                policy.timing.keepalive = policy.timing.keepalive * 3 / 4;
                policy.timing.warntime = policy.timing.warntime * 3 / 4;
                policy.fingerprint = 2;
                "heartbeats come faster"
            }
        };
        self.note(n, &format!("FILES {words} ({name})"));
        self.cover.hit(words);
        self.nodes[n].files = Some(policy);
        self.later(0, Next::Reload { node: n, life: self.nodes[n].life });
    }

    /// For a group that did not change no job is issued.
    pub fn reload(&mut self, n: usize) {
        if self.nodes[n].daemon.is_none() {
            return;
        }
        self.happen_to(n, Event::Wake);
        let new = self.nodes[n].files.clone().unwrap_or_else(|| self.options.policy(n));
        let due = self.due(n, &new);
        let Some(daemon) = &mut self.nodes[n].daemon else { return };
        let old = std::mem::replace(&mut daemon.files, new.clone());
        daemon.learn();
        let same = |g: &usize| {
            let name = &self.options.groups[*g].name;
            old.groups.get(name) == new.groups.get(name) && !due.contains(name)
        };
        self.rules.unchanged = (0..self.options.groups.len()).filter(same).collect();
        self.cover.hit("files read again");
        self.happen_to(n, Event::Reconfigured { policy: Box::new(new) });
        self.rules.unchanged.clear();
        self.arm(n);
    }

    /// What time alone brings by the next heartbeat may as well come now, and so may what comes of
    /// the times being others: a peer that is not late any more, a majority missed for long enough.
    fn due(&self, n: usize, new: &Policy) -> Vec<GroupName> {
        let Some(core) = self.core(n) else { return Vec::new() };
        let mut waits = core.clone();
        let mut actions = Vec::new();
        let now = self.nodes[n].now(self.t);
        while waits.next_wake() <= now + self.options.timing.keepalive * 2 {
            actions.extend(waits.handle(waits.next_wake(), Event::Wake));
        }
        let old = &self.nodes[n].daemon.as_ref().expect("it has a core").files;
        if old.timing != new.timing {
            let times = Policy { timing: new.timing.clone(), ..old.clone() };
            let read = Event::Reconfigured { policy: Box::new(times) };
            let stops = core.clone().handle(now, read).into_iter();
            actions.extend(stops.filter(|action| matches!(action, Action::Stop { .. })));
        }
        let job = |action| match action {
            Action::Start { group, .. } | Action::Stop { group, .. } => Some(group),
            _ => None,
        };
        actions.into_iter().filter_map(job).collect()
    }

    pub fn check_reload(&mut self, n: usize, g: usize) {
        if self.rules.unchanged.contains(&g) {
            self.broken("HandsOff", n, &format!("g{g}: a job, and nothing of it was changed"));
        }
    }

    /// A new daemon looks for the first time at what runs whole by its token, and nobody wants it
    /// elsewhere: the group it must then leave alone.
    pub fn adopts(&self, n: usize, event: &Event) -> Option<usize> {
        let Event::Observed { group, seen } = event else { return None };
        let (g, core) = (self.group(group), self.core(n)?);
        if self.rules.phase[n][g] != 'U' {
            return None;
        }
        let up = |m: &Member| m.state == MemberState::Active || !m.hard;
        let whole = seen.token.is_some() && !seen.blind && seen.members.iter().all(up);
        let view = core.view(self.nodes[n].now(self.t));
        let shown = view.groups.iter().find(|v| v.name == *group)?;
        let record = self.nodes[n].disk.read().unwrap_or_default();
        let wish = record.groups.get(group).map(|r| r.wish.value).unwrap_or_default();
        let wanted = wish.move_to.is_none()
            && !shown.down_by_operator
            && !view.nodes[n].standby
            && !view.nodes[n].mood.leaving
            && self.options.groups[g].policy.failback == Failback::No
            && seen.no_carrier.is_none();
        let claimed = |c: &crate::rules::Contact| {
            // What people wish may be known from there alone.
            let wish = |r: &GroupReport| r.wish.value.move_to.is_some() || r.wish.value.down;
            let theirs = |r: &GroupReport| r.claim.is_some() || r.held != Held::No || wish(r);
            c.report(group).is_some_and(theirs)
        };
        let alone = !self.rules.contact[n].iter().any(claimed);
        (shown.phase == Phase::Unknown && whole && wanted && alone).then_some(g)
    }

    pub fn check_adopted(&mut self, n: usize, g: usize, actions: &[Action]) {
        let name = &self.options.groups[g].name;
        let unheard = self.t.saturating_sub(self.majority_reached(n));
        let outvoted = self.options.outvotes() && unheard > self.options.deadtime() * 49 / 50;
        let job = |a: &Action| match a {
            Action::Start { group, .. } => group == name,
            Action::Stop { group, .. } => group == name && !outvoted,
            _ => false,
        };
        if actions.iter().any(job) && !self.is_lease_over(n, g) {
            let words = format!("g{g}: a job, and nothing happened but a restart of the daemon");
            self.broken("HandsOff", n, &words);
        }
    }

    /// What a node knows of a group; one that is disabled stays known as it was.
    pub fn knows(&self, n: usize, g: usize) -> Option<u32> {
        self.nodes[n].daemon.as_ref()?.knows.get(&self.options.groups[g].name).copied()
    }
}
