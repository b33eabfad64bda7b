//! `[arbiter.etcd]`: where etcd answers, and as whom it is asked.

use serde::Deserialize;
use std::net::Ipv6Addr;
use std::path::PathBuf;

const PREFIX: &str = "/hafailover";
const PREFIX_MAX: usize = 256;
const ENDPOINTS_MAX: usize = 16;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Table {
    pub endpoints: Vec<String>,
    pub prefix: Option<String>,
    pub ca: Option<PathBuf>,
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
    pub user: Option<String>,
    pub password_file: Option<PathBuf>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `http://HOST:PORT` or `https://HOST:PORT`.
    pub endpoints: Vec<String>,
    pub prefix: String,
    /// Who signed the certificates of etcd.
    pub ca: Option<PathBuf>,
    /// Our own certificate, and its key.
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
    pub user: Option<String>,
    pub password_file: Option<PathBuf>,
}

impl Settings {
    /// `HOST:PORT` of each.
    pub fn members(&self) -> impl Iterator<Item = &str> {
        self.endpoints.iter().filter_map(|e| e.split_once("://")).map(|(_, member)| member)
    }
}

impl Table {
    pub fn check(&self) -> Result<Settings, String> {
        if self.endpoints.is_empty() || self.endpoints.len() > ENDPOINTS_MAX {
            return Err("endpoints: write 1 to 16, best every member of the etcd".into());
        }
        let endpoints: Vec<String> =
            self.endpoints.iter().map(|e| endpoint(e)).collect::<Result<_, _>>()?;
        if let Some(n) = (1..endpoints.len()).find(|n| endpoints[..*n].contains(&endpoints[*n])) {
            return Err(format!("endpoints: {} is listed twice: keep one", endpoints[n]));
        }
        let prefix = self.prefix.clone().unwrap_or_else(|| PREFIX.into());
        if !prefix.starts_with('/') || prefix.ends_with('/') || prefix.len() > PREFIX_MAX {
            let what = "prefix begins with a slash and ends without one, in at most 256 bytes: \
                        \"/hafailover\"";
            return Err(what.into());
        }
        if self.ca.is_none() && endpoints.iter().any(|e| e.starts_with("https:")) {
            return Err("https needs ca = \"FILE\": who signed the certificates of etcd".into());
        }
        if self.cert.is_some() != self.key.is_some() {
            return Err("cert and key go together: write both, or none".into());
        }
        if self.user.is_some() != self.password_file.is_some() {
            return Err("user and password-file go together: write both, or none".into());
        }
        let files = [
            ("ca", &self.ca),
            ("cert", &self.cert),
            ("key", &self.key),
            ("password-file", &self.password_file),
        ];
        let relative = |path: &Option<PathBuf>| path.as_ref().is_some_and(|p| p.is_relative());
        if let Some((key, _)) = files.iter().find(|(_, path)| relative(path)) {
            return Err(format!("{key} must be a whole path, from / on"));
        }
        Ok(Settings {
            endpoints,
            prefix,
            ca: self.ca.clone(),
            cert: self.cert.clone(),
            key: self.key.clone(),
            user: self.user.clone(),
            password_file: self.password_file.clone(),
        })
    }
}

/// `http://HOST:PORT` or `https://HOST:PORT`.
fn endpoint(text: &str) -> Result<String, String> {
    let advice =
        || format!("endpoints: \"{text}\" is none: write \"https://HOST:PORT\", without a path");
    let bare = text.strip_suffix('/').unwrap_or(text);
    let rest = bare.strip_prefix("https://").or_else(|| bare.strip_prefix("http://"));
    let (host, port) = rest.and_then(|rest| rest.rsplit_once(':')).ok_or_else(advice)?;
    let good = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => {
            let plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
            !host.is_empty() && host.chars().all(plain)
        }
    };
    let port = port.parse::<u16>().is_ok_and(|port| port != 0);
    if good && port { Ok(bare.to_string()) } else { Err(advice()) }
}
