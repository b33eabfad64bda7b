//! The numbers and choices the core runs by. Made and checked by `config`, never here.

use super::name::{GroupName, NodeId};
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
    pub timing: Timing,
    pub safety: Safety,
    /// Of all settings that must agree between nodes.
    pub fingerprint: u64,
    pub groups: BTreeMap<GroupName, GroupPolicy>,
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

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Safety {
    pub silence: OnSilence,
    pub unseen: OnSilence,
    /// With two or more links configured and only one left before the silence.
    pub last_link: OnSilence,
    /// What the guard chain of this node ends in when its daemon is lost for good.
    pub on_lost: OnLost,
    /// The guard chain's stated bound, from the daemon's last sign of life to verified stopped
    /// or reset.
    pub guard_bound: Duration,
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
    /// Longest time its members need to start.
    pub start_budget: Duration,
    /// Of its settings and members, compared between nodes.
    pub fingerprint: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Failback {
    No,
    Yes,
    /// After the preferred node has been fit for so long.
    After(Duration),
}
