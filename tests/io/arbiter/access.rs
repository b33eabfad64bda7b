//! Who gets in: certificates, users, and what a person is told who wrote the wrong thing.

use super::{A, Asker, B, Members, TERM, granted, unknown};
use crate::space::{check_arbiter, sh};
use hafailover::config::arbiter::etcd::Settings;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Instant;

/// An authority, etcd's certificate and a client's, and those of a stranger, made by openssl.
fn certificates(members: &Members) -> Vec<String> {
    let at = members.dir.path().display().to_string();
    let host = members.host(0);
    sh(&format!(
        "cd {at}; umask 077; \
         authority() {{ openssl req -x509 -newkey rsa:2048 -nodes -keyout $1.key -out $1.pem \
           -days 2 -subj /CN=$1 2>/dev/null; }}; \
         signed() {{ openssl req -newkey rsa:2048 -nodes -keyout $2.key -out $2.csr \
           -subj /CN=$2 2>/dev/null; echo \"$3\" > ext; \
           openssl x509 -req -in $2.csr -CA $1.pem -CAkey $1.key -CAcreateserial -days 2 \
           -extfile ext -out $2.pem 2>/dev/null; }}; \
         authority ca; authority stranger; \
         signed ca server 'subjectAltName=IP:{host}\nextendedKeyUsage=serverAuth,clientAuth'; \
         signed ca client 'extendedKeyUsage=clientAuth'; \
         signed stranger foreign 'extendedKeyUsage=clientAuth'; \
         signed ca other 'subjectAltName=DNS:elsewhere\nextendedKeyUsage=serverAuth,clientAuth'"
    ));
    ["--cert-file", "server.pem", "--key-file", "server.key", "--trusted-ca-file", "ca.pem"]
        .map(|word| match word.starts_with("--") {
            true => word.to_string(),
            false => format!("{at}/{word}"),
        })
        .to_vec()
}

fn secured(members: &Members) -> Settings {
    let at = |name: &str| Some(members.dir.path().join(name));
    Settings {
        ca: at("ca.pem"),
        cert: at("client.pem"),
        key: at("client.key"),
        ..members.settings()
    }
}

/// Goal: with the right certificates it works; each wrong one is named, with what to do.
#[test]
fn certificates_let_in_who_belongs() {
    let members = Members::with(1, "https", |members| {
        let mut options = certificates(members);
        options.push("--client-cert-auth".into());
        options
    });
    let good = secured(&members);
    let at = |name: &str| Some(members.dir.path().join(name));
    // As little stack as the daemon's thread has; a debug build needs more of it.
    let small = std::thread::Builder::new().stack_size(512 * 1024);
    let first = Asker::of(&good);
    let ask = move || { first }.acquire(1, A);
    granted(small.spawn(ask).expect("a thread").join().expect("no panic"));
    let with = |change: &dyn Fn(&mut Settings)| {
        let mut wrong = good.clone();
        change(&mut wrong);
        Asker::of(&wrong)
    };
    let mut cases: Vec<(Asker, &str)> = vec![
        (with(&|s| (s.cert, s.key) = (None, None)), "cert and key in [arbiter.etcd]"),
        (with(&|s| s.ca = at("stranger.pem")), "not signed by what ca ="),
        (with(&|s| (s.cert, s.key) = (at("foreign.pem"), at("foreign.key"))), "--trusted-ca-file"),
        (with(&|s| s.ca = at("absent.pem")), "absent.pem: ca = of [arbiter.etcd]: No such file"),
        (with(&|s| s.ca = at("ext")), "no certificate is in it"),
        (with(&|s| s.key = at("ext")), "key = needs a PEM file"),
    ];
    for endpoint in &good.endpoints {
        let plain = endpoint.replace("https:", "http:");
        cases.push((with(&|s| s.endpoints = vec![plain.clone()]), "write https:// and ca ="));
    }
    for (mut asker, words) in cases {
        unknown(asker.renew(1, A), words);
    }
    sh(&format!("chmod 640 {}", good.key.as_ref().expect("one").display()));
    unknown(Asker::of(&good).renew(1, A), "chmod 600");
}

/// Goal: a server that is somebody else, or speaks another language, is named as that.
#[test]
fn a_wrong_server_is_named() {
    let members = Members::with(1, "https", |members| {
        let mut options = certificates(members);
        options.iter_mut().for_each(|word| *word = word.replace("server.", "other."));
        options
    });
    unknown(Asker::of(&secured(&members)).acquire(1, A), "subjectAltName");
    let plain = Members::start(1);
    let mut wrong = secured(&members);
    wrong.endpoints = vec![plain.endpoint(0).replace("http:", "https:")];
    unknown(Asker::of(&wrong).acquire(1, A), "not speak TLS");
    wrong.endpoints = vec!["http://nowhere.invalid:2379".into()];
    unknown(Asker::of(&wrong).acquire(1, A), "write an address");
}

/// A server that answers whatever it is asked with this, until the test ends.
fn impostor(status: &str, body: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let endpoint = format!("http://{}", listener.local_addr().expect("bound"));
    let answer = format!(
        "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let mut request = [0; 4096];
            let _ = client.read(&mut request).and_then(|_| client.write_all(answer.as_bytes()));
        }
    });
    endpoint
}

