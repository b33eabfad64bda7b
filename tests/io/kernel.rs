//! What the kernel says of file systems that are mounted in more than one place.

use crate::space::sh;
use hafailover::io::holders::holders;
use hafailover::io::kernel::{mounted, still_mounted};
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
    let named = holders(&mine, &device);
    other.kill().expect("killed");
    other.wait().expect("ended");
    let after = still_mounted(&device, &[]);
    assert!(!here.expect("readable"));
    assert_eq!(named, Vec::<String>::new(), "blamed for the file system below the mount point");
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
    std::thread::spawn(move || drop(sender.send(holders("/mnt", "none"))));
    let answer = answer.recv_timeout(std::time::Duration::from_secs(5));
    drop(fuse);
    assert_eq!(answer, Ok(Vec::new()));
}

/// An ext4 on a loop device, mounted, with what was made on it; gone when dropped.
struct Disk {
    dir: tempfile::TempDir,
    device: String,
    at: String,
}

impl Disk {
    fn new() -> Disk {
        let dir = tempfile::tempdir().expect("a directory");
        let (base, at) = (dir.path().display(), format!("{}/srv", dir.path().display()));
        let device = sh(&format!(
            "truncate -s 64M {base}/image && mkfs.ext4 -q {base}/image && mkdir {at} && \
             losetup --find --show {base}/image"
        ));
        let device = device.trim().to_string();
        sh(&format!("mount {device} {at}"));
        Disk { dir, device, at }
    }

    fn holders(&self) -> String {
        holders(&self.at, &self.device).join("; ")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let (at, base) = (&self.at, self.dir.path().display());
        sh(&format!(
            "swapoff {at}/swap 2> /dev/null || true; \
             losetup -j {at}/inner | cut -d: -f1 | xargs -r losetup -d; \
             umount {at}/below 2> /dev/null || true; umount {at} 2> /dev/null || true; \
             losetup -j {base}/image | cut -d: -f1 | xargs -r losetup -d"
        ));
    }
}

/// Goal: what the kernel itself does with a file system is named as its holder, with the command
/// that ends it; and each such command does.
#[test]
fn a_mount_a_loop_device_and_swap_on_it_are_named() {
    let disk = Disk::new();
    let at = &disk.at;
    let busy =
        || !Command::new("umount").arg(at).stderr(Stdio::null()).status().expect("runs").success();
    assert_eq!(disk.holders(), "");
    sh(&format!("mkdir {at}/below && mount -t tmpfs tmpfs {at}/below"));
    let named = disk.holders();
    assert!(
        named.contains(&format!("{at}/below (tmpfs) is mounted below it")) && busy(),
        "{named}"
    );
    sh(&format!("umount {at}/below && truncate -s 1M {at}/inner && losetup --find {at}/inner"));
    let named = disk.holders();
    assert!(named.contains(&format!("is a loop device over {at}/inner")) && busy(), "{named}");
    let device = named.split(' ').next().expect("its name").to_string();
    sh(&format!(
        "losetup -d {device} && dd if=/dev/zero of={at}/swap bs=1M count=2 status=none && \
         chmod 600 {at}/swap && mkswap -q {at}/swap && swapon {at}/swap"
    ));
    let named = disk.holders();
    assert!(named.contains(&format!("{at}/swap is in use as swap: swapoff {at}/swap")), "{named}");
    assert!(busy());
    sh(&format!("swapoff {at}/swap"));
    assert!(disk.holders().is_empty() && !busy(), "{}", disk.holders());
}

/// Goal: a process in a container that only works in a directory there, or maps a file of it, is
/// named as such.
#[test]
fn a_process_in_another_mount_namespace_is_named() {
    let disk = Disk::new();
    let mut other = Command::new("unshare");
    let script = format!("cd {}; echo ready; read end", disk.at);
    other.args(["--mount", "sh", "-c", &script]);
    let other = other.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut other = other.spawn().expect("unshare runs");
    let mut line = String::new();
    BufReader::new(other.stdout.as_mut().expect("piped")).read_line(&mut line).expect("ready");
    let named = disk.holders();
    other.kill().expect("killed");
    other.wait().expect("ended");
    let words = format!("pid {} (sh) works in ", other.id());
    assert!(named.contains(&words) && named.contains("in another mount namespace"), "{named}");
    assert_eq!(disk.holders(), "");
}
