//! `hafailover check` over files: each thing that goes wrong later must be found here, with its
//! place and what to do.

use super::{GOOD, Root};
use std::process::Command;

const PROGRAM: &str = env!("CARGO_BIN_EXE_hafailover");
const GROUP: &str = "[Unit]\nRequires=hafailover-ip@10.0.0.9-24.service srv.mount smbd.service\n";
const MOUNT: &str = "[Mount]\nWhat=/dev/sdb1\nWhere=/srv\nTimeoutSec=20\n";
const SERVICE: &str = "[Unit]\nAfter=srv.mount\n[Service]\nExecStart=/usr/sbin/smbd\n";
const SILENCE: &str = "[safety]\nsilence = \"hold\"\nguard-bound = \"5min\"\n";

/// A whole machine in which nothing is wrong.
fn machine() -> Root {
    let root = Root::new(GROUP);
    root.write("srv.mount", MOUNT);
    root.write("smbd.service", SERVICE);
    root.write("hafailover-ip@.service", "[Service]\nTimeoutStopSec=10s\nExecStart=/x\n");
    root.file("etc/hafailover/hafailover.toml", &format!("{GOOD}{SILENCE}"));
    root.file("proc/sys/kernel/osrelease", "6.1.0-x\n");
    root.file("proc/sys/kernel/sched_rt_runtime_us", "950000\n");
    root.write("files.target.d/budget.conf", "[X-Hafailover]\nStopBudget=2min\n");
    let keys = root.path().join("etc/hafailover/keys");
    let made = Command::new(PROGRAM).arg("keygen").arg("--file").arg(keys).output();
    assert!(made.expect("runs").status.success());
    root
}

/// Exit code and findings.
fn check(root: &Root) -> (i32, String) {
    let mut command = Command::new(PROGRAM);
    let out = command.args(["check", "--host=n1", "--root"]).arg(root.path()).output();
    let out = out.expect("runs");
    (out.status.code().unwrap_or(-1), String::from_utf8(out.stdout).expect("text"))
}

#[test]
fn nothing_is_found_where_nothing_is_wrong_and_the_time_to_stop_is_told() {
    let (code, said) = check(&machine());
    assert!(code == 0 && said.ends_with("nothing found\n"), "{code}: {said}");
    let sum = "files.target: a stop takes at most 110s = smbd.service 90s + srv.mount 20s";
    assert!(said.contains(&format!("note: {sum}\n")), "{said}");
}

/// Goal: what nobody has written is no reason to warn; a pair as the manual has it is well.
#[test]
fn a_pair_with_defaults_is_well_and_the_arithmetic_is_told() {
    let root = machine();
    root.write("files.target.d/budget.conf", "");
    let chosen = "[safety]\nsilence = \"takeover\"\n";
    root.file("etc/hafailover/hafailover.toml", &format!("{GOOD}{chosen}"));
    let (code, said) = check(&root);
    assert!(code == 0 && said.ends_with("nothing found\n"), "{code}: {said}");
    for words in ["StopBudget= is 90s", "30s = guard-bound 31s - deadtime 1s"] {
        assert!(said.contains(words), "no {words:?} in\n{said}");
    }
}

