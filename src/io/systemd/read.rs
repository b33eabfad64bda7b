//! Reading members: the states of all in one call, and the rest again only of those in which
//! something changed. PID 1 does one thing at a time: whatever is asked of it delays the jobs that
//! it is to do.

use super::bus::{self, Bus, State};
use super::unit::Unit;
use super::{Managed, Shared};
use crate::core::name::GroupName;
use crate::io::{clock, token};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a lost bus is waited for before an answer is given up as unknown.
pub const BUS_PATIENCE: Duration = Duration::from_secs(10);
/// Pause before what was not answered is asked again.
pub const ASK_AGAIN: Duration = Duration::from_millis(50);
/// Signals tell of changes; this is for one that was lost.
pub const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// What was last read of each member, by the name that the group gives it.
#[derive(Debug, Default)]
pub struct Known(BTreeMap<String, Entry>);

#[derive(Debug, Default)]
struct Entry {
    /// Grows with each change and with each reading that begins: a reading holds for as long as
    /// it does not grow.
    turn: u64,
    /// The unit's own name, known before what else it is: signals tell of it by that name.
    id: Option<String>,
    last: Option<Reading>,
}

#[derive(Debug)]
struct Reading {
    turn: u64,
    unit: Unit,
    state: State,
}

impl Known {
    /// Everything may have changed.
    pub fn forget(&mut self) {
        self.changed(|_| true);
    }

    /// Something changed in the units for which this holds, of their names or ids.
    pub fn changed(&mut self, is: impl Fn(&str) -> bool) {
        let hit =
            self.0.iter_mut().filter(|(name, e)| is(name) || e.id.as_deref().is_some_and(&is));
        hit.for_each(|(_, e)| e.turn += 1);
    }

    /// A member's own name, where the group names it by an alias.
    pub fn id<'a>(&'a self, name: &'a str) -> &'a str {
        self.0.get(name).and_then(|e| e.id.as_deref()).unwrap_or(name)
    }

    fn fresh(&self, name: &str, state: &State) -> Option<&Unit> {
        let entry = self.0.get(name)?;
        let last = entry.last.as_ref().filter(|r| r.turn == entry.turn && r.state == *state);
        last.map(|r| &r.unit)
    }

    fn begin(&mut self, name: &str, id: &str) -> u64 {
        let entry = self.0.entry(name.into()).or_default();
        entry.id = Some(id.into());
        entry.turn += 1;
        entry.turn
    }

    fn learn(&mut self, name: &str, turn: u64, state: State, mut unit: Unit) -> Unit {
        let entry = self.0.entry(name.into()).or_default();
        if let Some(old) = &entry.last {
            unit.remember(&old.unit);
        }
        entry.last = Some(Reading { turn, unit: unit.clone(), state });
        unit
    }
}

/// The bus, as soon as there is one.
pub async fn bus(shared: &Shared) -> Result<Bus, String> {
    let end = clock::now() + BUS_PATIENCE;
    loop {
        let changed = shared.changed.notified();
        if let Some(bus) = shared.bus.borrow().clone() {
            return Ok(bus);
        }
        if clock::now() >= end {
            return Err("systemd does not answer over D-Bus: systemctl status dbus".into());
        }
        let _ = tokio::time::timeout(LOOK_AGAIN, changed).await;
    }
}

/// Reads these units; a lost connection is waited for, a lost answer asked for again.
pub async fn read(
    shared: &Shared,
    group: &GroupName,
    names: &[String],
) -> Result<Vec<Unit>, String> {
    let token = format!("{}/{group}", token::DIR);
    let end = clock::now() + BUS_PATIENCE;
    loop {
        let bus = bus(shared).await?;
        match read_once(shared, &bus, &token, names).await {
            Ok(units) => return Ok(units),
            Err(e) if clock::now() >= end => return Err(format!("{group}: {e}")),
            Err(e) => {
                if bus::lost(&e) {
                    shared.unanswered.notify_one();
                }
                tokio::time::sleep(ASK_AGAIN).await;
            }
        }
    }
}

async fn read_once(
    shared: &Shared,
    bus: &Bus,
    token: &str,
    names: &[String],
) -> zbus::Result<Vec<Unit>> {
    let states = bus.states(names).await?;
    let one = |name: &String, state: State| {
        let (name, known) = (name.clone(), shared.known.borrow().fresh(name, &state).cloned());
        async move {
            if let Some(unit) = known {
                return Ok(unit);
            }
            let turn = shared.known.borrow_mut().begin(&name, &state.id);
            let unit = Unit::read(bus, &name, token).await?;
            Ok(shared.known.borrow_mut().learn(&name, turn, state, unit))
        }
    };
    let all = names.iter().zip(states).map(|(name, state)| one(name, state));
    futures_util::future::try_join_all(all).await
}

/// Waits until none of these units, read before, has a job or is on its way, at most `limit`. What
/// became of one that is simply up or down needs no further question.
pub async fn settle(
    shared: &Shared,
    group: &GroupName,
    before: &[&Unit],
    limit: Duration,
) -> Result<Vec<Unit>, String> {
    let names: Vec<String> = before.iter().map(|u| u.name.clone()).collect();
    let end = clock::now() + limit;
    loop {
        let changed = shared.changed.notified();
        let states = bus(shared).await?.states(&names).await.unwrap_or_default();
        let plain = before.iter().zip(&states).map(|(unit, state)| unit.became(state));
        let plain: Vec<Unit> = plain.flatten().collect();
        if plain.len() == before.len() {
            return Ok(plain);
        }
        let over = clock::now() >= end;
        if over || (states.len() == names.len() && states.iter().all(State::settled)) {
            let units = read(shared, group, &names).await?;
            if over || units.iter().all(Unit::settled) {
                return Ok(units);
            }
        }
        let _ = tokio::time::timeout(LOOK_AGAIN, changed).await;
    }
}

impl Managed {
    pub fn names(&self) -> Vec<String> {
        self.units().cloned().collect()
    }
}
