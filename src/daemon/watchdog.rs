//! The hardware watchdog as the daemon uses it: no group is started before the device counts.

use crate::config::arbiter::Watchdog as Settings;
use crate::core::name::{Epoch, GroupName};
use crate::core::say::{Saying, What};
use crate::core::time::Instant;
use crate::core::watchdog::Feed;
use crate::core::{Event, StartError};
use crate::io::Inbox;
use crate::io::systemd::Systemd;
use crate::io::watchdog::{self, Answer, Handle, Trouble};
use crate::wire::control::WatchdogView;

#[derive(Default)]
pub struct Watchdog {
    /// From the first settings with a watchdog on.
    handle: Option<Handle>,
    on: bool,
    turn: u64,
    /// The last word was answered.
    answered: bool,
    /// By that answer the device counts.
    armed: bool,
    waiting: Vec<Start>,
    wrong: Option<Trouble>,
}

/// [`Action::Start`](crate::core::Action::Start).
pub struct Start {
    pub group: GroupName,
    pub epoch: Epoch,
    pub job: u64,
    pub valid_until: Instant,
}

impl Start {
    pub fn go(self, systemd: &Systemd) {
        systemd.start(self.group, self.epoch, self.job, self.valid_until);
    }

    fn fail(self, why: &Trouble) -> Event {
        let (unit, result) = ("watchdog".into(), why.words().into());
        let result = Err(StartError::Failed { unit, result });
        Event::Started { group: self.group, job: self.job, result }
    }
}

impl Watchdog {
    pub fn set(&mut self, settings: Option<Settings>, inbox: &Inbox) -> std::io::Result<()> {
        let on = settings.is_some();
        match (&self.handle, settings) {
            (Some(handle), settings) => self.said(handle.set(settings)),
            (None, None) if !watchdog::counts() => {}
            // An earlier daemon had one: it is not needed any more.
            (None, settings) => self.handle = Some(Handle::spawn(settings, inbox.clone())?),
        }
        self.on = on;
        Ok(())
    }

    pub fn tell(&mut self, feed: Feed) {
        let told = self.handle.as_ref().and_then(|handle| handle.tell(feed));
        if let Some(turn) = told {
            self.said(turn);
        }
    }

    fn said(&mut self, turn: u64) {
        (self.turn, self.answered, self.armed) = (turn, false, false);
    }

    /// Now, or when the device counts; the failure, where it is known not to.
    #[must_use]
    pub fn start(&mut self, start: Start, go: impl FnOnce(Start)) -> Option<Event> {
        self.forget(&start.group);
        match &self.wrong {
            _ if !self.on || self.armed => go(start),
            Some(why) if self.answered => return Some(start.fail(why)),
            _ => self.waiting.push(start),
        }
        None
    }

    /// What was to be started is to be stopped now.
    pub fn forget(&mut self, group: &GroupName) {
        self.waiting.retain(|start| start.group != *group);
    }

    /// What the core and the journal are to know of it.
    pub fn answered(
        &mut self,
        answer: Answer,
        go: impl FnMut(Start),
    ) -> (Vec<Event>, Option<Saying>) {
        if answer.turn != self.turn {
            return (Vec::new(), None);
        }
        let before = self.wrong.clone();
        (self.answered, self.armed) = (true, answer.armed == Ok(true));
        match answer.armed {
            Err(trouble) if self.on => self.wrong = Some(trouble),
            // That nothing is fed says nothing of the device.
            Ok(false) if self.on && matches!(before, Some(Trouble::Device(_))) => {}
            Ok(_) | Err(_) => self.wrong = None,
        }
        let mut events = Vec::new();
        match &self.wrong {
            Some(why) => events.extend(self.waiting.drain(..).map(|start| start.fail(why))),
            None if self.armed || !self.on => {
                self.waiting.drain(..).for_each(go);
            }
            None => {}
        }
        let saying = match (before, &self.wrong) {
            (before, Some(why)) if before.as_ref() != Some(why) => {
                let words = format!("{}; nothing starts here until it is mended", why.words());
                Some(Saying::new(What::WatchdogLost, words))
            }
            (Some(_), None) => Some(Saying::new(What::WatchdogBack, "it can be fed again")),
            (_, _) => None,
        };
        (events, saying)
    }

    pub fn view(&self) -> Option<WatchdogView> {
        let wrong = self.wrong.as_ref().map(|why| why.words().to_string());
        self.on.then_some(WatchdogView { counts: self.armed, wrong })
    }

    /// The last word is said before the daemon ends.
    pub fn flush(&self) {
        if let Some(handle) = &self.handle {
            handle.flush();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::name::NodeId;

    fn start(name: &str, job: u64) -> Start {
        let epoch = Epoch { counter: 1, node: NodeId(0) };
        Start { group: GroupName(name.into()), epoch, job, valid_until: Instant(u64::MAX) }
    }

    /// One whose device is to be armed by word 1.
    fn asked() -> Watchdog {
        Watchdog { on: true, turn: 1, ..Watchdog::default() }
    }

    fn answer(watchdog: &mut Watchdog, turn: u64, armed: Result<bool, Trouble>) -> Vec<u64> {
        let mut gone = Vec::new();
        let (failed, _) = watchdog.answered(Answer { turn, armed }, |s| gone.push(s.job));
        assert!(failed.is_empty());
        gone
    }

    /// Goal: what was stopped while it waited is not started afterwards, and nothing starts on an
    /// answer to an earlier word.
    #[test]
    fn what_waits_starts_once_it_counts_unless_it_was_stopped() {
        let mut watchdog = asked();
        for (name, job) in [("a", 1), ("b", 2), ("b", 3)] {
            let never = |_: Start| panic!("nothing counts");
            assert_eq!(watchdog.start(start(name, job), never), None);
        }
        watchdog.forget(&GroupName("a".into()));
        assert!(answer(&mut watchdog, 0, Ok(true)).is_empty());
        assert_eq!(answer(&mut watchdog, 1, Ok(true)), [3]);
        let mut gone = false;
        assert_eq!(watchdog.start(start("a", 4), |_| gone = true), None);
        assert!(gone, "it counts");
    }

    /// Goal: a device that cannot be armed fails what waits, and at once what comes later, until
    /// it is asked again.
    #[test]
    fn what_cannot_count_starts_nothing() {
        let mut watchdog = asked();
        let never = |_: Start| panic!("nothing counts");
        assert_eq!(watchdog.start(start("a", 1), never), None);
        let why = Err(Trouble::Device("no driver".into()));
        let (failed, saying) = watchdog.answered(Answer { turn: 1, armed: why }, never);
        assert!(matches!(&failed[..], [Event::Started { job: 1, result: Err(_), .. }]));
        assert_eq!(saying.map(|s| s.what), Some(What::WatchdogLost));
        let shown = watchdog.view().and_then(|view| view.wrong);
        assert_eq!(shown.as_deref(), Some("no driver"));
        let failed = watchdog.start(start("b", 2), never);
        assert!(matches!(failed, Some(Event::Started { job: 2, result: Err(_), .. })));
        watchdog.said(2);
        assert_eq!(watchdog.start(start("b", 3), never), None);
        assert_eq!(answer(&mut watchdog, 2, Ok(true)), [3]);
    }
}
