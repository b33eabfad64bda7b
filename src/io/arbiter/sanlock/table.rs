//! The table of leases on the device, as the process that asks reads and writes it: nothing is
//! written before the header was read and found to be this cluster's.

use super::course::{Ask, Course, Look, Memory, Step};
use crate::core::LeaseAnswer;
use crate::core::name::{GROUPS_MAX, GroupName};
use crate::core::time::Instant;
use crate::io::clock;
use crate::io::disk::device::{Aligned, Device, Use};
use crate::io::disk::slots::{Place, words};
use crate::io::kernel::printable;
use crate::wire::table::{BLOCK, BLOCKS, Cell, HEADER, Header, Lease, Stand, place};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// Blocks that are read at one stroke: more than most clusters have groups.
const STROKE: usize = 16;

/// A block that is being written is read so often before it counts as torn.
const READS: usize = 4;

// A block is never given back, so there are more than groups at a time.
const _: () = assert!(BLOCKS > GROUPS_MAX && BLOCKS.is_multiple_of(STROKE));

/// What the process that asks goes by.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    pub place: Place,
    pub group: GroupName,
    pub ask: Ask,
    pub memory: Memory,
    /// Writes nothing, and answers what would be answered if nobody else wrote.
    pub rehearsal: bool,
}

/// What it says, as a line on standard output.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Said {
    pub answer: LeaseAnswer,
    /// Of a rehearsal: what would be written is a claim, not what this node has already.
    pub claims: bool,
    pub memory: Memory,
}

/// A question from its beginning to its end.
pub fn ask(plan: Plan) -> Said {
    let mut course = Course::new(plan.ask, plan.memory);
    let answer = match Table::open(plan.place, plan.group, plan.rehearsal) {
        Ok(mut table) => carry_out(&mut table, &mut course, plan.rehearsal),
        Err(why) => Err(why),
    };
    let (answer, claims) = answer.unwrap_or_else(|why| (LeaseAnswer::Unknown(why), false));
    Said { answer, claims, memory: course.memory }
}

fn carry_out(
    table: &mut Table,
    course: &mut Course,
    rehearsal: bool,
) -> Result<(LeaseAnswer, bool), String> {
    let mut step = Step::Look;
    loop {
        step = match step {
            Step::Look => course.looked(&table.look()?),
            Step::Write(lease) if rehearsal => {
                return Ok((LeaseAnswer::Granted, lease.stand == Stand::Claimed));
            }
            Step::Write(lease) => {
                table.write(course.ask.me, &lease)?;
                course.written()
            }
            Step::Done(answer) => return Ok((answer, false)),
        };
    }
}

/// The blocks of one group.
struct Table {
    place: Place,
    group: GroupName,
    device: Device,
    id: [u8; 16],
    /// By node: where its block of the group is, or the next free one.
    at: Vec<Option<usize>>,
}

impl Table {
    /// First without the right to write: what is not ours is not touched. Then once more through
    /// what is written: its name may lead to another device by now.
    fn open(place: Place, group: GroupName, rehearsal: bool) -> Result<Table, String> {
        let open = |how| Device::open(&place.device, how).map_err(|e| words(&place.device, &e));
        let mut device = open(Use::Read)?;
        let mut id = ours(&device, &place)?;
        if !rehearsal {
            device = open(Use::Write)?;
            id = ours(&device, &place)?;
        }
        Ok(Table { group, device, id, at: vec![None; place.nodes.len()], place })
    }

    fn look(&mut self) -> Result<Look, String> {
        let begun = clock::now();
        let mut cells = Vec::new();
        for node in 0..self.place.nodes.len() {
            let read = || find(&self.device, &self.id, node, &self.group);
            let mut found = read();
            for _ in 1..READS {
                if !matches!(found, Ok((Cell::Torn(_), _))) {
                    break;
                }
                found = read();
            }
            let (cell, at) = found.map_err(|e| words(&self.place.device, &e))?;
            self.at[node] = at;
            cells.push(cell);
        }
        Ok(Look { begun, ended: clock::now(), cells })
    }

    fn write(&self, me: usize, lease: &Lease) -> Result<(), String> {
        let shown = self.place.device.display();
        let Some(at) = self.at[me] else {
            return Err(format!(
                "{shown}: its table is full with groups that are no more: hafailover disk format \
                 --leases --force-of-ours {shown}, while hafailover runs on no node"
            ));
        };
        let block = Aligned::of(&lease.to_block(&self.id, me, &self.group));
        let put = self.device.check_path();
        let put = put.and_then(|()| self.device.write(&block, place(me, at)));
        put.and_then(|()| self.device.sync()).map_err(|e| words(&self.place.device, &e))
    }
}

