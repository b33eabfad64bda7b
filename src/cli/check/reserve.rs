//! Whether the disks whose reservation is a member can be reserved from here.

use super::Findings;
use crate::cli::reserve;
use crate::config::settings::Settings;
use crate::config::target::Target;
use crate::io::scsi::device;
use crate::io::scsi::key::Keys;

pub fn look(settings: &Settings, targets: &[Target], findings: &mut Findings) {
    let keys = Keys::of(settings);
    let units = targets.iter().flat_map(|t| t.hard.iter().chain(&t.soft));
    for (unit, path) in units.filter_map(|unit| Some((unit, device::of_unit(unit)?))) {
        if !reserve::has_program() {
            findings.error(format!("{unit}: sg_persist is not here: apt install sg3-utils"));
            continue;
        }
        match reserve::check(&path, &keys) {
            Ok(words) => findings.note(format!("{}: {words}", path.display())),
            Err(words) => findings.error(format!("{unit}: {}: {words}", path.display())),
        }
    }
}
