//! `hafailover disk show`: whose slots change, and whether what stands in them is sealed right; or
//! the leases.

use super::leases;
use crate::config::keys;
use crate::config::settings::{LinkKind, Settings};
use crate::core::name::{LinkId, NodeId, Session};
use crate::core::time::Instant;
use crate::daemon::setup;
use crate::io::clock;
use crate::io::disk::device::Use;
use crate::io::disk::slots::{self, Place, Slots};
use crate::io::kernel::printable;
use crate::wire::disk::{Header, Seen, Slot, Torn};
use crate::wire::{Codec, session_of};

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// Without a configuration that says how long an interval is.
const INTERVAL: Duration = Duration::from_secs(1);
/// A node that lives writes at least once in an interval; so many are looked at.
const INTERVALS: u32 = 3;
const STEP: Duration = Duration::from_millis(20);
/// A device that has not answered for so long hangs.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Show what stands on a device: slots with their last change, session and seal; or the leases.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The device, as the configuration names it.
    device: PathBuf,
    /// The configuration file.
    #[arg(long, default_value = setup::CONFIG)]
    config: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> ExitCode {
    if let Some(shown) = leases::shown(&args.device, args.json) {
        return match shown {
            Ok(text) => {
                print!("{text}");
                ExitCode::SUCCESS
            }
            Err(words) => super::super::fail(&words, 1, args.json),
        };
    }
    let settings = crate::config::load(&args.config, &setup::hostname()).ok();
    let (device, of) = (args.device.clone(), settings.clone());
    let (sender, looked) = std::sync::mpsc::channel();
    // On a thread of its own: a device that hangs holds up whoever asks it.
    std::thread::spawn(move || drop(sender.send(look(&device, of.as_ref()))));
    let shown = args.device.display();
    let hangs = |_| Err(format!("{shown}: has not answered for {} s", PATIENCE.as_secs()));
    let watched = INTERVALS * settings.as_ref().map_or(INTERVAL, |s| interval(s, &args.device));
    match looked.recv_timeout(PATIENCE + watched).unwrap_or_else(hangs) {
        Ok(shown) if args.json => println!("{}", json(&shown)),
        Ok(shown) => print!("{}", render(&shown)),
        Err(words) => return super::super::fail(&words, 1, args.json),
    }
    ExitCode::SUCCESS
}

struct Shown {
    header: Header,
    watched: Duration,
    lines: Vec<Line>,
}

struct Line {
    node: String,
    state: State,
}

enum State {
    Empty,
    Torn,
    Written {
        /// How long ago it was seen to change; `None`: it did not.
        changed: Option<Duration>,
        frames: usize,
        session: Option<Session>,
        /// `None`: there is no key or no link here to tell by.
        sealed: Option<Result<(), String>>,
    },
}

fn interval(settings: &Settings, device: &Path) -> Duration {
    let of = |link: &crate::config::settings::Link| match &link.kind {
        LinkKind::Disk(disk) if disk.device == device => Some(disk.interval),
        LinkKind::Disk(_) | LinkKind::Udp { .. } | LinkKind::Serial { .. } => None,
    };
    settings.links.iter().find_map(of).unwrap_or(settings.timing.keepalive)
}

