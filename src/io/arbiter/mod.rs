//! The arbiter of the leases: one trait for every kind of it, asked from a thread of its own, so
//! that none delays a heartbeat (hafailover-protocol(7), "Leases").

pub mod etcd;
mod gateway;
pub mod sanlock;
mod txn;
pub mod witness;

use super::{Inbox, Input, clock};
use crate::config::arbiter::{self, Back};
use crate::core::Event;
use crate::core::name::{Epoch, GroupName};
use crate::core::policy::LeaseTimes;
use crate::core::time::Instant;
use crate::core::{LeaseAnswer, LeaseVerb};
use crate::wire::keys::Keys;
use sanlock::{Host, Sanlock};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

/// Questions that may wait: each group has one at a time, and some that it no longer needs.
const QUEUE: usize = 1024;
/// Without a question for so long, it is tended.
const TEND: Duration = Duration::from_secs(1);

/// Asked from a thread of the arbiter's own; each question ends within its time limit.
pub trait Arbiter: Send {
    /// Waits for the answer, and returns before `question.limit` has passed. What may have been
    /// carried out, or may still be, is `Unknown`.
    fn ask(&mut self, question: &Question) -> LeaseAnswer;

    /// Called now and then, also while nothing is asked. Does not wait.
    fn tend(&mut self) {}

    /// For status and errors; without secrets.
    fn describe(&self) -> String;
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    pub cluster: String,
    pub group: GroupName,
    /// With the node that claims or holds it.
    pub epoch: Epoch,
    pub verb: LeaseVerb,
    /// How long the arbiter itself keeps the lease from others, from when it was asked last: longer
    /// than the holder counts it.
    pub term: Duration,
    pub limit: Duration,
}

/// Who asks: the same for all kinds.
pub struct Asker {
    pub cluster: String,
    pub node: String,
    /// All of the cluster, in their order.
    pub nodes: Vec<String>,
    pub keys: Keys,
}

/// The daemon's end. Never waits.
pub struct ArbiterHandle(SyncSender<Asked>);

struct Asked {
    group: GroupName,
    epoch: Epoch,
    ticket: u64,
    verb: LeaseVerb,
    at: Instant,
}

impl ArbiterHandle {
    pub fn open(
        settings: &arbiter::Settings,
        asker: Asker,
        inbox: Inbox,
    ) -> std::io::Result<ArbiterHandle> {
        let cluster = asker.cluster.clone();
        let arbiter: Box<dyn Arbiter> = match &settings.back {
            Back::Etcd(at) => Box::new(etcd::Etcd::new(at, &asker.node)),
            Back::Witness(at) => Box::new(witness::Witness::new(at.clone(), asker)?),
            Back::Sanlock(at) => Box::new(Sanlock::new(at, &asker, Host::default())),
        };
        ArbiterHandle::spawn(arbiter, cluster, settings.times.clone(), inbox)
    }

    /// The same with an arbiter of the caller's.
    pub fn spawn(
        arbiter: Box<dyn Arbiter>,
        cluster: String,
        times: LeaseTimes,
        inbox: Inbox,
    ) -> std::io::Result<ArbiterHandle> {
        let (sender, questions) = sync_channel(QUEUE);
        let run = move || serve(arbiter, &cluster, &times, &questions, &inbox);
        std::thread::Builder::new().name("arbiter".into()).stack_size(512 * 1024).spawn(run)?;
        Ok(ArbiterHandle(sender))
    }

    /// False: it cannot be asked now, and there will be no answer.
    pub fn ask(&self, group: GroupName, epoch: Epoch, ticket: u64, verb: LeaseVerb) -> bool {
        self.0.try_send(Asked { group, epoch, ticket, verb, at: clock::now() }).is_ok()
    }
}

fn serve(
    mut arbiter: Box<dyn Arbiter>,
    cluster: &str,
    times: &LeaseTimes,
    questions: &Receiver<Asked>,
    inbox: &Inbox,
) {
    loop {
        arbiter.tend();
        let Asked { group, epoch, ticket, verb, at } = match questions.recv_timeout(TEND) {
            Ok(asked) => asked,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let waited = clock::now().since(at);
        let limit = times.limit().saturating_sub(waited);
        let answer = match limit.is_zero() {
            // Behind others that got no answer; to ask now would keep those behind it waiting.
            true => LeaseAnswer::Unknown("it does not answer in time".into()),
            false => {
                let (cluster, term) = (cluster.to_string(), times.wait);
                let group = group.clone();
                let question = Question { cluster, group, epoch, verb, term, limit };
                plausible(arbiter.ask(&question))
            }
        };
        let event = Event::Leased { group, ticket, answer };
        if inbox.blocking_send(Input::Event(event)).is_err() {
            return;
        }
    }
}

/// Without an epoch that nobody can have claimed: after the last there is no next one.
fn plausible(answer: LeaseAnswer) -> LeaseAnswer {
    match answer {
        LeaseAnswer::Refused { why, top: Some(top) } if top.counter > Epoch::COUNTER_MAX => {
            let why = format!("{why}; it says epoch {top}, which nobody can have had");
            LeaseAnswer::Refused { why, top: None }
        }
        answer => answer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::name::NodeId;

    #[test]
    fn an_epoch_that_nobody_can_have_is_not_heard() {
        let refused = |counter| {
            let top = Some(Epoch { counter, node: NodeId(0) });
            plausible(LeaseAnswer::Refused { why: "no".into(), top })
        };
        let LeaseAnswer::Refused { why, top } = refused(u64::MAX) else { panic!("refused") };
        assert!(top.is_none() && why.contains("nobody can have had"), "{why}");
        let LeaseAnswer::Refused { why, top } = refused(Epoch::COUNTER_MAX) else {
            panic!("refused")
        };
        assert!(top.is_some() && why == "no", "{why}");
    }
}
