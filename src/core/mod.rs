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
