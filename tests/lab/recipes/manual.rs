//! The files in the text of hafailover-recipes(7): what is tried is what the reader has.

use std::path::Path;

/// Path and text.
pub type File = (String, String);

/// The files in a section: a block between .nf and .fi whose first line is `# /PATH`; another such
/// line begins the next file.
pub fn section(title: &str) -> Vec<File> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("man/hafailover-recipes.7");
    let page = std::fs::read_to_string(path).expect("the page is there");
    let head = format!(".SH {title}");
    let mut lines = page.lines().skip_while(|l| **l != head).skip(1).peekable();
    assert!(lines.peek().is_some(), "hafailover-recipes(7) has no section {title}");
    let mut files: Vec<File> = Vec::new();
    let mut inside = false;
    for line in lines.take_while(|l| !l.starts_with(".SH ")) {
        match (line, line.strip_prefix("# /")) {
            (".nf", _) => inside = true,
            (".fi", _) => inside = false,
            (_, Some(path)) if inside => files.push((format!("/{}", plain(path)), String::new())),
            _ if inside => {
                let file = files.last_mut().expect("a block begins with its path");
                file.1 += &(plain(line) + "\n");
            }
            _ => {}
        }
    }
    files
}

/// Escapes of man(7).
fn plain(line: &str) -> String {
    line.trim_start_matches("\\&").replace("\\-", "-").replace("\\e", "\\")
}
