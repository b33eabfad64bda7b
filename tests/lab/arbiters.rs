//! Arbiters of the lab: beside the client on the LAN a witness, or three etcds; or a disk that all
//! nodes share, with a sanlock on each. Each ends with its value.

use crate::cluster::{Cluster, PATIENCE};
use crate::harness::net::Lan;
use crate::harness::{rootfs, sh, try_sh};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

pub trait Arbiter: Sized {
    /// `[arbiter]`, but for the lease.
    const SETTINGS: &str;
    fn begin(c: &mut Cluster) -> Self;
    /// Nobody gets an answer any more.
    fn lose(&mut self);
    /// With all that it knew.
    fn back(&mut self);
    /// One node does not reach it any more, nor the LAN.
    fn cut(c: &Cluster, n: usize) {
        c.lab.net.cut(n, Lan::Lan);
    }
}

/// How a witness calls the file of the cluster `lab`.
const LAB: &str = "39b0d83311d75f32";

pub struct Witness {
    child: Option<Child>,
    dir: TempDir,
    space: String,
}

impl Arbiter for Witness {
    const SETTINGS: &str = "kind = \"witness\"\n[arbiter.witness]\naddress = \"192.168.0.50\"\n";

    fn begin(c: &mut Cluster) -> Witness {
        Witness::at(c, 50)
    }

    fn lose(&mut self) {
        end(&mut self.child);
    }

    fn back(&mut self) {
        let (ready, at) = listen(self.dir.path(), "notify");
        let mut run = inside(&self.space);
        run.arg(self.dir.path().join("package/usr/sbin/hafailover")).arg("witness");
        run.arg("--config").arg(self.dir.path().join("witness.toml")).env("NOTIFY_SOCKET", at);
        self.child = Some(run.stdin(Stdio::null()).spawn().expect("ip runs"));
        ready.recv(&mut [0; 256]).expect("READY=1");
    }
}

impl Witness {
    /// At 192.168.0.NUMBER, in the client's place.
    pub fn at(c: &Cluster, number: u8) -> Witness {
        let space = c.lab.net.client();
        let address = format!("192.168.0.{number}");
        try_sh(&format!("ip -n {space} addr add {address}/24 dev eth0"));
        let dir = tempfile::tempdir_in(c.lab.dir()).expect("a directory");
        let at = dir.path().display();
        let keys = c.lab.node(0).must("cat /etc/hafailover/keys");
        std::fs::write(dir.path().join("keys"), keys).expect("written");
        let text = format!(
            "address = \"{address}\"\nlongest = \"30s\"\nstate = \"{at}/state\"\n\
             [[cluster]]\nname = \"lab\"\nkeys = \"{at}/keys\"\n"
        );
        std::fs::write(dir.path().join("witness.toml"), text).expect("written");
        // A witness that never granted anything, and not one that has lost what it knew.
        must(&format!("chmod 600 {at}/keys; mkdir {at}/state; echo '{{}}' >{at}/state/{LAB}"));
        must(&format!("dpkg-deb -x {} {at}/package", rootfs::package().display()));
        let mut witness = Witness { child: None, dir, space };
        witness.back();
        witness
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.lose();
    }
}

pub struct Etcds {
    members: [Option<Child>; 3],
    dir: TempDir,
    /// The namespace of each, in which it has an address of its own.
    spaces: [String; 3],
}

impl Arbiter for Etcds {
    const SETTINGS: &str = "kind = \"etcd\"\n[arbiter.etcd]\nendpoints = \
        [\"http://192.168.0.51:2379\", \"http://192.168.0.52:2379\", \
        \"http://192.168.0.53:2379\"]\n";

    fn begin(c: &mut Cluster) -> Etcds {
        let space = c.lab.net.client();
        Etcds::at(c, [space.clone(), space.clone(), space])
    }

    fn lose(&mut self) {
        self.members.iter_mut().for_each(end);
    }

    fn back(&mut self) {
        let down = (0..3).filter(|n| self.members[*n].is_none()).collect::<Vec<_>>();
        let ready: Vec<UnixDatagram> = down.into_iter().map(|n| self.spawn(n)).collect();
        for socket in ready {
            socket.recv(&mut [0; 256]).expect("READY=1");
        }
    }
}

impl Etcds {
    /// A member in each of these namespaces.
    pub fn at(c: &Cluster, spaces: [String; 3]) -> Etcds {
        for (n, space) in spaces.iter().enumerate() {
            try_sh(&format!("ip -n {space} addr add 192.168.0.5{}/24 dev eth0", n + 1));
        }
        let dir = tempfile::tempdir_in(c.lab.dir()).expect("a directory");
        let mut etcds = Etcds { members: [None, None, None], dir, spaces };
        etcds.back();
        etcds
    }

