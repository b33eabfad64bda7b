//! The one place that reads a clock. CLOCK_BOOTTIME counts suspended time, so a gap cannot hide;
//! see clock_gettime(2).

use crate::core::time::{Duration, Instant};
use rustix::time::{ClockId, clock_gettime};

/// Now, on CLOCK_BOOTTIME.
pub fn now() -> Instant {
    read(ClockId::Boottime)
}

/// Now, in microseconds of CLOCK_MONOTONIC, which systemd's timestamps count.
pub fn monotonic_usec() -> u64 {
    read(ClockId::Monotonic).0 / 1000
}

/// How long the machine has been suspended since boot: BOOTTIME less MONOTONIC.
pub fn suspended() -> Duration {
    read(ClockId::Boottime).since(read(ClockId::Monotonic))
}

fn read(id: ClockId) -> Instant {
    let t = clock_gettime(id);
    Instant(t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64)
}
