//! What the operator reads: the program itself, asked on a terminal of the test's own, against real
//! cores in a virtual world. Each `*.txt` here is commands as in the scenarios, lines `n1 $ status`
//! for what is typed on n1, a line `----`, and all that the program then printed. A change of what
//! `--json` prints shows here. `UPDATE=1 cargo test --test cli` rewrites it; read the difference.

#[path = "../scenarios/main.rs"]
mod scenarios;

use hafailover::core::time::Duration;
use hafailover::core::{Event, Reply as Answer};
use hafailover::wire::control::{DaemonView, LinkCounters, Reply, Request};
use scenarios::world::World;
use scenarios::{Setup, command};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

const PROGRAM: &str = env!("CARGO_BIN_EXE_hafailover");
/// Virtual time after which a request without a result is one that hangs.
const PATIENCE: Duration = Duration::from_secs(900);

#[test]
fn every_session_prints_what_is_written() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli");
    let entries = std::fs::read_dir(&dir).expect("the directory of the sessions");
    let mut files: Vec<_> = entries.map(|e| e.expect("readable").path()).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "txt"));
    files.sort();
    assert!(files.len() >= 5, "the sessions are missing");
    let mut wrong = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).expect("readable");
        let (script, expected) = text.split_once("----\n").unwrap_or((text.as_str(), ""));
        let got = play(script, &dir);
        if got != expected && std::env::var_os("UPDATE").is_some() {
            std::fs::write(&file, format!("{script}----\n{got}")).expect("writable");
        } else if got != expected {
            let same = expected.lines().zip(got.lines()).take_while(|(a, b)| a == b).count();
            let rest: Vec<&str> = got.lines().skip(same).take(8).collect();
            wrong.push(format!("{}: from line {same}:\n{}", file.display(), rest.join("\n")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn play(script: &str, dir: &Path) -> String {
    let (mut setup, mut world) = (Setup::default(), None);
    let mut out = String::new();
    for line in script.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if words.is_empty() || words[0].starts_with('#') || setup.take(&words) {
            continue;
        }
        let world = world.get_or_insert_with(|| World::new(setup.policies()));
        match line.split_once(" $ ") {
            Some((node, typed)) => out += &session(world, node, typed, dir),
            None => command(world, &words),
        }
    }
    out
}

/// One command, and what it printed.
fn session(world: &mut World, node: &str, typed: &str, dir: &Path) -> String {
    let place = tempfile::tempdir().expect("a directory");
    let at = place.path().display().to_string();
    let (mut out, typed) = (format!("{node} $ {typed}\n"), typed.replace("TMP", &at));
    let typed = typed.replace("HERE", &dir.display().to_string());
    let n = world.node(node);
    let run = place.path().join("run");
    std::fs::create_dir_all(run.join("hafailover")).expect("made");
    let listener = UnixListener::bind(run.join("hafailover/control")).expect("bound");
    listener.set_nonblocking(true).expect("a socket");
    if world.nodes[n].core.is_none() {
        std::fs::remove_file(run.join("hafailover/control")).expect("there");
    }
    let mut child = start(place.path(), &typed, dir);
    while child.try_wait().expect("a child").is_none() {
        match listener.accept() {
            Ok((stream, _)) => serve(world, n, stream),
            Err(_) => std::thread::yield_now(),
        }
    }
    let output = child.wait_with_output().expect("ended");
    out += &printed(&output, typed.contains("--json")).replace(&at, "TMP");
    out.replace(&dir.display().to_string(), "HERE")
}

/// In a mount namespace of its own, in which /run is ours and the journal is a file of the test's.
fn start(place: &Path, typed: &str, dir: &Path) -> Child {
    let script = format!(
        "mkdir {0}/bin && printf '#!/bin/sh\\ncat {1}/journal.json\\n' > {0}/bin/journalctl && \
         chmod 755 {0}/bin/journalctl && mount --bind {0}/run /run && \
         PATH={0}/bin:$PATH exec {PROGRAM} {typed}",
        place.display(),
        dir.display()
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation=private", "sh", "-ec", &script]);
    command.env("TZ", "CET-1").stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("unshare runs, as root")
}

/// The daemon's side: its core is the world's.
fn serve(world: &mut World, n: usize, stream: UnixStream) {
    stream.set_nonblocking(false).expect("a socket");
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line).expect("a request");
    let request: Request = serde_json::from_str(&line).expect("a request");
    let send = |reply: &Reply| {
        let text = serde_json::to_string(reply).expect("JSON") + "\n";
        // A program that does not wait for the result is gone.
        (&stream).write_all(text.as_bytes()).is_ok()
    };
    let command = match request {
        Request::View => {
            let core = world.nodes[n].core.as_ref().expect("its socket is there");
            let view = Box::new(core.view(world.now));
            send(&Reply::View { view, daemon: daemon() });
            return;
        }
        Request::Reload => panic!("a core does not read files"),
        Request::Do(command) => command,
    };
    world.replies.clear();
    let by = "root".to_string();
    world.later(n, Duration::ZERO, Event::Asked { request: 1, by, command });
    let end = world.now + PATIENCE;
    loop {
        world.run(Duration::from_millis(1));
        for answer in std::mem::take(&mut world.replies) {
            let ends = !matches!(answer, Answer::Progress(_));
            if !send(&Reply::Answer(answer)) || ends {
                return;
            }
        }
        assert!(world.now < end, "a request without a result");
    }
}

fn daemon() -> DaemonView {
    let link = |name: &str, noise| LinkCounters {
        name: name.into(),
        frames_out: 10,
        bytes_out: 2000,
        frames_in: 9,
        bytes_in: 1800,
        noise,
        ..LinkCounters::default()
    };
    DaemonView {
        version: "1.2.3".into(),
        pid: 7,
        scheduling: "SCHED_RR 50".into(),
        memory_locked: true,
        dropped_entries: 0,
        links: vec![link("link0", 0), link("link1", 2)],
        wrong: Vec::new(),
        watchdog: None,
    }
}

/// JSON over several lines, so that a difference is seen where it is.
fn printed(output: &Output, json: bool) -> String {
    let mut out = String::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        match serde_json::from_str::<serde_json::Value>(line).ok().filter(|_| json) {
            Some(value) => out += &(serde_json::to_string_pretty(&value).expect("JSON") + "\n"),
            None => out += &format!("{line}\n"),
        }
    }
    for line in String::from_utf8_lossy(&output.stderr).lines() {
        out += &format!("2> {line}\n");
    }
    match output.status.code() {
        Some(0) => out,
        code => out + &format!("exit {}\n", code.map_or("by a signal".into(), |c| c.to_string())),
    }
}
