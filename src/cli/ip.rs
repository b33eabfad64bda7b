//! `hafailover ip`: holds one address for as long as it runs. Probes before, announces after,
//! watches it and puts it back.

use crate::io::clock;
use crate::io::net::instance::{Instance, parse};
use crate::io::net::neighbour::{Mac, Neighbours, show};
use crate::io::net::netlink;
use sd_notify::NotifyState;
use std::collections::VecDeque;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

/// Probes, and when the silence after them proves enough. RFC 5227 would take seconds; on a LAN an
/// answer comes within a millisecond, and every planned move pays for this wait.
const PROBES: u32 = 3;
const PROBE_GAP: Duration = Duration::from_millis(15);
/// When the address is announced after the first time; then every [`LATER`].
const BURST: [u64; 6] = [50, 200, 500, 1000, 5_000, 30_000];
const LATER: Duration = Duration::from_secs(60);
/// So many losses within [`LOSS_WINDOW`] are no accident.
const LOSSES_MAX: usize = 10;
const LOSS_WINDOW: Duration = Duration::from_secs(60);
/// Least time between two defences against a foreign host, and between two words about it.
const DEFENCE_GAP: Duration = Duration::from_secs(1);
const DEFENCE_WORDS: Duration = Duration::from_secs(60);
/// Exit codes after which systemd does not try again: the cluster decides.
const IN_USE: u8 = 4;
const TAKEN_AWAY: u8 = 5;

/// Hold one address (started by hafailover-ip@.service).
#[derive(Debug, clap::Args)]
pub struct Args {
    /// ADDRESS-PREFIX or ADDRESS-PREFIX-INTERFACE.
    instance: String,
    /// Only remove the address, and verify that it is gone.
    #[arg(long)]
    remove: bool,
}

/// Exit codes: 1 failed, 4 another host has the address, 5 something takes it away again and again.
pub fn run(args: Args) -> ExitCode {
    let result = parse(&args.instance)
        .map_err(Failure::plain)
        .and_then(|instance| if args.remove { take_away(&instance) } else { hold(&instance) });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            status(&failure.words);
            super::tell(format!("hafailover ip {}: {}", args.instance, failure.words));
            ExitCode::from(failure.code)
        }
    }
}

struct Failure {
    words: String,
    code: u8,
}

impl Failure {
    fn plain(words: String) -> Failure {
        Failure { words, code: 1 }
    }
}

impl From<std::io::Error> for Failure {
    fn from(e: std::io::Error) -> Failure {
        Failure::plain(e.to_string())
    }
}

enum News {
    Changed,
    Foreign(Mac),
    Announce,
    Stop,
}

fn hold(instance: &Instance) -> Result<(), Failure> {
    let interface = instance.interface().map_err(Failure::plain)?;
    let found = netlink::interface(&interface)
        .ok_or_else(|| Failure::plain(format!("there is no interface {interface}")))?;
    if !found.carrier {
        return Err(Failure::plain(format!("interface {interface} has no carrier: plug it in")));
    }
    let (index, address) = (found.index, instance.address);
    let neighbours = Arc::new(Neighbours::open(&found, address)?);
    let mut holder = Holder {
        instance: instance.clone(),
        index,
        neighbours,
        burst: VecDeque::new(),
        lost: Vec::new(),
        defended: None,
        told: None,
    };
    let here = holder.is_here()?;
    if !here {
        // No other thread listens yet: nobody's being late hides an answer.
        holder.probe()?;
    }
    let (sender, news) = channel();
    spawn(&sender, &holder.neighbours)?;
    if !here {
        netlink::add(index, address, instance.prefix)?;
    }
    holder.announce();
    status(&format!("{address}/{} on {interface}", instance.prefix));
    let _ = sd_notify::notify(&[NotifyState::Ready]);
    let ended = holder.watch(&news);
    let removed = take_away(instance);
    ended.and(removed)
}

/// One thread each for changes, for other hosts, and for signals.
fn spawn(sender: &Sender<News>, neighbours: &Arc<Neighbours>) -> Result<(), Failure> {
    let thread = || std::thread::Builder::new().stack_size(256 * 1024);
    let (changes, tell) = (netlink::Changes::open()?, sender.clone());
    thread().spawn(move || while changes.wait().is_ok() && tell.send(News::Changed).is_ok() {})?;
    let (mine, tell) = (neighbours.clone(), sender.clone());
    thread().spawn(move || {
        while let Ok(mac) = mine.foreign() {
            if tell.send(News::Foreign(mac)).is_err() {
                return;
            }
        }
    })?;
    let tell = sender.clone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    use tokio::signal::unix::{SignalKind, signal};
    let _guard = runtime.enter();
    let (mut term, mut hup) = (signal(SignalKind::terminate())?, signal(SignalKind::hangup())?);
    let mut int = signal(SignalKind::interrupt())?;
    drop(_guard);
    thread().spawn(move || {
        runtime.block_on(async {
            loop {
                let news = tokio::select! {
                    _ = term.recv() => News::Stop,
                    _ = int.recv() => News::Stop,
                    _ = hup.recv() => News::Announce,
                };
                if tell.send(news).is_err() {
                    return;
                }
            }
        });
    })?;
    Ok(())
}

