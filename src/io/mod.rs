//! Hands and ears, one file per part of the world. Every part runs behind a bounded queue and
//! reports into one [`Inbox`]; nothing here decides anything.

use crate::core::Event;
use crate::core::name::LinkId;

pub mod arbiter;
pub mod clock;
pub mod disk;
pub mod fence;
pub mod holders;
pub mod journal;
pub mod keep;
pub mod kernel;
pub mod link;
pub mod log;
pub mod net;
pub mod notify;
pub mod reset;
pub mod rt;
pub mod scsi;
pub mod serial;
pub mod store;
pub mod systemd;
pub mod token;
pub mod udp;
pub mod watchdog;
pub mod witness;

/// What the parts report to the daemon's loop.
#[derive(Debug)]
pub enum Input {
    /// A fact for the core.
    Event(Event),
    /// Bytes from a link, one frame, not yet verified; from where, if the link can tell.
    Frame { link: LinkId, bytes: Vec<u8>, from: Option<std::net::IpAddr> },
    /// A request on the control socket; the lines of the answer go back through `reply`.
    Control { request: crate::wire::control::Request, by: String, reply: ReplySender },
    /// Of the process that feeds the hardware watchdog.
    Watchdog(watchdog::Answer),
    /// For the log.
    Warn(String),
    /// The configuration or the enabled targets may have changed (SIGHUP, UnitFilesChanged,
    /// the end of a daemon-reload): read them again.
    Reload,
}

/// Where reports go. Bounded: a part that finds it full drops frames, and waits with facts.
pub type Inbox = tokio::sync::mpsc::Sender<Input>;
/// Lines of an answer; a closed one is a person who went away.
pub type ReplySender = tokio::sync::mpsc::Sender<crate::wire::control::Reply>;
