//! The end of this machine's life, by the daemon or its guard, for a stop that others count on and
//! that did not come about.

use rustix::system::{RebootCommand, reboot};

/// Resets the machine at once, as reboot(2) does without sync: a disk that hangs would hold up
/// anything gentler. Returns only where that failed, with why.
pub fn now() -> String {
    match reboot(RebootCommand::Restart) {
        Ok(()) => "the reset had no effect".into(),
        Err(error) => format!("the reset failed: {error}"),
    }
}
