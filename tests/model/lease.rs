//! The arbiter of the model: a witness's own table behind a wire, which can be lost, cut from one
//! node, and restarted.

use crate::canon::{Origin, SEED, canon, mix};
use crate::step::Step;
use crate::world::{Item, MS, State, WIRE, What};
use hafailover::core::grant::{Ask, Grants, Verdict};
use hafailover::core::name::{Epoch, GroupName};
use hafailover::core::policy::LeaseTimes;
use hafailover::core::time::{Duration, Instant};
use hafailover::core::{Event, LeaseAnswer, LeaseVerb};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A daemon that dies is back before the difference of the first two, and so is a short freeze.
pub fn times() -> LeaseTimes {
    let ms = Duration::from_millis;
    LeaseTimes { lease: ms(1000), most: ms(1700), wait: ms(1760) }
}

#[derive(Clone, Debug)]
pub struct Arbiter {
    grants: Grants,
    pub lost: bool,
    /// Nodes that do not reach it, as a bit set.
    pub cut: u8,
}

/// When an answer reaches who asked.
#[derive(Clone, Copy)]
pub enum Answer {
    Soon,
    Late,
    Never,
}

impl Arbiter {
    pub fn new(now: u64) -> Arbiter {
        let grants = Grants::new(Instant(now), Some(BTreeMap::new()), Duration::ZERO);
        Arbiter { grants, lost: false, cut: 0 }
    }

    pub fn number(&self, now: u64) -> u64 {
        canon(self, Origin { now, jobs: 0 })
    }
}

impl State {
    /// How long ago the node vouched for an owner of the group, if not longer than this.
    pub fn vouched(&self, n: usize, group: usize, within: Duration) -> Option<Duration> {
        let at = self.ghost.nodes[n].vouched[group]?;
        Some(Instant(self.now).since(at)).filter(|age| *age < within)
    }

    pub fn vouched_number(&self) -> u64 {
        let within = times().wait.max(crate::watchdog::times().wait);
        let groups = 0..self.ghost.nodes[0].vouched.len();
        let each = (0..self.nodes.len()).flat_map(|n| groups.clone().map(move |g| (n, g)));
        let ages = each.map(|(n, g)| self.vouched(n, g, within));
        ages.fold(SEED, |hash, age| mix(hash, age.map_or(0, |age| 1 + age.as_nanos() as u64)))
    }

    fn reaches(&self, n: usize) -> bool {
        !self.arbiter.lost && self.arbiter.cut & 1 << n == 0
    }
}

impl Step<'_> {
    pub fn times(&self) -> LeaseTimes {
        self.cluster.policies[0].lease.clone().unwrap_or_else(times)
    }

    pub fn ask_arbiter(&mut self, n: usize, group: GroupName, epoch: Epoch, q: (u64, LeaseVerb)) {
        let (now, life) = (self.state.now, self.state.nodes[n].life);
        if !self.state.reaches(n) {
            return self.unanswered(n, life, group, q.0, now);
        }
        let (ticket, verb) = q;
        let node = format!("n{}", n + 1);
        let ask = Ask { node, group, epoch, verb, term: self.times().wait };
        let number = mix(60, canon(&ask, Origin { now, jobs: 0 }));
        self.state.push(now + WIRE, n, What::Question { life, ticket, ask: Arc::new(ask) }, number);
    }

    /// It happens at the arbiter, and has now.
    pub fn is_arbiters(&mut self, item: &Item) -> bool {
        match &item.what {
            What::ArbiterBack { nodes } => {
                self.note(item.node, || "the arbiter is back".into());
                self.state.arbiter.lost = false;
                self.state.arbiter.cut &= !nodes;
            }
            What::Question { life, ticket, ask } => {
                self.arbiter_hears(item.node, *life, *ticket, ask, Answer::Soon);
            }
            _ => return false,
        }
        true
    }

    pub fn note_lasts(&mut self, n: usize, group: usize, epoch: Epoch, until: Instant) {
        self.units(n, group, |u| u.lasts = Some((epoch, until)));
    }

    /// Of something that is held there.
    pub fn is_lease_over(&self, n: usize) -> bool {
        let policy = &self.cluster.policies[n];
        let held = policy.groups.values().zip(&self.state.nodes[n].units);
        let mut held = held.filter(|(_, units)| units.token.or(units.closed).is_some());
        held.any(|(group, units)| {
            let until = units.lasts.map_or(Instant::default(), |(_, until)| until);
            Instant(self.state.now) + group.stop_budget >= until
        })
    }

    /// It knows only when it has waited for long enough.
    pub fn unanswered(&mut self, n: usize, life: u16, group: GroupName, ticket: u64, sent: u64) {
        let answer = LeaseAnswer::Unknown("no answer".into());
        let event = Arc::new(Event::Leased { group, ticket, answer });
        let at = sent + self.times().limit().as_nanos() as u64;
        self.state.push(at, n, What::Tell { life, event }, 61);
    }

    /// A question arrives.
    pub fn arbiter_hears(&mut self, n: usize, life: u16, ticket: u64, ask: &Ask, told: Answer) {
        let now = self.state.now;
        let verdict = self.state.arbiter.grants.ask(Instant(now), ask);
        self.note(n, || {
            format!("the arbiter is asked to {:?} {}: {verdict:?}", ask.verb, ask.epoch)
        });
        let answer = match verdict {
            Verdict::Granted => LeaseAnswer::Granted,
            Verdict::Refused { why, top } => LeaseAnswer::Refused { why, top },
        };
        let group = ask.group.clone();
        let limit = self.times().limit().as_nanos() as u64;
        let after = match told {
            Answer::Never => return self.unanswered(n, life, group, ticket, now - WIRE),
            Answer::Late => limit - 2 * WIRE,
            Answer::Soon => WIRE,
        };
        let number = mix(62, canon(&answer, Origin { now, jobs: 0 }));
        let event = Arc::new(Event::Leased { group, ticket, answer });
        self.state.push(now + after, n, What::Tell { life, event }, number);
    }

    pub fn restart_arbiter(&mut self, remembers: bool) {
        let now = Instant(self.state.now);
        let kept = remembers.then(|| self.state.arbiter.grants.kept().clone());
        self.state.arbiter.grants = Grants::new(now, kept, self.times().wait);
    }

    /// The machine ends its own life, and begins the next.
    pub fn reset(&mut self, n: usize) {
        self.note(n, || "it is reset".into());
        self.power_off(n);
        let life = self.state.nodes[n].life;
        self.state.push(self.state.now + 700 * MS, n, What::Boot { life }, 34);
    }
}
