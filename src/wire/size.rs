//! How long a heartbeat is, before any is sent: for `check`, which weighs it against a serial line.

use super::Codec;
use super::keys::Keys;
use crate::core::heartbeat::{
    Claim, Echo, GroupReport, GroupWish, Heartbeat, Held, Mood, NodeWishes, PAGE_GROUPS, Phase,
    Register, Release, Tally,
};
use crate::core::name::{BootId, Epoch, GroupName, LinkId, LinkSet, NodeId, Session};
use crate::core::time::{Duration, Instant};

/// Of the longest page, sealed, in bytes: every other node is heard, and each group has been moved
/// once.
pub fn longest_frame(cluster: &str, nodes: &[String], groups: &[GroupName]) -> usize {
    let mut names: Vec<&GroupName> = groups.iter().collect();
    names.sort_by_key(|name| std::cmp::Reverse(name.0.len()));
    names.truncate(PAGE_GROUPS);
    let epoch = Epoch { counter: 1, node: NodeId(0) };
    let echo = |n: usize| Echo {
        peer: NodeId(n as u8),
        session: Session(1),
        stamp: Instant(1),
        age: Duration::ZERO,
        links: LinkSet(1),
    };
    let beat = Heartbeat {
        from: NodeId(0),
        session: Session(1),
        boot: BootId(1),
        seq: 1,
        link: LinkId(0),
        stamp: Instant(1),
        mood: Mood { guard_bound: Some(Duration::ZERO), ..Mood::default() },
        fingerprint: 1,
        echoes: (1..nodes.len()).map(echo).collect(),
        wishes: NodeWishes {
            maintenance: Register::default(),
            standby: vec![Register::default(); nodes.len()],
        },
        groups: names.into_iter().map(|name| moved_once(name, epoch)).collect(),
        page: 0,
        pages: 1,
    };
    let keys = Keys::of(&[(1, [0; 32])], 1);
    let frame = Codec::new(cluster, nodes, NodeId(0), Session(1), keys).encode(&beat);
    frame.map_or(super::FRAME_MAX, |frame| frame.len())
}

fn moved_once(name: &GroupName, epoch: Epoch) -> GroupReport {
    GroupReport {
        name: name.clone(),
        fingerprint: 1,
        texts: Some(1),
        tally: Tally { up: 1, all: 1 },
        phase: Phase::Running,
        held: Held::Yes,
        epoch,
        claim: Some(Claim { epoch, on_silence: None }),
        promise: Some(epoch),
        released: Some(Release { epoch, successor: Some(NodeId(0)) }),
        voucher: None,
        unfit: None,
        quarantine: Duration::ZERO,
        wish: Register { version: epoch, value: GroupWish::default() },
    }
}
