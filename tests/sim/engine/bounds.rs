//! Bounded: what must not grow stays in its limits, in every run.

use crate::rng::MS;
use crate::world::World;
use hafailover::core::record::Record;

/// Frames that a node sends on one link within a second. Five nodes that all start anew answer each
/// other's challenges at once, once a keepalive; recordings of old lives draw no more than that.
const FRAMES_MAX: u32 = 120;
/// A state file's record in its encoding: both slots have a fixed size on disk.
const RECORD_MAX: usize = 8_000;
/// Everything that a core holds, as its Debug text.
const CORE_MAX: usize = 40_000;

impl World {
    pub fn count_frame(&mut self, n: usize, link: usize) {
        let second = self.t / (1000 * MS);
        let known = self.rules.frames.entry((n, link)).or_default();
        *known = if known.0 == second { (second, known.1 + 1) } else { (second, 1) };
        let count = known.1;
        if count > FRAMES_MAX {
            self.broken("Bounded", n, &format!("{count} frames on link{link} in a second"));
        }
    }

    pub fn check_write(&mut self, n: usize, record: &Record) {
        if self.nodes[n].disk.is_writing() {
            self.broken("Bounded", n, "two writes of the state file at once");
        }
        let size = serde_json::to_vec(record).expect("a record is JSON").len();
        if size > RECORD_MAX {
            self.broken("Bounded", n, &format!("a record of {size} bytes"));
        }
    }

    pub fn check_size(&mut self) {
        for n in 0..self.nodes.len() {
            let size = self.core(n).map_or(0, |core| format!("{core:?}").len());
            if size > CORE_MAX {
                self.broken("Bounded", n, &format!("a core of {size} bytes in words"));
            }
        }
    }
}
