//! The settings a daemon runs by: parsed, checked, complete. If a value of this type exists, its
//! relations hold.

use crate::core::name::{LinkId, NodeId};
use crate::core::policy::{GroupPolicy, Policy, Safety, Timing};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub cluster: String,
    pub me: NodeId,
    pub nodes: Vec<Node>,
    pub links: Vec<Link>,
    pub timing: Timing,
    pub safety: Safety,
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
    fn interface(&self) -> Option<&str> {
        match &self.kind {
            LinkKind::Udp { interface, .. } => Some(interface),
            LinkKind::Serial { .. } => None,
        }
    }

    fn line(&self) -> Option<(LinkId, (NodeId, NodeId))> {
        match &self.kind {
            LinkKind::Serial { ends, .. } => Some((self.id, *ends)),
            LinkKind::Udp { .. } => None,
        }
    }
}

impl Settings {
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
            fingerprint: self.fingerprint,
            groups: groups.into_iter().collect(),
        }
    }
}
