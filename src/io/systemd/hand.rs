//! Whose doing was it? Jobs that are not ours are a person's with systemctl, or systemd's own: a
//! restart of what died, a stop of what is bound to it, a target that goes with its member.

use super::Shared;
use super::bus;
use super::read::{self, ASK_AGAIN, BUS_PATIENCE};
use super::unit::path_of;
use crate::core::Hand;
use crate::core::name::GroupName;
use crate::io::{clock, token};

/// A unit that came up longer before the end of its job than this did not come up by it.
const JUST_UP_USEC: u64 = 2_000_000;

/// A job that ended.
pub struct Job {
    pub id: u32,
    pub unit: String,
    pub result: String,
    /// When its end was heard of, in microseconds of CLOCK_MONOTONIC.
    pub heard: u64,
}

impl Job {
    /// What somebody did, if it was somebody.
    pub async fn by_hand(&self, shared: &Shared, group: &GroupName) -> Option<Hand> {
        let unit = &self.unit;
        let is_target = *unit == group.unit();
        // A start of the target fails by its members, whose gates are asked first.
        let by_members = is_target && self.result == "dependency";
        if self.result == "assert" || (by_members && token::read(group).is_none()) {
            return Some(Hand::Refused);
        }
        let bus = shared.bus.borrow().clone()?;
        // Without a logind nobody else tells us that the machine goes down.
        let going = bus.job_type("shutdown.target").await.ok().flatten();
        if going.is_some_and(|kind| kind == "start") {
            shared.shut_down().await;
            return None;
        }
        // A start that failed changed nothing.
        if self.result != "done" {
            return None;
        }
        let all = properties(shared, unit).await?;
        // The answer to our call may come in behind this signal.
        if shared.is_ours(group, self.id) {
            return None;
        }
        // A newer job is at work, and will be judged when it has ended.
        if bus::has_job(&all) {
            return None;
        }
        let state = bus::text(&all, "ActiveState")?;
        match state.as_str() {
            // A reload, or a start of what runs.
            "active" if !self.brought_up(&all) => None,
            "active" | "activating" if is_target => {
                let led = member_came(shared, group).await;
                (!led).then_some(Hand::StartTarget)
            }
            _ if is_target => (!member_goes(shared, group).await).then_some(Hand::StopTarget),
            "active" | "activating" => {
                // A restart by systemd itself; the count also stays after a stop.
                if bus::number(&all, "NRestarts") > 0 {
                    return None;
                }
                // A reload and a restart after it may both be judged by the state after it.
                let begun = bus::number(&all, "InactiveExitTimestampMonotonic");
                if shared.restarted.borrow_mut().insert(unit.clone(), begun) == Some(begun) {
                    return None;
                }
                shared.by_hand.borrow_mut().remove(unit);
                self.lift_target(shared, &bus, group).await;
                Some(Hand::RestartMember)
            }
            "inactive" | "deactivating" => {
                let own = skipped(&all)
                    || device_gone(&bus, &all).await
                    || went_with(shared, &bus, &all).await;
                if own {
                    return None;
                }
                shared.by_hand.borrow_mut().insert(unit.clone());
                Some(Hand::StopMember)
            }
            _ => None,
        }
    }

    fn brought_up(&self, all: &bus::Properties) -> bool {
        let up = bus::number(all, "ActiveEnterTimestampMonotonic");
        up == 0 || up.saturating_add(JUST_UP_USEC) > self.heard
    }

    /// The target went down with the member, and people look at it.
    async fn lift_target(&self, shared: &Shared, bus: &bus::Bus, group: &GroupName) {
        let target = group.unit();
        let state = bus.states(std::slice::from_ref(&target)).await.unwrap_or_default().pop();
        if state.is_some_and(|s| s.active == "inactive" && s.job == 0) {
            let _ = shared.asked(group, bus.start_unit(&target).await);
        }
    }
}

