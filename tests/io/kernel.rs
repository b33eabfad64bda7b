//! What the kernel says of file systems that are mounted in more than one place.

use crate::space::sh;
use hafailover::io::kernel::{holders, mounted, still_mounted};
use std::io::{BufRead, BufReader};
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
    BufReader::new(out).read_line(&mut line).expect("ready");
    let (mine, export) = (format!("{at}/srv"), format!("{at}/export"));
    let bind = format!("mount --bind {mine} {export}");
    sh(&format!("mkdir {export} && {bind} && umount {mine}"));
    let bound = still_mounted(&device, &[&mine]);
    sh(&format!("umount {export}"));
    let here = mounted(&mine);
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

/// Goal: a file system that does not answer (a hung NFS server; here, a FUSE without a server)
/// holds up nobody who asks what keeps it busy.
#[test]
fn a_file_system_that_does_not_answer_holds_up_nobody() {
    use std::os::fd::AsRawFd;
    // SAFETY: only this thread, which shares nothing of its file system view with others after.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }.expect("root");
    sh("mount --make-rprivate /");
    let fuse = std::fs::OpenOptions::new().read(true).write(true).open("/dev/fuse").expect("fuse");
    let options = format!("fd={},rootmode=40000,user_id=0,group_id=0\0", fuse.as_raw_fd());
    // SAFETY: the four strings end with a zero and live until it returns.
    let mounted = unsafe {
        libc::mount(
            c"none".as_ptr(),
            c"/mnt".as_ptr(),
            c"fuse".as_ptr(),
            0,
            options.as_ptr().cast(),
        )
    };
    assert_eq!(mounted, 0, "{}", std::io::Error::last_os_error());
    let (sender, answer) = std::sync::mpsc::channel();
    std::thread::spawn(move || drop(sender.send(holders("/mnt"))));
    let answer = answer.recv_timeout(std::time::Duration::from_secs(5));
    drop(fuse);
    assert_eq!(answer, Ok(Vec::new()));
}
