//! The virtual systemd of one node: units with their states, slow, hanging and failing jobs. What
//! the daemon's hands do with it is in `hands`.

use hafailover::core::name::Epoch;
use hafailover::core::time::Instant;
use hafailover::core::{Member, MemberState, Observation};

#[derive(Clone, Debug)]
pub struct Unit {
    pub state: MemberState,
    /// Grows with each job, so that an end of an older one is not this one's.
    pub job: u64,
    /// The kernel still holds something of it though systemd has it down.
    pub leftover: bool,
    pub result: &'static str,
    pub restarts: u32,
    pub by_hand: bool,
    pub hard: bool,
}

/// The members of one group on one node; the token is in /run and dies with the boot.
#[derive(Clone, Debug)]
pub struct Units {
    pub units: Vec<Unit>,
    pub token: Option<Epoch>,
    /// Where the token is from the beginning of a stop until its end is verified.
    pub closed: Option<Epoch>,
    /// Until when the owner by that epoch may go on, as the daemon wrote it down.
    pub lasts: Option<(Epoch, Instant)>,
    /// The token that the reservation's program read when it began, and by which it has taken its
    /// disk in this boot.
    pub read: Option<Epoch>,
    pub key: Option<Epoch>,
    pub no_carrier: bool,
    /// Somebody else started something of it, past the gate: nobody can rule that out.
    pub stray: bool,
}

impl Units {
    pub fn new(members: usize, soft: bool) -> Units {
        let unit = |hard| Unit {
            state: MemberState::Inactive,
            job: 0,
            leftover: false,
            result: "",
            restarts: 0,
            by_hand: false,
            hard,
        };
        let mut units: Vec<Unit> = (0..members).map(|_| unit(true)).collect();
        if soft {
            units.push(unit(false));
        }
        let (token, closed, lasts, read, key) = (None, None, None, None, None);
        Units { units, token, closed, lasts, read, key, no_carrier: false, stray: false }
    }

    /// What only somebody who sees everything knows: something of it is here.
    pub fn here(&self) -> bool {
        self.units.iter().any(|u| !u.down() || u.leftover)
    }

    /// What the daemon goes by: it is held here.
    pub fn held(&self) -> bool {
        self.token.or(self.closed).is_some()
    }

    pub fn lasts_of(&self, epoch: Epoch) -> Option<Instant> {
        self.lasts.filter(|(of, _)| *of == epoch).map(|(_, until)| until)
    }

    pub fn whole(&self) -> bool {
        self.units.iter().filter(|u| u.hard).all(|u| u.state == MemberState::Active)
    }

    pub fn observe(&self) -> Observation {
        let member = |(n, u): (usize, &Unit)| Member {
            unit: format!("m{n}.service"),
            hard: u.hard,
            state: u.state,
            result: u.result.into(),
            restarts: u.restarts,
            by_hand: u.by_hand && u.down(),
        };
        let left = self.units.iter().enumerate().filter(|(_, u)| u.down() && u.leftover);
        Observation {
            members: self.units.iter().enumerate().map(member).collect(),
            token: self.token,
            closed: self.closed,
            leftovers: left.map(|(n, _)| format!("a process of m{n}.service")).collect(),
            blind: false,
            unloaded: None,
            no_carrier: self.no_carrier.then(|| "eth9".to_string()),
            proof: None,
            lasts: self.token.or(self.closed).and_then(|epoch| self.lasts_of(epoch)),
        }
    }
}

impl Unit {
    pub fn down(&self) -> bool {
        matches!(self.state, MemberState::Inactive | MemberState::Failed)
    }

    pub fn settled(&self) -> bool {
        !matches!(self.state, MemberState::Activating | MemberState::Deactivating)
    }
}
