//! A clone of a node: a machine that has its name, its keys and its configuration, and says that it
//! holds nothing.

use crate::cluster::{Cluster, PATIENCE, TAKEOVER};
use crate::harness::net::Net;
use crate::harness::wait;
use hafailover::config::settings::{Link, LinkKind, UdpTo};
use hafailover::core::heartbeat::{Echo, Heartbeat, Held, Phase};
use hafailover::core::name::{LinkId, LinkSet, NodeId, Session};
use hafailover::core::time::{Duration, Instant};
use hafailover::io::{Input, link};
use hafailover::wire::Codec;
use hafailover::wire::keys::Keys;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const SESSION: Session = Session(4711);
const LINK: LinkId = LinkId(0);

pub fn a_clone_is_told_and_refused(c: &mut Cluster) {
    c.start_all(TAKEOVER);
    let keys = Keys::parse(&c.lab.node(0).must("cat /etc/hafailover/keys")).expect("keys");
    c.lab.net.plug(2);
    let gone = Arc::new(AtomicBool::new(false));
    let clone = std::thread::spawn({
        let gone = gone.clone();
        move || live(keys, &gone)
    });
    c.told(0, "peer-double");
    c.told(1, "peer-double");
    let status = c.lab.node(0).run("hafailover status");
    assert!(status.code == 4 && status.text.contains("10.0.0.3"), "{}", status.text);
    assert_eq!(c.lab.node(0).told("peer-double"), 1, "once a session");
    c.runs_on(0);
    assert_eq!(c.lab.node(1).told("group-claimed"), 0);
    gone.store(true, Ordering::Relaxed);
    clone.join().expect("the clone ended well");
    c.lab.net.unplug(2);
    wait("the end of the warning", PATIENCE, || {
        (c.lab.node(0).run("hafailover status").code == 0).then_some(())
    });
    c.moves(0, "files");
    c.runs_on(1);
    c.one_owner();
}

/// Answers every heartbeat as n1 would that has just started.
fn live(keys: Keys, gone: &AtomicBool) {
    let space = std::fs::File::open(format!("/run/netns/{}", Net::node(2))).expect("the machine");
    let kind = Some(rustix::thread::LinkNameSpaceType::Network);
    rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&space), kind)
        .expect("into the machine");
    let me = NodeId(0);
    let mut codec = Codec::new("lab", &["n1".into(), "n2".into()], me, SESSION, keys);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime.expect("a runtime"), async {
        let (sender, mut inbox) = tokio::sync::mpsc::channel(256);
        let kind = LinkKind::Udp { interface: "eth1".into(), port: 694, to: UdpTo::Broadcast };
        let handle = link::open(&Link { id: LINK, name: "eth1".into(), kind }, me, &sender);
        let (mut seq, mut heard, mut like) = (0, [None, None], None);
        while !gone.load(Ordering::Relaxed) {
            let input = tokio::time::timeout(Duration::from_millis(100), inbox.recv()).await;
            let Ok(Some(Input::Frame { bytes, .. })) = input else { continue };
            let Ok(beat) = codec.decode(LINK, &bytes) else { continue };
            let (peer, session, stamp) = (beat.from, beat.session, beat.stamp);
            let links = LinkSet(u16::from(peer != me));
            let echo = Echo { peer, session, stamp, age: Duration::ZERO, links };
            heard[usize::from(peer.0)] = Some(echo);
            if peer == me {
                like = Some(beat);
            }
            // To either of them: what n2 says it has then heard before n1 has.
            let Some(like) = &like else { continue };
            seq += 1;
            handle.send(vec![codec.encode(&answer(like.clone(), seq, &heard)).expect("fits")]);
        }
    });
}

fn answer(beat: Heartbeat, seq: u64, heard: &[Option<Echo>; 2]) -> Heartbeat {
    let mut own = Heartbeat {
        session: SESSION,
        seq,
        stamp: Instant(seq),
        echoes: heard.iter().flatten().copied().collect(),
        ..beat
    };
    for group in &mut own.groups {
        (group.held, group.phase, group.claim) = (Held::No, Phase::Stopped, None);
    }
    own
}
