//! What is on the network beside the servers, and what heartbeat's users did every day.

use super::stage::{files, moved, prepare, runs_on, start};
use crate::cluster::{AGENT, Cluster, PATIENCE, TAKEOVER, TARGET};
use crate::harness::client::enter;
use crate::harness::{sh, wait};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};

/// Three addresses of one group, and who a host behind the gateway believes is speaking.
pub fn addresses_and_source(c: &mut Cluster) {
    let client = c.lab.net.client();
    sh(&format!(
        "ip -n {client} addr replace 192.168.0.254/24 dev eth0; \
         ip -n {client} addr replace 203.0.113.1/32 dev lo; \
         ip -n {client} addr replace fd00:5::50/64 dev eth0 nodad"
    ));
    prepare(c, "gate", &files("ADDRESSES AND ROUTES", &[]), "");
    let far = listen(&client, "203.0.113.1:9999");
    start(c);
    for (there, elsewhere) in [(0, 1), (1, 0)] {
        if there == 1 {
            moved(c, "gate", 1);
        }
        runs_on(c, "gate", there);
        for address in ["192.168.0.100", "192.168.0.101", "fd00:5::100"] {
            let ping = format!("ip netns exec {client} ping -n -q -c 1 -W 2 {address}");
            wait(&format!("an answer of {address}"), PATIENCE, || {
                let ran = std::process::Command::new("sh").args(["-c", &ping]).output();
                ran.expect("sh runs").status.success().then_some(())
            });
        }
        let speak = "exec 3<>/dev/tcp/203.0.113.1/9999";
        c.lab.node(there).must(&format!("bash -c '{speak}'"));
        let stream = far.recv_timeout(PATIENCE).expect("a connection");
        let peer = stream.peer_addr().expect("a peer").ip().to_string();
        assert_eq!(peer, "192.168.0.100", "who spoke");
        assert_eq!(c.lab.node(elsewhere).must("ip route show 0.0.0.0/1"), "");
    }
}

/// Connections to an address, as the client's machine has them.
fn listen(namespace: &str, address: &str) -> Receiver<TcpStream> {
    let (sender, streams) = channel();
    let (namespace, address) = (namespace.to_string(), address.to_string());
    let (ready, listens) = channel();
    std::thread::spawn(move || {
        enter(&namespace);
        let listener = TcpListener::bind(address).expect("free");
        let _ = ready.send(());
        for stream in listener.incoming().flatten() {
            if sender.send(stream).is_err() {
                return;
            }
        }
    });
    listens.recv().expect("it listens");
    streams
}

/// Every transition becomes a mail, from both nodes; without a mail server nothing waits.
pub fn mail(c: &mut Cluster) {
    c.start_all(TAKEOVER);
    let recipe = files("MAIL", &[]);
    let server = "account default\nhost 192.168.0.50\nport 25\nfrom hafailover@office.example\n";
    for node in &c.lab.nodes {
        for (path, text) in &recipe {
            node.write(path, text);
        }
        node.write("/etc/msmtprc", server);
        node.must(
            "chmod 755 /usr/local/sbin/hafailover-mail; systemctl daemon-reload; \
                   systemctl start hafailover-mail",
        );
        // It hears what is told once its journalctl follows.
        wait("the follower", PATIENCE, || {
            (node.run("pgrep -x journalctl").code == 0).then_some(())
        });
    }
    // No server: refused, and forgotten.
    c.moves(0, "files");
    c.runs_on(1);
    let mails = sink(listen(&c.lab.net.client(), "192.168.0.50:25"));
    c.moves(0, "files");
    c.runs_on(0);
    let mut wanted = vec!["n2: files is released to n1", "n1: files is started"];
    while !wanted.is_empty() {
        let subject = mails.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("no {wanted:?}"));
        println!("  mail: {subject}");
        wanted.retain(|words| !subject.contains(words));
    }
    for node in &c.lab.nodes {
        node.must("systemctl stop hafailover-mail");
    }
}

