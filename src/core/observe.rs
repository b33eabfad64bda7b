//! What was seen of a group's members: the first look after a start of the daemon, failures,
//! strays, lost tokens, and what people do with systemctl.

use super::event::{Hand, Observation};
use super::heartbeat::Phase;
use super::name::GroupName;
use super::ownership;
use super::say::{Saying, What};
use super::time::Instant;
use super::{Action, Core};

impl Core {
    pub(super) fn observed(&mut self, now: Instant, name: &GroupName, seen: Observation) {
        let Some(group) = self.groups.get_mut(name) else { return };
        self.touched.insert(name.clone());
        if seen.blind {
            // Nothing may be concluded; what was known stays known.
            match &mut group.seen {
                Some(old) => old.blind = true,
                None => group.seen = Some(seen),
            }
            return;
        }
        group.see(now, seen);
        let phase = group.phase();
        self.tell_carrier(name);
        match phase {
            Phase::Unknown => self.classify(now, name),
            Phase::Stopped => self.look_for_strays(name),
            Phase::Running => self.look_at_running(name),
            Phase::Starting | Phase::Stopping | Phase::Stuck => {}
        }
    }

    /// The first look: adopt what runs by our token, go on with a stop that the last daemon began,
    /// and leave alone what runs without a token.
    fn classify(&mut self, now: Instant, name: &GroupName) {
        let me = self.policy.me;
        let group = self.group_mut(name);
        let traces = group.traces();
        let seen = group.seen.as_ref();
        let (token, closed) = seen.map(|s| (s.token, s.closed)).unwrap_or_default();
        let Some(epoch) = token.or(closed) else {
            self.go(name, Phase::Stopped, "no member runs here by a token");
            return self.look_for_strays(name);
        };
        group.own = Some(epoch);
        group.proof = group.seen.as_ref().and_then(|s| s.proof.clone());
        let lasts = group.seen.as_ref().and_then(|s| s.lasts);
        if let Some(times) = &self.policy.lease {
            // Without a note it was started by settings without an arbiter: the peers, who have
            // them too, wait longer than one lease. They wait no longer either if these say less
            // than those by which it was granted.
            let until = lasts.map_or(now + times.lease, |until| until.min(now + times.lease));
            self.groups.get_mut(name).expect("looked at above").lease.keep(epoch, until);
        }
        let record = self.store.record.groups.entry(name.clone()).or_default();
        record.claim = Some(epoch);
        record.epoch = record.epoch.max(epoch);
        if token.is_none() {
            return self.stop_again(now, name);
        }
        // In maintenance somebody may have stopped the members: that ends no ownership.
        let kept = ownership::in_maintenance(&self.world(now), name);
        if (traces.is_empty() && !kept) || epoch.node != me {
            let reason = "found with a token but without a running member";
            return self.stop(now, name, reason, None);
        }
        self.go(name, Phase::Running, "found running by our token");
        let words = match traces.is_empty() {
            true => "found stopped in maintenance; no job was issued",
            false => "found running; no job was issued",
        };
        self.say(Saying::new(What::GroupAdopted, words).group(name).epoch(epoch));
        self.look_at_running(name);
    }

    /// The last daemon ended while it stopped the group, which is held until that is verified.
    fn stop_again(&mut self, now: Instant, name: &GroupName) {
        let words = "a stop of it was under way when the last daemon ended";
        if ownership::in_maintenance(&self.world(now), name) {
            self.go(name, Phase::Stopping, words);
            return self.stuck(now, name, format!("{words}, and it is in maintenance"), Vec::new());
        }
        self.stop(now, name, words, None);
    }

    fn look_for_strays(&mut self, name: &GroupName) {
        let group = self.group_mut(name);
        if group.job.is_some() {
            return;
        }
        let strays = group.traces();
        if strays == group.strays {
            return;
        }
        group.strays = strays.clone();
        let saying = if strays.is_empty() {
            Saying::new(What::StrayGone, "no member runs here any more")
        } else {
            let words = format!(
                "{} runs here though nobody started it for the cluster: hafailover clear {name} \
                 stops it, hafailover adopt {name} makes it the running group",
                strays.join(", ")
            );
            Saying::new(What::StrayFound, words)
        };
        self.say(saying.group(name));
        self.heat(name);
    }

    fn look_at_running(&mut self, name: &GroupName) {
        let group = self.group_mut(name);
        let (own, token) = (group.own, group.seen.as_ref().and_then(|s| s.token));
        if group.job.is_none()
            && token.is_none()
            && let Some(epoch) = own
        {
            let words = "the token of the running group was gone and is written again";
            self.say(Saying::new(What::TokenMissing, words).group(name).epoch(epoch));
            self.out.push(Action::Adopt { group: name.clone(), epoch });
        }
        let group = self.group_mut(name);
        let lacks = group.shortcoming();
        if lacks == group.degraded {
            return;
        }
        group.degraded = lacks.clone();
        let saying = match lacks {
            Some(words) => Saying::new(What::GroupDegraded, words),
            None => Saying::new(What::GroupWhole, "every member is active"),
        };
        self.say(saying.group(name));
    }

    fn tell_carrier(&mut self, name: &GroupName) {
        let group = self.group_mut(name);
        let lost = group.seen.as_ref().and_then(|s| s.no_carrier.clone());
        if group.told_carrier == lost.is_some() {
            return;
        }
        group.told_carrier = lost.is_some();
        let saying = match lost {
            Some(interface) => Saying::new(
                What::CarrierLost,
                format!("interface {interface}, which its address needs, has no carrier"),
            ),
            None => Saying::new(What::CarrierBack, "the interfaces of its addresses have carrier"),
        };
        self.say(saying.group(name));
    }

    /// Somebody used systemctl on a member or on the target.
    pub(super) fn by_hand(&mut self, name: &GroupName, unit: &str, verb: Hand) {
        let Some(group) = self.groups.get_mut(name) else { return };
        let (phase, is_target) = (group.phase(), unit == name.unit());
        self.touched.insert(name.clone());
        let words = match verb {
            Hand::StartTarget => format!("{unit} was started by hand"),
            Hand::StopTarget => format!("{unit} was stopped by hand"),
            Hand::StartMember => format!("{unit} was started by hand"),
            Hand::StopMember => format!("{unit} was stopped by hand"),
            Hand::RestartMember => format!("{unit} was restarted by hand"),
            Hand::Refused => format!("a start of {unit} was refused: the group is not held here"),
        };
        let what = if verb == Hand::Refused { What::StartRefused } else { What::ByHand };
        self.say(Saying::new(what, words).group(name));
        let running = matches!(phase, Phase::Running | Phase::Starting);
        let down = self.store.record.groups.get(name).is_some_and(|r| r.wish.value.down);
        if verb == Hand::StopTarget && running {
            self.wish(name, |wish| wish.down = true);
        }
        // The gate refuses systemctl's own start; the daemon does it, where it should run.
        let start = matches!(verb, Hand::Refused | Hand::StartTarget) && is_target;
        if start && down {
            self.wish(name, |wish| (wish.down, wish.move_to) = (false, None));
            self.lift_quarantine(name, "started by operator");
        }
    }

    /// Changes what people want of a group; the highest version wins on every node.
    pub(super) fn wish(
        &mut self,
        name: &GroupName,
        change: impl FnOnce(&mut super::heartbeat::GroupWish),
    ) {
        let me = self.policy.me;
        let record = self.store.record.groups.entry(name.clone()).or_default();
        let mut value = record.wish.value;
        change(&mut value);
        record.wish.set(me, value);
        self.heat(name);
        self.touched.insert(name.clone());
    }
}
