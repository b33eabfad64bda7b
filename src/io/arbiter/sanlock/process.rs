//! Processes that ask for us, each ended when its time is over. One that waits for a device that
//! hangs cannot be ended: it is left behind, and looked after now and then.

use crate::core::time::Instant;
use crate::io::clock;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{PipeReader, Read};
use std::os::fd::AsFd;
use std::process::{Child, Command};

/// More than any of them says.
const SAID_MAX: u64 = 64 * 1024;

/// A process, and the pipe into which it speaks.
pub struct Speaker {
    child: Child,
    pipe: PipeReader,
}

impl Speaker {
    pub fn start(mut command: Command) -> std::io::Result<Speaker> {
        let (pipe, its) = std::io::pipe()?;
        command.stdout(its.try_clone()?).stderr(its);
        let child = command.spawn()?;
        Ok(Speaker { child, pipe })
    }

    /// What it said, once it has ended.
    pub fn ended(&mut self) -> std::io::Result<Option<String>> {
        match self.child.try_wait()? {
            None => Ok(None),
            Some(_) => self.rest().map(Some),
        }
    }

    fn rest(&mut self) -> std::io::Result<String> {
        let mut said = Vec::new();
        (&mut self.pipe).take(SAID_MAX).read_to_end(&mut said)?;
        Ok(String::from_utf8_lossy(&said).into_owned())
    }

    /// Until it closes its pipe, which it does with its end; false: it has not by then.
    fn speaks_until(&mut self, end: Instant, said: &mut Vec<u8>) -> std::io::Result<bool> {
        loop {
            let left = end.since(clock::now());
            let wait =
                Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
            let mut fds = [PollFd::from_borrowed_fd(self.pipe.as_fd(), PollFlags::IN)];
            match poll(&mut fds, Some(&wait)) {
                Ok(0) => return Ok(false),
                Ok(_) => {
                    let mut buffer = [0; 4096];
                    let len = self.pipe.read(&mut buffer)?;
                    said.extend_from_slice(&buffer[..len]);
                    if len == 0 {
                        return Ok(true);
                    }
                }
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
        let mut said = Vec::new();
        let spoke = speaker.speaks_until(end, &mut said);
        let whole = matches!(spoke, Ok(true));
        if !whole {
            let _ = speaker.child.kill();
        }
        self.0.push(speaker.child);
        self.tend();
        spoke?;
        Ok(whole.then(|| String::from_utf8_lossy(&said).into_owned()))
    }

    /// Takes leave of those that have ended.
    pub fn tend(&mut self) {
        self.0.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
    }
}
