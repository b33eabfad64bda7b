//! A link as the daemon sees it: bytes out without waiting, frames in through the inbox. A link
//! that cannot be opened now is tried again for ever; each change is reported.

use super::Inbox;
use crate::config::settings::{Link, LinkKind};
use crate::core::name::NodeId;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How long after a failure a link is opened again.
pub const REOPEN: std::time::Duration = std::time::Duration::from_millis(500);

/// One open, or opening, link.
pub struct LinkHandle {
    pub name: String,
    pub counters: Arc<Counters>,
    way: Way,
}

enum Way {
    Udp(super::udp::Sender),
    Serial(super::serial::Sender),
    Disk(super::disk::Sender),
    /// The line joins two other nodes.
    Elsewhere,
}

#[derive(Debug, Default)]
pub struct Counters {
    pub frames_out: AtomicU64,
    pub bytes_out: AtomicU64,
    pub frames_in: AtomicU64,
    pub bytes_in: AtomicU64,
    /// Pieces on a serial line that were no frame.
    pub noise: AtomicU64,
}

impl Counters {
    pub fn sent(&self, bytes: usize) {
        self.frames_out.fetch_add(1, Ordering::Relaxed);
        self.bytes_out.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub fn received(&self, bytes: usize) {
        self.frames_in.fetch_add(1, Ordering::Relaxed);
        self.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// Opens a link. Must be called within the daemon's runtime; dropping the handle closes it.
pub fn open(link: &Link, me: NodeId, inbox: &Inbox) -> LinkHandle {
    let counters = Arc::new(Counters::default());
    let way = match &link.kind {
        LinkKind::Udp { interface, port, to } => Way::Udp(super::udp::open(
            super::udp::Plan {
                link: link.id,
                me,
                interface: interface.clone(),
                port: *port,
                to: to.clone(),
            },
            inbox.clone(),
            counters.clone(),
        )),
        LinkKind::Serial { ends, .. } if ends.0 != me && ends.1 != me => Way::Elsewhere,
        LinkKind::Serial { device, baud, .. } => Way::Serial(super::serial::open(
            link.id,
            device.clone(),
            *baud,
            inbox.clone(),
            counters.clone(),
        )),
        LinkKind::Disk(disk) => Way::Disk(super::disk::open(
            link.id,
            super::disk::Plan::of(disk, me),
            super::disk::PROGRAM.into(),
            inbox.clone(),
            counters.clone(),
        )),
    };
    LinkHandle { name: link.name.clone(), counters, way }
}

impl LinkHandle {
    /// Sends the frames of one moment. What a link cannot take now is not sent later, unless
    /// nothing newer has come: a heartbeat that had to wait would be an old one.
    pub fn send(&self, frames: Vec<Vec<u8>>) {
        match &self.way {
            Way::Udp(sender) => frames.iter().for_each(|frame| sender.send(frame)),
            Way::Serial(sender) => sender.send(frames),
            Way::Disk(sender) => sender.send(&frames),
            Way::Elsewhere => {}
        }
    }
}
