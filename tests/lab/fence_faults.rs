//! Fences under faults: whatever happens to the owner, the writer on the shared disk never sees two
//! at once. And what a fence may show to others of its secrets: nothing.

use crate::cluster::{Cluster, PATIENCE};
use crate::fences::{
    IPMI, begin, begin_with, cut_all, ends, long, one, returns, start, with_agent,
};
use crate::harness::bmc::PASSWORD;
use crate::harness::net::Lan;
use crate::harness::wait;
use crate::stories::Story;
use std::time::{Duration, Instant};

pub const ALL: &[(&str, Story)] = &[
    ("fence_daemon_of_the_owner_stands_still", daemon_stands_still),
    ("fence_daemon_is_back_before_it", watchdog_is_quicker),
    ("fence_owner_thaws_while_it_is_fenced", owner_thaws),
    ("fence_owner_cannot_fence", owner_cannot_fence),
    ("fence_says_off_and_status_says_on", status_says_on),
    ("fence_that_lied_and_its_node_was_heard", heard_after_a_lie),
    ("fence_by_units", by_units),
    ("fence_secrets_by_credential", secrets_by_credential),
];

/// Waits until the node has written to the shared disk for a while from now on.
pub fn writes(c: &Cluster, n: usize) {
    let of_it = || c.lab.stamps().iter().filter(|s| s.0 == n).count();
    let before = of_it();
    wait("its writes", PATIENCE, || (of_it() >= before + 50).then_some(()));
}

/// This node writes now; what the shared disk saw from the first write on.
pub fn one_wrote(c: &Cluster, owner: usize, what: &str) {
    writes(c, owner);
    let stamps = c.lab.stamps();
    let of = |n: usize| stamps.iter().filter(|s| s.0 == n).count();
    println!("  {what}: {} and {} writes; {}", of(0), of(1), c.at_once());
    c.one_owner();
}

/// The group runs on, and nobody looks after it: its node is off before PID 1's watchdog comes.
fn daemon_stands_still(c: &mut Cluster) {
    let _bmcs = [c.lab.bmc(0), c.lab.bmc(1)];
    let client = begin_with(c, "3s", &[one(0, IPMI[0]), one(1, IPMI[1])].concat());
    let began = Instant::now();
    c.lab.node(0).must("kill -STOP $(systemctl show -P MainPID hafailover)");
    long(c, 1, "group-started");
    assert_eq!(c.evidence(1), "n1=Fenced");
    assert!(!c.lab.nodes[0].is_up(), "taken over while the owner still wrote");
    println!("  the owner's daemon stopped: taken over after {:?}", began.elapsed());
    c.runs_on(1);
    c.served(client, 1, "daemon stopped");
    one_wrote(c, 1, "daemon stopped");
    returns(c, 0, 1);
}

/// PID 1's watchdog is quicker than the other's turn: the daemon is back, and nobody is fenced.
fn watchdog_is_quicker(c: &mut Cluster) {
    let _bmcs = [c.lab.bmc(0), c.lab.bmc(1)];
    let client = begin_with(c, "25s", &[one(0, IPMI[0]), one(1, IPMI[1])].concat());
    c.lab.node(0).must("kill -STOP $(systemctl show -P MainPID hafailover)");
    c.told(1, "peer-silent");
    c.told(0, "group-adopted");
    c.runs_on(0);
    assert_eq!(c.lab.node(1).told("fencing"), 0, "it came back in time");
    assert_eq!(c.lab.node(0).told("group-released"), 0);
    c.served(client, 0, "daemon stopped, and back by the watchdog");
    one_wrote(c, 0, "daemon stopped, and back by the watchdog");
}

