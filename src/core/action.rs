//! The hands: everything the core can ask for. Actions are carried out in order; each that can
//! fail comes back as an [`Event`](super::Event).

use super::evidence::Proof;
use super::heartbeat::Heartbeat;
use super::lease::LeaseVerb;
use super::name::{Epoch, GroupName, LinkId, NodeId};
use super::record::Record;
use super::say::Saying;
use super::time::{Duration, Instant};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Send this on that link now; if the link cannot take it at once, drop it.
    Send { link: LinkId, heartbeat: Box<Heartbeat> },
    /// Write and fsync, then [`Event::Persisted`](super::Event::Persisted) with this ticket.
    Persist { ticket: u64, record: Box<Record> },
    /// Write the token, start what is not active, wait, verify; then
    /// [`Event::Started`](super::Event::Started). Nothing may be asked of systemd once
    /// `valid_until` is over.
    Start { group: GroupName, epoch: Epoch, job: u64, valid_until: Instant },
    /// Remove the token, stop layer by layer, verify each in the kernel; then
    /// [`Event::Stopped`](super::Event::Stopped). Cancels a start that is under way.
    Stop { group: GroupName, job: u64 },
    /// Kill, by unit and cgroup, whoever keeps busy what this mount unit of the group mounts, and
    /// nothing that the machine needs; then [`Event::UsersKilled`](super::Event::UsersKilled).
    KillUsers { group: GroupName, unit: String, job: u64 },
    /// Reset this machine by force, after so long at most for the journal. An answer comes only if
    /// that fails: [`Event::ResetFailed`](super::Event::ResetFailed).
    Reset { group: GroupName, flush: Duration },
    /// Keep beside the token by what the group is held, for the next daemon to show. No answer.
    Prove { group: GroupName, epoch: Epoch, proof: Box<Proof> },
    /// Write the token for members that already run; no job is issued.
    Adopt { group: GroupName, epoch: Epoch },
    /// Read the group again; then [`Event::Observed`](super::Event::Observed).
    Observe { group: GroupName },
    /// Ask the arbiter, in the order of the questions; then
    /// [`Event::Leased`](super::Event::Leased) with this ticket.
    Lease { group: GroupName, epoch: Epoch, ticket: u64, verb: LeaseVerb },
    /// The owner may go on until then: for the guard, and for the next life of the daemon.
    Lasts { group: GroupName, epoch: Epoch, until: Instant },
    /// Announce the group's addresses again (they run here, and somebody else had them too).
    Announce { group: GroupName },
    /// Make sure that the node is off, and read that back; then
    /// [`Event::Fenced`](super::Event::Fenced). Nothing may begin once `valid_until` is over.
    Fence { node: NodeId, id: u64, valid_until: Instant },
    /// The node is heard: end what [`Action::Fence`] began, if that is still possible.
    FenceEnd { node: NodeId },
    /// Ask the fence for the node's state, changing nothing; then
    /// [`Event::FenceTried`](super::Event::FenceTried).
    FenceCheck { node: NodeId, id: u64 },
    /// Tell people: one journal entry.
    Say(Saying),
    /// An answer to [`Event::Asked`](super::Event::Asked).
    Answer { request: u64, reply: Reply },
    /// Nothing is left to do: end the process.
    Exit,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// Not finished yet: what it waits for.
    Progress(String),
    /// The result.
    Done(String),
    /// Not done: why, and what to do.
    Refused(String),
}
