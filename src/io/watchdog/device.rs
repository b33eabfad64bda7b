//! A watchdog device of the kernel, as Documentation/watchdog/watchdog-api.rst of Linux has it: it
//! counts from the moment it is opened, and resets the machine when it was not fed for its timeout.

use rustix::io::Errno;
use rustix::ioctl::{Getter, Updater, ioctl, opcode};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

const SETOPTIONS: rustix::ioctl::Opcode = opcode::read::<i32>(b'W', 4);
const SETTIMEOUT: rustix::ioctl::Opcode = opcode::read_write::<i32>(b'W', 6);
const GETTIMEOUT: rustix::ioctl::Opcode = opcode::read::<i32>(b'W', 7);
/// WDIOS_DISABLECARD, WDIOS_ENABLECARD.
const DISABLE: i32 = 1;
const ENABLE: i32 = 2;

const BUSY: &str = "somebody else has it: RuntimeWatchdogSec= of systemd-system.conf(5), or \
                    another watchdog daemon: end that, or name another device: watchdog-device in \
                    [arbiter]";
const MISSING: &str = "there is no watchdog device: load its driver (modprobe), or remove watchdog \
                       from [arbiter] on all nodes";
const STUCK: &str =
    "and as it cannot be stopped (nowayout) it is fed for as long as this machine runs";

/// An open device.
pub struct Device(File);

impl Device {
    /// Counts from now on, and resets the machine after that many seconds, or fewer: how many is
    /// given back. The error says what is wrong, and has the device if it counts nevertheless.
    pub fn start(path: &Path, seconds: u32) -> Result<(Device, u32), (String, Option<Device>)> {
        let at = |words: &str| format!("{}: {words}", path.display());
        let opened = OpenOptions::new().write(true).open(path);
        let device = Device(opened.map_err(|e| match Errno::from_io_error(&e) {
            Some(Errno::BUSY) => (at(BUSY), None),
            Some(Errno::NOENT | Errno::NXIO | Errno::NODEV) => (at(MISSING), None),
            _ => (at(&e.to_string()), None),
        })?);
        if device.timeout() == Err(Errno::NOTTY) {
            let words = "this is no watchdog device: correct watchdog-device in [arbiter]";
            return Err((at(words), None));
        }
        match device.set(path, seconds).and_then(|got| {
            // Some count only from the first feeding on.
            let _ = device.count(true);
            device.feed().map(|()| got).map_err(|e| at(&e.to_string()))
        }) {
            Ok(got) => Ok((device, got)),
            Err(words) => Err(match device.give_up() {
                true => (words, None),
                false => (format!("{words}; {STUCK}"), Some(device)),
            }),
        }
    }

    /// From now on so many seconds, or fewer where it cannot count so many: how many.
    pub fn set(&self, path: &Path, seconds: u32) -> Result<u32, String> {
        let words = match self.set_timeout(seconds) {
            Ok(got) if (1..=seconds).contains(&got) => return Ok(got),
            Ok(got) => format!(
                "it counts {got} s, and watchdog in [arbiter] is {seconds} s: write {got}s there, \
                 on all nodes"
            ),
            Err(e) => format!(
                "it does not take {seconds} s: {e}: write another watchdog = in [arbiter], on all \
                 nodes"
            ),
        };
        Err(format!("{}: {words}", path.display()))
    }

    /// One that an earlier process opened; perhaps it counts.
    pub fn found(fd: OwnedFd) -> Device {
        Device(fd.into())
    }

    pub fn feed(&self) -> std::io::Result<()> {
        (&self.0).write_all(b"\0")
    }

    /// In seconds, as the device has it.
    pub fn timeout(&self) -> Result<u32, Errno> {
        // SAFETY: this opcode writes one int, which Getter gives it.
        let got = unsafe { ioctl(&self.0, Getter::<GETTIMEOUT, i32>::new()) }?;
        Ok(u32::try_from(got).unwrap_or(u32::MAX))
    }

    fn set_timeout(&self, seconds: u32) -> Result<u32, Errno> {
        let mut value = i32::try_from(seconds).unwrap_or(i32::MAX);
        // SAFETY: this opcode reads and writes one int, which Updater gives it.
        unsafe { ioctl(&self.0, Updater::<SETTIMEOUT, i32>::new(&mut value)) }?;
        self.timeout()
    }

    /// Whether it counts from now on. One that cannot be stopped (nowayout) refuses.
    pub fn count(&self, on: bool) -> Result<(), Errno> {
        let mut options = if on { ENABLE } else { DISABLE };
        // SAFETY: this opcode reads one int, which Updater gives it.
        unsafe { ioctl(&self.0, Updater::<SETOPTIONS, i32>::new(&mut options)) }
    }

    /// Stopped and closed; false: it cannot be stopped.
    fn give_up(&self) -> bool {
        // Closed after anything but the magic letter some would count on.
        self.count(false).is_ok() && (&self.0).write_all(b"V").is_ok()
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
