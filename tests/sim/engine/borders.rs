//! Faults where they hurt: between a check and its act, at each step of a takeover and a move; and
//! now and then without an occasion.

use crate::options::Fault;
use crate::rng::MS;
use crate::world::{Next, World};
use hafailover::core::{Event, MemberState, Terminate};

/// The borders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Border {
    ClaimWritten,
    ClaimSaid,
    PromiseWritten,
    ReleaseWritten,
    StartOrdered,
    TokenWritten,
    LayerUp,
    Started,
    StopOrdered,
    LayerDown,
    Stopped,
}

impl Border {
    fn crash(self) -> &'static str {
        match self {
            Border::ClaimWritten => "crash at claim written",
            Border::ClaimSaid => "crash at claim said",
            Border::PromiseWritten => "crash at promise written",
            Border::ReleaseWritten => "crash at release written",
            Border::StartOrdered => "crash at start ordered",
            Border::TokenWritten => "crash at token written",
            Border::LayerUp => "crash at member started",
            Border::Started => "crash at started",
            Border::StopOrdered => "crash at stop ordered",
            Border::LayerDown => "crash at member stopped",
            Border::Stopped => "crash at stopped",
        }
    }
}

/// Faults that suit a border.
const SHARP: [Fault; 14] = [
    Fault::Freeze,
    Fault::FreezeDaemon,
    Fault::Pause,
    Fault::Suspend,
    Fault::Kill,
    Fault::Lost,
    Fault::PowerOff,
    Fault::Cut,
    Fault::CutOneWay,
    Fault::CutAll,
    Fault::Stall,
    Fault::Replay,
    Fault::LoseState,
    Fault::OldState,
];

impl World {
    pub fn border(&mut self, n: usize, border: Border) {
        if self.quiet || !self.inside || !self.rng.chance(self.options.border) {
            return;
        }
        if self.options.edits && self.rng.chance(250) {
            return self.edit_of(n);
        }
        let able: Vec<Fault> = SHARP.into_iter().filter(|f| self.options.has(*f)).collect();
        if able.is_empty() {
            return;
        }
        if self.options.leases.is_some() && self.rng.chance(200) {
            return self.strike_arbiter(n);
        }
        let fault = self.rng.pick(&able);
        let target = if self.rng.chance(750) { n } else { self.rng.below(self.nodes.len()) };
        if target == n && matches!(fault, Fault::Kill | Fault::PowerOff) {
            self.cover.hit(border.crash());
        }
        if target == n && border == Border::StartOrdered && fault == Fault::Freeze {
            self.cover.hit("freeze before a start was acted on");
        }
        self.note(target, &format!("FAULT {fault:?} at {border:?} of n{}", n + 1));
        self.strike(target, fault);
    }

    pub fn background(&mut self) {
        if self.quiet {
            return;
        }
        let after = self.rng.range(self.options.gap / 4, self.options.gap * 2);
        self.later(after, Next::Fault);
        let fault = self.rng.pick(&self.options.faults.clone());
        let n = self.rng.below(self.nodes.len());
        if self.options.leases.is_some() && self.rng.chance(300) {
            return self.strike_arbiter(n);
        }
        self.note(n, &format!("FAULT {fault:?}"));
        self.strike(n, fault);
    }

    fn strike(&mut self, n: usize, fault: Fault) {
        let dead = self.options.deadtime();
        let lasts = self.rng.range(dead / 5, dead * 3);
        match fault {
            Fault::Freeze => self.freeze(n, lasts, "freeze of a machine"),
            Fault::FreezeDaemon => self.freeze_daemon(n, lasts),
            Fault::Pause => {
                let t = self.t;
                self.nodes[n].clock.stop(t);
                self.nodes[n].paused = true;
                self.freeze(n, lasts, "machine paused with its clock");
            }
            Fault::Suspend => {
                self.nodes[n].gap += lasts;
                // What a device does meanwhile is its own.
                self.nodes[n].paused |= self.nodes[n].dog.is_some();
                self.freeze(n, lasts, "suspend");
            }
            Fault::Jump => {
                let t = self.t;
                self.nodes[n].clock.jump(t, lasts);
                self.nodes[n].jumped = true;
                self.nodes[n].gap += lasts;
                self.cover.hit("clock jump");
                self.arm(n);
            }
            Fault::Kill => self.kill(n),
            Fault::Lost => self.lose_daemon(n),
            Fault::PowerOff => {
                let off = self.rng.ms(300, 7000);
                self.power_off(n, off);
            }
            Fault::Cut | Fault::CutOneWay | Fault::CutAll => self.cut(n, fault),
            Fault::Stall | Fault::Noise | Fault::Replay => self.disturb(n, fault, lasts),
            Fault::MemberDies => self.member_dies(n),
            Fault::Terminate => self.terminate(n),
            Fault::LoseState => self.lose_state(n),
            Fault::OldState => self.restore_state(n),
            Fault::DiskFails => self.nodes[n].disk.full_until = self.t + 2 * lasts,
            Fault::DiskSlow => self.nodes[n].disk.slow_until = self.t + 2 * lasts,
            Fault::Stray => self.power_off(n, 500 * MS),
            Fault::Carrier => self.lose_carrier(n, lasts),
            Fault::Monday => self.monday(n),
        }
    }