struct Holder {
    instance: Instance,
    index: u32,
    neighbours: Arc<Neighbours>,
    burst: VecDeque<crate::core::time::Instant>,
    lost: Vec<crate::core::time::Instant>,
    defended: Option<crate::core::time::Instant>,
    /// When the foreign host was last told of.
    told: Option<crate::core::time::Instant>,
}

impl Holder {
    fn is_here(&self) -> Result<bool, Failure> {
        let all = netlink::addresses()?;
        Ok(all.iter().any(|h| h.address == self.instance.address && h.index == self.index))
    }

    /// Nobody else may have it.
    fn probe(&self) -> Result<(), Failure> {
        for _ in 0..PROBES {
            self.neighbours.probe()?;
            if let Some(mac) = self.neighbours.foreign_within(PROBE_GAP)? {
                let words = format!(
                    "{} is in use by the host with the Ethernet address {}: take it off that host",
                    self.instance.address,
                    show(mac)
                );
                return Err(Failure { words, code: IN_USE });
            }
        }
        Ok(())
    }

    fn announce(&mut self) {
        // Failing, it is said again in a moment; a lost interface is seen by the watch.
        let _ = self.neighbours.announce();
        let now = clock::now();
        self.burst = BURST.iter().map(|ms| now + Duration::from_millis(*ms)).collect();
    }

    fn watch(&mut self, news: &Receiver<News>) -> Result<(), Failure> {
        let mut last = clock::now();
        loop {
            let due = self.burst.front().copied().unwrap_or(last + LATER);
            match news.recv_timeout(due.since(clock::now())) {
                Ok(News::Stop) => return Ok(()),
                Ok(News::Announce) => self.announce(),
                Ok(News::Changed) => self.put_back()?,
                Ok(News::Foreign(mac)) => self.defend(mac),
                Err(RecvTimeoutError::Timeout) => {
                    let _ = self.neighbours.announce();
                    self.burst.pop_front();
                    last = clock::now();
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Failure::plain("cannot watch the address any longer".into()));
                }
            }
        }
    }

    fn put_back(&mut self) -> Result<(), Failure> {
        if self.is_here()? {
            return Ok(());
        }
        let now = clock::now();
        self.lost.retain(|at| now.since(*at) < LOSS_WINDOW);
        self.lost.push(now);
        let address = self.instance.address;
        if self.lost.len() > LOSSES_MAX {
            let words = format!(
                "{address} was removed {} times within {} s: something else manages this \
                 interface and must leave the address alone",
                self.lost.len(),
                LOSS_WINDOW.as_secs()
            );
            return Err(Failure { words, code: TAKEN_AWAY });
        }
        match netlink::add(self.index, address, self.instance.prefix) {
            Ok(()) => {
                super::tell(format!("<4>{address} was removed by something else and is put back"));
                self.announce();
                Ok(())
            }
            // An interface that is down takes no IPv6 address; its coming up is a change too.
            Err(e) if netlink_is_down(&e) => Ok(()),
            Err(e) if e.raw_os_error() == Some(libc::ENODEV) => Err(Failure::plain(format!(
                "{address} is gone with its interface: look at its driver and its cable"
            ))),
            Err(e) => Err(Failure::plain(format!("{address} is gone and cannot be added: {e}"))),
        }
    }

    fn defend(&mut self, mac: Mac) {
        let now = clock::now();
        if self.defended.is_some_and(|at| now.since(at) < DEFENCE_GAP) {
            return;
        }
        self.defended = Some(now);
        let address = self.instance.address;
        if self.told.is_none_or(|at| now.since(at) >= DEFENCE_WORDS) {
            self.told = Some(now);
            super::tell(format!(
                "<3>{address} is claimed by another host, {}, too, and announced again: take it \
                 off that host",
                show(mac)
            ));
        }
        self.announce();
    }
}

fn netlink_is_down(e: &std::io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::ENETDOWN | libc::EACCES | libc::EINVAL))
}

/// Removes the address wherever it is, and verifies that it is gone.
fn take_away(instance: &Instance) -> Result<(), Failure> {
    for held in netlink::addresses()?.iter().filter(|h| h.address == instance.address) {
        netlink::remove(held.index, held.address, held.prefix)?;
    }
    match netlink::addresses()?.iter().find(|h| h.address == instance.address) {
        None => Ok(()),
        Some(held) => Err(Failure::plain(format!(
            "{} is still on {} after it was removed",
            instance.address, held.interface
        ))),
    }
}

fn status(words: &str) {
    let _ = sd_notify::notify(&[NotifyState::Status(words)]);
}
