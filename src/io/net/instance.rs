//! What the name of a `hafailover-ip@` unit says: `ADDRESS-PREFIX` or `ADDRESS-PREFIX-INTERFACE`,
//! as systemd-escape(1) writes `ADDRESS/PREFIX/INTERFACE`.

use super::netlink::{self, Held};
use std::net::IpAddr;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    pub address: IpAddr,
    pub prefix: u8,
    pub interface: Option<String>,
}

/// Reads an instance name. The error says how it is written.
pub fn parse(name: &str) -> Result<Instance, String> {
    let advice = "write ADDRESS-PREFIX or ADDRESS-PREFIX-INTERFACE, for example \
                  192.168.0.100-24 or fd00::5-64-eth0";
    let mut parts = name.splitn(3, ['-', '/']);
    let address = parts.next().and_then(|a| a.parse::<IpAddr>().ok());
    let address = address.ok_or_else(|| format!("{name}: no address in it: {advice}"))?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let prefix = parts.next().and_then(|p| p.parse::<u8>().ok()).filter(|p| (1..=most).contains(p));
    let prefix =
        prefix.ok_or_else(|| format!("{name}: no prefix length from 1 to {most}: {advice}"))?;
    let interface = parts.next().map(unescape).filter(|i| !i.is_empty());
    Ok(Instance { address, prefix, interface })
}

/// The instance in a unit's name.
pub fn of_unit(unit: &str) -> Option<Instance> {
    parse(unit.strip_prefix("hafailover-ip@")?.strip_suffix(".service")?).ok()
}

impl Instance {
    /// The interface named, or the one that has an address in the same network.
    pub fn interface(&self) -> Result<String, String> {
        if let Some(name) = &self.interface {
            return Ok(name.clone());
        }
        let all = netlink::addresses().map_err(|e| format!("netlink: {e}"))?;
        self.choose(&all)
    }

    fn choose(&self, all: &[Held]) -> Result<String, String> {
        let near = all.iter().filter(|h| {
            h.address != self.address && same_net(h.address, self.address, self.prefix)
        });
        let mut names: Vec<&str> = near.map(|h| h.interface.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        match names[..] {
            [one] => Ok(one.to_string()),
            [] => Err(format!(
                "no interface has an address in the network of {}/{}: name one: \
                 hafailover-ip@{0}-{1}-eth0.service",
                self.address, self.prefix
            )),
            _ => Err(format!(
                "{} have addresses in the network of {}/{}: name the right one: \
                 hafailover-ip@{1}-{2}-{3}.service",
                names.join(", "),
                self.address,
                self.prefix,
                names[0]
            )),
        }
    }
}

fn same_net(a: IpAddr, b: IpAddr, prefix: u8) -> bool {
    match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            let shift = 32 - u32::from(prefix.min(32));
            (u32::from(a) ^ u32::from(b)).checked_shr(shift).unwrap_or(0) == 0
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            let shift = 128 - u32::from(prefix.min(128));
            (u128::from(a) ^ u128::from(b)).checked_shr(shift).unwrap_or(0) == 0
        }
        _ => false,
    }
}

/// `\x2d` and the like (systemd-escape(1)).
fn unescape(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("\\x") {
        out.push_str(&rest[..at]);
        let byte = rest.get(at + 2..at + 4).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match byte {
            Some(byte) => out.push(char::from(byte)),
            None => out.push_str(&rest[at..rest.len().min(at + 2)]),
        }
        rest = rest.get(at + if byte.is_some() { 4 } else { 2 }..).unwrap_or_default();
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read_and_every_mistake_says_how() {
        let v4 = parse("192.168.0.100-24").expect("good");
        assert_eq!((v4.prefix, v4.interface.clone()), (24, None));
        assert_eq!(parse("192.168.0.100/24/eth0").expect("good").interface, Some("eth0".into()));
        let six = parse("fd00::5-64-br\\x2dlan").expect("good");
        assert_eq!((six.prefix, six.interface), (64, Some("br-lan".into())));
        for bad in ["", "eth0", "192.168.0.100", "192.168.0.100-33", "1.2.3-24", "fd00::5-0"] {
            assert!(parse(bad).expect_err(bad).contains("for example"));
        }
        let held = |i: &str, a: &str| Held {
            interface: i.into(),
            index: 1,
            address: a.parse().expect("an address"),
            prefix: 24,
        };
        let all = [held("eth0", "192.168.0.1"), held("eth1", "10.0.0.1")];
        assert_eq!(v4.choose(&all), Ok("eth0".into()));
        assert!(v4.choose(&all[1..]).expect_err("none").contains("name one"));
        let two = [held("eth0", "192.168.0.1"), held("eth2", "192.168.0.2")];
        assert!(v4.choose(&two).expect_err("two").contains("eth0, eth2"));
    }
}
