//! Wires between the members of one etcd, on which a member is cut off from the others while all of
//! them run.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, OnceLock, Weak};

/// Members look for each other at these; behind each is the member itself.
pub struct Wires(Arc<Shared>);

struct Shared {
    urls: Vec<String>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    cut: Option<usize>,
    open: Vec<Weak<Wire>>,
}

/// One connection.
struct Wire {
    /// Who made it.
    from: OnceLock<usize>,
    to: usize,
    ends: [TcpStream; 2],
}

impl Wires {
    pub fn before(hosts: &[String], port: u16) -> Wires {
        let bind = |host: &String| TcpListener::bind((host.as_str(), 0)).expect("bound");
        let listeners: Vec<TcpListener> = hosts.iter().map(bind).collect();
        let url = |l: &TcpListener| format!("http://{}", l.local_addr().expect("an address"));
        let urls = listeners.iter().map(url).collect();
        let shared = Arc::new(Shared { urls, state: Mutex::default() });
        for (to, (listener, host)) in listeners.into_iter().zip(hosts).enumerate() {
            let (shared, host) = (shared.clone(), host.clone());
            std::thread::spawn(move || {
                for client in listener.incoming().flatten() {
                    // Not there while it starts; whoever asks comes again.
                    if let Ok(server) = TcpStream::connect((host.as_str(), port)) {
                        join(&shared, to, [client, server]);
                    }
                }
            });
        }
        Wires(shared)
    }

    pub fn urls(&self) -> &[String] {
        &self.0.urls
    }

    /// When this returns, nothing goes any more between this member and any other; between those
    /// everything does. Nobody is cut off: all are together again.
    pub fn cut(&self, member: Option<usize>) {
        let mut state = self.0.state.lock().expect("whole");
        state.cut = member;
        let open = state.open.iter().filter_map(Weak::upgrade);
        open.filter(|wire| !wire.is_whole(member)).for_each(|wire| wire.end());
    }
}

fn join(shared: &Arc<Shared>, to: usize, ends: [TcpStream; 2]) {
    // A heartbeat is not kept back for the next one.
    ends.iter().for_each(|end| end.set_nodelay(true).expect("set"));
    let wire = Arc::new(Wire { from: OnceLock::new(), to, ends });
    shared.state.lock().expect("whole").open.push(Arc::downgrade(&wire));
    for way in [0, 1] {
        let (shared, wire) = (shared.clone(), wire.clone());
        std::thread::spawn(move || wire.pass(way, &shared));
    }
}

impl Wire {
    /// What does not say whose it is may be the cut one's.
    fn is_whole(&self, cut: Option<usize>) -> bool {
        let other = |cut| self.to != cut && self.from.get().is_some_and(|from| *from != cut);
        cut.is_none_or(other)
    }

    /// Until one end closes; then both do.
    fn pass(&self, way: usize, shared: &Shared) {
        let (mut from, mut to) = (&self.ends[way], &self.ends[1 - way]);
        let mut bytes = [0; 65536];
        while let Ok(n @ 1..) = from.read(&mut bytes) {
            if way == 0 {
                self.look(&bytes[..n], &shared.urls);
            }
            let cut = shared.state.lock().expect("whole").cut;
            // A cut after this look has closed the other end.
            if !self.is_whole(cut) || to.write_all(&bytes[..n]).is_err() {
                break;
            }
        }
        self.end();
    }

    /// Members say in their requests where they themselves are looked for.
    fn look(&self, request: &[u8], urls: &[String]) {
        if self.from.get().is_none() {
            let text = String::from_utf8_lossy(request).to_ascii_lowercase();
            let says = |url: &String| text.contains(&format!("x-peerurls: {url}\r\n"));
            if let Some(from) = urls.iter().position(says) {
                let _ = self.from.set(from);
            }
        }
    }

    fn end(&self) {
        for end in &self.ends {
            let _ = end.shutdown(Shutdown::Both);
        }
    }
}