/// It is heard again while the agent is under way: it is ended, or was quicker. Both are well.
fn owner_thaws(c: &mut Cluster) {
    let _bmcs = [c.lab.bmc(0), c.lab.bmc(1)];
    let client = start(c, IPMI);
    c.lab.node(0).freeze();
    long(c, 1, "fencing");
    c.lab.node(0).thaw();
    let node = c.lab.node(1);
    let over = || node.told("fenced") + node.told("fence-failed") > 0;
    wait("the end of the fence", Duration::from_secs(60), || over().then_some(()));
    // An agent that was ended may have asked for it before that: then n1 goes all the same, and it
    // is fenced once more.
    let mut since: Option<(usize, usize)> = None;
    let owner = wait("one node to have it and to go on writing", PATIENCE, || {
        let who = c.lab.who_answers()?;
        let owner = (0..2).find(|n| c.lab.node(*n).name == who)?;
        let written = c.lab.stamps().iter().filter(|s| s.0 == owner).count();
        let (_, from) = *since.insert(since.filter(|s| s.0 == owner).unwrap_or((owner, written)));
        let runs = c.lab.node(owner).phase("files")? == "running";
        (runs && written >= from + 200).then_some(owner)
    });
    c.runs_on(owner);
    println!("  thawed while it was fenced: n{} has the group", owner + 1);
    c.served(client, owner, "frozen and thawed in the fence");
    one_wrote(c, owner, "frozen and thawed in the fence");
    if owner == 1 {
        assert_eq!(c.evidence(1), "n1=Fenced");
        ends(c, 0);
        returns(c, 0, 1);
    }
}

/// Its own fence comes first and does not work; the other's turn comes, and it is off.
fn owner_cannot_fence(c: &mut Cluster) {
    let (_of_n1, mut of_n2) = (c.lab.bmc(0), c.lab.bmc(1));
    let client = start(c, IPMI);
    of_n2.stop();
    let began = Instant::now();
    cut_all(c);
    ends(c, 0);
    long(c, 1, "group-started");
    assert_eq!(c.evidence(1), "n1=Fenced");
    println!("  all links cut, the owner cannot fence: taken over after {:?}", began.elapsed());
    c.runs_on(1);
    c.served(client, 1, "all links cut, the owner's fence dead");
    one_wrote(c, 1, "all links cut, the owner's fence dead");
}

/// An agent that does nothing and says that it did is found out by its own status.
fn status_says_on(c: &mut Cluster) {
    let _bmcs = [c.lab.bmc(0), c.lab.bmc(1)];
    let script = "#!/bin/sh\ninput=$(cat)\ncase $input in *action=off*) exit 0;; esac\n\
                  printf '%s\\n' \"$input\" | exec fence_ipmilan\n";
    with_agent(c, "fence_lazy", script);
    let fences = [one(0, "/usr/local/sbin/fence_lazy"), one(1, IPMI[1])].concat();
    let client = begin(c, &fences.replace("timeout = \"20s\"", "timeout = \"12s\""));
    c.lab.node(0).freeze();
    long(c, 1, "fence-given-up");
    let lines = c.lab.node(1).journal();
    let line = lines.iter().find(|l| l.starts_with("fence-failed ")).expect("just told");
    assert!(line.contains("still says that the node is on"), "{line}");
    assert_eq!(c.lab.node(1).told("group-claimed"), 0, "no takeover by a lie");
    let explained = c.lab.node(1).must("hafailover explain files");
    assert!(explained.contains("2 attempts to fence n1 failed"), "{explained}");
    c.lab.node(0).thaw();
    c.runs_on(0);
    c.served(client, 0, "frozen, the agent did nothing");
    one_wrote(c, 0, "frozen, the agent did nothing");
}

/// Nobody took the group on the lie, since n2 was in standby. Then n1 is heard by a link that works
/// one way, and falls silent again: what the fence said before that is worth nothing any more.
fn heard_after_a_lie(c: &mut Cluster) {
    let (mut of_n1, mut of_n2) = (c.lab.bmc(0), c.lab.bmc(1));
    let client = start(c, IPMI);
    c.lab.node(1).must("hafailover standby n2");
    of_n1.lie();
    of_n2.stop();
    // Else the address's own probe finds the owner.
    c.lab.net.block(0, Lan::Lan);
    cut_all(c);
    c.told(1, "peer-silent");
    c.lab.node(1).must("hafailover fence n1 --yes");
    c.told_times(1, "fenced", 1);
    c.lab.net.block_way(1, 0, Lan::Heartbeat);
    c.lab.net.heal(0, Lan::Heartbeat);
    c.told(1, "peer-deaf");
    let silent = c.lab.node(1).told("peer-silent");
    c.lab.net.cut(0, Lan::Heartbeat);
    c.told_more(1, "peer-silent", silent);
    of_n1.stop();
    c.lab.node(1).must("hafailover online n2");
    let explained = c.lab.node(1).must("hafailover explain files");
    assert!(explained.contains("was heard after the last time"), "{explained}");
    long(c, 1, "fence-given-up");
    assert_eq!(c.lab.node(1).told("group-claimed"), 0, "it was believed again");
    c.lab.net.unblock();
    c.runs_on(0);
    c.served(client, 0, "a fence that lied, and its node heard one way");
    one_wrote(c, 0, "a fence that lied, and its node heard one way");
}

