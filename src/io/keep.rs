//! The last accepted settings on disk, written by a thread of its own: a slow disk delays nothing.

use super::log::Log;
use crate::config::accepted::Accepted;
use std::path::Path;
use std::sync::mpsc::{Sender, channel};

/// The daemon's end.
pub struct Keeper(Sender<Accepted>);

impl Keeper {
    pub fn spawn(path: &'static str, log: Log) -> std::io::Result<Keeper> {
        let (sender, news) = channel::<Accepted>();
        let run = move || {
            let path = Path::new(path);
            let mut kept = Accepted::load(path);
            for accepted in news {
                if kept.as_ref() == Some(&accepted) {
                    continue;
                }
                match accepted.save(path) {
                    Ok(()) => kept = Some(accepted),
                    Err(e) => log.error(format!(
                        "{}: {e}: a daemon that finds its files wrong would be lost",
                        path.display()
                    )),
                }
            }
        };
        std::thread::Builder::new().name("keep".into()).stack_size(512 * 1024).spawn(run)?;
        Ok(Keeper(sender))
    }

    pub fn keep(&self, accepted: Accepted) {
        let _ = self.0.send(accepted);
    }
}
