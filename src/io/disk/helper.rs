//! The process that reads and writes the slots. A process of its own, because a device that hangs
//! makes whoever waits for it unkillable: the daemon must end and start again nevertheless. It has
//! one thread, and ends when the daemon's end of the socket is gone.

use super::slots::{Read, Slots};
use super::{Message, Plan, Word};
use crate::core::time::Instant;
use crate::io::clock;
use crate::io::disk::device::Use;
use crate::io::link::REOPEN;
use crate::wire::disk::{Seen, Slot};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::mm::{MlockAllFlags, mlockall};
use rustix::net::{RecvFlags, SendFlags, recv, send};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// Longest message of the daemon: the frames of one moment, or the plan.
pub const MESSAGE_MAX: usize = 128 * 1024;
/// A slot that is torn in so many looks after each other is told of.
const TORN: u32 = 10;

/// Serves until the daemon is gone.
pub fn serve(socket: OwnedFd) -> Result<(), String> {
    let _ = mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE);
    let mut ear = Ear::of(socket);
    let Some(plan) = ear.plan()? else { return Ok(()) };
    ear.fresh = plan.deadtime / 2;
    let mut told: Option<String> = None;
    loop {
        let why = match Hand::open(&plan) {
            Ok(mut hand) => {
                told = None;
                ear.say(Word::Usable, &[]);
                match hand.work(&plan, &mut ear) {
                    Ok(Gone) => return Ok(()),
                    Err(why) => why,
                }
            }
            Err(why) => why,
        };
        if told.as_ref() != Some(&why) {
            ear.say(Word::Failed, why.as_bytes());
            told = Some(why);
        }
        // Told again and again that somebody is there, and waits.
        ear.say(Word::Round, &[]);
        if ear.listen(clock::now() + REOPEN).is_err() {
            return Ok(());
        }
        ear.waiting.clear();
    }
}

/// The daemon is gone.
struct Gone;

/// The socket, and the frames that came and are not yet written.
struct Ear {
    socket: OwnedFd,
    buffer: Vec<u8>,
    waiting: Vec<Vec<u8>>,
    /// What lay in the socket for so long, because the device did not answer, is not written.
    fresh: Duration,
}

impl Ear {
    fn of(socket: OwnedFd) -> Ear {
        let (buffer, waiting) = (vec![0; MESSAGE_MAX], Vec::new());
        Ear { socket, buffer, waiting, fresh: Duration::MAX }
    }

    fn plan(&mut self) -> Result<Option<Plan>, String> {
        let (len, _) = recv(&self.socket, &mut *self.buffer, RecvFlags::empty())
            .map_err(|e| format!("no plan came: {e}"))?;
        if len == 0 {
            return Ok(None);
        }
        serde_json::from_slice(&self.buffer[..len]).map(Some).map_err(|e| e.to_string())
    }

    /// What the daemon does not take now is not kept: the next says the same, and newer.
    fn say(&self, word: Word, bytes: &[u8]) {
        let message = Message::of(word, bytes);
        let _ = send(&self.socket, &message, SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
    }

    /// Until something came, or that moment.
    fn listen(&mut self, until: Instant) -> Result<(), Gone> {
        let left = until.since(clock::now());
        let wait = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        let mut fds = [PollFd::from_borrowed_fd(self.socket.as_fd(), PollFlags::IN)];
        match poll(&mut fds, Some(&wait)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(()),
            Ok(_) => {}
            Err(_) => return Err(Gone),
        }
        loop {
            match recv(&self.socket, &mut *self.buffer, RecvFlags::DONTWAIT) {
                Ok((0, _)) => return Err(Gone),
                Ok((len, _)) => {
                    let (now, moment) = (clock::now(), super::unpack(&self.buffer[..len]));
                    let fresh = moment.filter(|(at, _)| now.since(*at) < self.fresh);
                    self.waiting.extend(fresh.into_iter().flat_map(|(_, frames)| frames));
                }
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return Ok(()),
                Err(_) => return Err(Gone),
            }
        }
    }
}

/// An open device, and how far its slots were read.
struct Hand {
    slots: Slots,
    me: usize,
    own: Slot,
    seen: Vec<Seen>,
    torn: Vec<u32>,
    /// When the last look that succeeded was begun.
    looked: Instant,
}

impl Hand {
    fn open(plan: &Plan) -> Result<Hand, String> {
        let count = plan.place.nodes.len();
        let slots = Slots::open(plan.place.clone(), Use::Write)?;
        Ok(Hand {
            slots,
            me: plan.me,
            own: Slot::default(),
            seen: vec![Seen::default(); count],
            torn: vec![0; count],
            looked: clock::now(),
        })
    }

    /// Looks once an interval, and when there is something to write; writes once an interval.
    fn work(&mut self, plan: &Plan, ear: &mut Ear) -> Result<Gone, String> {
        let (mut look, mut write) = (clock::now(), clock::now());
        let mut path = clock::now() + REOPEN;
        loop {
            let now = clock::now();
            let due = if ear.waiting.is_empty() { look } else { look.min(write) };
            if now < due {
                if let Err(gone) = ear.listen(due) {
                    return Ok(gone);
                }
                continue;
            }
            if now >= path {
                self.slots.check_path()?;
                path = now + REOPEN;
            }
            if self.round(plan.deadtime, ear)? {
                write = now + plan.interval;
            }
            look = now + plan.interval;
        }
    }

    /// A look at all slots; and what waits is written. Whether it was.
    fn round(&mut self, deadtime: Duration, ear: &mut Ear) -> Result<bool, String> {
        let before = std::mem::replace(&mut self.looked, clock::now());
        let read = self.slots.read()?;
        // Whatever changed did so since the last look was begun: no frame is told that may be older
        // than the silence that counts as death.
        let timely = clock::now().since(before) < deadtime;
        self.tell(&read, timely, ear);
        // One thing more may have come meanwhile; and the daemon may be gone.
        if ear.waiting.is_empty() {
            ear.say(Word::Round, &[]);
            return Ok(false);
        }
        ear.waiting.drain(..).for_each(|frame| self.own.push(frame));
        self.slots.write(&read.header.id, self.me, &self.own)?;
        self.seen[self.me].set(self.own.number);
        ear.say(Word::Wrote, &[]);
        Ok(true)
    }

    /// Also of our own slot: what stands there and is not ours, another machine under our name
    /// wrote.
    fn tell(&mut self, read: &Read, timely: bool, ear: &Ear) {
        for (n, slot) in read.slots.iter().enumerate() {
            self.torn[n] = if slot.is_ok() { 0 } else { self.torn[n].saturating_add(1) };
            if self.torn[n] == TORN {
                let words = format!("slot {n} has a wrong checksum, look after look");
                ear.say(Word::Warning, words.as_bytes());
            }
            let Ok(Some(slot)) = slot else { continue };
            for frame in self.seen[n].look(slot, timely) {
                ear.say(Word::Frame, &frame);
            }
            if n == self.me && slot.number > self.own.number {
                self.own.number = slot.number;
            }
        }
    }
}
