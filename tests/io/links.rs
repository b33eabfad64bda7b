//! Links with real sockets and real ttys.

use crate::space::{Spaces, enter, sh};
use hafailover::config::settings::{Link, LinkKind, UdpTo};
use hafailover::core::Event;
use hafailover::core::name::{LinkId, NodeId};
use hafailover::io::{Input, link};
use serialport::{SerialPort, TTYPort};
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(10);

type Reports = tokio::sync::mpsc::Receiver<Input>;

/// Runs one end of a link on a thread of its own, as the daemon does; `act` gets the handle and
/// the inbox.
fn with_link<T: Send + 'static>(
    space: Option<String>,
    me: u8,
    kind: LinkKind,
    act: impl AsyncFnOnce(link::LinkHandle, &mut Reports) -> T + Send + 'static,
) -> std::thread::JoinHandle<T> {
    std::thread::spawn(move || {
        if let Some(space) = space {
            enter(&space);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime.expect("a runtime"), async {
            let (sender, mut inbox) = tokio::sync::mpsc::channel(256);
            let link = Link { id: LinkId(0), name: "link".into(), kind };
            let handle = link::open(&link, NodeId(me), &sender);
            act(handle, &mut inbox).await
        })
    })
}

/// The next frame, past what is reported of the link itself.
async fn frame(inbox: &mut Reports) -> Vec<u8> {
    let wait = async {
        loop {
            if let Some(Input::Frame { bytes, .. }) = inbox.recv().await {
                return bytes;
            }
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("a frame")
}

async fn usable(inbox: &mut Reports, wanted: bool) {
    let wait = async {
        loop {
            if let Some(Input::Event(Event::Link { usable, .. })) = inbox.recv().await
                && usable == wanted
            {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("a report of the link");
}

/// Counts what leaves for the port without class selector 6 or without priority.
const WATCH: &str = "add table inet t; add counter inet t plain; \
    add chain inet t o { type filter hook output priority 0; }; \
    add rule inet t o udp dport 694 ip dscp cs6 meta priority 0:6 accept; \
    add rule inet t o udp dport 694 ip6 dscp cs6 meta priority 0:6 accept; \
    add rule inet t o udp dport 694 counter name plain";

fn udp_both_ways(to: UdpTo) {
    let spaces = Spaces::new();
    sh(&format!("nsenter --net=/run/netns/{} nft '{WATCH}'", spaces.a));
    let kind = || LinkKind::Udp { interface: "eth0".into(), port: 694, to: to.clone() };
    let end = |space: &String, me: u8| {
        with_link(Some(space.clone()), me, kind(), async move |handle, inbox| {
            usable(inbox, true).await;
            // Each says its own until it hears the other's, and once more for a late one.
            let mut beat = tokio::time::interval(Duration::from_millis(20));
            loop {
                tokio::select! {
                    _ = beat.tick() => handle.send(vec![vec![b'n', me]]),
                    got = frame(inbox) => if got != [b'n', me] {
                        handle.send(vec![vec![b'n', me]]);
                        return got;
                    },
                }
            }
        })
    };
    let (a, b) = (end(&spaces.a, 0), end(&spaces.b, 1));
    assert_eq!(a.join().expect("a"), [b'n', 1]);
    assert_eq!(b.join().expect("b"), [b'n', 0]);
    let plain = sh(&format!("nsenter --net=/run/netns/{} nft list counter inet t plain", spaces.a));
    assert!(plain.contains("packets 0 "), "sent as ordinary traffic: {plain}");
}

#[test]
fn udp_broadcast() {
    udp_both_ways(UdpTo::Broadcast);
}

/// What an end of a link says all the time: who it is, and the round of the test.
type Told = std::sync::mpsc::Receiver<(u8, Seen)>;

#[derive(PartialEq)]
enum Seen {
    Unusable,
    Heard { round: u8 },
}

/// Both ends have seen it.
fn both(told: &Told, wanted: &Seen) {
    let mut ends = [false; 2];
    while ends != [true; 2] {
        let (me, seen) = told.recv_timeout(PATIENCE).expect("both ends see it");
        ends[usize::from(me)] |= seen == *wanted;
    }
}

/// Goal: an interface that comes late, goes away and comes back as another one is used each time.
fn udp_finds_its_interface(to: UdpTo) {
    let spaces = Spaces::new();
    let (a, b) = (&spaces.a, &spaces.b);
    let round = Arc::new(AtomicU8::new(0));
    let (tell, told) = std::sync::mpsc::channel();
    for (space, me) in [(a, 0), (b, 1)] {
        let kind = LinkKind::Udp { interface: "eth1".into(), port: 694, to: to.clone() };
        let (tell, round) = (tell.clone(), round.clone());
        with_link(Some(space.clone()), me, kind, async move |handle, inbox| {
            let mut beat = tokio::time::interval(Duration::from_millis(20));
            loop {
                let seen = tokio::select! {
                    _ = beat.tick() => {
                        handle.send(vec![vec![me, round.load(Ordering::Relaxed)]]);
                        continue;
                    }
                    input = inbox.recv() => match input {
                        Some(Input::Frame { bytes, .. }) if bytes[0] != me => {
                            Seen::Heard { round: bytes[1] }
                        }
                        Some(Input::Event(Event::Link { usable: false, .. })) => Seen::Unusable,
                        _ => continue,
                    },
                };
                if tell.send((me, seen)).is_err() {
                    return;
                }
            }
        });
    }
    both(&told, &Seen::Unusable);
    for n in 1..4 {
        round.store(n, Ordering::Relaxed);
        sh(&format!(
            "ip -n {a} link add eth1 type veth peer name eth1 netns {b}; \
             ip -n {a} link set eth1 up; ip -n {b} link set eth1 up; \
             ip -n {a} addr add 10.8.0.1/24 dev eth1; ip -n {b} addr add 10.8.0.2/24 dev eth1"
        ));
        both(&told, &Seen::Heard { round: n });
        while told.try_recv().is_ok() {}
        sh(&format!("ip -n {a} link del eth1"));
        both(&told, &Seen::Unusable);
    }
}

#[test]
fn udp_waits_for_its_interface_and_finds_it_again() {
    udp_finds_its_interface(UdpTo::Broadcast);
}

#[test]
fn udp_multicast_finds_its_interface_again() {
    let group = "ff02::94".parse().expect("an address");
    udp_finds_its_interface(UdpTo::Multicast6 { group, hops: 1 });
}

#[test]
fn udp_multicast_ipv4() {
    let group = "239.192.0.94".parse().expect("an address");
    udp_both_ways(UdpTo::Multicast4 { group, ttl: 1 });
}

#[test]
fn udp_multicast_ipv6() {
    let group = "ff02::94".parse().expect("an address");
    udp_both_ways(UdpTo::Multicast6 { group, hops: 1 });
}

#[test]
fn udp_unicast_ipv4_and_ipv6() {
    for (a, b) in [("10.9.0.1", "10.9.0.2"), ("fd09::1", "fd09::2")] {
        let of = |n, text: &str| (NodeId(n), text.parse().expect("an address"));
        udp_both_ways(UdpTo::Unicast { addresses: vec![of(0, a), of(1, b)] });
    }
}

fn serial(device: String) -> LinkKind {
    LinkKind::Serial { device: device.into(), baud: 115_200, ends: (NodeId(0), NodeId(1)) }
}

#[test]
fn serial_survives_garbage_and_half_frames() {
    let (mut master, slave) = TTYPort::pair().expect("a pty");
    let device = slave.name().expect("a name");
    drop(slave);
    let end = with_link(None, 0, serial(device), async move |_handle, inbox| {
        usable(inbox, true).await;
        let line = hafailover::wire::line::encode_line(b"a heartbeat");
        master.write_all(&[0xaa; 300]).expect("garbage");
        master.write_all(&line[..line.len() / 2]).expect("half a frame");
        master.write_all(&line).expect("a frame");
        frame(inbox).await
    });
    assert_eq!(end.join().expect("ended"), b"a heartbeat");
}

#[test]
fn a_stalled_reader_of_the_line_gets_the_newest_frame() {
    let (mut master, slave) = TTYPort::pair().expect("a pty");
    let device = slave.name().expect("a name");
    drop(slave);
    master.set_timeout(PATIENCE).expect("a time-out");
    let end = with_link(None, 0, serial(device), async move |handle, inbox| {
        usable(inbox, true).await;
        // Far more than a tty buffers, while nobody reads; the sender must not be held up.
        for n in 0..2000u32 {
            handle.send(vec![[n.to_be_bytes(), [7; 4]].concat()]);
            tokio::task::yield_now().await;
        }
        let mut deframer = hafailover::wire::line::Deframer::default();
        let (mut buffer, mut last) = ([0; 1024], 0);
        while last < 1999 {
            let len = master.read(&mut buffer).expect("what the line took");
            for frame in deframer.push(&buffer[..len]) {
                let n = u32::from_be_bytes(frame[..4].try_into().expect("four bytes"));
                assert!(n >= last, "an old frame after a newer one");
                last = n;
            }
        }
        last
    });
    assert_eq!(end.join().expect("ended"), 1999, "the newest frame arrives");
}

/// Goal: what is said while the line is busy is said as soon as it is free, and only the newest of
/// it, all of its frames.
#[test]
fn a_change_on_a_busy_line_is_sent_when_it_is_free() {
    const BAUD: u32 = 9600;
    let (mut master, slave) = TTYPort::pair().expect("a pty");
    let device = slave.name().expect("a name");
    drop(slave);
    master.set_timeout(PATIENCE).expect("a time-out");
    let kind = LinkKind::Serial { device: device.into(), baud: BAUD, ends: (NodeId(0), NodeId(1)) };
    let end = with_link(None, 0, kind, async move |handle, inbox| {
        usable(inbox, true).await;
        let mut deframer = hafailover::wire::line::Deframer::default();
        let (mut buffer, mut got) = ([0; 1024], Vec::new());
        let began = std::time::Instant::now();
        handle.send(vec![vec![1; 1500]]);
        while got.len() < 3 {
            let len = master.read(&mut buffer).expect("what the line took");
            let new = deframer.push(&buffer[..len]);
            if got.is_empty() && !new.is_empty() {
                handle.send(vec![vec![2; 9]]);
                handle.send(vec![vec![3; 9], vec![4; 9]]);
            }
            got.extend(new.into_iter().map(|frame| (frame[0], began.elapsed())));
        }
        got
    });
    let got = end.join().expect("ended");
    assert_eq!(got.iter().map(|(n, _)| *n).collect::<Vec<_>>(), [1, 3, 4]);
    let busy = hafailover::wire::line::line_time(1500, BAUD);
    assert!(got[1].1 >= busy, "{:?}: the first one took the line for {busy:?}", got[1].1);
}

#[test]
fn noise_on_the_line_is_counted() {
    let (mut master, slave) = TTYPort::pair().expect("a pty");
    let device = slave.name().expect("a name");
    drop(slave);
    let end = with_link(None, 0, serial(device), async move |handle, inbox| {
        usable(inbox, true).await;
        let line = hafailover::wire::line::encode_line(b"a heartbeat");
        master.write_all(&line).expect("a frame");
        master.write_all(&[0xaa, 0, 0xbb, 0xcc, 0]).expect("noise, twice");
        master.write_all(&line).expect("a frame");
        frame(inbox).await;
        frame(inbox).await;
        handle.counters.noise.load(Ordering::Relaxed)
    });
    assert_eq!(end.join().expect("ended"), 2);
}

#[test]
fn a_missing_device_is_reported_and_tried_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("tty");
    let (_master, slave) = TTYPort::pair().expect("a pty");
    let device = slave.name().expect("a name");
    drop(slave);
    let link_to = path.clone();
    let end = with_link(None, 0, serial(path.display().to_string()), async move |_h, inbox| {
        usable(inbox, false).await;
        std::os::unix::fs::symlink(device, link_to).expect("plugged in");
        usable(inbox, true).await;
    });
    end.join().expect("ended");
}

/// Goal: a converter that is pulled out and put back is used again, in both directions, and what
/// the line held back meanwhile is not.
#[test]
fn a_line_that_hangs_up_is_opened_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("tty");
    let plug = move |device: &TTYPort| {
        let _ = std::fs::remove_file(&path);
        std::os::unix::fs::symlink(device.name().expect("a name"), &path).expect("plugged in");
        path.clone()
    };
    let (mut master, slave) = TTYPort::pair().expect("a pty");
    let kind = serial(plug(&slave).display().to_string());
    drop(slave);
    let end = with_link(None, 0, kind, async move |handle, inbox| {
        usable(inbox, true).await;
        for n in 0..3 {
            let line = hafailover::wire::line::encode_line(&[n, 1]);
            master.write_all(&line).expect("a frame");
            assert_eq!(frame(inbox).await, [n, 1]);
            handle.send(vec![vec![n, 2]]);
            let mut deframer = hafailover::wire::line::Deframer::default();
            let mut buffer = [0; 64];
            master.set_timeout(PATIENCE).expect("a time-out");
            let got = loop {
                let len = master.read(&mut buffer).expect("what the line took");
                if let Some(got) = deframer.push(&buffer[..len]).pop() {
                    break got;
                }
            };
            assert_eq!(got, [n, 2]);
            let (next, slave) = TTYPort::pair().expect("a pty");
            drop(std::mem::replace(&mut master, next));
            usable(inbox, false).await;
            handle.send(vec![vec![99]]);
            plug(&slave);
            drop(slave);
            usable(inbox, true).await;
        }
    });
    end.join().expect("ended");
}
