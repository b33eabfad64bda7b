//! Agents that switch machines off: honest ones, some that fail, hang or lie, and what somebody who
//! sees everything says of whom they were sent to.

use crate::options::Agents;
use crate::rng::MS;
use crate::world::{Next, World};
use hafailover::core::heartbeat::{Held, Phase};
use hafailover::core::name::NodeId;
use hafailover::core::policy::OnSilence;
use hafailover::core::time::Instant;
use hafailover::core::{Event, FenceState};

/// A fence of one node by another that said that it ended well.
#[derive(Clone, Debug)]
pub struct Proof {
    /// In that life of its daemon.
    pub life: u64,
    pub began: Instant,
    pub began_at: u64,
    pub ended_at: u64,
    /// The node runs on: the agent lied, or cut it from its storage alone.
    pub lives: bool,
}

/// An agent under way.
#[derive(Clone, Copy, Debug)]
pub struct Ordered {
    target: usize,
    id: u64,
    /// The daemon that sent it.
    life: u64,
    hangs: bool,
}

impl World {
    pub fn order_fence(&mut self, n: usize, node: NodeId, id: u64) {
        let m = usize::from(node.0);
        if self.rules.person != (n, self.t) {
            self.check_fence(n, m);
        }
        let (boot, life) = (self.nodes[n].boots, self.nodes[n].life);
        let (began, began_at) = (self.nodes[n].now(self.t), self.t);
        let proof = Proof { life, began, began_at, ended_at: 0, lives: false };
        self.rules.fencing.insert((n, m), (id, proof));
        let agents = self.options.fences.as_ref().map_or(Agents::Honest, |f| f.agents);
        let hangs = agents == Agents::Flaky && !self.quiet && self.rng.chance(150);
        let after = if hangs { 3000 * MS } else { self.rng.ms(50, 900) };
        let fence = Ordered { target: m, id, life, hangs };
        self.later(after, Next::Fence { node: n, boot, fence });
    }

    pub fn end_fence(&mut self, n: usize, node: NodeId) {
        self.cover.hit("fence ended because its node was heard");
        self.rules.fencing.remove(&(n, usize::from(node.0)));
    }

    pub fn try_fence(&mut self, n: usize, node: NodeId, id: u64) {
        let agents = self.options.fences.as_ref().map_or(Agents::Honest, |f| f.agents);
        let bad = agents == Agents::Flaky && self.rng.chance(300);
        let result = if bad { Err("no answer".into()) } else { Ok(FenceState::On) };
        let (life, after) = (self.nodes[n].life, self.rng.ms(5, 300));
        let event = Event::FenceTried { node, id, result };
        self.later(after, Next::Tell { node: n, life, event });
    }

    pub fn fence_acts(&mut self, n: usize, boot: u64, fence: Ordered) {
        let Ordered { target: m, id, life, hangs } = fence;
        if !self.nodes[n].on || self.nodes[n].boots != boot {
            return;
        }
        let order = self
            .rules
            .fencing
            .remove(&(n, m))
            .filter(|(of, proof)| (*of, proof.life) == (id, life));
        let agents = self.options.fences.as_ref().map_or(Agents::Honest, |f| f.agents);
        let result = match order {
            None => Err("it was ended".to_string()),
            Some(_) if hangs => Err("not done in time".into()),
            Some((_, proof)) if agents == Agents::Lying && !self.quiet => {
                let proof = Proof { lives: true, ended_at: self.t, ..proof };
                self.rules.fenced[n][m] = Some(proof);
                Ok(())
            }
            Some((_, proof)) if agents == Agents::Storage => {
                self.cover.hit("node cut from its storage");
                let proof = Proof { lives: true, ended_at: self.t, ..proof };
                self.rules.fenced[n][m] = Some(proof);
                Ok(())
            }
            Some(_) if agents == Agents::Flaky && !self.quiet && self.rng.chance(300) => {
                // It may have done it all the same.
                if self.rng.chance(300) {
                    self.switch_off(m);
                }
                Err("connection refused".into())
            }
            Some((_, proof)) => {
                self.switch_off(m);
                self.rules.fenced[n][m] = Some(Proof { ended_at: self.t, ..proof });
                Ok(())
            }
        };
        if result.is_ok() {
            self.rules.tries[n][m].1 = 0;
        }
        let (node, after) = (NodeId(m as u8), self.rng.ms(5, 200));
        self.later(after, Next::Tell { node: n, life, event: Event::Fenced { node, id, result } });
    }

