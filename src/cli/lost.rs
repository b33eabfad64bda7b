//! `hafailover lost`: the guard. The daemon is lost for good, so its groups are stopped, each layer
//! verified, within a stated bound; what cannot be stopped ends, if so configured, in a forced
//! reboot: another node counts on one or the other. All groups: also of one that is no longer
//! enabled, and of one that nobody started for the cluster, the other node sees only the silence.

use crate::config;
use crate::config::target;
use crate::core::name::GroupName;
use crate::core::policy::OnLost;
use crate::core::say::{Saying, What};
use crate::core::{Event, StopError};
use crate::daemon::setup;
use crate::io::journal::{self, Journal, Names};
use crate::io::systemd::{Managed, Systemd};
use crate::io::{Input, token};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// Where the configuration cannot be read.
const BOUND: Duration = Duration::from_secs(30);
const FLUSH: Duration = Duration::from_millis(500);

/// Stop all groups because the daemon is lost (started by hafailover-lost.service).
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(_args: Args) -> ExitCode {
    let settings = config::load(Path::new(setup::CONFIG), &setup::hostname()).ok();
    let safety = settings.as_ref().map(|s| s.safety.clone());
    let deadtime = settings.as_ref().map(|s| s.timing.deadtime).unwrap_or_default();
    let on_lost = safety.as_ref().map_or(OnLost::Reboot, |s| s.on_lost);
    let bound = safety.map_or(BOUND, |s| s.guard_bound.saturating_sub(deadtime));
    let names = settings.map(|s| Names {
        nodes: s.nodes.iter().map(|n| n.name.clone()).collect(),
        links: Vec::new(),
        me: usize::from(s.me.0),
    });
    let journal = Journal::spawn(Path::new(journal::SOCKET), names.unwrap_or_default()).ok();
    let say = |what: What, group: &GroupName, words: String| {
        eprintln!("hafailover lost: {group}: {words}");
        if let Some(journal) = &journal {
            journal.say(&Saying::new(what, words).group(group));
        }
    };
    let held = token::list();
    for group in &held {
        let words = format!("the daemon is lost; it is stopped here within {} s", bound.as_secs());
        say(What::GuardStops, group, words);
    }
    let managed = managed(&held);
    let left = match stop_all(&held, &managed, bound) {
        Ok(results) => results,
        Err(e) => {
            held.iter().map(|g| (g.clone(), format!("nothing could be asked: {e}"))).collect()
        }
    };
    for group in held.iter().filter(|g| !left.contains_key(g)) {
        say(What::GuardDone, group, "verified stopped".into());
    }
    for (group, why) in &left {
        let end = match on_lost {
            OnLost::Reboot => "this machine is reset now",
            OnLost::Leave => "it is left as it is (on-lost = \"leave\"): no other node may take it",
        };
        say(What::GuardDone, group, format!("{why}; {end}"));
    }
    if let Some(journal) = &journal {
        journal.flush(FLUSH);
    }
    match (left.is_empty(), on_lost) {
        (true, _) => ExitCode::SUCCESS,
        (false, OnLost::Leave) => ExitCode::from(1),
        (false, OnLost::Reboot) => reset(),
    }
}

/// Every group that may run here with its members; of one without a file, nothing is known.
fn managed(held: &[GroupName]) -> BTreeMap<GroupName, Option<Managed>> {
    let (mut targets, _) = target::find(Path::new("/"));
    targets.extend(held.iter().filter_map(|g| target::read(Path::new("/"), g).ok()));
    let known = |t: target::Target| (t.name, Some(Managed { hard: t.hard, soft: t.soft }));
    let held = held.iter().map(|g| (g.clone(), None));
    held.chain(targets.into_iter().map(known)).collect()
}

/// What could not be stopped, and why. Where nothing was held, not to know is no reason to reset.
fn stop_all(
    held: &[GroupName],
    groups: &BTreeMap<GroupName, Option<Managed>>,
    bound: Duration,
) -> std::io::Result<BTreeMap<GroupName, String>> {
    let (sender, mut inbox) = tokio::sync::mpsc::channel(1024);
    let systemd = Systemd::spawn(sender)?;
    let known = groups.iter().filter_map(|(g, m)| Some((g.clone(), m.clone()?)));
    systemd.manage(known.collect());
    let mut waiting: BTreeSet<GroupName> = groups.keys().cloned().collect();
    let mut left: BTreeMap<GroupName, String> =
        groups.keys().map(|g| (g.clone(), "it did not stop in time".to_string())).collect();
    for group in groups.keys() {
        systemd.stop(group.clone(), 0);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let _ = tokio::time::timeout(bound, async {
            while !waiting.is_empty() {
                let Some(input) = inbox.recv().await else { return };
                let Input::Event(Event::Stopped { group, result, .. }) = input else { continue };
                waiting.remove(&group);
                match result {
                    Ok(()) => drop(left.remove(&group)),
                    Err(StopError::Unknown { .. }) if !held.contains(&group) => {
                        drop(left.remove(&group));
                    }
                    Err(e) => drop(left.insert(group, format!("{e:?}"))),
                }
            }
        })
        .await;
    });
    Ok(left)
}

/// Ends the machine's life at once, as reboot(2) does without sync: a disk that hangs would hold
/// up anything gentler.
fn reset() -> ExitCode {
    let error = rustix::system::reboot(rustix::system::RebootCommand::Restart);
    eprintln!("hafailover lost: the reset failed: {error:?}");
    ExitCode::from(1)
}
