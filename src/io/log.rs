//! The program's ordinary log lines: through `tracing` into the journal (or to standard error where
//! there is none), on a thread of its own, so that a stopped journal stops nobody.

use std::sync::mpsc::{SyncSender, sync_channel};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Lines that may wait; more are dropped: they are for people, transitions have their own way.
const QUEUE: usize = 1024;

/// The daemon's end.
#[derive(Clone, Debug)]
pub struct Log(SyncSender<(tracing::Level, String)>);

impl Log {
    pub fn spawn() -> std::io::Result<Log> {
        let journal = std::env::var_os("JOURNAL_STREAM")
            .and_then(|_| tracing_journald::layer().ok())
            .map(|layer| layer.with_syslog_identifier("hafailover".into()));
        let stderr = journal
            .is_none()
            .then(|| tracing_subscriber::fmt::layer().with_writer(std::io::stderr).without_time());
        // A second start within one process keeps the first one's subscriber.
        let _ = tracing_subscriber::registry().with(journal).with(stderr).try_init();
        let (sender, lines) = sync_channel::<(tracing::Level, String)>(QUEUE);
        let run = move || {
            for (level, line) in lines {
                match level {
                    tracing::Level::ERROR => tracing::error!("{line}"),
                    tracing::Level::WARN => tracing::warn!("{line}"),
                    _ => tracing::info!("{line}"),
                }
            }
        };
        std::thread::Builder::new().name("log".into()).stack_size(256 * 1024).spawn(run)?;
        Ok(Log(sender))
    }

    pub fn info(&self, line: impl Into<String>) {
        let _ = self.0.try_send((tracing::Level::INFO, line.into()));
    }

    pub fn warn(&self, line: impl Into<String>) {
        let _ = self.0.try_send((tracing::Level::WARN, line.into()));
    }

    pub fn error(&self, line: impl Into<String>) {
        let _ = self.0.try_send((tracing::Level::ERROR, line.into()));
    }
}
