//! The demo: two nodes, a file server of address, ext4 and Samba, a client that reads and writes
//! through the address; then a planned move, a power loss, and the return of the node.

mod files;
#[allow(dead_code, reason = "the demo needs less of the harness than the tests")]
mod harness;

use files::Files;
use harness::client::Client;
use harness::{ADDRESS, Lab, wait};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);
/// So many files are good before the next thing happens.
const BETWEEN: usize = 20;
const CONFIG: &str = r#"[cluster]
name = "demo"
[safety]
silence = "takeover"
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
const TARGET: &str = "[Unit]\nDescription=File server\n\
    Requires=hafailover-ip@192.168.0.100-24.service srv.mount smbd.service agent.service\n\n\
    [X-Hafailover]\nNodes=n1 n2\nOrder=listed\n\n[Install]\nWantedBy=hafailover-groups.target\n";
const MOUNT: &str =
    "[Unit]\nDescription=Shared disk\n[Mount]\nWhat=/dev/shared\nWhere=/srv\nType=ext4\n";
const AGENT: &str = "[Unit]\nDescription=Answers with the node's name, for the measurement\n\
    RequiresMountsFor=/srv\n[Service]\nExecStart=/usr/local/bin/agent\n";
const SAMBA: &str = "[global]\nmap to guest = Bad User\nserver min protocol = SMB2\n\
    log level = 0\n[share]\npath = /srv\nguest ok = yes\nread only = no\nforce user = root\n";

fn main() {
    assert!(rustix::process::geteuid().is_root(), "the demo needs root: make demo");
    harness::handle_signals();
    println!("booting two nodes …");
    let mut lab = Lab::new(2, &harness::rootfs::suite(), "");
    println!("configuring: hafailover.toml, key, files.target; systemctl start hafailover …");
    configure(&lab);
    runs_on(&lab, 0);
    let files = Files::start(&lab.net.client());
    files.wait_for(BETWEEN);
    println!("\nfiles runs on n1. hafailover status says:\n");
    print!("{}", lab.node(0).run("hafailover status").text);

    println!("\n1. planned move: hafailover move files");
    let client = Client::start(&lab.net.client());
    let moving = Instant::now();
    print!("{}", lab.node(0).run("hafailover move files").text);
    runs_on(&lab, 1);
    let moved = client.stop().outage();
    files.wait_for(BETWEEN);

    println!("\n2. power loss of n2");
    let client = Client::start(&lab.net.client());
    let losing = Instant::now();
    lab.kill(1);
    runs_on(&lab, 0);
    let lost = client.stop().outage();
    let back = files.wait_for(BETWEEN);

    println!("\n3. n2 returns: Failback=no, nothing moves");
    lab.boot(1);
    lab.node(1).must("systemctl start hafailover");
    wait("n2 to be alive", PATIENCE, || {
        lab.node(0).run("hafailover status").text.contains("n2             alive").then_some(())
    });
    runs_on(&lab, 0);

    let seen = files.stop();
    println!("\nWhat the client saw   without an answer   without a file through Samba");
    let row = |what: &str, answer: Duration, file: Duration| {
        println!("  {what:<15} {:>16} ms {:>16} ms", answer.as_millis(), file.as_millis());
    };
    row("planned move", moved, seen.pause(moving, losing));
    row("power loss", lost, seen.pause(losing, back));
    println!(
        "  {} files written and read back at {ADDRESS}, {} broken off and written again",
        seen.good(),
        seen.failed
    );
    println!("\nWhat the journal of n1 says (hafailover history)");
    print!("{}", lab.node(0).run("hafailover history").text);
    let overlap = lab.overlap();
    assert!(overlap.is_zero(), "two nodes wrote to the disk at once, for {overlap:?}");
    let mounts = lab.mounts.seen();
    assert!(mounts.looks > 0 && mounts.both.is_zero(), "two nodes: {mounts}");
    println!("\nThe disk never saw two writers, nor two mounts. Removing everything.");
}

fn configure(lab: &Lab) {
    let key = lab.node(0).must("hafailover keygen >/dev/null && cat /etc/hafailover/keys");
    for node in &lab.nodes {
        node.write("/etc/hafailover/hafailover.toml", CONFIG);
        node.write("/etc/hafailover/keys", &key);
        node.write("/etc/systemd/system/files.target", TARGET);
        node.write("/etc/systemd/system/srv.mount", MOUNT);
        node.write("/etc/systemd/system/agent.service", AGENT);
        node.write("/etc/samba/smb.conf", SAMBA);
        node.must("chmod 600 /etc/hafailover/keys && systemctl enable -q files.target");
        node.must("systemctl daemon-reload && systemctl start hafailover");
    }
}

fn runs_on(lab: &Lab, n: usize) {
    let name = lab.node(n).name.clone();
    wait("the group", PATIENCE, || (lab.who_answers()? == name).then_some(()));
}
