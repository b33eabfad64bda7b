//! The hardware watchdog that lives on the leases: what the daemon says to the process that feeds
//! it (`feeder`), and what that one answers, in datagrams on a socket in the file system that is
//! root's. Each says everything anew, so that one that is lost, or a feeder that died, changes
//! nothing.

pub mod device;
pub mod feeder;

use super::log::Log;
use super::{Inbox, Input, clock, notify, rt};
use crate::config::arbiter::Watchdog;
use crate::core::time::Instant;
use crate::core::watchdog::Feed;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// Where the feeder listens (hafailover-watchdog.socket).
pub const SOCKET: &str = "/run/hafailover/watchdog";
/// While a device counts, the last word, for the next feeder.
const FED: &str = "/run/hafailover/watchdog.fed";
/// Memory is locked, so a thread's stack is paid for.
const STACK: usize = 128 * 1024;
/// How often a word is repeated that nothing hangs on.
const IDLE: Duration = Duration::from_secs(60);
/// An answer that takes longer is none.
const LIMIT: Duration = Duration::from_secs(1);
/// A time that is later by less is not worth a word.
const STEP: Duration = Duration::from_millis(100);
/// What was said is said again so often in the watchdog's time.
const OFTEN: u32 = 4;

/// Said to the feeder.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Told {
    Feed { until: Instant, seconds: u32, device: PathBuf },
    End,
}

/// Its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Words {
    Armed,
    Off,
    Failed(String),
}

impl Told {
    fn write(&self) -> String {
        match self {
            Told::Feed { until, seconds, device } => {
                format!("feed {} {seconds} {}", until.0, device.display())
            }
            Told::End => "end".into(),
        }
    }

    /// Of two words the feeder goes by the one with the higher number.
    fn numbered(&self, number: u64) -> String {
        format!("{number} {}", self.write())
    }

    fn read(text: &str) -> Option<Told> {
        if text == "end" {
            return Some(Told::End);
        }
        let mut words = text.strip_prefix("feed ")?.splitn(3, ' ');
        let (until, seconds) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let device = words.next()?.into();
        Some(Told::Feed { until: Instant(until), seconds, device })
    }
}

impl Words {
    fn write(&self) -> String {
        match self {
            Words::Armed => "armed".into(),
            Words::Off => "off".into(),
            Words::Failed(why) => format!("failed {why}"),
        }
    }

    fn read(text: &str) -> Option<Words> {
        match text {
            "armed" => Some(Words::Armed),
            "off" => Some(Words::Off),
            other => other.strip_prefix("failed ").map(|why| Words::Failed(why.into())),
        }
    }
}

/// The number of a word, which its answer has too, and the word.
fn numbered(message: &[u8]) -> Option<(u64, &str)> {
    let (number, text) = std::str::from_utf8(message).ok()?.split_once(' ')?;
    Some((number.parse().ok()?, text))
}

/// One end of the conversation with the feeder.
struct Line(UnixDatagram);

impl Line {
    /// Of the daemon, or of its guard: each has an address of its own.
    fn open(name: &str) -> io::Result<Line> {
        let path = format!("{SOCKET}.{name}");
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let socket = UnixDatagram::bind(&path)?;
        socket.connect(SOCKET)?;
        socket.set_read_timeout(Some(LIMIT))?;
        socket.set_write_timeout(Some(LIMIT))?;
        Ok(Line(socket))
    }

    /// Late answers to earlier words come in here as well.
    fn say(&self, number: u64, told: &Told) -> io::Result<Words> {
        self.0.send(told.numbered(number).as_bytes())?;
        let mut buffer = [0; 4096];
        loop {
            let len = self.0.recv(&mut buffer)?;
            if let Some((of, text)) = numbered(&buffer[..len])
                && of == number
            {
                return Words::read(text).ok_or_else(|| io::Error::other("it answers nonsense"));
            }
        }
    }
}

/// A device counts, as far as is known.
pub fn counts() -> bool {
    Path::new(FED).exists()
}

