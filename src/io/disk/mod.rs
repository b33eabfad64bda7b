//! Heartbeats over slots on a shared disk. The device is the `helper`'s alone, a process of its
//! own; here is the daemon's end: a socket to it, and a thread that hears it. Who hears nothing
//! from the helper calls the device hung, and waits: that is a dead link, no more.

pub mod device;
pub mod foreign;
pub mod helper;
pub mod slots;

use super::link::{Counters, REOPEN};
use super::{Inbox, Input, clock};
use crate::config::settings::Disk;
use crate::core::Event;
use crate::core::name::{LinkId, NodeId};
use crate::core::time::Instant;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType, recv, send, shutdown,
    socketpair, sockopt,
};
use serde::{Deserialize, Serialize};
use slots::Place;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Memory is locked, so a thread's stack is paid for.
const STACK: usize = 256 * 1024;
/// This program, also after another version of it was installed.
pub const PROGRAM: &str = "/proc/self/exe";

/// What the helper goes by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    pub place: Place,
    pub me: usize,
    pub interval: Duration,
    pub deadtime: Duration,
}

impl Plan {
    pub fn of(disk: &Disk, me: NodeId) -> Plan {
        let Disk { device, interval, deadtime, cluster, nodes, .. } = disk.clone();
        let me = usize::from(me.0);
        Plan { place: Place { device, cluster, nodes }, me, interval, deadtime }
    }

    /// Without a word of the helper for so long, the device hangs. Shorter than `deadtime`, so that
    /// the link is not missed before it is known why; longer than `interval`, which is less than
    /// half of it.
    fn patience(&self) -> Duration {
        self.deadtime * 3 / 4
    }
}

/// What the helper says; each message is one of these and its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// The device is open, and its header is ours.
    Usable,
    /// It cannot be used; why.
    Failed,
    /// A frame of another node.
    Frame,
    /// The slots were looked at.
    Round,
    /// And our own was written.
    Wrote,
    Warning,
}

const WORDS: [(u8, Word); 6] = [
    (b'U', Word::Usable),
    (b'X', Word::Failed),
    (b'F', Word::Frame),
    (b'R', Word::Round),
    (b'W', Word::Wrote),
    (b'!', Word::Warning),
];

struct Message;

impl Message {
    fn of(word: Word, bytes: &[u8]) -> Vec<u8> {
        let letter = WORDS.iter().find(|(_, w)| *w == word).map_or(b'?', |(l, _)| *l);
        [&[letter], bytes].concat()
    }

    fn read(message: &[u8]) -> Option<(Word, &[u8])> {
        let (letter, bytes) = message.split_first()?;
        WORDS.iter().find(|(l, _)| l == letter).map(|(_, word)| (*word, bytes))
    }
}

/// The frames of one moment in one message, and when that was.
fn pack(now: Instant, frames: &[Vec<u8>]) -> Vec<u8> {
    let one = |f: &Vec<u8>| [&(f.len() as u16).to_be_bytes()[..], f].concat();
    now.0.to_be_bytes().into_iter().chain(frames.iter().flat_map(one)).collect()
}

