//! The lab itself: that what a story calls a cut, a freeze or a power loss is one, and that a run
//! leaves nothing behind. A harness that cuts nothing makes every story pass.

use crate::cluster::{Cluster, PATIENCE};
use crate::harness::net::{Lan, Net};
use crate::harness::{Broom, client, left_of, sh, wait};
use crate::stories::Story;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::UdpSocket;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

pub const ALL: &[(&str, Story)] = &[
    ("lab_networks_are_cut_and_healed", networks_are_cut_and_healed),
    ("lab_line_is_cut_and_healed", line_is_cut_and_healed),
    ("lab_line_forgets_who_had_it", line_forgets_who_had_it),
    ("lab_freeze_stops_all_processes", freeze_stops_all_processes),
    ("lab_power_loss_frees_the_disk", power_loss_frees_the_disk),
    ("lab_double_mount_is_seen", double_mount_is_seen),
    ("lab_crossover_cable_loses_carrier", crossover_cable_loses_carrier),
    ("lab_command_goes_on_after_a_stop", command_goes_on_after_a_stop),
    ("lab_leaves_nothing_behind", leaves_nothing_behind),
];

/// How long a frame may take that arrives; one that is dropped costs a test so much.
const FRAME: Duration = Duration::from_secs(1);

/// Whether a broadcast of one node reaches another. Broadcast: needs no answer on the way back.
fn hears(from: usize, to: usize, lan: Lan) -> bool {
    let net = if lan == Lan::Lan { "192.168.0" } else { "10.0.0" };
    let socket = |n: usize, address: String| {
        let enter_and_bind = move || {
            client::enter(&Net::node(n));
            UdpSocket::bind(address).expect("bound")
        };
        std::thread::spawn(enter_and_bind).join().expect("a socket in the namespace")
    };
    let ear = socket(to, "0.0.0.0:5555".into());
    ear.set_read_timeout(Some(FRAME)).expect("a time-out");
    let mouth = socket(from, format!("{net}.{}:0", from + 1));
    mouth.set_broadcast(true).expect("broadcast");
    // Without carrier the route is gone at once, or the frame is lost: both are silence.
    let _ = mouth.send_to(b"x", format!("{net}.255:5555"));
    ear.recv(&mut [0; 8]).is_ok()
}

fn carrier(n: usize, lan: Lan) -> bool {
    let shown = sh(&format!("ip -n {} -o link show {}", Net::node(n), lan.interface()));
    !shown.contains("NO-CARRIER")
}

fn networks_are_cut_and_healed(c: &mut Cluster) {
    let net = &c.lab.net;
    for lan in [Lan::Lan, Lan::Heartbeat] {
        let both = || (hears(0, 1, lan), hears(1, 0, lan));
        assert_eq!(both(), (true, true), "{lan:?}");
        net.cut(0, lan);
        assert_eq!((both(), carrier(0, lan), carrier(1, lan)), ((false, false), false, true));
        net.heal(0, lan);
        wait("the carrier", PATIENCE, || (carrier(0, lan) && hears(0, 1, lan)).then_some(()));
        net.block(0, lan);
        assert_eq!((both(), carrier(0, lan)), ((false, false), true), "{lan:?} blocked");
        net.unblock();
        net.block_way(0, 1, lan);
        assert_eq!(both(), (false, true), "{lan:?} blocked one way");
        net.unblock();
        net.deafen(1, lan);
        assert_eq!(both(), (false, true), "n2 deaf on {lan:?}");
        net.undeafen(1);
        assert_eq!(both(), (true, true), "{lan:?}");
    }
}

/// What arrives at a node's end of the line within [`FRAME`] after the other end wrote `text`.
fn over_the_line(c: &Cluster, from: usize, text: &str) -> String {
    heard_on_the_line(c, 1 - from, text.len(), || {
        c.lab.node(from).must(&format!("printf '{text}' >/dev/ttyS0"));
    })
}

