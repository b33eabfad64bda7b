//! The order of a group's members, as a graph: layers, cycles, and how long a stop may take.

use std::time::Duration;

/// A member as far as order goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    pub name: String,
    /// `After=`, of whatever origin; other names than the members' are passed over.
    pub after: Vec<String>,
    /// TimeoutStopSec=; `None`: no limit.
    pub stop: Option<Duration>,
    /// ExecStop= has that time once, and what is left of the processes once more.
    pub twice: bool,
}

impl Part {
    fn longest(&self) -> Option<Duration> {
        self.stop.map(|stop| if self.twice { stop * 2 } else { stop })
    }
}

/// Members by their `After=` among each other, the topmost first: each layer is stopped, and
/// verified, before the next. Units in a cycle form one last layer.
pub fn layers<T>(
    units: &[T],
    name: impl Fn(&T) -> &str,
    after: impl Fn(&T) -> &[String],
) -> Vec<Vec<String>> {
    let mut left: Vec<&T> = units.iter().collect();
    let mut layers = Vec::new();
    while !left.is_empty() {
        let needs = |o: &T, u: &T| name(o) != name(u) && after(o).iter().any(|a| a == name(u));
        let needed = |u: &&T| left.iter().any(|o| needs(o, u));
        let top: Vec<String> =
            left.iter().filter(|u| !needed(u)).map(|u| name(u).to_string()).collect();
        let layer = match top.is_empty() {
            true => left.iter().map(|u| name(u).to_string()).collect(),
            false => top,
        };
        left.retain(|u| !layer.iter().any(|l| l == name(u)));
        layers.push(layer);
    }
    layers
}

/// A cycle, each member after the one behind it in the list, the first one once more at the end.
pub fn cycle(parts: &[Part]) -> Option<Vec<String>> {
    let mut left: Vec<&Part> = parts.iter().collect();
    // Who needs nothing that is left is in no cycle.
    loop {
        let names: Vec<String> = left.iter().map(|p| p.name.clone()).collect();
        let needs = |p: &&Part| p.after.iter().any(|a| *a != p.name && names.contains(a));
        let before = left.len();
        left.retain(needs);
        if left.len() == before {
            break;
        }
    }
    let mut way = vec![left.first()?.name.clone()];
    loop {
        let here = left.iter().find(|p| Some(&p.name) == way.last())?;
        let next =
            here.after.iter().find(|a| **a != here.name && left.iter().any(|p| p.name == **a))?;
        if let Some(at) = way.iter().position(|w| w == next) {
            let mut cycle = way.split_off(at);
            cycle.push(next.clone());
            return Some(cycle);
        }
        way.push(next.clone());
    }
}

/// Whether `name` starts only after `other` is up, directly or through other members.
pub fn is_after(parts: &[Part], name: &str, other: &str) -> bool {
    let (mut open, mut seen) = (vec![name], Vec::new());
    while let Some(here) = open.pop() {
        let Some(part) = parts.iter().find(|p| p.name == here) else { continue };
        if part.after.iter().any(|a| a == other) {
            return true;
        }
        if !seen.contains(&here) {
            seen.push(here);
            open.extend(part.after.iter().map(String::as_str));
        }
    }
    false
}

/// The longest a verified stop may take, and how that adds up, from the top layer down; `None`:
/// some member has no limit, the first such one is named.
pub fn stop_time(parts: &[Part]) -> (Option<Duration>, String) {
    let mut sum = Duration::ZERO;
    let mut words = Vec::new();
    for layer in layers(parts, |p| &p.name, |p| &p.after) {
        let mine = parts.iter().filter(|p| layer.contains(&p.name));
        if let Some(endless) = mine.clone().find(|p| p.stop.is_none()) {
            return (None, endless.name.clone());
        }
        let Some(slowest) = mine.max_by_key(|p| p.longest()) else { continue };
        sum += slowest.longest().unwrap_or_default();
        let time = super::load::show(slowest.stop.unwrap_or_default());
        let times = if slowest.twice { "2 x " } else { "" };
        words.push(format!("{} {times}{time}", slowest.name));
    }
    (Some(sum), words.join(" + "))
}

