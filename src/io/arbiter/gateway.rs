//! etcd's JSON gateway over HTTP: which endpoint to ask, for how long, as whom, and what is wrong
//! when it does not answer, in words for people.

use super::etcd::{ANOTHER, number};
use crate::config::arbiter::etcd::Settings;
use crate::core::time::Instant;
use crate::io::clock;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig};

/// Longest answer that is read.
const ANSWER_MAX: u64 = 1024 * 1024;
/// Longest file of certificates or a password.
const FILE_MAX: u64 = 1024 * 1024;
/// An endpoint that failed at once is asked once more, on a fresh connection.
const ROUNDS: usize = 2;
/// Connections are kept open from one question to the next.
const IDLE: Duration = Duration::from_secs(60);

/// Codes of gRPC that say nothing of the question: another endpoint may answer it.
const ELSEWHERE: [u64; 6] = [1, 2, 4, 8, 13, 14];
const UNAUTHENTICATED: u64 = 16;

pub struct Gateway {
    settings: Settings,
    /// Made anew from the files after a question that nobody answered.
    agent: Option<ureq::Agent>,
    token: Option<String>,
    /// Whoever answered last is asked first.
    first: usize,
    /// The etcd cluster that answered first: two of them would be two arbiters.
    cluster: Option<String>,
}

/// What is asked of an endpoint, and how long it has.
#[derive(Clone, Copy)]
struct Call<'a> {
    path: &'a str,
    body: &'a Value,
    until: Instant,
}

/// Why one endpoint gave no answer.
enum Trouble {
    /// It was not reached, or cannot answer now; another may.
    Away(String),
    /// The token counts no more: it ran out, or etcd was restarted.
    Token(String),
    /// It said no, and would say so again.
    Said(String),
}

impl Trouble {
    fn words(self) -> String {
        match self {
            Trouble::Away(words) | Trouble::Token(words) | Trouble::Said(words) => words,
        }
    }
}

impl Gateway {
    pub fn new(settings: &Settings) -> Gateway {
        Gateway { settings: settings.clone(), agent: None, token: None, first: 0, cluster: None }
    }

    pub fn endpoints(&self) -> &[String] {
        &self.settings.endpoints
    }

    /// Asks one endpoint after the other until one answers: a wrong one hides none that is right.
    /// What is asked may be carried out more than once.
    pub fn call(&mut self, path: &str, body: &Value, until: Instant) -> Result<Value, String> {
        let all = self.settings.endpoints.len();
        let (mut wrong, mut again): (Vec<String>, bool) = (Vec::new(), false);
        for n in 0..all * ROUNDS {
            let left = until.since(clock::now());
            if left.is_zero() || (n >= all && !again) {
                break;
            }
            let which = (self.first + n) % all;
            let share = left / (all - n % all) as u32;
            match self.one(which, Call { path, body, until: clock::now() + share }) {
                Ok(reply) => {
                    self.first = which;
                    return Ok(reply);
                }
                Err(trouble) => {
                    again |= matches!(trouble, Trouble::Away(_));
                    if n < all {
                        wrong.push(trouble.words());
                    }
                }
            }
        }
        self.agent = None;
        match wrong.is_empty() {
            true => Err("no time was left to ask etcd".into()),
            false => Err(wrong.join("; ")),
        }
    }

    /// Asks this endpoint only.
    pub fn ask_one(
        &mut self,
        which: usize,
        path: &str,
        body: &Value,
        until: Instant,
    ) -> Result<Value, String> {
        self.one(which, Call { path, body, until }).map_err(Trouble::words)
    }

    fn one(&mut self, which: usize, call: Call) -> Result<Value, Trouble> {
        let asked = self.signed(which, call);
        let reply = match asked {
            Err(Trouble::Token(_)) => {
                self.token = None;
                self.signed(which, call)?
            }
            other => other?,
        };
        let Some(of) = reply["header"]["cluster_id"].as_str() else {
            let endpoint = &self.settings.endpoints[which];
            return Err(Trouble::Said(format!("{endpoint}: this is no etcd: correct endpoints =")));
        };
        match &self.cluster {
            None => self.cluster = Some(of.into()),
            Some(known) if known != of => {
                return Err(Trouble::Said(format!(
                    "{}: {ANOTHER} than the others: one only may give leases: correct endpoints =",
                    self.settings.endpoints[which]
                )));
            }
            Some(_) => {}
        }
        Ok(reply)
    }

    /// As the configured user, if there is one.
    fn signed(&mut self, which: usize, call: Call) -> Result<Value, Trouble> {
        if let Some(user) = self.settings.user.clone()
            && self.token.is_none()
        {
            let file = self.settings.password_file.clone().unwrap_or_default();
            let password = secret(&file).map_err(Trouble::Said)?;
            let login = json!({ "name": user, "password": password.trim_end_matches('\n') });
            let reply =
                self.post(which, Call { path: "auth/authenticate", body: &login, ..call })?;
            self.token = reply["token"].as_str().map(str::to_string);
        }
        self.post(which, call)
    }

