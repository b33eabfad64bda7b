//! Feeds a watchdog device for the daemon, which says until when it may be fed; then nobody feeds
//! it, and it resets the machine. A process of its own: what holds up the daemon does not hold up
//! this, and a daemon that hangs or dies says nothing new. The open device also lies with PID 1
//! (FileDescriptorStoreMax= of systemd.service(5)): a feeder that dies stops nothing.

use super::device::Device;
use super::{FED, Told, Words, numbered};
use crate::core::time::Instant;
use crate::io::{clock, notify, reset};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

/// It is fed so often in its time.
const OFTEN: u32 = 5;
/// How long a wait for the next word lasts while there is nothing to feed.
const IDLE: Duration = Duration::from_secs(3600);
/// Who does not read its answer holds up no feeding.
const ANSWER: Duration = Duration::from_millis(10);
const MESSAGE_MAX: usize = 4096;

pub struct Feeder {
    socket: UnixDatagram,
    device: Option<Device>,
    pid1: Sender<Option<OwnedFd>>,
    /// `None`: an earlier feeder opened it, and it is not known which it is.
    path: Option<PathBuf>,
    /// It counts.
    armed: bool,
    /// `None`: nobody has said anything yet.
    until: Option<Instant>,
    /// Of the newest word, and what was answered to it.
    newest: (u64, Words),
    /// The time as it was asked for, and as the device has it.
    wanted: u32,
    timeout: Duration,
    fed: Instant,
    /// It cannot be stopped, and nothing is owned any more.
    free: bool,
    starved: bool,
}

impl Feeder {
    /// With what an earlier feeder left.
    pub fn new(socket: UnixDatagram, found: Option<Device>) -> Feeder {
        let timeout = found.as_ref().and_then(|device| device.timeout().ok());
        let timeout = timeout.unwrap_or_default();
        let last = std::fs::read_to_string(FED).ok();
        let (path, until, free) = match last.as_deref().map(Told::read) {
            Some(Some(Told::Feed { until, device, .. })) => (Some(device), Some(until), false),
            Some(Some(Told::End)) => (None, None, true),
            Some(None) | None => (None, None, false),
        };
        let _ = socket.set_write_timeout(Some(ANSWER));
        Feeder {
            socket,
            wanted: timeout,
            timeout: Duration::from_secs(timeout.into()),
            armed: found.is_some() && last.is_some(),
            device: found,
            path,
            pid1: pid1(),
            until,
            newest: (0, Words::Off),
            fed: Instant::default(),
            free,
            starved: false,
        }
    }

    /// Waits for one thing and deals with it. The words are for people.
    pub fn turn(&mut self) -> io::Result<Option<String>> {
        let wait = match self.armed {
            true => self.pause().saturating_sub(clock::now().since(self.fed)),
            false => IDLE,
        };
        self.socket.set_read_timeout(Some(wait.max(Duration::from_millis(1))))?;
        let mut buffer = [0; MESSAGE_MAX];
        let words = match self.socket.recv_from(&mut buffer) {
            Ok((len, from)) => self.told(&buffer[..len], &from),
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                None
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => None,
            Err(e) => return Err(e),
        };
        Ok(words.or(self.feed()))
    }

    fn pause(&self) -> Duration {
        self.timeout / OFTEN
    }

    fn told(&mut self, message: &[u8], from: &SocketAddr) -> Option<String> {
        let (number, text) = numbered(message)?;
        let told = Told::read(text)?;
        let (answer, words) = match told {
            _ if number < self.newest.0 => (self.newest.1.clone(), None),
            Told::End => (Words::Off, self.end()),
            Told::Feed { until, seconds, device } => {
                let set = self.set(&device, seconds);
                // What counts is fed by the newest word, also where it cannot be changed.
                (self.until, self.free) = (Some(until), false);
                if self.starved {
                    // At once: there may be no time left for a pause.
                    self.fed = Instant::default();
                }
                match set {
                    Ok(words) => (Words::Armed, words),
                    Err(why) => (Words::Failed(why.clone()), Some(why)),
                }
            }
        };
        self.newest = (number.max(self.newest.0), answer.clone());
        self.remember();
        // Who asked and went away has no use for it.
        let to = from.as_pathname();
        let answer = format!("{number} {}", answer.write());
        let _ = to.map(|to| self.socket.send_to(answer.as_bytes(), to));
        words
    }

    /// For the next feeder. What cannot be written leaves it nothing to go by, and it waits for a
    /// word.
    fn remember(&self) {
        let word = match (&self.path, self.until) {
            _ if !self.armed => return drop(std::fs::remove_file(FED)),
            (Some(path), Some(until)) if !self.free => {
                Told::Feed { until, seconds: self.wanted, device: path.clone() }
            }
            (_, _) => Told::End,
        };
        let _ = std::fs::write(FED, word.write());
    }

