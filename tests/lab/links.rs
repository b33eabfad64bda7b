//! Stories of links that are neither broadcast nor serial: each kind carries heartbeats, is missed
//! when it is cut, and its silence counts when its node dies. And of keys, changed while they run.

use crate::cluster::{AGENT, Cluster, PATIENCE, TAKEOVER, TARGET, config_of};
use crate::harness::net::Lan;
use crate::harness::wait;
use crate::stories::Story;

pub const ALL: &[(&str, Story)] = &[
    ("links_of_multicast_and_ipv6_unicast", multicast_and_ipv6_unicast),
    ("links_of_unicast_and_ipv6_multicast", unicast_and_ipv6_multicast),
    ("key_rotation_on_running_nodes", key_rotation_on_running_nodes),
];

/// On the heartbeat network, then on the LAN.
fn multicast_and_ipv6_unicast(c: &mut Cluster) {
    links_of(
        c,
        [
            "type = \"udp\"\ninterface = \"eth1\"\ngroup = \"239.1.2.3\"\n",
            "type = \"udp\"\ninterface = \"eth0\"\n\
             addresses = { n1 = \"fd00:0:0:1::1\", n2 = \"fd00:0:0:1::2\" }\n",
        ],
    );
}

fn unicast_and_ipv6_multicast(c: &mut Cluster) {
    links_of(
        c,
        [
            "type = \"udp\"\ninterface = \"eth1\"\n\
             addresses = { n1 = \"10.0.0.1\", n2 = \"10.0.0.2\" }\n",
            "type = \"udp\"\ninterface = \"eth0\"\ngroup = \"ff02::694\"\n",
        ],
    );
}

fn links_of(c: &mut Cluster, links: [&str; 2]) {
    c.configure_with(TAKEOVER, TARGET, AGENT);
    for n in 0..2 {
        let node = c.lab.node(n);
        node.write("/etc/hafailover/hafailover.toml", &config_of(2, links, TAKEOVER));
        let checked = node.run("hafailover check").text;
        assert!(!checked.contains("error"), "{checked}");
        c.start(n);
    }
    c.runs_on(0);
    c.all_well();
    let counts = |what: &str| [0, 1].map(|n| c.lab.node(n).told(what));
    for lan in [Lan::Heartbeat, Lan::Lan] {
        let (lost, back) = (counts("redundancy-lost"), counts("redundancy-back"));
        // In the switch: the node's carrier stays, which its address needs.
        c.lab.net.block(1, lan);
        for (n, before) in lost.into_iter().enumerate() {
            c.told_more(n, "redundancy-lost", before);
        }
        c.lab.net.unblock();
        for (n, before) in back.into_iter().enumerate() {
            c.told_more(n, "redundancy-back", before);
        }
        c.all_well();
    }
    assert_eq!(c.lab.node(0).told("group-released"), 0, "nothing moved");
    c.lab.kill(0);
    c.runs_on(1);
    let evidence = c.evidence(1);
    assert!(evidence.starts_with("n1=Silent(") && evidence.contains("2 links"), "{evidence}");
    c.lab.boot(0);
    c.start(0);
    c.all_well();
    wait("n1 to be fit again", PATIENCE, || {
        let text = c.lab.node(1).run("hafailover status").text;
        text.lines().any(|l| l.starts_with("  on n1 ") && l.ends_with(" stopped")).then_some(())
    });
    c.moves(1, "files");
    c.runs_on(0);
    c.one_owner();
}

/// The steps that keygen prints, followed to the letter, while a client asks.
fn key_rotation_on_running_nodes(c: &mut Cluster) {
    c.start_all(TAKEOVER);
    c.all_well();
    let client = c.client();
    let said = c.lab.node(0).must("hafailover keygen --add");
    for step in [
        "key 2 added",
        "1. copy the file to every node and run systemctl reload hafailover there",
        "2. write \"use 2\" in it on every node and reload",
        "3. remove the old key's line on every node and reload",
    ] {
        assert!(said.contains(step), "no {step:?} in {said}");
    }
    let keys = c.lab.node(0).must("cat /etc/hafailover/keys");
    let old = keys.clone();
    c.lab.node(1).write("/etc/hafailover/keys", &keys);
    let reload = |n: usize| c.lab.node(n).must("systemctl reload hafailover");
    (0..2).for_each(|n| drop(reload(n)));
    for (step, command) in [
        ("use", "sed -i 's/^use 1$/use 2/' /etc/hafailover/keys"),
        ("remove", "sed -i '/^1 /d' /etc/hafailover/keys"),
    ] {
        for n in 0..2 {
            c.lab.node(n).must(command);
            reload(n);
            // Between the two they send with different keys, for as long as a person takes.
            settled(c, step);
        }
    }
    let keys = c.lab.node(0).must("cat /etc/hafailover/keys");
    assert!(keys.contains("use 2") && !keys.contains("\n1 "), "{keys}");
    assert_ne!(keys, old);
    let seen = client.stop();
    assert_eq!(seen.owners(), ["n1"]);
    println!("  three steps of a rotation: client saw {:?}", seen.outage());
    for n in 0..2 {
        for what in ["peer-late", "peer-silent", "peer-deaf", "redundancy-lost", "link-down"] {
            assert_eq!(c.lab.node(n).told(what), 0, "{what} on n{}", n + 1);
        }
        let status = c.lab.node(n).must("hafailover status");
        assert!(!status.contains("refused"), "{status}");
    }
    c.moves(0, "files");
    c.runs_on(1);
    c.one_owner();
}

/// Both have heard each other since, by several frames on every link.
fn settled(c: &Cluster, step: &str) {
    let heard = |n: usize| -> Vec<u64> {
        let status = c.lab.node(n).status().expect("a status");
        let links = status["daemon"]["links"].as_array().expect("links").clone();
        links.iter().map(|l| l["frames_in"].as_u64().expect("a number")).collect()
    };
    for n in 0..2 {
        let before = heard(n);
        wait(&format!("frames on the links of n{} after {step}", n + 1), PATIENCE, || {
            heard(n).iter().zip(&before).all(|(now, then)| *now > then + 3).then_some(())
        });
    }
}
