//! What lies below a file system, and a server of disks.

use super::stage::{client_must, files, moved, prepare, runs_on, start};
use crate::cluster::Cluster;
use crate::harness::ADDRESS;

/// A client logs in and sees the disk whose file is on the shared disk.
pub fn iscsi_target(c: &mut Cluster) {
    let recipe =
        [files("FILE SERVER", &["mount"]), files("ISCSI", &["san.target", "tgt"])].concat();
    prepare(c, "san", &recipe, "truncate -s 8M lun1");
    start(c);
    let name = "iqn.2003-01.example.office:tti";
    let disk = format!("iscsi-readcapacity16 -s iscsi://{ADDRESS}/{name}/1");
    runs_on(c, "san", 0);
    let size = client_must(c, &disk);
    assert_eq!(size.trim(), (8 << 20).to_string());
    moved(c, "san", 1);
    assert_eq!(client_must(c, &disk), size);
    moved(c, "san", 0);
    assert_eq!(client_must(c, &disk), size);
}

/// A stand-in, where there is no DRBD in the kernel: one primary, whose name all nodes see; the
/// device is there for the primary only, and a mounted one is not given up. A dead primary is
/// believed alive until somebody takes its name away, as DRBD does when its ping timed out.
const DRBDADM: &str = "#!/bin/sh\nexec 9>/stamps/r0.lock; flock 9\n\
    name=$(cat /stamps/r0 2>/dev/null)\n\
    case $1 in\n\
    primary) test -z \"$name\" || test \"$name\" = $(uname -n) || \
    { echo refused >>/stamps/r0.refused; echo 'Multiple primaries not allowed' >&2; exit 11; }\n\
    uname -n >/stamps/r0; test -e /dev/drbd0 || cp -a /dev/shared /dev/drbd0;;\n\
    secondary) grep -q '^/dev/drbd0 ' /proc/mounts && { echo 'held open' >&2; exit 11; }\n\
    rm -f /dev/drbd0; test \"$name\" != $(uname -n) || rm -f /stamps/r0;;\n\
    esac\n";

/// Primary on one node only, in a move and after a death that DRBD sees later than hafailover.
pub fn drbd(c: &mut Cluster) {
    let mut recipe = [files("FILE SERVER", &["smb.conf"]), files("DRBD", &[])].concat();
    recipe.push(("/usr/sbin/drbdadm".into(), DRBDADM.into()));
    prepare(c, "files", &recipe, "mkdir smb public");
    for node in &c.lab.nodes {
        node.must("chmod 755 /usr/sbin/drbdadm; rm -f /stamps/r0 /stamps/r0.refused");
    }
    start(c);
    runs_on(c, "files", 0);
    let primary = |c: &Cluster| c.lab.node(1).run("cat /stamps/r0").text.trim().to_string();
    assert_eq!(primary(c), "n1");
    moved(c, "files", 1);
    assert_eq!(primary(c), "n2");
    moved(c, "files", 0);
    c.lab.kill(0);
    crate::harness::wait("n2 to be refused", crate::cluster::PATIENCE, || {
        (c.lab.node(1).run("test -s /stamps/r0.refused").code == 0).then_some(())
    });
    assert_eq!(primary(c), "n1");
    c.lab.node(1).must("rm /stamps/r0");
    runs_on(c, "files", 1);
    assert_eq!(primary(c), "n2");
    assert_eq!(c.failed_starts(1), 0);
}

/// A real volume group, whose owner is changed; it has no logical volume, as those need device
/// mapper.
pub fn lvm(c: &mut Cluster) {
    let mut recipe = files("LVM", &["lvmlocal", "vg@", "files.target"]);
    let target = recipe.iter_mut().find(|f| f.0.ends_with("files.target")).expect("a target");
    let above = "Requires=ttidisk.mount nmbd.service smbd.service\n";
    assert!(target.1.contains(above));
    target.1 = target.1.replace(above, "");
    prepare(c, "files", &recipe, "");
    let owner = |c: &Cluster, n: usize| {
        let said = c.lab.node(n).must("vgs --noheadings --foreign -o systemid data 2>/dev/null");
        said.trim().to_string()
    };
    let make = "exec 2>&1; wipefs -qa /dev/shared; vgcreate --systemid n1 data /dev/shared";
    c.lab.node(0).must(make);
    assert_ne!(c.lab.node(1).run("vgchange --activate y data").code, 0, "by hand on the other");
    start(c);
    runs_on(c, "files", 0);
    moved(c, "files", 1);
    assert_eq!(owner(c, 1), "n2");
    assert_ne!(c.lab.node(0).run("vgchange --activate y data").code, 0, "by hand on the other");
    c.lab.kill(1);
    runs_on(c, "files", 0);
    assert_eq!(owner(c, 0), "n1");
    let back = "exec 2>&1; systemctl stop hafailover; vgremove -fy data; \
                pvremove -qy /dev/shared; mkfs.ext4 -q -F /dev/shared";
    c.lab.node(0).must(back);
}

/// What the kernel here cannot run: the units fit those of the packages, and no gate is missing.
pub fn checked_only(c: &mut Cluster) {
    let file_server = files("FILE SERVER", &["files.target", "mount", "smb.conf"]);
    let nfs = files("NFS SERVER", &["files.target.d", "nfs.conf.d", "exports"]);
    let iscsi = files("ISCSI", &["iscsi-tti", "mount", "files.target"]);
    let san = files("FILE SERVER", &["smb.conf"]);
    let lvm = files("LVM", &[]);
    for recipe in [[file_server, nfs].concat(), [iscsi, san.clone()].concat(), [lvm, san].concat()]
    {
        prepare(c, "files", &recipe, "mkdir -p smb public nfs");
        let units: Vec<&str> = recipe
            .iter()
            .filter_map(|(path, _)| path.strip_prefix("/etc/systemd/system/"))
            .filter(|unit| !unit.contains('/'))
            .collect();
        let names = units.join(" ").replace("vg@.service", "vg@data.service");
        let verify = format!("systemd-analyze verify --man=no {names} 2>&1");
        let said = c.lab.node(0).run(&verify).text;
        // What other units say of themselves is not the recipe's.
        let ours = said.lines().filter(|l| units.iter().any(|unit| l.contains(unit)));
        assert_eq!(ours.count(), 0, "{said}");
        for unit in super::stage::members(&recipe, "files") {
            let shown = c.lab.node(0).must(&format!("systemctl cat {unit}"));
            assert!(shown.contains("AssertPathExists=/run/hafailover/owned/files"), "{shown}");
        }
    }
}
