//! What systemd and logind tell by themselves: units that change, jobs that are not ours, reloads,
//! the machine going down. Holds the connection and makes it anew when it is lost.

use super::Shared;
use super::bus::{self, Told};
use super::read::{self, ASK_AGAIN, BUS_PATIENCE};
use super::unit::path_of;
use crate::core::name::GroupName;
use crate::core::{Event, Hand, Terminate};
use crate::io::{Input, clock, token};
use futures_util::FutureExt;
use std::rc::Rc;
use std::time::Duration;
use zbus::OwnedObjectPath;

const RECONNECT: Duration = Duration::from_millis(200);
/// On the private socket, the bus is looked for again after so long.
const BACK_TO_BUS: Duration = Duration::from_secs(5);

pub async fn listen(shared: Rc<Shared>) {
    loop {
        let Ok((new, mut signals)) = bus::connect().await else {
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
        all_changed(&shared);
        tokio::select! {
            // Calls go to a name, whoever has it: they wait for a lost connection only.
            good = follow(&shared, &mut signals) => if !good { *shared.bus.borrow_mut() = None },
            () = silent(&shared, &new) => *shared.bus.borrow_mut() = None,
            // Calls go on over the private socket until the bus is back.
            () = tokio::time::sleep(BACK_TO_BUS), if new.is_private() => {}
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
            "PropertiesChanged" => unit_changed(shared, &path),
            "JobRemoved" => {
                let job: Result<(u32, OwnedObjectPath, String, String), _> = body.deserialize();
                if let Ok((id, _, unit, result)) = job {
                    job_removed(shared, id, unit, result);
                }
            }
            "Reloading" if body.deserialize::<bool>() == Ok(false) => {
                all_changed(shared);
                let _ = shared.inbox.send(Input::Reload).await;
            }
            "UnitFilesChanged" => {
                let _ = shared.inbox.send(Input::Reload).await;
            }
            "PrepareForShutdown" => {
                let down = body.deserialize::<bool>().unwrap_or(false);
                shared.shutting_down.set(down);
                if down {
                    shared.tell(Event::Terminate { kind: Terminate::Shutdown }).await;
                }
            }
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
/// systemd itself to restart a failed member.
fn job_removed(shared: &Rc<Shared>, id: u32, unit: String, result: String) {
    shared.known.borrow_mut().changed(|name| name == unit);
    shared.changed.notify_waiters();
    let Some((group, unit)) = group_of(shared, &unit) else { return };
    shared.mark(&group);
    if !shared.is_ours(&group, id) && !shared.shutting_down.get() {
        let mine = shared.clone();
        *shared.judging.borrow_mut().entry(group.clone()).or_default() += 1;
        tokio::task::spawn_local(async move {
            if let Some(verb) = by_hand(&mine, &group, &unit, &result).await {
                mine.mark(&group);
                mine.tell(Event::ByHand { group: group.clone(), unit, verb }).await;
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

/// What somebody did, if it was somebody.
async fn by_hand(shared: &Shared, group: &GroupName, unit: &str, result: &str) -> Option<Hand> {
    // A start of the target fails by its members, whose gates are asked first.
    let target = unit == group.unit() && result == "dependency";
    if result == "assert" || (target && token::read(group).is_none()) {
        return Some(Hand::Refused);
    }
    let bus = shared.bus.borrow().clone()?;
    // In a shutdown it is systemd's own doing; a start that failed changed nothing.
    let going = bus.job_type("shutdown.target").await.ok().flatten().is_some();
    if going || result != "done" {
        return None;
    }
    let all = properties(shared, unit).await?;
    let state = bus::text(&all, "ActiveState")?;
    let up = state == "active" || state == "activating";
    if unit == group.unit() {
        let by_itself = match up {
            true => member_came_back(shared, &bus, group).await,
            false => member_goes(shared, &bus, group).await,
        };
        if by_itself {
            return None;
        }
        return Some(if up { Hand::StartTarget } else { Hand::StopTarget });
    }
    // A restart by systemd itself; the count also stays after a stop, until the next start.
    if (up && bus::number(&all, "NRestarts") > 0) || state == "failed" {
        return None;
    }
    if up {
        shared.by_hand.borrow_mut().remove(unit);
        // The target went down with the member, and people look at it.
        let _ = shared.asked(group, bus.start_unit(&group.unit()).await);
        return Some(Hand::RestartMember);
    }
    if device_gone(&bus, &all).await {
        return None;
    }
    shared.by_hand.borrow_mut().insert(unit.into());
    Some(Hand::StopMember)
}

/// A unit's properties, asked for again while nobody answers: whose job it was is judged once.
async fn properties(shared: &Shared, unit: &str) -> Option<bus::Properties> {
    let end = clock::now() + BUS_PATIENCE;
    loop {
        match read::bus(shared).await.ok()?.unit(unit).await {
            Ok(all) => return Some(all),
            Err(zbus::Error::MethodError(..)) => return None,
            Err(_) if clock::now() >= end => return None,
            Err(_) => shared.unanswered.notify_one(),
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

/// Whether a device that a unit is bound to is gone: then systemd itself stops the unit. Without
/// udev, a device is inactive whenever it is not mounted, and still there.
async fn device_gone(bus: &bus::Bus, all: &bus::Properties) -> bool {
    let mut needed = bus::list(all, "BindsTo");
    needed.extend(bus::list(all, "StopPropagatedFrom"));
    needed.retain(|unit| unit.ends_with(".device"));
    let states = bus.states(&needed).await.unwrap_or_default();
    let lost = |unit: &str| !path_of(unit).is_some_and(|path| path.exists());
    needed.iter().zip(states).any(|(unit, state)| state.active == "inactive" && lost(unit))
}

/// Stopping a hard member takes the target with it: then it is the member that was stopped by
/// hand, and not the group.
async fn member_goes(shared: &Shared, bus: &bus::Bus, group: &GroupName) -> bool {
    let hard = shared.groups.borrow().get(group).map(|m| m.hard.clone()).unwrap_or_default();
    for unit in hard {
        let Ok(all) = bus.unit(&unit).await else { continue };
        let state = bus::text(&all, "ActiveState").unwrap_or_default();
        let by_hand = shared.by_hand.borrow().contains(&unit);
        if bus::has_job(&all) || state == "deactivating" || by_hand {
            return true;
        }
    }
    false
}

/// systemd restarts what requires a member with it, when it brings that member back.
async fn member_came_back(shared: &Shared, bus: &bus::Bus, group: &GroupName) -> bool {
    let hard = shared.groups.borrow().get(group).map(|m| m.hard.clone()).unwrap_or_default();
    for unit in hard {
        let Ok(all) = bus.unit(&unit).await else { continue };
        if bus::number(&all, "NRestarts") > 0 {
            return true;
        }
    }
    false
}
