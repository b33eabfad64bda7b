//! Starts of several owners at one disk, mixed in every way, each with looks that are old.

use super::super::Held;
use super::*;
use proptest::prelude::*;

fn keys() -> Keys {
    Keys::new("lab", ["n1", "n2", "n3"].into_iter())
}

fn me(node: u8, counter: u64) -> Me {
    Me::new(keys(), NodeId(node), Epoch { counter, node: NodeId(node) })
}

fn held(key: Key) -> Option<Held> {
    Some(Held { key, kind: TYPE.into() })
}

/// A disk as SPC-4 has it: a key for each path, and one of the paths has it reserved.
#[derive(Clone, Debug, Default)]
struct Disk {
    keys: Vec<(usize, Key)>,
    holder: Option<usize>,
}

impl Disk {
    fn key(&self, path: usize) -> Option<Key> {
        self.keys.iter().find(|(p, _)| *p == path).map(|(_, key)| *key)
    }

    fn look(&self) -> Seen {
        let held = self.holder.and_then(|path| self.key(path)).and_then(held);
        Seen { generation: 0, keys: self.keys.iter().map(|(_, key)| *key).collect(), held }
    }

    fn register(&mut self, path: usize, key: Key) {
        self.keys.retain(|(p, _)| *p != path);
        self.keys.push((path, key));
    }

    fn reserve(&mut self, path: usize, key: Key) {
        if self.key(path) == Some(key) && self.holder.is_none() {
            self.holder = Some(path);
        }
    }

    fn preempt(&mut self, path: usize, key: Key, other: Key) {
        let known = self.keys.iter().any(|(_, k)| *k == other);
        if self.key(path) != Some(key) || !known {
            return;
        }
        let holds = self.holder.and_then(|path| self.key(path)) == Some(other);
        self.keys.retain(|(p, k)| *p == path || *k != other);
        if holds {
            self.holder = Some(path);
        }
    }

    fn may_write(&self, path: usize) -> bool {
        self.holder.is_none_or(|holder| holder == path)
    }
}

/// A start under way: what it saw last, which may be long ago.
struct Start {
    me: Me,
    path: usize,
    seen: Option<Seen>,
    registered: bool,
    over: Option<Result<(), Refusal>>,
}

impl Start {
    fn new(path: usize, node: u8, counter: u64) -> Start {
        Start { me: me(node, counter), path, seen: None, registered: false, over: None }
    }

    /// Looks, or does what follows from the last look.
    fn go_on(&mut self, disk: &mut Disk) {
        if self.over.is_some() {
            return;
        }
        let Some(seen) = self.seen.take() else {
            let seen = disk.look();
            // It was done when it looked, whenever it goes on.
            if self.registered && self.me.next(&seen) == Ok(Step::Done) {
                self.over = Some(Ok(()));
            }
            self.seen = Some(seen);
            return;
        };
        if !self.registered {
            match self.me.judge(&seen) {
                Ok(()) => disk.register(self.path, self.me.key),
                Err(refusal) => self.over = Some(Err(refusal)),
            }
            self.registered = true;
            return;
        }
        match self.me.next(&seen) {
            Ok(Step::Preempt(other)) => disk.preempt(self.path, self.me.key, other),
            Ok(Step::Reserve) => disk.reserve(self.path, self.me.key),
            Ok(Step::Done) => {}
            Err(refusal) => self.over = Some(Err(refusal)),
        }
    }
}

