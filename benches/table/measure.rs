//! What all measures share: the booted nodes, a configured group, a bare systemctl beside it.

use crate::cluster::{AGENT, Cluster, PATIENCE, TARGET};
use crate::harness::client::Seen;
use crate::harness::wait;
use crate::table::Table;
use std::time::{Duration, Instant};

pub const UNITS: &str = "hafailover-ip@192.168.0.100-24.service srv.mount agent.service";
const TOKENS: &str = "/run/hafailover/owned";
/// The default times and a short wait at the start.
pub const DEFAULT: &str = "[safety]\nsilence = \"takeover\"\n";

pub struct Bench {
    pub cluster: Cluster,
    pub table: Table,
}

impl Bench {
    pub fn new() -> Bench {
        Bench {
            cluster: Cluster::of(2, &crate::harness::rootfs::suite(), ""),
            table: Table::default(),
        }
    }

    /// The usual group on n1, with these settings.
    pub fn start(&mut self, settings: &str) {
        self.cluster.reset();
        self.cluster.configure_with(settings, TARGET, AGENT);
        (0..2).for_each(|n| self.cluster.start(n));
        self.cluster.runs_on(0);
        self.both_ready();
    }

    pub fn both_ready(&self) {
        for node in &self.cluster.lab.nodes {
            wait("both nodes to be well", PATIENCE, || {
                (node.run("hafailover status").code == 0).then_some(())
            });
        }
    }

    /// The same units without hafailover: no daemon runs, and the gates are open.
    pub fn start_bare(&mut self) {
        self.cluster.reset();
        self.cluster.configure_with(DEFAULT, TARGET, AGENT);
        for node in &self.cluster.lab.nodes {
            node.must(&format!("mkdir -p {TOKENS} && touch {TOKENS}/files"));
        }
        self.cluster.lab.node(0).must("systemctl start files.target");
        wait("the client's answer", PATIENCE, || self.cluster.lab.who_answers());
    }

    /// What the client saw while something was done.
    pub fn seen(&self, act: impl FnOnce()) -> Seen {
        let client = self.cluster.client();
        act();
        client.stop()
    }
}

pub fn timed(act: impl FnOnce()) -> Duration {
    let begun = Instant::now();
    act();
    begun.elapsed()
}
