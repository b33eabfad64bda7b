//! Which interfaces have carrier, told as soon as it changes.

use super::netlink::Changes;
use std::collections::BTreeMap;

/// Interfaces and whether they have carrier now; an interface that is down has none.
pub fn table() -> BTreeMap<String, bool> {
    let entries = std::fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    let names = entries.filter_map(|e| e.file_name().into_string().ok());
    names.map(|name| (name.clone(), has(&name))).collect()
}

pub fn has(interface: &str) -> bool {
    let path = format!("/sys/class/net/{interface}/carrier");
    std::fs::read_to_string(path).is_ok_and(|text| text.trim() == "1")
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
