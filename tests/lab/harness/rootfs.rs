//! The nodes' root file system: Debian, built once and cached, with the package installed on top.

use super::{sh, try_sh};
use std::path::{Path, PathBuf};
use std::process::Command;

const CACHE: &str = "/var/cache/hafailover-lab";
const PACKAGES: &str = "systemd,systemd-sysv,dbus,iproute2,procps,samba,e2fsprogs,psmisc,nftables";
/// The end of a suite's name: with agents to fence nodes.
pub const WITH_AGENTS: &str = "+fence";
/// What fence_ipmilan runs by. fence-agents itself is unpacked, and not installed: it depends on
/// the libraries of all its hundred agents.
pub const OF_AGENTS: &str = "python3,python3-pexpect,python3-pycurl,ipmitool";
const AGENTS: &str = "cd \"$1/tmp\" && APT_CONFIG=\"$MMDEBSTRAP_APT_CONFIG\" \
                      apt-get download -q fence-agents && \
                      dpkg-deb -x fence-agents_*.deb \"$1\" && rm fence-agents_*.deb";
/// The end of a suite's name: with a kernel, for a guest.
pub const WITH_KERNEL: &str = "+kernel";
/// What a guest has more: a disk over iSCSI, its reservations, and names for it; what fence_scsi
/// runs by; and a second node inside.
pub const OF_GUEST: &str = "open-iscsi,sg3-utils,udev,python3,python3-pexpect,python3-pycurl,\
                            systemd-container";
const KERNEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lab/harness/kernel.sh");
/// Started by the distribution, of no use here; Samba is started by the group.
const UNWANTED: &str = "samba-ad-dc smbd nmbd apt-daily.timer apt-daily-upgrade.timer \
                        dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap nftables \
                        console-getty getty@tty1 systemd-timesyncd systemd-networkd \
                        systemd-resolved systemd-tmpfiles-clean.timer fstrim.timer motd-news.timer \
                        apache2 apache-htcacheclean drbd iscsid.socket lvm2-lvmpolld.socket \
                        lvm2-monitor blk-availability mariadb nfs-client.target nfs-ganesha \
                        nfs-ganesha-lock nfs-server nfs-blkmap open-iscsi rpcbind rpcbind.socket \
                        sanlock ssh tgt wdmd";
/// Of no use to a node, and larger than the rest of some packages.
const DROPPED: &str = "usr/share/doc usr/share/man usr/share/locale var/lib/mysql";

/// The Debian release of the nodes: LAB_SUITE, else this machine's own.
pub fn suite() -> String {
    if let Ok(suite) = std::env::var("LAB_SUITE") {
        return suite;
    }
    let text = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix("VERSION_CODENAME="));
    line.unwrap_or("bookworm").trim_matches('"').to_string()
}

/// A directory with the base system and these packages more, for use as the lowest layer. `None`:
/// it cannot be built here.
pub fn base(suite: &str, more: &str) -> Option<PathBuf> {
    let (release, hook, script) = if let Some(release) = suite.strip_suffix(WITH_AGENTS) {
        (release, AGENTS.to_string(), "")
    } else if let Some(release) = suite.strip_suffix(WITH_KERNEL) {
        (release, format!("{AGENTS} && {KERNEL} \"$1\""), include_str!("kernel.sh"))
    } else {
        (suite, "true".to_string(), "")
    };
    let name = format!("{suite}-{:08x}", recipe(&[more, script]));
    let dir = Path::new(CACHE).join(name);
    if dir.join("etc/os-release").exists() {
        return Some(dir);
    }
    // mmdebstrap takes the sources of this machine, if they have the release, else its own.
    println!("building the nodes' root file system ({suite}), once: about half a minute");
    let new = dir.with_extension("new");
    // Two labs at once: the second one waits, and finds it done.
    let mut built = Command::new("sh");
    built.arg("-ec").arg(format!(
        "mkdir -p {CACHE}; exec 9>{CACHE}/lock; flock 9; test ! -e {1}/etc/os-release || exit 0; \
         rm -rf {0}; mmdebstrap -q --variant=minbase --include={PACKAGES},{more} \
         --customize-hook='{hook}' {release} {0}; \
         rm -f {0}/etc/machine-id; mkdir -p {0}/var/log/journal; \
         for unit in {UNWANTED}; do \
         systemctl -q --root={0} disable $unit >/dev/null 2>&1 || true; done; \
         cd {0} && rm -rf {DROPPED} && mv {0} {1}",
        new.display(),
        dir.display()
    ));
    built.status().is_ok_and(|s| s.success()).then_some(dir)
}

/// FNV-1a of what the base is made of: another list is another base.
fn recipe(more: &[&str]) -> u32 {
    let step = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    let every = [PACKAGES, UNWANTED, DROPPED].iter().chain(more);
    every.flat_map(|w| w.bytes()).fold(0x811c_9dc5, step)
}

/// The newest package that `make deb` made.
pub fn package() -> PathBuf {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/debian");
    let entries = std::fs::read_dir(&dir).expect("make deb has made a package");
    let mut debs: Vec<PathBuf> = entries.map(|e| e.expect("readable").path()).collect();
    debs.retain(|p| p.extension().is_some_and(|e| e == "deb"));
    debs.sort_by_key(|p| p.metadata().and_then(|m| m.modified()).ok());
    debs.pop().expect("make deb has made a package")
}

/// Lower layers for the nodes, the package installed by dpkg in the upper one.
pub fn with_package(dir: &Path, suite: &str, more: &str) -> String {
    let base = base(suite, more).expect("the root file system can be built");
    let deb = package();
    let (up, work, root) = (dir.join("pkg"), dir.join("pkg-work"), dir.join("pkg-root"));
    // Built with this program, in whichever profile.
    let me = std::env::current_exe().expect("this program");
    let agent = me.ancestors().nth(2).expect("a target directory").join("examples/agent");
    sh(&format!(
        "mkdir -p {0} {1} {2} && mount -t overlay overlay -o \
         lowerdir={3},upperdir={0},workdir={1} {2} && cp {4} {2}/var/cache/hafailover.deb && \
         chroot {2} dpkg -i /var/cache/hafailover.deb >/dev/null && \
         cp {5} {2}/usr/local/bin/agent && umount {2}",
        up.display(),
        work.display(),
        root.display(),
        base.display(),
        deb.display(),
        agent.display()
    ));
    let _ = try_sh(&format!("rmdir {}", root.display()));
    format!("{}:{}", up.display(), base.display())
}
