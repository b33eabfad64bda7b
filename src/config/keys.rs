//! The key file: who may read it is checked before what it says is believed.

use crate::wire::keys::Keys;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// Longest key file: sixteen keys and many comments.
const FILE_MAX: u64 = 64 * 1024;

/// Loads and checks a key file. Refused: anything but a small file that only root can read and
/// replace. The error says what to do.
pub fn load(path: &Path) -> Result<Keys, String> {
    parse(path, &read(path)?)
}

/// The same for a daemon that holds groups: what others can only read is still this cluster's key,
/// and to end would help nobody. Also what is wrong with that.
pub fn load_held(path: &Path) -> Result<(Keys, Option<String>), String> {
    let (text, loose) = open(path)?;
    Ok((parse(path, &text)?, loose))
}

/// The text of a key file that passed all checks but that of its contents.
pub fn read(path: &Path) -> Result<String, String> {
    match open(path)? {
        (text, None) => Ok(text),
        (_, Some(loose)) => Err(loose),
    }
}

/// The text, and a complaint if others can read it. What others can write to is refused.
fn open(path: &Path) -> Result<(String, Option<String>), String> {
    let shown = path.display();
    let real = std::fs::canonicalize(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => format!(
            "{shown}: there is no key file: make one with hafailover keygen and copy it to every \
             node"
        ),
        _ => format!("{shown}: {e}"),
    })?;
    // Where the name stands, and where the file is: a link may lie between.
    let above = std::path::absolute(path).map_err(|e| format!("{shown}: {e}"))?;
    for dir in above.ancestors().skip(1).chain(real.ancestors().skip(1)) {
        closed_to_others(dir)?;
    }
    // Checked as opened, and not waited for: a pipe would keep us for ever.
    let options = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOFOLLOW;
    let flags = options.bits().cast_signed();
    let file = std::fs::OpenOptions::new().read(true).custom_flags(flags).open(&real);
    let file = file.map_err(|e| format!("{shown}: {e}"))?;
    let meta = file.metadata().map_err(|e| format!("{shown}: {e}"))?;
    let mode = meta.mode() & 0o7777;
    if !meta.is_file() {
        return Err(format!("{shown}: not a regular file: make one with hafailover keygen"));
    }
    if meta.uid() != 0 {
        return Err(format!("{shown}: owned by uid {}, not root: chown root {shown}", meta.uid()));
    }
    let loose = format!("{shown}: mode {mode:04o} lets others at it: chmod 600 {shown}");
    let loose = (mode & 0o077 != 0).then_some(loose);
    if let Some(loose) = loose.clone().filter(|_| mode & 0o033 != 0) {
        return Err(loose);
    }
    let mut text = String::new();
    let len = file.take(FILE_MAX + 1).read_to_string(&mut text);
    match len.map_err(|e| format!("{shown}: {e}"))? as u64 {
        0..=FILE_MAX => Ok((text, loose)),
        _ => Err(format!("{shown}: longer than {FILE_MAX} bytes: this is no key file")),
    }
}

/// The keys in the text of that file.
pub fn parse(path: &Path, text: &str) -> Result<Keys, String> {
    Keys::parse(text).map_err(|(line, what)| format!("{}:{line}: {what}", path.display()))
}

/// Who may write to a directory above the file can put another in its place. In a sticky one
/// (/tmp) they cannot.
fn closed_to_others(dir: &Path) -> Result<(), String> {
    let dir_shown = dir.display();
    let of = std::fs::metadata(dir).map_err(|e| format!("{dir_shown}: {e}"))?;
    let sticky = of.mode() & 0o1000 != 0;
    if of.uid() == 0 && (of.mode() & 0o022 == 0 || sticky) {
        return Ok(());
    }
    Err(format!(
        "{dir_shown}: others may write to this directory above the key file: chown root \
         {dir_shown} && chmod go-w {dir_shown}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{Permissions, set_permissions, write};
    use std::os::unix::fs::PermissionsExt;

    /// Goal: every looser mode is refused with the command that mends it. Needs root, like the
    /// daemon.
    #[test]
    fn a_key_file_that_others_can_reach_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("keys");
        write(&path, Keys::of(&[(1, [3; 32])], 1).to_text()).expect("written");
        let mode = |m| set_permissions(&path, Permissions::from_mode(m)).expect("chmod");
        mode(0o600);
        load(&path).expect("good");
        for bad in [0o640, 0o604, 0o620, 0o602, 0o666] {
            mode(bad);
            let error = load(&path).expect_err("refused");
            assert!(error.contains("chmod 600"), "{error}");
            let held = load_held(&path).ok().map(|(_, loose)| loose.expect("a complaint"));
            assert_eq!(held.is_some(), bad & 0o022 == 0, "{bad:o}: only read, it is still ours");
        }
        mode(0o600);
        set_permissions(dir.path(), Permissions::from_mode(0o777)).expect("chmod");
        assert!(load(&path).expect_err("refused").contains("directory"));
        assert!(load(Path::new("/nonexistent/keys")).expect_err("none").contains("keygen"));
    }

    /// Goal: not only the last directory counts, and not only the one where the name stands.
    #[test]
    fn every_directory_above_the_file_is_closed_to_others() {
        let top = tempfile::tempdir().expect("a directory");
        let (open, inner) = (top.path().join("open"), top.path().join("open/inner"));
        std::fs::create_dir_all(&inner).expect("made");
        let path = inner.join("keys");
        write(&path, Keys::of(&[(1, [3; 32])], 1).to_text()).expect("written");
        set_permissions(&path, Permissions::from_mode(0o600)).expect("chmod");
        let link = top.path().join("link");
        std::os::unix::fs::symlink(&path, &link).expect("a link");
        load(&link).expect("good");
        set_permissions(&open, Permissions::from_mode(0o777)).expect("chmod");
        for name in [&path, &link] {
            let error = load(name).expect_err("refused");
            assert!(error.contains("chmod go-w") && error.contains("/open:"), "{error}");
        }
    }

    #[test]
    fn what_is_no_small_file_is_refused_at_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("keys");
        let made = std::process::Command::new("mkfifo").args(["-m", "600"]).arg(&path).status();
        assert!(made.expect("mkfifo runs").success());
        assert!(load(&path).expect_err("a pipe").contains("regular file"));
        assert!(load(dir.path()).expect_err("a directory").contains("regular file"));
        std::fs::remove_file(&path).expect("removed");
        write(&path, "# so long\n".repeat(10_000)).expect("written");
        set_permissions(&path, Permissions::from_mode(0o600)).expect("chmod");
        assert!(load(&path).expect_err("too long").contains("longer than"));
    }
}
