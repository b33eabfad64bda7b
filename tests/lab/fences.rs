//! Fencing: fence_ipmilan of Debian's fence-agents, over IPMI, against controllers that really end
//! the node. One that does not answer, one that lies, and an agent that hangs.

use crate::cluster::{Cluster, PATIENCE};
use crate::fence_faults::{one_wrote, writes};
use crate::harness::bmc::{Bmc, PASSWORD, USER};
use crate::harness::client::Client;
use crate::harness::net::Lan;
use crate::harness::wait;
use crate::stories::Story;
use std::time::{Duration, Instant};

pub const ALL: &[(&str, Story)] = &[
    ("fence_power_loss", power_loss),
    ("fence_all_links_cut_one_survives", all_links_cut),
    ("fence_frozen_owner", frozen_owner),
    ("fence_fails_until_a_person_comes", fails),
    ("fence_hangs", hangs),
    ("fence_lies", lies),
    ("fence_drill_and_secrets", drill_and_secrets),
];

/// An agent, its retries, and a busy machine.
const LONG: Duration = Duration::from_secs(300);

pub fn one(n: usize, agent: &str) -> String {
    format!(
        "[[fence]]\nnode = \"n{}\"\nkind = \"power\"\nagent = \"{agent}\"\nattempts = 2\n\
         timeout = \"20s\"\nsecrets = \"/etc/hafailover/fence\"\n\
         options = {{ ip = \"{}\", username = \"{USER}\", lanplus = true, cipher = 3 }}\n",
        n + 1,
        Bmc::address(n)
    )
}

/// The group runs on n1, and a client asks it.
pub fn start(c: &mut Cluster, agents: [&str; 2]) -> Client {
    begin(c, &[one(0, agents[0]), one(1, agents[1])].concat())
}

pub fn begin(c: &mut Cluster, fences: &str) -> Client {
    begin_with(c, "12s", fences)
}

/// Nothing but fences can make a takeover.
pub fn begin_with(c: &mut Cluster, delay: &str, fences: &str) -> Client {
    let safety = format!("[safety]\nsilence = \"hold\"\nfence-delay = \"{delay}\"\n{fences}");
    c.configure(&safety);
    for n in 0..2 {
        let node = c.lab.node(n);
        node.write("/etc/hafailover/fence", &format!("password={PASSWORD}\n"));
        node.must("chmod 600 /etc/hafailover/fence");
    }
    (0..2).for_each(|n| c.start(n));
    c.runs_on(0);
    writes(c, 0);
    c.client()
}

/// A program of the story's own on every node.
pub fn with_agent(c: &Cluster, name: &str, script: &str) {
    for node in &c.lab.nodes {
        node.write(&format!("/usr/local/sbin/{name}"), script);
        node.must(&format!("chmod 755 /usr/local/sbin/{name}"));
    }
}

pub const IPMI: [&str; 2] = ["fence_ipmilan", "fence_ipmilan"];

pub fn cut_all(c: &Cluster) {
    c.lab.net.cut(0, Lan::Heartbeat);
    c.lab.line.cut();
}

fn heal_all(c: &Cluster) {
    c.lab.net.heal(0, Lan::Heartbeat);
    c.lab.line.heal();
}

pub fn long(c: &Cluster, n: usize, what: &str) {
    let node = c.lab.node(n);
    wait(&format!("{what} on n{}", n + 1), LONG, || (node.told(what) > 0).then_some(()));
}

/// The node has really stopped: nothing of it runs any more.
pub fn ends(c: &Cluster, n: usize) {
    let node = &c.lab.nodes[n];
    wait(&format!("{} to be switched off", node.name), LONG, || (!node.is_up()).then_some(()));
}

/// Switched on again, it joins and takes nothing by itself.
pub fn returns(c: &mut Cluster, n: usize, owner: usize) {
    c.lab.kill(n);
    c.lab.boot(n);
    c.start(n);
    let name = format!("n{}", n + 1);
    let alive = || {
        let status = c.lab.node(1 - n).status()?;
        let nodes = status["view"]["nodes"].as_array()?.clone();
        let node = nodes.iter().find(|node| node["name"] == name.as_str())?;
        (node["presence"] == "alive").then_some(())
    };
    wait("the fenced node to join", PATIENCE, alive);
    c.runs_on(owner);
    c.one_owner();
}

fn power_loss(c: &mut Cluster) {
    let _bmcs = [c.lab.bmc(0), c.lab.bmc(1)];
    let client = start(c, IPMI);
    c.lab.kill(0);
    let began = Instant::now();
    long(c, 1, "group-started");
    println!("  power loss, silence = hold: taken over after {:?}", began.elapsed());
    assert_eq!(c.evidence(1), "n1=Fenced");
    c.runs_on(1);
    c.served(client, 1, "power loss");
    one_wrote(c, 1, "power loss");
    returns(c, 0, 1);
}

/// Both live and none hears the other: the owner's agent comes first.
fn all_links_cut(c: &mut Cluster) {
    let _bmcs = [c.lab.bmc(0), c.lab.bmc(1)];
    let client = start(c, IPMI);
    let began = Instant::now();
    cut_all(c);
    ends(c, 1);
    println!("  all links cut: n2 off after {:?}", began.elapsed());
    long(c, 0, "fenced");
    // For longer than the other one would have waited for its turn.
    std::thread::sleep(Duration::from_secs(14));
    assert!(c.lab.nodes[0].is_up(), "both nodes were switched off");
    c.runs_on(0);
    assert_eq!(c.lab.node(0).told("group-released"), 0, "the owner was not disturbed");
    c.served(client, 0, "all links cut");
    one_wrote(c, 0, "all links cut");
    heal_all(c);
    returns(c, 1, 0);
}

