//! The last accepted settings on disk, written by a thread of its own: a slow disk delays nothing.

use super::log::Log;
use crate::config::accepted::Accepted;
use std::path::Path;
use std::sync::mpsc::{Sender, channel};

/// What is done once it is known whether they are on disk.
type Then = Box<dyn FnOnce(std::io::Result<()>) + Send>;

/// The daemon's end.
pub struct Keeper(Sender<(Accepted, Option<Then>)>);

impl Keeper {
    pub fn spawn(path: &'static str, log: Log) -> std::io::Result<Keeper> {
        let (sender, news) = channel::<(Accepted, Option<Then>)>();
        let run = move || {
            let path = Path::new(path);
            let mut kept = Accepted::load(path);
            for (accepted, then) in news {
                let same = kept.as_ref() == Some(&accepted);
                let saved = if same { Ok(()) } else { accepted.save(path) };
                match (&saved, &then) {
                    (Ok(()), _) => kept = Some(accepted),
                    // What is there now, nobody knows.
                    (Err(_), Some(_)) => kept = None,
                    (Err(e), None) => log.error(format!(
                        "{}: {e}: a daemon that finds its files wrong would be lost",
                        path.display()
                    )),
                }
                if let Some(then) = then {
                    then(saved);
                }
            }
        };
        std::thread::Builder::new().name("keep".into()).stack_size(512 * 1024).spawn(run)?;
        Ok(Keeper(sender))
    }

    pub fn keep(&self, accepted: Accepted) {
        let _ = self.0.send((accepted, None));
    }

    pub fn keep_first(
        &self,
        accepted: Accepted,
        then: impl FnOnce(std::io::Result<()>) + Send + 'static,
    ) {
        let _ = self.0.send((accepted, Some(Box::new(then))));
    }
}
