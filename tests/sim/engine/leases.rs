//! Leases at an arbiter: the shipped witness's own table behind a network of its own, which loses,
//! delays and doubles; a machine of its own that restarts, forgets, and has its own clock. And what
//! somebody who sees everything says of a start on a lease that is over.

use crate::clock::Clock;
use crate::options::Options;
use crate::rng::MS;
use crate::world::{Next, World};
use hafailover::core::grant::{Ask, Grants, Verdict};
use hafailover::core::heartbeat::{Heartbeat, Held};
use hafailover::core::name::{Epoch, GroupName};
use hafailover::core::time::Instant;
use hafailover::core::{Event, LeaseAnswer, LeaseVerb};
use std::collections::{BTreeMap, BTreeSet};

/// Within the slack of the waiting time.
const NAP: u64 = 100 * MS;

pub struct Arbiter {
    grants: Grants,
    clock: Clock,
    /// Nobody reaches it before.
    lost_until: u64,
    /// By node: it does not reach it before; its answers do not come back before.
    cut_until: Vec<u64>,
    mute_until: Vec<u64>,
    slow_until: u64,
    /// What was granted last, and when it was asked for: by node, group and epoch.
    granted: BTreeMap<(usize, usize, Epoch), u64>,
    /// By node and group: when it last vouched for somebody.
    vouched: Vec<Vec<u64>>,
    /// By node: from when to when its whole machine stood still last.
    slept: Vec<(u64, u64)>,
    /// By node: from when on its daemon was away or hung, each time.
    away: Vec<Vec<u64>>,
    newest: Vec<Option<Newest>>,
    /// Groups that are held since the arbiter was lost.
    orphans: BTreeSet<(usize, usize)>,
}

/// The newest grant of a group.
#[derive(Clone, Copy, Debug)]
struct Newest {
    to: usize,
    epoch: Epoch,
    at: u64,
    /// It was given back; the arbiter has lost its memory since.
    over: bool,
    forgotten: bool,
}

/// A question on its way.
#[derive(Clone, Debug)]
pub struct Question {
    node: usize,
    life: u64,
    group: usize,
    ticket: u64,
    ask: Ask,
    asked: Instant,
    sent: u64,
    /// Its answer reaches the node after so long; `None`: never.
    back: Option<u64>,
}

impl Arbiter {
    pub fn of(options: &Options) -> Arbiter {
        let (nodes, groups) = (options.nodes, options.groups.len());
        let ppm = options.leases.as_ref().map_or(0, |leases| leases.drift);
        Arbiter {
            grants: Grants::new(Instant(0), Some(BTreeMap::new()), std::time::Duration::ZERO),
            clock: Clock::boot(0, 0, ppm),
            lost_until: 0,
            cut_until: vec![0; nodes],
            mute_until: vec![0; nodes],
            slow_until: 0,
            granted: BTreeMap::new(),
            vouched: vec![vec![0; groups]; nodes],
            slept: vec![(0, 0); nodes],
            away: vec![Vec::new(); nodes],
            newest: vec![None; groups],
            orphans: BTreeSet::new(),
        }
    }

    pub fn heal(&mut self) {
        (self.lost_until, self.slow_until) = (0, 0);
        self.cut_until.fill(0);
        self.mute_until.fill(0);
    }
}

/// What befalls the arbiter and the ways to it.
impl World {
    pub fn ask_arbiter(&mut self, n: usize, group: &GroupName, epoch: Epoch, q: (u64, LeaseVerb)) {
        let (ticket, verb) = q;
        let g = self.group(group);
        let times = self.options.policy(n).lease.expect("settings with an arbiter");
        let limit = times.limit().as_nanos() as u64;
        let t = self.t;
        let life = self.nodes[n].life;
        let slow = t < self.arbiter.slow_until;
        let most = if slow { limit * 2 } else { limit / 2 };
        let (there, back) = (self.rng.range(MS / 5, most), self.rng.range(MS / 5, most));
        let reached = t >= self.arbiter.lost_until && t >= self.arbiter.cut_until[n];
        let heard = t >= self.arbiter.mute_until[n] && there + back < limit;
        let name = format!("n{}", n + 1);
        let ask = Ask { node: name, group: group.clone(), epoch, verb, term: times.wait };
        let back = heard.then_some(back);
        let asked = self.nodes[n].now(t);
        let question = Question { node: n, life, group: g, ticket, ask, asked, sent: t, back };
        if reached && !self.quiet && self.rng.chance(50) {
            let again = self.rng.range(0, limit * 8);
            let question = Question { back: None, ..question.clone() };
            self.later(there + again, Next::Arbiter { question });
        }
        if reached {
            self.later(there, Next::Arbiter { question });
        }
        if !reached || back.is_none() {
            let answer = LeaseAnswer::Unknown("no answer in time".into());
            let event = Event::Leased { group: group.clone(), ticket, answer };
            self.later(limit, Next::Tell { node: n, life, event });
        }
    }

