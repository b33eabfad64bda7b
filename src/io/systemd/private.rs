//! PID 1's private socket (/run/systemd/private): D-Bus without a bus. PID 1 calls itself there by
//! its well-known name, which no sender of a message may have (D-Bus specification, "Header
//! Fields"), and zbus drops a connection over it. Here it gets a unique name of equal length.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use zbus::connection::Builder;
use zbus::connection::socket::{ReadHalf, Socket, Split, WriteHalf};
use zbus::export::async_trait::async_trait;

const PATH: &str = "/run/systemd/private";
/// The fixed part of a message's header.
const HEAD: usize = 16;
/// Longest message that is taken: a list of all units of a large machine has a tenth of it.
const MESSAGE_MAX: usize = 16 * 1024 * 1024;
/// Longest line of the handshake.
const LINE_MAX: u64 = 256;
/// The code of the header field with the sender.
const SENDER: u8 = 7;

/// A connection that PID 1 has let in.
pub async fn open() -> io::Result<Builder<'static>> {
    let (reader, mut write) = UnixStream::connect(PATH).await?.into_split();
    let uid = rustix::process::geteuid().as_raw().to_string();
    let hex: String = uid.bytes().map(|byte| format!("{byte:02x}")).collect();
    // All at once: what sd-bus reads together with BEGIN lies there until more comes.
    write.write_all(format!("\0AUTH EXTERNAL {hex}\r\nBEGIN\r\n").as_bytes()).await?;
    let mut read = BufReader::new(reader);
    let mut line = String::new();
    (&mut read).take(LINE_MAX).read_line(&mut line).await?;
    let Some(guid) = line.trim_end().strip_prefix("OK ").map(str::to_string) else {
        return Err(io::Error::other(format!("{PATH}: PID 1 does not let us in: {line}")));
    };
    let private = Private { reader: Reader { read, message: Vec::new(), given: 0 }, write };
    Ok(Builder::authenticated_socket(private, guid).p2p())
}

struct Private {
    reader: Reader,
    write: OwnedWriteHalf,
}

impl Socket for Private {
    type ReadHalf = Reader;
    type WriteHalf = Writer;

    fn split(self) -> Split<Reader, Writer> {
        Split::new(self.reader, Writer(self.write))
    }
}

#[derive(Debug)]
struct Reader {
    read: BufReader<OwnedReadHalf>,
    /// What is in of a message, and how much of a whole one was given on.
    message: Vec<u8>,
    given: usize,
}

impl Reader {
    /// Until all of a message is in. Whoever drops this on the way loses nothing.
    async fn fill(&mut self) -> io::Result<()> {
        loop {
            let whole = length(&self.message)?;
            let more = whole - self.message.len();
            if more == 0 {
                rename(&mut self.message);
                return Ok(());
            }
            let mut part = (&mut self.read).take(more as u64);
            if part.read_buf(&mut self.message).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

#[async_trait]
impl ReadHalf for Reader {
    async fn recvmsg(&mut self, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
        if self.given == self.message.len() {
            self.message.clear();
            self.given = 0;
        }
        if self.given == 0 {
            self.fill().await?;
        }
        let rest = &self.message[self.given..];
        let n = rest.len().min(buffer.len());
        buffer[..n].copy_from_slice(&rest[..n]);
        self.given += n;
        Ok((n, Vec::new()))
    }
}

#[derive(Debug)]
struct Writer(OwnedWriteHalf);

#[async_trait]
impl WriteHalf for Writer {
    async fn sendmsg(&mut self, buffer: &[u8], _fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
        self.0.write(buffer).await
    }

    async fn close(&mut self) -> io::Result<()> {
        self.0.shutdown().await
    }
}

/// A number at this place of a message, in the message's own order of bytes.
fn number(message: &[u8], at: usize) -> Option<usize> {
    let bytes = message.get(at..at + 4)?.try_into().ok()?;
    let little = message[0] == b'l';
    let number = if little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) };
    usize::try_from(number).ok()
}

/// How long the message is as a whole; as long as that is unknown, its fixed part.
fn length(message: &[u8]) -> io::Result<usize> {
    let (Some(body), Some(fields)) = (number(message, 4), number(message, 12)) else {
        return Ok(HEAD);
    };
    let head = HEAD.saturating_add(fields).saturating_add(7) / 8 * 8;
    let whole = head.saturating_add(body);
    match whole <= MESSAGE_MAX {
        true => Ok(whole),
        false => Err(io::Error::other(format!("{PATH}: a message of {whole} bytes"))),
    }
}

/// Makes a unique name of the sender's name, if it is none.
fn rename(message: &mut [u8]) {
    if let Some(at) = sender(message)
        && message[at] != b':'
    {
        message[at] = b':';
    }
}

/// Where the sender's name begins: the fields are an array of (code, variant), and of variants
/// there are strings (o, s), a signature (g) and numbers (u).
fn sender(message: &[u8]) -> Option<usize> {
    let end = HEAD + number(message, 12)?;
    let mut at = HEAD;
    while at < end {
        let (code, kind) = (*message.get(at)?, *message.get(at + 2)?);
        let value = at + 4;
        if code == SENDER && kind == b's' {
            return Some(value + 4).filter(|at| *at < message.len());
        }
        at = match kind {
            b'g' => value + usize::from(*message.get(value)?) + 2,
            b'u' => value + 4,
            _ => value + 4 + number(message, value)? + 1,
        };
        at = at.next_multiple_of(8);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As systemd 252 and 257 answer a call of Subscribe.
    const ANSWER: &[u8] = b"l\x02\x01\x01\0\0\0\0\x01\0\0\0)\0\0\0\x05\x01u\0\xac\0\0\0\
        \x07\x01s\0\x18\0\0\0org.freedesktop.systemd1\0\0\0\0\0\0\0\0";

    /// Goal: what PID 1 says of itself is a message to zbus.
    #[test]
    fn the_sender_gets_a_unique_name() {
        let mut message = ANSWER.to_vec();
        assert_eq!(length(&message).ok(), Some(message.len()));
        rename(&mut message);
        let expected = String::from_utf8_lossy(ANSWER).replace("org.f", ":rg.f");
        assert_eq!(String::from_utf8_lossy(&message), expected);
        let once = message.clone();
        rename(&mut message);
        assert_eq!(message, once);
    }

    proptest::proptest! {
        #[test]
        fn no_message_panics(start in 0..ANSWER.len(), bytes: Vec<u8>) {
            let mut message = ANSWER[..start].to_vec();
            message.extend(bytes);
            let _ = length(&message);
            rename(&mut message);
        }
    }
}
