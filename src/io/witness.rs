//! The witness: grants leases over UDP to the nodes of many clusters. What must not be forgotten is
//! on disk before it is said; renewals alone are not, for after a start every lease counts as
//! renewed just then.

use super::clock;
use crate::config::keys;
use crate::config::witness::Settings;
use crate::core::grant::{Ask, Grant, Grants, Verdict};
use crate::core::name::GroupName;
use crate::core::time::{Duration, Instant};
use crate::wire::keys::Keys;
use crate::wire::witness::{
    Answered, Asked, ClusterTag, DATAGRAM_MAX, Way, cluster_of, cluster_tag, is_sound, open, seal,
};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use socket2::{Domain, Socket, Type};
use std::collections::BTreeMap;
use std::io::Write;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Most nodes of one cluster that it remembers a session of.
const NODES_MAX: usize = 64;
/// How often the same is told again.
pub const TOLD: Duration = Duration::from_secs(600);

pub struct Server {
    socket: UdpSocket,
    clusters: BTreeMap<ClusterTag, Cluster>,
    longest: Duration,
    /// Of this life: what an earlier one challenged is void.
    secret: [u8; 32],
    /// When it was told of questions that are not answered: with a cluster's name and another key,
    /// or with no name that is known here.
    unheard: BTreeMap<Option<ClusterTag>, Instant>,
}

struct Cluster {
    name: String,
    keys: Keys,
    grants: Grants,
    /// What is on disk; nothing is said of a group before it is there.
    written: Kept,
    file: PathBuf,
    nodes: BTreeMap<String, Node>,
}

/// The life of a node's asking thread that has answered our challenge last.
#[derive(Default)]
struct Node {
    session: u64,
    challenge: u64,
    /// The newest question, and what was answered to it.
    number: u64,
    answer: Vec<u8>,
    /// How many sessions were accepted: a challenge is of use for one.
    sessions: u64,
}

impl Server {
    /// Binds, reads all keys and what earlier lives kept. The words are for people.
    pub fn open(settings: &Settings) -> Result<(Server, Vec<String>), String> {
        let socket = bind(settings.listen).map_err(|e| match e.kind() {
            std::io::ErrorKind::AddrInUse => {
                format!("{}: {e}: is another witness running?", settings.listen)
            }
            _ => format!("{}: {e}", settings.listen),
        })?;
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(|e| e.to_string())?;
        let dir = &settings.state;
        std::fs::create_dir_all(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        let (mut clusters, mut words) = (BTreeMap::new(), Vec::new());
        for (name, path) in &settings.clusters {
            let keys = keys::load(path)?;
            let tag = cluster_tag(name);
            let file = dir.join(tag.iter().map(|b| format!("{b:02x}")).collect::<String>());
            let kept = read(&file).unwrap_or_else(|error| {
                words.push(format!(
                    "cluster {name}: {error}: it grants nothing for {} s, in which whoever was \
                     granted something stops or asks again",
                    settings.longest.as_secs()
                ));
                None
            });
            let written = kept.clone().unwrap_or_default();
            let grants = Grants::new(clock::now(), kept, settings.longest);
            let nodes = BTreeMap::new();
            let name = name.clone();
            clusters.insert(tag, Cluster { name, keys, grants, written, file, nodes });
        }
        let (longest, unheard) = (settings.longest, BTreeMap::new());
        Ok((Server { socket, clusters, longest, secret, unheard }, words))
    }

    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Answers one datagram. The words are for people.
    pub fn serve(&mut self) -> std::io::Result<Option<String>> {
        let mut buffer = [0; DATAGRAM_MAX + 1];
        let (len, from) = match self.socket.recv_from(&mut buffer) {
            Ok(got) => got,
            // An answer before this found nobody.
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionRefused => return Ok(None),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => return Ok(None),
            Err(e) => return Err(e),
        };
        match self.answer(clock::now(), &buffer[..len], from) {
            Ok(Some(answer)) => {
                // Whoever did not get it asks again.
                let _ = self.socket.send_to(&answer, from);
                Ok(None)
            }
            Ok(None) => Ok(None),
            Err(words) => Ok(Some(words)),
        }
    }

    /// The sealed answer; none to what is not genuine, or old.
    fn answer(
        &mut self,
        now: Instant,
        datagram: &[u8],
        from: SocketAddr,
    ) -> Result<Option<Vec<u8>>, String> {
        let Some(tag) = cluster_of(datagram, Way::ToWitness) else { return Ok(None) };
        let Some(cluster) = self.clusters.get_mut(&tag) else {
            return self.unheard(now, None, || {
                format!(
                    "{from} asks for a cluster that has no [[cluster]] here, and is not answered: \
                     write it into witness.toml by the name in its hafailover.toml"
                )
            });
        };
        let asked = open::<Asked>(Way::ToWitness, &cluster.name, &cluster.keys, datagram);
        let Some(asked) = asked.filter(is_sound) else {
            let name = cluster.name.clone();
            return self.unheard(now, Some(tag), || {
                format!(
                    "cluster {name}: {from} asks with another key, or as another version of this \
                     program, and is not answered: copy the cluster's key file here anew, then \
                     systemctl restart hafailover-witness; compare hafailover --version"
                )
            });
        };
        let name = &asked.ask.node;
        if !cluster.nodes.contains_key(name) && cluster.nodes.len() >= NODES_MAX {
            return Err(format!("cluster {}: more than {NODES_MAX} nodes ask", cluster.name));
        }
        let node = cluster.nodes.entry(name.clone()).or_default();
        let known = (node.session, node.challenge) == (asked.session, asked.challenge);
        if !known {
            let wanted = challenge(&self.secret, name, asked.session, node.sessions);
            if asked.challenge != wanted {
                return Ok(cluster.seal(&asked, wanted, None));
            }
            *node = Node {
                session: asked.session,
                challenge: wanted,
                sessions: node.sessions + 1,
                ..Node::default()
            };
        }
        match asked.number.cmp(&node.number) {
            std::cmp::Ordering::Less => return Ok(None),
            std::cmp::Ordering::Equal => return Ok(Some(node.answer.clone())),
            std::cmp::Ordering::Greater => {}
        }
        let verdict = cluster.decide(now, &asked.ask, self.longest)?;
        let sealed = cluster.seal(&asked, asked.challenge, Some(verdict));
        if let (Some(node), Some(answer)) = (cluster.nodes.get_mut(name), &sealed) {
            (node.number, node.answer) = (asked.number, answer.clone());
        }
        Ok(sealed)
    }

    /// Anybody can send such: what is told of each kind now and then fills no journal.
    fn unheard(
        &mut self,
        now: Instant,
        cluster: Option<ClusterTag>,
        words: impl Fn() -> String,
    ) -> Result<Option<Vec<u8>>, String> {
        let told = self.unheard.get(&cluster);
        if told.is_some_and(|at| now.since(*at) < TOLD) {
            return Ok(None);
        }
        self.unheard.insert(cluster, now);
        Err(words())
    }
}

impl Cluster {
    fn decide(&mut self, now: Instant, ask: &Ask, longest: Duration) -> Result<Verdict, String> {
        if ask.term > longest {
            let why = format!(
                "it keeps nothing for {:.1} s: raise longest in its witness.toml",
                ask.term.as_secs_f64()
            );
            return Ok(Verdict::Refused { why, top: None });
        }
        let verdict = self.grants.ask(now, ask);
        let kept = self.grants.kept();
        if kept.get(&ask.group) == self.written.get(&ask.group) {
            return Ok(verdict);
        }
        write(&self.file, kept).map_err(|e| {
            format!("{}: {e}: nothing new is granted: make room, or mend it", self.file.display())
        })?;
        self.written = kept.clone();
        Ok(verdict)
    }

