//! `hafailover keygen`: makes a key file, or adds a key to one for a rotation.

use crate::config;
use crate::wire::keys::{KEYS_MAX, Keys, key_line};
use rustix::fs::{CWD, RenameFlags};
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Make a key file for the heartbeats.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The key file.
    #[arg(long, default_value = "/etc/hafailover/keys")]
    file: PathBuf,
    /// Add a new key, not yet used for sending, to an existing file.
    #[arg(long)]
    add: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> ExitCode {
    super::finish(if args.add { add(&args.file) } else { make(&args.file) }, args.json)
}

fn make(path: &Path) -> Result<String, String> {
    let place = Place::of(path)?;
    place.save(&Keys::of(&[(1, random()?)], 1).to_text(), RenameFlags::NOREPLACE)?;
    Ok(format!("{0}: made. Copy it to every node: scp -p {0} root@NODE:{0}", path.display()))
}

/// Leaves the rest of the file as people wrote it.
fn add(path: &Path) -> Result<String, String> {
    let real = std::fs::canonicalize(path).unwrap_or_else(|_| path.into());
    let place = Place::of(&real)?;
    let mut text = config::keys::read(path)?;
    let keys = config::keys::parse(path, &text)?;
    let next = keys.ids().max().unwrap_or(0).checked_add(1).ok_or_else(|| {
        format!("{}: no key number is left: give the keys smaller numbers", path.display())
    })?;
    if keys.ids().count() >= KEYS_MAX {
        return Err(format!("{}: {KEYS_MAX} keys already: remove old ones", path.display()));
    }
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text.push_str(&key_line(next, &random()?));
    config::keys::parse(path, &text)?;
    place.save(&text, RenameFlags::empty())?;
    Ok(format!(
        "{0}: key {next} added. 1. copy the file to every node and run systemctl reload \
         hafailover there; 2. write \"use {next}\" in it on every node and reload; 3. remove the \
         old key's line on every node and reload.",
        path.display()
    ))
}

/// A file to be made or replaced, its directory locked against another keygen.
struct Place<'a> {
    path: &'a Path,
    dir: File,
}

impl Place<'_> {
    fn of(path: &Path) -> Result<Place<'_>, String> {
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let dir = File::open(parent).and_then(|dir| dir.lock().map(|()| dir));
        let dir = dir.map_err(|e| match e.kind() {
            ErrorKind::NotFound => {
                format!("{0}: there is no such directory: mkdir -m 755 {0}", parent.display())
            }
            ErrorKind::PermissionDenied => format!("{}: {e}: use sudo", parent.display()),
            _ => format!("{}: {e}", parent.display()),
        })?;
        Ok(Place { path, dir })
    }

    /// Beside the old file, then renamed over it: never half a key file, not after a power loss
    /// either.
    fn save(&self, text: &str, how: RenameFlags) -> Result<(), String> {
        let at = |e: std::io::Error| match e.kind() {
            ErrorKind::AlreadyExists => format!(
                "{}: exists already: --add adds a key to it; to start over, remove it on every \
                 node",
                self.path.display()
            ),
            ErrorKind::PermissionDenied => format!("{}: {e}: use sudo", self.path.display()),
            _ => format!("{}: {e}", self.path.display()),
        };
        let mut name = self.path.as_os_str().to_owned();
        name.push(".new");
        let new = PathBuf::from(name);
        // Left over from a keygen that was killed: the lock is ours.
        let _ = std::fs::remove_file(&new);
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(&new).map_err(at)?;
        let moved = file
            .write_all(text.as_bytes())
            .and_then(|()| file.sync_all())
            .and_then(|()| Ok(rustix::fs::renameat_with(CWD, &new, CWD, self.path, how)?));
        if moved.is_err() {
            let _ = std::fs::remove_file(&new);
        }
        moved.and_then(|()| self.dir.sync_all()).map_err(at)
    }
}

fn random() -> Result<[u8; 32], String> {
    let mut key = [0; 32];
    getrandom::fill(&mut key)
        .map_err(|e| format!("the kernel gives no random numbers: {e}: try again"))?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(path: &Path) -> Vec<u8> {
        config::keys::load(path).expect("a good file").ids().collect()
    }

    #[test]
    fn a_missing_directory_is_said_and_not_made() {
        let top = tempfile::tempdir().expect("a directory");
        let path = top.path().join("ect/keys");
        let error = make(&path).expect_err("refused");
        assert!(error.contains("mkdir"), "{error}");
        assert!(!top.path().join("ect").exists());
    }

    /// Goal: of many at once one makes the file, and nobody replaces it.
    #[test]
    fn of_two_at_once_one_makes_the_file() {
        let top = tempfile::tempdir().expect("a directory");
        let path = top.path().join("keys");
        let all = |act: fn(&Path) -> Result<String, String>| {
            std::thread::scope(|s| {
                let threads: Vec<_> = (0..8).map(|_| s.spawn(|| act(&path))).collect();
                threads.into_iter().map(|t| t.join().expect("no panic")).collect::<Vec<_>>()
            })
        };
        let made = all(make);
        assert_eq!(made.iter().filter(|r| r.is_ok()).count(), 1, "{made:?}");
        assert!(made.iter().flat_map(|r| r.as_ref().err()).all(|e| e.contains("--add")));
        assert!(all(add).iter().all(|r| r.is_ok()));
        assert_eq!(keys(&path), (1..=9).collect::<Vec<u8>>(), "no addition is lost");
        let left: Vec<_> = std::fs::read_dir(top.path()).expect("readable").collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }

    #[test]
    fn what_people_wrote_stays() {
        let top = tempfile::tempdir().expect("a directory");
        let path = top.path().join("keys");
        make(&path).expect("made");
        let text = std::fs::read_to_string(&path).expect("readable");
        let text = format!("# of the office, since May\n{}   # still\n# end", text.trim_end());
        std::fs::write(&path, &text).expect("written");
        add(&path).expect("added");
        let now = std::fs::read_to_string(&path).expect("readable");
        assert!(now.starts_with(&format!("{text}\n2 ")), "{now}");
        assert_eq!(keys(&path), [1, 2]);
    }
}
