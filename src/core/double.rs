//! Another live daemon under this node's name: a cloned machine, a copied configuration.
//!
//! What carries our name but not our session may as well be a recording, or a frame of an earlier
//! life of ours. So it is challenged as a peer's new session is: our heartbeats echo it, and only
//! who lives now, and hears us, can echo the session that we have now. While a double lives, this
//! node takes nothing and promises nothing; what runs here goes on. What the double holds or may
//! hold (one that fell silent may still), nobody under our name can say not to hold.

use super::heartbeat::{Echo, Heartbeat, Held, Phase};
use super::name::{GroupName, LinkSet, NodeId, Session};
use super::say::{Saying, What};
use super::time::{Duration, Instant};
use super::{Core, Lived};
use std::collections::BTreeSet;

/// The newest session under our name that is not ours; a double once it has passed the challenge.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Double {
    session: Session,
    stamp: Instant,
    arrived: Instant,
    /// When one was last answered at once: once a keepalive, as a peer's new life is.
    answered: Option<Instant>,
    life: Option<Life>,
    /// What it holds or may hold, or one before it did.
    holds: BTreeSet<GroupName>,
}

/// What it was when it last showed that it hears us.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Life {
    /// The newest of our stamps that it echoed.
    sign: Instant,
    heard: Lived,
    address: String,
    leaving: bool,
}

impl Double {
    fn is_over(&self, lived: Lived, deadtime: Duration) -> bool {
        let silent = |l: &Life| lived.since(l.heard) >= deadtime;
        self.holds.is_empty() && self.life.as_ref().is_none_or(silent)
    }

    /// It lives, or may live, and has not said that it goes with nothing in its hands.
    fn is_in_the_way(&self) -> bool {
        self.life.as_ref().is_some_and(|l| !l.leaving || !self.holds.is_empty())
    }

    /// What we answer: the challenge.
    pub(super) fn echo(&self, me: NodeId, now: Instant, deadtime: Duration) -> Option<Echo> {
        let age = now.since(self.arrived);
        let (session, stamp, links) = (self.session, self.stamp, LinkSet(0));
        (age < deadtime).then_some(Echo { peer: me, session, stamp, age, links })
    }
}

impl Core {
    pub(super) fn doubled(&mut self, now: Instant, beat: &Heartbeat, address: String) {
        let us = (self.policy.me, self.session);
        if beat.from != us.0 || beat.session == us.1 {
            return;
        }
        let lived = self.lived(now);
        let (keepalive, deadtime) = (self.policy.timing.keepalive, self.policy.timing.deadtime);
        let ill = self.is_doubled();
        let echoes = beat.echoes.iter().filter(|e| (e.peer, e.session) == us);
        let echo = echoes.map(|e| e.stamp).max();
        match &mut self.double {
            Some(known) if known.session == beat.session => {
                if beat.stamp > known.stamp {
                    (known.stamp, known.arrived) = (beat.stamp, now);
                }
            }
            // Recordings do not take the place of one that lives.
            Some(known) if !known.is_over(lived, deadtime) && echo.is_none() => return,
            other => {
                let last = other.take().map(|d| (d.holds, d.answered));
                let (holds, answered) = last.unwrap_or_default();
                let at_once = answered.is_none_or(|at| now.since(at) >= keepalive);
                let answered = if at_once { Some(now) } else { answered };
                let (session, stamp) = (beat.session, beat.stamp);
                let (arrived, life) = (now, None);
                *other = Some(Double { session, stamp, arrived, answered, life, holds });
                self.beat.now |= at_once;
            }
        }
        let Some(known) = &mut self.double else { return };
        let before = known.life.take();
        let Some(sign) = echo.filter(|e| before.as_ref().is_none_or(|b| *e > b.sign)) else {
            known.life = before;
            return;
        };
        let news = before.is_none();
        for report in &beat.groups {
            // "Unknown" with nothing running is said for our sake.
            match report.phase == Phase::Stopped && report.held != Held::Yes {
                true => known.holds.remove(&report.name),
                false => known.holds.insert(report.name.clone()),
            };
        }
        let leaving = beat.mood.leaving;
        known.life = Some(Life { sign, heard: lived, address: address.clone(), leaving });
        if news {
            let words = format!(
                "another daemon at {address} runs under the name of this node: until it is \
                 stopped nothing is taken or promised here, and what runs goes on"
            );
            self.say(Saying::new(What::PeerDouble, words).peer(us.0));
        }
        if ill != self.is_doubled() {
            self.touch_all();
        }
    }

    pub(super) fn judge_double(&mut self, now: Instant) {
        let (lived, deadtime) = (self.lived(now), self.policy.timing.deadtime);
        if self.double.take_if(|d| d.life.is_some() && d.is_over(lived, deadtime)).is_some() {
            self.touch_all();
        }
    }

