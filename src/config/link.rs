//! A `[[link]]` as it is written, to a checked link. What is wrong names its key, and `load` says
//! where that stands.

use super::file::{self, PerNode};
use super::load::{parse_duration, show};
use super::settings::{Disk, LinkKind, Node, UdpTo};
use crate::core::name::NodeId;
use crate::core::policy::Timing;
use std::net::IpAddr;
use std::time::Duration;

/// heartbeat's port, ha-cluster at IANA.
const PORT: u16 = 694;
const BAUD: u32 = 115_200;
pub const BAUDS: [u32; 9] =
    [9600, 19_200, 38_400, 57_600, 115_200, 230_400, 460_800, 500_000, 921_600];

/// What links are checked against.
pub struct Of<'a> {
    pub cluster: &'a str,
    pub nodes: &'a [Node],
    pub timing: &'a Timing,
}

/// What is wrong with a link: the key, if it is one, and words.
pub type Wrong = (&'static str, String);

pub fn kind(link: &file::Link, of: &Of, me: NodeId) -> Result<(String, LinkKind), Wrong> {
    let nodes = of.nodes;
    let whole = |what: String| ("", what);
    match link {
        file::Link::Serial { device, baud, nodes: named } => {
            let baud = baud.unwrap_or(BAUD);
            if !BAUDS.contains(&baud) {
                let all = BAUDS.map(|b| b.to_string()).join(", ");
                return Err(whole(format!("baud = {baud}: write one of {all}")));
            }
            let ends = line_ends(named.as_deref(), nodes).map_err(whole)?;
            let there = |n: &&Node| n.id == ends.0 || n.id == ends.1;
            let joined: Vec<&Node> = nodes.iter().filter(there).collect();
            let device = on_node("device", device, &joined, me)?;
            let name = match named {
                Some(named) => format!("serial {device} {}", named.join("-")),
                None => format!("serial {device}"),
            };
            Ok((name, LinkKind::Serial { device: device.into(), baud, ends }))
        }
        file::Link::Udp { interface, port, group, ttl, addresses } => {
            let all: Vec<&Node> = nodes.iter().collect();
            let interface = on_node("interface", interface, &all, me)?;
            if interface.is_empty() || interface.len() > 15 {
                let what = "interface = must name a network interface, as ip link shows it";
                return Err(("interface", what.into()));
            }
            let ttl = u32::from(ttl.unwrap_or(1));
            let to = match (group, addresses) {
                (None, None) => UdpTo::Broadcast,
                (Some(_), Some(_)) => {
                    let what = "group (multicast) and addresses (unicast): write one of them";
                    return Err(whole(what.into()));
                }
                (Some(group), None) if !group.is_multicast() => {
                    let what = format!("{group} is no multicast address: 224.0.0.0/4 or ff00::/8");
                    return Err(whole(what));
                }
                (Some(IpAddr::V4(group)), None) => UdpTo::Multicast4 { group: *group, ttl },
                (Some(IpAddr::V6(group)), None) => UdpTo::Multicast6 { group: *group, hops: ttl },
                (None, Some(addresses)) => unicast(addresses, nodes).map_err(whole)?,
            };
            let name = format!("udp {interface}");
            let port = port.unwrap_or(PORT);
            Ok((name, LinkKind::Udp { interface: interface.into(), port, to }))
        }
        file::Link::Disk { device, interval, interface } => {
            let all: Vec<&Node> = nodes.iter().collect();
            let device = on_node("device", device, &all, me)?;
            if !device.starts_with('/') {
                let what = format!("device = \"{device}\": write its path: /dev/disk/by-...");
                return Err(("device", what));
            }
            let over = interface.as_ref().map(|i| on_node("interface", i, &all, me)).transpose()?;
            let disk = Disk {
                device: device.into(),
                interval: looks(interval.as_deref(), of.timing)?,
                interface: over.map(String::from),
                cluster: of.cluster.into(),
                nodes: nodes.iter().map(|n| n.name.clone()).collect(),
                deadtime: of.timing.deadtime,
            };
            Ok((format!("disk {device}"), LinkKind::Disk(disk)))
        }
    }
}

/// What a key says for one of the nodes that the link joins; for any other node, what it says for
/// the first.
fn on_node<'a>(
    key: &'static str,
    value: &'a PerNode,
    joined: &[&Node],
    me: NodeId,
) -> Result<&'a str, Wrong> {
    let table = match value {
        PerNode::All(name) => return Ok(name),
        PerNode::Each(table) => table,
        PerNode::Other(value) => {
            let what = format!("{key} = {value}: write a name, or a table with one for each node");
            return Err((key, what));
        }
    };
    let names = || joined.iter().map(|n| n.name.as_str()).collect::<Vec<_>>().join(", ");
    if let Some(unknown) = table.keys().find(|name| joined.iter().all(|n| n.name != **name)) {
        let what = format!("{key} names {unknown}, which is no node of this link: {}", names());
        return Err((key, what));
    }
    if let Some(missing) = joined.iter().find(|n| !table.contains_key(&n.name)) {
        let what = format!(
            "{key} has none for {}: write one for each of {}, or one name for all",
            missing.name,
            names()
        );
        return Err((key, what));
    }
    let node = joined.iter().find(|n| n.id == me).unwrap_or(&joined[0]);
    Ok(&table[&node.name])
}

