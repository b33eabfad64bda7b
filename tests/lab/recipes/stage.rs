//! What every recipe's story does: puts the page's files on the nodes, makes the disk ready, and
//! asks as a client.

use super::manual::{self, File};
use crate::cluster::{Cluster, PATIENCE};
use crate::harness::node::Node;
use crate::harness::{rootfs, wait};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

/// What udev does on a machine, also after its next boot.
const LINKS: &str = "L+ /dev/disk/by-label/tti - - - - ../../shared\n";
/// Stops and removes what the last recipe left, from the top member down; its group is forgotten
/// already.
const CLEAR: &str = "cd /var/lib/recipe 2>/dev/null || exit 0; \
    for unit in $(tac units); do systemctl stop $unit; done; \
    for file in $(cat files); do rm -f $file; test ! -e $file.orig || mv $file.orig $file; done; \
    rm -rf /var/lib/recipe; systemctl daemon-reload; systemctl reset-failed";
/// Longer than a service may hang.
const ANSWER: Duration = Duration::from_secs(10);

/// The files of a section whose paths contain one of these words; all without one.
pub fn files(title: &str, words: &[&str]) -> Vec<File> {
    let mut files = manual::section(title);
    files.retain(|(path, _)| words.is_empty() || words.iter().any(|w| path.contains(w)));
    assert!(!files.is_empty(), "hafailover-recipes(7), {title}: no file has {words:?}");
    files
}

/// On both nodes: the cluster's files, the recipe's, its group enabled. On the disk: what `disk`
/// makes below /ttidisk, as the page says, before the cluster starts.
pub fn prepare(c: &mut Cluster, group: &str, files: &[File], disk: &str) {
    let units = members(files, group);
    for n in 0..c.lab.nodes.len() {
        c.settings(n, crate::cluster::TAKEOVER);
        let node = c.lab.node(n);
        node.must(CLEAR);
        node.write("/etc/tmpfiles.d/lab.conf", LINKS);
        node.must("systemd-tmpfiles --create /etc/tmpfiles.d/lab.conf; mkdir -p /ttidisk");
        for (path, text) in files {
            node.must(&format!("test ! -e {path} || cp -a {path} {path}.orig"));
            let text = text.replace("ttisrv1", "n1").replace("ttisrv2", "n2");
            node.write(path, &text);
        }
        let paths: Vec<&str> = files.iter().map(|(path, _)| path.as_str()).collect();
        node.write("/var/lib/recipe/files", &(paths.join("\n") + "\n"));
        node.write("/var/lib/recipe/units", &(units.join("\n") + "\n"));
    }
    let on_disk =
        format!("mount /dev/shared /ttidisk; cd /ttidisk; rm -rf *; {disk}\ncd /; umount /ttidisk");
    c.lab.node(0).must(&on_disk);
    for node in &c.lab.nodes {
        // As the page tells its reader.
        node.must(&format!("systemctl enable -q {group}.target && systemctl daemon-reload"));
        checked(node);
    }
}

/// `hafailover check` has nothing to say but how long a stop may take.
fn checked(node: &Node) {
    let said = node.run("hafailover check").text;
    let expected = ["a stop may take", "a daemon that is lost for good", "nothing found"];
    let other = |line: &&str| {
        !line.starts_with("note: ") && expected.iter().all(|words| !line.contains(words))
    };
    let others: Vec<&str> = said.lines().filter(other).collect();
    assert!(others.is_empty(), "{}: hafailover check:\n{}", node.name, others.join("\n"));
}

/// The members of a group, as its target and the drop-ins of that name them.
pub fn members(files: &[File], group: &str) -> Vec<String> {
    let target = format!("/{group}.target");
    let mine = files.iter().filter(|(path, _)| path.contains(&target));
    let lines = mine.flat_map(|(_, text)| text.lines());
    let lists = lines.filter_map(|l| l.strip_prefix("Requires="));
    lists.flat_map(str::split_whitespace).map(str::to_string).collect()
}

pub fn start(c: &Cluster) {
    (0..c.lab.nodes.len()).for_each(|n| c.start(n));
}

pub fn runs_on(c: &Cluster, group: &str, n: usize) {
    let node = c.lab.node(n);
    wait(&format!("{group} to run on {}", node.name), PATIENCE, || {
        (node.phase(group)? == "running").then_some(())
    });
}

/// Moves a group and waits for the result, as its user does.
pub fn moved(c: &Cluster, group: &str, to: usize) {
    c.moves(1 - to, group);
    runs_on(c, group, to);
}

/// A command on the client's machine, with the programs of the nodes' release; its output if it
/// worked.
pub fn client(c: &Cluster, command: &str) -> Option<String> {
    let base = rootfs::base(&rootfs::suite(), super::PACKAGES).expect("it was built");
    let mut run = Command::new("ip");
    run.args(["netns", "exec", &c.lab.net.client(), "timeout", "10", "chroot"]).arg(base);
    let out = run.args(["sh", "-c", command]).output().expect("ip runs");
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    out.status.success().then_some(said)
}

/// The same until it works: a client tries again.
pub fn client_must(c: &Cluster, command: &str) -> String {
    wait(command, PATIENCE, || client(c, command))
}

/// One HTTP request from the client; the page, if there was an answer.
pub fn get(c: &Cluster, path: &str) -> Option<String> {
    let (space, path) = (c.lab.net.client(), path.to_string());
    let asked = std::thread::spawn(move || {
        crate::harness::client::enter(&space);
        let to = format!("{}:80", crate::harness::ADDRESS).parse().expect("an address");
        let mut stream = TcpStream::connect_timeout(&to, Duration::from_millis(200)).ok()?;
        stream.set_read_timeout(Some(ANSWER)).ok()?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        let (head, body) = text.split_once("\r\n\r\n")?;
        head.contains(" 200 ").then(|| body.trim().to_string())
    });
    asked.join().ok().flatten()
}