/// Units of the administrator's own: the first switches off, the second says that it is off.
fn by_units(c: &mut Cluster) {
    let _bmcs = [c.lab.bmc(0), c.lab.bmc(1)];
    let ipmi = "ipmitool -I lanplus -C 3 -U admin -f /etc/hafailover/ipmi -H 192.168.0.20";
    let sure = format!(
        "#!/bin/sh\nm=${{2#n}}\ncase $1 in\n\
         off) {ipmi}$m chassis power off;;\n\
         check) case $({ipmi}$m chassis power status) in *off) exit 3;; *on) exit 0;; esac; \
         exit 1;;\nesac\n"
    );
    with_agent(c, "sure", &sure);
    let service =
        |what: &str| format!("[Service]\nType=oneshot\nExecStart=/usr/local/sbin/sure {what} %I\n");
    for n in 0..2 {
        let node = c.lab.node(n);
        node.write("/etc/hafailover/ipmi", PASSWORD);
        node.write("/etc/systemd/system/slow-fence@.service", &service("off"));
        node.write("/etc/systemd/system/slow-check@.service", &service("check"));
    }
    let table = |n: usize| {
        format!(
            "[[fence]]\nnode = \"n{n}\"\nkind = \"power\"\nunit = \"slow-fence@.service\"\n\
             check-unit = \"slow-check@.service\"\nconfirm = \"status\"\ntimeout = \"20s\"\n"
        )
    };
    let client = begin(c, &[table(1), table(2)].concat());
    long(c, 1, "fence-drill-passed");
    c.lab.node(0).freeze();
    long(c, 1, "group-started");
    assert_eq!(c.evidence(1), "n1=Fenced");
    c.runs_on(1);
    c.served(client, 1, "frozen, fenced by units");
    one_wrote(c, 1, "frozen, fenced by units");
}

/// In a systemd credential; and the agent itself looks at every command line and environment while
/// it has the password.
fn secrets_by_credential(c: &mut Cluster) {
    let _bmcs = [c.lab.bmc(0), c.lab.bmc(1)];
    let script = "#!/bin/sh\ninput=$(cat)\nfor p in /proc/[0-9]*; do \
                  tr '\\0' ' ' < $p/cmdline; echo; tr '\\0' ' ' < $p/environ; echo; \
                  done >> /run/seen 2>/dev/null\n\
                  printf '%s\\n' \"$input\" | exec fence_ipmilan\n";
    with_agent(c, "fence_looks", script);
    let credential = "[Service]\nLoadCredential=fence:/etc/fence-secret\n";
    for n in 0..2 {
        let node = c.lab.node(n);
        node.write("/etc/fence-secret", &format!("password={PASSWORD}\n"));
        node.must("chmod 600 /etc/fence-secret");
        for unit in ["hafailover-fence@", "hafailover-fence-check@"] {
            let drop_in = format!("/etc/systemd/system/{unit}.service.d/secret.conf");
            node.write(&drop_in, credential);
        }
    }
    let fences = [one(0, "/usr/local/sbin/fence_looks"), one(1, IPMI[1])].concat();
    let client = begin(c, &fences.replace("secrets = \"/etc/hafailover/fence\"\n", ""));
    c.lab.node(1).must("rm -f /etc/hafailover/fence && hafailover fence n1 --check");
    c.lab.kill(0);
    long(c, 1, "group-started");
    assert_eq!(c.evidence(1), "n1=Fenced");
    let node = c.lab.node(1);
    let seen = node.must("cat /run/seen");
    assert!(seen.contains("/usr/local/sbin/fence_looks"), "the agent did not see itself");
    assert!(!seen.contains(PASSWORD), "the password is on a command line or in an environment");
    let places = "journalctl -q --no-pager -a -o verbose; hafailover status; \
                  hafailover status --json; systemctl show 'hafailover*'; \
                  grep -r . /run/hafailover";
    let everything = node.run(places).text;
    assert!(everything.contains("fence_looks"), "nothing was found at all");
    assert!(!everything.contains(PASSWORD), "the password is somewhere to be read");
    c.runs_on(1);
    c.served(client, 1, "power loss, secrets in a credential");
    one_wrote(c, 1, "power loss, secrets in a credential");
}
