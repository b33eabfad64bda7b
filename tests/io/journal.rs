//! A journald of the test's own, in a mount namespace of its own: what `history` makes of entries
//! that anybody could have written, and of content that journalctl does not print as text.

use crate::space::sh;
use hafailover::core::say::{Saying, What};
use hafailover::io::journal::{Journal, Names, SOCKET};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);

struct Journald(Child);

impl Journald {
    /// Moves this thread into a mount namespace with an empty /run, and starts a journald there.
    fn start() -> Journald {
        // SAFETY: only this thread, which shares nothing of its file system view with others after.
        unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }
            .expect("root");
        sh("mount --make-rprivate / && mount -t tmpfs tmpfs /run && \
            mkdir -p /run/log/journal/$(cat /etc/machine-id) /run/systemd/journal");
        let mut journald = Command::new("/lib/systemd/systemd-journald");
        let child = journald.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("runs");
        let end = std::time::Instant::now() + PATIENCE;
        while UnixDatagram::unbound().expect("a socket").connect(SOCKET).is_err() {
            assert!(std::time::Instant::now() < end, "journald does not start");
            std::thread::yield_now();
        }
        Journald(child)
    }

    fn history(&self, more: &[&str]) -> String {
        sh("journalctl --sync");
        let out = Command::new(env!("CARGO_BIN_EXE_hafailover"))
            .args(["history", "--directory=/run/log/journal"])
            .args(more)
            .output()
            .expect("runs");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).expect("text")
    }
}

impl Drop for Journald {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn say(sayings: &[Saying]) {
    let names = Names { nodes: vec!["n1".into(), "n2".into()], links: Vec::new(), me: 0 };
    let journal = Journal::spawn(Path::new(SOCKET), names).expect("a thread");
    sayings.iter().for_each(|s| journal.say(s));
    journal.flush(PATIENCE);
}

fn of(what: What, group: &str, words: &str) -> Saying {
    Saying::new(what, words).group(&hafailover::core::name::GroupName(group.into()))
}

/// Goal: what an ordinary user writes into the journal never looks like a failover.
#[test]
fn an_entry_of_an_ordinary_user_is_not_history() {
    let journald = Journald::start();
    say(&[of(What::GroupStarted, "files", "true")]);
    sh("printf 'MESSAGE=files is started: forged\\nSYSLOG_IDENTIFIER=hafailover\\n\
        HAFAILOVER_WHAT=group-started\\nHAFAILOVER_GROUP=files\\n' | \
        setpriv --reuid 65534 --clear-groups socat - UNIX-SENDTO:/run/systemd/journal/socket");
    let told = journald.history(&[]);
    assert!(told.contains("files is started: true"), "{told}");
    assert!(!told.contains("forged"), "{told}");
}

/// Goal: a long entry, and one with control characters, is told like any other, and no control
/// character reaches the terminal.
#[test]
fn an_entry_that_journalctl_does_not_print_as_text_is_told() {
    let journald = Journald::start();
    let long = "x".repeat(6000);
    say(&[
        of(What::GroupStuck, "files", &format!("{long} end")),
        of(What::GroupStuck, "files", "pid 7 has /srv/\u{1b}[2Jx\nfiles is well open"),
    ]);
    let told = journald.history(&[]);
    assert!(told.contains("x end\n"), "the long one: {told}");
    assert!(told.contains("files is stuck: pid 7 has /srv/"), "{told}");
    assert!(told.lines().count() == 2 && !told.contains('\u{1b}'), "{told:?}");
}

/// Goal: the last N of one group, the oldest first, whatever else was said since.
#[test]
fn the_last_entries_of_one_group_are_found() {
    let journald = Journald::start();
    let mut all: Vec<Saying> =
        (0..5).map(|n| of(What::GroupStarted, "files", &format!("number {n}"))).collect();
    all.extend((0..50).map(|_| of(What::GroupPhase, "files", "a small step")));
    all.extend((0..50).map(|_| of(What::GroupStarted, "web", "another group")));
    say(&all);
    let told = journald.history(&["--group=files.target", "-n2"]);
    let lines: Vec<&str> = told.lines().collect();
    assert!(lines.len() == 2, "{told}");
    assert!(lines[0].ends_with("number 3") && lines[1].ends_with("number 4"), "{told}");
}
