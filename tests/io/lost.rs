//! The hands on systemd where answers and signals are lost, or come late.

use crate::manager::{Manager, PATIENCE, Signal, run};
use crate::systemd::{Hands, UNIT, group, own, state};
use hafailover::core::{Event, MemberState, StartError, Terminate};
use hafailover::io::{Input, clock};
use std::time::{Duration, Instant};

impl Hands {
    fn start(&mut self) -> Result<(), StartError> {
        let epoch = own();
        self.systemd.start(group(), epoch, 1, clock::now() + PATIENCE);
        loop {
            if let Input::Event(Event::Started { result, .. }) = self.next() {
                return result;
            }
        }
    }
}

fn with_a_member(active: &str) -> (Manager, Hands) {
    let manager = Manager::start();
    manager.set(UNIT, active);
    let mut hands = Hands::new();
    hands.seen();
    (manager, hands)
}

/// Goal: a start that was lost with its connection is asked for again, and is no member that did
/// not start.
#[test]
fn a_lost_start_is_asked_for_again() {
    let (manager, mut hands) = with_a_member("inactive");
    manager.state.lock().expect("whole").lost.insert(UNIT.into(), 1);
    assert_eq!(hands.start(), Ok(()));
}

/// Goal: the same where the bus answers in the place of a PID 1 that is gone for a moment.
#[test]
fn a_start_waits_for_pid_1_to_come_back() {
    let (manager, mut hands) = with_a_member("inactive");
    manager.state.lock().expect("whole").leaves = Some(Duration::from_millis(500));
    assert_eq!(hands.start(), Ok(()));
}

/// Goal: gates that a reload has just taken away are missed, also by whoever read them before and
/// has not heard of the reload yet.
#[test]
fn gates_are_looked_for_behind_a_reload() {
    let (manager, mut hands) = with_a_member("inactive");
    {
        let mut state = manager.state.lock().expect("whole");
        state.ungated.insert(UNIT.into());
        state.late.push(Signal::Reloads);
    }
    let Err(StartError::Unknown { why }) = hands.start() else { panic!("started") };
    assert!(why.contains("AssertPathExists"), "{why}");
    let calls = manager.state.lock().expect("whole").calls.clone();
    assert!(!calls.contains(&format!("StartUnit {UNIT}")), "{calls:?}");
}

/// Goal: on a slow machine a member that a person stopped is not taken for one that died: whoever
/// stopped it is told when PID 1 gets to it.
#[test]
fn a_slow_pid_1_is_waited_for_before_a_member_is_judged() {
    let (manager, mut hands) = with_a_member("active");
    own();
    let (answer, held) = std::sync::mpsc::channel();
    manager.state.lock().expect("whole").hold_ping = Some(held);
    manager.set(UNIT, "inactive");
    manager.emit(Signal::Changed(UNIT.into()));
    let end = Instant::now() + Duration::from_secs(5);
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        let next = run(async { tokio::time::timeout(left, hands.inbox.recv()).await });
        if let Ok(Some(Input::Event(Event::Observed { seen, .. }))) = next {
            assert_ne!(state(&seen), Some(MemberState::Inactive), "judged without an answer");
        }
    }
    manager.state.lock().expect("whole").late.push(Signal::Done(UNIT.into()));
    drop::<std::sync::mpsc::Sender<()>>(answer);
    assert!(hands.seen_as(MemberState::Inactive).members[0].by_hand);
}

/// Goal: while the bus is looked for, PID 1 is heard on its own socket: a person who stops a
/// member meanwhile is not taken for a failure.
#[test]
fn pid_1_is_heard_while_the_bus_is_looked_for() {
    let mut manager = Manager::start();
    own();
    manager.set(UNIT, "active");
    // It lets everybody in, and never says a word.
    let bus = manager.replace_bus();
    let mut hands = Hands::new();
    let mut visitors = vec![bus.accept().expect("the first look")];
    hands.seen_as(MemberState::Active);
    // Two connections at the most make one look.
    bus.set_nonblocking(true).expect("set");
    while let Ok(visitor) = bus.accept() {
        visitors.push(visitor);
    }
    bus.set_nonblocking(false).expect("set");
    visitors.push(bus.accept().expect("the next look"));
    manager.set(UNIT, "inactive");
    manager.emit(Signal::Done(UNIT.into()));
    assert!(hands.seen_as(MemberState::Inactive).members[0].by_hand);
}

