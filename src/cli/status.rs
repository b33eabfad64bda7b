//! `hafailover status`: nodes, links, groups, and what a person should look at.

use super::client;
use crate::core::heartbeat::{Held, Phase};
use crate::core::member_words;
use crate::core::view::{GroupNodeView, GroupView, NodeView, Presence, View};
use crate::wire::control::DaemonView;
use std::fmt::Write;
use std::process::ExitCode;
use std::time::Duration;

/// Exit code when something needs a person.
const NOT_WELL: u8 = 4;

/// Show nodes, links, groups, and who owns what on which evidence.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> ExitCode {
    let (view, daemon) = match client::view() {
        Ok(both) => both,
        Err(silent) => return client::complain(&silent, args.json),
    };
    if args.json {
        let all = serde_json::json!({ "view": view, "daemon": daemon });
        println!("{all}");
    } else {
        print!("{}", render(&view, &daemon));
    }
    if view.is_well() && daemon.wrong.is_empty() && watchdog_trouble(&daemon).is_none() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(NOT_WELL)
    }
}

pub fn render(view: &View, daemon: &DaemonView) -> String {
    let mut out = String::new();
    for node in &view.nodes {
        node_lines(&mut out, node);
    }
    if view.maintenance {
        out.push_str("\nmaintenance is on: nothing is touched\n");
    }
    fence_lines(&mut out, view);
    for group in &view.groups {
        group_lines(&mut out, view, group);
    }
    if view.groups.is_empty() {
        out.push_str("\nno groups: systemctl enable NAME.target, see hafailover.group(5)\n");
    }
    if !view.warnings.is_empty() || !daemon.wrong.is_empty() {
        out.push('\n');
    }
    for wrong in &daemon.wrong {
        let _ = writeln!(out, "! {wrong}");
    }
    if !daemon.wrong.is_empty() {
        out.push_str(
            "! what was last accepted stays in force; mended: systemctl reload hafailover\n",
        );
    }
    for warning in &view.warnings {
        let _ = writeln!(out, "! {warning}");
    }
    if let Some(why) = watchdog_trouble(daemon) {
        let _ = writeln!(out, "! the watchdog: {why}; nothing starts here until it is mended");
    }
    link_lines(&mut out, daemon);
    if daemon.dropped_entries > 0 {
        let _ = writeln!(out, "! {} journal entries were lost", daemon.dropped_entries);
    }
    let _ = writeln!(
        out,
        "\nhafailover {}, pid {}, {}, memory {}{}",
        daemon.version,
        daemon.pid,
        daemon.scheduling,
        if daemon.memory_locked { "locked" } else { "not locked" },
        match &daemon.watchdog {
            Some(watchdog) if watchdog.counts => ", watchdog counts",
            Some(_) => ", watchdog off",
            None => "",
        }
    );
    out
}

fn watchdog_trouble(daemon: &DaemonView) -> Option<&String> {
    daemon.watchdog.as_ref()?.wrong.as_ref()
}

/// How each node would be fenced, and when that was last tried.
fn fence_lines(out: &mut String, view: &View) {
    for fence in &view.fences {
        let tried = match (&fence.drill, fence.proven) {
            (Some(Ok(state)), Some(age)) => format!("tried {} ago: {state}", age_words(age)),
            (Some(Err(_)), Some(age)) => format!("would fail, tried {} ago", age_words(age)),
            _ => "not yet tried".into(),
        };
        let node = view.node_name(fence.node);
        let state = if fence.failed { "FAILED" } else { &fence.state };
        let state = if state.is_empty() { String::new() } else { format!(", {state}") };
        let _ = writeln!(out, "fence {node:<8} {}, {tried}{state}", fence.by);
    }
}

/// What came in on a link and could not be used, since the daemon started.
fn link_lines(out: &mut String, daemon: &DaemonView) {
    for link in &daemon.links {
        if link.noise > 0 {
            let _ = writeln!(out, "{}: line noise, {} times", link.name, link.noise);
        }
        if link.refused > 0 {
            let last = &link.last_refusal;
            let _ = writeln!(out, "{}: {} frames refused, last: {last}", link.name, link.refused);
        }
    }
}

fn node_lines(out: &mut String, node: &NodeView) {
    let mut words = vec![match node.presence {
        Presence::This => "this node".to_string(),
        other => format!("{other:?}").to_lowercase(),
    }];
    if let Some(age) = node.last_sign.filter(|_| node.presence != Presence::Alive) {
        words.push(format!("last heard {} ago", age_words(age)));
    }
    let moods = [
        (node.standby, "standby"),
        (node.mood.starting, "starting"),
        (node.mood.guarding, "its daemon is lost"),
        (node.mood.leaving && !node.mood.guarding, "leaving"),
        (node.mood.restarting.is_some(), "restarting"),
        (node.mood.amnesiac, "has lost its state"),
        (node.mood.doubting, "stalled"),
        (!node.same_settings, "other settings"),
    ];
    words.extend(moods.iter().filter(|(on, _)| *on).map(|(_, word)| word.to_string()));
    let _ = writeln!(out, "{:<14} {}", node.name, words.join(", "));
    if node.presence == Presence::This {
        return;
    }
    for link in &node.links {
        let state = match (&link.usable, link.up) {
            (Some(why), _) => format!("unusable: {why}"),
            (None, true) => "up".into(),
            (None, false) => match link.last_heard {
                Some(age) => format!("down, last heard {} ago", age_words(age)),
                None => "down, never heard".into(),
            },
        };
        let _ = writeln!(out, "  {:<22} {state}", link.name);
    }
}

