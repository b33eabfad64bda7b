//! Wrong input: each must be refused with the place, what is wrong and how to mend it.

mod accepted;
mod arbiter;
mod check;
mod fence;
mod gates;
mod props;

use hafailover::config::load::{ConfigError, parse, parse_duration, show};
use hafailover::config::settings::{GroupSettings, Settings};
use hafailover::config::{generator, target};
use hafailover::core::name::GroupName;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

const GOOD: &str = r#"[cluster]
name = "office"
[[node]]
name = "n1"
[[node]]
name = "n2"
[[link]]
type = "udp"
interface = "eth1"
[[link]]
type = "serial"
device = "/dev/ttyS0"
"#;

fn good() -> Settings {
    parse(GOOD, "h.toml", "n1").expect("good")
}

#[test]
fn the_smallest_file_gives_the_documented_defaults() {
    let settings = good();
    assert_eq!(settings.timing.keepalive.as_millis(), 200);
    assert_eq!(settings.timing.warntime.as_millis(), 500);
    assert_eq!(settings.timing.deadtime.as_millis(), 1000);
    assert_eq!(settings.timing.initdead.as_secs(), 30);
    assert_eq!(settings.me.0, 0);
    assert_eq!(parse(GOOD, "h.toml", "N2.example.com").expect("by short name").me.0, 1);
    let other = parse(GOOD, "h.toml", "n2").expect("good");
    assert_eq!(settings.fingerprint, other.fingerprint, "the same file, the same fingerprint");
    let slower = format!("{GOOD}[timing]\nkeepalive = \"300ms\"\n");
    assert_ne!(parse(&slower, "h.toml", "n1").expect("good").fingerprint, settings.fingerprint);
}

/// What is wrong, the line it must name, and a word of the advice.
#[test]
fn every_wrong_file_says_where_and_what() {
    let with = |more: &str| format!("{GOOD}{more}");
    let without = |less: &str| GOOD.replace(less, "");
    let lines = GOOD.lines().count();
    let cases: Vec<(String, usize, &str)> = vec![
        (with("[timing]\nkeepalive = 2\n"), lines + 2, "string"),
        (with("[timing]\nkeepalive = \"2\"\n"), lines + 2, "500ms"),
        (with("[timing]\nkeepalive = \"5ms\"\n"), lines + 2, "10ms to 60s"),
        (with("[timing]\nkeepalive = \"2s\"\ndeadtime = \"3s\"\n"), lines + 3, "twice keepalive"),
        (with("[timing]\nwarntime = \"9s\"\n"), lines + 2, "between"),
        (with("[timing]\ndeadtime = \"5s\"\ninitdead = \"1s\"\n"), lines + 3, "initdead"),
        (with("[timing]\nkeepalife = \"2s\"\n"), lines + 2, "keepalife"),
        (with("[safety]\nsilence = \"maybe\"\n"), lines + 2, "takeover"),
        (with("[safety]\nstonith = true\n"), lines + 2, "stonith"),
        (with("[safety]\nguard-bound = \"1s\"\n"), lines + 2, "a second or more"),
        (with("[safety]\nquorum-lost = \"stop\"\n"), lines + 2, "neither is a majority"),
        (with("[fencing]\n"), lines + 1, "fencing"),
        (with("[[node]]\nname = \"n1\"\n"), lines + 2, "twice"),
        (with("[[node]]\nname = \"a b\"\n"), lines + 2, "host name"),
        (with("[[node]]\nnick = \"x\"\n"), lines + 2, "nick"),
        (with("[[link]\n"), lines + 1, ""),
        (without("name = \"office\"\n"), 1, "name"),
        (without("[[node]]\nname = \"n2\"\n"), lines - 1, "2 to 16"),
        (GOOD.split("[[link]]").next().unwrap_or_default().to_string(), 7, "1 to 16"),
        (GOOD.replace("n1", "nx"), 4, "n1"),
    ];
    cases.into_iter().for_each(says);
}

fn says((text, line, word): (String, usize, &str)) {
    let ConfigError(error) = parse(&text, "h.toml", "n1").expect_err(&text);
    assert!(error.starts_with(&format!("h.toml:{line}:")), "line {line} of {text}\n{error}");
    assert!(error.contains(word), "no {word:?} in {error}");
}

