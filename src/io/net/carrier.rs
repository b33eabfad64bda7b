//! Which interfaces have carrier, told as soon as it changes.

use super::netlink::{self, Changes};
use std::collections::BTreeMap;

/// Interfaces and whether they have carrier now; an interface that is down has none.
pub fn table() -> BTreeMap<String, bool> {
    let all = netlink::interfaces().unwrap_or_default();
    all.into_iter().map(|i| (i.name, i.carrier)).collect()
}

/// Calls `tell` with the table whenever it changed, from a thread of its own, until `tell` says
/// that nobody listens.
pub fn watch(
    tell: impl Fn(BTreeMap<String, bool>) -> bool + Send + 'static,
) -> std::io::Result<()> {
    let changes = Changes::open()?;
    let run = move || {
        let mut last = table();
        while changes.wait().is_ok() {
            let now = table();
            if now != last {
                if !tell(now.clone()) {
                    return;
                }
                last = now;
            }
        }
    };
    std::thread::Builder::new().name("carrier".into()).stack_size(256 * 1024).spawn(run)?;
    Ok(())
}
