//! What this node says of itself: heartbeats, the reports in them, and what must be on disk before
//! it may be said.

use super::hear::HOT_BEATS;
use super::heartbeat::{Claim, GroupReport, Heartbeat, Held, Mood, PAGE_GROUPS};
use super::name::{GroupName, LinkId};
use super::policy::OnLost;
use super::record::{GroupRecord, Record};
use super::say::{Saying, What};
use super::time::{Duration, Instant};
use super::{Action, Core, STORE_RETRY, STORE_SLOW, Terminate};

/// Most frames for one link at one moment; more groups ride in later heartbeats.
const FRAMES_MAX: usize = 8;

impl Core {
    /// Sends what is due: the regular heartbeat, or a change that cannot wait for it.
    pub(super) fn send(&mut self, now: Instant) {
        let due = now >= self.beat.next;
        if !due && !self.beat.now {
            return;
        }
        self.beat.now = false;
        if due {
            let keepalive = self.policy.timing.keepalive;
            let next = self.beat.next + keepalive;
            self.beat.next = if next > now { next } else { now + keepalive };
        }
        let pages = self.pages(due);
        for page in pages {
            self.note_said(now, page.groups.iter());
            for n in (0..self.links.len()).filter(|n| self.policy.has(LinkId(*n as u8))) {
                self.links[n].seq += 1;
                self.beat.stamp = now.max(self.beat.stamp + Duration::from_nanos(1));
                let settings = self.world(now).spoken_settings();
                let before = self.beat.settings.filter(|(before, _)| *before == settings);
                self.beat.settings = before.or(Some((settings, self.beat.stamp)));
                let heartbeat = Box::new(self.heartbeat(now, LinkId(n as u8), &page));
                self.out.push(Action::Send { link: LinkId(n as u8), heartbeat });
            }
        }
    }

    /// Which groups go into which frame: a change goes at once, then a few times more in regular
    /// heartbeats, which also have the rest in turn.
    fn pages(&mut self, regular: bool) -> Vec<Page> {
        let all: Vec<GroupName> = self.groups.keys().cloned().collect();
        let count = all.len().div_ceil(PAGE_GROUPS).max(1);
        let mut hot: Vec<(u8, GroupName)> =
            self.beat.hot.iter().map(|(name, left)| (*left, name.clone())).collect();
        hot.retain(|(left, _)| regular || *left == HOT_BEATS);
        // Who went least goes first: more changes than fit do not wait for each other's repeats.
        hot.sort_by_key(|(left, _)| std::cmp::Reverse(*left));
        let hot: Vec<GroupName> = hot.into_iter().map(|(_, name)| name).collect();
        let fit = if count == 1 { usize::MAX } else { FRAMES_MAX * PAGE_GROUPS };
        hot.iter().take(fit).for_each(|name| self.cool(name));
        if count == 1 {
            return vec![Page { groups: all, page: 0, pages: 1 }];
        }
        let chunk =
            |c: &[GroupName]| Page { groups: c.to_vec(), page: u8::MAX, pages: count as u8 };
        let mut pages: Vec<Page> = hot.chunks(PAGE_GROUPS).take(FRAMES_MAX).map(chunk).collect();
        if regular || pages.is_empty() {
            let page = usize::from(self.beat.page) % count;
            let groups = all.chunks(PAGE_GROUPS).nth(page).unwrap_or_default().to_vec();
            pages.push(Page { groups, page: page as u8, pages: count as u8 });
            self.beat.page = ((page + 1) % count) as u8;
        }
        pages
    }

    fn cool(&mut self, name: &GroupName) {
        match self.beat.hot.get_mut(name) {
            Some(left) if *left > 1 => *left -= 1,
            _ => drop(self.beat.hot.remove(name)),
        }
    }

    fn heartbeat(&self, now: Instant, link: LinkId, page: &Page) -> Heartbeat {
        let (lived, deadtime) = (self.lived(now), self.policy.timing.deadtime);
        let echoes = self
            .peers
            .iter()
            .flat_map(|(id, peer)| peer.echoes(*id, now, peer.links_up(lived, deadtime)))
            .chain(self.double.iter().filter_map(|d| d.echo(self.policy.me, now, deadtime)));
        Heartbeat {
            from: self.policy.me,
            session: self.session,
            boot: self.boot,
            seq: self.links[usize::from(link.0)].seq,
            link,
            stamp: self.beat.stamp,
            mood: self.mood(),
            fingerprint: self.beat.settings.map_or(self.policy.fingerprint, |(said, _)| said),
            echoes: echoes.collect(),
            wishes: self.store.durable.wishes.clone(),
            groups: page.groups.iter().filter_map(|name| self.report(now, name)).collect(),
            page: page.page,
            pages: page.pages,
        }
    }

    pub(super) fn mood(&self) -> Mood {
        let going = self.going.map(|g| g.kind);
        let safety = &self.policy.safety;
        Mood {
            starting: self.starting,
            leaving: matches!(going, Some(Terminate::Stop | Terminate::Shutdown)),
            shutting_down: going == Some(Terminate::Shutdown),
            restarting: (going == Some(Terminate::Restart))
                .then_some(self.policy.timing.restart_bound),
            amnesiac: !self.store.durable.known,
            doubting: self.doubt.is_some(),
            resetting: self.reset.is_some(),
            guarding: false,
            guard_bound: (safety.on_lost == OnLost::Reboot).then_some(safety.guard_bound),
        }
    }

