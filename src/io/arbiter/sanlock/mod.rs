//! Leases on a shared disk. sanlock decides whose turn it is to claim; what is granted stands in a
//! table beside it, in which each node writes its own blocks alone. A turn lasts for one claim:
//! sanlock gives what a node holds to nobody while that node lives, also without its daemon, and
//! ends processes when the disk is lost, and a group may live on then by the word of its peers.
//!
//! The device is touched by processes of their own only, because who waits for a device that hangs
//! cannot be ended. Each holds a lock for as long as it lives: what it writes late is there before
//! the next one begins.

pub mod client;
pub mod course;
pub mod format;
mod lockspace;
mod process;
pub mod table;
mod watch;

use super::{Arbiter, Asker, Question};
use crate::config::arbiter::sanlock::Settings;
use crate::core::name::GroupName;
use crate::core::time::{Duration, Instant};
use crate::core::{LeaseAnswer, LeaseVerb};
use crate::io::clock;
use crate::io::disk::slots::Place;
use client::{Answer, Space};
use course::{Ask, Memory};
use lockspace::Lockspace;
use process::Left;
use rustix::fs::{FlockOperation, flock};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use table::{Plan, Said};
use watch::Watch;

/// Between two tries to get the turn, or the lock.
const AGAIN: Duration = Duration::from_millis(20);

/// What a machine has of it; a test has several on one.
pub struct Host {
    /// This program.
    pub program: PathBuf,
    /// Held by the process that touches the device.
    pub lock: PathBuf,
    /// Where its sanlock answers, if not where sanlock itself looks.
    pub run_dir: Option<PathBuf>,
}

impl Default for Host {
    fn default() -> Host {
        Host {
            // Also after another version of it was installed; sanlock starts it, not we.
            program: format!("/proc/{}/exe", std::process::id()).into(),
            lock: "/run/hafailover/arbiter.lock".into(),
            run_dir: None,
        }
    }
}

pub struct Sanlock {
    place: Place,
    me: usize,
    space: Space,
    host: Host,
    lockspace: Lockspace,
    groups: BTreeMap<GroupName, Memory>,
    left: Left,
    watch: Watch,
}

impl Sanlock {
    pub fn new(settings: &Settings, asker: &Asker, host: Host) -> Sanlock {
        let (device, cluster) = (settings.device.clone(), asker.cluster.clone());
        let me = asker.nodes.iter().position(|n| *n == asker.node).unwrap_or_default();
        let space = Space::new(&cluster, &device, me, host.run_dir.clone());
        let lockspace = Lockspace::new(space.clone(), settings.io_timeout);
        let place = Place { device, cluster, nodes: asker.nodes.clone() };
        let (groups, left, watch) = (BTreeMap::new(), Left::default(), Watch::default());
        Sanlock { place, me, space, host, lockspace, groups, left, watch }
    }

    fn decide(&mut self, question: &Question, end: Instant) -> Result<LeaseAnswer, String> {
        if question.verb != LeaseVerb::Acquire {
            return self.run(question, end, false).map(|said| said.answer);
        }
        // Without a turn, which is for who would get it.
        let said = self.run(question, end, true)?;
        match said.answer {
            LeaseAnswer::Granted if said.claims => self.claim(question, end),
            // Had by this epoch already, by a daemon before this one: that is a renewal.
            LeaseAnswer::Granted => self.run(question, end, false).map(|said| said.answer),
            answer => Ok(answer),
        }
    }

    fn run(&mut self, question: &Question, end: Instant, rehearsal: bool) -> Result<Said, String> {
        let plan = self.plan(question, rehearsal)?;
        let mut command = Command::new(&self.host.program);
        command.args(["disk", "ask", &plan]).stdin(self.lock(end)?);
        let said = self.left.run(command, end).map_err(|e| e.to_string())?;
        match said.map(|said| self.heard(question, &said)) {
            Some(Ok(said)) => Ok(said),
            Some(Err(words)) => Err(format!("its helper ended: {}", words.trim())),
            None => Err(format!("the device has not answered for {:?}", question.limit)),
        }
    }

