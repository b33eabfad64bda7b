//! The ears: everything that can happen to the core.

use super::evidence::Proof;
use super::heartbeat::Heartbeat;
use super::lease::LeaseAnswer;
use super::name::{Epoch, GroupName, LinkId, NodeId};
use super::policy::Policy;
use super::time::{Duration, Instant};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// A timer of [`next_wake`](super::Core::next_wake) is due. A spurious one does nothing.
    Wake,
    /// A verified, fresh heartbeat (seal and replay window are behind it).
    Heard { link: LinkId, heartbeat: Box<Heartbeat> },
    /// A link of ours became usable or unusable (carrier, socket, device).
    Link { link: LinkId, usable: bool, why: String },
    /// The answer to [`Action::Persist`](super::Action::Persist).
    Persisted { ticket: u64, result: Result<(), String> },
    /// The io layer read the members of a group, and what the kernel says of them.
    Observed { group: GroupName, seen: Observation },
    /// The answer to [`Action::Start`](super::Action::Start).
    Started { group: GroupName, job: u64, result: Result<(), StartError> },
    /// The answer to [`Action::Stop`](super::Action::Stop). `Ok`: every member is stopped and the
    /// kernel agrees.
    Stopped { group: GroupName, job: u64, result: Result<(), StopError> },
    /// The answer to [`Action::Fence`](super::Action::Fence). `Ok`: off was read back.
    Fenced { node: NodeId, id: u64, result: Result<(), String> },
    /// The answer to [`Action::FenceCheck`](super::Action::FenceCheck).
    FenceTried { node: NodeId, id: u64, result: Result<FenceState, String> },
    /// The answer to [`Action::KillUsers`](super::Action::KillUsers): of each unit that was killed,
    /// or spared, why, in words.
    UsersKilled { group: GroupName, job: u64, told: Vec<String> },
    /// [`Action::Reset`](super::Action::Reset) had no effect.
    ResetFailed { why: String },
    /// A heartbeat under our own name that is not ours, and where it came from.
    Double { heartbeat: Box<Heartbeat>, address: String },
    /// The answer to [`Action::Lease`](super::Action::Lease).
    Leased { group: GroupName, ticket: u64, answer: LeaseAnswer },
    /// A job on a member or target that is not ours.
    ByHand { group: GroupName, unit: String, verb: Hand },
    /// A person or a program asks for something; answered with
    /// [`Action::Answer`](super::Action::Answer).
    Asked { request: u64, by: String, command: Command },
    /// Which of our links run over the same cable, as in `Policy::cables`.
    Cables { cables: Vec<LinkId> },
    /// New settings, already checked.
    Reconfigured { policy: Box<Policy> },
    /// SIGTERM, or the machine goes down.
    Terminate { kind: Terminate },
    /// The machine slept or a clock jumped for this long: nothing seen before it counts.
    Gap { lasted: Duration },
}

/// What a group's members are doing, read from systemd and the kernel at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Observation {
    pub members: Vec<Member>,
    /// The epoch in the token file of this boot; `None`: there is no token.
    pub token: Option<Epoch>,
    /// By what it is held by that token.
    pub proof: Option<Proof>,
    /// Until when the guard was told that the owner by this token may go on.
    pub lasts: Option<Instant>,
    /// The epoch by which it was held when a stop began that is not yet verified.
    pub closed: Option<Epoch>,
    /// The kernel still holds something of the group that no active unit accounts for
    /// (a mount, an address, a process); in words.
    pub leftovers: Vec<String>,
    /// systemd could not be asked, or some answer is missing: nothing may be concluded.
    pub blind: bool,
    /// The group's units are not as they must be (missing unit, gate not loaded); in words.
    pub unloaded: Option<String>,
    /// An interface that one of the group's addresses needs and that has no carrier.
    pub no_carrier: Option<String>,
}

/// One unit that the group starts.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Member {
    pub unit: String,
    /// `Requires=` or `BindsTo=`; a soft member (`Wants=`) that fails is shown, no more.
    pub hard: bool,
    pub state: MemberState,
    /// systemd's `Result` where it is not `success`, else empty.
    pub result: String,
    /// systemd's count of its own restarts.
    pub restarts: u32,
    /// It is stopped because somebody stopped it by hand while the group runs.
    pub by_hand: bool,
}

/// `ActiveState` as systemd has it (org.freedesktop.systemd1(5)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemberState {
    Inactive,
    Activating,
    Active,
    Deactivating,
    Failed,
}

/// The result of an address unit whose probe found another host: perhaps the silent owner, whose
/// kernel still answers.
pub const IN_USE: &str = "address in use";

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum StartError {
    /// `valid_until` was over before the call; nothing was asked of systemd.
    Late,
    /// This member did not start; systemd's result, and the failed unit.
    Failed { unit: String, result: String },
    /// systemd refused or could not be reached; nothing is known.
    Unknown { why: String },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum StopError {
    /// This member did not stop, or the kernel still holds something; who holds it, in words
    /// (pid, command, open file).
    Stuck { unit: String, why: String, holders: Vec<String> },
    /// systemd could not be reached; nothing is known.
    Unknown { why: String },
}

impl StopError {
    pub fn words(&self) -> String {
        match self {
            StopError::Stuck { unit, why, holders } if holders.is_empty() => {
                format!("{unit}: {why}")
            }
            StopError::Stuck { unit, why, holders } => {
                format!("{unit}: {why}; held by {}", holders.join(", "))
            }
            StopError::Unknown { why } => format!("cannot tell whether it stopped: {why}"),
        }
    }
}

/// What somebody did with systemctl.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hand {
    StartTarget,
    StopTarget,
    StartMember,
    StopMember,
    RestartMember,
    /// A start that systemd refused at the token gate.
    Refused,
}

/// What a person may ask of the daemon.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Command {
    Move {
        group: GroupName,
        to: Option<NodeId>,
    },
    Standby {
        node: NodeId,
        on: bool,
    },
    /// `None`: the whole cluster.
    Maintenance {
        group: Option<GroupName>,
        on: bool,
    },
    /// Try to stop a Stuck group again.
    Retry {
        group: GroupName,
    },
    /// End quarantine and "stopped by operator"; stop strays.
    Clear {
        group: GroupName,
    },
    /// Make strays the running group.
    Adopt {
        group: GroupName,
    },
    ConfirmDown {
        node: NodeId,
    },
    /// Power it off now, or cut it from the storage.
    Fence {
        node: NodeId,
    },
    /// Try whether that would work.
    FenceCheck {
        node: NodeId,
    },
    /// The fence was mended: believe it again.
    ClearFence {
        node: NodeId,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Terminate {
    /// Our own stop job: give everything away, then exit.
    Stop,
    /// A restart, or a stop whose kind nobody can tell: touch nothing, exit.
    Restart,
    /// The machine goes down (logind's PrepareForShutdown): give everything away, stay.
    Shutdown,
}

/// A member's state in a word or two.
pub fn member_words(member: &Member) -> String {
    let state = format!("{:?}", member.state).to_lowercase();
    let soft = if member.hard { "" } else { ", soft" };
    let hand = if member.by_hand { ", stopped by hand" } else { "" };
    match member.result.as_str() {
        "" => format!("{state}{soft}{hand}"),
        result => format!("{state} ({result}){soft}{hand}"),
    }
}

/// What a fence says of its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FenceState {
    /// Its power is on, or it has its storage.
    On,
    Off,
}
