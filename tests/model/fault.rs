//! What can go wrong, and what people do: every way in which a state may go on other than by
//! itself. Each costs one of the run's faults.

use crate::canon::mix;
use crate::lease::Answer;
use crate::step::{End, Step};
use crate::watch::pair;
use crate::world::{MS, What, way};
use hafailover::core::name::LinkId;
use hafailover::core::policy::Policy;
use hafailover::core::{Command, Event, Hand, Terminate};
use std::fmt;
use std::sync::Arc;

/// Milliseconds of model time that matter: within `deadtime`, just over it, over everything.
pub const SHORT: u64 = 200;
pub const OVER: u64 = 550;
pub const LONG: u64 = 1400;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The frames that would arrive now never do.
    Lose,
    /// They arrive so many milliseconds later.
    Late(u64),
    /// They arrive, and again later, if the receiver is then another daemon.
    Copy(u64),
    /// These directions are cut, for so many milliseconds or until mended.
    Cut(u64, Option<u64>),
    Mend,
    Power {
        n: usize,
        back: Option<u64>,
        written: bool,
        carrier: bool,
    },
    /// Power loss, and the machine comes back without its disk.
    Reinstall {
        n: usize,
        back: u64,
    },
    Kill {
        n: usize,
        back: Option<u64>,
        written: bool,
    },
    /// The daemon is lost: its guard stops the group in so long, or never.
    Lost {
        n: usize,
        stops: Option<u64>,
    },
    Freeze {
        n: usize,
        lasts: Option<u64>,
    },
    Thaw(usize),
    /// The job that ends now fails, its answer is lost, or it takes so much longer.
    Job(End),
    SlowJob(u64),
    /// A stop fails again and again, until mended.
    Stuck,
    DiskFails,
    /// On a node: a member of that group dies, one runs that nobody started, the token is gone.
    Dies(usize, usize),
    Stray(usize, usize),
    TokenLost(usize, usize),
    Ask(usize, Command),
    StopByHand(usize, usize),
    Terminate(usize, Terminate),
    Disable(usize),
    /// The arbiter does not hear the question, or its answer is lost.
    Unasked,
    Unanswered,
    /// Its answer comes as late as one may.
    LateAnswer,
    /// It is gone, or this node does not reach it, for so long.
    ArbiterLost(Option<u64>),
    ArbiterCut(usize, Option<u64>),
    /// It restarts, with what it knew or without.
    ArbiterRestarts(bool),
}

/// Kinds of faults, to be taken together in a plan.
pub mod kind {
    pub const FRAMES: u32 = 1;
    pub const CUT: u32 = 2;
    pub const POWER: u32 = 4;
    pub const DAEMON: u32 = 8;
    pub const FREEZE: u32 = 16;
    pub const JOB: u32 = 32;
    pub const DISK: u32 = 64;
    pub const UNITS: u32 = 128;
    pub const MOVE: u32 = 256;
    pub const PEOPLE: u32 = 512;
    pub const TERMINATE: u32 = 1024;
    pub const REINSTALL: u32 = 2048;
    pub const STUCK: u32 = 4096;
    pub const ALL: u32 = 8191;
    pub const LOST: u32 = 8192;
    pub const ARBITER: u32 = 16384;
    /// Of what people ask for only this.
    pub const MAINTENANCE: u32 = 32768;
    /// Of the arbiter only late answers.
    pub const LATE: u32 = 65536;
}

