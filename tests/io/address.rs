//! `hafailover ip` with a real kernel, and a second host on the wire.

use crate::space::{Spaces, sh};
use std::io::Read;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(10);

struct Holder {
    child: Child,
    notify: UnixDatagram,
    _dir: tempfile::TempDir,
}

impl Holder {
    fn start(space: &str, instance: &str) -> Holder {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("notify");
        let notify = UnixDatagram::bind(&path).expect("bound");
        notify.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        let child = Command::new("ip")
            .args(["netns", "exec", space, env!("CARGO_BIN_EXE_hafailover"), "ip", instance])
            .env("NOTIFY_SOCKET", &path)
            .stderr(Stdio::piped())
            .spawn()
            .expect("started");
        Holder { child, notify, _dir: dir }
    }

    fn ready(&self) {
        let mut buffer = [0; 1024];
        loop {
            let len = self.notify.recv(&mut buffer).expect("READY=1");
            if String::from_utf8_lossy(&buffer[..len]).contains("READY=1") {
                return;
            }
        }
    }

    fn signal(&self, name: &str) {
        sh(&format!("kill -{name} {}", self.child.id()));
    }

    fn end(&mut self) -> (i32, String) {
        let code = self.child.wait().expect("ended").code().unwrap_or(-1);
        let mut text = String::new();
        let stderr = self.child.stderr.as_mut().expect("piped");
        stderr.read_to_string(&mut text).expect("text");
        (code, text)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn has(space: &str, address: &str) -> bool {
    sh(&format!("ip -n {space} -o addr show")).contains(&format!(" {address}/"))
}

/// `ip monitor` tells when the address is there; asked again after each of its lines.
fn wait_for(space: &str, address: &str) {
    let mut monitor = Command::new("ip")
        .args(["-n", space, "monitor", "address"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("started");
    let mut out = monitor.stdout.take().expect("piped");
    let mut buffer = [0; 512];
    while !has(space, address) {
        assert!(out.read(&mut buffer).expect("a line") > 0, "the monitor ended");
    }
    let _ = monitor.kill();
    let _ = monitor.wait();
}

#[test]
fn an_address_is_held_put_back_and_removed() {
    for (instance, address) in [("10.9.0.9-24", "10.9.0.9"), ("fd09::9-64-eth0", "fd09::9")] {
        let spaces = Spaces::new();
        let mut holder = Holder::start(&spaces.a, instance);
        holder.ready();
        assert!(has(&spaces.a, address));
        sh(&format!("nsenter --net=/run/netns/{} ping -c1 -W2 {address}", spaces.b));
        let prefix = instance.split('-').nth(1).expect("a prefix");
        sh(&format!("ip -n {} addr del {address}/{prefix} dev eth0", spaces.a));
        wait_for(&spaces.a, address);
        holder.signal("TERM");
        let (code, text) = holder.end();
        assert_eq!(code, 0, "{text}");
        assert!(!has(&spaces.a, address), "gone after a stop");
    }
}

#[test]
fn an_address_of_another_host_is_refused_with_its_mac() {
    for (instance, address) in [("10.9.0.2-24-eth0", "10.9.0.2"), ("fd09::2-64-eth0", "fd09::2")] {
        let spaces = Spaces::new();
        let shown = sh(&format!("ip -n {} -o link show eth0", spaces.b));
        let mac = shown.split("link/ether ").nth(1).and_then(|s| s.split(' ').next());
        let (code, text) = Holder::start(&spaces.a, instance).end();
        assert_eq!(code, 4, "{text}");
        assert!(text.contains(mac.expect("a MAC address")), "{text}");
        assert!(!has(&spaces.a, address));
    }
}

#[test]
fn a_killed_holder_leaves_an_address_that_remove_takes_away() {
    let spaces = Spaces::new();
    let mut holder = Holder::start(&spaces.a, "10.9.0.9-24");
    holder.ready();
    holder.signal("KILL");
    holder.end();
    assert!(has(&spaces.a, "10.9.0.9"), "the kernel keeps it");
    let exe = env!("CARGO_BIN_EXE_hafailover");
    sh(&format!("nsenter --net=/run/netns/{} {exe} ip --remove 10.9.0.9-24", spaces.a));
    assert!(!has(&spaces.a, "10.9.0.9"));
}

#[test]
fn no_carrier_and_no_interface_are_said_at_once() {
    let spaces = Spaces::new();
    sh(&format!("ip -n {} link set eth0 down", spaces.b));
    let (code, text) = Holder::start(&spaces.a, "10.9.0.9-24").end();
    assert!(code == 1 && text.contains("no carrier"), "{text}");
    let (code, text) = Holder::start(&spaces.a, "172.30.0.9-24").end();
    assert!(code == 1 && text.contains("name one"), "{text}");
    let (code, text) = Holder::start(&spaces.a, "10.9.0.9-24-eth7").end();
    assert!(code == 1 && text.contains("no interface eth7"), "{text}");
}

#[test]
fn the_announcement_reaches_the_neighbours() {
    let spaces = Spaces::new();
    // A neighbour that believes the address to be elsewhere, as after a takeover.
    sh(&format!(
        "ip -n {} neigh replace 10.9.0.9 lladdr 02:00:00:00:00:99 dev eth0 nud stale",
        spaces.b
    ));
    let holder = Holder::start(&spaces.a, "10.9.0.9-24");
    holder.ready();
    sh(&format!("nsenter --net=/run/netns/{} ping -c1 -W2 10.9.0.9", spaces.b));
    let table = sh(&format!("ip -n {} neigh show 10.9.0.9", spaces.b));
    assert!(!table.contains("02:00:00:00:00:99"), "{table}");
}

/// Goal: an address that something takes away again and again is given up, with a code by which
/// its unit is not started again; an interface that is gone is named.
#[test]
fn what_takes_the_address_away_is_named() {
    let spaces = Spaces::new();
    let mut holder = Holder::start(&spaces.a, "10.9.0.9-24");
    holder.ready();
    let del = format!("ip -n {} addr del 10.9.0.9/24 dev eth0", spaces.a);
    for _ in 0..10 {
        sh(&del);
        wait_for(&spaces.a, "10.9.0.9");
    }
    sh(&del);
    let (code, text) = holder.end();
    assert!(code == 5 && text.contains("was removed 11 times within 60 s"), "{code}: {text}");
    let unit = include_str!("../../units/hafailover-ip@.service");
    assert!(unit.contains("RestartPreventExitStatus=4 5\n"));
    let mut holder = Holder::start(&spaces.a, "10.9.0.9-24");
    holder.ready();
    sh(&format!("ip -n {} link del eth0", spaces.a));
    let (code, text) = holder.end();
    assert!(code == 1 && text.contains("is gone with its interface"), "{code}: {text}");
}

/// Goal: a host that claims the address later is answered each time, and told of once.
#[test]
fn a_later_claim_is_answered_and_told_once() {
    let spaces = Spaces::new();
    let mut holder = Holder::start(&spaces.a, "10.9.0.9-24");
    holder.ready();
    sh(&format!("ip -n {} addr add 10.9.0.9/24 dev eth0", spaces.b));
    // Whoever asks for somebody else says who he is.
    let claim = format!(
        "ip -n {0} neigh flush dev eth0; \
         nsenter --net=/run/netns/{0} ping -q -c1 -W1 -I 10.9.0.9 10.9.0.1 >/dev/null || true",
        spaces.b
    );
    let mut said = String::new();
    let mut buffer = [0; 512];
    while !said.contains("is claimed by another host") {
        sh(&claim);
        let n = holder.child.stderr.as_mut().expect("piped").read(&mut buffer).expect("text");
        said += &String::from_utf8_lossy(&buffer[..n]);
    }
    assert!(said.contains("take it off that host"), "{said}");
    sh(&claim);
    assert!(has(&spaces.a, "10.9.0.9"), "it is kept");
    holder.signal("TERM");
    let (code, text) = holder.end();
    assert!(code == 0 && !text.contains("is claimed by"), "{code}: {text}");
}
