//! Who else has an address, and telling everybody that we have it: ARP probes and announcements
//! (RFC 5227), neighbour solicitations and unsolicited advertisements (RFC 4861).

use super::netlink::Interface;
use crate::io::clock;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV6};
use std::time::Duration;

pub type Mac = [u8; 6];

const ETH_P_ARP: u16 = 0x0806;
const ARP_REQUEST: u16 = 1;
const ARP_REPLY: u16 = 2;
const NEIGHBOUR_SOLICIT: u8 = 135;
const NEIGHBOUR_ADVERT: u8 = 136;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// More frames than a socket holds (net.core.rmem_default, 208 KiB, of 768 bytes and more each).
const SOCKET_MOST: u32 = 512;

/// A socket for one address on one interface.
pub struct Neighbours {
    socket: Socket,
    index: u32,
    mac: Mac,
    address: IpAddr,
}

impl Neighbours {
    pub fn open(interface: &Interface, address: IpAddr) -> io::Result<Neighbours> {
        let (index, mac) = (interface.index, interface.mac.unwrap_or_default());
        let socket = match address {
            IpAddr::V4(_) => {
                let arp = Protocol::from(i32::from(ETH_P_ARP.to_be()));
                let socket = Socket::new(Domain::PACKET, Type::DGRAM, Some(arp))?;
                socket.bind(&link_address(index, [0xff; 6]))?;
                socket
            }
            IpAddr::V6(_) => {
                let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
                socket.bind_device(Some(interface.name.as_bytes()))?;
                // Other hops mean that it came through a router: RFC 4861 section 7.1.
                socket.set_multicast_hops_v6(255)?;
                socket.set_unicast_hops_v6(255)?;
                socket.set_multicast_loop_v6(false)?;
                socket
            }
        };
        Ok(Neighbours { socket, index, mac, address })
    }

    /// Asks who has the address, without claiming it.
    pub fn probe(&self) -> io::Result<()> {
        match self.address {
            IpAddr::V4(v4) => self.arp(ARP_REQUEST, Ipv4Addr::UNSPECIFIED, v4),
            IpAddr::V6(v6) => {
                let o = v6.octets();
                let group = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, o[13], o[14], o[15]];
                self.icmp(NEIGHBOUR_SOLICIT, 0, v6, 1, Ipv6Addr::from(group))
            }
        }
    }

    /// Tells everybody that we have it: both forms of ARP announcement, as hosts differ in which
    /// they heed; or an unsolicited advertisement that overrides.
    pub fn announce(&self) -> io::Result<()> {
        match self.address {
            IpAddr::V4(v4) => {
                self.arp(ARP_REQUEST, v4, v4)?;
                self.arp(ARP_REPLY, v4, v4)
            }
            IpAddr::V6(v6) => self.icmp(NEIGHBOUR_ADVERT, 0x20, v6, 2, ALL_NODES),
        }
    }

    /// Blocks until somebody else shows that it has the address; who.
    pub fn foreign(&self) -> io::Result<Mac> {
        loop {
            if let Some(mac) = self.hear()? {
                return Ok(mac);
            }
        }
    }

    /// Who shows within that time that it has the address. What is in the socket when the time is
    /// over counts, however late this thread comes to look.
    pub fn foreign_within(&self, time: Duration) -> io::Result<Option<Mac>> {
        let end = clock::now() + time;
        let mut late = 0;
        let found = loop {
            let left = end.since(clock::now());
            late += u32::from(left.is_zero());
            self.socket.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
            match self.hear() {
                Ok(None) if late < SOCKET_MOST => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock && late == 0 => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break None,
                found => break found?,
            }
        };
        self.socket.set_read_timeout(None)?;
        Ok(found)
    }

    /// One frame: of somebody else who has the address?
    fn hear(&self) -> io::Result<Option<Mac>> {
        let mut buffer = [MaybeUninit::<u8>::uninit(); 1500];
        let len = match self.socket.recv(&mut buffer) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => return Ok(None),
            // The interface went down; it may come back.
            Err(e) if e.raw_os_error() == Some(libc::ENETDOWN) => {
                std::thread::park_timeout(Duration::from_millis(200));
                return Ok(None);
            }
            other => other?,
        };
        // SAFETY: recv has initialised the first `len` bytes.
        let bytes: Vec<u8> = buffer[..len].iter().map(|b| unsafe { b.assume_init() }).collect();
        let mac = match self.address {
            IpAddr::V4(v4) => arp_sender(&bytes).filter(|(_, ip)| *ip == v4).map(|(m, _)| m),
            IpAddr::V6(v6) => advertised(&bytes).filter(|(ip, _)| *ip == v6).map(|(_, m)| m),
        };
        Ok(mac.filter(|m| *m != self.mac))
    }

    fn arp(&self, kind: u16, sender: Ipv4Addr, target: Ipv4Addr) -> io::Result<()> {
        let mut packet = vec![0, 1, 8, 0, 6, 4];
        packet.extend_from_slice(&kind.to_be_bytes());
        packet.extend_from_slice(&self.mac);
        packet.extend_from_slice(&sender.octets());
        packet.extend_from_slice(&[0; 6]);
        packet.extend_from_slice(&target.octets());
        self.socket.send_to(&packet, &link_address(self.index, [0xff; 6])).map(drop)
    }

    fn icmp(
        &self,
        kind: u8,
        flags: u8,
        target: Ipv6Addr,
        option: u8,
        to: Ipv6Addr,
    ) -> io::Result<()> {
        let mut packet = vec![kind, 0, 0, 0, flags, 0, 0, 0];
        packet.extend_from_slice(&target.octets());
        packet.extend_from_slice(&[option, 1]);
        packet.extend_from_slice(&self.mac);
        let to = SockAddr::from(SocketAddrV6::new(to, 0, 0, self.index));
        self.socket.send_to(&packet, &to).map(drop)
    }
}

