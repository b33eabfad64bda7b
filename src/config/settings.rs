//! The settings a daemon runs by: parsed, checked, complete. If a value of this type exists, its
//! relations hold.

use super::arbiter::{self, Back, Watchdog};
use crate::core::name::{LinkId, NodeId};
use crate::core::policy::{FencePolicy, Fences, GroupPolicy, OnSilence, Policy, Safety, Timing};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub cluster: String,
    pub me: NodeId,
    pub nodes: Vec<Node>,
    pub links: Vec<Link>,
    pub timing: Timing,
    pub safety: Safety,
    pub fence_delay: Duration,
    pub fences: Vec<Fence>,
    /// Who grants leases; `None`: nobody.
    pub arbiter: Option<arbiter::Settings>,
    /// `silence =` stands in the file; groups with storage ask for it.
    pub silence_chosen: bool,
    /// `guard-bound =` stands in the file.
    pub guard_chosen: bool,
    pub keys: PathBuf,
    /// Where the state file is; default /var/lib/hafailover/state.
    pub state: PathBuf,
    /// Of all settings that must agree between nodes.
    pub fingerprint: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub id: NodeId,
    pub name: String,
}

/// One `[[fence]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fence {
    pub node: NodeId,
    pub policy: FencePolicy,
    pub how: FenceHow,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FenceHow {
    /// A program of the package fence-agents, run by hafailover-fence@.service.
    Agent {
        agent: PathBuf,
        options: BTreeMap<String, String>,
        /// A file with more of them, for root alone.
        secrets: Option<PathBuf>,
        /// It must say itself that the node is off.
        confirm: bool,
        /// Then the node is switched on again.
        on_again: bool,
    },
    /// A template of the administrator's own; another one tries whether it would work.
    Unit {
        unit: String,
        check: Option<String>,
        /// The other must say that the node is off.
        confirm: bool,
    },
}

/// One `[[link]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub id: LinkId,
    /// For people: `udp eth1`, `serial /dev/ttyS0`.
    pub name: String,
    pub kind: LinkKind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkKind {
    /// UDP on one interface; port 694 (ha-cluster, IANA) by default.
    Udp { interface: String, port: u16, to: UdpTo },
    Serial {
        device: PathBuf,
        baud: u32,
        /// The two nodes that the line joins.
        ends: (NodeId, NodeId),
    },
    /// Slots on a shared block device.
    Disk(Disk),
}

/// With what its helper, a process of its own, must know of the rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    pub device: PathBuf,
    /// Between two looks, and between two writes.
    pub interval: Duration,
    /// Over which the device is reached, if over one.
    pub interface: Option<String>,
    pub cluster: String,
    pub nodes: Vec<String>,
    pub deadtime: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UdpTo {
    Broadcast,
    Multicast4 {
        group: Ipv4Addr,
        ttl: u32,
    },
    Multicast6 {
        group: Ipv6Addr,
        hops: u32,
    },
    /// An address for every node; the own one is only a check.
    Unicast {
        addresses: Vec<(NodeId, IpAddr)>,
    },
}

/// A group as it was found enabled: what the core needs, and what `io` needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupSettings {
    pub policy: GroupPolicy,
    /// `Order=listed`: members start one after the other in the order of the target file.
    pub listed_order: bool,
    /// Hard members (`Requires=`, `BindsTo=`) in the order written.
    pub hard: Vec<String>,
    /// Soft members (`Wants=`) in the order written.
    pub soft: Vec<String>,
    /// The target's fragment, for messages.
    pub fragment: PathBuf,
}

impl Link {
    /// Whose loss silences it.
    pub fn interface(&self) -> Option<&str> {
        match &self.kind {
            LinkKind::Udp { interface, .. } => Some(interface),
            LinkKind::Disk(disk) => disk.interface.as_deref(),
            LinkKind::Serial { .. } => None,
        }
    }

    fn line(&self) -> Option<(LinkId, (NodeId, NodeId))> {
        match &self.kind {
            LinkKind::Serial { ends, .. } => Some((self.id, *ends)),
            LinkKind::Udp { .. } | LinkKind::Disk(_) => None,
        }
    }
}

impl Settings {
    /// Who grants the leases.
    pub fn back(&self) -> Option<&Back> {
        self.arbiter.as_ref().map(|arbiter| &arbiter.back)
    }

    /// Whether who grants the leases by these settings knows what was granted by the others, of the
    /// same cluster.
    pub fn same_arbiter(&self, other: &Settings) -> bool {
        match (self.back(), other.back()) {
            (Some(one), Some(other)) => one.is(other),
            (one, other) => one.is_none() && other.is_none(),
        }
    }

    pub fn watchdog(&self) -> Option<Watchdog> {
        self.arbiter.as_ref()?.watchdog.clone()
    }

    /// By link: the first that runs over the same cable; `joined` says of two interfaces whether
    /// they do. It is one cable too where a third link joins them.
    pub fn cables(&self, joined: impl Fn(&str, &str) -> bool) -> Vec<LinkId> {
        let mut cables: Vec<LinkId> = self.links.iter().map(|l| l.id).collect();
        for (n, link) in self.links.iter().enumerate() {
            for (m, other) in self.links.iter().enumerate().take(n) {
                let both = link.interface().zip(other.interface());
                let (old, new) = (cables[n].max(cables[m]), cables[n].min(cables[m]));
                if both.is_some_and(|(one, other)| joined(one, other)) {
                    cables.iter_mut().filter(|c| **c == old).for_each(|c| *c = new);
                }
            }
        }
        cables
    }

    pub fn fences(&self) -> Fences {
        super::fence::policies(self.fence_delay, &self.fences)
    }

    pub fn fence(&self, node: NodeId) -> Option<&Fence> {
        self.fences.iter().find(|f| f.node == node)
    }

    /// Whether every other node is fenced before anything is taken from it, so that silence alone
    /// decides nothing.
    pub fn all_fenced(&self) -> bool {
        let fenced =
            |n: &Node| self.fence(n.id).is_some_and(|f| f.policy.failed == OnSilence::Hold);
        self.nodes.iter().all(fenced)
    }

    /// What the core runs by.
    pub fn policy(
        &self,
        groups: impl IntoIterator<Item = (crate::core::name::GroupName, GroupPolicy)>,
    ) -> Policy {
        Policy {
            me: self.me,
            nodes: self.nodes.iter().map(|n| n.name.clone()).collect(),
            links: self.links.iter().map(|l| l.name.clone()).collect(),
            lines: self.links.iter().filter_map(Link::line).collect(),
            cables: self.cables(|one, other| one == other),
            timing: self.timing.clone(),
            safety: self.safety.clone(),
            fences: self.fences(),
            lease: self.arbiter.as_ref().map(|a| a.times.clone()),
            fingerprint: self.fingerprint,
            groups: groups.into_iter().collect(),
        }
    }
}
