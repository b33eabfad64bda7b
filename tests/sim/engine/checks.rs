//! The invariants of hafailover-protocol(7), checked at each act by somebody who sees everything.

use crate::borders::Border;
use crate::rules::Broken;
use crate::world::World;
use hafailover::core::Core;
use hafailover::core::heartbeat::{Heartbeat, Held, Phase};
use hafailover::core::name::{Epoch, NodeId};
use hafailover::core::record::Record;
use hafailover::core::time::Instant;

impl World {
    pub fn broken(&mut self, rule: &'static str, n: usize, words: &str) {
        self.note(n, &format!("!!!! {rule}: {words}"));
        if self.rules.broken.is_none() {
            self.rules.broken = Some(Broken { rule, words: format!("n{}: {words}", n + 1) });
        }
    }

    pub fn core(&self, n: usize) -> Option<&Core> {
        self.nodes[n].daemon.as_ref().map(|d| &d.core)
    }

    /// Really here: a member is not down, the kernel holds something, or the gate is open.
    pub fn really(&self, n: usize, g: usize) -> bool {
        let units = &self.nodes[n].units[g];
        self.nodes[n].on && (units.here() || units.held())
    }

    /// A new daemon: what it ever said it must know still.
    pub fn began(&mut self, n: usize) {
        self.rules.daemon_began(n);
        let record = self.nodes[n].disk.read().unwrap_or_default();
        for g in 0..self.options.groups.len() {
            let token = self.nodes[n].units[g].held();
            self.rules.holds[n][g] = token;
            let known = record.groups.get(&self.options.groups[g].name).copied();
            let known = known.unwrap_or_default();
            let (spoken, promised) = (self.rules.spoken[n][g], self.rules.promised[n][g]);
            if self.rules.rolled[n] {
                continue;
            }
            if spoken > known.epoch {
                let words = format!("said epoch {spoken} and has {} on disk", known.epoch);
                self.broken("EpochGrows", n, &words);
            }
            if promised > known.epoch {
                self.broken("PromiseKept", n, &format!("promised {promised}, not on disk"));
            }
        }
        self.read_epochs(n, &record);
        self.rules.last[n] = record;
    }

    pub fn check_record(&mut self, n: usize, record: &Record) -> Option<Border> {
        let mut border = None;
        for g in 0..self.options.groups.len() {
            let name = &self.options.groups[g].name;
            let new = record.groups.get(name).copied().unwrap_or_default();
            let old = self.rules.last[n].groups.get(name).copied().unwrap_or_default();
            if new.epoch < old.epoch {
                let words = format!("g{g}: epoch {} after {}", new.epoch, old.epoch);
                self.broken("EpochGrows", n, &words);
            }
            if new.promise < old.promise && old.promise.is_some() {
                self.broken("PromiseKept", n, &format!("g{g}: an earlier promise is forgotten"));
            }
            if new.claim.is_some() && new.claim != old.claim {
                border = Some(Border::ClaimWritten);
            }
            if new.promise != old.promise {
                border = Some(Border::PromiseWritten);
            }
            if new.released != old.released {
                border = Some(Border::ReleaseWritten);
            }
        }
        self.rules.last[n] = record.clone();
        border
    }

