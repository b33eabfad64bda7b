//! Everything a decision about a group may look at, at one moment: this node, its peers, the
//! settings. Made anew for each decision from the core; changes nothing.

use super::Terminate;
use super::bar::Bar;
use super::detector::Lived;
use super::fence::Fence;
use super::group::Group;
use super::heartbeat::{GroupWish, Held, NodeWishes, Register, Release, Unfit};
use super::name::{BootId, Epoch, GroupName, NodeId};
use super::peer::Peer;
use super::policy::{OnSilence, Policy};
use super::record::Record;
use super::renew::Arbiter;
use super::time::{Duration, Instant};
use super::view::Presence;
use std::collections::{BTreeMap, BTreeSet};

pub struct World<'a> {
    pub now: Instant,
    pub lived: Lived,
    pub me: NodeId,
    pub policy: &'a Policy,
    pub peers: &'a BTreeMap<NodeId, Peer>,
    pub groups: &'a BTreeMap<GroupName, Group>,
    pub fences: &'a BTreeMap<NodeId, Fence>,
    /// The life of this machine.
    pub boot: BootId,
    pub wishes: &'a NodeWishes,
    pub jeopardy: &'a BTreeSet<NodeId>,
    /// Why this node takes nothing at all just now.
    pub ill: Option<Unfit>,
    /// Own loop stalled: what was missed must be learned first.
    pub doubting: bool,
    /// Surely without a majority.
    pub minority: bool,
    pub initdead_over: bool,
    /// What this node knows, and what of it is on disk.
    pub record: &'a Record,
    pub durable: &'a Record,
    /// It is going away.
    pub going: Option<Terminate>,
    /// It is being stopped, and the peers had the time to hear of what it said before.
    pub parting: bool,
    pub arbiter: &'a Arbiter,
}

