//! A block device read and written past the page cache (O_DIRECT of open(2)): what another node
//! wrote is on the device, not in this node's memory.

use rustix::fs::{Mode, OFlags, ioctl_blksszget};
use std::fs::File;
use std::io::{Error, ErrorKind, Result, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// The longest logical sector there is.
const SECTOR_MAX: usize = 4096;

pub struct Device {
    file: File,
    path: PathBuf,
    /// Its number; by which other name it goes does not matter.
    pub number: u64,
    pub sector: usize,
}

/// How a device is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    Read,
    Write,
    /// Nothing else may have mounted or claimed it.
    Alone,
}

impl Device {
    pub fn open(path: &Path, how: Use) -> Result<Device> {
        let meta = std::fs::metadata(path)?;
        if !meta.file_type().is_block_device() {
            return Err(Error::other("it is no block device: name a partition or a volume"));
        }
        let access = match how {
            Use::Read => OFlags::RDONLY,
            Use::Write => OFlags::RDWR,
            Use::Alone => OFlags::RDWR | OFlags::EXCL,
        };
        let flags = access | OFlags::DIRECT | OFlags::CLOEXEC | OFlags::NOCTTY;
        let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
        let opened = file.metadata()?;
        if !opened.file_type().is_block_device() {
            return Err(Error::other("it is no block device any more"));
        }
        let sector = ioctl_blksszget(&file)? as usize;
        if sector > SECTOR_MAX {
            let words = format!("its sectors have {sector} bytes, more than {SECTOR_MAX}");
            return Err(Error::other(words));
        }
        Ok(Device { file, path: path.into(), number: opened.rdev(), sector })
    }

    /// Its size in bytes.
    pub fn size(&mut self) -> Result<u64> {
        self.file.seek(SeekFrom::End(0))
    }

    pub fn read(&self, into: &mut Aligned, at: usize) -> Result<()> {
        let got = self.file.read_at(into.bytes_mut(), at as u64)?;
        whole(got, into.len)
    }

    pub fn write(&self, from: &Aligned, at: usize) -> Result<()> {
        let put = self.file.write_at(from.bytes(), at as u64)?;
        whole(put, from.len)
    }

    /// What was written is on the medium, not in a cache of the device.
    pub fn sync(&self) -> Result<()> {
        self.file.sync_data()
    }

    /// Whether its path still leads to it.
    pub fn check_path(&self) -> Result<()> {
        match std::fs::metadata(&self.path)?.rdev() == self.number {
            true => Ok(()),
            false => Err(Error::other("another device has this name now")),
        }
    }
}

/// A device that ends early gives and takes less, without an error.
fn whole(done: usize, wanted: usize) -> Result<()> {
    match done == wanted {
        true => Ok(()),
        false => Err(Error::new(ErrorKind::UnexpectedEof, "the device ends too early")),
    }
}

/// Bytes at an address that is a multiple of every sector's size, as O_DIRECT asks for.
pub struct Aligned {
    bytes: Vec<u8>,
    at: usize,
    len: usize,
}

impl Aligned {
    pub fn new(len: usize) -> Aligned {
        let bytes = vec![0; len + SECTOR_MAX];
        let at = bytes.as_ptr().align_offset(SECTOR_MAX);
        Aligned { bytes, at, len }
    }

    pub fn of(bytes: &[u8]) -> Aligned {
        let mut aligned = Aligned::new(bytes.len());
        aligned.bytes_mut().copy_from_slice(bytes);
        aligned
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes[self.at..self.at + self.len]
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.at..self.at + self.len]
    }
}
