//! One node's state file: the record in the encoding that the shipped store writes (JSON), the
//! slot that is being written and the one before it, and old copies for a restore from a backup.

use hafailover::core::record::Record;

#[derive(Clone, Debug, Default)]
pub struct Disk {
    slot: Option<Vec<u8>>,
    under_way: Option<Vec<u8>>,
    history: Vec<Vec<u8>>,
    pub full_until: u64,
    pub slow_until: u64,
}

/// Copies kept for a restore.
const HISTORY: usize = 24;

impl Disk {
    pub fn begin(&mut self, record: &Record) {
        self.under_way = Some(serde_json::to_vec(record).expect("a record is JSON"));
    }

    pub fn is_writing(&self) -> bool {
        self.under_way.is_some()
    }

    pub fn end(&mut self, good: bool) {
        let Some(bytes) = self.under_way.take().filter(|_| good) else { return };
        if let Some(old) = self.slot.replace(bytes) {
            if self.history.len() == HISTORY {
                self.history.remove(0);
            }
            self.history.push(old);
        }
    }

    /// The daemon or the machine died: what was being written may have landed, or was torn, and
    /// then the other slot counts.
    pub fn crash(&mut self, landed: bool) {
        self.end(landed);
        self.under_way = None;
    }

    pub fn read(&self) -> Option<Record> {
        let bytes = self.slot.as_ref()?;
        Some(serde_json::from_slice(bytes).expect("what was written is read again"))
    }

    pub fn lose(&mut self) {
        *self =
            Disk { full_until: self.full_until, slow_until: self.slow_until, ..Disk::default() };
    }

    /// A backup is put back; false: there is none.
    pub fn restore(&mut self, pick: usize) -> bool {
        let Some(old) = self.history.get(pick % self.history.len().max(1)) else { return false };
        self.slot = Some(old.clone());
        true
    }
}
