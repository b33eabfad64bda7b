//! A daemon under a flood of frames still does what it is told.

use crate::manager::{Manager, PATIENCE};
use crate::space::sh;
use hafailover::core::heartbeat::{Heartbeat, Mood, NodeWishes};
use hafailover::core::name::{BootId, LinkId, NodeId, Session};
use hafailover::wire::Codec;
use std::net::UdpSocket;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

const PROGRAM: &str = env!("CARGO_BIN_EXE_hafailover");
const PORTS: [u16; 3] = [6941, 6942, 6943];

/// A node `me` and another that is not there, on lo, as many links as ports.
fn daemon(at: &str) -> Child {
    let host = sh("uname -n").trim().to_string();
    let links =
        PORTS.map(|port| format!("[[link]]\ntype = \"udp\"\ninterface = \"lo\"\nport = {port}\n"));
    let text = format!(
        "[cluster]\nname = \"x\"\nkeys = \"{at}/keys\"\nstate = \"{at}/state\"\n\
         [[node]]\nname = \"{host}\"\n[[node]]\nname = \"another\"\n{}",
        links.concat()
    );
    std::fs::write(format!("{at}/h.toml"), text).expect("written");
    let mut daemon = Command::new(PROGRAM);
    daemon.args(["daemon", "--config"]).arg(format!("{at}/h.toml")).stderr(Stdio::null());
    daemon.spawn().expect("runs")
}

/// What the other node would seal with.
fn codec(at: &str) -> Codec {
    let keys = hafailover::config::keys::load(format!("{at}/keys").as_ref()).expect("keys");
    let host = sh("uname -n").trim().to_string();
    Codec::new("x", &[host, "another".into()], NodeId(1), Session(5), keys)
}

/// A heartbeat of its first life, each newer than the last.
fn frame(codec: &Codec, number: u64, link: u8) -> Vec<u8> {
    let beat = Heartbeat {
        from: NodeId(1),
        session: Session(5),
        boot: BootId(1),
        seq: number,
        link: LinkId(link),
        stamp: hafailover::core::time::Instant(number),
        mood: Mood::default(),
        fingerprint: 1,
        echoes: Vec::new(),
        wishes: NodeWishes::default(),
        groups: Vec::new(),
        page: 0,
        pages: 1,
    };
    codec.encode(&beat).expect("it fits")
}

/// Sends to one link, as fast as it goes, what was sealed before, and noise that looks like it.
fn flood(at: &str, link: u8, over: Arc<AtomicBool>, sent: Arc<AtomicU64>) -> JoinHandle<()> {
    let codec = codec(at);
    let mut frames: Vec<Vec<u8>> = (1..2000).map(|n| frame(&codec, n, link)).collect();
    frames.push([b"HAFO\x01\x00\x01".as_slice(), &[7; 300]].concat());
    let to = ("127.0.0.1", PORTS[usize::from(link)]);
    std::thread::spawn(move || {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("bound");
        while !over.load(Ordering::Relaxed) {
            for frame in &frames {
                let _ = socket.send_to(frame, to);
                sent.fetch_add(1, Ordering::Relaxed);
            }
        }
    })
}

/// Goal: neither noise that looks like frames nor genuine frames, as fast as they come on several
/// links, keep the daemon from its end.
#[test]
fn a_flood_does_not_hold_up_the_end() {
    let _manager = Manager::start();
    let dir = tempfile::tempdir().expect("a directory");
    let at = dir.path().display().to_string();
    sh(&format!("{PROGRAM} keygen --file {at}/keys"));
    let mut child = daemon(&at);
    let over = Arc::new(AtomicBool::new(false));
    let sent = Arc::new(AtomicU64::new(0));
    let floods: Vec<_> =
        (0..PORTS.len() as u8).map(|l| flood(&at, l, over.clone(), sent.clone())).collect();
    let began = Instant::now();
    while sent.load(Ordering::Relaxed) < 200_000 {
        assert!(began.elapsed() < PATIENCE, "no flood");
        assert!(child.try_wait().expect("a child").is_none(), "it ended by itself");
        std::thread::yield_now();
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
    let asked = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child") {
            break Some(status);
        }
        if asked.elapsed() >= PATIENCE {
            child.kill().expect("killed");
            break None;
        }
        std::thread::yield_now();
    };
    over.store(true, Ordering::Relaxed);
    floods.into_iter().for_each(|f| f.join().expect("it ended"));
    assert!(status.is_some_and(|s| s.success()), "held up by the flood: {status:?}");
}
