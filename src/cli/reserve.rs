//! `hafailover reserve`: holds the reservation of one SCSI disk for as long as it runs, so that the
//! disk itself refuses what an owner before writes. It is left in place by a stop and by a crash:
//! an owner of before may thaw later, and the next owner replaces it.

use crate::config::accepted::{self, Accepted};
use crate::config::{self, settings::Settings};
use crate::core::name::{Epoch, GroupName};
use crate::daemon::setup;
use crate::io::scsi::device;
use crate::io::scsi::key::{Key, Keys};
use crate::io::scsi::persist::{Disk, PROGRAM, Trouble};
use crate::io::scsi::take::{Me, Refusal, Step, Still};
use crate::io::token;
use sd_notify::NotifyState;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

/// By which path each disk is reserved, and with which key.
const NOTES: &str = "/run/hafailover/reserved";
/// Between two looks whether it is still there.
const LOOK: Duration = Duration::from_secs(3);
/// Steps of a start: one for each key that older owners left, and for each that changes meanwhile.
const STEPS: usize = 64;
/// Exit codes after which systemd does not try again: the cluster decides.
const REFUSED: u8 = 4;
const TAKEN_AWAY: u8 = 5;

/// Hold the reservation of one SCSI disk (started by hafailover-reserve@.service).
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The disk, for example /dev/disk/by-id/scsi-36001405....
    device: PathBuf,
    /// Only show what is registered, and who has it reserved.
    #[arg(long, conflicts_with = "remove")]
    show: bool,
    /// Only give back what this node has registered.
    #[arg(long)]
    remove: bool,
}

/// Exit codes: 1 failed, 4 another one has it and keeps it, 5 it was taken away.
pub fn run(args: Args) -> ExitCode {
    let disk = Disk::new(&args.device);
    let result = match (args.show, args.remove) {
        (true, _) => show(&disk),
        (_, true) => remove(&disk),
        _ => hold(disk),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            status(&failure.words);
            super::tell(format!("<3>{}: {}", args.device.display(), failure.words));
            ExitCode::from(failure.code)
        }
    }
}

struct Failure {
    words: String,
    code: u8,
}

impl From<String> for Failure {
    fn from(words: String) -> Failure {
        Failure { words, code: 1 }
    }
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Failure {
        trouble.to_string().into()
    }
}

/// By the file, or by what it was when it was last good.
fn settings() -> Result<Settings, Failure> {
    let last = || Accepted::load(Path::new(accepted::FILE))?.settings().ok();
    let read = config::load(Path::new(setup::CONFIG), &setup::hostname());
    read.or_else(|error| last().ok_or(error)).map_err(|error| error.to_string().into())
}

/// The group that is owned here and has this disk's reservation as a member, and by which epoch.
fn owned(path: &Path) -> Option<(GroupName, Epoch)> {
    let is_in = |group: &GroupName| {
        let (hard, soft) = token::members(group).unwrap_or_default();
        hard.iter().chain(&soft).any(|unit| device::of_unit(unit).as_deref() == Some(path))
    };
    token::list().into_iter().filter(is_in).find_map(|group| {
        let epoch = token::read(&group)?;
        Some((group, epoch))
    })
}

fn hold(disk: Disk) -> Result<(), Failure> {
    device::refuses(&disk.path)?;
    let found = std::fs::canonicalize(&disk.path).map_err(|e| e.to_string())?;
    let (group, epoch) = owned(&disk.path).ok_or_else(|| {
        "no group that is owned here has it as a member: the cluster starts this unit with its \
         group, and not a person: hafailover-reserve(8)"
            .to_string()
    })?;
    let settings = settings()?;
    let me = Me::new(Keys::of(&settings), settings.me, epoch);
    let path = Path::new(NOTES).join(disk.path.display().to_string().replace('/', "-"));
    let note = format!("{} {}", me.key, found.display());
    stays(&path, &note)?;
    let keeps = disk.able()?.keeps;
    let mut holder = Holder { keeps, disk, found, me, generation: 0, unsure: None };
    holder.take()?;
    std::fs::create_dir_all(NOTES)
        .and_then(|()| std::fs::write(&path, note))
        .map_err(|e| format!("{}: {e}", path.display()))?;
    let stop = stop_signal()?;
    let words = format!("reserved for {} of {group}", holder.me.keys.words(holder.me.key));
    super::tell(format!("<6>{}: {words}", holder.disk.path.display()));
    status(&words);
    let _ = sd_notify::notify(&[NotifyState::Ready]);
    // It is left as it is: whoever had the disk before, and thaws, finds it reserved, and the next
    // owner takes it.
    holder.watch(&stop)
}