/// Goal: what stands before the members and is none of them costs no lease, and is named when
/// nobody else answers.
#[test]
fn a_wrong_endpoint_hides_no_right_one() {
    let mut members = Members::start(1);
    let impostors = [("404 Not Found", "no such page"), ("200 OK", "{}")];
    for (n, (status, body)) in (1..).zip(impostors) {
        let wrong = impostor(status, body);
        let endpoints = vec![wrong.clone(), members.endpoint(0)];
        let mut a = Asker::of(&Settings { endpoints, ..members.settings() });
        granted(a.acquire(n, A));
        members.kill(0);
        unknown(a.renew(n, A), &wrong);
        members.restart(&[0]);
        granted(a.release(n, A));
        let mut alone = Asker::of(&Settings { endpoints: vec![wrong], ..members.settings() });
        unknown(alone.acquire(n, A), "no etcd");
    }
}

fn password(members: &Members, name: &str, text: &str) -> Option<PathBuf> {
    let path = members.dir.path().join(name);
    std::fs::write(&path, text).expect("written");
    sh(&format!("chmod 600 {}", path.display()));
    Some(path)
}

/// Goal: a user with rights below the prefix gets in, again after etcd forgot its tokens or they
/// ran out; nobody else does.
#[test]
fn users_get_in_by_their_password() {
    let mut members =
        Members::with(1, "http", |_| vec!["--auth-token-ttl".to_string(), "1".to_string()]);
    for command in [
        "user add root:r",
        "user grant-role root root",
        "role add ha",
        "role grant-permission ha --prefix=true readwrite /hafailover/",
        "user add ha:secret",
        "user grant-role ha ha",
        "user add nobody:secret",
        "auth enable",
    ] {
        members.must(&command.split(' ').collect::<Vec<_>>());
    }
    members.login = vec!["--user".into(), "root:r".into()];
    let of = |user: &str, text: &str| Settings {
        user: Some(user.into()),
        password_file: password(&members, &format!("{user}.{text}"), &format!("{text}\n")),
        ..members.settings()
    };
    let (good, wrong, nobody) = (of("ha", "secret"), of("ha", "wrong"), of("nobody", "secret"));
    let anonymous = members.settings();
    let elsewhere = Settings { prefix: "/elsewhere".into(), ..good.clone() };
    let (mut a, mut b) = (Asker::of(&good), Asker::of(&good));
    granted(a.acquire(1, A));
    unknown(Asker::of(&anonymous).acquire(2, B), "user and password-file");
    unknown(Asker::of(&wrong).acquire(2, B), "look at user and password-file");
    unknown(Asker::of(&nobody).acquire(2, B), "grant-permission");
    unknown(Asker::of(&elsewhere).acquire(2, B), "grant-permission");
    // The token runs out while nobody asks; the lease as well.
    let mut watch = members.watch();
    let asked = Instant::now();
    granted(a.renew(1, A));
    watch.until("PUT", "files/holder");
    watch.until("DELETE", "files/holder");
    assert!(asked.elapsed() >= TERM);
    granted(b.acquire(2, B));
    granted(a.release(1, A));
    drop(watch);
    members.kill(0);
    members.restart(&[0]);
    granted(b.renew(2, B));
}

/// Goal: a user where etcd has none is told so.
#[test]
fn a_user_where_there_are_none_is_told_so() {
    let members = Members::start(1);
    let mut with = members.settings();
    with.user = Some("ha".into());
    with.password_file = password(&members, "p", "secret");
    unknown(Asker::of(&with).acquire(1, A), "etcdctl auth enable");
}

fn check(members: &Members, arbiter: &str) -> String {
    check_arbiter(members.dir.path(), &format!("\"etcd\"\n[arbiter.etcd]\n{arbiter}"))
}

/// Goal: each member, the majority and our rights are looked at, and nothing is written.
#[test]
fn check_tells_what_the_arbiter_says() {
    let mut members = Members::start(3);
    let (other, all) = (Members::start(1), members.settings().endpoints);
    let listed = |endpoints: &[String]| format!("endpoints = {endpoints:?}\n");
    let said = check(&members, &listed(&all));
    let version = "note: arbiter: etcd 3.";
    assert_eq!(said.matches(version).count(), 3, "{said}");
    assert!(said.contains("the majority of etcd answers in"), "{said}");
    assert!(!said.contains("error") && !said.contains("warning"), "{said}");
    assert_eq!(members.must(&["get", "--prefix", "/"]), "", "something was written");

    let mixed = [all.clone(), vec![other.endpoint(0)]].concat();
    let said = check(&members, &listed(&mixed));
    assert!(said.contains("error: arbiter: ") && said.contains("another etcd cluster"), "{said}");

    members.kill(2);
    let said = check(&members, &listed(&all));
    assert!(said.contains(&format!("warning: arbiter: {}: nothing listens", all[2])), "{said}");
    assert!(said.contains("the majority of etcd answers in"), "{said}");
    members.kill(1);
    let said = check(&members, &listed(&all));
    assert!(said.contains("error: arbiter: no lease would be granted"), "{said}");
    members.kill(0);
    let said = check(&members, &listed(&all));
    assert_eq!(said.matches("error: arbiter: ").count(), 3, "{said}");
}
