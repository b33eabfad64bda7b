//! Carrying out decisions: the only place that claims, starts, stops and promises.

use super::evidence::Proof;
use super::group::{Claim, Job, Stopping};
use super::hear::HOT_BEATS;
use super::heartbeat::Phase;
use super::name::{Epoch, GroupName, NodeId};
use super::ownership::{self, Decision};
use super::say::{Saying, What};
use super::time::{Duration, Instant};
use super::{Action, Core, Evidence};

impl Core {
    /// Looks at one group and does what follows.
    pub(super) fn step(&mut self, now: Instant, name: &GroupName) {
        if !self.groups.contains_key(name) {
            return;
        }
        self.watch_other_holders(now, name);
        if let Some(epoch) = ownership::promise(&self.world(now), name) {
            self.promise(now, name, epoch);
        }
        self.watch_better(now, name);
        if self.group_mut(name).settles(now) {
            self.heat(name);
        }
        let unfit = self.world(now).unfit(name);
        if std::mem::replace(&mut self.group_mut(name).told_unfit, unfit) != unfit {
            self.heat(name);
        }
        let decision = ownership::decide(&self.world(now), name);
        self.tell_waits(name, &decision);
        match decision {
            Decision::Rest | Decision::Wait(_) => {}
            Decision::Claim => self.claim(now, name),
            Decision::Withdraw(why) => {
                self.withdraw(now, name, &why);
                self.touched.insert(name.clone());
            }
            Decision::AnnounceStart(lingers) => self.announce_start(now, name, lingers),
            Decision::Start(proof) => self.start(now, name, proof),
            Decision::Stop(reason, heir) => self.stop(now, name, &reason, heir),
            Decision::TwoOwners(peer, reason) => {
                self.give_way(now, name, What::TwoOwners, peer, &reason);
            }
            Decision::Yield(peer, reason) => {
                self.give_way(now, name, What::OwnerYields, peer, &reason);
            }
            Decision::Recover(words) => self.recover(now, name, &words),
            Decision::GiveUp(words) => {
                let lasts = self.group_mut(name).policy.quarantine;
                self.quarantine(now, name, &words, lasts);
                let heir = self.world(now).heir(name);
                self.stop(now, name, &words, heir);
            }
            Decision::StopAgain => {
                // Tried every second: not told each time.
                self.group_mut(name).go(Phase::Stopping, "trying again to stop it");
                self.order_stop(now, name);
            }
        }
    }

    /// Another node has, or is about to have, the better right: stop at once, and say so loudly.
    fn give_way(&mut self, now: Instant, name: &GroupName, what: What, to: NodeId, why: &str) {
        let mut saying = Saying::new(what, why).group(name).peer(to);
        saying.epoch = self.group_mut(name).own;
        self.say(saying);
        self.stop(now, name, why, Some(to));
    }

    pub(super) fn group_mut(&mut self, name: &GroupName) -> &mut super::Group {
        self.groups.get_mut(name).expect("called for known groups")
    }

    pub(super) fn go(&mut self, name: &GroupName, to: Phase, reason: &str) {
        let group = self.group_mut(name);
        let own = group.own.or(group.claim.as_ref().map(|c| c.epoch));
        let mut saying = group.go(to, reason).group(name);
        saying.epoch = own;
        self.say(saying);
        self.heat(name);
    }

    /// Its report changed: send it now, and in the next heartbeats before all others.
    pub(super) fn heat(&mut self, name: &GroupName) {
        self.beat.hot.insert(name.clone(), HOT_BEATS);
        self.beat.now = true;
    }

    fn promise(&mut self, now: Instant, name: &GroupName, epoch: Epoch) {
        if self.group_mut(name).claim.is_some() {
            self.withdraw(now, name, "another node has the better claim");
        }
        let record = self.store.record.groups.entry(name.clone()).or_default();
        record.promise = Some(epoch);
        record.epoch = record.epoch.max(epoch);
        let saying = Saying::new(What::GroupPromised, "it claimed it, and it does not run here");
        self.say(saying.group(name).peer(epoch.node).epoch(epoch));
        self.heat(name);
    }

    fn claim(&mut self, now: Instant, name: &GroupName) {
        let world = self.world(now);
        let top = world.top_epoch(name);
        let me = world.me;
        let record = world.record.groups.get(name).copied().unwrap_or_default();
        // The last owner promised us exactly `top`; any other epoch must be a new one, and so must
        // one that we have claimed already: a claim taken back leaves our own promise behind.
        let used = [record.claim, record.promise].contains(&Some(top));
        let given = world.successor(name) == Some(me) && !used;
        let epoch = if given { top } else { Epoch { counter: top.counter + 1, node: me } };
        let lost = world.others().filter(|p| !world.heard(*p)).filter(|p| {
            let report = world.peer(*p).reports.get(name);
            report.is_some_and(|r| r.held == super::Held::Yes)
        });
        let detect = lost.filter_map(|p| world.silence_of(p)).max();
        let record = self.store.record.groups.entry(name.clone()).or_default();
        record.claim = Some(epoch);
        record.epoch = epoch;
        let group = self.group_mut(name);
        group.claim = Some(Claim { epoch, since: now, start_at: None });
        group.detect = detect;
        let mut saying = Saying::new(What::GroupClaimed, "it should run here").group(name);
        saying.detect = detect;
        self.say(saying.epoch(epoch));
        self.heat(name);
    }

    pub(super) fn withdraw(&mut self, now: Instant, name: &GroupName, why: &str) {
        let Some(claim) = self.group_mut(name).claim.take() else { return };
        if self.world(now).top_epoch(name) > claim.epoch {
            self.shy_away(now, name);
        }
        self.end_lease(name, claim.epoch);
        let record = self.store.record.groups.entry(name.clone()).or_default();
        record.claim = None;
        record.promise = record.promise.max(Some(claim.epoch));
        self.say(Saying::new(What::ClaimWithdrawn, why).group(name).epoch(claim.epoch));
        self.heat(name);
    }

