//! Which interfaces stand on the same cable: a VLAN on its parent, a bridge or bond on its ports.

use super::netlink::Interface;
use std::collections::BTreeSet;

/// Whether one broken cable could silence both. One that is not there stands for itself.
pub fn joined(all: &[Interface], one: &str, other: &str) -> bool {
    let below = |name: &str| {
        let mut below = BTreeSet::new();
        if let Some(interface) = all.iter().find(|i| i.name == name) {
            descend(all, interface, &mut below);
        }
        below
    };
    one == other || !below(one).is_disjoint(&below(other))
}

/// The interface and all that it stands on, down to the last.
fn descend(all: &[Interface], from: &Interface, below: &mut BTreeSet<u32>) {
    if !below.insert(from.index) {
        return;
    }
    let under = |i: &&Interface| i.master == Some(from.index) || from.lower == Some(i.index);
    all.iter().filter(under).for_each(|i| descend(all, i, below));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(index: u32, name: &str, master: u32, lower: u32) -> Interface {
        let some = |n: u32| (n > 0).then_some(n);
        let (master, lower) = (some(master), some(lower));
        Interface { name: name.into(), index, mac: None, carrier: true, master, lower }
    }

    #[test]
    fn what_stands_on_one_cable_is_one() {
        let all = [
            interface(1, "eth0", 4, 0),
            interface(2, "eth1", 0, 0),
            interface(3, "eth0.7", 0, 1),
            interface(4, "br0", 0, 0),
            interface(5, "br0.9", 0, 4),
            interface(6, "loop0", 0, 7),
            interface(7, "loop1", 0, 6),
        ];
        for (one, other) in
            [("eth0", "eth0"), ("eth0", "br0"), ("eth0.7", "br0.9"), ("gone", "gone")]
        {
            assert!(joined(&all, one, other), "{one} {other}");
        }
        for (one, other) in [("eth0", "eth1"), ("br0", "eth1"), ("eth0", "gone"), ("eth1", "loop0")]
        {
            assert!(!joined(&all, one, other), "{one} {other}");
        }
    }
}
