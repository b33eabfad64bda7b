//! Links over slots on a shared disk: the shipped format, and each node's helper as
//! `io::disk::helper` is, a process that goes on while its daemon stands still.

use crate::rng::MS;
use crate::world::{Next, World};
use hafailover::core::time::Instant;
use hafailover::wire::disk::{Seen, Slot};
use std::collections::BTreeMap;

const ID: [u8; 16] = [7; 16];

/// By link and node.
type Place = (usize, usize);

#[derive(Default)]
pub struct Slots {
    /// What stands on the disk.
    blocks: BTreeMap<Place, Vec<u8>>,
    /// When the frame of this number was sent.
    sent: BTreeMap<(Place, u64), u64>,
    helpers: BTreeMap<Place, Helper>,
    hung: BTreeMap<Place, u64>,
}

struct Helper {
    /// Of the daemon, or guard, that started it.
    life: u64,
    own: Slot,
    seen: Vec<Seen>,
    waiting: Vec<(u64, Vec<u8>)>,
    /// What came while it waited for the disk, and when by its clock.
    socket: Vec<(Instant, u64, Vec<u8>)>,
    /// It waits for the disk since then.
    begun: Option<Instant>,
    /// When the last look was begun.
    looked: Instant,
    /// When the next look and the next write are due.
    due: (u64, u64),
    /// Makes a round void that was put forward.
    round: u64,
}

impl Slots {
    /// A node's path to the disk answers nothing until then.
    pub fn hang(&mut self, link: usize, n: usize, until: u64) {
        self.hung.insert((link, n), until);
    }

    pub fn heal(&mut self) {
        self.hung.clear();
    }
}

impl World {
    /// A daemon, or a guard, starts: so does its helper.
    pub fn open_slots(&mut self, n: usize) {
        let Some(link) = self.options.disk() else { return };
        let after = self.rng.range(MS, 20 * MS);
        let life = self.nodes[n].life;
        let helper = Helper {
            life,
            own: Slot::default(),
            seen: vec![Seen::default(); self.nodes.len()],
            waiting: Vec::new(),
            socket: Vec::new(),
            begun: None,
            looked: self.nodes[n].now(self.t),
            due: (self.t + after, self.t + after),
            round: 0,
        };
        self.slots.helpers.insert((link, n), helper);
        self.later(after, Next::Round { node: n, life, link, round: 0 });
    }

    /// A frame for all, which waits until it may be written.
    pub fn write_slot(&mut self, n: usize, link: usize, frame: &[u8]) {
        let (t, life, now) = (self.t, self.nodes[n].life, self.nodes[n].now(self.t));
        let Some(helper) = self.slots.helpers.get_mut(&(link, n)).filter(|h| h.life == life) else {
            return;
        };
        if helper.begun.is_some() {
            return helper.socket.push((now, t, frame.to_vec()));
        }
        helper.waiting.push((t, frame.to_vec()));
        self.plan_round(n, link);
    }

    fn plan_round(&mut self, n: usize, link: usize) {
        let Some(helper) = self.slots.helpers.get_mut(&(link, n)) else { return };
        let (look, write) = helper.due;
        let due = if helper.waiting.is_empty() { look } else { look.min(write) };
        helper.round += 1;
        let (life, round) = (helper.life, helper.round);
        self.at(due, Next::Round { node: n, life, link, round });
    }

    /// It looks at all slots, and writes its own.
    pub fn round(&mut self, n: usize, link: usize, round: u64) {
        let (t, life, now) = (self.t, self.nodes[n].life, self.nodes[n].now(self.t));
        let slow = !self.quiet && self.rng.chance(self.options.links[link].slow);
        let takes = if slow { self.rng.ms(1, 400) } else { self.rng.range(MS / 10, 4 * MS) };
        let hung = self.slots.hung.get(&(link, n)).copied().filter(|until| t < *until);
        let Some(helper) = self.slots.helpers.get_mut(&(link, n)) else { return };
        if helper.life != life || helper.round != round {
            return;
        }
        if helper.begun.is_none() || hung.is_some() {
            helper.begun.get_or_insert(now);
            let until = hung.unwrap_or(t) + takes;
            return self.at(until, Next::Round { node: n, life, link, round });
        }
        let begun = helper.begun.take().unwrap_or(now);
        let before = std::mem::replace(&mut helper.looked, begun);
        let timely = now.since(before) < self.options.timing.deadtime;
        self.look_at_slots(n, link, timely);
        self.write_waiting(n, link);
        let interval = self.options.keepalive();
        let fresh = self.options.timing.deadtime / 2;
        let Some(helper) = self.slots.helpers.get_mut(&(link, n)) else { return };
        helper.due.0 = t + interval;
        for (at, sent, frame) in std::mem::take(&mut helper.socket) {
            if now.since(at) < fresh {
                helper.waiting.push((sent, frame));
            } else {
                self.cover.hit("frame too old to be written");
            }
        }
        self.plan_round(n, link);
    }

    fn look_at_slots(&mut self, n: usize, link: usize, timely: bool) {
        for m in 0..self.nodes.len() {
            let Some(block) = self.slots.blocks.get(&(link, m)) else { continue };
            let read = Slot::read(block, &ID, m as u8).ok().flatten();
            let slot = read.expect("what was written is whole");
            let Some(helper) = self.slots.helpers.get_mut(&(link, n)) else { return };
            if m == n {
                helper.own.number = helper.own.number.max(slot.number);
                continue;
            }
            let told = helper.seen[m].look(&slot, timely);
            if !timely {
                self.cover.hit("late look at the slots");
            }
            let first = slot.number + 1 - told.len() as u64;
            for (number, bytes) in (first..).zip(told) {
                self.cover.hit("frame read from a slot");
                let sent = self.slots.sent[&((link, m), number)];
                self.later(0, Next::Frame { node: n, link, from: m, bytes, sent, replay: false });
            }
        }
    }

    fn write_waiting(&mut self, n: usize, link: usize) {
        let (t, place) = (self.t, (link, n));
        let interval = self.options.keepalive();
        let slots = &mut self.slots;
        let Some(helper) = slots.helpers.get_mut(&place) else { return };
        if helper.waiting.is_empty() {
            return;
        }
        for (sent, frame) in helper.waiting.drain(..) {
            helper.own.push(frame);
            slots.sent.insert((place, helper.own.number), sent);
        }
        slots.blocks.insert(place, helper.own.to_block(&ID, n as u8));
        helper.due.1 = t + interval;
    }
}
