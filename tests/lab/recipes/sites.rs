//! Two sites of two nodes, and a third place with a member of etcd.

use super::stage::files;
use crate::arbiters::{Arbiter, Etcds};
use crate::cluster::{AGENT, Cluster, TARGET};
use crate::harness::net::Net;
use crate::leases;
use std::time::{Duration, Instant};

/// As the page has it.
const LEASE: Duration = Duration::from_secs(20);
/// (20 + 12) x 1.01 / 0.99 + 1 s, at which others may start.
const WAIT: Duration = Duration::from_millis(33_646);
const SITES: [[usize; 2]; 2] = [[0, 1], [2, 3]];

/// The file of the page on every node, and a member of etcd at each site.
fn start(c: &mut Cluster) -> Etcds {
    c.configure_with("", &TARGET.replace("Nodes=n1 n2", "Nodes=n1 n2 n3 n4"), AGENT);
    for (path, text) in files("TWO SITES", &[]) {
        c.lab.nodes.iter().for_each(|node| node.write(&path, &text.replace("ttisrv", "n")));
    }
    let etcds = Etcds::at(c, [Net::node(1), Net::node(3), c.lab.net.client()]);
    let checked = c.lab.node(0).run("hafailover check").text;
    assert!(checked.contains("33.6 s after") && !checked.contains("error"), "{checked}");
    (0..4).for_each(|n| c.start(n));
    c.runs_on(0);
    leases::leased(c, 0);
    c.all_well();
    etcds
}

/// The third place is lost, then the line between the sites, and nothing happens; then the first
/// site is cut off from everything, with its member of etcd, and stops before the second one
/// starts.
pub fn two_sites(c: &mut Cluster) {
    let mut etcds = start(c);
    etcds.end(2);
    leases::runs_for(c, LEASE + LEASE / 4);
    leases::leased(c, 0);
    etcds.back();
    let client = c.client();
    for n in SITES[0] {
        SITES[1].iter().for_each(|other| c.lab.net.part(n, *other));
    }
    c.told(2, "peer-silent");
    leases::runs_for(c, WAIT + LEASE / 4);
    leases::leased(c, 0);
    assert_eq!((1..4).map(|n| c.lab.node(n).told("group-started")).sum::<usize>(), 0);
    let since = Instant::now();
    SITES[0].iter().for_each(|n| c.lab.net.part_from_client(*n));
    c.phase(0, "stopped");
    println!("  a site cut off: n1 has stopped after {:?}", since.elapsed());
    assert!(since.elapsed() < LEASE, "not in time");
    c.runs_on(2);
    println!("  a site cut off: n3 runs it after {:?}", since.elapsed());
    assert!(since.elapsed() > WAIT - LEASE / 3, "before anybody knows that the owner has stopped");
    let evidence = c.evidence(2);
    for words in ["n1=Expired", "n2=Expired", "n4=Promise"] {
        assert!(evidence.contains(words), "{evidence}");
    }
    assert_eq!(c.lab.node(1).told("group-started"), 0, "a site that is cut off started it");
    c.served(client, 2, "a site cut off");
    leases::no_overlap(c, "a site cut off");
    // Heard again, it takes nothing back.
    c.lab.net.unblock();
    c.all_well();
    c.runs_on(2);
    leases::no_overlap(c, "a site that is back");
}
