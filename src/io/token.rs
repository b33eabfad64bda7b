//! Tokens: the file that lets a group's members start (`AssertPathExists=`) and that tells a new
//! daemon what the last one owned. While a group stops, its token lies where no gate looks, so that
//! nothing starts any more, and yet whoever comes next knows that the group is held until its stop
//! is verified. A token names the boot it was written in, and is removed in a soft-reboot. Beside
//! it lie the names of the group's members: a group whose files are gone is held until these are
//! stopped.

use crate::core::Proof;
use crate::core::name::{Epoch, GroupName, NodeId};
use crate::core::time::Instant;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::path::PathBuf;

/// Where the tokens of this machine are.
pub const DIR: &str = "/run/hafailover/owned";
/// Where the tokens of groups are that are held but may not start: their stop has begun.
const CLOSED: &str = "/run/hafailover/stopping";

/// Where the members of these groups are.
const MEMBERS: &str = "/run/hafailover/members";
/// By what each is held.
const PROOFS: &str = "/run/hafailover/proof";
/// Until when each may go on: `COUNTER NODE BOOT UNTIL`, nanoseconds of CLOCK_BOOTTIME.
const LASTS: &str = "/run/hafailover/lasts";

fn path(group: &GroupName) -> PathBuf {
    PathBuf::from(DIR).join(&group.0)
}

fn closed_path(group: &GroupName) -> PathBuf {
    PathBuf::from(CLOSED).join(&group.0)
}

pub fn write(group: &GroupName, epoch: Epoch) -> std::io::Result<()> {
    // To close it later takes no room any more.
    std::fs::create_dir_all(CLOSED)?;
    put(DIR, group, format!("{} {} {:016x}\n", epoch.counter, epoch.node.0, boot()))
}

#[derive(Serialize, Deserialize)]
struct Kept {
    boot: u64,
    epoch: Epoch,
    proof: Proof,
}

/// Keeps by what the group is held. Only shown to people: what cannot be kept is not known later.
pub fn prove(group: &GroupName, epoch: Epoch, proof: &Proof) {
    let kept = Kept { boot: boot(), epoch, proof: proof.clone() };
    let text = serde_json::to_string(&kept).unwrap_or_default();
    let path = PathBuf::from(PROOFS).join(&group.0);
    let _ = std::fs::create_dir_all(PROOFS).and_then(|()| std::fs::write(path, text));
}

/// By what it is held by that epoch, if that was kept in this boot.
pub fn proof(group: &GroupName, epoch: Epoch) -> Option<Proof> {
    let text = std::fs::read_to_string(PathBuf::from(PROOFS).join(&group.0)).ok()?;
    let kept: Kept = serde_json::from_str(&text).ok()?;
    (kept.boot == boot() && kept.epoch == epoch).then_some(kept.proof)
}

/// Until when the owner by this epoch may go on. What cannot be written leaves the earlier time, or
/// none, and both are on the safe side.
pub fn last(group: &GroupName, epoch: Epoch, until: Instant) -> std::io::Result<()> {
    let (Epoch { counter, node }, boot) = (epoch, boot());
    put(LASTS, group, format!("{counter} {} {boot:016x} {}\n", node.0, until.0))
}

/// Until when the owner by that epoch may go on, if it was said in this boot.
pub fn lasts(group: &GroupName, epoch: Epoch) -> Option<Instant> {
    let text = std::fs::read_to_string(PathBuf::from(LASTS).join(&group.0)).ok()?;
    let (token, until) = text.trim_end().rsplit_once(' ')?;
    let until = until.parse().ok().map(Instant)?;
    (parse(token, boot()) == Some(epoch)).then_some(until)
}

/// Remembers what is to be stopped before the group is released.
pub fn note(group: &GroupName, hard: &[String], soft: &[String]) -> std::io::Result<()> {
    put(MEMBERS, group, format!("{}\n{}\n", hard.join(" "), soft.join(" ")))
}

