//! The configured arbiter: whether it is reached, how fast, and whether it would do what it will be
//! asked. Nothing is written there.

use super::Findings;
use crate::config::arbiter::{self, Back};
use crate::config::load;
use crate::config::settings::Settings;
use crate::config::target::{self, Target};
use crate::core::grant::NOT_HELD;
use crate::core::heartbeat::PAGE_GROUPS;
use crate::core::name::{Epoch, GroupName};
use crate::core::{LeaseAnswer, LeaseVerb};
use crate::io::arbiter::etcd::{ANOTHER, Etcd};
use crate::io::arbiter::witness::Witness;
use crate::io::arbiter::{Arbiter, Asker, Question};
use crate::wire::keys::Keys;
use std::path::Path;
use std::time::{Duration, Instant};

/// For each question.
const LIMIT: Duration = Duration::from_secs(3);
/// An etcd that still has what was before so many changes never forgets anything: half a day of
/// one group, two changes a second.
const CHANGES: u64 = 100_000;
const MIB: u64 = 1024 * 1024;

pub fn look(root: &Path, settings: &Settings, keys: Option<Keys>, findings: &mut Findings) {
    let Some(arbiter) = &settings.arbiter else { return };
    let asks = root == Path::new("/");
    match &arbiter.back {
        Back::Etcd(written) => {
            safe(written, findings);
            if asks {
                etcd(settings, written, findings);
            }
        }
        Back::Sanlock(at) if asks => {
            let question = rehearsal(settings, LeaseVerb::Renew);
            super::sanlock::look(settings, at, question, findings);
        }
        Back::Sanlock(at) => findings.note(format!("arbiter: {}", at.chain())),
        Back::Witness(at) => {
            if let Some(keys) = keys.filter(|_| asks) {
                witness(settings, at, keys, arbiter.times.wait, findings);
            }
        }
    }
}

/// A renewal of what nobody has is refused, and changes nothing.
fn witness(
    settings: &Settings,
    at: &arbiter::witness::Settings,
    keys: Keys,
    term: Duration,
    findings: &mut Findings,
) {
    let (cluster, address) = (settings.cluster.clone(), at.address);
    let node = settings.nodes[usize::from(settings.me.0)].name.clone();
    let question = Question { term, ..rehearsal(settings, LeaseVerb::Renew) };
    let asker = Asker { cluster: cluster.clone(), node, nodes: Vec::new(), keys };
    let asked = Instant::now();
    let answer = Witness::new(at.clone(), asker).map(|mut witness| witness.ask(&question));
    match answer {
        Ok(LeaseAnswer::Refused { why, .. }) if why == NOT_HELD => findings.note(format!(
            "arbiter: the witness at {address} answers in {}",
            shown(asked.elapsed())
        )),
        Ok(LeaseAnswer::Granted) => findings.error(format!(
            "arbiter: the witness at {address} grants what nobody has: this is no witness"
        )),
        Ok(LeaseAnswer::Refused { why, .. }) => {
            findings.error(format!("arbiter: the witness at {address} would refuse: {why}"));
        }
        Ok(LeaseAnswer::Unknown(_)) => findings.error(format!(
            "arbiter: the witness at {address} does not answer: is hafailover-witness running \
             there, does its witness.toml name cluster {cluster} with this key file, and does the \
             firewall let UDP port {} through?",
            address.port()
        )),
        Err(error) => findings.error(format!("arbiter: {error}")),
    }
}

/// A question about a group that is none.
fn rehearsal(settings: &Settings, verb: LeaseVerb) -> Question {
    Question {
        cluster: settings.cluster.clone(),
        group: GroupName("check".into()),
        epoch: Epoch::default(),
        verb,
        term: LIMIT,
        limit: LIMIT,
    }
}

