//! `hafailover fence`.

use super::client::{self, Silent};
use crate::core::Command;
use crate::core::view::{Presence, View};
use crate::wire::control::Request;
use std::io::{BufRead, IsTerminal, Write};
use std::process::ExitCode;

/// Power a node off, or cut it from the storage, by its fence.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The node to be fenced.
    node: String,
    /// Only try whether it would work.
    #[arg(long)]
    check: bool,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    how: client::How,
}

pub fn run(args: Args) -> ExitCode {
    let request = client::node(Some(&args.node)).and_then(|node| {
        if args.check {
            return client::command(Command::FenceCheck { node });
        }
        if !args.yes {
            let (view, _) = client::view()?;
            if let Some(words) = what_happens(&view, &args.node) {
                agree(&words, &args.node)?;
            }
        }
        client::command(Command::Fence { node })
    });
    client::ask(request, args.how)
}

/// What this does, so that nobody does it to the wrong one. `None`: the daemon will refuse it, and
/// say what is missing.
fn what_happens(view: &View, name: &str) -> Option<String> {
    let node = view.nodes.iter().find(|n| n.name == name)?;
    let fence = view.fences.iter().find(|f| f.node == node.id)?;
    let how = match fence.power {
        true => format!("{name} is powered off at once by {}", fence.by),
        false => format!("{name} is cut from the storage at once by {}", fence.by),
    };
    let there = view.groups.iter().filter(|g| g.owner == Some(node.id));
    let there: Vec<&str> = there.map(|g| g.name.0.as_str()).collect();
    let state = match (node.presence, there.is_empty()) {
        (Presence::Silent | Presence::Unseen, _) => "it is not heard".to_string(),
        (_, true) => "it is ALIVE and runs no group".to_string(),
        (_, false) => format!("it is ALIVE and runs {}", there.join(", ")),
    };
    Some(format!("{how}; {state}"))
}

fn agree(words: &str, name: &str) -> Result<(), Silent> {
    let refused = |words: &str| Silent { words: words.into(), code: 1 };
    println!("{words}");
    if !std::io::stdin().is_terminal() {
        return Err(refused("nobody is there to be asked: --yes does it"));
    }
    print!("type {name} to go on: ");
    let _ = std::io::stdout().flush();
    let mut line = String::new();
    let _ = std::io::stdin().lock().read_line(&mut line);
    if line.trim() == name { Ok(()) } else { Err(refused("nothing was done")) }
}

/// For `clear --fence`.
pub fn clear(name: &str) -> Result<Request, Silent> {
    client::node(Some(name)).and_then(|node| client::command(Command::ClearFence { node }))
}
