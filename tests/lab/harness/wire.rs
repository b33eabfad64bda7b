//! What the client's cable shows: who announced an address, and when.

use super::client;
use socket2::{Domain, Protocol, Socket, Type};
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const ETH_P_ALL: u16 = 3;
const LOOK: Duration = Duration::from_millis(200);

/// Gratuitous ARP or an unsolicited neighbour advertisement to all nodes.
#[derive(Clone, Debug)]
pub struct Announcement {
    pub at: Instant,
    pub address: IpAddr,
    pub mac: String,
}

/// Listens in a namespace until it is dropped.
pub struct Wire {
    seen: Arc<Mutex<Vec<Announcement>>>,
    ended: Arc<AtomicBool>,
}

impl Wire {
    pub fn listen(namespace: &str) -> Wire {
        let seen = Arc::<Mutex<Vec<Announcement>>>::default();
        let ended = Arc::<AtomicBool>::default();
        let (into, over, namespace) = (seen.clone(), ended.clone(), namespace.to_string());
        let (tell, open) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            client::enter(&namespace);
            let all = Protocol::from(i32::from(ETH_P_ALL.to_be()));
            let mut socket = Socket::new(Domain::PACKET, Type::RAW, Some(all)).expect("a socket");
            socket.set_read_timeout(Some(LOOK)).expect("a time-out");
            tell.send(()).expect("somebody waits");
            let mut frame = [0; 1600];
            while !over.load(Ordering::Relaxed) {
                let Ok(len) = socket.read(&mut frame) else { continue };
                if let Some((mac, address)) = announced(&frame[..len]) {
                    let mac = mac.map(|b| format!("{b:02x}")).join(":");
                    let one = Announcement { at: Instant::now(), address, mac };
                    into.lock().expect("whole").push(one);
                }
            }
        });
        open.recv().expect("the wire is listened to");
        Wire { seen, ended }
    }

    /// All of one address, oldest first.
    pub fn of(&self, address: &str) -> Vec<Announcement> {
        let address: IpAddr = address.parse().expect("an address");
        let mut all = self.seen.lock().expect("whole").clone();
        all.retain(|one| one.address == address);
        all
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

/// Who announces which address in a frame, if it is an announcement.
fn announced(frame: &[u8]) -> Option<([u8; 6], IpAddr)> {
    let from = frame.get(6..12)?.try_into().ok()?;
    match frame.get(12..14)? {
        [0x08, 0x06] => {
            let sender: [u8; 4] = frame.get(28..32)?.try_into().ok()?;
            (frame.get(38..42)? == sender).then_some((from, Ipv4Addr::from(sender).into()))
        }
        [0x86, 0xdd] => {
            let advertised = frame.get(20)? == &58 && frame.get(54)? == &136;
            let to_all = frame.get(38..54)? == "ff02::1".parse::<Ipv6Addr>().ok()?.octets();
            let target: [u8; 16] = frame.get(62..78)?.try_into().ok()?;
            (advertised && to_all).then_some((from, Ipv6Addr::from(target).into()))
        }
        _ => None,
    }
}
