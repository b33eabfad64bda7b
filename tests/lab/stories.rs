//! What must be seen with real parts: each story is one test.

use crate::cluster::{Cluster, TAKEOVER};

type Story = fn(&mut Cluster);

pub const ALL: &[(&str, Story)] = &[("both_nodes_start", both_nodes_start)];

fn both_nodes_start(c: &mut Cluster) {
    c.start_all(TAKEOVER);
    assert_eq!(c.lab.node(0).told("group-started"), 1);
    assert_eq!(c.lab.node(1).told("group-started"), 0);
    c.one_owner();
}
