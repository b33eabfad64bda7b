//! The core: who runs what, decided from facts. A pure value without IO, clock, thread, logging or
//! randomness: facts come in as [`Event`], wishes go out as [`Action`], time is an argument.

mod action;
mod event;
pub mod heartbeat;
pub mod name;
pub mod policy;
pub mod record;
pub mod say;
pub mod time;
pub mod view;

pub use action::{Action, Reply};
pub use event::{
    Command, Event, Hand, Member, MemberState, Observation, StartError, StopError, Terminate,
};

use name::{BootId, Session};
use policy::Policy;
use record::Record;
use time::Instant;
use view::View;

/// What a new life of the daemon starts from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Boot {
    pub session: Session,
    pub boot: BootId,
    /// `None`: there is no state file. The node is amnesiac.
    pub record: Option<Record>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Core {
    policy: Policy,
}

impl Core {
    pub fn new(_now: Instant, _boot: Boot, policy: Policy) -> (Core, Vec<Action>) {
        (Core { policy }, Vec::new())
    }

    /// The whole behaviour of the program.
    pub fn handle(&mut self, _now: Instant, _event: Event) -> Vec<Action> {
        Vec::new()
    }

    /// When [`Event::Wake`] is due next.
    pub fn next_wake(&self) -> Instant {
        Instant(0)
    }

    pub fn view(&self, _now: Instant) -> View {
        View {
            me: self.policy.me,
            nodes: Vec::new(),
            links: Vec::new(),
            groups: Vec::new(),
            maintenance: false,
            disarmed: Vec::new(),
            warnings: Vec::new(),
        }
    }
}
