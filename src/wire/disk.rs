//! What stands on a shared disk that is a heartbeat link: a header, and a slot for each node, each
//! a block of whole sectors. A slot holds the newest frames of its node, numbered, so that a reader
//! that looks now and then misses none that came between. Big-endian:
//!
//! ```text
//!  header  0 "HAFODISK"  8 version 2  10 CRC-32 4  14 id 16  30 block 4  34 slots 1
//!          35 length of the cluster's name 1, name, nodes 1, each: length 1, name
//!  slot    0 "HASL"  4 version 1  5 slot 1  6 frames 2  8 CRC-32 4  12 id 16
//!          28 number of the newest frame 8  36 length 4  40 each frame: length 2, bytes
//! ```
//!
//! The CRC (over header and payload, itself as zero) tells a torn or foreign block; who wrote a
//! frame is proved by the frame's own seal.

use super::FRAME_MAX;
use super::bytes::Reader;
use super::whose;
use crate::core::name::NODES_MAX;
use crc::{CRC_32_ISO_HDLC, Crc};
use std::collections::VecDeque;

const CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);
/// Whole sectors, of 512 and of 4096 bytes.
pub const BLOCK: usize = 8192;
/// The header and a slot for each node that a cluster may have.
pub const SIZE: usize = BLOCK * (1 + NODES_MAX);
pub const VERSION: u16 = 1;
const SLOT_VERSION: u8 = 1;
const MAGIC: &[u8; 8] = b"HAFODISK";
const SLOT_MAGIC: &[u8; 4] = b"HASL";
const HEADER_CRC: usize = 10;
const SLOT_CRC: usize = 8;
const SLOT_HEAD: usize = 40;
const ROOM: usize = BLOCK - SLOT_HEAD;

// Two of the longest frames fit.
const _: () = assert!(ROOM >= 2 * (FRAME_MAX + 2));

/// Whose slots these are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Made anew by each format: slots of an earlier one count for nothing.
    pub id: [u8; 16],
    pub cluster: String,
    /// The node of each slot.
    pub nodes: Vec<String>,
}

/// Why a block is no header of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoHeader {
    #[error("nothing but zeros stands there")]
    Empty,
    #[error("something else than hafailover's slots stands there")]
    Foreign,
    #[error("the header of hafailover's slots is damaged")]
    Damaged,
    #[error("its slots have format version {0}, here it is {VERSION}")]
    OtherVersion(u16),
}

impl Header {
    pub fn to_block(&self) -> Vec<u8> {
        let mut block = MAGIC.to_vec();
        block.extend_from_slice(&VERSION.to_be_bytes());
        block.extend_from_slice(&[0; 4]);
        block.extend_from_slice(&self.id);
        block.extend_from_slice(&(BLOCK as u32).to_be_bytes());
        block.push(NODES_MAX as u8);
        whose::put(&mut block, &self.cluster, &self.nodes);
        block.resize(BLOCK, 0);
        stamp_header(&mut block);
        block
    }

    pub fn read(block: &[u8]) -> Result<Header, NoHeader> {
        if block.iter().all(|b| *b == 0) {
            return Err(NoHeader::Empty);
        }
        let mut reader = Reader::new(block);
        if reader.bytes(MAGIC.len()) != Some(MAGIC) {
            return Err(NoHeader::Foreign);
        }
        let damaged = NoHeader::Damaged;
        let version = reader.u16().ok_or(damaged.clone())?;
        // Magic, version and checksum stand there in every version to come.
        if block.len() != BLOCK || !is_whole(block, HEADER_CRC) {
            return Err(damaged);
        }
        if version != VERSION {
            return Err(NoHeader::OtherVersion(version));
        }
        Header::fields(reader).ok_or(damaged)
    }

