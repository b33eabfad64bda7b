//! Real parts without a systemd as PID 1: serial lines on ptys, UDP and addresses in network
//! namespaces of the tests' own.

mod address;
mod arbiter;
mod control;
mod disk;
mod flood;
mod format;
mod journal;
mod kernel;
mod links;
mod lost;
mod manager;
mod program;
mod sleep;
mod space;
mod store;
mod systemd;
mod token;
mod watchdog;
mod witness;
