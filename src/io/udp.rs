//! Heartbeats over UDP on one interface: broadcast, multicast or unicast, IPv4 and IPv6. Port 694
//! is ha-cluster's at IANA.

use super::link::{Counters, REOPEN};
use super::{Inbox, Input};
use crate::config::settings::UdpTo;
use crate::core::Event;
use crate::core::name::{LinkId, NodeId};
use crate::wire::FRAME_MAX;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::cell::RefCell;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::rc::Rc;
use std::sync::Arc;

/// Class selector 6, network control (RFC 2474 section 4.2.2.1): ahead of bulk traffic.
const NETWORK_CONTROL: u32 = 0xc0;
/// TC_PRIO_INTERACTIVE of linux/pkt_sched.h: the first band of our own queue, and the highest that
/// needs no capability.
const FIRST_BAND: u32 = 6;

pub struct Plan {
    pub link: LinkId,
    pub me: NodeId,
    pub interface: String,
    pub port: u16,
    pub to: UdpTo,
}

/// Closes the link when dropped.
pub struct Sender {
    open: Rc<RefCell<Option<Open>>>,
    task: tokio::task::JoinHandle<()>,
    counters: Arc<Counters>,
}

struct Open {
    socket: Rc<tokio::net::UdpSocket>,
    to: Vec<SocketAddr>,
    failed: Option<io::Error>,
}