#[test]
fn every_wrong_link_says_where_and_what() {
    let with = |more: &str| format!("{GOOD}{more}");
    let lines = GOOD.lines().count();
    let cases: Vec<(String, usize, &str)> = vec![
        (with("[[link]]\ntype = \"tipc\"\n"), lines + 2, "tipc"),
        (with("[[link]]\ntype = \"udp\"\ninterface = \"eth1\"\n"), lines + 1, "already"),
        (
            with("[[link]]\ntype=\"udp\"\ninterface=\"eth1\"\ngroup=\"ff02::94\"\n"),
            lines + 1,
            "another port",
        ),
        (with("[[link]]\ntype = \"udp\"\ninterface = \"\"\n"), lines + 3, "ip link"),
        (
            with("[[link]]\ntype = \"udp\"\ninterface = \"e\"\ngroup = \"10.0.0.1\"\n"),
            lines + 1,
            "multicast",
        ),
        (
            with("[[link]]\ntype=\"udp\"\ninterface=\"e\"\naddresses={n1=\"10.0.0.1\"}\n"),
            lines + 1,
            "n2",
        ),
        (
            with("[[link]]\ntype=\"udp\"\ninterface=\"e\"\naddresses={n9=\"10.0.0.1\"}\n"),
            lines + 1,
            "n9",
        ),
        (
            with(
                "[[link]]\ntype=\"udp\"\ninterface=\"e\"\naddresses={n1=\"10.0.0.1\",n2=\"::1\"}\n",
            ),
            lines + 1,
            "mixes",
        ),
        (with("[[link]]\ntype=\"serial\"\ndevice=\"/dev/ttyS1\"\nbaud=300\n"), lines + 1, "9600"),
        (
            with("[[link]]\ntype=\"serial\"\ndevice=\"/dev/ttyS0\"\nbaud=9600\n"),
            lines + 1,
            "already",
        ),
        (
            with("[[link]]\ntype=\"serial\"\ndevice=\"/dev/ttyS1\"\nnodes=[\"n1\",\"n1\"]\n"),
            lines + 1,
            "two nodes",
        ),
        (
            with("[[link]]\ntype=\"serial\"\ndevice=\"/dev/ttyS1\"\nnodes=[\"n1\",\"n9\"]\n"),
            lines + 1,
            "n9",
        ),
        (with("[[node]]\nname = \"n3\"\n"), 10, "a serial line joins two nodes"),
    ];
    cases.into_iter().for_each(says);
}

#[test]
fn every_wrong_disk_says_where_and_what() {
    let disk = |more: &str| format!("{GOOD}[[link]]\ntype = \"disk\"\n{more}\n");
    let at = GOOD.lines().count() + 1;
    let device = "device = \"/dev/disk/by-id/x\"\n";
    let with = |more: &str| disk(&format!("{device}{more}"));
    let slower = |more: &str| with(more) + "[timing]\nkeepalive = \"300ms\"\ndeadtime = \"2s\"\n";
    let cases = [
        // As for every kind of link, a key that is missing, unknown or of
        // another type is told at the first link.
        (disk(""), 7, "device"),
        (disk("device = \"sdb1\""), at + 2, "/dev/disk/by-"),
        (disk("device = { n1 = \"/dev/a\" }"), at + 2, "none for n2"),
        (disk("device = 7"), at + 2, "write a name"),
        (with("interval = \"100ms\""), at + 3, "less than keepalive (200ms)"),
        (with("interval = \"500ms\""), at + 3, "half of deadtime (1s)"),
        (slower("interval = \"200ms\""), at + 3, "less than keepalive (300ms)"),
        (slower("interval = \"1s\""), at + 3, "half of deadtime (2s)"),
        (with("interval = \"often\""), at + 3, "500ms"),
        (with("interval = 5"), 7, "string"),
        (with("baud = 9600"), 7, "baud"),
        (with("interface = { n3 = \"eth1\" }"), at + 3, "n3, which is no node"),
        (with(&format!("[[link]]\ntype = \"disk\"\n{device}")), at + 3, "fails for both"),
    ];
    cases.into_iter().for_each(says);
}

