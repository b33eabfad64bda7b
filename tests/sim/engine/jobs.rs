//! The daemon's hands on the virtual systemd, step by step as `io::systemd::group` goes: token,
//! gate, layer after layer, each verified. Between any two steps the machine may freeze or die.

use crate::borders::Border;
use crate::node::{Kind, Task};
use crate::rng::MS;
use crate::world::{Next, World};
use hafailover::core::name::Epoch;
use hafailover::core::time::Instant;
use hafailover::core::{Event, MemberState, StartError, StopError};

/// How long a layer is waited for.
const START_LIMIT: u64 = 1500 * MS;
const STOP_LIMIT: u64 = 1200 * MS;

impl World {
    pub fn order_start(&mut self, n: usize, g: usize, epoch: Epoch, job: u64, until: Instant) {
        for unit in &mut self.nodes[n].units[g].units {
            unit.by_hand = false;
        }
        self.order(n, g, job, Kind::Begin { epoch, until });
    }

    pub fn order_stop(&mut self, n: usize, g: usize, job: u64) {
        self.order(n, g, job, Kind::Empty);
    }

    /// One task a group: a new one takes the place of an old one.
    fn order(&mut self, n: usize, g: usize, job: u64, kind: Kind) {
        self.rules.tasks += 1;
        let id = self.rules.tasks;
        let Some(daemon) = &mut self.nodes[n].daemon else { return };
        daemon.tasks.insert(g, Task { id, job, kind, asked: false, limit: 0 });
        self.step_later(n, g, id);
    }

    fn step_later(&mut self, n: usize, g: usize, task: u64) {
        let (life, after) = (self.nodes[n].life, self.rng.range(MS / 20, 2 * MS));
        self.later(after, Next::Step { node: n, life, group: g, task });
    }

    pub fn step(&mut self, n: usize, g: usize, id: u64) {
        let Some(daemon) = &mut self.nodes[n].daemon else { return };
        let Some(task) = daemon.tasks.get(&g).filter(|t| t.id == id).cloned() else { return };
        match task.kind {
            Kind::Begin { epoch, until } => {
                if self.nodes[n].now(self.t) >= until {
                    return self.start_ends(n, g, Err(StartError::Late));
                }
                self.nodes[n].units[g].token = Some(epoch);
                self.go_on(n, g, id, Kind::Gate { epoch, until });
                self.border(n, Border::TokenWritten);
            }
            Kind::Gate { until, .. } => {
                if self.nodes[n].now(self.t) >= until {
                    return self.start_ends(n, g, Err(StartError::Late));
                }
                self.go_on(n, g, id, Kind::Up(0));
            }
            Kind::Up(k) => self.step_up(n, g, k, &task),
            Kind::Empty => {
                let units = &mut self.nodes[n].units[g];
                units.closed = units.token.take().or(units.closed);
                let top = self.nodes[n].units[g].units.len();
                self.go_on(n, g, id, Kind::Down(top));
            }
            Kind::Down(k) => self.step_down(n, g, k, &task),
        }
    }

    fn go_on(&mut self, n: usize, g: usize, id: u64, kind: Kind) {
        let Some(daemon) = &mut self.nodes[n].daemon else { return };
        if let Some(task) = daemon.tasks.get_mut(&g) {
            (task.kind, task.asked) = (kind, false);
        }
        self.step_later(n, g, id);
    }

    fn asked(&mut self, n: usize, g: usize, limit: u64) {
        let limit = self.t + limit;
        let Some(daemon) = &mut self.nodes[n].daemon else { return };
        let Some(task) = daemon.tasks.get_mut(&g) else { return };
        (task.asked, task.limit) = (true, limit);
        let (task, life) = (task.id, self.nodes[n].life);
        self.at(limit, Next::Step { node: n, life, group: g, task });
    }