/// Sender of an ARP packet for Ethernet and IPv4; a probe (sender 0.0.0.0) names nobody.
fn arp_sender(bytes: &[u8]) -> Option<(Mac, Ipv4Addr)> {
    if bytes.get(..6)? != [0, 1, 8, 0, 6, 4] {
        return None;
    }
    let mac: Mac = bytes.get(8..14)?.try_into().ok()?;
    let ip: [u8; 4] = bytes.get(14..18)?.try_into().ok()?;
    Some((mac, Ipv4Addr::from(ip)))
}

/// Target of a neighbour advertisement and its link-layer address, where it gives one.
fn advertised(bytes: &[u8]) -> Option<(Ipv6Addr, Mac)> {
    if *bytes.first()? != NEIGHBOUR_ADVERT {
        return None;
    }
    let target: [u8; 16] = bytes.get(8..24)?.try_into().ok()?;
    let mac = match bytes.get(24..32) {
        Some([2, 1, mac @ ..]) => mac.try_into().ok()?,
        _ => [0xff; 6],
    };
    Some((Ipv6Addr::from(target), mac))
}

pub fn show(mac: Mac) -> String {
    mac.map(|b| format!("{b:02x}")).join(":")
}

/// A packet(7) address: this interface, ARP, that Ethernet address.
fn link_address(index: u32, mac: Mac) -> SockAddr {
    // SAFETY: sockaddr_ll is plain data and fits sockaddr_storage; the length is its own.
    let (_, address) = unsafe {
        SockAddr::try_init(|storage, len| {
            let link = storage.cast::<libc::sockaddr_ll>();
            (*link).sll_family = libc::AF_PACKET as u16;
            (*link).sll_protocol = ETH_P_ARP.to_be();
            (*link).sll_ifindex = index as i32;
            (*link).sll_halen = 6;
            (&mut (*link).sll_addr)[..6].copy_from_slice(&mac);
            *len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            Ok(())
        })
    }
    .expect("the closure does not fail");
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn no_packet_panics(bytes: Vec<u8>) {
            let _ = (arp_sender(&bytes), advertised(&bytes));
        }
    }

    #[test]
    fn the_sender_of_an_arp_packet_is_found() {
        let packet =
            [0, 1, 8, 0, 6, 4, 0, 2, 1, 2, 3, 4, 5, 6, 10, 0, 0, 9, 0, 0, 0, 0, 0, 0, 10, 0, 0, 1];
        assert_eq!(arp_sender(&packet), Some(([1, 2, 3, 4, 5, 6], Ipv4Addr::new(10, 0, 0, 9))));
        assert_eq!(arp_sender(&packet[..17]), None);
    }
}
