//! A daemon that is lost for good, and its guard: the shipped words of it, in time or late, or it
//! fails.

use crate::step::Step;
use crate::world::{MS, What, session};
use hafailover::core::heartbeat::Heartbeat;
use hafailover::core::name::BootId;
use hafailover::core::policy::OnLost;
use hafailover::core::time::{Duration, Instant};
use hafailover::core::{Guard, Lost};
use std::sync::Arc;

/// From the daemon's end to its guard's beginning.
const GAP: u64 = 60 * MS;
/// How long the guard repeats its last word.
const LAST: u64 = 250 * MS;
/// When one that cannot stop the group gives up.
const BOUND: u64 = 900 * MS;

impl Step<'_> {
    pub fn lose_daemon(&mut self, n: usize, stops: Option<u64>) {
        self.end_daemon(n);
        let life = self.state.nodes[n].life;
        let number = 41 ^ stops.unwrap_or(1) << 8;
        self.state.push(self.state.now + GAP, n, What::GuardBegins { life, stops }, number);
    }

    pub fn guard_begins(&mut self, n: usize, stops: Option<u64>) {
        self.note(n, || "its guard begins".into());
        let (now, policy) = (self.state.now, self.cluster.policies[n].clone());
        let node = Arc::make_mut(&mut self.state.nodes[n]);
        let mut held = Vec::new();
        for (units, name) in node.units.iter_mut().zip(&self.cluster.names) {
            units.closed = units.token.take().or(units.closed);
            held.extend(units.closed.map(|_| name.clone()));
        }
        let lasts = node.units.iter().filter_map(|u| u.lasts).map(|(_, at)| at).min();
        let rest = policy.lease.as_ref().map(|times| times.most - times.lease);
        let leased = rest.and_then(|rest| Some(lasts? + rest));
        let ends =
            leased.unwrap_or(Instant(u64::MAX)).min(Instant(now) + Duration::from_nanos(BOUND));
        let lost = Lost {
            session: session(n, node.life),
            boot: BootId(node.boot.into()),
            ends,
            groups: self.cluster.names.iter().cloned().collect(),
            held: held.into_iter().collect(),
        };
        node.guard = Some(Guard::new(Instant(now), lost, policy));
        let life = node.life;
        node.settle(now);
        match stops {
            Some(ms) => self.state.push(now + ms * MS, n, What::GuardStops { life }, 42),
            None => self.state.push(ends.0, n, What::GuardEnds { life }, 43),
        }
        self.guard_speaks(n);
    }

    pub fn guard_ends(&mut self, n: usize) {
        let node = Arc::make_mut(&mut self.state.nodes[n]);
        node.guard = None;
        node.settle(node.anchor);
        if node.units.iter().all(|units| units.closed.is_none()) {
            return self.end_watchdog(n);
        }
        match self.cluster.policies[n].safety.on_lost {
            OnLost::Reboot => self.reset(n),
            // It leaves what it could not stop, and nobody speaks for it.
            OnLost::Leave => self.state.ghost.absent |= 1 << n,
        }
    }

    pub fn guard_stops(&mut self, n: usize) {
        self.note(n, || "its guard has stopped the group".into());
        let now = self.state.now;
        let node = Arc::make_mut(&mut self.state.nodes[n]);
        for (units, name) in node.units.iter_mut().zip(&self.cluster.names) {
            *units = crate::world::Units { stuck: units.stuck, ..Default::default() };
            if let Some(guard) = &mut node.guard {
                guard.stopped(Instant(now), name);
            }
        }
        let life = node.life;
        self.state.push(now + LAST, n, What::GuardEnds { life }, 43);
        self.guard_speaks(n);
    }

    pub fn guard_hears(&mut self, n: usize, beat: &Heartbeat) {
        let now = self.state.now;
        let node = Arc::make_mut(&mut self.state.nodes[n]);
        let Some(guard) = &mut node.guard else { return };
        guard.hear(Instant(now), beat.link, beat);
        self.guard_speaks(n);
    }

    pub fn guard_speaks(&mut self, n: usize) {
        let now = self.state.now;
        let node = Arc::make_mut(&mut self.state.nodes[n]);
        let Some(guard) = &mut node.guard else { return };
        let beats = guard.speak(Instant(now)).into_iter().map(Arc::new).collect();
        node.settle(now);
        self.send(n, beats);
    }
}
