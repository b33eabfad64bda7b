//! Entries that belong together: one change of a group's owner, with its cause and how long each
//! part of it took. From the entries that are there: a node's journal has its own side only.

use super::entry::{Entry, given};
use super::local;
use crate::core::say::What;
use serde_json::Value;
use std::collections::BTreeMap;

/// One line of the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    Single(Box<Entry>),
    Failover(Box<Failover>),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failover {
    pub at: i64,
    pub group: String,
    /// Empty: nobody had it before, or gets it now.
    pub from: String,
    pub to: String,
    pub epoch: String,
    pub cause: String,
    pub evidence: String,
    /// Microseconds; `None`: not in this journal.
    pub detect: Option<i64>,
    pub stop: Option<i64>,
    pub prove: Option<i64>,
    pub start: Option<i64>,
    pub outage: Option<i64>,
    /// Where the part that is not in this journal is told.
    pub elsewhere: String,
}

/// Pairs entries, oldest first. What belongs to no failover stays as it is.
pub fn pair(entries: Vec<Entry>) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut released: BTreeMap<String, (Entry, usize)> = BTreeMap::new();
    let mut claimed: BTreeMap<String, Entry> = BTreeMap::new();
    for entry in entries {
        let group = entry.group.clone();
        if entry.is(What::GroupClaimed) {
            claimed.insert(group, entry);
        } else if entry.is(What::GroupReleased) {
            released.insert(group, (entry.clone(), lines.len()));
            lines.push(given_away(entry));
        } else if entry.is(What::GroupStarted) && !entry.evidence.is_empty() {
            let claim = claimed.remove(&group).filter(|c| c.epoch == entry.epoch);
            let last = released.remove(&group).filter(|(old, _)| follows(old, &entry));
            if let Some((_, at)) = &last {
                // Told together with the start, at its time.
                lines[*at] = None;
            }
            lines.push(Some(started(entry, claim, last.map(|(old, _)| old))));
        } else {
            lines.push(Some(Line::Single(Box::new(entry))));
        }
    }
    lines.into_iter().flatten().collect()
}

/// The start takes up what that release let go.
fn follows(released: &Entry, started: &Entry) -> bool {
    let counter = |e: &Entry| e.epoch.split('.').next().and_then(|n| n.parse::<u64>().ok());
    match (counter(released), counter(started)) {
        (Some(old), Some(new)) => new == old + 1,
        _ => false,
    }
}

/// A release whose start is not in this journal; one to nobody is no failover.
fn given_away(entry: Entry) -> Option<Line> {
    if entry.peer.is_empty() {
        return Some(Line::Single(Box::new(entry)));
    }
    Some(Line::Failover(Box::new(Failover {
        at: entry.at,
        group: entry.group,
        from: entry.node,
        elsewhere: format!("its start: hafailover history on {}", entry.peer),
        to: entry.peer,
        epoch: entry.epoch,
        cause: entry.reason,
        stop: entry.stop,
        ..Failover::default()
    })))
}

fn started(entry: Entry, claim: Option<Entry>, released: Option<Entry>) -> Line {
    let (from, why) = origin(&entry.evidence);
    let mut failover = Failover {
        at: entry.at,
        group: entry.group,
        from,
        to: entry.node,
        epoch: entry.epoch,
        cause: why,
        evidence: entry.evidence,
        detect: entry.detect,
        start: entry.start,
        ..Failover::default()
    };
    if let Some(claim) = &claim {
        let whole = entry.at - claim.at;
        failover.prove = entry.start.map(|start| (whole - start).max(0));
        failover.outage = entry.detect.map(|detect| detect + whole);
    }
    match released {
        Some(old) => {
            failover.stop = old.stop;
            failover.outage = old.stop.map(|stop| entry.at - old.at + stop);
            (failover.from, failover.cause) = (old.node, old.reason);
        }
        None if failover.evidence.contains("=Released") => {
            failover.elsewhere =
                format!("its stop and the cause: hafailover history on {}", failover.from);
        }
        None => {}
    }
    Line::Failover(Box::new(failover))
}

/// From whom the evidence says that it was taken, and why.
fn origin(evidence: &str) -> (String, String) {
    let kinds = [
        ("=Silent(", "fell silent"),
        ("=Operator(", "was declared down by a person"),
        ("=Fenced", "was fenced"),
        ("=Expired", "let its lease expire"),
        ("=Unseen", "was not heard since the start of this daemon"),
        ("=Released", "released it"),
    ];
    for (mark, words) in kinds {
        if let Some((before, _)) = evidence.split_once(mark) {
            let node = before.rsplit(' ').next().unwrap_or_default().to_string();
            return (node.clone(), format!("{node} {words}"));
        }
    }
    (String::new(), "it ran nowhere".into())
}

impl Line {
    pub fn render(&self) -> String {
        match self {
            Line::Single(entry) => entry.render(),
            Line::Failover(failover) => failover.render(),
        }
    }

    pub fn json(&self) -> Value {
        match self {
            Line::Single(entry) => entry.json(),
            Line::Failover(failover) => failover.json(),
        }
    }
}

