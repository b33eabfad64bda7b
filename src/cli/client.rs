//! Talking to the daemon over its control socket.

use crate::core::view::View;
use crate::core::{Command, Reply as Answer};
use crate::daemon::control::SOCKET;
use crate::wire::control::{DaemonView, Reply, Request};
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

/// How long a view is waited for.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

// How the result is waited for and printed. No doc comment: it would be the command's in --help.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct How {
    /// Print the answers as JSON lines.
    #[arg(long)]
    json: bool,
    /// End as soon as it is under way, without the result.
    #[arg(long)]
    no_wait: bool,
}

/// Why there is no answer; the exit code with it.
pub struct Silent {
    pub words: String,
    pub code: u8,
}

fn connect(request: &Request) -> Result<BufReader<UnixStream>, Silent> {
    let silent = |words: String, code| Silent { words, code };
    let mut stream = UnixStream::connect(SOCKET).map_err(|e| match e.kind() {
        ErrorKind::PermissionDenied => {
            let words = "only root may ask the daemon, and the group hafailover to look: use sudo";
            silent(words.into(), 1)
        }
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
            let words = "the daemon does not run: systemctl start hafailover; if it does not \
                         stay up, journalctl -u hafailover says why";
            silent(words.into(), 3)
        }
        _ => silent(format!("{SOCKET}: {e}: systemctl status hafailover"), 3),
    })?;
    let mut line = serde_json::to_string(request).unwrap_or_default();
    line.push('\n');
    let lost = |e: std::io::Error| silent(format!("the daemon went away: {e}"), 3);
    stream.write_all(line.as_bytes()).map_err(lost)?;
    Ok(BufReader::new(stream))
}

/// Reads one reply; an end before the last one is an error.
fn next(stream: &mut BufReader<UnixStream>) -> Result<Reply, Silent> {
    let mut line = String::new();
    let gone = |why: String| Silent {
        words: format!("the daemon went away without a result{why}: hafailover status"),
        code: 3,
    };
    match stream.read_line(&mut line) {
        Ok(0) => Err(gone(String::new())),
        Ok(_) => serde_json::from_str(&line).map_err(|e| gone(format!(" ({e})"))),
        Err(e) => Err(gone(format!(" ({e})"))),
    }
}

pub fn view() -> Result<(View, DaemonView), Silent> {
    let mut stream = connect(&Request::View)?;
    // A daemon that stands still (frozen, or out of memory) must not make its status hang.
    let _ = stream.get_ref().set_read_timeout(Some(PATIENCE));
    match next(&mut stream)? {
        Reply::View { view, daemon } => Ok((*view, daemon)),
        Reply::Answer(Answer::Refused(words)) => Err(Silent { words, code: 1 }),
        Reply::Answer(_) => Err(Silent {
            words: "the daemon is of another version: systemctl restart hafailover (groups run on)"
                .into(),
            code: 1,
        }),
    }
}

/// Asks, shows what it waits for, and ends with the result.
pub fn ask(request: Result<Request, Silent>, how: How) -> ExitCode {
    follow(request, how.json, how.no_wait)
}

pub fn follow(request: Result<Request, Silent>, json: bool, no_wait: bool) -> ExitCode {
    let mut stream = match request.and_then(|r| connect(&r)) {
        Ok(stream) => stream,
        Err(silent) => return complain(&silent, json),
    };
    loop {
        let answer = match next(&mut stream) {
            Ok(Reply::Answer(answer)) => answer,
            Ok(Reply::View { .. }) => continue,
            Err(silent) => return complain(&silent, json),
        };
        match answer {
            Answer::Refused(words) => return super::fail(&words, 1, json),
            Answer::Done(words) => return super::finish(Ok(words), json),
            Answer::Progress(words) => match json {
                true => println!("{}", serde_json::json!({ "progress": words })),
                false => println!("… {words}"),
            },
        }
        if no_wait {
            return ExitCode::SUCCESS;
        }
    }
}

pub fn complain(silent: &Silent, json: bool) -> ExitCode {
    super::fail(&silent.words, silent.code, json)
}

/// A request about a group; `files.target` is `files`.
pub fn group(name: &str) -> crate::core::name::GroupName {
    crate::core::name::GroupName(name.strip_suffix(".target").unwrap_or(name).into())
}

/// A node by name, as the daemon knows it; none given: this one.
pub fn node(name: Option<&str>) -> Result<crate::core::name::NodeId, Silent> {
    let (view, _) = view()?;
    let Some(name) = name else { return Ok(view.me) };
    let found = view.nodes.iter().find(|n| n.name == name).map(|n| n.id);
    found.ok_or_else(|| {
        let names: Vec<&str> = view.nodes.iter().map(|n| n.name.as_str()).collect();
        Silent {
            words: format!("there is no node {name}; there are: {}", names.join(", ")),
            code: 1,
        }
    })
}

pub fn command(command: Command) -> Result<Request, Silent> {
    Ok(Request::Do(command))
}
