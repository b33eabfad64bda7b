//! The guest: a machine with a hardware watchdog that lives on the leases. Whatever hangs, it is
//! reset before another node may start its groups; and not while they may run.

use crate::cluster::{Cluster, PATIENCE};
use crate::harness::guest::Guest;
use crate::harness::wait;
use crate::stories::Story;
use std::time::{Duration, Instant};

pub const ALL: &[(&str, Story)] = &[("watchdog_lives_on_the_leases", lives_on_the_leases)];

/// `lease` below: a daemon on a slow machine has the time to be restarted.
const LEASE: Duration = Duration::from_secs(10);
/// `watchdog` below: what stands still for less, as an emulated machine may, is not reset.
const WATCHDOG: Duration = Duration::from_secs(8);
/// Longer than an unfed device lets anything go on.
const UNFED: Duration = Duration::from_secs(11);
/// Others may start so long after the last renewal: 27.5 s.
const OTHERS: Duration =
    Duration::from_millis((LEASE.as_secs() + 2 * WATCHDOG.as_secs()) * 1000 * 101 / 99 + 1000);
/// A machine that is emulated on a busy one.
const SLOW: Duration = Duration::from_secs(15);

/// n2 is there in this file only.
const CONFIG: &str = "[cluster]\nname = \"lab\"\n[[node]]\nname = \"n1\"\n[[node]]\nname = \"n2\"\n\
    [[link]]\ntype = \"udp\"\ninterface = \"dummy0\"\n[timing]\ndeadtime = \"2s\"\n\
    initdead = \"4s\"\n[arbiter]\nkind = \"witness\"\nlease = \"10s\"\nwatchdog = \"8s\"\n\
    [arbiter.witness]\naddress = \"127.0.0.1\"\n";
const WITNESS: &str = "address = \"127.0.0.1\"\nlongest = \"60s\"\n[[cluster]]\nname = \"lab\"\n\
    keys = \"/etc/hafailover/keys\"\n";
const LINK: &str = "[Unit]\nDescription=The link\nBefore=hafailover.service\n[Service]\n\
    Type=oneshot\nRemainAfterExit=yes\n\
    ExecStart=ip address add 192.168.9.1/24 dev dummy0\n\
    ExecStart=ip link set dummy0 up multicast on\n[Install]\nWantedBy=multi-user.target\n";
const TARGET: &str = "[Unit]\nDescription=Files\nRequires=sleeper.service\n[X-Hafailover]\n\
    Nodes=n1 n2\nStopBudget=1s\n[Install]\nWantedBy=hafailover-groups.target\n";
const SLEEPER: &str = "[Unit]\nDescription=A member\n[Service]\nExecStart=sleep infinity\n";
const FILES: &[(&str, &str)] = &[
    ("etc/hostname", "n1\n"),
    ("etc/hafailover/hafailover.toml", CONFIG),
    ("etc/hafailover/witness.toml", WITNESS),
    ("etc/systemd/system/link.service", LINK),
    ("etc/systemd/system/files.target", TARGET),
    ("etc/systemd/system/sleeper.service", SLEEPER),
    // A witness that never granted anything, and not one that has lost what it knew.
    ("var/lib/hafailover-witness/39b0d83311d75f32", "{}\n"),
];
const SETUP: &str = "hafailover keygen\n\
    systemctl -q enable link files.target hafailover-witness\n";

/// The daemon says until when; PID 1 keeps the device; and a machine that hangs is reset by it.
fn lives_on_the_leases(c: &mut Cluster) {
    let mut guest = Guest::new(c.lab.dir(), c.lab.layers(), FILES, SETUP);
    let checked = guest.run("hafailover check").text;
    assert!(checked.contains("i6300ESB") && !checked.contains("error"), "{checked}");
    assert_eq!(counts(&mut guest), None, "nothing is owned");
    guest.must("hafailover state create && systemctl start hafailover");
    runs(&mut guest);
    goes_on(&mut guest);
    let status = guest.run("hafailover status").text;
    assert!(status.contains("watchdog counts"), "{status}");

    another_time(&mut guest);
    feeder_is_killed(&mut guest);
    daemon_is_restarted(&mut guest);
    daemon_is_stopped(&mut guest);
    somebody_else_has_it(&mut guest);
    cannot_be_stopped(&mut guest);
    machine_is_rebooted(&mut guest);
    daemon_hangs(&mut guest);
    guest.wait_up();
    runs(&mut guest);
    kernel_hangs(&mut guest);
}

