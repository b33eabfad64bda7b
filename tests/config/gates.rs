//! The gates of a group's members, written even where something is wrong; and what is a member.

use super::{Root, TARGET, groups};
use hafailover::config::generator;

/// What the generator writes for a unit.
fn gate(root: &Root, unit: &str) -> String {
    let out = tempfile::tempdir().expect("a directory");
    generator::generate(root.path(), out.path());
    let path = out.path().join(format!("{unit}.d")).join(generator::DROPIN);
    std::fs::read_to_string(path).unwrap_or_default()
}

const GATE: &str = "AssertPathExists=/run/hafailover/owned/files\n";

/// Goal: what is wrong with one member, or in one line, opens no gate of the others: a stray start
/// would mount the disk on a second node.
#[test]
fn one_bad_member_opens_no_gate_of_the_others() {
    let masked = Root::new(TARGET);
    masked.link_to("smbd.service", "/dev/null");
    let rubbish = Root::new(TARGET);
    rubbish.write("smbd.service", "[Service]\nrubbish\n");
    let bytes = Root::new(TARGET);
    std::fs::write(bytes.dir().join("smbd.service"), b"[Service]\n# \xff\n").expect("written");
    let line = Root::new(&TARGET.replace("[X-", "rubbish\n[X-"));
    let specifier = Root::new(&TARGET.replace("Wants=", "Wants=%n.service "));
    let many: String = (0..70).map(|n| format!(" x{n}.service")).collect();
    let many = Root::new(&TARGET.replace("Wants=", &format!("Wants={many} ")));
    let no_hard = Root::new(&TARGET.replace("Requires=", "Wants="));
    for (n, root) in [masked, rubbish, bytes, line, specifier, many, no_hard].iter().enumerate() {
        // What is wrong in a member's file only hides no group.
        assert_eq!(groups(root).1.is_empty(), n < 3, "case {n}");
        for unit in ["files.target", "srv.mount", "smbd.service", "extra.service"] {
            assert!(gate(root, unit).contains(GATE), "case {n}: {unit}");
        }
    }
}

/// Goal: a masked target keeps the gates of its members: what they are stands behind the mask.
#[test]
fn a_masked_target_keeps_its_gates() {
    let root = Root::new(TARGET);
    root.file("usr/lib/systemd/system/files.target", TARGET);
    std::fs::remove_file(root.dir().join("files.target")).expect("there");
    root.link_to("files.target", "/dev/null");
    assert!(groups(&root).1[0].contains("systemctl unmask files.target"));
    assert!(gate(&root, "srv.mount").contains(GATE));
}

/// Goal: a unit that is enabled into the target is started with it, and so is a member: else it
/// would run on after a move, and a second time on the other node.
#[test]
fn what_is_enabled_into_the_target_is_a_member() {
    let root = Root::new(TARGET);
    root.link("files.target.wants", "late.service");
    root.link("files.target.requires", "hard.service");
    root.link("files.target.requires", "smbd.service");
    let (good, errors) = groups(&root);
    assert_eq!(errors, Vec::<String>::new());
    let group = good.values().next().expect("one group");
    let hard = ["hafailover-ip@10.0.0.9-24.service", "srv.mount", "smbd.service", "hard.service"];
    assert_eq!(group.hard, hard);
    assert_eq!(group.soft, ["extra.service", "late.service"]);
    for unit in ["late.service", "hard.service"] {
        assert!(gate(&root, unit).contains(GATE), "{unit}");
    }
    let other = Root::new(TARGET);
    let print = |root: &Root| {
        let (good, _) = groups(root);
        good.values().next().expect("one group").policy.fingerprint
    };
    assert_ne!(print(&root), print(&other), "a node without those links has other members");
}

/// Goal: one unit under two names in two groups is one unit in two groups.
#[test]
fn an_alias_is_no_second_unit() {
    let root = Root::new(TARGET);
    root.write("smbd.service", "[Service]\nExecStart=true\n");
    root.link_to("samba.service", "smbd.service");
    root.write("web.target", "[Unit]\nRequires=samba.service\n");
    root.link("hafailover-groups.target.wants", "web.target");
    let (_, errors) = groups(&root);
    assert!(errors[0].contains("is a member of files.target and of web.target"), "{errors:?}");
    // Within one group it is said twice, no more.
    let once = Root::new(&TARGET.replace("Wants=", "Wants=samba.service "));
    once.write("smbd.service", "[Service]\nExecStart=true\n");
    once.link_to("samba.service", "smbd.service");
    assert_eq!(groups(&once).1, Vec::<String>::new());
}

/// Goal: whoever isolates a target of the system takes no member out of a group that runs.
#[test]
fn members_are_not_isolated_away() {
    let root = Root::new(TARGET);
    for unit in ["files.target", "srv.mount", "smbd.service"] {
        assert!(gate(&root, unit).contains("IgnoreOnIsolate=yes\n"), "{unit}");
    }
}

/// Goal: what lies on a disk starts after its reservation and stops before it is given back,
/// without a word about it in any file; addresses need not wait.
#[test]
fn members_are_ordered_after_reservations() {
    let unit = r"hafailover-reserve@dev-disk-by\x2did-scsi\x2d36001405.service";
    let root = Root::new(&TARGET.replace("Requires=", &format!("Requires={unit} ")));
    let after = format!("After={unit}\n");
    for unit in ["srv.mount", "smbd.service", "extra.service"] {
        assert!(gate(&root, unit).contains(&after), "{unit}");
    }
    for unit in [unit, "hafailover-ip@10.0.0.9-24.service"] {
        assert!(!gate(&root, unit).contains(&after), "{unit}");
        assert!(gate(&root, unit).contains(GATE), "{unit}");
    }
}
