//! Heartbeats and control requests as bytes. Pure: no sockets, no clock.
//!
//! A frame is a clear header, the body, and a tag over both and over the cluster and the link:
//!
//! ```text
//!  0      4     5     6     7        11        19      27   28
//!  "HAFO" major minor keyid sender   session   seq     link body ... tag (16 bytes)
//! ```
//!
//! Big-endian. What a newer minor version may add is said in `body`; another major one is refused.
//! Magic and major version stand there in every version to come. Nothing but the header is looked
//! at before the tag (HMAC-SHA-256, RFC 2104, cut to 128 bits as its section 5 allows) verifies.

mod body;
mod bytes;
pub mod control;
pub mod disk;
mod group;
pub mod keys;
pub mod line;
pub mod size;
pub mod table;
mod whose;
mod window;
pub mod witness;

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
pub const MINOR: u8 = 1;
const MAGIC: &[u8; 4] = b"HAFO";
const HEADER: usize = 28;
const TAG: usize = 16;

/// Why a frame was not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("not a hafailover frame")]
    Noise,
    #[error("protocol version {0}, here it is {MAJOR}: install the same hafailover on all nodes")]
    OtherMajor(u8),
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

/// The session that a frame names, before anything of it is verified.
pub fn session_of(frame: &[u8]) -> Option<Session> {
    let rest = frame.strip_prefix(MAGIC)?.get(7..15)?;
    Some(Session(u64::from_be_bytes(rest.try_into().ok()?)))
}

/// Seals and opens frames for one node of one cluster.
#[derive(Clone, Debug)]
pub struct Codec {
    cluster: String,
    me: NodeId,
    session: Session,
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
    /// `session`: ours; frames of it are our own that came back.
    pub fn new(cluster: &str, nodes: &[String], me: NodeId, session: Session, keys: Keys) -> Codec {
        Codec {
            cluster: cluster.into(),
            me,
            session,
            roster: Roster::new(cluster, nodes),
            keys,
            windows: BTreeMap::new(),
        }
    }

    /// New keys, for a rotation without an outage; sessions and windows stay.
    pub fn rekey(&mut self, keys: Keys) {
        self.keys = keys;
    }

    /// The sealed frame, or `None` if it would be longer than [`FRAME_MAX`] or cannot be said.
    pub fn encode(&self, beat: &Heartbeat) -> Option<Vec<u8>> {
        let (id, _) = self.keys.sending();
        let mut frame = Vec::with_capacity(512);
        frame.extend_from_slice(MAGIC);
        frame.extend_from_slice(&[MAJOR, MINOR, id]);
        frame.extend_from_slice(&self.roster.tag(beat.from).to_be_bytes());
        frame.extend_from_slice(&beat.session.0.to_be_bytes());
        frame.extend_from_slice(&beat.seq.to_be_bytes());
        frame.push(beat.link.0);
        if !body::write(&mut frame, beat, &self.roster) {
            return None;
        }
        self.seal(&mut frame);
        (frame.len() <= FRAME_MAX).then_some(frame)
    }

    /// Appends the tag to header and body.
    pub fn seal(&self, frame: &mut Vec<u8>) {
        let tag = self.tag(self.keys.sending().1, frame);
        frame.extend_from_slice(&tag);
    }

    /// The heartbeat in a frame that came in on `link`, if it is genuine, fresh and well formed.
    /// One under our own name is of another session: a recording, or a double of this node.
    pub fn decode(&mut self, link: LinkId, frame: &[u8]) -> Result<Heartbeat, Refusal> {
        let major = frame.strip_prefix(MAGIC).and_then(|rest| rest.first()).copied();
        match major.ok_or(Refusal::Noise)? {
            MAJOR if (HEADER + TAG..=FRAME_MAX).contains(&frame.len()) => {}
            MAJOR => return Err(Refusal::Noise),
            other => return Err(Refusal::OtherMajor(other)),
        }
        let (signed, tag) = frame.split_at(frame.len() - TAG);
        let key = self.keys.get(signed[6]).ok_or(Refusal::UnknownKey(signed[6]))?;
        if !self.verify(key, signed, tag) {
            return Err(Refusal::BadTag);
        }
        let mut header = bytes::Reader::new(&signed[7..]);
        let malformed = Refusal::Malformed;
        let sender = header.u32().ok_or(malformed)?;
        let session = Session(header.u64().ok_or(malformed)?);
        let seq = header.u64().ok_or(malformed)?;
        if header.u8() != Some(link.0) {
            return Err(Refusal::BadTag);
        }
        let from = self.roster.node(sender).ok_or(Refusal::UnknownNode)?;
        if (from, session) == (self.me, self.session) {
            return Err(Refusal::Own);
        }
        self.windows.entry(from).or_default().accept(session, link, seq)?;
        let head = body::Head { from, session, seq, link };
        body::read(&signed[HEADER..], head, &self.roster).ok_or(malformed)
    }

    /// The core has accepted this session as that node's life: frames of its earlier sessions are
    /// refused from now on.
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
mod tests;
