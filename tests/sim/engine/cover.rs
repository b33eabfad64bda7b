//! How often the runs came where they should come. A row at zero fails the whole.

use std::collections::BTreeMap;

/// Every row that must not be zero.
pub const ROWS: &[&str] = &[
    "start by Promise",
    "start by Released",
    "start by Silent",
    "start by Unseen",
    "start by Operator",
    "start by Fenced",
    "start by Expired",
    "lease granted",
    "lease refused",
    "lease outlived, machine reset",
    "owner lived on vouchers",
    "arbiter lost",
    "arbiter restarted",
    "arbiter lost its memory",
    "cut from peers and arbiter",
    "hung daemon ended",
    "machine switched off by its fence",
    "node cut from its storage",
    "fence failed",
    "fence given up",
    "fence found lying",
    "fence ended because its node was heard",
    "fence drill failed",
    "move by operator",
    "failback",
    "two owners met and healed",
    "owner yielded",
    "freeze before a start was acted on",
    "start refused as too late",
    "freeze of a machine",
    "freeze of a daemon",
    "machine paused with its clock",
    "suspend",
    "clock jump",
    "stall noticed",
    "crash at claim written",
    "crash at claim said",
    "crash at promise written",
    "crash at release written",
    "crash at start ordered",
    "crash at token written",
    "crash at member started",
    "crash at started",
    "crash at stop ordered",
    "crash at member stopped",
    "crash at stopped",
    "daemon crash",
    "daemon lost",
    "guard stopped everything",
    "guard reset the machine",
    "guard left a group",
    "power loss",
    "one-way cut",
    "all links cut",
    "stale serial frames",
    "frame read from a slot",
    "frame too old to be written",
    "late look at the slots",
    "shared disk hung",
    "noise on a serial line",
    "frame replayed",
    "flood of old frames",
    "frame refused as a replay",
    "frame refused as of an old session",
    "quorum lost",
    "quorum regained",
    "stopped without a majority",
    "waited for the stop of a minority",
    "watchdog reset a frozen machine",
    "watchdog reset a machine that went on",
    "watchdog fed by an old look",
    "freeze at the feeder's last look",
    "jeopardy",
    "one link dead, then the power",
    "amnesia",
    "amnesia over",
    "restored state file",
    "state file cannot be written",
    "stuck stop",
    "stop with an unknown end",
    "users killed",
    "stopped once its users were killed",
    "reset of itself announced",
    "reset of itself not made",
    "machine reset itself",
    "start failed",
    "job done without being active",
    "member failed and was started again",
    "quarantined",
    "stray found",
    "token without members",
    "adopted after a restart",
    "stopped by hand",
    "maintenance",
    "standby",
    "planned restart",
    "planned stop",
    "shutdown",
    "carrier lost",
    "claim withdrawn",
    "reservation taken from an older owner",
    "reservation taken from an owner that runs on",
    "an older owner's reservation was refused",
    "start of an older owner went on late",
    "owner lost its reservation",
    "peer deaf",
    "request answered",
    "request refused",
    "files read again",
    "as they were",
    "a group is disabled",
    "a group has other settings",
    "a group prefers another node",
    "heartbeats come faster",
    "frame of a later version",
    "other version after a restart",
    "serial lines among three nodes",
    "death after the storm taken over",
    "owner survived the storm",
];

#[derive(Clone, Debug, Default)]
pub struct Cover(pub BTreeMap<&'static str, u64>);

impl Cover {
    pub fn hit(&mut self, row: &'static str) {
        debug_assert!(ROWS.contains(&row), "{row}");
        *self.0.entry(row).or_default() += 1;
    }

    pub fn add(&mut self, other: &Cover) {
        for (row, n) in &other.0 {
            *self.0.entry(row).or_default() += n;
        }
    }

    pub fn zero(&self) -> Vec<&'static str> {
        ROWS.iter()
            .copied()
            .filter(|row| self.0.get(row).copied().unwrap_or_default() == 0)
            .collect()
    }
}
