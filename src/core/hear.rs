//! What a heartbeat and its absence change: peers, links, wishes, epochs.

use super::heartbeat::{Heartbeat, Held, Phase, Unfit};
use super::name::{LinkId, NodeId};
use super::record::UNHEARD;
use super::say::{Saying, What};
use super::time::{Duration, Instant};
use super::view::Presence;
use super::{Action, Core};

/// How many heartbeats a change rides in at least, the one sent at once among them.
pub const HOT_BEATS: u8 = 6;

impl Core {
    pub(super) fn heard(&mut self, now: Instant, link: LinkId, beat: &Heartbeat) {
        let lived = self.lived(now);
        let us = (self.policy.me, self.session);
        let Some(peer) = self.peers.get_mut(&beat.from) else { return };
        let before = peer.presence(now, lived, &self.policy.timing);
        let news = peer.hear(now, lived, link, us, beat, &self.policy.timing);
        if news.answer || news.new_session {
            self.beat.now = true;
        }
        if let Some(rival) = peer.rival.as_mut().filter(|_| news.refused) {
            // All that we had said has a lower stamp, also where our clock stood still.
            rival.last = rival.last.max(self.beat.stamp);
        }
        if news.challenge || news.refused || news.stale {
            return;
        }
        let after = peer.presence(now, lived, &self.policy.timing);
        if news.double {
            let words = "two daemons at once send under its name, and only the one heard first \
                         is listened to: stop hafailover on the machine that should not";
            self.say(Saying::new(What::PeerDouble, words).peer(beat.from));
        }
        self.judge_redundancy(now, beat.from);
        if before != after || news.new_session {
            self.touch_all();
        }
        self.learn_wishes(beat);
        self.learn_epochs(beat);
        self.learn_lasting(beat.from);
        self.learn_settings(beat.from);
        self.count_vouchers(beat);
        self.touched.extend(news.changed);
        self.compare_texts(beat);
        let differs = beat.fingerprint != self.policy.fingerprint;
        let told = &mut self.peers.get_mut(&beat.from).expect("heard above").told;
        if differs != told.differs {
            told.differs = differs;
            if differs {
                let words = "its hafailover.toml says something else: make the files equal and \
                             run systemctl reload hafailover";
                self.say(Saying::new(What::PeerDiffers, words).peer(beat.from));
            }
        }
    }

    /// After a change of our own it counts once it has heard of that: what it does by it, it says
    /// from then on.
    fn learn_settings(&mut self, from: NodeId) {
        let (peer, ours) = (&self.peers[&from], self.policy.fingerprint);
        let said = self.beat.settings.filter(|(said, _)| *said == ours);
        let told = said.is_some_and(|(_, since)| peer.sign() >= Some(since));
        let theirs = &mut self.store.record.settings;
        if !told && theirs.get(&from) == Some(&UNHEARD) {
            return;
        }
        theirs.insert(from, peer.fingerprint);
        if self.policy.lease.is_none() && self.peers.keys().all(|p| theirs.get(p) == Some(&ours)) {
            self.store.record.waits = Duration::ZERO;
        }
    }

    /// Files of members that differ bar nothing: an upgrade goes from node to node. Told once.
    fn compare_texts(&mut self, beat: &Heartbeat) {
        let told = &mut self.peers.get_mut(&beat.from).expect("heard before").told.texts;
        let mut sayings = Vec::new();
        for report in &beat.groups {
            let Some(group) = self.groups.get(&report.name) else { continue };
            let (name, other) = (&report.name, group.other_texts(report));
            if other && told.insert(name.clone()) {
                let words = format!(
                    "the files of its members say something else there: if no upgrade is under \
                     way, compare on both nodes: systemctl cat {} and its members",
                    name.unit()
                );
                sayings.push(Saying::new(What::MembersDiffer, words).group(name));
            } else if !other && told.remove(name) {
                let words = "the files of its members say the same again";
                sayings.push(Saying::new(What::MembersAgree, words).group(name));
            }
        }
        sayings.into_iter().for_each(|saying| self.say(saying.peer(beat.from)));
    }

    /// A wish is a register: the highest version wins everywhere.
    fn learn_wishes(&mut self, beat: &Heartbeat) {
        let wishes = &mut self.store.record.wishes;
        let mut news = wishes.maintenance.merge(&beat.wishes.maintenance);
        for (mine, theirs) in wishes.standby.iter_mut().zip(&beat.wishes.standby) {
            news |= mine.merge(theirs);
        }
        if news {
            self.touch_all();
        }
        for report in &beat.groups {
            if !self.groups.contains_key(&report.name) {
                continue;
            }
            let record = self.store.record.groups.entry(report.name.clone()).or_default();
            let old = record.wish.value;
            if record.wish.merge(&report.wish) {
                let new = record.wish.value;
                if !new.down && new.move_to.is_none() && new.maintenance == old.maintenance {
                    self.lift_quarantine(&report.name.clone(), "cleared by operator");
                }
                self.touched.insert(report.name.clone());
            }
        }
    }