    /// Everything in a heartbeat is true at the moment it is sent.
    /// True: a new claim is among it.
    pub fn check_said(&mut self, n: usize, beat: &Heartbeat) -> bool {
        let mut said = false;
        self.rules.said_reset[n] |= beat.mood.resetting;
        for report in &beat.groups {
            let g = self.group(&report.name);
            if report.held == Held::No && self.nodes[n].units[g].here() {
                self.broken("ReleaseVerified", n, &format!("g{g} is here and said not to be"));
            }
            if report.held == Held::No && self.rules.holds[n][g] {
                self.broken("StuckIsHeld", n, &format!("g{g} is said to be free, unverified"));
            }
            let claimed = report.claim.map(|c| c.epoch);
            self.rules.claimed[g].extend(claimed);
            let news = claimed > Some(self.rules.spoken[n][g]) && !self.rules.holds[n][g];
            said |= news;
            let top = [Some(report.epoch), report.promise, report.claim.map(|c| c.epoch)];
            let top = top.into_iter().flatten().max().unwrap_or_default();
            if top > self.rules.spoken[n][g] {
                let known = self.nodes[n].disk.read().unwrap_or_default();
                let known = known.groups.get(&report.name).copied().unwrap_or_default();
                if top > known.epoch && !self.rules.rolled[n] {
                    let words = format!("g{g}: speaks of {top} before it is on disk");
                    self.broken("EpochGrows", n, &words);
                }
                self.rules.spoken[n][g] = top;
            }
            let promise = report.promise.filter(|p| usize::from(p.node.0) != n);
            let promised = &mut self.rules.promised[n][g];
            *promised = (*promised).max(promise.unwrap_or_default());
        }
        said
    }

    /// A promise is made by a node that has nothing and hears nobody who has.
    pub fn check_promise(&mut self, n: usize, g: usize, epoch: Epoch) {
        if self.really(n, g) || self.rules.holds[n][g] {
            self.broken("PromiseKept", n, &format!("g{g}: promises {epoch} and holds it"));
        }
        let below = self.rules.started[g].range(epoch..).any(|(_, by)| *by == n);
        if below && !self.rules.rolled[n] {
            self.broken(
                "PromiseKept",
                n,
                &format!("g{g}: promises {epoch} below a start of its own"),
            );
        }
        self.check_doubt(n, g);
        let claimer = usize::from(epoch.node.0);
        let theirs = self.rules.contact[n][claimer].report(&self.options.groups[g].name);
        let theirs = theirs.map(|report| report.fingerprint);
        if theirs.is_some() && theirs != self.knows(n, g) {
            let words = format!("g{g}: promises {epoch} and knows the group differently");
            self.broken("PromiseKept", n, &words);
        }
        let lived = self.nodes[n].lived(self.t);
        for m in (0..self.nodes.len()).filter(|m| *m != n) {
            let contact = &self.rules.contact[n][m];
            let near = contact.near.is_some_and(|at| lived - at < self.options.deadtime() / 2);
            let report = contact.report(&self.options.groups[g].name);
            if near && report.is_some_and(|r| r.held == Held::Yes) {
                let words = format!("g{g}: promises {epoch} while n{} is heard holding it", m + 1);
                self.broken("PromiseKept", n, &words);
            }
        }
    }

    pub fn before_heard(
        &mut self,
        n: usize,
        from: usize,
        link: usize,
        beat: &Heartbeat,
        (fresh, believed): (bool, bool),
        sent: u64,
    ) {
        let (t, lived) = (self.t, self.nodes[n].lived(self.t));
        let (deadtime, paused) = (self.options.deadtime(), self.nodes[n].paused);
        let reached = &mut self.rules.reached[n][from];
        *reached = sent.max(*reached);
        let contact = &mut self.rules.contact[n][from];
        let fence = self.rules.fenced[n][from].as_ref();
        if fence.is_some_and(|fence| contact.sent <= fence.ended_at && sent > fence.ended_at) {
            self.rules.counts_again[n] = t;
        }
        let settled = contact.session == Some(beat.session);
        // Of a life that waits to be believed nothing counts, however often it is heard.
        let seen = (beat.session.0, link as u8, beat.seq);
        let again = (settled || (fresh && believed)) && !contact.frames.insert(seen) && settled;
        if !settled {
            if !fresh {
                return;
            }
            if !believed {
                contact.links.insert(link as u8, lived);
                contact.sure.insert(link as u8, lived);
                contact.near = Some(lived);
                contact.sent = contact.sent.max(sent);
                contact.rival = contact.rival.max(Some(sent));
                return;
            }
            let frames = std::mem::take(&mut contact.frames);
            let session = Some(beat.session);
            let crash = contact.beat.as_ref().is_some_and(|b| {
                b.boot == beat.boot && !b.mood.leaving && b.mood.restarting.is_none()
            });
            let crashed = crash.then_some(lived);
            *contact = crate::rules::Contact { session, frames, crashed, ..Default::default() };
        }
        let newest = contact.beat.as_ref().is_none_or(|b| b.stamp < beat.stamp);
        // A node whose clock stood still cannot know how old a frame is.
        if newest || paused || t - sent < deadtime * 3 / 2 {
            contact.links.insert(link as u8, lived);
        }
        contact.sent = contact.sent.max(sent);
        if newest || t - sent < deadtime / 2 {
            contact.sure.insert(link as u8, lived);
        }
        if newest && t - sent < deadtime / 2 {
            contact.near = Some(lived);
        }
        if newest {
            contact.beat = Some(beat.clone());
            contact.rival = contact.rival.filter(|rival| sent <= *rival);
            self.hear_epochs(n, beat);
        }
        if again {
            self.broken(
                "NoReplay",
                n,
                &format!("frame {} of n{} was taken twice", beat.seq, from + 1),
            );
        }
    }

