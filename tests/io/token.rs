//! Tokens on a /run of their own, which gets full.

use crate::space::sh;
use crate::systemd::{group, own};
use hafailover::core::name::{Epoch, NodeId};
use hafailover::io::token;

fn with_run_of(size: &str) {
    // SAFETY: only this thread, which shares nothing of its file system view with others after.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }.expect("root");
    sh(&format!("mount --make-rprivate / && mount -t tmpfs -o {size} tmpfs /run"));
}

/// Goal: a /run without room lets nothing start, leaves nothing half written, and holds up no stop.
#[test]
fn a_full_run_holds_up_no_stop() {
    with_run_of("size=64k,nr_inodes=20");
    let epoch = own();
    sh("dd if=/dev/zero of=/run/fill bs=4k 2>/dev/null || true");
    sh("i=0; while touch /run/i$i 2>/dev/null; do i=$((i+1)); done");
    let next = Epoch { counter: 2, node: NodeId(0) };
    let full = token::write(&group(), next).expect_err("no room");
    assert_eq!(full.raw_os_error(), Some(libc::ENOSPC), "{full}");
    assert_eq!(token::read(&group()), Some(epoch), "what was there is whole");
    token::close(&group()).expect("a stop needs no room");
    assert_eq!((token::read(&group()), token::read_closed(&group())), (None, Some(epoch)));
    token::remove(&group()).expect("nor does its end");
    assert!(token::list().is_empty());
}

/// Goal: what is to be stopped is known as long as the group is held, and no longer.
#[test]
fn the_members_are_noted_as_long_as_the_group_is_held() {
    with_run_of("size=1m");
    own();
    let units = |text: &str| text.split(' ').map(str::to_string).collect::<Vec<_>>();
    token::note(&group(), &units("a.mount b.service"), &units("c.service")).expect("written");
    assert_eq!(token::members(&group()), Some((units("a.mount b.service"), units("c.service"))));
    token::note(&group(), &units("a.mount"), &[]).expect("written");
    token::close(&group()).expect("closed");
    assert_eq!(token::members(&group()), Some((units("a.mount"), Vec::new())));
    token::remove(&group()).expect("removed");
    assert_eq!(token::members(&group()), None);
}