    pub fn arbiter_hears(&mut self, question: Question) {
        let Question { node: n, life, group: g, ticket, ask, asked, sent, back } = question;
        let now = self.arbiter.clock.now(self.t);
        let verdict = self.arbiter.grants.ask(now, &ask);
        let answer = match verdict {
            Verdict::Granted => {
                self.check_grant(n, g, &ask);
                if ask.verb != LeaseVerb::Release {
                    self.cover.hit("lease granted");
                    let last = self.arbiter.granted.entry((n, g, ask.epoch)).or_default();
                    *last = sent.max(*last);
                    self.given.lease(n, g, ask.epoch, asked);
                }
                LeaseAnswer::Granted
            }
            Verdict::Refused { why, top } => {
                self.cover.hit("lease refused");
                LeaseAnswer::Refused { why, top }
            }
        };
        if let Some(back) = back {
            let event = Event::Leased { group: ask.group, ticket, answer };
            self.later(back, Next::Tell { node: n, life, event });
        }
    }

    /// Something happens to it, or to the way of a node to it.
    pub fn strike_arbiter(&mut self, n: usize) {
        let Some(times) = self.options.policy(n).lease else { return };
        if self.nodes[n].dog.is_some() && self.rng.chance(300) {
            return self.doom(n);
        }
        let lease = times.lease.as_nanos() as u64;
        let lasts = self.t + self.rng.range(lease / 4, lease * 3);
        match self.rng.below(7) {
            0 | 1 => {
                self.note(n, "ARBITER lost");
                self.cover.hit("arbiter lost");
                self.arbiter.lost_until = self.arbiter.lost_until.max(lasts);
                let held = |n: usize| (0..self.options.groups.len()).map(move |g| (n, g));
                let all = (0..self.nodes.len()).flat_map(held);
                self.arbiter.orphans = all.filter(|(n, g)| self.rules.holds[*n][*g]).collect();
                self.at(lasts, Next::ArbiterBack { lasted: lasts - self.t });
            }
            2 | 3 => {
                self.note(n, "ARBITER cut from it");
                self.arbiter.cut_until[n] = lasts;
            }
            4 => {
                self.note(n, "ARBITER mute to it");
                self.arbiter.mute_until[n] = lasts;
            }
            5 => {
                self.note(n, "ARBITER slow");
                self.arbiter.slow_until = lasts;
            }
            _ => self.restart_arbiter(n),
        }
    }

    fn restart_arbiter(&mut self, n: usize) {
        let now = self.arbiter.clock.now(self.t);
        let longest = self.options.policy(n).lease.map(|times| times.wait).unwrap_or_default();
        let kept = if self.rng.chance(700) {
            self.cover.hit("arbiter restarted");
            // Nothing was ever written: it knows as little as one that lost it.
            Some(self.arbiter.grants.kept().clone()).filter(|kept| !kept.is_empty())
        } else {
            self.cover.hit("arbiter lost its memory");
            self.arbiter.newest.iter_mut().flatten().for_each(|of| of.forgotten = true);
            None
        };
        self.note(n, &format!("ARBITER restarts, memory kept: {}", kept.is_some()));
        self.arbiter.grants = Grants::new(now, kept, longest);
    }

    pub fn arbiter_back(&mut self, lasted: u64) {
        let lease = self.options.leases.as_ref().map_or(0, |l| l.times.lease.as_nanos() as u64);
        if self.t < self.arbiter.lost_until || lasted < lease * 3 / 2 {
            return;
        }
        if self.arbiter.orphans.iter().any(|(n, g)| self.rules.holds[*n][*g]) {
            self.cover.hit("owner lived on vouchers");
        }
    }

    /// All that a node has: its links, and the arbiter.
    pub fn cut_from_arbiter(&mut self, n: usize, until: u64) {
        if self.options.leases.is_some() && self.rng.chance(600) {
            self.cut_arbiter(n, until);
            self.cover.hit("cut from peers and arbiter");
        }
    }

    pub fn cut_arbiter(&mut self, n: usize, until: u64) {
        self.arbiter.cut_until[n] = self.arbiter.cut_until[n].max(until);
    }

    /// systemd's watchdog ends a daemon that hangs, and starts the next.
    pub fn hung(&mut self, n: usize, life: u64) {
        if self.nodes[n].life == life && self.t < self.nodes[n].daemon_frozen {
            self.cover.hit("hung daemon ended");
            self.note(n, "systemd's watchdog ends the daemon");
            // It is the same absence.
            self.arbiter.away[n].pop();
            self.kill(n);
        }
    }