/// The device's time in seconds, if it counts.
fn counts(guest: &mut Guest) -> Option<u64> {
    counts_at(guest, "watchdog0")
}

fn counts_at(guest: &mut Guest, device: &str) -> Option<u64> {
    let shown = guest.must(&format!("cd /sys/class/watchdog/{device}; cat state timeout"));
    let (state, timeout) = shown.split_once('\n').expect("two lines");
    (state == "active").then(|| timeout.trim().parse().expect("a number"))
}

/// The group runs, and the device counts.
fn runs(guest: &mut Guest) {
    is_up(guest);
    assert_eq!(counts(guest), Some(WATCHDOG.as_secs()));
}

fn is_up(guest: &mut Guest) {
    wait("the group", PATIENCE, || {
        let status = guest.run("hafailover status --json").text;
        let status: serde_json::Value = serde_json::from_str(&status).ok()?;
        (status["view"]["groups"][0]["phase"] == "running").then_some(())
    });
}

/// Longer than an unfed device would let it.
fn goes_on(guest: &mut Guest) {
    let member = member(guest);
    let event = guest.event(UNFED);
    assert!(event.is_none(), "{event:?}");
    assert_eq!(counts(guest), Some(WATCHDOG.as_secs()));
    assert_eq!(self::member(guest), member);
}

fn member(guest: &mut Guest) -> String {
    main_process(guest, "sleeper")
}

fn main_process(guest: &mut Guest, unit: &str) -> String {
    guest.must(&format!("systemctl show -P MainPID {unit}"))
}

/// A reload with other settings changes it under what runs.
fn another_time(guest: &mut Guest) {
    let member = member(guest);
    for seconds in [WATCHDOG.as_secs() + 1, WATCHDOG.as_secs()] {
        guest.must(&format!(
            "sed -i 's/^watchdog = .*/watchdog = \"{seconds}s\"/' /etc/hafailover/hafailover.toml; \
             hafailover reload"
        ));
        wait("the device's new time", PATIENCE, || (counts(guest) == Some(seconds)).then_some(()));
    }
    assert_eq!(self::member(guest), member);
}

/// The device stays open, with PID 1, and the next feeder goes on.
fn feeder_is_killed(guest: &mut Guest) {
    let feeder = main_process(guest, "hafailover-watchdog");
    guest.must("systemctl kill -s KILL hafailover-watchdog");
    wait("the next feeder", PATIENCE, || {
        let next = main_process(guest, "hafailover-watchdog");
        (next != "0\n" && next != feeder).then_some(())
    });
    goes_on(guest);
}

/// From here on PID 1 does not end a daemon that hangs.
fn daemon_is_restarted(guest: &mut Guest) {
    let member = member(guest);
    guest.must(
        "mkdir /etc/systemd/system/hafailover.service.d; cd /etc/systemd/system; \
         printf '[Service]\\nWatchdogSec=0\\n' >hafailover.service.d/patient.conf; \
         systemctl daemon-reload; systemctl restart hafailover",
    );
    runs(guest);
    goes_on(guest);
    assert_eq!(self::member(guest), member, "a restart of the daemon touched a member");
}

/// Nothing is owned any more, and nothing is fed.
fn daemon_is_stopped(guest: &mut Guest) {
    guest.must("systemctl stop hafailover");
    assert_eq!(member(guest), "0\n");
    assert_eq!(counts(guest), None);
    let event = guest.event(UNFED);
    assert!(event.is_none(), "{event:?}");
    guest.must("systemctl enable -q --now hafailover");
    runs(guest);
}

