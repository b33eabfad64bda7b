//! What systemd and logind tell by themselves: units that change, jobs that are not ours, reloads,
//! the machine going down. Holds the connection and makes it anew when it is lost.

use super::Shared;
use super::bus::{self, Told};
use super::hand::Job;
use crate::core::Event;
use crate::core::name::GroupName;
use crate::io::{Input, clock};
use futures_util::FutureExt;
use std::rc::Rc;
use std::time::Duration;
use zbus::OwnedObjectPath;

const RECONNECT: Duration = Duration::from_millis(200);
/// On the private socket, the bus is looked for again after so long.
const BACK_TO_BUS: Duration = Duration::from_secs(5);

/// So many units' last jobs are remembered; what is forgotten counts as never done.
const ENDED_MAX: usize = 4096;

pub async fn listen(shared: Rc<Shared>) {
    let mut next = None;
    loop {
        let connected = match next.take() {
            Some(both) => Ok(both),
            None => bus::connect().await,
        };
        let Ok((new, mut signals)) = connected else {
            *shared.bus.borrow_mut() = None;
            tokio::time::sleep(RECONNECT).await;
            continue;
        };
        if shared.inhibitor.borrow().is_none() && !shared.shutting_down.get() {
            let inhibitor = new.inhibit_shutdown().await;
            *shared.inhibitor.borrow_mut() = inhibitor;
        }
        *shared.bus.borrow_mut() = Some(new.clone());
        tokio::task::spawn_local(super::hold(shared.clone()));
        let mine = shared.clone();
        tokio::task::spawn_local(async move { super::awake::lock(&mine).await });
        all_changed(&shared);
        tokio::select! {
            // What is in is heard before the connection is left.
            biased;
            // Calls go to a name, whoever has it: they wait for a lost connection only.
            good = follow(&shared, &mut signals) => if !good { *shared.bus.borrow_mut() = None },
            () = silent(&shared, &new) => *shared.bus.borrow_mut() = None,
            both = back_to_bus(), if new.is_private() => next = Some(both),
        }
    }
}

/// Looks for the bus until it is there, while the private socket is read and asked.
async fn back_to_bus() -> (bus::Bus, bus::Signals) {
    loop {
        tokio::time::sleep(BACK_TO_BUS).await;
        if let Ok(both) = bus::to_bus().await {
            return both;
        }
    }
}

/// Ends when a call was not answered and the bus does not answer either.
async fn silent(shared: &Shared, bus: &bus::Bus) {
    // What went unanswered before this connection says nothing about it.
    let _ = shared.unanswered.notified().now_or_never();
    loop {
        shared.unanswered.notified().await;
        if !bus.answers().await {
            return;
        }
    }
}

/// Everything may have changed: read it all again.
fn all_changed(shared: &Shared) {
    shared.known.borrow_mut().forget();
    shared.changed.notify_waiters();
    let names: Vec<GroupName> = shared.groups.borrow().keys().cloned().collect();
    names.iter().for_each(|name| shared.mark(name));
}

/// Until the connection is lost (false), or somebody else is to be believed (true).
async fn follow(shared: &Rc<Shared>, signals: &mut bus::Signals) -> bool {
    while let Some(told) = signals.next().await {
        let message = match told {
            Told::Signal(message) => message,
            Told::Mark(mark) => {
                shared.told_to.set(mark.get());
                shared.changed.notify_waiters();
                continue;
            }
        };
        let header = message.header();
        let member = header.member().map(|m| m.to_string()).unwrap_or_default();
        let path = header.path().map(|p| p.to_string()).unwrap_or_default();
        let body = message.body();
        match member.as_str() {
            "PropertiesChanged" => {
                let body: Result<(String, bus::Properties, Vec<String>), _> = body.deserialize();
                if let Ok((_, changed, _)) = body {
                    target_went(shared, &path, &changed);
                }
                unit_changed(shared, &path);
            }
            "JobRemoved" => {
                let job: Result<(u32, OwnedObjectPath, String, String), _> = body.deserialize();
                if let Ok((id, _, unit, result)) = job {
                    job_removed(shared, id, unit, result);
                }
            }
            // Also at its beginning: what is asked from then on is answered when it is over.
            "Reloading" => {
                all_changed(shared);
                if body.deserialize::<bool>() == Ok(false) {
                    let _ = shared.inbox.send(Input::Reload).await;
                }
            }
            "UnitFilesChanged" => {
                let _ = shared.inbox.send(Input::Reload).await;
            }
            "PrepareForShutdown" => match body.deserialize::<bool>() {
                Ok(true) => shared.shut_down().await,
                _ => shared.shutting_down.set(false),
            },
            // PID 1 (daemon-reexec) or logind has another name on the bus: subscribe anew.
            "NameOwnerChanged" => {
                let owner: Result<(String, String, String), _> = body.deserialize();
                let back = owner.is_ok_and(|(_, _, new)| !new.is_empty());
                if back {
                    return true;
                }
            }
            _ => {}
        }
    }
    false
}