/// A mail server that takes everything (RFC 5321); the subjects of what it got.
fn sink(streams: Receiver<TcpStream>) -> Receiver<String> {
    let (sender, subjects) = channel();
    std::thread::spawn(move || {
        for mut stream in streams {
            let lines = BufReader::new(stream.try_clone().expect("a second handle")).lines();
            let _ = stream.write_all(b"220 sink\r\n");
            let mut data = false;
            for line in lines.map_while(Result::ok) {
                let line = line.trim_end().to_string();
                if data && line != "." {
                    if let Some(subject) = line.strip_prefix("Subject: ") {
                        let _ = sender.send(subject.to_string());
                    }
                    continue;
                }
                data = line == "DATA";
                let _ = stream.write_all(if data { b"354 go on\r\n" } else { b"250 good\r\n" });
            }
        }
    });
    subjects
}

const LEGACY: &str = "#!/bin/sh\n### BEGIN INIT INFO\n# Provides: legacy\n# Required-Start:\n\
    # Required-Stop:\n# Default-Start:\n# Default-Stop:\n# Short-Description: Of that time\n\
    ### END INIT INFO\ncase $1 in\nstart) setsid sh -c 'trap \"sleep 0.1; exit\" TERM; \
    while :; do sleep 0.1; done' legacyd >/dev/null 2>&1 &;;\nstop) pkill -f 'legacyd$';;\nesac\n";

/// A resource that is an init script only: systemd makes a unit of it. As many do, it sends the
/// signal and does not wait.
pub fn init_script(c: &mut Cluster) {
    let target = TARGET.replace("agent.service", "agent.service legacy.service");
    for node in &c.lab.nodes {
        node.write("/etc/init.d/legacy", LEGACY);
        node.must("chmod 755 /etc/init.d/legacy");
    }
    c.configure_with(TAKEOVER, &target, AGENT);
    let said = c.lab.node(0).run("hafailover check").text;
    assert!(!said.contains("no unit legacy.service"), "{said}");
    start(c);
    let runs = |c: &Cluster, n: usize| c.lab.node(n).run("pgrep -f 'legacyd$'").code == 0;
    c.runs_on(0);
    assert!(runs(c, 0) && !runs(c, 1));
    c.moves(0, "files");
    c.runs_on(1);
    assert!(runs(c, 1) && !runs(c, 0));
    c.one_owner();
    c.lab.node(1).must("systemctl stop files.target");
    c.phase(1, "stopped");
    assert!(!runs(c, 1));
    for node in &c.lab.nodes {
        node.must("rm /etc/init.d/legacy; systemctl daemon-reload");
    }
}

/// The table of commands in hafailover-recipes(7).
pub fn heartbeat_by_hand(c: &mut Cluster) {
    c.start_all(TAKEOVER);
    // hb_standby: the groups leave, and nothing keeps the node from taking them again.
    c.lab.node(0).must("hafailover standby && hafailover online");
    c.runs_on(1);
    // hb_takeover, asked on the node that shall have it.
    let said = c.moves(0, "files");
    assert!(said.contains("files runs on n1"), "{said}");
    c.runs_on(0);
    // heartbeat restart, which moved everything.
    let starts = c.lab.node(1).told("group-started");
    c.lab.node(0).must("systemctl restart hafailover && systemctl reload hafailover");
    wait("a healthy pair", PATIENCE, || {
        (c.lab.node(0).run("hafailover status").code == 0).then_some(())
    });
    assert_eq!(c.lab.node(1).told("group-started"), starts, "a restart moved the group");
    // cl_status listnodes, nodestatus, listhblinks, hblinkstatus, rscstatus.
    let status = c.lab.node(1).must("hafailover status");
    for words in ["n1", "eth1", "/dev/ttyS0", "files", "on n1"] {
        assert!(status.contains(words), "no {words} in:\n{status}");
    }
    // heartbeat stop and start; auto_failback off.
    c.lab.node(0).must("systemctl stop hafailover");
    c.runs_on(1);
    c.start(0);
    wait("a healthy pair again", PATIENCE, || {
        (c.lab.node(0).run("hafailover status").code == 0).then_some(())
    });
    c.runs_on(1);
    // The log.
    let log = c.lab.node(1).must("journalctl -q -o cat SYSLOG_IDENTIFIER=hafailover");
    let history = c.lab.node(1).must("hafailover history");
    for text in [log, history] {
        assert!(text.contains("files"), "{text}");
    }
    c.one_owner();
}