    fn switch_off(&mut self, m: usize) {
        self.cover.hit("machine switched off by its fence");
        let off = self.rng.ms(800, 6000);
        self.power_off(m, off);
    }

    /// Whom it should not have sent an agent to.
    fn check_fence(&mut self, n: usize, m: usize) {
        let lived = self.nodes[n].lived(self.t);
        let deadtime = self.options.deadtime();
        let contact = &self.rules.contact[n][m];
        let near = contact.near.map(|at| lived.saturating_sub(at));
        // A stall in which the loop only waits for its timer cannot be noticed.
        let least = (deadtime * 17 / 20).min(deadtime - self.options.keepalive() * 5 / 4);
        if let Some(near) = near.filter(|near| *near < least) {
            let words = format!("fences n{}, heard {} ms ago", m + 1, near / MS);
            return self.broken("NoStaleAct", n, &words);
        }
        if let Some(beat) = &contact.beat {
            let held = beat.groups.iter().any(|g| g.held != Held::No);
            // A guard knows the groups that are enabled there.
            let told = |g: usize| beat.groups.iter().any(|r| r.name == self.options.groups[g].name);
            let guarded = !beat.mood.guarding || (0..self.options.groups.len()).all(told);
            if beat.mood.leaving && !held && guarded {
                let words = format!("fences n{}, which left and held nothing", m + 1);
                return self.broken("HandsOff", n, &words);
            }
            if let (Some(back), Some(near)) = (beat.mood.restarting, near)
                && near < (back.as_nanos() as u64 + deadtime) / 20 * 17
            {
                return self.broken("HandsOff", n, &format!("fences n{}, which restarts", m + 1));
            }
        }
        let view = self.core(n).map(|core| core.view(self.nodes[n].now(self.t)));
        if view.is_some_and(|view| view.maintenance) {
            return self.broken("HandsOff", n, &format!("fences n{} in maintenance", m + 1));
        }
        self.check_turn(n, m, near);
        if let Some(why) = self.no_silence(n, m).filter(|why| why.contains("still hears")) {
            let words = format!("fences n{} though {why}", m + 1);
            return self.broken("EvidenceFirst", n, &words);
        }
        self.check_side(n, m);
        self.check_attempts(n, m);
    }

    /// Of three nodes and more a minority fences nobody, and half of those that are not surely down
    /// only where others are; judged by what the wire brought, in the fencer's favour.
    fn check_side(&mut self, n: usize, m: usize) {
        let deadtime = self.options.deadtime();
        let others = || (0..self.nodes.len()).filter(move |k| *k != n);
        let heard = |k: &usize| self.silent_for(n, *k).is_some_and(|s| s < deadtime * 23 / 20);
        let sure = |k: &usize| self.is_called_down(n, *k);
        let votes = 1 + others().filter(heard).count();
        let down = others().filter(|k| !heard(k)).filter(sure).count();
        let (all, left) = (self.nodes.len(), self.nodes.len() - down);
        if all > 2 && (votes * 2 < left || (votes * 2 == left && down == 0)) {
            let words = format!("fences n{} as {votes} of {left}", m + 1);
            self.broken("EvidenceFirst", n, &words);
        }
    }

