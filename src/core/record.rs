//! What a node must not forget: written and fsynced before it is spoken of or acted on.

use super::heartbeat::{GroupReport, GroupWish, NodeWishes, Register, Release};
use super::name::{BootId, Epoch, GroupName, NodeId};
use super::time::{Duration, Instant};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The whole persistent state of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Record {
    /// Grows with every write; of two slots the higher valid one counts.
    pub serial: u64,
    /// The epochs are known (from peers, or `state create` said the cluster is new).
    pub known: bool,
    /// The names of the nodes whose ids stand here; none: an earlier version did not tell.
    #[serde(default)]
    pub nodes: Vec<String>,
    pub wishes: NodeWishes,
    /// Peers towards which only one link was left when last seen.
    pub jeopardy: BTreeSet<NodeId>,
    pub groups: BTreeMap<GroupName, GroupRecord>,
    #[serde(default)]
    pub fences: BTreeMap<NodeId, FenceRecord>,
    /// Peers that were last heard holding a group as no lease ends it: in maintenance, stuck, or as
    /// strays.
    #[serde(default)]
    pub lasting: BTreeMap<GroupName, BTreeSet<NodeId>>,
    /// Groups of ours in a maintenance that every peer had heard of at the last look; until when
    /// the lease lasts that there is after it, from the word that ends it on.
    #[serde(default)]
    pub shelter: BTreeMap<GroupName, Option<Instant>>,
    /// How long somebody may live on what this node vouched for, by the settings of then.
    #[serde(default)]
    pub waits: Duration,
    /// By which settings each peer went when it was last heard, perhaps by an earlier daemon; and
    /// by which this node goes.
    #[serde(default)]
    pub settings: BTreeMap<NodeId, u64>,
}

/// By settings that are nobody's goes who was not heard since this node has its own.
pub const UNHEARD: u64 = 0;

impl Record {
    /// This node goes by these settings from now on. A peer that has heard of it may have changed
    /// its own since, and counts as one with others until it is heard: also where the change is
    /// taken back.
    pub fn go_by(&mut self, me: NodeId, settings: u64) {
        let before = self.settings.insert(me, settings);
        if before.is_some_and(|before| before != settings) {
            let peers = self.settings.iter_mut().filter(|(id, _)| **id != me);
            peers.for_each(|(_, theirs)| *theirs = UNHEARD);
        }
    }

    /// The highest epoch that a peer speaks of; true: it is news. Without a state file, and for a
    /// group that this one knows nothing of, it is not known whether one of our own was used: it is
    /// not claimed any more.
    pub fn learn(&mut self, me: NodeId, report: &GroupReport) -> bool {
        let spoken = [Some(report.epoch), report.claim.map(|c| c.epoch), report.promise];
        let top = spoken.into_iter().flatten().max().unwrap_or_default();
        let record = self.groups.entry(report.name.clone()).or_default();
        let news = top > record.epoch;
        let unsure = !self.known || record.epoch == Epoch::default();
        if news && unsure && top.node == me {
            record.promise = Some(top);
        }
        record.epoch = record.epoch.max(top);
        news
    }
}

/// What must not be forgotten about fencing a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FenceRecord {
    /// Attempts since it was last alive, or since one ended well.
    pub tries: u32,
    /// The last attempt ended well: when another is needed, all attempts are left.
    #[serde(default)]
    pub well: bool,
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
    /// The last epoch given away: to the node that claimed it, to a successor, or, of our own, when
    /// a claim was taken back: nobody may claim that again.
    pub promise: Option<Epoch>,
    pub released: Option<Release>,
    pub wish: Register<GroupWish>,
}
