//! The slots on a device: nothing is written before the header was read and found to be this
//! cluster's, each time anew.

use super::device::{Aligned, Device, Use};
use crate::io::kernel::printable;
use crate::wire::disk::{BLOCK, Header, SIZE, Slot, Torn};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// A slot that is being written is read so often before it counts as torn.
const READS: usize = 4;

/// Whose slots on which device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    pub device: PathBuf,
    pub cluster: String,
    pub nodes: Vec<String>,
}

pub struct Slots {
    device: Device,
    place: Place,
    buffer: Aligned,
}

/// What stands on the device.
pub struct Read {
    pub header: Header,
    /// By node.
    pub slots: Vec<Result<Option<Slot>, Torn>>,
}

impl Slots {
    /// First without the right to write: what is not ours is not touched.
    pub fn open(place: Place, how: Use) -> Result<Slots, String> {
        let open = |how| Device::open(&place.device, how).map_err(|e| words(&place.device, &e));
        let mut slots = Slots {
            device: open(Use::Read)?,
            buffer: Aligned::new(BLOCK * (1 + place.nodes.len())),
            place: place.clone(),
        };
        slots.read()?;
        if how != Use::Read {
            slots.device = open(how)?;
        }
        Ok(slots)
    }

    /// Reads header and slots at one stroke.
    pub fn read(&mut self) -> Result<Read, String> {
        let at = |e: std::io::Error| words(&self.place.device, &e);
        self.device.read(&mut self.buffer, 0).map_err(at)?;
        let header = self.header()?;
        let mut slots = Vec::new();
        for n in 0..self.place.nodes.len() {
            let block = &self.buffer.bytes()[BLOCK * (1 + n)..][..BLOCK];
            let mut slot = Slot::read(block, &header.id, n as u8);
            for _ in 1..READS {
                if slot.is_ok() {
                    break;
                }
                slot = self.reread(&header.id, n)?;
            }
            slots.push(slot);
        }
        Ok(Read { header, slots })
    }

    fn header(&self) -> Result<Header, String> {
        let shown = self.place.device.display();
        let header = Header::read(&self.buffer.bytes()[..BLOCK]).map_err(|e| {
            format!("{shown}: {e}; nothing is written to it: see hafailover disk format")
        })?;
        match header.refuses(&self.place.cluster, &self.place.nodes) {
            Some(why) => Err(format!("{shown}: {}: see hafailover disk format", printable(&why))),
            None => Ok(header),
        }
    }

    fn reread(&self, id: &[u8; 16], n: usize) -> Result<Result<Option<Slot>, Torn>, String> {
        let mut block = Aligned::new(BLOCK);
        let read = self.device.read(&mut block, BLOCK * (1 + n));
        read.map_err(|e| words(&self.place.device, &e))?;
        Ok(Slot::read(block.bytes(), id, n as u8))
    }

    /// After a read that found the header good, and with its id.
    pub fn write(&self, id: &[u8; 16], n: usize, slot: &Slot) -> Result<(), String> {
        let block = Aligned::of(&slot.to_block(id, n as u8));
        let put = self.device.write(&block, BLOCK * (1 + n));
        put.map_err(|e| words(&self.place.device, &e))
    }

    /// A device that is gone may still take what is written to it.
    pub fn check_path(&self) -> Result<(), String> {
        self.device.check_path().map_err(|e| words(&self.place.device, &e))
    }

    pub fn number(&self) -> u64 {
        self.device.number
    }
}

/// The header alone, of whichever cluster, and the device's number.
pub fn header(path: &Path) -> Result<(Header, u64), String> {
    let device = Device::open(path, Use::Read).map_err(|e| words(path, &e))?;
    let mut block = Aligned::new(BLOCK);
    device.read(&mut block, 0).map_err(|e| words(path, &e))?;
    let header = Header::read(block.bytes()).map_err(|e| format!("{}: {e}", path.display()))?;
    Ok((header, device.number))
}

/// Empty slots below a new header, which is written last: a format that is cut short leaves no
/// header, or the old one above empty slots.
pub fn write_anew(device: &Device, header: &Header) -> std::io::Result<()> {
    let block = Aligned::of(&header.to_block());
    device.write(&Aligned::new(SIZE - BLOCK), BLOCK)?;
    device.sync()?;
    device.write(&block, 0)?;
    device.sync()?;
    back(device, &block, 0)
}

/// Whether what was written there is read back.
pub fn back(device: &Device, block: &Aligned, at: usize) -> std::io::Result<()> {
    let mut back = Aligned::new(block.bytes().len());
    device.read(&mut back, at)?;
    match back.bytes() == block.bytes() {
        true => Ok(()),
        false => Err(std::io::Error::other("what was written is not what is read back")),
    }
}

pub fn words(path: &Path, error: &std::io::Error) -> String {
    format!("{}: {error}", path.display())
}
