//! What a witness grants: the leases of one cluster's groups, as `hafailover witness` keeps them.
//! Pure, as the core is; whoever serves it keeps what changed before it answers.

use super::lease::LeaseVerb;
use super::name::{Epoch, GROUP_NAME_MAX, GROUPS_MAX, GroupName};
use super::time::{Duration, Instant};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Why a renewal by another than the holder is refused.
pub const NOT_HELD: &str = "it does not have the lease";

/// A question of a node.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ask {
    pub node: String,
    pub group: GroupName,
    pub epoch: Epoch,
    pub verb: LeaseVerb,
    /// How long it is kept from others.
    pub term: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Verdict {
    Granted,
    /// Why, and the highest epoch that was ever granted for this group.
    Refused {
        why: String,
        top: Option<Epoch>,
    },
}

/// The newest lease of a group; what must not be forgotten of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    pub holder: String,
    /// The highest ever granted.
    pub epoch: Epoch,
    /// It was given back: nobody has it any more, and nobody gets this epoch again.
    pub over: bool,
    pub term: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Grants {
    kept: BTreeMap<GroupName, Grant>,
    /// Until when each is kept from others.
    until: BTreeMap<GroupName, Instant>,
    /// Nothing new is granted before: what an earlier life granted is not known.
    blind: Instant,
}

impl Grants {
    /// `kept`: what an earlier life kept; each counts as renewed just now. `None`: it is lost, and
    /// whoever got something then may live on it for `longest`.
    pub fn new(
        now: Instant,
        kept: Option<BTreeMap<GroupName, Grant>>,
        longest: Duration,
    ) -> Grants {
        let blind = if kept.is_none() { now + longest } else { now };
        let kept = kept.unwrap_or_default();
        let until = kept.iter().map(|(name, grant)| (name.clone(), now + grant.term)).collect();
        Grants { kept, until, blind }
    }

    pub fn kept(&self) -> &BTreeMap<GroupName, Grant> {
        &self.kept
    }

    /// The verdict. If [`Grants::kept`] has changed by it, that is written before it is said.
    pub fn ask(&mut self, now: Instant, ask: &Ask) -> Verdict {
        let name = &ask.group;
        let sound = (1..=GROUP_NAME_MAX).contains(&name.0.len());
        let room = self.kept.contains_key(name) || self.kept.len() < GROUPS_MAX;
        if !sound || !room {
            return Verdict::Refused { why: "more groups than a cluster has".into(), top: None };
        }
        match ask.verb {
            LeaseVerb::Acquire => self.acquire(now, ask),
            LeaseVerb::Renew => self.renew(now, ask),
            LeaseVerb::Release => self.release(ask),
        }
    }

    fn acquire(&mut self, now: Instant, ask: &Ask) -> Verdict {
        let until = self.until.get(&ask.group).copied().unwrap_or(self.blind);
        let free = self.kept.get(&ask.group).is_none_or(|g| g.over) || now >= until;
        if let Some(grant) = self.kept.get(&ask.group) {
            let ours = grant.epoch == ask.epoch && grant.holder == ask.node && !grant.over;
            let refuse = |why| Verdict::Refused { why, top: Some(grant.epoch) };
            if !ours && ask.epoch <= grant.epoch {
                return refuse(format!("epoch {} was granted to {}", grant.epoch, grant.holder));
            }
            if !ours && !free {
                return refuse(format!("{} has it by epoch {}", grant.holder, grant.epoch));
            }
        }
        if now < self.blind {
            let why = "it has lost its memory, and grants nothing yet".into();
            return Verdict::Refused { why, top: None };
        }
        let grant =
            Grant { holder: ask.node.clone(), epoch: ask.epoch, over: false, term: ask.term };
        self.kept.insert(ask.group.clone(), grant);
        self.extend(now, ask);
        Verdict::Granted
    }

    fn renew(&mut self, now: Instant, ask: &Ask) -> Verdict {
        let live = |g: &&mut Grant| !g.over && (g.epoch, &g.holder) == (ask.epoch, &ask.node);
        let until = self.until.get(&ask.group).copied().unwrap_or_default();
        let top = self.kept.get(&ask.group).map(|g| g.epoch);
        match self.kept.get_mut(&ask.group).filter(live) {
            Some(grant) if now < until => {
                grant.term = grant.term.max(ask.term);
                self.extend(now, ask);
                Verdict::Granted
            }
            Some(_) => Verdict::Refused { why: "the lease has ended".into(), top },
            None => Verdict::Refused { why: NOT_HELD.into(), top },
        }
    }

