//! Heartbeats and control requests as bytes. Pure: no sockets, no clock.
//!
//! A frame is a clear header, the body, and a tag over both and over the cluster and the link:
//!
//! ```text
//!  0      4     5     6     7        11        19      27   28
//!  "HAFO" major minor keyid sender   session   seq     link body ... tag (16 bytes)
//! ```
//!
//! Big-endian. A newer minor version only adds at the end of the body; a newer major one is
//! refused. Nothing but the header is looked at before the tag (HMAC-SHA-256, RFC 2104, cut to 128
//! bits as RFC 2104 section 5 allows) verifies.

pub mod body;
pub mod control;
pub mod keys;
pub mod line;
mod window;

use crate::core::heartbeat::Heartbeat;
use crate::core::name::{LinkId, NodeId, Session};
use hmac::{Hmac, KeyInit, Mac};
use keys::Keys;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use window::Windows;

/// Longest frame in bytes: sixteen nodes and a full page of groups with the longest names. Two
/// nodes with a full page stay within one Ethernet frame.
pub const FRAME_MAX: usize = 4000;
pub const MAJOR: u8 = 1;
pub const MINOR: u8 = 0;
const MAGIC: &[u8; 4] = b"HAFO";
const HEADER: usize = 28;
const TAG: usize = 16;

/// Why a frame was not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("not a hafailover frame")]
    Noise,
    #[error("protocol version {0}: upgrade hafailover on this node")]
    NewerMajor(u8),
    #[error("key {0} is not in the key file: copy the key file to all nodes")]
    UnknownKey(u8),
    #[error("wrong tag: another key, another cluster, or another link")]
    BadTag,
    #[error("no such node in the configuration")]
    UnknownNode,
    #[error("our own frame")]
    Own,
    #[error("seen before, or too old")]
    Replay,
    #[error("of a session that has ended")]
    OldSession,
    #[error("genuine, but malformed")]
    Malformed,
}

/// Seals and opens frames for one node of one cluster.
#[derive(Clone, Debug)]
pub struct Codec {
    cluster: String,
    me: NodeId,
    roster: Roster,
    keys: Keys,
    windows: BTreeMap<NodeId, Windows>,
}

/// Nodes travel as tags made of their names, so that two files that list them in different order
/// confuse nobody.
#[derive(Clone, Debug)]
pub struct Roster(Vec<u32>);

impl Roster {
    pub fn new(cluster: &str, nodes: &[String]) -> Roster {
        let tag = |name: &String| {
            let digest = Sha256::new().chain_update(cluster).chain_update([0]).chain_update(name);
            let bytes = digest.finalize();
            u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
        };
        Roster(nodes.iter().map(tag).collect())
    }

    fn tag(&self, node: NodeId) -> u32 {
        self.0.get(usize::from(node.0)).copied().unwrap_or_default()
    }

    fn node(&self, tag: u32) -> Option<NodeId> {
        self.0.iter().position(|t| *t == tag).map(|n| NodeId(n as u8))
    }
}

impl Codec {
    pub fn new(cluster: &str, nodes: &[String], me: NodeId, keys: Keys) -> Codec {
        Codec {
            cluster: cluster.into(),
            me,
            roster: Roster::new(cluster, nodes),
            keys,
            windows: BTreeMap::new(),
        }
    }

    /// New keys, for a rotation without an outage; sessions and windows stay.
    pub fn rekey(&mut self, keys: Keys) {
        self.keys = keys;
    }

    /// The sealed frame, or `None` if it would be longer than [`FRAME_MAX`].
    pub fn encode(&self, beat: &Heartbeat) -> Option<Vec<u8>> {
        let (id, key) = self.keys.sending();
        let mut frame = Vec::with_capacity(512);
        frame.extend_from_slice(MAGIC);
        frame.extend_from_slice(&[MAJOR, MINOR, id]);
        frame.extend_from_slice(&self.roster.tag(beat.from).to_be_bytes());
        frame.extend_from_slice(&beat.session.0.to_be_bytes());
        frame.extend_from_slice(&beat.seq.to_be_bytes());
        frame.push(beat.link.0);
        body::write(&mut frame, beat, &self.roster);
        let tag = self.tag(key, &frame);
        frame.extend_from_slice(&tag);
        (frame.len() <= FRAME_MAX).then_some(frame)
    }

