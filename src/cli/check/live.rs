//! What only systemd and a running daemon can tell.

use super::Findings;
use crate::cli::client;
use crate::config::order::Part;
use crate::core::view::View;
use crate::io::systemd::bus::{self, Bus};
use crate::wire::control::DaemonView;
use std::path::Path;
use std::time::Duration;

/// The running daemon's view, of this machine only.
pub fn view(root: &Path) -> Option<(View, DaemonView)> {
    if root != Path::new("/") {
        return None;
    }
    client::view().ok()
}

/// The members as systemd has them loaded: its own defaults and implied order are in there.
pub fn parts(root: &Path, parts: Vec<Part>) -> Vec<Part> {
    if root != Path::new("/") {
        return parts;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let Ok(runtime) = runtime else { return parts };
    runtime.block_on(async {
        let Ok((bus, _)) = bus::connect().await else { return parts };
        let mut loaded = Vec::new();
        for part in parts {
            loaded.push(one(&bus, part).await);
        }
        loaded
    })
}

async fn one(bus: &Bus, part: Part) -> Part {
    let Ok(all) = bus.unit(&part.name).await else { return part };
    if bus::text(&all, "LoadState").as_deref() != Some("loaded") {
        return part;
    }
    let usec = ["TimeoutStopUSec", "TimeoutUSec"].map(|key| bus::number(&all, key));
    let stop = match usec.into_iter().find(|usec| *usec > 0) {
        Some(u64::MAX) => None,
        Some(usec) => Some(Duration::from_micros(usec)),
        None => part.stop,
    };
    Part { after: bus::list(&all, "After"), stop, ..part }
}

/// Settings that are not the same everywhere, as the nodes tell each other.
pub fn differences(view: &View, findings: &mut Findings) {
    for node in view.nodes.iter().filter(|n| !n.same_settings) {
        findings.error(format!(
            "{} has another hafailover.toml: make the files equal and reload",
            node.name
        ));
    }
    for group in &view.groups {
        for node in group.nodes.iter().filter(|n| n.differs) {
            findings.error(format!(
                "{} has other unit files for {}, so neither promises it to the other: compare \
                 systemctl cat {} and its members on both",
                view.node_name(node.node),
                group.name,
                group.name.unit()
            ));
        }
    }
}
