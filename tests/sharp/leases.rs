//! Faults of leases and vouchers, and of a witness.

use super::faults::{Fault, fault};

pub const FAULTS: &[Fault] = &[
    fault(
        "counts a lease from its answer",
        "src/core/renew.rs",
        "lease.grant(asked.epoch, «asked.sent + asked.lease»),",
        "now + asked.lease",
    ),
    fault(
        "waits no longer than a lease counts",
        "src/core/renew.rs",
        "lease.waits = lease.waits.max(Some(«now + times.wait»));",
        "now + times.lease",
    ),
    fault(
        "does not wait for those that it vouched for",
        "src/core/evidence.rs",
        "if «world.now < free» {",
        "false",
    ),
    fault(
        "does not look again, when it is granted, for whom it vouched",
        "src/core/evidence.rs",
        "«return Err(Missing::Lease(format!(\"{name}: {words}; {confirm}\")));»",
        "if claim.is_none() { return Err(Missing::Lease(String::new())) }",
    ),
    fault(
        "forgets for whom it vouched when it restarts",
        "src/core/renew.rs",
        "now + «times.wait.max(record.waits)»",
        "Duration::ZERO",
    ),
    fault(
        "counts a voucher for longer than it is given",
        "src/core/renew.rs",
        "group.lease.vouch(beat.from, epoch, «echo.stamp + times.lease»);",
        "echo.stamp + times.lease + times.lease",
    ),
    fault(
        "lives on the vouchers of some",
        "src/core/lease.rs",
        "= «peers.map(|p| self.voucher_of(p, epoch)).collect()»;",
        "Some(peers.filter_map(|p| self.voucher_of(p, epoch)).collect())",
    ),
    fault(
        "does not stop before its lease is over",
        "src/core/live.rs",
        "«(!self.is_cared_for(name)).then(|| lasts - group.policy.stop_budget)»",
        "None",
    ),
    fault(
        "leaves what outlives its lease",
        "src/core/renew.rs",
        "if «self.world(now).overruns(name)» {",
        "false",
    ),
    fault(
        "has a new lease by a maintenance that nobody heard of",
        "src/core/renew.rs",
        "if own.is_some() && «cared» {",
        "says",
    ),
    fault(
        "feeds the watchdog for the group that lasts longest",
        "src/core/watchdog.rs",
        "«self.groups.iter().filter_map(lasts).min()»",
        "self.groups.iter().filter_map(lasts).max()",
    ),
    fault(
        "feeds the watchdog whatever the lease says",
        "src/core/watchdog.rs",
        "Some(if «cared» {",
        "true",
    ),
    fault(
        "lets others in after one time of the watchdog, not two",
        "tests/sim/engine/options.rs",
        "watchdog.map_or(ms(HANG) + ms(2700), |w| ms(w) * «2»);",
        "1",
    ),
    fault(
        "arms the watchdog when the start has ended",
        "src/core/watchdog.rs",
        "let epoch = «group.own»?;",
        "group.own.filter(|_| group.phase() != Phase::Starting)",
    ),
    fault(
        "a witness takes any release for one of this epoch",
        "src/core/grant.rs",
        "&& «(grant.epoch, &grant.holder) == (ask.epoch, &ask.node)»\n        {",
        "true",
    ),
    fault(
        "stops the watchdog before it knows what it owns",
        "src/core/watchdog.rs",
        "_ if «self.groups.iter().any(unread)» =>",
        "false",
    ),
    fault(
        "has a new lease by restarting",
        "src/core/observe.rs",
        "let until = «lasts.map_or(now + times.lease, |until| until.min(now + times.lease))»;",
        "now + times.lease",
    ),
    fault(
        "vouches for one that is silent",
        "src/core/live.rs",
        "let alive = |p: &NodeId| «self.presence(*p) == Presence::Alive»;",
        "{ let _ = p; true }",
    ),
    fault(
        "a witness that has lost its memory grants at once",
        "src/core/grant.rs",
        "let blind = «if kept.is_none() { now + longest } else { now }»;",
        "now",
    ),
    fault(
        "a witness grants an epoch that was given back",
        "src/core/grant.rs",
        "grant.holder == ask.node && «!grant.over»;",
        "true",
    ),
    fault(
        "a witness forgets leases when it restarts",
        "src/core/grant.rs",
        "let kept = «kept.unwrap_or_default()»;",
        "{ let _ = kept; BTreeMap::<GroupName, Grant>::new() }",
    ),
];
