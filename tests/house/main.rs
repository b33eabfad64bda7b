//! The house rules as a test: layers, sizes, first paragraphs, and that catalog, manual and code
//! name the same things. Each rule is a function over a text, and is shown to fail on a bad one.

#[path = "../sharp/disks.rs"]
mod disks;
#[path = "../sharp/faults.rs"]
mod faults;
#[path = "../sharp/leases.rs"]
mod leases;
#[path = "../sharp/stops.rs"]
mod stops;

use hafailover::core::say::What;
use hafailover::io::journal::message_id;
use std::path::{Path, PathBuf};
use std::process::Command;

const FILE_MAX: usize = 500;
const FUNCTION_MAX: usize = 70;
const COLUMNS: usize = 100;
/// A module may use itself and what stands to its right.
const LAYERS: [&[&str]; 7] =
    [&["main"], &["cli"], &["daemon"], &["io"], &["config"], &["wire"], &["core"]];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources(dir: &str) -> Vec<(String, String)> {
    let mut dirs = vec![root().join(dir)];
    let mut files = Vec::new();
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir).expect("readable") {
            let path: PathBuf = entry.expect("readable").path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let name = path.strip_prefix(root()).expect("below").display().to_string();
                files.push((name, std::fs::read_to_string(&path).expect("readable")));
            }
        }
    }
    assert!(!files.is_empty(), "no sources in {dir}");
    files
}

fn everything() -> Vec<(String, String)> {
    [sources("src"), sources("tests")].concat()
}

