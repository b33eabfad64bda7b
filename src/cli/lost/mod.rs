//! `hafailover lost`: the guard. The daemon is lost for good, so its groups are stopped, each layer
//! verified, within a stated bound; what cannot be stopped ends, if so configured, in a forced
//! reboot: another node counts on one or the other. All groups: also of one that is no longer
//! enabled, and of one that nobody started for the cluster, the other node sees only the silence.
//! What it does it says to the other nodes as it goes (`voice`).

mod voice;

use crate::config;
use crate::config::accepted::{self, Accepted};
use crate::config::settings::Settings;
use crate::config::target;
use crate::core::name::GroupName;
use crate::core::policy::OnLost;
use crate::core::say::{Saying, What};
use crate::core::time::Instant;
use crate::core::{Event, StopError};
use crate::daemon::setup;
use crate::io::journal::{self, Journal, Names};
use crate::io::systemd::{Managed, Systemd};
use crate::io::{Input, clock, reset, token, watchdog};
use rustix::mm::{MlockAllFlags, mlockall};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::Duration;
use voice::{Speech, Voice};

/// Where the configuration cannot be read.
const BOUND: Duration = Duration::from_secs(30);
/// A disk that has not given the configuration after so long does not answer.
const READ: Duration = Duration::from_secs(5);
const FLUSH: Duration = Duration::from_millis(500);
/// The last words and the reset are done within so long after the bound.
const LAST: Duration = Duration::from_secs(1);

/// Stop all groups because the daemon is lost (started by hafailover-lost.service).
#[derive(Debug, clap::Args)]
pub struct Args {
    /// After the guard's end: reset the machine if it died at work (run by the unit itself)
    #[arg(long)]
    ended: bool,
}

/// What the guard goes by, read from a disk that may not answer.
struct Plan {
    on_lost: OnLost,
    bound: Duration,
    /// How long after a lease its group may still be on its way down; `None`: there are none.
    rest: Option<Duration>,
    names: Names,
    managed: BTreeMap<GroupName, Managed>,
    /// `None`: the settings or the keys cannot be read, so nothing is said to other nodes.
    speech: Option<Speech>,
}

impl Plan {
    fn blind() -> Plan {
        Plan {
            on_lost: OnLost::Reboot,
            bound: BOUND,
            rest: Some(Duration::ZERO),
            names: Names::default(),
            managed: BTreeMap::new(),
            speech: None,
        }
    }
}

/// `None`: it could not be read in time.
fn plan() -> Option<Plan> {
    let (sender, plan) = mpsc::channel();
    std::thread::spawn(move || drop(sender.send(read_plan())));
    plan.recv_timeout(READ).ok()
}

fn read_plan() -> Plan {
    let last = Accepted::load(Path::new(accepted::FILE)).unwrap_or_default();
    // What is held is held by the settings that were in force, whatever the file says now.
    let file = || config::load(Path::new(setup::CONFIG), &setup::hostname()).ok();
    let settings = match token::list().is_empty() {
        true => file().or_else(|| last.settings().ok()),
        false => last.settings().ok().or_else(file),
    };
    let bound = |s: &Settings| s.safety.guard_bound.saturating_sub(s.timing.deadtime);
    let rest = |s: &Settings| s.arbiter.as_ref().map(|a| a.times.most - a.times.lease);
    let names = settings.as_ref().map(|s| Names {
        nodes: s.nodes.iter().map(|n| n.name.clone()).collect(),
        links: Vec::new(),
        me: usize::from(s.me.0),
    });
    let mut targets = last.cover(&target::find(Path::new("/")));
    let known: Vec<GroupName> = targets.iter().map(|t| t.name.clone()).collect();
    // Disabled while it ran: its file is still there, or else what the daemon noted.
    let others = token::list().into_iter().filter(|name| !known.contains(name));
    let other = |n: GroupName| target::read(Path::new("/"), &n).ok().or_else(|| setup::noted(&n));
    targets.extend(others.filter_map(other));
    let speech = settings.as_ref().and_then(|s| Speech::read(s, &targets));
    let managed = |t: target::Target| (t.name, Managed { hard: t.hard, soft: t.soft });
    Plan {
        on_lost: settings.as_ref().map_or(OnLost::Reboot, |s| s.safety.on_lost),
        bound: settings.as_ref().map_or(BOUND, bound),
        rest: settings.as_ref().map_or(Some(Duration::ZERO), rest),
        names: names.unwrap_or_default(),
        managed: targets.into_iter().map(managed).collect(),
        speech,
    }
}