/// The guard has verified that nothing is left: the device is not needed any more.
pub fn end() -> io::Result<()> {
    Line::open("guard")?.say(clock::now().0, &Told::End).map(drop)
}

/// What became of a word: whether the device counts, or why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Of the word.
    pub turn: u64,
    pub armed: Result<bool, Trouble>,
}

/// Why it is not known to count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It cannot be armed.
    Device(String),
    /// Nobody answers who would feed it.
    Feeder(String),
}

impl Trouble {
    pub fn words(&self) -> &str {
        match self {
            Trouble::Device(words) | Trouble::Feeder(words) => words,
        }
    }
}

/// The daemon's end.
pub struct Handle(Arc<Shared>);

struct Shared {
    current: Mutex<Current>,
    changed: Condvar,
    /// For what may not wait for the thread.
    early: UnixDatagram,
}

#[derive(Clone)]
struct Current {
    /// `None`: no watchdog any more.
    settings: Option<Watchdog>,
    feed: Feed,
    /// Grows whenever the device is to be armed, stopped or set anew.
    turn: u64,
    /// The last one that was answered.
    answered: u64,
    /// Of the last word; higher than that of any daemon before.
    number: u64,
}

impl Handle {
    pub fn spawn(settings: Option<Watchdog>, inbox: Inbox) -> io::Result<Handle> {
        let number = clock::now().0;
        let current = Current { settings, feed: Feed::Keep, turn: 0, answered: 0, number };
        let (current, changed) = (Mutex::new(current), Condvar::new());
        let early = UnixDatagram::unbound()?;
        early.set_nonblocking(true)?;
        let shared = Arc::new(Shared { current, changed, early });
        let run = shared.clone();
        let thread = std::thread::Builder::new().name("watchdog".into()).stack_size(STACK);
        thread.spawn(move || serve(&run, &inbox))?;
        Ok(Handle(shared))
    }

    /// Says so; the number of this word, if the device is to change by it. A time that is shorter
    /// than the last is with the feeder at once: it counts from before anybody else hears of it.
    pub fn tell(&self, feed: Feed) -> Option<u64> {
        let mut current = self.0.current.lock().expect("nobody panics with it");
        let turns = match (current.feed, feed) {
            (_, Feed::Keep) | (Feed::End, Feed::End) => return None,
            (Feed::Until(told), Feed::Until(now)) if told <= now && now.since(told) < STEP => {
                return None;
            }
            (Feed::Until(_), Feed::Until(_)) => false,
            (_, _) => true,
        };
        let sooner = matches!((current.feed, feed), (Feed::Until(t), Feed::Until(now)) if now < t);
        current.feed = feed;
        current.turn += u64::from(turns);
        if let (Some(told), true) = (current.word().0, sooner) {
            // One that does not come through is said again by the thread.
            let word = told.numbered(current.next());
            let _ = self.0.early.send_to(word.as_bytes(), SOCKET);
        }
        self.0.changed.notify_all();
        turns.then_some(current.turn)
    }

    /// From now on by these; the number of the word that this is.
    pub fn set(&self, settings: Option<Watchdog>) -> u64 {
        let mut current = self.0.current.lock().expect("nobody panics with it");
        current.settings = settings;
        current.turn += 1;
        self.0.changed.notify_all();
        current.turn
    }

    /// Waits until the last word was answered.
    pub fn flush(&self) {
        let current = self.0.current.lock().expect("nobody panics with it");
        let open = |c: &mut Current| c.feed != Feed::Keep && c.answered < c.turn;
        drop(self.0.changed.wait_timeout_while(current, LIMIT * 2, open));
    }
}