impl Sender {
    pub fn send(&self, frame: &[u8]) {
        let mut open = self.open.borrow_mut();
        let Some(open) = open.as_mut() else { return };
        for to in &open.to {
            match open.socket.try_send_to(frame, *to) {
                Ok(_) => {
                    self.counters.sent(frame.len());
                    open.failed = None;
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => open.failed = Some(e),
            }
        }
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub fn open(plan: Plan, inbox: Inbox, counters: Arc<Counters>) -> Sender {
    let open = Rc::new(RefCell::new(None));
    let task = tokio::task::spawn_local(run(plan, inbox, counters.clone(), open.clone()));
    Sender { open, task, counters }
}

/// Opens the socket, reads from it, and opens it anew when it or its interface is gone.
async fn run(plan: Plan, inbox: Inbox, counters: Arc<Counters>, open: Rc<RefCell<Option<Open>>>) {
    let mut told: Option<String> = None;
    loop {
        let why = match plan.bind() {
            Ok((socket, to)) => {
                let index = interface_index(&plan.interface);
                let socket = Rc::new(socket);
                *open.borrow_mut() = Some(Open { socket: socket.clone(), to, failed: None });
                report(&plan, &inbox, true, String::new()).await;
                told = None;
                let why = read(&plan, &inbox, &counters, &socket, &open, index).await;
                *open.borrow_mut() = None;
                why
            }
            Err(e) => format!("{}: {e}", plan.interface),
        };
        if told.as_ref() != Some(&why) {
            report(&plan, &inbox, false, why.clone()).await;
            told = Some(why);
        }
        tokio::time::sleep(REOPEN).await;
    }
}

async fn report(plan: &Plan, inbox: &Inbox, usable: bool, why: String) {
    let event = Event::Link { link: plan.link, usable, why };
    let _ = inbox.send(Input::Event(event)).await;
}

/// Reads until the socket fails or the interface is no longer the one it was bound to.
async fn read(
    plan: &Plan,
    inbox: &Inbox,
    counters: &Counters,
    socket: &tokio::net::UdpSocket,
    open: &RefCell<Option<Open>>,
    index: Option<u32>,
) -> String {
    let mut buffer = vec![0; FRAME_MAX + 1];
    let mut look = tokio::time::interval(REOPEN);
    let mut failing = false;
    loop {
        tokio::select! {
            got = socket.recv_from(&mut buffer) => match got {
                Ok((len, from)) => {
                    counters.received(len);
                    let bytes = buffer[..len].to_vec();
                    // A full inbox drops heartbeats: the next one says the same, and newer.
                    let from = Some(from.ip());
                    let _ = inbox.try_send(Input::Frame { link: plan.link, bytes, from });
                }
                // What the network answered to an earlier send (ICMP) is not ours to judge.
                Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(e) => return format!("{}: {e}", plan.interface),
            },
            _ = look.tick() => {
                let now = interface_index(&plan.interface);
                if now != index {
                    return format!("interface {} is gone or new", plan.interface);
                }
                // A send that fails (an interface that is down, a firewall) closes nothing: what
                // comes in is still heard.
                let failed = open.borrow_mut().as_mut().and_then(|o| o.failed.take());
                if failed.is_some() != failing {
                    failing = failed.is_some();
                    let why = failed.map(|e| format!("{}: sending failed: {e}", plan.interface));
                    report(plan, inbox, !failing, why.unwrap_or_default()).await;
                }
            }
        }
    }
}

impl Plan {
    /// The bound socket and where to send to.
    fn bind(&self) -> io::Result<(tokio::net::UdpSocket, Vec<SocketAddr>)> {
        let index = interface_index(&self.interface).ok_or_else(|| {
            io::Error::other(
                "there is no such interface: ip link shows them; correct interface= and reload",
            )
        })?;
        let six = match &self.to {
            UdpTo::Broadcast | UdpTo::Multicast4 { .. } => false,
            UdpTo::Multicast6 { .. } => true,
            UdpTo::Unicast { addresses } => addresses.iter().any(|(_, a)| a.is_ipv6()),
        };
        let domain = if six { Domain::IPV6 } else { Domain::IPV4 };
        let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind_device(Some(self.interface.as_bytes()))?;
        let any: SocketAddr = match six {
            true => SocketAddr::from(([0u16; 8], self.port)),
            false => SocketAddr::from(([0u8; 4], self.port)),
        };
        if six {
            socket.set_only_v6(true)?;
            socket.set_tclass_v6(NETWORK_CONTROL)?;
        } else {
            socket.set_tos_v4(NETWORK_CONTROL)?;
        }
        // After the class, which sets it too.
        socket.set_priority(FIRST_BAND)?;
        socket.bind(&SockAddr::from(any))?;
        let to = self.targets(&socket, index)?;
        let socket = tokio::net::UdpSocket::from_std(UdpSocket::from(socket))?;
        Ok((socket, to))
    }

    fn targets(&self, socket: &Socket, index: u32) -> io::Result<Vec<SocketAddr>> {
        Ok(match &self.to {
            UdpTo::Broadcast => {
                socket.set_broadcast(true)?;
                // The limited broadcast of RFC 919, on the bound interface only: needs no address
                // of ours to be in the same network as the peer's.
                vec![SocketAddr::from((Ipv4Addr::BROADCAST, self.port))]
            }
            UdpTo::Multicast4 { group, ttl } => {
                let at = socket2::InterfaceIndexOrAddress::Index(index);
                socket.join_multicast_v4_n(group, &at)?;
                socket.set_multicast_ttl_v4(*ttl)?;
                socket.set_multicast_loop_v4(false)?;
                vec![SocketAddr::from((*group, self.port))]
            }
            UdpTo::Multicast6 { group, hops } => {
                socket.join_multicast_v6(group, index)?;
                socket.set_multicast_if_v6(index)?;
                socket.set_multicast_hops_v6(*hops)?;
                socket.set_multicast_loop_v6(false)?;
                vec![SocketAddr::V6(SocketAddrV6::new(*group, self.port, 0, index))]
            }
            UdpTo::Unicast { addresses } => {
                let others = addresses.iter().filter(|(node, _)| *node != self.me);
                others
                    .map(|(_, address)| match address {
                        IpAddr::V4(a) => SocketAddr::from((*a, self.port)),
                        IpAddr::V6(a) => {
                            let scope = if a.is_unicast_link_local() { index } else { 0 };
                            SocketAddr::V6(SocketAddrV6::new(*a, self.port, 0, scope))
                        }
                    })
                    .collect()
            }
        })
    }
}

fn interface_index(name: &str) -> Option<u32> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).ok()?;
    rustix::net::netdevice::name_to_index(&socket, name).ok()
}
