//! One unit as it stands, from systemd's properties and from the kernel.

use super::bus::{self, Bus, Properties, State};
use crate::core::{IN_USE, Member, MemberState};
use crate::io::{holders, kernel};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::Duration;

/// Exit code of `hafailover ip` when another host has the address.
const ADDRESS_IN_USE: u64 = 4;
/// `ExecMainCode` of a main process that ended by itself (CLD_EXITED, waitid(2)).
const EXITED: u64 = 1;
/// Longest time any unit is waited for, whatever its own limits say.
const LIMIT_MAX: Duration = Duration::from_secs(1800);

#[derive(Clone, Debug)]
pub struct Unit {
    /// As the group names it, perhaps by an alias.
    pub name: String,
    /// Its own name, by which others order themselves.
    pub id: String,
    pub state: MemberState,
    /// `auto-restart`, `mounted`, …
    pub sub: String,
    pub busy: bool,
    /// systemd's `Result`, empty for success.
    pub result: String,
    pub restarts: u32,
    pub after: Vec<String>,
    /// Why it is not loaded as it must be.
    pub unloaded: Option<String>,
    /// It is a oneshot that was up and whose commands to stop failed: what they were to undo, a
    /// volume group or a replicated disk, may still be there, and no kernel table tells.
    pub undone: bool,
    pub start_limit: Duration,
    pub stop_limit: Duration,
    cgroup: String,
    /// Where, and what.
    mount: Option<(String, String)>,
}

impl Unit {
    pub async fn read(bus: &Bus, name: &str, token: &str) -> zbus::Result<Unit> {
        let all = bus.unit(name).await?;
        Ok(Unit::of(name, &all, token))
    }

    fn of(name: &str, all: &Properties, token: &str) -> Unit {
        let text = |key: &str| bus::text(all, key).unwrap_or_default();
        let active = text("ActiveState");
        let sub = text("SubState");
        let busy = bus::has_job(all);
        let state = match active.as_str() {
            "active" | "reloading" | "refreshing" => MemberState::Active,
            "activating" | "maintenance" => MemberState::Activating,
            "deactivating" => MemberState::Deactivating,
            "failed" => MemberState::Failed,
            _ => MemberState::Inactive,
        };
        let in_use = bus::number(all, "ExecMainStatus") == ADDRESS_IN_USE;
        let result = match text("Result") {
            result if result == "success" => String::new(),
            _ if in_use && name.starts_with("hafailover-ip@") => IN_USE.into(),
            result => result,
        };
        let started =
            bus::number(all, "ExecMainCode") == EXITED && bus::number(all, "ExecMainStatus") == 0;
        Unit {
            name: name.into(),
            undone: state == MemberState::Failed && text("Type") == "oneshot" && started,
            id: bus::text(all, "Id").unwrap_or_else(|| name.into()),
            state,
            busy: busy || sub == "auto-restart",
            sub,
            result,
            restarts: bus::number(all, "NRestarts") as u32,
            after: bus::list(all, "After"),
            unloaded: unloaded(name, all, token),
            start_limit: limit(bus::number(all, "TimeoutStartUSec")),
            stop_limit: limit(bus::number(all, "TimeoutStopUSec")),
            cgroup: text("ControlGroup"),
            mount: name.ends_with(".mount").then(|| (text("Where"), text("What"))),
        }
    }

    /// Where its processes were, which systemd no longer says of a stopped unit.
    pub fn remember(&mut self, older: &Unit) {
        if self.cgroup.is_empty() {
            self.cgroup = older.cgroup.clone();
        }
    }

    /// What it is now if it is simply up or down; a failure has a reason, which is to be read.
    pub fn became(&self, state: &State) -> Option<Unit> {
        let now = match state.active.as_str() {
            "active" => MemberState::Active,
            "inactive" => MemberState::Inactive,
            _ => return None,
        };
        let (sub, result) = (state.sub.clone(), String::new());
        let plain = state.settled() && state.load == "loaded";
        plain.then(|| Unit { state: now, sub, busy: false, result, ..self.clone() })
    }

    pub fn down(&self) -> bool {
        matches!(self.state, MemberState::Inactive | MemberState::Failed)
    }

    /// Nothing more will happen by itself.
    pub fn settled(&self) -> bool {
        let moving = matches!(self.state, MemberState::Activating | MemberState::Deactivating);
        !self.busy && !moving
    }

