//! Whether a shared disk can carry heartbeats: it is there, ours, no group's own, and looked at
//! often enough.

use super::Findings;
use crate::config::identity;
use crate::config::load::show;
use crate::config::settings::{Disk, LinkKind, Settings};
use crate::config::target::Target;
use crate::core::policy::Timing;
use crate::core::view::{Presence, View};
use crate::io::disk::slots;
use crate::io::kernel;
use std::path::Path;
use std::time::Duration;

/// A device that has not answered for so long hangs.
const PATIENCE: Duration = Duration::from_secs(5);
/// What a disk may need for one read or write, with slack.
const ANSWER: Duration = Duration::from_millis(50);
/// What the kernel calls devices by the order in which it finds them.
const NUMBERED: [&str; 6] = ["sd", "vd", "xvd", "nvme", "dm-", "loop"];

pub fn look(of: &Settings, targets: &[Target], view: Option<&View>, findings: &mut Findings) {
    for link in &of.links {
        let LinkKind::Disk(disk) = &link.kind else { continue };
        name(&link.name, disk, findings);
        times(&link.name, disk, &of.timing, findings);
        if !disk.device.exists() {
            findings.warn(format!(
                "{}: there is no such device on this node: if it is called otherwise here, write \
                 device = {{ NODE = \"NAME\", ... }}",
                link.name
            ));
            continue;
        }
        let number = match read(disk) {
            Ok((id, number)) => {
                same(&link.name, &id, view, findings);
                number
            }
            Err(words) => {
                findings.error(words);
                kernel::block_device(&disk.device.to_string_lossy()).unwrap_or_default()
            }
        };
        network(&link.name, disk, number, findings);
        for (unit, what) in mounts(targets) {
            if number != 0 && kernel::block_device(&what) == Some(number) {
                findings.error(format!(
                    "{}: {unit} mounts this very device: give the link a partition of its own",
                    link.name
                ));
            }
        }
    }
}

/// The id of the slots, and the device's number.
fn read(disk: &Disk) -> Result<(String, u64), String> {
    let (sender, result) = std::sync::mpsc::channel();
    let (path, shown) = (disk.device.clone(), disk.device.display());
    // On a thread of its own: a device that hangs holds up whoever asks it.
    std::thread::spawn(move || drop(sender.send(slots::header(&path))));
    let answer = result.recv_timeout(PATIENCE);
    let hangs = |_| Err(format!("{shown}: has not answered for {}", show(PATIENCE)));
    let (header, number) = answer.unwrap_or_else(hangs).map_err(|e| advise(&e))?;
    match header.refuses(&disk.cluster, &disk.nodes) {
        Some(why) => Err(advise(&format!("{shown}: {why}"))),
        None => Ok((header.id.iter().map(|b| format!("{b:02x}")).collect(), number)),
    }
}

fn advise(words: &str) -> String {
    format!("{words}: if this is the device, hafailover disk format, on one node")
}

fn name(link: &str, disk: &Disk, findings: &mut Findings) {
    let name = disk.device.to_string_lossy();
    let name = name.strip_prefix("/dev/").unwrap_or_default();
    if NUMBERED.iter().any(|n| name.starts_with(n)) {
        findings.warn(format!(
            "{link}: after the next boot another disk may have this name: write the one below \
             /dev/disk that udevadm info -q symlink {} shows",
            disk.device.display()
        ));
    }
}

/// As a stamp goes to the peer and its echo comes back: each way it waits for the next look, and
/// once for the peer's next heartbeat; the newest echo is as old as the next one is late.
fn times(link: &str, disk: &Disk, timing: &Timing, findings: &mut Findings) {
    let answer = timing.keepalive * 2 + disk.interval * 2 + ANSWER;
    if answer >= timing.deadtime {
        findings.error(format!(
            "{link}: a heartbeat and its answer take up to {} = 2 x keepalive {} + 2 x interval {} \
             + {}, deadtime is {}: with this link alone the other node would be taken for deaf: \
             write a shorter interval, or deadtime = \"{}\" or more",
            show(answer),
            show(timing.keepalive),
            show(disk.interval),
            show(ANSWER),
            show(timing.deadtime),
            show(answer + timing.keepalive)
        ));
    }
}

/// Whether the others have the same device shows only while they write to it.
fn same(link: &str, id: &str, view: Option<&View>, findings: &mut Findings) {
    let peers = view.iter().flat_map(|view| &view.nodes);
    let alive = peers.filter(|n| n.presence == Presence::Alive);
    let mut heard = false;
    for node in alive {
        let Some(there) = node.links.iter().find(|l| l.name == link) else { continue };
        heard |= there.up;
        if !there.up {
            findings.warn(format!(
                "{link}: {} lives and does not write here: hafailover disk show there must show \
                 the id {id}, or it has another device",
                node.name
            ));
        }
    }
    if !heard {
        findings.note(format!(
            "{link}: the slots have the id {id}: hafailover disk show must show the same on every \
             node"
        ));
    }
}

/// A disk behind an interface shares its cable with every link over it.
fn network(link: &str, disk: &Disk, number: u64, findings: &mut Findings) {
    let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
    let Ok(path) = std::fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")) else { return };
    if disk.interface.is_none() && is_remote(&path) {
        findings.warn(format!(
            "{link}: the device is reached over the network: write interface = \"NAME\", over \
             which it is reached, so that it counts as one cable with a link over the same one"
        ));
    }
}

/// iSCSI has its session in the path, NVMe over fabrics and network block devices their names.
fn is_remote(path: &Path) -> bool {
    let parts = path.components().map(|c| c.as_os_str().to_string_lossy().into_owned());
    let numbered = |part: &str, name: &str| {
        let rest = part.strip_prefix(name).unwrap_or_default();
        !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit())
    };
    parts.into_iter().any(|part| {
        part == "nvme-fabrics" || ["session", "nbd", "rbd"].iter().any(|n| numbered(&part, n))
    })
}

/// Units that mount or swap to a device, and that.
fn mounts(targets: &[Target]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for target in targets {
        for (unit, text) in identity::members(Path::new("/"), target) {
            let sections = ["Mount", "Swap"];
            let what = |s: &&str| text.as_ref().and_then(|t| t.last(s, "What").cloned());
            found.extend(sections.iter().find_map(what).map(|a| (unit.to_string(), a.value)));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_behind_a_cable_is_known() {
        for remote in [
            "/sys/devices/platform/host3/session1/target3:0:0/3:0:0:1/block/sdb/sdb1",
            "/sys/devices/virtual/nvme-fabrics/ctl/nvme0/nvme0n1",
            "/sys/devices/virtual/block/nbd0",
        ] {
            assert!(is_remote(Path::new(remote)), "{remote}");
        }
        for local in [
            "/sys/devices/pci0000:00/0000:00:05.0/host0/target0:0:0/0:0:0:0/block/sda/sda1",
            "/sys/devices/virtual/block/loop0",
            "/sys/devices/virtual/block/dm-0",
        ] {
            assert!(!is_remote(Path::new(local)), "{local}");
        }
    }
}
