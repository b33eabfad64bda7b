//! The subcommands, one file each: each has `Args` and `run`, which prints and gives the exit code.

pub mod adopt;
pub mod check;
pub mod clear;
pub mod confirm_down;
pub mod daemon;
pub mod explain;
pub mod generator;
pub mod history;
pub mod ip;
pub mod keygen;
pub mod lost;
pub mod maintenance;
pub mod move_group;
pub mod online;
pub mod reload;
pub mod retry;
pub mod standby;
pub mod state;
pub mod status;
