//! A fence of the storage, in the guest: fence_scsi of Debian's fence-agents, on the disk of
//! `reserve`. n1 is the guest; n2 is a container in it, with a systemd, a disk path and a network
//! of its own. The daemon of n2 stands still and what it runs goes on: until n1's fence has cut it
//! off, and not one write longer.

use crate::cluster::{Cluster, PATIENCE};
use crate::harness::guest::Guest;
use crate::harness::node::Output;
use crate::harness::wait;
use crate::reserve::{DISK, DISKS, DISKS_UNIT, MOUNT, PATIENT, RULE};
use crate::stories::Story;
use std::time::Duration;

pub const ALL: &[(&str, Story)] = &[("fence_of_the_storage", of_the_storage)];

/// Python on a machine that is emulated on a busy one.
const LONG: Duration = Duration::from_secs(300);
const CONFIG: &str = "[cluster]\nname = \"lab\"\n[[node]]\nname = \"n1\"\n[[node]]\nname = \"n2\"\n\
    [[link]]\ntype = \"udp\"\ninterface = \"lan0\"\n[timing]\ndeadtime = \"5s\"\n\
    initdead = \"10s\"\n[safety]\nsilence = \"hold\"\n";
const FENCE: &str = "[[fence]]\nnode = \"nX\"\nkind = \"storage\"\nagent = \"fence_scsi\"\n\
    timeout = \"120s\"\noptions = { key = \"aX\", devices = \"DISK\" }\n";
/// What no daemon does: gives a node the right to write, which the fence takes away.
const REGISTER: &str = "[Unit]\nDescription=Registers this node on the disk\n\
    After=disks.service\nBefore=hafailover.service\n[Service]\nType=oneshot\nRemainAfterExit=yes\n\
    ExecStart=fence_scsi -o on -a -k a1 -d DISK\n[Install]\nWantedBy=multi-user.target\n";
const LINK: &str = "[Unit]\nDescription=The link\nBefore=hafailover.service\n[Service]\n\
    Type=oneshot\nRemainAfterExit=yes\n\
    ExecStart=ip netns add n2\n\
    ExecStart=ip link add lan0 type veth peer name lan0 netns n2\n\
    ExecStart=ip address add 192.168.9.1/24 dev lan0\n\
    ExecStart=ip link set lan0 up\n\
    ExecStart=ip -n n2 address add 192.168.9.2/24 dev lan0\n\
    ExecStart=ip -n n2 link set lan0 up\n[Install]\nWantedBy=multi-user.target\n";
/// n2 is preferred.
const TARGET: &str = "[Unit]\nDescription=Files\nRequires=srv.mount\nWants=writer.service\n\
    [X-Hafailover]\nNodes=n2 n1\nRetries=1\n[Install]\nWantedBy=hafailover-groups.target\n";
/// To a file that is named after the node.
const WRITER: &str = "[Unit]\nAfter=srv.mount\n[Service]\nKillSignal=SIGKILL\n\
    ExecStart=agent direct /srv/%H /run/written\n";
const N2_UNIT: &str = "[Unit]\nDescription=The second node\nRequires=link.service disks.service\n\
    After=link.service disks.service\n[Service]\nType=notify\nDelegate=yes\nKillMode=mixed\n\
    TimeoutSec=5min\nEnvironment=SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1\n\
    ExecStart=systemd-nspawn -q -D /var/lib/n2 --machine=n2 --register=no --keep-unit \
    --capability=all --network-namespace-path=/run/netns/n2 --bind-ro=/usr \
    --bind=/dev/sdb:DISK --notify-ready=yes -b\n";
/// `n2 COMMAND`: runs it there.
const N2: &str = r#"#!/bin/sh
set -e
read -r pid </sys/fs/cgroup/system.slice/n2.service/payload/init.scope/cgroup.procs
exec nsenter -t "$pid" -m -u -i -n -p -C -r -w sh -c "$1"
"#;
/// n2 has the same files, but for its names and its key.
const SETUP: &str = "hafailover keygen\nchmod 755 /usr/local/sbin/disks /usr/local/sbin/n2\n\
    truncate -s 64M /var/lib/medium\nmke2fs -q -t ext4 /var/lib/medium\n\
    systemctl -q mask systemd-logind getty.target\nsystemctl -q enable register files.target\n\
    mkdir -p /var/lib/n2/usr /var/lib/n2/var\ncp -a /etc /var/lib/n2\n\
    systemctl -q enable link disks\ncd /var/lib/n2\nln -s usr/bin usr/sbin usr/lib usr/lib64 .\n\
    python3 -m compileall -q /usr/share/fence/fencing.py\n\
    cp --remove-destination /usr/lib/os-release etc/os-release\n\
    echo n2 >etc/hostname\nsystemd-id128 new >etc/machine-id\n\
    sed -i s/a1/a2/ etc/systemd/system/register.service\n";

