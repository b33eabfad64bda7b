//! Stories of another witness while groups run: whoever owns them takes it last, so that the one of
//! before gives them to nobody else.

use crate::arbiters::Witness;
use crate::cluster::{Cluster, PATIENCE};
use crate::harness::net::Lan;
use crate::harness::wait;
use crate::leases;
use crate::stories::Story;

pub const ALL: &[(&str, Story)] = &[
    ("witness_another_one_while_cut", while_cut),
    ("witness_another_one_while_deaf", while_deaf),
    ("witness_another_one_owner_last", owner_last),
    ("witness_another_one_without_room", without_room),
];

/// Writes another witness there; with this the file is read again.
const ANOTHER: &str = "sed -i 's/^address = .*50\"/address = \"192.168.0.51\"/' \
    /etc/hafailover/hafailover.toml; hafailover reload";

/// The witness of before could give to n2 what runs here, so n1 keeps to it: also while nobody has
/// noticed the cut yet.
fn while_cut(c: &mut Cluster) {
    let _arbiter = leases::start::<Witness>(c);
    leases::cut_heartbeats(c);
    let reload = c.lab.node(0).run(ANOTHER);
    assert!(
        reload.code != 0 && reload.text.contains("[arbiter] is another one"),
        "{}",
        reload.text
    );
    c.told(0, "peer-silent");
    let reload = c.lab.node(0).run(ANOTHER);
    assert!(reload.code != 0 && reload.text.contains("n2 is not heard"), "{}", reload.text);
    let before = c.lab.node(0).told("settings-wrong");
    c.lab.node(0).must("systemctl restart hafailover");
    c.told_times(0, "group-adopted", 1);
    c.told_more(0, "settings-wrong", before);
    leases::runs_for(c, leases::LEASE * 2);
    leases::leased(c, 0);
    assert_eq!(c.lab.node(1).told("group-started"), 0);
    leases::no_overlap(c, "another witness while cut");
}

/// Who might be granted by the witness of before goes by the new one when n1 does, and both have
/// one arbiter again: cut off from each other, n1 goes on, and n2 is not granted it.
fn owner_last(c: &mut Cluster) {
    let _arbiter = leases::start::<Witness>(c);
    let _another = Witness::at(c, 51);
    let reload = c.lab.node(0).run(ANOTHER);
    let words = "n2 still has the file of before";
    assert!(reload.code != 0 && reload.text.contains(words), "{}", reload.text);
    c.lab.node(1).must(ANOTHER);
    c.told(0, "peer-differs");
    c.lab.node(0).must(ANOTHER);
    leases::leased(c, 0);
    leases::cut_heartbeats(c);
    c.told(1, "peer-silent");
    leases::runs_for(c, leases::WAIT + leases::RENEWED);
    assert_eq!(c.lab.node(1).told("group-started"), 0);
    leases::no_overlap(c, "another witness, the owner last");
}

/// n2 has taken it and says so, and n1 hears that; but n2 hears nothing of n1, and the new witness
/// would give it everything.
fn while_deaf(c: &mut Cluster) {
    let _arbiter = leases::start::<Witness>(c);
    let _another = Witness::at(c, 51);
    c.lab.line.cut();
    c.lab.net.block_way(0, 1, Lan::Heartbeat);
    c.told(0, "peer-deaf");
    c.lab.node(1).must(ANOTHER);
    c.told(0, "peer-differs");
    let reload = c.lab.node(0).run(ANOTHER);
    let words = "n2 is not heard or does not hear this node";
    assert!(reload.code != 0 && reload.text.contains(words), "{}", reload.text);
    // For longer than a lease of before would keep anybody from it.
    leases::runs_for(c, leases::WAIT + leases::RENEWED);
    leases::leased(c, 0);
    assert_eq!(c.lab.node(1).told("group-started"), 0);
    c.lab.net.unblock();
    c.lab.line.heal();
    wait("n1 to take it, too", PATIENCE, || (c.lab.node(0).run(ANOTHER).code == 0).then_some(()));
    leases::leased(c, 0);
    leases::runs_for(c, leases::LEASE);
    leases::no_overlap(c, "another witness, and one is deaf");
}

/// What cannot be kept is not gone by, by a reload or at a start: the next daemon would go back to
/// the witness of before.
fn without_room(c: &mut Cluster) {
    let _arbiter = leases::start::<Witness>(c);
    let n2 = c.lab.node(1);
    let fill = "head -c 64k /dev/zero >/var/lib/hafailover/fill";
    n2.must("mount -t tmpfs -o size=64k tmpfs /var/lib/hafailover");
    n2.run(fill);
    let reload = n2.run(ANOTHER);
    let words = "nothing was changed: make room";
    assert!(reload.code != 0 && reload.text.contains(words), "{}", reload.text);
    let owner = c.lab.node(0).run(ANOTHER);
    let words = "n2 still has the file of before";
    assert!(owner.code != 0 && owner.text.contains(words), "{}", owner.text);
    leases::runs_for(c, leases::LEASE * 2);
    leases::leased(c, 0);
    n2.must("rm /var/lib/hafailover/fill");
    n2.must(ANOTHER);
    c.told(0, "peer-differs");
    n2.run(fill);
    n2.must("sed -i 's/192.168.0.51/192.168.0.52/' /etc/hafailover/hafailover.toml");
    assert_ne!(n2.run("systemctl restart hafailover").code, 0);
    let said = n2.must("journalctl --sync; journalctl -q -u hafailover -o cat -n 30");
    assert!(said.contains("must be kept there before it is asked: make room"), "{said}");
    n2.must(
        "rm /var/lib/hafailover/fill; systemctl reset-failed hafailover; \
         systemctl start hafailover",
    );
    leases::runs_for(c, leases::LEASE * 2);
    assert_eq!(n2.told("group-started"), 0);
    n2.must("systemctl stop hafailover; umount /var/lib/hafailover");
    leases::no_overlap(c, "another witness, and no room to keep it");
}
