//! What an ownership lives on, and when it must end: leases and vouchers as a decision sees them.

use super::heartbeat::{Held, Unfit};
use super::name::{Epoch, GroupName, NodeId};
use super::time::Instant;
use super::view::Presence;
use super::world::World;

impl World<'_> {
    /// Until when this node may go on as the owner by this epoch.
    pub fn lasts(&self, name: &GroupName, epoch: Epoch) -> Option<Instant> {
        self.group(name).lease.lasts(epoch, self.others())
    }

    /// When an owner has to begin to stop, so that it is done in time; at once if it has nothing
    /// to live on. `None`: there is no arbiter, or nobody takes it from here in this maintenance.
    pub fn stop_at(&self, name: &GroupName) -> Option<Instant> {
        self.policy.lease.as_ref()?;
        let group = self.group(name);
        let lasts = self.lasts(name, group.own?).unwrap_or_default();
        (!self.is_cared_for(name)).then(|| lasts - group.policy.stop_budget)
    }

    /// When a group that is still held here may be started elsewhere: its stop had its time and was
    /// not verified, or it was not even begun in the time that a daemon may need to come back.
    pub fn overruns_at(&self, name: &GroupName) -> Option<Instant> {
        let times = self.policy.lease.as_ref()?;
        let group = self.group(name);
        let lasts = self.lasts(name, group.own?)?;
        let ended = |since: Instant| lasts.max(since + group.policy.stop_budget);
        let elsewhere = lasts + times.most.saturating_sub(times.lease);
        let ended = group.stopping.as_ref().map_or(elsewhere, |s| ended(s.since));
        (!group.lease.overran && !self.is_cared_for(name)).then(|| ended.min(elsewhere))
    }

    pub fn overruns(&self, name: &GroupName) -> bool {
        self.group(name).held() == Held::Yes
            && self.overruns_at(name).is_some_and(|at| self.now >= at)
    }

    /// Whether an owner by this epoch could go on for long enough to start it; always without an
    /// arbiter.
    pub fn may_live(&self, name: &GroupName, epoch: Epoch) -> bool {
        let budget = self.group(name).policy.stop_budget;
        let lasts = || self.lasts(name, epoch);
        self.policy.lease.is_none() || lasts().is_some_and(|until| self.now + budget < until)
    }

    /// What this node says of it, as it stands on disk.
    pub fn says_maintenance(&self, name: &GroupName) -> bool {
        let wish = self.durable.groups.get(name).map(|r| r.wish.value).unwrap_or_default();
        self.durable.wishes.maintenance.value || wish.maintenance
    }

    /// What that node said of it when it was last heard.
    pub fn said_maintenance(&self, name: &GroupName, peer: NodeId) -> bool {
        let peer = self.peer(peer);
        peer.maintenance || peer.reports.get(name).is_some_and(|r| r.wish.value.maintenance)
    }

    /// In maintenance a lost lease stops nothing, if every peer knows of the maintenance: it has
    /// heard it from here, and takes nothing that was so when it last heard us.
    pub fn is_cared_for(&self, name: &GroupName) -> bool {
        let knows = |p: NodeId| self.knows_maintenance(name, p);
        self.says_maintenance(name) && self.others().all(knows)
    }

    fn knows_maintenance(&self, name: &GroupName, peer: NodeId) -> bool {
        let since = self.group(name).lease.cared;
        let heard = since.is_some() && self.peer(peer).sign() >= since;
        heard && self.said_maintenance(name, peer)
    }

    /// Why an owner in maintenance that is being stopped gives the group away: when its lease is
    /// over somebody may start it, and nobody would be left here to stop it.
    pub fn parts_with(&self, name: &GroupName) -> Option<String> {
        self.stop_at(name).filter(|_| self.parting)?;
        let deaf = self.others().filter(|p| !self.knows_maintenance(name, *p));
        let deaf: Vec<&str> = deaf.map(|p| self.name(p)).collect();
        Some(format!(
            "this daemon is being stopped, and the maintenance has not reached {}, where it may \
             be started when the lease is over",
            deaf.join(", ")
        ))
    }

    /// What an owner or a claimer lacks to live on.
    pub fn unleased(&self, name: &GroupName, epoch: Epoch) -> String {
        let lease = &self.group(name).lease;
        let arbiter = match (&self.arbiter.lost, &lease.trouble) {
            (Some(why), _) => format!("the arbiter does not answer ({why})"),
            (None, Some(why)) => format!("the arbiter has not granted its lease ({why})"),
            (None, None) => "the arbiter has not granted its lease".into(),
        };
        let vouches = |p: &NodeId| lease.voucher_of(*p, epoch).is_some_and(|at| self.now < at);
        let mute = self.others().filter(|p| !vouches(p)).map(|p| self.name(p));
        let mute: Vec<&str> = mute.collect();
        match mute.is_empty() {
            true => format!("{arbiter}, and what the peers vouched for ends"),
            false => format!("{arbiter}, and {} does not vouch for it", mute.join(", ")),
        }
    }

    /// On what an ownership here lives, for `explain`.
    pub fn lease_words(&self, name: &GroupName) -> Option<String> {
        self.policy.lease.as_ref()?;
        let group = self.group(name);
        let left = |at: Instant| format!("{:.1} s", at.since(self.now).as_secs_f64());
        let current = group.own.or(group.claim.as_ref().map(|c| c.epoch));
        let Some(epoch) = current else {
            let free = self.free_at(name).filter(|at| *at > self.now)?;
            return Some(format!("others may live on this node's voucher: {}", left(free)));
        };
        let granted = group.lease.granted_until(epoch).filter(|at| *at > self.now);
        let mut words = vec![match (granted, &group.lease.trouble) {
            (Some(at), _) => format!("lease from the arbiter: {}", left(at)),
            (None, Some(why)) => format!("no lease from the arbiter ({why})"),
            (None, None) => "no lease from the arbiter".into(),
        }];
        for peer in self.others() {
            let at = group.lease.voucher_of(peer, epoch).filter(|at| *at > self.now);
            words.push(match at {
                Some(at) => format!("voucher of {}: {}", self.name(peer), left(at)),
                None => format!("no voucher of {}", self.name(peer)),
            });
        }
        Some(words.join("; "))
    }

    /// From when on this node may take the group on an expired lease: whoever lived on its voucher
    /// has stopped by then, or was reset.
    pub fn free_at(&self, name: &GroupName) -> Option<Instant> {
        self.policy.lease.as_ref()?;
        let vouched = self.group(name).lease.waits.unwrap_or_default();
        Some(vouched.max(self.arbiter.waits))
    }

    /// The epoch of another node that this one vouches for: that node is heard, hears us, and owns
    /// the group or has our promise.
    pub fn voucher(&self, name: &GroupName) -> Option<Epoch> {
        self.policy.lease.as_ref()?;
        let group = self.group(name);
        let idle = group.held() == Held::No && group.claim.is_none();
        let waits = self.policy.lease.as_ref().is_some_and(|l| self.durable.waits >= l.wait);
        // A node that goes away, or cannot write, still knows that it does not run the group.
        let sound = matches!(self.ill, None | Some(Unfit::Leaving | Unfit::NoState));
        // Who counts it goes by what was said of our settings.
        let spoken = self.spoken_settings() == self.policy.fingerprint;
        if !idle || self.doubting || !sound || !waits || !spoken {
            return None;
        }
        let promised = self.durable.groups.get(name).and_then(|r| r.promise);
        let owns = |p: NodeId| {
            let report = self.peer(p).reports.get(name)?;
            let epoch = report.claim?.epoch;
            let right = report.held == Held::Yes || promised == Some(epoch);
            (right && epoch.node == p).then_some(epoch)
        };
        let alive = |p: &NodeId| self.presence(*p) == Presence::Alive;
        self.others().filter(alive).filter_map(owns).max()
    }
}
