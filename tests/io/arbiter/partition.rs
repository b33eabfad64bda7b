//! A leader that is cut off from the other members, while every client reaches all of them.

use super::proxy::Proxy;
use super::{A, Asker, B, Members, PATIENCE, TERM, epoch, granted, refused, unknown};
use hafailover::config::arbiter::etcd::Settings;
use hafailover::core::LeaseAnswer;
use hafailover::core::name::{Epoch, NodeId};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

/// Of so many questions in a row one is answered: there is time for an election, and for another
/// where the votes are split.
const ATTEMPTS: usize = 6;
/// How often each node has it, before the cut, during it and after.
const TURNS: usize = 2;
/// How long a node has it before it gives it back.
const HELD: Duration = Duration::from_secs(1);

fn asker(members: &Members, order: &[usize]) -> Asker {
    Asker::of(&settings(members, order))
}

fn settings(members: &Members, order: &[usize]) -> Settings {
    let endpoints = order.iter().map(|m| members.endpoint(*m)).collect();
    Settings { endpoints, ..members.settings() }
}

/// The first answer that there is.
fn heard(ask: impl FnMut() -> LeaseAnswer) -> LeaseAnswer {
    let mut answers = std::iter::repeat_with(ask).take(ATTEMPTS);
    let known = answers.find(|answer| !matches!(answer, LeaseAnswer::Unknown(_)));
    known.expect("the majority answers")
}

/// Goal: a leader that is cut off, and does not know yet that there will be another one, gives and
/// renews nothing, not even by a lease of etcd's that all of them know; the others give what ran
/// out, and when the wires are whole again all say the same.
#[test]
fn a_leader_that_is_cut_off_gives_nothing() {
    let (members, wires) = Members::wired(3);
    let old = members.leader();
    let others = [(old + 1) % 3, (old + 2) % 3];
    let front = Proxy::to(members.host(old));
    let mut slow =
        Asker::of(&Settings { endpoints: vec![front.endpoint.clone()], ..members.settings() });
    let (mut a, mut b) = (asker(&members, &[old]), asker(&members, &others));
    let asked = Instant::now();
    granted(a.acquire(1, A));
    // The lease is with all of them before the cut, the transaction on it comes after.
    front.hold("/v3/kv/txn");
    unknown(slow.renew(1, A), "no answer within");
    wires.cut(Some(old));
    std::thread::scope(|scope| {
        let late = scope.spawn(|| front.deliver());
        unknown(a.renew(1, A), "");
        let mut answer = heard(|| b.acquire(2, B));
        while answer != LeaseAnswer::Granted {
            assert!(asked.elapsed() < PATIENCE, "it does not run out: {answer:?}");
            answer = b.acquire(2, B);
        }
        assert!(asked.elapsed() >= TERM, "given again after {:?}", asked.elapsed());
        unknown(a.acquire(9, A), "");
        loop {
            granted(b.renew(2, B));
            refused(b.acquire(3, A), "n2 has it by epoch 2");
            if late.is_finished() {
                break;
            }
        }
    });
    wires.cut(None);
    // The first answer of the old leader comes when it has caught up.
    a.renewed(2, B);
    for asker in [&mut a, &mut b] {
        granted(asker.renew(2, B));
        refused(asker.renew(1, A), "n2 has it by epoch 2");
        refused(asker.acquire(3, A), "n2 has it by epoch 2");
    }
    granted(b.release(2, B));
    // Of the higher epoch, for which the old leader alone was asked, nobody has heard.
    granted(a.acquire(3, A));
}

/// What a node had, as it counts it: to the end of its last grant, or until it gave it back.
#[derive(Debug)]
struct Turn {
    epoch: Epoch,
    from: Instant,
    until: Instant,
}

/// A node that wants the group again and again.
struct Node {
    me: NodeId,
    counter: u64,
    settings: Settings,
    /// Questions without an answer, in a row.
    unheard: usize,
    begun: Instant,
    turns: Sender<Turn>,
}

