//! People: requests through the control socket, and systemctl by hand.

use crate::rng::MS;
use crate::world::{Next, World};
use hafailover::core::name::NodeId;
use hafailover::core::{Command, Event, Hand, MemberState};

impl World {
    /// Somebody asks some node for something; machines that were to go down do so too.
    pub fn operator(&mut self) {
        if self.quiet {
            return;
        }
        let after = self.rng.range(self.options.asks / 4, self.options.asks * 2);
        self.later(after, Next::Ask);
        let n = self.rng.below(self.nodes.len());
        let g = self.rng.below(self.options.groups.len());
        let group = self.options.groups[g].name.clone();
        let node = NodeId(self.rng.below(self.nodes.len()) as u8);
        let on = self.rng.chance(400);
        if self.options.fences.is_some() && self.rng.chance(120) {
            let node = NodeId(self.rng.below(self.nodes.len()) as u8);
            let command = match self.rng.below(4) {
                0 => Command::Fence { node },
                1 => Command::FenceCheck { node },
                _ => Command::ClearFence { node },
            };
            return self.ask(n, command);
        }
        let to = if self.rng.chance(500) { Some(node) } else { None };
        let command = match self.rng.below(12) {
            0..=2 => Command::Move { group, to },
            3 => Command::Standby { node, on },
            4 => Command::Standby { node, on: false },
            5 => Command::Maintenance { group: None, on },
            6 => Command::Maintenance { group: Some(group), on },
            7 => Command::Retry { group },
            8 => Command::Clear { group },
            9 => Command::Adopt { group },
            10 => Command::ConfirmDown { node },
            _ => return self.by_hand(n, g),
        };
        self.ask(n, command);
    }

    pub fn ask(&mut self, n: usize, command: Command) {
        let life = self.nodes[n].life;
        let Some(daemon) = &mut self.nodes[n].daemon else { return };
        daemon.requests += 1;
        let request = daemon.requests;
        self.rules.asked.insert((n, request), self.t);
        if let Command::ClearFence { node } = &command {
            self.rules.tries[n][usize::from(node.0)] = (None, 0);
        }
        self.rules.commanded.push((n, self.t, command.clone()));
        self.note(n, &format!("OPERATOR {command:?}"));
        let event = Event::Asked { request, by: "root".into(), command };
        self.later(0, Next::Tell { node: n, life, event });
    }

    fn by_hand(&mut self, n: usize, g: usize) {
        if self.nodes[n].daemon.is_none() {
            return;
        }
        let (group, life) = (self.options.groups[g].name.clone(), self.nodes[n].life);
        let (unit, verb) = match self.rng.below(3) {
            0 => (group.unit(), Hand::StopTarget),
            1 => (group.unit(), Hand::Refused),
            _ => {
                let unit = &mut self.nodes[n].units[g].units[0];
                if unit.state != MemberState::Active {
                    return;
                }
                unit.job += 1;
                (unit.state, unit.by_hand) = (MemberState::Inactive, true);
                self.dirty(n, g);
                ("m0.service".to_string(), Hand::StopMember)
            }
        };
        self.note(n, &format!("BY HAND {verb:?} {group}"));
        let event = Event::ByHand { group, unit, verb };
        self.later(MS / 10, Next::Tell { node: n, life, event });
    }
}