impl World<'_> {
    pub fn peer(&self, id: NodeId) -> &Peer {
        self.peers.get(&id).expect("a peer for every other configured node")
    }

    pub fn name(&self, id: NodeId) -> &str {
        self.policy.nodes.get(usize::from(id.0)).map(String::as_str).unwrap_or("?")
    }

    pub fn group(&self, name: &GroupName) -> &Group {
        self.groups.get(name).expect("decisions are made about known groups only")
    }

    pub fn others(&self) -> impl Iterator<Item = NodeId> {
        self.peers.keys().copied()
    }

    pub fn presence(&self, id: NodeId) -> Presence {
        if id == self.me {
            return Presence::This;
        }
        // A node that there is none of was never heard.
        let presence = |p: &Peer| p.presence(self.now, self.lived, &self.policy.timing);
        self.peers.get(&id).map_or(Presence::Unseen, presence)
    }

    /// By what is on disk: a daemon that starts anew must not have said more than it knows.
    pub fn spoken_settings(&self) -> u64 {
        self.durable.settings.get(&self.me).copied().unwrap_or(self.policy.fingerprint)
    }

    /// Somebody may live on a lease: by our settings, or by those of before, which somebody was
    /// last heard with.
    pub fn has_leases(&self) -> bool {
        self.policy.lease.is_some() || self.record.waits > Duration::ZERO
    }

    pub fn heard(&self, id: NodeId) -> bool {
        match self.presence(id) {
            Presence::This | Presence::Alive | Presence::Deaf | Presence::Late => true,
            Presence::Silent | Presence::Unseen => false,
        }
    }

    pub fn in_standby(&self, id: NodeId) -> bool {
        self.wishes.standby.get(usize::from(id.0)).is_some_and(|r| r.value)
    }

    pub fn wish(&self, group: &GroupName) -> Register<GroupWish> {
        self.record.groups.get(group).map(|r| r.wish).unwrap_or_default()
    }

    /// Reasons for which no silence of this peer counts, whatever the configuration accepts.
    pub fn no_silence(&self, id: NodeId) -> Option<String> {
        if self.doubting {
            return Some("this node stalled and must first hear its peers again".into());
        }
        if self.ill == Some(Unfit::Amnesiac) {
            return Some("this node has no state file, so silence proves nothing to it".into());
        }
        let hears = |q: &NodeId| *q != id && self.heard(*q) && self.peer(*q).hears(id);
        if let Some(q) = self.others().find(hears) {
            return Some(format!("{} still hears {}", self.name(q), self.name(id)));
        }
        self.quorum().filter(|q| !q.is_majority()).map(|q| q.words())
    }

    /// The jeopardy rule, for a peer that is silent now.
    pub fn disarmed_at(&self, id: NodeId) -> bool {
        let links = self.peer(id).links_at_silence(self.policy.timing.deadtime);
        self.policy.safety.last_link == OnSilence::Hold
            && self.policy.cables_to(id) >= 2
            && self.policy.cables_of(links) < 2
    }

    /// A node that is heard and holds, or may hold, the group.
    pub fn heard_holder(&self, group: &GroupName) -> Option<NodeId> {
        self.others().find(|p| {
            let report = self.peer(*p).reports.get(group);
            self.heard(*p) && report.is_some_and(|r| r.held == Held::Yes)
        })
    }

    /// A node that is heard and means another group by this name.
    pub fn other_group(&self, group: &GroupName) -> Option<NodeId> {
        let own = self.group(group).policy.fingerprint;
        self.others().find(|p| {
            let report = self.peer(*p).reports.get(group);
            self.heard(*p) && report.is_some_and(|r| r.fingerprint != own)
        })
    }

    /// The highest epoch that anybody ever told us.
    pub fn top_epoch(&self, group: &GroupName) -> Epoch {
        self.record.groups.get(group).map(|r| r.epoch).unwrap_or_default()
    }

    /// The node with the highest claim that is not yet an ownership: our own, or a heard one's.
    pub fn top_claim(&self, group: &GroupName) -> Option<NodeId> {
        let mine = self.group(group).claim.as_ref().map(|c| (c.epoch, self.me));
        let theirs = self.others().filter(|p| self.heard(*p)).filter_map(|p| {
            let report = self.peer(p).reports.get(group)?;
            Some((report.claim?.epoch, p))
        });
        theirs.chain(mine).max().map(|(_, node)| node)
    }

    /// Whom the last owner named and promised the highest epoch, as long as nobody went above it
    /// and that ownership is still to come: an epoch is used once.
    pub fn successor(&self, group: &GroupName) -> Option<NodeId> {
        let top = self.top_epoch(group);
        let own = self.record.groups.get(group).map(|r| (r.released, r.promise));
        let theirs = self.peers.values().filter_map(|p| p.reports.get(group));
        let all = own.into_iter().chain(theirs.map(|r| (r.released, r.promise)));
        let names_top = |(released, promise): &(Option<Release>, Option<Epoch>)| {
            *promise == Some(top) && released.is_some_and(|r| r.successor == Some(top.node))
        };
        let over = |(released, _): &(Option<Release>, Option<Epoch>)| {
            released.is_some_and(|r| r.epoch == top)
        };
        let named = all.clone().any(|r| names_top(&r));
        (named && !all.clone().any(|r| over(&r))).then_some(top.node)
    }

    /// Why this node may not take the group; `None`: it may.
    pub fn unfit(&self, name: &GroupName) -> Option<Unfit> {
        let group = self.group(name);
        let wish = self.wish(name).value;
        let seen = group.seen.as_ref();
        if group.retired || !group.policy.nodes.contains(&self.me) {
            Some(Unfit::NotListed)
        } else if self.ill.is_some() {
            self.ill
        } else if self.in_standby(self.me) {
            Some(Unfit::Standby)
        } else if self.wishes.maintenance.value || wish.maintenance {
            Some(Unfit::Maintenance)
        } else if group.quarantined(self.now) {
            Some(Unfit::Quarantined)
        } else if !group.strays.is_empty() && !group.adopting {
            Some(Unfit::Stray)
        } else if seen.is_none_or(|s| s.blind || s.unloaded.is_some()) {
            Some(Unfit::NotLoaded)
        } else if seen.is_some_and(|s| s.no_carrier.is_some()) {
            Some(Unfit::NoCarrier)
        } else {
            None
        }
    }

    /// Why that node may not take the group, as far as we know; `None`: it may.
    pub fn unfit_at(&self, name: &GroupName, node: NodeId) -> Option<Bar> {
        if node == self.me {
            return self.unfit(name).map(Bar::Unfit);
        }
        match self.presence(node) {
            Presence::This | Presence::Alive => {}
            Presence::Late if self.peer(node).hears_us() => {}
            Presence::Late | Presence::Deaf => return Some(Bar::Deaf),
            Presence::Silent => return Some(Bar::Silent),
            Presence::Unseen => return Some(Bar::Unseen),
        }
        let Some(report) = self.peer(node).reports.get(name) else {
            return Some(Bar::Unknown);
        };
        if report.fingerprint != self.group(name).policy.fingerprint {
            return Some(Bar::Differs);
        }
        if self.in_standby(node) {
            return Some(Bar::Unfit(Unfit::Standby));
        }
        let mood = self.peer(node).mood;
        if mood.leaving || mood.shutting_down {
            return Some(Bar::Unfit(Unfit::Leaving));
        }
        report.unfit.map(Bar::Unfit)
    }

    /// The node that should run the group now, seen from here: the one the last owner named, or an
    /// operator did and the owner's daemon died before it could; else the first fit one in the
    /// group's list.
    pub fn choice(&self, name: &GroupName) -> Option<NodeId> {
        let wish = self.wish(name).value;
        if wish.down {
            return None;
        }
        let fit = |n: &NodeId| self.unfit_at(name, *n).is_none();
        // Until somebody else than the wanted node has gone above the epoch that was to end.
        let top = self.top_epoch(name);
        let next = |to: NodeId, of: Epoch| top.node == to && top.counter == of.counter + 1;
        let wanted = wish.move_to.filter(|(to, of)| *of == top || next(*to, *of)).map(|w| w.0);
        let named = self.successor(name).or(wanted).filter(fit);
        named.or_else(|| self.group(name).policy.nodes.iter().copied().find(fit))
    }

    /// The best other node to give the group to.
    pub fn heir(&self, name: &GroupName) -> Option<NodeId> {
        let nodes = self.group(name).policy.nodes.iter().copied();
        nodes.filter(|n| *n != self.me).find(|n| self.unfit_at(name, *n).is_none())
    }

    pub fn silence_of(&self, id: NodeId) -> Option<Duration> {
        self.peer(id).silent_for(self.lived)
    }
}
