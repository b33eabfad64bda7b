//! This node's place in sanlock's lockspace, which it takes in the background: that lasts for
//! seconds, and after a crash for minutes. It is kept when the daemon ends.

use super::client::{Answer, Space, missing, read};
use super::process::Speaker;
use crate::core::time::{Duration, Instant};
use crate::io::clock;

/// Between two looks: sanlock may have been restarted.
const LOOK: Duration = Duration::from_secs(5);

pub struct Lockspace {
    space: Space,
    io_timeout: u32,
    /// What is under way, and when it began.
    now: Option<(Doing, Speaker, Instant)>,
    next: Instant,
    /// Why this node has no place there.
    trouble: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Doing {
    Ask,
    Join,
}

impl Lockspace {
    pub fn new(space: Space, io_timeout: u32) -> Lockspace {
        let next = Instant::default();
        Lockspace { space, io_timeout, now: None, next, trouble: None }
    }

    /// Goes on with what is under way, and begins what is due. Does not wait.
    pub fn tend(&mut self) {
        let Some((doing, speaker, _)) = &mut self.now else {
            if clock::now() >= self.next {
                self.begin(Doing::Ask);
            }
            return;
        };
        let (doing, said) = (*doing, speaker.ended());
        let answer = match said {
            Ok(None) => return,
            Ok(Some(said)) => read(&said),
            Err(error) => Answer::Failed(error.to_string()),
        };
        self.now = None;
        self.next = clock::now() + LOOK;
        match (answer, doing) {
            (Answer::NotJoined, Doing::Ask) => self.begin(Doing::Join),
            (Answer::Done | Answer::Joined, _) => self.trouble = None,
            (Answer::Failed(why), _) => self.trouble = Some(why),
            (Answer::NotJoined | Answer::Busy, _) => {
                self.trouble = Some("it does not let this node join now".into());
            }
        }
    }

    fn begin(&mut self, doing: Doing) {
        let (at, timeout) = (self.space.lockspace(), self.io_timeout.to_string());
        let command = match doing {
            Doing::Ask => self.space.client(&["inq_lockspace", "-s", &at]),
            Doing::Join => self.space.client(&["add_lockspace", "-s", &at, "-o", &timeout]),
        };
        match Speaker::start(command) {
            Ok(speaker) => self.now = Some((doing, speaker, clock::now())),
            Err(error) => {
                self.trouble = Some(missing(&error));
                self.next = clock::now() + LOOK;
            }
        }
    }

    pub fn is_joining(&self) -> bool {
        matches!(self.now, Some((Doing::Join, ..)))
    }

    /// Why nothing can be claimed now.
    pub fn trouble(&self) -> String {
        match (&self.now, &self.trouble) {
            (Some((Doing::Join, _, since)), _) => format!(
                "joining the lockspace for {} s: it takes seconds, and up to {} s after a crash",
                clock::now().since(*since).as_secs(),
                self.io_timeout * 8 + 60
            ),
            (_, Some(why)) => why.clone(),
            (_, None) => "not in the lockspace yet".into(),
        }
    }
}
