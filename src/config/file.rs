//! hafailover.toml as it is written: one struct a table, nothing optional that is not, unknown keys
//! refused. `load` makes checked [`Settings`](super::settings::Settings) of it.

use super::fence;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use toml::Spanned;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    pub cluster: Cluster,
    #[serde(default)]
    pub timing: Timing,
    #[serde(default)]
    pub safety: Safety,
    pub arbiter: Option<super::arbiter::Table>,
    #[serde(default, rename = "node")]
    pub nodes: Vec<Node>,
    #[serde(default, rename = "link")]
    pub links: Vec<Spanned<Link>>,
    #[serde(default, rename = "fence")]
    pub fences: Vec<Spanned<fence::Written>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    pub name: Spanned<String>,
    pub keys: Option<PathBuf>,
    pub state: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Timing {
    pub keepalive: Option<Spanned<String>>,
    pub warntime: Option<Spanned<String>>,
    pub deadtime: Option<Spanned<String>>,
    pub initdead: Option<Spanned<String>>,
    pub restart_bound: Option<Spanned<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Safety {
    pub silence: Option<Silence>,
    pub unseen: Option<Silence>,
    pub last_link: Option<Silence>,
    pub quorum_lost: Option<Spanned<QuorumLost>>,
    pub on_lost: Option<Lost>,
    pub guard_bound: Option<Spanned<String>>,
    pub fence_delay: Option<Spanned<String>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Silence {
    Takeover,
    Hold,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum QuorumLost {
    Keep,
    Stop,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lost {
    Reboot,
    Leave,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    pub name: Spanned<String>,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
pub enum Link {
    Udp {
        interface: PerNode,
        port: Option<u16>,
        /// Multicast, IPv4 or IPv6.
        group: Option<IpAddr>,
        /// Of multicast: hops a frame may take.
        ttl: Option<u8>,
        /// Unicast: an address for every node.
        addresses: Option<BTreeMap<String, IpAddr>>,
    },
    Serial {
        device: PerNode,
        baud: Option<u32>,
        /// The two nodes that the line joins; to be named where there are more.
        nodes: Option<Vec<String>>,
    },
    Disk {
        device: PerNode,
        interval: Option<String>,
        /// Of a device that is reached over the network.
        interface: Option<PerNode>,
    },
}

/// The same on every node, or a table with one for each.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum PerNode {
    All(String),
    Each(BTreeMap<String, String>),
    /// Refused by `load`, which knows where it stands.
    Other(toml::Value),
}
