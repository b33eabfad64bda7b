//! The control socket: one JSON request a line, answered with JSON lines until the final one. Root
//! only, by the socket's mode and by the peer's credentials.

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
const CLIENTS_MAX: usize = 32;
/// Longest request line in bytes.
const LINE_MAX: u64 = 64 * 1024;
/// A client that has sent no request for so long is let go.
const IDLE: Duration = Duration::from_secs(10);
/// Pause after a client that could not be let in.
const AGAIN: Duration = Duration::from_millis(100);
/// Answers that a slow client may leave waiting.
const ANSWERS: usize = 64;

/// Listens until the process ends.
pub fn listen(path: &Path, inbox: Inbox) -> std::io::Result<()> {
    let _ = std::fs::remove_file(path);
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    tokio::task::spawn_local(async move {
        let seats = Arc::new(Semaphore::new(CLIENTS_MAX));
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                // Out of descriptors, or the client is gone already: both pass.
                tokio::time::sleep(AGAIN).await;
                continue;
            };
            // More clients wait in the listen queue.
            let Ok(seat) = seats.clone().acquire_owned().await else { return };
            let inbox = inbox.clone();
            tokio::task::spawn_local(async move {
                let _ = serve(stream, inbox).await;
                drop(seat);
            });
        }
    });
    Ok(())
}

async fn serve(stream: UnixStream, inbox: Inbox) -> std::io::Result<()> {
    let peer = stream.peer_cred()?;
    if peer.uid() != 0 {
        return Ok(());
    }
    let by = who(peer.pid());
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    let mut reader = BufReader::new(read.take(LINE_MAX));
    match tokio::time::timeout(IDLE, reader.read_line(&mut line)).await {
        Ok(Ok(1..)) => {}
        _ => return Ok(()),
    }
    let request: Request = match serde_json::from_str(&line) {
        Ok(request) => request,
        Err(e) => {
            let words = format!("not a request: {e}");
            return send(&mut write, &Reply::Answer(crate::core::Reply::Refused(words))).await;
        }
    };
    let (reply, mut answers) = mpsc::channel(ANSWERS);
    let _ = inbox.send(Input::Control { request, by, reply }).await;
    while let Some(answer) = answers.recv().await {
        send(&mut write, &answer).await?;
        if !matches!(answer, Reply::Answer(crate::core::Reply::Progress(_))) {
            break;
        }
    }
    Ok(())
}

async fn send(write: &mut (impl AsyncWriteExt + Unpin), reply: &Reply) -> std::io::Result<()> {
    let mut line = serde_json::to_string(reply).map_err(std::io::Error::other)?;
    line.push('\n');
    write.write_all(line.as_bytes()).await
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
