//! The lab's usual set-up: two nodes, heartbeats over eth1 and the serial line, one group `files`
//! of an address, an ext4 on the shared disk and a service that writes to it.

use crate::harness::client::Client;
use crate::harness::net::Lan;
use crate::harness::node::{COMMAND, Node, Output, ended};
use crate::harness::{Lab, wait};
use hafailover::io::clock;
use std::time::{Duration, Instant};

/// How long the group may take for anything that is not under test.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// What `config` leaves as it comes, and TARGET's StopBudget: what the bounds are made of.
pub const KEEPALIVE: Duration = Duration::from_millis(200);
pub const DEADTIME: Duration = Duration::from_secs(1);
pub const STOP_BUDGET: Duration = Duration::from_secs(3);

/// Between two looks at the mounts: a second owner for less than that might have gone unseen.
const BLIND: Duration = Duration::from_secs(2);

pub struct Cluster {
    pub lab: Lab,
    key: Option<String>,
}

pub const TARGET: &str = "[Unit]\nDescription=File server\n\
    Requires=hafailover-ip@192.168.0.100-24.service srv.mount agent.service\n\
    [X-Hafailover]\nNodes=n1 n2\n\
    Order=listed\nQuarantine=1h\nStopBudget=3s\n[Install]\nWantedBy=hafailover-groups.target\n";
const MOUNT: &str = "[Unit]\nDescription=Shared disk\n[Mount]\nWhat=/dev/shared\nWhere=/srv\n\
    Type=ext4\n";
pub const AGENT: &str = "[Unit]\nDescription=Agent\nRequiresMountsFor=/srv\n[Service]\n\
    Type=exec\nExecStart=/usr/local/bin/agent\n";

/// Without systemctl disable, which takes longer than all else: it asks for init scripts as well. A
/// stop that PID 1 has before the death of the daemon makes that a failure, and starts the guard.
const CLEAR: &str = "exec >/dev/null 2>&1; hafailover maintenance on; \
    pid=$(systemctl show -P MainPID hafailover); systemctl kill -s KILL hafailover; \
    while [ $pid != 0 ] && [ $(systemctl show -P MainPID hafailover) = $pid ]; do :; done; \
    systemctl stop hafailover; systemctl kill -s KILL sanlock; \
    rm -rf /run/hafailover/owned/* /run/hafailover/stopping/* /var/lib/hafailover; \
    systemctl stop files.target 'hafailover-ip@*' agent smbd srv.mount web slow; \
    cd /etc/systemd/system && rm -rf files* web* slow* *.d agent.service \
    hafailover-groups.target.wants multi-user.target.wants/hafailover.service \
    multi-user.target.wants/smbd.service; \
    systemctl daemon-reload; systemctl reset-failed; journalctl -q --rotate --vacuum-size=1";

/// hafailover.toml for so many nodes.
pub fn config(nodes: usize, more: &str) -> String {
    // The line joins two; more have the LAN as their second path.
    let second = match nodes {
        2 => "type = \"serial\"\ndevice = \"/dev/ttyS0\"\n",
        _ => "type = \"udp\"\ninterface = \"eth0\"\n",
    };
    config_of(nodes, ["type = \"udp\"\ninterface = \"eth1\"\n", second], more)
}

/// The same with other links.
pub fn config_of(nodes: usize, links: [&str; 2], more: &str) -> String {
    let mut text = String::from("[cluster]\nname = \"lab\"\n");
    for n in 1..=nodes {
        text += &format!("[[node]]\nname = \"n{n}\"\n");
    }
    for link in links {
        text += &format!("[[link]]\n{link}");
    }
    text + "[timing]\ninitdead = \"4s\"\n" + more
}

/// What a node says that could not ask its systemd within half a deadtime, as PID 1 was away or the
/// machine busy: it starts nothing more, the group goes back, and evidence is gathered anew.
const TOO_OLD: &str = "evidence was too old";

pub const TAKEOVER: &str = "[safety]\nsilence = \"takeover\"\n";
/// The same with a guard that has the time for all its stops on a busy machine.
pub const SLOW_GUARD: &str = "[safety]\nsilence = \"takeover\"\nguard-bound = \"30s\"\n";
/// The same with a guard that is not waited for so long.
pub const QUICK_GUARD: &str = "[safety]\nsilence = \"takeover\"\nguard-bound = \"8s\"\n";