    pub(super) fn is_doubled(&self) -> bool {
        self.double.as_ref().is_some_and(Double::is_in_the_way)
    }

    pub(super) fn double_holds(&self, name: &GroupName) -> bool {
        self.double.as_ref().is_some_and(|d| d.holds.contains(name))
    }

    pub(super) fn double_words(&self, now: Instant) -> Option<String> {
        let double = self.double.as_ref().filter(|d| d.is_in_the_way())?;
        let life = double.life.as_ref()?;
        let at = &life.address;
        if self.lived(now).since(life.heard) < self.policy.timing.deadtime {
            return Some(format!(
                "another daemon at {at} runs under the name of this node: stop hafailover on the \
                 one that should not; nothing is taken here until then"
            ));
        }
        let holds: Vec<&str> = double.holds.iter().map(|g| g.0.as_str()).collect();
        Some(format!(
            "another daemon at {at} ran under the name of this node and fell silent while it held \
             {}: if it is surely off, systemctl restart hafailover (groups run on)",
            holds.join(", ")
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::super::heartbeat::Mood;
    use super::super::{Action, Boot, Event, record::Record};
    use super::*;
    use crate::core::name::{BootId, LinkId};
    use crate::core::policy::Policy;

    const MS: u64 = 1_000_000;

    fn core() -> (Core, Heartbeat) {
        let record = Record { known: true, ..Record::default() };
        let boot = Boot { session: Session(1), boot: BootId(1), record: Some(record) };
        let (core, actions) = Core::new(Instant(MS), boot, Policy::of_a_pair());
        let own = actions.into_iter().find_map(|a| match a {
            Action::Send { link: LinkId(0), heartbeat } => Some(*heartbeat),
            _ => None,
        });
        (core, own.expect("a new core speaks"))
    }

    /// Hears a frame under its own name; whether it told of a double, and what it echoes then.
    fn hear(core: &mut Core, at: u64, beat: &Heartbeat) -> (bool, Vec<Session>) {
        let event = Event::Double { heartbeat: Box::new(beat.clone()), address: "x".into() };
        let actions = core.handle(Instant(at * MS), event);
        let double = |a: &Action| matches!(a, Action::Say(s) if s.what == What::PeerDouble);
        let beat = core
            .double
            .as_ref()
            .and_then(|d| d.echo(NodeId(0), Instant(at * MS), core.policy.timing.deadtime));
        (actions.iter().any(double), beat.map(|e| e.session).into_iter().collect())
    }

    fn echoing(own: &Heartbeat, session: u64, of: u64, stamp: u64) -> Heartbeat {
        let echo = Echo {
            peer: NodeId(0),
            session: Session(of),
            stamp: Instant(stamp),
            age: Duration::ZERO,
            links: LinkSet(0),
        };
        Heartbeat { session: Session(session), echoes: vec![echo], ..own.clone() }
    }

    /// Goal: recordings of our former lives change nothing but what we echo, however many.
    #[test]
    fn a_recording_of_our_own_is_no_double() {
        let (mut core, own) = core();
        for session in 5..50 {
            let old = echoing(&own, session, session - 1, 900 * MS);
            assert_eq!(hear(&mut core, session, &old), (false, vec![Session(session)]));
            assert!(!core.is_doubled());
        }
        assert_eq!(core.ill(), None);
        assert_eq!(hear(&mut core, 60, &own).1, vec![Session(49)], "our own frame is nothing");
    }

    #[test]
    fn who_echoes_our_present_session_is_told_once_until_it_has_left() {
        let (mut core, own) = core();
        assert!(!hear(&mut core, 2, &Heartbeat { session: Session(9), ..own.clone() }).0);
        assert!(hear(&mut core, 3, &echoing(&own, 9, 1, 2 * MS)).0);
        assert_eq!(core.ill(), Some(super::super::Unfit::Double));
        assert!(!hear(&mut core, 4, &echoing(&own, 9, 1, 3 * MS)).0, "told already");
        let recording = Heartbeat { session: Session(8), ..own.clone() };
        assert_eq!(hear(&mut core, 5, &recording).1, vec![Session(9)], "does not hide it");
        let mood = Mood { leaving: true, ..Mood::default() };
        let last = Heartbeat { mood, ..echoing(&own, 9, 1, 4 * MS) };
        assert!(!hear(&mut core, 6, &last).0);
        assert_eq!(core.ill(), None);
        let last = Heartbeat { mood, ..echoing(&own, 9, 1, 5 * MS) };
        assert!(!hear(&mut core, 7, &last).0, "no news");
    }
}
