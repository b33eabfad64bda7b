//! What nodes and a witness say to each other, as sealed datagrams. Pure: no sockets, no clock.
//!
//! ```text
//!  0      4     5    6     7              15
//!  "HAFW" major kind keyid cluster's hash JSON ... tag (16 bytes)
//! ```
//!
//! The tag (HMAC-SHA-256 with the cluster's key, cut to 128 bits) covers all before it. A question
//! is not fresh by itself: it counts only with the challenge that the witness gave to this session,
//! and with a number higher than the last.

use super::keys::Keys;
use crate::core::grant::{Ask, Verdict};
use crate::core::name::GROUP_NAME_MAX;
use hmac::{Hmac, KeyInit, Mac};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Longest datagram; a question has about 300 bytes.
pub const DATAGRAM_MAX: usize = 1200;
const MAGIC: &[u8; 4] = b"HAFW";
const MAJOR: u8 = 1;
const HEADER: usize = 15;
const TAG: usize = 16;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// Of the asking program's life, at random.
    pub session: u64,
    /// Grows with every question; the same in each repetition of one.
    pub number: u64,
    /// The newest that the witness told this session; zero: none yet.
    pub challenge: u64,
    pub ask: Ask,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answered {
    pub session: u64,
    pub number: u64,
    pub challenge: u64,
    /// `None`: nothing was done, ask again with this challenge.
    pub verdict: Option<Verdict>,
}

/// Which way a datagram goes: none can be sent back to where it came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Way {
    ToWitness = 1,
    ToNode = 2,
}

pub type ClusterTag = [u8; 8];

/// By which a witness knows whose key to take.
pub fn cluster_tag(cluster: &str) -> ClusterTag {
    let digest = Sha256::new().chain_update("witness\0").chain_update(cluster).finalize();
    digest[..8].try_into().expect("a digest is longer")
}

/// The cluster that it claims to be of, if it is a datagram of ours at all.
pub fn cluster_of(datagram: &[u8], way: Way) -> Option<ClusterTag> {
    let head = [MAGIC.as_slice(), &[MAJOR, way as u8]].concat();
    let whole = (HEADER + TAG..=DATAGRAM_MAX).contains(&datagram.len());
    let tag = datagram.get(7..HEADER).filter(|_| whole && datagram.starts_with(&head))?;
    tag.try_into().ok()
}

pub fn seal(way: Way, cluster: &str, keys: &Keys, what: &impl Serialize) -> Option<Vec<u8>> {
    let (id, key) = keys.sending();
    let mut out = MAGIC.to_vec();
    out.extend_from_slice(&[MAJOR, way as u8, id]);
    out.extend_from_slice(&cluster_tag(cluster));
    serde_json::to_writer(&mut out, what).ok()?;
    let tag = mac(key, &out).finalize().into_bytes();
    out.extend_from_slice(&tag[..TAG]);
    (out.len() <= DATAGRAM_MAX).then_some(out)
}

/// What is in it, if it is genuine and well formed; and by which key.
pub fn open<T: DeserializeOwned>(
    way: Way,
    cluster: &str,
    keys: &Keys,
    datagram: &[u8],
) -> Option<T> {
    if cluster_of(datagram, way)? != cluster_tag(cluster) {
        return None;
    }
    let (signed, tag) = datagram.split_at(datagram.len() - TAG);
    let key = keys.get(signed[6])?;
    mac(key, signed).verify_truncated_left(tag).ok()?;
    serde_json::from_slice(&signed[HEADER..]).ok()
}

/// A question that can be asked.
pub fn is_sound(asked: &Asked) -> bool {
    let ask = &asked.ask;
    (1..=64).contains(&ask.node.len()) && (1..=GROUP_NAME_MAX).contains(&ask.group.0.len())
}

fn mac(key: &[u8; 32], signed: &[u8]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(signed);
    mac
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::LeaseVerb;
    use crate::core::name::{Epoch, GroupName, NodeId};
    use crate::core::time::Duration;

    fn asked() -> Asked {
        let ask = Ask {
            node: "n".repeat(64),
            group: GroupName("g".repeat(GROUP_NAME_MAX)),
            epoch: Epoch { counter: u64::MAX, node: NodeId(15) },
            verb: LeaseVerb::Acquire,
            term: Duration::from_nanos(3_600_123_456_789),
        };
        Asked { session: u64::MAX, number: u64::MAX, challenge: u64::MAX, ask }
    }

    /// Goal: nothing that was changed anywhere, sent back, or of another cluster or key is opened.
    #[test]
    fn only_the_same_datagram_opens() {
        let keys = Keys::of(&[(1, [7; 32]), (2, [8; 32])], 2);
        let good = seal(Way::ToWitness, "office", &keys, &asked()).expect("sealed");
        let opened = |way, cluster: &str, keys: &Keys, bytes: &[u8]| {
            open::<Asked>(way, cluster, keys, bytes)
        };
        assert_eq!(opened(Way::ToWitness, "office", &keys, &good), Some(asked()));
        assert_eq!(opened(Way::ToNode, "office", &keys, &good), None);
        assert_eq!(opened(Way::ToWitness, "other", &keys, &good), None);
        let other = Keys::of(&[(2, [9; 32])], 2);
        assert_eq!(opened(Way::ToWitness, "office", &other, &good), None);
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert_eq!(opened(Way::ToWitness, "office", &keys, &bad), None, "byte {at}");
            assert_eq!(opened(Way::ToWitness, "office", &keys, &good[..at]), None);
        }
    }
}
