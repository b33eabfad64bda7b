//! What is written is what is meant: settings drawn at random, written as a person would, and read.

use crate::{GOOD, good};
use hafailover::config::load::{parse, show};
use hafailover::config::settings::GroupSettings;
use hafailover::config::target::{Target, settle};
use hafailover::config::unit::UnitText;
use hafailover::core::name::{GroupName, NodeId};
use hafailover::core::policy::Failback;
use proptest::prelude::*;
use std::path::Path;
use std::time::Duration;

fn section(lines: &[String]) -> Result<GroupSettings, String> {
    let file = Path::new("files.target");
    let mut unit = UnitText::empty(file);
    let head = "[Unit]\nRequires=srv.mount smbd.service\n[X-Hafailover]\n";
    let wrong = unit.add(&format!("{head}{}\n", lines.join("\n")), file);
    wrong.into_iter().next().map_or(Ok(()), Err)?;
    settle(&Target::of(&GroupName("files".into()), &unit)?, &good())
}

fn times() -> impl Strategy<Value = [Duration; 4]> {
    let time = || (1u64..3_000_000).prop_map(Duration::from_millis);
    [time(), time(), time(), time()]
}

fn failbacks() -> impl Strategy<Value = Failback> {
    let after = |ms| Failback::After(Duration::from_millis(ms));
    prop_oneof![Just(Failback::No), Just(Failback::Yes), (1u64..90_000).prop_map(after)]
}

proptest! {
    /// Goal: a section says what it was written for, in any order of its lines.
    #[test]
    fn a_section_is_read_as_it_was_written(
        nodes in prop_oneof![Just("n1"), Just("n2"), Just("n1 n2"), Just("n2 n1")],
        failback in failbacks(),
        (retries, listed) in (0u32..=32, any::<bool>()),
        [window, quarantine, stop, start] in times(),
        turn in 0usize..8,
    ) {
        let word = match failback {
            Failback::No => "no".into(),
            Failback::Yes => "yes".into(),
            Failback::After(delay) => show(delay),
        };
        let mut lines = vec![
            format!("Nodes={nodes}"),
            format!("Failback={word}"),
            format!("Order={}", if listed { "listed" } else { "units" }),
            format!("Retries={retries}"),
            format!("RetryWindow={}", show(window)),
            format!("Quarantine={}", show(quarantine)),
            format!("StopBudget={}", show(stop)),
            format!("StartBudget={}", show(start)),
        ];
        lines.rotate_left(turn);
        let group = section(&lines).expect("every line is good");
        let ids = nodes.split(' ').map(|n| NodeId(u8::from(n == "n2"))).collect::<Vec<_>>();
        let p = &group.policy;
        prop_assert_eq!((&p.nodes, p.failback, p.retries), (&ids, failback, retries));
        prop_assert_eq!((p.retry_window, p.quarantine), (window, quarantine));
        prop_assert_eq!((p.stop_budget, p.start_budget), (stop, start));
        prop_assert_eq!(group.listed_order, listed);
        // What is taken back is as if it had not been written.
        let taken_back = lines.iter().map(|l| format!("{}=", l.split_once('=').expect("a key").0));
        let both: Vec<String> = lines.iter().cloned().chain(taken_back).collect();
        let (both, none) = (section(&both), section(&[]));
        prop_assert_eq!(both.expect("empty is good").policy, none.expect("good").policy);
    }

    /// Goal: the relations that the core counts on hold exactly for what is taken.
    #[test]
    fn only_times_in_their_order_are_taken(
        keepalive in 1u64..2000, warntime in 1u64..6000, deadtime in 1u64..9000, more in 0i64..4000,
    ) {
        let initdead = deadtime.saturating_add_signed(more - 1000);
        let text = format!(
            "{GOOD}[timing]\nkeepalive = \"{keepalive}ms\"\nwarntime = \"{warntime}ms\"\n\
             deadtime = \"{deadtime}ms\"\ninitdead = \"{initdead}ms\"\n"
        );
        let good = keepalive >= 10
            && keepalive < warntime
            && warntime < deadtime
            && deadtime > 2 * keepalive
            && deadtime <= initdead;
        match parse(&text, "h.toml", "n1") {
            Ok(settings) => {
                prop_assert!(good, "taken: {}", text);
                let ms = Duration::from_millis;
                let t = settings.timing;
                let read = (t.keepalive, t.warntime, t.deadtime, t.initdead);
                prop_assert_eq!(read, (ms(keepalive), ms(warntime), ms(deadtime), ms(initdead)));
            }
            Err(e) => prop_assert!(!good && e.0.starts_with("h.toml:"), "refused: {}", e.0),
        }
    }
}
