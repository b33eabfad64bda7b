//! Many groups, idle nodes, busy nodes.

use crate::cluster::PATIENCE;
use crate::harness::node::Node;
use crate::harness::{sh, wait};
use crate::measure::{Bench, DEFAULT, timed};
use crate::outage::losses;
use std::time::{Duration, Instant};

const GROUPS: usize = 50;
const LONG: Duration = Duration::from_secs(120);

/// Fifty groups of one service, all moved by one `hafailover standby`.
pub fn fifty_groups(b: &mut Bench) {
    let services: Vec<String> = (1..=GROUPS).map(|n| format!("files-{n}-one.service")).collect();
    let services = services.join(" ");
    b.cluster.reset();
    b.cluster.configure(DEFAULT);
    for node in &b.cluster.lab.nodes {
        node.must("systemctl disable -q files.target");
        for n in 1..=GROUPS {
            let target = format!(
                "[Unit]\nRequires=files-{n}-one.service\n[X-Hafailover]\nNodes=n1 n2\n\
                 [Install]\nWantedBy=hafailover-groups.target\n"
            );
            node.write(&format!("/etc/systemd/system/files-{n}.target"), &target);
            let service = "[Service]\nExecStart=/bin/sleep infinity\n";
            node.write(&format!("/etc/systemd/system/files-{n}-one.service"), service);
        }
        node.must("systemctl enable -q $(seq -f files-%g.target 50); systemctl daemon-reload");
        node.must("for n in $(seq 50); do touch /run/hafailover/owned/files-$n; done");
    }
    let (one, two) = (b.cluster.lab.node(0), b.cluster.lab.node(1));
    one.must(&format!("systemctl start {services}"));
    let mut bare = Vec::new();
    for n in 0..4 {
        let (from, to) = if n % 2 == 0 { (one, two) } else { (two, one) };
        bare.push(timed(|| {
            from.must(&format!("systemctl stop {services}"));
            to.must(&format!("systemctl start {services}"));
        }));
    }
    let bare_name = "50 services, bare stop + start";
    b.table.times(bare_name, &bare, None);
    let (one, two) = (b.cluster.lab.node(0), b.cluster.lab.node(1));
    one.must(&format!("systemctl stop {services}; rm /run/hafailover/owned/*"));
    two.must("rm /run/hafailover/owned/*");
    (0..2).for_each(|n| b.cluster.start(n));
    wait("all groups to run", PATIENCE, || (running(one)? + running(two)? == GROUPS).then_some(()));
    two.must("hafailover standby");
    all_run(one);
    two.must("hafailover online");
    b.both_ready();
    let mut moves = Vec::new();
    for n in 0..4 {
        let (from, to) = if n % 2 == 0 { (one, two) } else { (two, one) };
        moves.push(std::thread::scope(|s| {
            let begun = Instant::now();
            // The command itself ends when they have stayed up for a while.
            s.spawn(|| from.must("hafailover standby"));
            all_run(to);
            begun.elapsed()
        }));
        from.must("hafailover online");
        b.both_ready();
    }
    b.table.times("50 groups, hafailover standby", &moves, Some(bare_name));
    for node in &b.cluster.lab.nodes {
        node.run(&format!("systemctl kill -s KILL hafailover; systemctl stop {services}"));
    }
}

fn all_run(node: &Node) {
    wait("all groups to run", PATIENCE, || (running(node)? == GROUPS).then_some(()));
}

/// How many groups run on a node.
fn running(node: &Node) -> Option<usize> {
    let status = node.status()?;
    let groups = status["view"]["groups"].as_array()?;
    Some(groups.iter().filter(|g| g["phase"] == "running").count())
}

