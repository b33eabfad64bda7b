//! A daemon that is lost for good, and the guard that stops its groups, as `cli::lost` does: the
//! shipped guard's words over the shipped codec, on the virtual systemd.

use crate::node::Node;
use crate::options::Options;
use crate::rng::MS;
use crate::world::{Next, World};
use hafailover::core::name::{BootId, LinkId, NodeId, Session};
use hafailover::core::policy::OnLost;
use hafailover::core::{Guard, Lost};
use hafailover::wire::Codec;
use hafailover::wire::keys::Keys;
use hafailover::wire::line::Deframer;
use std::collections::BTreeMap;
use std::time::Duration;

/// How often it looks what became of its stops.
const TICK: u64 = 10 * MS;

/// The guard at work on one machine.
pub struct Work {
    guard: Guard,
    codec: Codec,
    pub deframers: BTreeMap<usize, Deframer>,
    ends: hafailover::core::time::Instant,
    /// By group, from its top layer down.
    stops: Vec<Stop>,
    done_at: Option<u64>,
}

#[derive(Clone, Copy, PartialEq)]
enum Stop {
    /// Not yet begun: it takes its time.
    From(u64),
    /// At this layer; whether systemd was asked.
    Layer(usize, bool),
    Failed,
    Verified,
}

impl Work {
    fn new(node: &Node, options: &Options, t: u64, session: u64, stops: Vec<Stop>) -> Work {
        let names: Vec<String> = (1..=options.nodes).map(|n| format!("n{n}")).collect();
        let (me, session) = (NodeId(node.me as u8), Session(session));
        let policy = options.policy(node.me);
        let held = options.groups.iter().zip(&node.units).filter(|(_, u)| u.held());
        // The io layer's own time, and a second for the last words.
        let bound = policy.safety.guard_bound - policy.timing.deadtime + Duration::from_secs(1);
        let leases = policy.lease.as_ref().map(|times| times.most - times.lease);
        let lasts = node.units.iter().filter_map(|u| u.lasts_of(u.token.or(u.closed)?));
        let leases = leases.and_then(|rest| Some(lasts.min()? + rest));
        let ends = node.now(t) + bound;
        let lost = Lost {
            session,
            boot: BootId(1000 * (node.me as u64 + 1) + node.boots),
            ends: leases.map_or(ends, |at| at.min(ends)),
            groups: policy.groups.keys().cloned().collect(),
            held: held.map(|(g, _)| g.name.clone()).collect(),
        };
        Work {
            ends: lost.ends,
            guard: Guard::new(node.now(t), lost, policy),
            codec: Codec::new("sim", &names, me, session, Keys::of(&[(1, [7; 32])], 1)),
            deframers: BTreeMap::new(),
            stops,
            done_at: None,
        }
    }
}

impl World {
    /// The daemon ends and does not come back by itself.
    pub fn lose_daemon(&mut self, n: usize) {
        if self.nodes[n].daemon.is_none() {
            return;
        }
        self.end_daemon(n);
        self.nodes[n].lost = true;
        let gap = self.rng.pick(&[20, 60, 150, 300]) * MS;
        let boot = self.nodes[n].boots;
        self.later(gap, Next::Guard { node: n, boot });
    }

    /// Its guard begins, or goes on.
    pub fn guard(&mut self, n: usize, boot: u64) {
        let node = &self.nodes[n];
        if !node.on || node.boots != boot || !node.lost {
            return;
        }
        if self.nodes[n].guard.is_none() {
            self.cover.hit("daemon lost");
            self.note(n, "guard begins");
            let slow = self.rng.pick(&[0, 0, 400, 1500]);
            let begin = |_: &_| Stop::From(self.t + self.rng.range(0, slow + 1) * MS);
            let stops = self.options.groups.iter().map(begin).collect();
            let session = self.rng.next() | 1;
            let work = Work::new(&self.nodes[n], &self.options, self.t, session, stops);
            self.nodes[n].guard = Some(work);
            self.open_slots(n);
        }
        for g in 0..self.options.groups.len() {
            self.guard_stop(n, g);
        }
        self.guard_speaks(n);
        let Some(work) = &mut self.nodes[n].guard else { return };
        let verified = work.stops.iter().all(|s| *s == Stop::Verified);
        let done = work.done_at.get_or_insert(self.t);
        if !verified {
            work.done_at = None;
        } else if self.t >= *done + 2 * self.options.keepalive() {
            self.cover.hit("guard stopped everything");
            self.end_watchdog(n);
            return self.guard_ends(n);
        }
        if !verified
            && self.nodes[n].now(self.t)
                >= self.nodes[n].guard.as_ref().expect("it is at work").ends
        {
            return self.guard_fails(n);
        }
        self.later(TICK, Next::Guard { node: n, boot });
    }

