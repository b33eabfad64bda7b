//! A second disk of the lab, small, for heartbeats and leases: a partition for each. They are loop
//! devices whose files lie on a file system of its own, so that it can be frozen: then the disk
//! hangs, as one behind a dead path does.

use super::{Lab, sh, try_sh};
use std::path::{Path, PathBuf};

/// What the nodes call its first partition, which most stories take for all of it.
pub const DEVICE: &str = "/dev/heart";
pub const SECOND: &str = "/dev/heart2";

pub struct Heart {
    at: PathBuf,
    devices: [String; 2],
}

impl Heart {
    fn new(dir: &Path) -> Heart {
        let (image, at) = (dir.join("heart"), dir.join("heart.d"));
        sh(&format!(
            "truncate -s 64M {0} && mkfs.ext4 -q -F {0} && mkdir -p {1} && \
             mount -o loop {0} {1} && truncate -s 20M {1}/1 {1}/2",
            image.display(),
            at.display()
        ));
        let attach = |n: u8| {
            let device = sh(&format!("losetup -f --show {}/{n}", at.display()));
            device.trim().to_string()
        };
        let devices = [attach(1), attach(2)];
        Heart { at, devices }
    }

    /// Nothing that is written to it comes back any more.
    pub fn hang(&self) {
        sh(&format!("fsfreeze -f {}", self.at.display()));
    }

    pub fn answer(&self) {
        let _ = try_sh(&format!("fsfreeze -u {}", self.at.display()));
    }

    pub fn at(&self) -> PathBuf {
        self.at.clone()
    }
}

impl Lab {
    /// The disk for heartbeats, at every node that is up.
    pub fn heart(&mut self) -> &Heart {
        if self.heart.is_none() {
            self.heart = Some(Heart::new(&self.dir));
        }
        (0..self.nodes.len()).for_each(|n| self.join_heart(n));
        self.heart.as_ref().expect("made above")
    }

    /// Nothing stands there any more, neither slots nor leases.
    pub fn wipe_heart(&mut self) {
        for device in self.heart().devices.clone() {
            sh(&format!("dd if=/dev/zero of={device} bs=1M count=20 conv=fsync status=none"));
        }
    }

    /// Whatever hung answers again.
    pub fn heal_heart(&self) {
        self.heart.iter().for_each(Heart::answer);
    }

    /// The path from a node to it is gone, as udev tells it: by its names.
    pub fn lose_heart(&self, n: usize) {
        self.nodes[n].must(&format!("rm -f {DEVICE} {SECOND}"));
    }

    pub fn join_heart(&self, n: usize) {
        let Some(heart) = &self.heart else { return };
        for (name, device) in [DEVICE, SECOND].iter().zip(&heart.devices) {
            let minor = device.trim_start_matches("/dev/loop");
            self.nodes[n].must(&format!("test -e {name} || mknod {name} b 7 {minor}"));
        }
    }
}

impl Drop for Heart {
    fn drop(&mut self) {
        self.answer();
    }
}

/// Before anything else of a lab is removed.
pub fn thaw(dir: &Path) {
    let _ = try_sh(&format!("fsfreeze -u {}/heart.d", dir.display()));
}

pub fn remove(dir: &Path) {
    let at = dir.join("heart.d");
    let at = at.display();
    let devices = try_sh(&format!("losetup -j {at}/1; losetup -j {at}/2"));
    for device in devices.lines().filter_map(|line| line.split(':').next()) {
        let _ = try_sh(&format!("losetup -d {device}"));
    }
    let _ = try_sh(&format!("umount {at} 2>/dev/null"));
}