/// The group of a unit, and the unit's name there, which may be an alias.
fn group_of(shared: &Shared, unit: &str) -> Option<(GroupName, String)> {
    let (groups, known) = (shared.groups.borrow(), shared.known.borrow());
    groups.iter().find_map(|(name, managed)| {
        if name.unit() == unit {
            return Some((name.clone(), unit.into()));
        }
        let mut units = managed.units();
        let member = units.find(|u| *u == unit || known.id(u) == unit)?;
        Some((name.clone(), member.clone()))
    })
}

/// PID 1 unloads a target that is down and that no loaded unit names, and knows no more when it
/// went down: this signal comes before that, and before the end of the job.
fn target_went(shared: &Shared, path: &str, changed: &bus::Properties) {
    let down = bus::number(changed, "InactiveEnterTimestampMonotonic");
    let groups = shared.groups.borrow();
    let group = groups.keys().find(|name| bus::unit_path(&name.unit()) == path);
    if let Some(group) = group.filter(|_| down != 0) {
        shared.target_down.borrow_mut().insert(group.clone(), down);
    }
}

fn unit_changed(shared: &Shared, path: &str) {
    let is = |unit: &str| bus::unit_path(unit) == path;
    shared.known.borrow_mut().changed(is);
    shared.changed.notify_waiters();
    let (groups, known) = (shared.groups.borrow(), shared.known.borrow());
    let hit = |name: &GroupName, units: &super::Managed| {
        is(&name.unit()) || units.units().any(|u| is(known.id(u)))
    };
    let names: Vec<GroupName> =
        groups.iter().filter(|(n, m)| hit(n, m)).map(|(n, _)| n.clone()).collect();
    drop((groups, known));
    names.iter().for_each(|name| shared.mark(name));
}

/// A job ended. One that is not ours was asked for by somebody with systemctl, or was made by
/// systemd itself.
fn job_removed(shared: &Rc<Shared>, id: u32, unit: String, result: String) {
    let heard = clock::monotonic_usec();
    let mut ended = shared.ended.borrow_mut();
    if ended.len() >= ENDED_MAX {
        ended.clear();
    }
    ended.insert(unit.clone(), heard);
    drop(ended);
    shared.known.borrow_mut().changed(|name| name == unit);
    shared.changed.notify_waiters();
    let Some((group, unit)) = group_of(shared, &unit) else { return };
    shared.mark(&group);
    if !shared.is_ours(&group, id) && !shared.shutting_down.get() {
        let mine = shared.clone();
        *shared.judging.borrow_mut().entry(group.clone()).or_default() += 1;
        tokio::task::spawn_local(async move {
            let job = Job { id, unit, result, heard };
            if let Some(verb) = job.by_hand(&mine, &group).await {
                mine.mark(&group);
                mine.tell(Event::ByHand { group: group.clone(), unit: job.unit, verb }).await;
            }
            judged(&mine, &group);
        });
    }
}

fn judged(shared: &Shared, group: &GroupName) {
    let mut judging = shared.judging.borrow_mut();
    match judging.get_mut(group) {
        Some(n) if *n > 1 => *n -= 1,
        _ => drop(judging.remove(group)),
    }
    drop(judging);
    shared.changed.notify_waiters();
}