    pub fn end(&mut self, n: usize) {
        end(&mut self.members[n]);
    }

    fn spawn(&mut self, n: usize) -> UnixDatagram {
        let at = |name: &str| self.dir.path().join(format!("{name}{n}"));
        let (socket, notify) = listen(self.dir.path(), &format!("notify{n}"));
        let url = |n: usize, port: u16| format!("http://192.168.0.5{}:{port}", n + 1);
        let all: Vec<String> = (0..3).map(|n| format!("m{n}={}", url(n, 2380))).collect();
        let log = std::fs::File::create(at("log")).expect("a log");
        let mut run = inside(&self.spaces[n]);
        run.args(["etcd", "--name", &format!("m{n}"), "--initial-cluster", &all.join(",")]);
        for kind in ["--listen-client-urls", "--advertise-client-urls"] {
            run.args([kind, &url(n, 2379)]);
        }
        for kind in ["--listen-peer-urls", "--initial-advertise-peer-urls"] {
            run.args([kind, &url(n, 2380)]);
        }
        run.arg("--data-dir").arg(at("data")).env("NOTIFY_SOCKET", notify);
        let child = run.stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log);
        self.members[n] = Some(child.spawn().expect("ip runs"));
        socket
    }
}

impl Drop for Etcds {
    fn drop(&mut self) {
        self.lose();
        for (n, space) in self.spaces.iter().enumerate() {
            try_sh(&format!("ip -n {space} addr del 192.168.0.5{}/24 dev eth0", n + 1));
        }
    }
}

/// The small disk of the lab, which hangs when it is lost.
pub struct Sanlock {
    /// The file system below it.
    at: PathBuf,
}

/// As the package starts it, and with a name that stays. It raises limits otherwise, which a node
/// of the lab may not.
const SANLOCK: &str = "printf 'SANLOCK_PRIVILEGED=0\\nsanlock_opts=\"-w 0 -l 0 -U root -G root -e \
                       %s\"\\n' $(hostname) >/etc/default/sanlock; \
                       systemctl -q mask --now wdmd; systemctl kill -s KILL sanlock; \
                       systemctl reset-failed sanlock; systemctl start sanlock";

impl Arbiter for Sanlock {
    const SETTINGS: &str = "kind = \"sanlock\"\n[arbiter.sanlock]\ndevice = \"/dev/heart\"\n\
        io-timeout = \"1s\"\n";

    fn begin(c: &mut Cluster) -> Sanlock {
        c.lab.wipe_heart();
        Sanlock::on(c)
    }

    fn lose(&mut self) {
        sh(&format!("fsfreeze -f {}", self.at.display()));
    }

    fn back(&mut self) {
        sh(&format!("fsfreeze -u {}", self.at.display()));
    }

    fn cut(c: &Cluster, n: usize) {
        c.lab.net.cut(n, Lan::Lan);
        c.lab.lose_heart(n);
    }
}

impl Sanlock {
    /// On a disk that may have something else beside it.
    pub fn on(c: &mut Cluster) -> Sanlock {
        let made = c.lab.node(0).must("hafailover disk format --leases /dev/heart");
        assert!(made.contains("has leases for n1, n2 now"), "{made}");
        for n in 0..c.lab.nodes.len() {
            c.lab.node(n).must(SANLOCK);
        }
        Sanlock { at: c.lab.heart().at() }
    }
}

/// A program there, which ends with this one.
fn inside(space: &str) -> Command {
    let mut run = Command::new("ip");
    run.args(["netns", "exec", space, "setpriv", "--pdeathsig", "KILL"]);
    run
}

/// Where a program says that it serves.
fn listen(dir: &Path, name: &str) -> (UnixDatagram, std::path::PathBuf) {
    let at = dir.join(name);
    let _ = std::fs::remove_file(&at);
    let socket = UnixDatagram::bind(&at).expect("bound");
    socket.set_read_timeout(Some(PATIENCE)).expect("set");
    (socket, at)
}

fn end(child: &mut Option<Child>) {
    if let Some(mut child) = child.take() {
        child.kill().expect("it runs");
        let _ = child.wait();
    }
}

fn must(command: &str) {
    let done = Command::new("sh").args(["-c", command]).status().expect("a shell");
    assert!(done.success(), "{command}");
}