    /// As it is, or opened, or set anew.
    fn set(&mut self, path: &Path, seconds: u32) -> Result<Option<String>, String> {
        if let Some(of) = self.path.as_ref().filter(|of| *of != path) {
            if self.armed {
                return Err(format!(
                    "{} is not taken while a group is held here, and {} is fed on: move the groups \
                     to another node, or put watchdog-device in [arbiter] back",
                    path.display(),
                    of.display()
                ));
            }
            self.device = None;
            self.tell_pid1(None);
        }
        let Some(device) = &self.device else { return self.start(path, seconds) };
        if self.wanted != seconds {
            let got = device.set(path, seconds)?;
            (self.wanted, self.timeout) = (seconds, Duration::from_secs(got.into()));
        }
        if self.armed && self.path.is_some() {
            return Ok(None);
        }
        device.count(true).map_err(|e| format!("{}: it cannot count: {e}", path.display()))?;
        self.path = Some(path.into());
        Ok(Some(self.counts(path)))
    }

    fn start(&mut self, path: &Path, seconds: u32) -> Result<Option<String>, String> {
        let (device, got) = match Device::start(path, seconds) {
            Ok((device, got)) => (device, Ok(got)),
            // It counts, with a time of its own, and nothing stops it any more.
            Err((words, Some(device))) => (device, Err(words)),
            Err((words, None)) => return Err(words),
        };
        let counted = got.as_ref().ok().copied().or(device.timeout().ok()).unwrap_or_default();
        (self.wanted, self.timeout) = (counted, Duration::from_secs(counted.into()));
        self.tell_pid1(device.as_fd().try_clone_to_owned().ok());
        (self.device, self.path) = (Some(device), Some(path.into()));
        let words = self.counts(path);
        got?;
        self.wanted = seconds;
        Ok(Some(words))
    }

    fn counts(&mut self, path: &Path) -> String {
        (self.armed, self.fed) = (true, clock::now());
        let seconds = self.timeout.as_secs();
        format!("{}: resets this machine if it is not fed for {seconds} s", path.display())
    }

    fn tell_pid1(&self, keep: Option<OwnedFd>) {
        let _ = self.pid1.send(keep);
    }

    /// It stays open, for whoever needs it next.
    fn end(&mut self) -> Option<String> {
        self.until = None;
        let device = self.device.as_ref().filter(|_| self.armed)?;
        match device.count(false) {
            Ok(()) => {
                (self.armed, self.free, self.starved) = (false, false, false);
                Some("nothing is owned here: it counts no more".into())
            }
            Err(e) => {
                let first = !std::mem::replace(&mut self.free, true);
                first.then(|| format!("it cannot be stopped ({e}: nowayout?), and is fed on"))
            }
        }
    }

    fn feed(&mut self) -> Option<String> {
        let pause = self.pause();
        let device = self.device.as_mut().filter(|_| self.armed)?;
        let now = clock::now();
        if now.since(self.fed) < pause {
            return None;
        }
        if !self.free && self.until.is_none_or(|until| now >= until) {
            // Nothing to wait for but the next word.
            self.fed = now;
            let first = !std::mem::replace(&mut self.starved, true);
            let words = match self.until {
                None => "an earlier feeder's device is fed once the daemon says so",
                Some(_) => {
                    "what is owned here may not go on, and it is not released: the watchdog is \
                     not fed, and resets this machine"
                }
            };
            return first.then(|| words.into());
        }
        if let Err(e) = device.feed() {
            self.fed = now;
            return Some(format!(
                "it cannot be fed: {e}: unless that ends, this machine is reset: move the groups \
                 to another node"
            ));
        }
        self.fed = now;
        // The machine stood still between the look and the act.
        if !self.free && self.until.is_some_and(|until| clock::now() >= until) {
            return Some(reset::now());
        }
        self.starved.then(|| {
            self.starved = false;
            "it is fed again".into()
        })
    }
}

/// What PID 1 is to keep open, or to close, in that order; on a thread of its own: one that does
/// not read holds up no feeding.
fn pid1() -> Sender<Option<OwnedFd>> {
    let (sender, words) = channel();
    std::thread::spawn(move || {
        for word in words {
            match word {
                Some(fd) => drop(notify::keep(&fd, NAME)),
                None => notify::forget(NAME),
            }
        }
    });
    sender
}

/// Under which PID 1 keeps the open device.
pub const NAME: &str = "watchdog";
