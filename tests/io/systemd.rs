//! The hands on systemd against a manager that lies, sleeps and is late.

use crate::manager::{Manager, OTHERS, PATIENCE, Signal, run};
use hafailover::core::name::{Epoch, GroupName, NodeId};
use hafailover::core::{Event, MemberState, Observation, StopError, Terminate};
use hafailover::io::systemd::{Managed, Systemd};
use hafailover::io::{Input, clock, token};
use std::time::Duration;
use tokio::sync::mpsc;

pub const UNIT: &str = "a.service";

pub struct Hands {
    pub systemd: Systemd,
    pub inbox: mpsc::Receiver<Input>,
}

pub fn group() -> GroupName {
    GroupName("files".into())
}

impl Hands {
    pub fn new() -> Hands {
        Hands::with(&[("files", &[UNIT])])
    }

    /// Groups of these members.
    pub fn with(groups: &[(&str, &[&str])]) -> Hands {
        let (sender, inbox) = mpsc::channel(64);
        let hands = Hands { systemd: Systemd::spawn(sender).expect("a thread"), inbox };
        hands.manage(groups);
        hands
    }

    fn manage(&self, groups: &[(&str, &[&str])]) {
        let managed = |(name, units): &(&str, &[&str])| {
            let hard = units.iter().map(|u| u.to_string()).collect();
            (GroupName(name.to_string()), Managed { hard, soft: Vec::new() })
        };
        self.systemd.manage(groups.iter().map(managed).collect());
    }

    pub fn next(&mut self) -> Input {
        let next = async { tokio::time::timeout(PATIENCE, self.inbox.recv()).await };
        run(next).expect("in time").expect("it runs")
    }

    pub fn seen(&mut self) -> Observation {
        loop {
            if let Input::Event(Event::Observed { group, seen }) = self.next()
                && group.0 == "files"
            {
                return seen;
            }
        }
    }

    pub fn stopped(&mut self) -> Result<(), StopError> {
        loop {
            if let Input::Event(Event::Stopped { result, .. }) = self.next() {
                return result;
            }
        }
    }

    /// The first observation in which the first member is so.
    pub fn seen_as(&mut self, wanted: MemberState) -> Observation {
        loop {
            let seen = self.seen();
            if state(&seen) == Some(wanted) {
                return seen;
            }
        }
    }
}

pub fn state(seen: &Observation) -> Option<MemberState> {
    seen.members.first().map(|m| m.state)
}

/// Goal: nobody but PID 1 and logind tells what they did: any process on the system bus may send
/// a signal to our name, and a forged shutdown would make this node give everything away.
#[test]
fn a_forged_signal_is_not_heard() {
    let manager = Manager::start();
    manager.set(UNIT, "active");
    let mut hands = Hands::new();
    assert_eq!(state(&hands.seen()), Some(MemberState::Active));
    crate::space::sh(
        "names() { dbus-send --system --print-reply --dest=org.freedesktop.DBus / \
                   org.freedesktop.DBus.ListNames | grep -o '\":[^\"]*\"' | tr -d '\"'; }
         for name in $(names); do
             setpriv --reuid 65534 --clear-groups dbus-send --system --type=signal --dest=$name \
                 /org/freedesktop/login1 org.freedesktop.login1.Manager.PrepareForShutdown \
                 boolean:true
         done",
    );
    manager.emit(Signal::Reloaded);
    loop {
        match hands.next() {
            Input::Reload => break,
            Input::Event(Event::Terminate { kind }) => panic!("a forged {kind:?}"),
            _ => {}
        }
    }
}

/// Goal: a bus without a logind (it did not come back after the bus was restarted) is a bus.
#[test]
fn no_logind_is_no_reason_to_leave_the_bus() {
    let manager = Manager::with(&["org.freedesktop.systemd1"]);
    manager.set(UNIT, "active");
    std::fs::remove_file("/run/systemd/private").expect("the bus is the only way");
    let mut hands = Hands::new();
    assert_eq!(state(&hands.seen()), Some(MemberState::Active));
}

/// Goal: why we are being ended is asked until somebody answers: taken for a restart, a stop would
/// leave the groups running without a daemon.
#[test]
fn a_busy_pid_1_is_asked_again_why_we_end() {
    let manager = Manager::start();
    manager.set(UNIT, "active");
    let mut hands = Hands::new();
    hands.seen();
    {
        let mut state = manager.state.lock().expect("whole");
        state.own_job = "stop".into();
        state.mute.insert("hafailover.service".into(), 1);
    }
    let systemd = hands.systemd.clone();
    assert_eq!(run(async { systemd.own_job().await }), Terminate::Stop);
}

