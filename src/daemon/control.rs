//! The control socket: one JSON request a line, answered with JSON lines until the final one. By
//! the socket's mode root and the members of a group get in; by the peer's credentials root alone
//! changes anything.

use crate::io::{Inbox, Input};
use crate::wire::control::{Reply, Request};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};

/// Where the daemon listens.
pub const SOCKET: &str = "/run/hafailover/control";
/// Its members may look.
const GROUP: &str = "hafailover";
const CLIENTS_MAX: usize = 32;
/// Seats of their own, so that they never keep root waiting.
const READERS_MAX: usize = 8;
/// Longest request line in bytes.
const LINE_MAX: u64 = 64 * 1024;
/// A client that has sent no request, or read no answer, for so long is let go.
const IDLE: Duration = Duration::from_secs(10);
/// Pause after a client that could not be let in.
const AGAIN: Duration = Duration::from_millis(100);
/// Answers that a slow client may leave waiting.
const ANSWERS: usize = 64;

/// Listens until the process ends.
pub fn listen(path: &Path, inbox: Inbox) -> std::io::Result<()> {
    let _ = std::fs::remove_file(path);
    let listener = UnixListener::bind(path)?;
    // Closed to everybody until it is whose it is to be.
    let mode = |mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode));
    mode(0o600)?;
    // Where that is not allowed, root is alone.
    let given = group().is_some_and(|g| std::os::unix::fs::chown(path, None, Some(g)).is_ok());
    if given {
        mode(0o660)?;
    }
    tokio::task::spawn_local(async move {
        let seats = Arc::new(Semaphore::new(CLIENTS_MAX));
        let readers = Arc::new(Semaphore::new(READERS_MAX));
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                // Out of descriptors, or the client is gone already: both pass.
                tokio::time::sleep(AGAIN).await;
                continue;
            };
            let Ok(peer) = stream.peer_cred() else { continue };
            let root = peer.uid() == 0;
            let seat = match root {
                // More clients wait in the listen queue.
                true => seats.clone().acquire_owned().await.ok(),
                false => readers.clone().try_acquire_owned().ok(),
            };
            let Some(seat) = seat else { continue };
            let (by, inbox) = (root.then(|| who(peer.pid())), inbox.clone());
            tokio::task::spawn_local(async move {
                let _ = serve(stream, by, inbox).await;
                drop(seat);
            });
        }
    });
    Ok(())
}

/// The number of the group in group(5); `None`: there is no such group, and root is alone.
fn group() -> Option<u32> {
    let table = std::fs::read_to_string("/etc/group").ok()?;
    let line = table.lines().find_map(|line| line.strip_prefix(&format!("{GROUP}:")))?;
    line.split(':').nth(1)?.parse().ok()
}

/// `by`: who asks, if it is root.
async fn serve(stream: UnixStream, by: Option<String>, inbox: Inbox) -> std::io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    let mut reader = BufReader::new(read.take(LINE_MAX));
    match tokio::time::timeout(IDLE, reader.read_line(&mut line)).await {
        Ok(Ok(1..)) => {}
        _ => return Ok(()),
    }
    let request = match (serde_json::from_str(&line), &by) {
        (Ok(Request::View), _) => Request::View,
        (Ok(request), Some(_)) => request,
        (Ok(_), None) => {
            let words = "only root may change anything: use sudo";
            return send(&mut write, &refusal(words)).await;
        }
        (Err(e), _) => return send(&mut write, &refusal(&format!("not a request: {e}"))).await,
    };
    let (reply, mut answers) = mpsc::channel(ANSWERS);
    let _ = inbox.send(Input::Control { request, by: by.unwrap_or_default(), reply }).await;
    while let Some(answer) = answers.recv().await {
        send(&mut write, &answer).await?;
        if !matches!(answer, Reply::Answer(crate::core::Reply::Progress(_))) {
            break;
        }
    }
    Ok(())
}

fn refusal(words: &str) -> Reply {
    Reply::Answer(crate::core::Reply::Refused(words.into()))
}

/// One who does not read loses his seat.
async fn send(write: &mut (impl AsyncWriteExt + Unpin), reply: &Reply) -> std::io::Result<()> {
    let mut line = serde_json::to_string(reply).map_err(std::io::Error::other)?;
    line.push('\n');
    tokio::time::timeout(IDLE, write.write_all(line.as_bytes())).await?
}

/// Who asked, for the record: the login name behind sudo, and the process.
fn who(pid: Option<i32>) -> String {
    let Some(pid) = pid else { return "root".into() };
    let login = std::fs::read_to_string(format!("/proc/{pid}/loginuid")).unwrap_or_default();
    match login.trim() {
        "" | "0" | "4294967295" => format!("root (pid {pid})"),
        uid => format!("uid {uid} (pid {pid})"),
    }
}
