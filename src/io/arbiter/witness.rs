//! A witness as arbiter: questions over UDP, repeated until the answer comes or their time is over.

use super::{Arbiter, Asker, Question};
use crate::config::arbiter::witness::Settings;
use crate::core::grant::{Ask, Verdict};
use crate::core::{LeaseAnswer, LeaseVerb};
use crate::io::clock;
use crate::wire::witness::{Answered, Asked, DATAGRAM_MAX, Way, open, seal};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::time::Duration;

/// A question is repeated so often within its time; the last repetition has as long as the others.
const TRIES: u32 = 5;

pub struct Witness {
    at: Settings,
    asker: Asker,
    socket: Option<UdpSocket>,
    session: u64,
    number: u64,
    challenge: u64,
}

impl Witness {
    pub fn new(at: Settings, asker: Asker) -> std::io::Result<Witness> {
        let session = random()?;
        Ok(Witness { at, asker, socket: None, session, number: 0, challenge: 0 })
    }

    /// A socket of its own; made anew after an error: the address may have been missing.
    fn socket(&mut self) -> std::io::Result<&UdpSocket> {
        if self.socket.is_none() {
            let any: IpAddr = match self.at.address.is_ipv6() {
                true => Ipv6Addr::UNSPECIFIED.into(),
                false => Ipv4Addr::UNSPECIFIED.into(),
            };
            let socket = UdpSocket::bind((any, 0))?;
            socket.connect(self.at.address)?;
            self.socket = Some(socket);
        }
        Ok(self.socket.as_ref().expect("made above"))
    }

    fn try_ask(&mut self, question: &Question) -> std::io::Result<Verdict> {
        let end = clock::now() + question.limit;
        let pause = question.limit / TRIES;
        let ask = Ask {
            node: self.asker.node.clone(),
            group: question.group.clone(),
            epoch: question.epoch,
            verb: question.verb,
            term: question.term,
        };
        loop {
            self.number += 1;
            let (session, number, challenge) = (self.session, self.number, self.challenge);
            let asked = Asked { session, number, challenge, ask: ask.clone() };
            let sealed = seal(Way::ToWitness, &self.asker.cluster, &self.asker.keys, &asked);
            let sealed =
                sealed.ok_or_else(|| std::io::Error::other("it does not fit a datagram"))?;
            let answered = self.exchange(&sealed, number, end, pause)?;
            self.challenge = answered.challenge;
            if let Some(verdict) = answered.verdict {
                return Ok(verdict);
            }
        }
    }

    /// Sends it, again and again, until its own answer comes.
    fn exchange(
        &mut self,
        sealed: &[u8],
        number: u64,
        end: crate::core::time::Instant,
        pause: Duration,
    ) -> std::io::Result<Answered> {
        let session = self.session;
        let (cluster, keys) = (self.asker.cluster.clone(), self.asker.keys.clone());
        let socket = self.socket()?;
        let mut buffer = [0; DATAGRAM_MAX + 1];
        loop {
            // Refused: nobody listens there at this moment. What was sent before may be answered.
            let refused = socket.send(sealed).err();
            let again = clock::now() + pause;
            loop {
                let now = clock::now();
                let left = again.min(end).since(now);
                if now >= end {
                    let late = std::io::Error::other("it does not answer");
                    return Err(refused.unwrap_or(late));
                }
                if left.is_zero() {
                    break;
                }
                socket.set_read_timeout(Some(left))?;
                let Ok(len) = socket.recv(&mut buffer) else {
                    // An error is told at once: not asked again in a burst.
                    std::thread::sleep(again.min(end).since(clock::now()));
                    continue;
                };
                let answered = open::<Answered>(Way::ToNode, &cluster, &keys, &buffer[..len]);
                let ours = |a: &Answered| (a.session, a.number) == (session, number);
                if let Some(answered) = answered.filter(ours) {
                    return Ok(answered);
                }
            }
        }
    }
}

impl Arbiter for Witness {
    fn ask(&mut self, question: &Question) -> LeaseAnswer {
        match self.try_ask(question) {
            Ok(Verdict::Granted) => LeaseAnswer::Granted,
            Ok(Verdict::Refused { why, top }) => LeaseAnswer::Refused { why, top },
            Err(error) => {
                self.socket = None;
                let verb = match question.verb {
                    LeaseVerb::Acquire => "acquire",
                    LeaseVerb::Renew => "renew",
                    LeaseVerb::Release => "release",
                };
                LeaseAnswer::Unknown(format!("{}: {verb}: {error}", self.describe()))
            }
        }
    }

    fn describe(&self) -> String {
        format!("witness {}", self.at.address)
    }
}

fn random() -> std::io::Result<u64> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|e| std::io::Error::other(e.to_string()))?;
    Ok(u64::from_be_bytes(bytes).max(1))
}