    /// One group on its way down, layer by layer.
    fn guard_stop(&mut self, n: usize, g: usize) {
        let Some(work) = &self.nodes[n].guard else { return };
        let next = match work.stops[g] {
            Stop::From(at) if self.t < at => return,
            Stop::From(_) => {
                let units = &mut self.nodes[n].units[g];
                units.closed = units.token.take().or(units.closed);
                Stop::Layer(units.units.len(), false)
            }
            Stop::Layer(0, _) => {
                self.nodes[n].units[g].closed = None;
                self.nodes[n].units[g].stray = false;
                self.rules.released(n, g);
                let (now, name) = (self.nodes[n].now(self.t), self.options.groups[g].name.clone());
                if let Some(work) = &mut self.nodes[n].guard {
                    work.guard.stopped(now, &name);
                }
                Stop::Verified
            }
            Stop::Layer(k, asked) => {
                let unit = self.nodes[n].units[g].units[k - 1].clone();
                match (unit.down(), unit.settled()) {
                    (true, _) if !unit.leftover => Stop::Layer(k - 1, false),
                    (true, _) => Stop::Layer(k, asked),
                    (false, _) if !asked => {
                        self.stop_unit(n, g, k - 1);
                        Stop::Layer(k, true)
                    }
                    (false, true) => Stop::Failed,
                    (false, false) => Stop::Layer(k, true),
                }
            }
            Stop::Failed | Stop::Verified => return,
        };
        if let Some(work) = &mut self.nodes[n].guard {
            work.stops[g] = next;
        }
    }

    fn guard_speaks(&mut self, n: usize) {
        let now = self.nodes[n].now(self.t);
        let Some(work) = &mut self.nodes[n].guard else { return };
        let beats = work.guard.speak(now);
        for beat in beats {
            let Some(work) = &self.nodes[n].guard else { return };
            let Some(frame) = work.codec.encode(&beat) else {
                return self.broken("Bounded", n, "a guard's heartbeat is too long for a frame");
            };
            self.check_said(n, &beat);
            self.transmit(n, usize::from(beat.link.0), &frame);
        }
    }

    /// What comes in while no daemon is there to hear it.
    pub fn guard_hears(&mut self, n: usize, link: usize, bytes: &[u8]) {
        let now = self.nodes[n].now(self.t);
        let Some(work) = &mut self.nodes[n].guard else { return };
        let link = LinkId(link as u8);
        let Ok(beat) = work.codec.decode(link, bytes) else { return };
        work.guard.hear(now, link, &beat);
        if let Some(session) = work.guard.session_of(beat.from) {
            work.codec.accept_session(beat.from, session);
        }
        self.guard_speaks(n);
    }

    fn guard_fails(&mut self, n: usize) {
        match self.options.safety.on_lost {
            OnLost::Reboot => {
                self.cover.hit("guard reset the machine");
                let off = self.rng.ms(300, 3000);
                self.power_off(n, off);
            }
            OnLost::Leave => {
                self.cover.hit("guard left a group");
                self.guard_ends(n);
            }
        }
    }

    /// A person starts the daemon again, some time.
    fn guard_ends(&mut self, n: usize) {
        self.note(n, "guard ends");
        (self.nodes[n].guard, self.nodes[n].lost) = (None, false);
        let after = if self.quiet { 500 * MS } else { self.rng.ms(100, 6000) };
        let boot = self.nodes[n].boots;
        self.later(after, Next::Daemon { node: n, boot });
    }
}
