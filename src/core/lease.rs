//! The right of a group's owner to go on, in time: a lease that an arbiter granted, or a voucher
//! of every peer (hafailover-protocol(7), "Leases"). Pure bookkeeping of one group on one node;
//! every time is on this node's clock.

use super::name::{Epoch, NodeId};
use super::time::{Duration, Instant};
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::collections::BTreeMap;

/// What is asked of an arbiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LeaseVerb {
    /// Granted if the lease is free, expired or ours, and the epoch was never used.
    Acquire,
    /// Granted only to the holder at this epoch; never acquires.
    Renew,
    /// The epoch is over: nobody may have it again.
    Release,
}

/// What an arbiter answers.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum LeaseAnswer {
    Granted,
    /// It was reached and said no; why, in words, and the highest epoch that it knows of the group,
    /// if it told: the next claim goes above it.
    Refused {
        why: String,
        top: Option<Epoch>,
    },
    /// No answer in time, or none that can be understood: it may have been carried out or not.
    Unknown(String),
}

/// A question that is under way to the arbiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pending {
    pub ticket: u64,
    pub verb: LeaseVerb,
    pub epoch: Epoch,
    pub sent: Instant,
    /// How long a grant counts from then: as the arbiter was asked, whatever the settings are when
    /// it answers.
    pub lease: Duration,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Lease {
    /// By the arbiter, and until when; counted from the time at which it was asked for.
    granted: Option<(Epoch, Instant)>,
    /// It was asked again since then, and said no.
    refused: bool,
    /// By peer; counted from the stamp of ours that it echoed.
    vouchers: BTreeMap<NodeId, (Epoch, Instant)>,
    /// What an earlier life of the daemon had, or what a change of the settings leaves.
    kept: Option<(Epoch, Instant)>,
    pub asked: Option<Pending>,
    /// An epoch that has ended here; told to the arbiter until it has answered.
    pub over: Option<Epoch>,
    /// Not asked again before this.
    pub next: Instant,
    /// Not claimed before: somebody claims it who does not hear us.
    pub shy: Option<Instant>,
    /// Why the last question was not granted.
    pub trouble: Option<String>,
    /// Until when somebody may live on what this node vouched for.
    pub waits: Option<Instant>,
    /// The stamp of the first heartbeat that said that the group is in maintenance.
    pub cared: Option<Instant>,
    /// At the last look every peer knew of it.
    pub sheltered: bool,
    /// What the guard was last told.
    pub told: Option<(Epoch, Instant)>,
    /// The time was over before the stop was; told and acted on once.
    pub overran: bool,
}

impl Lease {
    pub fn grant(&mut self, epoch: Epoch, until: Instant) {
        let same = self.granted.filter(|(e, _)| *e == epoch).map(|(_, t)| t);
        self.granted = Some((epoch, same.map_or(until, |t| t.max(until))));
        self.refused = false;
        self.trouble = None;
    }

    /// The arbiter says that it is not ours: nothing new rests on it. What was granted lasts as it
    /// was granted, for others wait for its end.
    pub fn refuse(&mut self, why: String) {
        (self.refused, self.trouble) = (true, Some(why));
    }

    pub fn keep(&mut self, epoch: Epoch, until: Instant) {
        let before = self.kept.filter(|(e, _)| *e == epoch).map(|(_, until)| until);
        self.kept = Some((epoch, before.map_or(until, |before| before.max(until))));
    }

    /// By new settings nothing that was granted, or will be to what was asked before, counts for
    /// longer than a lease of theirs.
    pub fn shorten(&mut self, now: Instant, lease: Duration) {
        let Lease { granted, vouchers, kept, asked, .. } = self;
        for (_, until) in granted.iter_mut().chain(kept).chain(vouchers.values_mut()) {
            *until = (*until).min(now + lease);
        }
        if let Some(asked) = asked {
            asked.lease = asked.lease.min(lease);
        }
    }