    /// One link is left, and nobody looks.
    fn monday(&mut self, n: usize) {
        let dead = self.options.deadtime();
        let until = self.t + 12 * dead;
        for link in 1..self.options.links.len() {
            for m in (0..self.nodes.len()).filter(|m| *m != n) {
                self.net.cut((link, n, m), until);
                self.net.cut((link, m, n), until);
            }
        }
        self.later(3 * dead, Next::Tuesday { node: n });
    }

    /// The power fails, and with it the last link.
    pub fn tuesday(&mut self, n: usize) {
        if self.quiet || !self.inside {
            return;
        }
        self.note(n, "FAULT Tuesday");
        self.cover.hit("one link dead, then the power");
        self.power_off(n, 500 * MS);
        let until = self.t + self.options.deadtime() * 9;
        for m in (0..self.nodes.len()).filter(|m| *m != n) {
            self.net.cut((0, n, m), until);
            self.net.cut((0, m, n), until);
        }
    }

    fn lose_carrier(&mut self, n: usize, lasts: u64) {
        let g = self.rng.below(self.options.groups.len());
        let boot = self.nodes[n].boots;
        self.nodes[n].units[g].no_carrier = true;
        self.dirty(n, g);
        self.later(lasts, Next::Carrier { node: n, boot, group: g });
    }

    pub fn freeze(&mut self, n: usize, lasts: u64, row: &'static str) {
        let (t, node) = (self.t, &mut self.nodes[n]);
        if !node.on {
            return node.clock.go_on(t);
        }
        node.frozen = node.frozen.max(t + lasts);
        node.stall_began.get_or_insert(t);
        let end = node.frozen;
        self.freeze_feeder(n);
        self.slept(n, t, end);
        self.cover.hit(row);
        self.at(end, Next::Thaw { node: n });
    }

    fn freeze_daemon(&mut self, n: usize, lasts: u64) {
        let (t, node) = (self.t, &mut self.nodes[n]);
        if node.daemon.is_none() {
            return;
        }
        node.daemon_frozen = node.daemon_frozen.max(t + lasts);
        node.stall_began.get_or_insert(t);
        let (end, life) = (node.daemon_frozen, node.life);
        self.away(n);
        if let Some(leases) = &self.options.leases {
            self.later(leases.hang, Next::Hung { node: n, life });
        }
        self.cover.hit("freeze of a daemon");
        self.at(end, Next::Thaw { node: n });
    }

    pub fn kill(&mut self, n: usize) {
        if self.nodes[n].daemon.is_none() {
            return;
        }
        self.cover.hit("daemon crash");
        self.end_daemon(n);
        let (boot, after) = (self.nodes[n].boots, self.restart_time());
        self.later(after, Next::Daemon { node: n, boot });
    }

    pub fn power_off(&mut self, n: usize, off: u64) {
        if !self.nodes[n].on {
            return;
        }
        self.cover.hit("power loss");
        self.end_daemon(n);
        let t = self.t;
        let node = &mut self.nodes[n];
        node.on = false;
        (node.lost, node.guard, node.dog) = (false, None, None);
        (node.frozen, node.stall_began) = (0, None);
        node.clock.go_on(t);
        let boots = node.boots;
        let mut bare = crate::node::Node::new(n, &self.options);
        std::mem::swap(&mut bare.units, &mut self.nodes[n].units);
        self.nodes[n].boots = boots;
        self.rules.machine_off(n);
        self.note(n, "power off");
        self.later(off, Next::Power { node: n });
    }

    /// From every other node, and from the arbiter.
    pub fn cut_off(&mut self, n: usize, until: u64) {
        for link in 0..self.options.links.len() {
            for m in (0..self.nodes.len()).filter(|m| *m != n) {
                self.net.cut((link, n, m), until);
                self.net.cut((link, m, n), until);
            }
        }
        self.cut_arbiter(n, until);
    }

    fn cut(&mut self, n: usize, fault: Fault) {
        let dead = self.options.deadtime();
        let until = self.t + self.rng.range(dead / 3, dead * 5);
        let others: Vec<usize> = (0..self.nodes.len()).filter(|m| *m != n).collect();
        let whom = if self.rng.chance(600) { others.clone() } else { vec![self.rng.pick(&others)] };
        let all: Vec<usize> = (0..self.options.links.len()).collect();
        let one = vec![self.rng.pick(&all)];
        let (links, outward, inward) = match fault {
            Fault::Cut => (one, true, true),
            Fault::CutAll => (all, true, true),
            _ => {
                let out = self.rng.chance(500);
                (if self.rng.chance(700) { all } else { one }, out, !out)
            }
        };
        match fault {
            Fault::CutAll => {
                self.cover.hit("all links cut");
                self.cut_from_arbiter(n, until);
            }
            Fault::CutOneWay => self.cover.hit("one-way cut"),
            _ => {}
        }
        for link in links {
            for m in &whom {
                if outward {
                    self.net.cut((link, n, *m), until);
                }
                if inward {
                    self.net.cut((link, *m, n), until);
                }
            }
        }
    }

