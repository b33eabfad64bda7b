//! `[[fence]]`: what is refused, and what comes of a good one.

use super::GOOD;
use hafailover::config::fence::instance;
use hafailover::config::load::parse;
use hafailover::config::settings::FenceHow;
use hafailover::core::policy::{FenceKind, OnSilence};

const IPMI: &str = "[[fence]]\nnode = \"n1\"\nkind = \"power\"\nagent = \"fence_ipmilan\"\n";

fn refused(more: &str) -> String {
    parse(&format!("{GOOD}{more}"), "h.toml", "n1").expect_err(more).to_string()
}

#[test]
fn every_wrong_fence_says_where_and_what() {
    let agent = |more: &str| format!("{IPMI}{more}\n");
    let bare = |more: &str| format!("[[fence]]\nnode = \"n1\"\nkind = \"power\"\n{more}\n");
    // The line within the table, and a word of the advice.
    let cases: Vec<(String, usize, &str)> = vec![
        ("[[fence]]\nnode = \"n9\"\nkind = \"power\"\nagent = \"x\"\n".into(), 2, "no [[node]]"),
        ("[[fence]]\nnode = \"n1\"\nagent = \"x\"\n".into(), 1, "storage"),
        (bare(""), 1, "fence-agents"),
        (bare("agent = \"a\"\nunit = \"b@.service\""), 5, "write one of them"),
        (bare("agent = \"../evil\""), 4, "/usr/sbin"),
        (bare("unit = \"b.service\""), 4, "NAME@.service"),
        (bare("unit = \"b@.service\"\noptions = { ip = \"x\" }"), 5, "go with agent"),
        (bare("unit = \"b@.service\"\nafter = \"on\""), 4, "goes with agent"),
        (bare("unit = \"b@.service\"\nconfirm = \"status\""), 4, "needs check-unit"),
        (format!("{}after = \"on\"\n", IPMI.replace("power", "storage")), 5, "may still write"),
        (agent("options = { password = \"geheim\" }"), 5, "secrets = "),
        (agent("options = { action = \"reboot\" }"), 5, "set by hafailover"),
        (agent("options = { ip = [1, 2] }"), 5, "a text, a number"),
        (agent("options = { ip = \"a\\nb\" }"), 5, "one line"),
        (agent("secrets = \"here\""), 5, "from / on"),
        (agent("timeout = \"1h\""), 5, "at most 600s"),
        (agent("timeout = 60"), 5, "string"),
        (agent("attempts = 0"), 5, "1 to 20"),
        (agent("drill = \"1s\""), 5, "at least 10s"),
        (agent("on-failure = \"panic\""), 5, "silence"),
        (agent("check-unit = \"c@.service\""), 5, "goes with unit"),
        (agent("stonith = true"), 5, "stonith"),
        (format!("{IPMI}{IPMI}"), 6, "keep one"),
    ];
    let lines = GOOD.lines().count();
    for (more, line, word) in cases {
        let said = refused(&more);
        let place = format!("h.toml:{}:", lines + line);
        assert!(said.starts_with(&place) && said.contains(word), "{more}\n{said}");
        assert!(said.ends_with('^'), "{said}");
    }
    let told = refused(&format!("{IPMI}options = {{ community = \"x\" }}\n"));
    assert!(told.contains("community is a secret"), "{told}");
}

#[test]
fn a_fence_has_the_documented_defaults() {
    let more = "options = { ip = \"10.0.9.1\", lanplus = true, port = 623 }\n";
    let settings = parse(&format!("{GOOD}{IPMI}{more}"), "h.toml", "n2").expect("good");
    let fence = &settings.fences[0];
    assert_eq!(settings.fence_delay.as_secs(), 5);
    assert_eq!((fence.node.0, fence.policy.attempts), (0, 3));
    assert_eq!((fence.policy.timeout.as_secs(), fence.policy.kind), (60, FenceKind::Power));
    assert_eq!(fence.policy.failed, OnSilence::Hold);
    assert_eq!(fence.policy.drill.map(|d| d.as_secs()), Some(86_400));
    let FenceHow::Agent { agent, options, confirm, on_again, .. } = &fence.how else {
        panic!("{fence:?}")
    };
    assert_eq!(agent.to_str(), Some("/usr/sbin/fence_ipmilan"));
    assert_eq!(options["lanplus"], "1");
    assert_eq!(options["port"], "623");
    assert!(*confirm && !on_again);
    assert!(!settings.all_fenced(), "n2 has none");
    let plain = parse(GOOD, "h.toml", "n2").expect("good");
    assert_ne!(plain.fingerprint, settings.fingerprint, "the nodes must agree on it");
    let unit = "unit = \"my@.service\"\n";
    let unit = format!("{GOOD}[[fence]]\nnode = \"n1\"\nkind = \"storage\"\n{unit}");
    let unit = parse(&unit, "h.toml", "n2").expect("good");
    assert_eq!(unit.fences[0].policy.drill, None, "nobody can try it");
    assert_eq!(instance("my@.service", "srv-1"), "my@srv\\x2d1.service");
}
