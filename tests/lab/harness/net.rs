//! Two networks: `lan` (eth0, with the client) and `hb` (eth1, heartbeats), each a bridge in a
//! namespace of its own. Cables can be pulled, and frames dropped one way. The heartbeat network
//! can behave as a crossover cable, which loses carrier with the machine at its other end.

use super::{sh, try_sh};

pub struct Net {
    prefix: String,
    /// The nodes that are switched on.
    on: std::collections::BTreeSet<usize>,
    /// `hb` is a crossover cable, and no switch.
    pub crossover: bool,
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
    pub fn new() -> Net {
        let prefix = format!("hl{}", std::process::id());
        let net = Net { prefix, on: Default::default(), crossover: false };
        let (switch, client) = (net.switch(), net.client());
        sh(&format!("ip netns add {switch}; ip -n {switch} link set lo up"));
        // With an address of its own: else it takes that of a port, and another one when a node
        // goes, and whoever knew it asks a management controller that nobody answers for.
        for (lan, mac) in [("lan", "02:00:00:00:00:01"), ("hb", "02:00:00:00:00:02")] {
            sh(&format!(
                "ip -n {switch} link add {lan} address {mac} type bridge forward_delay 0 \
                 stp_state 0; \
                 ip -n {switch} link set {lan} up"
            ));
        }
        sh(&format!(
            "ip netns add {client}; ip -n {client} link set lo up; \
             ip -n {switch} link add client type veth peer name eth0 netns {client}; \
             ip -n {switch} link set client master lan up; \
             ip -n {client} addr add 192.168.0.50/24 dev eth0; \
             ip -n {client} addr add fd00:0:0:1::50/64 dev eth0 nodad; \
             ip -n {client} link set eth0 up"
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
    pub fn plug(&mut self, n: usize) {
        let (switch, node) = (self.switch(), Net::node(n));
        let number = n + 1;
        sh(&format!("ip netns add {node}; ip -n {node} link set lo up"));
        let lans =
            [(Lan::Lan, "192.168.0", "fd00:0:0:1"), (Lan::Heartbeat, "10.0.0", "fd00:0:0:2")];
        for (lan, net, net6) in lans {
            let (short, interface) = (lan.short(), lan.interface());
            sh(&format!(
                "ip -n {switch} link add n{number}-{short} type veth peer name {interface} netns \
                 {node}; ip -n {switch} link set n{number}-{short} master {short} up; \
                 ip -n {node} addr add {net}.{number}/24 dev {interface}; \
                 ip -n {node} addr add {net6}::{number}/64 dev {interface} nodad; \
                 ip -n {node} link set {interface} up"
            ));
        }
        self.on.insert(n);
        self.heal(n, Lan::Heartbeat);
    }

    /// The machine is off: at one stroke, since its kernel would answer for its addresses while the
    /// network is cleared away.
    pub fn unplug(&mut self, n: usize) {
        let port = |lan: &str| format!("link set n{}-{lan} down", n + 1);
        let ports = format!("{}\\n{}\\n", port("lan"), port("hb"));
        let _ = try_sh(&format!("printf '{ports}' | ip -n {} -batch - 2>&1", self.switch()));
        if self.on.remove(&n) && self.crossover {
            self.cut(n, Lan::Heartbeat);
        }
        let _ = try_sh(&format!("ip netns del {}", Net::node(n)));
        for lan in ["lan", "hb"] {
            let _ = try_sh(&format!("ip -n {} link del n{}-{lan}", self.switch(), n + 1));
        }
    }

    /// Pulls a node's cable: both ends lose carrier.
    pub fn cut(&self, n: usize, lan: Lan) {
        self.carrier(n, lan, "down");
    }

    pub fn heal(&self, n: usize, lan: Lan) {
        self.carrier(n, lan, "up");
    }

    fn carrier(&self, n: usize, lan: Lan, way: &str) {
        let both = self.crossover && lan == Lan::Heartbeat;
        // A crossover cable has carrier only while both machines are on.
        let way = if both && self.on.len() < 2 { "down" } else { way };
        let ends = self.on.iter().copied().filter(|end| both && *end != n).chain([n]);
        for end in ends {
            let port = format!("n{}-{}", end + 1, lan.short());
            let _ = try_sh(&format!("ip -n {} link set {port} {way}", self.switch()));
        }
    }

    /// Two nodes do not hear each other on any network; others hear both.
    pub fn part(&self, a: usize, b: usize) {
        for lan in [Lan::Lan, Lan::Heartbeat] {
            self.block_way(a, b, lan);
            self.block_way(b, a, lan);
        }
    }

    /// A node and what is in the client's place do not reach each other.
    pub fn part_from_client(&self, n: usize) {
        let port = format!("n{}-lan", n + 1);
        let frames = [("client", &*port), (&*port, "client")];
        self.drop_in_switch(&frames.map(|(from, to)| format!("iifname {from} oifname {to}")));
    }

    /// What one node sends to another does not arrive; the other way is open.
    pub fn block_way(&self, from: usize, to: usize, lan: Lan) {
        let port = |n: usize| format!("n{}-{}", n + 1, lan.short());
        self.drop_in_switch(&[format!("iifname {} oifname {}", port(from), port(to))]);
    }

    /// The switch drops everything from and to a node; its cable stays in.
    pub fn block(&self, n: usize, lan: Lan) {
        let port = format!("n{}-{}", n + 1, lan.short());
        self.drop_in_switch(&[format!("iifname {port}"), format!("oifname {port}")]);
    }

    fn drop_in_switch(&self, frames: &[String]) {
        let rules = frames.iter().map(|f| format!("; add rule bridge lab f {f} drop"));
        sh(&format!(
            "ip netns exec {} nft 'add table bridge lab; add chain bridge lab f {{ type filter \
             hook forward priority 0; }}{}'",
            self.switch(),
            rules.collect::<String>()
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

    /// As a machine that has just booted: an address that was asked for in vain a moment ago is
    /// otherwise called unreachable without being asked for again.
    pub fn forget_neighbours(&self, n: usize) {
        sh(&format!("ip -n {} neigh flush all", Net::node(n)));
    }

    pub fn undeafen(&self, n: usize) {
        let _ = try_sh(&format!("ip netns exec {} nft delete table inet lab", Net::node(n)));
    }
}