impl Step<'_> {
    /// The fault happens now, before the next event.
    pub fn fault(&mut self, fault: &Fault) {
        crate::situations::faulting(&self.state, fault);
        let first = self.state.ghost.faults == 0;
        self.state.ghost.faults += 1;
        self.state.ghost.begun = 0;
        self.state.ghost.hands_off = false;
        self.state.ghost.bereft = false;
        self.loud = true;
        self.note(self.node, || format!("> {fault}"));
        match fault {
            Fault::Lose | Fault::Late(_) | Fault::Copy(_) | Fault::SlowJob(_) => self.delay(fault),
            Fault::Cut(mask, lasts) => self.cut(*mask, *lasts),
            Fault::Mend => self.state.cut = 0,
            Fault::Unasked | Fault::Unanswered | Fault::LateAnswer => self.unheard(fault),
            Fault::ArbiterLost(lasts) => {
                self.state.arbiter.lost = true;
                self.arbiter_back(*lasts, 0);
            }
            Fault::ArbiterCut(n, lasts) => {
                self.state.arbiter.cut |= 1 << n;
                self.arbiter_back(*lasts, 1 << n);
            }
            Fault::ArbiterRestarts(remembers) => self.restart_arbiter(*remembers),
            Fault::Power { .. } | Fault::Reinstall { .. } | Fault::Kill { .. } => {
                self.crash(fault, first);
            }
            Fault::Lost { n, stops } => self.lose_daemon(*n, *stops),
            Fault::Freeze { n, lasts } => self.freeze(*n, *lasts),
            Fault::Thaw(n) => {
                let now = self.state.now;
                self.state.push(now, *n, What::Thaw, 36);
            }
            Fault::Job(end) => self.go_with(*end),
            Fault::Stuck => {
                let item = self.state.queue[0].clone();
                if let What::JobEnds { group, .. } = item.what {
                    self.units(item.node, group, |u| u.stuck = true);
                }
            }
            Fault::DiskFails => {
                let item = self.state.queue.remove(0);
                self.state.now = self.state.now.max(item.at);
                if let What::Persisted { ticket, .. } = item.what {
                    self.persisted(item.node, ticket, Err("no space left".into()));
                }
            }
            Fault::Dies(n, g) => self.unit(*n, *g, |u| u.dead = true),
            Fault::TokenLost(n, g) => self.unit(*n, *g, |u| u.token = None),
            Fault::Stray(n, g) => self.unit(*n, *g, |u| (u.running, u.stray) = (true, true)),
            Fault::Ask(n, command) => self.ask(*n, command),
            Fault::StopByHand(n, g) => {
                let group = self.cluster.names[*g].clone();
                let unit = group.unit();
                self.tell(*n, Event::ByHand { group, unit, verb: Hand::StopTarget });
            }
            Fault::Terminate(n, kind) => self.terminate(*n, *kind),
            Fault::Disable(n) => {
                let policy = &self.cluster.policies[*n];
                let policy = Policy { groups: Default::default(), ..policy.clone() };
                Arc::make_mut(&mut self.state.nodes[*n]).disabled = true;
                self.tell(*n, Event::Reconfigured { policy: Box::new(policy) });
            }
        }
        crate::situations::faulted(&mut self.state, fault);
    }

    fn crash(&mut self, fault: &Fault, first: bool) {
        match fault {
            Fault::Power { n, back, written, carrier } => {
                self.state.ghost.bereft = first && back.is_none() && self.at_rest();
                self.write(*n, *written);
                self.power_off(*n);
                self.back(*n, *back);
                if *carrier {
                    self.carrier(*n);
                }
            }
            Fault::Reinstall { n, back } => {
                self.power_off(*n);
                Arc::make_mut(&mut self.state.nodes[*n]).disk = None;
                self.state.ghost.nodes[*n].reinstalled = true;
                self.back(*n, Some(*back));
            }
            Fault::Kill { n, back, written } => {
                self.write(*n, *written);
                self.end_daemon(*n);
                self.back(*n, *back);
                match back {
                    Some(50) => self.state.ghost.hands_off = first && self.at_rest(),
                    _ => self.state.ghost.absent |= 1 << n,
                }
                if back.is_none() {
                    self.state.ghost.asleep |= 1 << n;
                }
            }
            _ => {}
        }
    }

    fn delay(&mut self, fault: &Fault) {
        self.state.ghost.slow |= matches!(fault, Fault::SlowJob(_));
        let mut item = self.state.queue.remove(0);
        let by = match fault {
            Fault::Late(by) | Fault::SlowJob(by) => *by,
            Fault::Copy(by) => {
                self.state.queue.insert(0, item.clone());
                let life = self.state.nodes[item.node].life;
                if let What::Frames { copy_for, .. } = &mut item.what {
                    *copy_for = Some(life);
                }
                item.number ^= 37;
                *by
            }
            _ => return,
        };
        self.state.push(item.at + by * MS, item.node, item.what, item.number);
    }

    fn cut(&mut self, mask: u64, lasts: Option<u64>) {
        self.state.cut |= mask;
        let (nodes, links) = (self.state.nodes.len(), self.cluster.policies[0].links.len());
        for a in 0..nodes {
            for b in a + 1..nodes {
                if !self.state.joined(a, b, links) {
                    self.state.ghost.parted |= pair(a, b);
                }
            }
        }
        if let Some(lasts) = lasts {
            let at = self.state.now + lasts * MS;
            self.state.push(at, 0, What::Heal { mask }, 35 ^ mask << 8);
        }
    }

    fn arbiter_back(&mut self, lasts: Option<u64>, nodes: u8) {
        if let Some(lasts) = lasts {
            let at = self.state.now + lasts * MS;
            self.state.push(at, 0, What::ArbiterBack { nodes }, 63 ^ u64::from(nodes) << 8);
        }
    }

    /// The question that would arrive now does not, or is not answered, or late.
    fn unheard(&mut self, fault: &Fault) {
        let item = self.state.queue.remove(0);
        let What::Question { life, ticket, ask } = item.what else { return };
        self.state.now = self.state.now.max(item.at);
        match fault {
            Fault::Unanswered => {
                return self.arbiter_hears(item.node, life, ticket, &ask, Answer::Never);
            }
            Fault::LateAnswer => {
                return self.arbiter_hears(item.node, life, ticket, &ask, Answer::Late);
            }
            _ => {}
        }
        let sent = self.state.now - crate::world::WIRE;
        self.unanswered(item.node, life, ask.group.clone(), ticket, sent);
    }

    /// Every group runs, and nobody is at work at it.
    fn at_rest(&self) -> bool {
        let busy =
            |i: &crate::world::Item| matches!(i.what, What::Start { .. } | What::Stop { .. });
        let well = |g: usize| {
            let good = |u: &crate::world::Units| {
                u.running && !u.dead && u.token.is_some() && u.job.is_none()
            };
            self.state.nodes.iter().any(|n| good(&n.units[g]))
        };
        (0..self.cluster.names.len()).all(well) && !self.state.queue.iter().any(busy)
    }

    /// What was on its way to the disk got there.
    fn write(&mut self, n: usize, written: bool) {
        let node = Arc::make_mut(&mut self.state.nodes[n]);
        if let Some((_, record)) = node.writing.take()
            && written
        {
            node.disk = Some(record);
        }
    }

    fn back(&mut self, n: usize, back: Option<u64>) {
        if let Some(back) = back {
            let life = self.state.nodes[n].life;
            self.state.push(self.state.now + back * MS, n, What::Boot { life }, 34);
        }
    }

    /// A crossover cable: the others see their end go dark.
    fn carrier(&mut self, n: usize) {
        for other in (0..self.state.nodes.len()).filter(|o| *o != n) {
            let life = self.state.nodes[other].life;
            let why = "no carrier".to_string();
            let event = Arc::new(Event::Link { link: LinkId(0), usable: false, why });
            self.state.push(self.state.now, other, What::Tell { life, event }, 38);
        }
    }

    fn freeze(&mut self, n: usize, lasts: Option<u64>) {
        let node = Arc::make_mut(&mut self.state.nodes[n]);
        node.frozen = true;
        node.settle(node.anchor);
        self.starve(n, true);
        match lasts {
            Some(SHORT) => {}
            _ => self.state.ghost.absent |= 1 << n,
        }
        if lasts.is_none_or(|ms| ms > OVER) {
            self.state.ghost.asleep |= 1 << n;
        }
        if let Some(lasts) = lasts {
            self.state.push(self.state.now + lasts * MS, n, What::Thaw, 36);
        }
    }

    fn unit(&mut self, n: usize, group: usize, change: impl FnOnce(&mut crate::world::Units)) {
        self.units(n, group, change);
        let life = self.state.nodes[n].life;
        let at = self.state.now + crate::world::LOOK;
        self.state.push(at, n, What::Observe { life, group }, mix(33, group as u64));
    }

    fn ask(&mut self, n: usize, command: &Command) {
        if let Command::ConfirmDown { node } = command {
            let down = &self.state.nodes[usize::from(node.0)];
            if down.core.is_some() || down.units.iter().any(|u| u.on()) {
                self.state.ghost.absent |= 1 << node.0;
            }
        }
        self.commanded = matches!(command, Command::Retry { .. } | Command::Clear { .. });
        self.state.ghost.nodes[n].waits += 1;
        let request = u64::from(self.state.ghost.faults);
        self.tell(n, Event::Asked { request, by: "root".into(), command: command.clone() });
        self.commanded = false;
    }

    fn terminate(&mut self, n: usize, kind: Terminate) {
        Arc::make_mut(&mut self.state.nodes[n]).going = Some(kind);
        self.tell(n, Event::Terminate { kind });
        if kind == Terminate::Shutdown {
            let life = self.state.nodes[n].life;
            let event = Arc::new(Event::Terminate { kind: Terminate::Restart });
            self.state.push(self.state.now + 300 * MS, n, What::Tell { life, event }, 39);
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Cut(mask, lasts) => {
                write!(f, "cut")?;
                for link in 0..3 {
                    for (from, to) in (0..3).flat_map(|a| (0..3).map(move |b| (a, b))) {
                        if from != to && mask & way(link, from, to) != 0 {
                            write!(f, " {link}:n{}>n{}", from + 1, to + 1)?;
                        }
                    }
                }
                lasts.map_or(Ok(()), |ms| write!(f, " for {ms} ms"))
            }
            Fault::Job(End::Fails) => f.write_str("the job fails"),
            Fault::Job(_) => f.write_str("the job's answer is lost"),
            other => write!(f, "{other:?}"),
        }
    }
}