/// What a daemon costs that has nothing to do, and what its links carry.
pub fn idle(b: &mut Bench) {
    for (keepalive, deadtime) in [("500ms", "2s"), ("20ms", "200ms")] {
        b.start(&timing(keepalive, deadtime));
        let node = b.cluster.lab.node(0);
        let cpu = cpu_time(node);
        let links = links_of(node);
        let begun = Instant::now();
        std::thread::sleep(Duration::from_secs(20));
        let (cpu, after, took) = (cpu_time(node) - cpu, links_of(node), begun.elapsed());
        let share = cpu.as_secs_f64() / took.as_secs_f64() * 100.0;
        let name = format!("idle at keepalive {keepalive}");
        b.table.words(&name, format!("{share:.2} % CPU"), &resident(node));
        for (n, (link, frames, bytes)) in after.into_iter().enumerate() {
            let per_second = |now: u64, then: u64| (now - then) as f64 / took.as_secs_f64();
            let value = format!("{:.1} frames/s", per_second(frames, links[n].1));
            let note = format!("{:.0} bytes/s sent", per_second(bytes, links[n].2));
            b.table.words(&format!("  {link}"), value, &note);
        }
    }
}

fn timing(keepalive: &str, deadtime: &str) -> String {
    format!(
        "keepalive = \"{keepalive}\"\ndeadtime = \"{deadtime}\"\n[safety]\nsilence = \"takeover\"\n"
    )
}

fn pid(node: &Node) -> String {
    node.must("systemctl show -P MainPID hafailover").trim().to_string()
}

/// What all threads of the daemon have used (the first field of schedstat is in nanoseconds).
fn cpu_time(node: &Node) -> Duration {
    let text = node.must(&format!("cat /proc/{}/task/*/schedstat", pid(node)));
    let used = text.lines().filter_map(|l| l.split(' ').next()?.parse::<u64>().ok());
    Duration::from_nanos(used.sum())
}

fn resident(node: &Node) -> String {
    let text = node.must(&format!("grep VmRSS /proc/{}/status", pid(node)));
    let kib: u64 = text.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or_default();
    format!("{:.1} MiB resident", kib as f64 / 1024.0)
}

/// Name, frames and bytes sent of each link.
fn links_of(node: &Node) -> Vec<(String, u64, u64)> {
    let status = node.status().expect("a status");
    let links = status["daemon"]["links"].as_array().expect("links").clone();
    let number = |v: &serde_json::Value| v.as_u64().expect("a counter");
    let link = |l: &serde_json::Value| {
        let name = l["name"].as_str().expect("a name").to_string();
        (name, number(&l["frames_out"]), number(&l["bytes_out"]))
    };
    links.iter().map(link).collect()
}

/// The shortest times at which nothing is suspected in two minutes of full load on every core, and
/// what a power loss then costs.
pub fn shortest_timing(b: &mut Bench) {
    for (keepalive, deadtime) in [
        ("10ms", "50ms"),
        ("20ms", "80ms"),
        ("20ms", "120ms"),
        ("30ms", "200ms"),
        ("50ms", "300ms"),
    ] {
        b.start(&timing(keepalive, deadtime));
        let cores: usize = sh("nproc").trim().parse().expect("a number of cores");
        let burn = || std::process::Command::new("sh").args(["-c", "while :; do :; done"]).spawn();
        let mut burners: Vec<_> = (0..2 * cores).map(|_| burn().expect("sh runs")).collect();
        let suspicions = || -> usize {
            let nodes = b.cluster.lab.nodes.iter();
            nodes.map(|n| n.told("peer-silent") + n.told("group-claimed")).sum()
        };
        let before = suspicions();
        let end = Instant::now() + LONG;
        while Instant::now() < end && suspicions() == before {
            std::thread::sleep(Duration::from_secs(5));
        }
        let stable = suspicions() == before;
        for burner in &mut burners {
            let _ = burner.kill();
            let _ = burner.wait();
        }
        let name = format!("deadtime {deadtime}, keepalive {keepalive}, 2 min of full load");
        b.table.words(&name, if stable { "stable" } else { "not stable" }.into(), "");
        if stable {
            let times = losses(b, 5);
            let name = format!("power loss, deadtime {deadtime}");
            b.table.times(&name, &times, Some("power loss, default timing"));
            return;
        }
    }
}