    /// Of an epoch that has no lease it means nothing.
    fn release(&mut self, ask: &Ask) -> Verdict {
        if let Some(grant) = self.kept.get_mut(&ask.group)
            && (grant.epoch, &grant.holder) == (ask.epoch, &ask.node)
        {
            grant.over = true;
        }
        Verdict::Granted
    }

    fn extend(&mut self, now: Instant, ask: &Ask) {
        let until = self.until.entry(ask.group.clone()).or_default();
        *until = (now + ask.term).max(*until);
    }
}

#[cfg(test)]
mod tests {
    use super::super::name::NodeId;
    use super::*;

    const TERM: Duration = Duration::from_secs(10);
    const S: u64 = 1_000_000_000;

    fn ask(node: u8, counter: u64, verb: LeaseVerb) -> Ask {
        Ask {
            node: format!("n{node}"),
            group: GroupName("g".into()),
            epoch: Epoch { counter, node: NodeId(node) },
            verb,
            term: TERM,
        }
    }

    fn granted(grants: &mut Grants, at: u64, ask: Ask) -> bool {
        grants.ask(Instant(at * S), &ask) == Verdict::Granted
    }

    use LeaseVerb::{Acquire, Release, Renew};

    #[test]
    fn one_has_it_at_a_time_and_epochs_grow() {
        let grants = &mut Grants::new(Instant(0), Some(BTreeMap::new()), TERM);
        assert!(!granted(grants, 0, ask(1, 1, Renew)), "a renewal never acquires");
        assert!(granted(grants, 1, ask(1, 1, Acquire)));
        assert!(granted(grants, 2, ask(1, 1, Acquire)), "it is its own");
        assert!(!granted(grants, 3, ask(2, 2, Acquire)), "held");
        assert!(granted(grants, 8, ask(1, 1, Renew)));
        assert!(!granted(grants, 17, ask(2, 2, Acquire)), "counted from the renewal");
        assert!(!granted(grants, 18, ask(1, 1, Renew)), "it has ended");
        assert!(granted(grants, 18, ask(2, 2, Acquire)));
        assert!(!granted(grants, 40, ask(1, 1, Acquire)), "an older epoch");
        assert!(granted(grants, 41, ask(2, 2, Acquire)), "ended, and nobody else had it");
    }

    #[test]
    fn an_epoch_that_was_given_back_is_used_up() {
        let grants = &mut Grants::new(Instant(0), Some(BTreeMap::new()), TERM);
        assert!(granted(grants, 1, ask(1, 1, Acquire)));
        assert!(granted(grants, 2, ask(2, 1, Release)), "of another: it means nothing");
        assert!(!granted(grants, 2, ask(2, 2, Acquire)));
        assert!(granted(grants, 3, ask(1, 1, Release)));
        assert!(!granted(grants, 3, ask(1, 1, Renew)));
        assert!(!granted(grants, 3, ask(1, 1, Acquire)));
        assert!(granted(grants, 3, ask(2, 2, Acquire)), "free at once");
        assert!(granted(grants, 4, ask(1, 1, Release)), "late, and of an older epoch");
        assert!(granted(grants, 4, ask(2, 2, Renew)));
    }

    /// Goal: a restart shortens no lease, and one without its memory grants nothing that somebody
    /// may have.
    #[test]
    fn a_restart_forgets_nothing() {
        let mut grants = Grants::new(Instant(0), Some(BTreeMap::new()), TERM);
        assert!(granted(&mut grants, 1, ask(1, 1, Acquire)));
        let kept = Some(grants.kept().clone());
        let again = &mut Grants::new(Instant(0), kept, TERM);
        assert!(!granted(again, 9, ask(2, 2, Acquire)));
        assert!(granted(again, 9, ask(1, 1, Renew)));
        assert!(granted(again, 20, ask(2, 2, Acquire)));
        let lost = &mut Grants::new(Instant(0), None, TERM);
        assert!(!granted(lost, 1, ask(1, 1, Renew)));
        assert!(!granted(lost, 9, ask(2, 2, Acquire)));
        assert!(granted(lost, 10, ask(2, 2, Acquire)));
    }

    #[test]
    fn the_table_is_bounded() {
        let mut grants = Grants::new(Instant(0), Some(BTreeMap::new()), TERM);
        let named = |n: usize| Ask { group: GroupName(format!("g{n}")), ..ask(1, 1, Acquire) };
        assert!((0..GROUPS_MAX).all(|n| granted(&mut grants, 1, named(n))));
        assert!(!granted(&mut grants, 1, named(GROUPS_MAX)));
        let long = GroupName("g".repeat(GROUP_NAME_MAX + 1));
        assert!(!granted(&mut grants, 1, Ask { group: long, ..ask(1, 1, Acquire) }));
    }
}
