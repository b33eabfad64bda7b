//! Stories of paths: a crossover cable, frames lost one way, and three nodes of which two go.

use crate::cluster::{AGENT, Cluster, PATIENCE, TAKEOVER, TARGET};
use crate::harness::net::Lan;
use crate::harness::wait;
use crate::stories::Story;

pub const OF_TWO: &[(&str, Story)] = &[
    ("power_loss_over_a_crossover_cable", power_loss_over_a_crossover_cable),
    ("one_way_on_one_link_moves_nothing", one_way_on_one_link_moves_nothing),
    ("one_way_from_the_owner_it_yields", one_way_from_the_owner_it_yields),
    ("one_way_from_the_owner_and_silence_hold", one_way_from_the_owner_and_silence_hold),
    ("one_way_to_the_owner_then_power_loss", one_way_to_the_owner_then_power_loss),
];

/// On three nodes.
pub const OF_THREE: &[(&str, Story)] = &[
    ("three_nodes_two_deaths", three_nodes_two_deaths),
    ("three_nodes_one_death_one_poweroff", three_nodes_one_death_one_poweroff),
    ("three_nodes_in_a_chain", three_nodes_in_a_chain),
    ("three_nodes_first_confirmed_then_second_death", three_nodes_confirmed_then_second_death),
];

/// The survivor's own carrier goes with the peer: that is no sign of a fault of its own.
fn power_loss_over_a_crossover_cable(c: &mut Cluster) {
    c.lab.net.crossover = true;
    c.start_all(TAKEOVER);
    both_links_up(c);
    let client = c.client();
    c.lab.kill(0);
    c.runs_on(1);
    println!("  power loss, crossover cable: client saw {:?}", client.stop().outage());
    assert!(c.lab.node(1).must("ip link show eth1").contains("NO-CARRIER"), "a cable, no switch");
    let evidence = c.evidence(1);
    assert!(evidence.starts_with("n1=Silent(") && evidence.contains("2 links"), "{evidence}");
    c.lab.boot(0);
    c.start(0);
    both_links_up(c);
    assert_eq!(c.lab.node(0).told("group-started"), 1, "nothing moved back");
    c.runs_on(1);
    c.one_owner();
}

/// Both nodes hear each other on both links; then a takeover is possible.
fn both_links_up(c: &Cluster) {
    for n in 0..2 {
        wait("both links", PATIENCE, || {
            (c.lab.node(n).run("hafailover status").code == 0).then_some(())
        });
    }
}