fn check(rule: fn(&str, &str) -> Vec<String>, files: &[(String, String)], bad: (&str, &str)) {
    assert!(!rule(bad.0, bad.1).is_empty(), "the rule finds nothing in {bad:?}");
    let found: Vec<String> = files.iter().flat_map(|(name, text)| rule(name, text)).collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// Goal: known at once, and not when `sharp` has its turn.
#[test]
fn every_deliberate_fault_fits_the_source() {
    for fault in
        [faults::FAULTS, leases::FAULTS, stops::FAULTS, disks::FAULTS].into_iter().flatten()
    {
        let text = std::fs::read_to_string(root().join(fault.file)).expect("a source");
        let whole = fault.good.replace(['«', '»'], "");
        assert_eq!(text.matches(&whole).count(), 1, "{}: {whole}", fault.name);
        assert_ne!(fault.bad, whole, "{}: is no fault", fault.name);
    }
}

#[test]
fn layers_point_one_way() {
    check(layers, &sources("src"), ("src/core/x.rs", "use crate::io::clock;\n"));
    assert!(!layers("src/io/x.rs", "use crate::daemon::setup;\n").is_empty());
}

fn layers(name: &str, text: &str) -> Vec<String> {
    let part = name.trim_start_matches("src/").split(['/', '.']).next().unwrap_or_default();
    let Some(own) = LAYERS.iter().position(|l| l.contains(&part)) else { return Vec::new() };
    let mut found = Vec::new();
    for (n, line) in text.lines().enumerate().filter(|(_, l)| !l.trim_start().starts_with("//")) {
        for used in line.split("crate::").skip(1) {
            let used = used.split(|c: char| !c.is_alphanumeric() && c != '_').next();
            let at = LAYERS.iter().position(|l| l.contains(&used.unwrap_or_default()));
            if at.is_some_and(|at| at < own) {
                found.push(format!("{name}:{}: uses a layer above its own: {line}", n + 1));
            }
        }
    }
    found
}

#[test]
fn files_functions_and_lines_are_short() {
    let long = "fn f() {\n".to_string() + &"    a();\n".repeat(80) + "}\n";
    check(sizes, &everything(), ("x.rs", &long));
    assert!(!sizes("x.rs", &"\n".repeat(501)).is_empty());
    assert!(!sizes("x.rs", &"x".repeat(101)).is_empty());
}

fn sizes(name: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    if text.lines().count() > FILE_MAX {
        found.push(format!("{name}: {} lines", text.lines().count()));
    }
    let mut open: Option<(usize, usize)> = None;
    for (n, line) in text.lines().enumerate() {
        if line.chars().count() > COLUMNS && !line.contains("r#\"") {
            found.push(format!("{name}:{}: longer than {COLUMNS} columns", n + 1));
        }
        let indent = line.len() - line.trim_start().len();
        let is_fn = line.trim_start().starts_with("fn ") || line.contains(" fn ");
        if is_fn && !line.trim_start().starts_with("//") && !line.trim_end().ends_with([';', '}']) {
            open = Some((n, indent));
        }
        if let Some((start, at)) = open
            && line.trim_start().starts_with('}')
            && indent == at
        {
            if n - start >= FUNCTION_MAX {
                found.push(format!("{name}:{}: a function of {} lines", start + 1, n - start + 1));
            }
            open = None;
        }
    }
    found
}

#[test]
fn every_file_opens_with_what_it_is() {
    check(opens, &everything(), ("x.rs", "use std::fmt;\n"));
}

fn opens(name: &str, text: &str) -> Vec<String> {
    if text.starts_with("//! ") { Vec::new() } else { vec![format!("{name}: no //! paragraph")] }
}

#[test]
fn the_core_and_the_wire_are_pure() {
    let pure = [sources("src/core"), sources("src/wire")].concat();
    check(purity, &pure, ("src/core/x.rs", "let now = std::time::Instant::now();\n"));
}

fn purity(name: &str, text: &str) -> Vec<String> {
    let impure =
        ["Instant::now", "SystemTime", "thread::", "println!", "std::fs", "tokio", "tracing"];
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    let lines = code.lines().enumerate().filter(|(_, l)| !l.trim_start().starts_with("//"));
    lines
        .filter(|(_, line)| impure.iter().any(|i| line.contains(i)) || line.contains("HashMap"))
        .map(|(n, line)| format!("{name}:{}: not pure: {line}", n + 1))
        .collect()
}

#[test]
fn nothing_is_left_open() {
    let mark = ["TO", "DO"].concat();
    check(open_ends, &everything(), ("x.rs", &format!("// {mark}: later\n")));
}

fn open_ends(name: &str, text: &str) -> Vec<String> {
    let marks =
        [["TO", "DO"], ["FIX", "ME"], ["to", "do!("], ["unimpl", "emented!("], ["db", "g!("]];
    let marks = marks.map(|m| m.concat());
    let hit = |line: &str| marks.iter().any(|m| line.contains(m.as_str()));
    let lines = text.lines().enumerate().filter(|(_, line)| hit(line));
    lines.map(|(n, line)| format!("{name}:{}: left open: {line}", n + 1)).collect()
}

fn text(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

#[test]
fn catalog_and_manual_know_every_message() {
    let (catalog, manual) = (text("config/hafailover.catalog"), text("man/hafailover.7"));
    for what in What::ALL {
        let key = what.key();
        let entry = format!("# {key}\n-- {}\nSubject: ", message_id(*what));
        assert!(catalog.contains(&entry), "config/hafailover.catalog lacks:\n{entry}");
        let name = key.replace('-', "\\-");
        assert!(manual.contains(&format!(".B {name}\n")), "man/hafailover.7 lacks {key}");
    }
    assert_eq!(catalog.matches("\n-- ").count(), What::ALL.len(), "an entry too many");
}

#[test]
fn the_manual_knows_every_command_and_every_key() {
    let manual = text("man/hafailover.8");
    let help = Command::new(env!("CARGO_BIN_EXE_hafailover")).arg("--help").output();
    let help = String::from_utf8(help.expect("runs").stdout).expect("text");
    let commands = help.lines().skip_while(|l| *l != "Commands:").skip(1);
    let mut count = 0;
    for command in commands.map_while(|l| l.strip_prefix("  ")).filter_map(|l| l.split(' ').next())
    {
        count += 1;
        let name = command.replace('-', "\\-");
        assert!(command == "help" || manual.contains(&name), "hafailover(8) lacks {command}");
    }
    assert!(count > 10, "--help lists {count} commands");
    let manual = text("man/hafailover.toml.5");
    let example = text("config/hafailover.toml");
    let keys = example.lines().filter_map(|l| l.trim_start_matches('#').split_once(" = "));
    for (key, _) in keys.filter(|(k, _)| k.chars().all(|c| c.is_ascii_lowercase() || c == '-')) {
        let name = key.replace('-', "\\-");
        assert!(manual.contains(&name), "hafailover.toml(5) lacks {key}");
    }
    let manual = text("man/hafailover.group.5");
    for key in [
        "Nodes",
        "Failback",
        "Order",
        "Retries",
        "RetryWindow",
        "Quarantine",
        "StopBudget",
        "StopFailure",
    ] {
        assert!(manual.contains(&format!("{key}=")), "hafailover.group(5) lacks {key}=");
    }
}

/// What `hafailover COMMAND --help` says.
fn help(command: &str) -> String {
    let mut program = Command::new(env!("CARGO_BIN_EXE_hafailover"));
    let out = program.args(command.split_whitespace()).arg("--help").output().expect("runs");
    assert!(out.status.success(), "{command} --help fails");
    String::from_utf8(out.stdout).expect("text")
}

/// `--no-wait` and the like in a text.
fn options(text: &str) -> Vec<String> {
    let starts = text.split("--").skip(1);
    let word = |rest: &str| {
        rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '-').collect::<String>()
    };
    starts.map(word).filter(|w| !w.is_empty()).collect()
}

#[test]
fn the_manual_and_the_program_know_the_same_options() {
    let listed = help("");
    let after = listed.lines().skip_while(|l| *l != "Commands:").skip(1);
    let names = after.map_while(|l| l.strip_prefix("  ")).filter_map(|l| l.split(' ').next());
    let hidden =
        ["", "state create", "disk format", "disk show", "ip", "reserve", "lost", "generator"];
    let all = names.filter(|n| *n != "help").chain(hidden);
    let known: Vec<String> = all.flat_map(|command| options(&help(command))).collect();
    assert!(known.len() > 20, "{known:?}");
    let pages = ["man/hafailover.8", "man/hafailover-ip.8", "man/hafailover-reserve.8"];
    let manuals = pages.map(text).concat();
    let told = options(&manuals.replace("\\-", "-"));
    let lacking = |have: &[String], want: &[String]| {
        want.iter().filter(|o| !have.contains(o)).cloned().collect::<Vec<_>>()
    };
    assert_eq!(lacking(&told, &known), Vec::<String>::new(), "hafailover(8) lacks these");
    assert_eq!(lacking(&known, &told), Vec::<String>::new(), "the program lacks these");
}

#[test]
fn the_example_configuration_is_good() {
    let parsed = hafailover::config::load::parse(&text("config/hafailover.toml"), "x", "ttisrv1");
    assert!(parsed.is_ok(), "{parsed:?}");
}

/// systemd.exec(5): each of these gives a service a mount namespace, which holds a copy of every
/// mount of the groups.
const NAMESPACES: [&str; 24] = [
    "BindPaths",
    "BindReadOnlyPaths",
    "DynamicUser",
    "ExecPaths",
    "ExtensionImages",
    "InaccessiblePaths",
    "MountFlags",
    "NoExecPaths",
    "PrivateDevices",
    "PrivateIPC",
    "PrivateMounts",
    "PrivateTmp",
    "PrivateUsers",
    "ProcSubset",
    "ProtectControlGroups",
    "ProtectHome",
    "ProtectKernelLogs",
    "ProtectKernelModules",
    "ProtectKernelTunables",
    "ProtectProc",
    "ProtectSystem",
    "ReadOnlyPaths",
    "ReadWritePaths",
    "TemporaryFileSystem",
];

#[test]
fn no_unit_of_ours_has_a_mount_namespace() {
    let units = std::fs::read_dir(root().join("units")).expect("units");
    let texts: Vec<(String, String)> = units
        .map(|e| e.expect("readable").path())
        .map(|p| (p.display().to_string(), std::fs::read_to_string(&p).expect("text")))
        .collect();
    check(namespaces, &texts, ("x.service", "[Service]\nPrivateTmp=yes\n"));
}

fn namespaces(name: &str, text: &str) -> Vec<String> {
    let keys = text.lines().enumerate().filter_map(|(n, l)| Some((n, l.split_once('=')?.0)));
    let bad = keys.filter(|(_, key)| NAMESPACES.contains(key));
    bad.map(|(n, key)| format!("{name}:{}: {key}= makes a mount namespace", n + 1)).collect()
}

#[test]
fn manual_pages_and_units_are_well_formed() {
    for entry in std::fs::read_dir(root().join("man")).expect("man") {
        let path = entry.expect("readable").path();
        let out = Command::new("mandoc").args(["-Tlint", "-W", "error"]).arg(&path).output();
        let out = out.expect("mandoc is installed: tests/lab/prepare.sh");
        let said = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(out.status.success(), "{}: {said}", path.display());
    }
    for entry in std::fs::read_dir(root().join("units")).expect("units") {
        let path = entry.expect("readable").path();
        let unit = path.file_name().expect("a name").to_string_lossy().into_owned();
        if unit.ends_with("-generator") {
            continue;
        }
        let out = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&path).output();
        let said = String::from_utf8_lossy(&out.expect("systemd is installed").stderr).into_owned();
        // The binary is installed by the package, not here; RestartMode= is of systemd 254.
        let known = ["/usr/sbin/hafailover", "'RestartMode'"];
        let ours = |l: &&str| l.contains(&unit) && known.iter().all(|k| !l.contains(k));
        assert_eq!(said.lines().filter(ours).count(), 0, "{unit}: {said}");
    }
}

