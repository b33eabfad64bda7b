//! Calls to PID 1 and to logind over D-Bus (org.freedesktop.systemd1(5)), and over PID 1's private
//! socket when the bus is gone. Every call has a time limit; a lost answer is an error that says
//! so, never a "no".

use super::private;
use futures_util::StreamExt;
use serde::Serialize;
use std::collections::HashMap;
use std::io::ErrorKind;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use zbus::zvariant::DynamicType;
use zbus::{Connection, MessageStream, OwnedObjectPath, OwnedVariant, connection::Builder};

/// Longest wait for one answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// Calls that wait for their answers at a time: a bus allows 128 (dbus-daemon(1)), and one that was
/// given up here still waits there.
const CALLS: usize = 64;
/// A bus that has not let us in after so long is gone around: it may be there again before PID 1 is
/// on it.
const BUS_PATIENCE: Duration = Duration::from_secs(1);
/// Signals that may wait; read by a task that does nothing else.
const SIGNALS: usize = 4096;
const SYSTEMD: &str = "org.freedesktop.systemd1";
const MANAGER: &str = "/org/freedesktop/systemd1";
const LOGIND: &str = "org.freedesktop.login1";
const BUS: &str = "org.freedesktop.DBus";
const BUS_PATH: &str = "/org/freedesktop/DBus";

/// Two connections: one for calls, one for signals, so that a burst of signals holds up no call.
#[derive(Clone, Debug)]
pub struct Bus {
    calls: Connection,
    signals: Connection,
    private: bool,
    places: Arc<Semaphore>,
}

/// A unit's properties, of the common interface and of its own kind.
pub type Properties = HashMap<String, OwnedVariant>;

/// What PID 1 says of a unit in a list (`ListUnitsByNames`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Its own name, where it was asked for by an alias.
    pub id: String,
    pub load: String,
    pub active: String,
    pub sub: String,
    /// Number of its queued job; 0: none.
    pub job: u32,
}

impl State {
    /// Nothing more will happen by itself.
    pub fn settled(&self) -> bool {
        let moving = ["activating", "deactivating", "maintenance"].contains(&self.active.as_str());
        self.job == 0 && !moving && self.sub != "auto-restart"
    }
}

/// What PID 1 and logind tell by themselves.
pub struct Signals {
    stream: MessageStream,
    /// The names of those who are believed; `None`: the other end is PID 1 and nobody else.
    tellers: Option<Vec<String>>,
}

/// Connects and subscribes: to the bus, or else to PID 1 itself.
pub async fn connect() -> zbus::Result<(Bus, Signals)> {
    match to_bus().await {
        Ok(both) => Ok(both),
        Err(_) => in_time(PATIENCE, connect_to(true)).await,
    }
}

/// The same, to the bus only. One that accepts and does not answer counts as none.
pub async fn to_bus() -> zbus::Result<(Bus, Signals)> {
    in_time(BUS_PATIENCE, connect_to(false)).await
}

async fn in_time<T>(
    longest: Duration,
    work: impl Future<Output = zbus::Result<T>>,
) -> zbus::Result<T> {
    let late = |_| zbus::Error::InputOutput(Arc::new(ErrorKind::TimedOut.into()));
    tokio::time::timeout(longest, work).await.map_err(late)?
}

/// Whether nobody knows what became of a call: PID 1 has not answered. Where it went away with the
/// question (daemon-reexec), the bus answers in its place.
pub fn lost(error: &zbus::Error) -> bool {
    match error {
        zbus::Error::MethodError(_, _, answer) => {
            answer.header().sender().is_some_and(|name| name.as_str() == BUS)
        }
        _ => true,
    }
}

async fn connect_to(private: bool) -> zbus::Result<(Bus, Signals)> {
    let calls = build(private).await?;
    let signals = build(private).await?;
    let mut stream = MessageStream::from(signals.clone());
    stream.set_max_queued(SIGNALS.try_into().expect("not zero"));
    let tellers = if private { None } else { Some(choose(&signals).await?) };
    subscribe(&signals, private).await?;
    let places = Arc::new(Semaphore::new(CALLS));
    Ok((Bus { calls, signals, private, places }, Signals { stream, tellers }))
}

