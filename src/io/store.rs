//! The state file: what a node must not forget, in two checksummed slots written in turn, in a file
//! that never grows, so that neither a torn write nor a full disk can take the last good record.
//!
//! A slot: magic (8), serial (8), length (4), SHA-256 over all of the rest (32), JSON of
//! [`Record`]. The JSON is bound to the cluster's, the node's and the machine's name.

use super::{Inbox, Input};
use crate::core::Event;
use crate::core::record::Record;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc;

/// One slot in bytes: 200 groups with the longest names take less than half.
const SLOT: u64 = 256 * 1024;
const HEAD: usize = 52;
const MAGIC: &[u8; 8] = b"HAFOST01";
/// The serial and path of what was last written since the machine booted.
pub const MARK: &str = "/run/hafailover/state";
/// Writes that may wait; the core has one under way at a time.
const QUEUE: usize = 8;

/// Whose state it is. A file of another cluster, node or machine is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    pub cluster: String,
    pub node: String,
    /// A hash of /etc/machine-id (machine-id(5) asks not to show the id itself).
    pub machine: String,
}

#[derive(Serialize, Deserialize)]
struct Slot {
    owner: Owner,
    record: Record,
}

/// The open state file.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    mark: PathBuf,
    owner: Owner,
    file: Option<File>,
    serial: u64,
    /// The locked directory: nobody else writes here while this lives.
    _lock: Lock,
}

/// Given up with its value, also where a process that was forked meanwhile has the descriptor until
/// it runs its own program.
#[derive(Debug)]
struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = rustix::fs::flock(&self.0, rustix::fs::FlockOperation::Unlock);
    }
}

impl Owner {
    pub fn here(cluster: &str, node: &str) -> Owner {
        let id = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
        let digest = Sha256::new().chain_update("hafailover ").chain_update(id.trim()).finalize();
        let machine = digest.iter().take(8).map(|b| format!("{b:02x}")).collect();
        Owner { cluster: cluster.into(), node: node.into(), machine }
    }
}

impl Store {
    /// The newest good record; `None`: there is no file. A damaged file, somebody else's, or one
    /// older than `mark` (see [`MARK`]) is an error that says what to do, never an empty state.
    pub fn open(path: &Path, owner: Owner, mark: &Path) -> Result<(Store, Option<Record>), String> {
        let at = |e: io::Error| format!("{}: {e}", path.display());
        let lock = lock(path)?;
        let store = |owner, file, serial| {
            let (path, mark) = (path.into(), mark.into());
            Store { path, mark, owner, file, serial, _lock: lock }
        };
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Ok((store(owner, None, 0), None));
            }
            Err(e) => return Err(at(e)),
        };
        let slots = [read_slot(&file, 0).map_err(at)?, read_slot(&file, 1).map_err(at)?];
        let newest = slots.into_iter().flatten().max_by_key(|(serial, _)| *serial);
        let Some((serial, json)) = newest else {
            return Err(format!(
                "{}: damaged: neither of its two copies is whole. If the other nodes are up, \
                 remove it, and this node learns its state from them",
                path.display()
            ));
        };
        let slot: Slot = serde_json::from_slice(&json).map_err(|e| {
            format!(
                "{}: written by another version of hafailover ({e}): install that one again; or, \
                 if the other nodes are up, remove the file, and this node learns its state from \
                 them",
                path.display()
            )
        })?;
        if slot.owner != owner {
            return Err(format!(
                "{}: belongs to node {} of cluster {} on another machine or under another name \
                 (a copied file?): remove it, and this node learns its state from its peers",
                path.display(),
                slot.owner.node,
                slot.owner.cluster
            ));
        }
        if let Some(last) = marked(mark, path).filter(|last| *last > serial) {
            return Err(format!(
                "{}: older than what this machine wrote since it booted (copy {serial}, and {last} \
                 was written): put back from a backup? Remove it, and this node learns its state \
                 from the other nodes",
                path.display()
            ));
        }
        Ok((store(owner, Some(file), serial), Some(slot.record)))
    }

    /// Writes and fsyncs; when this returns, the record survives a power loss.
    pub fn write(&mut self, record: &Record) -> io::Result<()> {
        let serial = self.serial + 1;
        let slot = Slot { owner: self.owner.clone(), record: record.clone() };
        let json = serde_json::to_vec(&slot).map_err(io::Error::other)?;
        let bytes = frame(serial, &json)?;
        match &self.file {
            Some(file) => {
                file.write_all_at(&bytes, (serial % 2) * SLOT)?;
                file.sync_data()?;
            }
            None => self.file = Some(create(&self.path, &bytes, (serial % 2) * SLOT)?),
        }
        self.serial = serial;
        // Without it an older copy put back is found out only by what the other nodes say.
        let _ = std::fs::write(&self.mark, format!("{serial} {}\n", self.path.display()));
        Ok(())
    }

    /// Writes on a thread of its own; answers with [`Event::Persisted`].
    pub fn spawn(mut self, inbox: Inbox) -> io::Result<StoreHandle> {
        let (sender, receiver) = mpsc::sync_channel::<(u64, Box<Record>)>(QUEUE);
        let run = move || {
            for (ticket, record) in receiver {
                let shown = self.path.display().to_string();
                let result = self.write(&record).map_err(|e| format!("{shown}: {e}"));
                let answer = Input::Event(Event::Persisted { ticket, result });
                if inbox.blocking_send(answer).is_err() {
                    return;
                }
            }
        };
        std::thread::Builder::new().name("store".into()).spawn(run)?;
        Ok(StoreHandle(sender))
    }
}