    pub fn away(&mut self, n: usize) {
        let t = self.t;
        self.arbiter.away[n].push(t);
    }

    pub fn slept(&mut self, n: usize, from: u64, to: u64) {
        let slept = &mut self.arbiter.slept[n];
        *slept = if from <= slept.1 { (slept.0, to.max(slept.1)) } else { (from, to) };
    }
}

/// Judged by somebody who sees everything.
impl World {
    pub fn note_vouched(&mut self, n: usize, beat: &Heartbeat) {
        for report in beat.groups.iter().filter(|r| r.voucher.is_some()) {
            let g = self.group(&report.name);
            self.arbiter.vouched[n][g] = self.t;
            if self.rules.holds[n][g] || report.claim.is_some() {
                self.broken("VouchedIdle", n, &format!("g{g}: vouches while it is not idle"));
            }
        }
    }

    /// One has it at a time, and epochs grow.
    fn check_grant(&mut self, n: usize, g: usize, ask: &Ask) {
        let newest = &mut self.arbiter.newest[g];
        let wait = ask.term.as_nanos() as u64 * 98 / 100;
        if ask.verb == LeaseVerb::Release {
            if let Some(newest) = newest.as_mut().filter(|of| (of.to, of.epoch) == (n, ask.epoch)) {
                newest.over = true;
            }
            return;
        }
        let now = Newest { to: n, epoch: ask.epoch, at: self.t, over: false, forgotten: false };
        let Some(was) = newest.replace(now) else { return };
        let same = (was.to, was.epoch) == (n, ask.epoch);
        let words = format!("g{g}: {} after {} of n{}", ask.epoch, was.epoch, was.to + 1);
        if !was.forgotten && (ask.epoch < was.epoch || same && was.over) {
            self.broken("TokenGrows", n, &words);
        } else if !same && !was.over && self.t < was.at + wait {
            self.broken("OneLease", n, &words);
        }
    }

    /// Why a start on an expired lease is wrong.
    pub fn wrong_expiry(&self, n: usize, m: usize, g: usize, epoch: Epoch) -> Option<String> {
        let times = &self.options.leases.as_ref()?.times;
        let clocks = self.nodes[n].jumped || self.nodes[n].paused;
        let (lease, wait) = (times.lease.as_nanos() as u64, times.wait.as_nanos() as u64);
        let asked = self.arbiter.granted.get(&(n, g, epoch)).copied();
        if asked.is_none_or(|asked| self.t > asked + lease * 102 / 100 && !clocks) {
            return Some("the arbiter has not granted it, or it is over".into());
        }
        let vouched = self.arbiter.vouched[n][g];
        if vouched > 0 && self.t < vouched + wait * 98 / 100 && !clocks {
            let ms = (self.t - vouched) / MS;
            return Some(format!("it vouched for somebody {ms} ms ago"));
        }
        let report = self.rules.contact[n][m].report(&self.options.groups[g].name);
        let cared = report.is_some_and(|r| r.held != Held::No && r.wish.value.maintenance);
        cared.then(|| "it was last heard in maintenance".to_string())
    }

    /// Two owners on a lease are nobody's mistake where a whole machine stood still, a daemon was
    /// away once more in the time that is left for that once, a clock showed what was not so, or a
    /// person was wrong. A watchdog ends all but the last two.
    pub fn is_frozen_excuse(&self, n: usize, m: usize) -> bool {
        let Some(leases) = &self.options.leases else { return false };
        let window = leases.times.wait.as_nanos() as u64 * 11 / 10;
        let (from, to) = self.arbiter.slept[m];
        let slept = to.min(self.t).saturating_sub(from) >= NAP && to + window >= self.t;
        let times = self.arbiter.away[m].iter().filter(|at| **at + window >= self.t).count();
        let away = (slept || times > 1) && leases.watchdog.is_none();
        // A person's word took the place of its voucher.
        let called = self.is_called_down(m, n);
        away || called || self.nodes[m].paused || self.nodes[n].jumped || self.nodes[n].paused
    }

    /// What the node may live on is over by its own clock, and it still has the group.
    pub fn outlives_lease(&self, n: usize, g: usize) -> bool {
        let lasts = self.nodes[n].units[g].lasts.map(|(_, until)| until);
        let over = lasts.is_none_or(|at| self.nodes[n].now(self.t) >= at);
        self.options.leases.is_some() && over
    }

    /// In maintenance a lost lease ends a group, unless every other node has heard of that.
    pub fn is_lease_over(&self, n: usize, g: usize) -> bool {
        let budget = self.options.groups[g].policy.stop_budget;
        let lasts = self.nodes[n].units[g].lasts.map(|(_, until)| until);
        self.options.leases.is_some()
            && lasts.is_none_or(|at| self.nodes[n].now(self.t) + budget >= at)
    }
}
