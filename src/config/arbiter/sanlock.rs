//! `[arbiter.sanlock]`: the shared disk of the leases.

use crate::config::load::{parse_duration, show};
use serde::Deserialize;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

/// sanlock's own default.
const IO_TIMEOUT: Duration = Duration::from_secs(10);
const SECONDS: RangeInclusive<u64> = 1..=60;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Table {
    pub device: PathBuf,
    pub io_timeout: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub device: PathBuf,
    /// In seconds, which a read or write of sanlock's may take.
    pub io_timeout: u32,
}

impl Table {
    pub fn check(&self) -> Result<Settings, String> {
        if !self.device.starts_with("/dev") || self.device.components().count() < 3 {
            return Err("device must be a partition below /dev, of the same name on every node: \
                        \"/dev/disk/by-partlabel/...\""
                .into());
        }
        if self.device.to_string_lossy().contains([':', '\\']) {
            return Err("device: sanlock takes no name with ':' in it: write the one below \
                        /dev/disk/by-partlabel or /dev/disk/by-id"
                .into());
        }
        let written = self.io_timeout.as_deref().map(parse_duration).transpose();
        let time = written.map_err(|what| format!("io-timeout: {what}"))?.unwrap_or(IO_TIMEOUT);
        if time.subsec_nanos() != 0 || !SECONDS.contains(&time.as_secs()) {
            let (least, most) = (SECONDS.start(), SECONDS.end());
            return Err(format!("io-timeout must be whole seconds, from {least}s to {most}s"));
        }
        Ok(Settings { device: self.device.clone(), io_timeout: time.as_secs() as u32 })
    }
}

impl Settings {
    /// After so long without a renewal a node counts as dead for sanlock, and its turn is over:
    /// eight times the timeout until it gives itself up, and a minute in which a watchdog resets
    /// it (calc_host_dead_seconds of sanlock).
    pub fn dead(&self) -> Duration {
        Duration::from_secs(u64::from(self.io_timeout) * 8 + 60)
    }

    /// How that comes about, for `check`.
    pub fn chain(&self) -> String {
        let dead = show(self.dead());
        format!(
            "a node that dies in the moment of its claim keeps sanlock's turn for 8 x io-timeout \
             {}s + 60s = {dead}, in which no other claim is granted, and renewals are; a node \
             whose sanlock did not leave takes as long to join again, unless its sanlock has a \
             name that stays (our_host_name in /etc/sanlock/sanlock.conf)",
            self.io_timeout
        )
    }
}
