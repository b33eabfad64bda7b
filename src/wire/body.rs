//! A heartbeat's body as bytes: every field in a fixed order, big-endian, lists preceded by their
//! length. Bytes behind the last known field are a newer minor version's and are ignored.

use super::Roster;
use crate::core::heartbeat::{
    Claim, Echo, GroupReport, GroupWish, Heartbeat, Held, Mood, NodeWishes, PAGE_GROUPS, Phase,
    Register, Release, Unfit,
};
use crate::core::name::{
    BootId, Epoch, GROUP_NAME_MAX, GroupName, LinkId, LinkSet, NODES_MAX, NodeId, Session,
};
use crate::core::time::{Duration, Instant};

/// What the clear header says.
pub struct Head {
    pub from: NodeId,
    pub session: Session,
    pub seq: u64,
    pub link: LinkId,
}

const PHASES: [Phase; 6] = [
    Phase::Unknown,
    Phase::Stopped,
    Phase::Starting,
    Phase::Running,
    Phase::Stopping,
    Phase::Stuck,
];
const HELD: [Held; 3] = [Held::No, Held::Yes, Held::Unknown];
const UNFIT: [Unfit; 10] = [
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
];

pub fn write(out: &mut Vec<u8>, beat: &Heartbeat, roster: &Roster) {
    let mut w = Writer { out, roster };
    w.u64(beat.boot.0);
    w.u64(beat.stamp.0);
    w.mood(&beat.mood);
    w.u64(beat.fingerprint);
    let echoes = &beat.echoes[..beat.echoes.len().min(2 * NODES_MAX)];
    w.u8(echoes.len() as u8);
    for echo in echoes {
        w.node(echo.peer);
        w.u64(echo.session.0);
        w.u64(echo.stamp.0);
        w.micros(echo.age);
        w.u16(echo.links.0);
    }
    w.epoch(beat.wishes.maintenance.version);
    w.u8(u8::from(beat.wishes.maintenance.value));
    let standby = &beat.wishes.standby[..beat.wishes.standby.len().min(NODES_MAX)];
    w.u8(standby.len() as u8);
    for (n, register) in standby.iter().enumerate() {
        w.node(NodeId(n as u8));
        w.epoch(register.version);
        w.u8(u8::from(register.value));
    }
    w.u8(beat.page);
    w.u8(beat.pages);
    let groups = &beat.groups[..beat.groups.len().min(PAGE_GROUPS)];
    w.u8(groups.len() as u8);
    for group in groups {
        w.group(group);
    }
}

pub fn read(bytes: &[u8], head: Head, roster: &Roster) -> Option<Heartbeat> {
    let mut r = Reader::new(bytes);
    let boot = BootId(r.u64()?);
    let stamp = Instant(r.u64()?);
    let mood = r.mood()?;
    let fingerprint = r.u64()?;
    let mut echoes = Vec::new();
    for _ in 0..r.u8().filter(|n| usize::from(*n) <= 2 * NODES_MAX)? {
        let peer = r.node(roster)?;
        let (session, stamp) = (Session(r.u64()?), Instant(r.u64()?));
        let (age, links) = (r.micros()?, LinkSet(r.u16()?));
        if let Some(peer) = peer {
            echoes.push(Echo { peer, session, stamp, age, links });
        }
    }
    let version = r.epoch(roster)?;
    let maintenance = Register { version, value: r.u8()? != 0 };
    let mut standby = vec![Register::default(); roster.0.len()];
    for _ in 0..r.u8().filter(|n| usize::from(*n) <= NODES_MAX)? {
        let node = r.node(roster)?;
        let register = Register { version: r.epoch(roster)?, value: r.u8()? != 0 };
        if let Some(slot) = node.and_then(|n| standby.get_mut(usize::from(n.0))) {
            *slot = register;
        }
    }
    let (page, pages) = (r.u8()?, r.u8()?);
    let count = r.u8().filter(|n| usize::from(*n) <= PAGE_GROUPS)?;
    let groups = (0..count).map(|_| r.group(roster)).collect::<Option<Vec<_>>>()?;
    Some(Heartbeat {
        from: head.from,
        session: head.session,
        boot,
        seq: head.seq,
        link: head.link,
        stamp,
        mood,
        fingerprint,
        echoes,
        wishes: NodeWishes { maintenance, standby },
        groups,
        page,
        pages,
    })
}

struct Writer<'a> {
    out: &'a mut Vec<u8>,
    roster: &'a Roster,
}

