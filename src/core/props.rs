//! Properties of placement: of real cores that tell each other what they are, each must draw the
//! conclusion that somebody draws who knows all of it.

use super::heartbeat::{Heartbeat, Register};
use super::name::{BootId, Epoch, GroupName, LinkId, NodeId, Session};
use super::ownership::{self, Decision};
use super::policy::{Failback, GroupPolicy, Policy};
use super::record::Record;
use super::time::Instant;
use super::{Action, Boot, Core, Event, Member, MemberState, Observation};
use proptest::prelude::*;

const MS: u64 = 1_000_000;

/// What is true of one node.
#[derive(Clone, Debug)]
struct Facts {
    alive: bool,
    standby: bool,
    quarantined: bool,
    carrier: bool,
}

#[derive(Clone, Debug)]
struct Cluster {
    nodes: Vec<Facts>,
    /// Preferred first; not all need be in it.
    order: Vec<usize>,
    owner: Option<usize>,
    failback: bool,
    down: bool,
}

impl Cluster {
    fn fit(&self, n: usize) -> bool {
        let facts = &self.nodes[n];
        let well = facts.alive && !facts.standby && !facts.quarantined && facts.carrier;
        well && self.order.contains(&n)
    }

    fn first(&self, may: impl Fn(usize) -> bool) -> Option<NodeId> {
        self.order.iter().find(|n| self.fit(**n) && may(**n)).map(|n| NodeId(*n as u8))
    }

    /// Whom the owner must give it to, or whether it must only stop it.
    fn leaves(&self, owner: usize) -> bool {
        let before = |n: usize| {
            let place = |n| self.order.iter().position(|o| *o == n);
            place(n) < place(owner)
        };
        let better = self.order.contains(&owner) && self.first(before).is_some();
        let no_carrier = !self.nodes[owner].carrier && self.first(|n| n != owner).is_some();
        self.down || self.nodes[owner].standby || no_carrier || (self.failback && better)
    }
}

fn cluster() -> impl Strategy<Value = Cluster> {
    let facts = (0..8u8, any::<bool>(), 0..5u8, 0..5u8).prop_map(|(dead, standby, bad, cable)| {
        let (alive, carrier) = (dead != 0, cable != 0);
        Facts { alive, standby: standby && dead < 4, quarantined: bad == 0, carrier }
    });
    let nodes = proptest::collection::vec(facts, 2..5);
    nodes
        .prop_flat_map(|nodes| {
            let all: Vec<usize> = (0..nodes.len()).collect();
            let count = 1..=nodes.len();
            (Just(nodes), Just(all).prop_shuffle(), count, 0..9usize, any::<bool>(), 0..8u8)
        })
        .prop_map(|(nodes, mut order, count, owner, failback, down)| {
            order.truncate(count);
            let owner = order.get(owner).copied();
            let owner = owner.filter(|o| nodes[*o].alive && !nodes[*o].quarantined);
            Cluster { nodes, order, owner, failback, down: down == 0 }
        })
}

fn group() -> GroupName {
    GroupName("files".into())
}

fn core(cluster: &Cluster, n: usize) -> (Core, Vec<Action>) {
    let pair = Policy::of_a_pair();
    let order = cluster.order.iter().map(|n| NodeId(*n as u8)).collect();
    let failback = if cluster.failback { Failback::Yes } else { Failback::No };
    let policy = GroupPolicy { failback, ..GroupPolicy::quick(order) };
    let nodes = (0..cluster.nodes.len()).map(|n| format!("n{n}")).collect();
    let groups = [(group(), policy)].into();
    let policy = Policy { me: NodeId(n as u8), nodes, groups, ..pair };
    let mut record = Record { known: true, ..Record::default() };
    record.wishes.standby = cluster.nodes.iter().map(|facts| said(facts.standby)).collect();
    let mut wish = record.groups.entry(group()).or_default().wish;
    wish.value.down = cluster.down;
    record.groups.entry(group()).or_default().wish = wish;
    let (session, boot) = (Session(n as u64 + 1), BootId(1));
    let (mut core, mut actions) =
        Core::new(Instant(MS), Boot { session, boot, record: Some(record) }, policy);
    if cluster.nodes[n].quarantined {
        let held = core.groups.get_mut(&group()).expect("the group");
        held.quarantine = Some((Instant(u64::MAX), "it failed".into()));
    }
    let seen = seen(cluster, n);
    actions.extend(core.handle(Instant(MS), Event::Observed { group: group(), seen }));
    (core, actions)
}

