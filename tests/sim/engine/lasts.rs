//! Until when an owner says that it may go on, against what it was really given, and whether it has
//! stopped by then.

use crate::rng::MS;
use crate::world::World;
use hafailover::core::Command;
use hafailover::core::heartbeat::Heartbeat;
use hafailover::core::name::{Epoch, GroupName};
use hafailover::core::policy::OnLost;
use hafailover::core::time::{Duration, Instant};
use std::collections::{BTreeMap, BTreeSet};

/// By whom something was given, to whom, for which group and epoch: the time of the receiver's own
/// from which it counts.
#[derive(Default)]
pub struct Given {
    /// By the arbiter.
    leases: BTreeMap<(usize, usize, Epoch), Instant>,
    vouchers: BTreeMap<(usize, usize, usize, Epoch), Instant>,
    /// By node, its boot, and group.
    cared: BTreeMap<(usize, u64, usize), Care>,
    /// By node, its daemon's life, and group: since when it has been seen to be over its time.
    over: BTreeMap<(usize, u64, usize), u64>,
}

/// What a node said, in one boot, of a group's maintenance.
#[derive(Default)]
struct Care {
    on: bool,
    lives: BTreeSet<u64>,
    /// Who heard it since it is on.
    heard: BTreeSet<usize>,
    /// When it first said that one everybody had heard of is no more.
    ended: Option<Instant>,
}

impl Given {
    pub fn lease(&mut self, n: usize, g: usize, epoch: Epoch, asked: Instant) {
        let entry = self.leases.entry((n, g, epoch)).or_default();
        *entry = asked.max(*entry);
    }
}

impl World {
    pub fn give_vouchers(&mut self, from: usize, beat: &Heartbeat) {
        for report in &beat.groups {
            let Some(epoch) = report.voucher else { continue };
            let (to, g) = (usize::from(epoch.node.0), self.group(&report.name));
            let stamp = beat.echoes.iter().filter(|e| e.peer == epoch.node).map(|e| e.stamp).max();
            if let Some(stamp) = stamp {
                let entry = self.given.vouchers.entry((from, to, g, epoch)).or_default();
                *entry = stamp.max(*entry);
            }
        }
    }

    /// Nobody takes what it last heard to be in maintenance.
    pub fn note_care(&mut self, n: usize, beat: &Heartbeat) {
        for report in &beat.groups {
            let says = says_care(beat, &report.name);
            let key = (n, self.nodes[n].boots, self.group(&report.name));
            let all = self.nodes.len() - 1;
            let care = self.given.cared.entry(key).or_default();
            if says && !care.on {
                care.heard.clear();
            } else if !says && care.on && care.heard.len() == all {
                care.ended = Some(beat.stamp);
            }
            care.on = says;
            care.lives.insert(beat.session.0);
        }
    }

    /// Called before node `m` hears it.
    pub fn note_care_heard(&mut self, m: usize, beat: &Heartbeat) {
        let n = usize::from(beat.from.0);
        let boot = self.nodes[n].boots;
        for (g, group) in self.options.groups.iter().enumerate() {
            let Some(care) = self.given.cared.get_mut(&(n, boot, g)) else { continue };
            if care.on && care.lives.contains(&beat.session.0) && says_care(beat, &group.name) {
                care.heard.insert(m);
            }
        }
    }

    /// The lease that there is after a maintenance begins no later.
    fn care_ended(&self, n: usize, g: usize) -> Option<Instant> {
        let care = self.given.cared.get(&(n, self.nodes[n].boots, g))?;
        if self.is_cared(n, g) { Some(self.nodes[n].now(self.t)) } else { care.ended }
    }

    /// In a maintenance that everybody has heard of no lease ends anything.
    fn is_cared(&self, n: usize, g: usize) -> bool {
        let care = self.given.cared.get(&(n, self.nodes[n].boots, g));
        care.is_some_and(|care| care.on && care.heard.len() + 1 == self.nodes.len())
    }

    /// It is being stopped, and whoever could has heard of a maintenance by now.
    pub fn is_parting(&self, n: usize) -> bool {
        let since = self.nodes[n].daemon.as_ref().and_then(|d| d.parting);
        let patience = self.options.deadtime();
        self.options.leases.is_some() && since.is_some_and(|at| self.t >= at + patience)
    }

    /// A daemon that was stopped, and not to be started again, leaves nothing that a lease ends.
    pub fn check_exit(&mut self, n: usize) {
        let parting = self.nodes[n].daemon.as_ref().is_some_and(|d| d.parting.is_some());
        if !parting || self.options.leases.is_none() {
            return;
        }
        for g in 0..self.options.groups.len() {
            let units = &self.nodes[n].units[g];
            if units.token.or(units.closed).is_some() && !self.is_cared(n, g) {
                let words = format!("g{g} is left here, and nobody ends it with its lease");
                return self.broken("StopsInTime", n, &words);
            }
        }
    }

