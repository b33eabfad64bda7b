//! `[arbiter.witness]`: where `hafailover witness` answers.

use serde::Deserialize;
use std::net::{IpAddr, SocketAddr};

/// Where a witness listens if nothing else is said.
pub const PORT: u16 = 5694;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    pub address: IpAddr,
    pub port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub address: SocketAddr,
}

impl Table {
    pub fn check(&self) -> Result<Settings, String> {
        let port = self.port.unwrap_or(PORT);
        if port == 0 || self.address.is_unspecified() || self.address.is_multicast() {
            return Err(
                "address must be the witness's own address, and port from 1 to 65535".into()
            );
        }
        Ok(Settings { address: SocketAddr::new(self.address, port) })
    }
}