/// A time span as systemd.time(7) has it: `90`, `1min 30s`; `None`: `infinity`, or none at all.
pub fn span(text: &str) -> Option<Duration> {
    let mut sum = Duration::ZERO;
    let mut rest = text.trim();
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number: f64 = rest[..digits].parse().ok()?;
        rest = rest[digits..].trim_start();
        let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        let unit = match &rest[..letters] {
            "us" | "usec" => 1e-6,
            "ms" | "msec" => 1e-3,
            "" | "s" | "sec" | "second" | "seconds" => 1.0,
            "m" | "min" | "minute" | "minutes" => 60.0,
            "h" | "hr" | "hour" | "hours" => 3600.0,
            "d" | "day" | "days" => 86_400.0,
            _ => return None,
        };
        sum += Duration::try_from_secs_f64(number * unit).ok()?;
        rest = rest[letters..].trim_start();
    }
    // TimeoutStopSec=0 is infinity as well, as systemd.service(5) has it.
    (!sum.is_zero()).then_some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn part(name: &str, after: &[&str], stop: u64) -> Part {
        let after = after.iter().map(|a| a.to_string()).collect();
        Part { name: name.into(), after, stop: Some(Duration::from_secs(stop)), twice: false }
    }

    #[test]
    fn layers_add_up_and_a_cycle_is_named() {
        let mut parts = vec![
            part("ip", &["network.target"], 10),
            part("disk", &["ip"], 20),
            part("a", &["disk"], 90),
            part("b", &["disk", "a.slice"], 60),
        ];
        let (sum, words) = stop_time(&parts);
        assert_eq!(sum, Some(Duration::from_secs(120)));
        assert_eq!(words, "a 90s + disk 20s + ip 10s");
        assert!(is_after(&parts, "b", "ip") && !is_after(&parts, "b", "a"));
        assert_eq!(cycle(&parts), None);
        parts[0].after.push("b".into());
        assert_eq!(cycle(&parts).expect("one").len(), 4);
        parts[0].after.pop();
        parts[1].twice = true;
        assert_eq!(stop_time(&parts).1, "a 90s + disk 2 x 20s + ip 10s");
        parts[2].stop = None;
        assert_eq!(stop_time(&parts), (None, "a".to_string()));
    }

    fn parts() -> impl Strategy<Value = Vec<Part>> {
        let after = proptest::collection::vec(proptest::collection::vec(0usize..9, 0..4), 1..8);
        let name = |n: &usize| format!("m{n}");
        let part = move |(n, after): (usize, &Vec<usize>)| Part {
            name: name(&n),
            after: after.iter().map(name).collect(),
            stop: Some(Duration::from_secs(n as u64 + 1)),
            twice: n % 3 == 0,
        };
        after.prop_map(move |after| after.iter().enumerate().map(part).collect())
    }

    proptest! {
        /// Goal: each member is in one layer; who comes after another is stopped before it, unless
        /// the two are in a cycle, and a cycle is named where there is one and is one.
        #[test]
        fn layers_keep_the_order(parts in parts()) {
            let layers = layers(&parts, |p| &p.name, |p| &p.after);
            let mut all = layers.concat();
            all.sort();
            prop_assert_eq!(all, parts.iter().map(|p| p.name.clone()).collect::<Vec<_>>());
            let place = |name: &str| layers.iter().position(|l| l.iter().any(|m| m == name));
            let mut circles = false;
            for (a, b) in parts.iter().flat_map(|a| parts.iter().map(move |b| (a, b))) {
                let (a, b) = (&a.name, &b.name);
                let circle = a != b && is_after(&parts, a, b) && is_after(&parts, b, a);
                circles |= circle;
                if a != b && is_after(&parts, a, b) && !circle {
                    prop_assert!(place(a) < place(b) || place(a) == Some(layers.len() - 1));
                }
            }
            let cycle = cycle(&parts);
            prop_assert_eq!(cycle.is_some(), circles);
            for two in cycle.iter().flat_map(|c| c.windows(2)) {
                let part = parts.iter().find(|p| p.name == two[0]).expect("a member");
                prop_assert!(part.after.contains(&two[1]), "{:?}", cycle);
            }
        }

        /// Goal: the time of a stop is at least that of each member, and at most that of all.
        #[test]
        fn a_stop_takes_no_longer_than_one_by_one(parts in parts()) {
            let times: Vec<Duration> = parts.iter().filter_map(Part::longest).collect();
            let sum = stop_time(&parts).0.expect("all have a limit");
            prop_assert!(times.iter().all(|t| *t <= sum) && sum <= times.iter().sum::<Duration>());
        }
    }

    #[test]
    fn spans_are_read_as_systemd_does() {
        let s = |n| Some(Duration::from_secs(n));
        assert_eq!(
            [span("90"), span("1min 30s"), span("1m30"), span("2h")],
            [s(90), s(90), s(90), s(7200)]
        );
        assert_eq!([span("infinity"), span("0"), span("rubbish")], [None; 3]);
    }
}
