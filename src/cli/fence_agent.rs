//! `hafailover fence-agent`: runs the agent of a node for hafailover-fence@.service and
//! hafailover-fence-check@.service.

use crate::config;
use crate::config::settings::Fence;
use crate::daemon::setup;
use crate::io::fence::{self, Agent, Failure};
use std::path::Path;
use std::process::ExitCode;

/// Run the fence agent of a node (for hafailover-fence@.service).
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The node to be off.
    node: String,
    /// Ask for its state, and change nothing.
    #[arg(long)]
    check: bool,
}

pub fn run(args: Args) -> ExitCode {
    let fail = |failure: Failure| ExitCode::from(failure as u8);
    let fence = match configured(&args.node) {
        Ok(fence) => fence,
        Err(words) => {
            super::tell(words);
            return fail(Failure::NotConfigured);
        }
    };
    let agent = Agent::new(&fence.how, fence.policy.timeout);
    let result = match args.check {
        true => agent.and_then(|a| a.is_on()).map(|on| if on { 0 } else { fence::IS_OFF }),
        false => fence::may_begin(&args.node).and(agent).and_then(|a| a.off()).map(|()| 0),
    };
    result.map_or_else(fail, ExitCode::from)
}

fn configured(node: &str) -> Result<Fence, String> {
    let file = Path::new(setup::CONFIG);
    let settings = config::load(file, &setup::hostname()).map_err(|e| e.to_string())?;
    let id = settings.nodes.iter().find(|n| n.name == node).map(|n| n.id);
    let fence = id.and_then(|id| settings.fence(id)).cloned();
    fence.ok_or_else(|| format!("{}: there is no [[fence]] for {node}", file.display()))
}