/// Goal: where each crash would have a file system mounted twice, that is refused.
#[test]
fn a_deadtime_that_a_crash_outlasts_is_refused() {
    let root = machine();
    let with = |more: &str| {
        root.file("etc/hafailover/hafailover.toml", &format!("{GOOD}{more}"));
        check(&root)
    };
    let quick = |deadtime: &str| format!("[timing]\nkeepalive = \"50ms\"\ndeadtime = {deadtime}\n");
    let believed = "[safety]\nsilence = \"takeover\"\nguard-bound = \"5min\"\n";
    let (code, said) = with(&format!("{}{believed}", quick("\"400ms\"")));
    let words = "error: deadtime 400ms is less than twice what a crashed daemon needs to be back";
    assert!(code == 1 && said.contains(words), "{code}: {said}");
    assert!(said.contains("300s = guard-bound: srv.mount of files is then mounted on"), "{said}");
    let (code, said) = with(&format!("{}{believed}", quick("\"700ms\"")));
    assert!(code == 2 && said.contains("warning: deadtime 700ms is less than"), "{code}: {said}");
    let (_, said) = with(&format!("{}{SILENCE}", quick("\"400ms\"")));
    assert!(!said.contains("two owners"), "nothing is believed on silence: {said}");
    let fence =
        |n| format!("[[fence]]\nnode = \"n{n}\"\nkind = \"power\"\nunit = \"b@.service\"\n");
    let (_, said) = with(&format!("{}{SILENCE}{}{}", quick("\"400ms\""), fence(1), fence(2)));
    assert!(
        said.contains("warning: deadtime 400ms is") && said.contains("fenced: write"),
        "{said}"
    );
}

/// Goal: leases that anybody may end, and a password in clear, are told of.
#[test]
fn an_etcd_that_anybody_may_write_to_is_told_of() {
    let root = machine();
    let with = |more: &str| {
        let arbiter = format!("[arbiter]\nkind = \"etcd\"\n[arbiter.etcd]\n{more}\n");
        root.file("etc/hafailover/hafailover.toml", &format!("{GOOD}{SILENCE}{arbiter}"));
        check(&root).1
    };
    let plain = with("endpoints = [\"http://10.0.0.1:2379\"]");
    assert!(plain.contains("warning: arbiter: whoever reaches http://10.0.0.1:2379"), "{plain}");
    assert!(plain.contains("list every member"), "{plain}");
    let two = "endpoints = [\"https://10.0.0.1:1\", \"http://10.0.0.2:1\"]\nca = \"/c\"\n";
    let clear = with(&format!("{two}user = \"x\"\npassword-file = \"/p\""));
    assert!(clear.contains("goes to http://10.0.0.2:1 in clear"), "{clear}");
    let safe = with("endpoints = [\"https://10.0.0.1:1\"]\nca = \"/c\"");
    assert!(!safe.contains("warning: arbiter"), "{safe}");
}

/// Goal: so many groups that losing the arbiter alone would stop them are refused.
#[test]
fn groups_that_are_vouched_for_too_seldom_are_refused() {
    let root = machine();
    let arbiter = "[arbiter]\nkind = \"witness\"\nlease = \"6s\"\n[arbiter.witness]\n\
                   address = \"192.0.2.1\"\n";
    root.file("etc/hafailover/hafailover.toml", &format!("{GOOD}{SILENCE}{arbiter}"));
    let budget = "[X-Hafailover]\nStopBudget=3s\n";
    let more = |groups: std::ops::RangeInclusive<usize>| {
        for n in groups {
            let text = format!("[Unit]\nRequires=m{n}.service\n{budget}");
            root.write(&format!("g{n}.target"), &text);
            root.link("hafailover-groups.target.wants", &format!("g{n}.target"));
            root.write(&format!("m{n}.service"), SERVICE);
        }
        check(&root).1
    };
    assert!(!more(2..=16).contains("vouched for once"), "{}", check(&root).1);
    let said = more(17..=64);
    assert!(said.contains("each of 64 groups is vouched for once in 1600ms"), "{said}");
    assert!(said.contains("lease 6s - StopBudget 3s"), "{said}");
}

