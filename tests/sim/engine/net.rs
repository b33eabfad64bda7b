//! The links: UDP with loss, repetition and delay; serial lines with a baud rate, buffers, noise
//! and half frames; cuts by direction. Everything bad ends by itself at a set time.

use crate::options::{LinkOptions, Options};
use crate::rng::{MS, Rng};
use hafailover::wire::line::{encode_line, line_time};
use std::collections::{BTreeMap, VecDeque};

/// A direction of a link: link, from, to.
pub type Way = (usize, usize, usize);

/// Frames remembered for a replay.
const RECORDED: usize = 400;
/// What a tty keeps of what nobody reads (N_TTY_BUF_SIZE).
const TTY: usize = 4096;

#[derive(Default)]
pub struct Net {
    pub links: Vec<LinkOptions>,
    cut: BTreeMap<Way, u64>,
    stalled: BTreeMap<Way, u64>,
    kept: BTreeMap<Way, usize>,
    noisy: BTreeMap<Way, u64>,
    /// Frames as an eavesdropper has them: link, sender, bytes, when sent.
    pub recorded: VecDeque<(usize, usize, Vec<u8>, u64)>,
    perfect: bool,
}

/// What arrives where, and when.
pub struct Delivery {
    pub to: usize,
    pub at: u64,
    pub bytes: Vec<u8>,
    pub stale: bool,
}

impl Net {
    pub fn new(options: &Options) -> Net {
        Net { links: options.links.clone(), ..Net::default() }
    }

    pub fn serial(&self, link: usize) -> Option<u32> {
        self.links[link].baud
    }

    pub fn cut(&mut self, way: Way, until: u64) {
        let old = self.cut.entry(way).or_default();
        *old = (*old).max(until);
    }

    pub fn is_cut(&self, way: Way, t: u64) -> bool {
        self.cut.get(&way).is_some_and(|until| t < *until)
    }

    pub fn stall(&mut self, way: Way, until: u64) {
        self.stalled.insert(way, until);
        self.kept.insert(way, 0);
    }

    pub fn noise(&mut self, way: Way, until: u64) {
        self.noisy.insert(way, until);
    }

    /// From now on the links are as good as links get.
    pub fn heal(&mut self) {
        self.cut.clear();
        self.stalled.clear();
        self.noisy.clear();
        self.perfect = true;
    }

    pub fn send(&mut self, rng: &mut Rng, t: u64, way: Way, frame: &[u8]) -> Vec<Delivery> {
        if self.is_cut(way, t) {
            return Vec::new();
        }
        match self.serial(way.0) {
            Some(baud) => self.send_serial(rng, t, way, frame, baud),
            None => self.send_udp(rng, t, way, frame),
        }
    }

    fn send_udp(&mut self, rng: &mut Rng, t: u64, way: Way, frame: &[u8]) -> Vec<Delivery> {
        let link = &self.links[way.0];
        let mut out = Vec::new();
        let times = 1 + u64::from(!self.perfect && rng.chance(link.twice));
        for _ in 0..times {
            if !self.perfect && rng.chance(link.loss) {
                continue;
            }
            let slow = !self.perfect && rng.chance(link.slow);
            let delay = if slow { rng.ms(1, 400) } else { rng.range(MS / 10, 2 * MS) };
            let (to, bytes) = (way.2, frame.to_vec());
            out.push(Delivery { to, at: t + delay, bytes, stale: false });
        }
        out
    }

    fn send_serial(
        &mut self,
        rng: &mut Rng,
        t: u64,
        way: Way,
        frame: &[u8],
        baud: u32,
    ) -> Vec<Delivery> {
        let mut bytes = encode_line(frame);
        if self.noisy.get(&way).is_some_and(|until| t < *until) {
            match rng.below(3) {
                0 => bytes.truncate(rng.below(bytes.len())),
                1 => {
                    let at = rng.below(bytes.len());
                    bytes[at] ^= 1 << rng.below(8);
                }
                _ => bytes.insert(rng.below(bytes.len()), rng.next() as u8),
            }
        }
        let end = t + line_time(frame.len(), baud).as_nanos() as u64;
        let mut at = end;
        let mut stale = false;
        if let Some(until) = self.stalled.get(&way).filter(|until| t < **until) {
            let kept = self.kept.entry(way).or_default();
            *kept += bytes.len();
            if *kept > TTY {
                return Vec::new();
            }
            (at, stale) = (end.max(*until), true);
        }
        vec![Delivery { to: way.2, at, bytes, stale }]
    }

    pub fn record(&mut self, t: u64, link: usize, from: usize, frame: &[u8]) {
        if self.recorded.len() == RECORDED {
            self.recorded.pop_front();
        }
        self.recorded.push_back((link, from, frame.to_vec(), t));
    }
}
