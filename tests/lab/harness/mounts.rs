//! Who has the shared disk mounted, as the nodes' own mount tables say it, looked at from outside
//! every few milliseconds: a second mount that writes nothing is seen as well.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const EVERY: Duration = Duration::from_millis(10);
/// Where every group of the stories has the shared disk.
const AT: &str = "/srv";

/// Looks in the background until it is dropped.
pub struct Mounts {
    watch: Arc<Mutex<Watch>>,
    /// Nothing is ever sent on it: the thread ends when it is gone.
    _end: Sender<()>,
}

/// What was seen since it was last forgotten.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// Each look at which two had it counts for the time since the look before.
    pub both: Duration,
    pub looks: u64,
    /// The longest time between two looks: what was shorter may have gone unseen.
    pub blind: Duration,
}

struct Watch {
    /// Where the processes of each node's PID 1 are listed, if it has power.
    nodes: BTreeMap<usize, PathBuf>,
    last: Instant,
    seen: Seen,
}

impl Mounts {
    pub fn new() -> Mounts {
        let (nodes, seen) = (BTreeMap::new(), Seen::default());
        let watch = Arc::new(Mutex::new(Watch { nodes, last: Instant::now(), seen }));
        let (end, ended) = channel::<()>();
        let looked_at = watch.clone();
        std::thread::spawn(move || {
            while ended.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
                looked_at.lock().expect("whole").look();
            }
        });
        Mounts { watch, _end: end }
    }

    pub fn plug(&self, n: usize, processes: PathBuf) {
        self.watch.lock().expect("whole").nodes.insert(n, processes);
    }

    /// What a machine without power had mounted is not mounted any more, although its processes
    /// are cleared away some time after that.
    pub fn unplug(&self, n: usize) {
        self.watch.lock().expect("whole").nodes.remove(&n);
    }

    /// Fails if the thread has: nobody else would notice that nothing is looked at.
    pub fn seen(&self) -> Seen {
        self.watch.lock().expect("whole").seen
    }

    pub fn forget(&self) {
        let mut watch = self.watch.lock().expect("whole");
        (watch.seen, watch.last) = (Seen::default(), Instant::now());
    }
}

impl Watch {
    fn look(&mut self) {
        let now = Instant::now();
        let since = now - std::mem::replace(&mut self.last, now);
        self.seen.looks += 1;
        self.seen.blind = self.seen.blind.max(since);
        let mut have: Vec<&PathBuf> = self.nodes.values().filter(|p| mounted(p)).collect();
        if have.len() > 1 {
            // Between the two answers this thread may have waited for its turn, and the disk have
            // gone from one node to the other. Who has it now as well had it at one time.
            have.retain(|p| mounted(p));
        }
        if have.len() > 1 {
            self.seen.both += since;
        }
    }
}

/// Whether the node with these processes has it; a node that is off has nothing.
fn mounted(processes: &Path) -> bool {
    let processes = std::fs::read_to_string(processes).unwrap_or_default();
    let Some(first) = processes.lines().next() else { return false };
    let table = std::fs::read_to_string(format!("/proc/{first}/mountinfo")).unwrap_or_default();
    table.lines().any(|line| line.split(' ').nth(4) == Some(AT))
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Seen { both, looks, blind } = self;
        write!(f, "both had it mounted for {both:?} ({looks} looks, at most {blind:?} apart)")
    }
}
