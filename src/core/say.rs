//! All that the daemon can say about a transition, as one enum. `io::journal` turns a [`Saying`]
//! into a journal entry; the message catalog and hafailover(7) explain each [`What`] by the same
//! name, and the house test compares the three.

use super::name::{Epoch, GroupName, LinkId, NodeId};
use super::time::Duration;

/// One transition, told once. The fields that do not apply are empty.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Saying {
    pub what: What,
    pub group: Option<GroupName>,
    /// The other node it is about.
    pub peer: Option<NodeId>,
    pub link: Option<LinkId>,
    pub epoch: Option<Epoch>,
    /// Phase names, node names or link states, as the kind has it.
    pub from: String,
    pub to: String,
    /// Why it happened, one sentence without a full stop.
    pub reason: String,
    /// The evidence against each other node, `node=Kind(detail)` separated by blanks.
    pub evidence: String,
    /// Phases of a failover: noticing, stopping, starting.
    pub detect: Option<Duration>,
    pub stop: Option<Duration>,
    pub start: Option<Duration>,
}

impl Saying {
    pub fn new(what: What, reason: impl Into<String>) -> Saying {
        Saying {
            what,
            group: None,
            peer: None,
            link: None,
            epoch: None,
            from: String::new(),
            to: String::new(),
            reason: reason.into(),
            evidence: String::new(),
            detect: None,
            stop: None,
            start: None,
        }
    }

    pub fn group(mut self, group: &GroupName) -> Saying {
        self.group = Some(group.clone());
        self
    }

    pub fn peer(mut self, peer: NodeId) -> Saying {
        self.peer = Some(peer);
        self
    }

    pub fn epoch(mut self, epoch: Epoch) -> Saying {
        self.epoch = Some(epoch);
        self
    }

    pub fn from_to(mut self, from: impl Into<String>, to: impl Into<String>) -> Saying {
        self.from = from.into();
        self.to = to.into();
        self
    }
}

/// How loud: journal priorities as in syslog(3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Loud {
    Critical,
    Error,
    Warning,
    Notice,
    Info,
}