    /// What the kernel still holds of it, a member of `group`, in words; nothing for a unit that is
    /// up. `Err`: the kernel did not tell.
    pub fn leftover(&self, group: &[Unit]) -> Result<Option<String>, String> {
        let name = &self.name;
        let silent = |e: std::io::Error| format!("{name}: the kernel does not tell: {e}");
        if let Some((path, what)) = &self.mount {
            if kernel::mounted(path).map_err(silent)? {
                return Ok(Some(format!("{path} is still mounted")));
            }
            let others = group.iter().filter(|u| u.name != *name);
            let others: Vec<&str> =
                others.filter_map(|u| Some(u.mount.as_ref()?.0.as_str())).collect();
            if let Some(words) = kernel::still_mounted(what, &others).map_err(silent)? {
                return Ok(Some(words));
            }
        }
        if let Some(address) = address_of(name)
            && kernel::has_address(address).map_err(silent)?
        {
            return Ok(Some(format!(
                "the address {address} is still here: if this host's own network settings have \
                 it, take it out there"
            )));
        }
        let pids = kernel::processes(&self.cgroup).map_err(silent)?;
        let word = |pid| format!("{} processes of {name} still run, pid {pid} for one", pids.len());
        Ok(pids.first().map(word))
    }

    /// Where it mounts, and what, if it is a mount.
    pub fn mount(&self) -> Option<(&str, &str)> {
        self.mount.as_ref().map(|(path, what)| (path.as_str(), what.as_str()))
    }

    pub fn holders(&self) -> Vec<String> {
        if let Some((path, what)) = &self.mount {
            return holders::holders(path, what);
        }
        let comm = |pid: &u32| std::fs::read_to_string(format!("/proc/{pid}/comm"));
        let pids = kernel::processes(&self.cgroup).unwrap_or_default();
        let name = |pid| kernel::printable(comm(pid).unwrap_or_default().trim());
        let word = |pid| format!("pid {pid} ({})", name(pid));
        pids.iter().take(8).map(word).collect()
    }

    pub fn member(&self, hard: bool, by_hand: bool, gate_open: bool) -> Member {
        // With a start queued, or while systemd restarts it, it is on its way; behind a closed
        // gate it gets nowhere.
        let coming = self.busy && gate_open;
        let state = match self.state {
            MemberState::Inactive | MemberState::Failed if coming => MemberState::Activating,
            state => state,
        };
        Member {
            unit: self.name.clone(),
            hard,
            state,
            result: self.result.clone(),
            restarts: self.restarts,
            by_hand: by_hand && self.down(),
        }
    }
}

fn unloaded(name: &str, all: &Properties, token: &str) -> Option<String> {
    let load = bus::text(all, "LoadState").unwrap_or_default();
    match load.as_str() {
        "loaded" if bus::asserts_path(all, token) => None,
        "loaded" => Some(format!(
            "{name} does not carry the gate AssertPathExists={token}: systemctl daemon-reload"
        )),
        "not-found" => Some(format!("there is no unit {name}: install it, or correct its name")),
        "masked" => Some(format!("{name} is masked: systemctl unmask {name}")),
        other => Some(format!("{name} cannot be loaded ({other}): systemctl status {name}")),
    }
}

/// A unit's own limit with some slack; none given, or infinity: the greatest.
fn limit(usec: u64) -> Duration {
    let slack = Duration::from_secs(5);
    if usec == 0 || usec == u64::MAX {
        return LIMIT_MAX;
    }
    (Duration::from_micros(usec) * 2 + slack).min(LIMIT_MAX)
}

/// The path in the name of a device unit (systemd-escape(1)).
pub fn path_of(device: &str) -> Option<PathBuf> {
    let mut parts = device.strip_suffix(".device")?.split("\\x");
    let mut path = format!("/{}", parts.next()?.replace('-', "/")).into_bytes();
    for part in parts {
        path.push(u8::from_str_radix(part.get(..2)?, 16).ok()?);
        path.extend(part[2..].replace('-', "/").bytes());
    }
    Some(PathBuf::from(OsString::from_vec(path)))
}

/// The address in the name of a `hafailover-ip@` unit: `ADDRESS-PREFIX[-INTERFACE]`.
pub fn address_of(unit: &str) -> Option<std::net::IpAddr> {
    let instance = unit.strip_prefix("hafailover-ip@")?.strip_suffix(".service")?;
    instance.split('-').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_device_is_at_its_path() {
        let path = |unit| super::path_of(unit).map(|p| p.display().to_string());
        let disk = path(r"dev-disk-by\x2duuid-12\x2d34.device");
        assert_eq!(disk.as_deref(), Some("/dev/disk/by-uuid/12-34"));
        assert_eq!([path("a.mount"), path(r"dev-a\x2.device")], [None, None]);
    }
}
