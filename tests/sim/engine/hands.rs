//! What the core asks for, carried out: frames, the disk, and what is said. Jobs are in `jobs`.

use crate::borders::Border;
use crate::net::Delivery;
use crate::newer::{is_understood, newer};
use crate::rng::MS;
use crate::world::{Next, World};
use hafailover::core::heartbeat::Heartbeat;
use hafailover::core::name::{Epoch, GroupName, LinkId};
use hafailover::core::record::Record;
use hafailover::core::say::{Saying, What};
use hafailover::core::{Action, Event, Reply};
use hafailover::wire::Refusal;
use hafailover::wire::line::line_time;

/// More in answer to one event would be a storm.
const ACTIONS_MAX: usize = 120;

impl World {
    pub fn group(&self, name: &GroupName) -> usize {
        self.options.groups.iter().position(|g| g.name == *name).expect("a known group")
    }

    pub fn perform(&mut self, n: usize, actions: Vec<Action>) {
        if actions.len() > ACTIONS_MAX {
            self.broken("Bounded", n, &format!("{} actions in answer to one event", actions.len()));
        }
        let life = self.nodes[n].life;
        for action in actions {
            // It may have died between two of them.
            if self.nodes[n].life != life {
                return;
            }
            match action {
                Action::Send { link, heartbeat } => self.send(n, link, &heartbeat),
                Action::Persist { ticket, record } => self.persist(n, ticket, &record),
                Action::Start { group, epoch, job, valid_until } => {
                    let g = self.group(&group);
                    self.check_reload(n, g);
                    self.check_start(n, g, epoch, valid_until);
                    self.check_guarded(n, g);
                    self.order_start(n, g, epoch, job, valid_until);
                    self.border(n, Border::StartOrdered);
                }
                Action::Stop { group, job } => {
                    let g = self.group(&group);
                    self.check_reload(n, g);
                    self.check_stop(n, g);
                    self.order_stop(n, g, job);
                    self.border(n, Border::StopOrdered);
                }
                Action::Adopt { group, epoch } => {
                    let g = self.group(&group);
                    self.nodes[n].units[g].token = Some(epoch);
                    self.dirty(n, g);
                }
                Action::Observe { group } => {
                    let (g, life) = (self.group(&group), self.nodes[n].life);
                    let after = self.rng.range(MS / 10, 3 * MS);
                    if let Some(daemon) = &mut self.nodes[n].daemon {
                        daemon.last_seen.remove(&g);
                    }
                    self.later(after, Next::Look { node: n, life, group: g });
                }
                Action::KillUsers { group, unit, job } => self.kill_users(n, group, &unit, job),
                Action::Reset { group, .. } => self.reset_self(n, &group),
                Action::Announce { .. } | Action::Prove { .. } => {}
                Action::Fence { node, id, .. } => self.order_fence(n, node, id),
                Action::FenceEnd { node } => self.end_fence(n, node),
                Action::FenceCheck { node, id } => self.try_fence(n, node, id),
                Action::Lease { group, epoch, ticket, verb } => {
                    self.ask_arbiter(n, &group, epoch, (ticket, verb));
                }
                Action::Lasts { group, epoch, until } => {
                    let g = self.group(&group);
                    self.note_lasts(n, g, epoch, until);
                }
                Action::Say(saying) => self.said(n, &saying),
                Action::Answer { request, reply } => self.answered(n, request, reply),
                Action::Exit => {
                    self.note(n, "daemon exits");
                    self.check_exit(n);
                    self.end_daemon(n);
                    let (boot, after) = (self.nodes[n].boots, self.restart_time());
                    self.later(after, Next::Daemon { node: n, boot });
                }
            }
        }
    }

    /// How long systemd takes to start the daemon again, from now.
    pub fn restart_time(&mut self) -> u64 {
        if self.quiet { 100 * MS } else { self.rng.pick(&[60, 150, 400, 2500]) * MS }
    }

