//! Starting, stopping and looking at one group: what is asked of systemd, waited for, and verified
//! in the kernel.

use super::awake::awake;
use super::read::{ASK_AGAIN, BUS_PATIENCE, bus, read, settle};
use super::unit::Unit;
use super::{Shared, bus as calls};
use crate::config::order::layers;
use crate::core::name::{Epoch, GroupName};
use crate::core::time::Instant;
use crate::core::{Member, MemberState, Observation, StartError, StopError};
use crate::io::{clock, token};
use std::rc::Rc;
use std::time::Duration;

/// How long processes may linger behind a unit that is down.
const LINGER: Duration = Duration::from_secs(1);

/// One group's members as the daemon was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Managed {
    pub hard: Vec<String>,
    pub soft: Vec<String>,
}

impl Managed {
    pub fn units(&self) -> impl Iterator<Item = &String> {
        self.hard.iter().chain(&self.soft)
    }
}

pub async fn observe(shared: &Shared, name: &GroupName, managed: &Managed) -> Observation {
    let stopped = shared.by_hand.borrow().clone();
    let units = match read(shared, name, &managed.names()).await {
        Ok(units) => units,
        Err(_) => return Observation { blind: true, ..Observation::default() },
    };
    let hard = |unit: &Unit| managed.hard.contains(&unit.name);
    // Stopped before it was seen up: it is up again, if by no job that we heard of.
    let up = |u: &&Unit| u.state == MemberState::Active && stopped.contains(&u.name);
    for unit in units.iter().filter(up) {
        shared.by_hand.borrow_mut().remove(&unit.name);
    }
    let by_hand = shared.by_hand.borrow();
    let (token, closed) = (token::read(name), token::read_closed(name));
    let member = |u: &Unit| u.member(hard(u), by_hand.contains(&u.name), token.is_some());
    let members: Vec<Member> = units.iter().map(member).collect();
    let down = units.iter().filter(|u| u.down() && !u.busy);
    let leftovers: Result<Vec<_>, _> = down.map(|u| u.leftover(&units)).collect();
    let Ok(leftovers) = leftovers else {
        return Observation { blind: true, ..Observation::default() };
    };
    Observation {
        members,
        token,
        proof: token.and_then(|epoch| token::proof(name, epoch)),
        lasts: token.or(closed).and_then(|epoch| token::lasts(name, epoch)),
        closed,
        leftovers: leftovers.into_iter().flatten().collect(),
        blind: false,
        unloaded: units.iter().find_map(|u| u.unloaded.clone()),
        no_carrier: None,
    }
}

/// Nothing is asked of systemd after `valid_until`, and nothing more after a freeze as long as
/// what was left until then: whoever froze between an address and a disk may have lost both.
pub async fn start(
    shared: Rc<Shared>,
    name: GroupName,
    managed: Managed,
    epoch: Epoch,
    valid_until: Instant,
) -> Result<(), StartError> {
    let now = clock::now();
    if now >= valid_until {
        return Err(StartError::Late);
    }
    let work = start_layers(&shared, &name, &managed, epoch, valid_until);
    awake(valid_until.since(now), work).await.unwrap_or(Err(StartError::Late))
}

async fn start_layers(
    shared: &Shared,
    name: &GroupName,
    managed: &Managed,
    epoch: Epoch,
    valid_until: Instant,
) -> Result<(), StartError> {
    let unknown = |why: String| StartError::Unknown { why };
    let written = token::note(name, &managed.hard, &managed.soft);
    let written = written.and_then(|()| token::write(name, epoch));
    written.map_err(|e| unknown(format!("the token below {}: {e}", token::DIR)))?;
    // A reload that is over may have taken the gates away, and what was read before it is no word
    // about them.
    shared.hear_all().await.map_err(unknown)?;
    let before = read(shared, name, &managed.names()).await.map_err(unknown)?;
    if let Some(why) = before.iter().find_map(|u| u.unloaded.clone()) {
        return Err(unknown(why));
    }
    let bus_now = bus(shared).await.map_err(unknown)?;
    // Also the count of starts: a member that moved to and fro is not one that crashes in a loop.
    for unit in before.iter().filter(|u| u.down()) {
        let _ = bus_now.reset_failed(&unit.name).await;
    }
    let mut up = layers(&before, |u| &u.id, |u| &u.after);
    up.reverse();
    let down = |u: &&Unit| u.state != MemberState::Active;
    up.retain(|layer| before.iter().filter(down).any(|u| layer.contains(&u.id)));
    for (n, layer) in up.into_iter().enumerate() {
        // Until the first one is asked for, what was waited for may have been the bus.
        let valid = (n == 0).then_some(valid_until);
        start_layer(shared, name, managed, &before, layer, valid).await?;
    }
    // The target itself has nothing left to start; it is what people look at.
    start_unit(shared, name, &name.unit(), None).await
}

