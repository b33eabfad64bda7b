//! The arbiter of a scenario's nodes: the witness's own table, behind a network of its own.

use super::duration;
use super::world::World;
use hafailover::core::grant::{Ask, Grants, Verdict};
use hafailover::core::name::{Epoch, GroupName};
use hafailover::core::policy::LeaseTimes;
use hafailover::core::time::{Duration, Instant};
use hafailover::core::{Event, LeaseAnswer, LeaseVerb};
use std::collections::{BTreeMap, BTreeSet};

/// There and back.
const WIRE: Duration = Duration::from_millis(2);

pub struct Arbiter {
    grants: Grants,
    lost: bool,
    /// Nodes that do not reach it.
    cut: BTreeSet<usize>,
    /// Nodes that do, and whose answers are lost.
    mute: BTreeSet<usize>,
    takes: Duration,
}

impl Arbiter {
    pub fn new(now: Instant) -> Arbiter {
        Arbiter {
            grants: Grants::new(now, Some(BTreeMap::new()), Duration::ZERO),
            lost: false,
            cut: BTreeSet::new(),
            mute: BTreeSet::new(),
            takes: WIRE,
        }
    }
}

impl World {
    pub fn arbiter_command(&mut self, words: &[&str]) {
        let now = self.now;
        let node = |n: &str| self.node(n);
        match words {
            ["cut", n] => drop(self.arbiter.cut.insert(node(n))),
            ["heal", n] => drop(self.arbiter.cut.remove(&node(n))),
            ["mute", n] => drop(self.arbiter.mute.insert(node(n))),
            ["unmute", n] => drop(self.arbiter.mute.remove(&node(n))),
            ["lost"] => self.arbiter.lost = true,
            ["back"] => self.arbiter.lost = false,
            ["takes", ms] => {
                let ms = ms.trim_end_matches("ms").parse().expect("milliseconds");
                self.arbiter.takes = Duration::from_millis(ms);
            }
            // Other settings of a node, when its daemon starts next.
            ["lease", n, lease, most, wait] => {
                let [lease, most, wait] = [lease, most, wait].map(|word| duration(word));
                let n = node(n);
                let policy = &mut self.policies[n];
                policy.fingerprint = 2 + lease.as_secs();
                policy.lease = Some(LeaseTimes { lease, most, wait });
            }
            ["none", n] => {
                let n = node(n);
                let policy = &mut self.policies[n];
                (policy.lease, policy.fingerprint) = (None, 2);
            }
            ["restarts"] => {
                let kept = self.arbiter.grants.kept().clone();
                self.arbiter.grants = Grants::new(now, Some(kept), Duration::ZERO);
            }
            ["forgets"] => {
                let times = self.policies[0].lease.clone().expect("an arbiter");
                self.arbiter.grants = Grants::new(now, None, times.wait);
            }
            other => panic!("no such thing befalls the arbiter: {other:?}"),
        }
    }

    pub fn ask_arbiter(
        &mut self,
        n: usize,
        group: GroupName,
        epoch: Epoch,
        (ticket, verb): (u64, LeaseVerb),
    ) {
        let times = self.policies[n].lease.clone().expect("settings with an arbiter");
        let ask = Ask {
            node: format!("n{}", n + 1),
            group: group.clone(),
            epoch,
            verb,
            term: times.wait,
        };
        let reached = !self.arbiter.lost && !self.arbiter.cut.contains(&n);
        let verdict = reached.then(|| self.arbiter.grants.ask(self.now, &ask));
        let heard = !self.arbiter.mute.contains(&n) && self.arbiter.takes < times.limit();
        let (answer, after) = match verdict.filter(|_| heard) {
            Some(Verdict::Granted) => (LeaseAnswer::Granted, self.arbiter.takes),
            Some(Verdict::Refused { why, top }) => {
                (LeaseAnswer::Refused { why, top }, self.arbiter.takes)
            }
            None => (LeaseAnswer::Unknown("no answer".into()), times.limit()),
        };
        self.later(n, after, Event::Leased { group, ticket, answer });
    }
}
