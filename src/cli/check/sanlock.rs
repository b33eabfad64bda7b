//! The shared disk of the leases, and the sanlock of this node.

use super::Findings;
use crate::config::arbiter::sanlock::Settings as Written;
use crate::config::load::show;
use crate::config::settings::Settings;
use crate::core::LeaseAnswer;
use crate::core::grant::NOT_HELD;
use crate::io::arbiter::Question;
use crate::io::arbiter::sanlock::client::{Answer, Space, missing, read};
use crate::io::arbiter::sanlock::course::{Ask, Memory};
use crate::io::arbiter::sanlock::table::{self, Plan};
use crate::io::disk::slots::Place;
use crate::io::kernel::processes;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

/// The cgroup of what sanlock's own watchdog daemon runs in.
const WDMD: &str = "/system.slice/wdmd.service";
/// sanlock, and a device, that have not answered for so long hang.
const PATIENCE: Duration = Duration::from_secs(5);

pub fn look(of: &Settings, at: &Written, question: Question, findings: &mut Findings) {
    let shown = at.device.display();
    let place = Place {
        device: at.device.clone(),
        cluster: of.cluster.clone(),
        nodes: of.nodes.iter().map(|n| n.name.clone()).collect(),
    };
    let ask = Ask {
        verb: question.verb,
        epoch: question.epoch,
        me: usize::from(of.me.0),
        nodes: place.nodes.clone(),
        term: question.term,
        nonce: 0,
    };
    let memory = Memory::default();
    let plan = Plan { place, group: question.group, ask, memory, rehearsal: true };
    let asked = Instant::now();
    let hangs =
        || LeaseAnswer::Unknown(format!("{shown}: has not answered for {}", show(PATIENCE)));
    match timely(move || table::ask(plan).answer).unwrap_or_else(hangs) {
        LeaseAnswer::Refused { why, .. } if why == NOT_HELD => findings.note(format!(
            "arbiter: the leases on {shown} are read in {}",
            super::arbiter::shown(asked.elapsed())
        )),
        LeaseAnswer::Granted => {
            findings.error(format!("arbiter: {shown} has a lease of a group that is none"));
        }
        LeaseAnswer::Refused { why, .. } | LeaseAnswer::Unknown(why) => {
            findings.error(format!("arbiter: {why}"));
        }
    }
    daemon(of, at, findings);
    let wdmd = processes(WDMD).unwrap_or_default();
    wdmd_runs(!wdmd.is_empty(), of.watchdog().is_some(), findings);
    findings.note(format!("arbiter: {}", at.chain()));
}

/// sanlock's unit wants it, also where sanlock is told to do without.
fn wdmd_runs(runs: bool, watchdog: bool, findings: &mut Findings) {
    match (runs, watchdog) {
        (true, true) => findings.error(
            "arbiter: wdmd runs and takes the watchdog device that [arbiter] names, so no group \
             starts here: systemctl mask --now wdmd",
        ),
        (true, false) => findings.note(
            "arbiter: wdmd runs, which sanlock starts, and takes a watchdog device that nothing \
             here needs: systemctl mask --now wdmd",
        ),
        (false, _) => {}
    }
}

/// What it returns, if it does in time: a device that hangs holds up whoever asks it.
fn timely<T: Send + 'static>(look: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (sender, result) = channel();
    std::thread::spawn(move || drop(sender.send(look())));
    result.recv_timeout(PATIENCE).ok()
}

fn daemon(of: &Settings, at: &Written, findings: &mut Findings) {
    let space = Space::new(&of.cluster, &at.device, usize::from(of.me.0), None);
    let ask = |words: &'static [&'static str]| {
        let mut command = space.client(words);
        let ask = timely(move || command.output().map_err(|e| missing(&e)));
        let out = ask.unwrap_or_else(|| Err(format!("has not answered for {}", show(PATIENCE))))?;
        let said = String::from_utf8_lossy(&out.stdout) + String::from_utf8_lossy(&out.stderr);
        match read(&said) {
            Answer::Failed(why) => Err(why),
            _ => Ok(said.into_owned()),
        }
    };
    let (status, hosts) = match (ask(&["status", "-D"]), ask(&["gets", "-h", "1"])) {
        (Ok(status), Ok(hosts)) => (status, hosts),
        (Err(why), _) | (_, Err(why)) => {
            return findings
                .error(format!("arbiter: sanlock: {why}: nothing would be claimed by lease here"));
        }
    };
    if status.is_empty() {
        return findings.error(format!(
            "arbiter: sanlock does not run, so nothing would be claimed by lease here: {}",
            crate::io::arbiter::sanlock::client::INSTALL
        ));
    }
    let says = |words: &str| status.lines().any(|l| l.trim() == words);
    if says("use_watchdog=1") {
        findings.warn(
            "arbiter: sanlock uses wdmd, so its crash resets this machine: nothing of hafailover \
             needs that: sanlock_opts=\"-w 0\" in /etc/default/sanlock, and watchdog = in \
             [arbiter] for what runs here",
        );
    }
    let joined = space.lockspace();
    let Some(block) = after(&hosts, &joined) else {
        return findings.note(format!(
            "arbiter: this node is not in sanlock's lockspace {joined}: the daemon joins it when \
             it runs"
        ));
    };
    let live = block.filter(|l| l.starts_with("h ") && l.contains(" LIVE")).count();
    findings.note(format!(
        "arbiter: sanlock runs and is in its lockspace, with {live} of {} nodes alive",
        of.nodes.len()
    ));
    let timeout = after(&status, &joined).and_then(|mut lines| {
        lines.find_map(|l| l.trim().strip_prefix("io_timeout=")?.parse::<u32>().ok())
    });
    if let Some(timeout) = timeout.filter(|t| *t != at.io_timeout) {
        findings.warn(format!(
            "arbiter: sanlock has joined with an io-timeout of {timeout}s, and {}s is written: \
             systemctl restart sanlock, and hafailover joins anew",
            at.io_timeout
        ));
    }
}

/// The lines below that of this lockspace.
fn after<'a>(said: &'a str, lockspace: &str) -> Option<impl Iterator<Item = &'a str>> {
    let mut lines = said.lines();
    lines.find(|l| l.strip_prefix("s ").is_some_and(|at| at.trim() == lockspace))?;
    Some(lines.take_while(|l| !l.starts_with("s ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::check::Level;

    #[test]
    fn the_watchdog_of_both_is_an_error() {
        let found = |runs, watchdog| {
            let mut findings = Findings::default();
            wdmd_runs(runs, watchdog, &mut findings);
            findings.0.first().map(|f| f.0)
        };
        assert!(found(true, true) == Some(Level::Error));
        assert!(found(true, false) == Some(Level::Note));
        assert!(found(false, true).is_none());
    }

    #[test]
    fn what_sanlock_prints_of_a_lockspace_is_found() {
        let said = "s lab:1:/dev/x:0 \nh 1 gen 1 LIVE\ns lab2:1:/dev/y:0 \nh 1 gen 1 DEAD\n";
        let lines: Vec<&str> = after(said, "lab:1:/dev/x:0").expect("there").collect();
        assert_eq!(lines, ["h 1 gen 1 LIVE"]);
        assert!(after(said, "lab:2:/dev/x:0").is_none());
    }
}
