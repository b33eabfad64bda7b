//! Heartbeats over a serial line: two threads a port, because a tty can block whatever one does.
//! An old heartbeat is worse than none: the writer gives the line no more than it carries and keeps
//! only the newest frames for when it is free, the reader throws away what waited before it opened.

use super::link::{Counters, REOPEN};
use super::{Inbox, Input};
use crate::core::Event;
use crate::core::name::LinkId;
use crate::wire::line::{Deframer, encode_line, line_time};
use serialport::{ClearBuffer, DataBits, FlowControl, Parity, SerialPort, StopBits};

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// How long a read or write waits before it looks whether the link is still wanted.
const PATIENCE: Duration = Duration::from_millis(200);
/// Memory is locked, so a thread's stack is paid for: these need little.
const STACK: usize = 256 * 1024;

/// Closes the link when dropped.
pub struct Sender(Arc<Shared>);

struct Shared {
    /// The frames of the newest moment that the line has not taken yet.
    newest: Mutex<VecDeque<Vec<u8>>>,
    ready: Condvar,
    closed: AtomicBool,
    counters: Arc<Counters>,
}

impl Sender {
    /// Instead of what the line has not taken yet.
    pub fn send(&self, frames: Vec<Vec<u8>>) {
        if let Ok(mut newest) = self.0.newest.lock() {
            *newest = frames.into();
            self.0.ready.notify_one();
        }
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.0.closed.store(true, Ordering::Relaxed);
        self.0.ready.notify_one();
    }
}

pub fn open(
    link: LinkId,
    device: PathBuf,
    baud: u32,
    inbox: Inbox,
    counters: Arc<Counters>,
) -> Sender {
    let shared = Arc::new(Shared {
        newest: Mutex::default(),
        ready: Condvar::new(),
        closed: AtomicBool::new(false),
        counters,
    });
    let mine = shared.clone();
    let thread = std::thread::Builder::new().name(format!("serial{}", link.0)).stack_size(STACK);
    let spawned = thread.spawn(move || run(link, &device, baud, &inbox, &mine));
    if spawned.is_err() {
        shared.closed.store(true, Ordering::Relaxed);
    }
    Sender(shared)
}

/// Opens the port, reads from it, and opens it anew when it hangs up.
fn run(link: LinkId, device: &std::path::Path, baud: u32, inbox: &Inbox, shared: &Arc<Shared>) {
    let mut told: Option<String> = None;
    while !shared.closed.load(Ordering::Relaxed) {
        let why = match open_port(device, baud) {
            Ok((reader, writer)) => {
                told = None;
                // What was said while there was no line is old by now.
                if let Ok(mut newest) = shared.newest.lock() {
                    newest.clear();
                }
                if !report(inbox, link, true, String::new()) {
                    return;
                }
                let gone = Arc::new(AtomicBool::new(false));
                let (mine, ended) = (shared.clone(), gone.clone());
                let thread = std::thread::Builder::new().stack_size(STACK);
                let writing = thread.spawn(move || write(writer, baud, &mine, &ended));
                let why = read(link, reader, inbox, shared, &gone);
                gone.store(true, Ordering::Relaxed);
                shared.ready.notify_one();
                if let Ok(thread) = writing {
                    let _ = thread.join();
                }
                why
            }
            Err(e) => e.to_string(),
        };
        let why = format!("{}: {why}", device.display());
        if told.as_ref() != Some(&why) {
            if !report(inbox, link, false, why.clone()) {
                return;
            }
            told = Some(why);
        }
        std::thread::park_timeout(REOPEN);
    }
}

/// False when the daemon no longer listens.
fn report(inbox: &Inbox, link: LinkId, usable: bool, why: String) -> bool {
    inbox.blocking_send(Input::Event(Event::Link { link, usable, why })).is_ok()
}

type Port = Box<dyn SerialPort>;

fn open_port(device: &std::path::Path, baud: u32) -> serialport::Result<(Port, Port)> {
    let port = serialport::new(device.to_string_lossy(), baud)
        .data_bits(DataBits::Eight)
        .parity(Parity::None)
        .stop_bits(StopBits::One)
        .flow_control(FlowControl::None)
        .timeout(PATIENCE)
        .open()?;
    port.clear(ClearBuffer::Input)?;
    let writer = port.try_clone()?;
    Ok((port, writer))
}

fn read(link: LinkId, mut port: Port, inbox: &Inbox, shared: &Shared, gone: &AtomicBool) -> String {
    let mut deframer = Deframer::default();
    let mut buffer = [0; 1024];
    loop {
        if shared.closed.load(Ordering::Relaxed) || gone.load(Ordering::Relaxed) {
            return "the line could not be written to".into();
        }
        match port.read(&mut buffer) {
            Ok(0) => return "the line hung up".into(),
            Ok(len) => {
                let before = deframer.noise;
                let frames = deframer.push(&buffer[..len]);
                let noise = deframer.noise - before;
                shared.counters.noise.fetch_add(noise, Ordering::Relaxed);
                for bytes in frames {
                    shared.counters.received(bytes.len());
                    let _ = inbox.try_send(Input::Frame { link, bytes, from: None });
                }
            }
            Err(e) if matches!(e.kind(), ErrorKind::TimedOut | ErrorKind::Interrupted) => {}
            Err(e) => return e.to_string(),
        }
    }
}

/// Writes the newest frames, again and again. A line that takes nothing is not an error: the peer
/// may be off; what it did not take is thrown away before the next frame.
fn write(mut port: Port, baud: u32, shared: &Shared, gone: &AtomicBool) {
    let mut free_at = Instant::now();
    loop {
        let Ok(mut newest) = shared.newest.lock() else { return };
        let frame = loop {
            if shared.closed.load(Ordering::Relaxed) || gone.load(Ordering::Relaxed) {
                return;
            }
            let busy = free_at.saturating_duration_since(Instant::now());
            if busy.is_zero()
                && let Some(frame) = newest.pop_front()
            {
                break frame;
            }
            let wait = if busy.is_zero() { PATIENCE } else { busy.min(PATIENCE) };
            let Ok((again, _)) = shared.ready.wait_timeout(newest, wait) else { return };
            newest = again;
        };
        drop(newest);
        let line = encode_line(&frame);
        match port.write_all(&line) {
            Ok(()) => {
                shared.counters.sent(line.len());
                // The tty takes far more than the line carries; there it could not be replaced.
                free_at = Instant::now() + line_time(frame.len(), baud);
            }
            Err(e) if matches!(e.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock) => {
                let _ = port.clear(ClearBuffer::Output);
            }
            Err(_) => {
                gone.store(true, Ordering::Relaxed);
                return;
            }
        }
    }
}
