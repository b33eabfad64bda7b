//! The core shown to people: `status` and `explain` are this value printed.

use super::heartbeat::{Held, Phase};
use super::name::{GroupName, LinkId, NodeId};
use super::outcome::owner;
use super::ownership;
use super::policy::OnSilence;
use super::time::Instant;
use super::view::{GroupNodeView, GroupView, LinkView, NodeView, Presence, View};
use super::world::World;
use super::{Core, Evidence, ownership::Decision};

impl Core {
    /// A peer that has not taken these settings yet, as far as is heard; and whether it is heard,
    /// and hears this node.
    pub fn behind(&self, now: Instant, settings: u64) -> Option<(&str, bool)> {
        let world = self.world(now);
        let mut behind = self.peers.iter().filter_map(|(id, peer)| {
            let alive = world.presence(*id) == Presence::Alive;
            (!alive || peer.fingerprint != settings).then_some((*id, alive))
        });
        let (id, alive) = behind.next()?;
        let name = self.policy.nodes.get(usize::from(id.0));
        Some((name.map_or("?", String::as_str), alive))
    }

    pub fn view(&self, now: Instant) -> View {
        let world = self.world(now);
        let nodes = (0..self.policy.nodes.len()).map(|n| self.node_view(&world, NodeId(n as u8)));
        let disarmed = self.disarmed(&world);
        View {
            me: self.policy.me,
            nodes: nodes.collect(),
            links: self.policy.links.clone(),
            groups: self.groups.keys().map(|name| self.group_view(&world, name)).collect(),
            maintenance: world.wishes.maintenance.value,
            fences: self.fence_views(&world),
            quorum: world.quorum(),
            warnings: self.warnings(&world, &disarmed),
            disarmed,
        }
    }

    fn node_view(&self, world: &World, id: NodeId) -> NodeView {
        let me = id == self.policy.me;
        let peer = (!me).then(|| world.peer(id));
        let up = peer.map(|p| p.links_up(world.lived, self.policy.timing.deadtime));
        let all = (0..self.links.len()).map(|n| (n, LinkId(n as u8)));
        let there = all.filter(|(_, link)| match me {
            true => self.policy.has(*link),
            false => self.policy.joins(*link, id),
        });
        let links = there.map(|(n, link_id)| {
            let link = &self.links[n];
            let last = peer.and_then(|p| p.heard_on(link_id)).map(|l| world.lived.since(l));
            LinkView {
                name: self.policy.links[n].clone(),
                up: up.is_some_and(|up| up.contains(link_id)),
                usable: (!link.usable).then(|| link.why.clone()),
                last_heard: last,
            }
        });
        NodeView {
            id,
            name: world.name(id).to_string(),
            presence: world.presence(id),
            standby: world.in_standby(id),
            mood: peer.map_or_else(|| self.mood(), |p| p.mood),
            last_sign: peer.and_then(|p| p.silent_for(world.lived)),
            links: links.collect(),
            same_settings: peer
                .is_none_or(|p| p.session().is_none() || p.fingerprint == self.policy.fingerprint),
        }
    }

    /// Peers whose death would not be acted on, and why.
    fn disarmed(&self, world: &World) -> Vec<String> {
        let safety = &self.policy.safety;
        let mut words = Vec::new();
        for id in world.others() {
            let name = world.name(id);
            if self.fence_is_ready(world, id) {
                continue;
            }
            if safety.silence == OnSilence::Hold {
                words.push(format!(
                    "the silence of {name} is not acted on (silence = \"hold\"): a takeover after \
                     its death needs hafailover confirm-down {name}"
                ));
            } else if self.policy.cables_to(id) >= 2 && safety.last_link == OnSilence::Hold {
                let up = world.peer(id).links_up(world.lived, self.policy.timing.deadtime);
                if world.heard(id) && self.policy.cables_of(up) < 2 {
                    words.push(format!(
                        "{name} is heard on {} of {} cables: its death would not be acted on until \
                         two work",
                        self.policy.cables_of(up),
                        self.policy.cables_to(id)
                    ));
                } else if !world.heard(id)
                    && world.presence(id) == Presence::Silent
                    && world.disarmed_at(id)
                {
                    words.push(format!(
                        "{name} fell silent when only one link was left: if it is surely off, \
                         hafailover confirm-down {name}"
                    ));
                }
            }
        }
        words
    }

