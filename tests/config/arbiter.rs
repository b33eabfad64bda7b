//! Arbiters: wrong tables of etcd and sanlock, and groups that stop too slowly for a lease.

use super::{ARBITER, GOOD, good, parse, says};
use hafailover::config::arbiter::Back;
use hafailover::config::target;
use hafailover::core::name::GroupName;
use std::time::Duration;

#[test]
fn every_wrong_etcd_says_where_and_what() {
    let with = |more: &str| format!("{GOOD}[arbiter]\nkind = \"etcd\"\n[arbiter.etcd]\n{more}\n");
    let one = "endpoints = [\"http://10.0.0.1:2379\"]\n";
    let read = parse(&with(one), "h.toml", "n1").expect("good");
    assert_ne!(read.fingerprint, good().fingerprint, "another arbiter is another cluster");
    let at = GOOD.lines().count() + 3;
    let cases = [
        (format!("{GOOD}[arbiter]\nkind = \"etcd\"\n"), at - 1, "endpoints = ["),
        (format!("{GOOD}[arbiter]\nkind = \"paxos\"\n"), at - 1, "etcd"),
        (with("endpoints = []"), at, "1 to 16"),
        (with("endpoints = [\"10.0.0.1:2379\"]"), at, "https://HOST:PORT"),
        (with("endpoints = [\"http://10.0.0.1\"]"), at, "https://HOST:PORT"),
        (with("endpoints = [\"http://fd00::1:2379\"]"), at, "https://HOST:PORT"),
        (with("endpoints = [\"http://a:2379/v3\"]"), at, "without a path"),
        (with("endpoints = [\"http://u:p@a:2379\"]"), at, "https://HOST:PORT"),
        (with("endpoints = [\"http://a:1\", \"http://a:1/\"]"), at, "twice"),
        (with("endpoints = [\"https://[fd00::1]:2379\"]"), at, "https needs ca"),
        (with(&format!("{one}prefix = \"x/\"")), at, "slash"),
        (with(&format!("{one}cert = \"/x\"")), at, "cert and key"),
        (with(&format!("{one}user = \"x\"")), at, "password-file"),
        (with(&format!("{one}ca = \"x\"")), at, "whole path"),
        (with(&format!("{one}password = \"x\"")), at + 2, "password"),
    ];
    cases.into_iter().for_each(says);
}

#[test]
fn every_wrong_sanlock_says_where_and_what() {
    let with =
        |more: &str| format!("{GOOD}[arbiter]\nkind = \"sanlock\"\n[arbiter.sanlock]\n{more}\n");
    let one = "device = \"/dev/disk/by-partlabel/leases\"\n";
    let read = parse(&with(one), "h.toml", "n1").expect("good");
    let Back::Sanlock(at) = read.arbiter.expect("one").back else { panic!("another kind") };
    assert_eq!((at.io_timeout, at.dead()), (10, Duration::from_secs(140)));
    assert!(at.chain().contains("8 x io-timeout 10s + 60s = 140s"), "{}", at.chain());
    let at = GOOD.lines().count() + 3;
    let cases = [
        (format!("{GOOD}[arbiter]\nkind = \"sanlock\"\n"), at - 1, "device = "),
        (with("io-timeout = \"5s\""), at, "device"),
        (with("device = \"leases\""), at, "below /dev"),
        (with("device = \"/dev\""), at, "below /dev"),
        (with("device = \"/dev/disk/by-path/pci-0000:00\""), at, "by-partlabel"),
        (with(&format!("{one}io-timeout = \"500ms\"")), at, "whole seconds"),
        (with(&format!("{one}io-timeout = \"61s\"")), at, "from 1s to 60s"),
        (with(&format!("{one}io-timeout = \"5\"")), at, "io-timeout: "),
        (with(&format!("{one}path = \"x\"")), at + 2, "path"),
    ];
    cases.into_iter().for_each(says);
}

