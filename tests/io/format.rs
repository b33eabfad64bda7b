//! `hafailover disk`: what carries anything at all is not formatted, and what is shown is what
//! stands there. With the program itself, on real loop devices and what the real tools make on
//! them.

use crate::disk::{End, Loop};
use crate::space::sh;
use hafailover::core::heartbeat::Heartbeat;
use hafailover::core::name::{LinkId, NodeId, Session};
use hafailover::core::{Action, Boot, Core};
use hafailover::wire::Codec;
use hafailover::wire::disk::{BLOCK, SIZE};
use hafailover::wire::keys::Keys;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// The program with these arguments: exit code, and all that it printed.
fn disk(args: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hafailover"));
    let out = command.arg("disk").args(args).output().expect("runs");
    let text = String::from_utf8_lossy(&out.stdout) + String::from_utf8_lossy(&out.stderr);
    (out.status.code().unwrap_or(-1), text.into_owned())
}

/// hafailover.toml and keys for the device, in a directory of their own; the first node is this
/// host.
struct Config {
    dir: tempfile::TempDir,
    text: String,
}

impl Config {
    fn new(cluster: &str, device: &Path) -> Config {
        let dir = tempfile::tempdir().expect("a directory");
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let keys = dir.path().join("keys");
        std::fs::write(&keys, Keys::of(&[(1, [3; 32])], 1).to_text()).expect("written");
        let mode = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(&keys, mode).expect("chmod");
        let text = format!(
            "[cluster]\nname = \"{cluster}\"\nkeys = \"{}\"\n[[node]]\nname = \"{host}\"\n\
             [[node]]\nname = \"other\"\n[[link]]\ntype = \"udp\"\ninterface = \"lo\"\n[[link]]\n\
             type = \"disk\"\ndevice = \"{}\"\n",
            keys.display(),
            device.display()
        );
        std::fs::write(dir.path().join("toml"), &text).expect("written");
        Config { dir, text }
    }

    fn path(&self) -> String {
        self.dir.path().join("toml").display().to_string()
    }
}

fn format(device: &Path, config: &Config, more: &[&str]) -> (i32, String) {
    let (device, path) = (device.display().to_string(), config.path());
    disk(&[&["format", device.as_str(), "--config", path.as_str()], more].concat())
}

/// Goal: whatever the tools of this system make is recognised, told, and left as it is.
#[test]
fn what_carries_anything_is_not_formatted() {
    for (make, word) in [
        ("mkfs.ext4 -q -F DEV", "ext4"),
        ("mkswap -q DEV", "swap"),
        ("echo 'label: gpt' | sfdisk -q DEV", "gpt"),
        ("printf 'label: dos\\n,4M\\n' | sfdisk -q DEV", "dos"),
        ("pvcreate -q -ff -y DEV", "LVM2_member"),
        // Only at its end: the superblock of a RAID (md(4), format 1.0).
        (
            "printf '\\374N+\\251\\001\\0\\0\\0' | dd of=DEV seek=16368 conv=fsync status=none && \
             printf '\\360?' | dd of=DEV bs=1 seek=8380560 conv=fsync status=none",
            "linux_raid_member",
        ),
        // No program knows it: an encrypted disk without a header, a database.
        ("head -c 4096 /dev/urandom | dd of=DEV conv=fsync status=none", "no program here knows"),
        ("printf x | dd of=DEV bs=1 seek=139000 conv=fsync status=none", "no program here knows"),
    ] {
        let device = Loop::new(512);
        let config = Config::new("office", &device.device);
        sh(&make.replace("DEV", &device.device.display().to_string()));
        let before = device.sum();
        for more in [&[][..], &["--force-of-ours"]] {
            let (code, words) = format(&device.device, &config, more);
            assert_eq!(code, 1, "{make}: {words}");
            assert!(words.contains(word) && words.contains("nothing was written"), "{words}");
        }
        assert_eq!(device.sum(), before, "{make}");
    }
}

#[test]
fn what_is_in_use_or_no_device_is_not_formatted() {
    let device = Loop::new(512);
    let config = Config::new("office", &device.device);
    let refused = |device: &Path, word: &str| {
        let (code, words) = format(device, &config, &["--force-of-ours"]);
        assert!(code == 1 && words.contains(word), "{code} {words}");
    };
    let at = device.dir.path().join("mount");
    let (shown, place) = (device.device.display(), at.display());
    sh(&format!("mkfs.ext4 -q -F {shown} && mkdir {place} && mount {shown} {place}"));
    // The signature is gone; the kernel still has it.
    sh(&format!("wipefs -q -a -f {shown}"));
    refused(&device.device, "still mounted at");
    sh(&format!("umount {place}"));
    let file = device.dir.path().join("file");
    std::fs::write(&file, vec![0; SIZE]).expect("written");
    refused(&file, "no block device");
    refused(&device.dir.path().join("none"), "No such file");
    sh(&format!("truncate -s {} {} && losetup -c {shown}", SIZE - BLOCK, device.file().display()));
    refused(&device.device, "too small");
}