    /// Who has nothing leaves the first word to who has something.
    fn check_turn(&mut self, n: usize, m: usize, near: Option<u64>) {
        let delay = self.options.fences.as_ref().map_or(0, |f| f.delay.as_nanos() as u64);
        let groups = 0..self.options.groups.len();
        let mine = groups.clone().any(|g| self.rules.holds[n][g]);
        let beat = self.rules.contact[n][m].beat.as_ref();
        let theirs = beat.is_some_and(|b| {
            b.groups.iter().any(|g| g.held == Held::Yes && g.phase == Phase::Running)
        });
        let least = (self.options.deadtime() + delay) / 20 * 17;
        if !mine && theirs && near.is_some_and(|near| near < least) {
            let words = format!("fences n{}, which has a group, before its turn", m + 1);
            self.broken("Settled", n, &words);
        }
    }

    fn check_attempts(&mut self, n: usize, m: usize) {
        let near = self.rules.contact[n][m].near;
        let tries = &mut self.rules.tries[n][m];
        *tries = if tries.0 == near { (near, tries.1 + 1) } else { (near, 1) };
        let (tries, most) = (tries.1, self.options.fences.as_ref().map_or(0, |f| f.attempts));
        if tries > most {
            let words = format!("attempt {tries} of {most} to fence n{}", m + 1);
            self.broken("Bounded", n, &words);
        }
        let record = self.nodes[n].disk.read().unwrap_or_default();
        let record = record.fences.get(&NodeId(m as u8)).copied().unwrap_or_default();
        if record.tries == 0 && !self.rules.rolled[n] {
            let words = format!("fences n{} before that is on disk", m + 1);
            self.broken("Bounded", n, &words);
        }
        if record.lied {
            self.broken("EvidenceFirst", n, &format!("asks a fence of n{} that lied", m + 1));
        }
    }

    /// Why a start on a fence is wrong.
    pub fn wrong_fence(&self, n: usize, m: usize) -> Option<String> {
        let node = &self.nodes[n];
        let Some(proof) = self.rules.fenced[n][m].as_ref().filter(|p| p.life == node.life) else {
            return Some("no fence of it ended well in this life".into());
        };
        if node.woke > proof.began_at {
            return Some("this node stalled since the fence began".into());
        }
        let session = node.daemon.as_ref().map(|d| d.session);
        let beat = self.rules.contact[n][m].beat.as_ref();
        let later = beat.is_some_and(|b| {
            let ours = b.echoes.iter().filter(|e| usize::from(e.peer.0) == n);
            ours.filter(|e| Some(e.session) == session).any(|e| e.stamp >= proof.began)
        });
        // The answer of the hands took up to 200 ms.
        let spoke = self.rules.contact[n][m].sent > proof.ended_at + 200 * MS;
        let record = node.disk.read().unwrap_or_default();
        let lied = record.fences.get(&NodeId(m as u8)).is_some_and(|r| r.lied);
        match (later || spoke, lied) {
            (true, _) => Some("it was heard since, or has answered".into()),
            (_, true) => Some("that fence has lied before".into()),
            _ => None,
        }
    }

    /// A fence decides about it, and not silence: attempts are left, or a person is waited for.
    pub fn fence_stands(&self, n: usize, m: usize) -> bool {
        let Some(fences) = &self.options.fences else { return false };
        let record = self.nodes[n].disk.read().unwrap_or_default();
        let record = record.fences.get(&NodeId(m as u8)).copied().unwrap_or_default();
        let spent = record.lied || (record.tries >= fences.attempts && !record.well);
        !(spent && fences.failed == OnSilence::Takeover)
    }

    /// A person is waited for.
    pub fn fence_failed(&self, n: usize, m: usize) -> bool {
        let view = self.core(n).map(|core| core.view(self.nodes[n].now(self.t)));
        view.is_some_and(|v| v.fences.iter().any(|f| usize::from(f.node.0) == m && f.failed))
    }

    /// Evidence that may be wrong though nobody did anything wrong.
    pub fn excused(&self, n: usize, m: usize, word: &str) -> bool {
        let lives = self.rules.fenced[n][m].as_ref().is_some_and(|p| p.lives);
        let frozen = word == "Expired" && self.is_frozen_excuse(n, m);
        crate::checks::by_silence(word) || (word == "Fenced" && lives) || frozen
    }
}
