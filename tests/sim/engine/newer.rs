//! A later minor version of the wire format, as this one meets it: to a frame of the shipped codec
//! all is added that `wire::body` lets a later version add.

use hafailover::core::heartbeat::{Heartbeat, Held, Phase};
use hafailover::core::name::{NodeId, Session};
use hafailover::wire::keys::Keys;
use hafailover::wire::{Codec, MINOR};

const HEADER: usize = 28;
const TAG: usize = 16;
/// Where the flags stand in the first entry, and a switch's value in one of the list.
const FLAGS: usize = 26;
const SWITCH: usize = 16;
/// What stands behind the last field that is known here.
const MORE: [u8; 3] = [0xA5; 3];
/// "Starting", and what a later version may have in its place.
const STARTING: u8 = 2;
const WARMING: u8 = 77;

type Entry = Vec<u8>;

/// The same heartbeat as a later version says it.
pub fn newer(codec: &Codec, frame: &[u8]) -> Vec<u8> {
    let mut out = frame[..HEADER].to_vec();
    out[5] = MINOR + 3;
    let mut body = Body(&frame[HEADER..frame.len() - TAG]);
    let mut own = body.entry();
    own[FLAGS] |= 0x80;
    put(&mut out, own);
    let mut echoes = body.list();
    // A node that is not known here.
    echoes.push(vec![0xEE; 30]);
    put_list(&mut out, echoes);
    let mut maintenance = body.entry();
    *maintenance.last_mut().expect("a value") |= 0xFE;
    put(&mut out, maintenance);
    let mut standby = body.list();
    standby.iter_mut().for_each(|switch| switch[SWITCH] |= 0xFE);
    put_list(&mut out, standby);
    put_list(&mut out, groups(body.list()));
    out.extend_from_slice(&MORE);
    codec.seal(&mut out);
    out
}

/// A phase of its own, and a group with a name that cannot be here.
fn groups(mut groups: Vec<Entry>) -> Vec<Entry> {
    if let Some(mut other) = groups.first().cloned() {
        let name = usize::from(other[0]);
        other[1..=name].fill(0xFF);
        groups.push(other);
    }
    for group in &mut groups {
        let phase = 1 + usize::from(group[0]) + 4;
        if group[phase] == STARTING {
            group[phase] = WARMING;
        }
    }
    groups
}

/// Whether this version reads all that it knows, and takes what it does not know for the careful
/// thing.
pub fn is_understood(frame: &[u8], said: &Heartbeat, nodes: usize) -> bool {
    let names: Vec<String> = (1..=nodes).map(|n| format!("n{n}")).collect();
    let me = NodeId(u8::from(said.from.0 == 0));
    let keys = Keys::of(&[(1, [7; 32])], 1);
    let read = Codec::new("sim", &names, me, Session(0), keys).decode(said.link, frame);
    let mut careful = said.clone();
    careful.wishes.standby.resize(nodes, Default::default());
    for group in careful.groups.iter_mut().filter(|g| g.phase == Phase::Starting) {
        (group.phase, group.held) = (Phase::Unknown, Held::Unknown);
        (group.promise, group.released, group.voucher) = (None, None, None);
    }
    read.is_ok_and(|read| read == careful)
}

struct Body<'a>(&'a [u8]);

impl Body<'_> {
    fn entry(&mut self) -> Entry {
        let len = usize::from(u16::from_be_bytes([self.0[0], self.0[1]]));
        let (entry, rest) = self.0[2..].split_at(len);
        self.0 = rest;
        entry.to_vec()
    }

    fn list(&mut self) -> Vec<Entry> {
        let count = self.0[0];
        self.0 = &self.0[1..];
        (0..count).map(|_| self.entry()).collect()
    }
}

fn put(out: &mut Vec<u8>, entry: Entry) {
    let len = u16::try_from(entry.len() + MORE.len()).expect("entries are short");
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(&entry);
    out.extend_from_slice(&MORE);
}

fn put_list(out: &mut Vec<u8>, entries: Vec<Entry>) {
    out.push(u8::try_from(entries.len()).expect("lists are short"));
    entries.into_iter().for_each(|entry| put(out, entry));
}
