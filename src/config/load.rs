//! From the text of hafailover.toml to checked settings. Every refusal says where, what and how to
//! mend it.

use super::arbiter::{self, Back, sanlock};
use super::fence;
use super::file::{self, File};
use super::link;
use super::settings::{Link, LinkKind, Node, Settings};
use crate::core::name::{LINKS_MAX, LinkId, NODES_MAX, NodeId};
use crate::core::policy::{OnLost, OnSilence, QuorumLost, Safety, Timing};
use sha2::{Digest, Sha256};
use std::ops::Range;
use std::path::Path;
use std::time::Duration;
use toml::Spanned;

/// Least time for the guard of a lost daemon to stop its groups.
const GUARD_LEAST: Duration = Duration::from_secs(1);

/// A refusal: `file:line:column: what`, the line itself, and a caret under it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

/// Reads and checks `path` for the node called `hostname`.
pub fn load(path: &Path, hostname: &str) -> Result<Settings, ConfigError> {
    parse(&text(path)?, &path.display().to_string(), hostname)
}

/// What is wrong with this list of nodes where groups run by the list of `before`: the first node
/// that is in both, and in another place; with leases on a disk, any difference.
pub fn displaced(text: &str, name: &str, before: &Settings) -> Option<ConfigError> {
    let source = Source { text, name };
    let file: File = source.read().ok()?;
    if let Some(Back::Sanlock(leases)) = before.back() {
        let was = |n: usize| before.nodes.get(n).map(|b| &b.name);
        let same = |n: usize| file.nodes.get(n).map(|node| node.name.get_ref()) == was(n);
        let n = (0..file.nodes.len().max(before.nodes.len())).find(|n| !same(*n))?;
        let span = file.nodes.get(n).or(file.nodes.last())?.name.span();
        let what = format!(
            "the leases on {0} are of the nodes of before, and this node holds groups by them: \
             stop hafailover on every node, and then start it with the new list everywhere after \
             hafailover disk format --leases --force-of-ours {0} on one",
            leases.device.display()
        );
        return Some(source.at(span, &what));
    }
    file.nodes.iter().enumerate().find_map(|(n, node)| {
        let (name, span) = (node.name.get_ref(), node.name.span());
        let was = before.nodes.iter().position(|b| b.name == *name).filter(|was| *was != n)?;
        let what = format!(
            "{name} was [[node]] {} and is {} now, and this node holds groups by the old places: \
             keep the places of the nodes that stay (a new one at the end, or where one was \
             removed), or first give the groups away (hafailover standby), then systemctl restart \
             hafailover and hafailover online",
            was + 1,
            n + 1
        );
        Some(source.at(span, &what))
    })
}

/// What stands in it.
pub fn text(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|e| {
        ConfigError(match e.kind() {
            std::io::ErrorKind::NotFound => format!(
                "{}: there is no configuration: see hafailover.toml(5) and \
                 /usr/share/doc/hafailover/examples/hafailover.toml",
                path.display()
            ),
            _ => format!("{}: {e}", path.display()),
        })
    })
}

/// The same for a text; `name` is the file's name in messages.
pub fn parse(text: &str, name: &str, hostname: &str) -> Result<Settings, ConfigError> {
    let source = Source { text, name };
    let file: File = source.read()?;
    let cluster = file.cluster.name.get_ref().clone();
    if cluster.is_empty() || cluster.len() > 64 {
        let span = file.cluster.name.span();
        return Err(source.at(span, "the cluster's name must have 1 to 64 bytes"));
    }
    let (nodes, me) = source.nodes(&file, hostname)?;
    let timing = source.timing(&file.timing)?;
    let links =
        source.links(&file, &link::Of { cluster: &cluster, nodes: &nodes, timing: &timing })?;
    let safety = source.safety(&file.safety, &timing, nodes.len())?;
    let arbiter = source.arbiter(&file, &timing, &safety)?;
    if let Some(Back::Sanlock(leases)) = arbiter.as_ref().map(|a| &a.back) {
        source.apart(&file, &links, leases)?;
    }
    let fence_delay = source.duration(&file.safety.fence_delay, fence::DELAY)?;
    let fences =
        fence::fences(&file.fences, &nodes).map_err(|(span, what)| source.at(span, &what))?;
    let mut agreed = agreed(&cluster, &nodes, &links, &timing, &safety);
    if !fences.is_empty() {
        agreed += &format!(" {fence_delay:?} {fences:?}");
    }
    // Without one the text is as it always was: an upgrade changes no fingerprint.
    if let Some(arbiter) = &arbiter {
        agreed += &format!(" {arbiter:?}");
    }
    let links = links[usize::from(me.0)].clone();
    Ok(Settings {
        cluster,
        me,
        nodes,
        links,
        timing,
        silence_chosen: file.safety.silence.is_some(),
        guard_chosen: file.safety.guard_bound.is_some(),
        safety,
        fence_delay,
        fences,
        arbiter,
        keys: file.cluster.keys.unwrap_or_else(|| "/etc/hafailover/keys".into()),
        state: file.cluster.state.unwrap_or_else(|| "/var/lib/hafailover/state".into()),
        fingerprint: fingerprint(&agreed),
    })
}

