//! Members that die, freeze, forget and come back.

use super::{A, Asker, B, LIMIT, Members, TERM, granted, refused, unknown};
use hafailover::config::arbiter::etcd::Settings;
use std::time::{Duration, Instant};

/// Goal: the others go on within the time of an election, and the lease is still held.
#[test]
fn the_leader_dies() {
    let mut members = Members::start(3);
    let (mut a, mut b) = (members.asker(), members.asker());
    granted(a.acquire(1, A));
    members.kill(members.leader());
    let gap = a.renewed(1, A);
    assert!(gap < TERM, "the lease was over before etcd answered: {gap:?}");
    refused(b.acquire(2, B), "n1 has it by epoch 1");
    granted(a.release(1, A));
    granted(b.acquire(2, B));
}

/// Goal: a follower that stands still costs a share of one question's time, and no answer.
#[test]
fn a_frozen_follower_is_passed_over() {
    let members = Members::start(3);
    let follower = (0..3).find(|m| *m != members.leader()).expect("two of them");
    let mut order = members.settings();
    order.endpoints.swap(0, follower);
    let mut a = Asker::of(&order);
    granted(a.acquire(1, A));
    members.freeze(follower);
    granted(a.renew(1, A));
    let asked = Instant::now();
    granted(a.renew(1, A));
    assert!(asked.elapsed() < LIMIT / 3, "asks the frozen one first: {:?}", asked.elapsed());
}

/// Goal: a leader that was frozen, and wakes up after its successor, ends no lease that was renewed
/// since, and lets nobody renew what ran out.
#[test]
fn the_leader_freezes_and_thaws() {
    let members = Members::start(3);
    let (mut a, mut b) = (members.asker(), members.asker());
    granted(a.acquire(1, A));
    let old = members.leader();
    members.freeze(old);
    a.renewed(1, A);
    let elected = Instant::now();
    // Every lease that the old leader knows of is over by its clock.
    while elected.elapsed() < TERM * 2 {
        granted(a.renew(1, A));
        refused(b.acquire(2, B), "has it");
    }
    let only = Settings { endpoints: vec![members.endpoint(old)], ..members.settings() };
    let mut late = Asker::of(&only);
    members.thaw(old);
    // The first answer of the old leader comes when it has caught up.
    late.renewed(1, A);
    let thawed = Instant::now();
    while thawed.elapsed() < TERM {
        granted(a.renew(1, A));
        refused(b.acquire(2, B), "has it");
    }
}

/// Goal: without a majority nothing is known, in time; with it what was granted is still there.
#[test]
fn without_a_majority_nothing_is_known() {
    let mut members = Members::start(3);
    let (mut a, mut b) = (members.asker(), members.asker());
    granted(a.acquire(3, A));
    members.kill(1);
    members.kill(2);
    unknown(a.renew(3, A), "");
    unknown(b.acquire(4, B), "");
    unknown(a.release(3, A), "");
    members.restart(&[1, 2]);
    // That release may have been carried out, or not; nothing else can have been.
    granted(a.release(3, A));
    refused(b.acquire(3, B), "n1 had epoch 3 before");
    granted(b.acquire(4, B));
}

/// Goal: a lease outlives the death of all of etcd, and so does the highest epoch.
#[test]
fn all_of_it_dies_and_comes_back() {
    let mut members = Members::start(3);
    let (mut a, mut b) = (members.asker(), members.asker());
    granted(a.acquire(5, A));
    (0..3).for_each(|m| members.kill(m));
    unknown(a.renew(5, A), "nothing listens there");
    members.restart(&[0, 1, 2]);
    refused(b.acquire(6, B), "n1 has it by epoch 5");
    granted(a.renew(5, A));
    granted(a.release(5, A));
    refused(a.acquire(5, A), "over");
}

/// Goal: what etcd forgets of the past, nobody needs.
#[test]
fn compaction_changes_nothing() {
    let members = Members::start(1);
    let (mut a, mut b) = (members.asker(), members.asker());
    granted(a.acquire(1, A));
    for _ in 0..20 {
        granted(a.renew(1, A));
    }
    let text = members.must(&["get", "-w", "json", "/hafailover/office/files/holder"]);
    let all: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    members.must(&["compact", &all["header"]["revision"].to_string()]);
    members.must(&["defrag"]);
    granted(a.renew(1, A));
    refused(b.acquire(2, B), "n1 has it by epoch 1");
    granted(a.release(1, A));
    refused(b.acquire(1, B), "n1 had epoch 1 before");
    granted(b.acquire(2, B));
}

/// Goal: two etcds that nothing joins never count as one arbiter.
#[test]
fn endpoints_of_two_etcds_are_no_arbiter() {
    let (mut one, other) = (Members::start(1), Members::start(1));
    let endpoints = vec![one.endpoint(0), other.endpoint(0)];
    let mut a = Asker::of(&Settings { endpoints, ..one.settings() });
    granted(a.acquire(1, A));
    one.kill(0);
    unknown(a.renew(1, A), "another etcd cluster");
    unknown(a.acquire(2, A), "another etcd cluster");
}

/// Goal: an address that swallows everything is given up in time.
#[test]
fn what_does_not_answer_is_unknown_in_time() {
    let members = Members::start(1);
    members.freeze(0);
    let mut a = members.asker();
    a.question.limit = Duration::from_secs(1);
    unknown(a.acquire(1, A), "no answer within");
    members.thaw(0);
    a.question.limit = LIMIT;
    granted(a.acquire(1, A));
}
