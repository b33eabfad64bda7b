//! A client of the file server: one long session of the real smbclient that writes a file and reads
//! it back, again and again; a session that breaks is begun anew, as a user's would be.

use crate::harness::{ADDRESS, client, wait};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A session in which a file takes longer is given up; the first one has to log in.
const PATIENCE: Duration = Duration::from_millis(500);
const LOGIN: Duration = Duration::from_secs(5);
const MINUTE: Duration = Duration::from_secs(60);
/// How long, and how often, a server is asked whether it is there.
const KNOCK: Duration = Duration::from_millis(30);

/// Writes and reads in the background until it is told to end.
pub struct Files {
    end: Sender<()>,
    good: Arc<AtomicUsize>,
    worker: JoinHandle<Seen>,
}

/// What became of the files.
#[derive(Default)]
pub struct Seen {
    /// When each file was back, the same as it was written.
    good: Vec<Instant>,
    /// Files that were not: the session broke.
    pub failed: usize,
}

impl Seen {
    pub fn good(&self) -> usize {
        self.good.len()
    }

    /// The longest time without a good file, of those that ended between two moments.
    pub fn pause(&self, from: Instant, to: Instant) -> Duration {
        let pauses = self.good.windows(2).filter(|w| w[1] > from && w[1] <= to);
        pauses.map(|w| w[1] - w[0]).max().unwrap_or_default()
    }
}

impl Files {
    pub fn start(namespace: &str) -> Files {
        let (end, ended) = channel();
        let good = Arc::new(AtomicUsize::new(0));
        let (namespace, count) = (namespace.to_string(), good.clone());
        let worker = std::thread::spawn(move || work(&namespace, &ended, &count));
        Files { end, good, worker }
    }

    /// Waits until so many more files were good, and says when.
    pub fn wait_for(&self, more: usize) -> Instant {
        let enough = self.good.load(Ordering::Relaxed) + more;
        wait("files through Samba", MINUTE, || {
            (self.good.load(Ordering::Relaxed) >= enough).then(Instant::now)
        })
    }

    pub fn stop(self) -> Seen {
        let _ = self.end.send(());
        self.worker.join().expect("the client ends")
    }
}

fn work(namespace: &str, ended: &Receiver<()>, count: &AtomicUsize) -> Seen {
    client::enter(namespace);
    // In the lab's own directory, which goes away with it.
    let dir = PathBuf::from(format!("/tmp/hafailover-lab-{}/files", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a directory");
    let mut seen = Seen::default();
    let mut session: Option<Session> = None;
    for n in 1.. {
        if ended.try_recv().is_ok() {
            break;
        }
        if session.is_none() && !server_is_there() {
            std::thread::sleep(KNOCK);
            continue;
        }
        let open = session.get_or_insert_with(|| Session::start(&dir));
        if open.file(&dir, n) {
            seen.good.push(Instant::now());
            count.store(seen.good.len(), Ordering::Relaxed);
        } else {
            seen.failed += 1;
            session = None;
        }
    }
    seen
}

fn server_is_there() -> bool {
    let to: SocketAddr = format!("{ADDRESS}:445").parse().expect("an address");
    TcpStream::connect_timeout(&to, KNOCK).is_ok()
}

/// One smbclient that takes commands.
struct Session {
    child: Child,
    commands: ChildStdin,
    lines: Receiver<String>,
    patience: Duration,
}

impl Session {
    fn start(dir: &Path) -> Session {
        // Unbuffered: it polls its input, and would not see the lines that a buffer has already.
        let mut command = Command::new("stdbuf");
        command.args(["-i0", "-oL", "smbclient", "-N", "-t", "1"]);
        command.arg(format!("//{ADDRESS}/share"));
        command.current_dir(dir).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.stderr(Stdio::null()).spawn().expect("smbclient runs");
        let commands = child.stdin.take().expect("piped");
        let out = BufReader::new(child.stdout.take().expect("piped"));
        let (tell, lines) = channel();
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                let _ = tell.send(line);
            }
        });
        Session { child, commands, lines, patience: LOGIN }
    }

    /// Whether the file was written and came back as it was.
    fn file(&mut self, dir: &Path, n: u64) -> bool {
        let (name, text) = (dir.join("file"), format!("{n}\n").repeat(1000));
        std::fs::write(name, &text).expect("written");
        // The last one runs here, and tells that those before it are over.
        let commands = format!("put file demo\nget demo back\n!echo over {n}\n");
        if self.commands.write_all(commands.as_bytes()).is_err() {
            return false;
        }
        let (end, over) = (Instant::now() + self.patience, format!("over {n}"));
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) if line.ends_with(&over) => break,
                Ok(_) => {}
                Err(_) => return false,
            }
        }
        self.patience = PATIENCE;
        let back = std::fs::read_to_string(dir.join("back")).unwrap_or_default();
        let _ = std::fs::remove_file(dir.join("back"));
        back == text
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