/// Goal: a watchdog that is missing, or cannot count as it is to, is found before a group needs it.
#[test]
fn a_watchdog_is_looked_at_and_not_opened() {
    let root = machine();
    let with = |more: &str| {
        let arbiter = format!(
            "[arbiter]\nkind = \"witness\"\nlease = \"240s\"\n{more}\n[arbiter.witness]\n\
             address = \"192.0.2.1\"\n"
        );
        root.file("etc/hafailover/hafailover.toml", &format!("{GOOD}{SILENCE}{arbiter}"));
        check(&root).1
    };
    let without = with("");
    assert!(without.contains("note: arbiter: no watchdog: a machine that"), "{without}");
    assert!(!without.contains("has a watchdog device"), "{without}");
    let missing = with("watchdog = \"5s\"");
    assert!(missing.contains("error: /dev/watchdog: there is no such"), "{missing}");
    assert!(missing.contains("+ 12s for a daemon that hangs, more than 2 x"), "{missing}");
    assert!(with("watchdog = \"9s\"").contains("+ 2 x watchdog 9s"));
    root.file("dev/watchdog", "");
    assert!(with("watchdog = \"5s\"").contains("note: /dev/watchdog: the kernel tells nothing"));
    root.file("sys/class/watchdog/watchdog0/identity", "a dog\n");
    root.file("sys/class/watchdog/watchdog0/max_timeout", "10\n");
    root.file("sys/class/watchdog/watchdog0/nowayout", "1\n");
    let good = with("watchdog = \"5s\"");
    assert!(good.contains("note: /dev/watchdog: a dog") && !good.contains("error"), "{good}");
    assert!(good.contains("cannot be stopped (nowayout)"), "{good}");
    let long = with("watchdog = \"11s\"");
    assert!(long.contains("error: ") && long.contains("write watchdog = \"10s\""), "{long}");
    assert!(with("").contains("this machine has a watchdog device"));
}

/// Goal: a line is weighed against the frames of the groups that are enabled, not of one.
#[test]
fn a_line_that_cannot_carry_the_groups_is_refused() {
    let root = machine();
    let with = |baud: u32, more: &str| {
        let text = GOOD.replace("ttyS0\"", &format!("ttyS0\"\nbaud = {baud}"));
        root.file("etc/hafailover/hafailover.toml", &format!("{text}{SILENCE}{more}"));
    };
    with(38_400, "");
    assert_eq!(check(&root).0, 0);
    with(9600, "");
    let (code, said) = check(&root);
    assert!(code == 1 && said.contains("(1 groups) takes"), "{said}");
    assert!(said.contains("2 x keepalive 200ms + 4 x"), "{said}");
    assert!(said.contains("write baud = 19200 or more, or deadtime = "), "{said}");
    // Eight groups ride in one frame, and make it longer.
    for n in 2..=8 {
        root.write(&format!("g{n}.target"), &format!("[Unit]\nRequires=m{n}.service\n"));
        root.link("hafailover-groups.target.wants", &format!("g{n}.target"));
        root.write(&format!("m{n}.service"), SERVICE);
    }
    with(38_400, "");
    let (code, said) = check(&root);
    assert!(code == 1 && said.contains("(8 groups) takes"), "{said}");
    assert!(said.contains("write baud = 115200 or more"), "{said}");
    with(115_200, "");
    assert_eq!(check(&root).0, 0, "{}", check(&root).1);
}

/// What is changed, the exit code, and what must be said.
type Case = (fn(&Root), i32, &'static [&'static str]);