    /// The unheard owner, if there is one, must have the time to hear of it and to stop.
    fn announce_start(&mut self, now: Instant, name: &GroupName, lingers: bool) {
        let timing = &self.policy.timing;
        let notice = timing.keepalive * 2;
        let small = timing.deadtime / 2;
        let group = self.groups.get_mut(name).expect("called for known groups");
        let budget = group.policy.stop_budget;
        let wait = match lingers {
            true => timing.quorum_wait(budget),
            false if budget <= small => notice + budget,
            false => notice,
        };
        if let Some(claim) = &mut group.claim {
            claim.start_at = Some(now + wait);
        }
        self.heat(name);
    }

    fn start(&mut self, now: Instant, name: &GroupName, proof: Vec<(NodeId, Evidence)>) {
        let group = self.group_mut(name);
        let epoch = group.claim.take().expect("a start follows a claim").epoch;
        assert!(group.held() != super::Held::Yes, "a start of what is held here");
        group.own = Some(epoch);
        let proof = Proof { since: now, against: proof };
        group.proof = Some(proof.clone());
        group.adopting = false;
        group.strays.clear();
        self.out.push(Action::Prove { group: name.clone(), epoch, proof: Box::new(proof) });
        self.go(name, Phase::Starting, "there is evidence against every other node");
        self.order_start(now, name, epoch, self.policy.timing.deadtime / 2);
    }

    fn recover(&mut self, now: Instant, name: &GroupName, words: &str) {
        let group = self.group_mut(name);
        group.count_failure(now);
        let Some(epoch) = group.own else { return };
        let tries = format!("{} of {}", group.failures.len(), group.policy.retries);
        let words = format!("{words}: it is started again here (retry {tries})");
        self.say(Saying::new(What::MemberFailed, words).group(name).epoch(epoch));
        self.order_start(now, name, epoch, self.policy.timing.deadtime);
    }

    fn order_start(&mut self, now: Instant, name: &GroupName, epoch: Epoch, valid: Duration) {
        let job = self.new_job(now, name);
        let world = self.world(now);
        let stop_at = world.stop_at(name).unwrap_or(Instant(u64::MAX));
        let lasts = world.lasts(name, epoch).filter(|_| world.policy.lease.is_some());
        let valid_until = stop_at.min(now + valid);
        if let Some(until) = lasts {
            // Before the token: a daemon that finds a token finds this beside it.
            self.group_mut(name).lease.told = Some((epoch, until));
            self.out.push(Action::Lasts { group: name.clone(), epoch, until });
        }
        self.out.push(Action::Start { group: name.clone(), epoch, job, valid_until });
    }

    pub(super) fn order_stop(&mut self, now: Instant, name: &GroupName) {
        let job = self.new_job(now, name);
        self.out.push(Action::Stop { group: name.clone(), job });
    }

    pub(super) fn new_job(&mut self, now: Instant, name: &GroupName) -> u64 {
        self.jobs += 1;
        let id = self.jobs;
        let group = self.group_mut(name);
        group.job = Some(Job { id, since: now });
        group.fresh = false;
        id
    }

    pub(super) fn stop(
        &mut self,
        now: Instant,
        name: &GroupName,
        reason: &str,
        successor: Option<NodeId>,
    ) {
        let stopping = Stopping { reason: reason.into(), successor, since: now };
        self.group_mut(name).stopping = Some(stopping);
        self.go(name, Phase::Stopping, reason);
        self.order_stop(now, name);
    }

    pub(super) fn quarantine(
        &mut self,
        now: Instant,
        name: &GroupName,
        words: &str,
        lasts: Duration,
    ) {
        let group = self.group_mut(name);
        group.quarantine = Some((now + lasts, words.into()));
        let words = format!("{words}; not used for it here for {} s", lasts.as_secs());
        self.say(Saying::new(What::Quarantined, words).group(name));
    }

    pub(super) fn lift_quarantine(&mut self, name: &GroupName, why: &str) {
        let Some(group) = self.groups.get_mut(name) else { return };
        group.failures.clear();
        if group.quarantine.take().is_some() {
            self.say(Saying::new(What::QuarantineOver, why).group(name));
            self.heat(name);
        }
        self.touched.insert(name.clone());
    }

    fn watch_better(&mut self, now: Instant, name: &GroupName) {
        if self.group_mut(name).quarantine.as_ref().is_some_and(|(until, _)| now >= *until) {
            self.lift_quarantine(name, "its time is over");
        }
        let better = ownership::better(&self.world(now), name);
        let group = self.group_mut(name);
        group.better = match (better, group.better) {
            (Some(node), Some((old, since))) if node == old => Some((node, since)),
            (Some(node), _) => Some((node, now)),
            (None, _) => None,
        };
    }

    /// Says once for what a group waits, not at every look at it.
    fn tell_waits(&mut self, name: &GroupName, decision: &Decision) {
        let words = match decision {
            Decision::Wait(words) if !self.starting => words.join("; "),
            Decision::Wait(_) => return,
            Decision::Rest => {
                let group = self.group_mut(name);
                if group.phase() != Phase::Stopped {
                    group.told_waits.clear();
                }
                return;
            }
            _ => String::new(),
        };
        let group = self.group_mut(name);
        if group.told_waits != words {
            group.told_waits = words.clone();
            if !words.is_empty() {
                self.say(Saying::new(What::GroupWaits, words).group(name));
            }
        }
    }
}
