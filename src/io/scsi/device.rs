//! Which disk a path means, and whether a reservation of it would hold: reservations belong to
//! whole disks, and to one path each.

use std::path::{Path, PathBuf};

/// What the name of a `hafailover-reserve@` unit says.
pub fn of_unit(unit: &str) -> Option<PathBuf> {
    let instance = unit.strip_prefix("hafailover-reserve@")?.strip_suffix(".service")?;
    crate::io::systemd::path_of(&format!("{instance}.device"))
}

/// What is wrong with it, and what to do.
pub fn refuses(path: &Path) -> Result<(), String> {
    refuses_in(path, Path::new("/sys/class/block"))
}

fn refuses_in(path: &Path, sys: &Path) -> Result<(), String> {
    let found = std::fs::canonicalize(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => {
            "there is no such device on this node: look at its cable, its zone or its session; if \
             it is called otherwise, ls -l /dev/disk/by-id"
                .to_string()
        }
        _ => e.to_string(),
    })?;
    let name = found.file_name().unwrap_or_default();
    let at = sys.join(name);
    if !at.exists() {
        return Err("no disk: write what ls -l /dev/disk/by-id shows for it".into());
    }
    if at.join("partition").exists() {
        return Err(
            "a partition: reservations are of whole disks: write the name without -partN; \
                    what is mounted may be a partition"
                .into(),
        );
    }
    let uuid = |dm: &Path| std::fs::read_to_string(dm.join("dm/uuid")).unwrap_or_default();
    let multipath = "a reservation taken on one path would shut out the others: mpathpersist(8) of \
                     multipath-tools does this for all paths, and this member does not";
    if uuid(&at).starts_with("mpath-") {
        return Err(format!("a multipath device: {multipath}"));
    }
    if at.join("dm").exists() {
        return Err("made by the device mapper: write the disk below it".into());
    }
    let mut holders = std::fs::read_dir(at.join("holders")).into_iter().flatten().flatten();
    match holders.find(|holder| uuid(&holder.path()).starts_with("mpath-")) {
        None => Ok(()),
        Some(holder) => {
            let name = holder.file_name();
            Err(format!("a path of the multipath device {}: {multipath}", name.display()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_the_unit_is_a_path() {
        let unit = r"hafailover-reserve@dev-disk-by\x2did-scsi\x2d36001405.service";
        assert_eq!(of_unit(unit), Some("/dev/disk/by-id/scsi-36001405".into()));
        assert_eq!(of_unit("hafailover-ip@10.0.0.1-24.service"), None);
    }

    #[test]
    fn only_whole_disks_with_one_path_are_taken() {
        let dir = tempfile::tempdir().expect("a directory");
        let (dev, sys) = (dir.path().join("dev"), dir.path().join("sys"));
        std::fs::create_dir_all(&dev).expect("made");
        let file = |path: &str, text: &str| {
            let path = sys.join(path);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            std::fs::write(path, text).expect("written");
        };
        file("sda/size", "1");
        file("sda/holders/dm-5/dm/uuid", "LVM-x");
        file("sda1/partition", "1");
        file("dm-0/dm/uuid", "mpath-36001405");
        file("dm-1/dm/uuid", "LVM-36001405");
        file("sdb/holders/dm-0/dm/uuid", "mpath-36001405");
        for name in ["sda", "sda1", "dm-0", "dm-1", "sdb", "null"] {
            std::fs::write(dev.join(name), "").expect("written");
        }
        std::os::unix::fs::symlink("sda", dev.join("scsi-1")).expect("linked");
        let said = |name: &str| refuses_in(&dev.join(name), &sys);
        assert_eq!(said("sda"), Ok(()));
        assert_eq!(said("scsi-1"), Ok(()));
        for (name, words) in [
            ("sda1", "a partition"),
            ("dm-0", "a multipath device: a reservation taken on one path"),
            ("dm-1", "device mapper"),
            ("sdb", "a path of the multipath device dm-0"),
            ("null", "no disk"),
            ("none", "no such device"),
        ] {
            let said = said(name).expect_err(name);
            assert!(said.contains(words), "{name}: {said}");
        }
    }
}
