//! The questions as transactions of etcd's v3 API: pure, text in and text out. Each is one request
//! that etcd carries out as a whole or not at all, and may be carried out twice.

use super::Question;
use crate::core::name::{Epoch, NodeId};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// Behind the value of an epoch that was released.
const ENDED: &str = " ended";

/// The two keys of a group. `holder` hangs on a lease of etcd's and goes with it; `epoch` is the
/// highest epoch ever had or released, and stays.
pub struct Keys {
    holder: String,
    epoch: String,
    /// The value: the epoch so that etcd's order of bytes is the order of epochs, and the node.
    own: String,
    /// Below every value of this epoch, above those of all lower ones.
    floor: String,
}

/// A lease of etcd's, and the revision of the store at which it was granted.
pub struct Grant {
    pub id: String,
    pub revision: u64,
}

impl Keys {
    pub fn of(prefix: &str, question: &Question, node: &str) -> Keys {
        let at = format!("{prefix}/{}/{}", question.cluster, question.group);
        let floor = rank(question.epoch);
        Keys {
            holder: format!("{at}/holder"),
            epoch: format!("{at}/epoch"),
            own: format!("{floor} {node}"),
            floor,
        }
    }

    pub fn acquire(&self, grant: &Grant) -> Value {
        let hold = self.hold(grant);
        let both = || vec![hold.clone(), put(&self.epoch, &self.own)];
        let free = || absent(&self.holder);
        let mut ways = self.kept(grant);
        ways.push((vec![free(), equal(&self.epoch, &self.own)], vec![hold.clone()]));
        ways.push((vec![free(), below(&self.epoch, &self.floor)], both()));
        ways.push((vec![free(), absent(&self.epoch)], both()));
        first(ways, self.look())
    }

    pub fn renew(&self, grant: &Grant) -> Value {
        first(self.kept(grant), self.look())
    }

    /// The key is dropped if it is ours, and the epoch is over even if it was never had: a question
    /// that is still under way somewhere must find it so. Where another node has the group such a
    /// question is refused for that, and the holder's own, lower epoch must stay good.
    pub fn release(&self) -> Value {
        let end = || vec![put(&self.epoch, &format!("{}{ENDED}", self.own))];
        let drop = json!({ "request_delete_range": { "key": encode(&self.holder) } });
        let ways = vec![
            (vec![equal(&self.epoch, &self.own)], end()),
            (vec![absent(&self.holder), below(&self.epoch, &self.floor)], end()),
            (vec![absent(&self.holder), absent(&self.epoch)], end()),
        ];
        let over = json!({ "request_txn": first(ways, Vec::new()) });
        let mine = vec![(vec![equal(&self.holder, &self.own)], vec![drop])];
        let dropped = json!({ "request_txn": first(mine, Vec::new()) });
        json!({ "success": [dropped, over] })
    }

    /// Whether this user may ask such questions here: what it would write is never written.
    pub fn trial(&self) -> Value {
        let never = json!({ "key": encode(&self.epoch), "target": "VERSION", "result": "LESS",
            "version": "0" });
        first(vec![(vec![never], vec![put(&self.epoch, &self.own)])], self.look())
    }

    /// Ours already: its key is hung on the new lease, unless another question of ours, on a newer
    /// lease, came in between: an older lease ends sooner. Or this very question was carried out
    /// before, at another endpoint.
    fn kept(&self, grant: &Grant) -> Vec<(Vec<Value>, Vec<Value>)> {
        let ours = || equal(&self.holder, &self.own);
        let unchanged = json!({ "key": encode(&self.holder), "target": "MOD", "result": "LESS",
            "mod_revision": (grant.revision + 1).to_string() });
        let done = json!({ "key": encode(&self.holder), "target": "LEASE", "result": "EQUAL",
            "lease": grant.id });
        vec![(vec![ours(), unchanged], vec![self.hold(grant)]), (vec![ours(), done], Vec::new())]
    }

    fn hold(&self, grant: &Grant) -> Value {
        json!({ "request_put": { "key": encode(&self.holder), "value": encode(&self.own),
            "lease": grant.id } })
    }

    fn look(&self) -> Vec<Value> {
        let range = |key: &str| json!({ "request_range": { "key": encode(key) } });
        vec![range(&self.holder), range(&self.epoch)]
    }

