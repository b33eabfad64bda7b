//! A unit file and its drop-ins as text (systemd.syntax(7), systemd.unit(5)): which file counts,
//! what it assigns, and where each assignment stands.

use super::target::UNIT_DIRS;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Longest unit file that is read, in bytes.
const FILE_MAX: u64 = 256 * 1024;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    pub section: String,
    pub key: String,
    pub value: String,
    pub file: PathBuf,
    pub line: usize,
}

impl Assignment {
    /// `file:line`; only the file where that is a link.
    pub fn place(&self) -> String {
        match self.line {
            0 => self.file.display().to_string(),
            line => format!("{}:{line}", self.file.display()),
        }
    }
}

/// A unit's fragment and drop-ins, in the order in which they count.
#[derive(Clone, Debug)]
pub struct UnitText {
    pub fragment: PathBuf,
    pub assignments: Vec<Assignment>,
}

impl UnitText {
    /// `None`: there is no such unit. A template's instance reads the template, an alias what it
    /// stands for.
    pub fn load(root: &Path, unit: &str) -> Result<Option<UnitText>, String> {
        let Some((text, errors)) = UnitText::gather(root, unit) else { return Ok(None) };
        match errors.into_iter().next() {
            Some(error) => Err(error),
            None => Ok(Some(text)),
        }
    }

    /// The same, with all that can be read where something is wrong, and what is wrong. A masked
    /// unit is read behind its mask.
    pub fn gather(root: &Path, unit: &str) -> Option<(UnitText, Vec<String>)> {
        let mut names = match (unit.split_once('@'), unit.rsplit_once('.')) {
            (Some((prefix, _)), Some((_, suffix))) => {
                vec![unit.to_string(), format!("{prefix}@.{suffix}")]
            }
            _ => vec![unit.to_string()],
        };
        let all = |name: &String| UNIT_DIRS.map(|d| root.join(d).join(name));
        let mut found: Vec<PathBuf> = names.iter().flat_map(all).collect();
        found.retain(|p| p.symlink_metadata().is_ok());
        let masked =
            |p: &PathBuf| std::fs::canonicalize(p).is_ok_and(|p| p == Path::new("/dev/null"));
        let first = found.first()?;
        let mut errors = Vec::new();
        if masked(first) {
            let shown = first.display();
            errors.push(format!("{shown}: {unit} is masked: systemctl unmask {unit}"));
        }
        let fragment = found.iter().find(|p| !masked(p)).unwrap_or(first);
        if let Some(name) = real_name(fragment).filter(|name| !names.contains(name)) {
            names.push(name);
        }
        let mut text = UnitText::empty(fragment);
        errors.extend(text.read(fragment));
        for file in dropins(root, &names) {
            errors.extend(text.read(&file));
        }
        Some((text, errors))
    }

    /// What is wrong with it.
    fn read(&mut self, file: &Path) -> Vec<String> {
        let at = |e: std::io::Error| vec![format!("{}: {e}", file.display())];
        match std::fs::metadata(file) {
            Err(e) => return at(e),
            Ok(meta) if meta.len() > FILE_MAX => {
                return vec![format!("{}: longer than {FILE_MAX} bytes", file.display())];
            }
            Ok(_) => {}
        }
        match std::fs::read_to_string(file) {
            Ok(text) => self.add(&text, file),
            Err(e) => at(e),
        }
    }

    pub fn empty(fragment: &Path) -> UnitText {
        UnitText { fragment: fragment.into(), assignments: Vec::new() }
    }

    /// Takes in what stands in `file`, which comes after all before. What is wrong with it.
    pub fn add(&mut self, text: &str, file: &Path) -> Vec<String> {
        let (assignments, errors) = parse(text, file);
        self.assignments.extend(assignments);
        errors
    }

    /// The links that `systemctl enable` makes of WantedBy= and RequiredBy=, as what they mean.
    pub fn add_links(&mut self, root: &Path, unit: &str) {
        let kinds = [("Requires", "requires"), ("Wants", "wants"), ("Upholds", "upholds")];
        for (key, kind) in kinds {
            let dirs = UNIT_DIRS.iter().map(|d| root.join(d).join(format!("{unit}.{kind}")));
            let links = dirs.filter_map(|d| std::fs::read_dir(d).ok()).flatten().flatten();
            let mut links: Vec<PathBuf> = links.map(|l| l.path()).collect();
            links.sort_by_key(|l| l.file_name().map(std::ffi::OsStr::to_os_string));
            for file in links {
                let name = file.file_name().and_then(|n| n.to_str());
                let Some(value) = name.map(str::to_string) else { continue };
                let (section, key) = ("Unit".into(), key.into());
                self.assignments.push(Assignment { section, key, value, file, line: 0 });
            }
        }
    }

