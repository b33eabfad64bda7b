//! Addresses by rtnetlink(7): list, add, remove, and wait for a change. Blocking; for small
//! programs and threads of their own.

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_EXCL, NLM_F_REQUEST,
    NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage,
};
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use std::io;
use std::net::{IpAddr, Ipv4Addr};

/// Multicast groups of rtnetlink(7): links, IPv4 and IPv6 addresses.
const CHANGES: u32 = 0x1 | 0x10 | 0x100;

/// So often a list is asked for that is of no one moment.
const DUMPS: usize = 16;

/// An address that an interface has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    pub interface: String,
    pub index: u32,
    pub address: IpAddr,
    pub prefix: u8,
}

pub fn addresses() -> io::Result<Vec<Held>> {
    let ask = RouteNetlinkMessage::GetAddress(AddressMessage::default());
    let names = interfaces()?;
    let name_of = |index| names.iter().find(|i| i.index == index).map(|i| i.name.clone());
    let mut all = Vec::new();
    for answer in request(ask, NLM_F_DUMP)? {
        let RouteNetlinkMessage::NewAddress(message) = answer else { continue };
        let index = message.header.index;
        let local = message.attributes.iter().find_map(|a| match a {
            AddressAttribute::Local(address) => Some(*address),
            _ => None,
        });
        let any = message.attributes.iter().find_map(|a| match a {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        });
        let Some(address) = local.or(any) else { continue };
        let interface = name_of(index).unwrap_or_default();
        all.push(Held { interface, index, address, prefix: message.header.prefix_len });
    }
    Ok(all)
}

/// Adds an address; one that is there already is no error. IPv6 without duplicate detection by the
/// kernel: it was probed for before, and a tentative address serves nobody.
pub fn add(index: u32, address: IpAddr, prefix: u8) -> io::Result<()> {
    let mut message = message(index, address, prefix);
    match address {
        IpAddr::V4(v4) => {
            let host = u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
            let broadcast = Ipv4Addr::from(u32::from(v4) | host);
            if prefix < 31 {
                message.attributes.push(AddressAttribute::Broadcast(broadcast));
            }
        }
        IpAddr::V6(_) => {
            message.header.flags = AddressHeaderFlags::Nodad;
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
    }
    let flags = NLM_F_CREATE | NLM_F_EXCL | NLM_F_ACK;
    match request(RouteNetlinkMessage::NewAddress(message), flags) {
        Err(e) if e.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        other => other.map(drop),
    }
}

/// Removes an address; one that is not there is no error.
pub fn remove(index: u32, address: IpAddr, prefix: u8) -> io::Result<()> {
    let message = message(index, address, prefix);
    match request(RouteNetlinkMessage::DelAddress(message), NLM_F_ACK) {
        Err(e) if matches!(e.raw_os_error(), Some(libc::EADDRNOTAVAIL | libc::ENODEV)) => Ok(()),
        other => other.map(drop),
    }
}

fn message(index: u32, address: IpAddr, prefix: u8) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family =
        if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    message.header.prefix_len = prefix;
    message.header.index = index;
    message.attributes.push(AddressAttribute::Local(address));
    message.attributes.push(AddressAttribute::Address(address));
    message
}