/// Nothing starts by a device that another program has; with it given back all is well.
fn somebody_else_has_it(guest: &mut Guest) {
    guest.must(
        "systemctl stop hafailover; systemctl stop hafailover-watchdog.service; \
         touch /run/rival; systemd-run -q --unit=rival sh -c 'exec 9>/dev/watchdog; \
         while test -e /run/rival; do printf x >&9; sleep 1; done; printf V >&9'",
    );
    wait("the rival", PATIENCE, || counts(guest));
    guest.must("systemctl start hafailover");
    told(guest, "hafailover", "/dev/watchdog: somebody else has it: RuntimeWatchdogSec=");
    assert_eq!(member(guest), "0\n");
    assert!(guest.run("hafailover status").text.contains("somebody else has it"));
    guest.must("rm /run/rival");
    wait("the rival's end", PATIENCE, || counts(guest).is_none().then_some(()));
    guest.must("hafailover clear files");
    runs(guest);
    told(guest, "hafailover", "it can be fed again");
}

fn told(guest: &mut Guest, unit: &str, words: &str) {
    wait(words, PATIENCE, || {
        let told = format!("journalctl -b -q -o cat -u {unit} --grep '{words}'");
        (guest.run(&told).code == 0).then_some(())
    });
}

/// A device that goes on counting (nowayout) is fed on, also when nothing is owned any more. This
/// one is the kernel's own, and only says that it would reset the machine.
fn cannot_be_stopped(guest: &mut Guest) {
    const DEVICE: &str = "watchdog-device = \"/dev/watchdog1\"";
    guest.must(&format!(
        "systemctl stop hafailover; sed -i \
         's,^watchdog = .*,&\\n{DEVICE},' /etc/hafailover/hafailover.toml; \
         systemctl start hafailover"
    ));
    is_up(guest);
    let counted = Some(WATCHDOG.as_secs());
    assert_eq!((counts_at(guest, "watchdog1"), counts(guest)), (counted, None));
    guest.must("systemctl stop hafailover");
    assert_eq!(member(guest), "0\n");
    told(guest, "hafailover-watchdog", "nowayout");
    let event = guest.event(UNFED);
    assert!(event.is_none(), "{event:?}");
    assert_eq!(counts_at(guest, "watchdog1"), counted);
    assert_eq!(guest.run("dmesg | grep softdog.*Trigger").text, "", "it was not fed");
    guest.must(
        "systemctl stop hafailover-watchdog.service; \
         sed -i /^watchdog-device/d /etc/hafailover/hafailover.toml; systemctl start hafailover",
    );
    runs(guest);
}

/// What is owned is given away, and the device does not cut that short.
fn machine_is_rebooted(guest: &mut Guest) {
    guest.tell("systemctl reboot");
    let event = guest.event(PATIENCE).expect("the machine is reset");
    assert_eq!(event.what, "RESET", "not by the device");
    guest.wait_up();
    runs(guest);
}

/// The device resets the machine, after the lease and before others may start.
fn daemon_hangs(guest: &mut Guest) {
    let asked = Instant::now();
    let said = guest.must(
        "systemctl kill -s STOP hafailover; cut -d ' ' -f 4 /run/hafailover/lasts/files; \
         cut -d ' ' -f 1 /proc/uptime",
    );
    let hangs = Instant::now();
    let (until, now) = said.split_once('\n').expect("two lines");
    let until = Duration::from_nanos(until.parse().expect("nanoseconds"));
    let left = until.saturating_sub(Duration::from_secs_f64(now.trim().parse().expect("seconds")));
    assert!(left <= LEASE, "{left:?}");
    let reset = reset_by_watchdog(guest);
    assert!(reset - asked > left, "within the lease: after {:?} of {left:?}", reset - asked);
    let after = reset - hangs;
    assert!(after < left + (OTHERS - LEASE), "after {after:?}, and {left:?} were left");
}

/// Of a whole machine that stands still nobody is left but the device.
fn kernel_hangs(guest: &mut Guest) {
    let hangs = Instant::now();
    guest.tell("echo 0 >/proc/sys/kernel/panic; echo c >/proc/sysrq-trigger");
    let after = reset_by_watchdog(guest) - hangs;
    assert!(after < WATCHDOG + SLOW, "after {after:?}");
}

/// When it was, by qemu's word that it was the device.
fn reset_by_watchdog(guest: &Guest) -> Instant {
    let event = guest.event(PATIENCE).expect("the machine is reset");
    assert_eq!(event.what, "WATCHDOG");
    event.at
}
