//! Quorum: an owner that no majority can hear has begun to stop in time, and a majority has waited
//! for it; judged by what the wire really brought.

use crate::checks::by_silence;
use crate::rng::MS;
use crate::world::World;
use hafailover::core::Command;
use hafailover::core::heartbeat::{Heartbeat, Phase};
use hafailover::core::name::{Epoch, NodeId};

impl World {
    /// When a majority, `n` among it, had last heard something of `n`: of all, who are counted
    /// until they are surely down, or of those that are left.
    pub fn majority_reached(&self, n: usize) -> u64 {
        let others = (0..self.nodes.len()).filter(|k| *k != n);
        let left = others.clone().filter(|k| !self.is_called_down(n, *k));
        self.most_reached(n, others).max(self.most_reached(n, left))
    }

    fn most_reached(&self, n: usize, others: impl Iterator<Item = usize>) -> u64 {
        let mut reached: Vec<u64> = others.map(|k| self.rules.reached[k][n]).collect();
        reached.sort_by(|a, b| b.cmp(a));
        // So many others make a majority of them and it.
        let most = reached.len().div_ceil(2);
        most.checked_sub(1).map_or(self.t, |last| reached[last])
    }

    /// A person there has called it down, or a fence has made sure of it, and it was not heard
    /// since.
    pub fn is_called_down(&self, n: usize, k: usize) -> bool {
        let heard = self.rules.contact[n][k].sent;
        let k = NodeId(k as u8);
        let called = |c: &Command| matches!(c, Command::ConfirmDown { node } if *node == k);
        let said = |(by, at, c): &(usize, u64, Command)| *by == n && *at >= heard && called(c);
        let fence = self.rules.fenced[n][usize::from(k.0)].as_ref();
        let fenced = fence.is_some_and(|f| f.ended_at >= heard);
        fenced || self.rules.commanded.iter().any(said)
    }

    /// What a node says that it runs, when by the promised bound it must have begun to stop.
    pub fn check_outvoted(&mut self, n: usize, beat: &Heartbeat) {
        let Some(daemon) = self.nodes[n].daemon.as_ref().filter(|_| self.options.outvotes()) else {
            return;
        };
        let last = self.majority_reached(n).max(self.nodes[n].last_stall);
        let last = last.max(self.rules.counts_again[n]);
        let (keepalive, deadtime) = (self.options.keepalive(), self.options.deadtime());
        let bound = deadtime * 51 / 50 + keepalive * 4 + 20 * MS;
        // A new daemon need not wait for so long.
        let young = bound.min(keepalive * 7 * 51 / 50 + 20 * MS);
        let due = (last + bound).max(daemon.began + young);
        let odd = self.nodes[n].paused || self.nodes[n].jumped || self.was_told_down(n);
        if odd || self.t <= due || self.nodes[n].files.is_some() {
            return;
        }
        for report in &beat.groups {
            let runs = matches!(report.phase, Phase::Running | Phase::Starting);
            let g = self.group(&report.name);
            if runs && !self.in_maintenance(n, g) {
                let ms = (self.t - last) / MS;
                let words = format!("runs g{g} though no majority heard it for {ms} ms");
                self.broken("Outvoted", n, &words);
            }
        }
    }

    /// A person's word takes votes away from the count.
    fn was_told_down(&self, n: usize) -> bool {
        let down = |c: &Command| matches!(c, Command::ConfirmDown { .. });
        self.rules.commanded.iter().any(|(by, _, command)| *by == n && down(command))
    }

    /// Nothing is started by a node that no majority hears.
    pub fn check_votes(&mut self, n: usize, g: usize) {
        let Some(daemon) = self.nodes[n].daemon.as_ref().filter(|_| self.options.outvotes()) else {
            return;
        };
        let last = self.majority_reached(n).max(daemon.began).max(self.nodes[n].last_stall);
        let odd = self.nodes[n].paused || self.nodes[n].jumped || self.was_told_down(n);
        let bound = self.options.deadtime() * 51 / 50 + 20 * MS;
        if !odd && self.nodes[n].files.is_none() && self.t - last > bound {
            let ms = (self.t - last) / MS;
            let words = format!("g{g}: starts though no majority heard it for {ms} ms");
            self.broken("Outvoted", n, &words);
        }
    }

    /// A start on silence comes after the time that an owner in a minority has for its stop,
    /// unless the owner right before has let go: nobody else can have owned it in between.
    pub fn check_waited(&mut self, n: usize, g: usize, epoch: Epoch) {
        let proof = &self.rules.proof[n][g];
        let silent = proof.iter().any(|w| by_silence(w) && !w.starts_with("Operator"));
        let given = self.rules.given[g].contains(&epoch);
        let odd = self.nodes[n].paused || self.nodes[n].jumped || self.nodes[n].files.is_some();
        if !self.options.outvotes() || !silent || given || odd {
            return;
        }
        self.cover.hit("waited for the stop of a minority");
        let waited = self.t - self.rules.announced_at[n][g];
        let budget = self.options.groups[g].policy.stop_budget.as_nanos() as u64;
        if waited < budget + 2 * self.options.keepalive() {
            let words = format!("g{g}: an owner in a minority had {} ms to stop", waited / MS);
            self.broken("Outvoted", n, &words);
        }
    }
}