async fn build(private: bool) -> zbus::Result<Connection> {
    let builder = if private { private::open().await? } else { Builder::system() };
    builder.method_timeout(PATIENCE).build().await
}

/// Asks the bus for their signals, and for the names under which they send.
async fn choose(signals: &Connection) -> zbus::Result<Vec<String>> {
    let mut tellers = vec![BUS.to_string()];
    for name in [SYSTEMD, LOGIND] {
        let moved = format!("type='signal',sender='{BUS}',member='NameOwnerChanged',arg0='{name}'");
        for rule in [moved, format!("type='signal',sender='{name}'")] {
            signals.call_method(Some(BUS), BUS_PATH, Some(BUS), "AddMatch", &rule).await?;
        }
        // After the rule: a change from now on is told. There may be no logind.
        let owner = signals.call_method(Some(BUS), BUS_PATH, Some(BUS), "GetNameOwner", &name);
        match owner.await {
            Ok(reply) => tellers.push(reply.body().deserialize()?),
            Err(_) if name == LOGIND => {}
            Err(e) => return Err(e),
        }
    }
    Ok(tellers)
}

async fn subscribe(signals: &Connection, private: bool) -> zbus::Result<()> {
    let to = (!private).then_some(SYSTEMD);
    let interface = "org.freedesktop.systemd1.Manager";
    signals.call_method(to, MANAGER, Some(interface), "Subscribe", &()).await?;
    Ok(())
}

/// What comes in.
pub enum Told {
    Signal(zbus::Message),
    /// Every signal that was sent before this question ([`Bus::mark`]) is in.
    Mark(NonZeroU32),
}

impl Signals {
    /// What is told next; `None`: the connection is gone. Match rules do not keep away what
    /// somebody sends to our own name, and anybody may: so the sender is looked at.
    pub async fn next(&mut self) -> Option<Told> {
        loop {
            let message = self.stream.next().await?.ok()?;
            if !self.believed(&message) {
                continue;
            }
            match message.message_type() {
                zbus::message::Type::Signal => return Some(Told::Signal(message)),
                zbus::message::Type::MethodReturn => {
                    if let Some(serial) = message.header().reply_serial() {
                        return Some(Told::Mark(serial));
                    }
                }
                _ => {}
            }
        }
    }

    fn believed(&self, message: &zbus::Message) -> bool {
        let Some(tellers) = &self.tellers else { return true };
        let header = message.header();
        header.sender().is_some_and(|s| tellers.iter().any(|t| t == s.as_str()))
    }
}

impl Bus {
    /// Whether PID 1's private socket is used because the bus is gone.
    pub fn is_private(&self) -> bool {
        self.private
    }

    /// Whether it is the same connection.
    pub fn is(&self, other: &Bus) -> bool {
        Arc::ptr_eq(&self.places, &other.places)
    }

    /// Asks PID 1 for a sign of life on the line of the signals, which comes in as
    /// [`Told::Mark`]. Such numbers grow.
    pub async fn mark(&self) -> zbus::Result<NonZeroU32> {
        let ask =
            zbus::Message::method_call(MANAGER, "Ping").interface("org.freedesktop.DBus.Peer");
        let ask = if self.private { ask } else { ask.destination(SYSTEMD) }.build(&())?;
        self.signals.send(&ask).await?;
        Ok(ask.primary_header().serial_num())
    }

    /// Whether the bus itself answers: if it does, it is PID 1 that is busy.
    pub async fn answers(&self) -> bool {
        let ping = self.calls.call_method(Some(BUS), BUS_PATH, Some(BUS), "GetId", &());
        !self.private && tokio::time::timeout(BUS_PATIENCE, ping).await.is_ok_and(|r| r.is_ok())
    }

    async fn call<B: Serialize + DynamicType>(
        &self,
        path: &str,
        interface: &str,
        method: &str,
        body: &B,
    ) -> zbus::Result<zbus::Message> {
        let _place = self.places.acquire().await;
        let to = (!self.private).then_some(SYSTEMD);
        self.calls.call_method(to, path, Some(interface), method, body).await
    }