/// The block of a group in the table of a node, and where that is; else the first that is free.
fn find(
    device: &Device,
    id: &[u8; 16],
    node: usize,
    group: &GroupName,
) -> std::io::Result<(Cell, Option<usize>)> {
    // A block that cannot be read may be that of any group, and is written anew.
    let mut torn = None;
    for (at, cell, of) in blocks(device, id, node) {
        match cell? {
            Cell::Empty => return Ok(torn.unwrap_or((Cell::Empty, Some(at)))),
            cell @ Cell::Lease(_) if of.as_ref() == Some(group) => return Ok((cell, Some(at))),
            cell @ Cell::Torn(_) => torn = Some((cell, Some(at))),
            Cell::Lease(_) => {}
        }
    }
    Ok(torn.unwrap_or_default())
}

type Found = (usize, std::io::Result<Cell>, Option<GroupName>);

/// The blocks of a node, up to the first that is empty.
fn blocks<'a>(
    device: &'a Device,
    id: &'a [u8; 16],
    node: usize,
) -> impl Iterator<Item = Found> + 'a {
    let mut buffer = Aligned::new(STROKE * BLOCK);
    let mut over = false;
    (0..BLOCKS).map_while(move |at| {
        if over {
            return None;
        }
        if at % STROKE == 0
            && let Err(error) = device.read(&mut buffer, place(node, at))
        {
            over = true;
            return Some((at, Err(error), None));
        }
        let block = &buffer.bytes()[at % STROKE * BLOCK..][..BLOCK];
        let (cell, group) = Cell::read(block, id, node);
        over = cell == Cell::Empty;
        Some((at, Ok(cell), group))
    })
}

/// The id of this cluster's leases, if that is what stands there.
fn ours(device: &Device, place: &Place) -> Result<[u8; 16], String> {
    let header = header_of(device).and_then(|header| {
        let why = header.refuses(&place.cluster, &place.nodes);
        why.map_or(Ok(header), |why| Err(printable(&why)))
    });
    let shown = place.device.display();
    let header =
        header.map_err(|why| format!("{shown}: {why}: see hafailover disk format --leases"));
    header.map(|header| header.id)
}

fn header_of(device: &Device) -> Result<Header, String> {
    let mut block = Aligned::new(BLOCK);
    device.read(&mut block, HEADER).map_err(|e| match e.kind() {
        std::io::ErrorKind::UnexpectedEof => "it is not formatted for leases".into(),
        _ => e.to_string(),
    })?;
    Header::read(block.bytes()).map_err(|e| e.to_string())
}

/// What a node sees that asks nothing: of every group all blocks.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Seen {
    pub begun: Instant,
    pub ended: Instant,
    pub groups: Vec<(GroupName, Vec<Cell>)>,
}

pub fn watch(path: &Path) -> Result<Seen, String> {
    let begun = clock::now();
    let (_, all) = all(path)?;
    let ended = clock::now();
    let mut groups: BTreeMap<GroupName, Vec<Cell>> = BTreeMap::new();
    for (node, cells) in all.iter().enumerate() {
        for (group, cell) in cells {
            let Some(group) = group else { continue };
            let none = || vec![Cell::Empty; all.len()];
            groups.entry(group.clone()).or_insert_with(none)[node] = cell.clone();
        }
    }
    Ok(Seen { begun, ended, groups: groups.into_iter().collect() })
}

/// The header alone, of whichever cluster.
pub fn header(path: &Path) -> Result<Header, String> {
    let device = Device::open(path, Use::Read).map_err(|e| words(path, &e))?;
    header_of(&device).map_err(|why| format!("{}: {why}", path.display()))
}

/// All leases that stand on the device, by node; of a block that cannot be read there is no group.
pub type All = Vec<Vec<(Option<GroupName>, Cell)>>;

pub fn all(path: &Path) -> Result<(Header, All), String> {
    let device = Device::open(path, Use::Read).map_err(|e| words(path, &e))?;
    let header = header_of(&device).map_err(|why| format!("{}: {why}", path.display()))?;
    let of = |node| {
        let found = blocks(&device, &header.id, node);
        let found = found.map(|(_, cell, group)| cell.map(|cell| (group, cell)));
        let all: std::io::Result<Vec<_>> = found.collect();
        all.map(|all| all.into_iter().filter(|(_, cell)| *cell != Cell::Empty).collect())
    };
    let all: std::io::Result<All> = (0..header.nodes.len()).map(of).collect();
    let all = all.map_err(|e| words(path, &e))?;
    Ok((header, all))
}
