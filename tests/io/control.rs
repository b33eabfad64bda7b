//! The control socket of a process that ran out of file descriptors for a moment.

use crate::manager::{PATIENCE, run};
use crate::space::sh;
use hafailover::daemon::control::listen;
use hafailover::io::Input;
use std::io::Write;
use std::os::unix::net::UnixStream;

/// The reactor has looked at every socket after so many turns of the loop (tokio looks every 61).
const TURNS: usize = 200;

/// Goal: the control socket outlives the moment.
#[test]
fn no_descriptors_left_is_got_over() {
    // A first runtime makes what all runtimes of the process share, in the table that they share.
    run(async {});
    // SAFETY: this thread closes in its copy of the table only what it opens there.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::FILES) }
        .expect("a table of its own");
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("control");
    let (sender, mut inbox) = tokio::sync::mpsc::channel(8);
    run(async {
        listen(&path, sender).expect("bound");
        let open = || std::fs::File::open("/dev/null");
        let mut spare: Vec<_> = std::iter::repeat_with(open).map_while(Result::ok).collect();
        spare.pop();
        let mut first = UnixStream::connect(&path).expect("the last descriptor");
        assert!(open().is_err(), "its end at the daemon finds no descriptor");
        for _ in 0..TURNS {
            tokio::task::yield_now().await;
        }
        drop(spare);
        first.write_all(b"\"view\"\n").expect("sent");
        let input = tokio::time::timeout(PATIENCE, inbox.recv()).await.expect("in time");
        assert!(matches!(input, Some(Input::Control { .. })));
    });
}

/// Goal: members of the group hafailover may look, root alone may change anything, and nobody
/// else is let in.
#[test]
fn the_group_may_look_and_no_more() {
    // SAFETY: only this thread, which shares nothing of its file system view with others after.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }.expect("root");
    let dir = tempfile::tempdir().expect("a directory");
    let (path, at) = (dir.path().join("control"), dir.path().display().to_string());
    sh(&format!(
        "mount --make-rprivate / && chmod 755 {at} && cp /etc/group {at}/group && \
         echo hafailover:x:4242: >> {at}/group && mount --bind {at}/group /etc/group"
    ));
    let (sender, mut inbox) = tokio::sync::mpsc::channel(8);
    let ask = |request: &str, groups: &str| {
        let command = format!(
            "echo '{request}' | setpriv --reuid 65534 --regid 65534 {groups} \
             socat -t 9 - UNIX-CONNECT:{at}/control 2>&1 || true"
        );
        let (sender, said) = tokio::sync::oneshot::channel();
        // Not a thread of the runtime's: those have other namespaces.
        std::thread::spawn(move || drop(sender.send(sh(&command))));
        async move { said.await.expect("sh ends") }
    };
    let change = r#"{"do":{"maintenance":{"group":null,"on":true}}}"#;
    run(async {
        listen(&path, sender).expect("bound");
        let stranger = ask("\"view\"", "--clear-groups").await;
        assert!(stranger.contains("Permission denied"), "{stranger}");
        let refused = ask(change, "--groups 4242").await;
        assert!(refused.contains("refused") && refused.contains("root"), "{refused}");
        let view = tokio::task::spawn_local(ask("\"view\"", "--groups 4242"));
        let asked = tokio::time::timeout(PATIENCE, inbox.recv()).await.expect("in time");
        let Some(Input::Control { reply, .. }) = asked else { panic!("not asked") };
        let done = hafailover::core::Reply::Done("seen".into());
        reply.send(hafailover::wire::control::Reply::Answer(done)).await.expect("taken");
        assert!(view.await.expect("ended").contains("seen"));
        assert!(inbox.try_recv().is_err(), "nothing else came through");
    });
}