    fn warnings(&self, world: &World, disarmed: &[String]) -> Vec<String> {
        let mut words: Vec<String> = disarmed.iter().map(|d| format!("disarmed: {d}")).collect();
        if let Some(quorum) = world.quorum().filter(|_| world.minority) {
            words.push(format!("no quorum: {}: {}", quorum.words(), self.minority_words()));
        }
        if let Some(why) = &self.arbiter.lost {
            words.push(format!(
                "the arbiter does not answer ({why}): the loss of a peer as well stops what runs: \
                 mend it, or write another [arbiter] on all nodes and reload them at once, where \
                 groups run last; explain GROUP shows the time that is left"
            ));
        }
        if let Some((why, _)) = &self.store.failed {
            words.push(format!(
                "the state file cannot be written ({why}): nothing new is taken until there is \
                 room, or its disk is mended"
            ));
        }
        if self.store.slow {
            words.push("the disk of the state file does not answer: nothing new is taken".into());
        }
        words.extend(self.fence_warnings(world));
        words.extend(self.double_words(world.now));
        if !self.store.record.known {
            words.push(
                "this node has no state file: it takes nothing until it has heard every node; for \
                 a new cluster stop the daemon, hafailover state create, start it again"
                    .into(),
            );
        }
        for id in world.others() {
            if world.presence(id) == Presence::Deaf {
                words.push(format!(
                    "{} is heard but does not hear this node: look at cables and firewall",
                    world.name(id)
                ));
            }
            if world.heard(id) && world.peer(id).fingerprint != self.policy.fingerprint {
                words.push(format!(
                    "{} has another hafailover.toml: make the files equal and reload",
                    world.name(id)
                ));
            }
        }
        words
    }

    fn group_view(&self, world: &World, name: &GroupName) -> GroupView {
        let group = world.group(name);
        let decision = ownership::decide(world, name);
        let owner = owner(world, name).map(|(node, _)| node);
        let wish = world.wish(name).value;
        let mut waits_for = match decision {
            Decision::Wait(words) => words,
            _ => Vec::new(),
        };
        if owner.is_none() && waits_for.is_empty() {
            waits_for = self.idle_words(world, name);
        }
        if let Some(stuck) = &group.stuck {
            waits_for.push(format!("a stop failed: {}", stuck.why));
        }
        if group.retired && group.held() == Held::Yes {
            waits_for.push(format!(
                "it is no longer enabled but still runs here: systemctl enable {0} keeps it, \
                 systemctl stop {0} stops it",
                name.unit()
            ));
        }
        let word = |(node, e): &(NodeId, Evidence)| format!("{}={e}", world.name(*node));
        let proof = group.proof.as_ref();
        let evidence = proof.map(|p| p.against.iter().map(word).collect()).unwrap_or_default();
        GroupView {
            name: name.clone(),
            phase: group.phase(),
            held: group.held(),
            degraded: group.degraded.clone(),
            owner,
            epoch: group.own.unwrap_or(world.top_epoch(name)),
            members: group.members().to_vec(),
            down_by_operator: wish.down,
            maintenance: wish.maintenance,
            evidence,
            held_for: proof.map(|p| world.now.since(p.since)),
            waits_for,
            holders: group.stuck.as_ref().map(|s| s.holders.clone()).unwrap_or_default(),
            strays: group.strays.clone(),
            nodes: self.group_nodes(world, name),
            explanation: ownership::explain(world, name),
        }
    }

    /// Why nobody runs it although nothing is being waited for here.
    pub(super) fn idle_words(&self, world: &World, name: &GroupName) -> Vec<String> {
        if world.wish(name).value.down {
            return vec![format!(
                "an operator stopped it: hafailover clear {name} lets the nodes start it again"
            )];
        }
        match world.choice(name) {
            Some(node) => vec![format!("{} is to start it", world.name(node))],
            None => self.bars(world, name, NodeId(u8::MAX)),
        }
    }

    /// What bars each node of the group but one from it.
    pub(super) fn bars(&self, world: &World, name: &GroupName, but: NodeId) -> Vec<String> {
        let nodes = world.group(name).policy.nodes.iter().filter(|n| **n != but);
        let why = |n: &NodeId| Some((world.name(*n), world.why_not(name, *n)?));
        nodes.filter_map(why).map(|(n, w)| format!("{n}: {w}")).collect()
    }

    fn group_nodes(&self, world: &World, name: &GroupName) -> Vec<GroupNodeView> {
        let group = world.group(name);
        let view = |node: &NodeId| {
            let me = *node == self.policy.me;
            let report = (!me).then(|| world.peer(*node).reports.get(name)).flatten();
            let left = match me {
                true => group.quarantine.as_ref().map(|(until, _)| until.since(world.now)),
                false => report.map(|r| r.quarantine).filter(|q| !q.is_zero()),
            };
            let heard = me || world.heard(*node);
            GroupNodeView {
                node: *node,
                held: match me {
                    true => group.held(),
                    false => report.filter(|_| heard).map(|r| r.held).unwrap_or_default(),
                },
                phase: match me {
                    true => group.phase(),
                    false => report.filter(|_| heard).map_or(Phase::Unknown, |r| r.phase),
                },
                differs: report.is_some_and(|r| r.fingerprint != group.policy.fingerprint),
                other_texts: heard && report.is_some_and(|r| group.other_texts(r)),
                unfit: if me { world.unfit(name) } else { report.and_then(|r| r.unfit) },
                tally: match me {
                    true => group.tally(),
                    false => report.filter(|_| heard).map(|r| r.tally).unwrap_or_default(),
                },
                quarantine: left,
                reason: world.why_not(name, *node).unwrap_or_default(),
            }
        };
        group.policy.nodes.iter().map(view).collect()
    }
}
