//! A heartbeat's body as bytes. Entries stand behind their length, so that an older version reads
//! what it knows of a newer one's:
//!
//! ```text
//! entry  boot 8, stamp 8, fingerprint 8, page 1, pages 1, mood 1, [restarting 8], [guard bound 8]
//! list   echoes: node 4, session 8, stamp 8, age 8, links 2
//! entry  maintenance: version 12, value 1
//! list   standby: node 4, version 12, value 1
//! list   groups, see `group`
//! ```
//!
//! An entry is its length in two bytes and so many bytes, a list its count in one byte and so many
//! entries, `[x]` is 0, or 1 and x. A later minor version may add bytes at the end of an entry and
//! of the body, bits to flags, numbers to enums, and entries to lists; nothing else. What must not
//! be ignored is a new number of `held`, or a new major version.

use super::bytes::{Reader, Writer};
use super::{Roster, group};
use crate::core::heartbeat::{Echo, Heartbeat, Mood, NodeWishes, PAGE_GROUPS, Register};
use crate::core::name::{BootId, LinkId, LinkSet, NodeId, Session};
use crate::core::time::Instant;

/// What the clear header says.
pub struct Head {
    pub from: NodeId,
    pub session: Session,
    pub seq: u64,
    pub link: LinkId,
}

/// False, and nothing written: a group that cannot be said, or too many.
pub fn write(out: &mut Vec<u8>, beat: &Heartbeat, roster: &Roster) -> bool {
    if beat.groups.len() > PAGE_GROUPS || !beat.groups.iter().all(group::can_write) {
        return false;
    }
    let mut w = Writer { out, roster };
    w.entry(|w| {
        w.u64(beat.boot.0);
        w.u64(beat.stamp.0);
        w.u64(beat.fingerprint);
        w.u8(beat.page);
        w.u8(beat.pages);
        write_mood(w, &beat.mood);
    });
    w.list(beat.echoes.iter(), |w, echo| {
        w.node(echo.peer);
        w.u64(echo.session.0);
        w.u64(echo.stamp.0);
        w.duration(echo.age);
        w.u16(echo.links.0);
    });
    w.entry(|w| write_switch(w, &beat.wishes.maintenance));
    w.list(beat.wishes.standby.iter().enumerate(), |w, (n, switch)| {
        w.node(NodeId(n as u8));
        write_switch(w, switch);
    });
    w.list(beat.groups.iter(), group::write);
    true
}

pub fn read(bytes: &[u8], head: Head, roster: &Roster) -> Option<Heartbeat> {
    let mut r = Reader::new(bytes);
    let mut own = r.entry()?;
    let (boot, stamp) = (BootId(own.u64()?), Instant(own.u64()?));
    let (fingerprint, page, pages) = (own.u64()?, own.u8()?, own.u8()?);
    let mood = read_mood(&mut own)?;
    let echoes = r.list(|r| {
        let peer = r.node(roster)?;
        let (session, stamp) = (Session(r.u64()?), Instant(r.u64()?));
        let (age, links) = (r.duration()?, LinkSet(r.u16()?));
        Some(peer.map(|peer| Echo { peer, session, stamp, age, links }))
    })?;
    let maintenance = read_switch(&mut r.entry()?, roster)?;
    let mut standby = vec![Register::default(); roster.0.len()];
    for (node, switch) in r.list(|r| Some((r.node(roster)?, read_switch(r, roster)?)))? {
        if let Some(slot) = node.and_then(|n| standby.get_mut(usize::from(n.0))) {
            *slot = switch;
        }
    }
    let groups = r.list(|r| group::read(r, roster))?;
    Some(Heartbeat {
        from: head.from,
        session: head.session,
        boot,
        seq: head.seq,
        link: head.link,
        stamp,
        mood,
        fingerprint,
        echoes: echoes.into_iter().flatten().collect(),
        wishes: NodeWishes { maintenance, standby },
        groups: groups.into_iter().flatten().collect(),
        page,
        pages,
    })
}

fn write_mood(w: &mut Writer, mood: &Mood) {
    let last = [mood.amnesiac, mood.doubting, mood.guarding, mood.resetting];
    let bits = [mood.starting, mood.leaving, mood.shutting_down].into_iter().chain(last);
    w.u8(bits.enumerate().map(|(n, b)| u8::from(b) << n).sum());
    w.option(mood.restarting, Writer::duration);
    w.option(mood.guard_bound, Writer::duration);
}

fn read_mood(r: &mut Reader) -> Option<Mood> {
    let bits = r.u8()?;
    Some(Mood {
        starting: bits & 1 != 0,
        leaving: bits & 2 != 0,
        shutting_down: bits & 4 != 0,
        amnesiac: bits & 8 != 0,
        doubting: bits & 16 != 0,
        guarding: bits & 32 != 0,
        resetting: bits & 64 != 0,
        restarting: r.option(Reader::duration)?,
        guard_bound: r.option(Reader::duration)?,
    })
}

fn write_switch(w: &mut Writer, switch: &Register<bool>) {
    w.epoch(switch.version);
    w.u8(u8::from(switch.value));
}

/// What a node that we do not know has set counts as not set, until we know it.
fn read_switch(r: &mut Reader, roster: &Roster) -> Option<Register<bool>> {
    let version = r.epoch(roster)?;
    let value = r.u8()? & 1 != 0;
    Some(version.map(|version| Register { version, value }).unwrap_or_default())
}