/// How often the slots of a disk are looked at.
fn looks(interval: Option<&str>, timing: &Timing) -> Result<Duration, Wrong> {
    let keepalive = timing.keepalive;
    let interval = interval.map_or(Ok(keepalive), parse_duration).map_err(|e| ("interval", e))?;
    if interval < keepalive {
        let what = format!(
            "interval ({}) must not be less than keepalive ({}): nothing comes oftener",
            show(interval),
            show(keepalive)
        );
        return Err(("interval", what));
    }
    if interval * 2 >= timing.deadtime {
        let what = format!(
            "interval ({}) must be less than half of deadtime ({}), or a look that comes late is \
             taken for a link that failed",
            show(interval),
            show(timing.deadtime)
        );
        return Err(("interval", what));
    }
    Ok(interval)
}

/// How two links of one device may be told apart.
pub fn apart(kind: &LinkKind) -> &'static str {
    match kind {
        LinkKind::Udp { .. } | LinkKind::Serial { .. } => "keep one, or give it another port",
        LinkKind::Disk(_) => "keep one: what fails, fails for both",
    }
}

/// Whether two links would use the same device or socket on some node.
pub fn same_device(one: &LinkKind, other: &LinkKind) -> bool {
    match (one, other) {
        (
            LinkKind::Serial { device, ends, .. },
            LinkKind::Serial { device: other, ends: (a, b), .. },
        ) => device == other && [ends.0, ends.1].iter().any(|end| end == a || end == b),
        (
            LinkKind::Udp { interface, port, .. },
            LinkKind::Udp { interface: other, port: others, .. },
        ) => interface == other && port == others,
        (LinkKind::Disk(disk), LinkKind::Disk(other)) => disk.device == other.device,
        _ => false,
    }
}

/// The two nodes at the ends of a serial line.
fn line_ends(named: Option<&[String]>, nodes: &[Node]) -> Result<(NodeId, NodeId), String> {
    let id = |name: &String| {
        let node = nodes.iter().find(|n| n.name == *name);
        node.map(|n| n.id).ok_or(format!("nodes names {name}, which is no [[node]]"))
    };
    match (named, nodes) {
        (Some([a, b]), _) if a != b => Ok((id(a)?, id(b)?)),
        (Some(_), _) => Err("nodes must name the two nodes that the line joins".into()),
        (None, [a, b]) => Ok((a.id, b.id)),
        (None, _) => Err("a serial line joins two nodes: add nodes = [\"NAME\", \"NAME\"]".into()),
    }
}

fn unicast(
    addresses: &std::collections::BTreeMap<String, IpAddr>,
    nodes: &[Node],
) -> Result<UdpTo, String> {
    if let Some(unknown) = addresses.keys().find(|name| nodes.iter().all(|n| n.name != **name)) {
        return Err(format!("addresses names {unknown}, which is no [[node]]"));
    }
    let mut list = Vec::new();
    for node in nodes {
        let address = addresses
            .get(&node.name)
            .ok_or_else(|| format!("addresses has none for {}: every node needs one", node.name))?;
        list.push((node.id, *address));
    }
    if list.iter().any(|(_, a)| a.is_ipv6() != list[0].1.is_ipv6()) {
        return Err("addresses mixes IPv4 and IPv6: make two links of it".into());
    }
    Ok(UdpTo::Unicast { addresses: list })
}
