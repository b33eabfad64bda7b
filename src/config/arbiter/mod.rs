//! `[arbiter]`: who grants the leases, and how long they count. The numbers are checked here, and
//! shown with the arithmetic (hafailover-protocol(7), "Leases").

pub mod etcd;
pub mod sanlock;
pub mod witness;

use super::load::{parse_duration, show};
use crate::core::policy::{LeaseTimes, OnLost, Safety, Timing};
use serde::Deserialize;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;
use toml::Spanned;

const LEASE: Duration = Duration::from_secs(30);
const LEASE_LEAST: Duration = Duration::from_secs(2);
const LEASE_MOST: Duration = Duration::from_secs(3600);
/// For the loop that is late, and a reset that takes its time.
const SLACK: Duration = Duration::from_secs(1);
/// WatchdogSec= of hafailover.service, after which PID 1 ends a daemon that hangs.
const HANGS: Duration = Duration::from_secs(10);
/// After so long such a daemon is there again, or its guard is at work: that, and a restart.
const HUNG: Duration = HANGS.saturating_add(Duration::from_secs(2));
/// In hundredths of a percent: 1 %.
const DRIFT: u32 = 100;
const DRIFT_MOST: u32 = 1000;
/// Devices count in whole seconds; one is the shortest time of most of them.
const WATCHDOG: std::ops::RangeInclusive<u32> = 2..=60;
const DEVICE: &str = "/dev/watchdog";

/// As it is written: `kind`, and a table of that name with the keys of the kind.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Table {
    pub kind: Spanned<Kind>,
    pub lease: Option<Spanned<String>>,
    pub drift: Option<Spanned<String>>,
    pub watchdog: Option<Spanned<String>>,
    pub watchdog_device: Option<Spanned<String>>,
    pub witness: Option<Spanned<witness::Table>>,
    pub etcd: Option<Spanned<etcd::Table>>,
    pub sanlock: Option<Spanned<sanlock::Table>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Witness,
    Etcd,
    Sanlock,
}

/// Checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub back: Back,
    pub times: LeaseTimes,
    /// How much faster or slower a clock may run, in hundredths of a percent.
    pub drift: u32,
    /// A hardware watchdog that lives on the leases.
    pub watchdog: Option<Watchdog>,
}

/// A device, and after how many seconds without being fed it resets the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watchdog {
    pub device: PathBuf,
    pub seconds: u32,
}

/// The kind, with its own settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Back {
    Witness(witness::Settings),
    Etcd(etcd::Settings),
    Sanlock(sanlock::Settings),
}

impl Back {
    /// Whether this one knows what the other has granted, however it is reached: an etcd is the
    /// same as long as one of its members is.
    pub fn is(&self, other: &Back) -> bool {
        match (self, other) {
            (Back::Witness(one), Back::Witness(other)) => one.address == other.address,
            (Back::Etcd(one), Back::Etcd(other)) => {
                one.prefix == other.prefix && one.members().any(|m| other.members().any(|o| m == o))
            }
            (Back::Sanlock(one), Back::Sanlock(other)) => one.device == other.device,
            _ => false,
        }
    }
}

/// A refusal, and where.
type Wrong = (Range<usize>, String);

