//! The course of one question about a group: which blocks are read and written, and what follows
//! (hafailover-protocol(7), "Leases"). Pure; every time is on this node's clock.
//!
//! A node that claims writes so in its own block, then reads those of all others, and writes that
//! it has it if nothing has changed there. So of two that ask at the same time at least one sees
//! the other, also if both believe that it is their turn. A renewal goes by the same order: it is
//! written, and then looked whether somebody has a later epoch.

use crate::core::grant::NOT_HELD;
use crate::core::name::Epoch;
use crate::core::time::{Duration, Instant};
use crate::core::{LeaseAnswer, LeaseVerb};
use crate::wire::table::{Cell, Lease, Stand};
use serde::{Deserialize, Serialize};

/// The blocks of all nodes, in their order, as they were read at one stroke.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Look {
    pub begun: Instant,
    pub ended: Instant,
    pub cells: Vec<Cell>,
}

/// What was seen of each node, and when the first read that saw it had ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Memory(Vec<(Cell, Instant)>);

impl Memory {
    pub fn take(&mut self, look: &Look) {
        let fresh = |cell: &Cell| (cell.clone(), look.ended);
        self.0.truncate(look.cells.len());
        for (known, cell) in self.0.iter_mut().zip(&look.cells) {
            if known.0 != *cell {
                *known = fresh(cell);
            }
        }
        self.0.extend(look.cells[self.0.len()..].iter().map(fresh));
    }