fn said(value: bool) -> Register<bool> {
    Register { value, ..Register::default() }
}

fn seen(cluster: &Cluster, n: usize) -> Observation {
    let owns = cluster.owner == Some(n);
    let member = Member {
        unit: "a.service".into(),
        hard: true,
        state: if owns { MemberState::Active } else { MemberState::Inactive },
        result: String::new(),
        restarts: 0,
        by_hand: false,
    };
    Observation {
        members: vec![member],
        token: owns.then_some(Epoch { counter: 1, node: NodeId(n as u8) }),
        no_carrier: (!cluster.nodes[n].carrier).then(|| "eth0".into()),
        ..Observation::default()
    }
}

/// Every living core hears all that is said, a few times to and fro. Their disks never answer, so
/// nothing new is owned meanwhile. Returns which of them ordered a job.
fn talk(cluster: &Cluster) -> (Vec<(usize, Core)>, Vec<usize>) {
    let living = (0..cluster.nodes.len()).filter(|n| cluster.nodes[*n].alive);
    let (mut cores, mut said) = (Vec::new(), Vec::new());
    for n in living {
        let (core, actions) = core(cluster, n);
        cores.push((n, core));
        said.push((n, actions));
    }
    let mut jobs = Vec::new();
    for round in 0..12 {
        let mut beats: Vec<Heartbeat> = Vec::new();
        for (n, actions) in said.drain(..) {
            for action in actions {
                match action {
                    Action::Send { heartbeat, .. } => beats.push(*heartbeat),
                    Action::Start { .. } | Action::Stop { .. } => jobs.push(n),
                    _ => {}
                }
            }
        }
        let now = Instant((round + 2) * 100 * MS);
        for (n, core) in &mut cores {
            let mut actions = core.handle(now, Event::Wake);
            for heartbeat in beats.iter().filter(|b| usize::from(b.from.0) != *n) {
                let heartbeat = Box::new(heartbeat.clone());
                actions.extend(core.handle(now, Event::Heard { link: LinkId(0), heartbeat }));
            }
            said.push((*n, actions));
        }
    }
    (cores, jobs)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Goal: all nodes choose the same one, the first fit one in the group's list; only an owner
    /// orders a job, and only when it is told to, cannot serve, or has to fail back.
    #[test]
    fn every_node_places_a_group_alike(cluster in cluster()) {
        let (cores, jobs) = talk(&cluster);
        let now = Instant(1400 * MS);
        let choice = if cluster.down { None } else { cluster.first(|_| true) };
        let heir = |me: usize| cluster.first(|n| n != me);
        for (n, core) in &cores {
            let world = core.world(now);
            prop_assert_eq!(world.choice(&group()), choice, "seen from {}", n);
            prop_assert_eq!(world.heir(&group()), heir(*n), "seen from {}", n);
            if cluster.owner != Some(*n) {
                let decision = ownership::decide(&world, &group());
                let takes = matches!(decision, Decision::Claim | Decision::Start(_));
                let mine = choice == Some(NodeId(*n as u8));
                prop_assert!(!takes || mine, "n{} wants {:?}", n, decision);
            }
        }
        let leaves = cluster.owner.filter(|o| cluster.leaves(*o));
        let mut jobs = jobs;
        jobs.dedup();
        prop_assert_eq!(jobs, Vec::from_iter(leaves));
    }
}