impl Writer<'_> {
    fn u8(&mut self, n: u8) {
        self.out.push(n);
    }
    fn u16(&mut self, n: u16) {
        self.out.extend_from_slice(&n.to_be_bytes());
    }
    fn u32(&mut self, n: u32) {
        self.out.extend_from_slice(&n.to_be_bytes());
    }
    fn u64(&mut self, n: u64) {
        self.out.extend_from_slice(&n.to_be_bytes());
    }
    fn node(&mut self, node: NodeId) {
        self.u32(self.roster.tag(node));
    }
    /// Microseconds, at most 71 minutes.
    fn micros(&mut self, d: Duration) {
        self.u32(u32::try_from(d.as_micros()).unwrap_or(u32::MAX));
    }
    /// Milliseconds, at most 49 days.
    fn millis(&mut self, d: Duration) {
        self.u32(u32::try_from(d.as_millis()).unwrap_or(u32::MAX));
    }
    fn epoch(&mut self, epoch: Epoch) {
        self.u64(epoch.counter);
        self.node(epoch.node);
    }
    fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.u8(u8::from(value.is_some()));
        if let Some(value) = value {
            write(self, value);
        }
    }

    fn mood(&mut self, mood: &Mood) {
        let bits = [mood.starting, mood.leaving, mood.shutting_down, mood.amnesiac, mood.doubting];
        self.u8(bits.iter().enumerate().map(|(n, b)| u8::from(*b) << n).sum());
        self.option(mood.restarting, Self::millis);
        self.option(mood.guard_bound, Self::millis);
    }

    fn group(&mut self, group: &GroupReport) {
        let name = group.name.0.as_bytes();
        let name = &name[..name.len().min(GROUP_NAME_MAX)];
        self.u8(name.len() as u8);
        self.out.extend_from_slice(name);
        self.u32(group.fingerprint);
        self.u8(place(&PHASES, &group.phase));
        self.u8(place(&HELD, &group.held));
        self.epoch(group.epoch);
        self.option(group.claim, |w, claim| {
            w.epoch(claim.epoch);
            w.option(claim.on_silence, Self::millis);
        });
        self.option(group.promise, Self::epoch);
        self.option(group.released, |w, release| {
            w.epoch(release.epoch);
            w.option(release.successor, Self::node);
        });
        self.option(group.voucher, Self::epoch);
        self.option(group.unfit, |w, unfit| w.u8(place(&UNFIT, &unfit)));
        self.millis(group.quarantine);
        self.epoch(group.wish.version);
        let wish = group.wish.value;
        self.u8(u8::from(wish.down) | u8::from(wish.maintenance) << 1);
        self.option(wish.move_to, |w, (node, epoch)| {
            w.node(node);
            w.epoch(epoch);
        });
    }
}

fn place<T: PartialEq>(table: &[T], value: &T) -> u8 {
    table.iter().position(|v| v == value).unwrap_or_default() as u8
}

