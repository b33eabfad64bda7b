//! A client on the LAN: asks the group's address every few milliseconds who answers, and so
//! measures each outage and sees at once when two nodes answer in turns.

use super::ADDRESS;
use std::io::Read;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

const PORT: u16 = 7777;
const EVERY: Duration = Duration::from_millis(10);
const END: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_millis(30);
/// How long the first answer may take on a busy machine.
const FIRST: Duration = Duration::from_secs(120);

/// Asks in the background, from a first answer on, until it is told to end.
pub struct Client {
    end: Sender<()>,
    answers: Receiver<Vec<(Instant, String)>>,
}

impl Client {
    pub fn start(namespace: &str) -> Client {
        Client::start_at(namespace, ADDRESS.parse().expect("an address"))
    }

    pub fn start_at(namespace: &str, address: IpAddr) -> Client {
        let (end, ended) = channel();
        let (sender, answers) = channel();
        let namespace = namespace.to_string();
        std::thread::spawn(move || {
            enter(&namespace);
            let mut all = Vec::new();
            let mut ending = None;
            // Ends with an answer, so that an outage at the end is seen whole.
            loop {
                let begun = Instant::now();
                ending = ending.or_else(|| ended.try_recv().ok().map(|()| begun));
                let answer = ask_here(address);
                let last = ending.is_some_and(|at| answer.is_some() || at.elapsed() > END);
                if let Some(who) = answer {
                    if all.is_empty() {
                        let _ = sender.send(Vec::new());
                    }
                    all.push((Instant::now(), who));
                }
                if last {
                    break;
                }
                std::thread::sleep(EVERY.saturating_sub(begun.elapsed()));
            }
            let _ = sender.send(all);
        });
        answers.recv_timeout(FIRST).expect("a first answer");
        Client { end, answers }
    }

    pub fn stop(self) -> Seen {
        let _ = self.end.send(());
        Seen(self.answers.recv().expect("the client ends"))
    }
}

/// Who answered when.
pub struct Seen(Vec<(Instant, String)>);

impl Seen {
    /// The longest time without an answer between two answers.
    pub fn outage(&self) -> Duration {
        let gaps = self.0.windows(2).map(|w| w[1].0 - w[0].0);
        gaps.max().unwrap_or_default()
    }

    /// The nodes in the order in which they took over answering.
    pub fn owners(&self) -> Vec<String> {
        let mut owners: Vec<String> = self.0.iter().map(|a| a.1.clone()).collect();
        owners.dedup();
        owners
    }
}

/// Who answers now, asked from a namespace.
pub fn ask(namespace: &str) -> Option<String> {
    let namespace = namespace.to_string();
    let thread = std::thread::spawn(move || {
        enter(&namespace);
        ask_here(ADDRESS.parse().expect("an address"))
    });
    thread.join().ok().flatten()
}

fn ask_here(address: IpAddr) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::new(address, PORT), PATIENCE).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    (!text.is_empty()).then(|| text.trim().to_string())
}

/// Moves this thread into a network namespace.
pub fn enter(namespace: &str) {
    let file = std::fs::File::open(format!("/run/netns/{namespace}")).expect("the namespace");
    rustix::thread::move_into_link_name_space(
        std::os::fd::AsFd::as_fd(&file),
        Some(rustix::thread::LinkNameSpaceType::Network),
    )
    .expect("moved into the namespace");
}
