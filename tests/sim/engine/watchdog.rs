//! Hardware watchdogs that live on the leases: the shipped core says until when each is fed, a
//! feeder as `io::watchdog::feeder` does it, and a device that resets the machine whatever runs or
//! stands still there.

use crate::rng::MS;
use crate::world::{Next, World};
use hafailover::core::name::GroupName;
use hafailover::core::time::Instant;
use hafailover::core::watchdog::Feed;

/// A device that counts.
#[derive(Clone, Debug)]
pub struct Dog {
    until: Instant,
    fed: u64,
    /// At its last look the feeder did not feed it.
    starved: bool,
    /// The machine stood still between the feeder's look and its act.
    looked: bool,
    /// See [`World::doom`].
    doomed: bool,
}

impl Dog {
    fn new(until: Instant, fed: u64) -> Dog {
        Dog { until, fed, starved: false, looked: false, doomed: false }
    }
}

impl World {
    /// After whatever happened, before its actions are carried out, as `daemon::Daemon::happen`.
    pub fn tell_watchdog(&mut self, n: usize) {
        let Some(timeout) = self.watchdog() else { return };
        let now = self.nodes[n].now(self.t);
        let Some(daemon) = &self.nodes[n].daemon else { return };
        let token = |name: &GroupName| {
            let units = &self.nodes[n].units[self.group(name)];
            units.token.or(units.closed).is_some()
        };
        let feed = daemon.core.feed(now, token);
        if let Feed::Until(until) = feed {
            self.check_fed(n, until);
        }
        match feed {
            Feed::Keep => {}
            Feed::Until(until) => match &mut self.nodes[n].dog {
                Some(dog) => {
                    dog.until = until;
                    if dog.starved && now < until {
                        self.fill(n, timeout);
                    }
                }
                None => {
                    let fed = self.t;
                    self.nodes[n].dog = Some(Dog::new(until, fed));
                    self.later(timeout, Next::Bite { node: n, fed });
                    let boot = self.nodes[n].boots;
                    self.later(timeout / 5, Next::Feed { node: n, boot });
                }
            },
            Feed::End => self.end_watchdog(n),
        }
    }

    fn fill(&mut self, n: usize, timeout: u64) {
        let fed = self.t;
        if let Some(dog) = &mut self.nodes[n].dog {
            (dog.fed, dog.starved) = (fed, false);
            self.later(timeout, Next::Bite { node: n, fed });
        }
    }

    pub fn watchdog(&self) -> Option<u64> {
        self.options.leases.as_ref()?.watchdog
    }

    pub fn end_watchdog(&mut self, n: usize) {
        if self.nodes[n].dog.take().is_some() {
            let held = (0..self.options.groups.len()).find(|g| self.nodes[n].units[*g].held());
            if let Some(g) = held {
                self.broken("Guarded", n, &format!("g{g}: held, and no watchdog counts"));
            }
        }
    }

    /// What is started by a token is started under a watchdog.
    pub fn check_guarded(&mut self, n: usize, g: usize) {
        if self.watchdog().is_some() && self.nodes[n].dog.is_none() {
            self.broken("Guarded", n, &format!("g{g}: starts, and no watchdog counts"));
        }
    }

    /// A machine stands still from now on: perhaps in the worst moment.
    pub fn freeze_feeder(&mut self, n: usize) {
        let (now, worst) = (self.nodes[n].now(self.t), self.rng.chance(500));
        if let Some(dog) = &mut self.nodes[n].dog {
            dog.looked = (worst || dog.doomed) && now < dog.until;
        }
    }

    pub fn feed(&mut self, n: usize, boot: u64) {
        let Some(timeout) = self.watchdog() else { return };
        let now = self.nodes[n].now(self.t);
        if self.nodes[n].boots != boot {
            return;
        }
        let Some(dog) = &mut self.nodes[n].dog else { return };
        let late = std::mem::take(&mut dog.looked);
        dog.starved = !late && now >= dog.until;
        if !dog.starved {
            self.fill(n, timeout);
        }
        if late {
            self.cover.hit("watchdog fed by an old look");
        }
        self.later(timeout / 5, Next::Feed { node: n, boot });
        self.end_badly(n, timeout);
    }

    /// What is owned there is renewed no more, and what comes is the worst end of it.
    pub fn doom(&mut self, n: usize) {
        let (Some(dog), Some(leases)) = (&mut self.nodes[n].dog, &self.options.leases) else {
            return;
        };
        dog.doomed = true;
        let until = self.t + 2 * leases.times.wait.as_nanos() as u64;
        self.note(n, "FAULT cut from all, and its watchdog will be fed too late");
        self.cut_off(n, until);
    }

    /// The daemon dies before it begins to stop; the machine stands still between the feeder's
    /// last look and its act, for nearly as long as the device allows.
    fn end_badly(&mut self, n: usize, timeout: u64) {
        let Some(dog) = self.nodes[n].dog.as_ref().filter(|dog| dog.doomed) else { return };
        let left = dog.until.0.saturating_sub(self.nodes[n].now(self.t).0);
        let groups = self.options.groups.iter();
        let stop = groups.map(|g| g.policy.stop_budget.as_nanos() as u64).max().unwrap_or_default();
        if left == 0 || self.quiet {
            return;
        }
        if left < timeout / 5 {
            let lasts = self.rng.range(timeout * 7 / 10, timeout * 99 / 100);
            self.freeze(n, lasts, "freeze at the feeder's last look");
        } else if left < stop + timeout / 4 && self.nodes[n].daemon.is_some() {
            self.end_daemon(n);
            let boot = self.nodes[n].boots;
            self.later(left + 3 * timeout, Next::Daemon { node: n, boot });
        }
    }

    /// Its time is over, if it was not fed since then.
    pub fn bite(&mut self, n: usize, fed: u64) {
        let node = &self.nodes[n];
        let Some(dog) = node.dog.as_ref().filter(|dog| dog.fed == fed) else { return };
        if node.clock.is_stopped() {
            // The whole machine is paused, and its watchdog with it.
            let after = node.frozen.saturating_sub(self.t) + MS;
            return self.later(after, Next::Bite { node: n, fed });
        }
        let still = self.t < node.frozen;
        if !still && node.now(self.t) < dog.until {
            self.broken("HandsOff", n, "the watchdog resets what may go on");
        }
        self.note(n, "WATCHDOG resets the machine");
        self.cover.hit(match still {
            true => "watchdog reset a frozen machine",
            false => "watchdog reset a machine that went on",
        });
        let off = self.rng.ms(300, 3000);
        self.power_off(n, off);
    }
}
