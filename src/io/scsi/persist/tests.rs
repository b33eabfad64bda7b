//! What sg_persist 1.46 (0.67 20190913) of Debian 12 said to a LIO disk, letter for letter.

use super::*;
use std::os::unix::fs::PermissionsExt;
use std::time::Instant;

const NO_KEYS: &str = "  PR generation=0x0, there are NO registered reservation keys\n";
const ONE_KEY: &str = "  PR generation=0x1, 1 registered reservation key follows:\n    \
                       0x6861000000000001\n";
const TWO_KEYS: &str = "  PR generation=0x2, 2 registered reservation keys follow:\n    \
                        0x6861000000000001\n    0x6861000000000002\n";
const FREE: &str = "  PR generation=0x0, there is NO reservation held\n";
const TAKEN: &str = "  PR generation=0x2, Reservation follows:\n    Key=0x6861000000000001\n    \
                     scope: LU_SCOPE,  type: Write Exclusive\n";
const ABLE: &str = "Report capabilities response:
  Replace Lost Reservation Capable(RLR_C): 0
  Compatible Reservation Handling(CRH): 1
  Specify Initiator Ports Capable(SIP_C): 1
  All Target Ports Capable(ATP_C): 1
  Persist Through Power Loss Capable(PTPL_C): 1
  Type Mask Valid(TMV): 1
  Allow Commands: 1
  Persist Through Power Loss Active(PTPL_A): 0
    Support indicated in Type mask:
      Write Exclusive, all registrants: 1
      Exclusive Access, registrants only: 1
      Write Exclusive, registrants only: 1
      Exclusive Access: 1
      Write Exclusive: 1
      Exclusive Access, all registrants: 1
";

#[test]
fn what_is_registered_is_read() {
    let (one, two) = (Key(0x6861_0000_0000_0001), Key(0x6861_0000_0000_0002));
    assert_eq!(read_keys(NO_KEYS), Some((0, vec![])));
    assert_eq!(read_keys(ONE_KEY), Some((1, vec![one])));
    assert_eq!(read_keys(TWO_KEYS), Some((2, vec![one, two])));
    assert_eq!(read_reservation(FREE), Some((0, None)));
    let held = Held { key: one, kind: "Write Exclusive".into() };
    assert_eq!(read_reservation(TAKEN), Some((2, Some(held))));
    let other = TAKEN.replace("Exclusive\n", "Exclusive, registrants only\n");
    let (_, held) = read_reservation(&other).expect("known");
    assert_eq!(held.expect("held").kind, "Write Exclusive, registrants only");
}

/// Goal: no line that was lost or that nobody knows is an empty list.
#[test]
fn what_is_not_understood_is_no_answer() {
    for whole in [NO_KEYS, ONE_KEY, TWO_KEYS] {
        for cut in 0..whole.len() {
            assert_eq!(read_keys(&whole[..cut]), None, "{:?}", &whole[..cut]);
        }
        assert_eq!(read_keys(&format!("{whole}more\n")), None);
        assert_eq!(read_reservation(whole), None);
    }
    for whole in [FREE, TAKEN] {
        for cut in 0..whole.len() {
            assert_eq!(read_reservation(&whole[..cut]), None, "{:?}", &whole[..cut]);
        }
        assert_eq!(read_reservation(&format!("{whole}more\n")), None);
        assert_eq!(read_keys(whole), None);
    }
}

#[test]
fn what_the_disk_can_do_is_read() {
    assert_eq!(capabilities(ABLE), Ok(Able { keeps: true }));
    let forgets = ABLE.replace("(PTPL_C): 1", "(PTPL_C): 0");
    assert_eq!(capabilities(&forgets), Ok(Able { keeps: false }));
    let without = ABLE.replace("Write Exclusive: 1", "Write Exclusive: 0");
    assert_eq!(capabilities(&without), Err(Trouble::Unable));
    let unlisted = without.replace("(TMV): 1", "(TMV): 0");
    assert_eq!(capabilities(&unlisted), Ok(Able { keeps: true }));
    assert!(matches!(capabilities(""), Err(Trouble::Strange(_))));
}

/// A program in its place that does what a shell script says.
fn disk(dir: &Path, script: &str) -> Disk {
    let program = dir.join("sg_persist");
    std::fs::write(&program, format!("#!/bin/sh\n{script}")).expect("written");
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).expect("changed");
    Disk { path: dir.join("sda"), program }
}

#[test]
fn exit_codes_have_words() {
    let dir = tempfile::tempdir().expect("a directory");
    for (script, trouble) in [
        ("exit 9", Trouble::Unable),
        ("exit 75", Trouble::NoScsi),
        ("exit 52", Trouble::Gone),
        ("exit 56", Trouble::Gone),
        ("echo 'x y' >&2; exit 99", Trouble::Failed("x y (exit status: 99)".into())),
    ] {
        assert_eq!(disk(dir.path(), script).look(), Err(trouble));
    }
    let lacking = Disk { program: "/nowhere/sg_persist".into(), ..disk(dir.path(), "") };
    assert_eq!(lacking.look(), Err(Trouble::NoProgram));
    let conflict = "echo 'PR out (Register): Reservation conflict' >&2; exit 24";
    assert_eq!(disk(dir.path(), conflict).unregister(Key(1), false), Ok(false));
}

/// Goal: what a disk only tells of is asked again, and not without end.
#[test]
fn attentions_are_passed_over() {
    let dir = tempfile::tempdir().expect("a directory");
    let count = dir.path().join("count").display().to_string();
    let script = format!("echo >>{count}; [ $(wc -l <{count}) -gt 3 ] || exit 6");
    assert_eq!(disk(dir.path(), &script).reserve(Key(1)), Ok(true));
    let always = disk(dir.path(), "echo 'Unit attention' >&2; exit 6").reserve(Key(1));
    assert!(matches!(always, Err(Trouble::Failed(_))), "{always:?}");
}

/// Goal: a disk that hangs holds nobody up for longer than the limit.
#[test]
fn a_disk_that_hangs_is_not_waited_for() {
    let dir = tempfile::tempdir().expect("a directory");
    let disk = disk(dir.path(), "exec sleep 60");
    let (begun, limit) = (Instant::now(), Duration::from_millis(50));
    assert_eq!(disk.run(&["--in"], limit).err(), Some(Trouble::Late(limit)));
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[test]
fn arguments_are_these() {
    let dir = tempfile::tempdir().expect("a directory");
    let (said, key) = (dir.path().join("said"), Key(0x6861_0000_0000_0001));
    let disk = disk(dir.path(), &format!("echo \"$@\" >>{}", said.display()));
    disk.register(key, true).expect("done");
    disk.reserve(key).expect("done");
    disk.preempt(key, Key(2)).expect("done");
    disk.unregister(key, true).expect("done");
    let _ = disk.look();
    let path = disk.path.display();
    let rk = "--param-rk=0x6861000000000001";
    assert_eq!(
        std::fs::read_to_string(said).expect("read"),
        format!(
            "--no-inquiry --out --register-ignore --param-sark=0x6861000000000001 --param-aptpl \
             {path}\n\
             --no-inquiry --out --reserve {rk} --prout-type=1 {path}\n\
             --no-inquiry --out --preempt-abort {rk} --param-sark=0x0000000000000002 \
             --prout-type=1 {path}\n\
             --no-inquiry --out --register {rk} --param-sark=0x0 --param-aptpl {path}\n\
             --no-inquiry --readonly --in --read-keys {path}\n"
        )
    );
}
