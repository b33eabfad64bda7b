//! Outages as a client of the group sees them.

use crate::measure::{Bench, DEFAULT, UNITS};
use std::time::Duration;

/// Moves there and back.
const ROUNDS: usize = 12;
const BARE: &str = "bare systemctl stop + start";
const MOVE: &str = "planned move";
const LOSS: &str = "power loss, default timing";

pub fn planned_move(b: &mut Bench) {
    b.start_bare();
    let mut bare = Vec::new();
    for n in 0..ROUNDS {
        let (from, to) = (n % 2, (n + 1) % 2);
        let seen = b.seen(|| {
            b.cluster.lab.node(from).must(&format!("systemctl stop files.target {UNITS}"));
            b.cluster.lab.node(to).must("systemctl start files.target");
        });
        bare.push(seen.outage());
    }
    b.table.times(BARE, &bare, None);
    b.start(DEFAULT);
    let mut moves = Vec::new();
    for n in 0..ROUNDS {
        let seen = b.seen(|| drop(b.cluster.lab.node(n % 2).must("hafailover move files")));
        moves.push(seen.outage());
        b.both_ready();
    }
    b.table.times(MOVE, &moves, Some(BARE));
}

pub fn failed_start(b: &mut Bench) {
    b.start(DEFAULT);
    let mut outages = Vec::new();
    for _ in 0..5 {
        b.cluster.lab.node(1).must("chmod -x /usr/local/bin/agent");
        let seen = b.seen(|| {
            let moved = b.cluster.lab.node(0).run("hafailover move files");
            assert_ne!(moved.code, 0, "it cannot start there: {}", moved.text);
            b.cluster.runs_on(0);
        });
        outages.push(seen.outage());
        let target = b.cluster.lab.node(1);
        target.must("chmod +x /usr/local/bin/agent; hafailover clear files");
        b.both_ready();
    }
    b.table.times("failed start on the target, back again", &outages, Some(MOVE));
}

pub fn service_killed(b: &mut Bench) {
    let agent = "systemctl kill -s KILL agent";
    let restart = "[Service]\nRestart=always\nRestartSec=0\n";
    let rounds = |b: &mut Bench| -> Vec<Duration> {
        let node = b.cluster.lab.node(0);
        node.write("/etc/systemd/system/agent.service.d/restart.conf", restart);
        node.must("systemctl daemon-reload");
        let kill = || {
            b.cluster.lab.node(0).must(agent);
            std::thread::sleep(Duration::from_millis(500));
        };
        (0..4).map(|_| b.seen(kill).outage()).collect()
    };
    let bare = "service killed, bare systemd";
    b.start_bare();
    let times = rounds(b);
    b.table.times(bare, &times, None);
    b.start(DEFAULT);
    let times = rounds(b);
    b.table.times("service killed", &times, Some(bare));
}

pub fn power_loss_default(b: &mut Bench) {
    b.start(DEFAULT);
    let times = losses(b, 5);
    b.table.times(LOSS, &times, Some(MOVE));
}

/// The owner loses power, again and again.
pub fn losses(b: &mut Bench, rounds: usize) -> Vec<Duration> {
    let mut times = Vec::new();
    for n in 0..rounds {
        let (owner, other) = (n % 2, (n + 1) % 2);
        let client = b.cluster.client();
        b.cluster.lab.kill(owner);
        b.cluster.runs_on(other);
        times.push(client.stop().outage());
        b.cluster.lab.boot(owner);
        b.cluster.start(owner);
        b.both_ready();
    }
    times
}
