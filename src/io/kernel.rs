//! What the kernel says, whatever systemd says: mounts, addresses, processes, and who holds a file
//! system. Reads /proc and /sys afresh each time; keeps nothing open.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Holders named at most; more help nobody.
const HOLDERS_MAX: usize = 8;

/// Is something mounted there, in the mount namespace of PID 1 (proc_pid_mountinfo(5))?
pub fn mounted(path: &str) -> bool {
    let table = std::fs::read_to_string("/proc/1/mountinfo").unwrap_or_default();
    table.lines().filter_map(|l| l.split(' ').nth(4)).any(|p| unescape(p) == path)
}

/// Octal escapes of the mount table: blank, tab, newline, backslash.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

/// Names of files and processes as words: whoever chose them, no control character of theirs
/// reaches a terminal or breaks a line.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Processes in a unit's cgroup and below it (`ControlGroup` of the unit).
pub fn processes(cgroup: &str) -> Vec<u32> {
    if cgroup.is_empty() || cgroup == "/" {
        return Vec::new();
    }
    let mut found = Vec::new();
    let mut dirs = vec![PathBuf::from(format!("/sys/fs/cgroup{cgroup}"))];
    while let Some(dir) = dirs.pop() {
        let text = std::fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
        found.extend(text.lines().filter_map(|l| l.parse::<u32>().ok()));
        let entries = std::fs::read_dir(&dir).into_iter().flatten().flatten();
        dirs.extend(entries.filter(|e| e.path().is_dir()).map(|e| e.path()));
    }
    found
}

/// Is the address on this machine?
pub fn has_address(address: std::net::IpAddr) -> bool {
    match address {
        std::net::IpAddr::V4(v4) => {
            let table = std::fs::read_to_string("/proc/net/fib_trie").unwrap_or_default();
            let lines: Vec<&str> = table.lines().map(str::trim).collect();
            let leaf = format!("|-- {v4}");
            lines.windows(2).any(|w| w[0] == leaf && w[1] == "/32 host LOCAL")
        }
        std::net::IpAddr::V6(v6) => {
            let hex: String = v6.octets().iter().map(|b| format!("{b:02x}")).collect();
            let table = std::fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
            table.lines().any(|l| l.starts_with(&hex))
        }
    }
}

/// Who keeps the file system at `path` busy: `pid 7 (vi) has /srv/x open`. By the device of what
/// they hold, never by name alone, so that nobody is blamed for a file on another file system.
pub fn holders(path: &str) -> Vec<String> {
    let Ok(meta) = std::fs::metadata(path) else { return Vec::new() };
    let device = meta.dev();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.parse::<u32>().is_err() {
            continue;
        }
        if let Some(what) = held_by(&entry.path(), device) {
            let comm = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            found.push(printable(&format!("pid {name} ({}) {what}", comm.trim())));
            if found.len() == HOLDERS_MAX {
                break;
            }
        }
    }
    found
}

fn held_by(process: &Path, device: u64) -> Option<String> {
    let on = |link: &Path| std::fs::metadata(link).is_ok_and(|m| m.dev() == device);
    let target =
        |link: &Path| std::fs::read_link(link).map(|p| p.display().to_string()).unwrap_or_default();
    for (link, verb) in [("cwd", "works in"), ("root", "has as its root"), ("exe", "runs")] {
        let link = process.join(link);
        if on(&link) {
            return Some(format!("{verb} {}", target(&link)));
        }
    }
    for entry in std::fs::read_dir(process.join("fd")).ok()?.flatten() {
        if on(&entry.path()) {
            return Some(format!("has {} open", target(&entry.path())));
        }
    }
    let maps = std::fs::read_dir(process.join("map_files")).ok()?;
    maps.flatten().find(|e| on(&e.path())).map(|e| format!("maps {}", target(&e.path())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_mounted_and_loopback_is_ours() {
        assert!(mounted("/"));
        assert!(!mounted("/no/such/mount"));
        assert!(has_address("127.0.0.1".parse().expect("an address")));
        assert!(!has_address("192.0.2.1".parse().expect("an address")));
    }

    #[test]
    fn an_open_file_names_its_holder() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let dir = file.path().parent().expect("a directory").to_string_lossy().into_owned();
        assert!(!holders(&dir).is_empty());
        assert_eq!(printable("a\x1b[2J\nb c"), "a\u{fffd}[2J\u{fffd}b c");
    }
}
