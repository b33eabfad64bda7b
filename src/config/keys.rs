//! The key file: who may read it is checked before what it says is believed.

use crate::wire::keys::Keys;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Loads and checks a key file. Refused: not owned by root, readable or writable by anybody else,
/// or in a directory that others can write to. The error says what to do.
pub fn load(path: &Path) -> Result<Keys, String> {
    let shown = path.display();
    let meta = std::fs::metadata(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => format!(
            "{shown}: there is no key file: make one with hafailover keygen and copy it to every \
             node"
        ),
        _ => format!("{shown}: {e}"),
    })?;
    let mode = meta.mode() & 0o7777;
    if meta.uid() != 0 {
        return Err(format!("{shown}: owned by uid {}, not root: chown root {shown}", meta.uid()));
    }
    if mode & 0o077 != 0 {
        return Err(format!("{shown}: mode {mode:04o} lets others at it: chmod 600 {shown}"));
    }
    if let Some(dir) = path.parent().filter(|d| !d.as_os_str().is_empty()) {
        let of = std::fs::metadata(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        let sticky = of.mode() & 0o1000 != 0;
        if of.uid() != 0 || (of.mode() & 0o022 != 0 && !sticky) {
            let dir = dir.display();
            return Err(format!(
                "{dir}: others may write to the directory of the key file: chown root {dir} && \
                 chmod go-w {dir}"
            ));
        }
    }
    let text = std::fs::read_to_string(path).map_err(|e| format!("{shown}: {e}"))?;
    Keys::parse(&text).map_err(|(line, what)| format!("{shown}:{line}: {what}"))
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
        }
        mode(0o600);
        set_permissions(dir.path(), Permissions::from_mode(0o777)).expect("chmod");
        assert!(load(&path).expect_err("refused").contains("directory"));
        assert!(load(Path::new("/nonexistent/keys")).expect_err("none").contains("keygen"));
    }
}