/// Hard and soft members of a group that is held, as they were last.
pub fn members(group: &GroupName) -> Option<(Vec<String>, Vec<String>)> {
    let text = std::fs::read_to_string(PathBuf::from(MEMBERS).join(&group.0)).ok()?;
    let mut lines = text.lines().map(|l| l.split(' ').filter(|w| !w.is_empty()));
    let mut words = || lines.next().map(|words| words.map(str::to_string).collect());
    Some((words()?, words()?)).filter(|(hard, _): &(Vec<String>, _)| !hard.is_empty())
}

/// All of it, or what was there before.
fn put(dir: &str, group: &GroupName, text: String) -> std::io::Result<()> {
    std::fs::create_dir_all(dir)?;
    let dir = PathBuf::from(dir);
    let new = dir.join(format!(".{}.new", group.0));
    let written = std::fs::write(&new, text);
    // What there was of room is given back.
    written.inspect_err(|_| drop(std::fs::remove_file(&new)))?;
    std::fs::rename(new, dir.join(&group.0))
}

/// The epoch in the token; `None`: there is none, or it is of an earlier boot.
pub fn read(group: &GroupName) -> Option<Epoch> {
    parse(&std::fs::read_to_string(path(group)).ok()?, boot())
}

/// The same of a group whose stop has begun and was not verified.
pub fn read_closed(group: &GroupName) -> Option<Epoch> {
    parse(&std::fs::read_to_string(closed_path(group)).ok()?, boot())
}

/// Whether there is a token of this boot, open or closed.
pub fn held(group: &GroupName) -> bool {
    read(group).or(read_closed(group)).is_some()
}

/// Nothing of the group can start any more; it stays held.
pub fn close(group: &GroupName) -> std::io::Result<()> {
    std::fs::create_dir_all(CLOSED)?;
    but_for_missing(std::fs::rename(path(group), closed_path(group)))
}

/// The stop of the group is verified.
pub fn remove(group: &GroupName) -> std::io::Result<()> {
    but_for_missing(std::fs::remove_file(path(group)))?;
    let _ = std::fs::remove_file(PathBuf::from(PROOFS).join(&group.0));
    let _ = std::fs::remove_file(PathBuf::from(LASTS).join(&group.0));
    but_for_missing(std::fs::remove_file(closed_path(group)))?;
    but_for_missing(std::fs::remove_file(PathBuf::from(MEMBERS).join(&group.0)))
}

fn but_for_missing(result: std::io::Result<()>) -> std::io::Result<()> {
    match result {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// All groups that are held here.
pub fn list() -> Vec<GroupName> {
    let entries = [DIR, CLOSED].into_iter().filter_map(|d| std::fs::read_dir(d).ok());
    let names = entries.flatten().flatten().filter_map(|e| e.file_name().into_string().ok());
    let names: BTreeSet<String> = names.filter(|n| !n.starts_with('.')).collect();
    names.into_iter().map(GroupName).collect()
}

/// This life of PID 1: the kernel's boot id and PID 1's start time (proc_pid_stat(5), field 22). A
/// soft-reboot changes neither: after one, tmpfiles.d(5) has removed what is here.
pub fn boot() -> u64 {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let stat = std::fs::read_to_string("/proc/1/stat").unwrap_or_default();
    let after = stat.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
    let start = after.split_whitespace().nth(19).unwrap_or_default();
    let digest = Sha256::new().chain_update(id.trim()).chain_update(" ").chain_update(start);
    u64::from_be_bytes(digest.finalize()[..8].try_into().expect("a digest is longer"))
}

fn parse(text: &str, boot: u64) -> Option<Epoch> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let [counter, node, life] = words[..] else { return None };
    if u64::from_str_radix(life, 16).ok()? != boot {
        return None;
    }
    Some(Epoch { counter: counter.parse().ok()?, node: NodeId(node.parse().ok()?) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_of_another_life_does_not_count() {
        let epoch = Epoch { counter: 7, node: NodeId(1) };
        assert_eq!(parse("7 1 00000000000000ff\n", 255), Some(epoch));
        assert_eq!(parse("7 1 00000000000000ff\n", 254), None);
        assert_eq!(parse("rubbish", 255), None);
    }
}