proptest! {
    /// Goal: however the starts of three owners are mixed, and for however long each stands still
    /// between a look and what follows from it: once a start is done, no older one is ever done
    /// after it, nor can its path write again.
    #[test]
    fn an_older_claim_never_takes_it_back(
        order in proptest::collection::vec(0usize..3, 1..80),
        counters in proptest::array::uniform3(65_533u64..65_538),
    ) {
        let mut disk = Disk::default();
        let start = |path: usize| Start::new(path, path as u8, counters[path]);
        let mut starts = [start(0), start(1), start(2)];
        let mut done: Vec<usize> = Vec::new();
        for n in order {
            let before = starts[n].over.is_some();
            starts[n].go_on(&mut disk);
            if !before && starts[n].over == Some(Ok(())) {
                for earlier in &done {
                    let (old, new) = (starts[*earlier].me.claim, starts[n].me.claim);
                    prop_assert!(new.is_newer_than(old), "{new:?} after {old:?}");
                }
                done.push(n);
            }
            for earlier in done.iter().rev().skip(1) {
                prop_assert!(!disk.may_write(starts[*earlier].path));
            }
        }
        // Left alone, the newest one gets it.
        for _ in 0..20 {
            starts.iter_mut().for_each(|start| start.go_on(&mut disk));
        }
        let newest = starts.iter().find(|s| {
            starts.iter().all(|o| !o.me.claim.is_newer_than(s.me.claim))
        }).expect("one of three");
        prop_assert_eq!(newest.over, Some(Ok(())));
        prop_assert!(disk.holder == Some(newest.path));
    }
}

#[test]
fn what_is_foreign_or_newer_is_left_alone() {
    let me = me(0, 5);
    let seen = |keys: &[Key], of: Option<Key>| Seen {
        generation: 0,
        keys: keys.to_vec(),
        held: of.and_then(held),
    };
    let foreign = Key(0xabc);
    assert_eq!(me.judge(&seen(&[foreign], None)), Err(Refusal::Foreign(foreign)));
    assert_eq!(me.judge(&seen(&[me.key, foreign], Some(me.key))), Err(Refusal::Foreign(foreign)));
    let newer = super::tests::me(1, 6).key;
    assert_eq!(me.judge(&seen(&[newer], Some(newer))), Err(Refusal::Newer(newer)));
    let older = super::tests::me(1, 4).key;
    assert_eq!(me.next(&seen(&[older, me.key], Some(older))), Ok(Step::Preempt(older)));
    assert_eq!(me.next(&seen(&[me.key, me.key], Some(me.key))), Ok(Step::Preempt(me.key)));
    let kind = Some(Held { key: me.key, kind: "Exclusive Access".into() });
    assert_eq!(
        me.next(&Seen { generation: 0, keys: vec![me.key], held: kind }),
        Err(Refusal::Kind)
    );
    let all = Some(Held { key: Key(0), kind: "Write Exclusive, all registrants".into() });
    assert_eq!(me.next(&Seen { generation: 0, keys: vec![me.key], held: all }), Err(Refusal::Kind));
}

/// Goal: put back is only what the disk itself forgot, and against older owners alone.
#[test]
fn what_became_of_it() {
    const KNOWN: u32 = 7;
    let (me, newer) = (me(0, 5), super::tests::me(1, 6).key);
    let older = super::tests::me(1, 4).key;
    let still = |generation: u32, keys: &[Key], of: Option<Key>| {
        me.still(&Seen { generation, keys: keys.to_vec(), held: of.and_then(held) }, KNOWN)
    };
    assert_eq!(still(7, &[me.key], Some(me.key)), Still::Mine);
    let began = still(8, &[me.key, newer], Some(me.key));
    assert_eq!(began, Still::Mine, "it registers, and has not begun");
    for keys in [&[][..], &[me.key], &[older]] {
        assert_eq!(still(0, keys, None), Still::Lost, "{keys:?}");
    }
    assert_eq!(still(1, &[older], Some(older)), Still::Lost, "who knew of nothing was faster");
    assert_eq!(still(9, &[older, me.key], Some(older)), Still::Lost);
    assert_eq!(still(9, &[], None), Still::Others(None), "a later owner may have come and gone");
    assert_eq!(still(7, &[me.key], None), Still::Others(None), "and the same without a count");
    for generation in [0, 9] {
        assert_eq!(still(generation, &[newer], Some(newer)), Still::Others(Some(newer)));
        assert_eq!(still(generation, &[newer], None), Still::Others(Some(newer)));
        let foreign = Key(0xabc);
        assert_eq!(still(generation, &[foreign], Some(foreign)), Still::Others(Some(foreign)));
    }
}
