//! Fences as units: started through PID 1, and believed by what PID 1 says of this very run.

use super::bus::{Properties, number, text};
use super::read::{ASK_AGAIN, BUS_PATIENCE, bus};
use super::{Ask, Shared, Systemd};
use crate::core::name::NodeId;
use crate::core::time::Instant;
use crate::core::{Event, FenceState};
use crate::io::{clock, fence};
use std::rc::Rc;
use std::time::Duration;

/// So much longer than its own limit a run may take before it is ended from here.
const SLACK: Duration = Duration::from_secs(10);
/// A unit whose job is gone and that was not started within so long was not started.
const NEVER_RAN: Duration = Duration::from_secs(2);
/// `CLD_EXITED` of waitid(2): ended by itself, and not by a signal.
const EXITED: u64 = 1;

/// One run of a unit.
#[derive(Clone, Debug)]
pub struct Run {
    pub node: NodeId,
    /// The node by name, for the word until when it may begin.
    pub name: String,
    pub id: u64,
    pub unit: String,
    /// The unit that must then say that the node is off.
    pub confirm: Option<String>,
    pub limit: Duration,
}

impl Systemd {
    /// Answered with [`Event::Fenced`].
    pub fn fence(&self, run: Run, valid_until: Instant) {
        self.ask(Ask::Fence { run, valid_until: Some(valid_until) });
    }

    /// Answered with [`Event::FenceTried`].
    pub fn fence_check(&self, run: Run) {
        self.ask(Ask::Fence { run, valid_until: None });
    }

    pub fn fence_end(&self, unit: String) {
        self.ask(Ask::FenceEnd { unit });
    }
}

pub fn start(shared: &Rc<Shared>, run: Run, valid_until: Option<Instant>) {
    let mine = shared.clone();
    tokio::task::spawn_local(async move {
        let (node, id) = (run.node, run.id);
        let event = match valid_until {
            Some(until) => {
                let result = off(&mine, &run, until).await;
                Event::Fenced { node, id, result }
            }
            None => Event::FenceTried { node, id, result: check(&mine, &run).await },
        };
        mine.tell(event).await;
    });
}

pub fn end(shared: &Rc<Shared>, unit: String) {
    let mine = shared.clone();
    tokio::task::spawn_local(async move {
        if let Ok(bus) = bus(&mine).await {
            let _ = bus.stop_unit(&unit).await;
        }
    });
}

async fn off(shared: &Shared, run: &Run, valid_until: Instant) -> Result<(), String> {
    let word = fence::order(&run.name, valid_until);
    word.map_err(|e| format!("/run/hafailover/fence: {e}"))?;
    let end = clock::now() + run.limit;
    match (follow(shared, run, Some(valid_until)).await?, &run.confirm) {
        (0, None) => Ok(()),
        (0, Some(unit)) => {
            let asked = Run { unit: unit.clone(), confirm: None, ..run.clone() };
            read_back(shared, &asked, end).await
        }
        (status, _) => Err(fence::words(&run.unit, status)),
    }
}

/// Until it says that the node is off.
async fn read_back(shared: &Shared, run: &Run, end: Instant) -> Result<(), String> {
    loop {
        match follow(shared, run, None).await? {
            0 if clock::now() < end => tokio::time::sleep(ASK_AGAIN).await,
            0 => return Err(format!("{} still says that the node is on", run.unit)),
            status if status == i32::from(fence::IS_OFF) => return Ok(()),
            status => return Err(fence::words(&run.unit, status)),
        }
    }
}

async fn check(shared: &Shared, run: &Run) -> Result<FenceState, String> {
    match follow(shared, run, None).await? {
        0 => Ok(FenceState::On),
        status if status == i32::from(fence::IS_OFF) => Ok(FenceState::Off),
        status => Err(fence::words(&run.unit, status)),
    }
}

/// Starts it anew, waits, and gives the exit code of what it ran.
async fn follow(shared: &Shared, run: &Run, valid_until: Option<Instant>) -> Result<i32, String> {
    let unit = &run.unit;
    let refused = |e: zbus::Error| match e {
        zbus::Error::MethodError(_, why, _) => format!("{unit}: {}", why.unwrap_or_default()),
        e => format!("{unit}: {e}"),
    };
    rest(shared, unit).await?;
    let bus_now = bus(shared).await?;
    // So that PID 1 does not forget how it ended.
    bus_now.hold(unit).await;
    let _ = bus_now.reset_failed(unit).await;
    let before = invocation(&bus_now.unit(unit).await.map_err(refused)?);
    let began = clock::now();
    if valid_until.is_some_and(|until| began >= until) {
        return Err("PID 1 was too busy to be asked in time".into());
    }
    bus_now.start_unit(unit).await.map_err(refused)?;
    loop {
        tokio::time::sleep(ASK_AGAIN).await;
        let waited = clock::now().since(began);
        if let Ok(bus) = bus(shared).await
            && let Ok(all) = bus.unit(unit).await
        {
            let ran = invocation(&all) != before;
            if ran && let Some(end) = ended(unit, &all) {
                let _ = bus.stop_unit(unit).await;
                return end;
            }
            if !ran && !super::bus::has_job(&all) && waited >= NEVER_RAN {
                return Err(format!("{unit} was not started: systemctl status {unit}"));
            }
        }
        if waited >= run.limit + SLACK {
            end_of(shared, unit).await;
            return Err(format!("{unit} did not end within {} s", run.limit.as_secs()));
        }
    }
}

/// What became of a run, if it is over.
fn ended(unit: &str, all: &Properties) -> Option<Result<i32, String>> {
    let state = text(all, "ActiveState")?;
    let over = ["active", "inactive", "failed"].contains(&state.as_str());
    if !over || super::bus::has_job(all) {
        return None;
    }
    let (code, status) = (number(all, "ExecMainCode"), number(all, "ExecMainStatus"));
    let result = text(all, "Result").unwrap_or_default();
    // A unit that was stopped counts as well ended, with the signal that ended it.
    Some(match (code, result.as_str()) {
        (EXITED, "success" | "exit-code") => Ok(i32::try_from(status).unwrap_or(i32::MAX)),
        (_, "success") => Err(format!("{unit} was ended before it was done")),
        (_, result) => Err(format!("{unit} failed ({result})")),
    })
}

/// Each run has its own.
fn invocation(all: &Properties) -> Vec<u8> {
    let value = all.get("InvocationID").and_then(|v| v.try_clone().ok());
    value.and_then(|v| Vec::<u8>::try_from(v).ok()).unwrap_or_default()
}

/// Ends what an earlier daemon, or a person, may have begun.
async fn rest(shared: &Shared, unit: &str) -> Result<(), String> {
    let end = clock::now() + BUS_PATIENCE;
    loop {
        let bus = bus(shared).await?;
        let all = bus.unit(unit).await.map_err(|e| format!("{unit}: {e}"))?;
        if let Some("not-found" | "masked" | "bad-setting") = text(&all, "LoadState").as_deref() {
            return Err(format!("{unit} cannot be started: systemctl status {unit}"));
        }
        let state = text(&all, "ActiveState").unwrap_or_default();
        if ["inactive", "failed"].contains(&state.as_str()) && !super::bus::has_job(&all) {
            return Ok(());
        }
        if clock::now() >= end {
            return Err(format!("{unit} does not end: systemctl status {unit}"));
        }
        let _ = bus.stop_unit(unit).await;
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

async fn end_of(shared: &Shared, unit: &str) {
    if let Ok(bus) = bus(shared).await {
        let _ = bus.stop_unit(unit).await;
    }
}
