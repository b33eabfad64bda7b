//! Two network namespaces joined by a veth pair, removed again also after a panic.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

static COUNT: AtomicU32 = AtomicU32::new(0);

/// `a` and `b`, each with an interface `eth0`; 10.9.0.1 and 10.9.0.2, fd09::1 and fd09::2.
pub struct Spaces {
    pub a: String,
    pub b: String,
}

impl Spaces {
    pub fn new() -> Spaces {
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("hio{}-{n}", std::process::id());
        let spaces = Spaces { a: format!("{prefix}a"), b: format!("{prefix}b") };
        sh(&format!("ip netns add {}; ip netns add {}", spaces.a, spaces.b));
        sh(&format!(
            "ip -n {0} link add eth0 type veth peer name eth0 netns {1}",
            spaces.a, spaces.b
        ));
        for (space, n) in [(&spaces.a, 1), (&spaces.b, 2)] {
            sh(&format!(
                "ip -n {space} link set lo up; ip -n {space} link set eth0 up; \
                 ip -n {space} addr add 10.9.0.{n}/24 dev eth0; \
                 ip -n {space} addr add fd09::{n}/64 dev eth0 nodad"
            ));
        }
        spaces
    }
}

impl Drop for Spaces {
    fn drop(&mut self) {
        for space in [&self.a, &self.b] {
            let _ = Command::new("ip").args(["netns", "del", space]).status();
        }
    }
}

pub fn sh(command: &str) -> String {
    let out = Command::new("sh").args(["-ec", command]).output().expect("sh runs");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success(), "{command}\n{}", String::from_utf8_lossy(&out.stderr));
    text
}

/// Moves this thread into a network namespace.
pub fn enter(space: &str) {
    let file = std::fs::File::open(format!("/run/netns/{space}")).expect("the namespace");
    let kind = Some(rustix::thread::LinkNameSpaceType::Network);
    rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), kind)
        .expect("moved into the namespace");
}

/// What `hafailover check` says of an arbiter of this kind, on a machine of its own whose keys are
/// those in `dir`, if there are any; errors, warnings, notes.
pub fn check_arbiter(dir: &Path, kind: &str) -> String {
    let (at, host) = (dir.display(), sh("uname -n"));
    let text = format!(
        "[cluster]\nname = \"office\"\n[[node]]\nname = \"{}\"\n[[node]]\nname = \"another\"\n\
         [[link]]\ntype = \"udp\"\ninterface = \"lo\"\n[arbiter]\nkind = {kind}",
        host.trim()
    );
    std::fs::write(dir.join("h.toml"), text).expect("written");
    let program = env!("CARGO_BIN_EXE_hafailover");
    let said = sh(&format!(
        "unshare --mount sh -c 'mkdir -p /etc/hafailover && mount -t tmpfs t /etc/hafailover && \
         cp {at}/h.toml /etc/hafailover/hafailover.toml && \
         {{ test ! -e {at}/keys || cp -p {at}/keys /etc/hafailover/keys; }} && {program} check' || \
         true"
    ));
    said.lines().filter(|l| l.contains("arbiter")).map(|l| format!("{l}\n")).collect()
}
