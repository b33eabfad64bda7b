//! What somebody who sees everything remembers, to judge by: contacts, promises, starts, releases.

use crate::fences::Proof;
use crate::options::Options;
use hafailover::core::Command;
use hafailover::core::heartbeat::{GroupReport, Heartbeat};
use hafailover::core::name::{Epoch, GroupName, Session};
use hafailover::core::record::Record;
use hafailover::core::time::Instant;
use std::collections::{BTreeMap, BTreeSet};

/// A rule that did not hold.
#[derive(Clone, Debug)]
pub struct Broken {
    pub rule: &'static str,
    pub words: String,
}

pub struct Rules {
    pub broken: Option<Broken>,
    pub phase: Vec<Vec<char>>,
    pub tasks: u64,
    /// Requests without a result: node, number; since when.
    pub asked: BTreeMap<(usize, u64), u64>,
    /// Where and when a person's request was last taken in.
    pub person: (usize, u64),
    pub commanded: Vec<(usize, u64, Command)>,
    /// From the order to start until the release is verified.
    pub holds: Vec<Vec<bool>>,
    /// What it was last started on, in words, by other node.
    pub proof: Vec<Vec<Vec<String>>>,
    /// The epoch it was last started at.
    pub own: Vec<Vec<Epoch>>,
    /// By group: every epoch of a claim that was ever told to others.
    pub claimed: Vec<BTreeSet<Epoch>>,
    /// The highest promise to another node that was ever sent, the highest epoch ever sent.
    pub promised: Vec<Vec<Epoch>>,
    pub spoken: Vec<Vec<Epoch>>,
    /// The claim whose start on silence it announced last.
    pub announced: Vec<Vec<Epoch>>,
    /// When, on its own clock, it last said that it would be.
    pub due: Vec<Vec<Instant>>,
    /// Until when it is not to start what failed there.
    pub quarantine: Vec<Vec<u64>>,
    /// When that was.
    pub announced_at: Vec<Vec<u64>>,
    /// By group: the epochs that were given away by the release of the one right before.
    pub given: Vec<BTreeSet<Epoch>>,
    /// By listener and sender: when the latest frame was sent that was ever taken.
    pub reached: Vec<Vec<u64>>,
    /// When a node last heard one that its fence had made sure of, which counts again from then on.
    pub counts_again: Vec<u64>,
    /// Since when a stop of it has been under way, whether one failed, and whose users were killed.
    pub stops: Vec<Vec<Ending>>,
    /// It has said that it resets itself.
    pub said_reset: Vec<bool>,
    pub started: Vec<BTreeMap<Epoch, usize>>,
    pub last: Vec<Record>,
    /// Its state was lost or put back: what it forgot is not held against it.
    pub rolled: Vec<bool>,
    /// Its state file is one of before: it cannot know better, and does not know that.
    pub restored: Vec<bool>,
    /// What it had heard when its amnesia was over.
    pub learned: Vec<Vec<Epoch>>,
    pub contact: Vec<Vec<Contact>>,
    /// By group: the last start or stop.
    pub last_job: Vec<u64>,
    pub jobs: Vec<u64>,
    pub two: Vec<bool>,
    /// Groups that did not change, while files are read again.
    pub unchanged: BTreeSet<usize>,
    /// By node and link: the second, and the frames sent in it.
    pub frames: BTreeMap<(usize, usize), (u64, u32)>,
    /// Agents under way, by who sent them and to whom.
    pub fencing: BTreeMap<(usize, usize), (u64, Proof)>,
    /// The last that said it ended well.
    pub fenced: Vec<Vec<Option<Proof>>>,
    /// How often since it was last heard at that time.
    pub tries: Vec<Vec<(Option<u64>, u32)>>,
}

/// A stop that is not yet verified.
#[derive(Clone, Debug, Default)]
pub struct Ending {
    pub since: Option<u64>,
    pub failed: bool,
    pub purged: BTreeSet<String>,
}