    fn post(&mut self, which: usize, call: Call) -> Result<Value, Trouble> {
        let Call { path, body, until } = call;
        let endpoint = self.settings.endpoints[which].clone();
        let at = |words: String| format!("{endpoint}: {words}");
        let left = until.since(clock::now());
        if left.is_zero() {
            return Err(Trouble::Away(at("no time was left to ask it".into())));
        }
        let agent = match &self.agent {
            Some(agent) => agent.clone(),
            None => agent(&self.settings).map_err(Trouble::Said)?,
        };
        self.agent = Some(agent.clone());
        let mut request = agent.post(format!("{endpoint}/v3/{path}"));
        if let Some(token) = &self.token {
            request = request.header("Authorization", token);
        }
        let request = request.config().timeout_global(Some(left)).build();
        let answered = request.send(body.to_string()).and_then(|mut response| {
            let status = response.status().as_u16();
            let limited = response.body_mut().with_config().limit(ANSWER_MAX);
            Ok((status, limited.read_to_string()?))
        });
        match answered {
            Ok((200, text)) => serde_json::from_str(&text)
                .map_err(|_| Trouble::Away(at("its answer is no JSON: is this etcd?".into()))),
            Ok((status, text)) => Err(refused(&endpoint, path, status, &text)),
            Err(error) => Err(Trouble::Away(at(self.advice(&endpoint, &error, left)))),
        }
    }

    /// Its version; asked without a user.
    pub fn version(&mut self, which: usize, until: Instant) -> Result<String, String> {
        let endpoint = self.settings.endpoints[which].clone();
        let agent = agent(&self.settings)?;
        let left = until.since(clock::now());
        let request = agent.get(format!("{endpoint}/version"));
        let answered = request.config().timeout_global(Some(left)).build().call();
        let text = answered.and_then(|mut r| r.body_mut().read_to_string());
        let text = text.map_err(|e| format!("{endpoint}: {}", self.advice(&endpoint, &e, left)))?;
        let parsed: Value = serde_json::from_str(&text).unwrap_or_default();
        let version = parsed["etcdserver"].as_str().map(str::to_string);
        version.ok_or_else(|| format!("{endpoint}: this is no etcd: correct endpoints ="))
    }

    /// What is wrong, and what to do.
    fn advice(&self, endpoint: &str, error: &ureq::Error, waited: Duration) -> String {
        let inner = match error {
            ureq::Error::Rustls(e) => Some(e),
            ureq::Error::Io(e) => e.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>()),
            _ => None,
        };
        if let Some(tls) = inner {
            return tls_advice(tls, self.settings.cert.is_some());
        }
        match error {
            ureq::Error::Timeout(_) => format!("no answer within {}ms", waited.as_millis()),
            ureq::Error::HostNotFound => "this name is not known here: write an address".into(),
            ureq::Error::Io(e) if e.kind() == std::io::ErrorKind::ConnectionRefused => {
                "nothing listens there: is etcd running, and is this in its \
                 --listen-client-urls?"
                    .into()
            }
            ureq::Error::Io(e) if closed(e.kind()) && endpoint.starts_with("http:") => {
                format!("{e}: if etcd speaks TLS there, write https:// and ca = in [arbiter.etcd]")
            }
            // It closed before its reason was read, or it gave none.
            ureq::Error::Io(e) if closed(e.kind()) => format!(
                "{e}: perhaps {}, or it does not speak TLS: then write http://, or give etcd its \
                 --cert-file",
                refuses(self.settings.cert.is_some())
            ),
            ureq::Error::Io(e) if e.to_string().contains("lookup address") => {
                format!("{e}: write an address")
            }
            ureq::Error::Io(e) => e.to_string(),
            other => other.to_string(),
        }
    }
}

/// What etcd said instead of an answer.
fn refused(endpoint: &str, path: &str, status: u16, text: &str) -> Trouble {
    let parsed: Value = serde_json::from_str(text).unwrap_or_default();
    let Some(said) = parsed["error"].as_str().or_else(|| parsed["message"].as_str()) else {
        let line = text.lines().next().unwrap_or_default().trim();
        let advice = match line.contains("HTTP request to an HTTPS server") {
            true => ": write https:// and ca = in [arbiter.etcd]".to_string(),
            false => format!(" to {path}: this is no etcd from 3.4 on with its JSON gateway"),
        };
        return Trouble::Said(format!("{endpoint}: {status} {line}{advice}"));
    };
    let code = number(&parsed["code"]).unwrap_or(0);
    // Both are told before anything was carried out.
    if code == UNAUTHENTICATED || said.contains("auth store is old") {
        return Trouble::Token(format!("{endpoint}: {said}"));
    }
    let advice = match said {
        s if s.contains("authentication failed") => {
            ": look at user and password-file in [arbiter.etcd]"
        }
        s if s.contains("authentication is not enabled") => {
            ": etcd has no users switched on: etcdctl auth enable, or drop user and password-file"
        }
        s if s.contains("user name is empty") => ": etcd asks who this is: user and password-file",
        s if s.contains("permission denied") => {
            ": etcdctl role grant-permission ROLE --prefix=true readwrite PREFIX/, and \
             etcdctl user grant-role USER ROLE"
        }
        s if s.contains("database space exceeded") => {
            ": compact and defragment etcd, then etcdctl alarm disarm; see \
             --auto-compaction-retention of etcd"
        }
        _ => "",
    };
    let words = format!("{endpoint}: {said}{advice}");
    match ELSEWHERE.contains(&code) {
        true => Trouble::Away(words),
        false => Trouble::Said(words),
    }
}

