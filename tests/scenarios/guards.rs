//! The guards of a scenario's lost daemons.

use super::{Units, World};
use hafailover::core::name::{BootId, GroupName, Session};
use hafailover::core::{Guard, Lost};

impl World {
    /// systemd has given the daemon up, and its guard begins.
    pub fn lose_daemon(&mut self, n: usize) {
        self.kill_daemon(n);
        let node = &mut self.nodes[n];
        let held = |u: &Units| u.token.or(u.closed).is_some();
        let held = node.units.iter().filter(|(_, u)| held(u)).map(|(g, _)| g.clone()).collect();
        for units in node.units.values_mut() {
            units.closed = units.token.take().or(units.closed);
        }
        let policy = self.policies[n].clone();
        let ends = self.now + policy.safety.guard_bound;
        let (session, boot) = (Session(100 * (n as u64 + 1) + node.life), BootId(node.boots));
        let groups = policy.groups.keys().cloned().collect();
        let lost = Lost { session, boot, ends, groups, held };
        node.guard = Some(Guard::new(self.now, lost, policy));
        self.guard_speaks(n);
    }

    pub fn guard_stops(&mut self, n: usize, group: &GroupName) {
        let units = self.nodes[n].units.entry(group.clone()).or_default();
        (units.running, units.dead, units.closed) = (false, false, None);
        let now = self.now;
        self.nodes[n].guard.as_mut().expect("at work").stopped(now, group);
        self.guard_speaks(n);
        self.check_owners();
    }

    pub fn guard_ends(&mut self, n: usize) {
        self.nodes[n].guard = None;
    }

    pub fn guard_speaks(&mut self, n: usize) {
        let now = self.now;
        let Some(guard) = self.nodes[n].guard.as_mut() else { return };
        for beat in guard.speak(now) {
            self.send(n, beat.link, &beat);
        }
    }
}
