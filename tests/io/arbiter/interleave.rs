//! Every interleaving of what two and three nodes read and write of a group's blocks on a shared
//! disk, without anybody's turn: each of two may stand still between any two steps for as long as
//! it likes, each question may end unheard, and a block that is being written reads as the old one,
//! the new one, or torn. No two nodes ever go on at the same time.

use hafailover::core::name::{Epoch, NodeId};
use hafailover::core::time::{Duration, Instant};
use hafailover::core::{LeaseAnswer, LeaseVerb};
use hafailover::io::arbiter::sanlock::course::{Ask, Course, Look, Memory, Step};
use hafailover::wire::table::{Cell, Lease, Stand};
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

/// How long a grant counts, from when it was asked for; and how long an unchanged block is waited
/// for: no longer than that, so that nothing is proved by slack.
const TERM: u64 = 2;
/// The same where one node alone, and until its last question, goes by the longer time.
const SHORT: u64 = 1;

/// What is done wrong on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// What was written is taken for seen by everybody.
    NoSecondLook,
    /// An unchanged block is counted from before it was read.
    CountedTooEarly,
    /// A block that was only renewed looks like the one before.
    BlindToRenewals,
    /// What a block says of its own term is not heard.
    BlindToTerms,
    /// A block says the term of the last question alone.
    TermOfTheLast,
}

#[derive(Clone, Copy, Debug)]
struct Plan {
    nodes: usize,
    /// Questions of each node.
    asks: u8,
    until: u64,
    /// Who alone goes by the longer term.
    long: Option<usize>,
    fault: Fault,
}

