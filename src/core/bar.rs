//! What bars a node from a group, and in words: what is wrong, where, and what to do about it.

use super::heartbeat::Unfit;
use super::name::{GroupName, NodeId};
use super::world::World;

/// Why a node may not take a group just now, as another one knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bar {
    /// What it says of itself.
    Unfit(Unfit),
    /// It is heard and does not hear us.
    Deaf,
    Silent,
    /// Never heard since our session began.
    Unseen,
    /// It does not know the group.
    Unknown,
    /// It has another group under this name.
    Differs,
}

impl World<'_> {
    /// The words for [`World::unfit_at`], to be read after the node's name.
    pub fn why_not(&self, name: &GroupName, node: NodeId) -> Option<String> {
        let (on, unit) = (self.name(node), name.unit());
        Some(match self.unfit_at(name, node)? {
            Bar::Unfit(unfit) => self.unfit_words(name, node, unfit),
            Bar::Deaf => {
                format!("does not hear this node: look at the cables and the firewall to {on}")
            }
            Bar::Silent => "silent: look at its power and at the links to it".into(),
            Bar::Unseen => {
                "not heard since this daemon started: look whether hafailover runs there, and at \
                 the links to it"
                    .into()
            }
            Bar::Unknown => format!(
                "does not know the group: install {unit} and its members on {on} and run \
                 systemctl enable {unit} there"
            ),
            Bar::Differs => format!(
                "has another group under this name: make {unit} and What= and Where= of its mounts \
                 equal on all nodes (systemctl cat shows them), then systemctl daemon-reload"
            ),
        })
    }

    fn unfit_words(&self, name: &GroupName, node: NodeId, unfit: Unfit) -> String {
        let (on, unit) = (self.name(node), name.unit());
        let seen = self.group(name).seen.as_ref().filter(|_| node == self.me);
        match unfit {
            Unfit::NotListed => format!(
                "not in the group's Nodes=, or the group is not enabled there: name it in Nodes= \
                 on every node, or systemctl enable {unit} on {on}"
            ),
            Unfit::Standby => format!("in standby: hafailover online {on} ends that"),
            Unfit::Maintenance if self.wishes.maintenance.value => {
                "in maintenance: hafailover maintenance off ends that".into()
            }
            Unfit::Maintenance => {
                format!("in maintenance: hafailover maintenance off {name} ends that")
            }
            Unfit::Leaving => self.leaving_words(node),
            Unfit::Quarantined => match &self.group(name).quarantine {
                Some((_, why)) if node == self.me => {
                    format!(
                        "quarantined: {why}; mend that (systemctl status shows it), then \
                         hafailover clear {name}"
                    )
                }
                _ => format!(
                    "quarantined after failures: journalctl -u {unit} on {on} says which; mend \
                     them, then hafailover clear {name}"
                ),
            },
            Unfit::NoCarrier => {
                let interface = seen.and_then(|s| s.no_carrier.as_deref());
                format!(
                    "no carrier on {}, which an address of the group needs: look at its cable and \
                     the switch",
                    interface.map_or("the interface".to_string(), |i| format!("interface {i}"))
                )
            }
            Unfit::Stray => format!(
                "members run there that nobody started for the cluster: on {on}, hafailover clear \
                 {name} stops them, hafailover adopt {name} keeps them"
            ),
            Unfit::NotLoaded => match seen.and_then(|s| s.unloaded.as_ref()) {
                Some(why) => format!("its units are not loaded as they must be: {why}"),
                None => format!(
                    "its units are not loaded as they must be, or systemd there does not answer: \
                     hafailover check on {on} tells which"
                ),
            },
            Unfit::Amnesiac => "has lost its state: it learns it once it has heard every node; \
                                start hafailover on the others"
                .into(),
            Unfit::NoState => format!(
                "cannot write its state file: journalctl -u hafailover on {on} says why; make \
                 room, or mend the disk"
            ),
            Unfit::Double => format!(
                "another machine uses its name: stop hafailover on the one that is not {on}, or \
                 give it a name of its own"
            ),
            Unfit::Other => format!(
                "unfit for a reason that only its newer hafailover knows: hafailover explain \
                 {name} on {on}"
            ),
        }
    }

    fn leaving_words(&self, node: NodeId) -> String {
        let on = self.name(node);
        match node != self.me && self.peer(node).mood.guarding {
            true => format!(
                "its daemon is lost, and its guard stops what it holds: journalctl -u hafailover \
                 on {on} says why, and systemctl start hafailover there brings it back"
            ),
            false => format!(
                "leaving: its daemon or the machine is being stopped; systemctl start hafailover \
                 on {on} brings it back"
            ),
        }
    }
}
