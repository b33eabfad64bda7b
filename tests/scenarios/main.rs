//! Readable scripts with the complete expected trace: each `*.txt` here is commands, a line
//! `----`, and all that the nodes then said. `UPDATE=1 cargo test --test scenarios` rewrites the
//! traces; read the difference before you commit it.

pub mod arbiter;
pub mod world;

use hafailover::core::name::{GroupName, LinkId, NodeId};
use hafailover::core::policy::{
    Failback, FenceKind, FencePolicy, Fences, GroupPolicy, LeaseTimes, OnLost, OnSilence, Policy,
    QuorumLost, Safety, StopFailure, Timing,
};
use hafailover::core::time::Duration;
use hafailover::core::{Command, Event, Hand, Terminate};
use std::collections::BTreeMap;
use world::World;

#[test]
fn every_script_gives_its_trace() {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let entries = std::fs::read_dir(&dir).expect("the directory of the scripts");
    let mut files: Vec<_> = entries.map(|e| e.expect("readable").path()).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "txt"));
    files.sort();
    assert!(files.len() >= 5, "the scripts are missing");
    let told = std::fs::read_to_string(dir.join("README.md")).expect("the rules");
    let told: Vec<&str> = told.split(|c: char| !c.is_ascii_digit()).collect();
    for name in files.iter().filter_map(|f| f.file_name()?.to_str()) {
        let number = name.split('-').next().expect("a first part");
        assert!(told.contains(&number), "{name}: tests/scenarios/README.md names no rule of it");
    }
    let mut wrong = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).expect("readable");
        let (script, expected) = text.split_once("----\n").unwrap_or((text.as_str(), ""));
        let got = play(script);
        if got != expected {
            if std::env::var_os("UPDATE").is_some() {
                std::fs::write(&file, format!("{script}----\n{got}")).expect("writable");
            } else {
                wrong.push(format!("{}:\n{}", file.display(), difference(expected, &got)));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn difference(expected: &str, got: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (expected.lines().collect(), got.lines().collect());
    let at = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let show =
        |lines: &[&str]| lines.iter().skip(at).take(6).copied().collect::<Vec<_>>().join("\n    ");
    format!("  from line {}:\n  expected\n    {}\n  got\n    {}", at + 1, show(&old), show(&new))
}

fn play(script: &str) -> String {
    let mut setup = Setup::default();
    let mut world: Option<World> = None;
    for line in script.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if words.is_empty() || words[0].starts_with('#') {
            continue;
        }
        if setup.take(&words) {
            continue;
        }
        let world = world.get_or_insert_with(|| World::new(setup.policies()));
        let now = world.now.0 / 1_000_000;
        world.trace.push(format!("{:>4}.{:03} > {line}", now / 1000, now % 1000));
        command(world, &words);
    }
    world.map(|w| w.trace.join("\n") + "\n").unwrap_or_default()
}

pub struct Setup {
    nodes: usize,
    clones: Vec<usize>,
    links: usize,
    lines: BTreeMap<LinkId, (NodeId, NodeId)>,
    cables: Vec<LinkId>,
    timing: Timing,
    safety: Safety,
    fences: Fences,
    lease: Option<LeaseTimes>,
    groups: BTreeMap<GroupName, GroupPolicy>,
}

impl Default for Setup {
    fn default() -> Setup {
        let ms = Duration::from_millis;
        Setup {
            nodes: 2,
            clones: Vec::new(),
            links: 2,
            lines: BTreeMap::new(),
            cables: Vec::new(),
            timing: Timing {
                keepalive: ms(200),
                warntime: ms(600),
                deadtime: ms(1200),
                initdead: ms(5000),
                restart_bound: ms(3000),
            },
            safety: Safety {
                silence: OnSilence::Takeover,
                unseen: OnSilence::Takeover,
                last_link: OnSilence::Hold,
                quorum_lost: QuorumLost::Keep,
                on_lost: OnLost::Leave,
                guard_bound: ms(10_000),
            },
            fences: Fences { delay: ms(5000), ..Fences::default() },
            lease: None,
            groups: BTreeMap::new(),
        }
    }
}

impl Setup {
    /// Settings come before the first command.
    pub fn take(&mut self, words: &[&str]) -> bool {
        let silence = |w: &str| if w == "hold" { OnSilence::Hold } else { OnSilence::Takeover };
        match words {
            ["nodes", n] => self.nodes = n.parse().expect("a number"),
            ["clone", n] => self.clones.push(n[1..].parse::<usize>().expect("n<number>") - 1),
            ["links", n] => self.links = n.parse().expect("a number"),
            ["cables", of @ ..] => {
                let cable = |w: &&str| LinkId(w.parse().expect("a link's number"));
                self.cables = of.iter().map(cable).collect();
            }
            ["line", link, a, b] => {
                let node = |w: &str| NodeId(w[1..].parse::<u8>().expect("n<number>") - 1);
                self.lines.insert(LinkId(link.parse().expect("a number")), (node(a), node(b)));
            }
            ["silence", what] => {
                (self.safety.silence, self.safety.unseen) = (silence(what), silence(what));
            }
            ["last-link", what] => self.safety.last_link = silence(what),
            ["fence", n, rest @ ..] => self.fence(n, rest),
            ["lease", lease, most, wait] => {
                let [lease, most, wait] = [lease, most, wait].map(|word| duration(word));
                self.lease = Some(LeaseTimes { lease, most, wait });
            }
            ["quorum-lost", "stop"] => self.safety.quorum_lost = QuorumLost::Stop,
            ["on-lost", "reboot"] => self.safety.on_lost = OnLost::Reboot,
            ["group", name, rest @ ..] => {
                let nodes = rest.iter().filter(|w| w.starts_with('n') && !w.contains('='));
                let id = |w: &&str| NodeId(w[1..].parse::<u8>().expect("n<number>") - 1);
                let failback = match rest.iter().find_map(|w| w.strip_prefix("failback=")) {
                    None | Some("no") => Failback::No,
                    Some("yes") => Failback::Yes,
                    Some(delay) => Failback::After(duration(delay)),
                };
                let stop = rest.iter().find_map(|w| w.strip_prefix("stop="));
                let policy = GroupPolicy {
                    nodes: nodes.map(id).collect(),
                    failback,
                    retries: 1,
                    retry_window: Duration::from_secs(600),
                    quarantine: Duration::from_secs(60),
                    stop_budget: duration(stop.unwrap_or("90s")),
                    stop_failure: match rest.iter().find_map(|w| w.strip_prefix("fails=")) {
                        Some("kill-users") => StopFailure::KillUsers,
                        Some("fence-self") => StopFailure::FenceSelf,
                        _ => StopFailure::Hold,
                    },
                    start_budget: Duration::from_secs(90),
                    fingerprint: 7,
                    texts: 7,
                };
                self.groups.insert(GroupName(name.to_string()), policy);
            }
            _ => return false,
        }
        true
    }

    fn fence(&mut self, n: &str, words: &[&str]) {
        let kind = match words.contains(&"storage") {
            true => FenceKind::Storage,
            false => FenceKind::Power,
        };
        let drill = words.iter().find_map(|w| w.strip_prefix("drill=")).map(duration);
        let failed = match words.contains(&"then-silence") {
            true => OnSilence::Takeover,
            false => OnSilence::Hold,
        };
        let (by, timeout) = (format!("fence_{n}"), Duration::from_secs(20));
        let attempts = if words.contains(&"once") { 1 } else { 2 };
        let policy = FencePolicy { kind, by, attempts, timeout, failed, drill };
        let node = NodeId(n[1..].parse::<u8>().expect("n<number>") - 1);
        self.fences.nodes.insert(node, policy);
    }

    pub fn policies(&self) -> Vec<Policy> {
        let policy = |n: usize| Policy {
            me: NodeId(n as u8),
            nodes: (1..=self.nodes).map(|n| format!("n{n}")).collect(),
            links: (0..self.links).map(|l| format!("link{l}")).collect(),
            lines: self.lines.clone(),
            cables: self.cables.clone(),
            timing: self.timing.clone(),
            safety: self.safety.clone(),
            fences: self.fences.clone(),
            lease: self.lease.clone(),
            fingerprint: 1,
            groups: self.groups.clone(),
        };
        (0..self.nodes).chain(self.clones.iter().copied()).map(policy).collect()
    }
}

pub fn duration(word: &str) -> Duration {
    match word.strip_suffix("ms") {
        Some(ms) => Duration::from_millis(ms.parse().expect("milliseconds")),
        None => Duration::from_secs(word.trim_end_matches('s').parse().expect("seconds")),
    }
}

pub fn command(world: &mut World, words: &[&str]) {
    let group = |w: &str| GroupName(w.to_string());
    match words {
        ["arbiter", what @ ..] => world.arbiter_command(what),
        ["run", time] => world.run(duration(time)),
        ["boot", nodes @ ..] => nodes.iter().for_each(|n| world.boot(world.node(n))),
        ["power-off", n] => world.power_off(world.node(n)),
        ["kill-daemon", n] => world.kill_daemon(world.node(n)),
        ["disk", n, what @ ..] => disk(world, n, what),
        ["disable" | "enable" | "differ" | "reload", n, g] => reload(world, words[0], n, g),
        ["lose-daemon", n] => world.lose_daemon(world.node(n)),
        ["guard-stops", n, g] => world.guard_stops(world.node(n), &group(g)),
        ["guard-ends", n] => world.guard_ends(world.node(n)),
        ["hang-disk", n] => world.at(n).disk_hangs = true,
        ["lose-disk", n] => world.at(n).disk = None,
        ["remove", n] => remove(world, world.id(n)),
        ["freeze", n] => world.at(n).frozen = true,
        ["thaw", n] => world.thaw(world.node(n)),
        ["cut", link, from, to] => cut(world, link, from, to, true),
        ["heal", link, from, to] => cut(world, link, from, to, false),
        ["part", sides @ ..] => part(world, sides),
        [what @ ("cut" | "heal"), link] => cut_all(world, link, *what == "cut"),
        ["slow", link, time] => slow(world, link, time),
        ["flood", n, of, count] => {
            world.flood(world.node(n), world.node(of), count.parse().expect("a number"));
        }
        ["agent", n, what] => world.set_agent(n, what),
        ["start-fails", n, g, what] => set(world, n, g, |u| u.start_fails = *what == "yes"),
        ["start-dies", n, g, what] => set(world, n, g, |u| u.start_dies = *what == "yes"),
        ["stop-takes", n, g, time] => set(world, n, g, |u| u.stop_takes = Some(duration(time))),
        ["stop-lost", n, g, what] => set(world, n, g, |u| u.stop_lost = *what == "yes"),
        ["stop-fails", n, g, what] => {
            set(world, n, g, |u| (u.stop_fails, u.users_stay) = (*what != "no", *what == "ever"));
        }
        ["carrier", n, g, what] => {
            set(world, n, g, |u| u.no_carrier = *what == "no");
            world.observe(world.node(n), &group(g));
        }
        ["member-dies", n, g] => {
            set(world, n, g, |u| u.dead = true);
            world.observe(world.node(n), &group(g));
        }
        ["stray", n, g] => {
            set(world, n, g, |u| u.running = true);
            world.observe(world.node(n), &group(g));
        }
        ["by-hand", n, verb, unit, g] => {
            let verb = match *verb {
                "stop" => Hand::StopTarget,
                "start" => Hand::Refused,
                other => panic!("no verb {other}"),
            };
            let event = Event::ByHand { group: group(g), unit: unit.to_string(), verb };
            world.later(world.node(n), Duration::ZERO, event);
        }
        ["settings", n, g, what] => differ(world, n, g, |policy| policy.fingerprint = number(what)),
        ["texts", n, g, what] => differ(world, n, g, |policy| policy.texts = number(what)),
        ["reset-fails", n] => world.at(n).reset_fails = true,
        ["quorum-kept", n] => keep(world, world.node(n)),
        ["terminate", n, kind] => terminate(world, world.node(n), kind),
        ["ask", n, what @ ..] => {
            let command = asked(world, what);
            let event = Event::Asked { request: 1, by: "root".into(), command };
            world.later(world.node(n), Duration::ZERO, event);
        }
        other => panic!("no such command: {other:?}"),
    }
}

fn terminate(world: &mut World, n: usize, kind: &str) {
    let kind = match kind {
        "stop" => Terminate::Stop,
        "restart" => Terminate::Restart,
        "shutdown" => Terminate::Shutdown,
        other => panic!("no kind {other}"),
    };
    world.later(n, Duration::ZERO, Event::Terminate { kind });
}

/// It reads a file that says quorum-lost = "keep".
fn keep(world: &mut World, n: usize) {
    let mut policy = world.policies[n].clone();
    (policy.safety.quorum_lost, policy.fingerprint) = (QuorumLost::Keep, 2);
    world.later(n, Duration::ZERO, Event::Reconfigured { policy: Box::new(policy) });
}

/// Its files are read again, and one of its groups says something else.
fn differ(world: &mut World, n: &str, g: &str, change: impl FnOnce(&mut GroupPolicy)) {
    world.reconfigure(world.node(n), &GroupName(g.to_string()), change);
}

fn number(word: &str) -> u32 {
    word.parse().expect("a number")
}

fn asked(world: &World, words: &[&str]) -> Command {
    let group = |w: &str| GroupName(w.to_string());
    match words {
        ["move", g] => Command::Move { group: group(g), to: None },
        ["move", g, to] => Command::Move { group: group(g), to: Some(world.id(to)) },
        ["standby", n] => Command::Standby { node: world.id(n), on: true },
        ["online", n] => Command::Standby { node: world.id(n), on: false },
        ["maintenance", g, on] => Command::Maintenance { group: Some(group(g)), on: *on == "on" },
        ["maintenance", on] => Command::Maintenance { group: None, on: *on == "on" },
        ["retry", g] => Command::Retry { group: group(g) },
        ["clear", g] => Command::Clear { group: group(g) },
        ["adopt", g] => Command::Adopt { group: group(g) },
        ["fence", n] => Command::Fence { node: world.id(n) },
        ["fence-check", n] => Command::FenceCheck { node: world.id(n) },
        ["clear-fence", n] => Command::ClearFence { node: world.id(n) },
        ["confirm-down", n] => Command::ConfirmDown { node: world.id(n) },
        other => panic!("no such request: {other:?}"),
    }
}

fn disk(world: &mut World, n: &str, what: &[&str]) {
    let n = world.node(n);
    let node = &mut world.nodes[n];
    match what {
        ["takes", time] => node.disk_takes = Some(duration(time)),
        ["full", what] => node.full = *what == "yes",
        ["save"] => node.backup = node.disk.clone(),
        ["restore"] => node.disk = node.backup.clone(),
        other => panic!("nothing like that befalls a disk: {other:?}"),
    }
}

/// The files of one node change, and are read again.
fn reload(world: &mut World, what: &str, n: &str, g: &str) {
    let (n, name) = (world.node(n), GroupName(g.to_string()));
    let mut policy = world.policies[n].clone();
    let disabled = &mut world.nodes[n].disabled;
    match what {
        "disable" => drop(disabled.insert(name.clone())),
        _ => drop(disabled.remove(&name)),
    }
    let group = policy.groups.get_mut(&name).expect("a group of the scenario");
    match what {
        "disable" => drop(policy.groups.remove(&name)),
        "differ" => group.fingerprint = 8,
        _ => {}
    }
    world.later(n, Duration::ZERO, Event::Reconfigured { policy: Box::new(policy) });
}

/// The [[node]] of the last one goes from every file: a daemon that starts goes by that.
fn remove(world: &mut World, id: NodeId) {
    for policy in &mut world.policies {
        policy.nodes.truncate(usize::from(id.0));
        policy.groups.values_mut().for_each(|group| group.nodes.retain(|n| *n < id));
    }
}

fn slow(world: &mut World, link: &str, time: &str) {
    world.wire.insert(link.parse().expect("a link's number"), duration(time));
}

/// `part n1 n2 | n3` cuts every link between the sides; `part` alone heals all.
fn part(world: &mut World, sides: &[&str]) {
    world.cut.clear();
    let sides: Vec<&[&str]> = sides.split(|w| *w == "|").collect();
    let links = world.policies[0].links.len();
    for (a, b) in sides.iter().flat_map(|a| sides.iter().map(move |b| (a, b))) {
        let ways = a.iter().flat_map(|from| b.iter().map(move |to| (from, to)));
        for (from, to) in ways.filter(|_| a != b) {
            (0..links).for_each(|link| cut(world, &link.to_string(), from, to, true));
        }
    }
}

fn cut_all(world: &mut World, link: &str, cutting: bool) {
    for from in 0..world.nodes.len() {
        for to in (0..world.nodes.len()).filter(|to| *to != from) {
            let (from, to) = (format!("n{}", from + 1), format!("n{}", to + 1));
            cut(world, link, &from, &to, cutting);
        }
    }
}

fn cut(world: &mut World, link: &str, from: &str, to: &str, cutting: bool) {
    let link: u8 = link.parse().expect("a link's number");
    let way = (link, world.node(from) as u8, world.node(to) as u8);
    if cutting {
        world.cut.insert(way)
    } else {
        world.cut.remove(&way)
    };
}

fn set(world: &mut World, n: &str, g: &str, change: impl FnOnce(&mut world::Units)) {
    let n = world.node(n);
    change(world.nodes[n].units.entry(GroupName(g.to_string())).or_default());
}