    fn seal(&self, asked: &Asked, challenge: u64, verdict: Option<Verdict>) -> Option<Vec<u8>> {
        let (session, number) = (asked.session, asked.number);
        let answered = Answered { session, number, challenge, verdict };
        seal(Way::ToNode, &self.name, &self.keys, &answered)
    }
}

/// Never zero, which a new session sends.
fn challenge(secret: &[u8; 32], node: &str, session: u64, sessions: u64) -> u64 {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes keys of any length");
    mac.update(&session.to_be_bytes());
    mac.update(&sessions.to_be_bytes());
    mac.update(node.as_bytes());
    let tag = mac.finalize().into_bytes();
    u64::from_be_bytes(tag[..8].try_into().expect("a digest is longer")).max(1)
}

/// Also to an address that comes later (IP_FREEBIND, ip(7)): at boot DHCP may be slower.
fn bind(address: SocketAddr) -> std::io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None)?;
    match address {
        SocketAddr::V4(_) => socket.set_freebind_v4(true)?,
        SocketAddr::V6(_) => socket.set_freebind_v6(true)?,
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}

type Kept = BTreeMap<GroupName, Grant>;

/// What an earlier life kept. An error says why it is not known.
fn read(file: &Path) -> Result<Option<Kept>, String> {
    let shown = file.display();
    let text = std::fs::read_to_string(file).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => format!("{shown}: there is none yet, or it was lost"),
        _ => format!("{shown}: {e}"),
    })?;
    serde_json::from_str(&text).map(Some).map_err(|e| format!("{shown}: {e}"))
}

/// Whole and on disk, or an error.
fn write(file: &Path, kept: &Kept) -> std::io::Result<()> {
    let text = serde_json::to_string(kept).map_err(std::io::Error::other)?;
    let new = file.with_extension("new");
    let mut options = std::fs::OpenOptions::new();
    let mut out = options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    out.write_all(text.as_bytes())?;
    out.sync_all()?;
    std::fs::rename(new, file)?;
    std::fs::File::open(file.parent().unwrap_or(Path::new("/")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::LeaseVerb::{self, Acquire, Release, Renew};
    use crate::core::name::{Epoch, NodeId};

    /// Goal: a full disk keeps what is new from being granted, and ends no lease that is on it.
    #[test]
    fn a_full_disk_ends_no_lease_that_is_on_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let longest = Duration::from_secs(120);
        let ask = |group: &str, verb: LeaseVerb| Ask {
            node: "a".into(),
            group: GroupName(group.into()),
            epoch: Epoch { counter: 1, node: NodeId(0) },
            verb,
            term: Duration::from_secs(44),
        };
        let mut cluster = Cluster {
            name: "office".into(),
            keys: Keys::of(&[(1, [7; 32])], 1),
            grants: Grants::new(Instant(0), Some(BTreeMap::new()), longest),
            written: BTreeMap::new(),
            file: dir.path().join("gone/file"),
            nodes: BTreeMap::new(),
        };
        let mut decide = |s: u64, group, verb| {
            cluster.decide(Instant(s * 1_000_000_000), &ask(group, verb), longest)
        };
        assert!(decide(1, "files", Acquire).is_err(), "nothing is granted that is not written");
        std::fs::create_dir(dir.path().join("gone")).expect("made");
        for group in ["files", "web"] {
            assert_eq!(decide(2, group, Acquire), Ok(Verdict::Granted));
        }
        std::fs::remove_dir_all(dir.path().join("gone")).expect("removed");
        assert!(decide(3, "web", Release).is_err());
        assert_eq!(decide(4, "files", Renew), Ok(Verdict::Granted));
        assert!(decide(5, "web", Renew).is_err(), "its release is not written");
    }
}
