//! The configured arbiter: whether it is reached, how fast, and whether it would do what it will be
//! asked. Nothing is written there.

use super::Findings;
use crate::config::arbiter::{self, Back};
use crate::config::load;
use crate::config::settings::Settings;
use crate::config::target::{self, Target};
use crate::core::LeaseVerb;
use crate::core::heartbeat::PAGE_GROUPS;
use crate::core::name::{Epoch, GroupName};
use crate::io::arbiter::Question;
use crate::io::arbiter::etcd::{ANOTHER, Etcd};
use std::path::Path;
use std::time::Duration;

/// For each question.
const LIMIT: Duration = Duration::from_secs(3);
/// An etcd that still has what was before so many changes never forgets anything: half a day of
/// one group, two changes a second.
const CHANGES: u64 = 100_000;
const MIB: u64 = 1024 * 1024;

pub fn look(root: &Path, settings: &Settings, findings: &mut Findings) {
    match settings.arbiter.as_ref().map(|a| &a.back) {
        Some(Back::Etcd(written)) => {
            safe(written, findings);
            if root == Path::new("/") {
                etcd(settings, written, findings);
            }
        }
        Some(Back::Witness(_)) | None => {}
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
    let question = Question {
        cluster: settings.cluster.clone(),
        group: GroupName("check".into()),
        epoch: Epoch::default(),
        verb: LeaseVerb::Acquire,
        term: LIMIT,
        limit: LIMIT,
    };
    match etcd.rehearse(&question) {
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

fn shown(time: Duration) -> String {
    match time.as_millis() {
        0..10 => format!("{:.1}ms", time.as_secs_f64() * 1000.0),
        ms => format!("{ms}ms"),
    }
}