/// Goal: a disk is a cable of its own, unless it is reached over one that is a link already.
#[test]
fn a_disk_counts_as_the_cable_it_is_reached_by() {
    let disk = "[[link]]\ntype = \"disk\"\ndevice = \"/dev/disk/by-id/x\"\n";
    let cables = |text: &str| {
        let settings = parse(text, "h.toml", "n1").expect("good");
        settings.cables(|one, other| one == other).iter().map(|l| l.0).collect::<Vec<_>>()
    };
    assert_eq!(cables(&format!("{GOOD}{disk}")), [0, 1, 2]);
    assert_eq!(cables(&format!("{GOOD}{disk}interface = \"eth1\"\n")), [0, 1, 0]);
    assert_eq!(cables(&format!("{GOOD}{disk}interface = \"eth9\"\n")), [0, 1, 2]);
}

#[test]
fn every_wrong_table_by_node_says_where_and_what() {
    let udp = |table: &str| format!("{GOOD}[[link]]\ntype = \"udp\"\n  interface = {table}\n");
    let line = |more: &str| format!("{GOOD}[[link]]\ntype = \"serial\"\n{more}\n");
    let at = GOOD.lines().count() + 3;
    let cases = [
        (udp("{ n1 = \"a\" }"), at, "none for n2"),
        (udp("{ n1 = \"a\", n2 = \"b\", n9 = \"c\" }"), at, "n9, which is no node"),
        (udp("{ n1 = \"a\", n2 = \"\" }"), at, "ip link"),
        (udp("{ n1 = \"eth9\", n2 = \"eth1\" }"), at - 2, "eth1 uses what"),
        (udp("7"), at, "a name, or a table"),
        (udp("{ n1 = 1, n2 = 2 }"), at, "a name, or a table"),
        (line("device = { n1 = \"/dev/ttyS1\" }"), at, "none for n2"),
        (
            format!(
                "{}[[node]]\nname = \"n3\"\n",
                line("device = { n3 = \"/dev/ttyS1\" }\nnodes = [\"n1\", \"n2\"]")
                    .replace("ttyS0\"", "ttyS0\"\nnodes = [\"n1\", \"n2\"]")
            ),
            at + 1,
            "n3, which is no node of this link: n1, n2",
        ),
    ];
    cases.into_iter().for_each(says);
}

#[test]
fn a_device_may_be_called_otherwise_on_each_node() {
    let text = GOOD
        .replace("\"eth1\"", "{ n1 = \"eth1\", n2 = \"enp3s0\" }")
        .replace("\"/dev/ttyS0\"", "{ n1 = \"/dev/ttyS0\", n2 = \"/dev/ttyUSB0\" }");
    let of = |node: &str| parse(&text, "h.toml", node).expect("good");
    let names = |node: &str| of(node).links.into_iter().map(|l| l.name).collect::<Vec<_>>();
    assert_eq!(names("n1"), ["udp eth1", "serial /dev/ttyS0"]);
    assert_eq!(names("n2"), ["udp enp3s0", "serial /dev/ttyUSB0"]);
    assert_eq!(of("n1").fingerprint, of("n2").fingerprint, "one file, one fingerprint");
    assert_ne!(of("n1").fingerprint, good().fingerprint);
}

struct Root(tempfile::TempDir);

impl Root {
    fn new(target: &str) -> Root {
        let root = Root(tempfile::tempdir().expect("a directory"));
        root.write("files.target", target);
        let wants = root.dir().join("hafailover-groups.target.wants");
        std::fs::create_dir_all(&wants).expect("made");
        std::os::unix::fs::symlink("../files.target", wants.join("files.target")).expect("linked");
        root
    }
    fn dir(&self) -> std::path::PathBuf {
        self.0.path().join("etc/systemd/system")
    }
    fn write(&self, name: &str, text: &str) {
        let path = self.dir().join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        std::fs::write(path, text).expect("written");
    }
    fn file(&self, name: &str, text: &str) {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        std::fs::write(path, text).expect("written");
    }
    fn link(&self, dir: &str, unit: &str) {
        let dir = self.dir().join(dir);
        std::fs::create_dir_all(&dir).expect("made");
        std::os::unix::fs::symlink(format!("../{unit}"), dir.join(unit)).expect("linked");
    }
    fn link_to(&self, unit: &str, to: &str) {
        let path = self.dir().join(unit);
        std::os::unix::fs::symlink(to, path).expect("linked");
    }
    fn path(&self) -> &Path {
        self.0.path()
    }
}