/// The path that this ownership began with: what is mounted writes by that one, and another that
/// the name means now must not take its reservation away.
fn stays(path: &Path, note: &str) -> Result<(), Failure> {
    let before = std::fs::read_to_string(path).unwrap_or_default();
    let same = |(key, _): (&str, &str)| note.split_once(' ').is_some_and(|(k, _)| k == key);
    match before.split_once(' ').filter(|before| same(*before)) {
        Some((_, found)) if before != note => {
            let words = format!(
                "it was reserved by {found} when the group started, and the name means another \
                 path now: what is mounted writes nothing any more: hafailover move, or stop the \
                 group"
            );
            Err(Failure { words, code: REFUSED })
        }
        Some(_) | None => Ok(()),
    }
}

/// Hears when it is to end.
fn stop_signal() -> Result<Receiver<()>, Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let failed = |e: std::io::Error| Failure::from(format!("signals cannot be heard: {e}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(failed)?;
    let guard = runtime.enter();
    let mut term = signal(SignalKind::terminate()).map_err(failed)?;
    let mut int = signal(SignalKind::interrupt()).map_err(failed)?;
    drop(guard);
    let (sender, stop) = channel();
    let thread = std::thread::Builder::new().stack_size(256 * 1024);
    let hear = move || {
        runtime.block_on(async {
            tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
        });
        let _ = sender.send(());
    };
    thread.spawn(hear).map_err(failed)?;
    Ok(stop)
}

struct Holder {
    disk: Disk,
    /// Its node in /dev: a reservation belongs to this path, and a name may come to mean another.
    found: PathBuf,
    me: Me,
    keeps: bool,
    /// Of the disk, when it was last seen to be ours.
    generation: u32,
    /// Why the last look told nothing, once it was said.
    unsure: Option<Trouble>,
}

impl Holder {
    fn say(&self, level: u8, words: impl std::fmt::Display) {
        super::tell(format!("<{level}>{}: {words}", self.disk.path.display()));
    }

    /// Whoever registers cannot write by that, so what is found out later is given back in time.
    /// What was ours before goes on protecting what is mounted, whatever fails here.
    fn take(&mut self) -> Result<(), Failure> {
        let seen = self.disk.look()?;
        self.me.judge(&seen).map_err(|refusal| self.refused(refusal))?;
        let had = seen.held.is_some_and(|held| held.key == self.me.key);
        self.disk.register(self.me.key, self.keeps)?;
        let taken = self.take_registered();
        if taken.as_ref().is_err_and(|failure| failure.code == REFUSED) && !had {
            let _ = self.disk.unregister(self.me.key, self.keeps);
        }
        self.generation = taken?;
        Ok(())
    }

    /// The disk's generation when it was ours.
    fn take_registered(&self) -> Result<u32, Failure> {
        for _ in 0..STEPS {
            let seen = self.disk.look()?;
            // What others do between a look and a step shows in the next look.
            match self.me.next(&seen).map_err(|refusal| self.refused(refusal))? {
                Step::Done => return Ok(seen.generation),
                // A disk may forget ours with another of the same key.
                Step::Reserve if !seen.keys.contains(&self.me.key) => {
                    self.disk.register(self.me.key, self.keeps)?;
                }
                Step::Reserve => drop(self.disk.reserve(self.me.key)?),
                Step::Preempt(other) if self.disk.preempt(self.me.key, other)? => {
                    self.say(5, format!("taken from {}", self.me.keys.words(other)));
                }
                Step::Preempt(_) => {}
            }
        }
        Err(format!("it is not ours after {STEPS} steps: somebody else takes it, too").into())
    }

    fn refused(&self, refusal: Refusal) -> Failure {
        let (words, disk) = (|key: Key| self.me.keys.words(key), self.disk.path.display());
        let by_hand = || {
            format!(
                "nothing was taken. Find out whose it is (sg_persist --in --read-full-status \
                 {disk}); if that one needs it no more: sg_persist --out --register-ignore \
                 --param-sark=0x1 {disk} && sg_persist --out --clear --param-rk=0x1 {disk}"
            )
        };
        let words = match refusal {
            Refusal::Newer(key) => format!(
                "a later owner has it: {}; this one is {}: {}",
                words(key),
                words(self.me.key),
                by_hand()
            ),
            Refusal::Foreign(key) => format!("registered is {}: {}", words(key), by_hand()),
            Refusal::Kind => format!("it is reserved in another way: {}", by_hand()),
        };
        Failure { words, code: REFUSED }
    }

    fn watch(&mut self, stop: &Receiver<()>) -> Result<(), Failure> {
        loop {
            match stop.recv_timeout(LOOK) {
                Ok(()) => return Ok(()),
                Err(RecvTimeoutError::Timeout) => self.look()?,
                Err(RecvTimeoutError::Disconnected) => {
                    return Err("signals can be heard no longer".to_string().into());
                }
            }
        }
    }

    /// What cannot be read is no loss; a disk that is gone is.
    fn look(&mut self) -> Result<(), Failure> {
        let found = std::fs::canonicalize(&self.disk.path).map_err(|_| Trouble::Gone)?;
        if found != self.found {
            let words = format!(
                "its path {} is gone, and the name means {} now, which is not what is reserved",
                self.found.display(),
                found.display()
            );
            return Err(Failure { words, code: TAKEN_AWAY });
        }
        let seen = match self.disk.look() {
            Ok(seen) => seen,
            Err(Trouble::Gone) => return Err(Trouble::Gone.into()),
            Err(trouble) => {
                if self.unsure.is_none() {
                    self.say(4, format!("whether it is still reserved is not known: {trouble}"));
                }
                self.unsure = Some(trouble);
                return Ok(());
            }
        };
        if self.unsure.take().is_some() {
            self.say(5, "it answers again");
        }
        match self.me.still(&seen, self.generation) {
            Still::Mine => {
                self.generation = seen.generation;
                Ok(())
            }
            Still::Lost => self.take_again(),
            Still::Others(key) => {
                let words = match key {
                    Some(key) => format!(
                        "taken away: it is reserved for {} now, and what is mounted here writes \
                         nothing any more: look at the group there: hafailover status",
                        self.me.keys.words(key)
                    ),
                    None => "taken away: it is not ours any more, though the disk has forgotten \
                             nothing: somebody had it meanwhile, or cleared it, and may have \
                             written: check the file system before the group goes on"
                        .to_string(),
                };
                Err(Failure { words, code: TAKEN_AWAY })
            }
        }
    }

    /// A disk that has just come back may not answer yet: the next look tells.
    fn take_again(&mut self) -> Result<(), Failure> {
        match self.take() {
            Ok(()) => self.say(4, "the disk had forgotten who has it reserved: put back"),
            Err(refused) if refused.code == REFUSED => {
                return Err(Failure { code: TAKEN_AWAY, ..refused });
            }
            Err(failure) => self.say(4, format!("not yet put back: {}", failure.words)),
        }
        Ok(())
    }
}

fn show(disk: &Disk) -> Result<(), Failure> {
    let keys = Keys::of(&settings()?);
    let seen = disk.look()?;
    match &seen.held {
        None => println!("not reserved"),
        Some(held) => println!("reserved for {}; {}", keys.words(held.key), held.kind),
    }
    for key in &seen.keys {
        println!("registered: {}", keys.words(*key));
    }
    Ok(())
}

fn remove(disk: &Disk) -> Result<(), Failure> {
    let settings = settings()?;
    let me = Me::new(Keys::of(&settings), settings.me, Epoch::default());
    let keeps = disk.able()?.keeps;
    for key in me.mine(&disk.look()?) {
        disk.unregister(key, keeps)?;
    }
    match me.mine(&disk.look()?).next() {
        None => Ok(()),
        Some(key) => {
            let words = me.keys.words(key);
            Err(format!("still registered by another path to it: {words}").into())
        }
    }
}

/// For `hafailover check`: what would keep this disk from being reserved here.
pub fn check(path: &Path, keys: &Keys) -> Result<String, String> {
    device::refuses(path)?;
    let disk = Disk::new(path);
    disk.able().map_err(|trouble| trouble.to_string())?;
    let seen = disk.look().map_err(|trouble| trouble.to_string())?;
    let mut all = seen.keys.iter().chain(seen.held.iter().map(|held| &held.key));
    match all.find(|key| keys.claim(**key).is_none()) {
        Some(key) => Err(format!(
            "registered is {}: it would not be taken: sg_persist --in --read-full-status {}",
            keys.words(*key),
            path.display()
        )),
        None => Ok(seen.held.map_or_else(
            || "not reserved".to_string(),
            |held| format!("reserved for {}", keys.words(held.key)),
        )),
    }
}

/// Without the program nothing else is worth asking.
pub fn has_program() -> bool {
    Path::new(PROGRAM).exists()
}

fn status(words: &str) {
    let _ = sd_notify::notify(&[NotifyState::Status(words)]);
}