    /// Epochs, claims, promises and releases are spoken of only as they are on disk.
    fn report(&self, now: Instant, name: &GroupName) -> Option<GroupReport> {
        let group = self.groups.get(name)?;
        let world = self.world(now);
        let durable: GroupRecord = self.store.durable.groups.get(name).copied().unwrap_or_default();
        let at = group.claim.as_ref().and_then(|c| c.start_at);
        let claim =
            durable.claim.map(|epoch| Claim { epoch, on_silence: at.map(|a| a.since(now)) });
        // A claim that ended with an earlier life, or was just withdrawn, is not a claim.
        let live = |c: &Claim| {
            group.own == Some(c.epoch) || group.claim.as_ref().is_some_and(|g| g.epoch == c.epoch)
        };
        let own = group.own.map(|epoch| Claim { epoch, on_silence: None });
        let quarantine = group.quarantine.as_ref().map(|(until, _)| until.since(now));
        let known = self.store.record.groups.get(name).and_then(|r| r.released);
        let unwritten = known != durable.released;
        Some(GroupReport {
            name: name.clone(),
            fingerprint: group.policy.fingerprint,
            texts: Some(group.policy.texts),
            phase: group.told_phase(),
            held: match group.held() {
                // A release counts once it is on disk, not before.
                Held::No if unwritten => Held::Yes,
                // What we say is said for our name.
                Held::No if self.double_holds(name) => Held::Unknown,
                held => held,
            },
            epoch: durable.epoch,
            claim: own.or(claim.filter(live)),
            promise: durable.promise,
            released: durable.released,
            voucher: world.voucher(name),
            unfit: world.unfit(name),
            quarantine: quarantine.unwrap_or(Duration::ZERO),
            wish: durable.wish,
            tally: group.tally(),
        })
    }

    /// Writes down what changed, one write at a time.
    pub(super) fn persist(&mut self, now: Instant) {
        let store = &mut self.store;
        let retry = store.failed.as_ref().is_some_and(|(_, at)| now < *at);
        if store.writing.is_some() || retry || store.record == store.durable {
            return;
        }
        store.tickets += 1;
        store.record.serial += 1;
        let record = store.record.clone();
        store.writing = Some((store.tickets, record.clone()));
        store.asked = Some(now);
        self.out.push(Action::Persist { ticket: store.tickets, record: Box::new(record) });
    }

    /// What hangs in a disk neither fails nor is done; others may take what this node cannot.
    pub(super) fn judge_disk(&mut self, now: Instant) {
        let store = &mut self.store;
        let slow = store.asked.is_some_and(|asked| now.since(asked) >= STORE_SLOW);
        if slow == std::mem::replace(&mut store.slow, slow) {
            return;
        }
        if slow {
            let words =
                "the disk has not answered for 5 s: what runs goes on, nothing new is taken";
            self.say(Saying::new(What::StateFailed, words));
        }
        self.beat.now = true;
        self.touch_all();
    }

    pub(super) fn persisted(&mut self, now: Instant, ticket: u64, result: Result<(), String>) {
        let Some((_, record)) = self.store.writing.take_if(|(t, _)| *t == ticket) else { return };
        self.store.asked = None;
        match result {
            Ok(()) => {
                self.changed_on_disk(&record);
                self.store.durable = record;
                if self.store.failed.take().is_some() {
                    self.touch_all();
                }
            }
            Err(why) => {
                if self.store.failed.is_none() {
                    let words = format!(
                        "{why}: what runs goes on, nothing new is taken; make room, or mend \
                         the disk"
                    );
                    self.say(Saying::new(What::StateFailed, words));
                }
                self.store.failed = Some((why, now + STORE_RETRY));
                self.touch_all();
            }
        }
    }

    /// What became sayable is said at once, and what waited for it looks again.
    fn changed_on_disk(&mut self, record: &Record) {
        let names: Vec<GroupName> = self.groups.keys().cloned().collect();
        for name in names {
            if record.groups.get(&name) != self.store.durable.groups.get(&name) {
                self.heat(&name);
                self.touched.insert(name);
            }
        }
        let (before, me) = (&self.store.durable, &self.policy.me);
        let settings = record.settings.get(me) != before.settings.get(me);
        if record.wishes != before.wishes || record.known != before.known || settings {
            self.beat.now = true;
        }
    }
}

/// One frame's share of the group table.
struct Page {
    groups: Vec<GroupName>,
    /// `u8::MAX`: an extra frame with what changed, no page of the table.
    page: u8,
    pages: u8,
}

#[cfg(test)]
mod tests {
    use super::super::policy::{GroupPolicy, Policy};
    use super::super::{Boot, Core};
    use super::*;
    use crate::core::name::{BootId, NodeId, Session};
    use std::collections::BTreeSet;

    fn core(groups: usize) -> Core {
        let group = GroupPolicy::quick(vec![NodeId(0)]);
        let names = (0..groups).map(|n| GroupName(format!("g{n}")));
        let mut policy = Policy::of_a_pair();
        policy.groups = names.map(|name| (name, group.clone())).collect();
        let boot = Boot { session: Session(1), boot: BootId(1), record: None };
        Core::new(Instant(1), boot, policy).0
    }

    fn named(pages: &[Page]) -> BTreeSet<GroupName> {
        pages.iter().flat_map(|p| p.groups.clone()).collect()
    }

    /// Goal: of many groups that change at once, none waits for the repeats of another.
    #[test]
    fn a_hundred_changes_are_out_after_one_regular_heartbeat() {
        let mut core = core(100);
        let all: BTreeSet<GroupName> = core.groups.keys().cloned().collect();
        all.iter().for_each(|name| core.heat(name));
        let at_once = core.pages(false);
        assert_eq!(at_once.len(), FRAMES_MAX);
        let mut out = named(&at_once);
        out.extend(named(&core.pages(true)));
        assert_eq!(out, all);
        for _ in 0..100 {
            core.pages(true);
        }
        assert!(core.beat.hot.is_empty(), "all have cooled");
    }
}
