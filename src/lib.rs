//! hafailover: a systemd-integrated failover manager. This file is the map.
//!
//! A module may use only what stands to its right: `main → cli, daemon → io, config → wire → core`.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`core`] | pure: who runs what, decided from events; asks for actions |
//! | [`wire`] | pure: heartbeats and control requests as bytes, authenticated |
//! | [`config`] | text to settings: hafailover.toml, `[X-Hafailover]`, the generator |
//! | [`io`] | hands and ears, one file per part of the world |
//! | [`daemon`] | the loop: the only place where core meets io |
//! | [`cli`] | the subcommands |

pub mod cli;
pub mod config;
pub mod core;
pub mod daemon;
pub mod io;
pub mod wire;