/// What arrives at an end of the line within [`FRAME`] after something was done.
fn heard_on_the_line(c: &Cluster, to: usize, most: usize, done: impl FnOnce()) -> String {
    let seconds = FRAME.as_secs_f64();
    let mut ear = started(
        c.lab
            .node(to)
            .command(&format!("exec 3</dev/ttyS0; echo; timeout {seconds} head -c {most} <&3")),
    );
    done();
    let mut got = String::new();
    let mut out = ear.stdout.take().expect("piped");
    std::io::Read::read_to_string(&mut out, &mut got).expect("text");
    let _ = ear.wait();
    got
}

/// A child that has written its first line, by which it says that it is ready.
fn started(mut command: Command) -> Child {
    let mut child = command.stdout(Stdio::piped()).spawn().expect("runs");
    let out = child.stdout.as_mut().expect("piped");
    // One byte at a time: what comes after the line is not for this reader.
    let mut line = BufReader::with_capacity(1, out);
    assert_ne!(line.read_line(&mut String::new()).expect("readable"), 0, "ended unready");
    child
}

fn line_is_cut_and_healed(c: &mut Cluster) {
    for from in 0..2 {
        assert_eq!(over_the_line(c, from, "over"), "over", "from n{}", from + 1);
        c.lab.line.cut();
        assert_eq!(over_the_line(c, from, "lost"), "", "from n{}", from + 1);
        c.lab.line.heal();
        assert_eq!(over_the_line(c, from, "again"), "again", "from n{}", from + 1);
        c.lab.line.cut_from(1 - from);
        assert_eq!(over_the_line(c, from, "over"), "over", "from n{}", from + 1);
        assert_eq!(over_the_line(c, 1 - from, "lost"), "", "one way only");
        c.lab.line.heal();
        c.lab.line.stall();
        assert_eq!(over_the_line(c, from, "late"), "", "from n{}", from + 1);
        let late = heard_on_the_line(c, 1 - from, 4, || c.lab.line.heal());
        assert_eq!(late, "late", "from n{}", from + 1);
    }
}

/// As a real port does: a daemon that had it for a moment only does not keep the next one out.
fn line_forgets_who_had_it(c: &mut Cluster) {
    let device = c.lab.line.device(0);
    for _ in 0..20 {
        let port = File::options().read(true).write(true).open(&device).expect("opens");
        rustix::termios::ioctl_tiocexcl(&port).expect("a terminal");
    }
    // Whoever has CAP_SYS_ADMIN is let in at all times (TIOCEXCL(2const)); the daemon has not.
    let open = "setpriv --bounding-set -sys_admin --inh-caps -sys_admin sh -c ': </dev/ttyS0'";
    wait("the line to open", PATIENCE, || (c.lab.node(0).run(open).code == 0).then_some(()));
}

/// PID 1 stops every process for a moment before it kills them, at a shutdown and a soft-reboot:
/// nsenter(1) then stops itself as well, where no PID 1 makes it go on.
fn command_goes_on_after_a_stop(c: &mut Cluster) {
    let (stopped, said) = (c.lab.node(0).command("kill -STOP $$; echo on").output(), "on\n");
    assert_eq!(String::from_utf8_lossy(&stopped.expect("nsenter runs").stdout), said);
}

fn freeze_stops_all_processes(c: &mut Cluster) {
    let node = c.lab.node(0);
    let ticker = "while :; do date +%s%N >/run/tick; sleep 0.01; done";
    node.must(&format!("systemd-run -q --unit=tick sh -c '{ticker}'"));
    let tick = || node.run("cat /run/tick").text.trim().parse::<u64>().ok();
    wait("the first tick", PATIENCE, tick);
    node.freeze();
    // A command of the lab is no process of the node: it still can look.
    let before = tick();
    std::thread::sleep(FRAME);
    let during = tick();
    node.thaw();
    assert_eq!(before, during, "a process ran on in a frozen node");
    wait("the next tick", PATIENCE, || (tick() > during).then_some(()));
    node.must("systemctl stop tick");
}