    pub fn in_maintenance(&self, n: usize, g: usize) -> bool {
        let Some(core) = self.core(n) else { return false };
        let view = core.view(self.nodes[n].now(self.t));
        view.maintenance || view.groups[g].maintenance
    }

    pub fn check_stop(&mut self, n: usize, g: usize) {
        self.rules.stops[n][g].since.get_or_insert(self.t);
        self.rules.last_job[g] = self.t;
        self.rules.jobs[g] += 1;
        let bound = self.rules.person == (n, self.t) || self.is_lease_over(n, g);
        let bound = bound || self.is_parting(n);
        if self.in_maintenance(n, g) && !bound {
            self.broken("HandsOff", n, &format!("g{g} is stopped in maintenance"));
        }
    }

    pub fn check_start(&mut self, n: usize, g: usize, epoch: Epoch, until: Instant) {
        self.rules.last_job[g] = self.t;
        self.rules.jobs[g] += 1;
        let now = self.nodes[n].now(self.t);
        if until <= now || until.since(now) > self.options.timing.deadtime {
            self.broken("NoStaleAct", n, &format!("g{g}: valid for {:?}", until.since(now)));
        }
        if self.in_maintenance(n, g) {
            self.broken("HandsOff", n, &format!("g{g} is started in maintenance"));
        }
        let ours = self.rules.started[g].get(&epoch) == Some(&n);
        let again = self.rules.holds[n][g] && (ours || self.rules.rolled[n]);
        self.check_epoch(n, g, epoch, again);
        if again {
            return;
        }
        self.rules.holds[n][g] = true;
        self.check_doubt(n, g);
        self.check_alone(n, g, epoch);
        self.rules.proof[n][g] = self.evidence(n, g);
        self.rules.own[n][g] = epoch;
        self.check_evidence(n, g, epoch);
        self.note_ordered(n, g, epoch);
        let silent = |w: &String| w.starts_with("Silent") || w.starts_with("Unseen");
        let by_silence = self.rules.proof[n][g].iter().any(silent);
        if by_silence && self.rules.announced[n][g] != epoch {
            let words = format!("g{g} starts at {epoch} on a silence that it announced to nobody");
            self.broken("EvidenceFirst", n, &words);
        }
        if by_silence && now < self.rules.due[n][g] {
            let early = self.rules.due[n][g].since(now);
            let words = format!("g{g} starts {early:?} before the time that it announced");
            self.broken("EvidenceFirst", n, &words);
        }
        let clocks = self.nodes[n].paused || self.nodes[n].jumped;
        if self.t < self.rules.quarantine[n][g] && !clocks {
            self.broken("Settled", n, &format!("g{g} is started in its quarantine"));
        }
        self.check_waited(n, g, epoch);
        self.check_votes(n, g);
    }

    pub fn note_announced(&mut self, n: usize, beat: &Heartbeat) {
        for report in &beat.groups {
            if let Some((claim, left)) = report.claim.and_then(|c| Some((c, c.on_silence?))) {
                let g = self.group(&report.name);
                if std::mem::replace(&mut self.rules.announced[n][g], claim.epoch) != claim.epoch {
                    self.rules.announced_at[n][g] = self.t;
                }
                self.rules.due[n][g] = self.nodes[n].now(self.t) + left;
            }
        }
    }

