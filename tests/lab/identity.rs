//! Stories of files: what makes a group the same on two nodes, files that are wrong, and devices
//! that are called otherwise on each node.

use crate::cluster::{AGENT, Cluster, PATIENCE, TAKEOVER, TARGET, config};
use crate::harness::wait;
use crate::restarts::MEMBERS;
use crate::stories::Story;

pub const ALL: &[(&str, Story)] = &[
    ("upgrade_of_a_member_bars_no_move", upgrade_of_a_member_bars_no_move),
    ("wrong_group_file_keeps_its_settings", wrong_group_file_keeps_its_settings),
    ("wrong_file_at_a_restart_keeps_the_last", wrong_file_at_a_restart_keeps_the_last),
    ("devices_called_otherwise", devices_called_otherwise),
    ("every_kind_of_member", every_kind_of_member),
];

const TOML: &str = "/etc/hafailover/hafailover.toml";

/// Waits for a pair that needs nobody.
fn well(c: &Cluster) {
    for n in 0..2 {
        let node = c.lab.node(n);
        wait(&format!("{} to be well", node.name), PATIENCE, || {
            (node.run("hafailover status").code == 0).then_some(())
        });
    }
}

fn upgrade_of_a_member_bars_no_move(c: &mut Cluster) {
    c.start_all(TAKEOVER);
    well(c);
    let (old, new) = (c.lab.node(0), c.lab.node(1));
    new.write("/etc/systemd/system/agent.service", &format!("{AGENT}LimitNOFILE=4096\n"));
    new.must("systemctl daemon-reload");
    (0..2).for_each(|n| c.told(n, "members-differ"));
    let status = old.run("hafailover status");
    assert!(status.code == 0 && status.text.contains("something else on n2"), "{}", status.text);
    let check = old.run("hafailover check");
    assert!(check.code == 2 && check.text.contains("say something else on n2"), "{}", check.text);
    c.moves(0, "files");
    c.runs_on(1);
    old.write("/etc/systemd/system/agent.service", &format!("{AGENT}LimitNOFILE=4096\n"));
    old.must("systemctl daemon-reload");
    (0..2).for_each(|n| c.told(n, "members-agree"));
    c.moves(1, "files");
    c.runs_on(0);
    // Another disk under the same name is another group, and only a person knows which is right.
    new.must("mkdir -p /etc/systemd/system/srv.mount.d");
    new.write("/etc/systemd/system/srv.mount.d/disk.conf", "[Mount]\nWhat=/dev/other\n");
    new.must("systemctl daemon-reload");
    wait("the bar", PATIENCE, || {
        let status = old.run("hafailover status").text;
        status.contains("not on n2: has another group").then_some(())
    });
    let moved = old.run("hafailover move files");
    assert!(moved.code == 1 && moved.text.contains("n2: has another group"), "{}", moved.text);
    let check = old.run("hafailover check");
    assert!(check.code == 1 && check.text.contains("what n2 calls files"), "{}", check.text);
    c.runs_on(0);
    for n in 0..2 {
        assert_eq!(c.lab.node(n).told("members-differ"), 1, "told once");
    }
    c.one_owner();
}

fn wrong_group_file_keeps_its_settings(c: &mut Cluster) {
    c.start_all(TAKEOVER);
    well(c);
    let members = c.lab.node(0).must(MEMBERS);
    let dropin = "/etc/systemd/system/files.target.d/x.conf";
    for n in 0..2 {
        let node = c.lab.node(n);
        node.must("mkdir -p /etc/systemd/system/files.target.d");
        node.write(dropin, "[X-Hafailover]\nNodes=n1\nFailback=maybe\n");
        node.must("systemctl daemon-reload");
        c.told(n, "settings-wrong");
    }
    let node = c.lab.node(0);
    let place = format!("{dropin}:3: ");
    let status = node.run("hafailover status");
    assert!(status.code == 4 && status.text.contains(&place), "{}", status.text);
    let check = node.run("hafailover check");
    assert!(check.code == 1 && check.text.contains(&place), "{}", check.text);
    let reload = node.run("hafailover reload");
    assert!(reload.code == 1 && reload.text.contains(&place), "{}", reload.text);
    assert_ne!(node.run("systemctl reload hafailover").code, 0);
    assert_eq!(node.told("settings-wrong"), 1, "told once");
    // Nothing was touched, and by its old settings it moves, also after a restart.
    c.runs_on(0);
    assert_eq!(members, node.must(MEMBERS), "a member was touched");
    node.must("systemctl restart hafailover");
    c.told(0, "group-adopted");
    wait("n2 to be heard", PATIENCE, || {
        (node.run("hafailover move files").code == 0).then_some(())
    });
    c.runs_on(1);
    // A file that is no unit file at all: the gates stay where nobody can read what to gate.
    let good = node.must("cat /etc/systemd/system/files.target");
    node.write("/etc/systemd/system/files.target", "rubbish\n");
    node.must("systemctl daemon-reload");
    assert_ne!(node.run("systemctl start agent").code, 0, "the gate is gone");
    node.write("/etc/systemd/system/files.target", &good);
    for n in 0..2 {
        c.lab.node(n).must(&format!("rm {dropin} && systemctl daemon-reload"));
        c.told(n, "settings-right");
    }
    well(c);
    c.runs_on(1);
    c.one_owner();
}