fn frozen_owner(c: &mut Cluster) {
    let _bmcs = [c.lab.bmc(0), c.lab.bmc(1)];
    let client = start(c, IPMI);
    c.lab.node(0).freeze();
    long(c, 1, "group-started");
    assert_eq!(c.evidence(1), "n1=Fenced");
    assert!(!c.lab.nodes[0].is_up(), "taken over while the owner only stood still");
    c.lab.node(0).thaw();
    c.runs_on(1);
    c.served(client, 1, "owner frozen");
    one_wrote(c, 1, "owner frozen, and thawed after it");
    returns(c, 0, 1);
}

fn fails(c: &mut Cluster) {
    let (mut of_n1, _of_n2) = (c.lab.bmc(0), c.lab.bmc(1));
    let client = start(c, IPMI);
    of_n1.stop();
    c.lab.kill(0);
    long(c, 1, "fence-given-up");
    assert_eq!(c.lab.node(1).told("group-claimed"), 0, "no takeover without evidence");
    let status = c.lab.node(1).run("hafailover status");
    println!("{}", status.text);
    assert!(status.code == 4 && status.text.contains("hafailover fence n1"), "{}", status.text);
    of_n1.start();
    let refused = c.lab.node(1).run("hafailover fence n1");
    assert!(refused.code == 1 && refused.text.contains("--yes"), "{}", refused.text);
    let words = c.lab.node(1).must("hafailover fence n1 --yes");
    assert!(words.contains("n1 is fenced"), "{words}");
    c.runs_on(1);
    c.served(client, 1, "no fence until a person came");
    c.one_owner();
}

fn hangs(c: &mut Cluster) {
    let _bmcs = [c.lab.bmc(0), c.lab.bmc(1)];
    with_agent(c, "fence_hangs", "#!/bin/sh\nsleep 1000\n");
    let client = start(c, ["/usr/local/sbin/fence_hangs", "fence_ipmilan"]);
    c.lab.kill(0);
    long(c, 1, "fence-failed");
    let lines = c.lab.node(1).journal();
    let line = lines.iter().find(|l| l.starts_with("fence-failed ")).expect("just told");
    assert!(line.contains("did not end in time"), "{line}");
    assert_eq!(c.lab.node(1).told("group-claimed"), 0);
    long(c, 1, "fence-given-up");
    let left = c.lab.node(1).run("pgrep -ax fence_hangs; pgrep -axf 'sleep 1000'").text;
    assert!(left.trim().is_empty(), "the agent lives on: {left}");
    assert_eq!(client.stop().owners(), ["n1"], "served without evidence");
    c.one_owner();
}

/// It says off and does nothing, and the owner's own fence does not answer: two owners, until a
/// link works. Then it is told, and not believed again.
fn lies(c: &mut Cluster) {
    let (of_n1, mut of_n2) = (c.lab.bmc(0), c.lab.bmc(1));
    let client = start(c, IPMI);
    of_n1.lie();
    of_n2.stop();
    // Else the address's own probe finds the owner.
    c.lab.net.block(0, Lan::Lan);
    cut_all(c);
    long(c, 1, "group-started");
    assert_eq!(c.evidence(1), "n1=Fenced");
    c.lab.net.unblock();
    heal_all(c);
    long(c, 1, "fence-lied");
    c.phase(0, "stopped");
    c.told(0, "two-owners");
    c.runs_on(1);
    c.served_at_last(client, 1, "a fence that lied");
    c.two_allowed("an agent that says off and does nothing");
    let status = c.lab.node(1).run("hafailover status");
    assert!(status.code == 4 && status.text.contains("clear --fence n1"), "{}", status.text);
    let refused = c.lab.node(1).run("hafailover fence n1 --yes");
    assert!(refused.code == 1 && refused.text.contains("was not"), "{}", refused.text);
    c.lab.node(1).must("hafailover clear --fence n1");
    assert!(!c.lab.node(1).run("hafailover status").text.contains("clear --fence"));
}

fn drill_and_secrets(c: &mut Cluster) {
    let (mut of_n1, _of_n2) = (c.lab.bmc(0), c.lab.bmc(1));
    let client = start(c, IPMI);
    long(c, 1, "fence-drill-passed");
    let status = c.lab.node(1).run("hafailover status");
    assert!(status.code == 0 && status.text.contains("the node is on"), "{}", status.text);
    of_n1.stop();
    let failed = c.lab.node(1).run("hafailover fence n1 --check");
    assert!(failed.code == 1 && failed.text.contains("would fail"), "{}", failed.text);
    let status = c.lab.node(1).run("hafailover status");
    assert!(
        status.code == 4 && status.text.contains("a fence of n1 would fail"),
        "{}",
        status.text
    );
    of_n1.start();
    c.lab.node(1).must("hafailover fence n1 --check");
    assert_eq!(c.lab.node(1).run("hafailover status").code, 0);
    let places = "journalctl -q --no-pager; hafailover status; hafailover status --json; \
                  systemctl show 'hafailover*'; hafailover check; grep -r . /run/hafailover";
    let everything = c.lab.node(1).run(places).text;
    assert!(everything.contains("fence_ipmilan"), "nothing was found at all");
    assert!(!everything.contains(PASSWORD), "the password is somewhere to be read");
    c.served(client, 0, "drills");
    c.one_owner();
}
