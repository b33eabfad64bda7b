//! What only systemd and a running daemon can tell.

use super::Findings;
use crate::cli::client;
use crate::config::order::Part;
use crate::config::settings::{Link, LinkKind, Settings};
use crate::core::view::{GroupView, View};
use crate::daemon::setup;
use crate::io::net::{cable, carrier, netlink};
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

/// Interfaces of this node that stand on the same one (VLANs, ports of a bridge).
pub fn cables(root: &Path, settings: &Settings, findings: &mut Findings) {
    if root != Path::new("/") {
        return;
    }
    let interface = |link: &Link| link.interface().map(String::from);
    let all: Vec<String> = settings.links.iter().filter_map(interface).collect();
    let here = netlink::interfaces().unwrap_or_default();
    for (n, name) in all.iter().enumerate() {
        let lower = |o: &&String| *o != name && cable::joined(&here, o, name);
        if let Some(other) = all[..n].iter().find(lower) {
            findings.warn(format!(
                "{other} and {name} stand on the same interface and count as one link: when that \
                 one cable fails, both fall silent at once, as they do when the peer dies; give \
                 one another interface"
            ));
        }
    }
}

/// Whether the node that is looked at is this machine.
pub fn is_here(root: &Path, settings: &Settings) -> bool {
    let me = settings.nodes.get(usize::from(settings.me.0)).map(|n| n.name.as_str());
    let here = setup::hostname();
    root == Path::new("/") && me.is_some_and(|me| me.split('.').next() == here.split('.').next())
}

/// What the links of this node need must be here.
pub fn devices(root: &Path, settings: &Settings, findings: &mut Findings) {
    if !is_here(root, settings) {
        return;
    }
    let interfaces = match carrier::table() {
        Ok(table) => table,
        Err(error) => return findings.warn(format!("the interfaces of this node: {error}")),
    };
    for link in &settings.links {
        let (missing, key) = match &link.kind {
            LinkKind::Udp { interface, .. } => (!interfaces.contains_key(interface), "interface"),
            LinkKind::Serial { ends, .. } if ends.0 != settings.me && ends.1 != settings.me => {
                continue;
            }
            LinkKind::Serial { device, .. } => (!device.exists(), "device"),
            LinkKind::Disk(_) => continue,
        };
        if missing {
            findings.warn(format!(
                "{}: there is no such {key} on this node: if it is called otherwise here, write \
                 {key} = {{ NODE = \"NAME\", ... }}",
                link.name
            ));
        }
    }
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

/// By what the running daemon goes in place of files that were wrong when it read them.
pub fn wrong(daemon: Option<&DaemonView>, findings: &mut Findings) {
    for wrong in daemon.iter().flat_map(|d| &d.wrong) {
        if !findings.0.iter().any(|(_, words)| words.starts_with(wrong.as_str())) {
            findings.error(format!(
                "the running daemon goes by what it last accepted: {wrong}: if that is mended, \
                 systemctl reload hafailover"
            ));
        }
    }
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
                "what {} calls {} is another group, so neither promises it to the other: compare \
                 on both systemctl cat {}, and What= and Where= of its mounts",
                view.node_name(node.node),
                group.name,
                group.name.unit()
            ));
        }
        for node in group.nodes.iter().filter(|n| n.other_texts) {
            findings.warn(format!(
                "{}: the files of its members say something else on {}: it moves all the same; if \
                 no upgrade is under way, compare systemctl cat {} on both",
                group.name.unit(),
                view.node_name(node.node),
                names(group)
            ));
        }
    }
}

fn names(group: &GroupView) -> String {
    group.members.iter().map(|m| m.unit.as_str()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::name::{BootId, GroupName, NodeId, Session};
    use crate::core::policy::{Failback, GroupPolicy, StopFailure};
    use crate::core::time::Instant;
    use crate::core::{Boot, Core};

    const CONFIG: &str = "[cluster]\nname = \"x\"\n[[node]]\nname = \"n1\"\n[[node]]\n\
                          name = \"n2\"\n[[link]]\ntype = \"udp\"\ninterface = \"e\"\n";

    #[test]
    fn a_node_with_other_files_is_named() {
        let settings = crate::config::load::parse(CONFIG, "h.toml", "n1").expect("good");
        let time = Duration::from_secs(1);
        let policy = GroupPolicy {
            nodes: vec![NodeId(0), NodeId(1)],
            failback: Failback::No,
            retries: 1,
            retry_window: time,
            quarantine: time,
            stop_budget: time,
            stop_failure: StopFailure::Hold,
            start_budget: time,
            fingerprint: 1,
            texts: 1,
        };
        let policy = settings.policy([(GroupName("files".into()), policy)]);
        let boot = Boot { session: Session(1), boot: BootId(1), record: None };
        let mut view = Core::new(Instant(1), boot, policy).0.view(Instant(1));
        let found = |view: &View| {
            let mut findings = Findings::default();
            differences(view, &mut findings);
            findings.0.into_iter().map(|(_, words)| words).collect::<Vec<_>>().join("\n")
        };
        assert_eq!(found(&view), "");
        view.nodes[1].same_settings = false;
        view.groups[0].nodes[1].differs = true;
        view.groups[0].nodes[1].other_texts = true;
        let said = found(&view);
        assert!(said.contains("n2 has another hafailover.toml"), "{said}");
        assert!(said.contains("what n2 calls files is another group"), "{said}");
        assert!(said.contains("say something else on n2"), "{said}");
    }
}