/// Goal: what was formatted is formatted again only on demand, and not under another cluster that
/// uses it; and no other program finds a signature there.
#[test]
fn our_own_is_formatted_anew_only_on_demand() {
    for sector in [512, 4096] {
        let device = Loop::formatted(sector);
        let same = Config::new("office", &device.device);
        let other = Config::new("home", &device.device);
        let probed = Command::new("blkid").arg("-p").arg(&device.device).output().expect("runs");
        assert_eq!(probed.status.code(), Some(2), "blkid finds something: {probed:?}");
        let (code, words) = format(&device.device, &same, &[]);
        assert!(code == 1 && words.contains("cluster office for n1, n2 already"), "{words}");
        let mut user = End::open(&device.device, 0);
        user.usable();
        let talk = std::sync::atomic::AtomicBool::new(true);
        std::thread::scope(|scope| {
            let (sender, talk) = (&user.sender, &talk);
            scope.spawn(move || {
                while talk.load(std::sync::atomic::Ordering::Relaxed) {
                    sender.send(&[b"here".to_vec()]);
                    std::thread::park_timeout(std::time::Duration::from_millis(10));
                }
            });
            let (code, words) = format(&device.device, &other, &["--force-of-ours"]);
            talk.store(false, std::sync::atomic::Ordering::Relaxed);
            assert!(code == 1 && words.contains("n1 of cluster office uses it now"), "{words}");
        });
        drop(user);
        let (code, words) = format(&device.device, &other, &["--force-of-ours", "--json"]);
        assert!(code == 0 && words.starts_with("{\"done\":"), "{words}");
        let (code, words) = disk(&["show", &device.device.display().to_string()]);
        assert!(code == 0 && words.starts_with("cluster home, id "), "{words}");
    }
}

/// A frame as the node sends it on the second link.
fn beat(config: &Config, node: u8, key: u8) -> Vec<u8> {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let settings = hafailover::config::load::parse(&config.text, "x", &host).expect("good");
    let mut policy = settings.policy([]);
    policy.me = NodeId(node);
    let session = Session(0xabcd + u64::from(node));
    let boot = Boot { session, boot: Default::default(), record: None };
    let names: Vec<String> = settings.nodes.iter().map(|n| n.name.clone()).collect();
    let keys = Keys::of(&[(1, [key; 32])], 1);
    let codec = Codec::new("office", &names, NodeId(node), session, keys);
    let (_, actions) = Core::new(hafailover::io::clock::now(), boot, policy);
    let sent: Option<Box<Heartbeat>> = actions.into_iter().find_map(|action| match action {
        Action::Send { link: LinkId(1), heartbeat } => Some(heartbeat),
        _ => None,
    });
    codec.encode(&sent.expect("a new core speaks")).expect("fits")
}

#[test]
fn what_stands_in_the_slots_is_shown() {
    let device = Loop::new(512);
    let config = Config::new("office", &device.device);
    let path = device.device.display().to_string();
    let show = |more: &[&str]| {
        let (code, words) = disk(&[&["show", &path, "--config", &config.path()], more].concat());
        (code, words)
    };
    let (code, words) = show(&[]);
    assert!(code == 1 && words.contains("nothing but zeros"), "{words}");
    let (code, words) = format(&device.device, &config, &[]);
    assert!(code == 0 && words.contains("slots for") && words.contains("136 KiB"), "{words}");
    let (_, words) = show(&[]);
    assert_eq!(words.matches("nothing written yet").count(), 2, "{words}");
    let place = hafailover::io::disk::Plan::of(&link(&config), NodeId(0));
    let mut ends: Vec<End> = (0..2).map(|n| End::at(&place, n)).collect();
    ends.iter_mut().for_each(End::usable);
    let frames = [beat(&config, 0, 3), beat(&config, 1, 9)];
    let before = std::time::Instant::now();
    // Node 0 goes on, node 1 said something once, with a key that is not ours.
    ends[1].sender.send(std::slice::from_ref(&frames[1]));
    let talk = std::sync::atomic::AtomicBool::new(true);
    let (text, json) = std::thread::scope(|scope| {
        let (sender, talk, frame) = (&ends[0].sender, &talk, &frames[0]);
        scope.spawn(move || {
            while talk.load(std::sync::atomic::Ordering::Relaxed) {
                sender.send(std::slice::from_ref(frame));
                std::thread::park_timeout(std::time::Duration::from_millis(10));
            }
        });
        let text = loop {
            let text = show(&[]).1;
            if text.contains("unchanged") || before.elapsed().as_secs() > 20 {
                break text;
            }
        };
        let json = show(&["--json"]).1;
        talk.store(false, std::sync::atomic::Ordering::Relaxed);
        (text, json)
    });
    let lines: Vec<&str> = text.lines().collect();
    assert!(
        lines[1].contains(" changed 0.") && lines[1].contains("000000000000abcd, sealed right")
    );
    assert!(
        lines[2].contains(" unchanged for ") && lines[2].contains("not sealed right"),
        "{text}"
    );
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["slots"][0]["sealed"], true, "{json}");
    assert!(json["slots"][0]["changed_ago"].as_f64().expect("changed") < 1.0);
    assert_eq!(json["slots"][1]["sealed"], false);
    assert!(json["slots"][1]["changed_ago"].is_null());
    sh(&format!(
        "printf garbage | dd of={path} bs=1 seek={} conv=notrunc,fsync status=none",
        BLOCK * 2 + 50
    ));
    let (_, text) = show(&[]);
    assert!(text.lines().nth(2).is_some_and(|l| l.contains("torn")), "{text}");
}

/// The disk link of a configuration.
fn link(config: &Config) -> hafailover::config::settings::Disk {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let settings = hafailover::config::load::parse(&config.text, "x", &host).expect("good");
    match settings.links[1].kind.clone() {
        hafailover::config::settings::LinkKind::Disk(disk) => disk,
        other => panic!("{other:?}"),
    }
}
