//! When a counter begins to grow: what comes in bursts is told once a burst.

use crate::core::time::{Duration, Instant};

/// A burst has ended when nothing came for so long.
const QUIET: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, Default)]
pub struct Burst {
    total: u64,
    last: Option<Instant>,
}

impl Burst {
    /// Looks at the counter now; whether a burst has begun since the last look.
    pub fn begins(&mut self, now: Instant, total: u64) -> bool {
        if total <= self.total {
            return false;
        }
        self.total = total;
        let before = self.last.replace(now);
        before.is_none_or(|last| now.since(last) >= QUIET)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_told_once_and_the_next_one_again() {
        let mut burst = Burst::default();
        let at = |s: u64| Instant::default() + Duration::from_secs(s);
        assert!(!burst.begins(at(1), 0), "nothing came");
        assert!(burst.begins(at(2), 3));
        assert!(!burst.begins(at(3), 4) && !burst.begins(at(60), 5), "the same burst");
        assert!(!burst.begins(at(119), 5) && !burst.begins(at(119), 6), "still the same");
        assert!(burst.begins(at(179), 7));
    }
}
