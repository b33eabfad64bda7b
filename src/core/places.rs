//! The state file under another list of nodes. A node's id is its place in the list, so each id is
//! looked up by its name; what is said of a node that is gone goes with it.

use super::heartbeat::{GroupWish, NodeWishes, Register, Release};
use super::name::{Epoch, NodeId};
use super::record::{GroupRecord, Record};
use std::collections::{BTreeMap, BTreeSet};

impl Record {
    /// What it says by this list of nodes. One that names no list was written by this one.
    pub fn listed(self, nodes: &[String], me: NodeId) -> Record {
        let before = if self.nodes.is_empty() { nodes } else { &self.nodes };
        let places = Places::of(before, nodes, me);
        let lasting = self.lasting.into_iter().map(|(name, who)| (name, places.set(who)));
        // Every field by its name, so that none is left out.
        Record {
            serial: self.serial,
            known: self.known,
            nodes: nodes.into(),
            wishes: places.wishes(self.wishes, nodes.len()),
            jeopardy: places.set(self.jeopardy),
            groups: self.groups.into_iter().map(|(name, g)| (name, places.group(g))).collect(),
            fences: places.map(self.fences),
            lasting: lasting.filter(|(_, who)| !who.is_empty()).collect(),
            shelter: self.shelter,
            waits: self.waits,
            settings: places.map(self.settings),
        }
    }
}

/// Where the nodes of one list stand in another.
struct Places {
    /// By their ids of before; `None`: gone.
    now: Vec<Option<NodeId>>,
    /// Those that stay follow each other as before.
    ordered: bool,
    me: NodeId,
}

impl Places {
    fn of(before: &[String], nodes: &[String], me: NodeId) -> Places {
        let place = |name| nodes.iter().position(|n| n == name).map(|n| NodeId(n as u8));
        let now: Vec<Option<NodeId>> = before.iter().map(place).collect();
        let ordered = now.iter().flatten().is_sorted();
        Places { now, ordered, me }
    }

    fn node(&self, id: NodeId) -> Option<NodeId> {
        self.now.get(usize::from(id.0)).copied().flatten()
    }

    fn set(&self, of: BTreeSet<NodeId>) -> BTreeSet<NodeId> {
        of.into_iter().filter_map(|id| self.node(id)).collect()
    }

    fn map<T>(&self, of: BTreeMap<NodeId, T>) -> BTreeMap<NodeId, T> {
        of.into_iter().filter_map(|(id, what)| Some((self.node(id)?, what))).collect()
    }

    fn epoch(&self, epoch: Epoch) -> Option<Epoch> {
        if epoch.counter == 0 {
            return Some(Epoch::default());
        }
        let node = self.node(epoch.node)?;
        Some(Epoch { node, ..epoch })
    }

    /// The highest epoch known stays above all that it was above, and is nobody else's. Of a node
    /// that is gone, or where equal counters are in another order now, that is the next counter
    /// with our own id: only this node may take it, and has not. `wire` reads such a word as the
    /// highest id of the same counter, which may be another's; what stands here is told on as
    /// known, and must not be taken for that.
    fn highest(&self, epoch: Epoch) -> Epoch {
        let same = self.epoch(epoch).filter(|e| self.ordered || e.counter == 0);
        same.unwrap_or(Epoch { counter: epoch.counter + 1, node: self.me })
    }

    /// Given by a node that is gone: as high as the counter allows, as `wire` reads it, and no
    /// higher, so that what was wished later stays later.
    fn register<T>(&self, Register { version, value }: Register<T>) -> Register<T> {
        let first = Epoch { node: NodeId(0), ..version };
        Register { version: self.epoch(version).unwrap_or(first), value }
    }

    fn wishes(&self, wishes: NodeWishes, count: usize) -> NodeWishes {
        let mut standby = vec![Register::default(); count];
        for (place, switch) in self.now.iter().zip(wishes.standby) {
            if let Some(id) = place {
                standby[usize::from(id.0)] = self.register(switch);
            }
        }
        NodeWishes { maintenance: self.register(wishes.maintenance), standby }
    }

