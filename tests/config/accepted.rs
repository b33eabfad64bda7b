//! Files that are wrong: what was last accepted of them stays, for the daemon and for the gates.

use super::{GOOD, Root, TARGET};
use hafailover::config::accepted::{Accepted, FILE};
use hafailover::config::{generator, load, target};
use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::PermissionsExt;

/// A root whose good files were accepted and kept.
fn accepted() -> (Root, Accepted) {
    let root = Root::new(TARGET);
    root.write("web.target", "[Unit]\nRequires=web.service\n");
    root.link("hafailover-groups.target.wants", "web.target");
    let targets = target::find(root.path()).targets;
    assert_eq!(targets.len(), 2);
    let accepted = Accepted { host: "n1".into(), config: GOOD.into(), targets };
    let path = root.path().join(FILE.trim_start_matches('/'));
    accepted.save(&path).expect("saved");
    assert_eq!(Accepted::load(&path).as_ref(), Some(&accepted));
    (root, accepted)
}

#[test]
fn what_is_wrong_keeps_what_was_accepted_and_nothing_else_does() {
    let (root, accepted) = accepted();
    root.write("files.target", "[Unit]\nRequires=\n");
    root.write("web.target", "[Unit]\nRequires=web.service other.service\n");
    root.write("new.target", "[Unit]\nRequires=web.service\n");
    root.link("hafailover-groups.target.wants", "new.target");
    root.write("bad.target", "rubbish\n");
    root.link("hafailover-groups.target.wants", "bad.target");
    let found = accepted.mend(target::find(root.path()));
    let names = |list: &[hafailover::config::target::Target]| {
        list.iter().map(|t| (t.name.0.clone(), t.hard.join(" "))).collect::<Vec<_>>()
    };
    let files = "hafailover-ip@10.0.0.9-24.service srv.mount smbd.service";
    // web and new want the same unit: the one that was there before stays as it was.
    let mut got = names(&found.targets);
    got.sort();
    assert_eq!(got, [("files".into(), files.into()), ("web".into(), "web.service".into())]);
    assert_eq!(found.wrong.len(), 3, "{:?}", found.wrong);
    assert_eq!(accepted.settings().expect("good").me.0, 0);
}

#[test]
fn the_gates_of_a_group_stay_when_its_file_cannot_be_read() {
    let (root, _) = accepted();
    root.write("files.target", "rubbish\n");
    let out = tempfile::tempdir().expect("a directory");
    let errors = generator::generate(root.path(), out.path());
    assert!(errors.len() == 1 && errors[0].contains("files.target:1:"), "{errors:?}");
    for unit in ["smbd.service", "srv.mount", "web.service"] {
        let gate = out.path().join(format!("{unit}.d")).join(generator::DROPIN);
        let text = std::fs::read_to_string(gate).expect(unit);
        assert!(text.contains("AssertPathExists=/run/hafailover/owned/"), "{unit}: {text}");
    }
}

/// Goal: a gate too many is better than one that is missing.
#[test]
fn a_wrong_group_that_was_never_accepted_has_its_gates() {
    let (root, _) = accepted();
    root.write("new.target", "[Unit]\nRequires=web.service more.service\n");
    root.link("hafailover-groups.target.wants", "new.target");
    let out = tempfile::tempdir().expect("a directory");
    assert_eq!(generator::generate(root.path(), out.path()).len(), 1);
    let gate = out.path().join("more.service.d").join(generator::DROPIN);
    assert!(gate.exists());
}

/// Goal: a list of nodes that would make a running group another node's is told, with its line.
#[test]
fn nodes_that_stay_keep_their_places() {
    let list = |names: &str| {
        let nodes = names.chars().map(|n| format!("[[node]]\nname = \"{n}\"\n"));
        let rest = "[cluster]\nname = \"c\"\n[[link]]\ntype = \"udp\"\ninterface = \"eth1\"\n";
        rest.to_string() + &nodes.collect::<String>()
    };
    let lines = list("").lines().count();
    let before = load::parse(&list("abc"), "h", "b").expect("good");
    for good in ["abc", "ab", "abcd", "abd", "dbc", "dbe"] {
        assert_eq!(load::displaced(&list(good), "h", &before), None, "{good}");
    }
    for (bad, at, word) in [
        ("bc", 1, "b was [[node]] 2 and is 1 now"),
        ("ac", 2, "c was [[node]] 3 and is 2 now"),
        ("acb", 2, "c was [[node]] 3 and is 2 now"),
        ("dabc", 2, "a was [[node]] 1 and is 2 now"),
    ] {
        let words = load::displaced(&list(bad), "h.toml", &before).expect(bad).to_string();
        let place = format!("h.toml:{}:", lines + 2 * at);
        assert!(words.starts_with(&place) && words.contains(word), "{bad}: {words}");
        assert!(words.lines().next().is_some_and(|l| l.contains("hafailover standby")), "{words}");
    }
}