impl Cluster {
    /// On nodes that have these packages of their release more.
    pub fn of(nodes: usize, suite: &str, more: &str) -> Cluster {
        Cluster { lab: Lab::new(nodes, suite, more), key: None }
    }

    /// Back to two healthy nodes on which nothing of the last story is left.
    pub fn reset(&mut self) {
        self.lab.line.heal();
        self.lab.heal_heart();
        self.lab.net.crossover = false;
        self.lab.net.unblock();
        let off: Vec<usize> =
            (0..self.lab.nodes.len()).filter(|n| !self.lab.nodes[*n].is_up()).collect();
        off.iter().for_each(|n| self.lab.kill(*n));
        self.lab.boot_all(&off);
        for n in 0..self.lab.nodes.len() {
            self.lab.net.undeafen(n);
            for lan in [crate::harness::net::Lan::Lan, crate::harness::net::Lan::Heartbeat] {
                self.lab.net.heal(n, lan);
            }
        }
        // On all at once: no daemon then sees another one go.
        let children: Vec<_> = self.lab.nodes.iter().map(|n| n.command(CLEAR).spawn()).collect();
        let end = Instant::now() + COMMAND;
        for child in children {
            let ended = ended(&mut child.expect("nsenter runs"), end);
            assert!(ended.is_some(), "a node was not cleared within {COMMAND:?}");
        }
        for n in 0..self.lab.nodes.len() {
            self.lab.net.forget_neighbours(n);
        }
        self.lab.forget_stamps();
        self.lab.mounts.forget();
    }

    /// Writes the files of the usual set-up on every node.
    pub fn configure(&mut self, safety: &str) {
        self.configure_with(safety, TARGET, AGENT);
    }

    pub fn configure_with(&mut self, safety: &str, target: &str, agent: &str) {
        for n in 0..self.lab.nodes.len() {
            self.settings(n, safety);
            let node = self.lab.node(n);
            node.write("/etc/systemd/system/srv.mount", MOUNT);
            node.write("/etc/systemd/system/agent.service", agent);
            node.write("/etc/systemd/system/files.target", target);
            node.must("systemctl enable -q --no-reload files.target && systemctl daemon-reload");
        }
    }

    /// The configuration and the key, without a group.
    pub fn settings(&mut self, n: usize, safety: &str) {
        let node = self.lab.node(n);
        node.write("/etc/hafailover/hafailover.toml", &config(self.lab.nodes.len(), safety));
        match &self.key {
            Some(key) => {
                node.write("/etc/hafailover/keys", key);
                node.must("chmod 600 /etc/hafailover/keys");
            }
            None => {
                node.must("rm -f /etc/hafailover/keys && hafailover keygen");
                self.key = Some(node.must("cat /etc/hafailover/keys"));
            }
        }
    }

    /// Nothing needs a person: all links are up, nobody is missing.
    pub fn all_well(&self) {
        for node in &self.lab.nodes {
            wait(&format!("{} to be well", node.name), PATIENCE, || {
                (node.run("hafailover status").code == 0).then_some(())
            });
        }
    }

    pub fn start(&self, n: usize) {
        self.lab.node(n).must("systemctl start hafailover");
    }

    pub fn start_all(&mut self, safety: &str) {
        self.configure(safety);
        (0..self.lab.nodes.len()).for_each(|n| self.start(n));
        self.runs_on(0);
    }

    /// Waits until the group runs there, by that node's own word and by the client's.
    pub fn runs_on(&self, n: usize) {
        let node = self.lab.node(n);
        wait(&format!("files to run on {}", node.name), PATIENCE, || {
            (node.phase("files")? == "running").then_some(())
        });
        wait("the client's answer", PATIENCE, || {
            (self.lab.who_answers()? == node.name).then_some(())
        });
    }

    pub fn phase(&self, n: usize, phase: &str) {
        let node = self.lab.node(n);
        wait(&format!("files to be {phase} on {}", node.name), PATIENCE, || {
            (node.phase("files")? == phase).then_some(())
        });
    }

    /// Waits until the process that was started to hold n1's file system has it open.
    pub fn opened(&self) {
        let node = self.lab.node(0);
        let holds = "readlink /proc/$(pgrep -x sleep)/fd/0 | grep -q /srv/data";
        wait("the holder", PATIENCE, || (node.run(holds).code == 0).then_some(()));
    }