    /// Why a transaction took none of its ways, from what it then looked at, and the highest epoch
    /// there is. `Err`: it is ours, or could be had, and something came between; nothing is known.
    pub fn refusal(&self, reply: &Value) -> Result<(String, Option<Epoch>), String> {
        let seen = last(reply);
        let (holder, epoch) = (value(&seen, 0), value(&seen, 1));
        let top = epoch.as_deref().and_then(parsed);
        let why = match (holder, epoch) {
            (Some(holder), _) if holder == self.own => {
                return Err("another question about it was carried out in between".into());
            }
            (Some(holder), _) => {
                let (node, counter) = words(&holder);
                format!("{node} has it by epoch {counter}")
            }
            (None, Some(epoch)) if epoch == format!("{}{ENDED}", self.own) => {
                "this epoch is over".into()
            }
            (None, Some(epoch)) if epoch > self.own => {
                let (node, counter) = words(&epoch);
                format!("{node} had epoch {counter} before")
            }
            _ => "it ran out, or was given back".into(),
        };
        Ok((why, top))
    }
}

/// Fixed in width, so that the order of bytes is that of numbers. Of equal counters the node
/// earlier in the list is the higher.
fn rank(epoch: Epoch) -> String {
    format!("{:020}.{:03}", epoch.counter, u8::MAX - epoch.node.0)
}

/// The epoch in a value.
fn parsed(value: &str) -> Option<Epoch> {
    let (counter, rank) = value.split(' ').next()?.split_once('.')?;
    let node = NodeId(u8::MAX - rank.parse::<u8>().ok()?);
    Some(Epoch { counter: counter.parse().ok()?, node })
}

/// Of `00000000000000000007.255 ttisrv1 ended` the node and the counter, for people.
fn words(value: &str) -> (&str, u64) {
    let counter = parsed(value).map_or(0, |epoch| epoch.counter);
    (value.split(' ').nth(1).unwrap_or("somebody"), counter)
}

/// Carried out: the first of the ways of which all compares hold; else this.
fn first(ways: Vec<(Vec<Value>, Vec<Value>)>, otherwise: Vec<Value>) -> Value {
    let mut rest = otherwise;
    let mut whole = Value::Null;
    for (compare, success) in ways.into_iter().rev() {
        whole = json!({ "compare": compare, "success": success, "failure": rest });
        rest = vec![json!({ "request_txn": whole })];
    }
    whole
}

/// Whether one of the ways was taken.
pub fn taken(reply: &Value) -> bool {
    reply["succeeded"] == true
        || reply["responses"].get(0).and_then(|r| r.get("response_txn")).is_some_and(taken)
}

/// What the innermost transaction answered.
fn last(reply: &Value) -> Value {
    match reply["responses"].get(0).and_then(|r| r.get("response_txn")) {
        Some(inner) => last(inner),
        None => reply["responses"].clone(),
    }
}

fn value(responses: &Value, nth: usize) -> Option<String> {
    let text = responses[nth]["response_range"]["kvs"][0]["value"].as_str()?;
    String::from_utf8(STANDARD.decode(text).ok()?).ok()
}

fn put(key: &str, value: &str) -> Value {
    json!({ "request_put": { "key": encode(key), "value": encode(value) } })
}

fn equal(key: &str, value: &str) -> Value {
    json!({ "key": encode(key), "target": "VALUE", "result": "EQUAL", "value": encode(value) })
}

fn below(key: &str, value: &str) -> Value {
    json!({ "key": encode(key), "target": "VALUE", "result": "LESS", "value": encode(value) })
}

fn absent(key: &str) -> Value {
    json!({ "key": encode(key), "target": "CREATE", "result": "EQUAL", "create_revision": "0" })
}

pub fn encode(text: &str) -> String {
    STANDARD.encode(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn epoch() -> impl Strategy<Value = Epoch> {
        let counter = prop_oneof![0u64..4, any::<u64>()];
        (counter, 0u8..16).prop_map(|(counter, node)| Epoch { counter, node: NodeId(node) })
    }

    proptest! {
        /// etcd compares bytes.
        #[test]
        fn the_order_of_bytes_is_the_order_of_epochs(a in epoch(), b in epoch(), x in "[a-z]+") {
            prop_assert_eq!(rank(a).cmp(&rank(b)), a.cmp(&b));
            let value = format!("{} {x}", rank(a));
            let over = format!("{value}{ENDED}");
            prop_assert_eq!([parsed(&value), parsed(&over)], [Some(a); 2]);
            prop_assert!(rank(a) < value && value < over);
            prop_assert_eq!(over < rank(b), a < b);
        }
    }

    #[test]
    fn a_way_in_the_third_transaction_is_a_way() {
        let inner = |n: u32, by: &str| {
            (0..n).fold(
                json!({ "succeeded": by == "a way" }),
                |r, _| json!({ "responses": [{ "response_txn": r }] }),
            )
        };
        assert!(taken(&inner(0, "a way")) && taken(&inner(3, "a way")));
        assert!(!taken(&inner(0, "none")) && !taken(&inner(3, "none")) && !taken(&json!({})));
    }
}