/// A unit's properties, asked for again while nobody answers: whose job it was is judged once.
async fn properties(shared: &Shared, unit: &str) -> Option<bus::Properties> {
    let end = clock::now() + BUS_PATIENCE;
    loop {
        match read::bus(shared).await.ok()?.unit(unit).await {
            Ok(all) => return Some(all),
            Err(e) if !bus::lost(&e) => return None,
            Err(_) if clock::now() >= end => return None,
            Err(_) => shared.unanswered.notify_one(),
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

/// A start that a condition ended: systemd calls that done as well.
fn skipped(all: &bus::Properties) -> bool {
    let tried = bus::number(all, "ConditionTimestampMonotonic");
    let down = bus::number(all, "InactiveEnterTimestampMonotonic");
    bus::flag(all, "ConditionResult") == Some(false) && tried > down
}

/// The units that take a unit down with them.
fn bonds(all: &bus::Properties) -> Vec<String> {
    let mut units = bus::list(all, "BindsTo");
    units.extend(bus::list(all, "StopPropagatedFrom"));
    units
}

/// Whether a device that a unit is bound to is gone: then systemd itself stops the unit. Without
/// udev, a device is inactive whenever it is not mounted, and still there.
async fn device_gone(bus: &bus::Bus, all: &bus::Properties) -> bool {
    let mut devices = bonds(all);
    devices.retain(|unit| unit.ends_with(".device"));
    let states = bus.states(&devices).await.unwrap_or_default();
    let lost = |unit: &str| !path_of(unit).is_some_and(|path| path.exists());
    devices.iter().zip(states).any(|(unit, state)| state.active == "inactive" && lost(unit))
}

/// Whether a unit that this one is bound to went down by itself, and by no job.
async fn went_with(shared: &Shared, bus: &bus::Bus, all: &bus::Properties) -> bool {
    let mut units = bonds(all);
    units.retain(|unit| !unit.ends_with(".device"));
    for state in bus.states(&units).await.unwrap_or_default() {
        if state.active == "failed" || state.sub == "auto-restart" {
            return true;
        }
        if state.active != "inactive" || state.job != 0 {
            continue;
        }
        let Some(other) = properties(shared, &state.id).await else { continue };
        let exit = bus::number(&other, "ActiveExitTimestampMonotonic");
        let ended = shared.ended.borrow().get(&state.id).copied();
        if ended.is_none_or(|at| at < exit) {
            return true;
        }
    }
    false
}

/// A hard member that stops takes the target with it, and a target that is stopped takes none: then
/// it is the member that somebody stopped, or that went by itself, and not the group.
async fn member_goes(shared: &Shared, group: &GroupName) -> bool {
    let down = target_down(shared, group);
    for unit in hard(shared, group) {
        let Some(all) = properties(shared, &unit).await else { continue };
        let state = bus::text(&all, "ActiveState").unwrap_or_default();
        let up = ["active", "reloading", "refreshing"].contains(&state.as_str());
        // It may be back already: it left after the target, which is stopped first, or came after.
        let since = ["ActiveExitTimestampMonotonic", "ActiveEnterTimestampMonotonic"];
        let moved = since.iter().any(|key| down != 0 && bus::number(&all, key) >= down);
        if !up || moved || bus::has_job(&all) || shared.by_hand.borrow().contains(&unit) {
            return true;
        }
    }
    false
}

/// The same on the way up: the target came with a member that was restarted.
async fn member_came(shared: &Shared, group: &GroupName) -> bool {
    let down = target_down(shared, group);
    for unit in hard(shared, group) {
        let Some(all) = properties(shared, &unit).await else { continue };
        let up = bus::number(&all, "ActiveEnterTimestampMonotonic");
        if down != 0 && (up > down || bus::has_job(&all)) {
            return true;
        }
    }
    false
}

/// Zero: not since this daemon listens.
fn target_down(shared: &Shared, group: &GroupName) -> u64 {
    shared.target_down.borrow().get(group).copied().unwrap_or_default()
}

fn hard(shared: &Shared, group: &GroupName) -> Vec<String> {
    shared.groups.borrow().get(group).map(|m| m.hard.clone()).unwrap_or_default()
}
