//! The guard's voice: tells the other nodes what it is at (`core::guard` has what it says). On a
//! thread of its own with links of its own, so that nothing here can hold up the guard; a link that
//! does not open is a link on which nothing is said.

use crate::config::keys;
use crate::config::settings::Settings;
use crate::config::target::{self, Target};
use crate::core::name::{BootId, GroupName};
use crate::core::policy::Policy;
use crate::core::time::Instant;
use crate::core::{Event, Guard, Lost};
use crate::daemon::setup;
use crate::io::link::{self, LinkHandle};
use crate::io::{Input, clock, token};
use crate::wire::Codec;
use crate::wire::keys::Keys;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::mpsc;

/// Frames that may wait; more are dropped.
const INBOX: usize = 256;
/// The last word is repeated until it was heard, but no longer than this.
const PATIENCE: Duration = Duration::from_secs(2);

/// What it takes to speak, read from the disk.
pub struct Speech {
    settings: Settings,
    policy: Policy,
    keys: Keys,
}

enum Word {
    Stopped(GroupName),
    /// All is said; until then it is repeated for those that have not heard it.
    End(Instant),
}

pub struct Voice {
    words: mpsc::UnboundedSender<Word>,
    thread: JoinHandle<()>,
}

impl Speech {
    pub fn read(settings: &Settings, targets: &[Target]) -> Option<Speech> {
        let told = |e: &String| crate::cli::tell(format!("hafailover lost: unheard: {e}"));
        let keys = keys::load(&settings.keys).inspect_err(told).ok()?;
        let settle = |t: &Target| Some((t.name.clone(), target::settle(t, settings).ok()?.policy));
        let policy = settings.policy(targets.iter().filter_map(settle));
        Some(Speech { settings: settings.clone(), policy, keys })
    }

    pub fn begin<'a>(
        self,
        ends: Instant,
        groups: impl Iterator<Item = &'a GroupName>,
        held: &[GroupName],
    ) -> Option<Voice> {
        let lost = Lost {
            session: setup::session().ok()?,
            boot: BootId(token::boot()),
            ends,
            groups: groups.cloned().collect(),
            held: held.iter().cloned().collect(),
        };
        let (words, said) = mpsc::unbounded_channel();
        let thread = std::thread::Builder::new().name("voice".into());
        let thread = thread.spawn(move || drop(speak(self, lost, said))).ok()?;
        Some(Voice { words, thread })
    }
}

impl Voice {
    pub fn stopped(&self, group: &GroupName) {
        let _ = self.words.send(Word::Stopped(group.clone()));
    }

    /// Ends when all who can hear know what was said last, and not later than that.
    pub fn end(self, latest: Instant) {
        let _ = self.words.send(Word::End(latest.min(clock::now() + PATIENCE)));
        let _ = self.thread.join();
    }
}

fn speak(speech: Speech, lost: Lost, words: mpsc::UnboundedReceiver<Word>) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let work = async move { Mouth::open(speech, lost).serve(words).await };
    tokio::task::LocalSet::new().block_on(&runtime, work);
    Ok(())
}

/// The guard, its links and its seal.
struct Mouth {
    guard: Guard,
    codec: Codec,
    links: Vec<LinkHandle>,
    inbox: mpsc::Receiver<Input>,
    /// Kept, or a link that cannot report would end.
    _sender: mpsc::Sender<Input>,
}

impl Mouth {
    fn open(speech: Speech, lost: Lost) -> Mouth {
        let Speech { settings, policy, keys } = speech;
        let (sender, inbox) = mpsc::channel(INBOX);
        let names: Vec<String> = settings.nodes.iter().map(|n| n.name.clone()).collect();
        let codec = Codec::new(&settings.cluster, &names, settings.me, lost.session, keys);
        let open = |l| link::open(l, settings.me, &sender);
        let links = settings.links.iter().map(open).collect();
        let guard = Guard::new(clock::now(), lost, policy);
        Mouth { guard, codec, links, inbox, _sender: sender }
    }

    /// Until all is said and was heard.
    async fn serve(mut self, mut words: mpsc::UnboundedReceiver<Word>) {
        let mut end: Option<Instant> = None;
        loop {
            let now = clock::now();
            if end.is_some_and(|end| now >= end || self.guard.everybody_knows(now)) {
                return;
            }
            self.say(now);
            let wait = self.guard.next_wake().min(end.unwrap_or(Instant(u64::MAX))).since(now);
            tokio::select! {
                word = words.recv(), if end.is_none() => match word {
                    Some(Word::Stopped(group)) => self.guard.stopped(clock::now(), &group),
                    Some(Word::End(latest)) => end = Some(latest),
                    None => end = Some(clock::now()),
                },
                Some(input) = self.inbox.recv() => self.hear(input),
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    fn hear(&mut self, input: Input) {
        match input {
            Input::Frame { link, bytes, .. } => {
                let Ok(beat) = self.codec.decode(link, &bytes) else { return };
                self.guard.hear(clock::now(), link, &beat);
                if let Some(session) = self.guard.session_of(beat.from) {
                    self.codec.accept_session(beat.from, session);
                }
            }
            Input::Event(Event::Link { usable: true, .. }) => self.guard.opened(clock::now()),
            Input::Event(_)
            | Input::Control { .. }
            | Input::Watchdog(_)
            | Input::Warn(_)
            | Input::Reload => {}
        }
    }

    fn say(&mut self, now: Instant) {
        let beats = self.guard.speak(now);
        for (n, link) in self.links.iter().enumerate() {
            let here = beats.iter().filter(|b| usize::from(b.link.0) == n);
            let frames: Vec<Vec<u8>> = here.filter_map(|b| self.codec.encode(b)).collect();
            if !frames.is_empty() {
                link.send(frames);
            }
        }
    }
}
