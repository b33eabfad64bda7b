//! Looking at groups: one look at a time for each, told in their order, and what is new.

use super::read::{ASK_AGAIN, BUS_PATIENCE, bus};
use super::{Managed, Shared, group};
use crate::core::name::GroupName;
use crate::core::{Event, Member, MemberState, Observation};
use crate::io::clock;
use std::rc::Rc;
use std::time::Duration;

/// Pause before a group that could not be read is looked at again.
const BLIND_AGAIN: Duration = Duration::from_millis(500);
/// How long PID 1 may take to answer before its line is doubted and it is asked again.
const MARK_AGAIN: Duration = Duration::from_secs(3);

impl Shared {
    /// The next group that was marked and is not being looked at.
    fn next_dirty(&self) -> Option<(GroupName, bool)> {
        let looking = self.looking.borrow();
        let mut dirty = self.dirty.borrow_mut();
        let next = dirty.keys().find(|g| !looking.contains(*g))?.clone();
        dirty.remove_entry(&next)
    }

    /// What the group looks like at one moment between, or within, our jobs.
    async fn seen(&self, group: &GroupName, managed: &Managed) -> Observation {
        loop {
            let turn = self.turn(group);
            let seen = group::observe(self, group, managed).await;
            if turn == self.turn(group) {
                return seen;
            }
        }
    }

    /// The same, once it is known whether a member that is down was stopped by a person: its state
    /// can be read before the signal about the job that ended is in.
    async fn judged(&self, group: &GroupName, managed: &Managed) -> Observation {
        let seen = self.seen(group, managed).await;
        let down = |m: &Member| m.state == MemberState::Inactive && !m.by_hand;
        if seen.token.is_none() || !seen.members.iter().any(down) {
            return seen;
        }
        if self.hear_all().await.is_err() {
            return Observation { blind: true, ..Observation::default() };
        }
        loop {
            let changed = self.changed.notified();
            // Whoever judges gives up by himself.
            if !self.judging.borrow().contains_key(group) {
                return self.seen(group, managed).await;
            }
            changed.await;
        }
    }

    /// Waits until every signal is in that PID 1 sent before this moment.
    pub async fn hear_all(&self) -> Result<(), String> {
        let end = clock::now() + BUS_PATIENCE;
        while clock::now() < end {
            let line = bus(self).await?;
            let Ok(mark) = line.mark().await else {
                tokio::time::sleep(ASK_AGAIN).await;
                continue;
            };
            let again = clock::now() + MARK_AGAIN;
            let mine = || self.bus.borrow().as_ref().is_none_or(|now| now.is(&line));
            while clock::now() < again && mine() {
                let changed = self.changed.notified();
                if self.told_to.get() >= mark.get() {
                    return Ok(());
                }
                let _ = tokio::time::timeout(again.since(clock::now()), changed).await;
            }
            self.unanswered.notify_one();
        }
        Err("systemd does not answer on the line of its signals".into())
    }
}

/// Looks at groups in which something changed, and tells what is new.
pub async fn look(shared: Rc<Shared>) {
    loop {
        let Some((group, always)) = shared.next_dirty() else {
            shared.look.notified().await;
            continue;
        };
        let Some(managed) = shared.managed(&group) else { continue };
        // Looking takes time from the work that is under way; its end is looked at anyway.
        if !always && shared.ours.borrow().contains(&group) {
            continue;
        }
        shared.looking.borrow_mut().insert(group.clone());
        let mine = shared.clone();
        tokio::task::spawn_local(async move {
            let seen = mine.judged(&group, &managed).await;
            let old = mine.told.borrow_mut().insert(group.clone(), seen.clone());
            if always || old.as_ref() != Some(&seen) {
                mine.tell(Event::Observed { group: group.clone(), seen }).await;
            }
            mine.looking.borrow_mut().remove(&group);
            mine.look.notify_one();
            if mine.told.borrow().get(&group).is_some_and(|seen| seen.blind) {
                tokio::time::sleep(BLIND_AGAIN).await;
                mine.mark(&group);
            }
        });
    }
}
