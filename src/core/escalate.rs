//! What follows a stop that failed, as the group has it configured: nothing more, or whoever keeps
//! a file system busy is killed, or this machine resets itself; and what follows one that outlives
//! its lease.

use super::group::Group;
use super::heartbeat::Phase;
use super::name::GroupName;
use super::ownership::in_maintenance;
use super::policy::{OnLost, StopFailure};
use super::say::{Saying, What};
use super::time::{Duration, Instant};
use super::{Action, Core, Terminate};

/// How long a reset waits for the journal.
const FLUSH: Duration = Duration::from_millis(500);

/// This machine is about to be reset, on account of that group.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reset {
    group: GroupName,
    cause: Cause,
    since: Instant,
    /// The newest stamp sent before: who echoes a later one has heard of it.
    said: Instant,
    /// It was ordered, and has not come about yet.
    ordered: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Cause {
    /// Its `StopFailure=`.
    Stop,
    /// Its lease is over, and it is not stopped.
    Lease,
}

impl Core {
    /// A stop of that unit was tried, and failed.
    pub(super) fn stop_failed(&mut self, now: Instant, name: &GroupName, unit: &str, why: &str) {
        if !self.may_escalate(now, name) {
            return;
        }
        match self.group_mut(name).policy.stop_failure {
            StopFailure::Hold => {}
            StopFailure::KillUsers => {
                if self.group_mut(name).purged.insert(unit.into()) {
                    let job = self.new_job(now, name);
                    let (group, unit) = (name.clone(), unit.into());
                    self.out.push(Action::KillUsers { group, unit, job });
                }
            }
            StopFailure::FenceSelf => self.begin_reset(now, name, Cause::Stop, why),
        }
    }

    /// Only what is held by an epoch, and that nobody has told us to leave alone. A machine that
    /// shuts down comes to its end by itself.
    fn may_escalate(&self, now: Instant, name: &GroupName) -> bool {
        let held = self.groups.get(name).is_some_and(|g| g.own.is_some() && !g.unreset);
        let down = self.going.is_some_and(|g| g.kind == Terminate::Shutdown);
        held && !down && !in_maintenance(&self.world(now), name)
    }

    /// Each unit whose processes were killed, or spared, in words; then it is tried once more.
    pub(super) fn users_killed(
        &mut self,
        now: Instant,
        name: &GroupName,
        job: u64,
        told: Vec<String>,
    ) {
        let Some(group) = self.groups.get_mut(name) else { return };
        if group.job.is_none_or(|j| j.id != job) || group.phase() != Phase::Stuck {
            return;
        }
        group.job = None;
        self.touched.insert(name.clone());
        let none = told.is_empty();
        for words in told {
            self.say(Saying::new(What::UsersKilled, words).group(name));
        }
        if !none && !in_maintenance(&self.world(now), name) {
            self.group_mut(name).go(Phase::Stopping, "its users were killed");
            self.order_stop(now, name);
        }
    }

    /// Others may start it from now on, and it is not verified stopped.
    pub(super) fn overrun(&mut self, now: Instant, name: &GroupName) {
        let group = self.group_mut(name);
        group.lease.overran = true;
        let own = group.own.unwrap_or_default();
        let words =
            "its stop was not verified before its lease was over: another node may start it";
        self.say(Saying::new(What::LeaseOverrun, words).group(name).epoch(own));
        match self.policy.safety.on_lost {
            OnLost::Reboot => self.begin_reset(now, name, Cause::Lease, "its lease is over"),
            OnLost::Leave => {}
        }
    }

