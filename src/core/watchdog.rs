//! Until when a hardware watchdog may be fed that lives on the leases (hafailover-protocol(7),
//! "Watchdog"). Pure: the daemon passes it on to whoever feeds the device.

use super::heartbeat::Phase;
use super::name::GroupName;
use super::time::Instant;
use super::{Core, Group};

/// What the feeder is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feed {
    /// What an earlier daemon owns is not yet known: what it said last counts.
    Keep,
    /// As long as this is not over, by this node's clock.
    Until(Instant),
    /// Nothing is owned here: the device is not needed.
    End,
}

impl Feed {
    pub const FOR_EVER: Feed = Feed::Until(Instant(u64::MAX));
}

impl Core {
    /// As long as everything that is owned here may go on. What everybody knows to be in
    /// maintenance may go on for ever. `held`: whether an earlier daemon left a token of a group
    /// that was not yet read; one without is not owned, however long its look takes.
    pub fn feed(&self, now: Instant, held: impl Fn(&GroupName) -> bool) -> Feed {
        let world = self.world(now);
        let lasts = |(name, group): (&GroupName, &Group)| {
            let epoch = group.own?;
            let cared = world.is_cared_for(name);
            let lasts = || world.lasts(name, epoch).unwrap_or_default();
            Some(if cared { Instant(u64::MAX) } else { lasts() })
        };
        let unread = |(name, group): (&GroupName, &Group)| {
            group.own.is_none() && group.phase() == Phase::Unknown && held(name)
        };
        match self.groups.iter().filter_map(lasts).min() {
            _ if self.groups.iter().any(unread) => Feed::Keep,
            Some(until) => Feed::Until(until),
            None => Feed::End,
        }
    }
}
