//! What happened, one line an event with a column a node, and a hash over all of it.

/// Columns: `-` off, `d` no daemon, `z` frozen, `*` up; then a letter a group: `U` unknown, `.`
/// stopped, `c` claimed, `>` starting, `R` running, `x` stopping, `!` stuck; a capital `T` after it
/// when something of it is really here and it should not be.
#[derive(Default)]
pub struct Trace {
    pub hash: u64,
    pub keep: bool,
    pub lines: Vec<String>,
}

impl Trace {
    pub fn mix(&mut self, n: u64) {
        self.hash = (self.hash ^ n).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
    }

    pub fn words(&mut self, words: &str) {
        for byte in words.bytes() {
            self.mix(u64::from(byte));
        }
    }

    pub fn line(&mut self, t: u64, columns: &str, node: usize, words: &str) {
        self.words(words);
        if self.keep {
            let ms = t / 1_000_000;
            let n = node + 1;
            self.lines.push(format!("{:>3}.{:03} |{columns}| n{n} {words}", ms / 1000, ms % 1000));
        }
    }
}
