//! What is fuzzed: each target takes any bytes, and panics if what must always hold does not.
//! Used by `fuzz/` (libFuzzer) and, on the corpora kept here, by `cargo test --test fuzz`.

use hafailover::config::settings::Settings;
use hafailover::config::target::{Target as Group, settle};
use hafailover::config::unit::UnitText;
use hafailover::core::grant::{Grants, Verdict};
use hafailover::core::name::{BootId, Epoch, GroupName, LinkId, NodeId, Session};
use hafailover::core::record::Record;
use hafailover::core::time::{Duration, Instant};
use hafailover::core::{Action, Boot, Core, Event, LeaseAnswer, LeaseVerb};
use hafailover::io::arbiter::sanlock::course::{Ask, Course, Look, Step};
use hafailover::wire::control::Request;
use hafailover::wire::disk::{self, BLOCK, Header, Seen, Slot};
use hafailover::wire::keys::Keys;
use hafailover::wire::line::{Deframer, LINE_MAX, encode_line};
use hafailover::wire::table::{self, Cell, Stand};
use hafailover::wire::witness::{Answered, Asked, DATAGRAM_MAX, Way, is_sound, open, seal};
use hafailover::wire::{Codec, FRAME_MAX, Refusal};
use std::collections::{BTreeSet, VecDeque};
use std::path::Path;
use std::sync::LazyLock;

/// Takes any bytes.
pub type Target = fn(&[u8]);

pub const TARGETS: [(&str, Target); 11] = [
    ("frame", frame),
    ("body", body),
    ("window", window),
    ("line", line),
    ("slot", slot),
    ("table", table),
    ("target", target),
    ("config", config),
    ("keys", keys),
    ("control", control),
    ("witness", witness),
];

const KEY: [u8; 32] = [7; 32];
const LINK: LinkId = LinkId(0);
const CONFIG: &str = r#"
[cluster]
name = "office"
[safety]
silence = "takeover"
[[node]]
name = "a"
[[node]]
name = "b"
[[node]]
name = "c"
[[link]]
type = "udp"
interface = "eth1"
[[link]]
type = "serial"
device = "/dev/ttyS0"
nodes = ["a", "b"]
"#;
const TARGET: &str = "[Unit]\nRequires=disk.mount smb.service\n";

static SETTINGS: LazyLock<Settings> =
    LazyLock::new(|| hafailover::config::load::parse(CONFIG, "x", "b").expect("it is good"));

/// A frame of node a, and what surrounds its body.
static GENUINE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let (_, actions) = core(0);
    let beat = actions.iter().find_map(|action| match action {
        Action::Send { link: LINK, heartbeat } => codec(0).encode(heartbeat),
        _ => None,
    });
    beat.expect("a new core speaks")
});
const HEADER: usize = 28;
const TAG: usize = 16;

fn codec(me: u8) -> Codec {
    let names: Vec<String> = SETTINGS.nodes.iter().map(|n| n.name.clone()).collect();
    Codec::new(&SETTINGS.cluster, &names, NodeId(me), Session(1), Keys::of(&[(1, KEY)], 1))
}

/// A node in its first moment, and what it asks for.
fn core(me: u8) -> (Core, Vec<Action>) {
    let mut unit = UnitText::empty(Path::new("x"));
    assert!(unit.add(TARGET, Path::new("x")).is_empty(), "it is good");
    let name = GroupName("files".into());
    let target = Group::of(&name, &unit).expect("it is good");
    let group = settle(&target, &SETTINGS).expect("it is good").policy;
    let mut policy = SETTINGS.policy([(name, group)]);
    policy.me = NodeId(me);
    let record = Record { known: true, ..Record::default() };
    let boot = Boot { session: Session(1), boot: BootId(1), record: Some(record) };
    Core::new(Instant(1), boot, policy)
}

/// A frame of node a with a right seal around any body.
fn sealed(link: u8, session: u64, seq: u64, body: &[u8]) -> Vec<u8> {
    let mut frame = GENUINE[..11].to_vec();
    frame.extend_from_slice(&session.to_be_bytes());
    frame.extend_from_slice(&seq.to_be_bytes());
    frame.push(link);
    frame.extend_from_slice(body);
    codec(0).seal(&mut frame);
    frame
}

