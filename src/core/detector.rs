//! Silence, late, dead: how long a peer has not been heard, counted only in time in which we were
//! running and listening ourselves. Knows nothing of groups.

use super::time::{Duration, Instant};

/// Time as this node has lived through it: CLOCK_BOOTTIME less every stall of our own loop, each
/// from the loop's last turn. A stall of d so postpones every judgement of silence by d or more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lived(u64);

impl Lived {
    pub fn since(self, earlier: Lived) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    #[cfg(test)]
    pub fn after(self, nanos: u64) -> Lived {
        Lived(self.0 + nanos)
    }
}

/// Our own pulse: when the loop should have woken, and how much it may have slept through in all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Pulse {
    due: Option<Instant>,
    slept: Duration,
    latest: Instant,
}

impl Pulse {
    /// Called first at every event. Returns how late the loop is, if that is more than `grace`
    /// (below it the timers of a busy machine would be counted as illness).
    pub fn beat(&mut self, now: Instant, grace: Duration) -> Option<Duration> {
        assert!(now >= self.latest, "CLOCK_BOOTTIME went back");
        let turned = std::mem::replace(&mut self.latest, now);
        let late = now.since(self.due?);
        if late <= grace {
            return None;
        }
        // Nobody knows when it fell asleep: none of the time since its last turn was lived through.
        self.slept += now.since(turned);
        Some(late)
    }

    /// Called last at every event with the next wake-up.
    pub fn expect(&mut self, due: Instant) {
        self.due = Some(due);
    }

    pub fn due(&self) -> Instant {
        self.due.unwrap_or_default()
    }

    pub fn lived(&self, now: Instant) -> Lived {
        Lived((now - self.slept).0)
    }

    /// When, if nothing stalls, `then` will be `after` ago.
    pub fn when(&self, then: Lived, after: Duration) -> Instant {
        Instant(then.0) + self.slept + after
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn a_stall_postpones_silence_by_its_length() {
        let mut pulse = Pulse::default();
        pulse.beat(Instant(0), Duration::ZERO);
        let heard = pulse.lived(Instant(0));
        pulse.expect(Instant(100 * MS));
        let late = pulse.beat(Instant(900 * MS), Duration::from_millis(10));
        assert_eq!(late, Some(Duration::from_millis(800)));
        let lived = pulse.lived(Instant(900 * MS));
        assert_eq!(lived.since(heard), Duration::ZERO);
        assert_eq!(pulse.when(heard, Duration::from_millis(200)), Instant(1100 * MS));
    }

    #[test]
    fn lateness_within_the_grace_is_not_counted() {
        let mut pulse = Pulse::default();
        pulse.expect(Instant(100 * MS));
        assert_eq!(pulse.beat(Instant(105 * MS), Duration::from_millis(10)), None);
        assert_eq!(pulse.lived(Instant(105 * MS)), Lived(105 * MS));
    }
}