    fn step_up(&mut self, n: usize, g: usize, k: usize, task: &Task) {
        let units = &self.nodes[n].units[g];
        let Some(unit) = units.units.get(k).cloned() else {
            if self.bad_job() {
                let why = "the answer was lost".to_string();
                return self.start_ends(n, g, Err(StartError::Unknown { why }));
            }
            return self.start_ends(n, g, Ok(()));
        };
        if unit.state == MemberState::Active {
            self.go_on(n, g, task.id, Kind::Up(k + 1));
            return self.border(n, Border::LayerUp);
        }
        if !task.asked {
            self.check_gate(n, g);
            self.start_unit(n, g, k);
            return self.asked(n, g, START_LIMIT);
        }
        let late = self.t >= task.limit;
        if !unit.settled() && !late {
            return;
        }
        if !unit.hard {
            return self.go_on(n, g, task.id, Kind::Up(k + 1));
        }
        let result = match (unit.result, late) {
            ("", false) => {
                self.cover.hit("job done without being active");
                "it ended or was skipped".to_string()
            }
            ("", true) => "not active in time".to_string(),
            (result, _) => result.to_string(),
        };
        let unit = format!("m{k}.service");
        self.start_ends(n, g, Err(StartError::Failed { unit, result }));
    }

    fn step_down(&mut self, n: usize, g: usize, k: usize, task: &Task) {
        let Some(at) = k.checked_sub(1) else {
            if self.bad_job() {
                self.cover.hit("stop with an unknown end");
                let why = "the answer was lost".to_string();
                return self.stop_ends(n, g, Err(StopError::Unknown { why }));
            }
            self.nodes[n].units[g].closed = None;
            return self.stop_ends(n, g, Ok(()));
        };
        let unit = self.nodes[n].units[g].units[at].clone();
        let name = format!("m{at}.service");
        if unit.down() && !unit.leftover {
            self.nodes[n].units[g].units[at].result = "";
            self.nodes[n].units[g].units[at].state = MemberState::Inactive;
            self.go_on(n, g, task.id, Kind::Down(at));
            return self.border(n, Border::LayerDown);
        }
        if !unit.down() && !task.asked {
            self.stop_unit(n, g, at);
            return self.asked(n, g, STOP_LIMIT);
        }
        if !unit.settled() && self.t < task.limit {
            return;
        }
        let holders = vec!["pid 7 (vi)".to_string()];
        let why = "it is still there".to_string();
        self.stop_ends(n, g, Err(StopError::Stuck { unit: name, why, holders }));
    }

    fn start_ends(&mut self, n: usize, g: usize, result: Result<(), StartError>) {
        let Some(daemon) = &mut self.nodes[n].daemon else { return };
        let Some(task) = daemon.tasks.remove(&g) else { return };
        let (group, job) = (self.options.groups[g].name.clone(), task.job);
        self.answer(n, Event::Started { group, job, result });
        self.dirty(n, g);
        self.border(n, Border::Started);
    }

    fn stop_ends(&mut self, n: usize, g: usize, result: Result<(), StopError>) {
        let Some(daemon) = &mut self.nodes[n].daemon else { return };
        let Some(task) = daemon.tasks.remove(&g) else { return };
        match &result {
            Ok(()) => {
                if !self.rules.stops[n][g].purged.is_empty() {
                    self.cover.hit("stopped once its users were killed");
                }
                self.rules.released(n, g);
            }
            Err(StopError::Stuck { .. }) => self.rules.stops[n][g].failed = true,
            Err(StopError::Unknown { .. }) => {}
        }
        let (group, job) = (self.options.groups[g].name.clone(), task.job);
        self.answer(n, Event::Stopped { group, job, result });
        self.dirty(n, g);
        self.border(n, Border::Stopped);
    }

    fn answer(&mut self, n: usize, event: Event) {
        let life = self.nodes[n].life;
        self.later(20_000, Next::Tell { node: n, life, event });
    }

    /// Something changed at systemd: the daemon will look.
    pub fn dirty(&mut self, n: usize, g: usize) {
        let node = &self.nodes[n];
        let life = node.life;
        let task = node.daemon.as_ref().and_then(|d| d.tasks.get(&g)).map(|t| t.id);
        if let Some(task) = task {
            self.step_later(n, g, task);
        }
        let after = self.rng.range(MS / 10, 3 * MS);
        self.later(after, Next::Look { node: n, life, group: g });
    }