    /// The highest epoch anybody speaks of; an old state file is so found out and mended.
    fn learn_epochs(&mut self, beat: &Heartbeat) {
        for report in beat.groups.iter().filter(|r| self.groups.contains_key(&r.name)) {
            if self.store.record.learn(self.policy.me, report) {
                self.touched.insert(report.name.clone());
            }
        }
    }

    /// What of a peer's would run on though its lease is over.
    fn learn_lasting(&mut self, from: NodeId) {
        if self.policy.lease.is_none() {
            return;
        }
        let (peer, record) = (&self.peers[&from], &mut self.store.record);
        for name in self.groups.keys() {
            let Some(report) = peer.reports.get(name) else { continue };
            let kept = peer.maintenance || report.wish.value.maintenance;
            // Whoever has said that it resets itself does not go on with what is stuck.
            let stuck = report.phase == Phase::Stuck && !peer.mood.resetting;
            let lasts = kept || stuck || report.unfit == Some(Unfit::Stray);
            let who = record.lasting.entry(name.clone()).or_default();
            match lasts && report.held != Held::No {
                true => who.insert(from),
                false => who.remove(&from),
            };
        }
        record.lasting.retain(|_, who| !who.is_empty());
    }

    /// Presence by time: tells every change once, and lets every group look again.
    pub(super) fn judge_peers(&mut self, now: Instant) {
        let lived = self.lived(now);
        let ids: Vec<NodeId> = self.peers.keys().copied().collect();
        for id in ids {
            self.judge_links(now, id);
            let peer = self.peers.get_mut(&id).expect("ids are its keys");
            let presence = peer.presence(now, lived, &self.policy.timing);
            let going = peer.mood.leaving || peer.mood.restarting.is_some();
            let gap = peer.silent_for(lived).unwrap_or_default().as_secs_f64();
            let told = peer.told.presence.replace(presence);
            let was_alive = peer.told.alive;
            if presence != Presence::Late {
                peer.told.alive = presence == Presence::Alive;
            }
            let resets = peer.mood.resetting && presence != Presence::Silent;
            let told_resets = std::mem::replace(&mut peer.told.resets, resets);
            let lost = peer.mood.guarding && presence != Presence::Silent;
            let told_going = std::mem::replace(&mut peer.told.going, going);
            let told_lost = std::mem::replace(&mut peer.told.lost, lost);
            if resets && !told_resets {
                let words = "a stop failed there, and it resets itself";
                self.say(Saying::new(What::PeerResets, words).peer(id));
            }
            if lost && !told_lost {
                let words = "its guard stops its groups and says when; on that node journalctl -u \
                             hafailover says why, and systemctl start hafailover brings it back";
                self.say(Saying::new(What::PeerLost, words).peer(id));
            } else if going && !told_going && !lost {
                let words = match self.peers[&id].mood.restarting {
                    Some(_) => "its daemon restarts; its groups run on",
                    None => "its daemon leaves; it gives its groups away",
                };
                self.say(Saying::new(What::PeerLeaving, words).peer(id));
            }
            if told == Some(presence) || (told.is_none() && presence == Presence::Unseen) {
                continue;
            }
            self.touch_all();
            // Others wait for us to say that we no longer hear it.
            self.beat.now |= presence == Presence::Silent;
            let saying = match presence {
                Presence::Alive if told == Some(Presence::Late) && was_alive => continue,
                Presence::Alive => Saying::new(What::PeerAlive, "it is heard and hears this node"),
                Presence::Deaf => Saying::new(
                    What::PeerDeaf,
                    "it is heard but does not hear this node: look at the cables and the \
                     firewall from here to it",
                ),
                Presence::Late if told != Some(Presence::Alive) => continue,
                Presence::Late => {
                    Saying::new(What::PeerLate, format!("nothing heard for {gap:.2} s"))
                }
                Presence::Silent => {
                    Saying::new(What::PeerSilent, format!("nothing heard for {gap:.2} s"))
                }
                Presence::Unseen | Presence::This => continue,
            };
            self.say(saying.peer(id));
        }
    }