/// Goal: a member that goes down with a unit that it is bound to, and that died, is a failure, and
/// was not stopped by a person; one that goes because somebody stopped that unit was.
#[test]
fn a_member_goes_with_what_it_is_bound_to() {
    for by_hand in [false, true] {
        let manager = Manager::start();
        own();
        manager.set(UNIT, "active");
        manager.set("outer.service", "inactive");
        let bound = (UNIT.to_string(), vec!["outer.service".to_string()]);
        manager.state.lock().expect("whole").binds_to.extend([bound]);
        let mut hands = Hands::new();
        hands.seen_as(MemberState::Active);
        if by_hand {
            manager.emit(Signal::Done("outer.service".into()));
        }
        assert_eq!(crate::systemd::stopped_by_hand(&manager, &mut hands), by_hand);
    }
}

/// Goal: a reload is not told as a restart.
#[test]
fn a_reload_is_no_restart() {
    let manager = Manager::start();
    own();
    for unit in [UNIT, "b.service"] {
        manager.set(unit, "active");
    }
    let now = clock::monotonic_usec();
    let long_ago = now.saturating_sub(60_000_000).max(1);
    let times = [(UNIT.to_string(), long_ago), ("b.service".to_string(), now)];
    manager.state.lock().expect("whole").entered.extend(times);
    let mut hands = Hands::with(&[("files", &[UNIT, "b.service"])]);
    hands.seen_as(MemberState::Active);
    for unit in [UNIT, "b.service"] {
        manager.emit(Signal::Done(unit.into()));
    }
    let unit = loop {
        if let Input::Event(Event::ByHand { unit, .. }) = hands.next() {
            break unit;
        }
    };
    assert_eq!(unit, "b.service");
}

/// Goal: a machine that goes down without a logind stops the members by itself: that is told as
/// what it is, before anything counts as a failure.
#[test]
fn a_shutdown_without_a_logind_is_one() {
    let manager = Manager::with(&["org.freedesktop.systemd1"]);
    own();
    manager.set(UNIT, "active");
    manager.set("shutdown.target", "inactive");
    let mut hands = Hands::new();
    hands.seen_as(MemberState::Active);
    {
        let mut state = manager.state.lock().expect("whole");
        state.own_job = "start".into();
        state.late.push(Signal::Done(UNIT.into()));
    }
    manager.set(UNIT, "inactive");
    manager.emit(Signal::Changed(UNIT.into()));
    loop {
        match hands.next() {
            Input::Event(Event::Terminate { kind }) => break assert_eq!(kind, Terminate::Shutdown),
            Input::Event(Event::Observed { seen, .. }) => {
                assert_ne!(state(&seen), Some(MemberState::Inactive), "told as a failure");
            }
            _ => {}
        }
    }
}

/// Goal: a target that systemd stops because a member went by itself (its disk is gone) was not
/// stopped by a person: that would keep the group down on every node.
#[test]
fn a_target_goes_with_its_member() {
    let manager = Manager::start();
    own();
    for unit in [UNIT, "b.service", "files.target"] {
        manager.set(unit, "active");
    }
    manager.set("dev-sdz.device", "inactive");
    let bound = (UNIT.to_string(), vec!["dev-sdz.device".to_string()]);
    manager.state.lock().expect("whole").binds_to.extend([bound]);
    let mut hands = Hands::with(&[("files", &[UNIT, "b.service"])]);
    hands.seen_as(MemberState::Active);
    manager.set(UNIT, "inactive");
    manager.set("files.target", "inactive");
    for unit in [UNIT, "files.target", "b.service"] {
        manager.emit(Signal::Done(unit.into()));
    }
    let unit = loop {
        if let Input::Event(Event::ByHand { unit, .. }) = hands.next() {
            break unit;
        }
    };
    assert_eq!(unit, "b.service");
}