pub(super) struct Source<'a> {
    pub text: &'a str,
    pub name: &'a str,
}

impl Source<'_> {
    pub fn read<T: serde::de::DeserializeOwned>(&self) -> Result<T, ConfigError> {
        toml::from_str(self.text).map_err(|e| {
            let message = e.message().trim().replace('\n', "; ");
            self.at(e.span().unwrap_or(0..0), &message)
        })
    }

    pub fn at(&self, span: Range<usize>, what: &str) -> ConfigError {
        let start = span.start.min(self.text.len());
        let before = &self.text[..start];
        let line = before.matches('\n').count() + 1;
        let column = before.len() - before.rfind('\n').map_or(0, |n| n + 1);
        let shown = self.text.lines().nth(line - 1).unwrap_or_default();
        let caret = " ".repeat(column.min(shown.len()));
        ConfigError(format!("{}:{line}:{}: {what}\n  {shown}\n  {caret}^", self.name, column + 1))
    }

    fn nodes(&self, file: &File, hostname: &str) -> Result<(Vec<Node>, NodeId), ConfigError> {
        let end = self.text.len()..self.text.len();
        if file.nodes.len() < 2 || file.nodes.len() > NODES_MAX {
            let what = format!(
                "{} [[node]] tables: a cluster has 2 to {NODES_MAX} nodes, each with its name = \
                 as hostname prints it",
                file.nodes.len()
            );
            return Err(self.at(end, &what));
        }
        let mut nodes: Vec<Node> = Vec::new();
        for (n, node) in file.nodes.iter().enumerate() {
            let name = node.name.get_ref().clone();
            let good = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
            if name.is_empty() || name.len() > 64 || !name.chars().all(good) {
                let what = "a node's name is its host name: letters, digits, '-', '.', '_'";
                return Err(self.at(node.name.span(), what));
            }
            if nodes.iter().any(|n| n.name == name) {
                let what = format!("node {name} is listed twice: keep one");
                return Err(self.at(node.name.span(), &what));
            }
            nodes.push(Node { id: NodeId(n as u8), name });
        }
        let short = |name: &str| name.split('.').next().unwrap_or_default().to_lowercase();
        let full = nodes.iter().find(|n| n.name.eq_ignore_ascii_case(hostname));
        let me = full.or_else(|| nodes.iter().find(|n| short(&n.name) == short(hostname)));
        match me.map(|n| n.id) {
            Some(me) => Ok((nodes, me)),
            None => {
                let names: Vec<&str> = nodes.iter().map(|n| n.name.as_str()).collect();
                let what = format!(
                    "this host is called {hostname}, and the nodes are {}: add it or correct a \
                     name",
                    names.join(", ")
                );
                Err(self.at(file.nodes[0].name.span(), &what))
            }
        }
    }

    fn duration(
        &self,
        value: &Option<Spanned<String>>,
        default: Duration,
    ) -> Result<Duration, ConfigError> {
        let Some(value) = value else { return Ok(default) };
        parse_duration(value.get_ref()).map_err(|what| self.at(value.span(), &what))
    }

    fn timing(&self, timing: &file::Timing) -> Result<Timing, ConfigError> {
        let ms = Duration::from_millis;
        let keepalive = self.duration(&timing.keepalive, ms(200))?;
        let deadtime = self.duration(&timing.deadtime, (keepalive * 5).max(ms(1000)))?;
        let warntime = self.duration(&timing.warntime, deadtime / 2)?;
        let initdead = self.duration(&timing.initdead, (deadtime * 2).max(ms(30_000)))?;
        let restart_bound = self.duration(&timing.restart_bound, ms(5_000))?;
        let span = |v: &Option<Spanned<String>>| v.as_ref().map(Spanned::span);
        let spans = [&timing.deadtime, &timing.keepalive, &timing.warntime, &timing.initdead];
        let some = spans.iter().find_map(|v| span(v)).unwrap_or(0..0);
        let place = |v: &Option<Spanned<String>>| span(v).unwrap_or(some.clone());
        let refuse = |v: &Option<Spanned<String>>, what: String| Err(self.at(place(v), &what));
        if keepalive < ms(10) || keepalive > ms(60_000) {
            return refuse(&timing.keepalive, "keepalive must be from 10ms to 60s".into());
        }
        if deadtime <= keepalive * 2 {
            let what = format!(
                "deadtime ({}) must be more than twice keepalive ({}), or one lost heartbeat is \
                 taken for a death: write deadtime = \"{}\" or more",
                show(deadtime),
                show(keepalive),
                show(keepalive * 5)
            );
            return refuse(&timing.deadtime, what);
        }
        if !(keepalive < warntime && warntime < deadtime) {
            let what = format!(
                "warntime ({}) must lie between keepalive ({}) and deadtime ({})",
                show(warntime),
                show(keepalive),
                show(deadtime)
            );
            return refuse(&timing.warntime, what);
        }
        if initdead < deadtime {
            let what = format!(
                "initdead ({}) must not be less than deadtime ({})",
                show(initdead),
                show(deadtime)
            );
            return refuse(&timing.initdead, what);
        }
        Ok(Timing { keepalive, warntime, deadtime, initdead, restart_bound })
    }

    fn safety(
        &self,
        safety: &file::Safety,
        timing: &Timing,
        nodes: usize,
    ) -> Result<Safety, ConfigError> {
        let silence = |s: Option<file::Silence>, default| match s {
            None => default,
            Some(file::Silence::Takeover) => OnSilence::Takeover,
            Some(file::Silence::Hold) => OnSilence::Hold,
        };
        let on_silence = silence(safety.silence, OnSilence::Takeover);
        let usual = timing.deadtime + Duration::from_secs(30);
        let guard_bound = self.duration(&safety.guard_bound, usual)?;
        if let Some(span) = safety.guard_bound.as_ref().map(Spanned::span)
            && guard_bound < timing.deadtime + GUARD_LEAST
        {
            let what = "guard-bound must leave the guard a second or more after deadtime";
            return Err(self.at(span, what));
        }
        Ok(Safety {
            silence: on_silence,
            unseen: silence(safety.unseen, on_silence),
            last_link: silence(safety.last_link, OnSilence::Hold),
            quorum_lost: self.quorum_lost(safety, nodes)?,
            on_lost: match safety.on_lost {
                None | Some(file::Lost::Reboot) => OnLost::Reboot,
                Some(file::Lost::Leave) => OnLost::Leave,
            },
            guard_bound,
        })
    }

    fn quorum_lost(&self, safety: &file::Safety, nodes: usize) -> Result<QuorumLost, ConfigError> {
        match &safety.quorum_lost {
            Some(lost) if *lost.get_ref() == file::QuorumLost::Stop && nodes == 2 => {
                let what = "of two nodes neither is a majority without the other, so the death of \
                            one would stop both: add a third node, or remove this line";
                Err(self.at(lost.span(), what))
            }
            Some(lost) if *lost.get_ref() == file::QuorumLost::Stop => Ok(QuorumLost::Stop),
            Some(_) | None => Ok(QuorumLost::Keep),
        }
    }

    /// Slots and leases are written by different programs, each over all of its device.
    fn apart(
        &self,
        file: &File,
        links: &[Vec<Link>],
        leases: &sanlock::Settings,
    ) -> Result<(), ConfigError> {
        let same = |l: &&Link| matches!(&l.kind, LinkKind::Disk(d) if d.device == leases.device);
        let Some(link) = links.iter().flatten().find(same) else { return Ok(()) };
        let span = file.links[usize::from(link.id.0)].span();
        let what = "the device has the leases of [arbiter.sanlock]: slots need a partition of \
                    their own";
        Err(self.at(span, what))
    }

    fn arbiter(
        &self,
        file: &File,
        timing: &Timing,
        safety: &Safety,
    ) -> Result<Option<arbiter::Settings>, ConfigError> {
        let Some(table) = &file.arbiter else { return Ok(None) };
        if !file.fences.is_empty() {
            let what = "[arbiter] and [[fence]] do not work together yet: a fence would never be \
                        asked, because the lease is waited for in any case: remove one of them";
            return Err(self.at(table.kind.span(), what));
        }
        let lost = file.safety.quorum_lost.as_ref();
        if let Some(lost) = lost.filter(|_| safety.quorum_lost == QuorumLost::Stop) {
            let what = "with [arbiter] nobody counts nodes: who holds a lease goes on, also alone, \
                        and this would stop it: remove this line, or [arbiter]";
            return Err(self.at(lost.span(), what));
        }
        let checked = arbiter::check(table, timing, safety);
        checked.map(Some).map_err(|(span, what)| self.at(span, &what))
    }

    /// The links of every node, by node: a device may be called otherwise on each.
    fn links(&self, file: &File, of: &link::Of) -> Result<Vec<Vec<Link>>, ConfigError> {
        let end = self.text.len()..self.text.len();
        if file.links.is_empty() || file.links.len() > LINKS_MAX {
            let what = format!(
                "{} [[link]] tables: there must be 1 to {LINKS_MAX}, and two make failover safe",
                file.links.len()
            );
            return Err(self.at(end, &what));
        }
        of.nodes.iter().map(|node| self.links_of(node.id, file, of)).collect()
    }

    fn links_of(&self, node: NodeId, file: &File, of: &link::Of) -> Result<Vec<Link>, ConfigError> {
        let mut links: Vec<Link> = Vec::new();
        for (n, link) in file.links.iter().enumerate() {
            let (name, kind) = link::kind(link.get_ref(), of, node)
                .map_err(|(key, what)| self.at(self.key(link.span(), key), &what))?;
            if let Some(other) = links.iter().find(|l| link::same_device(&l.kind, &kind)) {
                let advice = link::apart(&kind);
                let what = format!("{name} uses what {} uses already: {advice}", other.name);
                return Err(self.at(link.span(), &what));
            }
            links.push(Link { id: LinkId(n as u8), name, kind });
        }
        Ok(links)
    }

    /// Where a key of a table stands, or else the table.
    fn key(&self, table: Range<usize>, key: &str) -> Range<usize> {
        let mut at = table.start;
        for line in self.text[table.start..].split_inclusive('\n') {
            if at > table.start && line.starts_with('[') {
                break;
            }
            let word = line.trim_start();
            let rest = word.strip_prefix(key).map(str::trim_start);
            if !key.is_empty() && rest.is_some_and(|rest| rest.starts_with('=')) {
                let start = at + line.len() - word.len();
                return start..start + key.len();
            }
            at += line.len();
        }
        table
    }
}

