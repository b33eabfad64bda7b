//! Wrong input: each must be refused with the place, what is wrong and how to mend it.

mod check;

use hafailover::config::load::{ConfigError, parse};
use hafailover::config::{generator, settings::Settings, target};
use std::path::Path;

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
        (with("[[link]]\ntype = \"udp\"\ninterface = \"\"\n"), lines + 1, "ip link"),
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
    fn path(&self) -> &Path {
        self.0.path()
    }
}

const TARGET: &str = "[Unit]\nRequires=hafailover-ip@10.0.0.9-24.service srv.mount \\\n \
                      smbd.service\nWants=extra.service other.target\n\
                      [X-Hafailover]\nNodes=n2 n1\nFailback=10min\n";

#[test]
fn a_group_is_read_with_its_drop_ins() {
    let root = Root::new(TARGET);
    root.write("files.target.d/50-x.conf", "[X-Hafailover]\nFailback=yes\nOrder=listed\nNodes=\n");
    let (groups, errors) = target::groups(root.path(), &good());
    assert_eq!(errors, Vec::<String>::new());
    let group = groups.values().next().expect("one group");
    assert_eq!(group.hard, ["hafailover-ip@10.0.0.9-24.service", "srv.mount", "smbd.service"]);
    assert_eq!(group.soft, ["extra.service"]);
    assert_eq!(group.policy.nodes.iter().map(|n| n.0).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(group.policy.failback, hafailover::core::policy::Failback::Yes);
    assert!(group.listed_order);
}

#[test]
fn every_wrong_section_says_where_and_what() {
    let cases = [
        ("Nodes=n1 n3\n", "n3 is no node"),
        ("Nodes=n1 n1\n", "twice"),
        ("Failback=maybe\n", "delay like 10min"),
        ("Order=alphabet\n", "listed or units"),
        ("Retries=many\n", "0 to 32"),
        ("Quarantine=10\n", "500ms"),
        ("Fallback=yes\n", "no such key"),
    ];
    for (line, word) in cases {
        let root = Root::new(&format!("[Unit]\nRequires=a.service\n[X-Hafailover]\n{line}"));
        let (groups, errors) = target::groups(root.path(), &good());
        assert!(groups.is_empty() && errors.len() == 1, "{line}: {errors:?}");
        assert!(errors[0].contains("files.target:4:"), "{}", errors[0]);
        assert!(errors[0].contains(word), "{}", errors[0]);
    }
    let root = Root::new("[Unit]\nDescription=nothing\n");
    assert!(target::groups(root.path(), &good()).1[0].contains("Requires="));
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
