//! Text to settings. Three stages, each a file: the TOML as written (`file`), checked settings
//! (`settings`), and the groups found in systemd's unit directories (`target`).

pub mod keys;
pub mod settings;