pub fn check(table: &Table, timing: &Timing, safety: &Safety) -> Result<Settings, Wrong> {
    let time = |value: &Option<Spanned<String>>, default| match value {
        None => Ok(default),
        Some(value) => parse_duration(value.get_ref()).map_err(|what| (value.span(), what)),
    };
    let lease = time(&table.lease, LEASE)?;
    let span = table.lease.as_ref().map_or(table.kind.span(), Spanned::span);
    let refuse = |what: String| Err((span.clone(), what));
    if !(LEASE_LEAST..=LEASE_MOST).contains(&lease) {
        return refuse(format!("lease must be from {} to {}", show(LEASE_LEAST), show(LEASE_MOST)));
    }
    if lease < timing.deadtime * 2 {
        return refuse(format!(
            "lease ({}) is less than twice deadtime ({}): heartbeats that are only late would end \
             what the peers vouch for: write lease = \"{}\" or more",
            show(lease),
            show(timing.deadtime),
            show(timing.deadtime * 2)
        ));
    }
    let watchdog = watchdog(table)?;
    if safety.on_lost == OnLost::Leave {
        return refuse(
            "on-lost = \"leave\": nothing ends a group whose daemon is lost, or whose stop fails, \
             when its lease is over, and another node would start it: remove on-lost, or the \
             arbiter"
                .into(),
        );
    }
    let drift = match &table.drift {
        None => DRIFT,
        Some(value) => percent(value.get_ref()).ok_or_else(|| {
            let most = f64::from(DRIFT_MOST) / 100.0;
            (value.span(), format!("write a percentage from 0.01% to {most}%, such as \"1%\""))
        })?,
    };
    let most = most(lease, watchdog.as_ref().map(|w| w.seconds));
    let times = LeaseTimes { lease, most, wait: wait(most, drift) };
    Ok(Settings { back: back(table)?, times, drift, watchdog })
}

impl Settings {
    /// The longest time that the others give PID 1 to end a daemon that hangs, where no hardware
    /// watchdog makes up for it.
    pub fn ends_after(&self) -> Option<Duration> {
        self.watchdog.is_none().then_some(HANGS)
    }

    /// What is wrong if PID 1 ends a daemon that hangs after this time, or never: no hardware
    /// watchdog makes up for it, and the others count on it.
    pub fn hangs(&self, ended_after: Option<Duration>) -> Option<String> {
        let most = self.ends_after()?;
        ended_after.is_none_or(|time| time > most).then(|| {
            let time = ended_after.map_or("off".into(), show);
            format!(
                "WatchdogSec= of hafailover.service is {time}: the other nodes count on a daemon \
                 that hangs to be ended after {}, before its leases are over for them: remove the \
                 line (systemctl cat hafailover), systemctl daemon-reload and restart hafailover; \
                 or write watchdog = \"10s\" in [arbiter], where every node has such a device",
                show(most)
            )
        })
    }
}

/// `1%`, `0.5%` in hundredths of a percent.
fn percent(text: &str) -> Option<u32> {
    let number: f64 = text.strip_suffix('%')?.trim().parse().ok()?;
    let hundredths = (number * 100.0).round();
    (1.0..=f64::from(DRIFT_MOST)).contains(&hundredths).then_some(hundredths as u32)
}

/// W and its device, if there is one.
fn watchdog(table: &Table) -> Result<Option<Watchdog>, Wrong> {
    let Some(written) = &table.watchdog else {
        return match &table.watchdog_device {
            Some(device) => Err((
                device.span(),
                "a device, and nothing says for how long it may go unfed: write watchdog = \"10s\""
                    .into(),
            )),
            None => Ok(None),
        };
    };
    let time = parse_duration(written.get_ref()).map_err(|what| (written.span(), what))?;
    let seconds = u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
    if time.subsec_nanos() != 0 || !WATCHDOG.contains(&seconds) {
        let (least, most) = (WATCHDOG.start(), WATCHDOG.end());
        let words = format!("watchdog must be whole seconds, from {least}s to {most}s");
        return Err((written.span(), words));
    }
    let device = match &table.watchdog_device {
        None => DEVICE.into(),
        Some(device) if device.get_ref().starts_with("/dev/") => device.get_ref().into(),
        Some(device) => {
            return Err((
                device.span(),
                "write a path below /dev, such as \"/dev/watchdog1\"".into(),
            ));
        }
    };
    Ok(Some(Watchdog { device, seconds }))
}

/// L + 2 W: a freeze of just under W between the look at the lease and the feeding, and the W that
/// this gives. Without a watchdog that lives on the lease, a daemon that dies or hangs just before
/// it would have begun to stop is followed by the next one, or by its guard, which both know until
/// when the lease counted: L and the time that takes. It is never less than that: a device that
/// cannot be armed under a group that runs already protects no worse than none.
fn most(lease: Duration, watchdog: Option<u32>) -> Duration {
    lease + HUNG.max(twice(watchdog.unwrap_or_default()))
}