    /// One link towards one peer: up when the peer was heard on it within `deadtime`. One on which
    /// it was never heard is down once it had its time: `deadtime` while the peer is heard on
    /// another, else `initdead`.
    fn judge_links(&mut self, now: Instant, id: NodeId) {
        let (lived, deadtime) = (self.lived(now), self.policy.timing.deadtime);
        let over = self.initdead_over(now);
        for n in 0..self.links.len() {
            let link = LinkId(n as u8);
            if !self.policy.joins(link, id) {
                continue;
            }
            let peer = self.peers.get_mut(&id).expect("called for known peers");
            let heard = peer.heard_on(link);
            let had_time = match peer.session() {
                Some(_) => peer.heard_for(now) >= deadtime,
                None => over,
            };
            let up = heard.is_some_and(|last| lived.since(last) < deadtime);
            let known = heard.is_some() || peer.told.links.contains_key(&link);
            if (heard.is_none() && !had_time) || peer.told.links.insert(link, up) == Some(up) {
                continue;
            }
            let mut saying = match up {
                true => Saying::new(What::LinkUp, "heartbeats come in on it"),
                false => Saying::new(What::LinkDown, self.link_words(n, known)),
            };
            saying.link = Some(link);
            self.say(saying.peer(id));
        }
    }

    fn link_words(&self, n: usize, known: bool) -> String {
        let own = &self.links[n];
        let deadtime = self.policy.timing.deadtime.as_secs_f64();
        match (own.usable, known) {
            (false, _) => format!("{} for {deadtime:.1} s", own.why),
            (true, true) => format!("no heartbeat came in on it for {deadtime:.1} s"),
            (true, false) => "no heartbeat ever came in on it since this daemon started: look at \
                              its cable, its settings on both nodes, and the firewall"
                .into(),
        }
    }

    /// Redundancy is judged when a peer is heard, so that its death, which silences all links
    /// nearly at once, is not taken for the loss of one of them.
    fn judge_redundancy(&mut self, now: Instant, id: NodeId) {
        if self.policy.cables_to(id) < 2 {
            return;
        }
        let (lived, deadtime) = (self.lived(now), self.policy.timing.deadtime);
        let peer = self.peers.get_mut(&id).expect("called for known peers");
        let up = peer.links_up(lived, deadtime);
        let redundant = self.policy.cables_of(up) >= 2;
        // Its links come up one after the other, and go down within one deadtime when it dies.
        let young = peer.heard_for(now) < deadtime;
        if peer.told.redundant == Some(redundant) || (young && !redundant) {
            return;
        }
        let first = peer.told.redundant.replace(redundant).is_none();
        if redundant {
            self.store.record.jeopardy.remove(&id);
            if !first {
                let words = "two or more links work again: a takeover is possible";
                self.say(Saying::new(What::RedundancyBack, words).peer(id));
            }
        } else {
            self.store.record.jeopardy.insert(id);
            let left = (0..16).map(LinkId).find(|l| up.contains(*l));
            let name = left.and_then(|l| self.policy.links.get(usize::from(l.0)));
            let words = format!(
                "only {} is left: {}",
                name.map_or("one link", String::as_str),
                match self.policy.safety.last_link {
                    super::policy::OnSilence::Hold =>
                        "failover is disarmed until another link works",
                    super::policy::OnSilence::Takeover =>
                        "its loss will be taken for the peer's death (last-link = \"takeover\")",
                }
            );
            self.say(Saying::new(What::RedundancyLost, words).peer(id));
        }
        self.touch_all();
    }

    /// Two nodes have the group and this one stays: tell it, and announce the addresses, now and
    /// when the other has let go. What came late, on a line that kept it, may be of a dead node.
    pub(super) fn watch_other_holders(&mut self, now: Instant, name: &super::GroupName) {
        let world = self.world(now);
        let own = world.group(name).own;
        let lesser = |p: &NodeId| {
            let claim = world.peer(*p).reports.get(name).and_then(|r| r.claim);
            claim.is_none_or(|c| Some(c.epoch) < own)
        };
        let told = world.group(name).told_other;
        let of_now = |p: &NodeId| told == Some(*p) || !world.peer(*p).is_late();
        let holder = world.heard_holder(name).filter(lesser).filter(of_now);
        let group = self.group_mut(name);
        if group.phase() != Phase::Running || holder == group.told_other {
            return;
        }
        group.told_other = holder;
        self.out.push(Action::Announce { group: name.clone() });
        if let Some(peer) = holder {
            let words = "both nodes hold it; the higher epoch, this one, keeps it";
            let mut saying = Saying::new(What::TwoOwners, words).group(name).peer(peer);
            saying.epoch = own;
            self.say(saying);
        }
    }
}
