//! Whole frames: what comes back, every refusal, other versions, sizes.

use super::*;
use crate::core::heartbeat::*;
use crate::core::name::*;
use crate::core::time::{Duration, Instant};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

const LINK: LinkId = LinkId(1);
const OURS: Session = Session(77);

fn epoch(counter: u64, node: u8) -> Epoch {
    Epoch { counter, node: NodeId(node) }
}

/// A heartbeat with something in every field.
fn sample(seq: u64) -> Heartbeat {
    let group = GroupReport {
        name: GroupName("files".into()),
        fingerprint: 7,
        texts: Some(11),
        phase: Phase::Stuck,
        held: Held::Yes,
        epoch: epoch(9, 1),
        claim: Some(Claim { epoch: epoch(8, 0), on_silence: Some(Duration::from_millis(400)) }),
        promise: Some(epoch(9, 1)),
        released: Some(Release { epoch: epoch(7, 1), successor: Some(NodeId(0)) }),
        voucher: None,
        unfit: Some(Unfit::NoState),
        quarantine: Duration::from_nanos(1_500_000_001),
        wish: Register {
            version: epoch(2, 0),
            value: GroupWish {
                down: true,
                maintenance: false,
                move_to: Some((NodeId(1), epoch(8, 0))),
            },
        },
        tally: Tally { up: 3, all: 4 },
    };
    Heartbeat {
        from: NodeId(0),
        session: OURS,
        boot: BootId(78),
        seq,
        link: LinkId(1),
        stamp: Instant(123_456_789),
        mood: Mood {
            leaving: true,
            restarting: Some(Duration::from_nanos(3_000_000_001)),
            guard_bound: Some(Duration::from_secs(100 * 24 * 3600)),
            ..Mood::default()
        },
        fingerprint: 0xfeed,
        echoes: vec![Echo {
            peer: NodeId(1),
            session: Session(5),
            stamp: Instant(1),
            age: Duration::from_nanos(20),
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

fn codec(me: u8, cluster: &str, key: u8) -> Codec {
    let keys = Keys::of(&[(1, [key; 32])], 1);
    Codec::new(cluster, &["a".into(), "b".into()], NodeId(me), OURS, keys)
}

#[test]
fn a_frame_arrives_once_and_only_where_it_was_sent() {
    let beat = sample(5);
    let frame = codec(0, "office", 7).encode(&beat).expect("fits");
    let mut b = codec(1, "office", 7);
    assert_eq!(b.decode(LinkId(1), &frame).as_ref(), Ok(&beat));
    assert_eq!(b.decode(LinkId(1), &frame), Err(Refusal::Replay));
    assert_eq!(b.decode(LinkId(0), &frame), Err(Refusal::BadTag), "another link");
    assert_eq!(codec(1, "lab", 7).decode(LinkId(1), &frame), Err(Refusal::BadTag));
    assert_eq!(codec(1, "office", 8).decode(LinkId(1), &frame), Err(Refusal::BadTag));
    assert_eq!(codec(0, "office", 7).decode(LinkId(1), &frame), Err(Refusal::Own));
    let mut other = b.clone();
    other.rekey(Keys::of(&[(2, [7; 32])], 2));
    assert_eq!(other.decode(LinkId(1), &frame), Err(Refusal::UnknownKey(1)));
}

/// Goal: a double of this node is not taken for our own echo.
#[test]
fn a_frame_under_our_name_but_of_another_session_is_passed_on() {
    let mut beat = sample(5);
    beat.session = Session(78);
    let frame = codec(0, "office", 7).encode(&beat).expect("fits");
    let mut us = codec(0, "office", 7);
    assert_eq!(us.decode(LINK, &frame), Ok(beat));
    assert_eq!(us.decode(LINK, &frame), Err(Refusal::Replay));
}

#[test]
fn every_flipped_bit_is_refused() {
    let frame = codec(0, "office", 7).encode(&sample(5)).expect("fits");
    for n in 0..frame.len() {
        let mut bad = frame.clone();
        bad[n] ^= 0x10;
        assert!(codec(1, "office", 7).decode(LinkId(1), &bad).is_err(), "byte {n}");
    }
}

#[test]
fn an_ended_session_stays_ended_and_a_new_one_is_let_in() {
    let mut beat = sample(5);
    let a = codec(0, "office", 7);
    let mut b = codec(1, "office", 7);
    let old = a.encode(&beat).expect("fits");
    assert!(b.decode(LinkId(1), &old).is_ok());
    b.accept_session(NodeId(0), beat.session);
    let first = beat.session;
    beat.session = Session(99);
    assert!(b.decode(LinkId(1), &a.encode(&beat).expect("fits")).is_ok());
    b.accept_session(NodeId(0), beat.session);
    beat.session = first;
    beat.seq = 1000;
    let again = a.encode(&beat).expect("fits");
    assert_eq!(b.decode(LinkId(1), &again), Err(Refusal::OldSession));
}

#[test]
fn two_keys_rotate_without_an_outage() {
    let both = |used| Keys::of(&[(1, [1; 32]), (2, [2; 32])], used);
    let nodes = ["a".to_string(), "b".to_string()];
    let a = Codec::new("office", &nodes, NodeId(0), OURS, both(2));
    let mut b = Codec::new("office", &nodes, NodeId(1), OURS, both(1));
    assert!(b.decode(LinkId(1), &a.encode(&sample(5)).expect("fits")).is_ok());
}

/// Takes the seal off, lets `change` alter header and body, and seals again.
fn reseal(frame: &[u8], change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut signed = frame[..frame.len() - TAG].to_vec();
    change(&mut signed);
    codec(0, "office", 7).seal(&mut signed);
    signed
}

fn entry(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
    out.extend_from_slice(bytes);
}

/// What a later minor version may make of a frame: bytes at the end of every entry and of the
/// body, and whatever `groups` does to the entries of the groups.
fn later(frame: &[u8], groups: impl FnOnce(&mut Vec<Vec<u8>>)) -> Vec<u8> {
    reseal(frame, |signed| {
        let body = signed.split_off(HEADER);
        signed[5] = MINOR + 1;
        let mut r = bytes::Reader::new(&body);
        let take = |r: &mut bytes::Reader| {
            let len = r.u16().expect("a length");
            [r.bytes(usize::from(len)).expect("an entry"), b"later"].concat()
        };
        entry(signed, &take(&mut r));
        let list = |r: &mut bytes::Reader| {
            let count = r.u8().expect("a count");
            (0..count).map(|_| take(r)).collect::<Vec<_>>()
        };
        let echoes = list(&mut r);
        let len = r.u16().expect("a length");
        let maintenance = r.bytes(usize::from(len)).expect("maintenance").to_vec();
        let (standby, mut reports) = (list(&mut r), list(&mut r));
        groups(&mut reports);
        for (n, entries) in [echoes, standby, reports].iter().enumerate() {
            if n == 1 {
                entry(signed, &maintenance);
            }
            signed.push(entries.len() as u8);
            entries.iter().for_each(|e| entry(signed, e));
        }
        signed.extend_from_slice(b"much later");
    })
}

/// Goal: half of the cluster is upgraded; what the old half understands keeps its meaning.
#[test]
fn a_later_minor_version_is_read_as_far_as_it_is_known() {
    let beat = sample(5);
    let frame = codec(0, "office", 7).encode(&beat).expect("fits");
    let frame = later(&frame, |_| {});
    assert_eq!(codec(1, "office", 7).decode(LINK, &frame), Ok(beat));
}

/// Goal: the other half of it; version 1.0 does not say what else the files of members have.
#[test]
fn a_frame_of_version_1_0_is_read() {
    /// The tally and the members' files, of a group that has both.
    const ADDED: u16 = 2 + 5;
    let beat = sample(5);
    let frame = codec(0, "office", 7).encode(&beat).expect("fits");
    let earlier = reseal(&frame, |signed| {
        signed[5] = 0;
        let group = signed.len() - entry_len(&beat);
        let len = u16::from_be_bytes([signed[group - 2], signed[group - 1]]) - ADDED;
        signed[group - 2..group].copy_from_slice(&len.to_be_bytes());
        signed.truncate(signed.len() - usize::from(ADDED));
    });
    let mut group = beat.groups[0].clone();
    (group.texts, group.tally) = (None, Tally::default());
    let got = codec(1, "office", 7).decode(LINK, &earlier).expect("read");
    assert_eq!(got.groups, [group]);
}

/// Of the one group in it, which is the last thing in a body.
fn entry_len(beat: &Heartbeat) -> usize {
    let (roster, mut out) = (Roster::new("office", &["a".into(), "b".into()]), Vec::new());
    group::write(&mut bytes::Writer { out: &mut out, roster: &roster }, &beat.groups[0]);
    out.len()
}

/// Goal: a number that is not known is the careful one, and costs no other group anything.
#[test]
fn an_unknown_state_is_held_and_promises_nothing() {
    let mut beat = sample(5);
    beat.groups.push(GroupReport { name: GroupName("other".into()), ..beat.groups[0].clone() });
    let frame = codec(0, "office", 7).encode(&beat).expect("fits");
    // Behind the name of five bytes and the fingerprint: phase, held.
    for at in [1 + 5 + 4, 1 + 5 + 4 + 1] {
        let frame = later(&frame, |groups| groups[0][at] = 77);
        let got = codec(1, "office", 7).decode(LINK, &frame).expect("read");
        let report = &got.groups[0];
        assert_eq!((report.phase, report.held), (Phase::Unknown, Held::Unknown));
        assert_eq!((report.promise, report.released, report.voucher), (None, None, None));
        assert_eq!((report.epoch, report.claim), (epoch(9, 1), beat.groups[0].claim));
        assert_eq!(got.groups[1], beat.groups[1]);
    }
    // Behind phase, held, epoch, claim, promise, release and no voucher: the reason.
    let at = 1 + 5 + 4 + 2 + 12 + (1 + 12 + 9) + (1 + 12) + (1 + 12 + 5) + 1 + 1;
    let frame = later(&frame, |groups| groups[0][at] = 77);
    let got = codec(1, "office", 7).decode(LINK, &frame).expect("read");
    assert_eq!(got.groups[0], GroupReport { unfit: Some(Unfit::Other), ..beat.groups[0].clone() });
}

/// Goal: a group with a name that this version does not allow is one that it does not have.
#[test]
fn a_group_that_cannot_be_ours_is_passed_over() {
    let beat = sample(5);
    let frame = codec(0, "office", 7).encode(&beat).expect("fits");
    let long = |groups: &mut Vec<Vec<u8>>| {
        let mut longer = groups[0].clone();
        longer[0] = 105;
        longer.splice(1..1, [b'x'; 100]);
        groups.insert(0, longer);
    };
    let got = codec(1, "office", 7).decode(LINK, &later(&frame, long));
    assert_eq!(got, Ok(beat));
}

#[test]
fn another_major_version_is_named_before_any_key_is_tried() {
    let frame = codec(0, "office", 7).encode(&sample(5)).expect("fits");
    let mut other = frame.clone();
    other[4] = 2;
    let mut b = codec(1, "office", 8);
    assert_eq!(b.decode(LINK, &other), Err(Refusal::OtherMajor(2)));
    assert_eq!(b.decode(LINK, b"HAFO\x02"), Err(Refusal::OtherMajor(2)), "of whatever length");
    assert_eq!(b.decode(LINK, b"HAFO"), Err(Refusal::Noise));
    assert_eq!(b.decode(LINK, &frame[..43]), Err(Refusal::Noise));
}

/// Goal: while a node is being added, the ones that do not know it yet take nothing for granted.
#[test]
fn what_an_unknown_node_did_is_left_out() {
    let mut beat = sample(5);
    let third = NodeId(2);
    beat.echoes[0].peer = third;
    beat.wishes.standby = vec![Register { version: epoch(1, 0), value: true }; 3];
    beat.wishes.standby[0].version = epoch(8, 2);
    beat.wishes.maintenance.version = epoch(4, 2);
    let value = GroupWish { move_to: Some((third, epoch(7, 0))), ..GroupWish::default() };
    let group = &mut beat.groups[0];
    group.epoch = epoch(9, 2);
    group.promise = Some(epoch(9, 2));
    group.released = Some(Release { epoch: epoch(5, 0), successor: Some(third) });
    group.wish = Register { version: epoch(2, 0), value };
    let names = ["a".into(), "b".into(), "c".into()];
    let keys = || Keys::of(&[(1, [7; 32])], 1);
    let frame = Codec::new("office", &names, NodeId(0), OURS, keys()).encode(&beat).expect("fits");
    let got = codec(1, "office", 7).decode(LINK, &frame).expect("read");
    assert_eq!(got.echoes, []);
    assert_eq!(got.wishes.standby, [Register::default(), beat.wishes.standby[1]]);
    assert_eq!(got.wishes.maintenance, Register::default());
    let group = &got.groups[0];
    assert_eq!(group.epoch, epoch(9, 0), "no lower than what was said, whoever it was");
    assert_eq!((group.promise, group.released), (None, None));
    assert_eq!(group.wish, Register::default());
    assert_eq!((group.held, group.claim), (beat.groups[0].held, beat.groups[0].claim));
}

#[test]
fn every_cut_is_noticed() {
    let frame = codec(0, "office", 7).encode(&sample(5)).expect("fits");
    for len in HEADER..frame.len() - TAG {
        let cut = reseal(&frame, |signed| signed.truncate(len));
        let got = codec(1, "office", 7).decode(LINK, &cut);
        assert_eq!(got, Err(Refusal::Malformed), "cut at {len}");
    }
}

#[test]
fn what_cannot_be_said_is_not_sent() {
    let a = codec(0, "office", 7);
    for name in [String::new(), "n".repeat(65)] {
        let mut beat = sample(5);
        beat.groups[0].name = GroupName(name);
        assert_eq!(a.encode(&beat), None);
    }
    let mut beat = sample(5);
    beat.groups = vec![beat.groups[0].clone(); PAGE_GROUPS + 1];
    assert_eq!(a.encode(&beat), None);
}

#[test]
fn a_full_page_fits_an_ethernet_frame_and_the_worst_case_a_frame() {
    let mut beat = sample(3);
    beat.groups = vec![beat.groups[0].clone(); PAGE_GROUPS];
    for group in &mut beat.groups {
        group.name = GroupName("a-name-of-twenty-two-b".into());
    }
    let frame = codec(0, "office", 7).encode(&beat).expect("fits");
    assert!(frame.len() <= 1472, "one Ethernet frame: {} bytes", frame.len());
    let names: Vec<String> = (0..NODES_MAX).map(|n| format!("n{n}")).collect();
    beat.echoes = vec![beat.echoes[0]; 2 * NODES_MAX];
    beat.wishes.standby = vec![Register { version: epoch(4, 0), value: true }; NODES_MAX];
    for group in &mut beat.groups {
        group.name = GroupName("n".repeat(GROUP_NAME_MAX));
        group.voucher = group.promise;
    }
    let all = Codec::new("office", &names, NodeId(0), OURS, Keys::of(&[(1, [7; 32])], 1));
    assert!(all.encode(&beat).is_some(), "the longest of all fits");
}

fn any_epoch() -> impl Strategy<Value = Epoch> {
    let of = |(counter, node)| if counter == 0 { Epoch::default() } else { epoch(counter, node) };
    (any::<u64>(), 0u8..3).prop_map(of)
}

fn any_duration() -> impl Strategy<Value = Duration> {
    any::<u64>().prop_map(Duration::from_nanos)
}

fn any_switch() -> impl Strategy<Value = Register<bool>> {
    (any_epoch(), any::<bool>()).prop_map(|(version, value)| Register { version, value })
}

fn any_report() -> impl Strategy<Value = GroupReport> {
    let phase = prop::sample::select(vec![Phase::Unknown, Phase::Starting, Phase::Stuck]);
    let held = prop::sample::select(vec![Held::No, Held::Yes, Held::Unknown]);
    let unfit = prop::sample::select(vec![Unfit::NotListed, Unfit::Stray, Unfit::NoState]);
    let claim = (any_epoch(), option::of(any_duration()))
        .prop_map(|(epoch, on_silence)| Claim { epoch, on_silence });
    let released = (any_epoch(), option::of((0u8..3).prop_map(NodeId)))
        .prop_map(|(epoch, successor)| Release { epoch, successor });
    let move_to = option::of(((0u8..3).prop_map(NodeId), any_epoch()));
    let wish = (any_epoch(), any::<bool>(), any::<bool>(), move_to).prop_map(
        |(version, down, maintenance, move_to)| Register {
            version,
            value: GroupWish { down, maintenance, move_to },
        },
    );
    let texts = option::of(any::<u32>());
    let first = ("[a-z0-9_.@:-]{1,64}", any::<u32>(), phase, held, any_epoch());
    let second = (option::of(claim), option::of(any_epoch()), option::of(released));
    let tally = (any::<u8>(), any::<u8>()).prop_map(|(up, all)| Tally { up, all });
    let added = (texts, tally);
    let third = (option::of(any_epoch()), option::of(unfit), any_duration(), wish, added);
    (first, second, third).prop_map(|(a, b, c)| GroupReport {
        name: GroupName(a.0),
        fingerprint: a.1,
        texts: c.4.0,
        phase: a.2,
        held: a.3,
        epoch: a.4,
        claim: b.0,
        promise: b.1,
        released: b.2,
        voucher: c.0,
        unfit: c.1,
        quarantine: c.2,
        wish: c.3,
        tally: c.4.1,
    })
}

fn any_beat() -> impl Strategy<Value = Heartbeat> {
    let mood = (vec(any::<bool>(), 7), option::of(any_duration()), option::of(any_duration()))
        .prop_map(|(b, restarting, guard_bound)| Mood {
            starting: b[0],
            leaving: b[1],
            shutting_down: b[2],
            amnesiac: b[3],
            doubting: b[4],
            guarding: b[5],
            resetting: b[6],
            restarting,
            guard_bound,
        });
    let echo = (0u8..3, any::<u64>(), any::<u64>(), any_duration(), any::<u16>()).prop_map(
        |(peer, session, stamp, age, links)| Echo {
            peer: NodeId(peer),
            session: Session(session),
            stamp: Instant(stamp),
            age,
            links: LinkSet(links),
        },
    );
    let wishes = (any_switch(), vec(any_switch(), 3))
        .prop_map(|(maintenance, standby)| NodeWishes { maintenance, standby });
    let numbers = (any::<u64>(), any::<u64>(), 1u64.., any::<u64>(), any::<u64>());
    let pages = (any::<u8>(), any::<u8>());
    let lists = (vec(echo, 0..6), vec(any_report(), 0..=PAGE_GROUPS));
    (numbers, pages, mood, lists, wishes).prop_map(|(n, pages, mood, lists, wishes)| Heartbeat {
        from: NodeId(0),
        session: Session(n.0),
        boot: BootId(n.1),
        seq: n.2,
        link: LINK,
        stamp: Instant(n.3),
        mood,
        fingerprint: n.4,
        echoes: lists.0,
        wishes,
        groups: lists.1,
        page: pages.0,
        pages: pages.1,
    })
}

proptest! {
    #[test]
    fn every_heartbeat_comes_back(beat in any_beat()) {
        let names: Vec<String> = ["a".into(), "b".into(), "c".into()].into();
        let keys = || Keys::of(&[(1, [7; 32])], 1);
        let codec = |me| Codec::new("office", &names, NodeId(me), OURS, keys());
        let frame = codec(0).encode(&beat).expect("fits");
        prop_assert_eq!(codec(1).decode(LINK, &frame), Ok(beat));
    }

    /// A peer with a bug: the seal is right, what is under it is not.
    #[test]
    fn no_sealed_bytes_panic(at in 0usize..300, with in vec(any::<u8>(), 0..40), keep: bool) {
        let frame = codec(0, "office", 7).encode(&sample(5)).expect("fits");
        let bent = reseal(&frame, |signed| {
            let from = (HEADER + at).min(signed.len());
            let to = if keep { (from + with.len()).min(signed.len()) } else { signed.len() };
            signed.splice(from..to, with);
        });
        let _ = codec(1, "office", 7).decode(LINK, &bent);
    }
}
