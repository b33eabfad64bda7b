//! The reservation of a disk, in the guest: its own kernel offers a disk (LIO) over iSCSI and sees
//! it on two paths, as two nodes would: n1 is the guest's daemon with real units, n2 the same
//! program with a name, a token and a path of its own. Once n2 has it, nothing that n1 writes
//! arrives.

use crate::cluster::{Cluster, PATIENCE};
use crate::harness::guest::Guest;
use crate::harness::wait;
use crate::stories::Story;
use std::time::Duration;

pub const ALL: &[(&str, Story)] = &[("reserve_old_owners_writes_fail", old_owners_writes_fail)];

const CONFIG: &str = "[cluster]\nname = \"lab\"\n[[node]]\nname = \"n1\"\n[[node]]\nname = \"n2\"\n\
    [[link]]\ntype = \"udp\"\ninterface = \"dummy0\"\n[timing]\ndeadtime = \"2s\"\n\
    initdead = \"4s\"\n[safety]\nsilence = \"takeover\"\n";
const LINK: &str = "[Unit]\nDescription=The link\nBefore=hafailover.service\n[Service]\n\
    Type=oneshot\nRemainAfterExit=yes\n\
    ExecStart=ip address add 192.168.9.1/24 dev dummy0\n\
    ExecStart=ip link set dummy0 up multicast on\n[Install]\nWantedBy=multi-user.target\n";
/// Nobody ends a daemon that stands still.
pub const PATIENT: &str = "[Service]\nWatchdogSec=0\n";
/// Nothing in it says what is ordered after what.
const TARGET: &str = "[Unit]\nDescription=Files\nRequires=RESERVE srv.mount\n\
    Wants=writer.service\n[X-Hafailover]\nNodes=n1 n2\nRetries=1\n[Install]\n\
    WantedBy=hafailover-groups.target\n";
pub const MOUNT: &str = "[Mount]\nWhat=DISK\nWhere=/srv\nType=ext4\n";
const WRITER: &str = "[Unit]\nAfter=srv.mount\n[Service]\nKillSignal=SIGKILL\n\
    ExecStart=agent direct /srv/data /run/written\n";
/// As udev names it after its serial number, which LIO makes of `abcd1234`.
pub const DISK: &str = "/dev/disk/by-id/scsi-36001405abcd123400000000000000000";
const RESERVE: &str =
    r"hafailover-reserve@dev-disk-by\x2did-scsi\x2d36001405abcd123400000000000000000.service";
/// Where the disk has what is written to it.
const MEDIUM: &str = "/var/lib/medium";
/// Of the two paths, the names are n1's.
pub const RULE: &str = "KERNEL==\"sda*\", OPTIONS+=\"link_priority=100\"\n";
/// Makes the disk, and a path to it for each node: sda for n1, sdb for n2. sdc is another one, that
/// has no reservations.
pub const DISKS: &str = r"#!/bin/sh
set -e
# Each word on the console holds up the whole machine, and writes that fail are many words.
dmesg -n 1
mount -t configfs none /sys/kernel/config 2>/dev/null || true
ip link set lo up
mkdir -p /var/target/pr
target=/sys/kernel/config/target
backstore() {
    mkdir -p $target/core/fileio_$1/disk
    cd $target/core/fileio_$1/disk
    echo fd_dev_name=$2,fd_dev_size=67108864 >control
    echo $3 >wwn/vpd_unit_serial
    echo 1 >enable
}
backstore 0 /var/lib/medium abcd1234
mkdir -p $target/iscsi/iqn.2026-01.lab:disk/tpgt_1/lun/lun_0
cd $target/iscsi/iqn.2026-01.lab:disk/tpgt_1
ln -s $target/core/fileio_0/disk lun/lun_0/port
mkdir np/127.0.0.1:3260
echo 0 >attrib/authentication
systemctl start iscsid
for node in n1 n2; do
    mkdir -p acls/iqn.2026-01.lab:$node/lun_0
    ln -s $target/iscsi/iqn.2026-01.lab:disk/tpgt_1/lun/lun_0 acls/iqn.2026-01.lab:$node/lun_0/port
done
echo 1 >enable
for node in n1 n2; do
    iscsiadm -m iface -I $node -o new
    iscsiadm -m iface -I $node -o update -n iface.initiatorname -v iqn.2026-01.lab:$node
    iscsiadm -m node -o new -T iqn.2026-01.lab:disk -p 127.0.0.1 -I $node
    iscsiadm -m node -T iqn.2026-01.lab:disk -p 127.0.0.1 -I $node --login
    udevadm settle
