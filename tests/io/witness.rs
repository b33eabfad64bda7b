//! The witness and its client over real sockets: grants, restarts, lost memory, lost answers,
//! recordings, clusters beside each other.

use crate::space::check_arbiter;
use hafailover::config::arbiter::witness as place;
use hafailover::config::witness::Settings;
use hafailover::core::grant::Ask;
use hafailover::core::name::{Epoch, GroupName, NodeId};
use hafailover::core::{LeaseAnswer, LeaseVerb};
use hafailover::io::arbiter::witness::Witness;
use hafailover::io::arbiter::{Arbiter, Asker, Question};
use hafailover::io::witness::Server;
use hafailover::wire::keys::Keys;
use hafailover::wire::witness::{Answered, Asked, DATAGRAM_MAX, Way, open, seal};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const TERM: Duration = Duration::from_millis(600);
/// Longer than any test: such a lease does not run out.
const LASTING: Duration = Duration::from_secs(60);
const LIMIT: Duration = Duration::from_millis(400);
const KEY: u8 = 7;
const OTHER_KEY: u8 = 8;

fn keys(key: u8) -> Keys {
    Keys::of(&[(1, [key; 32])], 1)
}

fn key_file(path: PathBuf, key: u8) -> PathBuf {
    std::fs::write(&path, keys(key).to_text()).expect("written");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("chmod");
    path
}

/// One that serves as long as the test lives; where it listens.
fn serve(dir: &Path, longest: Duration) -> SocketAddr {
    serve_all(dir, longest, vec![("office".into(), key_file(dir.join("keys"), KEY))])
}

/// The same for these clusters.
fn serve_all(dir: &Path, longest: Duration, clusters: Vec<(String, PathBuf)>) -> SocketAddr {
    let mut server = open_all(dir, longest, clusters);
    let address = server.address().expect("bound");
    std::thread::spawn(move || while server.serve().is_ok() {});
    address
}

fn open_all(dir: &Path, longest: Duration, clusters: Vec<(String, PathBuf)>) -> Server {
    let (listen, state) = ((Ipv4Addr::LOCALHOST, 0).into(), dir.join("state"));
    let settings = Settings { listen, longest, state, clusters };
    Server::open(&settings).expect("it opens").0
}

/// Goal: who asks in vain, by a wrong name or key, is told of here, and nobody fills the journal.
#[test]
fn who_is_not_answered_is_told_of_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let clusters = vec![("office".into(), key_file(dir.path().join("keys"), KEY))];
    let mut server = open_all(dir.path(), TERM, clusters);
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let mut said = |cluster: &str, key: u8| {
        let Question { group, epoch, verb, term, .. } = files(1, Acquire);
        let ask = Ask { node: "n1".into(), group, epoch, verb, term };
        let asked = Asked { session: 1, number: 1, challenge: 0, ask };
        let sealed = seal(Way::ToWitness, cluster, &keys(key), &asked).expect("it fits");
        socket.send_to(&sealed, server.address().expect("bound")).expect("sent");
        server.serve().expect("served")
    };
    let from = socket.local_addr().expect("bound");
    for (cluster, key, words) in [
        ("factory", KEY, "asks for a cluster that has no [[cluster]] here"),
        ("office", OTHER_KEY, "asks with another key"),
    ] {
        let told = said(cluster, key).expect("told of");
        assert!(told.contains(words) && told.contains(&from.to_string()), "{told}");
        assert_eq!(said(cluster, key), None, "told of again");
    }
    assert_eq!(said("office", KEY), None);
}

/// One whose memory is empty and known to be.
fn fresh(dir: &Path) -> SocketAddr {
    let at = serve(dir, Duration::ZERO);
    assert_eq!(client(at, "n9", KEY).ask(&question("other", 1, LeaseVerb::Acquire)), GRANTED);
    at
}

const GRANTED: LeaseAnswer = LeaseAnswer::Granted;

fn client(address: SocketAddr, node: &str, key: u8) -> Witness {
    client_of("office", address, node, key)
}

