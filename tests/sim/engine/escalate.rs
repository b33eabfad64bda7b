//! What follows a failed stop: users that are killed, and a machine that resets itself; only where
//! it is configured, a stop was begun and failed, and nobody said to leave things alone.

use crate::rng::MS;
use crate::world::{Next, World};
use hafailover::core::Event;
use hafailover::core::name::GroupName;
use hafailover::core::policy::StopFailure;
use hafailover::core::view::{NodeView, Presence};

impl World {
    /// Most of them are gone then.
    pub fn kill_users(&mut self, n: usize, group: GroupName, unit: &str, job: u64) {
        let g = self.group(&group);
        self.check_escalation(n, g, StopFailure::KillUsers);
        if !self.rules.stops[n][g].failed {
            self.broken("HandsOff", n, &format!("g{g}: users are killed, and no stop failed"));
        }
        if !self.rules.stops[n][g].purged.insert(unit.into()) {
            self.broken("HandsOff", n, &format!("g{g}: users of {unit} are killed again"));
        }
        let gone = self.rng.chance(700);
        let at = unit.trim_start_matches('m').trim_end_matches(".service").parse::<usize>();
        if let (true, Ok(k)) = (gone, at) {
            self.nodes[n].units[g].units[k].leftover = false;
        }
        let (life, after) = (self.nodes[n].life, self.rng.ms(1, 60));
        let told = vec![format!("session-3.scope kept {unit} busy: killed {gone}")];
        let event = Event::UsersKilled { group, job, told };
        self.later(after, Next::Tell { node: n, life, event });
    }

    pub fn reset_self(&mut self, n: usize, group: &GroupName) {
        let g = self.group(group);
        let off = self.rng.ms(300, 3000);
        if self.outlives_lease(n, g) {
            self.cover.hit("lease outlived, machine reset");
            self.note(n, &format!("RESETS ITSELF as g{g} outlives its lease"));
            return self.power_off(n, off);
        }
        self.check_escalation(n, g, StopFailure::FenceSelf);
        let ending = self.rules.stops[n][g].clone();
        let budget = self.options.groups[g].policy.stop_budget.as_nanos() as u64;
        let clock = self.nodes[n].paused || self.nodes[n].jumped || self.nodes[n].stalled > 0;
        let late = ending.since.is_some_and(|at| self.t - at >= budget / 20 * 19);
        if !ending.failed && !late && !clock && self.rules.holds[n][g] {
            let words = format!("g{g}: the machine is reset, and its stop has not failed");
            self.broken("HandsOff", n, &words);
        }
        if !self.rules.said_reset[n] && self.hears_somebody(n) {
            self.broken("HandsOff", n, "resets itself, and has told nobody");
        }
        if !self.quiet && self.rng.chance(100) {
            let (life, why) = (self.nodes[n].life, "EPERM".to_string());
            return self.later(MS, Next::Tell { node: n, life, event: Event::ResetFailed { why } });
        }
        self.cover.hit("machine reset itself");
        self.note(n, &format!("RESETS ITSELF for g{g}"));
        self.power_off(n, off);
    }

    fn hears_somebody(&self, n: usize) -> bool {
        let view = self.core(n).map(|core| core.view(self.nodes[n].now(self.t)));
        let alive = |(m, node): (usize, &NodeView)| m != n && node.presence == Presence::Alive;
        view.is_some_and(|view| view.nodes.iter().enumerate().any(alive))
    }

    fn check_escalation(&mut self, n: usize, g: usize, what: StopFailure) {
        if self.options.groups[g].policy.stop_failure != what {
            self.broken("HandsOff", n, &format!("g{g}: {what:?}, and nobody wants it"));
        }
        if self.in_maintenance(n, g) {
            self.broken("HandsOff", n, &format!("g{g}: {what:?} in maintenance"));
        }
        // Its release may be verified, and the daemon not yet told.
        if !"x!".contains(self.rules.phase[n][g]) {
            self.broken("HandsOff", n, &format!("g{g}: {what:?}, and it is not held"));
        }
    }
}