done
truncate -s 64M /var/lib/plain
backstore 1 /var/lib/plain 12345678
echo 0 >attrib/emulate_pr
mkdir -p $target/loopback/naa.6001405000000001/tpgt_1/lun/lun_0
cd $target/loopback/naa.6001405000000001/tpgt_1
echo naa.6001405000000002 >nexus
ln -s $target/core/fileio_1/disk lun/lun_0/port
udevadm settle
";
/// The program as n2 runs it: `n2 EPOCH`. It has the same files, and a host name, tokens and a path
/// of its own.
const N2: &str = r#"#!/bin/sh
set -e
[ -n "$SHUT_OFF" ] || exec env SHUT_OFF=1 unshare -m -u "$0" "$@"
hostname n2
umount /srv 2>/dev/null || true
mount -t tmpfs none /run/hafailover
mkdir /run/hafailover/owned /run/hafailover/members
echo "$1 1 $(cut -d ' ' -f 3 /run/saved/token)" >/run/hafailover/owned/files
cp /run/saved/members /run/hafailover/members/files
mount -t tmpfs none /dev/disk/by-id
ln -s ../../sdb DISK
exec hafailover reserve DISK
"#;
pub const DISKS_UNIT: &str = "[Unit]\nDescription=The disks\nBefore=hafailover.service\n[Service]\n\
    Type=oneshot\nRemainAfterExit=yes\nExecStart=/usr/local/sbin/disks\n[Install]\n\
    WantedBy=multi-user.target\n";
const SETUP: &str = "hafailover keygen\nchmod 755 /usr/local/sbin/disks /usr/local/sbin/n2\n\
    truncate -s 64M /var/lib/medium\nmke2fs -q -t ext4 /var/lib/medium\n\
    systemctl -q enable link disks files.target\n";

fn old_owners_writes_fail(c: &mut Cluster) {
    let files = [
        ("etc/hostname", "n1\n"),
        ("etc/hafailover/hafailover.toml", CONFIG),
        ("etc/systemd/system/hafailover.service.d/patient.conf", PATIENT),
        ("etc/systemd/system/link.service", LINK),
        ("etc/systemd/system/files.target", &TARGET.replace("RESERVE", RESERVE)),
        ("etc/systemd/system/srv.mount", &MOUNT.replace("DISK", DISK)),
        ("etc/systemd/system/writer.service", WRITER),
        ("etc/systemd/system/disks.service", DISKS_UNIT),
        ("etc/udev/rules.d/90-paths.rules", RULE),
        ("usr/local/sbin/disks", DISKS),
        ("usr/local/sbin/n2", &N2.replace("DISK", DISK)),
    ];
    let mut guest = Guest::new(c.lab.dir(), c.lab.layers(), &files, SETUP);
    let guest = &mut guest;
    guest.must(&format!(
        "test -b {DISK} || {{ journalctl -b -u disks -o cat; ls -l /dev/disk/by-id /dev/sd*; \
         udevadm info /dev/sda; false; }}"
    ));
    guest.must("hafailover state create && systemctl start hafailover");
    runs(guest);
    nobody_else_writes(guest);
    holder_is_killed(guest);
    later_owner_takes_it(guest);
    frozen_owner_is_replaced(guest);
    foreign_keys_are_left_alone(guest);
    stop_leaves_it(guest);
    disk_is_gone(guest);
}

fn runs(guest: &mut Guest) {
    wait("the group", PATIENCE, || {
        let status = guest.run("hafailover status --json").text;
        let status: serde_json::Value = serde_json::from_str(&status).ok()?;
        (status["view"]["groups"][0]["phase"] == "running").then_some(())
    });
    guest.must(
        "mkdir -p /run/saved; cd /run/hafailover; cp owned/files /run/saved/token; \
                cp members/files /run/saved/members",
    );
}

fn is_down(guest: &mut Guest) {
    let state = format!("systemctl is-active srv.mount writer '{RESERVE}'");
    wait("the old owner to be down", PATIENCE, || {
        let states = guest.run(&state).text;
        states.lines().all(|l| matches!(l, "inactive" | "failed")).then_some(())
    });
}

/// The counter of the epoch by which n1 has the group.
fn epoch(guest: &mut Guest) -> u64 {
    let token = guest.must("cut -d ' ' -f 1 /run/saved/token");
    token.trim().parse().expect("a number")
}

fn shown(guest: &mut Guest) -> String {
    guest.must(&format!("hafailover reserve --show {DISK}"))
}

