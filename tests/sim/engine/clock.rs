//! A node's CLOCK_BOOTTIME: starts anew at boot, drifts, jumps ahead, and stands still while a
//! hypervisor pauses the machine. Never goes back.

use hafailover::core::time::Instant;

#[derive(Clone, Debug)]
pub struct Clock {
    at: u64,
    shown: u64,
    rate: f64,
    stopped: bool,
}

impl Clock {
    pub fn boot(t: u64, shown: u64, ppm: i64) -> Clock {
        Clock { at: t, shown, rate: 1.0 + ppm as f64 / 1e6, stopped: false }
    }

    pub fn now(&self, t: u64) -> Instant {
        let run = if self.stopped { 0.0 } else { (t - self.at) as f64 * self.rate };
        Instant(self.shown + run as u64)
    }

    /// When, if nothing happens to it, the clock shows this.
    pub fn when(&self, t: u64, due: Instant) -> u64 {
        let left = due.since(self.now(t)).as_nanos() as f64 / self.rate;
        t + left.ceil() as u64
    }

    pub fn jump(&mut self, t: u64, by: u64) {
        self.settle(t);
        self.shown += by;
    }

    pub fn stop(&mut self, t: u64) {
        self.settle(t);
        self.stopped = true;
    }

    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    pub fn go_on(&mut self, t: u64) {
        self.settle(t);
        self.stopped = false;
    }

    fn settle(&mut self, t: u64) {
        self.shown = self.now(t).0;
        self.at = t;
    }
}
