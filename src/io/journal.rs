//! Transitions into the journal, over its native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL), on
//! a thread of its own behind a bounded queue: a journal that does not take entries delays them
//! and never the daemon. Ordinary log lines go through `tracing` (`daemon::log`).

use crate::core::say::{Loud, Saying, What};
use sha2::{Digest, Sha256};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

/// Entries that wait for a journal that is stopped; then the oldest stay and the newest are lost,
/// counted.
const QUEUE: usize = 8192;
/// How long after a refused entry it is tried again.
const RETRY: Duration = Duration::from_millis(50);
pub const SOCKET: &str = "/run/systemd/journal/socket";

/// Names for the numbers in a [`Saying`].
#[derive(Clone, Debug, Default)]
pub struct Names {
    pub nodes: Vec<String>,
    pub links: Vec<String>,
    pub me: usize,
}

/// The daemon's end.
#[derive(Clone, Debug)]
pub struct Journal {
    queue: SyncSender<Vec<u8>>,
    names: Names,
    waiting: Arc<AtomicU64>,
    dropped: Arc<AtomicU64>,
}

impl Journal {
    pub fn spawn(socket: &Path, names: Names) -> std::io::Result<Journal> {
        let (queue, entries) = sync_channel(QUEUE);
        let (waiting, dropped) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (left, socket) = (waiting.clone(), PathBuf::from(socket));
        let thread = std::thread::Builder::new().name("journal".into());
        thread.spawn(move || run(&socket, &entries, &left))?;
        Ok(Journal { queue, names, waiting, dropped })
    }

