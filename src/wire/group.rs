//! One group's report as bytes. What a later version says and we do not understand is read as the
//! careful thing: such a group is neither stopped nor promised, and its node does not take it.

use super::Roster;
use super::bytes::{Reader, Writer};
use crate::core::heartbeat::{
    Claim, GroupReport, GroupWish, Held, Phase, Register, Release, Tally, Unfit,
};
use crate::core::name::{GROUP_NAME_MAX, GroupName};

/// By number on the wire. The first is the careful one, also read for a number not listed.
const PHASES: [Phase; 6] = [
    Phase::Unknown,
    Phase::Stopped,
    Phase::Starting,
    Phase::Running,
    Phase::Stopping,
    Phase::Stuck,
];
const HELD: [Held; 3] = [Held::Unknown, Held::No, Held::Yes];
const UNFIT: [Unfit; 12] = [
    Unfit::Other,
    Unfit::NotListed,
    Unfit::Standby,
    Unfit::Maintenance,
    Unfit::Leaving,
    Unfit::Quarantined,
    Unfit::NoCarrier,
    Unfit::Stray,
    Unfit::NotLoaded,
    Unfit::Amnesiac,
    Unfit::NoState,
    Unfit::Double,
];

const DOWN: u8 = 1;
const MAINTENANCE: u8 = 2;

/// Whether the name can be sent; the configuration lets no other in.
pub fn can_write(group: &GroupReport) -> bool {
    (1..=GROUP_NAME_MAX).contains(&group.name.0.len())
}

pub fn write(w: &mut Writer, group: &GroupReport) {
    let name = group.name.0.as_bytes();
    w.u8(name.len() as u8);
    w.out.extend_from_slice(name);
    w.u32(group.fingerprint);
    w.u8(number(&PHASES, &group.phase));
    w.u8(number(&HELD, &group.held));
    w.epoch(group.epoch);
    w.option(group.claim, |w, claim| {
        w.epoch(claim.epoch);
        w.option(claim.on_silence, Writer::duration);
    });
    w.option(group.promise, Writer::epoch);
    w.option(group.released, |w, release| {
        w.epoch(release.epoch);
        w.option(release.successor, Writer::node);
    });
    w.option(group.voucher, Writer::epoch);
    w.option(group.unfit, |w, unfit| w.u8(number(&UNFIT, &unfit)));
    w.duration(group.quarantine);
    w.epoch(group.wish.version);
    let wish = group.wish.value;
    w.u8(if wish.down { DOWN } else { 0 } | if wish.maintenance { MAINTENANCE } else { 0 });
    w.option(wish.move_to, |w, (node, epoch)| {
        w.node(node);
        w.epoch(epoch);
    });
    w.u8(group.tally.up);
    w.u8(group.tally.all);
    w.option(group.texts, Writer::u32);
}

/// Outer `None`: bytes are missing. Inner: the name is none that a group here can have.
pub fn read(r: &mut Reader, roster: &Roster) -> Option<Option<GroupReport>> {
    let len = usize::from(r.u8()?);
    let name = r.bytes(len)?;
    let fingerprint = r.u32()?;
    let (phase, held) = (r.u8()?, r.u8()?);
    let (phase, held) = (listed(&PHASES, phase), listed(&HELD, held));
    let epoch = r.bound(roster)?;
    let claim = r.option(|r| Some((r.epoch(roster)?, r.option(Reader::duration)?)))?;
    let promise = r.option(|r| r.epoch(roster))?.flatten();
    let released = r.option(|r| release(r, roster))?.flatten();
    let voucher = r.option(|r| r.epoch(roster))?.flatten();
    let unfit = r.option(Reader::u8)?.map(|n| listed(&UNFIT, n).unwrap_or(UNFIT[0]));
    let quarantine = r.duration()?;
    let wish = wish(r, roster)?;
    // Added after the first version.
    let tally = r.u8().zip(r.u8()).map(|(up, all)| Tally { up, all }).unwrap_or_default();
    let texts = r.added(|r| r.option(Reader::u32))?.flatten();
    let understood = phase.is_some() && held.is_some();
    let name = std::str::from_utf8(name).ok().filter(|n| (1..=GROUP_NAME_MAX).contains(&n.len()));
    Some(name.map(|name| GroupReport {
        name: GroupName(name.to_string()),
        fingerprint,
        texts,
        phase: phase.filter(|_| understood).unwrap_or(PHASES[0]),
        held: held.filter(|_| understood).unwrap_or(HELD[0]),
        epoch,
        claim: claim.and_then(|(epoch, on_silence)| Some(Claim { epoch: epoch?, on_silence })),
        promise: promise.filter(|_| understood),
        released: released.filter(|_| understood),
        voucher: voucher.filter(|_| understood),
        unfit,
        quarantine,
        wish,
        tally,
    }))
}

/// A release for somebody we do not know is none for us; without its successor it would say more
/// than was said.
fn release(r: &mut Reader, roster: &Roster) -> Option<Option<Release>> {
    let epoch = r.epoch(roster)?;
    let successor = r.option(|r| r.node(roster))?;
    Some(match (epoch, successor) {
        (Some(epoch), None) => Some(Release { epoch, successor: None }),
        (Some(epoch), Some(Some(node))) => Some(Release { epoch, successor: Some(node) }),
        _ => None,
    })
}

/// A wish that names a node we do not know is not taken over, not even in part: its version
/// would then stand for two values. It comes again in every heartbeat.
fn wish(r: &mut Reader, roster: &Roster) -> Option<Register<GroupWish>> {
    let version = r.epoch(roster)?;
    let bits = r.u8()?;
    let move_to = r.option(|r| Some((r.node(roster)?, r.epoch(roster)?)))?;
    let (down, maintenance) = (bits & DOWN != 0, bits & MAINTENANCE != 0);
    let move_to = match move_to {
        None => Some(None),
        Some((Some(node), Some(epoch))) => Some(Some((node, epoch))),
        Some(_) => None,
    };
    let known = version.zip(move_to).map(|(version, move_to)| Register {
        version,
        value: GroupWish { down, maintenance, move_to },
    });
    Some(known.unwrap_or_default())
}

fn number<T: PartialEq>(table: &[T], value: &T) -> u8 {
    table.iter().position(|v| v == value).unwrap_or_default() as u8
}

fn listed<T: Copy>(table: &[T], number: u8) -> Option<T> {
    table.get(usize::from(number)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A variant that is missing in a table would be sent as the careful one.
    #[test]
    fn every_variant_has_its_number() {
        for phase in PHASES {
            match phase {
                Phase::Unknown | Phase::Stopped | Phase::Starting => {}
                Phase::Running | Phase::Stopping | Phase::Stuck => {}
            }
            assert_eq!(listed(&PHASES, number(&PHASES, &phase)), Some(phase));
        }
        for held in HELD {
            match held {
                Held::No | Held::Yes | Held::Unknown => {}
            }
            assert_eq!(listed(&HELD, number(&HELD, &held)), Some(held));
        }
        for unfit in UNFIT {
            match unfit {
                Unfit::NotListed | Unfit::Standby | Unfit::Maintenance | Unfit::Leaving => {}
                Unfit::Quarantined | Unfit::NoCarrier | Unfit::Stray | Unfit::NotLoaded => {}
                Unfit::Amnesiac | Unfit::NoState | Unfit::Double | Unfit::Other => {}
            }
            assert_eq!(listed(&UNFIT, number(&UNFIT, &unfit)), Some(unfit));
        }
    }
}
