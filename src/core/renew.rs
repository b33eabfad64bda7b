//! Keeping the right to run a group: asks the arbiter, counts the peers' vouchers, gives ours, and
//! tells the guard until when an owner may go on.

use super::heartbeat::{Heartbeat, Held, Phase};
use super::lease::{LeaseAnswer, LeaseVerb, Pending};
use super::name::{Epoch, GroupName};
use super::ownership::in_maintenance;
use super::policy::{LeaseTimes, Policy};
use super::record::Record;
use super::say::{Saying, What};
use super::time::{Duration, Instant};
use super::{Action, Core};

/// What is known of the arbiter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Arbiter {
    /// Until when somebody may live on what an earlier life of this node vouched for, or on
    /// settings that were in force before.
    pub waits: Instant,
    pub tickets: u64,
    /// It does not answer; why.
    pub lost: Option<String>,
    /// The last question had no answer: once alone is a change of its leader, or a frame that was
    /// lost.
    missed: bool,
}

impl Arbiter {
    pub fn new(now: Instant, policy: &Policy, record: &Record) -> Arbiter {
        let waits = policy.lease.as_ref().map_or(now, |times| now + times.wait.max(record.waits));
        Arbiter { waits, ..Arbiter::default() }
    }
}

impl Core {
    /// Called after whatever happened: asks what is due, and lets a group look again when its time
    /// is nearly over or its waiting is.
    pub(super) fn tend_leases(&mut self, now: Instant) {
        let Some(times) = self.policy.lease.clone() else { return };
        self.remember_waits(now, &times);
        let names: Vec<GroupName> = self.groups.keys().cloned().collect();
        for name in names {
            self.end_care(now, &name, &times);
            self.count_confirmed(now, &name, &times);
            self.ask_arbiter(now, &name, &times);
            self.tell_guard(now, &name, &times);
            self.watch_time(now, &name);
        }
    }

    /// The next daemon waits for what lives on our vouchers, also if its settings say less: it is
    /// on disk before anything is vouched for.
    fn remember_waits(&mut self, now: Instant, times: &LeaseTimes) {
        let record = &mut self.store.record;
        if record.known {
            let before = if now < self.arbiter.waits { record.waits } else { Duration::ZERO };
            record.waits = times.wait.max(before);
        }
    }

    /// The maintenance ends, or a peer no longer says it: from now on a lease counts again, and
    /// there is one to get it in. No peer takes over before it has heard us say so. A daemon that
    /// adopts the group has not heard the peers yet: it goes by what the last one knew, on disk,
    /// where the end stands with the word that ends it, before anybody hears that.
    fn end_care(&mut self, now: Instant, name: &GroupName, times: &LeaseTimes) {
        let world = self.world(now);
        let (says, cared) = (world.says_maintenance(name), world.is_cared_for(name));
        let stays = in_maintenance(&world, name);
        let group = self.group_mut(name);
        group.lease.cared.take_if(|_| !says);
        if group.phase() == Phase::Unknown {
            return;
        }
        let before = std::mem::replace(&mut group.lease.sheltered, cared);
        let (own, anew) = (group.own, now + times.lease);
        let shelter = &mut self.store.record.shelter;
        let was = shelter.get(name).copied();
        if own.is_some() && cared {
            match was {
                _ if stays => drop(shelter.insert(name.clone(), None)),
                Some(None) => drop(shelter.insert(name.clone(), Some(anew))),
                Some(Some(_)) | None => {}
            }
            return;
        }
        shelter.remove(name);
        let until = match was {
            Some(Some(until)) if !before => Some(until),
            Some(_) => Some(anew),
            None => Some(anew).filter(|_| before),
        };
        if let (Some(epoch), Some(until)) = (own, until) {
            self.group_mut(name).lease.keep(epoch, until);
        }
    }

    /// A person said that a peer is down: as good as its voucher, until it is heard again.
    fn count_confirmed(&mut self, now: Instant, name: &GroupName, times: &LeaseTimes) {
        let group = self.groups.get_mut(name).expect("a key of the map");
        let Some(epoch) = group.own.or(group.claim.as_ref().map(|c| c.epoch)) else { return };
        for (id, _) in self.peers.iter().filter(|(_, p)| p.confirmed_down.is_some()) {
            group.lease.vouch(*id, epoch, now + times.lease);
        }
    }