    async fn manager<B: Serialize + DynamicType>(
        &self,
        method: &str,
        body: &B,
    ) -> zbus::Result<zbus::Message> {
        self.call(MANAGER, "org.freedesktop.systemd1.Manager", method, body).await
    }

    /// The number of the job; numbers grow with every job of this PID 1.
    pub async fn start_unit(&self, unit: &str) -> zbus::Result<u32> {
        self.manager("StartUnit", &(unit, "replace")).await.and_then(|reply| job_number(&reply))
    }

    /// The number of the job.
    pub async fn stop_unit(&self, unit: &str) -> zbus::Result<u32> {
        self.manager("StopUnit", &(unit, "replace")).await.and_then(|reply| job_number(&reply))
    }

    /// The number of the job.
    pub async fn reload_unit(&self, unit: &str) -> zbus::Result<u32> {
        self.manager("ReloadUnit", &(unit, "replace")).await.and_then(|reply| job_number(&reply))
    }

    /// Keeps a unit loaded for as long as this connection lives: one that is not running would be
    /// loaded anew at each look at it, each time with signals about everything around it.
    pub async fn hold(&self, unit: &str) {
        // Over the private socket nobody can be counted; it works without, only slower.
        let _ = self.manager("RefUnit", &(unit,)).await;
    }

    /// Every process of the unit, with SIGKILL.
    pub async fn kill(&self, unit: &str) -> zbus::Result<()> {
        self.manager("KillUnit", &(unit, "all", 9i32)).await.map(drop)
    }

    pub async fn reset_failed(&self, unit: &str) -> zbus::Result<()> {
        self.manager("ResetFailedUnit", &(unit,)).await.map(drop)
    }

    /// The states of units at one moment, in the order of their names; loads those that are not.
    pub async fn states(&self, units: &[String]) -> zbus::Result<Vec<State>> {
        type Listed = (
            String,
            String,
            String,
            String,
            String,
            String,
            OwnedObjectPath,
            u32,
            String,
            OwnedObjectPath,
        );
        let reply = self.manager("ListUnitsByNames", &(units,)).await?;
        let listed: Vec<Listed> = reply.body().deserialize()?;
        if listed.len() != units.len() {
            return Err(zbus::Error::Failure("a unit is missing in the list".into()));
        }
        let state =
            |(id, _, load, active, sub, _, _, job, _, _)| State { id, load, active, sub, job };
        Ok(listed.into_iter().map(state).collect())
    }

    /// All properties of a unit; loads it if it is not.
    pub async fn unit(&self, unit: &str) -> zbus::Result<Properties> {
        let path = unit_path(unit);
        let common = self.properties(&path, "org.freedesktop.systemd1.Unit");
        let kind = match unit.rsplit_once('.').map(|(_, kind)| kind) {
            Some("service") => "org.freedesktop.systemd1.Service",
            Some("mount") => "org.freedesktop.systemd1.Mount",
            Some("socket") => "org.freedesktop.systemd1.Socket",
            _ => return common.await,
        };
        let (mut all, own) = tokio::try_join!(common, self.properties(&path, kind))?;
        all.extend(own);
        Ok(all)
    }

    async fn properties(&self, path: &str, interface: &str) -> zbus::Result<Properties> {
        let all = "org.freedesktop.DBus.Properties";
        let reply = self.call(path, all, "GetAll", &(interface,)).await?;
        reply.body().deserialize()
    }

    /// The type of a queued job: `start`, `stop`, `restart`, …
    pub async fn job_type(&self, unit: &str) -> zbus::Result<Option<String>> {
        let unit = self.properties(&unit_path(unit), "org.freedesktop.systemd1.Unit").await?;
        let Some((id, path)) = unit.get("Job").and_then(job) else { return Ok(None) };
        if id == 0 {
            return Ok(None);
        }
        let job = self.properties(path.as_str(), "org.freedesktop.systemd1.Job").await?;
        Ok(text(&job, "JobType"))
    }