    fn group(&self, group: GroupRecord) -> GroupRecord {
        let Register { version, value } = self.register(group.wish);
        let move_to = value.move_to.and_then(|(to, of)| Some((self.node(to)?, self.epoch(of)?)));
        GroupRecord {
            epoch: self.highest(group.epoch),
            claim: group.claim.and_then(|epoch| self.epoch(epoch)),
            promise: group.promise.and_then(|epoch| self.epoch(epoch)),
            released: group.released.and_then(|released| self.released(released)),
            wish: Register { version, value: GroupWish { move_to, ..value } },
        }
    }

    /// Without the successor that it named it would say more than was said.
    fn released(&self, Release { epoch, successor }: Release) -> Option<Release> {
        let to = successor.and_then(|node| self.node(node));
        let epoch = self.epoch(epoch).filter(|_| to.is_some() == successor.is_some())?;
        Some(Release { epoch, successor: to })
    }
}

#[cfg(test)]
mod tests {
    use super::super::bar::Bar;
    use super::super::policy::{GroupPolicy, Policy};
    use super::super::record::FenceRecord;
    use super::super::time::Instant;
    use super::super::{Action, Boot, Core};
    use super::*;
    use crate::core::name::{BootId, GroupName, Session};
    use proptest::prelude::*;

    fn list(names: &str) -> Vec<String> {
        names.chars().map(String::from).collect()
    }

    fn epoch(counter: u64, node: u8) -> Epoch {
        Epoch { counter, node: NodeId(node) }
    }

    fn switch(counter: u64, node: u8, value: bool) -> Register<bool> {
        Register { version: epoch(counter, node), value }
    }

    fn g() -> GroupName {
        GroupName("g".into())
    }

    /// Of b, which gave the group to `to`, and knows something of every node.
    fn record(names: &str, me: u8, to: u8) -> Record {
        let next = epoch(5, to);
        let move_to = Some((NodeId(to), epoch(4, me)));
        let group = GroupRecord {
            epoch: next,
            claim: Some(epoch(4, me)),
            promise: Some(next),
            released: Some(Release { epoch: epoch(4, me), successor: Some(NodeId(to)) }),
            wish: Register { version: epoch(7, to), value: GroupWish { move_to, ..down() } },
        };
        let lied = FenceRecord { lied: true, ..FenceRecord::default() };
        Record {
            known: true,
            nodes: list(names),
            wishes: NodeWishes {
                maintenance: switch(2, to, true),
                standby: (0..names.len() as u8).map(|n| switch(3, n, n == to)).collect(),
            },
            jeopardy: [NodeId(to)].into(),
            groups: [(g(), group)].into(),
            fences: [(NodeId(to), lied)].into(),
            settings: [(NodeId(to), 9)].into(),
            lasting: [(g(), [NodeId(to)].into())].into(),
            ..Record::default()
        }
    }

    fn down() -> GroupWish {
        GroupWish { down: true, ..GroupWish::default() }
    }

