//! What stands on a shared disk of leases: sanlock's lockspace and its one resource, a MiB each,
//! then a header of ours, and for each node a table with a block per group, which that node alone
//! writes. All that counts of a block stands in its first 512 bytes, which no disk writes by
//! halves.
//! Big-endian:
//!
//! ```text
//!  header  0 "HAFOLEAS"  8 version 2  10 CRC-32 4  14 id 16
//!          30 length of the cluster's name 1, name, nodes 1, each: length 1, name
//!  block   0 "HALE"  4 version 1  5 stand 1  6 node 1  7 length of the group's name 1  8 CRC-32 4
//!          12 id 16  28 epoch: counter 8, node 1  37 count 8  45 nonce 8  53 term 8
//!          61 the group's name
//! ```

use super::bytes::Reader;
use super::disk::{is_whole, stamp, whole};
use super::whose;
use crate::core::name::{Epoch, GROUP_NAME_MAX, GroupName, NODES_MAX, NodeId};
use serde::{Deserialize, Serialize};

/// Whole sectors, of 512 and of 4096 bytes.
pub const BLOCK: usize = 4096;
const MIB: usize = 1024 * 1024;
/// Where sanlock has its resource; its lockspace is before it.
pub const TURN: usize = MIB;
/// Where the header is.
pub const HEADER: usize = 2 * MIB;
/// Blocks of a node: also of groups that are no more, whose epochs stay used.
pub const BLOCKS: usize = MIB / BLOCK;
pub const SIZE: usize = HEADER + MIB * (1 + NODES_MAX);
const VERSION: u16 = 1;
const BLOCK_VERSION: u8 = 1;
const MAGIC: &[u8; 8] = b"HAFOLEAS";
const BLOCK_MAGIC: &[u8; 4] = b"HALE";
const HEADER_CRC: usize = 10;
const BLOCK_CRC: usize = 8;
const SECTOR: usize = 512;

const _: () = assert!(61 + GROUP_NAME_MAX <= SECTOR);

/// Where this block of that node is.
pub fn place(node: usize, block: usize) -> usize {
    HEADER + MIB * (1 + node) + BLOCK * block
}

/// Whose leases these are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Made anew by each format.
    pub id: [u8; 16],
    pub cluster: String,
    /// The node of each table.
    pub nodes: Vec<String>,
}

/// Why a block is no header of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoHeader {
    #[error("it is not formatted for leases")]
    None,
    #[error("the header of its leases is damaged")]
    Damaged,
    #[error("its leases have format version {0}, here it is {VERSION}")]
    OtherVersion(u16),
}

impl Header {
    pub fn to_block(&self) -> Vec<u8> {
        let mut block = MAGIC.to_vec();
        block.extend_from_slice(&VERSION.to_be_bytes());
        block.extend_from_slice(&[0; 4]);
        block.extend_from_slice(&self.id);
        whose::put(&mut block, &self.cluster, &self.nodes);
        block.resize(BLOCK, 0);
        stamp_header(&mut block);
        block
    }

    pub fn read(block: &[u8]) -> Result<Header, NoHeader> {
        let mut reader = Reader::new(block);
        if reader.bytes(MAGIC.len()) != Some(MAGIC) {
            return Err(NoHeader::None);
        }
        let version = reader.u16().ok_or(NoHeader::Damaged)?;
        if block.len() != BLOCK || !is_whole(block, HEADER_CRC) {
            return Err(NoHeader::Damaged);
        }
        if version != VERSION {
            return Err(NoHeader::OtherVersion(version));
        }
        Header::fields(reader).ok_or(NoHeader::Damaged)
    }

    fn fields(mut reader: Reader) -> Option<Header> {
        reader.u32()?;
        let id = reader.bytes(16)?.try_into().ok()?;
        let (cluster, nodes) = whose::read(&mut reader)?;
        Some(Header { id, cluster, nodes })
    }

