//! Faults of the disks with a reservation, and of the order that core and disk must agree on.

use crate::faults::{Fault, fault};

pub const FAULTS: &[Fault] = &[
    fault(
        "orders equal counters the other way than disks do",
        "src/core/name.rs",
        "self.counter.cmp(&other.counter).then_with(|| «other.node.cmp(&self.node)»)",
        "self.node.cmp(&other.node)",
    ),
    fault(
        "forgets that the count of a key begins anew",
        "src/core/name.rs",
        "ahead => «ahead < 1 << 15»,",
        "{ let _ = ahead; self.count > other.count }",
    ),
    fault(
        "takes a disk from a later owner",
        "tests/sim/engine/reserve.rs",
        "has.filter(|has| «self.short(*has)».is_newer_than(self.short(claim)));",
        "self.short(Epoch::default())",
    ),
    fault(
        "starts a failed member again without end",
        "src/core/ownership.rs",
        "let spent = «recent >= group.policy.retries as usize»;",
        "recent > 10_000",
    ),
];
