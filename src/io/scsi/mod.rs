//! Persistent reservations of SCSI disks (SPC-4, 5.13): who alone may write to one, kept by the
//! disk itself. `key`: what a node registers, and whose a key is; `take`: what to do next for it;
//! `persist`: sg_persist(8), which does it; `device`: which disk is meant.

pub mod device;
pub mod key;
pub mod persist;
pub mod take;

use key::Key;

/// The reservation that is taken: nobody but its holder writes. Not "registrants only": there
/// whoever registers may write, and an owner that thaws in the middle of its start still registers.
pub const TYPE: &str = "Write Exclusive";
/// The same for `--prout-type=`.
pub const TYPE_NUMBER: &str = "1";

/// What is registered at a disk, one key for each path to it, and who has it reserved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Grows with each change of what is registered; one that forgot it all begins anew.
    pub generation: u32,
    pub keys: Vec<Key>,
    pub held: Option<Held>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    pub key: Key,
    /// In the words of sg_persist.
    pub kind: String,
}