    /// Until when the owner by this epoch may go on, at most, by what it was given.
    fn given_until(&self, n: usize, g: usize, epoch: Epoch) -> Instant {
        let lease = self.options.leases.as_ref().map(|l| l.times.lease).unwrap_or_default();
        let was = self.nodes[n].units[g].lasts_of(epoch);
        let granted = self.given.leases.get(&(n, g, epoch)).map(|at| *at + lease);
        let voucher = |m| self.given.vouchers.get(&(m, n, g, epoch)).map(|at| *at + lease);
        let others = (0..self.nodes.len()).filter(|m| *m != n);
        let vouched: Option<Vec<Instant>> = others.map(voucher).collect();
        let vouched = vouched.and_then(|all| all.into_iter().min());
        let cared = self.care_ended(n, g).map(|at| at + lease);
        was.max(granted).max(vouched).max(cared).unwrap_or_default()
    }

    /// A person's word takes the place of a voucher.
    fn has_confirmed(&self, n: usize) -> bool {
        let word = |c: &Command| matches!(c, Command::ConfirmDown { .. });
        self.rules.commanded.iter().any(|(by, _, command)| *by == n && word(command))
    }

    /// It writes down until when it may go on.
    pub fn note_lasts(&mut self, n: usize, g: usize, epoch: Epoch, until: Instant) {
        if self.options.leases.is_none() {
            return;
        }
        let most = self.given_until(n, g, epoch);
        if until > most + Duration::from_millis(1) && !self.has_confirmed(n) {
            let late = until.since(most);
            let words = format!("g{g}: goes on for {late:?} longer than anybody gave it");
            self.broken("LeaseTrue", n, &words);
        }
        self.nodes[n].units[g].lasts = Some((epoch, until));
    }

    /// Its watchdog may be fed until then, for all that it holds.
    pub fn check_fed(&mut self, n: usize, until: Instant) {
        for g in 0..self.options.groups.len() {
            let units = &self.nodes[n].units[g];
            let Some(epoch) = units.token.or(units.closed) else { continue };
            let most = self.given_until(n, g, epoch);
            let late = until > most + Duration::from_millis(1);
            if late && !self.is_cared(n, g) && !self.has_confirmed(n) {
                let words = format!("g{g}: its watchdog is fed for longer than anybody gave it");
                return self.broken("LeaseTrue", n, &words);
            }
        }
    }

    /// An owner begins to stop before its time is over, and what has not stopped is reset.
    pub fn check_in_time(&mut self, n: usize) {
        let Some(leases) = &self.options.leases else { return };
        let times = leases.times.clone();
        // It is written down in steps.
        let mut slack = times.lease / 10 + Duration::from_nanos(100 * MS);
        if self.options.safety.on_lost == OnLost::Leave {
            // Its watchdog alone resets it, and was fed until then.
            slack += Duration::from_nanos(self.watchdog().unwrap_or_default());
        }
        let now = self.nodes[n].now(self.t);
        for g in 0..self.options.groups.len() {
            let units = &self.nodes[n].units[g];
            let token = units.token.or(units.closed);
            let Some(until) = token.and_then(|epoch| units.lasts_of(epoch)) else { continue };
            let runs = "R>".contains(self.rules.phase[n][g]);
            let stops = self.rules.stops[n][g].since.filter(|_| !runs);
            let early = runs || stops.is_some();
            let rest = if early { Duration::ZERO } else { times.most - times.lease };
            let budget = self.options.groups[g].policy.stop_budget.as_nanos() as u64;
            let due = stops.map_or(0, |at| at + budget * 102 / 100 + 100 * MS);
            let key = (n, self.nodes[n].life, g);
            if now <= until + rest + slack || self.t <= due || self.in_maintenance(n, g) {
                self.given.over.remove(&key);
                continue;
            }
            // A daemon that has just come back, or was just told, has not yet acted.
            let awake = self.nodes[n].frozen.max(self.nodes[n].daemon_frozen);
            let since = self.given.over.entry(key).or_insert(self.t);
            *since = awake.max(*since);
            if self.t > *since + 500 * MS {
                let over = now.since(until);
                let words = format!("g{g}: its lease is over since {over:?}, and it is here");
                return self.broken("StopsInTime", n, &words);
            }
        }
    }
}

fn says_care(beat: &Heartbeat, name: &GroupName) -> bool {
    let wish = beat.groups.iter().find(|r| r.name == *name).map(|r| r.wish.value);
    beat.wishes.maintenance.value || wish.unwrap_or_default().maintenance
}