/// Goal: what was read first is told first, also if its answer is late.
#[test]
fn observations_are_told_in_the_order_of_time() {
    let manager = Manager::start();
    manager.set(UNIT, "active");
    let mut hands = Hands::new();
    hands.seen();
    manager.emit(Signal::Reloaded);
    while !matches!(hands.next(), Input::Reload) {}
    hands.systemd.observe(group());
    hands.seen();
    manager.set(UNIT, "failed");
    let release = manager.hold(UNIT);
    hands.systemd.observe(group());
    manager.until("the late reading", |s| s.hold.is_empty());
    manager.set(UNIT, "active");
    manager.emit(Signal::Changed(UNIT.into()));
    manager.emit(Signal::Reloaded);
    while !matches!(hands.next(), Input::Reload) {}
    drop(release);
    let end = std::time::Instant::now() + Duration::from_secs(2);
    let mut last = None;
    while let Some(left) = end.checked_duration_since(std::time::Instant::now()) {
        let next = run(async { tokio::time::timeout(left, hands.inbox.recv()).await });
        if let Ok(Some(Input::Event(Event::Observed { seen, .. }))) = next {
            last = state(&seen);
        }
    }
    assert_eq!(last, Some(MemberState::Active), "the last word is what is");
}

/// Goal: a member that a person stopped is not taken for one that died, also when its state is
/// read before the signal about that person's job is in.
#[test]
fn who_stopped_a_member_is_known_before_it_is_told() {
    let manager = Manager::start();
    let epoch = Epoch { counter: 1, node: NodeId(0) };
    token::write(&group(), epoch).expect("written");
    manager.set(UNIT, "active");
    let mut hands = Hands::new();
    assert_eq!(state(&hands.seen()), Some(MemberState::Active));
    assert!(stopped_by_hand(&manager, &mut hands));
}

/// Somebody stops the member, and the signal about that comes late. Was it told as his doing?
pub fn stopped_by_hand(manager: &Manager, hands: &mut Hands) -> bool {
    {
        let mut state = manager.state.lock().expect("whole");
        state.late.push(Signal::Done(UNIT.into()));
        state.units.insert(UNIT.into(), "inactive".into());
    }
    manager.emit(Signal::Changed(UNIT.into()));
    hands.seen_as(MemberState::Inactive).members[0].by_hand
}

pub fn own() -> Epoch {
    let epoch = Epoch { counter: 1, node: NodeId(0) };
    token::write(&group(), epoch).expect("written");
    epoch
}

/// Goal: the same of a member that systemd once restarted: its count of restarts stays until it is
/// started again.
#[test]
fn a_member_that_crashed_once_can_be_stopped_by_hand() {
    let manager = Manager::start();
    own();
    manager.set(UNIT, "active");
    manager.state.lock().expect("whole").restarts.insert(UNIT.into(), 1);
    let mut hands = Hands::new();
    hands.seen_as(MemberState::Active);
    assert!(stopped_by_hand(&manager, &mut hands));
}

/// Goal: the same when PID 1 does not answer the first question about it.
#[test]
fn a_busy_pid_1_is_asked_again_who_stopped_a_member() {
    let manager = Manager::start();
    own();
    manager.set(UNIT, "active");
    let mut hands = Hands::new();
    hands.seen_as(MemberState::Active);
    manager.set(UNIT, "inactive");
    // That of the look, and that of the judge.
    manager.state.lock().expect("whole").mute.insert(UNIT.into(), 2);
    manager.emit(Signal::Done(UNIT.into()));
    assert!(hands.seen_as(MemberState::Inactive).members[0].by_hand);
}

/// A member that is bound to an inactive device is stopped. Is that told as somebody's doing?
fn stopped_with_device(device: &str) -> bool {
    let manager = Manager::start();
    own();
    manager.set(UNIT, "active");
    manager.set(device, "inactive");
    let binds_to = (UNIT.to_string(), vec![device.to_string()]);
    manager.state.lock().expect("whole").binds_to.extend([binds_to]);
    let mut hands = Hands::new();
    hands.seen_as(MemberState::Active);
    stopped_by_hand(&manager, &mut hands)
}