impl Current {
    fn next(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    /// What is to be said, and how often.
    fn word(&self) -> (Option<Told>, Duration) {
        match (&self.settings, self.feed) {
            (None, _) => (Some(Told::End), IDLE),
            (Some(_), Feed::Keep) => (None, IDLE),
            (Some(_), Feed::End) => (Some(Told::End), IDLE),
            (Some(Watchdog { seconds, device }), Feed::Until(until)) => {
                let (seconds, device) = (*seconds, device.clone());
                let often = Duration::from_secs(seconds.into()) / OFTEN;
                (Some(Told::Feed { until, seconds, device }), often)
            }
        }
    }
}

fn serve(shared: &Shared, inbox: &Inbox) {
    let (mut line, mut last, mut again, mut reported) = (None, None, IDLE, None);
    loop {
        let current = shared.current.lock().expect("nobody panics with it");
        let same = |c: &mut Current| last.as_ref() == Some(&(c.word().0, c.turn));
        let waited = shared.changed.wait_timeout_while(current, again, same);
        let (number, current) = {
            let mut current = waited.expect("nobody panics with it").0;
            (current.next(), current.clone())
        };
        let word;
        (word, again) = current.word();
        last = Some((word.clone(), current.turn));
        let Some(word) = word else { continue };
        let armed = match say(&mut line, number, &word) {
            Ok(Words::Armed) => Ok(true),
            Ok(Words::Off) => Ok(false),
            Ok(Words::Failed(why)) => Err(Trouble::Device(why)),
            Err(e) => Err(Trouble::Feeder(format!(
                "{SOCKET}: {e}: nobody feeds the watchdog: systemctl status \
                 hafailover-watchdog.socket hafailover-watchdog.service"
            ))),
        };
        if armed.is_err() {
            again = again.min(LIMIT);
        }
        shared.current.lock().expect("nobody panics with it").answered = current.turn;
        shared.changed.notify_all();
        let answer = Answer { turn: current.turn, armed };
        if reported.as_ref() != Some(&answer) {
            reported = Some(answer.clone());
            if inbox.blocking_send(Input::Watchdog(answer)).is_err() {
                return;
            }
        }
    }
}

/// On the line there is, or on a new one after an error.
fn say(line: &mut Option<Line>, number: u64, word: &Told) -> io::Result<Words> {
    let open = match line.take() {
        Some(open) => open,
        None => Line::open("daemon")?,
    };
    let answer = open.say(number, word)?;
    *line = Some(open);
    Ok(answer)
}

/// Serves the daemon on the socket that PID 1 gave, until the machine ends.
pub fn feed() -> io::Result<std::convert::Infallible> {
    let log = Log::spawn()?;
    let (socket, found) = given()?;
    let mut feeder = feeder::Feeder::new(socket, found);
    log.info(format!("scheduling: {}", rt::ask().scheduling));
    notify::ready_now();
    loop {
        if let Some(words) = feeder.turn()? {
            log.info(words);
        }
    }
}

/// The socket, and the device that an earlier feeder opened, as PID 1 passes them on
/// (sd_listen_fds(3)).
fn given() -> io::Result<(UnixDatagram, Option<device::Device>)> {
    let (mut socket, mut found) = (None, None);
    for (fd, name) in sd_notify::listen_fds_with_names()? {
        // SAFETY: PID 1 opened it for this process, and it is taken once.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        match name == feeder::NAME {
            true => found = Some(device::Device::found(fd)),
            false => socket = Some(UnixDatagram::from(fd)),
        }
    }
    let missing = || io::Error::other("it is started by hafailover-watchdog.socket only");
    Ok((socket.ok_or_else(missing)?, found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_read() {
        let feed = |until| Told::Feed {
            until: Instant(until),
            seconds: 10,
            device: "/dev/a watchdog".into(),
        };
        for told in [feed(0), feed(u64::MAX), Told::End] {
            assert_eq!(Told::read(&told.write()), Some(told));
        }
        for wrong in ["", "feed", "feed 1", "feed 1 2", "feed x 2 /dev/w", "feed 1 -2 /", "End"] {
            assert_eq!(Told::read(wrong), None, "{wrong}");
        }
        assert_eq!(numbered(b"7 feed 1 2 /dev/w"), Some((7, "feed 1 2 /dev/w")));
        assert_eq!((numbered(b"x end"), numbered(b"7")), (None, None));
        for words in [Words::Armed, Words::Off, Words::Failed("no device: none".into())] {
            assert_eq!(Words::read(&words.write()), Some(words));
        }
    }
}