/// Bytes from the network: nothing without the right seal comes in.
fn frame(data: &[u8]) {
    let got = codec(1).decode(LINK, data);
    if got.is_ok() {
        let mut again = data[..data.len() - TAG].to_vec();
        codec(0).seal(&mut again);
        assert_eq!(again, data, "a forged frame was taken in");
    }
    assert_ne!(got, Err(Refusal::Malformed), "looked at the body before the seal");
}

/// A peer with a bug, or of a later version: the seal is right. What is read can be said, and
/// comes back as it was, and no core stumbles over it.
fn body(data: &[u8]) {
    let Ok(beat) = codec(1).decode(LINK, &sealed(0, 5, 9, data)) else { return };
    let Some(again) = codec(0).encode(&beat) else {
        assert!(beat.groups.len() > 8 || data.len() > FRAME_MAX / 2, "cannot be said: {beat:?}");
        return;
    };
    assert_eq!(codec(1).decode(LINK, &again).as_ref(), Ok(&beat));
    let (mut core, _) = core(1);
    let heartbeat = Box::new(beat);
    for n in 2..5 {
        core.handle(Instant(n), Event::Heard { link: LINK, heartbeat: heartbeat.clone() });
    }
    let (mut twin, _) = self::core(0);
    for n in 2..5 {
        let (heartbeat, address) = (heartbeat.clone(), "there".into());
        twin.handle(Instant(n), Event::Double { heartbeat, address });
    }
}

/// Frames of several sessions on two links, in any order, again and again: none is taken in twice
/// while its session is remembered, and none at all of a session that has ended. Of those that
/// wait to prove themselves, only the four newest are remembered.
fn window(data: &[u8]) {
    const WAITING: usize = 4;
    let genuine = &GENUINE[HEADER..GENUINE.len() - TAG];
    let mut b = codec(1);
    let mut taken = BTreeSet::new();
    let (mut settled, mut ended, mut waiting) = (None, BTreeSet::new(), VecDeque::new());
    for step in data.chunks_exact(2).take(400) {
        let (session, link) = (u64::from(step[0] & 7) + 1, step[0] >> 3 & 1);
        if step[0] & 0x80 != 0 {
            b.accept_session(NodeId(0), Session(session));
            if let Some(at) = waiting.iter().position(|s| *s == session) {
                waiting.remove(at);
                ended.extend(settled.replace(session));
            }
            continue;
        }
        if settled != Some(session) && !ended.contains(&session) && !waiting.contains(&session) {
            waiting.push_back(session);
            if waiting.len() > WAITING {
                let forgotten = waiting.pop_front();
                taken.retain(|(s, _, _)| Some(*s) != forgotten);
            }
        }
        let seq = u64::from(step[1]) << (step[0] >> 4 & 7);
        let got = b.decode(LinkId(link), &sealed(link, session, seq, genuine));
        if got.is_ok() {
            assert!(!ended.contains(&session), "session {session} came back");
            assert!(taken.insert((session, link, seq)), "{session} {link} {seq} was taken twice");
        }
    }
}

/// A serial line: however the stream is cut, the same frames; whatever came before, the next
/// frame is found.
fn line(data: &[u8]) {
    let Some((cut, stream)) = data.split_first() else { return };
    let mut whole = Deframer::default();
    let frames = whole.push(stream);
    assert!(frames.iter().all(|f| f.len() <= LINE_MAX));
    let mut pieces = Deframer::default();
    let chunks = stream.chunks(usize::from(*cut).max(1));
    let cut: Vec<Vec<u8>> = chunks.flat_map(|c| pieces.push(c)).collect();
    assert_eq!(frames, cut);
    assert_eq!(whole.noise, pieces.noise);
    assert_eq!(whole.push(&encode_line(b"next")).last().map(Vec::as_slice), Some(&b"next"[..]));
    let own = &stream[..stream.len().min(FRAME_MAX)];
    let encoded = encode_line(own);
    assert!(encoded.len() <= LINE_MAX);
    assert_eq!(Deframer::default().push(&encoded), [own]);
}