/// Asks until the answer is of one moment: a list during which something changed may lack what was
/// there all the time.
fn request(ask: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<RouteNetlinkMessage>> {
    for _ in 0..DUMPS {
        if let Some(answers) = request_once(ask.clone(), flags)? {
            return Ok(answers);
        }
    }
    Err(io::Error::other("interfaces and addresses change faster than they can be listed"))
}

/// `None`: the list is not of one moment.
fn request_once(
    ask: RouteNetlinkMessage,
    flags: u16,
) -> io::Result<Option<Vec<RouteNetlinkMessage>>> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    let mut packet = NetlinkMessage::from(ask);
    packet.header.flags = NLM_F_REQUEST | flags;
    packet.header.sequence_number = 1;
    packet.finalize();
    let mut bytes = vec![0; packet.buffer_len()];
    packet.serialize(&mut bytes);
    socket.send_to(&bytes, &SocketAddr::new(0, 0), 0)?;
    let (mut answers, mut torn) = (Vec::new(), false);
    loop {
        let (bytes, _) = socket.recv_from_full()?;
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                .map_err(|e| io::Error::other(e.to_string()))?;
            let length = (answer.header.length as usize).max(16).next_multiple_of(4);
            rest = rest.get(length..).unwrap_or_default();
            torn |= answer.header.flags & NLM_F_DUMP_INTR != 0;
            match answer.payload {
                NetlinkPayload::Done(_) => return Ok((!torn).then_some(answers)),
                NetlinkPayload::Error(e) => match e.code {
                    None => return Ok(Some(answers)),
                    Some(code) => return Err(io::Error::from_raw_os_error(-code.get())),
                },
                NetlinkPayload::InnerMessage(message) => answers.push(message),
                _ => {}
            }
        }
    }
}

/// Tells when a link or an address changed; not what: whoever asks reads it anew.
pub struct Changes(Socket);

impl Changes {
    pub fn open() -> io::Result<Changes> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind(&SocketAddr::new(0, CHANGES))?;
        Ok(Changes(socket))
    }

    /// Blocks until something changed. Lost messages (ENOBUFS) are a change too.
    pub fn wait(&self) -> io::Result<()> {
        match self.0.recv_from_full() {
            Ok(_) => Ok(()),
            Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(e) => Err(e),
        }
    }
}

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    pub name: String,
    pub index: u32,
    pub mac: Option<[u8; 6]>,
    /// IFF_LOWER_UP of netdevice(7): it is up and the cable is in.
    pub carrier: bool,
    /// The bridge or bond of which it is a port.
    pub master: Option<u32>,
    /// The interface over which it runs (a VLAN's, a macvlan's), in this namespace.
    pub lower: Option<u32>,
}

/// Of this network namespace; /sys may show another one's.
pub fn interfaces() -> io::Result<Vec<Interface>> {
    let ask = RouteNetlinkMessage::GetLink(LinkMessage::default());
    let mut all = Vec::new();
    for answer in request(ask, NLM_F_DUMP)? {
        let RouteNetlinkMessage::NewLink(message) = answer else { continue };
        let name = message.attributes.iter().find_map(|a| match a {
            LinkAttribute::IfName(name) => Some(name.clone()),
            _ => None,
        });
        let mac = message.attributes.iter().find_map(|a| match a {
            LinkAttribute::Address(bytes) => <[u8; 6]>::try_from(bytes.as_slice()).ok(),
            _ => None,
        });
        let Some(name) = name else { continue };
        let carrier = message.header.flags.contains(LinkFlags::LowerUp);
        let master = message.attributes.iter().find_map(|a| match a {
            LinkAttribute::Controller(index) => Some(*index),
            _ => None,
        });
        let lower = lower(&message);
        all.push(Interface { name, index: message.header.index, mac, carrier, master, lower });
    }
    Ok(all)
}

/// IFLA_LINK, but for a veth, of which it is the other end, and where it counts in another
/// namespace.
fn lower(message: &LinkMessage) -> Option<u32> {
    let veth = |i: &LinkInfo| matches!(i, LinkInfo::Kind(InfoKind::Veth));
    let elsewhere = |a: &LinkAttribute| match a {
        LinkAttribute::LinkNetNsId(_) => true,
        LinkAttribute::LinkInfo(infos) => infos.iter().any(veth),
        _ => false,
    };
    let of = message.attributes.iter().find_map(|a| match a {
        LinkAttribute::Link(index) => Some(*index),
        _ => None,
    });
    of.filter(|_| !message.attributes.iter().any(elsewhere))
}

/// One interface by name.
pub fn interface(name: &str) -> Option<Interface> {
    interfaces().ok()?.into_iter().find(|i| i.name == name)
}