fn look(device: &Path, settings: Option<&Settings>) -> Result<Shown, String> {
    let (header, _) = slots::header(device)?;
    let (cluster, nodes) = (header.cluster.clone(), header.nodes.clone());
    let mut slots = Slots::open(Place { device: device.into(), cluster, nodes }, Use::Read)?;
    let watched = INTERVALS * settings.map_or(INTERVAL, |s| interval(s, device));
    let mut seen = vec![Seen::default(); header.nodes.len()];
    let mut changed: Vec<Option<Instant>> = vec![None; header.nodes.len()];
    let end = clock::now() + watched;
    let last = loop {
        let read = slots.read()?;
        for (n, slot) in read.slots.iter().enumerate() {
            let Ok(Some(slot)) = slot else { continue };
            let before = seen[n].number();
            seen[n].set(slot.number);
            if before.is_some_and(|before| before != slot.number) {
                changed[n] = Some(clock::now());
            }
        }
        if clock::now() >= end {
            break read;
        }
        std::thread::park_timeout(STEP);
    };
    let mut judge = settings.and_then(|s| judge(s, device));
    let now = clock::now();
    let line = |(n, slot): (usize, &Result<Option<Slot>, Torn>)| Line {
        node: header.nodes[n].clone(),
        state: match slot {
            Err(Torn) => State::Torn,
            Ok(None) => State::Empty,
            Ok(Some(slot)) => State::Written {
                changed: changed[n].map(|at| now.since(at)),
                frames: slot.frames.len(),
                session: slot.frames.back().and_then(|f| session_of(f)),
                sealed: slot.frames.back().zip(judge.as_mut()).map(|(frame, judge)| judge(frame)),
            },
        },
    };
    let lines = last.slots.iter().enumerate().map(line).collect();
    Ok(Shown { header, watched, lines })
}

/// Says of a frame whether it is sealed by a key of ours, for this cluster and this link.
fn judge(settings: &Settings, device: &Path) -> Option<impl FnMut(&[u8]) -> Result<(), String>> {
    let of = |link: &&crate::config::settings::Link| match &link.kind {
        LinkKind::Disk(disk) => disk.device == device,
        LinkKind::Udp { .. } | LinkKind::Serial { .. } => false,
    };
    let link: LinkId = settings.links.iter().find(of)?.id;
    let keys = keys::load(&settings.keys).ok()?;
    let names: Vec<String> = settings.nodes.iter().map(|n| n.name.clone()).collect();
    // As nobody in the cluster: to a node, its own frames are no news.
    let me = NodeId(u8::MAX);
    let mut codec = Codec::new(&settings.cluster, &names, me, Session(0), keys);
    Some(move |frame: &[u8]| codec.decode(link, frame).map(drop).map_err(|e| e.to_string()))
}

fn id(header: &Header) -> String {
    header.id.iter().map(|b| format!("{b:02x}")).collect()
}

fn render(shown: &Shown) -> String {
    let header = &shown.header;
    let mut out = format!("cluster {}, id {}\n", printable(&header.cluster), id(header));
    for line in &shown.lines {
        let words = match &line.state {
            State::Empty => "nothing written yet".into(),
            State::Torn => "torn: its checksum is wrong".into(),
            State::Written { changed, session, sealed, .. } => {
                let changed = match changed {
                    Some(ago) => format!("changed {:.2} s ago", ago.as_secs_f64()),
                    None => format!("unchanged for {:.2} s", shown.watched.as_secs_f64()),
                };
                let session = session.map_or("none".into(), |s| format!("{:016x}", s.0));
                let sealed = match sealed {
                    Some(Ok(())) => "sealed right".into(),
                    Some(Err(why)) => format!("not sealed right: {why}"),
                    None => "no key or no link here to check the seal by".into(),
                };
                format!("{changed}, session {session}, {sealed}")
            }
        };
        out += &format!("{:<14} {words}\n", printable(&line.node));
    }
    out
}

fn json(shown: &Shown) -> serde_json::Value {
    let line = |line: &Line| match &line.state {
        State::Empty => serde_json::json!({ "node": line.node, "state": "empty" }),
        State::Torn => serde_json::json!({ "node": line.node, "state": "torn" }),
        State::Written { changed, frames, session, sealed } => serde_json::json!({
            "node": line.node,
            "state": "written",
            "changed_ago": changed.map(|d| d.as_secs_f64()),
            "frames": frames,
            "session": session.map(|s| format!("{:016x}", s.0)),
            "sealed": sealed.as_ref().map(Result::is_ok),
            "refusal": sealed.as_ref().and_then(|s| s.as_ref().err()),
        }),
    };
    serde_json::json!({
        "cluster": shown.header.cluster,
        "id": id(&shown.header),
        "watched": shown.watched.as_secs_f64(),
        "slots": shown.lines.iter().map(line).collect::<Vec<_>>(),
    })
}