fn unpack(message: &[u8]) -> Option<(Instant, Vec<Vec<u8>>)> {
    let (at, mut bytes) = message.split_first_chunk::<8>()?;
    let mut frames = Vec::new();
    while let Some((len, rest)) = bytes.split_first_chunk::<2>() {
        let (frame, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
        frames.push(frame.to_vec());
        bytes = rest;
    }
    Some((Instant(u64::from_be_bytes(*at)), frames))
}

/// Closes the link when dropped.
pub struct Sender(Arc<Shared>);

struct Shared {
    /// To the helper that runs now.
    socket: Mutex<Option<Arc<OwnedFd>>>,
    closed: AtomicBool,
    counters: Arc<Counters>,
}

impl Sender {
    /// Never waits: what a helper that waits for its device has no room for is not sent.
    pub fn send(&self, frames: &[Vec<u8>]) {
        let Some(socket) = self.0.socket.lock().ok().and_then(|s| s.clone()) else { return };
        let message = pack(clock::now(), frames);
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        if send(&socket, &message, flags).is_ok() {
            frames.iter().for_each(|f| self.0.counters.sent(f.len()));
        }
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.0.closed.store(true, Ordering::Relaxed);
        if let Some(socket) = self.0.socket.lock().ok().and_then(|s| s.clone()) {
            let _ = shutdown(&socket, Shutdown::Both);
        }
    }
}

pub fn open(
    link: LinkId,
    plan: Plan,
    program: PathBuf,
    inbox: Inbox,
    counters: Arc<Counters>,
) -> Sender {
    let (socket, closed) = (Mutex::new(None), AtomicBool::new(false));
    let shared = Arc::new(Shared { socket, closed, counters });
    let end = End { link, plan, inbox, shared: shared.clone(), usable: None, hung: false };
    let thread = std::thread::Builder::new().name(format!("disk{}", link.0)).stack_size(STACK);
    if thread.spawn(move || end.run(&program)).is_err() {
        shared.closed.store(true, Ordering::Relaxed);
    }
    Sender(shared)
}

/// The thread that hears the helper.
struct End {
    link: LinkId,
    plan: Plan,
    inbox: Inbox,
    shared: Arc<Shared>,
    /// As last reported: usable, and why not.
    usable: Option<(bool, String)>,
    hung: bool,
}

/// Nobody listens any more.
struct Closed;

impl End {
    /// Starts a helper, hears it, and starts another when it has ended.
    fn run(mut self, program: &Path) {
        while !self.shared.closed.load(Ordering::Relaxed) {
            let why = match start(program, &self.plan) {
                Ok((mut child, socket)) => {
                    let socket = Arc::new(socket);
                    if let Ok(mut shared) = self.shared.socket.lock() {
                        *shared = Some(socket.clone());
                    }
                    let heard = self.hear(&socket);
                    if let Ok(mut shared) = self.shared.socket.lock() {
                        *shared = None;
                    }
                    // It ends by that, as soon as its device answers it.
                    drop(socket);
                    let status = child.wait();
                    if heard.is_err() {
                        return;
                    }
                    format!("its helper ended: {}", status.map_or_else(said, |s| s.to_string()))
                }
                Err(e) => format!("its helper cannot be started: {e}"),
            };
            let why = format!("{}: {why}", self.plan.place.device.display());
            if self.report(false, why).is_err() {
                return;
            }
            std::thread::park_timeout(REOPEN);
        }
    }

    /// Until the helper has ended.
    fn hear(&mut self, socket: &OwnedFd) -> Result<(), Closed> {
        let mut buffer = vec![0; helper::MESSAGE_MAX];
        let mut heard = clock::now();
        loop {
            let got = recv(socket, &mut *buffer, RecvFlags::empty());
            if self.shared.closed.load(Ordering::Relaxed) {
                return Err(Closed);
            }
            match got {
                Ok((0, _)) => return Ok(()),
                Ok((len, _)) => {
                    heard = clock::now();
                    self.take(&buffer[..len])?;
                }
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                Err(_) => return Ok(()),
            }
            let quiet = clock::now().since(heard);
            if quiet >= self.plan.patience() && !self.hung {
                self.hung = true;
                let path = self.plan.place.device.display();
                let why = format!("{path}: has not answered for {:.1} s", quiet.as_secs_f64());
                self.tell(false, why)?;
            }
        }
    }

    fn take(&mut self, message: &[u8]) -> Result<(), Closed> {
        let Some((word, bytes)) = Message::read(message) else { return Ok(()) };
        let words = || String::from_utf8_lossy(bytes).into_owned();
        if std::mem::take(&mut self.hung)
            && let Some((usable, why)) = self.usable.clone()
        {
            self.tell(usable, why)?;
        }
        match word {
            Word::Usable => self.report(true, String::new())?,
            Word::Failed => self.report(false, words())?,
            Word::Frame => {
                self.shared.counters.received(bytes.len());
                let (link, bytes) = (self.link, bytes.to_vec());
                // A full inbox drops heartbeats: the next one says the same, and newer.
                let _ = self.inbox.try_send(Input::Frame { link, bytes, from: None });
            }
            Word::Warning => {
                let words = format!("{}: {}", self.plan.place.device.display(), words());
                self.inbox.blocking_send(Input::Warn(words)).map_err(|_| Closed)?;
            }
            Word::Round | Word::Wrote => {}
        }
        Ok(())
    }

    fn report(&mut self, usable: bool, why: String) -> Result<(), Closed> {
        let state = (usable, why.clone());
        if self.usable.replace(state.clone()) == Some(state) {
            return Ok(());
        }
        self.tell(usable, why)
    }

    fn tell(&self, usable: bool, why: String) -> Result<(), Closed> {
        let event = Event::Link { link: self.link, usable, why };
        self.inbox.blocking_send(Input::Event(event)).map_err(|_| Closed)
    }
}

/// A helper, and our end of its socket.
fn start(program: &Path, plan: &Plan) -> std::io::Result<(Child, OwnedFd)> {
    let family = (AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC);
    let (ours, its) = socketpair(family.0, family.1, family.2, None)?;
    let quarter = Some(plan.patience() / 4);
    sockopt::set_socket_timeout(&ours, sockopt::Timeout::Recv, quarter)?;
    let mut command = Command::new(program);
    command.args(["disk", "serve"]).env_clear().stdin(Stdio::from(its)).stdout(Stdio::null());
    let child = command.spawn()?;
    let plan = serde_json::to_vec(plan)?;
    send(&ours, &plan, SendFlags::NOSIGNAL)?;
    Ok((child, ours))
}

fn said(error: std::io::Error) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_packed_and_unpacked() {
        let frames = vec![vec![1; 4000], vec![], vec![2]];
        let message = pack(Instant(7), &frames);
        assert_eq!(unpack(&message), Some((Instant(7), frames)));
        assert_eq!(unpack(&message[..100]), None);
        assert_eq!(unpack(&[0]), None);
        for (_, word) in WORDS {
            assert_eq!(Message::read(&Message::of(word, b"x")), Some((word, &b"x"[..])));
        }
        assert_eq!(Message::read(b""), None);
        assert_eq!(Message::read(b"?"), None);
    }
}
