//! The fences of the small world: agents that do what the script says of them.

use super::{WIRE, World};
use hafailover::core::name::NodeId;
use hafailover::core::time::{Duration, Instant};
use hafailover::core::{Event, FenceState};

const FENCE: Duration = Duration::from_millis(1500);
const HANG: Duration = Duration::from_secs(20);

/// What the fence of a node does when it is told to switch it off.
#[derive(Clone, Copy, Default, PartialEq)]
pub enum Agent {
    #[default]
    Honest,
    Fails,
    Hangs,
    Lies,
    /// It asks another machine, which is off.
    Elsewhere,
}

impl World {
    pub fn set_agent(&mut self, n: &str, what: &str) {
        let agent = match what {
            "honest" => Agent::Honest,
            "fails" => Agent::Fails,
            "hangs" => Agent::Hangs,
            "lies" => Agent::Lies,
            "elsewhere" => Agent::Elsewhere,
            other => panic!("no agent {other}"),
        };
        self.agents.insert(self.node(n), agent);
    }

    fn agent(&self, n: usize) -> Agent {
        self.agents.get(&n).copied().unwrap_or_default()
    }

    pub(super) fn fence(&mut self, n: usize, node: NodeId, id: u64, valid_until: Instant) {
        assert!(valid_until > self.now, "a fence that is late when it is ordered");
        let hangs = self.agent(usize::from(node.0)) == Agent::Hangs;
        let event = Event::Fenced { node, id, result: Ok(()) };
        self.later(n, if hangs { HANG } else { FENCE }, event);
    }

    pub(super) fn try_fence(&mut self, n: usize, node: NodeId, id: u64) {
        let result = match self.agent(usize::from(node.0)) {
            Agent::Honest | Agent::Lies => Ok(FenceState::On),
            Agent::Elsewhere => Ok(FenceState::Off),
            Agent::Fails | Agent::Hangs => Err("connection refused".into()),
        };
        self.later(n, WIRE, Event::FenceTried { node, id, result });
    }

    pub(super) fn switch_off(&mut self, n: usize) -> Result<(), String> {
        match self.agent(n) {
            Agent::Honest => {
                self.note(n, "!! is switched off");
                self.power_off(n);
                Ok(())
            }
            Agent::Lies | Agent::Elsewhere => Ok(()),
            Agent::Fails => Err("connection refused".into()),
            Agent::Hangs => Err("not done in 20 s".into()),
        }
    }

    /// What it has not done by now it does not do.
    pub(super) fn end_fence(&mut self, n: usize, of: NodeId) {
        for (_, _, event) in self.queue.values_mut().filter(|(by, ..)| *by == n) {
            if let Event::Fenced { node, result, .. } = event
                && *node == of
            {
                *result = Err("it was ended".into());
            }
        }
    }
}