/// Past the program, by the path of n2.
fn other_path_is_refused(guest: &mut Guest) {
    let write = "dd if=/dev/zero of=/dev/sdb bs=4096 count=1 seek=16000 oflag=direct";
    let said = guest.run(write);
    assert!(said.code != 0 && said.text.contains("Invalid exchange"), "{}", said.text);
}

fn nobody_else_writes(guest: &mut Guest) {
    assert!(shown(guest).starts_with("reserved for n1 (key 0x6861"), "{}", shown(guest));
    other_path_is_refused(guest);
    assert!(guest.must("systemctl show -P After srv.mount").contains("hafailover-reserve@"));
    let checked = guest.run("hafailover check").text;
    assert!(checked.contains("reserved for n1") && !checked.contains("error"), "{checked}");
}

/// What is mounted stays protected, and nothing is taken anew.
fn holder_is_killed(guest: &mut Guest) {
    let (before, member) = (shown(guest), guest.must("systemctl show -P MainPID writer"));
    guest.must(&format!("systemctl kill -s KILL '{RESERVE}'"));
    other_path_is_refused(guest);
    wait("the next holder", PATIENCE, || {
        let show = format!("systemctl show -P NRestarts -P ActiveState '{RESERVE}'");
        let states = guest.must(&show);
        (states.contains("active\n") && states.contains("1\n")).then_some(())
    });
    assert_eq!(shown(guest), before);
    assert_eq!(guest.must("systemctl show -P MainPID writer"), member);
}

/// Of the writes that worked the last, of those that failed how many there were since that moment.
fn written(guest: &mut Guest, since: u64) -> (u64, u64, usize) {
    let log = guest.must("cat /run/written");
    let line = |line: &str| -> Option<(u64, bool, u64)> {
        let mut words = line.split(' ');
        let (at, result) = (words.next()?.parse().ok()?, words.next()? == "ok");
        Some((at, result, words.next()?.parse().ok()?))
    };
    let all: Vec<(u64, bool, u64)> = log.lines().filter_map(line).collect();
    let last = all.iter().rfind(|(_, good, _)| *good).expect("one that worked");
    let failed = all.iter().filter(|(at, good, _)| !good && *at > since).count();
    (last.0, last.2, failed)
}

/// When a unit last said that, in the nanoseconds of the writer's clock.
fn said(guest: &mut Guest, unit: &str, words: &str) -> Option<u64> {
    let lines = guest.run(&format!("journalctl -q -b -o json -u '{unit}'")).text;
    let mut entries = lines.lines().filter_map(|l| serde_json::from_str(l).ok());
    let says = |e: &serde_json::Value| e["MESSAGE"].as_str().is_some_and(|m| m.contains(words));
    let entry: serde_json::Value = entries.by_ref().filter(says).last()?;
    let micros: u64 = entry["__MONOTONIC_TIMESTAMP"].as_str()?.parse().ok()?;
    Some(micros * 1000)
}

/// n2's taking it: when it was asked for, when it was done, and what was on the medium after it.
struct Taken {
    asked: u64,
    done: u64,
    medium: String,
}

fn taken_by_n2(guest: &mut Guest) -> Taken {
    let epoch = epoch(guest) + 1;
    let up = guest.must("cut -d ' ' -f 1 /proc/uptime");
    let up: f64 = up.trim().parse().expect("seconds");
    let medium = guest.must(&format!(
        "systemd-run -q --unit=n2 --service-type=notify -p KillMode=mixed n2 {epoch} && \
         md5sum {MEDIUM} || \
         {{ journalctl -b -u n2; false; }}"
    ));
    guest.must("journalctl --sync");
    let done = said(guest, "n2", "reserved for n2").expect("it says so");
    Taken { asked: (up * 1e9) as u64, done, medium }
}

/// The daemon of n1 stands still until here, and its members go on. From the moment at which n2 had
/// it nothing that n1 wrote arrived, and the disk has all that n1 was told it has.
fn nothing_arrived(guest: &mut Guest, taken: &Taken) {
    let Taken { asked, done, medium } = taken;
    wait("n1's writes to fail", PATIENCE, || (written(guest, *done).2 > 2).then_some(()));
    let away = "taken away: it is reserved for n2";
    wait("n1 to be told", PATIENCE, || said(guest, RESERVE, away).filter(|told| told > asked));
    guest.must("systemctl thaw hafailover");
    is_down(guest);
    let (last, number, failed) = written(guest, *done);
    let before = Duration::from_nanos(done.saturating_sub(last));
    println!("  the last write was {before:?} before n2 had it; {failed} failed after it");
    assert!(last < *done, "n1 wrote after n2 had the disk: {last}, {done}");
    assert_eq!(guest.must(&format!("md5sum {MEDIUM}")), *medium, "the medium changed");
    let block = number % 1024;
    let found = guest.must(&format!(
        "mount /dev/sdb /mnt; dd if=/mnt/data bs=4096 skip={block} count=1 2>/dev/null | \
         head -c 20; echo n2 >/mnt/n2; umount /mnt"
    ));
    assert_eq!(found.parse(), Ok(number));
}

