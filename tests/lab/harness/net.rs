//! Two networks: `lan` (eth0, with the client) and `hb` (eth1, heartbeats), each a bridge in a
//! namespace of its own. Cables can be pulled, and frames dropped one way.

use super::{sh, try_sh};

pub struct Net {
    prefix: String,
    nodes: usize,
}

/// A network of the lab.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lan {
    Lan,
    Heartbeat,
}

impl Lan {
    fn short(self) -> &'static str {
        match self {
            Lan::Lan => "lan",
            Lan::Heartbeat => "hb",
        }
    }
    pub fn interface(self) -> &'static str {
        match self {
            Lan::Lan => "eth0",
            Lan::Heartbeat => "eth1",
        }
    }
}

impl Net {
    pub fn new(nodes: usize) -> Net {
        let net = Net { prefix: format!("hl{}", std::process::id()), nodes };
        let (switch, client) = (net.switch(), net.client());
        sh(&format!("ip netns add {switch}; ip -n {switch} link set lo up"));
        for lan in ["lan", "hb"] {
            sh(&format!(
                "ip -n {switch} link add {lan} type bridge forward_delay 0 stp_state 0; \
                 ip -n {switch} link set {lan} up"
            ));
        }
        sh(&format!(
            "ip netns add {client}; ip -n {client} link set lo up; \
             ip -n {switch} link add client type veth peer name eth0 netns {client}; \
             ip -n {switch} link set client master lan up; \
             ip -n {client} addr add 192.168.0.50/24 dev eth0; ip -n {client} link set eth0 up"
        ));
        net
    }

    pub fn switch(&self) -> String {
        format!("{}-sw", self.prefix)
    }

    pub fn client(&self) -> String {
        format!("{}-c", self.prefix)
    }

    pub fn node(n: usize) -> String {
        format!("hl{}-n{}", std::process::id(), n + 1)
    }

    /// A new machine's network: two interfaces, plugged in.
    pub fn plug(&self, n: usize) {
        let (switch, node) = (self.switch(), Net::node(n));
        let number = n + 1;
        sh(&format!("ip netns add {node}; ip -n {node} link set lo up"));
        for (lan, net) in [(Lan::Lan, "192.168.0"), (Lan::Heartbeat, "10.0.0")] {
            let (short, interface) = (lan.short(), lan.interface());
            sh(&format!(
                "ip -n {switch} link add n{number}-{short} type veth peer name {interface} netns \
                 {node}; ip -n {switch} link set n{number}-{short} master {short} up; \
                 ip -n {node} addr add {net}.{number}/24 dev {interface}; \
                 ip -n {node} link set {interface} up"
            ));
        }
    }

    /// The machine is off.
    pub fn unplug(&self, n: usize) {
        let _ = try_sh(&format!("ip netns del {}", Net::node(n)));
        for lan in ["lan", "hb"] {
            let _ = try_sh(&format!("ip -n {} link del n{}-{lan}", self.switch(), n + 1));
        }
    }

    /// Pulls a node's cable: both ends lose carrier.
    pub fn cut(&self, n: usize, lan: Lan) {
        sh(&format!("ip -n {} link set n{}-{} down", self.switch(), n + 1, lan.short()));
    }

    pub fn heal(&self, n: usize, lan: Lan) {
        sh(&format!("ip -n {} link set n{}-{} up", self.switch(), n + 1, lan.short()));
    }

    /// The switch drops everything from and to a node; its cable stays in.
    pub fn block(&self, n: usize, lan: Lan) {
        let (switch, port) = (self.switch(), format!("n{}-{}", n + 1, lan.short()));
        sh(&format!(
            "ip netns exec {switch} nft 'add table bridge lab; add chain bridge lab f {{ type \
             filter hook forward priority 0; }}; add rule bridge lab f iifname {port} drop; add \
             rule bridge lab f oifname {port} drop'"
        ));
    }

    pub fn unblock(&self) {
        let _ = try_sh(&format!("ip netns exec {} nft delete table bridge lab", self.switch()));
    }

    /// A node hears nothing on an interface any more, though it can send.
    pub fn deafen(&self, n: usize, lan: Lan) {
        let (node, interface) = (Net::node(n), lan.interface());
        sh(&format!(
            "ip netns exec {node} nft 'add table inet lab; add chain inet lab in {{ type filter \
             hook input priority 0; }}; add rule inet lab in iifname {interface} drop'"
        ));
    }

    pub fn undeafen(&self, n: usize) {
        let _ = try_sh(&format!("ip netns exec {} nft delete table inet lab", Net::node(n)));
    }

    pub fn remove(&self) {
        for n in 0..self.nodes {
            self.unplug(n);
        }
        let _ = try_sh(&format!("ip netns del {}; ip netns del {}", self.client(), self.switch()));
    }
}