    fn disturb(&mut self, n: usize, fault: Fault, lasts: u64) {
        let line = |link: usize| {
            let other = |m: &usize| *m != n && self.options.joins(link, n, *m);
            self.net.serial(link)?;
            Some((link, (0..self.nodes.len()).find(other)?))
        };
        let serial: Vec<_> = (0..self.options.links.len()).filter_map(line).collect();
        if fault == Fault::Replay {
            return self.replay(n);
        }
        let until = self.t + lasts;
        if let (Some(disk), Fault::Stall) = (self.options.disk(), fault) {
            self.cover.hit("shared disk hung");
            return self.slots.hang(disk, n, until);
        }
        let Some((link, other)) = serial.first() else { return };
        match fault {
            Fault::Stall => self.net.stall((*link, *other, n), until),
            _ => {
                self.cover.hit("noise on a serial line");
                self.net.noise((*link, *other, n), until);
            }
        }
    }

    /// An eavesdropper sends again what he has: to one node, as many frames as he likes.
    fn replay(&mut self, n: usize) {
        if self.rng.chance(60) {
            return self.flood(n);
        }
        for _ in 0..self.rng.range(1, 12) {
            if self.net.recorded.is_empty() {
                return;
            }
            let at = self.rng.below(self.net.recorded.len());
            let (link, from, bytes, sent) = self.net.recorded[at].clone();
            if from == n {
                continue;
            }
            self.cover.hit("frame replayed");
            let after = self.rng.ms(1, 300);
            self.later(after, Next::Frame { node: n, link, from, bytes, sent, replay: true });
        }
    }

    /// All that he has, as fast as a wire takes it.
    fn flood(&mut self, n: usize) {
        self.cover.hit("flood of old frames");
        let gap = self.rng.range(MS / 20, MS / 2);
        for (at, (link, from, bytes, sent)) in self.net.recorded.clone().into_iter().enumerate() {
            if from != n {
                let after = gap * (1 + at as u64);
                self.later(after, Next::Frame { node: n, link, from, bytes, sent, replay: true });
            }
        }
    }

    fn member_dies(&mut self, n: usize) {
        let g = self.rng.below(self.options.groups.len());
        let k = self.rng.below(self.nodes[n].units[g].units.len());
        let again = self.rng.chance(300);
        let boot = self.nodes[n].boots;
        let units = &mut self.nodes[n].units[g];
        let unit = &mut units.units[k];
        if unit.state != MemberState::Active {
            return;
        }
        unit.job += 1;
        (unit.state, unit.result) = (MemberState::Failed, "signal");
        if again {
            // systemd's own Restart=.
            (unit.state, unit.restarts) = (MemberState::Activating, unit.restarts + 1);
            let (job, to) = (unit.job, MemberState::Active);
            units.read = if k == 0 { units.token } else { units.read };
            self.later(80 * MS, Next::Unit { node: n, boot, group: g, unit: k, job, to });
        }
        self.dirty(n, g);
    }

    fn terminate(&mut self, n: usize) {
        if self.nodes[n].daemon.is_none() {
            return;
        }
        let (kind, row) = match self.rng.below(3) {
            0 => (Terminate::Stop, "planned stop"),
            1 => (Terminate::Restart, "planned restart"),
            _ => (Terminate::Shutdown, "shutdown"),
        };
        self.cover.hit(row);
        let (life, t) = (self.nodes[n].life, self.t);
        if let Some(daemon) = &mut self.nodes[n].daemon {
            daemon.parting = (kind == Terminate::Stop).then_some(t);
        }
        self.later(0, Next::Tell { node: n, life, event: Event::Terminate { kind } });
        if kind == Terminate::Shutdown {
            // The machine goes down whatever becomes of the groups.
            let after = self.rng.ms(200, 4000);
            let boot = self.nodes[n].boots;
            self.later(after, Next::Off { node: n, boot });
        }
    }

    fn lose_state(&mut self, n: usize) {
        if self.nodes[n].daemon.is_none() {
            return;
        }
        self.kill(n);
        self.nodes[n].disk.lose();
        self.rules.rolled_back(n);
    }

    /// In the boot that wrote later ones an old copy is refused.
    fn restore_state(&mut self, n: usize) {
        let off = self.rng.ms(300, 7000);
        self.power_off(n, off);
        let pick = self.rng.below(64);
        if self.nodes[n].disk.restore(pick) {
            self.rules.restored[n] = true;
            self.cover.hit("restored state file");
            self.rules.rolled_back(n);
        }
    }

    /// Services that somebody else starts at boot, without the gate.
    pub fn strays_at_boot(&mut self, n: usize) {
        if self.quiet || !self.options.has(Fault::Stray) || !self.rng.chance(300) {
            return;
        }
        let g = self.rng.below(self.options.groups.len());
        // Nobody's reservation begins without the token.
        let k = usize::from(self.options.reserved.is_some());
        self.nodes[n].units[g].units[k].state = MemberState::Active;
        self.nodes[n].units[g].stray = true;
    }
}
