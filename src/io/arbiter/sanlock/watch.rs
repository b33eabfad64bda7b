//! Looks at the table now and then while nothing is asked, so that it is known since when a block
//! stands there before anybody wants to claim.

use super::course::{Look, Memory};
use super::process::Speaker;
use super::table::Seen;
use crate::core::name::GroupName;
use crate::core::time::{Duration, Instant};
use crate::io::clock;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Stdio};

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);

#[derive(Default)]
pub struct Watch {
    now: Option<Speaker>,
    next: Instant,
}

impl Watch {
    /// Takes in what the last look saw, and begins another one. Does not wait; a look that waits
    /// for its device is the only one.
    pub fn tend(
        &mut self,
        program: &Path,
        device: &Path,
        groups: &mut BTreeMap<GroupName, Memory>,
    ) {
        if let Some(speaker) = &mut self.now {
            let said = match speaker.ended() {
                Ok(None) => return,
                Ok(Some(said)) => said,
                Err(_) => String::new(),
            };
            self.now = None;
            self.next = clock::now() + LOOK;
            // What went wrong is told by the next question.
            let Ok(seen) = serde_json::from_str::<Seen>(said.trim()) else { return };
            // Made anew since: of what has no block nothing need be known.
            let there: BTreeSet<&GroupName> = seen.groups.iter().map(|(group, _)| group).collect();
            groups.retain(|group, _| there.contains(group));
            for (group, cells) in seen.groups {
                let look = Look { begun: seen.begun, ended: seen.ended, cells };
                groups.entry(group).or_default().take(&look);
            }
        } else if clock::now() >= self.next {
            let mut command = Command::new(program);
            command.args(["disk", "watch"]).arg(device).stdin(Stdio::null());
            self.now = Speaker::start(command).ok();
        }
    }
}
