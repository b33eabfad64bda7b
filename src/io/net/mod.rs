//! Addresses, interfaces and carrier, straight from and to the kernel. Knows nothing of groups.

pub mod cable;
pub mod carrier;
pub mod instance;
pub mod neighbour;
pub mod netlink;
