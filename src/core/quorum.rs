//! Whether this node is among a majority of the cluster, and what follows where it is not
//! (hafailover-protocol(7), "Quorum"). Of three nodes and more: of two, neither is a majority
//! without the other. With an arbiter nobody counts: it decides who goes on.

use super::name::{GroupName, NodeId};
use super::policy::{QuorumLost, Timing};
use super::say::{Saying, What};
use super::time::Instant;
use super::world::World;
use super::{Core, evidence::Evidence, fence};
use serde::{Deserialize, Serialize};

/// How the votes stand, seen from one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quorum {
    /// This node, and every one that it hears and that hears it.
    pub votes: usize,
    /// The configured nodes but those that a person here called down, or a fence switched off.
    pub of: usize,
    /// So many are.
    pub down: usize,
}

impl Quorum {
    pub fn is_majority(self) -> bool {
        self.votes * 2 > self.of
    }

    /// What a fence makes sure of needs no majority but of those that may do the same: where others
    /// are surely down, half of the rest is enough, and their turns decide, as between two nodes.
    pub fn may_fence(self) -> bool {
        self.is_majority() || (self.down > 0 && self.votes * 2 == self.of)
    }

    pub fn words(self) -> String {
        let down = match self.down {
            0 => String::new(),
            down => format!(" ({down} more surely down)"),
        };
        match self.is_majority() {
            true => format!("{} of {} nodes{down} hear each other here", self.votes, self.of),
            false => format!(
                "only {} of {} nodes{down} hear each other here, which is no majority",
                self.votes, self.of
            ),
        }
    }
}

/// Since when this node has been without a majority, and whether that was told and acted on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Minority {
    since: Option<Instant>,
    pub sure: bool,
}

impl World<'_> {
    /// `None`: nobody counts.
    pub fn quorum(&self) -> Option<Quorum> {
        let all = self.policy.nodes.len();
        let counts = all > 2 && self.policy.lease.is_none();
        let off = |p: &NodeId| self.peer(*p).confirmed_down.is_some() || fence::is_off(self, *p);
        let down = self.others().filter(off).count();
        let votes = 1 + self.others().filter(|p| self.votes(*p)).count();
        counts.then_some(Quorum { votes, of: all - down, down })
    }

    /// Heard, and it has heard what we said within the last deadtime: counted from when we said
    /// it, so that it cannot have missed us for longer than we know.
    fn votes(&self, id: NodeId) -> bool {
        let peer = self.peer(id);
        self.heard(id) && peer.hears_us() && peer.is_fresh(self.now, &self.policy.timing)
    }

    /// What is wrong with running anything here; `None`: nothing, or it is to go on all the same.
    pub fn outvoted(&self) -> Option<String> {
        let stops = self.policy.safety.quorum_lost == QuorumLost::Stop;
        let quorum = self.quorum().filter(|q| stops && !q.is_majority())?;
        Some(format!("{} (quorum-lost = \"stop\")", quorum.words()))
    }

    /// Whether a node in a minority may still run it: not if its last owner has released it for us.
    pub fn may_linger(&self, name: &GroupName, proof: &[(NodeId, Evidence)]) -> bool {
        let stops = self.policy.safety.quorum_lost == QuorumLost::Stop;
        let silence = proof.iter().any(|(_, e)| e.by_silence());
        let top = self.top_epoch(name);
        let own = self.record.groups.get(name).and_then(|r| r.released);
        let theirs = self.peers.values().filter_map(|p| p.reports.get(name)?.released);
        let given = top.node == self.me && theirs.chain(own).any(|r| r.gives(top));
        stops && self.quorum().is_some() && silence && !given
    }
}

impl Core {
    /// A majority that is missed for two keepalives, in which what waits in the sockets is read,
    /// is lost. A new daemon must have the time to hear its peers, who believe it one and a half
    /// keepalives after they last heard the one before.
    pub(super) fn judge_quorum(&mut self, now: Instant) {
        let Some(quorum) = self.world(now).quorum() else {
            self.minority = Minority::default();
            return;
        };
        let Timing { keepalive, deadtime, .. } = self.policy.timing;
        let young = now.since(self.started) < deadtime.min(keepalive * 3);
        if quorum.is_majority() || young {
            let was = std::mem::take(&mut self.minority);
            if was.sure {
                self.say(Saying::new(What::QuorumRegained, quorum.words()));
                self.touch_all();
            }
            return;
        }
        let since = *self.minority.since.get_or_insert(now);
        let over = now.since(since) >= self.policy.timing.keepalive * 2;
        if self.minority.sure || !over || (self.starting && !self.owns()) {
            return;
        }
        self.minority.sure = true;
        let words = format!("{}: {}", quorum.words(), self.minority_words());
        self.say(Saying::new(What::QuorumLost, words));
        self.touch_all();
    }

    pub(super) fn minority_words(&self) -> &'static str {
        match self.policy.safety.quorum_lost {
            QuorumLost::Keep => {
                "no silence is acted on here, and what runs here goes on though a majority may \
                 take it over (quorum-lost = \"keep\")"
            }
            QuorumLost::Stop => {
                "nothing is started here, and what runs here is stopped before a majority may \
                 take it over (quorum-lost = \"stop\")"
            }
        }
    }

    /// When a loss is sure.
    pub(super) fn quorum_due(&self) -> Option<Instant> {
        let since = self.minority.since.filter(|_| !self.minority.sure)?;
        Some(since + self.policy.timing.keepalive * 2)
    }
}