const CASES: &[Case] = &[
    (
        |r| {
            let fence = "[[fence]]\nnode = \"n2\"\nkind = \"power\"\nagent = \"fence_nowhere\"\n\
                         secrets = \"/etc/hafailover/secret\"\nconfirm = \"none\"\n";
            r.file("etc/hafailover/secret", "password=geheim\n");
            r.file("etc/hafailover/hafailover.toml", &format!("{GOOD}{SILENCE}{fence}"));
        },
        1,
        &[
            "fence_nowhere is not there",
            "chmod 600",
            "n1 has no [[fence]]",
            "nobody reads back",
            "1s deadtime + 5s fence-delay + at most 60s timeout",
        ],
    ),
    (
        |r| {
            let fence = "[[fence]]\nnode = \"n2\"\nkind = \"storage\"\nagent = \"fence_nowhere\"\n";
            r.file("etc/hafailover/hafailover.toml", &format!("{GOOD}{SILENCE}{fence}"));
            r.write("files.target", "[Unit]\nRequires=smbd.service\n");
        },
        1,
        &["files: a fence with kind = \"storage\" stops nothing of it"],
    ),
    (
        |r| {
            let more = "[[link]]\ntype = \"udp\"\ninterface = \"eth1\"\nport = 695\n";
            r.file("etc/hafailover/hafailover.toml", &format!("{GOOD}{more}{SILENCE}"));
        },
        2,
        &["two links run over eth1 of n1", "two links run over eth1 of n2", "another interface"],
    ),
    (
        |r| r.write("files.target.d/budget.conf", "[X-Hafailover]\nStopBudget=60s\n"),
        2,
        &["a stop may take 110s", "StopBudget= is 60s", "StopBudget=110s"],
    ),
    (
        |r| r.write("smbd.service.d/a.conf", "[Service]\nTimeoutStopSec=3min\nExecStop=/x\n"),
        2,
        &["380s = smbd.service 2 x 180s + srv.mount 20s", "guard-bound 300s - deadtime 1s"],
    ),
    (
        |r| r.write("smbd.service.d/a.conf", "[Service]\nTimeoutStopSec=infinity\n"),
        2,
        &["smbd.service has no limit to its stop"],
    ),
    (
        |r| r.write("srv.mount.d/a.conf", "[Unit]\nAfter=smbd.service\n"),
        1,
        &["ordering cycle", "srv.mount after smbd.service after srv.mount"],
    ),
    (
        |r| r.write("smbd.service", "[Service]\nExecStart=/usr/sbin/smbd --dir=/srv/share\n"),
        2,
        &["smbd.service is not ordered after srv.mount", "smbd.service:2", "Order=listed"],
    ),
    (
        |r| r.link("multi-user.target.wants", "smbd.service"),
        2,
        &["multi-user.target.wants/smbd.service", "systemctl disable smbd.service"],
    ),
    (
        |r| r.link("other.service.requires", "smbd.service"),
        2,
        &["other.service.requires/smbd.service"],
    ),
    (
        |r| r.write("srv.mount.d/a.conf", "[Mount]\nLazyUnmount=yes\n"),
        1,
        &["a.conf:2: LazyUnmount=yes"],
    ),
    (
        |r| r.write("smbd.service.d/a.conf", "[Service]\nType=oneshot\n"),
        1,
        &["a.conf:2", "RemainAfterExit=yes"],
    ),
    (
        |r| r.write("smbd.service.d/a.conf", "[Service]\nKillMode=none\n"),
        2,
        &["a.conf:2: KillMode=none"],
    ),
    (
        |r| r.write("smbd.service.d/a.conf", "[Unit]\nConflicts=nfs.target files.target\n"),
        1,
        &["a.conf:2: Conflicts=files.target", "group another name"],
    ),
    (
        |r| r.write("smbd.service.d/a.conf", "[Unit]\nConflicts=srv.mount\n"),
        1,
        &["a.conf:2: Conflicts=srv.mount", "leave one of them out"],
    ),
    (
        |r| r.file("proc/sys/kernel/sched_rt_runtime_us", "0\n"),
        2,
        &["sched_rt_runtime_us is 0", "deadtime 1s: without real-time", "deadtime = \"1500ms\""],
    ),
    (
        |r| r.file("boot/config-6.1.0-x", "CONFIG_RT_GROUP_SCHED=y\n"),
        2,
        &["CONFIG_RT_GROUP_SCHED=y", "kernel.sched_rt_runtime_us=-1"],
    ),
];

#[test]
fn everything_wrong_is_found_with_its_place() {
    for (n, (change, code, words)) in CASES.iter().enumerate() {
        let root = machine();
        change(&root);
        let (got, said) = check(&root);
        assert_eq!(got, *code, "case {n}: {said}");
        for word in *words {
            assert!(said.contains(word), "case {n}: no {word:?} in\n{said}");
        }
    }
}