    /// What keeps a cluster of these nodes from using it, in words.
    pub fn refuses(&self, cluster: &str, nodes: &[String]) -> Option<String> {
        whose::refuses("leases", (&self.cluster, &self.nodes), cluster, nodes)
    }
}

/// How it stands with an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Stand {
    Over,
    /// Asked for; whether another node did so at the same time is not known yet.
    Claimed,
    Held,
}

const STANDS: [Stand; 3] = [Stand::Over, Stand::Claimed, Stand::Held];

/// What a node says of a group.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Lease {
    pub stand: Stand,
    pub epoch: Epoch,
    /// Grows with every write.
    pub count: u64,
    /// Another one with every question: a table that was put back, or another machine under the
    /// node's name, is seen to change.
    pub nonce: u64,
    /// For how long others wait after a change of it, in nanoseconds: the longest that the node has
    /// written for this epoch.
    pub term: u64,
}

/// A block as it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Cell {
    /// Nothing was written there since the format.
    #[default]
    Empty,
    /// No lease as a whole; a checksum of every byte, to see it change.
    Torn([u8; 4]),
    Lease(Lease),
}

/// Makes the checksum of a header right.
pub fn stamp_header(block: &mut [u8]) {
    stamp(block, HEADER_CRC);
}

/// Makes the checksum of a lease right, which is of its sector.
pub fn stamp_lease(block: &mut [u8]) {
    stamp(&mut block[..SECTOR], BLOCK_CRC);
}

impl Lease {
    pub fn to_block(&self, id: &[u8; 16], node: usize, group: &GroupName) -> Vec<u8> {
        let mut block = BLOCK_MAGIC.to_vec();
        let name = group.0.as_bytes();
        block.extend_from_slice(&[BLOCK_VERSION, self.stand as u8, node as u8]);
        block.push(name.len() as u8);
        block.extend_from_slice(&[0; 4]);
        block.extend_from_slice(id);
        block.extend_from_slice(&self.epoch.counter.to_be_bytes());
        block.push(self.epoch.node.0);
        block.extend_from_slice(&self.count.to_be_bytes());
        block.extend_from_slice(&self.nonce.to_be_bytes());
        block.extend_from_slice(&self.term.to_be_bytes());
        block.extend_from_slice(name);
        block.resize(BLOCK, 0);
        stamp_lease(&mut block);
        block
    }
}

impl Cell {
    /// With the group that it is about, if it can be told.
    pub fn read(block: &[u8], id: &[u8; 16], node: usize) -> (Cell, Option<GroupName>) {
        let sector = &block[..SECTOR];
        if sector.iter().all(|b| *b == 0) {
            return (Cell::Empty, None);
        }
        let torn = || Cell::Torn(whole(sector));
        match Cell::fields(sector, id, node) {
            Some((lease, group)) if is_whole(sector, BLOCK_CRC) => {
                (Cell::Lease(lease), Some(group))
            }
            Some(_) | None => (torn(), None),
        }
    }

