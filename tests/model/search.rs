//! The search: from the first state on, every fault at every moment, each followed by all that
//! comes of it until nothing new does. What was seen before is not gone through again.
//!
//! Without faults a state has one successor, so a run is told by its faults and by how many
//! events lie between them. A run ends where it meets an older one, or itself: then it has
//! settled, and what must hold in the end is judged.

use crate::chances;
use crate::fault::Fault;
use crate::mend;
use crate::setup::Plan;
use crate::step::Step;
use crate::watch::Broken;
use crate::world::{Cluster, MS, State};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// Of the states in which faults still stand, one in so many is repaired at once, and its run
/// followed to its end; what no fault stands in goes on to its end anyway.
const MENDED: u64 = 1024;
/// A run that does not settle in so many events never does.
const ENDLESS: u32 = 6000;
const SHARDS: usize = 64;

/// What is done to a state, other than letting it go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    Fault(Fault),
    /// Faults stop and their traces are removed: 1 by repair, 2 by the operator.
    Mend,
}

/// How a state was reached: so many events, then this turn, and so on.
pub type Path = Arc<Vec<(u32, Turn)>>;

/// A turn still to be taken.
struct Task {
    from: Arc<State>,
    last: usize,
    path: Path,
    used: u8,
}

#[derive(Clone)]
pub struct Found {
    pub broken: Broken,
    pub path: Path,
    /// Events after the last turn.
    pub after: u32,
}

pub struct Search<'a> {
    pub plan: &'a Plan,
    pub cluster: Cluster,
    seen: Vec<Mutex<HashMap<u64, (u32, u8)>>>,
    tasks: Mutex<Vec<Task>>,
    working: AtomicUsize,
    runs: AtomicU64,
    pub states: AtomicU64,
    pub events: AtomicU64,
    pub depth: AtomicU64,
    pub settled: AtomicU64,
    /// States that were repaired where they were.
    pub repaired: AtomicU64,
    /// Most events from a fault, or a mending, until nothing changes any more.
    pub longest: AtomicU64,
    pub cut_short: std::sync::atomic::AtomicBool,
    pub began: std::time::Instant,
    pub limit: u64,
    /// It ends with the first that it finds.
    pub one: bool,
    pub found: Mutex<Vec<Found>>,
}

