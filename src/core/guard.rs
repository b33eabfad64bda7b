//! What the guard of a lost daemon says, so that peers wait for it and not for the clock: it stops
//! the groups, by when that has surely ended, and what is verified stopped. Pure, as the core is.
//!
//! It is a life of its node with a session of its own, and passes the same challenge; a peer that
//! cannot hear it, or that it cannot hear, is where it was without it. It speaks of no epoch, claim
//! or wish and promises nothing: all that stays with the record on disk, which it does not read.
//! Its table counts for nobody as the node's whole table: it has no epochs to learn.

use super::detector::Pulse;
use super::heartbeat::{
    GroupReport, Heartbeat, Held, Mood, NodeWishes, PAGE_GROUPS, Phase, Register, Tally, Unfit,
};
use super::name::{BootId, Epoch, GroupName, LinkId, NodeId, Session};
use super::peer::Peer;
use super::policy::{OnLost, Policy};
use super::time::{Duration, Instant};
use std::collections::{BTreeMap, BTreeSet};

/// Most frames for one link at one moment; the rest of a longer table follows in turn.
const FRAMES_MAX: usize = 8;

/// What a guard starts from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    pub session: Session,
    pub boot: BootId,
    /// When its work has surely ended: verified stopped, or reset.
    pub ends: Instant,
    /// Every group that it stops; those that the daemon held.
    pub groups: BTreeSet<GroupName>,
    pub held: BTreeSet<GroupName>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Guard {
    policy: Policy,
    session: Session,
    boot: BootId,
    ends: Instant,
    /// Also another machine under our own name.
    peers: BTreeMap<NodeId, Peer>,
    groups: BTreeMap<GroupName, Held>,
    numbers: Vec<u64>,
    stamp: Instant,
    next: Instant,
    begun: Instant,
    /// The stamp of the first frame with what changed last.
    news: Instant,
    turn: usize,
}

impl Guard {
    pub fn new(now: Instant, lost: Lost, policy: Policy) -> Guard {
        let held = |g: &GroupName| if lost.held.contains(g) { Held::Yes } else { Held::Unknown };
        Guard {
            session: lost.session,
            boot: lost.boot,
            ends: lost.ends,
            peers: (0..policy.nodes.len()).map(|n| (NodeId(n as u8), Peer::default())).collect(),
            groups: lost.groups.iter().chain(&lost.held).map(|g| (g.clone(), held(g))).collect(),
            numbers: vec![0; policy.links.len()],
            stamp: Instant::default(),
            next: now,
            begun: now,
            news: now,
            turn: 0,
            policy,
        }
    }

    /// Takes in a heartbeat that `wire` found genuine and fresh.
    pub fn hear(&mut self, now: Instant, link: LinkId, beat: &Heartbeat) {
        let us = (self.policy.me, self.session);
        let Some(peer) = self.peers.get_mut(&beat.from).filter(|_| beat.session != us.1) else {
            return;
        };
        let lived = Pulse::default().lived(now);
        let young = peer.session().is_none();
        let news = peer.hear(now, lived, link, us, beat, &self.policy.timing);
        // What it waits for is our echo.
        if news.new_session || news.answer && young {
            self.next = now;
        }
    }

    pub fn session_of(&self, node: NodeId) -> Option<Session> {
        self.peers.get(&node).and_then(Peer::session)
    }

    /// A link can be used now.
    pub fn opened(&mut self, now: Instant) {
        self.next = now;
    }

    /// It is verified stopped.
    pub fn stopped(&mut self, now: Instant, group: &GroupName) {
        if let Some(held) = self.groups.get_mut(group) {
            *held = Held::No;
            (self.next, self.news) = (now, now);
        }
    }

    pub fn next_wake(&self) -> Instant {
        self.next
    }

    /// The frames that are due.
    pub fn speak(&mut self, now: Instant) -> Vec<Heartbeat> {
        if now < self.next {
            return Vec::new();
        }
        self.next = now + self.policy.timing.keepalive;
        let names: Vec<GroupName> = self.groups.keys().cloned().collect();
        let mut pages: Vec<&[GroupName]> = names.chunks(PAGE_GROUPS).collect();
        // A slow line takes the first few only.
        let first = self.turn % pages.len().max(1);
        pages.rotate_left(first);
        self.turn = first + 1;
        pages.truncate(FRAMES_MAX);
        if pages.is_empty() {
            pages.push(&[]);
        }
        let links = (0..self.policy.links.len()).map(|n| LinkId(n as u8));
        let links: Vec<LinkId> = links.filter(|l| self.policy.has(*l)).collect();
        let ways = pages.iter().flat_map(|page| links.iter().map(move |link| (*link, *page)));
        ways.map(|(link, page)| self.heartbeat(now, link, page)).collect()
    }