fn of_the_storage(c: &mut Cluster) {
    let fences = ["1", "2"].map(|n| FENCE.replace('X', n)).concat();
    let disk = |text: &str| text.replace("DISK", DISK);
    let files = [
        ("etc/hostname", "n1\n"),
        ("etc/hafailover/hafailover.toml", &disk(&[CONFIG, &fences].concat())),
        ("etc/systemd/system/hafailover.service.d/patient.conf", PATIENT),
        ("etc/systemd/system/link.service", LINK),
        ("etc/systemd/system/register.service", &disk(REGISTER)),
        ("etc/systemd/system/files.target", TARGET),
        ("etc/systemd/system/srv.mount", &disk(MOUNT)),
        ("etc/systemd/system/writer.service", WRITER),
        ("etc/systemd/system/disks.service", DISKS_UNIT),
        ("etc/systemd/system/n2.service", &disk(N2_UNIT)),
        ("etc/udev/rules.d/90-paths.rules", RULE),
        ("usr/local/sbin/disks", DISKS),
        ("usr/local/sbin/n2", N2),
    ];
    let mut guest = Guest::new(c.lab.dir(), c.lab.layers(), &files, SETUP);
    let guest = &mut guest;
    guest.must("systemctl start n2 || { journalctl -b -u n2 -u disks -u link; false; }");
    for node in NODES {
        let created = run(guest, node, "hafailover state create && systemctl start hafailover");
        assert_eq!(created.code, 0, "{node}: {}", created.text);
    }
    is(guest, "n2", "running");
    fence_stands_ready(guest);
    is_cut_off(guest);
    comes_to_itself(guest);
    is_registered_again(guest);
}

/// n2 starts first, so that it is there when n1 looks whom it hears.
const NODES: [&str; 2] = ["n2", "n1"];

/// Runs a shell command without single quotes on a node.
fn run(guest: &mut Guest, node: &str, command: &str) -> Output {
    match node {
        "n2" => guest.run(&format!("n2 '{command}'")),
        _ => guest.run(command),
    }
}

/// Waits until the group is there in this phase.
fn is(guest: &mut Guest, node: &str, phase: &str) {
    wait(&format!("files to be {phase} on {node}"), LONG, || {
        let status = run(guest, node, "hafailover status --json").text;
        let status: serde_json::Value = serde_json::from_str(&status).ok()?;
        (status["view"]["groups"][0]["phase"] == phase).then_some(())
    });
}

/// The first of a kind that n1's daemon tells. It is awaited there: to ask again and again would
/// hold up the agent, which has the same processor.
fn told(guest: &mut Guest, what: &str) -> serde_json::Value {
    let entry = guest.must(&format!(
        "timeout 280 journalctl -q -b -f -n all -o json SYSLOG_IDENTIFIER=hafailover \
         HAFAILOVER_WHAT={what} | head -n 1"
    ));
    serde_json::from_str(&entry).unwrap_or_else(|e| panic!("n1 tells no {what}: {e}: {entry}"))
}

/// When it was, in the nanoseconds of the writers' clock.
fn at(entry: &serde_json::Value) -> u64 {
    let micros: Option<u64> = entry["__MONOTONIC_TIMESTAMP"].as_str().and_then(|t| t.parse().ok());
    micros.expect("each has its time") * 1000
}

/// What came of a node's writes. All begin at the time that is noted.
struct Writes {
    /// The last that worked: its time, its number.
    last: (u64, u64),
    /// The times of those that failed.
    failed: Vec<u64>,
}

fn writes(guest: &mut Guest, node: &str) -> Option<Writes> {
    let of_log = "grep \" ok \" /run/written | tail -n 1; grep -v \" ok \" /run/written";
    let log = run(guest, node, of_log).text;
    let (mut last, mut failed) = (None, Vec::new());
    for line in log.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let &[at, result, number] = &words[..] else { continue };
        let (Ok(at), Ok(number)) = (at.parse(), number.parse()) else { continue };
        match result {
            "ok" => last = Some((at, number)),
            _ => failed.push(at),
        }
    }
    Some(Writes { last: last?, failed })
}

/// The highest number that n2 has written to the disk, read by n1 past all caches.
fn on_the_disk(guest: &mut Guest) -> u64 {
    let found = guest.must(
        "dd if=/srv/n2 iflag=direct bs=1M 2>/dev/null | grep -aoE '[0-9]{20}' | sort | tail -n 1",
    );
    found.trim().parse().expect("n2 has written")
}

/// Past n2's file system and its caches, which know that they cannot write.
fn other_path_is_refused(guest: &mut Guest) {
    let write = "sg_dd if=/dev/zero of=/dev/sdb oflag=sgio bs=512 count=8 seek=128000";
    let said = guest.run(write);
    assert!(said.code != 0 && said.text.contains("Reservation Conflict"), "{}", said.text);
}

