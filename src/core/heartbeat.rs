//! What one heartbeat says: state, never a command, so that loss, repetition and reordering
//! need no machinery. The core makes and reads this value; `wire` turns it into bytes.

use super::name::{BootId, Epoch, GroupName, LinkId, LinkSet, NodeId, Session};
use super::time::{Duration, Instant};
use serde::{Deserialize, Serialize};

/// Most groups in one page of a heartbeat; a longer table is sent page after page.
pub const PAGE_GROUPS: usize = 8;

/// One node's report about itself and about what it hears. Self-contained and idempotent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Heartbeat {
    pub from: NodeId,
    pub session: Session,
    pub boot: BootId,
    /// Grows by one with every frame of this session on this link.
    pub seq: u64,
    pub link: LinkId,
    /// The sender's clock when it sent this; comes back to it in an [`Echo`].
    pub stamp: Instant,
    pub mood: Mood,
    /// Of the cluster's settings (names, nodes, links, timing, safety).
    pub fingerprint: u64,
    /// One per other node of the cluster that the sender ever heard in this session.
    pub echoes: Vec<Echo>,
    /// What people have told the nodes: cluster maintenance and every node's standby.
    pub wishes: NodeWishes,
    /// This page of the group table, and how many pages there are.
    pub groups: Vec<GroupReport>,
    pub page: u8,
    pub pages: u8,
}

/// What the sender is going through; each of these changes what its silence would mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Mood {
    /// Has not yet heard every node, and `initdead` is not over.
    pub starting: bool,
    /// The daemon is being stopped: it gives its groups away and takes none.
    pub leaving: bool,
    /// The machine is shutting down or rebooting.
    pub shutting_down: bool,
    /// The daemon restarts and is back within this time; its groups run on.
    pub restarting: Option<Duration>,
    /// Has no state file (or one that was restored), promises and claims nothing.
    pub amnesiac: bool,
    /// Its own loop stalled for so long that it must learn first what it missed.
    pub doubting: bool,
    /// A stop failed, and the machine resets itself at once.
    pub resetting: bool,
    /// This is no daemon: the daemon is lost, and its guard stops what it held.
    pub guarding: bool,
    /// How long after its last sign of life its guard chain has surely ended (verified stopped
    /// or reset); `None`: nothing is promised about that.
    pub guard_bound: Option<Duration>,
}

/// "I heard you": the newest stamp the sender has from `peer` over all links together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Echo {
    pub peer: NodeId,
    pub session: Session,
    /// The peer's own stamp, on the peer's clock.
    pub stamp: Instant,
    /// How long before this heartbeat that stamp arrived.
    pub age: Duration,
    /// The links on which the sender hears the peer now. Empty: it no longer hears it.
    pub links: LinkSet,
}

/// A value that any node may change and that the highest version wins. Of equal counters the
/// earlier node wins, so all nodes agree; of equal versions the greater value: a node whose state
/// file came from a backup gives a version out twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Register<T> {
    pub version: Epoch,
    pub value: T,
}

impl<T: Copy + Ord> Register<T> {
    /// Takes the other value if it is newer; says whether it did.
    pub fn merge(&mut self, other: &Register<T>) -> bool {
        let newer = (other.version, other.value) > (self.version, self.value);
        if newer {
            *self = *other;
        }
        newer
    }

    /// A person on node `by` decided anew.
    pub fn set(&mut self, by: NodeId, value: T) {
        self.version = Epoch { counter: self.version.counter + 1, node: by };
        self.value = value;
    }
}

/// What people have told the nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NodeWishes {
    pub maintenance: Register<bool>,
    /// By node, in the configured order; missing ones are `false` at version zero.
    pub standby: Vec<Register<bool>>,
}

/// What people have told the nodes about one group.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct GroupWish {
    /// Stays down until somebody starts or clears it.
    pub down: bool,
    pub maintenance: bool,
    /// Move it to this node, as long as its epoch is still this one.
    pub move_to: Option<(NodeId, Epoch)>,
}

/// Whether a node runs, or may still run, a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Held {
    No,
    Yes,
    /// The node cannot tell. Counts as held in every decision.
    #[default]
    Unknown,
}

/// One group on one node, as that node computes it from the group's members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    #[default]
    Unknown,
    Stopped,
    Starting,
    Running,
    Stopping,
    Stuck,
}

/// Why a node may not take a group just now; `None` in its report: it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unfit {
    /// The group's `Nodes=` does not name it, or the group is not enabled there.
    NotListed,
    Standby,
    Maintenance,
    Leaving,
    /// Too many failures here; for the time given in the report.
    Quarantined,
    /// The interface of one of the group's addresses has no carrier.
    NoCarrier,
    /// Members run there that nobody started for the cluster.
    Stray,
    /// Its units are not loaded as they must be (missing unit, missing gate).
    NotLoaded,
    Amnesiac,
    /// The state file cannot be written.
    NoState,
    /// Another machine uses its name.
    Double,
    /// A reason that only a later version knows.
    Other,
}

/// One node's view of one group.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GroupReport {
    pub name: GroupName,
    /// Of the group's settings and member list; different values do not promise each other.
    pub fingerprint: u32,
    /// Of what else its members' files say; `None`: version 1.0 does not tell.
    pub texts: Option<u32>,
    pub phase: Phase,
    pub held: Held,
    /// The highest epoch the sender ever claimed, promised or heard.
    pub epoch: Epoch,
    /// What it claims, or owns by.
    pub claim: Option<Claim>,
    /// Promised never to start at or below this, to the node in the epoch.
    pub promise: Option<Epoch>,
    /// The ownership it ended and verified, and for whom.
    pub released: Option<Release>,
    /// A vouched epoch (leases); always `None` without an arbiter.
    pub voucher: Option<Epoch>,
    pub unfit: Option<Unfit>,
    /// What is left of its quarantine.
    pub quarantine: Duration,
    pub wish: Register<GroupWish>,
    pub tally: Tally,
}

/// How many members the group has on a node, and how many of them are up. None at all: not told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Tally {
    pub up: u8,
    pub all: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Claim {
    pub epoch: Epoch,
    /// "Starting on silence in this time": the unheard owner yields to such a claim.
    pub on_silence: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Release {
    pub epoch: Epoch,
    pub successor: Option<NodeId>,
}

impl Release {
    /// Whether it is the release right before that epoch, for that epoch's node: nobody can have
    /// owned the group between the two.
    pub fn gives(&self, epoch: Epoch) -> bool {
        self.successor == Some(epoch.node) && self.epoch.counter + 1 == epoch.counter
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: two nodes agree also where one version stands for two values.
    #[test]
    fn a_version_given_out_twice_ends_in_one_value() {
        let version = Epoch { counter: 3, node: NodeId(0) };
        let (on, off) = (Register { version, value: true }, Register { version, value: false });
        let (mut one, mut other) = (on, off);
        assert!(!one.merge(&off) && other.merge(&on));
        assert_eq!((one, other), (on, on));
    }
}