/// Goal: a unit of the administrator's, or one made of an init script, is a unit.
#[test]
fn units_are_found_where_systemd_finds_them() {
    for dir in ["usr/local/lib/systemd/system", "run/systemd/generator.late"] {
        let root = machine();
        std::fs::remove_file(root.path().join("etc/systemd/system/smbd.service")).expect("there");
        assert_eq!(check(&root).0, 1, "without it");
        root.file(&format!("{dir}/smbd.service"), SERVICE);
        let (code, said) = check(&root);
        assert_eq!(code, 0, "{dir}: {said}");
    }
}

/// Goal: order by other means than After= is order too.
#[test]
fn order_of_every_kind_counts() {
    for text in [
        "[Unit]\nRequiresMountsFor=/srv/share\n[Service]\nExecStart=/usr/sbin/smbd\n",
        "[Service]\nWorkingDirectory=/srv\nExecStart=/usr/sbin/smbd\n",
    ] {
        let root = machine();
        root.write("smbd.service", text);
        assert_eq!(check(&root).0, 0, "{text}");
    }
    let root = machine();
    root.write("smbd.service", "[Service]\nExecStart=/usr/sbin/smbd\n");
    root.write("files.target.d/order.conf", "[X-Hafailover]\nOrder=listed\n");
    let (code, said) = check(&root);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("120s = smbd.service 90s + srv.mount 20s + hafailover-ip@"), "{said}");
}

/// Goal: a member that the group names by an alias is in its place: others order themselves by
/// whichever name they like.
#[test]
fn order_holds_through_an_alias() {
    let root = machine();
    root.write("files.target", &GROUP.replace("smbd", "base.service smbd"));
    root.write("real.service", SERVICE);
    root.link_to("base.service", "real.service");
    root.write("smbd.service", "[Unit]\nAfter=real.service\n[Service]\nExecStart=/x\n");
    let (_, said) = check(&root);
    assert!(!said.contains("is not ordered after"), "{said}");
    assert!(said.contains("= smbd.service 90s + base.service 90s + srv.mount 20s"), "{said}");
}

/// Goal: nobody waits for a stop of which nobody has said how long it takes, or less than it takes.
#[test]
fn a_stop_without_a_majority_is_weighed_against_the_takeover() {
    let root = machine();
    let three = format!(
        "{GOOD}nodes = [\"n1\", \"n2\"]\n[[node]]\nname = \"n3\"\n{SILENCE}quorum-lost = \"stop\"\n"
    );
    root.file("etc/hafailover/hafailover.toml", &three);
    let (code, said) = check(&root);
    assert_eq!(code, 0, "{said}");
    for words in ["others start no sooner than deadtime + 123", "of 3 nodes 2 are a majority"] {
        assert!(said.contains(words), "no {words:?} in\n{said}");
    }
    let believed = three.replace("\"hold\"", "\"takeover\"");
    root.file("etc/hafailover/hafailover.toml", &believed);
    let (code, said) = check(&root);
    let words = "warning: files.target: if that stop fails or hangs, others start all the same";
    assert!(code == 2 && said.contains(words), "{code}: {said}");
    let ends = "[X-Hafailover]\nStopBudget=2min\nStopFailure=fence-self\n";
    root.write("files.target.d/budget.conf", ends);
    let (code, said) = check(&root);
    assert!(code == 0 && !said.contains("others start all the same"), "{code}: {said}");
    root.file("etc/hafailover/hafailover.toml", &three);
    root.write("files.target.d/budget.conf", "[X-Hafailover]\nStopBudget=30s\n");
    let (code, said) = check(&root);
    assert!(code == 1 && said.contains("its stop may take 110s"), "{said}");
    root.write("files.target.d/budget.conf", "[X-Hafailover]\nStopBudget=\n");
    let (code, said) = check(&root);
    assert!(code == 1 && said.contains("has no StopBudget="), "{said}");
}