/// On the network the owner's frames are lost, and the standby's arrive; the line carries on.
fn one_way_on_one_link_moves_nothing(c: &mut Cluster) {
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

/// Nothing that `from` sends arrives; what the other sends does.
fn cut_way(c: &Cluster, from: usize) {
    c.lab.net.block_way(from, 1 - from, Lan::Heartbeat);
    c.lab.line.cut_from(from);
}

fn heal_ways(c: &Cluster) {
    c.lab.line.heal();
    c.lab.net.unblock();
}

/// The standby believes the owner dead and says that it starts: the owner hears it, and stops
/// before it does.
fn one_way_from_the_owner_it_yields(c: &mut Cluster) {
    // Its whole stop budget is waited for if that is at most half of deadtime.
    let target = TARGET.replace("StopBudget=3s", "StopBudget=2s");
    c.configure_with(&format!("deadtime = \"4s\"\n{TAKEOVER}"), &target, AGENT);
    (0..2).for_each(|n| c.start(n));
    c.runs_on(0);
    both_links_up(c);
    let client = c.client();
    cut_way(c, 0);
    c.runs_on(1);
    let seen = client.stop();
    println!("  the owner is no longer heard: client saw {:?}", seen.outage());
    assert_eq!(seen.owners(), ["n1", "n2"]);
    assert!(c.evidence(1).starts_with("n1=Silent("), "{}", c.evidence(1));
    assert_eq!(c.lab.node(0).told("owner-yields"), 1);
    assert_eq!(c.failed_starts(1), 0);
    c.phase(0, "stopped");
    heal_ways(c);
    both_links_up(c);
    c.runs_on(1);
    assert_eq!(c.lab.node(0).told("two-owners") + c.lab.node(1).told("two-owners"), 0);
    c.one_owner();
}

/// A standby that may not start on silence obliges nobody to stop, however little it hears.
fn one_way_from_the_owner_and_silence_hold(c: &mut Cluster) {
    c.start_all("[safety]\nsilence = \"hold\"\n");
    let client = c.client();
    cut_way(c, 0);
    c.told(0, "peer-deaf");
    c.told(1, "group-waits");
    let status = c.lab.node(1).run("hafailover status");
    assert!(status.code == 4 && status.text.contains("confirm-down n1"), "{}", status.text);
    heal_ways(c);
    wait("n1 to be alive again", PATIENCE, || (c.lab.node(1).told("peer-alive") > 1).then_some(()));
    let seen = client.stop();
    assert_eq!(seen.owners(), ["n1"]);
    println!("  healthy owner beside a deaf standby: client saw {:?}", seen.outage());
    assert_eq!(c.lab.node(0).told("owner-yields") + c.lab.node(0).told("group-released"), 0);
    assert_eq!(c.lab.node(1).told("group-claimed"), 0);
    c.runs_on(0);
    c.one_owner();
}

/// The owner hears nobody and is heard: nothing moves. When it then dies, that is a silence on two
/// links like any other.
fn one_way_to_the_owner_then_power_loss(c: &mut Cluster) {
    c.start_all(TAKEOVER);
    both_links_up(c);
    cut_way(c, 1);
    c.told(0, "peer-silent");
    c.told(1, "peer-deaf");
    c.runs_on(0);
    assert_eq!(c.lab.node(0).told("group-released"), 0);
    assert_eq!(c.lab.node(1).told("group-claimed"), 0);
    let client = c.client();
    c.lab.kill(0);
    c.runs_on(1);
    println!("  power loss of a deaf owner: client saw {:?}", client.stop().outage());
    c.one_owner();
}

/// Three nodes that hear each other; the first of the list has the group.
fn start_three(c: &mut Cluster) {
    let target = TARGET.replace("Nodes=n1 n2", "Nodes=n1 n2 n3");
    c.configure_with(TAKEOVER, &target, AGENT);
    (0..3).for_each(|n| c.start(n));
    c.runs_on(0);
    for n in 0..3 {
        wait("each to hear both others", PATIENCE, || {
            let status = c.lab.node(n).status()?;
            let nodes = status["view"]["nodes"].as_array()?;
            (nodes.iter().filter(|node| node["presence"] == "alive").count() == 2).then_some(())
        });
    }
}

fn waits_for(c: &Cluster, n: usize, words: &[&str]) {
    let status = c.lab.node(n).run("hafailover status");
    let explained = c.lab.node(n).must("hafailover explain files");
    for text in [&status.text, &explained] {
        for word in words {
            assert!(text.contains(word), "no {word:?} in:\n{text}");
        }
    }
    assert_eq!(status.code, 4, "{}", status.text);
    assert_eq!(c.lab.node(n).told("group-claimed"), 0);
}

/// The second survivor is no majority of three: it says what is missing, and waits for a person.
fn three_nodes_two_deaths(c: &mut Cluster) {
    start_three(c);
    let client = c.client();
    c.lab.kill(0);
    c.runs_on(1);
    let seen = client.stop();
    println!("  three nodes, one dies: client saw {:?}", seen.outage());
    assert_eq!(seen.owners(), ["n1", "n2"]);
    let evidence = c.evidence(1);
    assert!(evidence.contains("n1=Silent(") && evidence.contains("n3=Promise"), "{evidence}");
    c.told(2, "peer-silent");
    let silent = c.lab.node(2).told("peer-silent");
    c.lab.kill(1);
    c.told(2, "group-waits");
    c.told_more(2, "peer-silent", silent);
    waits_for(c, 2, &["no majority", "confirm-down n1", "confirm-down n2"]);
    c.lab.node(2).must("hafailover confirm-down n1");
    waits_for(c, 2, &["no majority", "confirm-down n2"]);
    c.lab.node(2).must("hafailover confirm-down n2");
    c.runs_on(2);
    let evidence = c.evidence(2);
    assert!(evidence.contains("n1=Operator(") && evidence.contains("n2=Operator("), "{evidence}");
    c.one_owner();
}

/// The second one goes orderly: while it goes it still counts, and the chain ends on the third
/// without a person.
fn three_nodes_one_death_one_poweroff(c: &mut Cluster) {
    start_three(c);
    c.lab.kill(0);
    c.runs_on(1);
    let client = c.client();
    c.lab.node(1).run("systemctl poweroff");
    c.runs_on(2);
    let seen = client.stop();
    println!("  three nodes, the second powers off: client saw {:?}", seen.outage());
    assert_eq!(seen.owners(), ["n2", "n3"]);
    let evidence = c.evidence(2);
    assert!(evidence.contains("n1=Silent(") && evidence.contains("n2=Released"), "{evidence}");
    c.lab.nodes[1].wait_down();
    c.runs_on(2);
    c.one_owner();
}

/// A node that a person has confirmed to be down does not vote either: the word for the second
/// one is still needed, and is enough.
fn three_nodes_confirmed_then_second_death(c: &mut Cluster) {
    start_three(c);
    c.lab.kill(0);
    c.runs_on(1);
    for n in 1..3 {
        c.lab.node(n).must("hafailover confirm-down n1");
    }
    c.lab.kill(1);
    c.told(2, "group-waits");
    waits_for(c, 2, &["no majority", "confirm-down n2"]);
    c.lab.node(2).must("hafailover confirm-down n2");
    c.runs_on(2);
    // The first one returns, and joins.
    c.lab.boot(0);
    c.start(0);
    wait("n1 to be alive again", PATIENCE, || (c.lab.node(2).told("peer-alive") > 2).then_some(()));
    c.runs_on(2);
    assert_eq!(c.lab.node(0).told("group-started"), 1, "nothing moved back");
    c.one_owner();
}

/// The owner and the next one of the list no longer hear each other, and the third hears both: it
/// is no death, and nothing moves. A death then still is one.
fn three_nodes_in_a_chain(c: &mut Cluster) {
    start_three(c);
    c.all_well();
    let client = c.client();
    c.lab.net.part(0, 1);
    for n in 0..2 {
        c.told(n, "peer-silent");
    }
    c.told(1, "group-waits");
    let explained = c.lab.node(1).must("hafailover explain files");
    assert!(explained.contains("n3"), "{explained}");
    c.runs_on(0);
    assert_eq!(c.lab.node(1).told("group-claimed"), 0);
    // Between two that hear each other it goes on as ever.
    c.moves(0, "files --to n3");
    c.runs_on(2);
    c.lab.net.unblock();
    c.all_well();
    c.moves(2, "files --to n1");
    c.runs_on(0);
    assert_eq!(client.stop().owners(), ["n1", "n3", "n1"]);
    let silent = [0, 1].map(|n| c.lab.node(n).told("peer-silent"));
    c.lab.net.part(0, 1);
    for (n, before) in silent.into_iter().enumerate() {
        c.told_more(n, "peer-silent", before);
    }
    c.lab.kill(0);
    c.runs_on(1);
    let evidence = c.evidence(1);
    assert!(evidence.contains("n1=Silent(") && evidence.contains("n3=Promise"), "{evidence}");
    for n in 1..3 {
        assert_eq!(c.lab.node(n).told("two-owners"), 0);
    }
    c.one_owner();
}