/// Names with an underscore in that text that are no story of these sources, nor the end of one, or
/// its beginning where they end with one.
fn unknown_stories(page: &str, stories: &str) -> Vec<String> {
    let part = |c: char| c == '_' || c.is_ascii_alphanumeric();
    let known = |name: &&str| {
        let mut forms = vec![format!("(\"{name}\","), format!("_{name}\",")];
        forms.extend(name.ends_with('_').then(|| format!("(\"{name}")));
        forms.iter().any(|form| stories.contains(form))
    };
    let names = page.split(|c| !part(c)).filter(|word| word.contains('_'));
    names.filter(|name| !known(name)).map(str::to_string).collect()
}

/// The numbers behind the word scenario in that text: the first, and those in the list behind it.
fn scenarios_named(page: &str) -> Vec<String> {
    let mut named = Vec::new();
    let page = page.split_whitespace().collect::<Vec<_>>().join(" ");
    for behind in page.split("scenario ").skip(1) {
        let list = behind.split(['.', ';', ':']).next().unwrap_or_default();
        let items = list.split(',').map(str::trim_start);
        let number = |item: &str| item.chars().take_while(char::is_ascii_digit).collect();
        named.extend(items.map(number).filter(|number: &String| !number.is_empty()));
    }
    named
}

/// Goal: so has each scenario that it names.
#[test]
fn every_scenario_that_the_manual_names_is_there() {
    assert_eq!(scenarios_named("scenario\n7 (Q), 12 (A, W), and 3. In 5"), ["7", "12"]);
    let manual = std::fs::read_to_string(root().join("man/hafailover.7")).expect("a manual");
    let named = scenarios_named(&manual);
    assert!(named.len() > 3, "it names its scenarios");
    let files = std::fs::read_dir(root().join("tests/scenarios")).expect("scenarios");
    let files: Vec<String> =
        files.map(|e| e.expect("readable").file_name().to_string_lossy().into_owned()).collect();
    for number in named {
        let there = files.iter().any(|file| file.starts_with(&format!("{number}-")));
        assert!(there, "man/hafailover.7: there is no scenario {number}");
    }
}

/// Goal: what the manual calls impossible has a story behind it, under that name.
#[test]
fn every_story_that_the_manual_names_is_told() {
    let stories = "(\"etcd_power_loss\", a), (\"two_die\", b)";
    assert!(unknown_stories("two_die, the etcd_ ones: power_loss", stories).is_empty());
    assert_eq!(unknown_stories("two_died by witness_", stories), ["two_died", "witness_"]);
    let manual = std::fs::read_to_string(root().join("man/hafailover.7")).expect("a manual");
    let page = manual.split(".SH ").find(|s| s.starts_with("WHAT PROTECTS WHAT"));
    let page = page.expect("the page").replace("\\-", "-");
    assert!(page.matches('_').count() > 40, "it names its stories");
    let told: String = sources("tests/lab").into_iter().map(|(_, text)| text).collect();
    let missing = unknown_stories(&page, &told);
    assert!(missing.is_empty(), "the lab tells no such story: {missing:?}");
}
