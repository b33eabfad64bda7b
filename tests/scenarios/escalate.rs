//! What a scenario's machines do where a stop fails.

use super::{STOP, WIRE, World};
use hafailover::core::Event;
use hafailover::core::name::GroupName;

impl World {
    pub fn kill_users(&mut self, n: usize, group: GroupName, unit: &str, job: u64) {
        let units = self.nodes[n].units.entry(group.clone()).or_default();
        units.stop_fails &= units.users_stay;
        let told = vec![format!("pid 7 (vi) has {unit} open: session-3.scope is killed")];
        self.later(n, STOP, Event::UsersKilled { group, job, told });
    }

    pub fn reset(&mut self, n: usize, group: &GroupName) {
        if self.nodes[n].reset_fails {
            let why = "the reset failed: EPERM".to_string();
            return self.later(n, WIRE, Event::ResetFailed { why });
        }
        self.note(n, &format!("resets itself for {group}"));
        self.power_off(n);
    }
}