/// Goal: leases on a disk are of one list of nodes, and any other one is told where groups run.
#[test]
fn leases_on_a_disk_are_of_one_list() {
    let list = |names: &str| {
        let nodes = names.chars().map(|n| format!("[[node]]\nname = \"{n}\"\n"));
        let rest = "[cluster]\nname = \"c\"\n[[link]]\ntype = \"udp\"\ninterface = \"eth1\"\n\
                    [arbiter]\nkind = \"sanlock\"\n[arbiter.sanlock]\n\
                    device = \"/dev/disk/by-partlabel/leases\"\n";
        rest.to_string() + &nodes.collect::<String>()
    };
    let before = load::parse(&list("abc"), "h", "b").expect("good");
    assert_eq!(load::displaced(&list("abc"), "h", &before), None);
    for bad in ["ab", "abcd", "abd", "bac"] {
        let words = load::displaced(&list(bad), "h.toml", &before).expect(bad).to_string();
        assert!(words.contains("disk format --leases"), "{bad}: {words}");
    }
}

/// Goal: who grants the leases is another one where it does not know what the other granted.
#[test]
fn another_arbiter_knows_nothing_of_the_first() {
    let with = |arbiter: &str| {
        let rest = "[cluster]\nname = \"c\"\n[[node]]\nname = \"a\"\n[[node]]\nname = \"b\"\n\
                    [[link]]\ntype = \"udp\"\ninterface = \"eth1\"\n";
        load::parse(&format!("{rest}{arbiter}"), "h", "a").expect("good")
    };
    let etcd = |more: &str| with(&format!("[arbiter]\nkind = \"etcd\"\n[arbiter.etcd]\n{more}\n"));
    let witness = |more: &str| {
        with(&format!("[arbiter]\nkind = \"witness\"\n[arbiter.witness]\naddress = {more}\n"))
    };
    let one = etcd("endpoints = [\"http://a:2379\", \"http://b:2379\"]");
    let same = [
        etcd("endpoints = [\"http://b:2379\", \"http://a:2379\"]"),
        etcd("endpoints = [\"http://b:2379\", \"http://c:2379\"]"),
        etcd("endpoints = [\"https://a:2379\"]\nca = \"/etc/ca\""),
    ];
    assert!(same.iter().all(|s| one.same_arbiter(s) && s.same_arbiter(&one)));
    let others = [
        etcd("endpoints = [\"http://c:2379\"]"),
        etcd("endpoints = [\"http://a:2379\"]\nprefix = \"/other\""),
        witness("\"10.0.0.1\""),
        with(""),
    ];
    assert!(!others.iter().any(|o| one.same_arbiter(o) || o.same_arbiter(&one)));
    let (here, there) = (witness("\"10.0.0.1\""), witness("\"10.0.0.2\""));
    assert!(here.same_arbiter(&here) && !here.same_arbiter(&there));
    assert!(with("").same_arbiter(&with("")));
}

/// Goal: nobody but root tells a daemon what it once accepted.
#[test]
fn what_others_can_write_was_never_accepted() {
    let (root, _) = accepted();
    let path = root.path().join(FILE.trim_start_matches('/'));
    set_permissions(&path, Permissions::from_mode(0o622)).expect("chmod");
    assert_eq!(Accepted::load(&path), None);
    set_permissions(&path, Permissions::from_mode(0o600)).expect("chmod");
    std::fs::write(&path, "{\"host\":").expect("written");
    assert_eq!(Accepted::load(&path), None, "half a file");
}