    fn ask_arbiter(&mut self, now: Instant, name: &GroupName, times: &LeaseTimes) {
        let group = self.groups.get_mut(name).expect("a key of the map");
        let written = self.store.durable.groups.get(name).and_then(|r| r.claim);
        let claimed = group.claim.as_ref().map(|c| c.epoch).filter(|e| written == Some(*e));
        let current = group.own.or(claimed);
        let lease = &mut group.lease;
        let wanted = lease.over.or(current);
        match lease.asked {
            // An answer later than that is of no use.
            Some(q) if now.since(q.sent) < times.lease && Some(q.epoch) == wanted => return,
            _ if now < lease.next => return,
            _ => {}
        }
        let (verb, epoch) = match (lease.over, current) {
            (Some(over), _) => (LeaseVerb::Release, over),
            (None, Some(epoch)) if lease.is_granted(epoch, now) => (LeaseVerb::Renew, epoch),
            (None, Some(epoch)) => (LeaseVerb::Acquire, epoch),
            (None, None) => return,
        };
        self.arbiter.tickets += 1;
        let ticket = self.arbiter.tickets;
        lease.asked = Some(Pending { ticket, verb, epoch, sent: now, lease: times.lease });
        self.out.push(Action::Lease { group: name.clone(), epoch, ticket, verb });
    }

    pub(super) fn leased(
        &mut self,
        now: Instant,
        name: &GroupName,
        ticket: u64,
        answer: LeaseAnswer,
    ) {
        let Some(times) = self.policy.lease.clone() else { return };
        let Some(group) = self.groups.get_mut(name) else { return };
        let Some(asked) = group.lease.asked.take_if(|q| q.ticket == ticket) else { return };
        self.tell_arbiter(&answer);
        self.touched.insert(name.clone());
        let group = self.group_mut(name);
        let lease = &mut group.lease;
        // Again soon where somebody is about to let go, else in good time before the end.
        lease.next = match (&answer, asked.verb) {
            (LeaseAnswer::Refused { .. }, LeaseVerb::Renew) => now,
            (LeaseAnswer::Granted, LeaseVerb::Acquire | LeaseVerb::Renew) => {
                asked.sent + times.lease / 5
            }
            (_, LeaseVerb::Release) => now,
            (LeaseAnswer::Refused { .. } | LeaseAnswer::Unknown(_), _) => now + times.lease / 20,
        };
        let top = match &answer {
            LeaseAnswer::Refused { top, .. } => *top,
            LeaseAnswer::Granted | LeaseAnswer::Unknown(_) => None,
        };
        match (answer, asked.verb) {
            (LeaseAnswer::Granted | LeaseAnswer::Refused { .. }, LeaseVerb::Release) => {
                lease.over = None;
            }
            // What does not answer frees it when the lease is over.
            (LeaseAnswer::Unknown(_), LeaseVerb::Release) => {
                lease.next = now + times.lease / 20;
            }
            (LeaseAnswer::Granted, _) => lease.grant(asked.epoch, asked.sent + asked.lease),
            (LeaseAnswer::Refused { why, .. }, _) => lease.refuse(why),
            (LeaseAnswer::Unknown(why), _) => lease.trouble = Some(why),
        }
        let record = self.store.record.groups.entry(name.clone()).or_default();
        record.epoch = record.epoch.max(top.unwrap_or_default());
    }

    fn tell_arbiter(&mut self, answer: &LeaseAnswer) {
        let lost = match answer {
            LeaseAnswer::Granted | LeaseAnswer::Refused { .. } => {
                self.arbiter.missed = false;
                None
            }
            LeaseAnswer::Unknown(why) => {
                let again = std::mem::replace(&mut self.arbiter.missed, true);
                Some(why.clone()).filter(|_| again)
            }
        };
        let before = std::mem::replace(&mut self.arbiter.lost, lost.clone());
        match (before, lost) {
            (None, Some(why)) => {
                let words = format!(
                    "{why}: what runs goes on while every peer vouches for it; the loss of a peer \
                     as well stops it: mend it, hafailover check asks it"
                );
                self.say(Saying::new(What::ArbiterLost, words));
            }
            (Some(_), None) => self.say(Saying::new(What::ArbiterBack, "it answers again")),
            (None, None) | (Some(_), Some(_)) => {}
        }
    }

    /// Another node claims it as well, and does not hear us: who is preferred tries again first,
    /// and has the time to be granted it.
    pub(super) fn shy_away(&mut self, now: Instant, name: &GroupName) {
        if self.policy.lease.is_none() {
            return;
        }
        let (me, pause) = (self.policy.me, self.policy.timing.keepalive * 2);
        let group = self.group_mut(name);
        let rank = group.policy.nodes.iter().position(|n| *n == me).unwrap_or_default();
        group.lease.shy = Some(now + pause * (rank as u32 + 1));
    }

    /// The epoch is over here: the arbiter may give the group to others at once.
    pub(super) fn end_lease(&mut self, name: &GroupName, epoch: Epoch) {
        if self.policy.lease.is_none() {
            return;
        }
        let lease = &mut self.group_mut(name).lease;
        lease.end();
        lease.over = Some(epoch);
    }