    /// How long this node has stood there as it is now, at the least.
    fn stood(&self, node: usize, look: &Look) -> Duration {
        let known = self.0.get(node).filter(|(cell, _)| *cell == look.cells[node]);
        known.map_or(Duration::ZERO, |(_, since)| look.begun.since(*since))
    }
}

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Look,
    /// The own block.
    Write(Lease),
    Done(LeaseAnswer),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Course {
    pub ask: Ask,
    pub memory: Memory,
    state: State,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Ask {
    pub verb: LeaseVerb,
    pub epoch: Epoch,
    /// The place of the node that asks.
    pub me: usize,
    /// By place, for words.
    pub nodes: Vec<String>,
    /// A block that stood unchanged for so long, and for as long as it says itself, is of nobody
    /// who may still go on.
    pub term: Duration,
    pub nonce: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum State {
    Begun,
    /// This is to be written, after that look.
    Writing(Lease, Vec<Cell>),
    Written(Lease, Vec<Cell>),
    /// What remains is to write it, and this is the answer.
    Ending(LeaseAnswer),
    Over,
}

impl Course {
    pub fn new(ask: Ask, memory: Memory) -> Course {
        Course { ask, memory, state: State::Begun }
    }

    /// All were read.
    pub fn looked(&mut self, look: &Look) -> Step {
        self.memory.take(look);
        match std::mem::replace(&mut self.state, State::Over) {
            State::Begun => self.first(look),
            State::Written(own, before) => self.second(look, &own, &before),
            State::Writing(..) | State::Ending(_) | State::Over => {
                unreachable!("a look that nobody asked for")
            }
        }
    }

    /// The own block was written.
    pub fn written(&mut self) -> Step {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Writing(own, before) => {
                self.state = State::Written(own, before);
                Step::Look
            }
            State::Ending(answer) => Step::Done(answer),
            State::Begun | State::Written(..) | State::Over => {
                unreachable!("a write that nobody asked for")
            }
        }
    }

    fn first(&mut self, look: &Look) -> Step {
        let (epoch, own) = (self.ask.epoch, known(&look.cells[self.ask.me]));
        let held = own.is_some_and(|l| l.epoch == epoch && l.stand == Stand::Held);
        let (stand, bar) = match self.ask.verb {
            LeaseVerb::Release
                if own.is_some_and(|l| l.epoch == epoch && l.stand != Stand::Over) =>
            {
                return self.end(look, Stand::Over, epoch, LeaseAnswer::Granted);
            }
            LeaseVerb::Release => return Step::Done(LeaseAnswer::Granted),
            LeaseVerb::Renew if !held => (Stand::Held, Some(NOT_HELD.into())),
            // Had already, by the same epoch: that it has not run out is not asked for.
            LeaseVerb::Renew => (Stand::Held, self.bars_renewal(look)),
            LeaseVerb::Acquire if held => (Stand::Held, self.bars_renewal(look)),
            LeaseVerb::Acquire => (Stand::Claimed, self.bars_claim(look)),
        };
        if let Some(why) = bar {
            return refused(why, top(look));
        }
        let own = self.own(look, stand, epoch);
        self.state = State::Writing(own.clone(), look.cells.clone());
        Step::Write(own)
    }

    fn second(&mut self, look: &Look, own: &Lease, before: &[Cell]) -> Step {
        let me = self.ask.me;
        if look.cells[me] != Cell::Lease(own.clone()) {
            let why = "its own block was written by somebody else: does another machine use the \
                       name of this node?";
            return Step::Done(LeaseAnswer::Unknown(why.into()));
        }
        if own.stand == Stand::Held {
            return match self.bars_renewal(look) {
                Some(why) => refused(why, top(look)),
                None => Step::Done(LeaseAnswer::Granted),
            };
        }
        let other = |n: &usize| *n != me && look.cells[*n] != before[*n];
        let Some(n) = (0..look.cells.len()).find(other) else {
            return self.end(look, Stand::Held, own.epoch, LeaseAnswer::Granted);
        };
        let why = format!("{} asked for it at the same time", self.ask.nodes[n]);
        let top = top(look).filter(|t| *t > own.epoch);
        // Never had: it bars nobody who goes on by an earlier epoch.
        let epoch = known(&before[me]).map(|l| l.epoch).unwrap_or_default();
        self.end(look, Stand::Over, epoch, LeaseAnswer::Refused { why, top })
    }

    /// The last thing is to write this.
    fn end(&mut self, look: &Look, stand: Stand, epoch: Epoch, answer: LeaseAnswer) -> Step {
        self.state = State::Ending(answer);
        Step::Write(self.own(look, stand, epoch))
    }

    fn bars_claim(&self, look: &Look) -> Option<String> {
        let mut later = None;
        for (n, cell) in look.cells.iter().enumerate() {
            let node = &self.ask.nodes[n];
            let term = known(cell).map_or(0, |l| l.term);
            let term = self.ask.term.max(Duration::from_nanos(term));
            let stood = self.memory.stood(n, look) >= term;
            // A claim of its own that was not heard to the end.
            let again = |l: &Lease| n == self.ask.me && l.epoch == self.ask.epoch;
            match cell {
                Cell::Empty => {}
                Cell::Torn(_) if n == self.ask.me => {}
                Cell::Torn(_) => return Some(unreadable(node)),
                Cell::Lease(l) if again(l) && l.stand != Stand::Over => {}
                Cell::Lease(l) if l.stand != Stand::Over && !stood => {
                    return Some(format!("{node} has it by epoch {}", l.epoch));
                }
                Cell::Lease(l) if l.epoch >= self.ask.epoch => {
                    later = Some(format!("{node} had epoch {} before", l.epoch));
                }
                Cell::Lease(_) => {}
            }
        }
        later
    }

    fn bars_renewal(&self, look: &Look) -> Option<String> {
        let bars = |(n, cell): (usize, &Cell)| {
            let node = &self.ask.nodes[n];
            match cell {
                Cell::Torn(_) => Some(unreadable(node)),
                Cell::Lease(l) if l.epoch > self.ask.epoch => {
                    let has = if l.stand == Stand::Over { "had" } else { "has it by" };
                    Some(format!("{node} {has} epoch {}", l.epoch))
                }
                Cell::Empty | Cell::Lease(_) => None,
            }
        };
        look.cells.iter().enumerate().find_map(bars)
    }

    fn own(&self, look: &Look, stand: Stand, epoch: Epoch) -> Lease {
        let known = known(&look.cells[self.ask.me]);
        let count = known.map_or(0, |l| l.count).wrapping_add(1);
        // A grant that was given for longer is counted on to its end.
        let before = known.filter(|l| l.epoch == epoch).map_or(0, |l| l.term);
        let asked = u64::try_from(self.ask.term.as_nanos()).unwrap_or(u64::MAX);
        Lease { stand, epoch, count, nonce: self.ask.nonce, term: asked.max(before) }
    }
}

/// It may hide a later epoch, however long it stands there, until that node claims again. What
/// counts of a block is one sector, which no disk writes by halves.
fn unreadable(node: &str) -> String {
    format!("what {node} wrote last cannot be read")
}

fn refused(why: String, top: Option<Epoch>) -> Step {
    Step::Done(LeaseAnswer::Refused { why, top })
}

fn known(cell: &Cell) -> Option<&Lease> {
    match cell {
        Cell::Lease(lease) => Some(lease),
        Cell::Empty | Cell::Torn(_) => None,
    }
}

fn top(look: &Look) -> Option<Epoch> {
    look.cells.iter().filter_map(known).map(|l| l.epoch).max()
}
