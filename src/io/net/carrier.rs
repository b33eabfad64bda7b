//! Which interfaces have carrier, told as soon as it changes.

use super::netlink::{self, Changes};
use std::collections::BTreeMap;

/// Pause before the kernel is asked again what it did not tell.
const AGAIN: std::time::Duration = std::time::Duration::from_millis(200);

/// Interfaces and whether they have carrier now; an interface that is down has none. `Err`: the
/// kernel does not tell, which says nothing about any cable.
pub fn table() -> std::io::Result<BTreeMap<String, bool>> {
    Ok(netlink::interfaces()?.into_iter().map(|i| (i.name, i.carrier)).collect())
}

/// Calls `tell` with the table whenever it changed, from a thread of its own, until `tell` says
/// that nobody listens.
pub fn watch(
    tell: impl Fn(BTreeMap<String, bool>) -> bool + Send + 'static,
) -> std::io::Result<()> {
    let changes = Changes::open()?;
    let run = move || {
        let mut last = None;
        loop {
            let Ok(now) = table() else {
                std::thread::park_timeout(AGAIN);
                continue;
            };
            if last.as_ref() != Some(&now) {
                if !tell(now.clone()) {
                    return;
                }
                last = Some(now);
            }
            if changes.wait().is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new().name("carrier".into()).stack_size(256 * 1024).spawn(run)?;
    Ok(())
}
