//! Who keeps a file system busy: processes, in any mount namespace, and what the kernel itself does
//! with files on it (mounts below, loop devices, swap, NFS). Reads /proc and /sys afresh each time.

use super::kernel::{self, printable, unescape};
use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use std::fs::{read_dir, read_link, read_to_string};
use std::path::Path;

/// Holders named at most; more help nobody.
const HOLDERS_MAX: usize = 8;

type Device = (u32, u32);

/// Who keeps the file system of a mount unit busy: `pid 7 (vi) has /srv/x open`. By the device of
/// what they hold, never by name alone, so that nobody is blamed for a file on another file system:
/// where nothing is mounted at `path` (`Where=`) any more, by that of `what` (`What=`).
pub fn holders(path: &str, what: &str) -> Vec<String> {
    let there = kernel::mounted(path).unwrap_or(true);
    let Some(device) = device(path, what, there) else { return Vec::new() };
    let table = |file: &str| read_to_string(file).unwrap_or_default();
    let on = |file: &str| device_of(Path::new(file)) == Some(device);
    let mut found = Vec::new();
    if there {
        found.extend(mounts(&table("/proc/1/mountinfo"), path));
    }
    found.extend(loops(on));
    found.extend(swaps(&table("/proc/swaps"), on));
    found.extend(exports(&table("/proc/fs/nfsd/exports"), on));
    let most = HOLDERS_MAX.saturating_sub(found.len());
    found.extend(processes(device, most).into_iter().map(|(_, words)| words));
    found.truncate(HOLDERS_MAX);
    found.iter().map(|words| printable(words)).collect()
}

/// The processes among them, each with what it holds; all of them.
pub fn users(path: &str, what: &str) -> Vec<(u32, String)> {
    let there = kernel::mounted(path).unwrap_or(true);
    let Some(device) = device(path, what, there) else { return Vec::new() };
    let process = |(pid, words): (u32, String)| (pid, printable(&words));
    processes(device, usize::MAX).into_iter().map(process).collect()
}

fn device(path: &str, what: &str, there: bool) -> Option<Device> {
    match there {
        true => device_of(Path::new(path)),
        false => kernel::block_device(what).map(|d| (rustix::fs::major(d), rustix::fs::minor(d))),
    }
}

/// The file system a path is on, without asking it anything: one that hangs would hang us.
fn device_of(path: &Path) -> Option<Device> {
    let quiet = AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
    let seen = statx(CWD, path, quiet, StatxFlags::empty()).ok()?;
    Some((seen.stx_dev_major, seen.stx_dev_minor))
}

/// Mounts below it, and others over it at the same place.
fn mounts(table: &str, path: &str) -> Vec<String> {
    let below = format!("{}/", path.trim_end_matches('/'));
    let point = |line: &str| line.split(' ').nth(4).map(unescape);
    let kind = |line: &str| {
        let rest = line.split_once(" - ").map(|(_, rest)| rest).unwrap_or_default();
        rest.split(' ').next().unwrap_or_default().to_string()
    };
    let lines = || table.lines().filter_map(|l| Some((point(l)?, kind(l))));
    let under = lines().filter(|(at, _)| at.starts_with(&below));
    let mut words: Vec<String> =
        under.map(|(at, kind)| format!("{at} ({kind}) is mounted below it: umount {at}")).collect();
    let times = lines().filter(|(at, kind)| at == path && kind != "autofs").count();
    if times > 1 {
        words.push(format!("{path} has {times} mounts, one over the other: umount {path}"));
    }
    words
}

/// Loop devices whose file lies on it.
fn loops(on: impl Fn(&str) -> bool) -> Vec<String> {
    let mut words = Vec::new();
    for entry in read_dir("/sys/block").into_iter().flatten().flatten() {
        let Ok(file) = read_to_string(entry.path().join("loop/backing_file")) else { continue };
        let (name, file) = (entry.file_name().to_string_lossy().into_owned(), file.trim_end());
        if on(file) {
            words.push(format!("/dev/{name} is a loop device over {file}: losetup -d /dev/{name}"));
        }
    }
    words
}