/// Reads from the front; `None` at the first thing that is not there or cannot be.
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader(bytes)
    }
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.0.split_first_chunk::<N>()?;
        self.0 = tail;
        Some(*head)
    }
    pub fn u8(&mut self) -> Option<u8> {
        self.take::<1>().map(|b| b[0])
    }
    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_be_bytes)
    }
    pub fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_be_bytes)
    }
    pub fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }
    fn micros(&mut self) -> Option<Duration> {
        self.u32().map(|n| Duration::from_micros(u64::from(n)))
    }
    fn millis(&mut self) -> Option<Duration> {
        self.u32().map(|n| Duration::from_millis(u64::from(n)))
    }
    /// Outer `None`: bytes are missing. Inner: a node that we do not know.
    fn node(&mut self, roster: &Roster) -> Option<Option<NodeId>> {
        self.u32().map(|tag| roster.node(tag))
    }
    /// An epoch of a node that we do not know is the lowest of its counter.
    fn epoch(&mut self, roster: &Roster) -> Option<Epoch> {
        let counter = self.u64()?;
        Some(Epoch { counter, node: self.node(roster)?.unwrap_or(NodeId(u8::MAX)) })
    }
    fn option<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<Option<T>> {
        match self.u8()? {
            0 => Some(None),
            1 => read(self).map(Some),
            _ => None,
        }
    }
    fn of<T: Copy>(&mut self, table: &[T]) -> Option<T> {
        table.get(usize::from(self.u8()?)).copied()
    }

    fn mood(&mut self) -> Option<Mood> {
        let bits = self.u8()?;
        Some(Mood {
            starting: bits & 1 != 0,
            leaving: bits & 2 != 0,
            shutting_down: bits & 4 != 0,
            amnesiac: bits & 8 != 0,
            doubting: bits & 16 != 0,
            restarting: self.option(Self::millis)?,
            guard_bound: self.option(Self::millis)?,
        })
    }

    fn name(&mut self) -> Option<GroupName> {
        let len = usize::from(self.u8()?);
        if len == 0 || len > GROUP_NAME_MAX || len > self.0.len() {
            return None;
        }
        let (name, tail) = self.0.split_at(len);
        self.0 = tail;
        Some(GroupName(std::str::from_utf8(name).ok()?.to_string()))
    }

    fn group(&mut self, roster: &Roster) -> Option<GroupReport> {
        Some(GroupReport {
            name: self.name()?,
            fingerprint: self.u32()?,
            phase: self.of(&PHASES)?,
            held: self.of(&HELD)?,
            epoch: self.epoch(roster)?,
            claim: self.option(|r| {
                let epoch = r.epoch(roster)?;
                Some(Claim { epoch, on_silence: r.option(Self::millis)? })
            })?,
            promise: self.option(|r| r.epoch(roster))?,
            released: self.option(|r| {
                let epoch = r.epoch(roster)?;
                Some(Release { epoch, successor: r.option(|r| r.node(roster))?.flatten() })
            })?,
            voucher: self.option(|r| r.epoch(roster))?,
            unfit: self.option(|r| r.of(&UNFIT))?,
            quarantine: self.millis()?,
            wish: self.wish(roster)?,
        })
    }

    fn wish(&mut self, roster: &Roster) -> Option<Register<GroupWish>> {
        let version = self.epoch(roster)?;
        let bits = self.u8()?;
        let to = self.option(|r| Some((r.node(roster)?, r.epoch(roster)?)))?;
        let move_to = to.and_then(|(node, epoch)| Some((node?, epoch)));
        let value = GroupWish { down: bits & 1 != 0, maintenance: bits & 2 != 0, move_to };
        Some(Register { version, value })
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A heartbeat with something in every field.
    pub fn sample(seq: u64) -> Heartbeat {
        let epoch = |counter, node| Epoch { counter, node: NodeId(node) };
        let group = GroupReport {
            name: GroupName("files".into()),
            fingerprint: 7,
            phase: Phase::Stuck,
            held: Held::Yes,
            epoch: epoch(9, 1),
            claim: Some(Claim { epoch: epoch(8, 0), on_silence: Some(Duration::from_millis(400)) }),
            promise: Some(epoch(9, 1)),
            released: Some(Release { epoch: epoch(7, 1), successor: Some(NodeId(0)) }),
            voucher: None,
            unfit: Some(Unfit::NoState),
            quarantine: Duration::from_millis(1500),
            wish: Register {
                version: epoch(2, 0),
                value: GroupWish {
                    down: true,
                    maintenance: false,
                    move_to: Some((NodeId(1), epoch(8, 0))),
                },
            },
        };
        Heartbeat {
            from: NodeId(0),
            session: Session(77),
            boot: BootId(78),
            seq,
            link: LinkId(1),
            stamp: Instant(123_456_789),
            mood: Mood {
                leaving: true,
                restarting: Some(Duration::from_secs(3)),
                ..Mood::default()
            },
            fingerprint: 0xfeed,
            echoes: vec![Echo {
                peer: NodeId(1),
                session: Session(5),
                stamp: Instant(1),
                age: Duration::from_micros(20),
                links: LinkSet(3),
            }],
            wishes: NodeWishes {
                maintenance: Register { version: epoch(1, 1), value: true },
                standby: vec![Register::default(), Register { version: epoch(4, 0), value: true }],
            },
            groups: vec![group],
            page: 0,
            pages: 1,
        }
    }

    fn roster() -> Roster {
        Roster::new("office", &["a".into(), "b".into()])
    }

    fn head(beat: &Heartbeat) -> Head {
        Head { from: beat.from, session: beat.session, seq: beat.seq, link: beat.link }
    }

    #[test]
    fn what_is_written_is_read_again_also_with_a_newer_minor_versions_tail() {
        let beat = sample(3);
        let mut bytes = Vec::new();
        write(&mut bytes, &beat, &roster());
        assert_eq!(read(&bytes, head(&beat), &roster()), Some(beat.clone()));
        bytes.extend_from_slice(b"from the future");
        assert_eq!(read(&bytes, head(&beat), &roster()), Some(beat));
    }

    #[test]
    fn every_cut_is_noticed() {
        let beat = sample(3);
        let mut bytes = Vec::new();
        write(&mut bytes, &beat, &roster());
        for n in 0..bytes.len() {
            assert_eq!(read(&bytes[..n], head(&beat), &roster()), None, "cut at {n}");
        }
    }

    #[test]
    fn a_full_page_fits_a_frame() {
        let mut beat = sample(3);
        beat.groups = vec![beat.groups[0].clone(); PAGE_GROUPS];
        for group in &mut beat.groups {
            group.name = GroupName("a-name-of-twenty-two-b".into());
        }
        let mut bytes = Vec::new();
        write(&mut bytes, &beat, &roster());
        assert!(bytes.len() + 44 <= 1472, "one Ethernet frame: {} bytes", bytes.len());
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let _ = read(&bytes, head(&sample(1)), &roster());
        }
    }
}
