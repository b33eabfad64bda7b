//! What the daemon says to the watchdog's feeder, over a real socket. A real device is in the lab's
//! emulated machine (`lab::guest`); here are those that are none.

use crate::space::sh;
use hafailover::config::arbiter::Watchdog;
use hafailover::core::time::Instant;
use hafailover::core::watchdog::Feed;
use hafailover::io::Input;
use hafailover::io::watchdog::feeder::Feeder;
use hafailover::io::watchdog::{Answer, Handle, SOCKET, Trouble};
use std::os::unix::net::UnixDatagram;
use tokio::sync::mpsc::{Receiver, channel};

/// A feeder on a socket of its own, as long as the test lives.
fn feeder() {
    // SAFETY: only this thread, which shares nothing of its file system view with others after.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }.expect("root");
    sh("mount --make-rprivate / && mkdir -p /run/hafailover && mount -t tmpfs t /run/hafailover");
    serve();
}

fn serve() {
    let mut feeder = Feeder::new(UnixDatagram::bind(SOCKET).expect("bound"), None);
    std::thread::spawn(move || while feeder.turn().is_ok() {});
}

fn answer(inbox: &mut Receiver<Input>) -> Answer {
    match inbox.blocking_recv() {
        Some(Input::Watchdog(answer)) => answer,
        other => panic!("no answer: {other:?}"),
    }
}

fn device(said: Answer) -> String {
    match said.armed {
        Err(Trouble::Device(why)) => why,
        other => panic!("no word of a device: {other:?}"),
    }
}

fn of(device: &str) -> Watchdog {
    Watchdog { device: device.into(), seconds: 5 }
}

const LONG: Feed = Feed::Until(Instant(u64::MAX));

/// Goal: what is no watchdog, or is not there, is said to be that, each time to the word that asked
/// for it; and with nothing to feed all is well.
#[test]
fn what_is_no_watchdog_is_none() {
    feeder();
    let (sender, mut inbox) = channel(16);
    let handle = Handle::spawn(Some(of("/dev/null")), sender).expect("a thread");
    assert_eq!(handle.tell(Feed::Keep), None);
    let turn = handle.tell(LONG).expect("a device is needed");
    let said = answer(&mut inbox);
    assert_eq!(said.turn, turn);
    let why = device(said);
    assert_eq!(why, "/dev/null: this is no watchdog device: correct watchdog-device in [arbiter]");
    assert_eq!(handle.tell(LONG), None, "said already");

    let turn = handle.set(Some(of("/dev/watchdog-that-is-not-there")));
    let said = answer(&mut inbox);
    assert_eq!(said.turn, turn);
    let why = device(said);
    assert!(why.contains("modprobe"), "{why}");

    let turn = handle.tell(Feed::End).expect("it is no more needed");
    handle.flush();
    assert_eq!(answer(&mut inbox), Answer { turn, armed: Ok(false) });
}

/// Goal: a feeder that is away is told of, and found again when it is back.
#[test]
fn a_feeder_that_is_away_is_found_again() {
    feeder();
    std::fs::rename(SOCKET, "/run/hafailover/away").expect("away");
    let (sender, mut inbox) = channel(16);
    let handle = Handle::spawn(Some(of("/dev/null")), sender).expect("a thread");
    handle.tell(LONG).expect("a device is needed");
    match answer(&mut inbox).armed {
        Err(Trouble::Feeder(why)) => assert!(why.contains("nobody feeds the watchdog"), "{why}"),
        other => panic!("not away: {other:?}"),
    }
    std::fs::rename("/run/hafailover/away", SOCKET).expect("back");
    let why = device(answer(&mut inbox));
    assert!(why.contains("this is no watchdog device"), "{why}");
}
