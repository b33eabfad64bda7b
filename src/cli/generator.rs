//! `hafailover generator`: the systemd generator.

use crate::config::generator;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Write the drop-ins of the groups (started by systemd).
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where ordinary generated units go.
    normal: PathBuf,
    /// Generated units that come before the administrator's (not used).
    #[arg(default_value = "")]
    _early: String,
    /// Generated units that come after all others (not used).
    #[arg(default_value = "")]
    _late: String,
}

pub fn run(args: Args) -> ExitCode {
    let errors = generator::generate(Path::new("/"), &args.normal);
    for error in &errors {
        // There may be no journal yet: /dev/kmsg is what systemd.generator(7) advises.
        let kmsg = std::fs::OpenOptions::new().write(true).open("/dev/kmsg");
        let line = format!("<4>hafailover-generator: {error}\n");
        let written = kmsg.and_then(|mut k| k.write_all(line.as_bytes()));
        if written.is_err() {
            eprint!("{line}");
        }
    }
    ExitCode::SUCCESS
}