    #[test]
    fn what_is_known_of_a_node_stays_with_its_name() {
        let mut now = record("abc", 1, 2).listed(&list("bcd"), NodeId(0));
        assert_eq!(now.wishes.standby[2], Register::default(), "nothing is known of d");
        now.wishes.standby.truncate(2);
        let mut as_if = record("bcd", 0, 1);
        as_if.wishes.standby = vec![switch(3, 0, false), switch(3, 1, true)];
        assert_eq!(now, as_if);
        let same = record("abc", 1, 2);
        assert_eq!(same.clone().listed(&list("abc"), NodeId(1)), same);
        let json = serde_json::to_string(&same).expect("as the state file has it");
        let before = json.replace(r#""nodes":["a","b","c"],"#, "");
        let untold: Record = serde_json::from_str(&before).expect("of an earlier version");
        assert!(untold.nodes.is_empty());
        assert_eq!(untold.listed(&list("abc"), NodeId(1)), same, "of this list");
        assert_eq!(Record::default().listed(&list("cab"), NodeId(1)).groups, [].into());
    }

    #[test]
    fn what_is_said_of_a_node_that_is_gone_goes() {
        for (names, me, to, left, now_me) in [("abc", 0, 2, "ab", 0), ("cab", 1, 0, "ab", 0)] {
            let now = record(names, me, to).listed(&list(left), NodeId(now_me));
            let group = GroupRecord {
                epoch: epoch(6, now_me),
                claim: Some(epoch(4, now_me)),
                promise: None,
                released: None,
                wish: Register { version: epoch(7, 0), value: down() },
            };
            assert_eq!(now.groups[&g()], group);
            assert!(now.settings.is_empty());
            assert!(now.jeopardy.is_empty() && now.fences.is_empty() && now.lasting.is_empty());
            assert_eq!(
                now.wishes.maintenance,
                switch(2, 0, true),
                "a wish is kept, whoever had it"
            );
            assert!(now.wishes.standby.iter().all(|s| s.version.counter == 3 && !s.value));
        }
    }

    /// Goal: a file of before, and what an arbiter told, may have ids that no list has.
    #[test]
    fn an_id_that_no_node_has_is_of_nobody() {
        let old = Record { nodes: Vec::new(), ..record("abc", 0, 2) };
        let now = old.listed(&list("ab"), NodeId(0));
        assert_eq!(now.groups[&g()].wish.value, down());
        assert_eq!(now.groups[&g()].epoch, epoch(6, 0));
        assert_eq!((now.wishes.standby.len(), now.jeopardy.len()), (2, 0));
    }

    #[test]
    fn another_list_is_written_down_at_once_and_the_same_one_is_not() {
        let written = |names: &str| {
            let policy = Policy { nodes: list("ab"), ..Policy::of_a_pair() };
            let mut record = record(names, 0, names.len() as u8 - 1);
            record.go_by(policy.me, policy.fingerprint);
            let boot = Boot { session: Session(1), boot: BootId(1), record: Some(record) };
            let (_, actions) = Core::new(Instant(1), boot, policy);
            actions.into_iter().find_map(|action| match action {
                Action::Persist { record, .. } => Some(record.nodes),
                _ => None,
            })
        };
        assert_eq!(written("abc"), Some(list("ab")));
        assert_eq!(written("ab"), None);
    }

    #[test]
    fn a_node_that_there_is_none_of_is_not_fit() {
        let mut policy = Policy::of_a_pair();
        policy.groups = [(g(), GroupPolicy::quick(vec![NodeId(0), NodeId(1)]))].into();
        let boot = Boot { session: Session(1), boot: BootId(1), record: None };
        let (core, _) = Core::new(Instant(1), boot, policy);
        let world = core.world(Instant(1));
        assert_eq!(world.unfit_at(&g(), NodeId(9)), Some(Bar::Unseen));
        assert!(!world.heard(NodeId(9)));
    }

    proptest! {
        /// Goal: whatever the lists, no epoch that was used gets above the highest known, and
        /// that is none that another node has or may take.
        #[test]
        fn the_highest_epoch_stays_the_highest(
            before in Just(list("abcd")).prop_shuffle(),
            (now, left) in (Just(list("abcde")).prop_shuffle(), 1usize..=5),
            (top, used) in ((0u64..4, 0u8..4), (0u64..4, 0u8..4)),
        ) {
            let now = &now[..left];
            let me = now.iter().position(|n| before.contains(n));
            prop_assume!(me.is_some());
            let me = NodeId(me.unwrap_or_default() as u8);
            let places = Places::of(&before, now, me);
            let (top, used) = (epoch(top.0, top.1), epoch(used.0, used.1));
            prop_assume!(used <= top && used.counter > 0);
            let highest = places.highest(top);
            prop_assert!(places.epoch(used).is_none_or(|used| used <= highest));
            let next = Epoch { counter: top.counter + 1, node: me };
            prop_assert!(places.epoch(top) == Some(highest) || highest == next);
        }
    }
}