/// Whether each group is vouched for often enough: a heartbeat has vouchers for eight.
pub fn vouchers(settings: &Settings, targets: &[Target], findings: &mut Findings) {
    let Some(arbiter) = &settings.arbiter else { return };
    let groups = targets.iter().filter_map(|t| target::settle(t, settings).ok());
    let Some(longest) = groups.map(|g| g.policy.stop_budget).max() else { return };
    let (keepalive, lease) = (settings.timing.keepalive, arbiter.times.lease);
    let round = keepalive * targets.len().div_ceil(PAGE_GROUPS) as u32;
    let left = lease.saturating_sub(longest);
    // One may be lost.
    if round * 2 >= left {
        let show = load::show;
        findings.error(format!(
            "arbiter: each of {} groups is vouched for once in {} ({PAGE_GROUPS} in a heartbeat, \
             keepalive {}), which twice is not less than lease {} - StopBudget {}: losing the \
             arbiter alone would stop groups: a longer lease or a shorter keepalive",
            targets.len(),
            show(round),
            show(keepalive),
            show(lease),
            show(longest)
        ));
    }
}

fn safe(etcd: &arbiter::etcd::Settings, findings: &mut Findings) {
    let plain = |e: &&String| e.starts_with("http:") && !e.starts_with("http://127.");
    if let Some(endpoint) = etcd.endpoints.iter().find(plain) {
        findings.warn(match &etcd.user {
            Some(_) => format!(
                "arbiter: the password of etcd goes to {endpoint} in clear: write https:// and ca ="
            ),
            None => format!(
                "arbiter: whoever reaches {endpoint} can end the leases of this cluster: use \
                 https:// with ca, cert and key, see hafailover-recipes(7)"
            ),
        });
    }
    if etcd.endpoints.len() == 1 {
        findings.note(
            "arbiter: one endpoint of etcd only: while that member is down no lease is granted; \
             list every member",
        );
    }
}

fn etcd(settings: &Settings, written: &arbiter::etcd::Settings, findings: &mut Findings) {
    let mut etcd = Etcd::new(written, &settings.nodes[usize::from(settings.me.0)].name);
    let members = etcd.members(LIMIT);
    let reached = members.iter().any(Result::is_ok);
    for (endpoint, member) in written.endpoints.iter().zip(&members) {
        match member {
            Ok(member) => findings.note(format!(
                "arbiter: etcd {} at {endpoint} answers in {}",
                member.version,
                shown(member.round_trip)
            )),
            // Another etcd is another arbiter, and grants what this one has granted.
            Err(words) if reached && !words.contains(ANOTHER) => {
                findings.warn(format!("arbiter: {words}"));
            }
            Err(words) => findings.error(format!("arbiter: {words}")),
        }
        if member.as_ref().is_ok_and(|m| !m.has_leader) {
            findings.warn(format!(
                "arbiter: etcd at {endpoint} knows no leader: it is cut off from the other \
                 members, or most of them are down"
            ));
        }
    }
    if !reached {
        return;
    }
    match etcd.rehearse(&rehearsal(settings, LeaseVerb::Acquire)) {
        Ok(took) => findings.note(format!(
            "arbiter: the majority of etcd answers in {}, and lets this node have leases below {}",
            shown(took),
            written.prefix
        )),
        Err(words) => {
            return findings.error(format!("arbiter: no lease would be granted: {words}"));
        }
    }
    let Some(member) = members.iter().flatten().next() else { return };
    if etcd.keeps(member, CHANGES, LIMIT) {
        findings.warn(format!(
            "arbiter: etcd keeps every change for ever ({} MiB by now), and each renewal is one: \
             when its quota is reached (2 GiB, unless configured) it takes no more: give it \
             --auto-compaction-retention=1",
            member.size / MIB
        ));
    }
}

pub fn shown(time: Duration) -> String {
    match time.as_millis() {
        0..10 => format!("{:.1}ms", time.as_secs_f64() * 1000.0),
        ms => format!("{ms}ms"),
    }
}
