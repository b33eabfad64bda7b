//! EvidenceFirst and NoStaleAct: whether the proof that a start is issued on was true, judged by
//! what the wire really brought and by the time the node really lived through.

use crate::rng::MS;
use crate::rules::Contact;
use crate::world::World;
use hafailover::core::heartbeat::{Held, Phase};
use hafailover::core::name::{Epoch, LinkId, NodeId};
use hafailover::core::policy::OnSilence;

/// Within so long systemd may give up a daemon that crashes again and again.
const GIVES_UP: u64 = 60_000 * MS;

impl World {
    pub fn check_evidence(&mut self, n: usize, g: usize, epoch: Epoch) {
        let evidence = self.evidence(n, g);
        for m in (0..self.nodes.len()).filter(|m| *m != n) {
            let word = evidence[m].clone();
            let kind = word.split('(').next().unwrap_or_default();
            let wrong = match kind {
                "Promise" | "Released" => self.wrong_promise(n, m, g, epoch, kind),
                "Silent" => self.wrong_silence(n, m, g),
                "Unseen" => self.wrong_unseen(n, m),
                "Operator" => self.wrong_word(n, m),
                "Fenced" => self.wrong_fence(n, m),
                "Expired" => self.wrong_expiry(n, m, g, epoch),
                other => Some(format!("no evidence ({other:?})")),
            };
            if let Some(why) = wrong {
                let words = format!("g{g} at {epoch}: {word} against n{}: {why}", m + 1);
                self.broken("EvidenceFirst", n, &words);
            }
        }
        let record = self.nodes[n].disk.read();
        if record.is_none_or(|r| !r.known) {
            self.broken("EvidenceFirst", n, &format!("g{g}: an amnesiac node starts"));
        }
    }

    fn contact(&self, n: usize, m: usize) -> &Contact {
        &self.rules.contact[n][m]
    }

    /// How long nothing timely came, in the time this node lived through.
    pub fn silent_for(&self, n: usize, m: usize) -> Option<u64> {
        Some(self.nodes[n].lived(self.t).saturating_sub(self.contact(n, m).last()?))
    }

    /// The same by frames only that must have counted: others may have, when clocks differ.
    fn surely_silent_for(&self, n: usize, m: usize) -> Option<u64> {
        let last = self.contact(n, m).sure.values().max()?;
        Some(self.nodes[n].lived(self.t).saturating_sub(*last))
    }

    fn wrong_promise(
        &self,
        n: usize,
        m: usize,
        g: usize,
        epoch: Epoch,
        kind: &str,
    ) -> Option<String> {
        let report = self.contact(n, m).report(&self.options.groups[g].name);
        let Some(report) = report else { return Some("it never reported the group".into()) };
        if report.held != Held::No {
            return Some("it was last heard holding it".into());
        }
        let known = self.knows(n, g);
        if known.is_some_and(|known| known != report.fingerprint) && kind == "Promise" {
            return Some("it knows the group differently".into());
        }
        if self.contact(n, m).sent < self.nodes[n].woke && kind == "Promise" {
            return Some("it was not heard since this node woke from a stall".into());
        }
        if report.promise == Some(epoch) {
            let forgot = self.rules.rolled[m] || self.rules.promised[m][g] >= epoch;
            return (!forgot).then(|| "it never promised that".into());
        }
        let left = self.contact(n, m).beat.as_ref().is_some_and(|b| b.mood.leaving);
        if kind == "Released" && left { None } else { Some("it was not heard promising".into()) }
    }

