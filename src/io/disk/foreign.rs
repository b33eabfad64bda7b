//! Makes the slots on a device that carries nothing else: whatever the kernel has in use, blkid(8)
//! knows, or stands where the slots would be, is refused.

use super::device::{Aligned, Device, Use};
use super::slots::{self, Place, Slots, words};
use crate::io::kernel;
use crate::wire::disk::{Header, NoHeader, SIZE};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// How long slots of another cluster are looked at for somebody who uses them.
const LIVE: Duration = Duration::from_secs(2);
const AGAIN: Duration = Duration::from_millis(100);

/// The device, for nobody else, and what stands in its first `size` bytes. Refused where anything
/// is on it that this system knows.
pub fn alone(path: &Path, size: usize) -> Result<(Device, Aligned), String> {
    let shown = path.display();
    let mut device = Device::open(path, Use::Alone).map_err(|e| match e.raw_os_error() {
        Some(libc::EBUSY) => in_use(path),
        Some(libc::EROFS) => format!("{shown}: it is read-only"),
        _ => words(path, &e),
    })?;
    let has = device.size().map_err(|e| words(path, &e))?;
    if has < size as u64 {
        let need = size / 1024;
        return Err(format!("{shown}: {} KiB are too small: it needs {need} KiB", has / 1024));
    }
    let mut there = Aligned::new(size);
    device.read(&mut there, 0).map_err(|e| words(path, &e))?;
    if let Some(found) = signatures(path)? {
        return Err(format!(
            "{shown}: it carries {found}, and would lose it: nothing was written. Name another \
             device, or, if that is surely of no use any more, wipefs -a {shown}"
        ));
    }
    Ok((device, there))
}

/// Formats `path`; with `ours` also where slots of hafailover are.
pub fn format(path: &Path, header: &Header, ours: bool) -> Result<(), String> {
    let shown = path.display();
    let (device, there) = alone(path, SIZE)?;
    match Header::read(&there.bytes()[..crate::wire::disk::BLOCK]) {
        Ok(old) if !ours => {
            return Err(format!(
                "{shown}: it has slots of cluster {} for {} already: --force-of-ours formats it \
                 anew",
                kernel::printable(&old.cluster),
                kernel::printable(&old.nodes.join(", "))
            ));
        }
        Ok(old) if old.cluster != header.cluster => not_used(path, &old)?,
        Ok(_) => {}
        Err(NoHeader::Damaged | NoHeader::OtherVersion(_)) if ours => {}
        Err(NoHeader::Empty) if there.bytes().iter().all(|b| *b == 0) => {}
        Err(_) => return Err(not_empty(path, SIZE)),
    }
    slots::write_anew(&device, header).map_err(|e| words(path, &e))
}

/// Why what nobody knows is left as it is.
pub fn not_empty(path: &Path, size: usize) -> String {
    let shown = path.display();
    format!(
        "{shown}: its first {} KiB are not empty, and no program here knows what that is (a \
         database, an encrypted disk?): nothing was written. If it is surely of no use any more: \
         dd if=/dev/zero of={shown} bs=1024 count={0}",
        size / 1024
    )
}

fn in_use(path: &Path) -> String {
    let shown = path.display();
    let mounted = kernel::still_mounted(&path.to_string_lossy(), &[]).ok().flatten();
    mounted.unwrap_or_else(|| {
        format!(
            "{shown}: it is in use: mounted, swap, or part of a volume group, a RAID or another \
             device: lsblk {shown}"
        )
    })
}

/// What blkid(8) finds on it, in words. Of which partition it is (PART_ENTRY_…) is no finding.
fn signatures(path: &Path) -> Result<Option<String>, String> {
    let out = Command::new("blkid").args(["-p", "-o", "export"]).arg(path).output();
    let out = out.map_err(|e| format!("blkid (util-linux), which looks for signatures: {e}"))?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let none = ["DEVNAME", "PART_ENTRY_", "BLOCK_SIZE"];
    let telling = |l: &&str| !l.is_empty() && none.iter().all(|n| !l.starts_with(n));
    let found: Vec<&str> = text.lines().filter(telling).collect();
    // blkid(8), exit codes: 2, nothing there; 8, more than one thing there.
    match out.status.code() {
        Some(0 | 2) if found.is_empty() => Ok(None),
        Some(0) => Ok(Some(kernel::printable(&found.join(" ")))),
        Some(8) => Ok(Some("signatures of more than one kind".into())),
        _ => {
            let said = String::from_utf8_lossy(&out.stderr).trim().to_string();
            Err(format!("{}: blkid -p failed ({}): {said}", path.display(), out.status))
        }
    }
}

/// Slots of another cluster in which nothing changes.
fn not_used(path: &Path, old: &Header) -> Result<(), String> {
    let (cluster, nodes) = (old.cluster.clone(), old.nodes.clone());
    let mut slots = Slots::open(Place { device: path.into(), cluster, nodes }, Use::Read)?;
    let first = slots.read()?.slots;
    for _ in 0..LIVE.as_millis() / AGAIN.as_millis() {
        std::thread::park_timeout(AGAIN);
        let now = slots.read()?.slots;
        let changed = now.iter().zip(&first).position(|(now, then)| now != then);
        if let Some(node) = changed.and_then(|n| old.nodes.get(n)) {
            return Err(format!(
                "{}: node {} of cluster {} uses it now: nothing was written",
                path.display(),
                kernel::printable(node),
                kernel::printable(&old.cluster)
            ));
        }
    }
    Ok(())
}