    fn fields(mut reader: Reader) -> Option<Header> {
        reader.u32()?;
        let id = reader.bytes(16)?.try_into().ok()?;
        let sizes = (reader.u32()? as usize, usize::from(reader.u8()?));
        let (cluster, nodes) = whose::read(&mut reader)?;
        (sizes == (BLOCK, NODES_MAX)).then_some(Header { id, cluster, nodes })
    }

    /// What keeps a cluster of these nodes from using it, in words.
    pub fn refuses(&self, cluster: &str, nodes: &[String]) -> Option<String> {
        whose::refuses("slots", (&self.cluster, &self.nodes), cluster, nodes)
    }
}

/// The newest frames of a node, oldest first, and the number of the last one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slot {
    pub number: u64,
    pub frames: VecDeque<Vec<u8>>,
}

/// The block is no slot of this number as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Torn;

impl Slot {
    /// Takes in a frame as the newest; the oldest go where there is no room.
    pub fn push(&mut self, frame: Vec<u8>) {
        if frame.len() > FRAME_MAX {
            return;
        }
        self.number = self.number.wrapping_add(1);
        self.frames.push_back(frame);
        while self.frames.iter().map(|f| f.len() + 2).sum::<usize>() > ROOM {
            self.frames.pop_front();
        }
    }

    pub fn to_block(&self, id: &[u8; 16], slot: u8) -> Vec<u8> {
        let payload: Vec<u8> = self
            .frames
            .iter()
            .flat_map(|f| (f.len() as u16).to_be_bytes().into_iter().chain(f.iter().copied()))
            .collect();
        let mut block = SLOT_MAGIC.to_vec();
        block.extend_from_slice(&[SLOT_VERSION, slot]);
        block.extend_from_slice(&(self.frames.len() as u16).to_be_bytes());
        block.extend_from_slice(&[0; 4]);
        block.extend_from_slice(id);
        block.extend_from_slice(&self.number.to_be_bytes());
        block.extend_from_slice(&(payload.len() as u32).to_be_bytes());
        block.extend_from_slice(&payload);
        stamp_slot(&mut block);
        block.resize(BLOCK, 0);
        block
    }

    /// `None`: nothing was written there since the format with this id.
    pub fn read(block: &[u8], id: &[u8; 16], slot: u8) -> Result<Option<Slot>, Torn> {
        if block.iter().all(|b| *b == 0) {
            return Ok(None);
        }
        let mut reader = Reader::new(block);
        let head = reader.bytes(SLOT_MAGIC.len()).filter(|magic| *magic == SLOT_MAGIC);
        let version = head.and_then(|_| reader.u8());
        let index = reader.u8().filter(|_| version == Some(SLOT_VERSION)).ok_or(Torn)?;
        let count = reader.u16().ok_or(Torn)?;
        reader.u32().ok_or(Torn)?;
        let owner = reader.bytes(16).ok_or(Torn)?;
        let number = reader.u64().ok_or(Torn)?;
        let len = reader.u32().ok_or(Torn)? as usize;
        let payload = reader.bytes(len).ok_or(Torn)?;
        if !is_whole(&block[..SLOT_HEAD + len], SLOT_CRC) {
            return Err(Torn);
        }
        if owner != id {
            return Ok(None);
        }
        let mut reader = Reader::new(payload);
        let mut frame = || {
            let len = usize::from(reader.u16()?);
            reader.bytes(len).map(<[u8]>::to_vec).filter(|_| len <= FRAME_MAX)
        };
        let frames = (0..count).map(|_| frame()).collect::<Option<VecDeque<_>>>().ok_or(Torn)?;
        (index == slot).then_some(Some(Slot { number, frames })).ok_or(Torn)
    }
}

/// How far a slot was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen(Option<u64>);

impl Seen {
    /// The frames that came since the last look; all that is known of those of a first look is
    /// that they are old, and of a look so late that they may be (`timely`).
    pub fn look(&mut self, slot: &Slot, timely: bool) -> Vec<Vec<u8>> {
        let before = self.0.replace(slot.number);
        let new = before.map_or(0, |before| slot.number.saturating_sub(before));
        let new = usize::try_from(new).unwrap_or(usize::MAX).min(slot.frames.len());
        let skipped = if timely { slot.frames.len() - new } else { slot.frames.len() };
        slot.frames.iter().skip(skipped).cloned().collect()
    }