/// `500ms`, `5s`, `2min`, `1h`, also with a fraction.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let advice = || format!("\"{text}\" is no time: write a number and ms, s, min or h: \"500ms\"");
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(advice)?;
    let number: f64 = text[..split].parse().map_err(|_| advice())?;
    // In nanoseconds, so that a time is the same in whatever unit it is written.
    let unit = match text[split..].trim() {
        "ms" => 1e6,
        "s" => 1e9,
        "min" => 60e9,
        "h" => 3600e9,
        _ => return Err(advice()),
    };
    let nanos = (number * unit).round();
    if !(0.0..=86_400e9 * 30.0).contains(&nanos) {
        return Err(format!("\"{text}\" is too long: at most 30 days"));
    }
    Ok(Duration::from_nanos(nanos as u64))
}

pub fn show(d: Duration) -> String {
    match d.as_millis() {
        ms if ms % 1000 == 0 => format!("{}s", ms / 1000),
        ms => format!("{ms}ms"),
    }
}

/// Of all settings that must agree between the nodes, in their parsed form: comments and order of
/// keys do not matter.
fn agreed(
    cluster: &str,
    nodes: &[Node],
    links: &[Vec<Link>],
    timing: &Timing,
    safety: &Safety,
) -> String {
    let links = match links.iter().all(|of_one| *of_one == links[0]) {
        true => format!("{:?}", links[0]),
        false => format!("{links:?}"),
    };
    format!("{cluster:?} {nodes:?} {links} {timing:?} {safety:?}")
}

fn fingerprint(text: &str) -> u64 {
    let digest = Sha256::digest(text.as_bytes());
    u64::from_be_bytes(digest[..8].try_into().expect("a digest is longer"))
}
