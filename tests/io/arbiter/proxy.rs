//! A wire to one member that keeps back what the test names, and delivers it late.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};

/// Requests with this path wait; the answers always go through.
#[derive(Default)]
struct Gate {
    held: Option<&'static str>,
    waiting: usize,
    delivered: usize,
}

pub struct Proxy {
    pub endpoint: String,
    gate: Arc<(Mutex<Gate>, Condvar)>,
}

impl Proxy {
    pub fn to(host: &str) -> Proxy {
        let listener = TcpListener::bind((host, 0)).expect("bound");
        let port = listener.local_addr().expect("an address").port();
        let gate: Arc<(Mutex<Gate>, Condvar)> = Arc::default();
        let (shared, target) = (gate.clone(), host.to_string());
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let server = TcpStream::connect((target.as_str(), 2379)).expect("connected");
                pass(client, server, shared.clone());
            }
        });
        Proxy { endpoint: format!("http://{host}:{port}"), gate }
    }

    /// From now on requests with this in their first line wait.
    pub fn hold(&self, path: &'static str) {
        self.gate.0.lock().expect("whole").held = Some(path);
    }

    /// Lets what waits go, and waits until etcd has answered it.
    pub fn deliver(&self) {
        let mut gate = self.gate.0.lock().expect("whole");
        assert!(gate.waiting > 0, "nothing was held");
        let all = gate.delivered + gate.waiting;
        gate.held = None;
        self.gate.1.notify_all();
        while gate.delivered < all {
            let waited = self.gate.1.wait_timeout(gate, super::PATIENCE).expect("whole");
            assert!(!waited.1.timed_out(), "etcd does not answer");
            gate = waited.0;
        }
    }
}

/// A client that has gone away does not keep its request from etcd.
fn pass(client: TcpStream, server: TcpStream, gate: Arc<(Mutex<Gate>, Condvar)>) {
    let (mut back, mut answers) = (client.try_clone().expect("a socket"), server);
    let mut forth = answers.try_clone().expect("a socket");
    let mut client = client;
    let shared = gate.clone();
    let late = Arc::new(Mutex::new(false));
    let was_late = late.clone();
    std::thread::spawn(move || {
        let mut bytes = [0; 65536];
        while let Ok(n @ 1..) = answers.read(&mut bytes) {
            if std::mem::take(&mut *was_late.lock().expect("whole")) {
                shared.0.lock().expect("whole").delivered += 1;
                shared.1.notify_all();
            }
            let _ = back.write_all(&bytes[..n]);
        }
    });
    std::thread::spawn(move || {
        let mut bytes = [0; 65536];
        while let Ok(n @ 1..) = client.read(&mut bytes) {
            let text = String::from_utf8_lossy(&bytes[..n]).into_owned();
            let mut inner = gate.0.lock().expect("whole");
            let hit = |g: &Gate| g.held.is_some_and(|path| text.contains(path));
            if hit(&inner) {
                inner.waiting += 1;
                while hit(&inner) {
                    inner = gate.1.wait(inner).expect("whole");
                }
                inner.waiting -= 1;
                *late.lock().expect("whole") = true;
            }
            drop(inner);
            let _ = forth.write_all(&bytes[..n]);
        }
    });
}