impl Node {
    /// Each question begins at the first endpoint, whoever answered the last one.
    fn ask(&mut self, verb: fn(&mut Asker, u64, NodeId) -> LeaseAnswer) -> LeaseAnswer {
        assert!(self.begun.elapsed() < PATIENCE * 3, "{} does not get it", self.me.0);
        let answer = verb(&mut Asker::of(&self.settings), self.counter, self.me);
        self.unheard = match answer {
            LeaseAnswer::Unknown(_) => self.unheard + 1,
            _ => 0,
        };
        assert!(self.unheard < ATTEMPTS, "the majority does not answer: {answer:?}");
        answer
    }

    /// Until nobody wants to know.
    fn run(mut self) {
        loop {
            let turn = self.turn();
            if self.turns.send(turn).is_err() {
                return;
            }
            self.stand_back();
        }
    }

    fn turn(&mut self) -> Turn {
        let mut asked = Instant::now();
        loop {
            match self.ask(Asker::acquire) {
                LeaseAnswer::Granted => break,
                LeaseAnswer::Refused { top: Some(top), .. } => {
                    self.counter = self.counter.max(top.counter + 1);
                }
                LeaseAnswer::Refused { .. } | LeaseAnswer::Unknown(_) => {}
            }
            asked = Instant::now();
        }
        let (from, mut until) = (Instant::now(), asked + TERM);
        while from.elapsed() < HELD {
            let asked = Instant::now();
            if self.ask(Asker::renew) == LeaseAnswer::Granted {
                until = asked + TERM;
            }
        }
        until = until.min(Instant::now());
        while self.ask(Asker::release) != LeaseAnswer::Granted {}
        Turn { epoch: epoch(self.counter, self.me), from, until }
    }

    /// Until the other one has had it. What was given back is not renewed.
    fn stand_back(&mut self) {
        loop {
            match self.ask(Asker::renew) {
                LeaseAnswer::Refused { top: Some(top), .. } if top.node != self.me => {
                    self.counter = top.counter + 1;
                    return;
                }
                LeaseAnswer::Granted => panic!("renewed after {} was given back", self.counter),
                LeaseAnswer::Refused { .. } | LeaseAnswer::Unknown(_) => {}
            }
        }
    }
}

/// Goal: of two nodes that want the same group one asks the leader first that is cut off, and one
/// another member. They have it in turns, never both, by epochs that only grow, before the cut,
/// during it and after; and an answer is never longer in coming than elections take.
#[test]
fn two_nodes_on_both_sides_of_a_cut_never_both_have_it() {
    let (members, wires) = Members::wired(3);
    let old = members.leader();
    let (second, third) = ((old + 1) % 3, (old + 2) % 3);
    let (sender, turns) = channel();
    let begun = Instant::now();
    let node = |me, order: &[usize]| {
        let (settings, turns) = (settings(&members, order), sender.clone());
        Node { me, counter: 1, settings, unheard: 0, begun, turns }
    };
    let nodes = [node(A, &[old, second, third]), node(B, &[second, third, old])];
    drop(sender);
    let mut all: Vec<Turn> = Vec::new();
    std::thread::scope(|scope| {
        // Dropped also if this panics: then the nodes end.
        let turns = turns;
        for node in nodes {
            scope.spawn(|| node.run());
        }
        for cut in [None, Some(old), None] {
            wires.cut(cut);
            let begun = Instant::now();
            let had = |all: &[Turn], node: NodeId| {
                all.iter().filter(|t| t.from > begun && t.epoch.node == node).count()
            };
            while had(&all, A) < TURNS || had(&all, B) < TURNS {
                all.push(turns.recv().expect("both go on"));
            }
        }
    });
    all.sort_by_key(|turn| turn.from);
    for pair in all.windows(2) {
        assert!(pair[0].until <= pair[1].from, "both at once: {pair:?}");
        assert!(pair[0].epoch < pair[1].epoch, "an epoch that was over: {pair:?}");
    }
}