    /// Vouchers for what this node owns or claims, each counted from our own stamp in the echo, and
    /// only from a node that waits by the same settings.
    pub(super) fn count_vouchers(&mut self, beat: &Heartbeat) {
        let Some(times) = self.policy.lease.clone() else { return };
        if beat.fingerprint != self.policy.fingerprint {
            return;
        }
        let us = (self.policy.me, self.session);
        let Some(echo) = beat.echoes.iter().find(|e| (e.peer, e.session) == us) else { return };
        for report in &beat.groups {
            let Some(epoch) = report.voucher.filter(|e| e.node == us.0) else { continue };
            if let Some(group) = self.groups.get_mut(&report.name) {
                group.lease.vouch(beat.from, epoch, echo.stamp + times.lease);
            }
        }
    }

    /// Remembers what the frames now sent say: from a voucher on this node waits before it may take
    /// the group on an expired lease, and whoever hears of a maintenance waits for its end.
    pub(super) fn note_said<'a>(
        &mut self,
        now: Instant,
        names: impl Iterator<Item = &'a GroupName>,
    ) {
        let Some(times) = self.policy.lease.clone() else { return };
        let first = now.max(self.beat.stamp + Duration::from_nanos(1));
        for name in names {
            let world = self.world(now);
            let vouched = world.voucher(name).is_some();
            let cared = world.says_maintenance(name);
            let lease = &mut self.group_mut(name).lease;
            lease.cared = cared.then(|| lease.cared.unwrap_or(first));
            if vouched {
                lease.waits = lease.waits.max(Some(now + times.wait));
            }
        }
    }

    /// The guard acts without us: it is told in steps, not with every heartbeat.
    fn tell_guard(&mut self, now: Instant, name: &GroupName, times: &LeaseTimes) {
        let group = &self.groups[name];
        let Some(epoch) = group.own else { return };
        let Some(until) = self.world(now).lasts(name, epoch) else { return };
        let lease = &mut self.group_mut(name).lease;
        let step = |(e, told): (Epoch, Instant)| {
            e == epoch && told <= until && until < told + times.lease / 12
        };
        if lease.told.is_some_and(step) {
            return;
        }
        lease.told = Some((epoch, until));
        self.out.push(Action::Lasts { group: name.clone(), epoch, until });
    }

    /// When the time is over: to stop in time, and what comes after a stop that was too slow.
    fn watch_time(&mut self, now: Instant, name: &GroupName) {
        if self.world(now).overruns(name) {
            self.overrun(now, name);
        }
        let world = self.world(now);
        let group = world.group(name);
        let runs = matches!(group.phase(), Phase::Starting | Phase::Running);
        let over = runs && world.stop_at(name).is_some_and(|at| now >= at);
        let waits = group.phase() == Phase::Stopped && !group.told_waits.is_empty();
        let free = waits && world.free_at(name).is_some_and(|at| now >= at);
        let shy = group.lease.shy.is_some_and(|at| now >= at);
        let parts = runs && world.parts_with(name).is_some();
        if over || parts || free || shy {
            self.group_mut(name).lease.shy.take_if(|_| shy);
            self.touched.insert(name.clone());
        }
    }

    /// When lease matters next need a look; the timer is set to it.
    pub(super) fn lease_due(&self, now: Instant) -> Option<Instant> {
        self.policy.lease.as_ref()?;
        let world = self.world(now);
        let due = |(name, group): (&GroupName, &super::Group)| {
            let current = group.own.or(group.claim.as_ref().map(|c| c.epoch));
            let asks = group.lease.over.or(current).is_some() && group.lease.asked.is_none();
            let ask = asks.then_some(group.lease.next);
            let end = match group.own {
                Some(_) if group.held() == Held::Yes => {
                    [world.stop_at(name), world.overruns_at(name)]
                }
                _ => [world.free_at(name), group.lease.shy],
            };
            end.into_iter().flatten().chain(ask).filter(|at| *at > now).min()
        };
        self.groups.iter().filter_map(due).min()
    }

    /// With new settings an arbiter may have come: what runs has one lease to get its first. What
    /// others may live on by the settings before is waited for as long as both ask for; and they
    /// wait for us no longer than the new ones say.
    pub(super) fn rearm_leases(&mut self, now: Instant, had: Option<LeaseTimes>) {
        let Some(times) = self.policy.lease.clone().filter(|new| had.as_ref() != Some(new)) else {
            return;
        };
        let before = self.store.record.waits;
        self.arbiter.waits = self.arbiter.waits.max(now + times.wait.max(before));
        for group in self.groups.values_mut() {
            match (&had, group.own) {
                (Some(_), _) => group.lease.shorten(now, times.lease),
                (None, Some(epoch)) => group.lease.keep(epoch, now + times.lease),
                (None, None) => {}
            }
        }
    }
}