/// A block of a shared disk, as it stands there and with its checksum made right: what is read
/// comes back as it was, and a reader gets only what came since its last look.
fn slot(data: &[u8]) {
    const ID: [u8; 16] = [7; 16];
    let mut raw = data.to_vec();
    raw.resize(BLOCK, 0);
    for stamp in [|_: &mut [u8]| (), disk::stamp_slot, disk::stamp_header] {
        let mut block = raw.clone();
        stamp(&mut block);
        if let Ok(header) = Header::read(&block) {
            assert_eq!(Header::read(&header.to_block()).as_ref(), Ok(&header));
        }
        let Ok(Some(slot)) = Slot::read(&block, &ID, 1) else { continue };
        assert_eq!(Slot::read(&slot.to_block(&ID, 1), &ID, 1), Ok(Some(slot.clone())));
        let mut seen = Seen::default();
        assert!(seen.look(&slot, true).is_empty());
        let mut next = slot.clone();
        next.push(b"next".to_vec());
        let block = next.to_block(&ID, 1);
        assert_eq!(block.len(), BLOCK);
        let read = Slot::read(&block, &ID, 1).expect("whole").expect("written");
        let news = seen.look(&read, true);
        assert!(news == [b"next"] || (news.is_empty() && next.number < slot.number), "{news:?}");
    }
}

/// A block of a table of leases: what is read comes back as it was, and another node claims the
/// group only if it is nobody's, or has stood there for as long as it says.
fn table(data: &[u8]) {
    const ID: [u8; 16] = [7; 16];
    const OWN: Epoch = Epoch { counter: 9, node: NodeId(0) };
    let mut raw = data.to_vec();
    raw.resize(table::BLOCK, 0);
    for stamp in [|_: &mut [u8]| (), table::stamp_header, table::stamp_lease] {
        let mut block = raw.clone();
        stamp(&mut block);
        if let Ok(header) = table::Header::read(&block) {
            assert_eq!(table::Header::read(&header.to_block()).as_ref(), Ok(&header));
        }
        let (cell, group) = Cell::read(&block, &ID, 1);
        let (mut over, mut passed, mut term) = (cell == Cell::Empty, cell == Cell::Empty, 0);
        if let Cell::Lease(lease) = &cell {
            let again = lease.to_block(&ID, 1, group.as_ref().expect("a lease is of a group"));
            assert_eq!(Cell::read(&again, &ID, 1), (cell.clone(), group));
            over = lease.stand == Stand::Over && lease.epoch < OWN;
            term = lease.term.min(u64::MAX / 2);
            passed = over || (lease.epoch < OWN && term == lease.term);
        }
        let ask = Ask {
            verb: LeaseVerb::Acquire,
            epoch: OWN,
            me: 0,
            nodes: vec!["n1".into(), "n2".into()],
            term: Duration::from_secs(5),
            nonce: 1,
        };
        let look = |at: u64| Look {
            begun: Instant(at),
            ended: Instant(at + 1),
            cells: vec![Cell::Empty, cell.clone()],
        };
        let claims = |course: &mut Course, at| match course.looked(&look(at)) {
            Step::Write(lease) => lease.stand == Stand::Claimed,
            Step::Done(LeaseAnswer::Refused { .. }) => false,
            step => panic!("{step:?} after {cell:?}"),
        };
        let mut first = Course::new(ask.clone(), Default::default());
        assert_eq!(claims(&mut first, 1), over, "{cell:?}");
        let later = 2 + term.max(5_000_000_000);
        let memory = || first.memory.clone();
        assert_eq!(claims(&mut Course::new(ask.clone(), memory()), later - 1), over, "{cell:?}");
        assert_eq!(claims(&mut Course::new(ask, memory()), later), passed, "{cell:?}");
    }
}

