//! Text to settings. Three stages, each a file: the TOML as written (`file`), checked settings
//! (`settings`), and the groups found in systemd's unit directories (`target`).

pub mod accepted;
pub mod arbiter;
pub mod fence;
pub mod file;
pub mod generator;
pub mod identity;
pub mod keys;
pub mod link;
pub mod load;
pub mod order;
pub mod settings;
pub mod target;
pub mod unit;
pub mod witness;

pub use load::{ConfigError, load};