    /// Delays a shutdown until groups are given away. No logind: none.
    pub async fn inhibit_shutdown(&self) -> Option<zbus::OwnedFd> {
        self.inhibit("shutdown", "groups are moved to another node first", "delay").await
    }

    /// Keeps the machine from sleep. No logind: none.
    pub async fn inhibit_sleep(&self) -> Option<zbus::OwnedFd> {
        let why = "resource groups run here: hafailover standby moves them away";
        self.inhibit("sleep", why, "block").await
    }

    /// An inhibitor holds as long as its descriptor lives.
    async fn inhibit(&self, what: &str, why: &str, mode: &str) -> Option<zbus::OwnedFd> {
        if self.private {
            return None;
        }
        let reply = self
            .calls
            .call_method(
                Some(LOGIND),
                "/org/freedesktop/login1",
                Some("org.freedesktop.login1.Manager"),
                "Inhibit",
                &(what, "hafailover", why, mode),
            )
            .await
            .ok()?;
        reply.body().deserialize().ok()
    }
}

fn job_number(reply: &zbus::Message) -> zbus::Result<u32> {
    let path: OwnedObjectPath = reply.body().deserialize()?;
    let number = path.as_str().rsplit('/').next().and_then(|n| n.parse().ok());
    Ok(number.unwrap_or_default())
}

/// `Job` of a unit: its number (0: none) and path.
fn job(value: &OwnedVariant) -> Option<(u32, OwnedObjectPath)> {
    <(u32, OwnedObjectPath)>::try_from(value.try_clone().ok()?).ok()
}

pub fn has_job(unit: &Properties) -> bool {
    unit.get("Job").and_then(job).is_some_and(|(id, _)| id != 0)
}

pub fn text(all: &Properties, name: &str) -> Option<String> {
    String::try_from(all.get(name)?.try_clone().ok()?).ok()
}

pub fn list(all: &Properties, name: &str) -> Vec<String> {
    let value = all.get(name).and_then(|v| v.try_clone().ok());
    value.and_then(|v| Vec::<String>::try_from(v).ok()).unwrap_or_default()
}

pub fn number(all: &Properties, name: &str) -> u64 {
    let Some(value) = all.get(name) else { return 0 };
    let small = || u32::try_from(value).map(u64::from);
    let signed = || i32::try_from(value).map(|n| u64::try_from(n).unwrap_or_default());
    u64::try_from(value).or_else(|_| small()).or_else(|_| signed()).unwrap_or_default()
}

pub fn flag(all: &Properties, name: &str) -> Option<bool> {
    bool::try_from(all.get(name)?).ok()
}

/// Whether a unit carries this gate among its `Asserts` a(sbbsi).
pub fn asserts_path(all: &Properties, path: &str) -> bool {
    type Assert = (String, bool, bool, String, i32);
    let value = all.get("Asserts").and_then(|v| v.try_clone().ok());
    let asserts = value.and_then(|v| Vec::<Assert>::try_from(v).ok()).unwrap_or_default();
    asserts.iter().any(|a| a.0 == "AssertPathExists" && !a.2 && a.3 == path)
}

/// A unit's object path: everything but letters and digits as `_xx` (sd_bus_path_encode(3)).
pub fn unit_path(unit: &str) -> String {
    let mut path = format!("{MANAGER}/unit/");
    for (n, byte) in unit.bytes().enumerate() {
        let plain = byte.is_ascii_alphabetic() || (byte.is_ascii_digit() && n > 0);
        if plain {
            path.push(char::from(byte));
        } else {
            path.push_str(&format!("_{byte:02x}"));
        }
    }
    path
}

#[cfg(test)]
mod tests {
    #[test]
    fn paths_are_encoded_as_systemd_does() {
        assert_eq!(
            super::unit_path("hafailover-ip@10.0.0.1-24.service"),
            "/org/freedesktop/systemd1/unit/hafailover_2dip_4010_2e0_2e0_2e1_2d24_2eservice"
        );
    }
}
