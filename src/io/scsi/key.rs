//! Keys: 64 bits that a node registers at a disk. `ha`, 32 bits of the node's and its cluster's
//! name, and the lowest 16 of the group's epoch: whose a key is can be told, and which of two is
//! the newer. A disk replaces exactly the key that it is told, so an owner that thaws late replaces
//! nobody: it never knew the newer key, or knows that it is newer.

use crate::config::settings::Settings;
use crate::core::name::{Epoch, NodeId, ShortEpoch};
use sha2::{Digest, Sha256};
use std::fmt;

/// "ha", so that people know it when they see it, and no key is zero.
const MARK: u64 = 0x6861;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub u64);

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#018x}", self.0)
    }
}

/// The nodes of a cluster, by what they register.
#[derive(Clone, Debug)]
pub struct Keys {
    nodes: Vec<(u32, String)>,
}

impl Keys {
    pub fn of(settings: &Settings) -> Keys {
        let names = settings.nodes.iter().map(|node| node.name.as_str());
        Keys::new(&settings.cluster, names)
    }

    pub fn new<'a>(cluster: &str, names: impl Iterator<Item = &'a str>) -> Keys {
        let id = |name: &str| {
            let digest = Sha256::new().chain_update(cluster).chain_update("\0");
            let digest = digest.chain_update(name).finalize();
            u32::from_be_bytes(digest[..4].try_into().expect("a digest is longer"))
        };
        Keys { nodes: names.map(|name| (id(name), name.to_string())).collect() }
    }

    /// By what that node holds a group with that epoch.
    pub fn key(&self, node: NodeId, epoch: Epoch) -> Key {
        let (id, _) = &self.nodes[usize::from(node.0)];
        let count = ShortEpoch::from(epoch).count;
        Key(MARK << 48 | u64::from(*id) << 16 | u64::from(count))
    }

    /// `None`: it is no node's of this cluster.
    pub fn claim(&self, key: Key) -> Option<ShortEpoch> {
        let id = u32::try_from(key.0 >> 16 & 0xffff_ffff).ok()?;
        let node = self.nodes.iter().position(|(of, _)| *of == id && key.0 >> 48 == MARK)?;
        Some(ShortEpoch { node: NodeId(u8::try_from(node).ok()?), count: key.0 as u16 })
    }

    /// Whose it is, for people.
    pub fn words(&self, key: Key) -> String {
        match self.claim(key) {
            Some(claim) => {
                let (_, name) = &self.nodes[usize::from(claim.node.0)];
                format!("{name} (key {key}, epoch {})", claim.count)
            }
            None => format!("a key that is no node's of this cluster: {key}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Keys {
        Keys::new("lab", ["n1", "n2"].into_iter())
    }

    fn epoch(counter: u64, node: u8) -> Epoch {
        Epoch { counter, node: NodeId(node) }
    }

    #[test]
    fn a_key_says_whose_it_is_and_of_which_epoch() {
        let key = keys().key(NodeId(1), epoch(0x1_0007, 1));
        assert_eq!(keys().claim(key), Some(ShortEpoch { node: NodeId(1), count: 7 }));
        assert_eq!(key.to_string(), "0x68612da9ec7e0007");
        assert_eq!(keys().words(key), "n2 (key 0x68612da9ec7e0007, epoch 7)");
    }

    #[test]
    fn what_others_register_is_foreign() {
        let other = Keys::new("bal", ["n1", "n2"].into_iter()).key(NodeId(1), epoch(7, 1));
        let ours = keys().key(NodeId(1), epoch(7, 1));
        let unmarked = Key(ours.0 & !(0xffff << 48));
        for key in [other, unmarked, Key(0), Key(u64::MAX), Key(0xabc)] {
            assert_eq!(keys().claim(key), None, "{key}");
        }
        let words = keys().words(Key(0xabc));
        assert_eq!(words, "a key that is no node's of this cluster: 0x0000000000000abc");
    }

    /// Goal: keys are ordered as epochs are, also where the 16 bits begin anew.
    #[test]
    fn the_newer_claim_is_the_one_of_the_higher_epoch() {
        for (a, b) in [(1u64, 2), (65_535, 65_536), (70_000, 70_001), (60_000, 80_000)] {
            for (m, n) in [(0, 1), (1, 0), (1, 1)] {
                let claim = |e: Epoch| keys().claim(keys().key(e.node, e)).expect("ours");
                let (low, high) = (claim(epoch(a, m)), claim(epoch(b, n)));
                assert!(high.is_newer_than(low) && !low.is_newer_than(high), "{a} {b}");
            }
        }
        let same = |node| ShortEpoch { node: NodeId(node), count: 5 };
        assert!(epoch(5, 0) > epoch(5, 1) && same(0).is_newer_than(same(1)));
        assert!(!same(1).is_newer_than(same(0)) && !same(1).is_newer_than(same(1)));
    }
}