/// Goal: what cannot stop within its lease is not run under one.
#[test]
fn a_group_that_stops_too_slowly_for_the_lease_is_refused() {
    let root = tempfile::tempdir().expect("a directory");
    let dir = root.path().join("etc/systemd/system");
    std::fs::create_dir_all(&dir).expect("made");
    let settings = parse(&format!("{GOOD}{ARBITER}"), "h.toml", "n1").expect("good");
    let name = GroupName("files".into());
    for (budget, fits) in [("StopBudget=10s", true), ("StopBudget=11s", false), ("", false)] {
        let text = format!(
            "[Unit]\nRequires=smbd.service\n[X-Hafailover]\n{budget}\n[Install]\n\
             WantedBy=hafailover-groups.target\n"
        );
        std::fs::write(dir.join("files.target"), text).expect("written");
        let target = target::read(root.path(), &name).expect("read");
        let result = target::settle(&target, &settings);
        assert_eq!(result.is_ok(), fits, "{budget}");
        let noted = target::settle_noted(&target, &settings).expect("it is held here");
        assert!(noted.policy.stop_budget <= Duration::from_secs(10), "{budget}");
        let refused = target::outlasts(&target, &settings);
        assert_eq!(refused.is_none(), fits);
        assert!(refused.is_none_or(|words| words.contains("lease = ")));
    }
}

/// Goal: the time after which the others count a daemon that hangs as ended is the one in force.
#[test]
fn a_daemon_that_may_hang_for_long_needs_a_watchdog() {
    let with = |more: &str| {
        let text = ARBITER.replace("[arbiter]\n", &format!("[arbiter]\n{more}"));
        let read = parse(&format!("{GOOD}{text}"), "h.toml", "n1").expect("good");
        read.arbiter.expect("one")
    };
    let seconds = |s| Some(Duration::from_secs(s));
    for (time, good) in
        [(seconds(10), true), (seconds(3), true), (seconds(11), false), (None, false)]
    {
        let words = with("").hangs(time);
        assert_eq!(words.is_none(), good, "{time:?}");
        assert!(words.is_none_or(|w| w.contains("WatchdogSec=") && w.contains("after 10s")));
        assert_eq!(with("watchdog = \"5s\"\n").hangs(time), None);
    }
}

/// Goal: slots and leases are never written over each other.
#[test]
fn a_disk_link_has_not_the_device_of_the_leases() {
    let text = |link: &str| {
        format!(
            "{GOOD}[[link]]\ntype = \"disk\"\ndevice = \"/dev/disk/by-id/{link}\"\n\
             [arbiter]\nkind = \"sanlock\"\n[arbiter.sanlock]\n\
             device = \"/dev/disk/by-id/leases\"\n"
        )
    };
    parse(&text("slots"), "h.toml", "n1").expect("two devices");
    says((text("leases"), GOOD.lines().count() + 1, "partition of their own"));
}

#[test]
fn every_wrong_watchdog_says_where_and_what() {
    let with = |more: &str| {
        format!(
            "{GOOD}[arbiter]\nkind = \"witness\"\n{more}\n[arbiter.witness]\n\
             address = \"10.0.0.9\"\n"
        )
    };
    let read = parse(&with("watchdog = \"5s\""), "h.toml", "n1").expect("good");
    let watchdog = read.watchdog().expect("one");
    assert_eq!((watchdog.device.to_str(), watchdog.seconds), (Some("/dev/watchdog"), 5));
    let times = read.arbiter.expect("one").times;
    assert_eq!(times.most, times.lease + Duration::from_secs(12), "never below that without one");
    let at = GOOD.lines().count() + 3;
    let cases = [
        (with("watchdog = \"1s\""), at, "from 2s to 60s"),
        (with("watchdog = \"61s\""), at, "from 2s to 60s"),
        (with("watchdog = \"2500ms\""), at, "whole seconds"),
        (with("watchdog = \"long\""), at, "long"),
        (with("watchdog-device = \"/dev/watchdog1\""), at, "watchdog = \"10s\""),
        (with("watchdog = \"5s\"\nwatchdog-device = \"watchdog1\""), at + 1, "below /dev"),
    ];
    cases.into_iter().for_each(says);
}