/// The daemon's end of the writing thread.
pub struct StoreHandle(mpsc::SyncSender<(u64, Box<Record>)>);

impl StoreHandle {
    /// False when the writer is that far behind: the caller answers its ticket itself.
    pub fn persist(&self, ticket: u64, record: Box<Record>) -> bool {
        self.0.try_send((ticket, record)).is_ok()
    }
}

/// The serial that was last written to that file, if it was in this boot.
fn marked(mark: &Path, path: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(mark).ok()?;
    let (serial, of) = text.trim_end().split_once(' ')?;
    serial.parse().ok().filter(|_| Path::new(of) == path)
}

/// The directory, locked, made if it is missing.
fn lock(path: &Path) -> Result<Lock, String> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    let at = |e: io::Error| format!("{}: {e}", dir.display());
    std::fs::create_dir_all(dir).map_err(|e| match e.kind() {
        io::ErrorKind::PermissionDenied => format!("{}: {e}: use sudo", dir.display()),
        _ => at(e),
    })?;
    let lock = File::open(dir).map_err(at)?;
    match rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Lock(lock)),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(format!(
            "{}: a running daemon has it: systemctl stop hafailover first",
            path.display()
        )),
        Err(e) => Err(at(e.into())),
    }
}

/// Preallocated, with its first record, and all of it on disk before it has its name: one that is
/// half made (a full disk, a power loss) is never found.
fn create(path: &Path, first: &[u8], at: u64) -> io::Result<File> {
    let (dir, new) = (path.parent().unwrap_or(Path::new("/")), path.with_extension("new"));
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(true).mode(0o600);
    let fill = || {
        let file = options.open(&new)?;
        file.write_all_at(&vec![0; 2 * SLOT as usize], 0)?;
        file.write_all_at(first, at)?;
        file.sync_all()?;
        std::fs::rename(&new, path)?;
        File::open(dir)?.sync_all()?;
        Ok(file)
    };
    // What there was of room is given back.
    fill().inspect_err(|_| drop(std::fs::remove_file(&new)))
}

fn frame(serial: u64, json: &[u8]) -> io::Result<Vec<u8>> {
    if json.len() + HEAD > SLOT as usize {
        return Err(io::Error::other("the state is larger than a slot of the state file"));
    }
    let mut bytes = Vec::with_capacity(HEAD + json.len());
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&serial.to_be_bytes());
    bytes.extend_from_slice(&(json.len() as u32).to_be_bytes());
    let sum = Sha256::new().chain_update(&bytes).chain_update(json).finalize();
    bytes.extend_from_slice(&sum);
    bytes.extend_from_slice(json);
    Ok(bytes)
}

