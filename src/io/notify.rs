//! sd_notify(3) on a thread of its own, because a PID 1 that does not read would block the sender.
//! The watchdog is fed only while the daemon's loop has turned lately.

use sd_notify::NotifyState;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

const QUEUE: usize = 64;
/// Memory is locked, so a thread's stack is paid for.
const STACK: usize = 128 * 1024;

#[derive(Debug)]
enum Note {
    Ready,
    Status(String),
    Reloading,
    Stopping,
    Extend(Duration),
}

/// The daemon's end. What does not fit the queue is dropped: each note is soon said again.
#[derive(Clone, Debug)]
pub struct Notify {
    queue: SyncSender<Note>,
    turned: Arc<AtomicU64>,
}

impl Notify {
    pub fn spawn() -> std::io::Result<Notify> {
        let (queue, notes) = sync_channel(QUEUE);
        let turned = Arc::new(AtomicU64::new(super::clock::now().0));
        let watched = turned.clone();
        let thread = std::thread::Builder::new().name("notify".into()).stack_size(STACK);
        thread.spawn(move || run(&notes, &watched))?;
        Ok(Notify { queue, turned })
    }

    /// The loop has turned: called at every event.
    pub fn turned(&self) {
        self.turned.store(super::clock::now().0, Ordering::Relaxed);
    }

    pub fn ready(&self) {
        let _ = self.queue.try_send(Note::Ready);
    }

    pub fn status(&self, words: String) {
        let _ = self.queue.try_send(Note::Status(words));
    }

    pub fn reloading(&self) {
        let _ = self.queue.try_send(Note::Reloading);
    }

    pub fn stopping(&self) {
        let _ = self.queue.try_send(Note::Stopping);
    }

    /// Asks for so much more time to stop (EXTEND_TIMEOUT_USEC=).
    pub fn extend(&self, by: Duration) {
        let _ = self.queue.try_send(Note::Extend(by));
    }
}

fn run(notes: &Receiver<Note>, turned: &AtomicU64) {
    let limit = sd_notify::watchdog_enabled();
    let pause = limit.map_or(Duration::from_secs(3600), |limit| limit / 4);
    loop {
        let states = match notes.recv_timeout(pause) {
            Ok(Note::Ready) => vec![NotifyState::Ready],
            Ok(Note::Status(words)) => {
                let _ = sd_notify::notify(&[NotifyState::Status(&words)]);
                Vec::new()
            }
            Ok(Note::Reloading) => match NotifyState::monotonic_usec_now() {
                Ok(at) => vec![NotifyState::Reloading, at],
                Err(_) => vec![NotifyState::Reloading],
            },
            Ok(Note::Stopping) => vec![NotifyState::Stopping],
            Ok(Note::Extend(by)) => {
                vec![
                    NotifyState::ExtendTimeoutUsec(by.as_micros().min(u128::from(u32::MAX)) as u32),
                ]
            }
            Err(RecvTimeoutError::Timeout) => Vec::new(),
            Err(RecvTimeoutError::Disconnected) => return,
        };
        if !states.is_empty() {
            let _ = sd_notify::notify(&states);
        }
        let still = super::clock::now().0.saturating_sub(turned.load(Ordering::Relaxed));
        if limit.is_some_and(|limit| u128::from(still) < limit.as_nanos() / 2) {
            let _ = sd_notify::notify(&[NotifyState::Watchdog]);
        }
    }
}
