//! Leases at etcd, through the JSON gateway that every etcd from 3.4 on serves. A question takes a
//! fresh lease of etcd's and hangs the group's key on it in one transaction.
//!
//! Keep-alives are not used: a leader that was frozen and does not know yet that there is another
//! one answers them (etcd-io/etcd#15247). Both halves of a question go through the majority's log.

use super::gateway::Gateway;
use super::txn::{self, Grant, Keys};
use super::{Arbiter, Question};
use crate::config::arbiter::etcd::Settings;
use crate::core::time::Instant;
use crate::core::{LeaseAnswer, LeaseVerb};
use crate::io::clock;
use serde_json::{Value, json};
use std::time::Duration;

/// Said of an endpoint that is not of the cluster that answered first.
pub const ANOTHER: &str = "this endpoint belongs to another etcd cluster";

pub struct Etcd {
    gateway: Gateway,
    prefix: String,
    /// Who asks: for people, beside the epoch.
    node: String,
}

impl Etcd {
    pub fn new(settings: &Settings, node: &str) -> Etcd {
        Etcd { gateway: Gateway::new(settings), prefix: settings.prefix.clone(), node: node.into() }
    }

    fn decide(&mut self, question: &Question, until: Instant) -> Result<LeaseAnswer, String> {
        let keys = Keys::of(&self.prefix, question, &self.node);
        let txn = match question.verb {
            LeaseVerb::Acquire => keys.acquire(&self.grant(question.term, until)?),
            LeaseVerb::Renew => keys.renew(&self.grant(question.term, until)?),
            LeaseVerb::Release => keys.release(),
        };
        let reply = self.gateway.call("kv/txn", &txn, until)?;
        if txn::taken(&reply) {
            return Ok(LeaseAnswer::Granted);
        }
        let (why, top) = keys.refusal(&reply)?;
        Ok(LeaseAnswer::Refused { why, top })
    }

    /// etcd ends a lease late, by its own clock and never early; whole seconds.
    fn grant(&mut self, term: Duration, until: Instant) -> Result<Grant, String> {
        let seconds = term.as_millis().div_ceil(1000).max(1) as u64;
        let reply =
            self.gateway.call("lease/grant", &json!({ "TTL": seconds.to_string() }), until)?;
        let kept = number(&reply["TTL"]).unwrap_or(0);
        if kept < seconds {
            return Err(format!("etcd gave a lease of {kept}s instead of {seconds}s"));
        }
        match (reply["ID"].as_str(), number(&reply["header"]["revision"])) {
            (Some(id), Some(revision)) => Ok(Grant { id: id.into(), revision }),
            _ => Err("etcd gave a lease without a number or a revision".into()),
        }
    }
}

/// One member of etcd, as `check` shows it.
pub struct Member {
    pub version: String,
    pub round_trip: Duration,
    pub has_leader: bool,
    /// Bytes that its store takes.
    pub size: u64,
    revision: u64,
}

impl Etcd {
    /// Every endpoint by itself.
    pub fn members(&mut self, limit: Duration) -> Vec<Result<Member, String>> {
        (0..self.gateway.endpoints().len()).map(|which| self.member(which, limit)).collect()
    }

    fn member(&mut self, which: usize, limit: Duration) -> Result<Member, String> {
        let version = self.gateway.version(which, clock::now() + limit)?;
        let asked = clock::now();
        let reply = self.gateway.ask_one(which, "maintenance/status", &json!({}), asked + limit)?;
        Ok(Member {
            version,
            round_trip: clock::now().since(asked),
            has_leader: number(&reply["leader"]).is_some_and(|id| id != 0),
            size: number(&reply["dbSize"]).unwrap_or(0),
            revision: number(&reply["header"]["revision"]).unwrap_or(0),
        })
    }

    /// Whether a question like this one could be carried out; nothing is. How long the majority
    /// needs for an answer.
    pub fn rehearse(&mut self, question: &Question) -> Result<Duration, String> {
        let asked = clock::now();
        let trial = Keys::of(&self.prefix, question, &self.node).trial();
        self.gateway.call("kv/txn", &trial, asked + question.limit)?;
        Ok(clock::now().since(asked))
    }

    /// Whether etcd still has what was written so many changes before this member's last.
    pub fn keeps(&mut self, member: &Member, changes: u64, limit: Duration) -> bool {
        let Some(revision) = member.revision.checked_sub(changes).filter(|r| *r > 0) else {
            return false;
        };
        let key = txn::encode(&format!("{}/", self.prefix));
        let old = json!({ "key": key, "revision": revision.to_string() });
        self.gateway.call("kv/range", &old, clock::now() + limit).is_ok()
    }
}

impl Arbiter for Etcd {
    fn ask(&mut self, question: &Question) -> LeaseAnswer {
        let asked = clock::now();
        // The rest is for coming back in time on a busy machine.
        let answer = self.decide(question, asked + question.limit * 4 / 5);
        if clock::now().since(asked) >= question.limit {
            return LeaseAnswer::Unknown("the answer came too late".into());
        }
        answer.unwrap_or_else(LeaseAnswer::Unknown)
    }

    fn describe(&self) -> String {
        format!("etcd at {}", self.gateway.endpoints().join(", "))
    }
}

/// 64 bits are text in JSON.
pub fn number(value: &Value) -> Option<u64> {
    value.as_str().and_then(|text| text.parse().ok()).or_else(|| value.as_u64())
}