impl Failover {
    fn render(&self) -> String {
        let seconds = |usec: i64| format!("{:.3} s", usec as f64 / 1e6);
        let way = match self.from.as_str() {
            "" => format!("started on {}", self.to),
            from if from == self.to => format!("started again on {from}"),
            from => format!("from {from} to {}", self.to),
        };
        let out = self.outage.map(|d| format!(", down for {}", seconds(d))).unwrap_or_default();
        let mut text = format!(
            "{}  {:<10} {way}{out}, epoch {}\n",
            local::words(self.at),
            self.group,
            self.epoch
        );
        let parts = [
            ("noticed after", self.detect),
            ("stopped in", self.stop),
            ("proved in", self.prove),
            ("started in", self.start),
        ];
        let word =
            |(word, usec): &(&str, Option<i64>)| Some(format!("{word} {}", seconds((*usec)?)));
        let times: Vec<String> = parts.iter().filter_map(word).collect();
        let cause = format!("cause: {}", self.cause);
        let evidence = given(&self.evidence).map(|e| format!("evidence: {e}"));
        let times = given(&times.join(", ")).map(str::to_string);
        let elsewhere = given(&self.elsewhere).map(str::to_string);
        for more in [Some(cause), evidence, times, elsewhere].into_iter().flatten() {
            text += &format!("{:38}{more}\n", "");
        }
        text
    }

    fn json(&self) -> Value {
        serde_json::json!({
            "time": local::rfc3339(self.at),
            "what": "failover",
            "group": self.group,
            "from": given(&self.from),
            "to": self.to,
            "epoch": self.epoch,
            "cause": self.cause,
            "evidence": given(&self.evidence),
            "detect_usec": self.detect,
            "stop_usec": self.stop,
            "prove_usec": self.prove,
            "start_usec": self.start,
            "outage_usec": self.outage,
            "elsewhere": given(&self.elsewhere),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::entry::Fields;
    use super::*;

    fn entry(at: i64, node: &str, what: What, more: &[(&str, &str)]) -> Entry {
        let mut fields = Fields::new();
        let mut set = |name: &str, value: &str| fields.insert(name.into(), value.into());
        set("__REALTIME_TIMESTAMP", &(1_795_233_600_000_000 + at * 1000).to_string());
        set("HAFAILOVER_NODE", node);
        set("HAFAILOVER_WHAT", what.key());
        set("HAFAILOVER_GROUP", "files");
        more.iter().for_each(|(name, value)| drop(set(&format!("HAFAILOVER_{name}"), value)));
        Entry::of(&fields)
    }

    fn only(lines: Vec<Line>) -> Failover {
        match lines.as_slice() {
            [Line::Failover(failover)] => (**failover).clone(),
            other => panic!("not one failover: {other:?}"),
        }
    }

    /// Goal: the outage of a takeover is from the last sign of life to the verified start.
    #[test]
    fn a_takeover_is_told_with_its_cause_and_its_parts() {
        let claim = [("EPOCH", "2.1"), ("DETECT_USEC", "1200000")];
        let start = [
            ("EPOCH", "2.1"),
            ("EVIDENCE", "n1=Silent(1.6s,2 links)"),
            ("DETECT_USEC", "1200000"),
            ("START_USEC", "100000"),
        ];
        let told = only(pair(vec![
            entry(0, "n2", What::GroupClaimed, &claim),
            entry(512, "n2", What::GroupStarted, &start),
        ]));
        assert_eq!((&*told.from, &*told.to, &*told.cause), ("n1", "n2", "n1 fell silent"));
        assert_eq!((told.prove, told.outage), (Some(412_000), Some(1_712_000)));
        assert!(told.render().contains("from n1 to n2, down for 1.712 s, epoch 2.1"));
    }

    /// Goal: where both sides are in one journal a move is one line; where one is, it says whose
    /// journal has the other.
    #[test]
    fn a_move_is_one_failover_or_tells_where_its_other_half_is() {
        let gone = [("EPOCH", "1.0"), ("PEER", "n2"), ("STOP_USEC", "50000")];
        let gone =
            entry(0, "n1", What::GroupReleased, &[&gone[..], &[("REASON", "moved")]].concat());
        let come = [("EPOCH", "2.1"), ("EVIDENCE", "n1=Released"), ("START_USEC", "100000")];
        let come = entry(103, "n2", What::GroupStarted, &come);
        let both = only(pair(vec![gone.clone(), come.clone()]));
        assert_eq!((&*both.cause, both.outage), ("moved", Some(153_000)));
        assert_eq!(both.elsewhere, "");
        assert!(only(pair(vec![gone])).elsewhere.ends_with("history on n2"));
        let second = only(pair(vec![come]));
        assert!(second.elsewhere.ends_with("history on n1"), "{second:?}");
        assert_eq!((&*second.from, second.outage), ("n1", None));
    }

    /// Goal: a start long after a stop is not paired with it.
    #[test]
    fn what_does_not_follow_is_not_paired() {
        let gone = entry(0, "n1", What::GroupReleased, &[("EPOCH", "1.0")]);
        let start = [("EPOCH", "5.0"), ("EVIDENCE", "n2=Promise")];
        let lines = pair(vec![gone, entry(9, "n1", What::GroupStarted, &start)]);
        assert!(matches!(&lines[..], [Line::Single(_), Line::Failover(f)] if f.from.is_empty()));
    }
}