    pub fn say(&self, saying: &Saying) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        if self.queue.try_send(entry(saying, &self.names)).is_err() {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Entries lost because the journal did not take them in time.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Waits until all is written, at most so long.
    pub fn flush(&self, patience: Duration) {
        let end = super::clock::now() + patience;
        while self.waiting.load(Ordering::Relaxed) > 0 && super::clock::now() < end {
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }
}

fn run(path: &Path, entries: &Receiver<Vec<u8>>, waiting: &AtomicU64) {
    let Ok(socket) = UnixDatagram::unbound() else { return };
    for entry in entries {
        // Not connected: so it finds a journald that was restarted. It blocks while the journal's
        // queue is full, and fails at once while it is stopped.
        while let Err(e) = socket.send_to(&entry, path) {
            if e.raw_os_error() == Some(libc::EMSGSIZE) {
                break;
            }
            std::thread::park_timeout(RETRY);
        }
        waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The MESSAGE_ID of a kind: made from its name, so that it never changes and needs no table.
pub fn message_id(what: What) -> String {
    let digest = Sha256::new().chain_update("hafailover ").chain_update(what.key()).finalize();
    let mut id: [u8; 16] = digest[..16].try_into().expect("a digest is longer");
    // Version 8 (custom) and the variant of RFC 9562.
    id[6] = id[6] & 0x0f | 0x80;
    id[8] = id[8] & 0x3f | 0x80;
    id.iter().map(|b| format!("{b:02x}")).collect()
}

fn entry(saying: &Saying, names: &Names) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    let node = |n: usize| names.nodes.get(n).cloned().unwrap_or_default();
    let priority = match saying.what.loud() {
        Loud::Critical => "2",
        Loud::Error => "3",
        Loud::Warning => "4",
        Loud::Notice => "5",
        Loud::Info => "6",
    };
    let mut field = |name: &str, value: &str| {
        if value.is_empty() {
            return;
        }
        out.extend_from_slice(name.as_bytes());
        if value.contains('\n') {
            out.push(b'\n');
            out.extend_from_slice(&(value.len() as u64).to_le_bytes());
        } else {
            out.push(b'=');
        }
        out.extend_from_slice(value.as_bytes());
        out.push(b'\n');
    };
    let usec = |d: Option<Duration>| d.map(|d| d.as_micros().to_string()).unwrap_or_default();
    field("MESSAGE", &text(saying, names));
    field("MESSAGE_ID", &message_id(saying.what));
    field("PRIORITY", priority);
    field("SYSLOG_IDENTIFIER", "hafailover");
    field("HAFAILOVER_WHAT", saying.what.key());
    field("HAFAILOVER_NODE", &node(names.me));
    if let Some(group) = &saying.group {
        field("HAFAILOVER_GROUP", &group.0);
        field("OBJECT_SYSTEMD_UNIT", &group.unit());
        field("UNIT", &group.unit());
    }
    field("HAFAILOVER_PEER", &saying.peer.map(|p| node(usize::from(p.0))).unwrap_or_default());
    let link = saying.link.and_then(|l| names.links.get(usize::from(l.0)));
    field("HAFAILOVER_LINK", link.map(String::as_str).unwrap_or_default());
    field("HAFAILOVER_EPOCH", &saying.epoch.map(|e| e.to_string()).unwrap_or_default());
    field("HAFAILOVER_FROM", &saying.from);
    field("HAFAILOVER_TO", &saying.to);
    field("HAFAILOVER_REASON", &saying.reason);
    field("HAFAILOVER_EVIDENCE", &saying.evidence);
    field("HAFAILOVER_DETECT_USEC", &usec(saying.detect));
    field("HAFAILOVER_STOP_USEC", &usec(saying.stop));
    field("HAFAILOVER_START_USEC", &usec(saying.start));
    out
}

/// The sentence.
pub fn text(saying: &Saying, names: &Names) -> String {
    let peer = saying.peer.and_then(|p| names.nodes.get(usize::from(p.0)).cloned());
    let link = saying.link.and_then(|l| names.links.get(usize::from(l.0)).cloned());
    let group = saying.group.as_ref().map(|g| g.0.as_str()).unwrap_or_default();
    let (peer, link) = (peer.unwrap_or_default(), link.unwrap_or_default());
    let subject = match of_nodes(saying.what, &peer, &link) {
        Some(subject) => subject,
        None => of_groups(saying, group, &peer),
    };
    format!("{subject}: {}", saying.reason)
}

/// What concerns nodes and links.
fn of_nodes(what: What, peer: &str, link: &str) -> Option<String> {
    Some(match what {
        What::DaemonStarted => "hafailover".to_string(),
        What::DaemonStopped => "hafailover ends".to_string(),
        What::Reloaded => "Reloaded".to_string(),
        What::SettingsRight => "The settings are good again".to_string(),
        What::PeerAlive => format!("{peer} is alive"),
        What::PeerLate => format!("{peer} is late"),
        What::PeerSilent => format!("{peer} is silent"),
        What::PeerDeaf => format!("{peer} is deaf"),
        What::PeerLeaving => format!("{peer} leaves"),
        What::PeerLost => format!("The daemon of {peer} is lost"),
        What::PeerResets => format!("{peer} resets itself"),
        What::PeerDiffers => format!("{peer} has other settings"),
        What::PeerDouble => format!("{peer} is there twice"),
        What::LinkUp => format!("Link {link} to {peer} is up"),
        What::LinkDown => format!("Link {link} to {peer} is down"),
        What::RedundancyLost => format!("Redundancy towards {peer} is lost"),
        What::RedundancyBack => format!("Redundancy towards {peer} is back"),
        What::ArbiterLost => "The arbiter does not answer".to_string(),
        What::WatchdogLost => "The watchdog cannot be fed".to_string(),
        What::WatchdogBack => "The watchdog can be fed again".to_string(),
        What::ArbiterBack => "The arbiter is back".to_string(),
        What::QuorumLost => "This node has lost the quorum".to_string(),
        What::QuorumRegained => "This node has the quorum again".to_string(),
        What::Operator => "Asked for".to_string(),
        What::StandbyOn => format!("{peer} is in standby"),
        What::StandbyOff => format!("{peer} is no longer in standby"),
        What::Stalled => "Stalled".to_string(),
        What::StateFailed => "The state file failed".to_string(),
        What::Amnesia => "This node has lost its state".to_string(),
        What::AmnesiaOver => "This node knows its state again".to_string(),
        What::GuardStops => "The guard stops the groups".to_string(),
        What::GuardDone => "The guard is done".to_string(),
        _ => return None,
    })
}

/// What concerns a group.
fn of_groups(saying: &Saying, group: &str, peer: &str) -> String {
    let (from, to) = (&saying.from, &saying.to);
    match saying.what {
        What::SettingsWrong if group.is_empty() => "The last accepted settings stay".to_string(),
        What::SettingsWrong => format!("{group} keeps its last accepted settings"),
        What::MembersDiffer => format!("{group} has other files of its members on {peer}"),
        What::MembersAgree => format!("{group} has the same files of its members on {peer}"),
        What::GroupPhase => format!("{group}: {from} to {to}"),
        What::GroupClaimed => format!("{group} is claimed"),
        What::ClaimWithdrawn => format!("The claim on {group} is withdrawn"),
        What::GroupPromised => format!("{group} is promised to {peer}"),
        What::GroupStarted => format!("{group} is started"),
        What::GroupAdopted => format!("{group} is adopted"),
        What::GroupReleased if peer.is_empty() => format!("{group} is released"),
        What::GroupReleased => format!("{group} is released to {peer}"),
        What::StartFailed => format!("{group} did not start"),
        What::MemberFailed => format!("A member of {group} failed"),
        What::GroupDegraded => format!("{group} is degraded"),
        What::GroupWhole => format!("{group} is whole again"),
        What::GroupStuck => format!("{group} is stuck"),
        What::UsersKilled => format!("Users of {group}"),
        What::FenceSelf => format!("{group} does not stop"),
        What::FenceSelfFailed => format!("No reset for {group}"),
        What::Quarantined => format!("{group} is quarantined here"),
        What::QuarantineOver => format!("The quarantine of {group} here is over"),
        What::GroupWaits => format!("{group} waits"),
        What::TwoOwners => format!("{group} has two owners, this node and {peer}"),
        What::OwnerYields => format!("{group} is given up for {peer}"),
        What::StrayFound => format!("{group} has strays here"),
        What::StrayGone => format!("The strays of {group} are gone"),
        What::ByHand => format!("By hand in {group}"),
        What::StartRefused => format!("Start refused in {group}"),
        What::TokenMissing => format!("The token of {group} was missing"),
        What::MaintenanceOn if group.is_empty() => "Maintenance is on".to_string(),
        What::MaintenanceOn => format!("Maintenance of {group} is on"),
        What::MaintenanceOff if group.is_empty() => "Maintenance is off".to_string(),
        What::MaintenanceOff => format!("Maintenance of {group} is off"),
        What::LeaseOverrun => format!("{group} outlives its lease"),
        What::CarrierLost => format!("No carrier for {group}"),
        What::CarrierBack => format!("Carrier for {group} is back"),
        what => of_fence(what, peer),
    }
}

fn of_fence(what: What, peer: &str) -> String {
    match what {
        What::Fencing => format!("{peer} is being fenced"),
        What::Fenced => format!("{peer} is fenced"),
        What::FenceFailed => format!("{peer} is not fenced"),
        What::FenceGivenUp => format!("{peer} cannot be fenced"),
        What::FenceLied => format!("The fence of {peer} lied"),
        What::FenceDrillPassed => format!("A fence of {peer} would work"),
        What::FenceDrillFailed => format!("A fence of {peer} would fail"),
        what => what.key().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: nothing said while the journal is stopped is lost, and the sayer never waits.
    #[test]
    fn a_stopped_journal_delays_entries_and_loses_none() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("socket");
        let journal = Journal::spawn(&path, Names::default()).expect("a thread");
        for n in 0..500 {
            journal.say(&Saying::new(What::Stalled, format!("entry {n}")));
        }
        assert_eq!(journal.dropped(), 0);
        let socket = UnixDatagram::bind(&path).expect("the journal is back");
        let mut buffer = [0; 4096];
        for n in 0..500 {
            let len = socket.recv(&mut buffer).expect("an entry");
            let text = String::from_utf8_lossy(&buffer[..len]).into_owned();
            assert!(text.contains(&format!("HAFAILOVER_REASON=entry {n}\n")), "{text}");
            assert!(text.contains(&format!("MESSAGE_ID={}\n", message_id(What::Stalled))));
        }
        journal.flush(Duration::from_secs(5));
        assert_eq!(journal.waiting.load(Ordering::Relaxed), 0);
    }

    /// The compiler does not see it where a match is in two parts.
    #[test]
    fn every_kind_has_a_sentence() {
        for what in What::ALL {
            let text = text(&Saying::new(*what, "so"), &Names::default());
            assert_ne!(text, format!("{}: so", what.key()));
        }
    }

    #[test]
    fn every_kind_has_an_id_of_its_own() {
        let ids: std::collections::BTreeSet<String> =
            What::ALL.iter().map(|w| message_id(*w)).collect();
        assert_eq!(ids.len(), What::ALL.len());
    }
}