    fn send(&mut self, n: usize, link: LinkId, beat: &Heartbeat) {
        let l = usize::from(link.0);
        let now = self.nodes[n].now(self.t);
        self.note_announced(n, beat);
        let Some(daemon) = &mut self.nodes[n].daemon else { return };
        if !daemon.may_send(link, now) {
            return;
        }
        let Some(mut frame) = daemon.codec.encode(beat) else {
            return self.broken("Bounded", n, "a heartbeat is too long for a frame");
        };
        if daemon.newer {
            frame = newer(&daemon.codec, &frame);
        }
        let later = daemon.newer;
        if let Some(baud) = self.net.serial(l) {
            daemon.busy(link, now + line_time(frame.len(), baud));
        }
        self.count_frame(n, l);
        if later {
            self.said_later(n, beat, &frame);
        }
        let claim = self.check_said(n, beat);
        self.note_vouched(n, beat);
        self.give_vouchers(n, beat);
        self.note_care(n, beat);
        self.check_outvoted(n, beat);
        self.transmit(n, l, &frame);
        if claim {
            self.border(n, Border::ClaimSaid);
        }
    }

    fn said_later(&mut self, n: usize, beat: &Heartbeat, frame: &[u8]) {
        self.cover.hit("frame of a later version");
        if !is_understood(frame, beat, self.nodes.len()) {
            self.broken("Understood", n, &format!("a later version's frame: {beat:?}"));
        }
    }

    pub fn transmit(&mut self, n: usize, l: usize, frame: &[u8]) {
        if self.options.has(crate::options::Fault::Replay) {
            self.net.record(self.t, l, n, frame);
        }
        if self.options.links[l].disk {
            return self.write_slot(n, l, frame);
        }
        for to in (0..self.nodes.len()).filter(|to| *to != n) {
            if !self.options.joins(l, n, to) {
                continue;
            }
            for delivery in self.net.send(&mut self.rng, self.t, (l, n, to), frame) {
                self.deliver(l, n, delivery);
            }
        }
    }

    fn deliver(&mut self, link: usize, from: usize, delivery: Delivery) {
        let Delivery { to, at, bytes, stale } = delivery;
        if stale {
            self.cover.hit("stale serial frames");
        }
        let sent = self.t;
        match self.net.serial(link) {
            Some(_) => self.at(at, Next::Bytes { node: to, link, from, bytes, sent }),
            None => self.at(at, Next::Frame { node: to, link, from, bytes, sent, replay: false }),
        }
    }

    fn persist(&mut self, n: usize, ticket: u64, record: &Record) {
        let border = self.check_record(n, record);
        self.check_write(n, record);
        let t = self.t;
        let disk = &mut self.nodes[n].disk;
        disk.begin(record);
        let good = t >= disk.full_until;
        let slow = t < disk.slow_until;
        let after = if slow { self.rng.ms(50, 1500) } else { self.rng.range(MS / 5, 8 * MS) };
        let life = self.nodes[n].life;
        self.later(after, Next::Written { node: n, life, ticket, good });
        if let Some(border) = border {
            self.border(n, border);
        }
    }

    pub fn written(&mut self, n: usize, ticket: u64, good: bool) {
        self.nodes[n].disk.end(good);
        let result = if good { Ok(()) } else { Err("no space left on device".to_string()) };
        let life = self.nodes[n].life;
        self.later(0, Next::Tell { node: n, life, event: Event::Persisted { ticket, result } });
    }

    pub fn refused(&mut self, refusal: Refusal) {
        match refusal {
            Refusal::Replay => self.cover.hit("frame refused as a replay"),
            Refusal::OldSession => self.cover.hit("frame refused as of an old session"),
            _ => {}
        }
    }

    fn answered(&mut self, n: usize, request: u64, reply: Reply) {
        let words = match &reply {
            Reply::Progress(words) => format!("answers … {words}"),
            Reply::Done(words) => format!("answers done: {words}"),
            Reply::Refused(words) => format!("answers refused: {words}"),
        };
        self.note(n, &words);
        match reply {
            Reply::Progress(_) => return,
            Reply::Done(_) => self.cover.hit("request answered"),
            Reply::Refused(_) => self.cover.hit("request refused"),
        }
        self.rules.asked.remove(&(n, request));
    }

