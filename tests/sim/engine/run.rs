//! One run: a storm in which nobody may be wrong, then calm in which everything must settle, then
//! one clean death that must be acted on.

use crate::options::Options;
use crate::rng::MS;
use crate::rules::Broken;
use crate::world::{Next, World};
use crate::{cover::Cover, rng};
use hafailover::core::Command;
use hafailover::core::heartbeat::Phase;
use hafailover::core::name::NodeId;
use hafailover::core::policy::OnSilence;
use hafailover::core::view::Presence;

pub struct Outcome {
    pub options: Options,
    pub broken: Option<Broken>,
    pub cover: Cover,
    pub hash: u64,
    pub lines: Vec<String>,
    pub events: u64,
}

/// Longest calm until everything has settled.
const SETTLE: u64 = 30_000 * MS;
/// So long nothing is started or stopped any more.
const STILL: u64 = 3_000 * MS;

pub fn run(seed: u64, keep: bool) -> Outcome {
    let mut rng = rng::Rng::new(seed);
    let options = Options::draw(seed, &mut rng);
    let mut world = World::new(options, rng, keep);
    storm(&mut world);
    if world.rules.broken.is_none() {
        calm(&mut world);
    }
    if world.rules.broken.is_none() {
        death(&mut world);
    }
    if world.rules.broken.is_none() {
        unanswered(&mut world);
        world.check_size();
    }
    Outcome {
        broken: world.rules.broken.take(),
        hash: world.trace.hash,
        lines: std::mem::take(&mut world.trace.lines),
        events: world.events,
        cover: world.cover,
        options: world.options,
    }
}

fn storm(world: &mut World) {
    if world.options.links.iter().any(|link| link.ends.is_some()) {
        world.cover.hit("serial lines among three nodes");
    }
    let together = world.rng.chance(800);
    for n in 0..world.nodes.len() {
        let spread = if together { 300 } else { 6000 };
        let after = world.rng.ms(0, spread);
        world.later(after, Next::Power { node: n });
    }
    // Faults at borders from the first moment on in some runs, in others after a quiet start.
    let start = if world.rng.chance(300) { 0 } else { world.rng.ms(1500, 4000) };
    world.run(start);
    world.inside = true;
    let (gap, asks) = (world.options.gap, world.options.asks);
    let (fault, ask) = (world.rng.range(0, gap), world.rng.range(0, asks));
    world.later(fault, Next::Fault);
    world.later(ask, Next::Ask);
    if world.options.edits {
        world.later(fault / 2, Next::Edit);
    }
    let end = start + world.options.safety_phase;
    world.run(end);
}

/// Faults stop, machines come back, people take back what they asked for.
fn calm(world: &mut World) {
    world.quiet = true;
    let asleep = world.nodes.iter().map(|n| n.frozen.max(n.daemon_frozen)).max();
    world.run(asleep.unwrap_or_default());
    world.net.heal();
    world.slots.heal();
    world.arbiter.heal();
    let t = world.t;
    for n in 0..world.nodes.len() {
        let node = &mut world.nodes[n];
        node.files = None;
        (node.disk.full_until, node.disk.slow_until) = (0, 0);
        node.units.iter_mut().for_each(|u| u.no_carrier = false);
        world.note(n, "CALM");
        world.at(t + 100 * MS, Next::Power { node: n });
        let boot = world.nodes[n].boots;
        if world.nodes[n].on {
            world.at(t + 200 * MS, Next::Daemon { node: n, boot });
        }
        let life = world.nodes[n].life;
        world.at(t + 10 * MS, Next::Reload { node: n, life });
        by_hand_again(world, n);
    }
    let held: Vec<bool> = (0..world.options.groups.len())
        .map(|g| (0..world.nodes.len()).filter(|n| world.really(*n, g)).count() == 1)
        .collect();
    let initdead = world.options.timing.initdead.as_nanos() as u64;
    let first = t + 1500 * MS + initdead;
    world.run(first);
    tidy(world);
    let end = first + SETTLE;
    let mut why = String::new();
    while world.t < end && world.rules.broken.is_none() {
        let to = world.t + 250 * MS;
        world.run(to);
        why = unsettled(world);
        if why.is_empty() && world.rules.last_job.iter().all(|at| world.t - at >= STILL) {
            break;
        }
        if world.rng.chance(100) {
            tidy(world);
        }
    }
    if !why.is_empty() && world.rules.broken.is_none() {
        world.broken(if why.contains("two") { "Healed" } else { "Owned" }, 0, &why);
    } else if world.t >= end {
        world.broken("Settled", 0, "jobs go on and on");
    }
    healed(world, &held);
}

/// What somebody stopped by hand he starts again.
fn by_hand_again(world: &mut World, n: usize) {
    for g in 0..world.options.groups.len() {
        for k in 0..world.nodes[n].units[g].units.len() {
            let unit = &mut world.nodes[n].units[g].units[k];
            if std::mem::take(&mut unit.by_hand) && world.nodes[n].units[g].token.is_some() {
                world.start_unit(n, g, k);
            }
        }
        world.dirty(n, g);
    }
}

fn healed(world: &mut World, held: &[bool]) {
    for g in 0..world.options.groups.len() {
        if world.rules.two[g] {
            world.cover.hit("two owners met and healed");
        }
        if held[g] && world.rules.jobs[g] > 0 {
            world.cover.hit("owner survived the storm");
        }
    }
}