const TARGET: &str = "[Unit]\nRequires=hafailover-ip@10.0.0.9-24.service srv.mount \\\n \
                      smbd.service\nWants=extra.service\n\
                      [X-Hafailover]\nNodes=n2 n1\nFailback=10min\n";

/// The groups below a root, and what is wrong with them.
fn groups(root: &Root) -> (BTreeMap<GroupName, GroupSettings>, Vec<String>) {
    let settings = Settings { silence_chosen: true, ..good() };
    let mut found = target::find(root.path());
    found.judge(&settings);
    let good = found.targets.iter().filter_map(|t| {
        let group = target::settle(t, &settings).ok()?;
        Some((t.name.clone(), group))
    });
    (good.collect(), found.wrong.into_iter().map(|w| w.words).collect())
}

#[test]
fn a_group_is_read_with_its_drop_ins() {
    let root = Root::new(TARGET);
    root.write("files.target.d/50-x.conf", "[X-Hafailover]\nFailback=yes\nOrder=listed\nNodes=\n");
    let (groups, errors) = groups(&root);
    assert_eq!(errors, Vec::<String>::new());
    let group = groups.values().next().expect("one group");
    assert_eq!(group.hard, ["hafailover-ip@10.0.0.9-24.service", "srv.mount", "smbd.service"]);
    assert_eq!(group.soft, ["extra.service"]);
    assert_eq!(group.policy.nodes.iter().map(|n| n.0).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(group.policy.failback, hafailover::core::policy::Failback::Yes);
    assert!(group.listed_order);
}

/// What two nodes compare of a group: what makes it this group, and what else its members say.
fn compared(root: &Root) -> (u32, u32) {
    let (groups, errors) = groups(root);
    assert_eq!(errors, Vec::<String>::new());
    let policy = &groups.values().next().expect("one group").policy;
    (policy.fingerprint, policy.texts)
}

/// Goal: an upgrade of what runs in a group goes from node to node; another disk, other members
/// or other settings are another group.
#[test]
fn only_what_makes_it_another_group_bars_it() {
    let machine = || {
        let root = Root::new(TARGET);
        root.write("srv.mount", "[Mount]\nWhat=/dev/sdb1\nWhere=/srv\nOptions=noatime\n");
        root.write("smbd.service", "[Service]\nExecStart=/usr/sbin/smbd\n");
        root.write("hafailover-ip@.service", "[Service]\nExecStart=/x\n");
        root
    };
    let usual = compared(&machine());
    type Change = fn(&Root);
    let nothing: [Change; 4] = [
        |r| r.write("files.target", &format!("# by me\n{TARGET}[Install]\nWantedBy=a.target\n")),
        |r| r.write("files.target.d/a.conf", "[Unit]\nDescription=The office's files\n"),
        |r| r.write("hafailover-ip@.service", "[Service]\nExecStart=/new\n"),
        |r| r.write("smbd.service", "# 4.17\n[Service]\nExecStart = /usr/sbin/smbd\n"),
    ];
    let texts: [Change; 4] = [
        |r| r.write("smbd.service", "[Service]\nExecStart=/usr/sbin/smbd --foreground\n"),
        |r| r.write("smbd.service.d/memory.conf", "[Service]\nMemoryMax=2G\n"),
        |r| r.write("smbd.service.d/order.conf", "[Unit]\nAfter=srv.mount\n"),
        |r| r.write("srv.mount.d/a.conf", "[Mount]\nOptions=ro\n"),
    ];
    let another: [Change; 5] = [
        |r| r.write("files.target.d/a.conf", "[X-Hafailover]\nFailback=yes\n"),
        |r| r.write("files.target.d/a.conf", "[Unit]\nRequires=nmbd.service\n"),
        |r| {
            r.write(
                "files.target",
                &TARGET.replace("srv.mount \\\n smbd.service", "smbd.service srv.mount"),
            );
        },
        |r| r.write("srv.mount.d/a.conf", "[Mount]\nWhat=/dev/sdc1\n"),
        |r| r.write("srv.mount.d/a.conf", "[Mount]\nOptions=noatime,subvol=old\n"),
    ];
    let after = |change: &Change| {
        let root = machine();
        change(&root);
        compared(&root)
    };
    for (n, change) in nothing.iter().enumerate() {
        assert_eq!(after(change), usual, "nothing {n}");
    }
    for (n, change) in texts.iter().enumerate() {
        let now = after(change);
        assert!(now.0 == usual.0 && now.1 != usual.1, "texts {n}");
    }
    for (n, change) in another.iter().enumerate() {
        assert_ne!(after(change).0, usual.0, "another {n}");
    }
}

/// Goal: what is wrong with a member is told by check and by systemd, and is no reason to have no
/// group at all.
#[test]
fn a_member_that_is_masked_or_broken_leaves_the_group_known() {
    let root = Root::new(TARGET);
    root.write("smbd.service", "rubbish\n");
    std::os::unix::fs::symlink("/dev/null", root.dir().join("extra.service")).expect("masked");
    compared(&root);
}

#[test]
fn every_wrong_section_says_where_and_what() {
    let cases = [
        ("Nodes=n1 n3\n", "n3 is no node"),
        ("StopFailure=reboot\n", "hold, kill-users or fence-self"),
        ("Nodes=n1 n1\n", "twice"),
        ("Failback=maybe\n", "delay like 10min"),
        ("Order=alphabet\n", "listed or units"),
        ("Retries=many\n", "0 to 32"),
        ("Quarantine=10\n", "500ms"),
        ("Fallback=yes\n", "no such key"),
    ];
    for (line, word) in cases {
        let root = Root::new(&format!("[Unit]\nRequires=a.service\n[X-Hafailover]\n{line}"));
        let (groups, errors) = groups(&root);
        assert!(groups.is_empty() && errors.len() == 1, "{line}: {errors:?}");
        assert!(errors[0].contains("files.target:4:"), "{}", errors[0]);
        assert!(errors[0].contains(word), "{}", errors[0]);
    }
    let root = Root::new("[Unit]\nDescription=nothing\n");
    assert!(groups(&root).1[0].contains("Requires="));
}

/// What pulls a unit into a target without making it a member the cluster can answer for.
#[test]
fn no_kind_of_unit_is_passed_over() {
    let cases = [
        ("Requires=samba.target\n", "write the names of its units here"),
        ("Wants=network-online.target\n", "After= of the members"),
        ("BindsTo=dev-sdb1.device\n", "a mount waits for its own"),
        ("Wants=big.slice\n", "Slice="),
        ("Wants=session-1.scope\n", "make a service"),
        ("Requires=smbd\n", "full name, such as smbd.service"),
        ("Requires=hafailover.service\n", "the daemon starts the groups"),
        ("Upholds=b.service\n", "write Requires="),
        ("Requisite=b.service\n", "write Requires="),
    ];
    for (line, word) in cases {
        let root = Root::new(&format!("[Unit]\nRequires=a.service\n{line}"));
        let (groups, errors) = groups(&root);
        assert!(groups.is_empty() && errors.len() == 1, "{line}: {errors:?}");
        assert!(errors[0].contains("files.target:3: "), "{}", errors[0]);
        assert!(errors[0].contains(word), "{}", errors[0]);
    }
    let kinds = "a.service b.mount c.socket d.path e.timer f.automount g.swap";
    let root = Root::new(&format!("[Unit]\nRequires={kinds}\n"));
    root.link("files.target.requires", "h.service");
    root.link("files.target.wants", "i.service");
    let (groups, errors) = groups(&root);
    assert_eq!(errors, Vec::<String>::new());
    let group = groups.values().next().expect("one group");
    assert_eq!(group.hard.join(" "), format!("{kinds} h.service"));
    assert_eq!(group.soft, ["i.service"]);
}

#[test]
fn the_gates_are_written_even_where_the_settings_are_wrong() {
    let root = Root::new(&TARGET.replace("Failback=10min", "Rubbish=1\nOrder=listed"));
    let out = tempfile::tempdir().expect("a directory");
    generator::generate(root.path(), out.path());
    let read = |unit: &str| {
        let path = out.path().join(format!("{unit}.d")).join(generator::DROPIN);
        std::fs::read_to_string(path).expect(unit)
    };
    for unit in ["files.target", "srv.mount", "smbd.service", "extra.service"] {
        assert!(read(unit).contains("AssertPathExists=/run/hafailover/owned/files\n"), "{unit}");
    }
    assert!(read("smbd.service").contains("After=srv.mount\n"), "Order=listed");
    assert!(read("srv.mount").contains("DefaultDependencies=no\n"));
    assert!(read("srv.mount").contains("After=hafailover.service\n"));
}

proptest! {
    /// What is shown can be written again and means the same, to the millisecond.
    #[test]
    fn a_time_that_is_shown_is_read_back(ms in 0u64..86_400_000 * 30) {
        let time = Duration::from_millis(ms);
        prop_assert_eq!(parse_duration(&show(time)), Ok(time));
        let seconds = format!("{}.{:03}s", ms / 1000, ms % 1000);
        prop_assert_eq!(parse_duration(&seconds), Ok(time));
    }

    /// Any text is a time or is refused with advice that names it.
    #[test]
    fn what_is_no_time_is_refused_by_name(text in "[0-9.]{0,6} ?(ms|s|min|h|m|d|)[ -~]{0,2}") {
        if let Err(words) = parse_duration(&text) {
            prop_assert!(words.contains(&format!("\"{text}\"")), "{}", words);
        }
    }
}

const ARBITER: &str =
    "[arbiter]\nkind = \"witness\"\nlease = \"20s\"\n[arbiter.witness]\naddress = \"192.0.2.9\"\n";

/// Goal: numbers that would not protect are refused, with the arithmetic.
#[test]
fn an_arbiter_that_would_not_protect_is_refused() {
    let read = |more: &str| parse(&format!("{GOOD}{more}"), "h.toml", "n1");
    let settings = read(ARBITER).expect("good");
    let arbiter = settings.arbiter.as_ref().expect("it is there");
    assert_eq!(arbiter.times.lease.as_secs(), 20);
    let wait = 32.0 * 1.01 / 0.99 + 1.0;
    assert!((arbiter.times.wait.as_secs_f64() - wait).abs() < 1e-3, "{:?}", arbiter.times);
    assert!(arbiter.chain().contains("33.6 s"));
    assert_ne!(settings.fingerprint, good().fingerprint);
    let wrong = [
        (ARBITER.replace("20s", "1s"), "2s to 3600s"),
        (ARBITER.replace("20s", "3s") + "[timing]\ndeadtime = \"2s\"\n", "twice deadtime"),
        (ARBITER.replace("lease =", "drift = \"20%\"\nlease ="), "percentage"),
        (ARBITER.replace("witness\"\n", "other\"\n"), "witness"),
        (ARBITER.replace("[arbiter.witness]\naddress = \"192.0.2.9\"\n", ""), "address"),
        (ARBITER.replace("192.0.2.9", "0.0.0.0"), "own address"),
        (ARBITER.to_string() + "[safety]\non-lost = \"leave\"\n", "on-lost"),
    ];
    for (text, word) in wrong {
        let error = read(&text).expect_err(word).to_string();
        assert!(error.contains(word) && error.starts_with("h.toml:"), "{error}");
    }
    let ends = "\"/dev/ttyS0\"\nnodes = [\"n1\", \"n2\"]\n[[node]]\nname = \"n3\"";
    let three = GOOD.replace("\"/dev/ttyS0\"", ends);
    let stop = "[safety]\nquorum-lost = \"stop\"\n";
    parse(&format!("{three}{stop}"), "h.toml", "n1").expect("good without an arbiter");
    says((format!("{three}{stop}{ARBITER}"), three.lines().count() + 2, "nobody counts nodes"));
}
