//! The service of the lab's group: answers on TCP port 7777 with the node's name, writes to the
//! shared disk every ten milliseconds, and stamps each write that worked with CLOCK_BOOTTIME, which
//! all nodes of a lab share.

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::FileExt;
use std::time::Duration;

fn main() {
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
