//! What the kernel says of file systems that are mounted in more than one place.

use crate::space::sh;
use hafailover::io::kernel::{mounted, still_mounted};
use std::process::{Command, Stdio};

/// Goal: a disk that a container keeps mounted is not released when it is unmounted here: its file
/// system is still alive and still writes.
#[test]
fn a_file_system_in_another_mount_namespace_is_still_held() {
    let dir = tempfile::tempdir().expect("a directory");
    let at = dir.path().display().to_string();
    let device = sh(&format!(
        "truncate -s 16M {at}/image && mkfs.ext4 -q {at}/image && mkdir {at}/srv && \
         losetup --find --show {at}/image"
    ));
    let device = device.trim().to_string();
    // Detached while in use: it goes with its last mount.
    sh(&format!("mount {device} {at}/srv && losetup -d {device}"));
    let mut other = Command::new("unshare");
    other.args(["--mount", "--propagation=private", "sh", "-c", "echo ready; exec sleep 1000"]);
    let mut other = other.stdout(Stdio::piped()).spawn().expect("unshare runs");
    let mut line = String::new();
    let out = other.stdout.as_mut().expect("piped");
    std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line).expect("ready");
    let mine = format!("{at}/srv");
    let bind = format!("mkdir {at}/export && mount --bind {at}/srv {at}/export && umount {at}/srv");
    let export = format!("{at}/export");
    sh(&bind);
    let bound = still_mounted(&device, &[&mine]);
    sh(&format!("umount {export}"));
    let here = mounted(&format!("{at}/srv"));
    let held = still_mounted(&device, &[]);
    other.kill().expect("killed");
    other.wait().expect("ended");
    let after = still_mounted(&device, &[]);
    assert!(!here.expect("readable"));
    let who = held.expect("readable").expect("held by the other one");
    assert!(who.contains(&format!("pid {}", other.id())), "{who}");
    assert!(bound.expect("readable").expect("bound elsewhere").contains(&export));
    assert_eq!(after.expect("readable"), None);
}
