//! The machine is kept from sleep while it owns something.

use crate::manager::{Manager, PATIENCE};
use hafailover::io::Input;
use hafailover::io::systemd::Systemd;
use std::time::Instant;
use tokio::sync::mpsc;

const SLEEP: &str = "sleep block";

/// Goal: logind refuses a suspend while something is owned, and only then; the shutdown that is
/// delayed is another matter.
#[test]
fn an_owner_is_not_put_to_sleep() {
    let manager = Manager::start();
    let (sender, _inbox) = mpsc::channel(64);
    let systemd = Systemd::spawn(sender).expect("a thread");
    manager.until("the shutdown's inhibitor", |s| s.inhibits("shutdown delay"));
    assert!(!manager.state.lock().expect("whole").inhibits(SLEEP), "nothing is owned");
    for _ in 0..2 {
        systemd.keep_awake(true);
        manager.until("the sleep's inhibitor", |s| s.inhibits(SLEEP));
        systemd.keep_awake(false);
        manager.until("its end", |s| !s.inhibits(SLEEP));
    }
    assert!(manager.state.lock().expect("whole").inhibits("shutdown delay"));
}

/// Goal: where there is no logind, that is said once, and nothing else fails.
#[test]
fn no_logind_is_said_once() {
    let _manager = Manager::with(&["org.freedesktop.systemd1"]);
    let (sender, mut inbox) = mpsc::channel(64);
    let systemd = Systemd::spawn(sender).expect("a thread");
    for on in [true, false, true, false, true] {
        systemd.keep_awake(on);
    }
    let end = Instant::now() + PATIENCE;
    let words = loop {
        match inbox.try_recv() {
            Ok(Input::Warn(words)) => break words,
            _ => assert!(Instant::now() < end, "nothing is said"),
        }
        std::thread::yield_now();
    };
    assert!(words.contains("logind"), "{words}");
    let kind = crate::manager::run(systemd.own_job());
    assert_eq!(kind, hafailover::core::Terminate::Restart, "it answers still");
    while let Ok(input) = inbox.try_recv() {
        assert!(!matches!(input, Input::Warn(_)), "said twice");
    }
}
