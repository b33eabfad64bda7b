//! Hardware watchdogs in the model, fed for as long as the shipped core says: they reset a machine
//! that stands still, and one whose daemon has gone and has no successor in time.

use crate::step::Step;
use crate::world::{MS, What};
use hafailover::core::name::GroupName;
use hafailover::core::policy::LeaseTimes;
use hafailover::core::time::{Duration, Instant};
use hafailover::core::watchdog::Feed;
use std::sync::Arc;

/// In milliseconds; longer than the shortest freeze.
const TIMEOUT: u64 = 300;
/// What stands still for longer is reset before it feeds once more.
const STILL: u64 = TIMEOUT - 10;

/// As `config::arbiter` adds them up: twice that time in place of a daemon's that hangs.
pub fn times() -> LeaseTimes {
    let ms = Duration::from_millis;
    let most = 1000 + TIMEOUT * 2;
    LeaseTimes { lease: ms(1000), most: ms(most), wait: ms(most + 20) }
}

impl Step<'_> {
    /// After whatever a core was told, before its hands do anything.
    pub fn tell_watchdog(&mut self, n: usize) {
        if !self.cluster.watched {
            return;
        }
        let now = Instant(self.state.now);
        let node = Arc::make_mut(&mut self.state.nodes[n]);
        let Some(core) = &node.core else { return };
        let (names, units) = (&self.cluster.names, &node.units);
        let token = |name: &GroupName| {
            let of = names.iter().position(|n| n == name);
            of.is_some_and(|g| units[g].token.or(units[g].closed).is_some())
        };
        match core.feed(now, token) {
            Feed::Keep => {}
            Feed::Until(until) => node.dog = Some(until),
            Feed::End => self.end_watchdog(n),
        }
    }

    pub fn end_watchdog(&mut self, n: usize) {
        let node = Arc::make_mut(&mut self.state.nodes[n]);
        let held = node.units.iter().any(|u| u.token.or(u.closed).is_some());
        if node.dog.take().is_some() && held {
            self.break_("Guarded", format!("n{}: something is held, and nothing counts", n + 1));
        }
    }

    /// A unit is started by a token.
    pub fn watch_guarded(&mut self, n: usize) {
        if self.cluster.watched && self.state.nodes[n].dog.is_none() {
            self.break_("Guarded", format!("n{}: something starts, and nothing counts", n + 1));
        }
    }

    /// Nobody feeds it any more, as far as is known now: the machine stands still, or has no
    /// daemon, whose last word counts for as long as it said; and then the machine may stand still
    /// between the feeder's last look and its act, and feeds once more.
    pub fn starve(&mut self, n: usize, still: bool) {
        let Some(until) = self.state.nodes[n].dog else { return };
        let last = until.0.saturating_add(STILL * MS);
        let fed = if still { self.state.now } else { last.max(self.state.now) };
        let boot = self.state.nodes[n].boot;
        if let Some(at) = fed.checked_add(TIMEOUT * MS) {
            self.state.push(at, n, What::Bite { boot, until }, 64);
        }
    }

    pub fn bite(&mut self, n: usize, boot: u16, until: Instant) {
        let node = &self.state.nodes[n];
        let starved = node.frozen || node.core.is_none();
        if node.boot == boot && node.dog == Some(until) && starved {
            self.note(n, || "its watchdog bites".into());
            self.reset(n);
        }
    }
}