/// Asks until there is an answer: nobody knows whether a call that was lost with its connection
/// was heard, and a second one changes nothing.
async fn start_unit(
    shared: &Shared,
    name: &GroupName,
    unit: &str,
    valid_until: Option<Instant>,
) -> Result<(), StartError> {
    let unknown = |why: String| StartError::Unknown { why };
    let end = clock::now() + BUS_PATIENCE;
    loop {
        let bus = bus(shared).await.map_err(unknown)?;
        if valid_until.is_some_and(|until| clock::now() >= until) {
            return Err(StartError::Late);
        }
        match shared.asked(name, bus.start_unit(unit).await) {
            Ok(()) => return Ok(()),
            Err(e) if !calls::lost(&e) || clock::now() >= end => {
                return Err(unknown(format!("{unit}: {e}")));
            }
            Err(_) => shared.unanswered.notify_one(),
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

/// Starts one layer and waits for it: what lies above a layer that failed is not touched, so that
/// an address whose probe finds another owner keeps the disk from being mounted.
async fn start_layer(
    shared: &Shared,
    name: &GroupName,
    managed: &Managed,
    before: &[Unit],
    layer: Vec<String>,
    valid_until: Option<Instant>,
) -> Result<(), StartError> {
    let unknown = |why: String| StartError::Unknown { why };
    let mine = before.iter().filter(|u| layer.contains(&u.id));
    let down: Vec<&Unit> = mine.filter(|u| u.state != MemberState::Active).collect();
    for unit in &down {
        start_unit(shared, name, &unit.name, valid_until).await?;
    }
    let limit = down.iter().map(|u| u.start_limit).max().unwrap_or_default();
    let units = settle(shared, name, &down, limit).await.map_err(unknown)?;
    let bad = |u: &&Unit| managed.hard.contains(&u.name) && u.state != MemberState::Active;
    match units.iter().find(bad) {
        None => Ok(()),
        Some(unit) => {
            let result = match (unit.result.as_str(), unit.settled()) {
                ("", true) => "it ended or was skipped".to_string(),
                ("", false) => format!("not active in {} s", limit.as_secs()),
                (result, _) => result.to_string(),
            };
            Err(StartError::Failed { unit: unit.name.clone(), result })
        }
    }
}

/// Gate closed, then the target, then the members from the top layer down, each verified before the
/// next: what lies below a layer that did not stop is not touched. The token goes last.
pub async fn stop(shared: Rc<Shared>, name: GroupName, managed: Managed) -> Result<(), StopError> {
    let unknown = |why: String| StopError::Unknown { why };
    token::close(&name).map_err(|e| unknown(format!("the token below {}: {e}", token::DIR)))?;
    stop_unit(&shared, &name, &name.unit()).await.map_err(unknown)?;
    let units = read(&shared, &name, &managed.names()).await.map_err(unknown)?;
    for layer in layers(&units, |u| &u.id, |u| &u.after) {
        let up: Vec<&Unit> = units
            .iter()
            .filter(|u| layer.contains(&u.id))
            .filter(|u| !u.down() || u.busy)
            .collect();
        for unit in &up {
            stop_unit(&shared, &name, &unit.name).await.map_err(unknown)?;
        }
        let limit = up.iter().map(|u| u.stop_limit).max().unwrap_or_default();
        let after = match up.is_empty() {
            true => units.iter().filter(|u| layer.contains(&u.id)).cloned().collect(),
            false => settle(&shared, &name, &up, limit).await.map_err(unknown)?,
        };
        for unit in &after {
            verify(&shared, unit, &units).await?;
        }
    }
    token::remove(&name).map_err(|e| unknown(format!("the token in {}: {e}", token::DIR)))
}

/// Asks until there is an answer: a call that was lost with its connection stopped nothing. What an
/// answer is worth, the member tells.
async fn stop_unit(shared: &Shared, name: &GroupName, unit: &str) -> Result<(), String> {
    let end = clock::now() + BUS_PATIENCE;
    loop {
        let bus = bus(shared).await?;
        match shared.asked(name, bus.stop_unit(unit).await) {
            Ok(()) => return Ok(()),
            Err(e) if !calls::lost(&e) => return Ok(()),
            Err(_) if clock::now() >= end => return Ok(()),
            Err(_) => shared.unanswered.notify_one(),
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

/// What the kernel still holds of it. An init script that sends the signal and does not wait leaves
/// processes that are about to end: they have a moment for it.
async fn lingers(unit: &Unit, group: &[Unit]) -> Result<Option<String>, String> {
    let end = clock::now() + LINGER;
    loop {
        let left = unit.leftover(group)?;
        if left.is_none() || !unit.down() || clock::now() >= end {
            return Ok(left);
        }
        tokio::time::sleep(LINGER / 40).await;
    }
}

/// Down for systemd and gone from the kernel, or who holds it.
async fn verify(shared: &Shared, unit: &Unit, group: &[Unit]) -> Result<(), StopError> {
    // A failed stop is told by the kernel: a mount that is gone is released, whatever its unit
    // says of an earlier try.
    let left = lingers(unit, group).await.map_err(|why| StopError::Unknown { why })?;
    if left.is_none() && unit.undone {
        let (name, result) = (unit.name.clone(), &unit.result);
        let why = format!(
            "its ExecStop= failed ({result}), and what it was to undo may still be there: look, \
             undo it, then systemctl reset-failed {name}"
        );
        return Err(StopError::Stuck { unit: name, why, holders: Vec::new() });
    }
    if left.is_none() && (unit.down() || unit.name.ends_with(".mount")) {
        if unit.state == MemberState::Failed {
            let bus = bus(shared).await.map_err(|why| StopError::Unknown { why })?;
            let _ = bus.reset_failed(&unit.name).await;
        }
        return Ok(());
    }
    let why = left.unwrap_or_else(|| match unit.result.as_str() {
        "" => format!("it is still {}", unit.sub),
        result => format!("it did not stop ({result})"),
    });
    Err(StopError::Stuck { unit: unit.name.clone(), why, holders: unit.holders() })
}