fn group_lines(out: &mut String, view: &View, group: &GroupView) {
    let owner = match group.owner {
        Some(node) => format!("on {}", view.node_name(node)),
        None if group.down_by_operator => "stopped by operator".into(),
        None => "on no node".into(),
    };
    let phase = format!("{:?}", group.phase).to_lowercase();
    let _ = writeln!(out, "\n{:<14} {owner}, {phase} here, epoch {}", group.name.0, group.epoch);
    if group.maintenance {
        out.push_str("  in maintenance\n");
    }
    if !group.evidence.is_empty() {
        let age = group.held_for.map(|d| format!(", {} ago", age_words(d))).unwrap_or_default();
        let _ = writeln!(out, "  evidence: {}{age}", group.evidence.join(", "));
    }
    if let Some(words) = &group.degraded {
        let _ = writeln!(out, "  degraded: {words}");
    }
    let shown = |g: &&GroupView| g.owner == Some(view.me) || !g.strays.is_empty();
    for member in Some(group).filter(shown).map(|g| g.members.as_slice()).unwrap_or_default() {
        let _ = writeln!(out, "  {:<44} {}", member.unit, member_words(member));
    }
    for node in group.nodes.iter().filter(|n| n.node != view.me) {
        let _ =
            writeln!(out, "  {:<44} {}", format!("on {}", view.node_name(node.node)), there(node));
    }
    for node in group.nodes.iter().filter(|n| !n.reason.is_empty()) {
        let left = node.quarantine.map(|d| format!(" for {}", age_words(d))).unwrap_or_default();
        let _ = writeln!(out, "  not on {}{left}: {}", view.node_name(node.node), node.reason);
    }
    for node in group.nodes.iter().filter(|n| n.other_texts) {
        let name = view.node_name(node.node);
        let _ = writeln!(out, "  the files of its members say something else on {name}");
    }
    for words in &group.waits_for {
        let _ = writeln!(out, "  waits: {words}");
    }
    for words in &group.holders {
        let _ = writeln!(out, "  held by: {words}");
    }
    if group.phase == Phase::Stuck {
        let _ = writeln!(
            out,
            "  to do: end what holds it, then hafailover retry {} (it is tried again every second \
             too)",
            group.name
        );
    }
    if !group.strays.is_empty() {
        let _ = writeln!(
            out,
            "  strays: {} (hafailover clear {1} stops them, hafailover adopt {1} keeps them)",
            group.strays.join(", "),
            group.name
        );
    }
}

/// Another node's part. Heartbeats say how many members are up, not which.
fn there(node: &GroupNodeView) -> String {
    if node.phase == Phase::Unknown {
        return "not known".into();
    }
    let phase = format!("{:?}", node.phase).to_lowercase();
    let held = match node.held {
        Held::Yes => ", held",
        Held::No => "",
        Held::Unknown => ", perhaps held",
    };
    let members = match (node.held, node.tally.all) {
        (Held::No, _) => String::new(),
        (_, 0) => "; its members: hafailover status there".into(),
        (_, all) => {
            let up = node.tally.up;
            format!(", {up} of {all} members up; names and evidence: hafailover status there")
        }
    };
    format!("{phase}{held}{members}")
}

fn age_words(age: Duration) -> String {
    match age.as_secs() {
        0..10 => format!("{:.1} s", age.as_secs_f64()),
        s @ 10..120 => format!("{s} s"),
        s @ 120..7200 => format!("{} min", s / 60),
        s => format!("{} h", s / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::heartbeat::Tally;
    use crate::core::name::NodeId;

    #[test]
    fn another_node_is_told_as_its_heartbeats_tell_it() {
        let at = |phase, held| {
            let (node, quarantine, reason) = (NodeId(1), None, String::new());
            there(&GroupNodeView {
                node,
                held,
                phase,
                unfit: None,
                differs: false,
                other_texts: false,
                tally: Tally { up: 3, all: 4 },
                quarantine,
                reason,
            })
        };
        let members = ", 3 of 4 members up; names and evidence: hafailover status there";
        assert_eq!(at(Phase::Running, Held::Yes), format!("running, held{members}"));
        assert_eq!(at(Phase::Stopped, Held::No), "stopped");
        assert_eq!(at(Phase::Stopped, Held::Unknown), format!("stopped, perhaps held{members}"));
        assert_eq!(at(Phase::Unknown, Held::Unknown), "not known");
    }
}
