//! What the kernel says, whatever systemd says: mounts, addresses, processes. Reads /proc and /sys
//! afresh each time; keeps nothing open.

use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Is something mounted there, in the mount namespace of PID 1 (proc_pid_mountinfo(5))? What
/// cannot be read is an error here and below, never a "no": a release stands on these answers.
pub fn mounted(path: &str) -> io::Result<bool> {
    Ok(is_mounted(&std::fs::read_to_string("/proc/1/mountinfo")?, path))
}

/// An automount point holds no file system: it waits there, as it did before, for its mount unit.
fn is_mounted(table: &str, path: &str) -> bool {
    let kind = |line: &str| line.split_once(" - ").map(|(_, kind)| kind.starts_with("autofs "));
    let automount = |line: &&str| kind(line) == Some(true);
    let lines = table.lines().filter(|l| !automount(l));
    lines.filter_map(|l| l.split(' ').nth(4)).any(|p| unescape(p) == path)
}

/// Where the file system of a block device is still mounted, but at these places: at another path
/// (a bind mount), or in another mount namespace (a container, an `unshare -m`): unmounting it here
/// does not end those. `what` is a mount unit's `What=`; anything but a block device, and btrfs,
/// whose devices have no number of their own here, is not looked for.
pub fn still_mounted(what: &str, except: &[&str]) -> io::Result<Option<String>> {
    let Some(device) = block_device(what) else { return Ok(None) };
    let device = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    let mut seen = Vec::new();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let process = entry.path();
        // One that has just ended has no namespace and no table.
        let link = |name: &str| std::fs::read_link(process.join(name));
        // A table shows what lies below its process's root.
        let Ok(space) = link("ns/mnt").and_then(|space| Ok((space, link("root")?))) else {
            continue;
        };
        if seen.contains(&space) {
            continue;
        }
        let Ok(table) = std::fs::read_to_string(process.join("mountinfo")) else { continue };
        seen.push(space);
        let points = table.lines().filter(|l| l.split(' ').nth(2) == Some(&device));
        let mut paths = points.filter_map(|l| l.split(' ').nth(4)).map(unescape);
        if let Some(path) = paths.find(|p| !except.contains(&p.as_str())) {
            let pid = entry.file_name().to_string_lossy().into_owned();
            let comm = std::fs::read_to_string(process.join("comm")).unwrap_or_default();
            let who = format!("pid {pid} ({})", comm.trim());
            return Ok(Some(printable(&format!("{what} is still mounted at {path}, for {who}"))));
        }
    }
    Ok(None)
}

/// The number of the device behind a path, or behind `UUID=` and the like (fstab(5)).
pub fn block_device(what: &str) -> Option<u64> {
    let path = match what.split_once('=') {
        Some((tag, value)) if !what.starts_with('/') => {
            format!("/dev/disk/by-{}/{}", tag.to_lowercase(), value.trim_matches('"'))
        }
        _ => what.to_string(),
    };
    let meta = std::fs::metadata(path).ok()?;
    meta.file_type().is_block_device().then(|| meta.rdev())
}

/// Octal escapes of the kernel's tables: blank, tab, newline, backslash.
pub fn unescape(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

/// Names of files and processes as words: whoever chose them, no control character of theirs
/// reaches a terminal or breaks a line.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Processes in a unit's cgroup and below it (`ControlGroup` of the unit).
pub fn processes(cgroup: &str) -> io::Result<Vec<u32>> {
    if cgroup.is_empty() || cgroup == "/" {
        return Ok(Vec::new());
    }
    let root = Path::new("/sys/fs/cgroup");
    // cgroups(7): version 2; version 1 and the mixture keep systemd's tree beside others.
    let trees = [root.to_path_buf(), root.join("systemd"), root.join("unified")];
    let Some(tree) = trees.iter().find(|t| t.join("cgroup.procs").exists()) else {
        return Err(io::Error::other("there are no cgroups below /sys/fs/cgroup"));
    };
    let mut found = Vec::new();
    let mut dirs = vec![PathBuf::from(format!("{}{cgroup}", tree.display()))];
    while let Some(dir) = dirs.pop() {
        let text = present(std::fs::read_to_string(dir.join("cgroup.procs")))?.unwrap_or_default();
        found.extend(text.lines().filter_map(|l| l.parse::<u32>().ok()));
        let entries = present(std::fs::read_dir(&dir))?.into_iter().flatten().flatten();
        dirs.extend(entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()));
    }
    Ok(found)
}

/// A cgroup that is gone has nothing in it; one of threads tells its processes higher up.
fn present<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENODEV | libc::EOPNOTSUPP)) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Is the address on this machine?
pub fn has_address(address: std::net::IpAddr) -> io::Result<bool> {
    match address {
        std::net::IpAddr::V4(v4) => {
            let table = std::fs::read_to_string("/proc/net/fib_trie")?;
            let lines: Vec<&str> = table.lines().map(str::trim).collect();
            let leaf = format!("|-- {v4}");
            Ok(lines.windows(2).any(|w| w[0] == leaf && w[1] == "/32 host LOCAL"))
        }
        std::net::IpAddr::V6(v6) => {
            let hex: String = v6.octets().iter().map(|b| format!("{b:02x}")).collect();
            // A kernel without IPv6 has no table.
            let table = present(std::fs::read_to_string("/proc/net/if_inet6"))?;
            Ok(table.unwrap_or_default().lines().any(|l| l.starts_with(&hex)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_mounted_and_loopback_is_ours() {
        assert!(mounted("/").expect("readable"));
        assert!(!mounted("/no/such/mount").expect("readable"));
        assert!(has_address("127.0.0.1".parse().expect("an address")).expect("readable"));
        assert!(!has_address("192.0.2.1".parse().expect("an address")).expect("readable"));
    }

    /// Goal: a mount whose automount still waits is released: its stop would never be verified.
    #[test]
    fn an_automount_point_is_not_mounted() {
        let wait = "40 25 0:35 / /srv rw,relatime shared:9 - autofs systemd-1 rw,fd=60,direct";
        let disk = "41 40 8:16 / /srv rw,relatime shared:10 - ext4 /dev/sdb rw";
        assert!(!is_mounted(wait, "/srv"));
        assert!(is_mounted(&format!("{wait}\n{disk}\n"), "/srv"));
    }

    #[test]
    fn no_control_character_gets_through() {
        assert_eq!(printable("a\x1b[2J\nb c"), "a\u{fffd}[2J\u{fffd}b c");
    }
}