    /// Nothing that stands there now is new.
    pub fn set(&mut self, number: u64) {
        self.0 = Some(number);
    }

    pub fn number(&self) -> Option<u64> {
        self.0
    }
}

/// Makes the checksum of a header right.
pub fn stamp_header(block: &mut [u8]) {
    stamp(block, HEADER_CRC);
}

/// Makes the checksum that stands there right.
pub(super) fn stamp(block: &mut [u8], at: usize) {
    let sum = checksum(block, at);
    block[at..at + 4].copy_from_slice(&sum);
}

/// Makes the checksum of a slot right, which is of what it says its length is.
pub fn stamp_slot(block: &mut [u8]) {
    let len = block[SLOT_HEAD - 4..SLOT_HEAD].iter().fold(0, |len, b| len << 8 | usize::from(*b));
    let end = block.len().min(SLOT_HEAD + len);
    let sum = checksum(&block[..end], SLOT_CRC);
    block[SLOT_CRC..SLOT_CRC + 4].copy_from_slice(&sum);
}

pub(super) fn is_whole(block: &[u8], at: usize) -> bool {
    checksum(block, at) == block[at..at + 4]
}

/// Of all that stands there, its checksum with it.
pub(super) fn whole(block: &[u8]) -> [u8; 4] {
    CRC.checksum(block).to_be_bytes()
}