fn client_of(cluster: &str, address: SocketAddr, node: &str, key: u8) -> Witness {
    let (cluster, node, nodes) = (cluster.into(), node.into(), Vec::new());
    let asker = Asker { cluster, node, nodes, keys: keys(key) };
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

fn lasting(counter: u64, verb: LeaseVerb) -> Question {
    Question { term: LASTING, ..question("files", counter, verb) }
}

use LeaseVerb::{Acquire, Release, Renew};

fn refused(answer: &LeaseAnswer) -> bool {
    matches!(answer, LeaseAnswer::Refused { .. })
}

/// Refused because this node has it, by this epoch.
fn held(answer: LeaseAnswer, holder: &str, counter: u64) {
    match answer {
        LeaseAnswer::Refused { why, top } => {
            assert!(why.contains(holder), "{why}");
            assert_eq!(top.map(|e| e.counter), Some(counter));
        }
        other => panic!("{other:?}"),
    }
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
    held(b.ask(&files(2, Acquire)), "n1", 1);
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
    let other_key = client(long(dir.path()), "n1", OTHER_KEY);
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
    let said = |at: SocketAddr| {
        let place = format!("address = \"{}\"\nport = {}\n", at.ip(), at.port());
        check_arbiter(dir.path(), &format!("\"witness\"\n[arbiter.witness]\n{place}"))
    };
    let at = serve(dir.path(), Duration::from_secs(3600));
    let good = said(at);
    assert!(good.contains("note: arbiter: the witness at") && !good.contains("error"), "{good}");
    let short = said(serve(dir.path(), Duration::from_secs(1)));
    assert!(short.contains("error: arbiter:") && short.contains("raise longest"), "{short}");
    key_file(dir.path().join("keys"), OTHER_KEY);
    let foreign = said(at);
    assert!(foreign.contains("does not answer") && foreign.contains("key file"), "{foreign}");
}

fn office(at: SocketAddr, node: &str) -> Witness {
    client_of("office", at, node, KEY)
}

fn factory(at: SocketAddr, node: &str) -> Witness {
    client_of("factory", at, node, OTHER_KEY)
}

/// One for both clusters.
fn serve_both(dir: &Path, longest: Duration) -> SocketAddr {
    let office = key_file(dir.join("office.keys"), KEY);
    let factory = key_file(dir.join("factory.keys"), OTHER_KEY);
    serve_all(dir, longest, vec![("office".into(), office), ("factory".into(), factory)])
}

/// The same; what it remembers of them is made by a first life.
fn both(dir: &Path) -> SocketAddr {
    let at = serve_both(dir, Duration::ZERO);
    for mut client in [office(at, "n9"), factory(at, "n9")] {
        assert_eq!(client.ask(&question("other", 1, Acquire)), GRANTED);
    }
    serve_both(dir, LASTING)
}

/// Goal: groups of the same name in two clusters have nothing to do with each other: each has its
/// own holder and its own epochs, also after a restart.
#[test]
fn two_clusters_have_their_own_leases() {
    let dir = tempfile::tempdir().expect("a directory");
    let at = both(dir.path());
    assert_eq!(office(at, "n1").ask(&lasting(7, Acquire)), GRANTED);
    // A lower epoch, and while the other cluster's node has its lease.
    assert_eq!(factory(at, "n2").ask(&lasting(1, Acquire)), GRANTED);
    let apart = |at: SocketAddr| {
        held(office(at, "n2").ask(&lasting(8, Acquire)), "n1", 7);
        held(factory(at, "n1").ask(&lasting(8, Acquire)), "n2", 1);
        assert_eq!(office(at, "n1").ask(&lasting(7, Renew)), GRANTED);
        assert_eq!(factory(at, "n2").ask(&lasting(1, Renew)), GRANTED);
    };
    apart(at);
    let again = serve_both(dir.path(), LASTING);
    apart(again);
    assert_eq!(office(again, "n1").ask(&lasting(7, Release)), GRANTED);
    held(factory(again, "n1").ask(&lasting(8, Acquire)), "n2", 1);
    assert_eq!(office(again, "n2").ask(&lasting(8, Acquire)), GRANTED);
}

/// Goal: who speaks for a cluster with the key of another is not answered, and changes nothing.
#[test]
fn the_key_of_another_cluster_is_not_answered() {
    let dir = tempfile::tempdir().expect("a directory");
    let at = both(dir.path());
    assert_eq!(office(at, "n1").ask(&lasting(1, Acquire)), GRANTED);
    let mut stranger = client_of("office", at, "n1", OTHER_KEY);
    for question in [lasting(1, Release), lasting(9, Acquire)] {
        let answer = stranger.ask(&question);
        assert!(matches!(answer, LeaseAnswer::Unknown(_)), "{answer:?}");
    }
    held(office(at, "n2").ask(&lasting(2, Acquire)), "n1", 1);
    assert_eq!(office(at, "n1").ask(&lasting(1, Renew)), GRANTED);

    // It answers one after the other: an answer to the stranger would be the first to come.
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    socket.set_read_timeout(Some(LASTING)).expect("set");
    let Question { group, epoch, verb, term, .. } = lasting(1, Renew);
    for (session, key) in [(1, OTHER_KEY), (2, KEY)] {
        let ask = Ask { node: "n1".into(), group: group.clone(), epoch, verb, term };
        let asked = Asked { session, number: 1, challenge: 0, ask };
        let sealed = seal(Way::ToWitness, "office", &keys(key), &asked).expect("it fits");
        socket.send_to(&sealed, at).expect("sent");
    }
    let mut buffer = [0; DATAGRAM_MAX];
    let len = socket.recv(&mut buffer).expect("an answer");
    let answered = open::<Answered>(Way::ToNode, "office", &keys(KEY), &buffer[..len]);
    assert_eq!(answered.map(|a| a.session), Some(2));
}
