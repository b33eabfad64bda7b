//! Requests and replies of the control socket, one JSON object per line, shared by the daemon and
//! the subcommands.

use crate::core::view::View;
use crate::core::{Command, Reply as CoreReply};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// `status` and `explain`: answered with one [`Reply::View`].
    View,
    /// Answered with progress lines and one final line.
    Do(Command),
    Reload,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    View { view: Box<View>, daemon: DaemonView },
    Answer(CoreReply),
}

/// What the daemon adds about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonView {
    pub version: String,
    pub pid: u32,
    /// `SCHED_RR 50`, or what it got instead and why.
    pub scheduling: String,
    pub memory_locked: bool,
    /// Journal entries dropped because journald did not take them in time.
    pub dropped_entries: u64,
    /// Per link: frames and bytes sent and received, frames refused with the last reason.
    pub links: Vec<LinkCounters>,
    /// What is wrong in the files: what was last accepted is in force instead.
    #[serde(default)]
    pub wrong: Vec<String>,
    /// Of the hardware watchdog of `[arbiter]`; `None`: there is none.
    #[serde(default)]
    pub watchdog: Option<WatchdogView>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchdogView {
    /// It counts, and is fed as long as what is owned here may go on.
    pub counts: bool,
    /// Why it cannot be armed or fed.
    pub wrong: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkCounters {
    pub name: String,
    pub frames_out: u64,
    pub bytes_out: u64,
    pub frames_in: u64,
    pub bytes_in: u64,
    /// Pieces on a serial line that were no frame.
    pub noise: u64,
    pub refused: u64,
    pub last_refusal: String,
}
