//! What to do next for a reservation, from what was seen at the disk: pure. Only keys of older
//! claims of this cluster are ever replaced, each by its name, so that what changed since the look
//! changes nothing here.

use super::key::{Key, Keys};
use super::{Seen, TYPE};
use crate::core::name::{Epoch, NodeId, ShortEpoch};

/// For whom a disk is reserved.
#[derive(Clone, Debug)]
pub struct Me {
    pub keys: Keys,
    pub key: Key,
    claim: ShortEpoch,
}

/// Why nothing is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No node of this cluster registered that.
    Foreign(Key),
    /// A later owner has it.
    Newer(Key),
    /// It is reserved in another way, which is nobody's of ours.
    Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Preempt(Key),
    Reserve,
    Done,
}

/// What became of a reservation that was had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Still {
    Mine,
    /// The disk has forgotten what it knew, perhaps an older owner was faster: to be taken anew.
    Lost,
    /// Whose it is now; none: nobody's, or it cannot be told.
    Others(Option<Key>),
}

impl Me {
    pub fn new(keys: Keys, node: NodeId, epoch: Epoch) -> Me {
        let key = keys.key(node, epoch);
        let claim = keys.claim(key).expect("a key of this cluster");
        Me { keys, key, claim }
    }

    /// Whether it may be taken at all.
    pub fn judge(&self, seen: &Seen) -> Result<(), Refusal> {
        let held = seen.held.iter().map(|held| held.key);
        for key in held.clone().chain(seen.keys.iter().copied()) {
            match self.keys.claim(key) {
                // Reservations of all registrants have no key of their own.
                None if key == Key(0) => return Err(Refusal::Kind),
                None => return Err(Refusal::Foreign(key)),
                Some(claim) if claim.is_newer_than(self.claim) => return Err(Refusal::Newer(key)),
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// Once this path is registered with our key.
    pub fn next(&self, seen: &Seen) -> Result<Step, Refusal> {
        self.judge(seen)?;
        if let Some(other) = seen.keys.iter().find(|key| **key != self.key) {
            return Ok(Step::Preempt(*other));
        }
        // Another path of this node, which is gone or will be.
        if seen.keys.len() > 1 {
            return Ok(Step::Preempt(self.key));
        }
        match &seen.held {
            None => Ok(Step::Reserve),
            Some(held) if held.kind == TYPE && held.key == self.key => Ok(Step::Done),
            Some(_) => Err(Refusal::Kind),
        }
    }

    /// `generation`: of the last look that said that it is mine. Where nobody has it and that has
    /// not begun anew, somebody was there in between, and may have written: it is not put back.
    pub fn still(&self, seen: &Seen, generation: u32) -> Still {
        let other = seen.keys.iter().find(|key| **key != self.key).copied();
        let forgot = seen.generation < generation;
        match &seen.held {
            Some(held) if held.kind == TYPE && held.key == self.key => {
                if seen.keys.contains(&self.key) { Still::Mine } else { Still::Others(other) }
            }
            Some(held) if self.judge(seen).is_err() => Still::Others(Some(held.key)),
            None if !forgot || self.judge(seen).is_err() => Still::Others(other),
            Some(_) | None => Still::Lost,
        }
    }

    /// What this node has registered, by whichever claim.
    pub fn mine<'a>(&'a self, seen: &'a Seen) -> impl Iterator<Item = Key> + 'a {
        let is_mine = |claim: ShortEpoch| claim.node == self.claim.node;
        seen.keys.iter().copied().filter(move |key| self.keys.claim(*key).is_some_and(is_mine))
    }
}

#[cfg(test)]
mod tests;