/// Swap files on it (proc_swaps(5)).
fn swaps(table: &str, on: impl Fn(&str) -> bool) -> Vec<String> {
    let files = table.lines().skip(1).filter_map(|l| l.split_whitespace().next()).map(unescape);
    files.filter(|f| on(f)).map(|f| format!("{f} is in use as swap: swapoff {f}")).collect()
}

/// What the kernel's NFS server exports of it (nfsd(7)).
fn exports(table: &str, on: impl Fn(&str) -> bool) -> Vec<String> {
    let lines = table.lines().filter(|l| !l.starts_with('#'));
    let paths = lines.filter_map(|l| l.split(['\t', ' ']).next()).map(unescape);
    let mut words: Vec<String> = paths
        .filter(|path| on(path))
        .map(|path| {
            format!("the kernel exports {path} by NFS: exportfs -f, or systemctl stop nfs-server")
        })
        .collect();
    words.dedup();
    words
}

fn processes(device: Device, most: usize) -> Vec<(u32, String)> {
    let home = read_link("/proc/1/ns/mnt").ok();
    let mut found = Vec::new();
    for entry in read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(pid) = name.parse::<u32>().ok().filter(|_| found.len() < most) else { continue };
        let Some(what) = held_by(&entry.path(), device) else { continue };
        let comm = read_to_string(entry.path().join("comm")).unwrap_or_default();
        let away = match read_link(entry.path().join("ns/mnt")).ok() == home {
            true => "",
            false => ", in another mount namespace (a container?)",
        };
        found.push((pid, format!("pid {name} ({}) {what}{away}", comm.trim())));
    }
    found
}

fn held_by(process: &Path, device: Device) -> Option<String> {
    let on = |link: &Path| device_of(link) == Some(device);
    let target = |link: &Path| read_link(link).map(|p| p.display().to_string()).unwrap_or_default();
    for (link, verb) in [("cwd", "works in"), ("root", "has as its root"), ("exe", "runs")] {
        let link = process.join(link);
        if on(&link) {
            return Some(format!("{verb} {}", target(&link)));
        }
    }
    for entry in read_dir(process.join("fd")).ok()?.flatten() {
        if on(&entry.path()) {
            return Some(format!("has {} open", target(&entry.path())));
        }
    }
    let maps = read_dir(process.join("map_files")).ok()?;
    maps.flatten().find(|e| on(&e.path())).map(|e| format!("maps {}", target(&e.path())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_file_names_its_holder() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let device = device_of(file.path()).expect("there");
        assert!(!processes(device, 1).is_empty());
    }

    /// Goal: an export whose path has blanks, and one told for two clients, are named once each.
    #[test]
    fn exports_and_mounts_are_read_as_the_kernel_writes_them() {
        let table = "# Version 1.1\n# Path Client(Flags) # IPs\n/srv/a\\040b\t*(rw)\n\
                     /srv\tn1(rw,root_squash)\n/srv\tn2(rw)\n/other\t*(ro)\n";
        let found = exports(table, |path| path.starts_with("/srv"));
        assert!(found.len() == 2 && found[0].contains("/srv/a b by NFS"), "{found:?}");
        let auto = "40 25 0:35 / /srv rw shared:9 - autofs systemd-1 rw,fd=60,direct\n";
        let twice = "41 40 8:16 / /srv rw shared:10 - ext4 /dev/sdb rw\n";
        let deep = "43 41 0:40 / /srv/x rw - tmpfs none rw\n44 25 0:41 / /srvx rw - tmpfs none rw";
        let found = |text: &str| mounts(text, "/srv").join("; ");
        assert_eq!(found(&format!("{auto}{twice}")), "");
        assert_eq!(
            found(&format!("{twice}{twice}{deep}")),
            "/srv/x (tmpfs) is mounted below it: umount /srv/x; /srv has 2 mounts, one over the \
             other: umount /srv"
        );
    }
}
