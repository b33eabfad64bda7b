//! Stories of paths: a crossover cable, frames lost one way, and three nodes of which two die.

use crate::cluster::{AGENT, Cluster, PATIENCE, TAKEOVER, TARGET};
use crate::harness::net::Lan;
use crate::harness::wait;
use crate::stories::Story;

pub const OF_TWO: &[(&str, Story)] = &[
    ("power_loss_over_a_crossover_cable", power_loss_over_a_crossover_cable),
    ("owner_unheard_one_way", owner_unheard_one_way),
];

/// On three nodes.
pub const OF_THREE: &[(&str, Story)] = &[("three_nodes_two_deaths", three_nodes_two_deaths)];

/// The survivor's own carrier goes with the peer: that is no sign of a fault of its own.
fn power_loss_over_a_crossover_cable(c: &mut Cluster) {
    c.lab.net.crossover = true;
    c.start_all(TAKEOVER);
    let client = c.client();
    c.lab.kill(0);
    c.runs_on(1);
    println!("  power loss, crossover cable: client saw {:?}", client.stop().outage());
    c.one_owner();
}

/// On the network the owner's frames are lost, and the standby's arrive; the line carries on.
fn owner_unheard_one_way(c: &mut Cluster) {
    c.start_all(TAKEOVER);
    c.lab.net.block_way(0, 1, Lan::Heartbeat);
    // Told by the node that hears less; the other still hears it on both.
    c.told(1, "redundancy-lost");
    assert_eq!(c.lab.node(1).run("hafailover status").code, 4);
    assert_eq!(c.lab.node(0).told("group-released"), 0);
    assert_eq!(c.lab.node(1).told("group-claimed"), 0);
    c.lab.net.unblock();
    c.told(1, "redundancy-back");
    c.runs_on(0);
    assert_eq!(c.lab.node(0).told("group-started"), 1, "nothing moved");
    c.one_owner();
}

/// The second survivor is no majority of three: it waits for a person, who knows.
fn three_nodes_two_deaths(c: &mut Cluster) {
    let target = TARGET.replace("Nodes=n1 n2", "Nodes=n1 n2 n3");
    c.configure_with(TAKEOVER, &target, AGENT);
    (0..3).for_each(|n| c.start(n));
    c.runs_on(0);
    wait("n3 to hear both", PATIENCE, || (c.lab.node(2).told("peer-alive") == 2).then_some(()));
    let client = c.client();
    c.lab.kill(0);
    c.runs_on(1);
    let seen = client.stop();
    println!("  three nodes, one dies: client saw {:?}", seen.outage());
    assert_eq!(seen.owners(), ["n1", "n2"]);
    c.lab.kill(1);
    c.told(2, "group-waits");
    let status = c.lab.node(2).run("hafailover status");
    assert!(status.code == 4 && status.text.contains("no majority"), "{}", status.text);
    assert_eq!(c.lab.node(2).told("group-claimed"), 0);
    c.lab.node(2).must("hafailover confirm-down n1 && hafailover confirm-down n2");
    c.runs_on(2);
    c.one_owner();
}
