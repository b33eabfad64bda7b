//! One transition as the journal has it.

use super::local;
use crate::core::say::What;
use crate::io::kernel;
use serde_json::Value;
use std::collections::BTreeMap;

pub type Fields = BTreeMap<String, Value>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Microseconds since 1970, on the clock of the node that wrote it.
    pub at: i64,
    pub what: String,
    pub node: String,
    pub group: String,
    pub peer: String,
    pub link: String,
    pub epoch: String,
    pub reason: String,
    pub evidence: String,
    pub message: String,
    /// Microseconds.
    pub detect: Option<i64>,
    pub stop: Option<i64>,
    pub start: Option<i64>,
}

impl Entry {
    pub fn of(fields: &Fields) -> Entry {
        let own = |name: &str| text(fields, &format!("HAFAILOVER_{name}"));
        let usec = |name: &str| own(&format!("{name}_USEC")).parse().ok();
        Entry {
            at: text(fields, "__REALTIME_TIMESTAMP").parse().unwrap_or_default(),
            what: own("WHAT"),
            node: own("NODE"),
            group: own("GROUP"),
            peer: own("PEER"),
            link: own("LINK"),
            epoch: own("EPOCH"),
            reason: own("REASON"),
            evidence: own("EVIDENCE"),
            message: text(fields, "MESSAGE"),
            detect: usec("DETECT"),
            stop: usec("STOP"),
            start: usec("START"),
        }
    }

    pub fn is(&self, what: What) -> bool {
        self.what == what.key()
    }

    pub fn render(&self) -> String {
        format!("{}  {:<10} {}\n", local::words(self.at), self.node, self.message)
    }

    pub fn json(&self) -> Value {
        serde_json::json!({
            "time": local::rfc3339(self.at),
            "what": self.what,
            "node": self.node,
            "group": given(&self.group),
            "peer": given(&self.peer),
            "link": given(&self.link),
            "epoch": given(&self.epoch),
            "message": self.message,
        })
    }
}

/// Nothing, rather than an empty text.
pub fn given(text: &str) -> Option<&str> {
    Some(text).filter(|t| !t.is_empty())
}

/// A field as text fit for a terminal: journalctl gives bytes as numbers where they are no text,
/// and names of files and processes in it may be anybody's.
fn text(fields: &Fields, name: &str) -> String {
    let byte = |v: &Value| v.as_u64().and_then(|n| u8::try_from(n).ok());
    let text = match fields.get(name) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(bytes)) => {
            let bytes: Vec<u8> = bytes.iter().filter_map(byte).collect();
            String::from_utf8_lossy(&bytes).into_owned()
        }
        _ => String::new(),
    };
    kernel::printable(&text)
}