impl<'a> Search<'a> {
    pub fn new(plan: &'a Plan, limit: u64) -> Search<'a> {
        let first = Task { from: Arc::new(plan.first()), last: 0, path: Arc::default(), used: 0 };
        Search {
            plan,
            cluster: plan.cluster(),
            seen: (0..SHARDS).map(|_| Mutex::default()).collect(),
            tasks: Mutex::new(vec![first]),
            working: AtomicUsize::new(0),
            runs: AtomicU64::new(0),
            states: AtomicU64::new(0),
            events: AtomicU64::new(0),
            depth: AtomicU64::new(0),
            settled: AtomicU64::new(0),
            repaired: AtomicU64::new(0),
            longest: AtomicU64::new(0),
            cut_short: Default::default(),
            began: std::time::Instant::now(),
            limit,
            one: false,
            found: Mutex::default(),
        }
    }

    pub fn run(&self, threads: usize) {
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| self.work());
            }
        });
    }

    fn work(&self) {
        loop {
            let task = {
                let mut tasks = self.tasks.lock().expect("no panic holds it");
                let task = tasks.pop();
                if task.is_some() {
                    self.working.fetch_add(1, Ordering::SeqCst);
                }
                task
            };
            let enough = self.one && !self.found.lock().expect("no panic holds it").is_empty();
            if enough || self.began.elapsed().as_secs() > self.limit {
                self.cut_short.store(true, Ordering::Relaxed);
                self.working.fetch_sub(u32::from(task.is_some()) as usize, Ordering::SeqCst);
                return;
            }
            let Some(task) = task else {
                if self.working.load(Ordering::SeqCst) == 0 {
                    return;
                }
                std::thread::yield_now();
                continue;
            };
            let mut steps = 0;
            let path = task.path.clone();
            let went = catch_unwind(AssertUnwindSafe(|| self.follow(task, &mut steps)));
            if let Err(panic) = went {
                let words = panic
                    .downcast_ref::<String>()
                    .cloned()
                    .or(panic.downcast_ref::<&str>().map(|s| s.to_string()))
                    .unwrap_or_default();
                self.report(vec![Broken::new("NoPanic", words)], &path, steps);
            }
            self.working.fetch_sub(1, Ordering::SeqCst);
        }
    }

    fn report(&self, broken: Vec<Broken>, path: &Path, after: u32) {
        let mut found = self.found.lock().expect("no panic holds it");
        for broken in broken {
            let length = |f: &Found| (f.path.len(), f.path.iter().map(|p| p.0).sum::<u32>());
            let new = Found { broken, path: path.clone(), after };
            match found.iter_mut().find(|f| f.broken == new.broken) {
                Some(old) if length(old) > length(&new) => *old = new,
                Some(_) => {}
                None => found.push(new),
            }
        }
    }

    /// Takes the task's turn and lets the state go on until it meets what is known.
    fn follow(&self, task: Task, steps: &mut u32) {
        let mut state = (*task.from).clone();
        let mut last = task.last;
        if let Some((_, turn)) = task.path.last() {
            let mut step = Step::new(&self.cluster, state, false);
            step.node = last;
            take(&mut step, turn);
            last = step.node;
            if !step.broken.is_empty() {
                return self.report(step.broken, &task.path, 0);
            }
            state = step.state;
        }
        let run = self.runs.fetch_add(1, Ordering::Relaxed) as u32;
        let kinds = self.plan.faults.get(usize::from(task.used)).copied();
        let dense = self.plan.dense;
        let (mut loud, mut crowd) = (true, 0);
        loop {
            let repair = match self.meet(&state, run, task.used) {
                Meeting::New(number) => number % MENDED == 0 && mend::is_needed(&state),
                Meeting::Known => break,
                Meeting::Itself => {
                    self.settle(state, last, &task, *steps);
                    break;
                }
            };
            let before = Arc::new(state);
            if repair {
                self.repaired.fetch_add(1, Ordering::Relaxed);
                self.mend(before.clone(), last, &task, *steps);
            }
            let mut step = Step::new(&self.cluster, (*before).clone(), false);
            let now = before.now;
            if !step.go() {
                self.settle(step.state, last, &task, *steps);
                break;
            }
            let point =
                dense || loud || step.loud || step.state.now / (100 * MS) != now / (100 * MS);
            if let Some(kinds) = kinds.filter(|_| point && before.mended == 0) {
                self.branch(&before, last, &task, *steps, kinds);
            }
            *steps += 1;
            crowd = if step.state.now == now { crowd + 1 } else { 0 };
            if crowd > 300 {
                step.broken.push(Broken::new("Bounded", "events without end at one moment"));
            }
            if *steps > ENDLESS {
                step.broken.push(Broken::new("Settled", "it never comes to rest"));
            }
            if !step.broken.is_empty() {
                self.report(step.broken, &task.path, *steps);
                break;
            }
            (loud, last, state) = (step.loud, step.node, step.state);
        }
        self.events.fetch_add(u64::from(*steps), Ordering::Relaxed);
        let depth: u32 = task.path.iter().map(|p| p.0).sum::<u32>() + *steps;
        self.depth.fetch_max(depth.into(), Ordering::Relaxed);
    }

    fn meet(&self, state: &State, run: u32, used: u8) -> Meeting {
        let number = state.number();
        let mut shard = self.seen[number as usize % SHARDS].lock().expect("no panic holds it");
        match shard.get_mut(&number) {
            Some((by, _)) if *by == run => Meeting::Itself,
            Some((_, least)) if *least <= used => Meeting::Known,
            Some(known) => {
                *known = (run, used);
                Meeting::New(number)
            }
            None => {
                shard.insert(number, (run, used));
                self.states.fetch_add(1, Ordering::Relaxed);
                Meeting::New(number)
            }
        }
    }

    fn branch(&self, from: &Arc<State>, last: usize, task: &Task, steps: u32, kinds: u32) {
        let faults = chances::all(&self.cluster, from, last, kinds);
        let tasks = faults.into_iter().map(|fault| {
            let mut path = (*task.path).clone();
            path.push((steps, Turn::Fault(fault)));
            Task { from: from.clone(), last, path: Arc::new(path), used: task.used + 1 }
        });
        let tasks: Vec<Task> = tasks.collect();
        self.tasks.lock().expect("no panic holds it").extend(tasks);
    }

    /// Nothing changes any more: was that the end that it should have?
    fn settle(&self, state: State, last: usize, task: &Task, steps: u32) {
        self.settled.fetch_add(1, Ordering::Relaxed);
        self.longest.fetch_max(steps.into(), Ordering::Relaxed);
        let broken = mend::judge(&self.cluster, &state);
        if !broken.is_empty() {
            return self.report(broken, &task.path, steps);
        }
        if state.mended < 2 {
            self.mend(Arc::new(state), last, task, steps);
        }
    }

    fn mend(&self, from: Arc<State>, last: usize, task: &Task, steps: u32) {
        let mut path = (*task.path).clone();
        path.push((steps, Turn::Mend));
        let task = Task { from, last, path: Arc::new(path), used: task.used };
        self.tasks.lock().expect("no panic holds it").push(task);
    }
}

enum Meeting {
    New(u64),
    Known,
    Itself,
}

pub fn take(step: &mut Step, turn: &Turn) {
    match turn {
        Turn::Fault(fault) => step.fault(fault),
        Turn::Mend => step.mend(),
    }
}

/// The same breakage on as few turns as will do.
pub fn minimise(plan: &Plan, found: &Found) -> Found {
    let mut best = found.clone();
    let mut n = 0;
    while n < best.path.len() {
        let mut path = (*best.path).clone();
        let (steps, _) = path.remove(n);
        match path.get_mut(n) {
            Some(next) => next.0 += steps,
            None => best.after += steps,
        }
        let (_, broken) = replay(plan, &path, best.after);
        match broken.iter().any(|b| b.name == best.broken.name) {
            true => best.path = Arc::new(path),
            false => n += 1,
        }
    }
    best
}

/// Goes a path again. Returns the trace and what breaks on it.
pub fn replay(plan: &Plan, path: &[(u32, Turn)], after: u32) -> (Vec<String>, Vec<Broken>) {
    let cluster = plan.cluster();
    let mut step = Step::new(&cluster, plan.first(), true);
    let went = catch_unwind(AssertUnwindSafe(|| {
        for (steps, turn) in path {
            (0..*steps).for_each(|_| {
                step.go();
            });
            take(&mut step, turn);
        }
        for _ in 0..after + 1 {
            if !step.broken.is_empty() {
                return;
            }
            step.go();
        }
        let end = mend::judge(&cluster, &step.state);
        step.broken.extend(end);
        for n in 0..step.state.nodes.len() {
            let Some(core) = &step.state.nodes[n].core else { continue };
            let view = core.view(hafailover::core::time::Instant(step.state.now));
            let lines = view.groups.into_iter().flat_map(|g| g.explanation).collect::<Vec<_>>();
            step.note(n, || format!("explains: {}", lines.join("; ")));
        }
    }));
    if went.is_err() {
        step.broken.push(Broken::new("NoPanic", "see the trace"));
    }
    (step.trace.unwrap_or_default(), step.broken)
}
