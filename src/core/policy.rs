//! The numbers and choices the core runs by. Made and checked by `config`, never here.

use super::name::{GroupName, LinkId, LinkSet, NodeId};
use super::time::Duration;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Policy {
    pub me: NodeId,
    /// Names of all nodes in the configured order; `NodeId(n)` is the n-th.
    pub nodes: Vec<String>,
    /// Names of all links in the configured order, for people.
    pub links: Vec<String>,
    /// The two nodes that a line joins; a link that is not here joins all.
    pub lines: BTreeMap<LinkId, (NodeId, NodeId)>,
    /// By link: the first link that runs over the same cable, itself or another. A link that is
    /// not here has a cable of its own.
    pub cables: Vec<LinkId>,
    pub timing: Timing,
    pub safety: Safety,
    pub fences: Fences,
    /// Leases at an arbiter; `None`: there is none.
    pub lease: Option<LeaseTimes>,
    /// Of all settings that must agree between nodes.
    pub fingerprint: u64,
    pub groups: BTreeMap<GroupName, GroupPolicy>,
}

impl Policy {
    /// Whether a link of this node leads to `peer`.
    pub fn joins(&self, link: LinkId, peer: NodeId) -> bool {
        let ends = [(self.me, peer), (peer, self.me)];
        self.lines.get(&link).is_none_or(|line| ends.contains(line))
    }

    /// Whether this node is at an end of the link.
    pub fn has(&self, link: LinkId) -> bool {
        self.lines.get(&link).is_none_or(|line| line.0 == self.me || line.1 == self.me)
    }

    /// How many cables lead to `peer`.
    pub fn cables_to(&self, peer: NodeId) -> usize {
        let mut links = LinkSet::default();
        let all = (0..self.links.len()).map(|n| LinkId(n as u8));
        all.filter(|l| self.joins(*l, peer)).for_each(|l| links.insert(l));
        self.cables_of(links)
    }

    /// Over how many cables these links run: what one broken cable silences together counts once.
    pub fn cables_of(&self, links: LinkSet) -> usize {
        let mut cables = LinkSet::default();
        for link in (0..16).map(LinkId).filter(|l| links.contains(*l)) {
            cables.insert(self.cables.get(usize::from(link.0)).copied().unwrap_or(link));
        }
        cables.len()
    }
}

#[cfg(test)]
impl Policy {
    /// Two nodes and a link, seen from the first, for the core's own tests.
    pub fn of_a_pair() -> Policy {
        let ms = Duration::from_millis;
        Policy {
            me: NodeId(0),
            nodes: vec!["a".into(), "b".into()],
            links: vec!["link".into()],
            lines: BTreeMap::new(),
            cables: Vec::new(),
            timing: Timing {
                keepalive: ms(200),
                warntime: ms(500),
                deadtime: ms(1000),
                initdead: ms(5000),
                restart_bound: ms(1000),
            },
            safety: Safety {
                silence: OnSilence::Hold,
                unseen: OnSilence::Hold,
                last_link: OnSilence::Hold,
                quorum_lost: QuorumLost::Keep,
                on_lost: OnLost::Leave,
                guard_bound: ms(0),
            },
            fences: Fences::default(),
            lease: None,
            fingerprint: 1,
            groups: BTreeMap::new(),
        }
    }
}

/// `keepalive < warntime < deadtime <= initdead` and `deadtime > 2 * keepalive`; `config` refuses
/// anything else.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Timing {
    pub keepalive: Duration,
    pub warntime: Duration,
    pub deadtime: Duration,
    pub initdead: Duration,
    /// How long a planned restart of the daemon may take; announced to the peers.
    pub restart_bound: Duration,
}

