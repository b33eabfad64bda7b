//! The answers of the hands: a start that worked or did not, a stop that is verified or stuck.

use super::group::{STUCK_RETRY, Stuck};
use super::heartbeat::{Phase, Release};
use super::name::{Epoch, GroupName};
use super::ownership;
use super::say::{Saying, What};
use super::time::{Duration, Instant};
use super::{Action, Core, IN_USE, StartError, StopError};

/// How long after an address was found in use its group is tried again.
const IN_USE_RETRY: Duration = Duration::from_secs(10);

impl Core {
    pub(super) fn started(
        &mut self,
        now: Instant,
        name: &GroupName,
        job: u64,
        result: Result<(), StartError>,
    ) {
        let Some(group) = self.groups.get_mut(name) else { return };
        let Some(since) = group.job.filter(|j| j.id == job).map(|j| j.since) else { return };
        group.job = None;
        let phase = group.phase();
        self.touched.insert(name.clone());
        // What was read before this moment says nothing about members that failed since.
        self.out.push(Action::Observe { group: name.clone() });
        let in_use = matches!(&result, Err(StartError::Failed { result, .. }) if result == IN_USE);
        let late = matches!(&result, Err(StartError::Late));
        let words = match result {
            Ok(()) if phase == Phase::Starting => return self.runs(now, name, since),
            Ok(()) => return,
            Err(StartError::Late) => "the evidence was too old when systemd was to be asked".into(),
            Err(StartError::Failed { unit, result }) => format!("{unit} did not start ({result})"),
            Err(StartError::Unknown { why }) => format!("the start cannot be followed: {why}"),
        };
        if phase != Phase::Starting {
            return;
        }
        let own = self.group_mut(name).own.unwrap_or_default();
        self.say(Saying::new(What::StartFailed, words.clone()).group(name).epoch(own));
        if in_use {
            // Whoever has it may go, and then nobody should have to wait for a quarantine.
            self.quarantine(now, name, &words, IN_USE_RETRY);
        } else if !late {
            let lasts = self.group_mut(name).policy.quarantine;
            self.quarantine(now, name, &words, lasts);
        }
        let world = self.world(now);
        if !ownership::in_maintenance(&world, name) {
            let heir = world.heir(name);
            self.stop(now, name, &words, heir);
        }
    }

    fn runs(&mut self, now: Instant, name: &GroupName, since: Instant) {
        self.go(name, Phase::Running, "every member is active and verified");
        let evidence = self.evidence_words(name);
        let group = self.group_mut(name);
        let (own, detect) = (group.own.unwrap_or_default(), group.detect.take());
        let mut saying = Saying::new(What::GroupStarted, "every member is active and verified");
        saying.evidence = evidence;
        saying.detect = detect;
        saying.start = Some(now.since(since));
        self.say(saying.group(name).epoch(own));
    }

    /// `node=Evidence` for every other node, separated by blanks.
    pub(super) fn evidence_words(&self, name: &GroupName) -> String {
        let node = |n: super::NodeId| self.policy.nodes[usize::from(n.0)].as_str();
        let proof = self.groups.get(name).and_then(|g| g.proof.as_ref());
        let list = proof.map(|p| p.against.as_slice()).unwrap_or_default();
        let words: Vec<String> = list.iter().map(|(n, e)| format!("{}={e}", node(*n))).collect();
        words.join(" ")
    }

    pub(super) fn stopped(
        &mut self,
        now: Instant,
        name: &GroupName,
        job: u64,
        result: Result<(), StopError>,
    ) {
        let Some(group) = self.groups.get_mut(name) else { return };
        if group.job.is_none_or(|j| j.id != job) || group.phase() != Phase::Stopping {
            return;
        }
        group.job = None;
        self.touched.insert(name.clone());
        self.out.push(Action::Observe { group: name.clone() });
        match result {
            Ok(()) => self.release(now, name),
            Err(StopError::Stuck { unit, why, holders }) => {
                self.stuck(now, name, format!("{unit}: {why}"), holders);
                self.stop_failed(now, name, &unit, &format!("{unit}: {why}"));
            }
            Err(StopError::Unknown { why }) => {
                self.stuck(now, name, format!("cannot tell whether it stopped: {why}"), Vec::new());
            }
        }
    }

    /// Verified stopped: the release names the epoch it ends and, as a promise of the next one,
    /// the successor. It is spoken of once it is on disk.
    fn release(&mut self, now: Instant, name: &GroupName) {
        let world = self.world(now);
        let group = world.group(name);
        let stopping = group.stopping.clone();
        let named = stopping.as_ref().and_then(|s| s.successor);
        let still = named.filter(|n| world.unfit_at(name, *n).is_none());
        let down = world.wish(name).value.down;
        let successor = if down { None } else { still.or_else(|| named.and(world.heir(name))) };
        let own = group.own;
        let record = self.store.record.groups.entry(name.clone()).or_default();
        // Without an own epoch strays were stopped: an epoch owned before a power loss stays used.
        if let Some(own) = own {
            record.claim = None;
            record.released = Some(Release { epoch: own, successor });
            if let Some(node) = successor {
                let counter = record.epoch.counter.max(own.counter) + 1;
                record.promise = Some(Epoch { counter, node });
                record.epoch = Epoch { counter, node };
            }
        }
        let reason = stopping.as_ref().map_or("stopped", |s| s.reason.as_str()).to_string();
        if let Some(own) = own {
            let to = successor.map(|n| self.policy.nodes[usize::from(n.0)].clone());
            let me = self.policy.nodes[usize::from(self.policy.me.0)].clone();
            let mut saying = Saying::new(What::GroupReleased, reason.clone()).group(name);
            saying.stop = stopping.map(|s| now.since(s.since));
            saying.peer = successor;
            self.say(saying.epoch(own).from_to(me, to.unwrap_or_default()));
        }
        if let Some(own) = own {
            self.end_lease(name, own);
        }
        self.go(name, Phase::Stopped, &reason);
        let group = self.group_mut(name);
        group.told_other = None;
        group.adopting = false;
        if !group.strays.is_empty() {
            group.strays.clear();
            self.say(Saying::new(What::StrayGone, "stopped").group(name));
        }
    }

    pub(super) fn stuck(
        &mut self,
        now: Instant,
        name: &GroupName,
        why: String,
        holders: Vec<String>,
    ) {
        let words = match holders.is_empty() {
            true => why.clone(),
            false => format!("{why}; held by {}", holders.join(", ")),
        };
        let group = self.group_mut(name);
        let (first, news) = (group.told_stuck.is_empty(), group.told_stuck != words);
        let own = group.own.unwrap_or_default();
        group.told_stuck = words.clone();
        if first {
            self.go(name, Phase::Stuck, &why);
        } else {
            self.group_mut(name).go(Phase::Stuck, &why);
        }
        let retry = now + STUCK_RETRY;
        self.group_mut(name).stuck = Some(Stuck { why, holders, retry });
        if news {
            self.say(Saying::new(What::GroupStuck, words).group(name).epoch(own));
        }
    }
}
