//! Makes a lockspace of sanlock's and an empty table on a device that carries nothing else.

use super::client::{Space, missing};
use super::table;
use crate::config::arbiter::sanlock::Settings;
use crate::core::time::Duration;
use crate::io::clock;
use crate::io::disk::device::Aligned;
use crate::io::disk::foreign;
use crate::io::disk::slots::{back, words};
use crate::io::kernel::printable;
use crate::wire::table::{BLOCK, Cell, HEADER, Header, NoHeader, SIZE, Stand};
use std::path::Path;
use std::process::{Command, Stdio};

const AGAIN: Duration = Duration::from_millis(100);

/// A look that takes this long is told of.
const TOLD: Duration = Duration::from_secs(5);

/// Formats it; with `ours` also where leases of this cluster are that nobody renews.
pub fn format(settings: &Settings, header: &Header, ours: bool) -> Result<(), String> {
    let path = &settings.device;
    let (device, there) = foreign::alone(path, SIZE)?;
    match Header::read(&there.bytes()[HEADER..][..BLOCK]) {
        Ok(old) if ours && old.cluster == header.cluster => not_used(path)?,
        Ok(old) => return Err(refusal(path, header, &old)),
        Err(NoHeader::Damaged | NoHeader::OtherVersion(_)) if ours => {}
        Err(NoHeader::None) if there.bytes().iter().all(|b| *b == 0) => {}
        Err(_) => return Err(foreign::not_empty(path, SIZE)),
    }
    let at = |e| words(path, &e);
    // Without a header nobody writes a block, and what is cut short leaves none.
    device.write(&Aligned::new(SIZE - HEADER), HEADER).map_err(at)?;
    device.sync().map_err(at)?;
    let space = Space::new(&header.cluster, path, 0, None);
    let timeout = settings.io_timeout.to_string();
    direct(&["-s", &space.whole(), "-o", &timeout], device.sector)?;
    direct(&["-r", &space.resource(), "-o", &timeout], device.sector)?;
    let block = Aligned::of(&header.to_block());
    device.write(&block, HEADER).and_then(|()| device.sync()).map_err(at)?;
    back(&device, &block, HEADER).map_err(at)
}

/// Why leases that stand there already are left as they are.
fn refusal(path: &Path, header: &Header, old: &Header) -> String {
    let (shown, nodes) = (path.display(), printable(&old.nodes.join(", ")));
    if old.cluster == header.cluster {
        return format!(
            "{shown}: it has the leases of cluster {} for {nodes} already, and an epoch that was \
             forgotten could be used twice: --force-of-ours formats it anew, while hafailover \
             runs on no node",
            old.cluster
        );
    }
    format!(
        "{shown}: it has the leases of cluster {} for {nodes}, not of {}: nothing was written. If \
         they are surely of no use any more: dd if=/dev/zero of={shown} bs=1M count={}",
        printable(&old.cluster),
        header.cluster,
        SIZE / 1024 / 1024
    )
}

/// No lease is renewed there: who has one does so within the time that it says.
fn not_used(path: &Path) -> Result<(), String> {
    let (header, first) = table::all(path)?;
    let term = |cell: &Cell| match cell {
        Cell::Lease(lease) if lease.stand != Stand::Over => Some(lease.term),
        Cell::Empty | Cell::Torn(_) | Cell::Lease(_) => None,
    };
    let longest = first.iter().flatten().filter_map(|(_, cell)| term(cell)).max();
    let live = Duration::from_nanos(longest.unwrap_or_default());
    if live >= TOLD {
        // Where nothing is said for so long, people press Ctrl-C.
        eprintln!("{}: looking for {live:?} whether a node uses it", path.display());
    }
    let begun = clock::now();
    while clock::now().since(begun) < live {
        std::thread::park_timeout(AGAIN);
        let (_, now) = table::all(path)?;
        let changed = now.iter().zip(&first).position(|(now, then)| now != then);
        if let Some(node) = changed.and_then(|n| header.nodes.get(n)) {
            return Err(format!(
                "{}: node {} uses it now: nothing was written. End hafailover on every node first",
                path.display(),
                printable(node)
            ));
        }
    }
    Ok(())
}

/// sanlock's own part, without its daemon.
fn direct(what: &[&str], sector: usize) -> Result<(), String> {
    let mut command = Command::new("sanlock");
    command.args(["direct", "init"]).args(what).stdin(Stdio::null());
    if sector == BLOCK {
        command.args(["-Z", "4096", "-A", "1M"]);
    }
    let out = command.output().map_err(|e| format!("sanlock: {}", missing(&e)))?;
    let said = String::from_utf8_lossy(&out.stdout) + String::from_utf8_lossy(&out.stderr);
    match out.status.success() && said.contains("init done 0") {
        true => Ok(()),
        false => Err(format!("sanlock direct init {}: {}", what.join(" "), said.trim())),
    }
}
