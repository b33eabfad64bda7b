//! witness.toml: what `hafailover witness` runs by, on a machine that need not be a node.

use super::arbiter::witness::PORT;
use super::load::{self, ConfigError, Source, parse_duration};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::Spanned;

/// Where it is.
pub const FILE: &str = "/etc/hafailover/witness.toml";
const STATE: &str = "/var/lib/hafailover-witness";
const LONGEST: Duration = Duration::from_secs(120);
/// Most clusters of one witness.
const CLUSTERS_MAX: usize = 1000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    address: Option<IpAddr>,
    port: Option<Spanned<u16>>,
    longest: Option<Spanned<String>>,
    state: Option<PathBuf>,
    #[serde(default, rename = "cluster")]
    clusters: Vec<Cluster>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cluster {
    name: Spanned<String>,
    keys: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub listen: SocketAddr,
    /// Longest time for which a lease is kept from others; without its memory it waits for so long.
    pub longest: Duration,
    /// The directory of what it must not forget.
    pub state: PathBuf,
    /// Each cluster's name, and where its keys are.
    pub clusters: Vec<(String, PathBuf)>,
}

pub fn load(path: &Path) -> Result<Settings, ConfigError> {
    parse(&load::text(path)?, &path.display().to_string())
}

pub fn parse(text: &str, name: &str) -> Result<Settings, ConfigError> {
    let source = Source { text, name };
    let file: File = source.read()?;
    let end = text.len()..text.len();
    if file.clusters.is_empty() || file.clusters.len() > CLUSTERS_MAX {
        let what = format!(
            "{} [[cluster]] tables: there must be 1 to {CLUSTERS_MAX}, each with its name and the \
             path of a copy of its key file",
            file.clusters.len()
        );
        return Err(source.at(end, &what));
    }
    let (mut seen, mut clusters) = (BTreeSet::new(), Vec::new());
    for cluster in file.clusters {
        let (span, name) = (cluster.name.span(), cluster.name.into_inner());
        if !(1..=64).contains(&name.len()) {
            return Err(source.at(span, "the cluster's name must have 1 to 64 bytes"));
        }
        if !seen.insert(name.clone()) {
            return Err(source.at(span, "this cluster is listed twice: keep one"));
        }
        clusters.push((name, cluster.keys));
    }
    let longest = match &file.longest {
        None => LONGEST,
        Some(text) => {
            let longest = parse_duration(text.get_ref());
            let longest = longest.map_err(|what| source.at(text.span(), &what))?;
            if !(Duration::from_secs(3)..=Duration::from_secs(7200)).contains(&longest) {
                return Err(source.at(text.span(), "longest must be from 3s to 2h"));
            }
            longest
        }
    };
    let port = match &file.port {
        Some(port) if *port.get_ref() == 0 => {
            return Err(source.at(port.span(), "port must be from 1 to 65535"));
        }
        Some(port) => *port.get_ref(),
        None => PORT,
    };
    let address = file.address.unwrap_or(Ipv6Addr::UNSPECIFIED.into());
    Ok(Settings {
        listen: SocketAddr::new(address, port),
        longest,
        state: file.state.unwrap_or_else(|| STATE.into()),
        clusters,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "[[cluster]]\nname = \"office\"\nkeys = \"/etc/hafailover/keys\"\n";

    #[test]
    fn the_smallest_file_is_one_cluster() {
        let settings = parse(GOOD, "w.toml").expect("good");
        assert_eq!((settings.listen.port(), settings.longest.as_secs()), (PORT, 120));
        assert_eq!(settings.clusters.len(), 1);
    }

    #[test]
    fn wrong_input_has_its_place() {
        let wrong = [
            ("", "w.toml:1", "[[cluster]]"),
            (&format!("{GOOD}{GOOD}"), "w.toml:5", "twice"),
            (&format!("longest = \"1s\"\n{GOOD}"), "w.toml:1", "3s to 2h"),
            (&format!("port = 0\n{GOOD}"), "w.toml:1", "65535"),
            (&format!("colour = 1\n{GOOD}"), "w.toml:1", "colour"),
            ("[[cluster]]\nname = \"\"\nkeys = \"/k\"\n", "w.toml:2", "1 to 64"),
        ];
        for (text, place, word) in wrong {
            let error = parse(text, "w.toml").expect_err(text).to_string();
            assert!(error.starts_with(place) && error.contains(word), "{error}");
        }
    }
}