/// A handshake that etcd ended.
fn refuses(certified: bool) -> &'static str {
    match certified {
        false => "it wants a certificate of ours: cert and key in [arbiter.etcd]",
        true => {
            "it does not accept cert = of [arbiter.etcd]: look at --trusted-ca-file of etcd, and \
             at the certificate's dates"
        }
    }
}

fn closed(kind: std::io::ErrorKind) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    [BrokenPipe, ConnectionReset, UnexpectedEof].contains(&kind)
}

fn tls_advice(error: &rustls::Error, certified: bool) -> String {
    use rustls::{AlertDescription as Alert, CertificateError as Bad, Error};
    match error {
        Error::InvalidCertificate(Bad::UnknownIssuer | Bad::BadSignature) => {
            "its certificate is not signed by what ca = in [arbiter.etcd] names".into()
        }
        Error::InvalidCertificate(Bad::NotValidForName | Bad::NotValidForNameContext { .. }) => {
            "its certificate is not for this name: give it a subjectAltName that says what \
             endpoints = says (IP: for an address)"
                .into()
        }
        Error::InvalidCertificate(Bad::Expired | Bad::ExpiredContext { .. }) => {
            "its certificate has expired".into()
        }
        Error::InvalidCertificate(Bad::NotValidYet | Bad::NotValidYetContext { .. }) => {
            "its certificate is not valid yet: look at the clocks of both machines".into()
        }
        Error::InvalidMessage(_) => {
            "it does not speak TLS: write http://, or give etcd its --cert-file".into()
        }
        // Go says bad certificate also where there was none.
        Error::AlertReceived(
            Alert::CertificateRequired
            | Alert::BadCertificate
            | Alert::UnknownCA
            | Alert::CertificateExpired
            | Alert::UnsupportedCertificate
            | Alert::CertificateUnknown,
        ) => format!("{} ({error})", refuses(certified)),
        other => other.to_string(),
    }
}

/// Connections by the files that are there now.
fn agent(settings: &Settings) -> Result<ureq::Agent, String> {
    let roots = match &settings.ca {
        Some(path) => certificates(path, "ca")?,
        None => Vec::new(),
    };
    let client = match (&settings.cert, &settings.key) {
        (Some(cert), Some(key)) => {
            let chain = certificates(cert, "cert")?;
            let text = secret(key)?;
            let parsed = PrivateKeyDer::from_pem_slice(text.as_bytes());
            parsed.map_err(|e| format!("{}: key = needs a PEM file: {e:?}", key.display()))?;
            let key = PrivateKey::from_pem(text.as_bytes()).map_err(|e| e.to_string())?;
            Some(ClientCert::new_with_certs(&chain, key))
        }
        _ => None,
    };
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::new_with_certs(&roots))
        .client_cert(client)
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .build();
    let config = ureq::Agent::config_builder()
        .tls_config(tls)
        .proxy(None)
        .max_redirects(0)
        .http_status_as_error(false)
        .max_idle_age(IDLE)
        .user_agent("hafailover")
        .build();
    Ok(config.into())
}

fn certificates(path: &Path, key: &str) -> Result<Vec<Certificate<'static>>, String> {
    let shown = path.display();
    let text =
        std::fs::read(path).map_err(|e| format!("{shown}: {key} = of [arbiter.etcd]: {e}"))?;
    let parsed: Result<Vec<CertificateDer>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match parsed {
        Ok(all) if !all.is_empty() => {
            Ok(all.iter().map(|der| Certificate::from_der(der).to_owned()).collect())
        }
        Ok(_) => Err(format!("{shown}: {key} = of [arbiter.etcd]: no certificate is in it")),
        Err(e) => Err(format!("{shown}: {key} = of [arbiter.etcd] needs a PEM file: {e:?}")),
    }
}

/// The text of a file that only root can read.
pub fn secret(path: &Path) -> Result<String, String> {
    use std::io::Read;
    let shown = path.display();
    let open = || {
        let file = std::fs::File::open(path)?;
        let meta = file.metadata()?;
        Ok::<_, std::io::Error>((file, meta))
    };
    let (file, meta) = open().map_err(|e| format!("{shown}: {e}"))?;
    if !meta.is_file() || meta.uid() != 0 || meta.mode() & 0o077 != 0 {
        return Err(format!(
            "{shown}: a secret must be a file of root's that nobody else can read: chown root \
             {shown} && chmod 600 {shown}"
        ));
    }
    let mut text = String::new();
    let read = file.take(FILE_MAX).read_to_string(&mut text);
    read.map_err(|e| format!("{shown}: {e}"))?;
    Ok(text)
}
