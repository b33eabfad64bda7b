//! The witness and its client over real sockets: grants, restarts, lost memory, lost answers,
//! recordings.

use crate::space::check_arbiter;
use hafailover::config::arbiter::witness as place;
use hafailover::config::witness::Settings;
use hafailover::core::name::{Epoch, GroupName, NodeId};
use hafailover::core::{LeaseAnswer, LeaseVerb};
use hafailover::io::arbiter::witness::Witness;
use hafailover::io::arbiter::{Arbiter, Asker, Question};
use hafailover::io::witness::Server;
use hafailover::wire::keys::Keys;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

const TERM: Duration = Duration::from_millis(600);
const LIMIT: Duration = Duration::from_millis(400);
const KEY: u8 = 7;

/// One that serves as long as the test lives; where it listens.
fn serve(dir: &Path, longest: Duration) -> SocketAddr {
    let keys = dir.join("keys");
    std::fs::write(&keys, Keys::of(&[(1, [KEY; 32])], 1).to_text()).expect("written");
    std::fs::set_permissions(&keys, PermissionsExt::from_mode(0o600)).expect("chmod");
    let settings = Settings {
        listen: (Ipv4Addr::LOCALHOST, 0).into(),
        longest,
        state: dir.join("state"),
        clusters: vec![("office".into(), keys)],
    };
    let (mut server, _) = Server::open(&settings).expect("it opens");
    let address = server.address().expect("bound");
    std::thread::spawn(move || while server.serve().is_ok() {});
    address
}

/// One whose memory is empty and known to be.
fn fresh(dir: &Path) -> SocketAddr {
    let at = serve(dir, Duration::ZERO);
    assert_eq!(client(at, "n9", KEY).ask(&question("other", 1, LeaseVerb::Acquire)), GRANTED);
    at
}

const GRANTED: LeaseAnswer = LeaseAnswer::Granted;

fn client(address: SocketAddr, node: &str, key: u8) -> Witness {
    let keys = Keys::of(&[(1, [key; 32])], 1);
    let (cluster, nodes) = ("office".into(), Vec::new());
    let asker = Asker { cluster, node: node.into(), nodes, keys };
    Witness::new(place::Settings { address }, asker).expect("random numbers")
}

fn question(group: &str, counter: u64, verb: LeaseVerb) -> Question {
    Question {
        cluster: "office".into(),
        group: GroupName(group.into()),
        epoch: Epoch { counter, node: NodeId(0) },
        verb,
        term: Duration::ZERO,
        limit: LIMIT,
    }
}

fn files(counter: u64, verb: LeaseVerb) -> Question {
    Question { term: TERM, ..question("files", counter, verb) }
}

use LeaseVerb::{Acquire, Release, Renew};

fn refused(answer: &LeaseAnswer) -> bool {
    matches!(answer, LeaseAnswer::Refused { .. })
}

/// Leases for TERM need a witness that keeps them so long; its memory is made by a first life.
fn long(dir: &Path) -> SocketAddr {
    fresh(dir);
    serve(dir, TERM)
}

#[test]
fn one_node_at_a_time_gets_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let at = long(dir.path());
    let (mut a, mut b) = (client(at, "n1", KEY), client(at, "n2", KEY));
    assert_eq!(a.ask(&files(1, Acquire)), GRANTED);
    match b.ask(&files(2, Acquire)) {
        LeaseAnswer::Refused { why, top } => {
            assert!(why.contains("n1"), "{why}");
            assert_eq!(top.map(|e| e.counter), Some(1));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(a.ask(&files(1, Renew)), GRANTED);
    assert_eq!(a.ask(&files(1, Release)), GRANTED);
    assert_eq!(b.ask(&files(2, Acquire)), GRANTED);
    assert!(refused(&a.ask(&files(1, Renew))));
}

/// Goal: what was granted is known after a restart, and without its memory nothing is granted for
/// as long as somebody may have something.
#[test]
fn a_restart_forgets_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    assert_eq!(client(long(dir.path()), "n1", KEY).ask(&files(1, Acquire)), GRANTED);
    let again = serve(dir.path(), TERM);
    assert!(refused(&client(again, "n2", KEY).ask(&files(2, Acquire))));
    assert_eq!(client(again, "n1", KEY).ask(&files(1, Renew)), GRANTED);
    std::fs::remove_dir_all(dir.path().join("state")).expect("removed");
    let begun = Instant::now();
    let lost = serve(dir.path(), TERM);
    let mut b = client(lost, "n2", KEY);
    while refused(&b.ask(&files(2, Acquire))) {
        std::thread::yield_now();
    }
    assert!(begun.elapsed() >= TERM, "granted after {:?}", begun.elapsed());
}

