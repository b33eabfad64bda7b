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
    /// maintenance may go on for ever.
    pub fn feed(&self, now: Instant) -> Feed {
        let world = self.world(now);
        let lasts = |(name, group): (&GroupName, &Group)| {
            let epoch = group.own?;
            let cared = world.is_cared_for(name);
            let lasts = || world.lasts(name, epoch).unwrap_or_default();
            Some(if cared { Instant(u64::MAX) } else { lasts() })
        };
        let unread = |g: &Group| g.own.is_none() && g.phase() == Phase::Unknown;
        match self.groups.iter().filter_map(lasts).min() {
            _ if self.groups.values().any(unread) => Feed::Keep,
            Some(until) => Feed::Until(until),
            None => Feed::End,
        }
    }
}
