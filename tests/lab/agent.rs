//! The service of the lab's group: answers on TCP port 7777 with the node's name, writes to the
//! shared disk every ten milliseconds, and stamps each write that worked with CLOCK_BOOTTIME, which
//! all nodes of a lab share. `agent direct FILE LOG`: writes to a file past all caches, as fast as
//! it can, and notes of each write when it began, and what came of it.

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::time::Duration;

/// What a disk is written in.
const BLOCK: usize = 4096;
/// So many, and then from the beginning.
const BLOCKS: u64 = 1024;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [mode, file, log] = &args[..] {
        assert_eq!(mode, "direct");
        direct(file, log);
    }
    let name = std::fs::read_to_string("/etc/hostname").expect("a host name").trim().to_string();
    // The first one takes IPv4 as well.
    let both: [SocketAddr; 2] = ["[::]:7777", "0.0.0.0:7777"].map(|a| a.parse().expect("one"));
    let listener = TcpListener::bind(&both[..]).expect("the port is free");
    let answer = format!("{name}\n");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    let file = |path: &str| std::fs::OpenOptions::new().create(true).append(true).open(path);
    let mut stamps = file(&format!("/stamps/{name}")).expect("the stamps");
    let data = std::fs::File::create("/srv/data").expect("the shared disk is mounted");
    loop {
        let now = hafailover::io::clock::now().0;
        if data.write_all_at(format!("{name} {now:020}\n").as_bytes(), 0).is_ok() {
            let _ = stamps.write_all(format!("{now}\n").as_bytes());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Of each write a line: when it began, `ok` or what it failed with, its number.
fn direct(file: &str, log: &str) -> ! {
    let mut options = std::fs::OpenOptions::new();
    options.create(true).truncate(false).write(true).custom_flags(libc::O_DIRECT | libc::O_DSYNC);
    let file = options.open(file).expect("the disk is mounted");
    let log = std::fs::OpenOptions::new().create(true).append(true).open(log);
    let mut log = log.expect("a log");
    // The part of it that begins where a block may.
    let mut room = vec![b' '; 2 * BLOCK];
    let begin = room.as_ptr().align_offset(BLOCK);
    let block = &mut room[begin..begin + BLOCK];
    for number in 0u64.. {
        block[..20].copy_from_slice(format!("{number:020}").as_bytes());
        let now = hafailover::io::clock::now().0;
        let written = file.write_all_at(block, number % BLOCKS * BLOCK as u64);
        let result = written
            .as_ref()
            .map_or_else(|e| e.to_string().replace(' ', "-"), |()| "ok".to_string());
        let _ = log.write_all(format!("{now} {result} {number}\n").as_bytes());
        std::thread::sleep(Duration::from_millis(if written.is_ok() { 1 } else { 100 }));
    }
    unreachable!("numbers end")
}
