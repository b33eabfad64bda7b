//! `[[fence]]`: how a node is made sure to be off. Secrets are never here: the file is the same on
//! every node, is compared between them and may be read by many.

use super::load::parse_duration;
use super::settings::{Fence, FenceHow, Node};
use crate::core::policy::{FenceKind, FencePolicy, Fences, OnSilence};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::Spanned;

/// Where agents are (package fence-agents).
const AGENTS: &str = "/usr/sbin";
const TIMEOUT: Duration = Duration::from_secs(60);
const TIMEOUT_MAX: Duration = Duration::from_secs(600);
const DRILL: Duration = Duration::from_secs(24 * 3600);
const DRILL_LEAST: Duration = Duration::from_secs(10);
const ATTEMPTS: u32 = 3;
const ATTEMPTS_MAX: u32 = 20;
/// Who has less to lose waits for so long, unless `fence-delay` says otherwise.
pub const DELAY: Duration = Duration::from_secs(5);

/// One `[[fence]]` as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Written {
    node: Spanned<String>,
    kind: Option<FenceKind>,
    agent: Option<Spanned<String>>,
    #[serde(default)]
    options: BTreeMap<String, Spanned<toml::Value>>,
    secrets: Option<Spanned<PathBuf>>,
    confirm: Option<Confirm>,
    after: Option<Spanned<After>>,
    unit: Option<Spanned<String>>,
    check_unit: Option<Spanned<String>>,
    timeout: Option<Spanned<String>>,
    attempts: Option<Spanned<u32>>,
    on_failure: Option<OnFailure>,
    drill: Option<Spanned<String>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Confirm {
    Status,
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum After {
    Off,
    On,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum OnFailure {
    Hold,
    Silence,
}

/// Where it is wrong, and what.
type Wrong = (Range<usize>, String);

/// All of them, checked.
pub fn fences(written: &[Spanned<Written>], nodes: &[Node]) -> Result<Vec<Fence>, Wrong> {
    let mut fences: Vec<Fence> = Vec::new();
    for fence in written {
        let new = one(fence.get_ref(), fence.span(), nodes)?;
        if fences.iter().any(|f| f.node == new.node) {
            let name = fence.get_ref().node.get_ref();
            let what = format!("node {name} has two [[fence]] tables: keep one");
            return Err((fence.get_ref().node.span(), what));
        }
        fences.push(new);
    }
    Ok(fences)
}

fn one(fence: &Written, whole: Range<usize>, nodes: &[Node]) -> Result<Fence, Wrong> {
    let name = fence.node.get_ref();
    let Some(node) = nodes.iter().find(|n| n.name == *name) else {
        return Err((fence.node.span(), format!("{name} is no [[node]]: correct the name")));
    };
    let how = match (&fence.agent, &fence.unit) {
        (Some(agent), None) => by_agent(fence, agent)?,
        (None, Some(unit)) => by_unit(fence, unit)?,
        (Some(_), Some(unit)) => {
            return Err((unit.span(), "agent and unit: write one of them".into()));
        }
        (None, None) => {
            let what = "what fences it? agent = \"fence_ipmilan\" or another program of \
                        fence-agents, or unit = \"NAME@.service\"";
            return Err((whole, what.into()));
        }
    };
    let Some(kind) = fence.kind else {
        let what = "kind = \"power\" (the node is then off) or kind = \"storage\" (it is then cut \
                    from the storage): write which";
        return Err((whole, what.into()));
    };
    if let Some(after) = fence.after.as_ref().filter(|_| kind == FenceKind::Storage)
        && *after.get_ref() == After::On
    {
        let what = "after = \"on\" with kind = \"storage\" would give the storage back to a node \
                    that may still write: remove it";
        return Err((after.span(), what.into()));
    }
    let can_drill = !matches!(&how, FenceHow::Unit { check: None, .. });
    let drill = duration(&fence.drill, DRILL, DRILL_LEAST, Duration::MAX)?;
    Ok(Fence {
        node: node.id,
        policy: FencePolicy {
            kind,
            by: how.words(),
            attempts: attempts(fence)?,
            timeout: duration(&fence.timeout, TIMEOUT, Duration::from_secs(1), TIMEOUT_MAX)?,
            failed: match fence.on_failure {
                None | Some(OnFailure::Hold) => OnSilence::Hold,
                Some(OnFailure::Silence) => OnSilence::Takeover,
            },
            drill: can_drill.then_some(drill),
        },
        how,
    })
}

fn attempts(fence: &Written) -> Result<u32, Wrong> {
    let Some(attempts) = &fence.attempts else { return Ok(ATTEMPTS) };
    match *attempts.get_ref() {
        n @ 1..=ATTEMPTS_MAX => Ok(n),
        n => Err((attempts.span(), format!("attempts = {n}: write 1 to {ATTEMPTS_MAX}"))),
    }
}

fn duration(
    value: &Option<Spanned<String>>,
    usual: Duration,
    least: Duration,
    most: Duration,
) -> Result<Duration, Wrong> {
    let Some(value) = value else { return Ok(usual) };
    let time = parse_duration(value.get_ref()).map_err(|what| (value.span(), what))?;
    let show = super::load::show;
    match time {
        t if t < least => Err((value.span(), format!("too short: at least {}", show(least)))),
        t if t > most => Err((value.span(), format!("too long: at most {}", show(most)))),
        t => Ok(t),
    }
}

fn by_agent(fence: &Written, agent: &Spanned<String>) -> Result<FenceHow, Wrong> {
    let name = agent.get_ref();
    let good = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    let path = match name.strip_prefix('/') {
        Some(_) => PathBuf::from(name),
        None if !name.is_empty() && name.chars().all(good) => Path::new(AGENTS).join(name),
        None => {
            let what = format!("agent is a program in {AGENTS}, or a path from / on");
            return Err((agent.span(), what));
        }
    };
    if let Some(check) = &fence.check_unit {
        let what = "check-unit goes with unit; an agent is asked for its status".into();
        return Err((check.span(), what));
    }
    let mut options = BTreeMap::new();
    for (key, value) in &fence.options {
        options.insert(key.clone(), option(key, value)?);
    }
    let secrets = fence.secrets.as_ref();
    if let Some(path) = secrets.filter(|p| !p.get_ref().is_absolute()) {
        return Err((path.span(), "secrets is the path of a file, from / on".into()));
    }
    Ok(FenceHow::Agent {
        agent: path,
        options,
        secrets: secrets.map(|p| p.get_ref().clone()),
        confirm: fence.confirm != Some(Confirm::None),
        on_again: fence.after.as_ref().is_some_and(|a| *a.get_ref() == After::On),
    })
}

/// An option of the agent as it goes to its standard input.
fn option(key: &str, value: &Spanned<toml::Value>) -> Result<String, Wrong> {
    let wrong = |what: String| Err((value.span(), what));
    let good = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    if key.is_empty() || !key.chars().all(good) {
        return wrong(format!("{key:?} is no option of an agent: letters, digits, '-', '_'"));
    }
    if key == "action" {
        return wrong("action is set by hafailover: off, status, on".into());
    }
    let secret = ["passw", "secret", "token", "community"].iter().any(|s| key.contains(s));
    if secret && !key.ends_with("_script") {
        return wrong(format!(
            "{key} is a secret: write the line {key}=... into a file for root alone (chmod 600) \
             and secrets = \"/etc/hafailover/FILE\" here"
        ));
    }
    let text = match value.get_ref() {
        toml::Value::String(text) => text.clone(),
        toml::Value::Integer(number) => number.to_string(),
        toml::Value::Boolean(yes) => u8::from(*yes).to_string(),
        _ => return wrong(format!("{key} must be a text, a number, true or false")),
    };
    if text.contains(['\n', '\0']) {
        return wrong(format!("{key} must be one line"));
    }
    Ok(text)
}

fn by_unit(fence: &Written, unit: &Spanned<String>) -> Result<FenceHow, Wrong> {
    let of_agents = [
        fence.options.values().next().map(Spanned::span),
        fence.secrets.as_ref().map(Spanned::span),
    ];
    if let Some(span) = of_agents.into_iter().flatten().next() {
        return Err((span, "options and secrets go with agent; a unit has its own".into()));
    }
    if fence.after.is_some() {
        return Err((unit.span(), "after goes with agent; a unit may do that itself".into()));
    }
    let confirm = fence.confirm == Some(Confirm::Status);
    if confirm && fence.check_unit.is_none() {
        let what = "confirm = \"status\" needs check-unit = \"NAME@.service\", which exits with 3 \
                    when the node is off";
        return Err((unit.span(), what.into()));
    }
    let check = fence.check_unit.as_ref().map(template).transpose()?;
    Ok(FenceHow::Unit { unit: template(unit)?, check, confirm })
}

fn template(unit: &Spanned<String>) -> Result<String, Wrong> {
    let name = unit.get_ref();
    let good = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    match name.strip_suffix("@.service") {
        Some(stem) if !stem.is_empty() && stem.chars().all(good) => Ok(name.clone()),
        _ => {
            let what = "a template is needed: NAME@.service, which is started with the node's name";
            Err((unit.span(), what.into()))
        }
    }
}

/// The text of a file of secrets, which is guarded as the key file is.
pub fn secrets(path: &Path) -> Result<String, String> {
    if !path.exists() {
        return Err(format!(
            "{0}: there is no such file: write lines like password=... into it, and chmod 600 {0}",
            path.display()
        ));
    }
    super::keys::read(path)
}

impl FenceHow {
    fn words(&self) -> String {
        match self {
            FenceHow::Agent { agent, .. } => {
                agent.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
            }
            FenceHow::Unit { unit, .. } => unit.clone(),
        }
    }
}

/// `my-fence@.service` for n1: `my-fence@n1.service`.
pub fn instance(template: &str, node: &str) -> String {
    // systemd.unit(5): a dash in an instance stands for a slash.
    let escaped = node.replace('-', "\\x2d");
    template.replacen("@.", &format!("@{escaped}."), 1)
}

/// What the core runs by.
pub fn policies(delay: Duration, fences: &[Fence]) -> Fences {
    Fences { delay, nodes: fences.iter().map(|f| (f.node, f.policy.clone())).collect() }
}