    /// The others are told first: they need not wait for what a stop that hangs may still do.
    fn begin_reset(&mut self, now: Instant, name: &GroupName, cause: Cause, why: &str) {
        let under_way = |r: &Reset| r.ordered || r.cause == cause || cause == Cause::Stop;
        if self.reset.as_ref().is_some_and(under_way) {
            return;
        }
        let (group, said) = (name.clone(), self.beat.stamp);
        self.reset = Some(Reset { group, cause, since: now, said, ordered: false });
        let own = self.group_mut(name).own.unwrap_or_default();
        let by = match cause {
            Cause::Stop => "StopFailure=fence-self",
            Cause::Lease => "on-lost = \"reboot\"",
        };
        let words = format!("{why}: this machine is reset now, with all that runs on it ({by})");
        self.say(Saying::new(What::FenceSelf, words).group(name).epoch(own));
        self.beat.now = true;
        self.touch_all();
    }

    /// A stop that is not verified when its budget is over counts as failed, where others may
    /// reckon with that.
    pub(super) fn judge_stops(&mut self, now: Instant) {
        let late = |(_, g): &(&GroupName, &Group)| overdue(g).is_some_and(|at| now >= at);
        let mut late = self.groups.iter().filter(late).map(|(name, _)| name);
        let name = late.find(|name| self.may_escalate(now, name)).cloned();
        let Some(name) = name else { return };
        let budget = self.groups[&name].policy.stop_budget.as_secs_f64();
        let why = format!("no stop within {budget} s (StopBudget=)");
        self.begin_reset(now, &name, Cause::Stop, &why);
    }

    /// The reset itself, once everybody who is heard has heard of it, or two keepalives have
    /// passed; without a lease or a majority at once, for then others count on the time.
    pub(super) fn judge_reset(&mut self, now: Instant) {
        let Some(reset) = self.reset.clone().filter(|r| !r.ordered) else { return };
        let stopped = self.groups.get(&reset.group).is_none_or(|g| g.own.is_none());
        let waits = reset.cause == Cause::Stop;
        if stopped || waits && in_maintenance(&self.world(now), &reset.group) {
            let words = match stopped {
                true => "it has stopped after all",
                false => "it is in maintenance now, in which nothing is touched",
            };
            return self.no_reset(&reset.group, words);
        }
        let keepalive = self.policy.timing.keepalive;
        let world = self.world(now);
        let knows = |p| world.peer(p).sign().is_some_and(|sign| sign > reset.said);
        let told = world.others().filter(|p| world.heard(*p)).all(knows);
        let hurry = !waits || self.minority.sure;
        if told || hurry || now.since(reset.since) >= keepalive * 2 {
            let flush = if hurry { FLUSH.min(keepalive / 2) } else { FLUSH };
            self.reset = Some(Reset { ordered: true, ..reset.clone() });
            self.out.push(Action::Reset { group: reset.group, flush });
        }
    }

    /// It did not come about: what is stuck stays held.
    pub(super) fn reset_failed(&mut self, why: &str) {
        let Some(reset) = self.reset.clone() else { return };
        if let Some(group) = self.groups.get_mut(&reset.group) {
            group.unreset = true;
        }
        self.no_reset(&reset.group, &format!("{why}: it stays held here"));
    }

    fn no_reset(&mut self, name: &GroupName, why: &str) {
        self.reset = None;
        self.say(Saying::new(What::FenceSelfFailed, why).group(name));
        self.beat.now = true;
        self.touch_all();
    }

    /// When a stop is overdue, or a reset is.
    pub(super) fn escalation_due(&self, now: Instant) -> Option<Instant> {
        let stops = self.groups.values().filter_map(overdue);
        let keepalive = self.policy.timing.keepalive;
        let reset = self.reset.as_ref().filter(|r| !r.ordered).map(|r| r.since + keepalive * 2);
        stops.chain(reset).filter(|at| *at > now).min()
    }
}

fn overdue(group: &Group) -> Option<Instant> {
    let resets = group.policy.stop_failure == StopFailure::FenceSelf;
    let stopping = matches!(group.phase(), Phase::Stopping | Phase::Stuck) && resets;
    group.stopping.as_ref().filter(|_| stopping).map(|s| s.since + group.policy.stop_budget)
}
