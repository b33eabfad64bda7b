//! A null-modem line: two ptys and a thread that carries bytes between them, until it is cut.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub struct NullModem {
    /// By the end that sends.
    cut: Arc<[AtomicBool; 2]>,
    stalled: Arc<AtomicBool>,
    ended: Arc<AtomicBool>,
    devices: [String; 2],
}

impl NullModem {
    pub fn new() -> NullModem {
        let (cut, ended) = (Arc::<[AtomicBool; 2]>::default(), Arc::new(AtomicBool::new(false)));
        let (a, a_name) = pty();
        let (b, b_name) = pty();
        let stalled = Arc::<AtomicBool>::default();
        let (mine, stays, over) = (cut.clone(), stalled.clone(), ended.clone());
        let names = [a_name.clone(), b_name.clone()];
        std::thread::spawn(move || carry(&a, &b, &names, &mine, &stays, &over));
        NullModem { cut, stalled, ended, devices: [a_name, b_name] }
    }

    /// The host's device for node 0 or 1.
    pub fn device(&self, n: usize) -> String {
        self.devices[n].clone()
    }

    pub fn cut(&self) {
        (0..2).for_each(|n| self.cut_from(n));
    }

    /// What this end sends does not arrive; the other way is open.
    pub fn cut_from(&self, n: usize) {
        self.cut[n].store(true, Ordering::Relaxed);
    }

    /// What is sent stays in the line, as in the buffer of a modem, and comes when it heals.
    pub fn stall(&self) {
        self.stalled.store(true, Ordering::Relaxed);
    }

    pub fn heal(&self) {
        self.stalled.store(false, Ordering::Relaxed);
        self.cut.iter().for_each(|way| way.store(false, Ordering::Relaxed));
    }
}

impl Drop for NullModem {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

fn pty() -> (File, String) {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let master: OwnedFd =
        openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a pty");
    grantpt(&master).expect("granted");
    unlockpt(&master).expect("unlocked");
    let name = ptsname(&master, Vec::new()).expect("a name").to_string_lossy().into_owned();
    let slave = File::options().read(true).write(true).open(&name).expect("the slave opens");
    let mut raw = rustix::termios::tcgetattr(&slave).expect("a terminal");
    raw.make_raw();
    rustix::termios::tcsetattr(&slave, rustix::termios::OptionalActions::Now, &raw).expect("raw");
    // Closed again: a slave that stays open would keep the exclusive mode of a daemon that died.
    (File::from(master), name)
}

/// A real port forgets its exclusive mode with the last close; a pty keeps it as long as its master
/// is open. Whenever nobody has it open, then, not only when it was seen to close: a daemon that is
/// started and ended between two looks leaves the mode as well.
fn forget_exclusive(name: &str) {
    if let Ok(slave) = File::options().read(true).write(true).open(name) {
        let _ = rustix::termios::ioctl_tiocnxcl(&slave);
    }
}

fn carry(
    a: &File,
    b: &File,
    names: &[String; 2],
    cut: &[AtomicBool; 2],
    stalled: &AtomicBool,
    ended: &AtomicBool,
) {
    let mut waiting = [Vec::new(), Vec::new()];
    let patience = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };
    while !ended.load(Ordering::Relaxed) {
        let mut fds = [a, b].map(|f| PollFd::from_borrowed_fd(f.as_fd(), PollFlags::IN));
        if poll(&mut fds, Some(&patience)).is_err() {
            continue;
        }
        for n in 0..2 {
            if fds[n].revents().contains(PollFlags::HUP) {
                forget_exclusive(&names[n]);
            }
        }
        let ready = fds.map(|f| f.revents().contains(PollFlags::IN));
        let mut busy = false;
        for (n, mut from, to) in [(0, a, b), (1, b, a)] {
            let mut buffer = [0; 4096];
            if ready[n]
                && let Ok(len) = from.read(&mut buffer)
            {
                busy = true;
                if !cut[n].load(Ordering::Relaxed) {
                    waiting[n].extend_from_slice(&buffer[..len]);
                }
            }
            if !stalled.load(Ordering::Relaxed) {
                deliver(&mut waiting[n], to);
            }
        }
        if !busy {
            // An end that nobody has open polls as hung up at once, for ever.
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}

/// A receiver that is off fills its buffer, and the rest is lost, as on a real line: look before
/// writing.
fn deliver(waiting: &mut Vec<u8>, mut to: &File) {
    for part in waiting.chunks(1024) {
        let mut out = [PollFd::from_borrowed_fd(to.as_fd(), PollFlags::OUT)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        if poll(&mut out, Some(&now)).is_ok_and(|n| n > 0) {
            let _ = to.write_all(part);
        }
    }
    waiting.clear();
}