/// The daemon that comes back would be lost, and its groups with it: it goes on by what it last
/// accepted. Without a key it cannot speak: then it is lost.
fn wrong_file_at_a_restart_keeps_the_last(c: &mut Cluster) {
    c.start_all(crate::cluster::SLOW_GUARD);
    well(c);
    let node = c.lab.node(0);
    let good = node.must(&format!("cat {TOML}"));
    let members = node.must(MEMBERS);
    node.write(TOML, &good.replace("initdead", "initdeath"));
    node.must("chmod 644 /etc/hafailover/keys");
    node.must("systemctl restart hafailover");
    c.told(0, "group-adopted");
    let status = node.run("hafailover status");
    for words in ["hafailover.toml:", "initdeath", "chmod 600 /etc/hafailover/keys"] {
        assert!(status.code == 4 && status.text.contains(words), "{words}: {}", status.text);
    }
    assert_eq!(node.told("settings-wrong"), 2, "the file and the key");
    assert!(node.run("systemctl status hafailover").text.contains("a file is wrong"));
    node.must("systemctl kill -s KILL hafailover");
    c.told_times(0, "group-adopted", 2);
    assert_eq!(members, node.must(MEMBERS), "a member was touched");
    node.write(TOML, &good);
    assert_ne!(node.run("hafailover reload").code, 0, "the key is still open");
    node.must("chmod 600 /etc/hafailover/keys && hafailover reload");
    c.told(0, "settings-right");
    well(c);
    assert_eq!(c.lab.node(1).told("group-claimed"), 0);
    c.runs_on(0);
    node.must("rm /etc/hafailover/keys");
    node.run("systemctl restart hafailover");
    c.told(0, "guard-done");
    c.runs_on(1);
    c.one_owner();
}

fn devices_called_otherwise(c: &mut Cluster) {
    c.configure(TAKEOVER);
    let text = config(2, TAKEOVER)
        .replace("\"eth1\"", "{ n1 = \"eth1\", n2 = \"hb0\" }")
        .replace("\"/dev/ttyS0\"", "{ n1 = \"/dev/ttyS0\", n2 = \"/dev/line\" }");
    for n in 0..2 {
        c.lab.node(n).write(TOML, &text);
    }
    let check = c.lab.node(1).run("hafailover check");
    assert!(check.text.contains("udp hb0: there is no such interface"), "{}", check.text);
    let rename = |from: &str, to: &str| {
        let rename = format!("ip link set {from} down; ip link set {from} name {to}");
        c.lab.node(1).must(&format!("{rename}; ip link set {to} up"));
    };
    rename("eth1", "hb0");
    c.lab.node(1).must("ln -sf /dev/ttyS0 /dev/line");
    (0..2).for_each(|n| c.start(n));
    c.runs_on(0);
    wait("both links", PATIENCE, || {
        let status = c.lab.node(1).run("hafailover status").text;
        let up = |name: &str| status.lines().any(|l| l.contains(name) && l.ends_with(" up"));
        (up("udp hb0") && up("serial /dev/line")).then_some(())
    });
    well(c);
    c.moves(0, "files");
    c.runs_on(1);
    c.lab.node(1).must("systemctl kill -s KILL hafailover; systemctl stop hafailover");
    rename("hb0", "eth1");
    c.lab.node(1).must("rm /dev/line");
}

/// What a group can be made of is started, verified and stopped, whatever kind of unit it is.
fn every_kind_of_member(c: &mut Cluster) {
    let more = "job.timer job.path job.socket";
    let target = TARGET.replace("agent.service\n", &format!("agent.service {more}\n"));
    c.configure_with(TAKEOVER, &target, AGENT);
    for n in 0..2 {
        let node = c.lab.node(n);
        let files = [
            ("job.service", "[Service]\nExecStart=true\n"),
            ("job.timer", "[Timer]\nOnActiveSec=1h\n"),
            ("job.path", "[Path]\nPathExists=/srv/come\n"),
            ("job.socket", "[Socket]\nListenStream=/run/job.socket\n"),
        ];
        for (name, text) in files {
            node.write(&format!("/etc/systemd/system/{name}"), text);
        }
        node.must("systemctl daemon-reload");
        c.start(n);
    }
    c.runs_on(0);
    let kinds = "systemctl is-active job.timer job.path job.socket";
    c.lab.node(0).must(kinds);
    c.moves(0, "files");
    c.runs_on(1);
    c.lab.node(1).must(kinds);
    let left = c.lab.node(0).run(kinds).text;
    assert!(left.lines().all(|l| l != "active"), "{left}");
    for n in 0..2 {
        c.lab.node(n).must("rm /etc/systemd/system/job.* && systemctl daemon-reload");
    }
    c.one_owner();
}
