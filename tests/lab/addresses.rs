//! Stories of addresses: IPv6, announcements as the client's cable shows them, and an address that
//! something else takes away again and again.

use crate::cluster::{AGENT, Cluster, PATIENCE, TAKEOVER, TARGET};
use crate::harness::client::Client;
use crate::harness::net::Lan;
use crate::harness::wire::Wire;
use crate::harness::{ADDRESS, sh, try_sh, wait};
use crate::stories::Story;
use std::time::Duration;

pub const ALL: &[(&str, Story)] = &[
    ("ipv6_address_is_announced_and_found", ipv6_address_is_announced_and_found),
    ("address_is_announced_again_and_again", address_is_announced_again_and_again),
    ("address_taken_away_again_and_again", address_taken_away_again_and_again),
];

const ADDRESS6: &str = "fd00:0:0:1::100";
/// What one announcement of an IPv4 address is: a request and a reply.
const FORMS: usize = 2;

fn mac(c: &Cluster, n: usize) -> String {
    let shown = c.lab.node(n).must("ip -o link show eth0");
    let mac = shown.split_whitespace().skip_while(|w| *w != "link/ether").nth(1);
    mac.expect("an Ethernet address").to_string()
}

/// The client's neighbour table has an entry from before: the advertisement must change it.
fn ipv6_address_is_announced_and_found(c: &mut Cluster) {
    let unit = format!("hafailover-ip@{ADDRESS6}-64.service");
    let target = TARGET.replace("srv.mount", &format!("{unit} srv.mount"));
    c.configure_with(TAKEOVER, &target, AGENT);
    (0..2).for_each(|n| c.start(n));
    c.runs_on(0);
    c.all_well();
    let (space, macs) = (c.lab.net.client(), [mac(c, 0), mac(c, 1)]);
    let neighbour = || try_sh(&format!("ip -n {space} -6 neigh show {ADDRESS6} dev eth0"));
    let client = Client::start_at(&space, ADDRESS6.parse().expect("an address"));
    assert!(neighbour().contains(&macs[0]), "{}", neighbour());
    let wire = Wire::listen(&space);
    c.lab.kill(0);
    wait("an unsolicited advertisement by n2", PATIENCE, || {
        wire.of(ADDRESS6).iter().any(|one| one.mac == macs[1]).then_some(())
    });
    assert!(neighbour().contains(&macs[1]), "heard, and not heeded: {}", neighbour());
    c.runs_on(1);
    let seen = client.stop();
    println!("  power loss, over IPv6: client saw {:?}", seen.outage());
    assert_eq!(seen.owners(), ["n1", "n2"]);
    // Another host that has it is found by the probe.
    c.lab.node(1).must("systemctl stop files.target");
    c.phase(1, "stopped");
    sh(&format!("ip -n {space} addr add {ADDRESS6}/64 dev eth0 nodad"));
    let cleared = c.lab.node(1).run("hafailover clear files");
    assert!(cleared.code == 1 && cleared.text.contains("(address in use)"), "{}", cleared.text);
    c.told(1, "start-failed");
    let said = c.lab.node(1).run("journalctl -q -u 'hafailover-ip@*' -o cat").text;
    sh(&format!("ip -n {space} addr del {ADDRESS6}/64 dev eth0"));
    let foreign = sh(&format!("ip -n {space} -o link show eth0 | sed 's/.*ether //; s/ .*//'"));
    assert!(said.contains(foreign.trim()), "no {foreign} in {said}");
    c.one_owner();
}

/// In a burst, again later, and again after a conflict.
fn address_is_announced_again_and_again(c: &mut Cluster) {
    let (space, macs) = (c.lab.net.client(), [mac(c, 0), mac(c, 1)]);
    let wire = Wire::listen(&space);
    c.start_all(TAKEOVER);
    let by_n1 =
        || wire.of(ADDRESS).into_iter().filter(|one| one.mac == macs[0]).collect::<Vec<_>>();
    // At once, after 50, 200, 500 ms, 1 s; then after 5 s.
    wait("a burst and a later one", PATIENCE, || (by_n1().len() >= 6 * FORMS).then_some(()));
    let all = by_n1();
    let after = |n: usize| all[n * FORMS].at - all[0].at;
    println!("  announced after {:?}", (1..6).map(after).collect::<Vec<_>>());
    // The listener may take the first one late.
    assert!(after(4) >= Duration::from_millis(500), "a burst is spread: {all:?}");
    assert!(after(5) >= Duration::from_secs(4), "{all:?}");
    assert_eq!(all.len(), wire.of(ADDRESS).len(), "only its owner announces it: {all:?}");
    conflict(&space);
    wait("announcements after a conflict", PATIENCE, || {
        (by_n1().len() >= all.len() + 3 * FORMS).then_some(())
    });
    let said = c.lab.node(0).must("journalctl -q -u 'hafailover-ip@*' -o cat");
    assert!(said.contains("is claimed by another host"), "{said}");
    assert_eq!(c.lab.node(0).told("member-failed"), 0, "it is defended");
    // Two owners who meet: the one that stays tells everybody once more.
    c.all_well();
    c.lab.net.block(0, Lan::Lan);
    c.lab.net.cut(0, Lan::Heartbeat);
    c.lab.line.cut();
    wait("n2 to start it too", PATIENCE, || {
        (c.lab.node(1).told("group-started") > 0).then_some(())
    });
    let by_n2 = || wire.of(ADDRESS).iter().filter(|one| one.mac == macs[1]).count();
    wait("the end of n2's burst", PATIENCE, || (by_n2() >= 6 * FORMS).then_some(()));
    let before = by_n2();
    c.lab.net.unblock();
    c.lab.net.heal(0, Lan::Heartbeat);
    c.lab.line.heal();
    wait("n2 to announce it after they met", PATIENCE, || {
        (by_n2() >= before + 3 * FORMS).then_some(())
    });
    c.phase(0, "stopped");
    c.runs_on(1);
    c.two_allowed("every link cut");
}

/// The client asks the LAN something in the name of the address, as a host would that has it.
fn conflict(space: &str) {
    sh(&format!("ip -n {space} addr add {ADDRESS}/24 dev eth0"));
    let _ = try_sh(&format!("ip netns exec {space} ping -c1 -W1 -I {ADDRESS} 192.168.0.77"));
    sh(&format!("ip -n {space} addr del {ADDRESS}/24 dev eth0"));
}

/// More than ten times within a minute: the member has failed, and the group goes where nobody
/// does that.
fn address_taken_away_again_and_again(c: &mut Cluster) {
    c.start_all(TAKEOVER);
    let node = c.lab.node(0);
    // With a look between two: so much is lost, and no more.
    let take = || {
        let gone = node.run(&format!("ip addr del {ADDRESS}/24 dev eth0")).code == 0;
        gone.then_some(())
    };
    for _ in 0..11 {
        wait("the address to be there", PATIENCE, take);
    }
    c.told(0, "member-failed");
    let said = c.lab.node(0).must("journalctl -q -u 'hafailover-ip@*' -o cat");
    assert!(said.contains("was removed 11 times within 60 s"), "{said}");
    assert_eq!(c.lab.node(0).told("quarantined"), 0, "once more here, as any member");
    for _ in 0..11 {
        wait("the address to be there", PATIENCE, take);
    }
    c.runs_on(1);
    c.told(0, "quarantined");
    c.one_owner();
}
