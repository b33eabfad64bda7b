//! The keys of the heartbeats: numbered, several accepted, one used for sending, so that they can
//! be changed without an outage. Reads and writes the text of a key file, not the file.

use std::collections::BTreeMap;

/// Most keys in a file.
pub const KEYS_MAX: usize = 16;

/// At least one key; the one used for sending is among them.
#[derive(Clone, PartialEq, Eq)]
pub struct Keys {
    keys: BTreeMap<u8, [u8; 32]>,
    sending: u8,
}

/// Never shows a key.
impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keys({:?}, sending {})", self.keys.keys(), self.sending)
    }
}

impl Keys {
    /// # Panics
    /// If `sending` is not among `keys`; for tests and for keys just made.
    pub fn of(keys: &[(u8, [u8; 32])], sending: u8) -> Keys {
        let keys: BTreeMap<u8, [u8; 32]> = keys.iter().copied().collect();
        assert!(keys.contains_key(&sending), "the sending key is one of the keys");
        Keys { keys, sending }
    }

    pub fn sending(&self) -> (u8, &[u8; 32]) {
        (self.sending, &self.keys[&self.sending])
    }

    pub fn get(&self, id: u8) -> Option<&[u8; 32]> {
        self.keys.get(&id)
    }

    pub fn ids(&self) -> impl Iterator<Item = u8> {
        self.keys.keys().copied()
    }

    /// Parses lines `NUMBER HEX` (1 to 255, 64 hex digits) and one `use NUMBER`; `#` starts a
    /// comment. The error has the line's number first.
    pub fn parse(text: &str) -> Result<Keys, (usize, String)> {
        let mut keys = BTreeMap::new();
        let mut sending = None;
        for (n, line) in text.lines().enumerate() {
            let at = n + 1;
            let words: Vec<&str> =
                line.split('#').next().unwrap_or_default().split_whitespace().collect();
            match words.as_slice() {
                [] => {}
                ["use", id] => match number(id) {
                    Some(id) if sending.is_none() => sending = Some((id, at)),
                    Some(_) => return Err((at, "a second use line: keep one of them".into())),
                    // Not shown: it may be the key.
                    None => return Err((at, "use: write the number of a key behind it".into())),
                },
                [id, hex] => {
                    let id = number(id).ok_or_else(|| {
                        // Not shown: in a line with its columns swapped it is the key.
                        (at, "no key number: write a number from 1 to 255, then the key".into())
                    })?;
                    let key = unhex(hex).ok_or_else(|| {
                        (at, "the key is not 64 hex digits: make it with hafailover keygen".into())
                    })?;
                    if keys.insert(id, key).is_some() {
                        return Err((at, format!("key {id} stands here twice: number it anew")));
                    }
                }
                _ => {
                    return Err((at, "neither \"NUMBER HEX\" nor \"use NUMBER\"".into()));
                }
            }
        }
        let end = text.lines().count();
        if keys.is_empty() || keys.len() > KEYS_MAX {
            return Err((end, format!("{} keys: there must be 1 to {KEYS_MAX}", keys.len())));
        }
        match sending {
            None => Err((end, "no use line: say which key is used for sending".into())),
            Some((id, at)) if !keys.contains_key(&id) => {
                Err((at, format!("use {id}: there is no key {id} in the file")))
            }
            Some((sending, _)) => Ok(Keys { keys, sending }),
        }
    }

    /// The text of a key file with these keys.
    pub fn to_text(&self) -> String {
        let mut text = String::from("# Keys of the heartbeats: the same file on every node.\n");
        for (id, key) in &self.keys {
            text.push_str(&key_line(*id, key));
        }
        text + &format!("use {}\n", self.sending)
    }
}

/// The line of one key, with its end.
pub fn key_line(id: u8, key: &[u8; 32]) -> String {
    let hex: String = key.iter().map(|b| format!("{b:02x}")).collect();
    format!("{id} {hex}\n")
}

/// 1 to 255 in digits alone; `parse` would also take a sign.
fn number(text: &str) -> Option<u8> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    text.parse::<u8>().ok().filter(|n| digits && *n > 0)
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let mut key = [0; 32];
    for (n, byte) in key.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * n..2 * n + 2], 16).ok()?;
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let keys = Keys::of(&[(1, [1; 32]), (9, [0xfe; 32])], 9);
        assert_eq!(Keys::parse(&keys.to_text()), Ok(keys));
    }

    #[test]
    fn each_mistake_names_its_line() {
        let good = format!("1 {}\n", "ab".repeat(32));
        for (text, line) in [
            (format!("{good}use 2\n"), 2),
            (format!("{good}{good}use 1\n"), 2),
            (good.clone(), 1),
            (format!("0 {}\nuse 0\n", "ab".repeat(32)), 1),
            ("1 abc\nuse 1\n".to_string(), 1),
            (format!("{good}use 1\nuse 1\n"), 3),
            ("auth 1\n1 sha1 secret\n".to_string(), 1),
            (format!("1 {}\nuse 1\n", "+f".repeat(32)), 1),
            (format!("+{good}use 1\n"), 1),
            (format!("{good}use +1\n"), 2),
            (format!("{good}use {}\n", "ab".repeat(32)), 2),
        ] {
            let error = Keys::parse(&text).expect_err(&text);
            assert_eq!(error.0, line, "{text}");
            assert!(!error.1.contains("abab"), "shows a key: {}", error.1);
        }
    }
}
