//! Names of things: nodes, links, groups, epochs, sessions. Small values without behaviour,
//! except for the order of epochs, which decides who wins.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Most nodes a cluster may have.
pub const NODES_MAX: usize = 16;
/// Most links a node may have.
pub const LINKS_MAX: usize = 16;
/// Most groups a cluster may have.
pub const GROUPS_MAX: usize = 200;
/// Longest group name in bytes (without `.target`).
pub const GROUP_NAME_MAX: usize = 64;

/// A node: its place in the configured list, the same on every node with the same configuration.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct NodeId(pub u8);

/// A link: its place in the configured list.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct LinkId(pub u8);

/// A set of links as a bit mask, bit n for `LinkId(n)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LinkSet(pub u16);

impl LinkSet {
    pub fn insert(&mut self, link: LinkId) {
        self.0 |= 1 << link.0;
    }
    pub fn contains(self, link: LinkId) -> bool {
        self.0 & (1 << link.0) != 0
    }
    pub fn len(self) -> usize {
        self.0.count_ones() as usize
    }
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// A group's name: the target unit's name without `.target`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GroupName(pub String);

impl GroupName {
    /// The unit that is the group, for example `files.target`.
    pub fn unit(&self) -> String {
        format!("{}.target", self.0)
    }
}

impl fmt::Display for GroupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One life of a daemon: 64 random bits, new at each start. Never zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Session(pub u64);

/// One life of a node's userspace: a hash of the kernel's boot id and of the userspace's start
/// (a soft-reboot keeps the kernel's boot id).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BootId(pub u64);

/// The number of an ownership. Grows with every change of owner, is never used twice: the
/// counter is followed by the claiming node, so two nodes cannot choose the same one. Of equal
/// counters the node earlier in the configured list is the higher.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Epoch {
    pub counter: u64,
    pub node: NodeId,
}

impl Epoch {
    /// Nobody claims so often: an arbiter that says more has none for it, and after it there would
    /// be no next one.
    pub const COUNTER_MAX: u64 = u64::MAX / 2;
}

impl Ord for Epoch {
    fn cmp(&self, other: &Epoch) -> std::cmp::Ordering {
        self.counter.cmp(&other.counter).then_with(|| other.node.cmp(&self.node))
    }
}

impl PartialOrd for Epoch {
    fn partial_cmp(&self, other: &Epoch) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.counter, self.node.0)
    }
}

/// An epoch as a key at a disk has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShortEpoch {
    pub node: NodeId,
    /// The lowest bits of the epoch's counter.
    pub count: u16,
}

impl ShortEpoch {
    /// As epochs are ordered, as long as fewer than 32,768 changes of owner lie between the two.
    pub fn is_newer_than(self, other: ShortEpoch) -> bool {
        match self.count.wrapping_sub(other.count) {
            0 => self.node < other.node,
            ahead => ahead < 1 << 15,
        }
    }
}

impl From<Epoch> for ShortEpoch {
    fn from(epoch: Epoch) -> ShortEpoch {
        ShortEpoch { node: epoch.node, count: epoch.counter as u16 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn of_equal_counters_the_earlier_node_is_higher() {
        let e = |counter, node| Epoch { counter, node: NodeId(node) };
        assert!(e(3, 0) > e(3, 1));
        assert!(e(4, 1) > e(3, 0));
        assert!(Epoch::default() < e(1, 15));
    }

    fn epoch() -> impl Strategy<Value = Epoch> {
        (0u64..5, 0u8..4).prop_map(|(counter, node)| Epoch { counter, node: NodeId(node) })
    }

    proptest! {
        /// Two nodes never disagree on which of two claims is the higher.
        #[test]
        fn the_order_of_epochs_is_total(a in epoch(), b in epoch(), c in epoch()) {
            prop_assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
            prop_assert_eq!(a.cmp(&b).is_eq(), a == b);
            prop_assert!(!(a <= b && b <= c) || a <= c);
            prop_assert!(a.counter >= b.counter || a < b, "a counter more is above all below it");
        }
    }
}