fn power_loss_frees_the_disk(c: &mut Cluster) {
    let leader = c.lab.node(0).must("mount /dev/shared /srv && echo n1 >/srv/proof && sync /srv");
    assert_eq!(leader, "");
    c.lab.node(0).must("systemd-run -q --unit=holder --working-directory=/srv sleep infinity");
    let minor = c.lab.node(0).must("stat -c %T /dev/shared");
    // The kernel's own word for a mounted ext4, in whatever mount namespace.
    let kernel =
        format!("/sys/fs/ext4/loop{}", u32::from_str_radix(minor.trim(), 16).expect("hex"));
    assert!(Path::new(&kernel).exists());
    c.lab.kill(0);
    assert!(!c.lab.node(0).is_up());
    let gone = || (!Path::new(&kernel).exists()).then_some(());
    wait("the kernel to let go of the disk", Duration::from_secs(30), gone);
    assert!(!Path::new("/run/netns").join(Net::node(0)).exists());
    c.lab.node(1).must("mount /dev/shared /srv");
    assert_eq!(c.lab.node(1).must("cat /srv/proof"), "n1\n");
    c.lab.node(1).must("rm /srv/proof && umount /srv");
    c.lab.boot(0);
    assert!(hears(0, 1, Lan::Heartbeat) && hears(1, 0, Lan::Lan));
}

/// Nobody writes: by the mount tables alone. One that stands still has it mounted still, one
/// without power has nothing.
fn double_mount_is_seen(c: &mut Cluster) {
    let again = |c: &Cluster| {
        c.lab.mounts.forget();
        wait("some looks", PATIENCE, || (c.lab.mounts.seen().looks > 10).then_some(()));
        c.two_owners()
    };
    c.lab.node(0).must("mount /dev/shared /srv");
    assert_eq!(again(c), None, "one has it mounted");
    c.lab.node(1).must("mount /dev/shared /srv");
    let said = again(c).expect("both have it mounted");
    println!("  mounted by hand: {said}");
    assert!(c.lab.overlap().is_zero(), "nobody writes");
    c.lab.node(0).freeze();
    assert_ne!(again(c), None, "a frozen node has it mounted");
    c.lab.kill(0);
    assert_eq!(again(c), None, "a dead node has nothing mounted");
    c.lab.boot(0);
    c.lab.node(0).must("mount /dev/shared /srv");
    assert_ne!(again(c), None, "both have it mounted, after a boot");
    (0..2).for_each(|n| drop(c.lab.node(n).must("umount /srv")));
    assert_eq!(again(c), None, "nobody has it mounted");
}

fn crossover_cable_loses_carrier(c: &mut Cluster) {
    c.lab.net.crossover = true;
    c.lab.kill(0);
    let (heartbeat, lan) = (carrier(1, Lan::Heartbeat), carrier(1, Lan::Lan));
    c.lab.boot(0);
    let back = carrier(1, Lan::Heartbeat);
    c.lab.net.crossover = false;
    assert_eq!((heartbeat, lan, back), (false, true, true));
}

/// A lab of another process, ended in each of the ways in which a run can end.
fn leaves_nothing_behind(_: &mut Cluster) {
    for end in ["TERM", "INT", "panic", "KILL"] {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.args(["--hold", end]).stderr(Stdio::null());
        let mut other = started(command);
        let pid = other.id().to_string();
        // Else another lab that is built just now sweeps it away unseen.
        let broom = (end == "KILL").then(Broom::take);
        if end != "panic" {
            sh(&format!("kill -{end} {pid}"));
        }
        let _ = other.wait();
        if let Some(broom) = broom {
            assert_ne!(left_of(&pid), "", "there was a lab");
            broom.sweep();
        }
        assert_eq!(left_of(&pid), "", "left after {end}");
    }
}
