//! Processes that ask for us, each ended when its time is over. One that waits for a device that
//! hangs cannot be ended: it is left behind, and looked after now and then.

use crate::core::time::Instant;
use crate::io::clock;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{ErrorKind, PipeReader, Read};
use std::os::fd::AsFd;
use std::process::{Child, Command};

/// More than any of them says: a full table.
const SAID_MAX: usize = 4 * 1024 * 1024;

/// A process, and the pipe into which it speaks.
pub struct Speaker {
    child: Child,
    pipe: PipeReader,
    said: Vec<u8>,
}

impl Speaker {
    pub fn start(mut command: Command) -> std::io::Result<Speaker> {
        let (pipe, its) = std::io::pipe()?;
        rustix::io::ioctl_fionbio(&pipe, true)?;
        command.stdout(its.try_clone()?).stderr(its);
        let child = command.spawn()?;
        Ok(Speaker { child, pipe, said: Vec::new() })
    }

    /// What it said, once it has ended. One that says more than a pipe holds must be heard before.
    pub fn ended(&mut self) -> std::io::Result<Option<String>> {
        let ended = self.child.try_wait()?.is_some();
        self.hear()?;
        Ok(ended.then(|| self.text()))
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.said).into_owned()
    }

    /// What is in the pipe by now; true: there will be no more. What is too long is cut off.
    fn hear(&mut self) -> std::io::Result<bool> {
        let mut buffer = [0; 4096];
        loop {
            match self.pipe.read(&mut buffer) {
                Ok(0) => return Ok(true),
                Ok(len) => {
                    let room = SAID_MAX - self.said.len();
                    self.said.extend_from_slice(&buffer[..len.min(room)]);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Until it closes its pipe, which it does with its end; false: it has not by then.
    fn speaks_until(&mut self, end: Instant) -> std::io::Result<bool> {
        loop {
            let left = end.since(clock::now());
            let wait =
                Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
            let mut fds = [PollFd::from_borrowed_fd(self.pipe.as_fd(), PollFlags::IN)];
            match poll(&mut fds, Some(&wait)) {
                Ok(0) => return Ok(false),
                Ok(_) if self.hear()? => return Ok(true),
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Those that were told to end, and have not yet.
#[derive(Default)]
pub struct Left(Vec<Child>);

impl Left {
    /// What it said; `None`: it did not end in time.
    pub fn run(&mut self, command: Command, end: Instant) -> std::io::Result<Option<String>> {
        let mut speaker = Speaker::start(command)?;
        let spoke = speaker.speaks_until(end);
        let whole = matches!(spoke, Ok(true));
        if !whole {
            let _ = speaker.child.kill();
        }
        let said = speaker.text();
        self.0.push(speaker.child);
        self.tend();
        spoke?;
        Ok(whole.then_some(said))
    }

    /// Takes leave of those that have ended.
    pub fn tend(&mut self) {
        self.0.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::time::Duration;

    #[test]
    fn more_than_a_pipe_holds_is_heard() {
        let mut command = Command::new("head");
        command.args(["-c", "300000", "/dev/zero"]);
        let mut speaker = Speaker::start(command).expect("head");
        let end = clock::now() + Duration::from_secs(20);
        let said = loop {
            if let Some(said) = speaker.ended().expect("heard") {
                break said;
            }
            assert!(clock::now() < end, "it never ends");
            std::thread::park_timeout(Duration::from_millis(10));
        };
        assert_eq!(said.len(), 300_000);
    }
}
