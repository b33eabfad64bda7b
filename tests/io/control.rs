//! The control socket of a process that ran out of file descriptors for a moment.

use crate::manager::{PATIENCE, run};
use hafailover::daemon::control::listen;
use hafailover::io::Input;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::process::Command;

/// Goal: the control socket outlives the moment.
#[test]
fn no_descriptors_left_is_got_over() {
    let child = Command::new(std::env::current_exe().expect("this"))
        .args(["--exact", "control::in_a_process_of_its_own", "--ignored"])
        .output()
        .expect("runs");
    let said = String::from_utf8_lossy(&child.stdout).into_owned();
    assert!(child.status.success() && said.contains("1 passed"), "{said}");
}

#[test]
#[ignore = "run by the test above: the limit is the whole process's"]
fn in_a_process_of_its_own() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("control");
    let (sender, mut inbox) = tokio::sync::mpsc::channel(8);
    run(async {
        listen(&path, sender).expect("bound");
        let limit = libc::rlimit { rlim_cur: 64, rlim_max: 64 };
        // SAFETY: setrlimit reads one rlimit, which lives until it returns.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }, 0);
        let open = || std::fs::File::open("/dev/null");
        let mut spare: Vec<_> = std::iter::repeat_with(open).map_while(Result::ok).collect();
        spare.pop();
        let mut first = UnixStream::connect(&path).expect("the last descriptor");
        // Its end at the daemon finds no descriptor.
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        drop(spare);
        first.write_all(b"\"view\"\n").expect("sent");
        let input = tokio::time::timeout(PATIENCE, inbox.recv()).await.expect("in time");
        assert!(matches!(input, Some(Input::Control { .. })));
    });
}
