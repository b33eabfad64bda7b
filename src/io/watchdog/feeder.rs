//! Feeds a watchdog device for the daemon, which says until when it may be fed; then nobody feeds
//! it, and it resets the machine. A process of its own: what holds up the daemon does not hold up
//! this, and a daemon that hangs or dies says nothing new. The open device also lies with PID 1
//! (FileDescriptorStoreMax= of systemd.service(5)): a feeder that dies stops nothing.

use super::device::Device;
use super::{Told, Words};
use crate::core::time::Instant;
use crate::io::{clock, notify, reset};
use std::io;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// It is fed so often in its time.
const OFTEN: u32 = 5;
/// How often a feeder without a device looks whether there is one to feed.
const IDLE: Duration = Duration::from_secs(3600);
const MESSAGE_MAX: usize = 4096;

pub struct Feeder {
    socket: UnixDatagram,
    device: Option<Device>,
    /// `None`: an earlier feeder opened it.
    path: Option<PathBuf>,
    /// Since nobody has said anything yet, an earlier feeder's device is not fed.
    until: Option<Instant>,
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
        Feeder {
            socket,
            wanted: timeout,
            timeout: Duration::from_secs(timeout.into()),
            device: found,
            path: None,
            until: None,
            fed: Instant::default(),
            free: false,
            starved: false,
        }
    }

    /// Waits for one thing and deals with it. The words are for people.
    pub fn turn(&mut self) -> io::Result<Option<String>> {
        let wait = match (&self.device, self.pause()) {
            (Some(_), pause) => pause.saturating_sub(clock::now().since(self.fed)),
            (None, _) => IDLE,
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
        let told = Told::read(message)?;
        let (answer, words) = match told {
            Told::End => (Words::Off, self.end()),
            Told::Feed { until, seconds, device } => match self.set(&device, seconds) {
                Ok(words) => {
                    (self.until, self.free) = (Some(until), false);
                    if self.starved {
                        // At once: there may be no time left for a pause.
                        self.fed = Instant::default();
                    }
                    (Words::Armed, words)
                }
                Err(why) => (Words::Failed(why.clone()), Some(why)),
            },
        };
        // Who asked and went away has no use for it.
        let to = from.as_pathname();
        let _ = to.map(|to| self.socket.send_to(answer.write().as_bytes(), to));
        words
    }

    /// As it is, or started, or set anew.
    fn set(&mut self, path: &Path, seconds: u32) -> Result<Option<String>, String> {
        let Some(device) = &self.device else { return self.start(path, seconds) };
        if let Some(of) = self.path.as_ref().filter(|of| *of != path) {
            return Err(format!(
                "{} is taken when nothing is held here any more: until then {} is fed",
                path.display(),
                of.display()
            ));
        }
        if self.wanted != seconds {
            let got = device.set(path, seconds)?;
            (self.wanted, self.timeout) = (seconds, Duration::from_secs(got.into()));
        }
        self.path = Some(path.into());
        Ok(None)
    }

    fn start(&mut self, path: &Path, seconds: u32) -> Result<Option<String>, String> {
        let (device, got) = Device::start(path, seconds)?;
        (self.wanted, self.timeout) = (seconds, Duration::from_secs(got.into()));
        self.fed = clock::now();
        let kept = notify::keep(&device, NAME);
        (self.device, self.path) = (Some(device), Some(path.into()));
        let path = path.display();
        let words = format!("{path}: resets this machine if it is not fed for {got} s");
        Ok(Some(match kept {
            Ok(()) => words,
            Err(e) => format!("{words}; a feeder that dies ends it ({e})"),
        }))
    }

    fn end(&mut self) -> Option<String> {
        self.until = None;
        let device = self.device.take()?;
        match device.stop() {
            Ok(()) => {
                notify::forget(NAME);
                (self.free, self.starved) = (false, false);
                Some("nothing is owned here: it counts no more".into())
            }
            Err(device) => {
                self.device = Some(device);
                let first = !std::mem::replace(&mut self.free, true);
                first.then(|| "it cannot be stopped (nowayout), and is fed on".into())
            }
        }
    }

    fn feed(&mut self) -> Option<String> {
        let pause = self.pause();
        let device = self.device.as_mut()?;
        let now = clock::now();
        if now.since(self.fed) < pause {
            return None;
        }
        if !self.free && self.until.is_none_or(|until| now >= until) {
            // Nothing to wait for but the next word.
            self.fed = now;
            let first = !std::mem::replace(&mut self.starved, true);
            let words = match self.until {
                None => "an earlier feeder's device counts: it is fed once the daemon says so",
                Some(_) => {
                    "what is owned here may not go on, and it is not released: the watchdog is \
                     not fed, and resets this machine"
                }
            };
            return first.then(|| words.into());
        }
        if let Err(e) = device.feed() {
            self.fed = now;
            return Some(format!("it cannot be fed: {e}"));
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

/// Under which PID 1 keeps the open device.
pub const NAME: &str = "watchdog";
