//! What the core shows of itself: for `status`, `explain`, tests. A plain value, complete: nothing
//! outside adds a judgement of its own.

use super::event::Member;
use super::heartbeat::{Held, Mood, Phase, Tally, Unfit};
use super::name::{Epoch, GroupName, NodeId};
use super::quorum::Quorum;
use super::time::Duration;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    pub me: NodeId,
    pub nodes: Vec<NodeView>,
    pub links: Vec<String>,
    pub groups: Vec<GroupView>,
    pub maintenance: bool,
    #[serde(default)]
    pub fences: Vec<FenceView>,
    /// Of three nodes and more: how the votes stand.
    pub quorum: Option<Quorum>,
    /// The silence of a peer would not be acted on, and why; empty: armed.
    pub disarmed: Vec<String>,
    /// Everything a person should look at, one sentence each, with what to do.
    pub warnings: Vec<String>,
}

impl View {
    pub fn node_name(&self, id: NodeId) -> &str {
        self.nodes.get(usize::from(id.0)).map_or("?", |n| n.name.as_str())
    }

    /// Everything in one line, for `systemctl status`.
    pub fn line(&self) -> String {
        let here = self.groups.iter().filter(|g| g.owner == Some(self.me)).count();
        let lost = self.groups.iter().filter(|g| g.owner.is_none() && !g.down_by_operator);
        let others = self.nodes.iter().filter(|n| n.presence != Presence::This);
        let peers: Vec<String> = others
            .map(|n| format!("{} {}", n.name, format!("{:?}", n.presence).to_lowercase()))
            .collect();
        let mut line = format!("{here} of {} groups here; {}", self.groups.len(), peers.join(", "));
        let lost: Vec<&str> = lost.map(|g| g.name.0.as_str()).collect();
        if !lost.is_empty() {
            line += &format!("; without an owner: {}", lost.join(" "));
        }
        if !self.disarmed.is_empty() {
            line += "; failover is disarmed";
        }
        line
    }

    /// Nothing needs a person: `status` exits with 0.
    pub fn is_well(&self) -> bool {
        let well = |g: &GroupView| {
            (g.owner.is_some() || g.down_by_operator) && g.holders.is_empty() && g.strays.is_empty()
        };
        self.warnings.is_empty() && self.groups.iter().all(well)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeView {
    pub id: NodeId,
    pub name: String,
    pub presence: Presence,
    pub standby: bool,
    pub mood: Mood,
    /// Since its last sign of life; `None` for this node and for one never heard.
    pub last_sign: Option<Duration>,
    pub links: Vec<LinkView>,
    pub same_settings: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Presence {
    This,
    Alive,
    Deaf,
    Late,
    Silent,
    Unseen,
}

/// How a node would be made sure to be off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FenceView {
    pub node: NodeId,
    pub by: String,
    pub power: bool,
    /// In words; empty: nothing is under way and nothing is wrong.
    pub state: String,
    /// A person is waited for.
    pub failed: bool,
    /// How long ago it was last tried, and what came of it.
    pub proven: Option<Duration>,
    pub drill: Option<Result<String, String>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkView {
    pub name: String,
    pub up: bool,
    /// The link itself can be used here (carrier, device); else why not.
    pub usable: Option<String>,
    pub last_heard: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupView {
    pub name: GroupName,
    pub phase: Phase,
    pub held: Held,
    pub degraded: Option<String>,
    /// The node that runs it as far as this node knows.
    pub owner: Option<NodeId>,
    pub epoch: Epoch,
    pub members: Vec<Member>,
    pub down_by_operator: bool,
    pub maintenance: bool,
    /// Evidence by which this node owns it, one entry per other node.
    pub evidence: Vec<String>,
    /// How long this node has held it; unknown where the evidence is.
    pub held_for: Option<Duration>,
    /// Why it does not run here or anywhere, and what a person can do; empty when it runs.
    pub waits_for: Vec<String>,
    pub holders: Vec<String>,
    pub strays: Vec<String>,
    pub nodes: Vec<GroupNodeView>,
    /// The decision, step by step, as the core makes it (`explain`).
    pub explanation: Vec<String>,
}

/// One node's part in a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupNodeView {
    pub node: NodeId,
    pub held: Held,
    pub phase: Phase,
    pub unfit: Option<Unfit>,
    /// What it has under this name is another group than here.
    pub differs: bool,
    /// It is the same group, but its members' files say something else there.
    pub other_texts: bool,
    pub tally: Tally,
    pub quarantine: Option<Duration>,
    pub reason: String,
}