    /// Waits until what unmounts n1's file system waits for its disk, and cannot be killed.
    pub fn umount_hangs(&self) {
        let node = self.lab.node(0);
        let hangs = "ps -eo state=,args= | grep '^D.*[u]mount.*/srv'";
        wait("an umount that hangs", PATIENCE, || (node.run(hangs).code == 0).then_some(()));
    }

    /// Waits until n1's status names it: while a stop is tried again, the group is stopping.
    pub fn held_by_sleep(&self) {
        let node = self.lab.node(0);
        wait("a status that names the holder", PATIENCE, || {
            let status = node.run("hafailover status");
            (status.code == 4 && status.text.contains("(sleep)")).then_some(())
        });
    }

    /// Waits until a node has told a kind.
    pub fn told(&self, n: usize, what: &str) {
        let node = self.lab.node(n);
        wait(&format!("{what} in {}'s journal", node.name), PATIENCE, || {
            (node.told(what) > 0).then_some(())
        });
    }

    /// Waits until a node has told a kind once more than it had before something was done.
    pub fn told_more(&self, n: usize, what: &str, before: usize) {
        let node = self.lab.node(n);
        wait(&format!("more than {before} {what} in {}'s journal", node.name), PATIENCE, || {
            (node.told(what) > before).then_some(())
        });
    }

    /// Waits until a node has told a kind so often, and finds that it was not more often: the
    /// journal comes some time after what it tells.
    pub fn told_times(&self, n: usize, what: &str, times: usize) {
        let node = self.lab.node(n);
        wait(&format!("{what} {times} times in {}'s journal", node.name), PATIENCE, || {
            (node.told(what) >= times).then_some(())
        });
        assert_eq!(node.told(what), times, "{what} on {}", node.name);
    }

    /// The evidence that the node's first start rests on.
    pub fn evidence(&self, n: usize) -> String {
        self.evidence_of(n, 1)
    }

    /// The evidence of its so many-th start, which may not be in the journal yet.
    pub fn evidence_of(&self, n: usize, start: usize) -> String {
        let node = self.lab.node(n);
        let line = wait(&format!("start {start} in {}'s journal", node.name), PATIENCE, || {
            let lines = node.journal();
            lines.into_iter().filter(|l| l.starts_with("group-started ")).nth(start - 1)
        });
        line.rsplit_once(" [").expect("with evidence").1.trim_end_matches(']').to_string()
    }

    /// What a node told of starts that failed there, oldest first.
    fn failures(&self, n: usize) -> Vec<String> {
        let mut lines = self.lab.node(n).journal();
        lines.retain(|l| l.starts_with("start-failed "));
        lines
    }

    /// How often a start failed there for another reason than that its evidence was too old.
    pub fn failed_starts(&self, n: usize) -> usize {
        self.failures(n).iter().filter(|l| !l.contains(TOO_OLD)).count()
    }

    /// A move that is asked for on a node and must succeed; what it said.
    pub fn moves(&self, n: usize, args: &str) -> String {
        let ask = format!("hafailover move {args}");
        self.asked(n, args, || self.lab.node(n).run(&ask))
    }

    /// The same, first asked for in some other way. It is asked for once more if, and only if, the
    /// target says in its journal that its evidence was too old.
    pub fn asked(&self, n: usize, args: &str, first: impl FnOnce() -> Output) -> String {
        let nodes = 0..self.lab.nodes.len();
        let before: Vec<usize> = nodes.map(|n| self.failures(n).len()).collect();
        let Output { code, text } = first();
        if code == 0 {
            return text;
        }
        assert!(text.contains("did not start on "), "move {args}: {text}");
        let why = wait("the reason in the target's journal", PATIENCE, || {
            let new = |(n, seen): (usize, &usize)| self.failures(n).into_iter().nth(*seen);
            before.iter().enumerate().find_map(new)
        });
        assert!(why.contains(TOO_OLD), "move {args}: {text}: {why}");
        println!("  the evidence was too old: move {args} is asked for again");
        let group = args.split([' ', '.']).next().expect("a group");
        wait("the group where it was", PATIENCE, || {
            let runs = |n: &Node| n.phase(group).as_deref() == Some("running");
            self.lab.nodes.iter().any(runs).then_some(())
        });
        self.lab.node(n).must(&format!("hafailover move {args}"))
    }

