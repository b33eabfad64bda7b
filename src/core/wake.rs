//! What only time brings: when this node has to look again, and at what.

use super::heartbeat::Phase;
use super::name::GroupName;
use super::policy::Failback;
use super::time::{Duration, Instant};
use super::{Core, STORE_SLOW};

impl Core {
    /// Groups for which time alone can change something. The rest costs nothing per wake-up.
    pub(super) fn touch_restless(&mut self, now: Instant) {
        let world = self.world(now);
        let restless = self.groups.iter().filter(|(name, group)| {
            let calm = match group.phase() {
                Phase::Running => {
                    group.settled && group.better.is_none() && group.failed_members().is_empty()
                }
                Phase::Stopped => {
                    group.claim.is_none()
                        && group.quarantine.is_none()
                        && world.heard_holder(name).is_some()
                }
                Phase::Starting | Phase::Stopping => true,
                Phase::Unknown | Phase::Stuck => false,
            };
            !calm
        });
        let names: Vec<GroupName> = restless.map(|(name, _)| name.clone()).collect();
        self.touched.extend(names);
    }

    /// When that is due next.
    pub(super) fn wake_at(&self, now: Instant) -> Instant {
        let timing = &self.policy.timing;
        let mut due = self.beat.next;
        for peer in self.peers.values() {
            if let Some(last) = peer.last_heard() {
                let silent = self.lived(now).since(last);
                let next = [timing.warntime, timing.deadtime].into_iter().find(|t| silent < *t);
                due = next.map_or(due, |t| due.min(self.pulse.when(last, t)));
            }
        }
        for group in self.groups.values() {
            let claim = group.claim.as_ref().and_then(|c| c.start_at);
            let stuck = group.stuck.as_ref().map(|s| s.retry);
            let back = match group.policy.failback {
                Failback::After(delay) => group.better.map(|(_, since)| since + delay),
                Failback::Yes | Failback::No => None,
            };
            for at in claim.into_iter().chain(stuck).chain(back).filter(|at| *at > now) {
                due = due.min(at);
            }
        }
        if let Some(asked) = self.store.asked.filter(|_| !self.store.slow) {
            due = due.min(asked + STORE_SLOW);
        }
        let more = self.lease_due(now).into_iter().chain(self.escalation_due(now));
        let more = more.chain(self.quorum_due().filter(|at| *at > now));
        let more = more.chain(self.parting_at().filter(|at| *at > now));
        due = more.fold(due, Instant::min);
        due.max(now + Duration::from_nanos(1))
    }
}
