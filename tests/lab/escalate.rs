//! Stories of a stop that fails and of what follows it: whoever keeps the disk busy is killed by
//! unit, or the machine is reset.

use crate::cluster::{AGENT, Cluster, DEADTIME, PATIENCE, TAKEOVER, TARGET};
use crate::harness::wait;
use crate::stories::Story;
use std::time::Instant;

pub const ALL: &[(&str, Story)] = &[
    ("kill_users_frees_a_busy_mount", kill_users_frees_a_busy_mount),
    ("kill_users_spares_what_the_machine_needs", kill_users_spares_what_the_machine_needs),
    ("fence_self_ends_a_machine_with_busy_mount", fence_self_ends_a_machine_with_busy_mount),
    ("disk_that_hangs_is_held", disk_that_hangs),
];

fn start(c: &mut Cluster, failure: &str) {
    let more = format!(
        "StopBudget=3s
{failure}
"
    );
    let target = TARGET.replace(
        "StopBudget=3s
",
        &more,
    );
    c.configure_with(TAKEOVER, &target, AGENT);
    (0..2).for_each(|n| c.start(n));
    c.runs_on(0);
}

/// A shell that works on the disk, in a scope as logind makes it for a login, and a service that
/// reads a file there.
fn kill_users_frees_a_busy_mount(c: &mut Cluster) {
    start(c, "StopFailure=kill-users");
    let node = c.lab.node(0);
    let login = "systemd-run -q --scope --slice=user-0.slice --unit=session-77 \
                 sh -c 'cd /srv && exec sleep 1000'";
    let mut shell = node.command(login).spawn().expect("started");
    node.must("systemd-run -q --unit=reader sh -c 'exec sleep 1000 < /srv/data'");
    wait("both holders", PATIENCE, || {
        (node.run("pgrep -xc sleep").text.trim() == "2").then_some(())
    });
    let began = Instant::now();
    let moved = node.run("hafailover move files");
    assert!(moved.code == 0, "{}", moved.text);
    println!("  a busy disk: moved in {:?}, its users killed", began.elapsed());
    c.runs_on(1);
    let _ = shell.wait();
    let journal = c.lab.node(0).journal().join("\n");
    for unit in ["session-77.scope is killed", "reader.service is killed"] {
        assert!(journal.contains(unit), "{journal}");
    }
    assert_eq!(c.lab.node(0).run("pgrep -x sleep").code, 1, "no holder is left");
    c.one_owner();
}

/// Who holds it runs under a name of systemd's own, and one outside of all units: both are named,
/// and stay.
fn kill_users_spares_what_the_machine_needs(c: &mut Cluster) {
    start(c, "StopFailure=kill-users");
    let node = c.lab.node(0);
    node.must("systemd-run -q --unit=systemd-lab sh -c 'exec sleep 1000 < /srv/data'");
    let mut outside = node.command("exec sleep 1000 < /srv/data").spawn().expect("started");
    wait("both holders", PATIENCE, || {
        (node.run("pgrep -xc sleep").text.trim() == "2").then_some(())
    });
    let moved = node.run("hafailover move files");
    assert!(moved.code == 1 && moved.text.contains("cannot be stopped"), "{}", moved.text);
    c.told(0, "users-killed");
    c.phase(0, "stuck");
    let journal = c.lab.node(0).journal().join("\n");
    for why in ["as the machine needs systemd-lab.service", "as it runs in no unit"] {
        assert!(journal.contains(why), "{journal}");
    }
    let node = c.lab.node(0);
    assert_eq!(node.run("pgrep -xc sleep").text.trim(), "2", "both live");
    node.must("systemctl stop systemd-lab; pkill -x sleep");
    let _ = outside.wait();
    c.runs_on(1);
    c.one_owner();
}

/// The machine is reset, and taken over after deadtime, not after the guard's bound of 31 s.
fn fence_self_ends_a_machine_with_busy_mount(c: &mut Cluster) {
    start(c, "StopFailure=fence-self");
    let node = c.lab.node(0);
    let mut holder = node.command("exec sleep 1000 < /srv/data").spawn().expect("started");
    wait("the holder", PATIENCE, || (node.run("pgrep -x sleep").code == 0).then_some(()));
    let client = c.client();
    let began = Instant::now();
    let mut asked = c.lab.node(0).command("hafailover move files").spawn().expect("asked");
    wait("the reset", PATIENCE, || (!c.lab.node(0).is_up()).then_some(()));
    println!("  a busy disk: the machine was reset {:?} after the request", began.elapsed());
    // In this lab the addresses of a machine outlive its reset: take them off as well.
    c.lab.kill(0);
    let _ = (asked.wait(), holder.wait());
    c.told(1, "peer-resets");
    c.runs_on(1);
    println!("  taken over: client saw {:?}", client.stop().outage());
    assert!(c.evidence(1).starts_with("n1=Silent"), "{}", c.evidence(1));
    assert_eq!(c.lab.node(1).told("two-owners"), 0);
    c.one_owner();
}

/// What unmounts cannot even be killed: nothing is given away until the disk answers.
fn disk_that_hangs(c: &mut Cluster) {
    c.start_all(TAKEOVER);
    c.lab.node(0).hang_disk(true);
    c.lab.node(0).run("timeout 2 hafailover move files");
    c.umount_hangs();
    let end = Instant::now() + DEADTIME * 5;
    while Instant::now() < end {
        assert_ne!(c.lab.node(0).phase("files").as_deref(), Some("stopped"));
        assert_eq!(c.lab.node(1).told("group-started"), 0);
    }
    c.lab.node(0).hang_disk(false);
    c.runs_on(1);
    c.one_owner();
}
