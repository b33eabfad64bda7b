//! Makes a lockspace of sanlock's and an empty table on a device that carries nothing else.

use super::client::{Space, missing};
use super::table;
use crate::config::arbiter::sanlock::Settings;
use crate::io::disk::device::Aligned;
use crate::io::disk::foreign;
use crate::io::disk::slots::{back, words};
use crate::wire::table::{BLOCK, HEADER, Header, SIZE};
use std::process::{Command, Stdio};

/// Formats it; with `ours` also where leases of hafailover are.
pub fn format(settings: &Settings, header: &Header, ours: bool) -> Result<(), String> {
    let (path, shown) = (&settings.device, settings.device.display());
    let (device, there) = foreign::alone(path, SIZE)?;
    let old = Header::read(&there.bytes()[HEADER..][..BLOCK]);
    match old {
        Ok(old) if !ours => {
            return Err(format!(
                "{shown}: it has the leases of cluster {} for {} already, and an epoch that was \
                 forgotten could be used twice: --force-of-ours formats it anew, while hafailover \
                 runs on no node",
                old.cluster,
                old.nodes.join(", ")
            ));
        }
        _ if ours && table::header(path).is_ok() => {}
        _ if there.bytes().iter().all(|b| *b == 0) => {}
        _ => return Err(foreign::not_empty(path, SIZE)),
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
