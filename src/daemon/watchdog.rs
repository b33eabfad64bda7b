//! The hardware watchdog as the daemon uses it: no group is started before the device counts.

use crate::config::arbiter::Watchdog as Settings;
use crate::core::name::{Epoch, GroupName};
use crate::core::say::{Saying, What};
use crate::core::time::Instant;
use crate::core::watchdog::Feed;
use crate::core::{Event, StartError};
use crate::io::Inbox;
use crate::io::systemd::Systemd;
use crate::io::watchdog::{Answer, Handle, Trouble};

#[derive(Default)]
pub struct Watchdog {
    /// From the first settings with a watchdog on.
    handle: Option<Handle>,
    on: bool,
    turn: u64,
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
    fn go(self, systemd: &Systemd) {
        systemd.start(self.group, self.epoch, self.job, self.valid_until);
    }
}

impl Watchdog {
    pub fn set(&mut self, settings: Option<Settings>, inbox: &Inbox) -> std::io::Result<()> {
        let on = settings.is_some();
        match (&self.handle, settings) {
            (Some(handle), settings) => (self.turn, self.armed) = (handle.set(settings), false),
            (None, Some(settings)) => {
                self.handle = Some(Handle::spawn(settings, inbox.clone())?);
            }
            (None, None) => {}
        }
        self.on = on;
        Ok(())
    }

    pub fn tell(&mut self, feed: Feed) {
        let told = self.handle.as_ref().and_then(|handle| handle.tell(feed));
        if let Some(turn) = told {
            (self.turn, self.armed) = (turn, false);
        }
    }

    /// Now, or when the device counts.
    pub fn start(&mut self, start: Start, systemd: &Systemd) {
        match self.on && !self.armed {
            true => self.waiting.push(start),
            false => start.go(systemd),
        }
    }

    /// What the core and the journal are to know of it.
    pub fn answered(&mut self, answer: Answer, systemd: &Systemd) -> (Vec<Event>, Option<Saying>) {
        if answer.turn != self.turn {
            return (Vec::new(), None);
        }
        let before = self.wrong.clone();
        self.armed = answer.armed == Ok(true);
        match answer.armed {
            Err(trouble) if self.on => self.wrong = Some(trouble),
            // That nothing is fed says nothing of the device.
            Ok(false) if self.on && matches!(before, Some(Trouble::Device(_))) => {}
            Ok(_) | Err(_) => self.wrong = None,
        }
        let mut events = Vec::new();
        match &self.wrong {
            Some(why) => {
                let failed = |start: Start| {
                    let (unit, result) = ("watchdog".into(), why.words().into());
                    let result = Err(StartError::Failed { unit, result });
                    Event::Started { group: start.group, job: start.job, result }
                };
                events.extend(self.waiting.drain(..).map(failed));
            }
            None if self.armed || !self.on => {
                self.waiting.drain(..).for_each(|start| start.go(systemd));
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

    /// The last word is said before the daemon ends.
    pub fn flush(&self) {
        if let Some(handle) = &self.handle {
            handle.flush();
        }
    }
}
