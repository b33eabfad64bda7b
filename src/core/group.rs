//! One group on this node: its phase, what was seen of its members, what is under way. Changes
//! phase in one place only, with a reason.
//!
//! ```text
//!             seen idle                 evidence              every member well
//!  Unknown ──────────────► Stopped ───────────────► Starting ─────────────────► Running
//!     │                        │ ▲                     │                          │
//!     │ found running  strays  │ │ verified            │ failed, or not wanted    │ not wanted
//!     ├────► Running   cleared │ │                     ▼                          ▼
//!     │ found half started     │ └───────────────── Stopping ◄─────────────────────┘
//!     └────► Stopping          └───────────────────►   ▲  │ a stop failed
//!                                                      │  ▼
//!                                                      Stuck      (still held)
//! ```
//!
//! Everything but `Stopped` is held.

use super::event::{Member, MemberState, Observation};
use super::evidence::Proof;
use super::heartbeat::{GroupReport, Held, Phase, Tally, Unfit};
use super::lease::Lease;
use super::name::{Epoch, NodeId};
use super::policy::GroupPolicy;
use super::say::{Saying, What};
use super::time::{Duration, Instant};
use std::collections::BTreeSet;

/// How long after a failed stop it is tried again by itself.
pub const STUCK_RETRY: Duration = Duration::from_secs(1);
/// A group counts as having come to stay after its hard members have been up for so long.
const SETTLE: Duration = Duration::from_secs(1);
/// Failures remembered; more say nothing new.
const FAILURES_MAX: usize = 64;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Group {
    pub policy: GroupPolicy,
    /// No longer enabled here, but not yet verified stopped.
    pub retired: bool,
    phase: Phase,
    pub seen: Option<Observation>,
    /// Since when every hard member has been up without a break.
    steady: Option<Instant>,
    /// They once were for [`SETTLE`]: what fails now is a failure, and no longer the start.
    pub settled: bool,
    /// `seen` was read after our last job ended: its failures are failures.
    pub fresh: bool,
    /// The epoch by which it is held here.
    pub own: Option<Epoch>,
    /// Claimed, but not yet held.
    pub claim: Option<Claim>,
    /// The job the io layer is at.
    pub job: Option<Job>,
    /// Why it is being stopped, and for whom.
    pub stopping: Option<Stopping>,
    /// When members failed here, within the policy's window.
    pub failures: Vec<Instant>,
    pub quarantine: Option<(Instant, String)>,
    pub degraded: Option<String>,
    pub stuck: Option<Stuck>,
    /// Units whose users were killed for this stop.
    pub purged: BTreeSet<String>,
    /// A reset of the machine on its account has failed.
    pub unreset: bool,
    /// Members found running that nobody started for the cluster.
    pub strays: Vec<String>,
    /// A person asked to make the strays the group.
    pub adopting: bool,
    /// By what this node may go on holding it.
    pub lease: Lease,
    /// By what this node holds it.
    pub proof: Option<Proof>,
    /// A better node has been fit since then.
    pub better: Option<(NodeId, Instant)>,
    /// What it waits for, as last told.
    pub told_waits: String,
    /// What a stuck stop was last told as.
    pub told_stuck: String,
    /// Other holders that were told of.
    pub told_other: Option<NodeId>,
    pub told_carrier: bool,
    /// What was last reported of its fitness here.
    pub told_unfit: Option<Unfit>,
    /// How long the last owner was missed before this node claimed.
    pub detect: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Claim {
    pub epoch: Epoch,
    pub since: Instant,
    /// With evidence of silence: not before this.
    pub start_at: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Job {
    pub id: u64,
    pub since: Instant,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Stopping {
    pub reason: String,
    pub successor: Option<NodeId>,
    pub since: Instant,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Stuck {
    pub why: String,
    pub holders: Vec<String>,
    pub retry: Instant,
}

impl Group {
    pub fn new(policy: GroupPolicy) -> Group {
        Group {
            policy,
            retired: false,
            phase: Phase::Unknown,
            seen: None,
            steady: None,
            settled: false,
            fresh: false,
            own: None,
            claim: None,
            job: None,
            stopping: None,
            failures: Vec::new(),
            quarantine: None,
            degraded: None,
            stuck: None,
            purged: BTreeSet::new(),
            unreset: false,
            strays: Vec::new(),
            adopting: false,
            lease: Lease::default(),
            proof: None,
            better: None,
            told_waits: String::new(),
            told_stuck: String::new(),
            told_other: None,
            told_carrier: false,
            told_unfit: None,
            detect: None,
        }
    }

    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// The only place where a phase changes. Returns what to tell.
    pub fn go(&mut self, to: Phase, reason: &str) -> Saying {
        let from = self.phase;
        assert!(allowed(from, to), "no way from {from:?} to {to:?} ({reason})");
        self.phase = to;
        if to != Phase::Stuck {
            self.stuck = None;
        }
        if to == Phase::Stopped {
            (self.own, self.stopping, self.degraded) = (None, None, None);
            self.proof = None;
            self.told_stuck.clear();
            self.purged.clear();
            self.unreset = false;
        }
        (self.steady, self.settled) = (None, to == Phase::Running && from == Phase::Unknown);
        let name = |p: Phase| format!("{p:?}").to_lowercase();
        Saying::new(What::GroupPhase, reason).from_to(name(from), name(to))
    }

    /// Takes in what was seen of the members.
    pub fn see(&mut self, now: Instant, seen: Observation) {
        let restarts = |s: &Observation| s.members.iter().map(|m| m.restarts).sum::<u32>();
        let same = self.seen.as_ref().is_some_and(|old| restarts(old) == restarts(&seen));
        let up = |m: &Member| !m.hard || m.by_hand || m.state == MemberState::Active;
        let well = self.phase == Phase::Running && self.job.is_none();
        self.steady = match (well && seen.members.iter().all(up), self.steady) {
            (false, _) => None,
            (true, Some(since)) if same => Some(since),
            (true, _) => Some(now),
        };
        self.seen = Some(seen);
        self.fresh = self.job.is_none();
    }

    /// Whether it has just come to stay.
    pub fn settles(&mut self, now: Instant) -> bool {
        let long = self.steady.is_some_and(|since| now.since(since) >= SETTLE);
        let news = !self.settled && long;
        self.settled |= long;
        news
    }

    /// The phase as it is told to others: running is what has come to stay, and stuck what nobody
    /// is at work at.
    pub fn told_phase(&self) -> Phase {
        match self.phase {
            Phase::Stuck if self.job.is_some() => Phase::Stopping,
            Phase::Running if !self.settled => Phase::Starting,
            phase => phase,
        }
    }

    /// From before the token is written until the release is verified; also while members run
    /// that nobody started, and while nothing is known.
    pub fn held(&self) -> Held {
        match self.phase {
            Phase::Stopped if self.strays.is_empty() => Held::No,
            Phase::Stopped | Phase::Unknown => Held::Unknown,
            Phase::Starting | Phase::Running | Phase::Stopping | Phase::Stuck => Held::Yes,
        }
    }

    /// Hard members that are down although nobody stopped them and systemd does not bring them
    /// back.
    pub fn failed_members(&self) -> Vec<&Member> {
        let down = |m: &&Member| matches!(m.state, MemberState::Failed | MemberState::Inactive);
        self.members().iter().filter(|m| m.hard && !m.by_hand).filter(down).collect()
    }

    /// Why it runs without some member: a soft one failed, or a person stopped one.
    pub fn shortcoming(&self) -> Option<String> {
        let down = |m: &&Member| matches!(m.state, MemberState::Failed | MemberState::Inactive);
        let lacking = self.members().iter().filter(down).filter(|m| m.by_hand || !m.hard);
        let word = |m: &Member| match (m.by_hand, m.state) {
            (true, _) => format!("{} was stopped by hand", m.unit),
            (false, MemberState::Failed) => format!("{} failed ({})", m.unit, m.result),
            (false, _) => format!("{} is not running", m.unit),
        };
        let words: Vec<String> = lacking.map(word).collect();
        (!words.is_empty()).then(|| words.join(", "))
    }

    pub fn members(&self) -> &[Member] {
        self.seen.as_ref().map(|s| s.members.as_slice()).unwrap_or_default()
    }

    pub fn tally(&self) -> Tally {
        let count = |n: usize| u8::try_from(n).unwrap_or(u8::MAX);
        let up = self.members().iter().filter(|m| m.state == MemberState::Active);
        Tally { up: count(up.count()), all: count(self.members().len()) }
    }

    /// Units that are not down, and what the kernel holds beside them.
    pub fn traces(&self) -> Vec<String> {
        let Some(seen) = &self.seen else { return Vec::new() };
        let up = |m: &&Member| !matches!(m.state, MemberState::Inactive | MemberState::Failed);
        let units = seen.members.iter().filter(up).map(|m| m.unit.clone());
        units.chain(seen.leftovers.iter().cloned()).collect()
    }

    /// Remembers a failure here, and forgets those that are out of the window.
    pub fn count_failure(&mut self, now: Instant) {
        let window = self.policy.retry_window;
        self.failures.retain(|at| now.since(*at) < window);
        if self.failures.len() < FAILURES_MAX {
            self.failures.push(now);
        }
    }

    /// Its members' files say something else on the node that reports this.
    pub fn other_texts(&self, report: &GroupReport) -> bool {
        let same = report.fingerprint == self.policy.fingerprint;
        same && report.texts.is_some_and(|texts| texts != self.policy.texts)
    }

    pub fn quarantined(&self, now: Instant) -> bool {
        self.quarantine.as_ref().is_some_and(|(until, _)| now < *until)
    }
}

fn allowed(from: Phase, to: Phase) -> bool {
    match (from, to) {
        (Phase::Unknown, Phase::Stopped | Phase::Running | Phase::Stopping) => true,
        (Phase::Stopped, Phase::Starting | Phase::Stopping) => true,
        (Phase::Starting, Phase::Running | Phase::Stopping) => true,
        (Phase::Running, Phase::Stopping) => true,
        (Phase::Stopping, Phase::Stopped | Phase::Stuck) => true,
        (Phase::Stuck, Phase::Stopping) => true,
        (
            Phase::Unknown
            | Phase::Stopped
            | Phase::Starting
            | Phase::Running
            | Phase::Stopping
            | Phase::Stuck,
            _,
        ) => false,
    }
}