    /// Every peer believes this guard and has echoed what was said last, but for those that were
    /// not heard for so long that they may be gone; one that began just now has heard nobody yet.
    /// On every link: how many links fell silent together is how a peer judges what silence means.
    pub fn everybody_knows(&self, now: Instant) -> bool {
        let lived = Pulse::default().lived(now);
        let deadtime = self.policy.timing.deadtime;
        let gone = |p: &Peer| p.silent_for(lived).unwrap_or(now.since(self.begun)) >= deadtime;
        let links = (0..self.policy.links.len()).map(|n| LinkId(n as u8));
        let knows = |id: NodeId, p: &Peer| {
            let mut links = links.clone().filter(|l| self.policy.joins(*l, id));
            links.all(|l| p.hears_us_on(l)) && p.sign().is_some_and(|s| s >= self.news)
        };
        let mut others = self.peers.iter().filter(|(id, _)| **id != self.policy.me);
        others.all(|(id, p)| knows(*id, p) || gone(p))
    }

    fn heartbeat(&mut self, now: Instant, link: LinkId, page: &[GroupName]) -> Heartbeat {
        let (lived, deadtime) = (Pulse::default().lived(now), self.policy.timing.deadtime);
        let number = &mut self.numbers[usize::from(link.0)];
        *number += 1;
        self.stamp = now.max(self.stamp + Duration::from_nanos(1));
        let up = |p: &Peer| p.links_up(lived, deadtime);
        Heartbeat {
            from: self.policy.me,
            session: self.session,
            boot: self.boot,
            seq: *number,
            link,
            stamp: self.stamp,
            mood: self.mood(now),
            fingerprint: self.policy.fingerprint,
            echoes: self.peers.iter().flat_map(|(id, p)| p.echoes(*id, now, up(p))).collect(),
            wishes: NodeWishes::default(),
            groups: page.iter().map(|name| self.report(name)).collect(),
            page: u8::MAX,
            pages: 0,
        }
    }

    fn mood(&self, now: Instant) -> Mood {
        let resets = self.policy.safety.on_lost == OnLost::Reboot;
        Mood {
            leaving: true,
            guarding: true,
            guard_bound: resets.then(|| self.ends.since(now)),
            ..Mood::default()
        }
    }

    fn report(&self, name: &GroupName) -> GroupReport {
        let held = match self.groups.get(name).copied().unwrap_or_default() {
            // What we say is said for our name.
            Held::No if self.double_holds(name) => Held::Unknown,
            held => held,
        };
        GroupReport {
            name: name.clone(),
            fingerprint: self.policy.groups.get(name).map_or(0, |g| g.fingerprint),
            texts: None,
            tally: Tally::default(),
            phase: match held {
                Held::Yes => Phase::Stopping,
                Held::No => Phase::Stopped,
                Held::Unknown => Phase::Unknown,
            },
            held,
            epoch: Epoch::default(),
            claim: None,
            promise: None,
            released: None,
            voucher: None,
            unfit: Some(Unfit::Leaving),
            quarantine: Duration::ZERO,
            wish: Register::default(),
        }
    }

    /// Another daemon under our name that hears us holds it, or may.
    fn double_holds(&self, name: &GroupName) -> bool {
        let double = &self.peers[&self.policy.me];
        let free = |r: &GroupReport| r.phase == Phase::Stopped && r.held != Held::Yes;
        double.session().is_some() && !double.reports.get(name).is_some_and(free)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Action, Boot, Core, Event, record::Record};
    use super::*;

    const MS: u64 = 1_000_000;

    fn guard(held: &[&str]) -> Guard {
        let names = |n: &[&str]| n.iter().map(|g| GroupName(g.to_string())).collect();
        let (session, boot) = (Session(7), BootId(1));
        let (groups, held) = (names(&["disk", "web"]), names(held));
        let ends = Instant(9000 * MS);
        let lost = Lost { session, boot, ends, groups, held };
        Guard::new(Instant(MS), lost, Policy::of_a_pair())
    }

