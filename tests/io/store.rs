//! The state file on a file system of its own, which gets full.

use crate::space::sh;
use hafailover::core::record::Record;
use hafailover::io::store::{Owner, Store};
use std::path::Path;

fn owner() -> Owner {
    Owner { cluster: "c".into(), node: "n".into(), machine: "m".into() }
}

fn open(path: &Path) -> Result<(Store, Option<Record>), String> {
    Store::open(path, owner(), &path.with_extension("mark"))
}

fn record(serial: u64) -> Record {
    Record { serial, known: true, ..Record::default() }
}

/// Goal: a disk that is full when the state file is first made costs nothing but the time until it
/// has room again, and leaves nothing behind that a later start takes for a damaged file.
#[test]
fn a_full_disk_at_the_first_write_is_got_over() {
    // SAFETY: only this thread, which shares nothing of its file system view with others after.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }.expect("root");
    sh("mount --make-rprivate / && mount -t tmpfs -o size=300k tmpfs /mnt");
    let path = Path::new("/mnt/hafailover/state");
    let (mut store, none) = open(path).expect("missing is no error");
    assert_eq!(none, None);
    let full = store.write(&record(1)).expect_err("no room");
    assert_eq!(full.raw_os_error(), Some(libc::ENOSPC), "{full}");
    drop(store);
    let (mut store, none) = open(path).expect("nothing damaged was left");
    assert_eq!(none, None);
    store.write(&record(1)).expect_err("still no room");
    sh("mount -o remount,size=4m /mnt");
    store.write(&record(1)).expect("there is room again");
    sh("dd if=/dev/zero of=/mnt/fill bs=4k 2>/dev/null || true");
    for n in 2..6 {
        store.write(&record(n)).expect("a full disk does not stop a file that is there");
    }
    drop(store);
    assert_eq!(open(path).map(|(_, r)| r), Ok(Some(record(5))));
}

/// Goal: two daemons, or a daemon and `state create`, never write one state file.
#[test]
fn the_state_file_has_one_writer() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("state");
    let (store, _) = open(&path).expect("free");
    let refused = open(&path).expect_err("in use");
    assert!(refused.contains("systemctl stop hafailover"), "{refused}");
    drop(store);
    open(&path).expect("free again");
}