    pub fn look(&mut self, n: usize, g: usize) {
        let seen = self.nodes[n].units[g].observe();
        let Some(daemon) = &mut self.nodes[n].daemon else { return };
        if daemon.last_seen.get(&g) == Some(&seen) {
            return;
        }
        daemon.last_seen.insert(g, seen.clone());
        let (group, life) = (self.options.groups[g].name.clone(), self.nodes[n].life);
        self.later(0, Next::Tell { node: n, life, event: Event::Observed { group, seen } });
    }

    fn bad_job(&mut self) -> bool {
        !self.quiet && self.options.jobs > 0 && self.rng.chance(self.options.jobs / 3)
    }

    pub fn start_unit(&mut self, n: usize, g: usize, k: usize) {
        let bad = !self.quiet && self.rng.chance(self.options.jobs);
        let (to, after) = match (bad, self.rng.below(3)) {
            (false, _) => (MemberState::Active, self.rng.ms(2, 120)),
            (true, 0) => (MemberState::Failed, self.rng.ms(2, 300)),
            (true, 1) => (MemberState::Inactive, self.rng.ms(2, 50)),
            (true, _) => (MemberState::Active, self.rng.ms(300, 4000)),
        };
        let units = &mut self.nodes[n].units[g];
        units.read = if k == 0 { units.token } else { units.read };
        self.unit_job(n, g, k, MemberState::Activating, to, after);
    }

    pub fn stop_unit(&mut self, n: usize, g: usize, k: usize) {
        self.break_off(n, g, k);
        let bad = !self.quiet && self.rng.chance(self.options.jobs);
        let (to, after) = match (bad, self.rng.below(3)) {
            (false, _) => (MemberState::Inactive, self.rng.ms(2, 100)),
            (true, 0) => (MemberState::Failed, self.rng.ms(2, 300)),
            (true, 1) => (MemberState::Active, self.rng.ms(2, 300)),
            (true, _) => (MemberState::Inactive, self.rng.ms(300, 4000)),
        };
        if to == MemberState::Failed {
            self.nodes[n].units[g].units[k].leftover = true;
            let (boot, gone) = (self.nodes[n].boots, self.rng.ms(200, 3000));
            self.later(gone, Next::Gone { node: n, boot, group: g, unit: k });
        }
        self.unit_job(n, g, k, MemberState::Deactivating, to, after);
    }

    fn unit_job(
        &mut self,
        n: usize,
        g: usize,
        k: usize,
        now: MemberState,
        to: MemberState,
        ms: u64,
    ) {
        let boot = self.nodes[n].boots;
        let unit = &mut self.nodes[n].units[g].units[k];
        unit.job += 1;
        (unit.state, unit.result) = (now, "");
        let job = unit.job;
        self.later(ms, Next::Unit { node: n, boot, group: g, unit: k, job, to });
        self.dirty(n, g);
    }

    pub fn unit_done(
        &mut self,
        n: usize,
        boot: u64,
        g: usize,
        k: usize,
        job: u64,
        to: MemberState,
    ) {
        let node = &self.nodes[n];
        if !node.on || node.boots != boot || node.units[g].units[k].job != job {
            return;
        }
        let to = self.reserve(n, g, k, to);
        let unit = &mut self.nodes[n].units[g].units[k];
        unit.state = to;
        unit.result = if to == MemberState::Failed { "timeout" } else { "" };
        self.note(n, &format!("systemd: g{g} m{k} {to:?}"));
        self.dirty(n, g);
    }

    pub fn leftover_gone(&mut self, n: usize, boot: u64, g: usize, k: usize) {
        let node = &mut self.nodes[n];
        if node.on && node.boots == boot {
            node.units[g].units[k].leftover = false;
            self.dirty(n, g);
        }
    }

    pub fn carrier_back(&mut self, n: usize, boot: u64, g: usize) {
        if self.nodes[n].boots == boot {
            self.nodes[n].units[g].no_carrier = false;
            self.dirty(n, g);
        }
    }
}