/// Goal: a disk that is gone is a failure: the job that then stops its mount is systemd's own.
#[test]
fn a_member_whose_device_went_was_not_stopped_by_hand() {
    assert!(!stopped_with_device("dev-sdz.device"));
}

/// Goal: a disk that is there is none, also where no udev tells systemd of it.
#[test]
fn a_member_whose_device_is_there_was_stopped_by_hand() {
    assert!(stopped_with_device("dev-null.device"));
}

/// Goal: a stop by hand is known as one also when that person's job took so long that we asked for
/// newer ones meanwhile, at another group.
#[test]
fn a_job_older_than_ours_at_another_group_is_not_ours() {
    let manager = Manager::start();
    let epoch = own();
    manager.set(UNIT, "active");
    manager.set("b.service", "inactive");
    manager.state.lock().expect("whole").jobs = OTHERS;
    let mut hands = Hands::with(&[("files", &[UNIT]), ("other", &["b.service"])]);
    hands.seen_as(MemberState::Active);
    let other = GroupName("other".into());
    hands.systemd.start(other, epoch, 1, clock::now() + PATIENCE);
    loop {
        if let Input::Event(Event::Started { result, .. }) = hands.next() {
            break assert_eq!(result, Ok(()));
        }
    }
    assert!(stopped_by_hand(&manager, &mut hands));
}

/// Goal: a member that came up again without a job that we heard of (`mount`; a lost signal) and
/// then dies is not taken for one that is still stopped by hand, which nobody would start again.
#[test]
fn a_stop_by_hand_ends_when_the_member_is_up() {
    let manager = Manager::start();
    own();
    manager.set(UNIT, "active");
    let mut hands = Hands::new();
    hands.seen_as(MemberState::Active);
    assert!(stopped_by_hand(&manager, &mut hands));
    for now in [MemberState::Active, MemberState::Inactive] {
        manager.set(UNIT, if now == MemberState::Active { "active" } else { "inactive" });
        manager.emit(Signal::Changed(UNIT.into()));
        assert!(!hands.seen_as(now).members[0].by_hand, "{now:?}");
    }
}

/// Goal: nothing below a member that did not stop is touched, also if the group names what is
/// below by an alias: systemd orders by the units' own names.
#[test]
fn members_named_by_an_alias_are_in_their_order() {
    let manager = Manager::start();
    own();
    manager.set(UNIT, "active");
    manager.set("real.service", "active");
    {
        let mut state = manager.state.lock().expect("whole");
        state.aliases.insert("b.service".into(), "real.service".into());
        state.after.insert(UNIT.into(), vec!["real.service".into()]);
        state.stubborn.insert(UNIT.into());
    }
    let mut hands = Hands::with(&[("files", &[UNIT, "b.service"])]);
    hands.seen_as(MemberState::Active);
    hands.systemd.stop(group(), 1);
    assert!(matches!(hands.stopped(), Err(StopError::Stuck { unit, .. }) if unit == UNIT));
    let calls = manager.state.lock().expect("whole").calls.clone();
    assert!(calls.contains(&format!("StopUnit {UNIT}")));
    assert!(!calls.contains(&"StopUnit b.service".into()), "{calls:?}");
}

/// Goal: a oneshot whose commands to stop failed is not released: a volume group that is still
/// active, a replicated disk that is still primary, are in no table of the kernel. Once somebody
/// has seen to it and reset the failure, it is.
#[test]
fn a_oneshot_that_could_not_undo_is_stuck() {
    let manager = Manager::start();
    own();
    manager.set(UNIT, "active");
    manager.state.lock().expect("whole").undone.insert(UNIT.into());
    let mut hands = Hands::new();
    hands.seen_as(MemberState::Active);
    for job in 1..3 {
        hands.systemd.stop(group(), job);
        let Err(StopError::Stuck { why, .. }) = hands.stopped() else { panic!("released") };
        assert!(why.contains("systemctl reset-failed"), "{why}");
    }
    manager.set(UNIT, "inactive");
    manager.emit(Signal::Changed(UNIT.into()));
    hands.systemd.stop(group(), 3);
    assert_eq!(hands.stopped(), Ok(()));
}

