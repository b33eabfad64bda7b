//! What a node must not forget: written and fsynced before it is spoken of or acted on.

use super::heartbeat::{GroupWish, NodeWishes, Register, Release};
use super::name::{BootId, Epoch, GroupName, NodeId};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The whole persistent state of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Record {
    /// Grows with every write; of two slots the higher valid one counts.
    pub serial: u64,
    /// The epochs are known (from peers, or `state create` said the cluster is new).
    pub known: bool,
    pub wishes: NodeWishes,
    /// Peers towards which only one link was left when last seen.
    pub jeopardy: BTreeSet<NodeId>,
    pub groups: BTreeMap<GroupName, GroupRecord>,
    #[serde(default)]
    pub fences: BTreeMap<NodeId, FenceRecord>,
}

/// What must not be forgotten about fencing a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FenceRecord {
    /// Attempts since it was last alive.
    pub tries: u32,
    /// It was heard after it had been off; so until a person clears it.
    pub lied: bool,
    /// The life of our machine in which the last attempt began, and the life of its machine.
    pub here: BootId,
    pub there: Option<BootId>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct GroupRecord {
    /// Highest ever claimed, promised or heard.
    pub epoch: Epoch,
    /// Claimed, or owned by.
    pub claim: Option<Epoch>,
    pub promise: Option<Epoch>,
    pub released: Option<Release>,
    pub wish: Register<GroupWish>,
}