    /// With the turn of sanlock's.
    fn claim(&mut self, question: &Question, end: Instant) -> Result<LeaseAnswer, String> {
        if self.lockspace.is_joining() {
            return Ok(self.not_joined());
        }
        let (resource, program) = (self.space.resource(), self.host.program.clone());
        loop {
            let plan = self.plan(question, false)?;
            let words = ["command", "-r", &resource, "-c", &program.to_string_lossy()];
            let mut command = self.space.client(&words);
            command.args(["disk", "ask", &plan]).stdin(self.lock(end)?);
            let said = self.left.run(command, end).map_err(|e| client::missing(&e))?;
            let Some(said) = said else {
                return Err(
                    "sanlock has not given the turn to claim in time: another node has it, \
                            or died in it"
                        .into(),
                );
            };
            let words = match self.heard(question, &said) {
                Ok(said) => return Ok(said.answer),
                Err(words) => words,
            };
            match client::read(&words) {
                Answer::Busy if clock::now() + AGAIN * 2 < end => std::thread::sleep(AGAIN),
                Answer::Busy => {
                    let why = "another node has the turn to claim, or died in it".into();
                    return Ok(LeaseAnswer::Refused { why, top: None });
                }
                Answer::NotJoined => return Ok(self.not_joined()),
                Answer::Failed(why) => return Err(why),
                Answer::Done | Answer::Joined => return Err(words.trim().into()),
            }
        }
    }

    /// Nothing was carried out.
    fn not_joined(&self) -> LeaseAnswer {
        let why = format!("{}: {}", self.describe(), self.lockspace.trouble());
        LeaseAnswer::Refused { why, top: None }
    }

    fn plan(&self, question: &Question, rehearsal: bool) -> Result<String, String> {
        let mut nonce = [0; 8];
        getrandom::fill(&mut nonce).map_err(|e| e.to_string())?;
        let ask = Ask {
            verb: question.verb,
            epoch: question.epoch,
            me: self.me,
            nodes: self.place.nodes.clone(),
            term: question.term,
            nonce: u64::from_be_bytes(nonce),
        };
        let memory = self.groups.get(&question.group).cloned().unwrap_or_default();
        let (place, group) = (self.place.clone(), question.group.clone());
        let plan = Plan { place, group, ask, memory, rehearsal };
        serde_json::to_string(&plan).map_err(|e| e.to_string())
    }

    /// Its last line; else all that was said instead.
    fn heard(&mut self, question: &Question, said: &str) -> Result<Said, String> {
        let last = said.lines().last().unwrap_or_default();
        let said: Said = serde_json::from_str(last).map_err(|_| said.to_string())?;
        self.groups.insert(question.group.clone(), said.memory.clone());
        Ok(said)
    }

    /// Nobody has it but the process that is started with it.
    fn lock(&mut self, end: Instant) -> Result<Stdio, String> {
        let shown = self.host.lock.display();
        let open = File::options().create(true).append(true).open(&self.host.lock);
        let file = open.map_err(|e| format!("{shown}: {e}"))?;
        let begun = clock::now();
        let patience = end.since(begun) / 4;
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(file.into()),
                Err(rustix::io::Errno::AGAIN) => {}
                Err(error) => return Err(format!("{shown}: {error}")),
            }
            // One that was told to end may be about to.
            if clock::now().since(begun) >= patience {
                return Err("an earlier question still waits for the device".into());
            }
            std::thread::sleep(AGAIN);
            self.left.tend();
        }
    }
}

impl Arbiter for Sanlock {
    fn ask(&mut self, question: &Question) -> LeaseAnswer {
        let asked = clock::now();
        self.tend();
        // The rest is for coming back in time on a busy machine.
        let answer = self.decide(question, asked + question.limit * 4 / 5);
        if clock::now().since(asked) >= question.limit {
            return LeaseAnswer::Unknown("the answer came too late".into());
        }
        answer.unwrap_or_else(|why| LeaseAnswer::Unknown(format!("{}: {why}", self.describe())))
    }

    fn tend(&mut self) {
        self.left.tend();
        self.lockspace.tend();
        self.watch.tend(&self.host.program, &self.place.device, &mut self.groups);
    }

    fn describe(&self) -> String {
        format!("sanlock on {}", self.place.device.display())
    }
}
