//! The quick start of the README, followed to the letter on two nodes that have nothing of it yet.

use crate::cluster::{Cluster, PATIENCE};
use crate::harness::node::Node;
use crate::harness::{rootfs, wait};
use std::path::Path;

/// What the README takes for granted: two servers that reach each other and the disk, Samba, and
/// somebody who is root on both.
fn two_servers(c: &Cluster) {
    let hosts = "127.0.0.1 localhost\n192.168.0.1 ttisrv1\n192.168.0.2 ttisrv2\n";
    let links = "L+ /dev/disk/by-label/tti - - - - ../../shared\n";
    let deb = std::fs::read(rootfs::package()).expect("the package");
    for (n, node) in c.lab.nodes.iter().enumerate() {
        node.must(&format!(
            "dpkg -P hafailover 2>&1; rm -rf /etc/hafailover /root/.ssh; hostname ttisrv{}",
            n + 1
        ));
        node.write("/etc/hosts", hosts);
        node.write("/etc/tmpfiles.d/lab.conf", links);
        node.write("/root/.ssh/config", "StrictHostKeyChecking accept-new\n");
        node.must(
            "systemd-tmpfiles --create /etc/tmpfiles.d/lab.conf; systemctl start ssh smbd; \
                   rm -f /tmp/hafailover*.deb; systemctl enable -q smbd 2>&1",
        );
        // `scp target/debian/…` is the builder's machine's.
        let path = format!("/proc/{}/root/tmp/hafailover_0.1.0-1_amd64.deb", node.leader());
        std::fs::write(path, &deb).expect("written");
    }
    let [first, second] = &c.lab.nodes[..] else { panic!("two nodes") };
    let key = first.must(
        "ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519 && \
                          cat /root/.ssh/id_ed25519.pub",
    );
    second.write("/root/.ssh/authorized_keys", &key);
    first.must("mount /dev/shared /mnt && rm -rf /mnt/* && umount /mnt");
}

/// The README's blocks between two headlines, each with its language.
fn blocks() -> Vec<(String, String)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let text = std::fs::read_to_string(path).expect("the README");
    let part = text.split("## Two real servers").nth(1).expect("the headline");
    let part = part.split("\n## ").next().expect("a part");
    let pieces: Vec<&str> = part.split("```").collect();
    let blocks = pieces.iter().skip(1).step_by(2).filter_map(|b| b.split_once('\n'));
    blocks.map(|(language, text)| (language.to_string(), text.to_string())).collect()
}

pub fn quick_start(c: &mut Cluster) {
    two_servers(c);
    let mut steps = Vec::new();
    for (language, text) in blocks() {
        match language.as_str() {
            "toml" | "ini" => {
                let path = text.split_whitespace().nth(1).expect("# PATH").to_string();
                c.lab.node(0).write(&path, &text);
            }
            _ => steps.push(text),
        }
    }
    let [install, copy, enable] = &steps[..] else { panic!("other steps: {steps:#?}") };
    let apt = install.lines().find(|l| l.starts_with("apt install ")).expect("apt install");
    for node in &c.lab.nodes {
        node.must(&format!("DEBIAN_FRONTEND=noninteractive {apt} 2>&1"));
        assert_ne!(node.run("systemctl is-enabled hafailover").code, 0, "enabled unasked");
    }
    line_by_line(c.lab.node(0), copy);
    for node in &c.lab.nodes {
        line_by_line(node, enable);
    }
    on(c, 0);
    try_it(c);
    // The other one has lost its name with its power.
    let node = c.lab.node(0);
    node.must(
        "systemctl stop hafailover ssh; systemctl disable -q hafailover files.target; \
               hostname n1",
    );
}

fn line_by_line(node: &Node, lines: &str) {
    for line in lines.lines() {
        let out = node.run(line);
        println!("  {}# {line}", node.name);
        // A check that warns ends with 2.
        let good = out.code == 0 || (line.starts_with("hafailover check") && out.code == 2);
        assert!(good, "{line}: exit code {}\n{}", out.code, out.text);
    }
}

fn on(c: &Cluster, n: usize) {
    let node = c.lab.node(n);
    wait(&format!("files on {}", node.name), PATIENCE, || {
        (node.phase("files")? == "running").then_some(())
    });
    node.must(
        "mountpoint -q /ttidisk && ip address show | grep -q 192.168.0.100 && \
               systemctl is-active -q smbd",
    );
}

/// What the README says to try; the plug last.
fn try_it(c: &mut Cluster) {
    let words = ["hafailover status", "hafailover move files", "pull the plug"];
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let text = std::fs::read_to_string(path).expect("the README");
    words.iter().for_each(|w| assert!(text.contains(w), "the README has no {w}"));
    wait("a healthy pair", PATIENCE, || {
        (c.lab.node(0).run("hafailover status").code == 0).then_some(())
    });
    c.moves(0, "files");
    on(c, 1);
    c.lab.kill(1);
    on(c, 0);
    let history = c.lab.node(0).must("hafailover history");
    let journal = c.lab.node(0).must("journalctl -q -u files.target; journalctl -q -x");
    assert!(history.contains("ttisrv2") && journal.contains("files is started"), "{history}");
}