/// Serial and JSON of a copy that is whole. One that cannot be read is an error: the other one
/// may be older.
fn read_slot(file: &File, n: u64) -> io::Result<Option<(u64, Vec<u8>)>> {
    let read = |bytes: &mut [u8], at: u64| match file.read_exact_at(bytes, n * SLOT + at) {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        result => result.map(|()| true),
    };
    let mut head = [0; HEAD];
    if !read(&mut head, 0)? || &head[..8] != MAGIC {
        return Ok(None);
    }
    let (start, sum) = head.split_at(20);
    let serial = u64::from_be_bytes(start[8..16].try_into().expect("eight bytes"));
    let length = u32::from_be_bytes(start[16..20].try_into().expect("four bytes")) as usize;
    let mut json = vec![0; length.min(SLOT as usize)];
    if length + HEAD > SLOT as usize || !read(&mut json, HEAD as u64)? {
        return Ok(None);
    }
    let real = Sha256::new().chain_update(start).chain_update(&json).finalize();
    Ok((real[..] == *sum).then_some((serial, json)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner() -> Owner {
        Owner { cluster: "c".into(), node: "n".into(), machine: "m".into() }
    }

    fn record(serial: u64) -> Record {
        Record { serial, known: true, ..Record::default() }
    }

    fn open(path: &Path) -> Result<(Store, Option<Record>), String> {
        Store::open(path, owner(), &path.with_extension("mark"))
    }

    /// With a first record, on a disk of its own.
    fn first() -> (tempfile::TempDir, PathBuf, Store) {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("state");
        let (mut store, _) = open(&path).expect("missing is no error");
        store.write(&record(1)).expect("written");
        (dir, path, store)
    }

    fn reopen(path: &Path) -> Result<Option<Record>, String> {
        open(path).map(|(_, record)| record)
    }

    #[test]
    fn a_torn_write_leaves_the_record_before_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("state");
        let (mut store, none) = open(&path).expect("missing is no error");
        assert_eq!(none, None);
        for n in 1..=5 {
            store.write(&record(n)).expect("written");
        }
        drop(store);
        assert_eq!(reopen(&path), Ok(Some(record(5))));
        std::fs::remove_file(path.with_extension("mark")).expect("a power loss takes it");
        // The fifth write went to slot 1; whatever byte of it is torn, the fourth is found.
        let whole = std::fs::read(&path).expect("readable");
        for at in (SLOT as usize..SLOT as usize + 150).step_by(3) {
            let mut torn = whole.clone();
            torn[at] ^= 0xff;
            std::fs::write(&path, &torn).expect("written");
            assert_eq!(reopen(&path), Ok(Some(record(4))), "byte {at}");
        }
    }

    /// Goal: a copy that is whole but cannot be understood (another version wrote it) is not
    /// passed over for the older one beside it: that would be a lower epoch.
    #[test]
    fn a_whole_copy_of_another_version_is_never_an_older_state() {
        let (_dir, path, store) = first();
        let later = frame(2, br#"{"owner":"of a later version"}"#).expect("fits");
        store.file.as_ref().expect("open").write_all_at(&later, 0).expect("written");
        drop(store);
        let refused = reopen(&path).expect_err("refused");
        assert!(refused.contains("another version"), "{refused}");
    }

    #[test]
    fn a_damaged_or_foreign_file_is_never_an_empty_state() {
        let (_dir, path, store) = first();
        drop(store);
        let other = Owner { node: "other".into(), ..owner() };
        assert!(Store::open(&path, other, &path).expect_err("refused").contains("copied"));
        std::fs::write(&path, b"").expect("truncated");
        assert!(reopen(&path).expect_err("refused").contains("damaged"));
    }

    #[test]
    fn an_older_copy_is_refused_in_the_boot_that_wrote_later_ones() {
        let (_dir, path, mut store) = first();
        let backup = std::fs::read(&path).expect("readable");
        store.write(&record(2)).expect("written");
        drop(store);
        assert_eq!(reopen(&path), Ok(Some(record(2))));
        std::fs::write(&path, backup).expect("put back");
        let refused = reopen(&path).expect_err("refused");
        assert!(refused.contains("copy 1, and 2 was written"), "{refused}");
        // As it says: without the file the node learns, and writes anew.
        std::fs::remove_file(&path).expect("removed");
        let (mut store, none) = open(&path).expect("missing is no error");
        assert_eq!(none, None);
        store.write(&record(1)).expect("written");
        drop(store);
        assert_eq!(reopen(&path), Ok(Some(record(1))));
    }
}