/// Goal: a stop that was lost with its connection is asked for again: the member is still up and
/// nothing is in its way.
#[test]
fn a_lost_stop_is_asked_for_again() {
    let manager = Manager::start();
    own();
    manager.set(UNIT, "active");
    manager.state.lock().expect("whole").lost.insert(UNIT.into(), 1);
    let mut hands = Hands::new();
    hands.seen_as(MemberState::Active);
    hands.systemd.stop(group(), 1);
    assert_eq!(hands.stopped(), Ok(()));
}

/// Goal: a change during the first reading of a member that the group names by an alias is not
/// missed: systemd tells it by the unit's own name.
#[test]
fn a_change_during_the_first_reading_of_an_alias_is_seen() {
    let manager = Manager::start();
    manager.set("real.service", "active");
    let alias = ("b.service".to_string(), "real.service".to_string());
    manager.state.lock().expect("whole").aliases.extend([alias]);
    manager.set(UNIT, "active");
    let release = manager.hold("real.service");
    // Whoever connects looks twice.
    let mut hands = Hands::with(&[("other", &[UNIT])]);
    while !matches!(hands.next(), Input::Event(Event::Observed { .. })) {}
    hands.manage(&[("files", &["b.service"])]);
    manager.until("the first reading", |s| s.hold.is_empty());
    manager.set("real.service", "failed");
    manager.emit(Signal::Changed("real.service".into()));
    manager.emit(Signal::UnitFiles);
    while !matches!(hands.next(), Input::Reload) {}
    drop(release);
    hands.seen_as(MemberState::Failed);
}

/// Goal: a group of many members is read in one go: the bus lets nobody wait for more than 128
/// answers at a time.
#[test]
fn many_members_are_read_in_one_go() {
    let manager = Manager::start();
    let names: Vec<String> = (0..200).map(|n| format!("u{n}.service")).collect();
    names.iter().for_each(|name| manager.set(name, "active"));
    manager.state.lock().expect("whole").pace = Duration::from_millis(1);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut hands = Hands::with(&[("files", &names)]);
    assert!(!hands.seen().blind);
    let calls = manager.state.lock().expect("whole").calls.clone();
    let asked = |name: &&str| calls.iter().filter(|c| **c == format!("GetAll {name}")).count();
    assert!(names.iter().map(asked).all(|n| n == 1), "{} questions", calls.len());
}

/// Goal: our own announcement of an address is not taken for somebody's doing.
#[test]
fn an_announcement_is_nobody_else_s_job() {
    const IP: &str = "hafailover-ip@192.0.2.1-24.service";
    let manager = Manager::start();
    manager.set(IP, "active");
    manager.set(UNIT, "active");
    let mut hands = Hands::with(&[("files", &[IP, UNIT])]);
    hands.seen_as(MemberState::Active);
    hands.systemd.announce(group());
    manager.until("the announcement", |s| s.calls.contains(&format!("ReloadUnit {IP}")));
    // Its answer is in before that of a later question.
    hands.systemd.observe(group());
    hands.seen();
    let job = manager.state.lock().expect("whole").jobs;
    manager.emit(Signal::Job(job, IP.into()));
    manager.emit(Signal::Done(UNIT.into()));
    let unit = loop {
        if let Input::Event(Event::ByHand { unit, .. }) = hands.next() {
            break unit;
        }
    };
    assert_eq!(unit, UNIT);
}

/// Goal: a bus that accepts connections and answers none costs moments: PID 1's own socket is
/// still there.
#[test]
fn a_frozen_bus_is_gone_around() {
    let manager = Manager::start();
    manager.set(UNIT, "active");
    manager.freeze(true);
    let mut hands = Hands::new();
    hands.systemd.observe(group());
    assert_eq!(state(&hands.seen()), Some(MemberState::Active));
}

/// Goal: the same for a bus that freezes later, in well less than the ten seconds after which a
/// stop is given up as unknown: a call's three, and a moment to find out and to connect.
#[test]
fn a_bus_that_freezes_is_left() {
    let manager = Manager::start();
    manager.set(UNIT, "active");
    let mut hands = Hands::new();
    assert_eq!(state(&hands.seen()), Some(MemberState::Active));
    manager.freeze(true);
    manager.set(UNIT, "failed");
    let began = std::time::Instant::now();
    hands.systemd.observe(group());
    assert_eq!(state(&hands.seen()), Some(MemberState::Failed));
    assert!(began.elapsed() < Duration::from_secs(8), "it took {:?}", began.elapsed());
}