    /// The words of a list setting: assignments add up, an empty one starts over.
    pub fn list(&self, section: &str, key: &str) -> Vec<Assignment> {
        let mut words = Vec::new();
        for line in self.assignments.iter().filter(|a| a.section == section && a.key == key) {
            if line.value.is_empty() {
                words.clear();
            }
            for word in line.value.split_whitespace() {
                words.push(Assignment { value: word.into(), ..line.clone() });
            }
        }
        words
    }

    /// The last assignment of a setting.
    pub fn last(&self, section: &str, key: &str) -> Option<&Assignment> {
        self.assignments.iter().rfind(|a| a.section == section && a.key == key)
    }

    pub fn section(&self, section: &str) -> Vec<Assignment> {
        self.assignments.iter().filter(|a| a.section == section).cloned().collect()
    }
}

/// `NAME.d/*.conf`, sorted by file name; of equal names the directory earlier in the list wins.
fn dropins(root: &Path, names: &[String]) -> Vec<PathBuf> {
    let mut files: BTreeMap<std::ffi::OsString, PathBuf> = BTreeMap::new();
    for name in names {
        for dir in UNIT_DIRS.iter().map(|d| root.join(d).join(format!("{name}.d"))) {
            for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
                let path = entry.path();
                // Ours depend on the group's settings and would change its fingerprint.
                let ours = entry.file_name() == super::generator::DROPIN;
                if path.extension().is_some_and(|e| e == "conf") && !ours {
                    files.entry(entry.file_name()).or_insert(path);
                }
            }
        }
    }
    files.into_values().collect()
}

/// The name of the file that an alias stands for, if that is a unit of the same kind.
fn real_name(fragment: &Path) -> Option<String> {
    let real = std::fs::canonicalize(fragment).ok()?;
    let same = real.extension() == fragment.extension();
    real.file_name().filter(|_| same).map(|name| name.to_string_lossy().into_owned())
}

/// What is assigned, and the lines that are wrong.
fn parse(text: &str, file: &Path) -> (Vec<Assignment>, Vec<String>) {
    let (mut assignments, mut errors) = (Vec::new(), Vec::new());
    let mut section = String::new();
    let mut lines = text.lines().enumerate().peekable();
    while let Some((n, line)) = lines.next() {
        let line = line.trim();
        let line_number = n + 1;
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            section = name.to_string();
            continue;
        }
        let mut whole = line.to_string();
        while whole.ends_with('\\') {
            whole.pop();
            whole.push(' ');
            match lines.next() {
                // A comment between continued lines is skipped, as systemd does.
                Some((_, more)) if more.trim_start().starts_with(['#', ';']) => whole.push('\\'),
                Some((_, more)) => whole.push_str(more.trim()),
                None => break,
            }
        }
        let Some((key, value)) = whole.split_once('=') else {
            errors.push(format!(
                "{}:{line_number}: \"{whole}\" is no assignment: write KEY=VALUE",
                file.display()
            ));
            continue;
        };
        assignments.push(Assignment {
            section: section.clone(),
            key: key.trim().into(),
            value: value.trim().into(),
            file: file.into(),
            line: line_number,
        });
    }
    (assignments, errors)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn continued_lines_comments_and_places() {
        let text = "# c\n[Unit]\nRequires=a.service \\\n# between\n  b.mount\n\n\
                    [X-Hafailover]\nNodes=n1\n";
        let (got, errors) = parse(text, Path::new("f"));
        assert_eq!(errors, Vec::<String>::new());
        assert_eq!(got[0].value.split_whitespace().collect::<Vec<_>>(), ["a.service", "b.mount"]);
        assert_eq!((got[0].line, got[1].section.as_str(), got[1].line), (3, "X-Hafailover", 8));
        assert!(parse("[Unit]\nrubbish\n", Path::new("f")).1[0].starts_with("f:2:"));
    }
}