impl Timing {
    /// With quorum-lost = "stop": how long after `deadtime` a majority waits before it starts what
    /// an unheard owner may run. That one has missed its majority at the latest a keepalive after
    /// `deadtime`, is sure of it two later, and stops within its budget; clocks differ by up to
    /// one percent each.
    pub fn quorum_wait(&self, stop_budget: Duration) -> Duration {
        self.keepalive * 4 + stop_budget + (self.deadtime + stop_budget) / 50
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Safety {
    pub silence: OnSilence,
    pub unseen: OnSilence,
    /// With two or more links configured and only one left before the silence.
    pub last_link: OnSilence,
    /// What becomes of the groups of a node that is not among a majority of three nodes and more.
    pub quorum_lost: QuorumLost,
    /// What the guard chain of this node ends in when its daemon is lost for good.
    pub on_lost: OnLost,
    /// The guard chain's stated bound, from the daemon's last sign of life to verified stopped
    /// or reset.
    pub guard_bound: Duration,
}

/// How silent nodes are made sure to be off.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Fences {
    /// Who has less to lose waits for so long, so that of two that lost each other one wins.
    pub delay: Duration,
    pub nodes: BTreeMap<NodeId, FencePolicy>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FencePolicy {
    pub kind: FenceKind,
    /// What does it, for people: `fence_ipmilan`, `my-fence@.service`.
    pub by: String,
    /// So many are made by themselves; then a person is waited for.
    pub attempts: u32,
    /// One of them ends within so long.
    pub timeout: Duration,
    /// After the last attempt: is silence then taken for proof, as it would be without a fence?
    pub failed: OnSilence,
    /// How often it is tried whether it would work; `None`: that cannot be tried.
    pub drill: Option<Duration>,
}

/// What a fence does to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FenceKind {
    /// Its power is off: it cannot answer any more.
    Power,
    /// It is cut from the storage, and may go on otherwise.
    Storage,
}

/// How long leases count; made and checked by `config` (hafailover-protocol(7), "Leases").
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LeaseTimes {
    /// The holder counts a lease, or a voucher, for so long from the time it asked.
    pub lease: Duration,
    /// On its own clock an owner has stopped, or was reset, so long after it asked, also where its
    /// daemon died or hung before it could begin to stop.
    pub most: Duration,
    /// Others wait for so long after they last vouched, or heard the owner: by then it has
    /// stopped, or was reset, whatever the clocks' drift.
    pub wait: Duration,
}

impl LeaseTimes {
    /// How long one question to the arbiter may take.
    pub fn limit(&self) -> Duration {
        self.lease / 8
    }
}

/// Whether silence proves enough to take over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnSilence {
    Takeover,
    Hold,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum QuorumLost {
    /// They run on.
    Keep,
    /// They are stopped, and a majority waits for that.
    Stop,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnLost {
    Reboot,
    Leave,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GroupPolicy {
    /// Preferred first; only these may run it.
    pub nodes: Vec<NodeId>,
    pub failback: Failback,
    /// How often a failed member is started again here before the group moves.
    pub retries: u32,
    /// The window in which failures are counted.
    pub retry_window: Duration,
    /// How long a node that failed a group is not used for it.
    pub quarantine: Duration,
    /// Longest time its members need to stop (sum over layers of their own limits).
    pub stop_budget: Duration,
    /// What follows when its members do not stop.
    pub stop_failure: StopFailure,
    /// Longest time its members need to start.
    pub start_budget: Duration,
    /// Of what makes it this group and no other; nodes with different ones promise each other
    /// nothing.
    pub fingerprint: u32,
    /// Of what else its members' files say; nodes with different ones are told of.
    pub texts: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StopFailure {
    /// It stays held, and is tried again; a person helps.
    Hold,
    /// Whoever keeps a file system of it busy is killed, once.
    KillUsers,
    /// This machine is reset.
    FenceSelf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Failback {
    No,
    Yes,
    /// After the preferred node has been fit for so long.
    After(Duration),
}

#[cfg(test)]
impl GroupPolicy {
    /// Short times, for the core's own tests.
    pub fn quick(nodes: Vec<NodeId>) -> GroupPolicy {
        let ms = Duration::from_millis;
        GroupPolicy {
            nodes,
            failback: Failback::No,
            retries: 1,
            retry_window: ms(1000),
            quarantine: ms(1000),
            stop_budget: ms(100),
            stop_failure: StopFailure::Hold,
            start_budget: ms(100),
            fingerprint: 1,
            texts: 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// Links of three nodes: the first one of the cable that each runs over, and whom it joins.
    fn links() -> impl Strategy<Value = Vec<(usize, u8)>> {
        proptest::collection::vec((0usize..16, 0u8..4), 1..16)
    }

    fn policy(links: &[(usize, u8)]) -> Policy {
        let mut policy = Policy::of_a_pair();
        policy.nodes.push("c".into());
        policy.links = links.iter().map(|_| "link".into()).collect();
        let ends = [(0, 1), (1, 2), (0, 2)].map(|(a, b)| (NodeId(a), NodeId(b)));
        for (n, (cable, line)) in links.iter().enumerate() {
            policy.cables.push(LinkId((*cable).min(n) as u8));
            let joined = ends.get(usize::from(*line)).map(|ends| (LinkId(n as u8), *ends));
            policy.lines.extend(joined);
        }
        // What a cable's first link says counts.
        for n in 0..links.len() {
            policy.cables[n] = policy.cables[usize::from(policy.cables[n].0)];
        }
        policy
    }

    proptest! {
        /// Goal: of what one cable carries only one counts, a line of others never, and a cable
        /// that breaks takes away one at the most.
        #[test]
        fn cables_are_counted_once(links in links(), up in any::<u16>(), broken in 0u8..16) {
            let policy = policy(&links);
            for peer in [NodeId(1), NodeId(2)] {
                let mut cables = BTreeSet::new();
                for (n, (_, line)) in links.iter().enumerate() {
                    let all = *line == 3;
                    let ours = (*line, peer) == (0, NodeId(1)) || (*line, peer) == (2, NodeId(2));
                    if all || ours {
                        cables.insert(policy.cables[n]);
                    }
                }
                prop_assert_eq!(policy.cables_to(peer), cables.len());
            }
            let all = (0..links.len()).map(|n| LinkId(n as u8));
            let (mut before, mut after) = (LinkSet::default(), LinkSet::default());
            for link in all.filter(|l| up & 1 << l.0 != 0) {
                before.insert(link);
                if policy.cables[usize::from(link.0)] != LinkId(broken) {
                    after.insert(link);
                }
            }
            let lost = policy.cables_of(before) - policy.cables_of(after);
            prop_assert_eq!(lost, usize::from(before != after));
        }
    }
}
