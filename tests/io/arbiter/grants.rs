//! What is granted, what is refused, and when a lease ends.

use super::proxy::Proxy;
use super::{A, Asker, B, Members, TERM, epoch, granted, refused, unknown};
use hafailover::config::arbiter::etcd::Settings;
use hafailover::core::LeaseAnswer;
use hafailover::core::name::GroupName;
use std::sync::Barrier;
use std::time::Instant;

/// Goal: one holder, by one epoch; epochs only grow.
#[test]
fn one_holder_by_an_epoch_that_is_never_used_again() {
    let members = Members::start(1);
    let (mut a, mut b) = (members.asker(), members.asker());
    refused(a.renew(1, A), "ran out");
    granted(a.acquire(1, A));
    granted(a.acquire(1, A));
    granted(a.renew(1, A));
    refused(b.acquire(2, B), "n1 has it by epoch 1");
    refused(b.renew(2, B), "n1 has it by epoch 1");
    refused(a.acquire(2, A), "n1 has it by epoch 1");
    granted(a.release(1, A));
    granted(a.release(1, A));
    refused(a.renew(1, A), "over");
    refused(a.acquire(1, A), "over");
    refused(b.acquire(1, B), "n1 had epoch 1 before");
    granted(b.acquire(2, B));
    refused(a.renew(1, A), "n2 has it by epoch 2");
    granted(a.release(1, A));
    granted(b.renew(2, B));
    granted(b.release(2, B));
    // Of equal counters the node earlier in the list is the higher; nine is below ten.
    granted(a.acquire(2, A));
    granted(a.release(2, A));
    granted(b.acquire(10, B));
    granted(b.release(10, B));
    refused(b.acquire(9, B), "n2 had epoch 10 before");
    let top = match a.acquire(3, A) {
        LeaseAnswer::Refused { top, .. } => top,
        other => panic!("{other:?}"),
    };
    assert_eq!(top, Some(epoch(10, B)), "the next claim goes above it");
    granted(b.acquire(u64::MAX, B));
}

/// Goal: groups and clusters have nothing to do with each other.
#[test]
fn groups_and_clusters_are_apart() {
    let members = Members::start(1);
    let (mut a, mut b) = (members.asker(), members.asker());
    granted(a.acquire(7, A));
    b.question.group = GroupName("web".into());
    granted(b.acquire(1, B));
    b.question.group = GroupName("files".into());
    b.question.cluster = "factory".into();
    granted(b.acquire(1, B));
    granted(a.renew(7, A));
}

/// Goal: etcd itself ends a lease that nobody renews, and not before its time.
#[test]
fn a_lease_runs_out_by_itself() {
    let members = Members::start(1);
    let (mut a, mut b) = (members.asker(), members.asker());
    let mut watch = members.watch();
    granted(a.acquire(1, A));
    watch.until("PUT", "files/holder");
    let renewed = Instant::now();
    granted(a.renew(1, A));
    watch.until("PUT", "files/holder");
    refused(b.acquire(2, B), "has it");
    watch.until("DELETE", "files/holder");
    assert!(renewed.elapsed() >= TERM, "ended after {:?}", renewed.elapsed());
    refused(a.renew(1, A), "ran out");
    // Nobody had a later epoch: its owner may have lived on by the other nodes' word.
    granted(a.acquire(1, A));
    watch.until("DELETE", "files/holder");
    granted(b.acquire(2, B));
    refused(a.acquire(1, A), "has it");
    refused(a.renew(1, A), "has it");
}

/// Goal: of two that ask at the same moment one gets it, every time.
#[test]
fn two_race_and_one_wins() {
    let members = Members::start(3);
    let (mut a, mut b) = (members.asker(), members.asker());
    let barrier = Barrier::new(2);
    let run = |asker: &mut Asker, node| {
        let mut won = Vec::new();
        for counter in 1..=40 {
            barrier.wait();
            let answer = asker.acquire(counter, node);
            barrier.wait();
            match answer {
                LeaseAnswer::Granted => {
                    granted(asker.release(counter, node));
                    won.push(counter);
                }
                other => refused(other, "has it"),
            }
        }
        won
    };
    let (mut first, second) = std::thread::scope(|scope| {
        let other = scope.spawn(|| run(&mut b, B));
        (run(&mut a, A), other.join().expect("no panic"))
    });
    first.extend(&second);
    first.sort_unstable();
    assert_eq!(first, (1..=40).collect::<Vec<u64>>());
    assert!(!second.is_empty() && second.len() < 40, "no race: {second:?}");
}

/// Goal: a question that is delivered late neither shortens what was granted since, nor brings
/// back what was released.
#[test]
fn late_questions_change_nothing() {
    let members = Members::start(1);
    let proxy = Proxy::to(members.host(0));
    let wire = Settings { endpoints: vec![proxy.endpoint.clone()], ..members.settings() };
    let (mut slow, mut a, mut b) = (Asker::of(&wire), members.asker(), members.asker());
    let lease = || {
        let text = members.must(&["get", "-w", "json", "/hafailover/office/files/holder"]);
        let all: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        all["kvs"][0]["lease"].as_i64()
    };
    granted(slow.acquire(1, A));
    proxy.hold("/v3/kv/txn");
    unknown(slow.renew(1, A), "no answer within");
    granted(a.renew(1, A));
    let newest = lease();
    proxy.deliver();
    assert_eq!(lease(), newest, "hung on a lease that ends sooner");

    proxy.hold("/v3/kv/txn");
    unknown(slow.acquire(1, A), "no answer within");
    granted(a.release(1, A));
    proxy.deliver();
    assert_eq!(lease(), None, "it was released");

    proxy.hold("/v3/kv/txn");
    unknown(slow.acquire(5, A), "no answer within");
    granted(a.release(5, A));
    proxy.deliver();
    assert_eq!(lease(), None, "it was never had, and released");
    refused(b.acquire(5, B), "n1 had epoch 5 before");

    granted(a.acquire(6, A));
    proxy.hold("/v3/kv/txn");
    unknown(slow.release(6, A), "no answer within");
    proxy.deliver();
    granted(b.acquire(7, B));
}

/// Goal: who gives back what it never had takes nothing from the holder, also when that one's lease
/// has run out meanwhile and it lives on by the other nodes' word.
#[test]
fn a_release_of_what_was_never_had_bars_no_holder() {
    let members = Members::start(1);
    let (mut a, mut b) = (members.asker(), members.asker());
    let mut watch = members.watch();
    granted(a.acquire(1, A));
    refused(b.acquire(2, B), "n1 has it by epoch 1");
    granted(b.release(2, B));
    granted(a.renew(1, A));
    watch.until("DELETE", "files/holder");
    granted(a.acquire(1, A));
    granted(a.release(1, A));
    granted(b.acquire(2, B));
}