    /// A later one counts; one that was overtaken takes nothing back.
    pub fn vouch(&mut self, peer: NodeId, epoch: Epoch, until: Instant) {
        let entry = self.vouchers.entry(peer).or_insert((epoch, until));
        match epoch.cmp(&entry.0) {
            Ordering::Greater => *entry = (epoch, until),
            Ordering::Equal => entry.1 = entry.1.max(until),
            Ordering::Less => {}
        }
    }

    /// Whether the arbiter's grant of this epoch counts now.
    pub fn is_granted(&self, epoch: Epoch, now: Instant) -> bool {
        !self.refused && self.granted.is_some_and(|(e, until)| e == epoch && now < until)
    }

    pub fn granted_until(&self, epoch: Epoch) -> Option<Instant> {
        self.granted.filter(|(e, _)| *e == epoch).map(|(_, until)| until)
    }

    pub fn voucher_of(&self, peer: NodeId, epoch: Epoch) -> Option<Instant> {
        self.vouchers.get(&peer).filter(|(e, _)| *e == epoch).map(|(_, until)| *until)
    }

    /// Until when the owner by this epoch may go on: as long as the lease lasts, or the voucher of
    /// every one of these peers.
    pub fn lasts(&self, epoch: Epoch, peers: impl Iterator<Item = NodeId>) -> Option<Instant> {
        let all: Option<Vec<Instant>> = peers.map(|p| self.voucher_of(p, epoch)).collect();
        let vouched = all.and_then(|all| all.into_iter().min());
        let kept = self.kept.filter(|(e, _)| *e == epoch).map(|(_, until)| until);
        self.granted_until(epoch).max(vouched).max(kept)
    }

    /// It is over here: what is left concerns others.
    pub fn end(&mut self) {
        let Lease { waits, cared, over, shy, .. } = *self;
        *self = Lease { waits, cared, over, shy, ..Lease::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const E: Epoch = Epoch { counter: 3, node: NodeId(0) };
    const F: Epoch = Epoch { counter: 4, node: NodeId(0) };
    const PEERS: [NodeId; 2] = [NodeId(1), NodeId(2)];

    fn lasts(lease: &Lease, epoch: Epoch) -> Option<u64> {
        lease.lasts(epoch, PEERS.into_iter()).map(|t| t.0)
    }

    /// Goal: without the arbiter an owner lives as long as the peer that vouched least.
    #[test]
    fn vouchers_count_only_from_every_peer() {
        let mut lease = Lease::default();
        lease.vouch(PEERS[0], E, Instant(50));
        assert_eq!(lasts(&lease, E), None);
        lease.vouch(PEERS[1], E, Instant(40));
        assert_eq!(lasts(&lease, E), Some(40));
        lease.vouch(PEERS[1], E, Instant(30));
        assert_eq!(lasts(&lease, E), Some(40), "overtaken");
        assert_eq!(lasts(&lease, F), None, "of another epoch");
        lease.vouch(PEERS[1], F, Instant(90));
        assert_eq!(lasts(&lease, E), None, "it vouches for a later epoch now");
        lease.vouch(PEERS[0], F, Instant(90));
        lease.vouch(PEERS[1], E, Instant(99));
        assert_eq!(lasts(&lease, F), Some(90), "a frame of before was overtaken");
    }

    /// Goal: the better of the two counts, each for its own epoch.
    #[test]
    fn a_grant_outlives_vouchers_and_the_other_way_round() {
        let mut lease = Lease::default();
        lease.grant(E, Instant(100));
        lease.grant(E, Instant(90));
        assert_eq!(lasts(&lease, E), Some(100), "an answer that was overtaken");
        PEERS.iter().for_each(|p| lease.vouch(*p, E, Instant(120)));
        assert_eq!(lasts(&lease, E), Some(120));
        assert!(lease.is_granted(E, Instant(99)) && !lease.is_granted(E, Instant(100)));
        lease.refuse(String::new());
        assert!(!lease.is_granted(E, Instant(99)));
        assert_eq!(lasts(&lease, E), Some(120));
        lease.waits = Some(Instant(7));
        lease.end();
        assert_eq!((lasts(&lease, E), lease.waits), (None, Some(Instant(7))));
    }
}