    fn wrong_silence(&self, n: usize, m: usize, g: usize) -> Option<String> {
        let deadtime = self.options.deadtime();
        let safety = &self.options.safety;
        let Some(silent) = self.surely_silent_for(n, m) else { return Some("never heard".into()) };
        let lived = self.nodes[n].lived(self.t);
        let near = self.contact(n, m).near.map_or(u64::MAX, |at| lived.saturating_sub(at));
        let awake = lived - self.nodes[n].lived_at_waking.min(lived);
        if self.nodes[n].woke > 0 && awake < deadtime * 17 / 20 {
            return Some(format!("it woke from a stall {} ms ago", awake / 1_000_000));
        }
        if near < deadtime * 17 / 20 {
            return Some(format!("heard {} ms of its own time ago", near / 1_000_000));
        }
        if self.fence_stands(n, m) || self.options.leases.is_some() {
            return Some("there is a fence for it, or an arbiter".into());
        }
        if safety.silence == OnSilence::Hold {
            return Some("silence = \"hold\"".into());
        }
        let contact = self.contact(n, m);
        let up = |links: &std::collections::BTreeMap<u8, u64>| {
            let last = links.values().max().copied().unwrap_or_default();
            links.values().filter(|l| last - **l < deadtime * 23 / 20).count()
        };
        let up = up(&contact.links).max(up(&contact.sure));
        let sure = !self.nodes[n].paused;
        if sure && self.options.links_to(n, m) > 1 && safety.last_link == OnSilence::Hold && up < 2
        {
            let links = &contact.links;
            return Some(format!("only one link was left: {links:?} of {}", lived / 1_000_000));
        }
        if let Some(why) = self.no_silence(n, m) {
            return Some(why);
        }
        let beat = contact.beat.as_ref()?;
        let guard = beat.mood.guard_bound.map_or(u64::MAX, |b| deadtime + b.as_nanos() as u64);
        if contact.rival.is_some() && silent < guard / 20 * 19 {
            return Some("a new life of it was heard last, and not believed".into());
        }
        let report = contact.report(&self.options.groups[g].name)?;
        let restarts = beat.mood.restarting.map_or(0, |b| b.as_nanos() as u64 + deadtime);
        if silent < restarts / 20 * 19 {
            return Some("it said that it restarts".into());
        }
        let ending = matches!(report.phase, Phase::Stopping | Phase::Stuck);
        let cared = report.wish.value.maintenance;
        let going = beat.mood.leaving || beat.mood.shutting_down;
        let at_work = (ending || going) && !beat.mood.resetting;
        if report.held != Held::No && (at_work || cared) && silent < guard / 20 * 19 {
            return Some("last heard stopping, leaving or in maintenance".into());
        }
        let last = contact.last().unwrap_or_default();
        let crashed =
            contact.crashed.is_some_and(|at| last.saturating_sub(at) < GIVES_UP / 20 * 19);
        if report.held != Held::No && crashed && guard != u64::MAX && silent < guard / 20 * 19 {
            return Some("its daemon had just crashed, and its guard may be at work".into());
        }
        None
    }

    /// Rules for silence of both kinds: what others hear, and the majority.
    pub fn no_silence(&self, n: usize, m: usize) -> Option<String> {
        let deadtime = self.options.deadtime();
        let (mut alive, mut down) = (1, 0);
        for k in (0..self.nodes.len()).filter(|k| *k != n && *k != m) {
            let silent = self.silent_for(n, k).filter(|silent| *silent < deadtime * 23 / 20);
            match silent {
                Some(_) => alive += 1,
                None => down += usize::from(self.is_called_down(n, k)),
            }
            let hears = self.contact(n, k).beat.as_ref().is_some_and(|b| {
                b.echoes.iter().any(|e| e.peer == NodeId(m as u8) && e.links.0 != 0)
            });
            let sure = self.surely_silent_for(n, k).is_some_and(|silent| silent < deadtime / 2);
            if sure && hears {
                return Some(format!("n{} still hears it", k + 1));
            }
        }
        let (all, left) = (self.nodes.len(), self.nodes.len() - down);
        (all > 2 && alive * 2 <= left).then(|| format!("{alive} of {left} is no majority"))
    }

    fn wrong_unseen(&self, n: usize, m: usize) -> Option<String> {
        let safety = &self.options.safety;
        if self.silent_for(n, m).is_some() {
            return Some("it was heard".into());
        }
        if self.fence_stands(n, m) || self.options.leases.is_some() {
            return Some("there is a fence for it, or an arbiter".into());
        }
        if safety.unseen == OnSilence::Hold {
            return Some("unseen = \"hold\"".into());
        }
        let daemon = self.nodes[n].daemon.as_ref()?;
        let initdead = self.options.timing.initdead;
        let lived = self.t - daemon.began;
        if lived < initdead.as_nanos() as u64 / 20 * 19 && !self.options.has_jump() {
            return Some("initdead is not over".into());
        }
        let jeopardy = self.rules.last[n].jeopardy.contains(&NodeId(m as u8));
        if jeopardy && safety.last_link == OnSilence::Hold {
            return Some("only one link was left when last seen".into());
        }
        self.no_silence(n, m)
    }

    fn wrong_word(&self, n: usize, m: usize) -> Option<String> {
        let heard = self.contact(n, m).sent;
        let said = self.rules.commanded.iter().any(|(by, at, command)| {
            let named = matches!(command, hafailover::core::Command::ConfirmDown { node }
                if usize::from(node.0) == m);
            *by == n && named && *at + self.nodes[n].stalled >= heard
        });
        (!said).then(|| "nobody said so since it was heard".into())
    }

    pub fn usable_links(&self, n: usize, m: usize) -> usize {
        let lived = self.nodes[n].lived(self.t);
        let near = |at: &u64| lived - *at < self.options.deadtime() / 2;
        let links = 0..self.options.links.len();
        let links = links.map(|l| LinkId(l as u8));
        links.filter(|l| self.contact(n, m).links.get(&l.0).is_some_and(near)).count()
    }
}
