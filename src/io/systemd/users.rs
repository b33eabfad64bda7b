//! Whoever keeps a file system busy that has to go, killed by the unit that it runs in: a session's
//! scope, a service, a container; never a process by its number alone, and never what the machine
//! needs to be reached and run.

use super::read::{bus, read};
use super::{Shared, group::Managed};
use crate::core::name::GroupName;
use crate::io::{clock, holders};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long those that were killed may take to be gone.
const GONE: Duration = Duration::from_secs(2);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Kills the users of what this mount unit mounts; tells of each unit what came of it.
pub async fn kill(shared: &Shared, name: &GroupName, unit: &str) -> Vec<String> {
    let found = read(shared, name, &[unit.to_string()]).await.unwrap_or_default();
    let Some((path, what)) = found.first().and_then(|u| u.mount()) else { return Vec::new() };
    let groups = shared.groups.borrow().clone();
    let mut told = Vec::new();
    let mut killed = Vec::new();
    for (unit, held) in units(path, what) {
        if let Some(why) = spared(&unit, name, &groups) {
            told.push(format!("{held}: not killed, as {why}"));
            continue;
        }
        let done = match bus(shared).await {
            Ok(bus) => bus.kill(&unit).await.map_err(|e| e.to_string()),
            Err(why) => Err(why),
        };
        match done {
            Ok(()) => {
                told.push(format!("{held}: {unit} is killed (StopFailure=kill-users)"));
                killed.push(unit);
            }
            Err(why) => told.push(format!("{held}: {unit} could not be killed: {why}")),
        }
    }
    let end = clock::now() + GONE;
    while clock::now() < end && units(path, what).keys().any(|unit| killed.contains(unit)) {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    told
}

/// The units of all users, each with one of them in words. Looked at twice: a number that has a new
/// owner meanwhile is no user.
fn units(path: &str, what: &str) -> BTreeMap<String, String> {
    let users = holders::users(path, what);
    let of = |(pid, words): (u32, String)| Some((pid, unit_of(pid)?, words));
    let first: Vec<(u32, String, String)> = users.into_iter().filter_map(of).collect();
    let still = holders::users(path, what);
    let same = |pid: u32| still.iter().any(|(other, _)| *other == pid);
    first.into_iter().filter(|(pid, ..)| same(*pid)).map(|(_, unit, words)| (unit, words)).collect()
}

/// The unit of PID 1 in whose cgroup a process is; empty: in none.
fn unit_of(pid: u32) -> Option<String> {
    let cgroup = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok();
    let own = cgroup(1).unwrap_or_default();
    Some(unit_in(&cgroup(pid)?, &own))
}

/// From cgroups(7) of a process and of PID 1. systemd's tree is the one in which PID 1 sits in a
/// scope of its own; there may be another one that nobody uses. Below the slices the first name is
/// the unit; what is below that is the unit's own affair.
fn unit_in(text: &str, init: &str) -> String {
    let own = trees(init).find_map(|(tree, path)| Some((tree, path.strip_suffix("/init.scope")?)));
    let Some((own, root)) = own else { return String::new() };
    let path = trees(text).find(|(tree, _)| *tree == own).map(|(_, path)| path);
    let below = path.and_then(|path| path.strip_prefix(root)).unwrap_or_default();
    let name = below.split('/').find(|part| !part.is_empty() && !part.ends_with(".slice"));
    let kinds = [".service", ".scope", ".socket", ".mount", ".swap"];
    let name = name.filter(|name| kinds.iter().any(|kind| name.ends_with(kind)));
    name.unwrap_or_default().to_string()
}

/// Each hierarchy's controllers, and the place in it.
fn trees(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'))
}

/// Why that unit is not killed.
fn spared(unit: &str, name: &GroupName, groups: &BTreeMap<GroupName, Managed>) -> Option<String> {
    let stem = unit.rsplit_once('.').map_or(unit, |(stem, _)| stem);
    let needed = ["init.scope", "ssh.service", "sshd.service"].contains(&unit)
        || ["systemd-", "dbus", "hafailover"].iter().any(|start| stem.starts_with(start));
    let mut others = groups.iter().filter(|(other, _)| *other != name);
    let other = others.find(|(_, managed)| managed.units().any(|u| u == unit));
    match (unit, needed, other) {
        ("", ..) => Some("it runs in no unit".into()),
        (_, true, _) => Some(format!("the machine needs {unit}")),
        (_, false, Some((other, _))) => Some(format!("{unit} belongs to {other}")),
        (_, false, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_found_in_the_unit_of_pid_1() {
        let unit = |path: &str| unit_in(&format!("0::{path}\n"), "0::/init.scope\n");
        assert_eq!(unit("/user.slice/user-1000.slice/session-3.scope"), "session-3.scope");
        assert_eq!(
            unit("/system.slice/system-getty.slice/getty@tty1.service"),
            "getty@tty1.service"
        );
        let own = "/user.slice/user-7.slice/user@7.service/app.slice/x.service";
        assert_eq!(unit(own), "user@7.service");
        assert_eq!(unit("/"), "");
        assert_eq!(unit("/../../elsewhere/x.service"), "", "outside of this machine");
        assert_eq!(unit("/init.scope"), "init.scope");
        let in_box = unit_in("0::/lab/n1/system.slice/a.service\n", "0::/lab/n1/init.scope\n");
        assert_eq!(in_box, "a.service");
        let mixed = "9:memory:/x\n1:name=systemd:/system.slice/b.service\n0::/other\n";
        assert_eq!(unit_in(mixed, "1:name=systemd:/init.scope\n0::/\n"), "b.service");
        // A machine of the first version outside, and one of the second in a container on it.
        let unused = "9:name=systemd:/\n0::/system.slice/c.service\n";
        assert_eq!(unit_in(unused, "9:name=systemd:/\n0::/init.scope\n"), "c.service");
        assert_eq!(unit_in("0::/x.service\n", "0::/\n"), "", "PID 1 is not systemd");
    }

    #[test]
    fn what_the_machine_or_another_group_needs_is_spared() {
        let unit = |u: &str| Managed { hard: vec![u.into()], soft: Vec::new() };
        let (files, web) = (GroupName("files".into()), GroupName("web".into()));
        let groups =
            BTreeMap::from([(files.clone(), unit("smbd.service")), (web, unit("nginx.service"))]);
        let spared = |unit: &str| spared(unit, &files, &groups);
        for unit in [
            "",
            "init.scope",
            "systemd-journald.service",
            "systemd-logind.service",
            "dbus.service",
            "dbus-broker.service",
            "ssh.service",
            "sshd.service",
            "hafailover.service",
            "hafailover-lost.service",
            "hafailover-ip@10.0.0.1-24.service",
            "nginx.service",
        ] {
            assert!(spared(unit).is_some(), "{unit}");
        }
        for unit in ["session-3.scope", "user@7.service", "smbd.service", "run-u1.service"] {
            assert_eq!(spared(unit), None, "{unit}");
        }
    }
}