    /// After a long stall of its own a node hears its peers first.
    fn check_doubt(&mut self, n: usize, g: usize) {
        let woke = self.nodes[n].woke;
        let began = self.nodes[n].daemon.as_ref().map_or(0, |d| d.began);
        let young = woke > began && self.t - woke < self.options.deadtime() * 17 / 20;
        let unheard = |c: &crate::rules::Contact| c.session.is_some() && c.sent < woke;
        if young && self.rules.contact[n].iter().any(unheard) {
            let ms = (self.t - woke) / 1_000_000;
            self.broken("NoStaleAct", n, &format!("g{g}: acts {ms} ms after a stall, unheard"));
        }
    }

    /// Once, whether it came to a start or was taken back. A state file of before knows no better,
    /// and a node that lost its own what it had heard when it knew everybody's again.
    pub fn check_claim(&mut self, n: usize, g: usize, epoch: Epoch) {
        let told = !self.rules.rolled[n] || self.rules.learned[n][g] >= epoch;
        if self.rules.claimed[g].contains(&epoch) && told && !self.rules.restored[n] {
            self.broken("EpochUnique", n, &format!("g{g}: claims epoch {epoch} once more"));
        }
    }

    pub fn amnesia_over(&mut self, n: usize) {
        for g in 0..self.options.groups.len() {
            let name = &self.options.groups[g].name;
            let heard = self.rules.contact[n].iter().filter_map(|contact| contact.report(name));
            self.rules.learned[n][g] = heard.map(|r| r.epoch).max().unwrap_or_default();
        }
    }

    fn check_epoch(&mut self, n: usize, g: usize, epoch: Epoch, again: bool) {
        let rolled = self.rules.rolled[n];
        let by = self.rules.started[g].get(&epoch).copied();
        if !again && let Some(by) = by.filter(|_| !rolled) {
            let words = format!("g{g}: epoch {epoch} was started on n{} already", by + 1);
            self.broken("EpochUnique", n, &words);
        }
        if again && by != Some(n) && !rolled {
            self.broken("EpochUnique", n, &format!("g{g}: {epoch} is not its own"));
        }
        if !again && epoch <= self.rules.promised[n][g] {
            let words = format!("g{g}: starts at {epoch}, promised {}", self.rules.promised[n][g]);
            self.broken("PromiseKept", n, &words);
        }
        if !again && !rolled {
            let known = self.nodes[n].disk.read().unwrap_or_default();
            let known = known.groups.get(&self.options.groups[g].name).copied();
            if known.and_then(|r| r.claim) != Some(epoch) {
                self.broken("EpochGrows", n, &format!("g{g}: starts at {epoch}, not on disk"));
            }
        }
        self.rules.started[g].insert(epoch, n);
    }

    /// It is held from now on: nobody else may have it, unless silence was taken for death.
    fn check_alone(&mut self, n: usize, g: usize, epoch: Epoch) {
        let evidence = self.evidence(n, g);
        for m in (0..self.nodes.len()).filter(|m| *m != n) {
            let started = self.really(m, g) && !self.nodes[m].units[g].stray;
            if !started && !self.rules.holds[m][g] {
                continue;
            }
            let word = evidence.get(m).cloned().unwrap_or_default();
            // It took it when this node was silent: the wrong word is that one.
            let taken = self.rules.proof[m][g].get(n).is_some_and(|w| self.excused(m, n, w));
            if self.excused(n, m, &word) || taken {
                self.rules.two[g] = true;
                self.check_yielded(m, n, g);
            } else {
                let words = format!("g{g} starts at {epoch} by {word:?} while n{} has it", m + 1);
                self.broken("OneOwner", n, &words);
            }
        }
    }