/// Of a block, with the checksum that stands in it taken as zero.
fn checksum(block: &[u8], at: usize) -> [u8; 4] {
    let mut digest = CRC.digest();
    digest.update(&block[..at]);
    digest.update(&[0; 4]);
    digest.update(&block[at + 4..]);
    digest.finalize().to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ID: [u8; 16] = [9; 16];

    fn header() -> Header {
        let nodes = vec!["ttisrv1".into(), "ttisrv2".into()];
        Header { id: ID, cluster: "office".into(), nodes }
    }

    fn slot(frames: &[&[u8]]) -> Slot {
        let mut slot = Slot::default();
        frames.iter().for_each(|f| slot.push(f.to_vec()));
        slot
    }

    proptest! {
        #[test]
        fn a_header_comes_back_and_any_other_byte_is_seen(
            cluster in "\\PC{1,16}",
            nodes in prop::collection::vec("[a-z0-9.-]{1,64}", 2..=16),
            at in 0..BLOCK,
            flip in 1u8..,
        ) {
            let header = Header { id: ID, cluster, nodes };
            let mut block = header.to_block();
            prop_assert_eq!(block.len(), BLOCK);
            prop_assert_eq!(Header::read(&block), Ok(header));
            block[at] ^= flip;
            prop_assert!(Header::read(&block).is_err());
        }

        /// Sectors reach the disk in any order: whatever mixture of two writes is read, it is one
        /// of them as a whole, or it is seen to be torn.
        #[test]
        fn a_torn_slot_is_never_taken_for_a_whole_one(
            old in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..900), 1..12),
            new in prop::collection::vec(any::<u8>(), 1..4000),
            sectors in any::<u16>(),
        ) {
            let mut slot = Slot::default();
            old.into_iter().for_each(|f| slot.push(f));
            let before = slot.clone();
            slot.push(new);
            let (one, other) = (before.to_block(&ID, 3), slot.to_block(&ID, 3));
            let mut torn = one;
            for n in (0..16).filter(|n| sectors >> n & 1 == 1) {
                torn[n * 512..][..512].copy_from_slice(&other[n * 512..][..512]);
            }
            if let Ok(read) = Slot::read(&torn, &ID, 3) {
                prop_assert!(read == Some(before) || read == Some(slot));
            }
        }

        /// However often a reader looks: no frame twice, none out of order, and none is missed
        /// that was still there.
        #[test]
        fn every_frame_is_read_once_and_in_order(
            steps in prop::collection::vec((any::<bool>(), 1usize..3000), 1..80),
        ) {
            let (mut slot, mut seen) = (Slot::default(), Seen::default());
            seen.look(&slot, true);
            let (mut sent, mut got) = (0u32, Vec::new());
            for (look, len) in steps {
                let mut frame = vec![0; len.max(4)];
                frame[..4].copy_from_slice(&sent.to_be_bytes());
                sent += 1;
                slot.push(frame);
                if look {
                    let block = slot.to_block(&ID, 0);
                    let read = Slot::read(&block, &ID, 0).expect("whole").expect("written");
                    let there = read.frames.len();
                    let news = seen.look(&read, true);
                    let number = |f: &Vec<u8>| u32::from_be_bytes([f[0], f[1], f[2], f[3]]);
                    let last = got.last().copied();
                    got.extend(news.iter().map(number));
                    let due = (sent as usize - last.map_or(0, |n: u32| n as usize + 1)).min(there);
                    prop_assert_eq!(news.len(), due);
                }
            }
            prop_assert!(got.is_sorted() && got.windows(2).all(|w| w[0] < w[1]));
        }
    }

    #[test]
    fn what_is_no_header_is_told_apart() {
        assert_eq!(Header::read(&[0; BLOCK]), Err(NoHeader::Empty));
        assert_eq!(Header::read(&[7; BLOCK]), Err(NoHeader::Foreign));
        let mut later = header().to_block();
        later[9] = 2;
        assert_eq!(Header::read(&later), Err(NoHeader::Damaged));
        stamp_header(&mut later);
        assert_eq!(Header::read(&later), Err(NoHeader::OtherVersion(2)));
    }

    #[test]
    fn slots_of_others_are_refused() {
        let nodes: Vec<String> = vec!["ttisrv1".into(), "ttisrv2".into()];
        assert_eq!(header().refuses("office", &nodes), None);
        let other = header().refuses("home", &nodes).expect("refused");
        assert!(other.contains("cluster office, not home"), "{other}");
        let turned = header().refuses("office", &[nodes[1].clone(), nodes[0].clone()]);
        assert!(turned.expect("refused").contains("ttisrv1, ttisrv2, and"));
    }

    /// Goal: what a dead node left, what an earlier format left, and another node's block are no
    /// news.
    #[test]
    fn only_what_changes_between_two_looks_is_new() {
        let mut slot = slot(&[b"one", b"two"]);
        let mut seen = Seen::default();
        assert!(seen.look(&slot, true).is_empty(), "a first look");
        slot.push(b"three".to_vec());
        assert_eq!(seen.look(&slot, true), [b"three"]);
        assert!(seen.look(&slot, true).is_empty());
        slot.push(b"four".to_vec());
        assert!(seen.look(&slot, false).is_empty(), "too late");
        assert!(seen.look(&slot, true).is_empty());
        let again = self::slot(&[b"anew"]);
        assert!(seen.look(&again, true).is_empty(), "its numbers begin anew");
        let block = slot.to_block(&ID, 1);
        assert_eq!(Slot::read(&block, &[8; 16], 1), Ok(None));
        assert_eq!(Slot::read(&block, &ID, 2), Err(Torn));
        assert_eq!(Slot::read(&[0; BLOCK], &ID, 2), Ok(None));
    }

    #[test]
    fn golden_bytes() {
        let block = header().to_block();
        assert_eq!(block[..14], *b"HAFODISK\x00\x01\xb7\xd3\xf2\x5c");
        let block = slot(&[b"ab"]).to_block(&ID, 1);
        assert_eq!(block[..8], *b"HASL\x01\x01\x00\x01");
        assert_eq!(block[28..46], *b"\0\0\0\0\0\0\0\x01\0\0\0\x04\0\x02ab\0\0");
    }
}
