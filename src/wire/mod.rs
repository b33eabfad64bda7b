//! Heartbeats and control requests as bytes. Pure: no sockets, no clock.

pub mod control;
