//! Faults in what stops a group and whom: the quorum, and what follows a failed stop.

use crate::faults::{Fault, fault};

pub const FAULTS: &[Fault] = &[
    fault(
        "takes half of the nodes for a majority",
        "src/core/quorum.rs",
        "«self.votes * 2 > self.of»",
        "self.votes * 2 >= self.of",
    ),
    fault(
        "fences though it is in a minority",
        "src/core/fence.rs",
        "world.quorum().filter(|q| «!q.may_fence()»)",
        "q.votes == 0",
    ),
    fault(
        "counts the votes of those that do not hear it",
        "src/core/quorum.rs",
        "&& «peer.hears_us() && peer.is_fresh(self.now, &self.policy.timing)»",
        "true",
    ),
    fault(
        "goes on without a majority",
        "src/core/ownership.rs",
        "if let Some(words) = «world.outvoted().filter(|_| world.minority)» {",
        "None::<String>",
    ),
    fault(
        "does not wait for the stop of a minority",
        "src/core/act.rs",
        "true => «timing.quorum_wait(budget)»,",
        "notice",
    ),
    fault(
        "resets its machine, or kills users, in maintenance",
        "src/core/escalate.rs",
        "held && !down && «!in_maintenance(&self.world(now), name)»\n    }",
        "true",
    ),
    fault(
        "resets its machine though it stopped after all",
        "src/core/escalate.rs",
        "let stopped = «self.groups.get(&reset.group).is_none_or(|g| g.own.is_none())»;",
        "false",
    ),
    fault(
        "kills users again and again",
        "src/core/escalate.rs",
        "if «self.group_mut(name).purged.insert(unit.into())» {",
        "(self.group_mut(name).purged.insert(unit.into()) || true)",
    ),
    fault(
        "takes a stop that has just begun for overdue",
        "src/core/escalate.rs",
        "s.since + «group.policy.stop_budget»)",
        "Duration::ZERO",
    ),
    fault(
        "tells nobody that it resets itself",
        "src/core/beat.rs",
        "resetting: «self.reset.is_some()»,",
        "false",
    ),
];
