//! What we believe about one peer from all its links together. Learns from heartbeats; decides
//! nothing about groups.

use super::detector::Lived;
use super::heartbeat::{Echo, GroupReport, Heartbeat, Mood};
use super::name::{BootId, GroupName, LinkId, LinkSet, NodeId, Session};
use super::policy::Timing;
use super::time::{Duration, Instant};
use super::view::Presence;
use std::collections::{BTreeMap, BTreeSet};

/// systemd gives a daemon up that crashes five times within so long (StartLimitIntervalSec= of
/// hafailover.service); then its guard stops its groups.
const GIVES_UP: Duration = Duration::from_secs(60);

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Peer {
    /// The life of the peer that passed our challenge; `None`: never heard.
    session: Option<Session>,
    /// A life that was heard but has not yet shown that it hears us now.
    candidate: Option<Stamp>,
    /// When such a life was last answered at once.
    answered: Option<Instant>,
    /// The life of its machine in which the accepted one runs.
    boot: Option<BootId>,
    /// When the accepted life took the place of one that had not said that it goes.
    crashed: Option<Lived>,
    /// When the accepted life itself was heard.
    spoke: Option<Lived>,
    /// Another life that hears us; refused as long as the accepted one speaks.
    pub(super) rival: Option<Rival>,
    /// The newest stamp of the accepted session, to be echoed.
    newest: Option<Stamp>,
    /// The newest heartbeat was late: it was sent longer than `deadtime` ago, as far as it shows.
    late: bool,
    /// By link: when it was last heard there.
    heard: BTreeMap<LinkId, Lived>,
    /// Its silence counts from here at the earliest: we stalled, and missed what it said.
    forgiven: Lived,
    /// When it was first heard after it had not been heard for `deadtime`, or ever.
    since: Option<Instant>,
    /// The newest of our stamps that it echoed: its last sign of life on our clock.
    sign: Option<Instant>,
    /// The links on which it says it hears us.
    hears_us: LinkSet,
    /// The peers it says it hears.
    hears: Vec<NodeId>,
    pub mood: Mood,
    pub fingerprint: u64,
    /// The whole cluster is in maintenance, as it said last.
    pub maintenance: bool,
    pub reports: BTreeMap<GroupName, GroupReport>,
    /// Pages of its group table that were seen, and how many there are.
    pages: (u32, u8),
    /// A person said that it is down; void as soon as it is heard.
    pub confirmed_down: Option<String>,
    /// What was last said of it and of its links, so that only changes are told.
    pub told: Told,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Stamp {
    session: Session,
    stamp: Instant,
    arrived: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Rival {
    session: Session,
    since: Instant,
    pub(super) last: Instant,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Told {
    pub presence: Option<Presence>,
    /// The last presence but `Late` was `Alive`: a late heartbeat's end is not told.
    pub alive: bool,
    pub links: BTreeMap<LinkId, bool>,
    pub redundant: Option<bool>,
    pub differs: bool,
    /// Groups of which its members' files say something else.
    pub texts: BTreeSet<GroupName>,
    pub going: bool,
    pub lost: bool,
    pub resets: bool,
    pub double: Option<Session>,
}

/// What a heartbeat changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// The session is new and has not yet passed the challenge: nothing in it counts.
    pub challenge: bool,
    /// It is to be answered at once: it may be a restart, which is not to wait. Recordings come as
    /// fast as anybody likes, so this is said once a keepalive; then the next heartbeat answers.
    pub answer: bool,
    /// Overtaken, and perhaps old: nothing in it counts.
    pub stale: bool,
    /// A new session passed the challenge with this heartbeat.
    pub new_session: bool,
    /// Refused: the life accepted before still speaks.
    pub refused: bool,
    /// Two lives hear us at once.
    pub double: bool,
    /// Groups whose report changed.
    pub changed: Vec<GroupName>,
}

impl Peer {
    /// Takes in a heartbeat that `wire` found genuine and fresh.
    pub fn hear(
        &mut self,
        now: Instant,
        lived: Lived,
        link: LinkId,
        me: (NodeId, Session),
        beat: &Heartbeat,
        timing: &Timing,
    ) -> Heard {
        let mut heard = Heard::default();
        let echo = beat.echoes.iter().find(|e| e.peer == me.0 && e.session == me.1);
        let stamp = Stamp { session: beat.session, stamp: beat.stamp, arrived: now };
        if self.session != Some(beat.session) {
            // Newer than all that it echoed before: a frame of an earlier life, come late, or a
            // recording of one, echoes an old stamp.
            if echo.is_none_or(|e| self.sign.is_some_and(|sign| e.stamp <= sign)) {
                self.candidate = Some(stamp);
                let answer = self.answered.is_none_or(|at| now.since(at) >= timing.keepalive);
                self.answered = if answer { Some(now) } else { self.answered };
                return Heard { challenge: true, answer, ..heard };
            }
            if self.speaks(lived, timing) {
                // Its node lives, whichever of the two it is.
                self.heard.insert(link, lived);
                self.candidate = Some(stamp);
                let known = self.rival.filter(|r| r.session == beat.session);
                let since = known.map_or(now, |r| r.since);
                self.rival = Some(Rival { session: beat.session, since, last: now });
                return Heard { refused: true, ..heard };
            }
            heard.new_session = true;
            let crashed = (self.boot == Some(beat.boot) && !self.is_going()).then_some(lived);
            *self = Peer {
                session: Some(beat.session),
                told: std::mem::take(&mut self.told),
                boot: Some(beat.boot),
                crashed,
                ..Peer::default()
            };
        }
        // A frame that was overtaken and cannot show that it is of now is no sign of life: it may
        // have waited in a buffer, or be a recording of one that never came.
        let newest = self.newest.is_none_or(|n| n.stamp < beat.stamp);
        if !newest && !echo.is_some_and(|e| timely(now, e, timing.deadtime)) {
            return Heard { stale: true, ..heard };
        }
        self.confirmed_down = None;
        if self.silent_for(lived).is_none_or(|silent| silent >= timing.deadtime) {
            self.since = Some(now);
        }
        self.heard.insert(link, lived);
        self.spoke = Some(lived);
        if let (Some(rival), Some(echo)) = (self.rival, echo) {
            // It has heard what we said after the other one had heard us.
            let id = rival.session;
            heard.double = echo.stamp > rival.since && self.told.double.replace(id) != Some(id);
        }
        if newest {
            self.newest = Some(stamp);
            self.late = echo.is_some_and(|e| !timely(now, e, timing.deadtime));
            self.learn(me, beat, &mut heard);
        }
        if let Some(echo) = echo {
            self.sign = self.sign.max(Some(echo.stamp));
        }
        heard
    }

    fn is_going(&self) -> bool {
        self.mood.leaving || self.mood.restarting.is_some()
    }

    /// Its daemon crashed so shortly before it fell silent that systemd may have given it up.
    pub fn may_be_lost(&self) -> bool {
        let last = self.heard.values().max();
        self.crashed.zip(last).is_some_and(|(at, last)| last.since(at) < GIVES_UP)
    }

    /// A new life of its node was heard after the accepted one, and was not yet believed: what it
    /// was about to do is not known. A frame of the accepted one that comes after it may only be
    /// late; but what we said since then only a life of now has heard.
    pub fn has_newer_life(&self) -> bool {
        self.rival.is_some_and(|rival| self.sign.is_none_or(|sign| sign <= rival.last))
    }

    /// Whether the accepted life is there and does not go: a new one has to wait. Shorter than
    /// any restart but a very quick one, and then as long as between two heartbeats.
    fn speaks(&self, lived: Lived, timing: &Timing) -> bool {
        let quiet = timing.keepalive * 3 / 2;
        !self.is_going() && self.spoke.is_some_and(|spoke| lived.since(spoke) < quiet)
    }

    /// Only from a heartbeat newer than all before it: an older one, come late over a slow link,
    /// must not bring back an old state.
    fn learn(&mut self, me: (NodeId, Session), beat: &Heartbeat, heard: &mut Heard) {
        self.mood = beat.mood;
        self.fingerprint = beat.fingerprint;
        self.maintenance = beat.wishes.maintenance.value;
        let hears = beat.echoes.iter().filter(|e| !e.links.is_empty());
        self.hears = hears.clone().map(|e| e.peer).collect();
        let us = hears.filter(|e| (e.peer, e.session) == me).map(|e| e.links).next();
        self.hears_us = us.unwrap_or_default();
        if self.pages.1 != beat.pages {
            self.pages = (0, beat.pages);
        }
        self.pages.0 |= 1u32.checked_shl(u32::from(beat.page)).unwrap_or(0);
        for report in &beat.groups {
            let old = self.reports.get(&report.name);
            if old.is_none_or(|old| !same(old, report)) {
                heard.changed.push(report.name.clone());
            }
            self.reports.insert(report.name.clone(), report.clone());
        }
    }

    pub fn presence(&self, now: Instant, lived: Lived, timing: &Timing) -> Presence {
        let Some(silent) = self.silent_for(lived) else { return Presence::Unseen };
        if silent >= timing.deadtime {
            return Presence::Silent;
        }
        if silent >= timing.warntime {
            return Presence::Late;
        }
        match self.is_fresh(now, timing) && !self.hears_us.is_empty() {
            true => Presence::Alive,
            // Its answer to our first heartbeats may still be on the way.
            false if self.heard_for(now) < timing.warntime => Presence::Late,
            false => Presence::Deaf,
        }
    }

    /// Whether it has answered what we said within the last `deadtime`, by the clock.
    pub fn is_fresh(&self, now: Instant, timing: &Timing) -> bool {
        self.sign.is_some_and(|sign| now.since(sign) < timing.deadtime)
    }

    /// How long it has been heard without a break of `deadtime`.
    pub fn heard_for(&self, now: Instant) -> Duration {
        self.since.map(|since| now.since(since)).unwrap_or_default()
    }

    /// How long nothing was heard on any link; `None`: never heard.
    pub fn silent_for(&self, lived: Lived) -> Option<Duration> {
        self.last_heard().map(|last| lived.since(last))
    }

    pub fn last_heard(&self) -> Option<Lived> {
        self.heard.values().max().map(|last| self.forgiven.max(*last))
    }

    pub fn heard_on(&self, link: LinkId) -> Option<Lived> {
        self.heard.get(&link).copied()
    }

    /// Links that were up when the silence began: heard within one `deadtime` of the last one.
    pub fn links_at_silence(&self, deadtime: Duration) -> LinkSet {
        let mut links = LinkSet::default();
        let last = self.heard.values().max();
        let up = |at: &Lived| last.is_some_and(|last| last.since(*at) < deadtime);
        self.heard.iter().filter(|(_, at)| up(at)).for_each(|(link, _)| links.insert(*link));
        links
    }

    pub fn links_up(&self, lived: Lived, deadtime: Duration) -> LinkSet {
        let mut up = LinkSet::default();
        for (link, last) in &self.heard {
            if lived.since(*last) < deadtime {
                up.insert(*link);
            }
        }
        up
    }

    /// After a stall nothing that was missed counts as silence; which links worked before it does
    /// not change by that.
    pub fn forgive(&mut self, lived: Lived) {
        self.forgiven = lived;
    }

    /// Whether its whole group table was seen in this session.
    pub fn reported(&self) -> bool {
        let all = 1u32.checked_shl(u32::from(self.pages.1)).map_or(u32::MAX, |b| b - 1);
        self.session.is_some() && self.pages.1 > 0 && self.pages.0 & all == all
    }

    /// What it said last is old by now. It is heard, to be safe, and may be dead nevertheless.
    pub fn is_late(&self) -> bool {
        self.late
    }

    pub fn hears_us(&self) -> bool {
        !self.hears_us.is_empty()
    }

    pub fn hears_us_on(&self, link: LinkId) -> bool {
        self.hears_us.contains(link)
    }

    pub fn hears(&self, other: NodeId) -> bool {
        self.hears.contains(&other)
    }

    pub fn session(&self) -> Option<Session> {
        self.session
    }

    /// The life of its machine in which its accepted life runs.
    pub fn boot(&self) -> Option<BootId> {
        self.boot
    }

    pub fn sign(&self) -> Option<Instant> {
        self.sign
    }

    /// When the newest heartbeat of the accepted life arrived.
    pub fn arrived(&self) -> Option<Instant> {
        self.newest.map(|n| n.arrived)
    }

    /// What we answer to it: the newest stamp of the life it leads, and of one that has yet to
    /// prove itself. Both, so that a recording of an old life cannot silence our answers.
    pub fn echoes(&self, peer: NodeId, now: Instant, up: LinkSet) -> Vec<Echo> {
        let echo = |stamp: &Stamp, links| Echo {
            peer,
            session: stamp.session,
            stamp: stamp.stamp,
            age: now.since(stamp.arrived),
            links,
        };
        let newest = self.newest.iter().map(|s| echo(s, up));
        newest.chain(self.candidate.iter().map(|s| echo(s, LinkSet(0)))).collect()
    }
}

/// Whether the frame with this echo was sent within the last `deadtime`: it has been under way for
/// no longer than we have waited for this echo, less what the stamp lay at the peer, whose clock
/// may differ from ours by some percent.
fn timely(now: Instant, echo: &Echo, deadtime: Duration) -> bool {
    now.since(echo.stamp).saturating_sub(echo.age) < deadtime + echo.age / 25
}

/// Equal but for what runs down by itself.
fn same(a: &GroupReport, b: &GroupReport) -> bool {
    let still = |r: &GroupReport| GroupReport {
        quarantine: Duration::ZERO,
        claim: r.claim.map(|c| super::heartbeat::Claim {
            on_silence: c.on_silence.map(|_| Duration::ZERO),
            ..c
        }),
        ..r.clone()
    };
    still(a) == still(b)
}

#[cfg(test)]
mod tests {
    use super::super::heartbeat::NodeWishes;
    use super::*;

    const TIMING: Timing = Timing {
        keepalive: Duration::from_nanos(4),
        warntime: Duration::from_nanos(50),
        deadtime: Duration::from_nanos(100),
        initdead: Duration::from_nanos(200),
        restart_bound: Duration::ZERO,
    };
    const US: (NodeId, Session) = (NodeId(0), Session(1));

    fn beat(session: u64, stamp: u64, echoed: Option<u64>) -> Heartbeat {
        let echo = |stamp| Echo {
            peer: US.0,
            session: US.1,
            stamp: Instant(stamp),
            age: Duration::ZERO,
            links: LinkSet(1),
        };
        Heartbeat {
            from: NodeId(1),
            session: Session(session),
            boot: Default::default(),
            seq: stamp,
            link: LinkId(0),
            stamp: Instant(stamp),
            mood: Mood::default(),
            fingerprint: 0,
            echoes: echoed.map(echo).into_iter().collect(),
            wishes: NodeWishes::default(),
            groups: Vec::new(),
            page: 0,
            pages: 1,
        }
    }

    /// Goal: a frame of an earlier life that was never accepted, come late over a slow line, does
    /// not take the place of the life that is heard now.
    #[test]
    fn a_late_frame_of_an_earlier_session_changes_nothing() {
        let mut peer = Peer::default();
        let mut hear = |now: u64, beat: &Heartbeat| {
            let lived = Lived::default().after(now);
            peer.hear(Instant(now), lived, LinkId(0), US, beat, &TIMING);
            peer.session()
        };
        assert_eq!(hear(10, &beat(7, 100, None)), None, "the challenge");
        assert_eq!(hear(20, &beat(7, 110, Some(15))), Some(Session(7)));
        assert_eq!(hear(30, &beat(6, 999, Some(5))), Some(Session(7)), "an older echo");
        assert_eq!(hear(40, &beat(8, 10, Some(35))), Some(Session(8)), "a restart");
    }

    /// Goal: a clone of a node does not take its place while the node itself is heard, and is
    /// noticed; a recording of the node's former lives is neither.
    #[test]
    fn of_two_lives_the_newer_is_refused_and_told_once() {
        let mut peer = Peer::default();
        let mut hear = |now: u64, beat: &Heartbeat| {
            let lived = Lived::default().after(now);
            let heard = peer.hear(Instant(now), lived, LinkId(0), US, beat, &TIMING);
            (peer.session().map(|s| s.0), heard.refused, heard.double)
        };
        hear(10, &beat(7, 100, Some(9)));
        assert_eq!(hear(11, &beat(5, 900, Some(2))), (Some(7), false, false), "a recording");
        assert_eq!(hear(12, &beat(7, 101, Some(11))), (Some(7), false, false));
        assert_eq!(hear(14, &beat(8, 20, Some(13))), (Some(7), true, false), "the clone");
        assert_eq!(hear(15, &beat(7, 102, Some(13))), (Some(7), false, false), "sent before");
        assert_eq!(hear(18, &beat(7, 103, Some(16))), (Some(7), false, true), "both hear us");
        assert_eq!(hear(19, &beat(8, 21, Some(17))), (Some(7), true, false));
        assert_eq!(hear(22, &beat(7, 104, Some(20))), (Some(7), false, false), "told already");
        assert_eq!(hear(30, &beat(8, 22, Some(28))), (Some(8), false, false), "alone now");
    }

    /// Goal: a frame of the old life that comes after one of the new, and may have been sent
    /// before it, does not hide that there is a new one.
    #[test]
    fn a_new_life_is_known_until_the_old_one_has_outlived_it() {
        let mut peer = Peer::default();
        let mut hear = |now: u64, beat: &Heartbeat| {
            let lived = Lived::default().after(now);
            peer.hear(Instant(now), lived, LinkId(0), US, beat, &TIMING);
            peer.has_newer_life()
        };
        assert!(!hear(10, &beat(7, 100, Some(9))));
        assert!(hear(12, &beat(8, 20, Some(11))), "the new life");
        assert!(hear(14, &beat(7, 101, Some(11))), "late");
        assert!(!hear(15, &beat(7, 102, Some(13))), "it has heard what was said since");
    }

    /// Goal: a frame that never came, recorded and sent again when its sender is dead, is no sign
    /// of life; one that is only slow, on a line that is always overtaken, is.
    #[test]
    fn an_overtaken_frame_counts_only_while_it_is_of_now() {
        let at = |now: u64| Lived::default().after(now);
        let second = TIMING.deadtime.as_nanos() as u64;
        let mut peer = Peer::default();
        let mut hear = |now: u64, link: u8, beat: &Heartbeat| {
            peer.hear(Instant(now), at(now), LinkId(link), US, beat, &TIMING).stale
        };
        assert!(!hear(second, 0, &beat(7, 100, Some(second - 10))));
        assert!(!hear(second + 50, 1, &beat(7, 90, Some(second - 20))), "slow");
        assert!(hear(3 * second, 1, &beat(7, 80, Some(second - 30))), "a recording");
        assert!(!hear(3 * second, 1, &beat(7, 110, Some(second - 30))), "newest of all");
        assert_eq!(peer.silent_for(at(3 * second)), Some(Duration::ZERO));
        assert!(peer.is_late(), "heard, and old");
        let at = at(3 * second + 9);
        let of_now = beat(7, 120, Some(3 * second));
        peer.hear(Instant(3 * second + 9), at, LinkId(0), US, &of_now, &TIMING);
        assert!(!peer.is_late());
    }

    /// Goal: a stall of ours postpones the judgement of silence, and does not make a link look as
    /// if it had worked.
    #[test]
    fn a_stall_forgives_silence_and_mends_no_link() {
        let at = |now: u64| Lived::default().after(now);
        let second = TIMING.deadtime.as_nanos() as u64;
        let mut peer = Peer::default();
        for link in [0, 1] {
            let beat = beat(7, 100 + u64::from(link), Some(5));
            peer.hear(Instant(10), at(10), LinkId(link), US, &beat, &TIMING);
        }
        peer.forgive(at(2 * second));
        assert_eq!(peer.silent_for(at(2 * second)), Some(Duration::ZERO));
        assert_eq!(peer.links_at_silence(TIMING.deadtime).len(), 2, "both fell silent at once");
        peer.hear(Instant(10), at(2 * second), LinkId(0), US, &beat(7, 200, None), &TIMING);
        assert_eq!(peer.links_at_silence(TIMING.deadtime).len(), 1);
    }
}