impl Plan {
    fn term(self, n: usize, asks: u8) -> u64 {
        match self.long {
            Some(long) if n != long || asks <= 1 => SHORT,
            _ => TERM,
        }
    }
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct World {
    now: u64,
    blocks: Vec<Block>,
    nodes: Vec<Node>,
    /// The highest epoch by which somebody went on.
    top: Epoch,
    found: Option<String>,
}

#[derive(Clone, Default, PartialEq, Eq, Hash)]
struct Block {
    cell: Cell,
    /// It is being written.
    next: Option<Cell>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Node {
    asks: u8,
    memory: Memory,
    epoch: Option<Epoch>,
    until: u64,
    doing: Doing,
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum Doing {
    Nothing,
    Looking { course: Course, asked: u64, begun: u64, cells: Vec<Cell>, before: Option<Vec<Cell>> },
    Writing { course: Course, asked: u64, before: Option<Vec<Cell>> },
}

impl World {
    fn new(plan: Plan) -> World {
        let node = Node {
            asks: plan.asks,
            memory: Memory::default(),
            epoch: None,
            until: 0,
            doing: Doing::Nothing,
        };
        World {
            now: 1,
            blocks: vec![Block::default(); plan.nodes],
            nodes: vec![node; plan.nodes],
            top: Epoch::default(),
            found: None,
        }
    }

    /// Every world that may come next.
    fn next(&self, plan: Plan) -> Vec<World> {
        let mut all = Vec::new();
        if self.now < plan.until {
            all.push(World { now: self.now + 1, ..self.clone() });
        }
        for n in 0..plan.nodes {
            match &self.nodes[n].doing {
                Doing::Nothing => self.asks(n, plan, &mut all),
                Doing::Looking { before, .. } => {
                    self.reads(n, plan, &mut all);
                    if before.is_some() {
                        // It is ended; what was written stays.
                        let mut ended = self.clone();
                        ended.nodes[n].doing = Doing::Nothing;
                        all.push(ended);
                    }
                }
                Doing::Writing { .. } => all.push(self.wrote(n, plan)),
            }
        }
        all
    }

    fn asks(&self, n: usize, plan: Plan, all: &mut Vec<World>) {
        let node = &self.nodes[n];
        if node.asks == 0 {
            return;
        }
        let counter = |b: &Block| match &b.cell {
            Cell::Lease(lease) => lease.epoch.counter,
            Cell::Empty | Cell::Torn(_) => 0,
        };
        let counter = 1 + self.blocks.iter().map(counter).max().unwrap_or_default();
        let fresh = Epoch { counter, node: NodeId(n as u8) };
        let mut begin = |verb, epoch| {
            let mut world = self.clone();
            let node = &mut world.nodes[n];
            if node.epoch != Some(epoch) || verb == LeaseVerb::Release {
                // It has stopped before.
                node.until = 0;
            }
            node.asks -= 1;
            node.epoch = Some(epoch);
            let nodes = (0..self.nodes.len()).map(|n| format!("n{}", n + 1)).collect();
            let nonce = plan.term(n, self.nodes[n].asks);
            let term = Duration::from_nanos(nonce);
            let course =
                Course::new(Ask { verb, epoch, me: n, nodes, term, nonce }, node.memory.clone());
            let (asked, before) = (self.now, None);
            node.doing = Doing::Looking { course, asked, begun: asked, cells: Vec::new(), before };
            all.push(world);
        };
        begin(LeaseVerb::Acquire, fresh);
        if let Some(epoch) = node.epoch {
            begin(LeaseVerb::Acquire, epoch);
            begin(LeaseVerb::Renew, epoch);
            begin(LeaseVerb::Release, epoch);
        }
    }

    /// The next block is read; what is being written is the old one, the new one, or neither.
    fn reads(&self, n: usize, plan: Plan, all: &mut Vec<World>) {
        let Doing::Looking { cells, .. } = &self.nodes[n].doing else { return };
        // Its own is read with the first or the next.
        let at = cells.len().max(usize::from(n == 0));
        let block = &self.blocks[at];
        // Of two different writes it differs.
        let torn = |next: &Cell| match next {
            Cell::Lease(lease) => Cell::Torn([lease.count as u8; 4]),
            Cell::Empty | Cell::Torn(_) => unreachable!("nobody writes that"),
        };
        let torn = block.next.as_ref().map(torn);
        for cell in [block.cell.clone()].into_iter().chain(block.next.clone()).chain(torn) {
            let mut world = self.clone();
            world.saw(n, plan, cell);
            all.push(world);
        }
    }

    fn saw(&mut self, n: usize, plan: Plan, mut cell: Cell) {
        let mut doing = std::mem::replace(&mut self.nodes[n].doing, Doing::Nothing);
        let Doing::Looking { cells, .. } = &mut doing else { return };
        if n == 0 && cells.is_empty() {
            cells.push(self.blocks[0].cell.clone());
        }
        if let Cell::Lease(lease) = &mut cell {
            match plan.fault {
                Fault::BlindToRenewals => lease.count = 0,
                Fault::BlindToTerms => lease.term = 0,
                Fault::TermOfTheLast => lease.term = lease.nonce,
                Fault::None | Fault::NoSecondLook | Fault::CountedTooEarly => {}
            }
        }
        cells.push(cell);
        if cells.len() == n {
            // Its own does not change meanwhile.
            cells.push(self.blocks[n].cell.clone());
        }
        if cells.len() < plan.nodes {
            self.nodes[n].doing = doing;
            return;
        }
        let Doing::Looking { course, asked, begun, cells, .. } = doing else { return };
        self.looked(n, plan, course, asked, (begun, cells));
    }

    fn looked(
        &mut self,
        n: usize,
        plan: Plan,
        mut course: Course,
        asked: u64,
        (begun, cells): (u64, Vec<Cell>),
    ) {
        let early = plan.fault == Fault::CountedTooEarly;
        let ended = Instant(if early { begun } else { self.now });
        let step = course.looked(&Look { begun: Instant(begun), ended, cells: cells.clone() });
        match step {
            Step::Look => unreachable!("two looks"),
            Step::Write(lease) => {
                self.blocks[n].next = Some(Cell::Lease(lease));
                let before = Some(cells);
                self.nodes[n].doing = Doing::Writing { course, asked, before };
            }
            Step::Done(answer) => self.done(n, course, asked, &answer),
        }
    }

    fn wrote(&self, n: usize, plan: Plan) -> World {
        let mut world = self.clone();
        let doing = std::mem::replace(&mut world.nodes[n].doing, Doing::Nothing);
        let Doing::Writing { mut course, asked, before } = doing else { return world };
        let written = world.blocks[n].next.take().expect("it was being written");
        world.blocks[n].cell = written.clone();
        match course.written() {
            Step::Look if plan.fault == Fault::NoSecondLook => {
                let mut cells = before.expect("a first look");
                cells[n] = written;
                world.looked(n, plan, course, asked, (world.now, cells));
            }
            Step::Look => {
                let (begun, cells) = (world.now, Vec::new());
                world.nodes[n].doing = Doing::Looking { course, asked, begun, cells, before };
            }
            Step::Write(_) => unreachable!("two writes"),
            Step::Done(answer) => world.done(n, course, asked, &answer),
        }
        world
    }

    fn done(&mut self, n: usize, course: Course, asked: u64, answer: &LeaseAnswer) {
        self.nodes[n].memory = course.memory;
        let (verb, epoch) = (course.ask.verb, course.ask.epoch);
        // A grant for longer, of before, is counted on to its end.
        let until = (asked + course.ask.nonce).max(self.nodes[n].until);
        if *answer != LeaseAnswer::Granted || verb == LeaseVerb::Release || until <= self.now {
            return;
        }
        self.nodes[n].until = until;
        let other = |m: &usize| *m != n && self.nodes[*m].until > self.now;
        if let Some(other) = (0..self.nodes.len()).find(other) {
            self.found = Some(format!("at {}: {n} by {epoch}, and {other}", self.now));
        } else if epoch < self.top {
            self.found = Some(format!("at {}: {n} by {epoch}, after {}", self.now, self.top));
        }
        self.top = self.top.max(epoch);
    }

    fn digest(&self) -> (u64, u64) {
        let hash = |salt: u8| {
            let mut hasher = DefaultHasher::new();
            (salt, self).hash(&mut hasher);
            hasher.finish()
        };
        (hash(0), hash(1))
    }
}

/// How many worlds there are, or the first in which two go on.
fn search(plan: Plan) -> Result<usize, String> {
    let first = World::new(plan);
    let mut known = HashSet::from([first.digest()]);
    let mut open = vec![first];
    while let Some(world) = open.pop() {
        for next in world.next(plan) {
            if let Some(found) = next.found {
                return Err(found);
            }
            if known.insert(next.digest()) {
                open.push(next);
            }
        }
    }
    Ok(known.len())
}

const TWO: Plan = Plan { nodes: 2, asks: 2, until: 3, long: None, fault: Fault::None };
/// By the shorter term.
const SHORTER: Plan = Plan { until: 2, ..TWO };
/// At one time: with more of it there are too many worlds.
const THREE: Plan = Plan { nodes: 3, asks: 1, until: 1, long: None, fault: Fault::None };

/// Goal: safety does not rest on whose turn it is.
#[test]
fn two_nodes_never_go_on_at_once() {
    println!("{} worlds", search(TWO).expect("one at a time"));
}

/// Goal: a node whose settings say a longer lease than those of another, at first or always, is
/// waited for.
#[test]
fn different_terms_never_go_on_at_once() {
    for long in [0, 1] {
        println!("{} worlds", search(Plan { long: Some(long), ..SHORTER }).expect("one at a time"));
    }
}

#[test]
fn three_nodes_never_go_on_at_once() {
    println!("{} worlds", search(THREE).expect("one at a time"));
}

/// Goal: the search finds what is wrong.
#[test]
fn each_fault_is_found() {
    for fault in [Fault::NoSecondLook, Fault::CountedTooEarly, Fault::BlindToRenewals] {
        let found = search(Plan { fault, ..TWO }).expect_err("two go on");
        println!("{fault:?}: {found}");
    }
    for fault in [Fault::BlindToTerms, Fault::TermOfTheLast] {
        let found = search(Plan { fault, long: Some(0), ..SHORTER }).expect_err("two go on");
        println!("{fault:?}: {found}");
    }
}

/// Goal: a lease is had, also one that another node left behind.
#[test]
fn a_lease_changes_hands() {
    let (a, b) = (Epoch { counter: 1, node: NodeId(0) }, Epoch { counter: 2, node: NodeId(1) });
    let mut cells = vec![Cell::Empty; 2];
    let mut ask = |me: usize, verb, epoch, memory: &mut Memory, at: u64| {
        let term = Duration::from_nanos(TERM);
        let nodes = vec!["n1".into(), "n2".into()];
        let ask = Ask { verb, epoch, me, nodes, term, nonce: at };
        let mut course = Course::new(ask, memory.clone());
        let mut step = Step::Look;
        loop {
            step = match step {
                Step::Look => {
                    let (begun, ended) = (Instant(at), Instant(at));
                    course.looked(&Look { begun, ended, cells: cells.clone() })
                }
                Step::Write(lease) => {
                    cells[me] = Cell::Lease(lease);
                    course.written()
                }
                Step::Done(answer) => {
                    memory.clone_from(&course.memory);
                    return answer;
                }
            };
        }
    };
    let (mut of_a, mut of_b) = (Memory::default(), Memory::default());
    let refused = |answer: LeaseAnswer, words: &str| match answer {
        LeaseAnswer::Refused { why, .. } => assert_eq!(why, words),
        other => panic!("{other:?}"),
    };
    use LeaseVerb::{Acquire, Release, Renew};
    assert_eq!(ask(0, Acquire, a, &mut of_a, 1), LeaseAnswer::Granted);
    refused(ask(1, Acquire, b, &mut of_b, 2), "n1 has it by epoch 1.0");
    assert_eq!(ask(0, Renew, a, &mut of_a, 3), LeaseAnswer::Granted);
    refused(ask(1, Acquire, b, &mut of_b, 4), "n1 has it by epoch 1.0");
    refused(ask(1, Acquire, b, &mut of_b, 5), "n1 has it by epoch 1.0");
    assert_eq!(ask(1, Acquire, b, &mut of_b, 6), LeaseAnswer::Granted);
    refused(ask(0, Renew, a, &mut of_a, 6), "n2 has it by epoch 2.1");
    refused(ask(0, Acquire, a, &mut of_a, 6), "n2 has it by epoch 2.1");
    assert_eq!(ask(1, Release, b, &mut of_b, 7), LeaseAnswer::Granted);
    refused(ask(0, Acquire, a, &mut of_a, 8), "n2 had epoch 2.1");
    let lease = Lease { stand: Stand::Over, epoch: b, count: 3, nonce: 7, term: TERM };
    assert_eq!(cells[1], Cell::Lease(lease));
}