    /// n2 does not take over by itself and says what it waits for; a person's word completes it.
    pub fn waits_for_a_person(&self) {
        self.told(1, "group-waits");
        let status = self.lab.node(1).run("hafailover status");
        assert!(status.code == 4 && status.text.contains("confirm-down n1"), "{}", status.text);
        assert_eq!(self.lab.node(1).told("group-claimed"), 0);
        self.lab.node(1).must("hafailover confirm-down n1");
        self.runs_on(1);
        self.one_owner();
    }

    /// The owner's machine is paused until n2 has taken over; its kernel answers nobody either, or
    /// the address's probe would find it. When it goes on.
    pub fn paused_owner(&self) -> u64 {
        self.lab.net.block(0, Lan::Lan);
        self.lab.node(0).freeze();
        wait("n2 to take over", PATIENCE, || {
            (self.lab.node(1).phase("files")? == "running").then_some(())
        });
        // What stands still keeps its mount: if that is not seen, a zero elsewhere says nothing.
        wait("the second mount to be seen", PATIENCE, || {
            (!self.lab.mounts.seen().both.is_zero()).then_some(())
        });
        self.lab.net.unblock();
        let goes_on = clock::now().0;
        self.lab.node(0).thaw();
        goes_on
    }

    /// An owner that has to give up at a moment has done so two keepalives plus its time to stop
    /// later: it writes no more.
    pub fn gave_up(&self, n: usize, since: u64) {
        let last = self.lab.stamps().iter().filter(|s| s.0 == n).map(|s| s.1).max().expect("one");
        let took = Duration::from_nanos(last.saturating_sub(since));
        println!("  {} wrote for {took:?} after that", self.lab.node(n).name);
        assert!(took < KEEPALIVE * 2 + STOP_BUDGET, "{took:?}");
    }

    pub fn client(&self) -> Client {
        Client::start(&self.lab.net.client())
    }

    /// What a client saw that was served by n1 first: then at most by the owner of now, and never
    /// by n1 again.
    pub fn served(&self, client: Client, owner: usize, story: &str) {
        let seen = client.stop();
        println!("  {story}: client saw {:?}", seen.outage());
        let mut owners = vec![self.lab.node(0).name.clone(), self.lab.node(owner).name.clone()];
        owners.dedup();
        assert_eq!(seen.owners(), owners, "served in another order");
    }

    /// The same where the manual lets two have the group for a time ([`Cluster::two_allowed`]):
    /// by n1 first, and by the owner of now in the end.
    pub fn served_at_last(&self, client: Client, owner: usize, story: &str) {
        let (seen, last) = (client.stop(), &self.lab.node(owner).name);
        let owners = seen.owners();
        println!("  {story}: client saw {:?}, served by {}", seen.outage(), owners.join(", "));
        let first = &self.lab.node(0).name;
        assert_eq!((owners.first(), owners.last()), (Some(first), Some(last)));
    }

    /// For how long two nodes had the shared disk at once, as it and their mount tables saw it.
    pub fn at_once(&self) -> String {
        format!("both wrote for {:?}, {}", self.lab.overlap(), self.lab.mounts.seen())
    }

    /// Told if two nodes had the shared disk at any time, whether they wrote or not.
    pub fn two_owners(&self) -> Option<String> {
        let mounts = self.lab.mounts.seen();
        assert!(mounts.looks > 0, "nobody has looked at the mounts");
        assert!(mounts.blind < BLIND, "nobody looked at the mounts for {:?}", mounts.blind);
        let none = self.lab.overlap().is_zero() && mounts.both.is_zero();
        (!none).then(|| self.at_once())
    }

    /// Never two at once.
    pub fn one_owner(&self) {
        assert_eq!(self.two_owners(), None, "two nodes had the shared disk");
    }

    /// Where man hafailover(7), WHAT PROTECTS WHAT, lets two have it for a time: how long it was,
    /// and by which of its words. It is not judged here.
    pub fn two_allowed(&self, by: &str) {
        println!("  {by}, two are possible: {}", self.at_once());
    }

    /// What the journals and the nodes say, after a failure.
    pub fn dump(&self) {
        for node in self.lab.nodes.iter().filter(|n| n.is_up()) {
            node.thaw();
            println!("--- {}", node.name);
            println!("{}", node.run("hafailover status").text);
            let lines = node.journal();
            lines.iter().skip(lines.len().saturating_sub(40)).for_each(|l| println!("{l}"));
            let units = "systemctl --no-pager -l status hafailover | tail -15; \
                         journalctl -q -p 4 -n 15 --no-pager";
            println!("{}", node.run(units).text);
        }
    }
}