pub fn run(args: Args) -> ExitCode {
    if args.ended {
        return ended();
    }
    let began = clock::now();
    // From here on no disk is needed to get to the end.
    let _ = mlockall(MlockAllFlags::CURRENT);
    let plan = plan();
    let unread = plan.is_none();
    let Plan { on_lost, bound, rest, names, managed, speech } = plan.unwrap_or_else(Plan::blind);
    let journal = Journal::spawn(Path::new(journal::SOCKET), names).ok();
    let say = |what: What, group: &GroupName, words: String| {
        super::tell(format!("hafailover lost: {group}: {words}"));
        if let Some(journal) = &journal {
            journal.say(&Saying::new(what, words).group(group));
        }
    };
    let held = token::list();
    let ends = rest.and_then(|rest| leases_end(&held, rest)).unwrap_or(Instant(u64::MAX));
    let ends = ends.min(began + bound);
    let voice = speech.and_then(|s| s.begin(ends + LAST, managed.keys(), &held));
    for group in &held {
        let within = ends.since(began).as_secs();
        let words = format!("the daemon is lost; it is stopped here within {within} s");
        say(What::GuardStops, group, words);
    }
    super::tell("hafailover lost: all groups are stopped, also members that run without a token");
    let left = match stop_all(&held, managed, ends, voice.as_ref()) {
        Ok(results) => results,
        Err(e) => {
            held.iter().map(|g| (g.clone(), format!("nothing could be asked: {e}"))).collect()
        }
    };
    for group in held.iter().filter(|g| !left.contains_key(g)) {
        say(What::GuardDone, group, "verified stopped".into());
    }
    for (group, why) in &left {
        let why = if unread { "the disk with its members does not answer" } else { why };
        let end = match on_lost {
            OnLost::Reboot => "this machine is reset now",
            OnLost::Leave if watchdog::counts() => "the watchdog resets this machine",
            OnLost::Leave => "it is left as it is (on-lost = \"leave\"): no other node may take it",
        };
        say(What::GuardDone, group, format!("{why}; {end}"));
    }
    if let Some(journal) = &journal {
        journal.flush(FLUSH);
    }
    let resets = !left.is_empty() && on_lost == OnLost::Reboot;
    // Who was not told waits for the whole bound, also when this machine is reset before it.
    let latest = if resets { ends } else { Instant(u64::MAX) };
    voice.into_iter().for_each(|v| v.end(latest));
    match left.is_empty() {
        true => nothing_left(),
        false if resets => reset(),
        false => ExitCode::from(1),
    }
}

/// Nothing that a hardware watchdog would guard.
fn nothing_left() -> ExitCode {
    if watchdog::counts()
        && let Err(error) = watchdog::end()
    {
        super::tell(format!("hafailover lost: the watchdog: {error}"));
    }
    ExitCode::SUCCESS
}

/// When others may start the first of these, on leases that this node no longer renews.
fn leases_end(held: &[GroupName], rest: Duration) -> Option<Instant> {
    let of = |name: &GroupName| {
        let epoch = token::read(name).or(token::read_closed(name))?;
        Some(token::lasts(name, epoch)? + rest)
    };
    held.iter().filter_map(of).min()
}

/// What could not be stopped, and why. Where nothing was held, not to know is no reason to reset.
fn stop_all(
    held: &[GroupName],
    managed: BTreeMap<GroupName, Managed>,
    until: Instant,
    voice: Option<&Voice>,
) -> std::io::Result<BTreeMap<GroupName, String>> {
    let (sender, mut inbox) = tokio::sync::mpsc::channel(1024);
    let systemd = Systemd::spawn(sender)?;
    let groups: BTreeSet<GroupName> = held.iter().chain(managed.keys()).cloned().collect();
    systemd.manage(managed);
    let mut left: BTreeMap<GroupName, String> =
        groups.iter().map(|g| (g.clone(), "it did not stop in time".to_string())).collect();
    for group in &groups {
        systemd.stop(group.clone(), 0);
    }
    let mut waiting = groups;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let _ = tokio::time::timeout(until.since(clock::now()), async {
            while !waiting.is_empty() {
                let Some(input) = inbox.recv().await else { return };
                let Input::Event(Event::Stopped { group, result, .. }) = input else { continue };
                waiting.remove(&group);
                match result {
                    Ok(()) => {
                        drop(left.remove(&group));
                        voice.into_iter().for_each(|v| v.stopped(&group));
                    }
                    Err(StopError::Unknown { .. }) if !held.contains(&group) => {
                        drop(left.remove(&group));
                    }
                    Err(e) => drop(left.insert(group, e.words())),
                }
            }
        })
        .await;
    });
    Ok(left)
}

/// Nobody stops any more what a guard held that died at work: others count on its bound.
fn ended() -> ExitCode {
    if token::list().is_empty() {
        return nothing_left();
    }
    if !died(&std::env::var("EXIT_CODE").unwrap_or_default()) {
        return ExitCode::SUCCESS;
    }
    match plan().map_or(OnLost::Reboot, |plan| plan.on_lost) {
        OnLost::Reboot => {
            super::tell("hafailover lost: the guard died at work; this machine is reset now");
            reset()
        }
        OnLost::Leave => {
            super::tell(
                "hafailover lost: the guard died at work; what it held is left as it is (on-lost = \
                 \"leave\"): systemctl start hafailover goes on with it",
            );
            ExitCode::from(1)
        }
    }
}

/// By a signal (EXIT_CODE: systemd.exec(5)), whoever sent it.
fn died(code: &str) -> bool {
    matches!(code, "killed" | "dumped")
}

/// Ends the machine's life at once.
fn reset() -> ExitCode {
    super::tell(format!("hafailover lost: {}", reset::now()));
    ExitCode::from(1)
}

#[cfg(test)]
mod tests {
    use super::died;

    #[test]
    fn only_a_death_is_one() {
        assert!(died("killed") && died("dumped"));
        assert!(!died("exited"), "it has said itself what is left");
        assert!(!died(""), "it was never started");
    }
}
