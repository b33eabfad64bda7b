//! The leases on a shared disk: made, shown, asked once for the daemon, and left when sanlock ends.

use super::show::PATIENCE;
use crate::config::arbiter::{Back, sanlock};
use crate::config::settings::Settings;
use crate::daemon::setup;
use crate::io::arbiter::sanlock::client::{Answer, Space, read};
use crate::io::arbiter::sanlock::{format, table};
use crate::io::kernel::printable;
use crate::wire::table::{Cell, Header, SIZE, Stand};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

pub fn format(
    device: &Path,
    ours: bool,
    id: [u8; 16],
    settings: &Settings,
) -> Result<String, String> {
    let nodes: Vec<String> = settings.nodes.iter().map(|n| n.name.clone()).collect();
    let written = settings.arbiter.as_ref().and_then(|a| match &a.back {
        Back::Sanlock(at) => Some(at.io_timeout),
        Back::Witness(_) | Back::Etcd(_) => None,
    });
    let table = sanlock::Table { device: device.into(), io_timeout: None };
    let mut to = table.check()?;
    to.io_timeout = written.unwrap_or(to.io_timeout);
    let header = Header { id, cluster: settings.cluster.clone(), nodes };
    format::format(&to, &header, ours)?;
    Ok(format!(
        "{}: has leases for {} now, in its first {} MiB. On every node: [arbiter] with kind = \
         \"sanlock\" and this device, sanlock running, hafailover check, systemctl restart \
         hafailover",
        device.display(),
        header.nodes.join(", "),
        SIZE / 1024 / 1024
    ))
}

/// A question from its beginning to its end; the lock at standard input is held until then.
pub fn ask(plan: &str) -> ExitCode {
    let said = serde_json::from_str(plan).map_err(|e| e.to_string()).and_then(|plan| {
        let said = table::ask(plan);
        serde_json::to_string(&said).map_err(|e| e.to_string())
    });
    match said {
        Ok(said) => {
            println!("{said}");
            ExitCode::SUCCESS
        }
        Err(words) => super::super::fail(&words, 1, false),
    }
}

/// What stands there, as a line.
pub fn watch(device: &Path) -> ExitCode {
    let seen = table::watch(device);
    let seen = seen.and_then(|seen| serde_json::to_string(&seen).map_err(|e| e.to_string()));
    super::super::finish(seen, false)
}

/// So that sanlock can end: it refuses to while this node is in a lockspace, and a node that is
/// missing there for no reason keeps its place for minutes.
pub fn leave() -> ExitCode {
    let Ok(settings) = crate::config::load(Path::new(setup::CONFIG), &setup::hostname()) else {
        return ExitCode::SUCCESS;
    };
    let Some(Back::Sanlock(at)) = settings.back() else {
        return ExitCode::SUCCESS;
    };
    let space = Space::new(&settings.cluster, &at.device, usize::from(settings.me.0), None);
    let said = space.client(&["rem_lockspace", "-s", &space.lockspace()]).output();
    let said = said.map(|out| read(&String::from_utf8_lossy(&out.stdout)));
    match said {
        Ok(Answer::Failed(words)) => {
            super::super::fail(&format!("sanlock: {}: {words}", at.device.display()), 1, false)
        }
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => super::super::fail(&format!("sanlock: {error}"), 1, false),
    }
}

/// `None`: no leases stand there.
pub fn shown(device: &Path, json: bool) -> Option<Result<String, String>> {
    let (sender, looked) = std::sync::mpsc::channel();
    let path: PathBuf = device.into();
    // On a thread of its own: a device that hangs holds up whoever asks it.
    std::thread::spawn(move || {
        let _ = sender.send(table::header(&path).ok().map(|_| table::all(&path)));
    });
    let hangs = || format!("{}: has not answered for {} s", device.display(), PATIENCE.as_secs());
    let looked = looked.recv_timeout(PATIENCE).unwrap_or_else(|_| Some(Err(hangs())))?;
    Some(looked.map(|(header, all)| match json {
        true => format!("{}\n", object(&header, &all)),
        false => text(&header, &all),
    }))
}

fn id(header: &Header) -> String {
    header.id.iter().map(|b| format!("{b:02x}")).collect()
}

fn stand(stand: Stand) -> &'static str {
    match stand {
        Stand::Over => "over",
        Stand::Claimed => "claimed",
        Stand::Held => "held",
    }
}

fn text(header: &Header, all: &table::All) -> String {
    let mut out = format!("leases of cluster {}, id {}\n", printable(&header.cluster), id(header));
    for (node, leases) in header.nodes.iter().zip(all) {
        let node = printable(node);
        if leases.is_empty() {
            out += &format!("{node:<14} nothing written yet\n");
        }
        for (group, cell) in leases {
            let group = group.as_ref().map_or("?".into(), |g| printable(&g.0));
            let words = match cell {
                Cell::Empty => "nothing written yet".into(),
                Cell::Torn(_) => "torn: its checksum is wrong".into(),
                Cell::Lease(lease) => {
                    let stand = stand(lease.stand);
                    format!("epoch {} {stand}, written {} times", lease.epoch, lease.count)
                }
            };
            out += &format!("{node:<14} {group:<14} {words}\n");
        }
    }
    out
}

fn object(header: &Header, all: &table::All) -> serde_json::Value {
    let mut leases = Vec::new();
    for (node, cells) in header.nodes.iter().zip(all) {
        for (group, cell) in cells {
            let group = group.as_ref().map(|g| &g.0);
            leases.push(match cell {
                Cell::Lease(l) => serde_json::json!({
                    "node": node, "group": group, "state": stand(l.stand),
                    "epoch": l.epoch.to_string(), "count": l.count,
                }),
                Cell::Empty | Cell::Torn(_) => {
                    serde_json::json!({ "node": node, "group": group, "state": "torn" })
                }
            });
        }
    }
    serde_json::json!({ "cluster": header.cluster, "id": id(header), "leases": leases })
}