fn later_owner_takes_it(guest: &mut Guest) {
    let older = epoch(guest) - 1;
    let refused = guest.run(&format!("n2 {older}"));
    assert_eq!(refused.code, 4, "{}", refused.text);
    assert!(refused.text.contains("a later owner has it: n1"), "{}", refused.text);
    guest.must("systemctl freeze hafailover");
    let taken = taken_by_n2(guest);
    nothing_arrived(guest, &taken);
    // Started again by its cluster, which knows of nothing, the old owner takes nothing back.
    assert!(said(guest, RESERVE, "a later owner has it: n2").is_some());
    assert!(shown(guest).starts_with("reserved for n2"));
    guest.must("systemctl stop n2");
    assert!(shown(guest).starts_with("reserved for n2"), "an old owner may thaw after its stop");
}

/// Everything of n1's stands still while n2 takes the disk, and goes on after it.
fn frozen_owner_is_replaced(guest: &mut Guest) {
    guest.must("hafailover clear files");
    runs(guest);
    let members = format!("writer '{RESERVE}'");
    guest.must(&format!("systemctl freeze hafailover {members}"));
    let taken = taken_by_n2(guest);
    // The new owner has come and gone before the old one goes on.
    guest.must("systemctl stop n2");
    guest.must(&format!("systemctl thaw {members}"));
    nothing_arrived(guest, &taken);
}

/// Nothing is taken from a key that no node of this cluster has; what the message advises helps.
fn foreign_keys_are_left_alone(guest: &mut Guest) {
    guest.must(
        "sg_persist --out --register-ignore --param-sark=0xabc /dev/sdb; \
         sg_persist --out --reserve --param-rk=0xabc --prout-type=1 /dev/sdb",
    );
    let foreign = "a key that is no node's of this cluster: 0x0000000000000abc";
    let before = shown(guest);
    assert!(before.starts_with(&format!("reserved for {foreign}")), "{before}");
    assert_eq!(guest.run("hafailover clear files").code, 1);
    assert!(said(guest, RESERVE, foreign).is_some());
    is_down(guest);
    assert_eq!(shown(guest), before);
    assert!(guest.run("hafailover check").text.contains(foreign));
    let told = guest.must(&format!("journalctl -q -b -o cat -u '{RESERVE}' | grep 'needs it no'"));
    let (_, advice) = told.lines().last().and_then(|l| l.split_once("no more: ")).expect("advice");
    guest.must(advice);
    guest.must("hafailover clear files");
    runs(guest);
}

/// A person gives it back, before the disk is used for something else.
fn stop_leaves_it(guest: &mut Guest) {
    guest.must("systemctl stop files.target");
    is_down(guest);
    assert!(shown(guest).starts_with("reserved for n1"), "{}", shown(guest));
    other_path_is_refused(guest);
    guest.must(&format!("hafailover reserve --remove {DISK}"));
    assert_eq!(shown(guest), "not reserved\n");
    for (disk, words) in [
        ("--show /dev/vda", "not a SCSI disk"),
        ("--show /dev/sdc", "no persistent reservations: switch them on"),
        ("/dev/sdb", "no group that is owned here has it as a member"),
    ] {
        let said = guest.run(&format!("hafailover reserve {disk}"));
        assert!(said.code == 1 && said.text.contains(words), "{disk}: {}", said.text);
    }
}

fn disk_is_gone(guest: &mut Guest) {
    guest.must("hafailover clear files");
    runs(guest);
    let by_hand = |guest: &mut Guest| said(guest, "hafailover", "target was stopped by hand");
    let before = by_hand(guest);
    guest.must("echo 1 >/sys/block/sdb/device/delete; udevadm settle");
    guest.must("echo 1 >/sys/block/sda/device/delete");
    wait("the holder to say so", PATIENCE, || said(guest, RESERVE, "the disk is not here"));
    is_down(guest);
    assert_eq!(by_hand(guest), before, "nobody did");
}