fn fence_stands_ready(guest: &mut Guest) {
    let checked = guest.run("hafailover check").text;
    assert!(checked.contains("fence_scsi") && !checked.contains("error"), "{checked}");
    let tried = told(guest, "fence-drill-passed");
    let words = tried["MESSAGE"].as_str().unwrap_or_default();
    assert!(words.contains("the node has its storage"), "{words}");
    wait("n2 to write", PATIENCE, || writes(guest, "n2"));
}

fn is_cut_off(guest: &mut Guest) {
    let frozen = run(guest, "n2", "systemctl freeze hafailover");
    assert_eq!(frozen.code, 0, "{}", frozen.text);
    let kinds = ["fencing", "fenced", "group-claimed", "group-started"];
    let [began, fenced, claimed, started] = kinds.map(|what| told(guest, what));
    let words = fenced["MESSAGE"].as_str().unwrap_or_default();
    assert!(words.contains("fence_scsi ended well: it is cut from the storage"), "{words}");
    assert_eq!(started["HAFAILOVER_EVIDENCE"], "n2=Fenced");
    assert!(at(&fenced) <= at(&claimed), "claimed before it was fenced");
    let since = at(&started);
    let later = |w: &Writes| w.failed.iter().filter(|at| **at > since).count();
    let seen = wait("n2's writes to fail", PATIENCE, || {
        writes(guest, "n2").filter(|seen| later(seen) > 2)
    });
    let (last, number) = seen.last;
    assert!(last > at(&began), "n2 did not write until it was fenced");
    assert!(last < at(&fenced), "n2 wrote after it was fenced");
    assert!(seen.failed.iter().all(|failed| *failed > last), "a write failed before the last");
    nothing_arrives(guest, number, seen.failed.len());
    println!(
        "  n2's last write was {:?} after n1 had begun to fence it, and {:?} before the start",
        Duration::from_nanos(last - at(&began)),
        Duration::from_nanos(since - last)
    );
    wait("n1 to write", PATIENCE, || writes(guest, "n1").filter(|own| own.last.0 > since));
    assert!(writes(guest, "n1").is_some_and(|own| own.failed.is_empty()), "n1 is refused");
    let explained = guest.must("hafailover explain files");
    assert!(explained.contains("n2 was fenced by fence_scsi"), "{explained}");
}

/// n2 goes on writing, and the disk stays as it was.
fn nothing_arrives(guest: &mut Guest, last: u64, failed: usize) {
    let before = on_the_disk(guest);
    // One may have arrived as n2 was cut off, which was told of no more.
    assert!(before == last || before == last + 1, "{before} is there, n2 wrote {last}");
    wait("more of n2's writes to fail", PATIENCE, || {
        writes(guest, "n2").filter(|seen| seen.failed.len() > failed + 2)
    });
    assert_eq!(on_the_disk(guest), before);
    other_path_is_refused(guest);
    let reserved = guest.must("sg_persist -n -i -r /dev/sda; sg_persist -n -i -k /dev/sda");
    assert!(reserved.contains("Write Exclusive, registrants only"), "{reserved}");
    assert!(reserved.contains("0xa1") && !reserved.contains("0xa2"), "{reserved}");
}

/// Its daemon hears of the new owner and stops what it ran; it was never off, and nobody says so.
fn comes_to_itself(guest: &mut Guest) {
    let thawed = run(guest, "n2", "systemctl thaw hafailover");
    assert_eq!(thawed.code, 0, "{}", thawed.text);
    is(guest, "n2", "stopped");
    let left = run(guest, "n2", "systemctl is-active srv.mount writer").text;
    assert!(!left.lines().any(|state| state == "active"), "{left}");
    is(guest, "n1", "running");
    // Once it was heard for long, that is a drill that fails: scenario 152.
    let checked = guest.run("hafailover fence n2 --check").text;
    assert!(checked.contains("the node is cut from the storage"), "{checked}");
    let lied = "journalctl -q -b -o cat SYSLOG_IDENTIFIER=hafailover HAFAILOVER_WHAT=fence-lied";
    assert_eq!(guest.run(lied).text, "", "a node that was cut off may answer");
    other_path_is_refused(guest);
}

/// By its next boot, and then it may have the group.
fn is_registered_again(guest: &mut Guest) {
    guest.must("systemctl restart n2 && n2 'systemctl start hafailover'");
    wait("n2 to be fit", LONG, || {
        guest.run("hafailover explain files").text.contains("n2 may run it").then_some(())
    });
    guest.must("hafailover move files");
    is(guest, "n2", "running");
    let seen = wait("n2 to write", PATIENCE, || writes(guest, "n2"));
    assert!(seen.failed.is_empty(), "n2 is still refused");
}
