//! Fences of the model: honest ones, that switch a machine off after a while and say so. It comes
//! back by itself.

use crate::canon::mix;
use crate::situations::{Situation, reach};
use crate::step::Step;
use crate::watch::{Broken, pair};
use crate::world::{MS, What, session};
use hafailover::core::Event;
use hafailover::core::name::NodeId;
use std::sync::Arc;

const FENCE: u64 = 60 * MS;
const BACK: u64 = 700 * MS;

impl Step<'_> {
    pub fn order_fence(&mut self, n: usize, of: usize, id: u64) {
        self.note(n, || format!("fences n{}", of + 1));
        self.watch_fence(n, of);
        Arc::make_mut(&mut self.state.nodes[n]).jobs = id;
        let node = &self.state.nodes[n];
        let what = What::Fence { boot: node.boot, life: node.life, of, id };
        self.state.push(self.state.now + FENCE, n, what, mix(51, of as u64));
    }

    /// It is killed before it has done anything.
    pub fn end_fence(&mut self, n: usize, node: NodeId) {
        let of = usize::from(node.0);
        let is = |what: &What| matches!(what, What::Fence { of: o, .. } if *o == of);
        let Some(at) = self.state.queue.iter().position(|i| i.node == n && is(&i.what)) else {
            return;
        };
        let What::Fence { id, .. } = self.state.queue.remove(at).what else { return };
        let event = Event::Fenced { node, id, result: Err("it was ended".into()) };
        let (now, life) = (self.state.now, self.state.nodes[n].life);
        self.state.push(now, n, What::Tell { life, event: Arc::new(event) }, mix(52, of as u64));
    }

    /// Also when the daemon that sent it is gone, and nobody is told.
    pub fn fence_acts(&mut self, n: usize, of: usize, id: u64, told: bool) {
        reach(Situation::Fenced);
        self.note(of, || "it is switched off".into());
        self.power_off(of);
        let (now, life) = (self.state.now, self.state.nodes[of].life);
        self.state.push(now + BACK, of, What::Boot { life }, 34);
        let node = NodeId(of as u8);
        if told {
            self.tell(n, Event::Fenced { node, id, result: Ok(()) });
        }
    }

    /// Nobody is fenced who can be heard, and nobody in maintenance.
    fn watch_fence(&mut self, n: usize, of: usize) {
        self.watch_job(n, "a fence");
        let links = self.cluster.policies[0].links.len();
        let (state, ghost) = (&self.state, &self.state.ghost);
        let lives = state.nodes[of].core.is_some() && !state.nodes[of].frozen;
        let apart = ghost.parted & pair(n, of) != 0;
        let absent = ghost.absent & (1 << of | 1 << n) != 0;
        // A daemon that has only just begun has not been heard yet.
        let core = state.nodes[n].core.as_ref();
        let heard = core.and_then(|core| core.session_of(NodeId(of as u8)));
        let known = heard == Some(session(of, state.nodes[of].life));
        if lives && known && !apart && !absent && state.joined(n, of, links) {
            let words = format!("n{} fences n{}, which it could hear", n + 1, of + 1);
            self.broken.push(Broken::new("NoStaleAct", words));
        }
    }
}
