//! Whether a serial line carries the heartbeats of the groups that are enabled.

use super::Findings;
use crate::config::link::BAUDS;
use crate::config::load::show;
use crate::config::settings::Settings;
use crate::core::name::GroupName;
use crate::core::policy::Timing;
use crate::wire::line::line_time;
use crate::wire::size::longest_frame;
use std::time::Duration;

pub fn look(name: &str, baud: u32, of: &Settings, groups: &[GroupName], findings: &mut Findings) {
    let nodes: Vec<String> = of.nodes.iter().map(|n| n.name.clone()).collect();
    let bytes = longest_frame(&of.cluster, &nodes, groups);
    let timing = &of.timing;
    let (needs, answer) = (line_time(bytes, baud), answer_time(bytes, baud, timing));
    let ms = |d: Duration| d.as_millis();
    let what = format!(
        "{name}: a heartbeat of {bytes} bytes ({} groups) takes {} ms at {baud} baud",
        groups.len(),
        ms(needs)
    );
    if answer >= timing.deadtime {
        findings.error(format!(
            "{what}; it and its answer take up to {} ms = 2 x keepalive {} + 4 x {} ms, deadtime \
             is {}: with this line alone the other node would be taken for deaf or dead: {}",
            ms(answer),
            show(timing.keepalive),
            ms(needs),
            show(timing.deadtime),
            advice(bytes, baud, timing)
        ));
    } else if needs * 10 > timing.keepalive * 8 {
        findings.warn(format!(
            "{what}, keepalive is {}: heartbeats on this line come less often than on others; a \
             higher baud or a longer keepalive mends it",
            show(timing.keepalive)
        ));
    }
}

/// The longest from a stamp to its echo. Each way a heartbeat waits for its turn, once for the line
/// to be free, and is sent.
fn answer_time(bytes: usize, baud: u32, timing: &Timing) -> Duration {
    timing.keepalive * 2 + line_time(bytes, baud) * 4
}

fn advice(bytes: usize, baud: u32, timing: &Timing) -> String {
    let enough = |b: &&u32| **b > baud && answer_time(bytes, **b, timing) < timing.deadtime;
    let longer = (answer_time(bytes, baud, timing) + timing.keepalive).as_millis();
    let deadtime = format!("deadtime = \"{}ms\"", longer.next_multiple_of(100));
    match BAUDS.iter().find(enough) {
        Some(least) => format!("write baud = {least} or more, or {deadtime}"),
        None => format!("write {deadtime}"),
    }
}