/// What an operator does after a bad night.
fn tidy(world: &mut World) {
    world.clear_disks();
    for n in 0..world.nodes.len() {
        let Some(core) = world.core(n) else { continue };
        let view = core.view(world.nodes[n].now(world.t));
        let mut commands = Vec::new();
        if view.maintenance {
            commands.push(Command::Maintenance { group: None, on: false });
        }
        for (m, node) in view.nodes.iter().enumerate() {
            if node.standby {
                commands.push(Command::Standby { node: NodeId(m as u8), on: false });
            }
        }
        for group in &view.groups {
            if group.maintenance {
                let group = Some(group.name.clone());
                commands.push(Command::Maintenance { group, on: false });
            }
            if group.down_by_operator || !group.strays.is_empty() {
                commands.push(Command::Clear { group: group.name.clone() });
            }
        }
        commands.into_iter().for_each(|c| world.ask(n, c));
    }
}

/// Why the cluster is not yet as it should be.
fn unsettled(world: &World) -> String {
    for g in 0..world.options.groups.len() {
        let here: Vec<usize> = (0..world.nodes.len()).filter(|n| world.really(*n, g)).collect();
        if here.len() > 1 {
            return format!("g{g} is on two nodes");
        }
        if world.nodes.iter().any(|n| !n.on || n.daemon.is_none()) {
            return "a daemon is not back".into();
        }
        let Some(owner) = here.first() else { return format!("g{g} runs nowhere") };
        if world.phase_of(*owner, g) != Some(Phase::Running) {
            return format!("g{g} is on n{} and not running there", owner + 1);
        }
        if !world.nodes[*owner].units[g].whole() {
            return format!("g{g} is not whole on n{}", owner + 1);
        }
        if !world.has_disk(*owner, g) {
            return format!("the disk of g{g} refuses what n{} writes", owner + 1);
        }
    }
    String::new()
}

/// After all that, one machine loses its power while everything is well: its groups must move.
fn death(world: &mut World) {
    let deadtime = world.options.deadtime();
    let to = world.t + 2 * deadtime;
    world.run(to);
    let n = world.rng.below(world.nodes.len());
    let groups: Vec<usize> = (0..world.options.groups.len())
        .filter(|g| world.really(n, *g) && world.options.groups[*g].policy.nodes.len() > 1)
        .collect();
    if !unsettled(world).is_empty() || groups.is_empty() || !armed(world, n) {
        return;
    }
    world.note(n, "DIES");
    world.power_off(n, 1_000_000 * MS);
    let to = world.t + 2 * deadtime;
    world.run(to);
    let fence = world.options.fences.as_ref().map(|f| f.delay.as_nanos() as u64 * 2 + 1500 * MS);
    let expiry = world.options.leases.as_ref().map(|l| (l.times.wait.as_nanos() * 2) as u64);
    let to = world.t + fence.or(expiry).unwrap_or_default();
    world.run(to);
    let decided = fence.is_some() || expiry.is_some();
    let held = !decided && world.options.safety.silence == OnSilence::Hold;
    if held || (0..world.nodes.len()).any(|m| m != n && world.fence_failed(m, n)) {
        for m in (0..world.nodes.len()).filter(|m| *m != n) {
            world.ask(m, Command::ConfirmDown { node: NodeId(n as u8) });
        }
    }
    let wait = |g: &crate::options::GroupOptions| g.policy.stop_budget;
    let wait = world.options.groups.iter().map(wait).max().filter(|_| world.options.outvotes());
    let wait = wait.map(|budget| world.options.timing.quorum_wait(budget).as_nanos() as u64);
    let to = world.t + 2 * deadtime + 4000 * MS + wait.unwrap_or_default();
    world.run(to);
    for g in groups {
        let here: Vec<usize> = (0..world.nodes.len()).filter(|m| world.really(*m, g)).collect();
        let runs =
            |m: &usize| world.phase_of(*m, g) == Some(Phase::Running) && world.has_disk(*m, g);
        if here.len() != 1 || !here.iter().all(runs) {
            let words = format!("g{g} was not taken over after n{} died", n + 1);
            return world.broken("Owned", n, &words);
        }
        world.cover.hit("death after the storm taken over");
    }
}

/// Everybody hears it on all links, and agrees that its death would be acted on.
fn armed(world: &World, n: usize) -> bool {
    (0..world.nodes.len()).filter(|m| *m != n).all(|m| {
        let Some(core) = world.core(m) else { return false };
        let view = core.view(world.nodes[m].now(world.t));
        // A person's word may have waited until now, with all else that came during a freeze.
        let cared = view.maintenance || view.groups.iter().any(|g| g.maintenance);
        !cared
            && view.nodes[n].presence == Presence::Alive
            && world.usable_links(m, n) == world.options.links_to(m, n)
    })
}

fn unanswered(world: &mut World) {
    let budget = |g: &crate::options::GroupOptions| {
        (g.policy.stop_budget + g.policy.start_budget).as_nanos() as u64 * 2
    };
    let most = world.options.groups.iter().map(budget).max().unwrap_or_default();
    let patience = world.options.deadtime() * 2 + 6000 * MS + most;
    let late = world.rules.asked.iter().find(|((n, _), at)| {
        world.nodes[*n].daemon.is_some() && **at + patience + world.nodes[*n].stalled < world.t
    });
    if let Some(((n, request), _)) = late.map(|(k, v)| (*k, *v)) {
        world.broken("Answered", n, &format!("request {request} has no result"));
    }
}

impl Outcome {
    pub fn say(&self) -> String {
        match &self.broken {
            Some(broken) => format!("{}: {}", broken.rule, broken.words),
            None => "well".into(),
        }
    }
}