    fn fields(sector: &[u8], id: &[u8; 16], node: usize) -> Option<(Lease, GroupName)> {
        let mut reader = Reader::new(sector);
        let head = reader.bytes(BLOCK_MAGIC.len()) == Some(BLOCK_MAGIC);
        let version = reader.u8()?;
        let stand = *STANDS.get(usize::from(reader.u8()?))?;
        let (of, len) = (usize::from(reader.u8()?), usize::from(reader.u8()?));
        reader.u32()?;
        let ours = reader.bytes(16)? == id;
        let epoch = Epoch { counter: reader.u64()?, node: NodeId(reader.u8()?) };
        let (count, nonce, term) = (reader.u64()?, reader.u64()?, reader.u64()?);
        let name = String::from_utf8(reader.bytes(len)?.to_vec()).ok()?;
        let sound = head && ours && version == BLOCK_VERSION && of == node;
        let sound = sound && epoch.counter <= Epoch::COUNTER_MAX;
        let sound = sound && usize::from(epoch.node.0) < NODES_MAX;
        sound.then_some((Lease { stand, epoch, count, nonce, term }, GroupName(name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ID: [u8; 16] = [9; 16];

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

        #[test]
        fn a_lease_comes_back_and_any_other_byte_is_seen(
            stand in prop::sample::select(STANDS.to_vec()),
            (counter, node) in (0..=Epoch::COUNTER_MAX, 0..NODES_MAX as u8),
            (count, nonce, term) in any::<(u64, u64, u64)>(),
            group in "[a-z0-9@.-]{1,64}",
            at in 0..SECTOR,
            flip in 1u8..,
        ) {
            let epoch = Epoch { counter, node: NodeId(node) };
            let lease = Lease { stand, epoch, count, nonce, term };
            let group = GroupName(group);
            let mut block = lease.to_block(&ID, 3, &group);
            prop_assert_eq!(block.len(), BLOCK);
            prop_assert_eq!(Cell::read(&block, &ID, 3), (Cell::Lease(lease), Some(group)));
            prop_assert!(matches!(Cell::read(&block, &ID, 2), (Cell::Torn(_), None)));
            prop_assert!(matches!(Cell::read(&block, &[8; 16], 3), (Cell::Torn(_), None)));
            block[at] ^= flip;
            prop_assert!(matches!(Cell::read(&block, &ID, 3), (Cell::Torn(_), None)));
        }
    }

    #[test]
    fn an_epoch_that_nobody_can_have_is_no_lease() {
        let read = |counter, node| {
            let epoch = Epoch { counter, node: NodeId(node) };
            let lease = Lease { stand: Stand::Over, epoch, count: 1, nonce: 2, term: 3 };
            Cell::read(&lease.to_block(&ID, 3, &GroupName("ab".into())), &ID, 3).0
        };
        assert!(matches!(read(Epoch::COUNTER_MAX, 15), Cell::Lease(_)));
        assert!(matches!(read(Epoch::COUNTER_MAX + 1, 15), Cell::Torn(_)));
        assert!(matches!(read(u64::MAX, 15), Cell::Torn(_)));
        assert!(matches!(read(1, 16), Cell::Torn(_)));
    }

    #[test]
    fn what_is_no_header_is_told_apart() {
        assert_eq!(Header::read(&[0; BLOCK]), Err(NoHeader::None));
        assert_eq!(Header::read(&[7; BLOCK]), Err(NoHeader::None));
        let nodes = vec!["n1".to_string(), "n2".into()];
        let header = Header { id: ID, cluster: "office".into(), nodes: nodes.clone() };
        let mut later = header.to_block();
        later[9] = 2;
        assert_eq!(Header::read(&later), Err(NoHeader::Damaged));
        stamp_header(&mut later);
        assert_eq!(Header::read(&later), Err(NoHeader::OtherVersion(2)));
        assert_eq!(header.refuses("office", &nodes), None);
        assert!(header.refuses("home", &nodes).expect("refused").contains("office, not home"));
        assert!(header.refuses("office", &nodes[..1]).expect("refused").contains("n1, n2, and"));
    }

    #[test]
    fn golden_bytes() {
        let nodes = vec!["n1".into(), "n2".into()];
        let block = Header { id: ID, cluster: "office".into(), nodes }.to_block();
        assert_eq!(block[..10], *b"HAFOLEAS\x00\x01");
        assert_eq!(block[30..44], *b"\x06office\x02\x02n1\x02n2");
        let epoch = Epoch { counter: 7, node: NodeId(1) };
        let lease = Lease { stand: Stand::Claimed, epoch, count: 2, nonce: 3, term: 4 };
        let block = lease.to_block(&ID, 1, &GroupName("ab".into()));
        assert_eq!(block[..8], *b"HALE\x01\x01\x01\x02");
        assert_eq!(block[28..45], *b"\0\0\0\0\0\0\0\x07\x01\0\0\0\0\0\0\0\x02");
        assert_eq!(block[45..63], *b"\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x04ab");
    }
}