/// What one node has of another, as the wire brought it.
#[derive(Clone, Debug, Default)]
pub struct Contact {
    pub session: Option<Session>,
    /// By link: when, in the listener's lived time.
    pub links: BTreeMap<u8, u64>,
    /// The same without frames of which it is not sure that they counted.
    pub sure: BTreeMap<u8, u64>,
    pub beat: Option<Heartbeat>,
    /// When the newest frame was sent of a life that was not yet believed beside the one that is.
    pub rival: Option<u64>,
    /// When this life took the place of one that had not said that it goes.
    pub crashed: Option<u64>,
    /// When a frame came that was not long under way.
    pub near: Option<u64>,
    /// When the latest of its frames was sent.
    pub sent: u64,
    /// Session, link and number of every frame taken.
    pub frames: BTreeSet<(u64, u8, u64)>,
}

impl Contact {
    pub fn last(&self) -> Option<u64> {
        self.links.values().max().copied()
    }

    pub fn report(&self, name: &GroupName) -> Option<&GroupReport> {
        self.beat.as_ref()?.groups.iter().find(|r| r.name == *name)
    }
}

impl Rules {
    pub fn new(options: &Options) -> Rules {
        let (n, g) = (options.nodes, options.groups.len());
        Rules {
            broken: None,
            phase: vec![vec!['U'; g]; n],
            tasks: 0,
            asked: BTreeMap::new(),
            person: (0, 0),
            commanded: Vec::new(),
            holds: vec![vec![false; g]; n],
            own: vec![vec![Epoch::default(); g]; n],
            proof: vec![vec![Vec::new(); g]; n],
            promised: vec![vec![Epoch::default(); g]; n],
            spoken: vec![vec![Epoch::default(); g]; n],
            announced: vec![vec![Epoch::default(); g]; n],
            due: vec![vec![Instant::default(); g]; n],
            quarantine: vec![vec![0; g]; n],
            announced_at: vec![vec![0; g]; n],
            claimed: vec![BTreeSet::new(); g],
            given: vec![BTreeSet::new(); g],
            reached: vec![vec![0; n]; n],
            counts_again: vec![0; n],
            stops: vec![vec![Ending::default(); g]; n],
            said_reset: vec![false; n],
            started: vec![BTreeMap::new(); g],
            last: vec![Record::default(); n],
            rolled: vec![false; n],
            restored: vec![false; n],
            learned: vec![vec![Epoch::default(); g]; n],
            contact: vec![vec![Contact::default(); n]; n],
            last_job: vec![0; g],
            jobs: vec![0; g],
            two: vec![false; g],
            unchanged: BTreeSet::new(),
            frames: BTreeMap::new(),
            fencing: BTreeMap::new(),
            fenced: vec![vec![None; n]; n],
            tries: vec![vec![(None, 0); n]; n],
        }
    }

    pub fn daemon_began(&mut self, n: usize) {
        self.phase[n].fill('U');
        self.contact[n].fill(Contact::default());
        self.tries[n].fill((None, 0));
        self.stops[n].fill(Ending::default());
        self.said_reset[n] = false;
    }

    pub fn daemon_ended(&mut self, n: usize) {
        self.asked.retain(|(node, _), _| *node != n);
        self.quarantine[n].fill(0);
        self.phase[n].fill('U');
    }

    pub fn machine_off(&mut self, n: usize) {
        self.holds[n].fill(false);
        self.phase[n].fill('-');
    }

    pub fn released(&mut self, n: usize, g: usize) {
        self.stops[n][g] = Ending::default();
        self.holds[n][g] = false;
    }

    pub fn rolled_back(&mut self, n: usize) {
        self.rolled[n] = true;
        self.learned[n].fill(Epoch::default());
        self.promised[n].fill(Epoch::default());
        self.spoken[n].fill(Epoch::default());
        self.announced[n].fill(Epoch::default());
    }
}