/// Goal: whoever cannot be heard costs no more than the time that there is.
#[test]
fn no_answer_is_unknown_and_in_time() {
    let dir = tempfile::tempdir().expect("a directory");
    let mute = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let closed = {
        let gone = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        gone.local_addr().expect("bound")
    };
    let other_key = client(long(dir.path()), "n1", KEY + 1);
    let silent = client(mute.local_addr().expect("bound"), "n1", KEY);
    for mut client in [silent, client(closed, "n1", KEY), other_key] {
        let begun = Instant::now();
        let answer = client.ask(&files(1, Acquire));
        assert!(matches!(&answer, LeaseAnswer::Unknown(why) if why.contains("witness 127")));
        assert!(begun.elapsed() < LIMIT + Duration::from_millis(150), "{:?}", begun.elapsed());
    }
}

/// Between client and witness: passes on, keeps what the client sent, and loses the first answers.
fn recorder(to: SocketAddr, lose: usize) -> (SocketAddr, std::sync::mpsc::Receiver<Vec<u8>>) {
    let front = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let at = front.local_addr().expect("bound");
    let (keep, kept) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let back = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let (mut buffer, mut lose) = ([0; 2000], lose);
        while let Ok((len, from)) = front.recv_from(&mut buffer) {
            let _ = keep.send(buffer[..len].to_vec());
            back.send_to(&buffer[..len], to).expect("sent");
            let len = back.recv(&mut buffer).expect("an answer");
            match lose {
                0 => drop(front.send_to(&buffer[..len], from)),
                _ => lose -= 1,
            }
        }
    });
    (at, kept)
}

/// Goal: a question whose answers are lost is asked again, decided once, and answered the same.
#[test]
fn lost_answers_are_asked_for_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let (at, kept) = recorder(long(dir.path()), 2);
    assert_eq!(client(at, "n1", KEY).ask(&files(1, Acquire)), GRANTED);
    assert!(kept.try_iter().count() >= 4, "the challenge, twice lost, and the question");
}

/// Goal: a recorded renewal keeps nothing from others, neither from a living session nor from one
/// that ended.
#[test]
fn recordings_renew_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let to = long(dir.path());
    let (at, kept) = recorder(to, 0);
    let mut a = client(at, "n1", KEY);
    assert_eq!(a.ask(&files(1, Acquire)), GRANTED);
    assert_eq!(a.ask(&files(1, Renew)), GRANTED);
    let granted = Instant::now();
    let recorded: Vec<Vec<u8>> = kept.try_iter().collect();
    let replay = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let mut b = client(to, "n2", KEY);
    while refused(&b.ask(&files(2, Acquire))) {
        recorded.iter().for_each(|frame| drop(replay.send_to(frame, to)));
        assert!(granted.elapsed() < TERM * 3, "the recordings renewed it");
    }
    assert!(granted.elapsed() + Duration::from_millis(100) >= TERM);
}

/// Goal: what cannot be written is not granted.
#[test]
fn nothing_is_granted_that_is_not_on_disk() {
    let dir = tempfile::tempdir().expect("a directory");
    let at = long(dir.path());
    let (state, away) = (dir.path().join("state"), dir.path().join("away"));
    std::fs::rename(&state, &away).expect("moved");
    let mut a = client(at, "n1", KEY);
    for _ in 0..2 {
        assert!(matches!(a.ask(&files(1, Acquire)), LeaseAnswer::Unknown(_)));
    }
    std::fs::rename(&away, &state).expect("moved back");
    assert_eq!(a.ask(&files(1, Acquire)), GRANTED);
    assert!(refused(&client(serve(dir.path(), TERM), "n2", KEY).ask(&files(2, Acquire))));
}

/// Goal: `check` asks it as the daemon will, and each thing that is wrong is named.
#[test]
fn check_asks_the_witness() {
    let dir = tempfile::tempdir().expect("a directory");
    let keys = dir.path().join("keys");
    let said = |at: SocketAddr| {
        let place = format!("address = \"{}\"\nport = {}\n", at.ip(), at.port());
        check_arbiter(dir.path(), &format!("\"witness\"\n[arbiter.witness]\n{place}"))
    };
    let at = serve(dir.path(), Duration::from_secs(3600));
    let good = said(at);
    assert!(good.contains("note: arbiter: the witness at") && !good.contains("error"), "{good}");
    let short = said(serve(dir.path(), Duration::from_secs(1)));
    assert!(short.contains("error: arbiter:") && short.contains("raise longest"), "{short}");
    std::fs::write(&keys, Keys::of(&[(1, [KEY + 1; 32])], 1).to_text()).expect("written");
    let foreign = said(at);
    assert!(foreign.contains("does not answer") && foreign.contains("key file"), "{foreign}");
}