    fn said(&mut self, n: usize, saying: &Saying) {
        self.count_saying(n, saying);
        if saying.what == What::AmnesiaOver {
            self.amnesia_over(n);
        }
        let name = saying.group.as_ref().map(|g| format!(" {g}")).unwrap_or_default();
        if let Some(group) = &saying.group {
            let g = self.group(group);
            match saying.what {
                What::GroupPromised => {
                    let epoch = saying.epoch.unwrap_or_default();
                    self.check_promise(n, g, epoch);
                }
                What::GroupPhase => {
                    self.rules.phase[n][g] = match saying.to.as_str() {
                        "stopped" => '.',
                        "starting" => '>',
                        "running" => 'R',
                        "stopping" => 'x',
                        "stuck" => '!',
                        _ => 'U',
                    }
                }
                What::GroupReleased => {
                    let next = saying.epoch.unwrap_or_default().counter + 1;
                    let given = saying.peer.map(|node| Epoch { counter: next, node });
                    self.rules.given[g].extend(given);
                }
                What::GroupClaimed => {
                    self.rules.phase[n][g] = 'c';
                    self.check_claim(n, g, saying.epoch.unwrap_or_default());
                }
                What::TwoOwners if !saying.reason.contains("this one") => {
                    self.check_way(n, g, saying.peer.unwrap_or_default());
                }
                What::ClaimWithdrawn => self.rules.phase[n][g] = '.',
                What::Quarantined => {
                    let lasts = self.options.groups[g].policy.quarantine.as_nanos() as u64;
                    self.rules.quarantine[n][g] = self.t + lasts * 97 / 100;
                }
                What::QuarantineOver => self.rules.quarantine[n][g] = 0,
                _ => {}
            }
        }
        let peer = saying.peer.map(|p| format!(" n{}", p.0 + 1)).unwrap_or_default();
        let epoch = saying.epoch.map(|e| format!(" {}.n{}", e.counter, e.node.0 + 1));
        let what = match saying.what {
            What::GroupPhase => format!("{}>{}", saying.from, saying.to),
            what => what.key().to_string(),
        };
        let proof = match saying.evidence.is_empty() {
            true => String::new(),
            false => format!(" [{}]", saying.evidence),
        };
        let reason = &saying.reason;
        self.note(n, &format!("{what}{name}{peer}{}: {reason}{proof}", epoch.unwrap_or_default()));
    }

    fn count_saying(&mut self, n: usize, saying: &Saying) {
        let row = match saying.what {
            What::Stalled => "stall noticed",
            What::RedundancyLost => "jeopardy",
            What::Amnesia => "amnesia",
            What::AmnesiaOver => "amnesia over",
            What::UsersKilled => "users killed",
            What::FenceSelf => "reset of itself announced",
            What::FenceSelfFailed => "reset of itself not made",
            What::QuorumLost => "quorum lost",
            What::QuorumRegained => "quorum regained",
            What::GroupStuck => "stuck stop",
            What::StartFailed if saying.reason.contains("too old") => "start refused as too late",
            What::StartFailed => "start failed",
            What::MemberFailed => "member failed and was started again",
            What::Quarantined => "quarantined",
            What::StrayFound => "stray found",
            What::GroupAdopted => "adopted after a restart",
            What::ByHand => "stopped by hand",
            What::MaintenanceOn => "maintenance",
            What::StandbyOn => "standby",
            What::CarrierLost => "carrier lost",
            What::ClaimWithdrawn => "claim withdrawn",
            What::PeerDeaf => "peer deaf",
            What::OwnerYields => "owner yielded",
            What::FenceFailed => "fence failed",
            What::FenceGivenUp => "fence given up",
            What::FenceLied => "fence found lying",
            What::FenceDrillFailed => "fence drill failed",
            What::StateFailed => "state file cannot be written",
            What::GroupPhase if saying.reason.contains("without a running member") => {
                "token without members"
            }
            What::GroupPhase if saying.to == "stopping" && saying.reason.contains("failback") => {
                "failback"
            }
            What::GroupPhase if saying.to == "stopping" && saying.reason == "moved by operator" => {
                "move by operator"
            }
            What::GroupPhase if saying.to == "stopping" && saying.reason.contains("quorum") => {
                "stopped without a majority"
            }
            What::GroupStarted => return self.count_start(n, &saying.evidence),
            _ => return,
        };
        self.cover.hit(row);
    }

    fn count_start(&mut self, _n: usize, evidence: &str) {
        for (word, row) in [
            ("=Promise", "start by Promise"),
            ("=Released", "start by Released"),
            ("=Silent", "start by Silent"),
            ("=Unseen", "start by Unseen"),
            ("=Operator", "start by Operator"),
            ("=Fenced", "start by Fenced"),
            ("=Expired", "start by Expired"),
        ] {
            if evidence.contains(word) {
                self.cover.hit(row);
            }
        }
    }
}