    /// An owner that hears the announcement of one that does not hear it has begun to stop.
    fn check_yielded(&mut self, owner: usize, by: usize, g: usize) {
        let contact = &self.rules.contact[owner][by];
        let Some(report) = contact.report(&self.options.groups[g].name) else { return };
        let own = self.rules.own[owner][g];
        let announced = report.claim.is_some_and(|c| c.on_silence.is_some() && c.epoch > own);
        let unheard = contact.beat.as_ref().is_some_and(|b| {
            let me = |e: &&hafailover::core::heartbeat::Echo| usize::from(e.peer.0) == owner;
            b.echoes.iter().filter(me).all(|e| e.links.0 == 0)
        });
        let lived = self.nodes[owner].lived(self.t);
        let near = contact.near.is_some_and(|at| lived - at < self.options.deadtime() / 2);
        let keeps = "R>".contains(self.rules.phase[owner][g]) && !self.in_maintenance(owner, g);
        if announced && unheard && near && keeps && !self.nodes[owner].is_frozen(self.t) {
            let words = format!("g{g}: hears that n{} starts it, and keeps it", by + 1);
            self.broken("OneOwner", owner, &words);
        }
    }

    /// systemd asserts the token at each start.
    pub fn check_gate(&mut self, n: usize, g: usize) {
        if self.nodes[n].units[g].token.is_none() {
            self.broken("NoStaleAct", n, &format!("g{g}: a member is started without the token"));
        }
    }

    /// What the node says it has against each other one.
    pub fn evidence(&self, n: usize, g: usize) -> Vec<String> {
        let Some(core) = self.core(n) else { return Vec::new() };
        let view = core.view(self.nodes[n].now(self.t));
        let of = |m: usize| {
            let name = format!("n{}=", m + 1);
            let words = view.groups[g].evidence.iter().find_map(|e| e.strip_prefix(&name));
            words.unwrap_or_default().to_string()
        };
        (0..self.nodes.len()).map(of).collect()
    }

    /// What a replayed frame must not change.
    pub fn shown(&self, n: usize) -> String {
        let Some(core) = self.core(n) else { return String::new() };
        let view = core.view(self.nodes[n].now(self.t));
        let nodes: Vec<_> = view.nodes.iter().map(|n| (n.presence, n.standby, n.mood)).collect();
        let group = |g: &hafailover::core::view::GroupView| {
            let nodes: Vec<_> = g.nodes.iter().map(|n| (n.held, n.phase, n.unfit)).collect();
            (g.phase, g.held, g.owner, g.epoch, g.down_by_operator, g.maintenance, nodes)
        };
        let groups: Vec<_> = view.groups.iter().map(group).collect();
        format!("{nodes:?} {groups:?} {}", view.maintenance)
    }

    pub fn check_replay(&mut self, n: usize, beat: &Heartbeat, before: &str, sent: u64) {
        // One that is newer than all that came before is only late, and says so itself.
        let newest = self.rules.contact[n][usize::from(beat.from.0)].beat.as_ref();
        let late = newest.is_some_and(|b| b.session == beat.session && b.stamp == beat.stamp);
        // Nor can a node whose clock stood still know how old it is, or one that is told an age by
        // a clock that jumped.
        let clocks = self.nodes[n].paused || self.nodes[usize::from(beat.from.0)].jumped;
        let gone = self.nodes[n].daemon.is_none();
        if late || clocks || gone || self.t - sent < 2 * self.options.deadtime() {
            return;
        }
        let after = self.shown(n);
        if after != *before {
            let age = (self.t - sent) / 1_000_000;
            let from = NodeId(beat.from.0).0 + 1;
            let words =
                format!("a frame of n{from}, {age} ms old, changed\n  {before}\nto\n  {after}");
            self.broken("NoReplay", n, &words);
        }
    }

    pub fn phase_of(&self, n: usize, g: usize) -> Option<Phase> {
        let core = self.core(n)?;
        Some(core.view(self.nodes[n].now(self.t)).groups[g].phase)
    }
}

pub fn by_silence(word: &str) -> bool {
    ["Silent", "Unseen", "Operator"].iter().any(|w| word.starts_with(w))
}