    /// A machine under some name, which answers to what it hears from the guard.
    struct Other(Core, u64);

    impl Other {
        fn new(me: u8, actions: &mut Vec<Action>) -> Other {
            let record = Record { known: true, ..Record::default() };
            let boot = Boot { session: Session(9), boot: BootId(2), record: Some(record) };
            let policy = Policy { me: NodeId(me), ..Policy::of_a_pair() };
            let (core, first) = Core::new(Instant(MS), boot, policy);
            *actions = first;
            Other(core, MS)
        }

        fn hear(&mut self, beats: Vec<Heartbeat>) -> Vec<Action> {
            self.1 += MS;
            let me = self.0.policy.me;
            let event = |beat: Heartbeat| match (Box::new(beat), String::new()) {
                (heartbeat, address) if heartbeat.from == me => {
                    Event::Double { heartbeat, address }
                }
                (heartbeat, _) => Event::Heard { link: LinkId(0), heartbeat },
            };
            let now = Instant(self.1);
            beats.into_iter().flat_map(|b| self.0.handle(now, event(b))).collect()
        }
    }

    /// Both speak to each other so many times.
    fn talk(guard: &mut Guard, other: &mut Other, mut said: Vec<Action>, times: usize) {
        for _ in 0..times {
            let now = Instant(other.1 + MS);
            for action in said {
                if let Action::Send { link, heartbeat } = action {
                    guard.hear(now, link, &heartbeat);
                }
            }
            guard.next = now;
            said = other.hear(guard.speak(now));
        }
    }

    #[test]
    fn it_says_what_it_holds_and_knows_when_it_was_heard() {
        let (mut guard, mut said) = (guard(&["disk"]), Vec::new());
        let first = guard.speak(Instant(MS));
        let told = |b: &Heartbeat| b.groups.iter().map(|g| g.held).collect::<Vec<_>>();
        assert_eq!(told(&first[0]), [Held::Yes, Held::Unknown], "disk, web");
        assert!(first[0].mood.guarding && first[0].mood.leaving);
        assert!(!guard.everybody_knows(Instant(MS)), "nobody had time to answer");
        let mut peer = Other::new(1, &mut said);
        talk(&mut guard, &mut peer, said, 4);
        assert_eq!(guard.session_of(NodeId(1)), Some(Session(9)));
        guard.stopped(Instant(peer.1), &GroupName("disk".into()));
        assert!(!guard.everybody_knows(Instant(peer.1)));
        talk(&mut guard, &mut peer, Vec::new(), 1);
        assert_eq!(told(&guard.heartbeat_now(peer.1)), [Held::No, Held::Unknown]);
        talk(&mut guard, &mut peer, Vec::new(), 0);
        let said = peer.hear(vec![guard.heartbeat_now(peer.1)]);
        drop(said);
        let wake = peer.0.handle(Instant(peer.1 + 300 * MS), Event::Wake);
        peer.1 += 300 * MS;
        talk(&mut guard, &mut peer, wake, 1);
        assert!(guard.everybody_knows(Instant(peer.1)));
    }

    #[test]
    fn it_does_not_wait_for_who_is_gone() {
        let guard = guard(&["disk"]);
        let deadtime = Policy::of_a_pair().timing.deadtime;
        assert!(!guard.everybody_knows(Instant(MS) + deadtime / 2));
        assert!(guard.everybody_knows(Instant(MS) + deadtime));
    }

    impl Guard {
        fn heartbeat_now(&mut self, at: u64) -> Heartbeat {
            self.next = Instant(at);
            self.speak(Instant(at)).remove(0)
        }
    }

    /// Goal: what another machine under our name runs is never said to be stopped.
    #[test]
    fn it_does_not_speak_for_a_double() {
        let (mut guard, mut said) = (guard(&["disk"]), Vec::new());
        guard.stopped(Instant(MS), &GroupName("disk".into()));
        assert_eq!(guard.heartbeat_now(MS).groups[0].held, Held::No);
        let mut double = Other::new(0, &mut said);
        talk(&mut guard, &mut double, said, 4);
        assert_eq!(guard.heartbeat_now(double.1).groups[0].held, Held::Unknown);
    }
}