fn twice(seconds: u32) -> Duration {
    Duration::from_secs(seconds.into()) * 2
}

/// T >= (L + 2 W) (1 + drift) / (1 - drift) + slack.
fn wait(most: Duration, drift: u32) -> Duration {
    let (faster, slower) = (10_000 + drift, 10_000 - drift);
    most * faster / slower + SLACK
}

fn back(table: &Table) -> Result<Back, Wrong> {
    match table.kind.get_ref() {
        Kind::Witness => part(
            table,
            &table.witness,
            |witness| witness.check().map(Back::Witness),
            "kind = \"witness\": its address is missing: write [arbiter.witness] and address = \
             \"ADDRESS\" in it",
        ),
        Kind::Etcd => part(
            table,
            &table.etcd,
            |etcd| etcd.check().map(Back::Etcd),
            "kind = \"etcd\": its members are missing: write [arbiter.etcd] and endpoints = \
             [\"https://HOST:2379\", ...] in it",
        ),
        Kind::Sanlock => part(
            table,
            &table.sanlock,
            |sanlock| sanlock.check().map(Back::Sanlock),
            "kind = \"sanlock\": its disk is missing: write [arbiter.sanlock] and device = \
             \"/dev/disk/by-partlabel/...\" in it",
        ),
    }
}

/// The kind's own table, which must be there.
fn part<T>(
    table: &Table,
    own: &Option<Spanned<T>>,
    check: impl Fn(&T) -> Result<Back, String>,
    missing: &str,
) -> Result<Back, Wrong> {
    let own = own.as_ref().ok_or_else(|| (table.kind.span(), missing.to_string()))?;
    check(own.get_ref()).map_err(|what| (own.span(), what))
}

impl Settings {
    /// Longest time that a group's members may need to stop.
    pub fn stop_most(&self) -> Duration {
        self.times.lease / 2
    }

    /// How the waiting time comes about, for `check`.
    pub fn chain(&self) -> String {
        let percent = f64::from(self.drift) / 100.0;
        let sum = match &self.watchdog {
            None => format!(
                "no watchdog, so lease {} + {} for a daemon that hangs",
                show(self.times.lease),
                show(HUNG)
            ),
            Some(watchdog) => {
                let (lease, seconds) = (show(self.times.lease), watchdog.seconds);
                match twice(seconds) > HUNG {
                    true => format!("lease {lease} + 2 x watchdog {seconds}s"),
                    false => format!(
                        "lease {lease} + {} for a daemon that hangs, more than 2 x watchdog \
                         {seconds}s",
                        show(HUNG)
                    ),
                }
            }
        };
        format!(
            "{sum}, clocks that differ by {percent}% each way, {} of slack: {:.1} s after an \
             owner's last renewal or voucher another node may start its groups; an owner begins \
             to stop StopBudget= before its lease is over",
            show(SLACK),
            self.times.wait.as_secs_f64()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn the_waiting_time_covers_lease_watchdog_hung_daemon_and_drift() {
        let wait = |l, w, d| wait(most(S * l, Some(w).filter(|w| *w > 0)), d).as_secs_f64();
        assert!((wait(30, 0, 100) - (42.0 * 1.01 / 0.99 + 1.0)).abs() < 1e-6);
        assert!((wait(2, 0, 100) - (14.0 * 1.01 / 0.99 + 1.0)).abs() < 1e-6);
        assert!((wait(30, 10, 100) - (50.0 * 1.01 / 0.99 + 1.0)).abs() < 1e-6);
        assert!((wait(30, 5, 100) - (42.0 * 1.01 / 0.99 + 1.0)).abs() < 1e-6, "as without one");
        assert!((wait(30, 0, 1000) - (42.0 * 1.1 / 0.9 + 1.0)).abs() < 1e-6);
    }

    #[test]
    fn percentages_are_read() {
        assert_eq!(percent("1%"), Some(100));
        assert_eq!(percent("0.05 %"), Some(5));
        for wrong in ["1", "0%", "11%", "x%", "-1%", ""] {
            assert_eq!(percent(wrong), None, "{wrong}");
        }
    }
}
