//! Numbers, nodes, epochs and length-prefixed entries as big-endian bytes. Knows nothing of what
//! they mean.

use super::Roster;
use crate::core::name::{Epoch, NodeId};
use crate::core::time::Duration;

pub struct Writer<'a> {
    pub out: &'a mut Vec<u8>,
    pub roster: &'a Roster,
}

impl Writer<'_> {
    pub fn u8(&mut self, n: u8) {
        self.out.push(n);
    }
    pub fn u16(&mut self, n: u16) {
        self.out.extend_from_slice(&n.to_be_bytes());
    }
    pub fn u32(&mut self, n: u32) {
        self.out.extend_from_slice(&n.to_be_bytes());
    }
    pub fn u64(&mut self, n: u64) {
        self.out.extend_from_slice(&n.to_be_bytes());
    }
    pub fn node(&mut self, node: NodeId) {
        self.u32(self.roster.tag(node));
    }
    /// Whole nanoseconds, so that nothing is rounded; at most 584 years.
    pub fn duration(&mut self, d: Duration) {
        self.u64(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX));
    }
    pub fn epoch(&mut self, epoch: Epoch) {
        self.u64(epoch.counter);
        self.node(epoch.node);
    }
    pub fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.u8(u8::from(value.is_some()));
        if let Some(value) = value {
            write(self, value);
        }
    }
    /// What `write` writes, behind its length in two bytes.
    pub fn entry(&mut self, write: impl FnOnce(&mut Self)) {
        let at = self.out.len();
        self.u16(0);
        write(self);
        let len = u16::try_from(self.out.len() - at - 2).unwrap_or(u16::MAX);
        self.out[at..at + 2].copy_from_slice(&len.to_be_bytes());
    }
    /// At most 255 entries behind their count.
    pub fn list<T>(
        &mut self,
        items: impl ExactSizeIterator<Item = T>,
        write: impl Fn(&mut Self, T),
    ) {
        let count = items.len().min(usize::from(u8::MAX));
        self.u8(count as u8);
        for item in items.take(count) {
            self.entry(|w| write(w, item));
        }
    }
}

/// Reads from the front; `None` at the first thing that is not there or cannot be.
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader(bytes)
    }
    pub fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(len)?;
        self.0 = tail;
        Some(head)
    }
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.0.split_first_chunk::<N>()?;
        self.0 = tail;
        Some(*head)
    }
    pub fn u8(&mut self) -> Option<u8> {
        self.take::<1>().map(|b| b[0])
    }
    pub fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_be_bytes)
    }
    pub fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_be_bytes)
    }
    pub fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }
    pub fn duration(&mut self) -> Option<Duration> {
        self.u64().map(Duration::from_nanos)
    }
    /// Outer `None`: bytes are missing. Inner: a node that we do not know.
    pub fn node(&mut self, roster: &Roster) -> Option<Option<NodeId>> {
        self.u32().map(|tag| roster.node(tag))
    }
    /// Inner `None`: of a node that we do not know, so not one that can be compared with others.
    pub fn epoch(&mut self, roster: &Roster) -> Option<Option<Epoch>> {
        let counter = self.u64()?;
        let node = self.node(roster)?;
        if counter == 0 {
            return Some(Some(Epoch::default()));
        }
        Some(node.map(|node| Epoch { counter, node }))
    }
    /// An epoch that bounds others from above: of a node that we do not know, the highest that
    /// this counter can be.
    pub fn bound(&mut self, roster: &Roster) -> Option<Epoch> {
        let counter = self.u64()?;
        Some(Epoch { counter, node: self.node(roster)?.unwrap_or_default() })
    }
    pub fn option<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<Option<T>> {
        match self.u8()? {
            0 => Some(None),
            1 => read(self).map(Some),
            _ => None,
        }
    }
    /// What an earlier minor version did not send: the entry may end before it.
    pub fn added<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<Option<T>> {
        if self.0.is_empty() { Some(None) } else { read(self).map(Some) }
    }
    /// One entry. What stands in it behind the last known field is a later minor version's.
    pub fn entry(&mut self) -> Option<Reader<'a>> {
        let len = self.u16()?;
        self.bytes(usize::from(len)).map(Reader)
    }
    pub fn list<T>(&mut self, read: impl Fn(&mut Reader<'a>) -> Option<T>) -> Option<Vec<T>> {
        (0..self.u8()?).map(|_| read(&mut self.entry()?)).collect()
    }
}