/// A target's text: settings are checked, or the place of the mistake is named.
fn target(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let file = Path::new("files.target");
    let mut unit = UnitText::empty(file);
    let read = unit.add(text, file).into_iter().next().map_or(Ok(()), Err);
    let group = read.and_then(|()| Group::of(&GroupName("files".into()), &unit));
    match group.and_then(|target| settle(&target, &SETTINGS)) {
        Ok(group) => {
            assert!(!group.hard.is_empty() && !group.policy.nodes.is_empty());
            assert!(group.soft.iter().all(|u| !group.hard.contains(u)));
            assert!(group.hard.iter().chain(&group.soft).all(|u| !u.contains(['%', '\n', ' '])));
        }
        Err(words) => assert!(words.starts_with("files.target:"), "no place: {words}"),
    }
}

/// hafailover.toml: the relations that the core counts on hold, or the place is named.
fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match hafailover::config::load::parse(text, "file", "b") {
        Ok(settings) => {
            let t = &settings.timing;
            assert!(t.keepalive < t.warntime && t.warntime < t.deadtime);
            assert!(t.deadtime > t.keepalive * 2 && t.deadtime <= t.initdead);
            assert!((2..=16).contains(&settings.nodes.len()));
            assert!((1..=16).contains(&settings.links.len()));
            assert!(usize::from(settings.me.0) < settings.nodes.len());
        }
        Err(e) => assert!(e.0.starts_with("file:"), "no place: {}", e.0),
    }
}

/// A key file: what was understood is written and read again the same; an error never shows a key.
fn keys(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Keys::parse(text) {
        Ok(keys) => assert_eq!(Keys::parse(&keys.to_text()), Ok(keys)),
        Err((line, words)) => {
            assert!(line <= text.lines().count());
            let hex = |w: &&str| w.len() == 64 && w.bytes().all(|b| b.is_ascii_hexdigit());
            let secret = text.split_whitespace().filter(hex).find(|w| words.contains(*w));
            assert_eq!(secret, None, "{words}");
        }
    }
}

/// A line on the control socket, carried out.
fn control(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(request) = serde_json::from_str::<Request>(text) else { return };
    let again = serde_json::to_string(&request).expect("a request is JSON");
    assert_eq!(serde_json::from_str::<Request>(&again).ok().as_ref(), Some(&request));
    if let Request::Do(command) = request {
        let (mut core, _) = core(1);
        core.handle(Instant(2), Event::Asked { request: 1, by: "root".into(), command });
        core.view(Instant(3));
    }
}

/// A datagram to a witness: none that is not sealed is opened; what a sealed one asks is decided,
/// and one at a time has a group.
fn witness(data: &[u8]) {
    let keys = Keys::of(&[(1, KEY)], 1);
    assert_eq!(open::<Asked>(Way::ToWitness, "office", &keys, data), None);
    assert_eq!(open::<Answered>(Way::ToNode, "office", &keys, data), None);
    let Ok(body) = serde_json::from_slice::<serde_json::Value>(data) else { return };
    let Some(datagram) = seal(Way::ToWitness, "office", &keys, &body) else { return };
    assert!(datagram.len() <= DATAGRAM_MAX);
    let asked = open::<Asked>(Way::ToWitness, "office", &keys, &datagram);
    let Some(asked) = asked.filter(is_sound) else { return };
    let again = seal(Way::ToWitness, "office", &keys, &asked).expect("it was short enough");
    assert_eq!(open(Way::ToWitness, "office", &keys, &again).as_ref(), Some(&asked));
    let mut grants = Grants::new(Instant(5), Some(Default::default()), Duration::ZERO);
    let mut ask = asked.ask.clone();
    ask.verb = LeaseVerb::Acquire;
    assert_eq!(grants.ask(Instant(6), &ask), Verdict::Granted, "nobody has it");
    let other = hafailover::core::grant::Ask { node: format!("{}x", ask.node), ..ask.clone() };
    assert_ne!(grants.ask(Instant(6), &other), Verdict::Granted, "the same epoch");
    grants.ask(Instant(7), &asked.ask);
    assert_eq!(grants.kept().len(), 1);
}
