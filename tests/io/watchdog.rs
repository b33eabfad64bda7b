//! What the daemon says to the watchdog's feeder, over a real socket. A real device is in the lab's
//! emulated machine (`lab::guest`); here are those that are none.

use crate::space::sh;
use hafailover::config::arbiter::Watchdog;
use hafailover::core::time::Instant;
use hafailover::core::watchdog::Feed;
use hafailover::io::Input;
use hafailover::io::watchdog::device::Device;
use hafailover::io::watchdog::feeder::Feeder;
use hafailover::io::watchdog::{Answer, Handle, SOCKET, Trouble};
use std::os::unix::net::UnixDatagram;
use tokio::sync::mpsc::{Receiver, channel};

/// A feeder on a socket of its own, as long as the test lives.
fn feeder() {
    run();
    serve();
}

/// A /run/hafailover of its own.
fn run() {
    // SAFETY: only this thread, which shares nothing of its file system view with others after.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }.expect("root");
    sh("mount --make-rprivate / && mkdir -p /run/hafailover && mount -t tmpfs t /run/hafailover");
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

/// Goal: a time that is shorter is with the feeder before the daemon does anything else, also while
/// the word before it has no answer; and it counts as the later one.
#[test]
fn a_shorter_time_waits_for_nobody() {
    run();
    let feeder = UnixDatagram::bind(SOCKET).expect("bound");
    let (sender, _inbox) = channel(16);
    let handle = Handle::spawn(Some(of("/dev/null")), sender).expect("a thread");
    handle.tell(LONG).expect("a device is needed");
    let mut buffer = [0; 128];
    let mut word = || {
        let len = feeder.recv(&mut buffer).expect("a word");
        let text = std::str::from_utf8(&buffer[..len]).expect("text");
        let (number, word) = text.split_once(' ').expect("numbered");
        (number.parse::<u64>().expect("a number"), word.to_string())
    };
    let (first, told) = word();
    assert_eq!(told, format!("feed {} 5 /dev/null", u64::MAX));
    assert_eq!(handle.tell(Feed::Until(Instant(7))), None, "it counts already");
    feeder.set_nonblocking(true).expect("a socket");
    let (next, told) = word();
    assert_eq!(told, "feed 7 5 /dev/null");
    assert!(next > first);
}

/// Goal: a word that was overtaken gives no time back.
#[test]
fn a_word_that_was_overtaken_changes_nothing() {
    run();
    let kept = "/run/hafailover/watchdog.fed";
    std::fs::write(kept, format!("feed {} 5 /dev/null", u64::MAX)).expect("written");
    let null = std::fs::File::options().write(true).open("/dev/null").expect("a device");
    let socket = UnixDatagram::bind(SOCKET).expect("bound");
    let mut feeder = Feeder::new(socket, Some(Device::found(null.into())));
    let daemon = UnixDatagram::unbound().expect("a socket");
    for (word, counts) in [("9 feed 7 5 /dev/null", 7), ("8 feed 900 5 /dev/null", 7)] {
        daemon.send_to(word.as_bytes(), SOCKET).expect("sent");
        feeder.turn().expect("a word");
        let now = std::fs::read_to_string(kept).expect("kept");
        assert!(now.starts_with(&format!("feed {counts} ")), "{now}");
    }
}