    /// The heartbeat in a frame that came in on `link`, if it is genuine, fresh and well formed.
    pub fn decode(&mut self, link: LinkId, frame: &[u8]) -> Result<Heartbeat, Refusal> {
        if frame.len() < HEADER + TAG || frame.len() > FRAME_MAX || &frame[..4] != MAGIC {
            return Err(Refusal::Noise);
        }
        let (signed, tag) = frame.split_at(frame.len() - TAG);
        let key = self.keys.get(signed[6]).ok_or(Refusal::UnknownKey(signed[6]))?;
        if !self.verify(key, signed, tag) {
            return Err(Refusal::BadTag);
        }
        if signed[4] > MAJOR {
            return Err(Refusal::NewerMajor(signed[4]));
        }
        let mut header = body::Reader::new(&signed[7..]);
        let malformed = Refusal::Malformed;
        let sender = header.u32().ok_or(malformed)?;
        let session = Session(header.u64().ok_or(malformed)?);
        let seq = header.u64().ok_or(malformed)?;
        if header.u8() != Some(link.0) {
            return Err(Refusal::BadTag);
        }
        let from = self.roster.node(sender).ok_or(Refusal::UnknownNode)?;
        if from == self.me {
            return Err(Refusal::Own);
        }
        self.windows.entry(from).or_default().accept(session, link, seq)?;
        let head = body::Head { from, session, seq, link };
        body::read(&signed[HEADER..], head, &self.roster).ok_or(malformed)
    }

    /// This session of that node has shown that it lives now (it echoed our session): frames of
    /// its earlier sessions are refused from now on.
    pub fn accept_session(&mut self, node: NodeId, session: Session) {
        self.windows.entry(node).or_default().settle(session);
    }

    /// The cluster is bound in, and the link and the sender are in the header: a frame copied to
    /// another cluster or link, or sent back, does not verify or does not match.
    fn mac(&self, key: &[u8; 32], signed: &[u8]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
        mac.update(&(self.cluster.len() as u32).to_be_bytes());
        mac.update(self.cluster.as_bytes());
        mac.update(signed);
        mac
    }

    fn tag(&self, key: &[u8; 32], signed: &[u8]) -> [u8; TAG] {
        let full = self.mac(key, signed).finalize().into_bytes();
        let mut tag = [0; TAG];
        tag.copy_from_slice(&full[..TAG]);
        tag
    }

    fn verify(&self, key: &[u8; 32], signed: &[u8], tag: &[u8]) -> bool {
        self.mac(key, signed).verify_truncated_left(tag).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::body::tests::sample;

    fn codec(me: u8, cluster: &str, key: u8) -> Codec {
        let keys = Keys::of(&[(1, [key; 32])], 1);
        Codec::new(cluster, &["a".into(), "b".into()], NodeId(me), keys)
    }

    #[test]
    fn a_frame_arrives_once_and_only_where_it_was_sent() {
        let beat = sample(5);
        let frame = codec(0, "office", 7).encode(&beat).expect("fits");
        let mut b = codec(1, "office", 7);
        assert_eq!(b.decode(LinkId(1), &frame).as_ref(), Ok(&beat));
        assert_eq!(b.decode(LinkId(1), &frame), Err(Refusal::Replay));
        assert_eq!(b.decode(LinkId(0), &frame), Err(Refusal::BadTag), "another link");
        assert_eq!(codec(1, "lab", 7).decode(LinkId(1), &frame), Err(Refusal::BadTag));
        assert_eq!(codec(1, "office", 8).decode(LinkId(1), &frame), Err(Refusal::BadTag));
        assert_eq!(codec(0, "office", 7).decode(LinkId(1), &frame), Err(Refusal::Own));
        let mut other = b.clone();
        other.rekey(Keys::of(&[(2, [7; 32])], 2));
        assert_eq!(other.decode(LinkId(1), &frame), Err(Refusal::UnknownKey(1)));
    }

    #[test]
    fn every_flipped_bit_is_refused() {
        let frame = codec(0, "office", 7).encode(&sample(5)).expect("fits");
        for n in 0..frame.len() {
            let mut bad = frame.clone();
            bad[n] ^= 0x10;
            assert!(codec(1, "office", 7).decode(LinkId(1), &bad).is_err(), "byte {n}");
        }
    }

    #[test]
    fn an_ended_session_stays_ended_and_a_new_one_is_let_in() {
        let mut beat = sample(5);
        let a = codec(0, "office", 7);
        let mut b = codec(1, "office", 7);
        let old = a.encode(&beat).expect("fits");
        assert!(b.decode(LinkId(1), &old).is_ok());
        b.accept_session(NodeId(0), beat.session);
        let first = beat.session;
        beat.session = Session(99);
        assert!(b.decode(LinkId(1), &a.encode(&beat).expect("fits")).is_ok());
        b.accept_session(NodeId(0), beat.session);
        beat.session = first;
        beat.seq = 1000;
        let again = a.encode(&beat).expect("fits");
        assert_eq!(b.decode(LinkId(1), &again), Err(Refusal::OldSession));
    }

    #[test]
    fn two_keys_rotate_without_an_outage() {
        let both = |used| Keys::of(&[(1, [1; 32]), (2, [2; 32])], used);
        let nodes = ["a".to_string(), "b".to_string()];
        let a = Codec::new("office", &nodes, NodeId(0), both(2));
        let mut b = Codec::new("office", &nodes, NodeId(1), both(1));
        assert!(b.decode(LinkId(1), &a.encode(&sample(5)).expect("fits")).is_ok());
    }
}
