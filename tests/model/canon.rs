//! One number for a value and all that differ from it only by a shift of time. Reads the derived
//! `Debug` text as it is written, because there the fields have names: instants count from the
//! moment of the look, running numbers that nothing is decided by are left out.

use std::fmt::{Debug, Write};

/// Older than every bound in the settings: how much older makes no difference.
pub const OLD: i64 = 2_500_000;

/// What a number in the text is counted from.
#[derive(Clone, Copy, Default)]
pub struct Origin {
    /// Nanoseconds.
    pub now: u64,
    /// The newest job's number.
    pub jobs: u64,
}

pub fn canon(value: &impl Debug, origin: Origin) -> u64 {
    let mut text = Text { origin, hash: SEED, mode: Mode::Plain, slept: 0, word: String::new() };
    write!(text, "{value:?}").expect("writing to a hash does not fail");
    text.hash
}

/// Mixes numbers into one.
pub fn mix(hash: u64, with: u64) -> u64 {
    let x = (hash ^ with).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (x ^ (x >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9).rotate_left(31)
}

pub const SEED: u64 = 0x6A09_E667_F3BC_C908;

/// How long before `now`, in microseconds, with all that is long ago alike.
pub fn ago(now: u64, then: u64) -> u64 {
    let micros = (now as i64 - then as i64).div_euclid(1000);
    micros.min(OLD) as u64
}

#[derive(PartialEq)]
enum Mode {
    Plain,
    /// Nothing counts until the value ends.
    Skip,
    /// The value of `slept`.
    Slept,
    Instant,
    Lived,
    Job,
    /// An instant, or a span that is only told to people.
    Since,
}

struct Text {
    origin: Origin,
    hash: u64,
    mode: Mode,
    slept: u64,
    word: String,
}

impl Text {
    fn put(&mut self, piece: &str) {
        for chunk in piece.as_bytes().chunks(8) {
            let mut eight = [0; 8];
            eight[..chunk.len()].copy_from_slice(chunk);
            self.hash = mix(self.hash, u64::from_le_bytes(eight));
        }
    }
}

impl Write for Text {
    fn write_str(&mut self, piece: &str) -> std::fmt::Result {
        let ends = matches!(piece, ", " | " }" | ")" | "]" | "}");
        match self.mode {
            Mode::Skip if ends => self.mode = Mode::Plain,
            Mode::Skip => return Ok(()),
            Mode::Slept if ends => {
                self.slept = nanos(&self.word);
                self.mode = Mode::Plain;
            }
            Mode::Slept => {
                self.word += piece.trim_start_matches(": ");
                return Ok(());
            }
            Mode::Instant | Mode::Lived | Mode::Job if piece.starts_with(digit) => {
                let number: u64 = piece.parse().expect("an instant is a number");
                let value = match self.mode {
                    Mode::Job => self.origin.jobs.wrapping_sub(number),
                    Mode::Lived => ago(self.origin.now - self.slept, number),
                    _ => ago(self.origin.now, number),
                };
                self.hash = mix(self.hash, value);
                self.mode = Mode::Plain;
                return Ok(());
            }
            Mode::Since if piece.starts_with(digit) => {
                self.mode = Mode::Skip;
                return Ok(());
            }
            Mode::Since if ends => self.mode = Mode::Plain,
            _ => {}
        }
        match piece {
            "Instant" => self.mode = Mode::Instant,
            "Lived" => self.mode = Mode::Lived,
            "seq" | "serial" | "tickets" | "ticket" | "jobs" | "detect" | "age" => {
                self.mode = Mode::Skip;
            }
            "id" => self.mode = Mode::Job,
            "since" => self.mode = Mode::Since,
            "slept" => {
                self.mode = Mode::Slept;
                self.word.clear();
            }
            _ => {}
        }
        self.put(piece);
        Ok(())
    }
}

fn digit(c: char) -> bool {
    c.is_ascii_digit()
}

/// A `Duration` as `Debug` shows it.
fn nanos(word: &str) -> u64 {
    let (number, unit) = word.split_at(word.find(|c: char| c != '.' && !digit(c)).unwrap_or(0));
    let scale = match unit {
        "s" => 1e9,
        "ms" => 1e6,
        "µs" => 1e3,
        "ns" => 1.0,
        other => panic!("no unit of time: {other:?} in {word:?}"),
    };
    (number.parse::<f64>().expect("a number") * scale).round() as u64
}

/// A canonical number must not see the time of day, and must see what decides.
pub fn check() {
    use hafailover::core::time::{Duration, Instant};
    #[derive(Debug)]
    struct Sample {
        slept: Duration,
        at: Option<Instant>,
        seq: u64,
        why: &'static str,
    }
    let at = |now: u64, then: u64, seq, why| {
        let value =
            Sample { slept: Duration::from_millis(1500), at: Some(Instant(then)), seq, why };
        assert_eq!(nanos(&format!("{:?}", value.slept)), 1_500_000_000);
        let _ = (value.at, value.seq, value.why);
        canon(&value, Origin { now, jobs: 0 })
    };
    assert_eq!(at(5_000_000, 4_000_000, 1, "a"), at(9_000_000, 8_000_000, 2, "a"));
    assert_ne!(at(5_000_000, 4_000_000, 1, "a"), at(9_000_000, 7_000_000, 1, "a"));
    assert_ne!(at(5_000_000, 4_000_000, 1, "a"), at(5_000_000, 4_000_000, 1, "b"));
}