macro_rules! sayings {
    ($($(#[$doc:meta])* $name:ident, $key:literal, $loud:ident;)*) => {
        /// The kinds of transition.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum What { $($(#[$doc])* $name,)* }

        impl What {
            /// Every kind, in the order of the catalog.
            pub const ALL: &'static [What] = &[$(What::$name,)*];
            /// The stable name in HAFAILOVER_WHAT=, in the catalog and in the manual.
            pub fn key(self) -> &'static str { match self { $(What::$name => $key,)* } }
            pub fn loud(self) -> Loud { match self { $(What::$name => Loud::$loud,)* } }
        }
    };
}

sayings! {
    /// The daemon runs and sends heartbeats.
    DaemonStarted, "daemon-started", Notice;
    /// The daemon ends; the reason says whether groups were given away or run on.
    DaemonStopped, "daemon-stopped", Notice;
    /// The settings were read again.
    Reloaded, "reloaded", Notice;
    /// A file is wrong: what was last accepted of it stays in force.
    SettingsWrong, "settings-wrong", Error;
    /// No file is wrong any more.
    SettingsRight, "settings-right", Notice;
    /// A peer is heard and hears us.
    PeerAlive, "peer-alive", Notice;
    /// Nothing heard from a peer for `warntime`.
    PeerLate, "peer-late", Warning;
    /// Nothing heard from a peer for `deadtime`.
    PeerSilent, "peer-silent", Error;
    /// A peer is heard but does not hear us.
    PeerDeaf, "peer-deaf", Warning;
    /// A peer said that it leaves, shuts down or restarts.
    PeerLeaving, "peer-leaving", Notice;
    /// A peer's daemon is lost, and its guard stops its groups.
    PeerLost, "peer-lost", Error;
    /// A peer resets itself, as a stop failed there.
    PeerResets, "peer-resets", Error;
    /// A peer runs other settings than we.
    PeerDiffers, "peer-differs", Warning;
    /// A peer has other files for the members of a group; it bars nothing.
    MembersDiffer, "members-differ", Warning;
    MembersAgree, "members-agree", Notice;
    /// A second machine uses the name of a node.
    PeerDouble, "peer-double", Critical;
    /// A link towards a peer works.
    LinkUp, "link-up", Notice;
    /// A link towards a peer is silent.
    LinkDown, "link-down", Warning;
    /// Only one of several links towards a peer is left: failover is disarmed (or a gamble).
    RedundancyLost, "redundancy-lost", Error;
    /// Two or more links towards a peer work again.
    RedundancyBack, "redundancy-back", Notice;
    /// This node is not among a majority of the nodes.
    QuorumLost, "quorum-lost", Critical;
    QuorumRegained, "quorum-regained", Notice;
    /// A group changed its phase on this node.
    GroupPhase, "group-phase", Info;
    /// This node claims a group.
    GroupClaimed, "group-claimed", Notice;
    /// A claim was given up before it became an ownership.
    ClaimWithdrawn, "claim-withdrawn", Notice;
    /// This node promised a group to another.
    GroupPromised, "group-promised", Info;
    /// The group runs here, every member verified.
    GroupStarted, "group-started", Notice;
    /// A daemon start found the group running and kept it.
    GroupAdopted, "group-adopted", Notice;
    /// The group is stopped, every member verified, and given to a successor.
    GroupReleased, "group-released", Notice;
    /// The group did not start here.
    StartFailed, "start-failed", Error;
    /// A member failed while the group ran.
    MemberFailed, "member-failed", Error;
    /// A soft member failed, or a person stopped a member: the group runs without it.
    GroupDegraded, "group-degraded", Warning;
    /// All members are well again.
    GroupWhole, "group-whole", Notice;
    /// A stop failed: the group is still held, nobody may take it.
    GroupStuck, "group-stuck", Critical;
    /// A unit was killed, or spared, that kept a file system of the group busy.
    UsersKilled, "users-killed", Warning;
    /// A stop failed: this machine is reset.
    FenceSelf, "fence-self", Critical;
    /// That reset is not made, or had no effect.
    FenceSelfFailed, "fence-self-failed", Critical;
    /// This node is not used for the group for a while.
    Quarantined, "quarantined", Error;
    /// The quarantine is over or was cleared.
    QuarantineOver, "quarantine-over", Notice;
    /// The group waits: no node may start it, and why.
    GroupWaits, "group-waits", Warning;
    /// Two nodes held the group; the lower epoch gives up.
    TwoOwners, "two-owners", Critical;
    /// A peer that does not hear this node is about to start the group: this node stops it.
    OwnerYields, "owner-yields", Error;
    /// Members run that nobody started for the cluster.
    StrayFound, "stray-found", Critical;
    StrayGone, "stray-gone", Notice;
    /// Somebody used systemctl on a member or a target.
    ByHand, "by-hand", Warning;
    /// systemd refused a start at the token gate.
    StartRefused, "start-refused", Warning;
    /// The token of a running group is gone.
    TokenMissing, "token-missing", Critical;
    /// A person asked for something; the reason has who and what.
    Operator, "operator", Notice;
    StandbyOn, "standby-on", Notice;
    StandbyOff, "standby-off", Notice;
    MaintenanceOn, "maintenance-on", Warning;
    MaintenanceOff, "maintenance-off", Notice;
    /// A silent node is being fenced.
    Fencing, "fencing", Error;
    /// A fence ended well: the node is off, or cut from the storage.
    Fenced, "fenced", Error;
    /// An attempt to fence a node failed.
    FenceFailed, "fence-failed", Error;
    /// No attempt is left: a person is waited for.
    FenceGivenUp, "fence-given-up", Critical;
    /// A node answers in the life in which it was said to be off.
    FenceLied, "fence-lied", Critical;
    /// The fence was tried and would work.
    FenceDrillPassed, "fence-drill-passed", Notice;
    /// The fence was tried and would fail.
    FenceDrillFailed, "fence-drill-failed", Error;
    /// Our own loop stalled; silence is counted anew.
    Stalled, "stalled", Error;
    /// The arbiter of the leases does not answer.
    ArbiterLost, "arbiter-lost", Error;
    ArbiterBack, "arbiter-back", Notice;
    /// The hardware watchdog cannot be armed or fed.
    WatchdogLost, "watchdog-lost", Error;
    WatchdogBack, "watchdog-back", Notice;
    /// A group was not verified stopped before its lease was over.
    LeaseOverrun, "lease-overrun", Critical;
    /// The state file cannot be written; nothing new is taken.
    StateFailed, "state-failed", Critical;
    /// No state file, or one older than what the peers remember.
    Amnesia, "amnesia", Error;
    AmnesiaOver, "amnesia-over", Notice;
    /// An interface of the group's address has no carrier here.
    CarrierLost, "carrier-lost", Error;
    CarrierBack, "carrier-back", Notice;
    /// The guard stops the groups because the daemon is lost for good.
    GuardStops, "guard-stops", Critical;
    GuardDone, "guard-done", Critical;
}

impl What {
    /// The journal's MESSAGE_ID: the first 32 hex digits of a name-based id, see
    /// `io::journal::message_id`.
    pub fn index(self) -> usize {
        What::ALL.iter().position(|w| *w == self).expect("ALL has every kind")
    }
}
