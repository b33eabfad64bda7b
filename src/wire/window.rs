//! Which sequence numbers were seen: a sliding window per session and link of one sender (the
//! scheme of RFC 4303 section 3.4.3), and which sessions have ended.

use super::Refusal;
use crate::core::name::{LINKS_MAX, LinkId, Session};
use std::collections::{BTreeMap, VecDeque};

/// Frames that may overtake each other on one link.
const WIDTH: u64 = 64;
/// Sessions that wait to prove themselves; a flood of recorded old ones evicts only each other.
const CANDIDATES: usize = 4;
/// Ended sessions remembered by name.
const ENDED: usize = 64;

/// The windows of one sender.
#[derive(Clone, Debug, Default)]
pub struct Windows {
    settled: Option<Life>,
    candidates: VecDeque<Life>,
    ended: VecDeque<Session>,
}

#[derive(Clone, Debug)]
struct Life {
    session: Session,
    links: BTreeMap<LinkId, Window>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Window {
    top: u64,
    seen: u64,
}

impl Windows {
    pub fn accept(&mut self, session: Session, link: LinkId, seq: u64) -> Result<(), Refusal> {
        if self.ended.contains(&session) {
            return Err(Refusal::OldSession);
        }
        let settled = self.settled.as_mut().filter(|l| l.session == session);
        let life = match settled {
            Some(life) => life,
            None => self.candidate(session),
        };
        if life.links.len() >= LINKS_MAX && !life.links.contains_key(&link) {
            return Err(Refusal::Malformed);
        }
        life.links.entry(link).or_default().accept(seq)
    }

    pub fn settle(&mut self, session: Session) {
        if self.settled.as_ref().is_some_and(|l| l.session == session) {
            return;
        }
        let at = self.candidates.iter().position(|l| l.session == session);
        let Some(life) = at.and_then(|at| self.candidates.remove(at)) else { return };
        if let Some(old) = self.settled.replace(life) {
            if self.ended.len() == ENDED {
                self.ended.pop_front();
            }
            self.ended.push_back(old.session);
        }
    }

    fn candidate(&mut self, session: Session) -> &mut Life {
        let at = self.candidates.iter().position(|l| l.session == session).unwrap_or_else(|| {
            if self.candidates.len() == CANDIDATES {
                self.candidates.pop_front();
            }
            self.candidates.push_back(Life { session, links: BTreeMap::new() });
            self.candidates.len() - 1
        });
        &mut self.candidates[at]
    }
}

impl Window {
    fn accept(&mut self, seq: u64) -> Result<(), Refusal> {
        if seq > self.top {
            let shift = seq - self.top;
            self.seen = if shift >= WIDTH { 0 } else { self.seen << shift };
            self.seen |= 1;
            self.top = seq;
            return Ok(());
        }
        let back = self.top - seq;
        if back >= WIDTH || self.seen & (1 << back) != 0 {
            return Err(Refusal::Replay);
        }
        self.seen |= 1 << back;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    proptest::proptest! {
        /// Against the plain set of what was seen: taken exactly once, unless too far behind.
        #[test]
        fn nothing_is_taken_twice(order in proptest::collection::vec(0u64..300, 0..400)) {
            let mut window = Window::default();
            let mut seen = BTreeSet::new();
            for seq in order {
                let top = seen.last().copied().unwrap_or(0);
                let due = !seen.contains(&seq) && seq + WIDTH > top;
                assert_eq!(window.accept(seq).is_ok(), due, "{seq}");
                if due {
                    seen.insert(seq);
                }
            }
        }
    }

    #[test]
    fn small_reordering_is_taken() {
        let mut window = Window::default();
        assert!([1, 3, 2, 5, 4, 70, 69].into_iter().all(|s| window.accept(s).is_ok()));
        assert_eq!(window.accept(3), Err(Refusal::Replay));
    }

    #[test]
    fn a_flood_of_old_sessions_does_not_evict_the_settled_one() {
        let mut windows = Windows::default();
        windows.accept(Session(1), LinkId(0), 10).expect("first");
        windows.settle(Session(1));
        for n in 2..100 {
            windows.accept(Session(n), LinkId(0), 1).expect("a candidate");
        }
        assert_eq!(windows.accept(Session(1), LinkId(0), 10), Err(Refusal::Replay));
        windows.accept(Session(1), LinkId(0), 11).expect("goes on");
    }
}
