//! What makes a group this group and no other, and what else its files say, as two numbers that
//! nodes compare. The recipes are part of the protocol: hafailover-protocol(7).

use super::target::Target;
use super::unit::{Assignment, UnitText};
use sha2::{Digest, Sha256};
use std::path::Path;

/// Of the target, its members' names, and where its mounts are: nodes that differ in it promise
/// each other nothing.
pub fn identity(target: &Target, text: &UnitText, members: &[(&str, Option<UnitText>)]) -> u32 {
    let mut sum = Sum::default();
    sum.add(&[&target.name.0]);
    sum.add(&["hard"]);
    target.hard.iter().for_each(|unit| sum.add(&[unit]));
    sum.add(&["soft"]);
    target.soft.iter().for_each(|unit| sum.add(&[unit]));
    let told = |a: &&Assignment| a.section != "Install" && !is_prose(&a.key);
    for line in text.assignments.iter().filter(told) {
        sum.line(line);
    }
    for (unit, text) in members {
        let Some(text) = text else { continue };
        for (section, key) in [("Mount", "What"), ("Mount", "Where"), ("Swap", "What")] {
            let said = text.last(section, key).filter(|a| !a.value.is_empty());
            said.into_iter().for_each(|a| sum.add(&[unit, key, &a.value]));
        }
        for word in subvolumes(text) {
            sum.add(&[unit, &word]);
        }
    }
    sum.end()
}

const OURS: [&str; 2] = ["hafailover-ip@", super::generator::RESERVE];

/// Of all else in the members' files, which an upgrade may change on one node after the other.
pub fn texts(members: &[(&str, Option<UnitText>)]) -> u32 {
    let mut sum = Sum::default();
    // Ours come with the package, and their instance names say all that an address or a disk is.
    let ours = |unit: &str| OURS.iter().any(|template| unit.starts_with(template));
    for (unit, text) in members.iter().filter(|(unit, _)| !ours(unit)) {
        sum.add(&[unit]);
        let lines = text.iter().flat_map(|t| &t.assignments).filter(|a| !is_prose(&a.key));
        lines.for_each(|line| sum.line(line));
    }
    sum.end()
}

/// The files of the members; `None`: there is none, or it cannot be read, which `check` and
/// systemd tell better.
pub fn members<'a>(root: &Path, target: &'a Target) -> Vec<(&'a str, Option<UnitText>)> {
    let all = target.hard.iter().chain(&target.soft);
    all.map(|unit| (unit.as_str(), UnitText::load(root, unit).ok().flatten())).collect()
}

fn is_prose(key: &str) -> bool {
    matches!(key, "Description" | "Documentation")
}

/// Another part of the same disk is another file system.
fn subvolumes(text: &UnitText) -> Vec<String> {
    let options = text.last("Mount", "Options").map(|a| a.value.as_str()).unwrap_or_default();
    let part = |o: &&str| ["subvol=", "subvolid=", "offset="].iter().any(|p| o.starts_with(p));
    options.split(',').filter(part).map(str::to_string).collect()
}

#[derive(Default)]
struct Sum(Sha256);

impl Sum {
    /// Each list of words ends where no word can.
    fn add(&mut self, words: &[&str]) {
        for word in words {
            self.0.update(word);
            self.0.update([0]);
        }
        self.0.update(b"\n");
    }

    fn line(&mut self, line: &Assignment) {
        let words: Vec<&str> = line.value.split_whitespace().collect();
        self.add(&[&line.section, &line.key, &words.join(" ")]);
    }

    fn end(self) -> u32 {
        let digest = self.0.finalize();
        u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]])
    }
}
